"""Parts of a checkpoint: which sub-config and which tensors `#vision_model` means.

Sub-config of a part, the first that there is:
    <part>_config, then without `_model`, `_tower`, `_encoder`, `_backbone`: <stem>_config, then by meaning
    language_model text_model llm -> text_config; vision_model vision_tower visual -> vision_config; audio_tower -> audio_config
    A part without a config of its own (language_projection, lm_head, a base such as `vit`) has the config around it.

Tensors of a part: those under `<part>.`, or under `model.<part>.`, `module.<part>.` (saved while it was trained on several
devices) or `<model type>.<part>.` when there are none. So these layouts look the same to a component:
    written as                                          key of the part
    vision_tower.vision_model.x      (before 5.0)       x
    vision_tower.x                   (5.0 and later)    x
    language_model.model.x           (LLaVA, BLIP-2)    model.x
    model.language_model.x           (in-memory names)  model.x
    model.text_model.x               (Idefics 2 and 3)  model.x of language_model, and of text_model
    lm_head.weight at the root       (in-memory names)  lm_head.weight of language_model, when it has none of its own
    query_tokens                     (a single tensor)  "" of the part query_tokens
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from modelgraft.kernel.words.errors import Problem, SourceError, choices, nearest

ENDINGS = ("_model", "_tower", "_encoder", "_backbone")
MEANINGS: Mapping[str, str] = {
    **dict.fromkeys(("language_model", "text_model", "llm"), "text_config"),
    **dict.fromkeys(("vision_model", "vision_tower", "visual"), "vision_config"),
    "audio_tower": "audio_config",
    "perceiver_resampler": "perceiver_config",
}
# Parts of the layouts above that have no config of their own: known also where no tensors are at hand.
PLAIN_PARTS = frozenset({
    "classifier", "language_projection", "lm_head", "logit_bias", "logit_scale", "model", "multi_modal_projector", "pooler",
    "query_tokens", "text_projection", "visual_projection", "encoder", "decoder",
})  # fmt: skip

Keys = Mapping[str, str]  # key of the part -> key in the files


def subconfig(root: Mapping[str, Any], part: str) -> Mapping[str, Any] | None:
    """The config of one step of a part's path, or None when the part has no config of its own."""
    stems = [part, *(part.removesuffix(ending) for ending in ENDINGS if part.endswith(ending))]
    for name in (*(f"{stem}_config" for stem in stems), MEANINGS.get(part, "")):
        if isinstance(found := root.get(name), dict):
            return found
    return None


def select(root: Mapping[str, Any], files: Iterable[str], part: str, *, source: str) -> tuple[Mapping[str, Any], Keys]:
    """Give the config and the tensors of a part: `""` for everything, `a.b` for b within a.

    files  the keys in the weight files; empty when there are no weights or their keys are not known

    Raises SourceError `unknown-part` with the parts there are.
    """
    config, keys = root, {key: key for key in files}
    if not keys and not root:
        return {}, {}  # nothing is known before the file is read, and nothing can be refused
    bare = not keys
    for step in filter(None, part.split(".")):
        found = subconfig(config, step)
        narrowed = _narrow(keys, step, config)
        known_without_keys = bare and (found is not None or step in PLAIN_PARTS or step == _base(root))
        if not narrowed and not known_without_keys:
            raise _unknown(step, config, keys, source)
        config, keys = found if found is not None else config, narrowed
    return config, keys


def _narrow(keys: Keys, part: str, config: Mapping[str, Any]) -> dict[str, str]:
    for base in ("", "model.", "module.", f"{_base(config)}."):
        prefix = f"{base}{part}."
        inside = {key.removeprefix(prefix): path for key, path in keys.items() if key.startswith(prefix)}
        if inside:
            return _uniform(inside, part, keys, config, is_based=bool(base))
        if base + part in keys:
            return {"": keys[base + part]}
    return _narrow(keys, "text_model", config) if part == "language_model" else {}  # as Idefics 2 and 3 call it


def _uniform(inside: dict[str, str], part: str, keys: Keys, config: Mapping[str, Any], *, is_based: bool) -> dict[str, str]:
    """Undo the differences between layouts that the table at the top lists."""
    if part == "vision_tower" and all(key.startswith("vision_model.") for key in inside):
        return {key.removeprefix("vision_model."): path for key, path in inside.items()}
    if part == "language_model" or (part == "text_model" and is_based):
        language = subconfig(config, part) or {}
        if is_based and not language.get("is_encoder_decoder") and not any(key.startswith("model.") for key in inside):
            inside = {f"model.{key}": path for key, path in inside.items()}
        if "lm_head.weight" in keys:
            inside.setdefault("lm_head.weight", keys["lm_head.weight"])
    return inside


def _base(config: Mapping[str, Any]) -> str:
    """The name under which transformers nests the body of a model with a head: `vit.`, `bert.`, `wav2vec2.`."""
    return str(config.get("model_type", "")).replace("-", "_")


def part_names(config: Mapping[str, Any], keys: Collection[str]) -> tuple[str, ...]:
    """The parts that a checkpoint has, for messages: first steps of its keys (below a lone `model.`), or of its sub-configs."""
    steps = {key.partition(".")[0] for key in keys}
    if "model" in steps:
        steps |= {key.split(".")[1] for key in keys if key.startswith("model.")}
    if not keys:
        steps |= {_part_of(name, config) for name, value in config.items() if name.endswith("_config") and isinstance(value, dict)}
    return tuple(sorted(steps))


def _part_of(name: str, config: Mapping[str, Any]) -> str:
    """The part that a sub-config is about, as the families name it: CLIP has a text_model, LLaVA a language_model."""
    stem = name.removesuffix("_config")
    if stem == "text":
        return "text_model" if str(config[name].get("model_type", "")).endswith("_text_model") else "language_model"
    if stem == "vision":
        return "vision_tower" if "llava" in str(config.get("model_type", "")) else "vision_model"
    return stem


def _unknown(part: str, config: Mapping[str, Any], keys: Collection[str], source: str) -> SourceError:
    names = part_names(config, keys)
    return SourceError(Problem("unknown-part", f"{source} has no part '{part}'; it has: {choices(names)}", hint=nearest(part, names)))
