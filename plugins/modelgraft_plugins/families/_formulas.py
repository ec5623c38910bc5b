"""What the formulas of parameters on several cards have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Facts = Mapping[str, Any]


def norm(width: int) -> int:
    """A norm with weight and bias."""
    return 2 * width


def linear(inputs: int, outputs: int, *, bias: bool) -> int:
    """A linear layer."""
    return inputs * outputs + (outputs if bias else 0)


def forward(width: int, inner: int) -> int:
    """A feed-forward layer of two linear ones with biases."""
    return linear(width, inner, bias=True) + linear(inner, width, bias=True)


def head(f: Facts, width: int, *, bias: bool = False) -> int:
    """The output head: nothing of its own when it is tied to the embeddings, but for a bias."""
    return (0 if f["tie_word_embeddings"] else width * f["vocab_size"]) + (f["vocab_size"] if bias else 0)


def gated(*, biases: str = "", norms: int = 2, head_norms: bool = False) -> Callable[[Facts], int]:
    """The formula of LLaMA and its relatives: RMS norms, grouped queries, gated feed-forward.

    biases      "qkv": always on queries, keys, values; "config": as `attention_bias` and `mlp_bias` say; "": none
    head_norms  queries and keys are normed per head
    """

    def count(f: Facts) -> int:
        width, inner, heads = f["hidden_size"], f["intermediate_size"], f["num_attention_heads"]
        pairs, size = f.get("num_key_value_heads") or heads, f.get("head_dim") or width // heads
        asked = biases == "config" and bool(f.get("attention_bias"))
        into = linear(width, heads * size, bias=asked or biases == "qkv") + 2 * linear(width, pairs * size, bias=asked or biases == "qkv")
        out = linear(heads * size, width, bias=asked)
        wide = biases == "config" and bool(f.get("mlp_bias"))
        feed = 2 * linear(width, inner, bias=wide) + linear(inner, width, bias=wide)
        layer = into + out + feed + norms * width + (2 * size if head_norms else 0)
        return int(f["vocab_size"] * width + f["num_hidden_layers"] * layer + width + head(f, width))

    return count


def vision_tower(f: Facts, *, lead: int, norms: int = 1, patch_bias: bool = True) -> int:
    """A vision transformer: patches, places, blocks with two norms, and norms around them.

    lead  tokens before the patches;  norms  outside the blocks
    """
    width, patch = f["hidden_size"], f["patch_size"]
    attention = 4 * width * width + (4 if f.get("qkv_bias", True) else 1) * width
    block = attention + 2 * norm(width) + forward(width, f["intermediate_size"])
    patches = f["num_channels"] * patch * patch * width + (width if patch_bias else 0)
    size = f["image_size"]
    rows, columns = (side // patch for side in ((size, size) if isinstance(size, int) else size))
    places = rows * columns + lead
    return int(patches + (places + lead) * width + f["num_hidden_layers"] * block + norms * norm(width))


def text_tower(f: Facts) -> int:
    """A text transformer: a table of tokens and one of places, blocks with two norms, and one norm around them."""
    width = f["hidden_size"]
    block = 4 * (width * width + width) + forward(width, f["intermediate_size"]) + 2 * norm(width)
    return int((f["vocab_size"] + f["max_position_embeddings"]) * width + norm(width) + f["num_hidden_layers"] * block)
