"""What a checkpoint says of the samples that its encoder hears: rate, scale, filling, and the fewest that give a vector. Light."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from modelgraft.plugin import TowerCard, families
from modelgraft_plugins import processor_files
from modelgraft_plugins.audio import waves
from modelgraft_plugins.processor_files import NATURAL, NUMBER, SWITCH, WORD, Wanted, Written

if TYPE_CHECKING:
    from modelgraft.plugin import Source

KIND = "Wav2Vec2FeatureExtractor"
# the field of a published file -> ours
PUBLISHED: Mapping[str, str] = {"sampling_rate": "sample_rate_hz", "do_normalize": "normalize", "padding_value": "filling"}
KEYS: Mapping[str, Wanted] = {
    "sampling_rate": NATURAL, "do_normalize": SWITCH, "padding_value": NUMBER, "return_attention_mask": SWITCH,
    "feature_size": ("1: samples of one channel", lambda value: value == 1),
    "padding_side": ("'right': a sound is filled up behind its end", lambda value: value == "right"),
    "feature_extractor_type": WORD,
}  # fmt: skip
OF_PICTURES = frozenset({"image_processor_type", "image_mean", "image_size", "do_resize", "crop_size", "resample"})


def written(source: Source) -> Written | None:
    """The file of the feature extractor, if there is one."""
    return processor_files.find(source, "feature_extractor", "audio_processor")


def samples_config(source: Source) -> dict[str, Any]:
    """The fields of audio/samples that a checkpoint decides.

    fairseq scales sounds for encoders whose convolutions are layer-normed, where its config does not say it itself.
    Raises ValueError for a feature extractor of another kind, and SourceError `source-damaged` for values of other kinds.
    """
    found = _by_encoder(source)
    stated = written(source)
    if stated is None:
        return found
    stated.check({"feature_extractor_type": WORD})
    if stated.values.keys() & OF_PICTURES and "feature_extractor_type" not in stated.values:
        raise ValueError(f"{source.text} prepares pictures: its file states {', '.join(sorted(stated.values.keys() & OF_PICTURES))}")
    kind = stated.values.get("feature_extractor_type", KIND)
    if kind != KIND:
        raise ValueError(f"audio/samples has no '{kind}'; it has {KIND}")
    stated.check(KEYS, null=False)
    return {**found, **{ours: stated.values[theirs] for theirs, ours in PUBLISHED.items() if theirs in stated.values}}


def _by_encoder(source: Source) -> dict[str, Any]:
    """What its encoder needs; nothing, where no card speaks of it."""
    kind = str(source.root.get("model_type", "wav2vec2"))
    card = families().of_medium("audio").get(kind, TowerCard("audio"))
    if not waves.is_heard(card):
        return {}
    facts = waves.facts_of(source.at("") if source.part else source, card)
    found: dict[str, Any] = {} if "conv_stride" not in facts else {"least_samples": waves.least_samples(facts)}
    settings = waves.settings_of(source)
    if waves.words_of(settings) is None and source.root:
        return found
    said = _said(settings, "normalize")
    return {**found, "normalize": facts["feat_extract_norm"] == "layer" if said is None else bool(said)}


def _said(config: Mapping[str, Any], key: str) -> Any:
    """A word of fairseq, wherever among its settings it stands."""
    if config.get(key) is not None:
        return config[key]
    inside = (config[name] for name in ("cfg", "args", "task", "model", "w2v_args") if isinstance(config.get(name), Mapping))
    return next((found for part in inside if (found := _said(part, key)) is not None), None)
