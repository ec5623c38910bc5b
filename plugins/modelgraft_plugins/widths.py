"""Whether heads share a width evenly, and whether there is such a layer. Light: any plugin may import it."""

from __future__ import annotations

from collections.abc import Iterator

Problem = tuple[str, str, str]  # code, sentence, way out, as `Config.review` gives them
NAMES = ("hidden_size", "num_attention_heads")
MOST = 12  # numbers that a way out lists


def check_layer(layer: int | None, depth: int) -> None:
    """Raise ValueError for a layer that an encoder of so many layers has not: 0 is what enters the first one, -1 the last."""
    if layer is not None and not -depth - 1 <= layer <= depth:
        raise ValueError(f"layer is {layer}, and there are {depth} layers: wanted a number from {-depth - 1} to {depth}")


def uneven_heads(node: str, width: int | None, heads: int | None, *, names: tuple[str, str] = NAMES) -> Iterator[Problem]:
    """Give the problem of a width that the heads do not divide; `names` are the keys of both."""
    if not width or not heads or width % heads == 0:
        return
    ways = [str(count) for count in range(1, width + 1) if width % count == 0]
    shown = ", ".join(ways[:MOST]) + (", ..." if len(ways) > MOST else "")
    found = f"{node} has {heads} attention heads, which do not divide its {names[0]} {width}"
    yield "config-mismatch", found, f"set {names[1]} to one of {shown}"
