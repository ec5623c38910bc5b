"""What the parts of SimVLM have in common, and where the numbers of a checkpoint stand. Light."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import PositiveInt

from modelgraft_plugins.stated import Table, tower_table

if TYPE_CHECKING:
    from modelgraft.plugin import Source

STRIDE = 16  # pixels of a side for each vector of the stem: the first layer, the pooling and two of three stages halve it
LAST = 16  # channels of the third stage, in those of the first layer
GROUPS = 32  # channels are normed in so many groups, where they are: arXiv 1803.08494
Size = Mapping[Literal["height", "width"], PositiveInt]
STEM_WORDS = ("image_size", "conv_depths", "conv_width", "conv_norm")
TEXT_WORDS = ("d_model", "num_heads", "ffn_dim", "vocab_size", "max_text")
KEYS: Table = tower_table((*STEM_WORDS, *TEXT_WORDS, "encoder_layers", "decoder_layers"), ("grid", "heads"))  # of a config.json


def stated(source: Source, words: Iterable[str]) -> dict[str, Any]:
    """What a config.json says under some of our words. Raises ValueError for a config of another model."""
    kind = source.root.get("model_type", "simvlm")
    if kind != "simvlm":
        raise ValueError(f"{source.text} is no SimVLM: its model_type is '{kind}'")
    return {word: source.config[word] for word in words if word in source.config}


def unheeded(source: Source) -> Iterable[tuple[str, str]]:
    """What the config.json states and nothing here knows."""
    return KEYS.unheeded(source.config, source.text) if source.config.get("model_type", "simvlm") == "simvlm" else ()


def sides(size: Size | None, image_size: int) -> tuple[int, int]:
    """Height and width of the pixels that come."""
    return (size["height"], size["width"]) if size is not None else (image_size, image_size)


def refuse_uneven(size: Size | None, image_size: int) -> None:
    """Raise ValueError for sides that are no whole vectors of the stem."""
    if size is not None and set(size) != {"height", "width"}:
        raise ValueError(f"size is {dict(size)}, wanted {{height, width}}")
    for name, pixels in zip(("height", "width"), sides(size, image_size), strict=True):
        if pixels % STRIDE:
            ways = f"{max(1, pixels // STRIDE) * STRIDE} or {(pixels // STRIDE + 1) * STRIDE}"
            raise ValueError(f"the {name} is {pixels} pixels, and the stem gives a vector for each {STRIDE}: take {ways}")
