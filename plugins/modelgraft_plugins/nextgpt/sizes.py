"""How many numbers a part of NExT-GPT has: by the words of a config.json, or by the shapes of the published file of trained parts.

Light: nothing here reads a tensor. Source: `TextFcLayer` of the published code, where all but the widths is written out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from modelgraft_plugins.stated import Table

if TYPE_CHECKING:
    from modelgraft.plugin import Source

FAMILY = "nextgpt"
# part of the published file -> the medium that it asks for
MEDIA: Mapping[str, str] = {"gen_text_hidden_fcs": "image", "gen_text_hidden_fcs_video": "video", "gen_text_hidden_fcs_audio": "audio"}
TABLE = Table(
    "config.json",
    obeyed=frozenset({
        "llm_width", "imagebind_width", "inner_width", "encoder_layers", "decoder_layers", "heads", *MEDIA.values(), "lora_r", "lora_alpha",
        "lora_targets", "llm_layers",
    }),
    idle=frozenset({"model_type", "architectures", "lora_dropout"}),
)  # fmt: skip
FEED = 4  # times the inner width: the layers between those of attention
SIGNALS: Mapping[str, int] = {"image": 4, "video": 24, "audio": 8}  # tokens of the published vocabulary, which no shape says


def of_output(source: Source) -> dict[str, Any]:
    """The fields of an output projection. Raises ValueError for a source of something else, and for one without a part."""
    medium = MEDIA.get(source.part)
    if medium is None:
        whole, parts = source.whole, list(MEDIA)
        raise ValueError(f"nextgpt/output is one of three: write {whole}#{parts[0]}, #{parts[1]} or #{parts[2]}")
    if source.root:
        return _by_words(source.root, medium)
    shapes = source.tensor_shapes()
    return {**by_shapes(shapes), "signals": SIGNALS[medium]} if shapes else {}


def _by_words(config: Mapping[str, Any], medium: str) -> dict[str, Any]:
    if (kind := config.get("model_type")) != FAMILY:
        raise ValueError(f"its projections are those of a {FAMILY}, and the config states model_type: {kind!r}")
    wanted = ("llm_width", "inner_width", "encoder_layers", "decoder_layers", "heads", medium)
    missing = [key for key in wanted if key not in config]
    if missing or not isinstance(config[medium], Mapping) or not {"tokens", "queries", "width"} <= config[medium].keys():
        lacks = missing or [f"{medium}: {{tokens, queries, width}}"]
        raise ValueError(f"its config.json lacks {', '.join(lacks)}")
    inner, own = config["inner_width"], config[medium]
    return {
        "hidden_size": config["llm_width"],
        "inner_size": inner,
        "encoder_layers": config["encoder_layers"],
        "decoder_layers": config["decoder_layers"],
        "heads": config["heads"],
        "feed_forward": FEED * inner,
        "queries": own["queries"],
        "width": own["width"],
        "signals": own["tokens"],
    }


def by_shapes(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """The fields by the shapes of one projection's tensors: all but the heads and the number of signal tokens.

    Raises ValueError where they are not those of one transformer.
    """
    wanted = ("0.fc.weight", "0.query_embs", "0.model.weight", "0.tfm.encoder.layers.0.linear1.weight")
    lacks = [key for key in wanted if key not in shapes]
    if lacks:
        raise ValueError(f"it is no projection by a transformer of the code of 2023: it has no {', '.join(lacks)}")
    if more := sorted({key.partition(".")[0] for key in shapes} - {"0"}):
        raise ValueError(f"it has projections of several layers (0, {', '.join(more)}), and one is served, that of the last")
    return {
        "hidden_size": shapes["0.fc.weight"][1],
        "inner_size": shapes["0.fc.weight"][0],
        "encoder_layers": _layers(shapes, "0.tfm.encoder.layers."),
        "decoder_layers": _layers(shapes, "0.tfm.decoder.layers."),
        "feed_forward": shapes["0.tfm.encoder.layers.0.linear1.weight"][0],
        "queries": shapes["0.query_embs"][1],
        "width": shapes["0.model.weight"][0],
    }


def _layers(shapes: Mapping[str, tuple[int, ...]], before: str) -> int:
    return len({key.removeprefix(before).partition(".")[0] for key in shapes if key.startswith(before)})
