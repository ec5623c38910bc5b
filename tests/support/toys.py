"""A plugin of toy components and graphs of them: light, so that the command line and drawings can be tested alone."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from modelgraft import Config, Dim, component, hookimpl
from modelgraft.installed.discovery import assemble
from modelgraft.kernel.language.document import parse
from modelgraft.kernel.language.expand import expand_document
from modelgraft.kernel.shelf.registry import Registry

if TYPE_CHECKING:
    from modelgraft.kernel.words.graph import GraphSpec


@component("toy/upper", kind="preprocess", inputs={"text": "text"}, outputs={"text": "text"})
def upper(text: list[str]) -> list[str]:
    """Write in capitals."""
    return [one.upper() for one in text]


@component("toy/split", kind="preprocess", inputs={"text": "text"}, outputs={"left": "text", "right": "text"})
def split(text: list[str]) -> dict[str, list[str]]:
    """Cut a text in two."""
    return {"left": [one[: len(one) // 2] for one in text], "right": [one[len(one) // 2 :] for one in text]}


@component("toy/join", kind="preprocess", inputs={"left": "text", "right": "text"}, outputs={"text": "text"})
def join(left: list[str], right: list[str], *, separator: str = "-") -> list[str]:
    """Join two texts."""
    return [a + separator + b for a, b in zip(left, right, strict=True)]


@component("toy/fail", kind="preprocess", inputs={"text": "text"}, outputs={"text": "text"})
def fail(text: list[str]) -> list[str]:
    """Fail on the word `bad`."""
    if any("bad" in one for one in text):
        raise ValueError("bad was given")
    return text


@component("toy/wait", kind="preprocess", inputs={"text": "text"}, outputs={"text": "text"})
def wait(text: list[str], *, seconds: float = 30.0) -> list[str]:
    """Wait, and let nothing disturb it."""
    time.sleep(seconds)
    return text


@component(
    "toy/eye",
    kind="encoder",
    module="nowhere:Eye",
    inputs={"image": "image"},
    outputs={"tokens": "float[batch tokens width]", "pooled": "float[batch width]"},
)
class Eye(Config):
    """See a picture."""

    width: int = 12
    tokens: int = 5

    def parameters(self) -> int:
        return 1_200_000 * self.width


@component(
    "toy/linear",
    kind="projector",
    module="nowhere:Linear",
    inputs={"x": "float[batch tokens narrow]"},
    outputs={"y": "float[batch tokens wide]"},
)
class Linear(Config):
    """Map every token."""

    narrow: Dim = None
    wide: Dim = 7

    def parameters(self) -> int | None:
        return None if self.narrow is None or self.wide is None else self.narrow * self.wide


@hookimpl
def register_components(register) -> None:
    for subject in (upper, split, join, fail, wait, Eye, Linear):
        register(subject)


def registry(*, only: object = None) -> Registry:
    """A registry that holds the toys alone: stands in for `discover`."""
    assert only is None, "the toys are one plugin"
    return assemble({"toys": sys.modules[__name__]})


def graph(text: str, *, name: str = "toy.yaml", allow: tuple[str, ...] = ()) -> GraphSpec:
    """A graph of toys, from the text of its document without the line of the version."""
    return expand_document(parse("modelgraft: 1\n" + text, path=Path(name)), registry=registry(), allow=allow)


DIAMOND = """
inputs: {text: text}
nodes:
  parts: {use: toy/split, in: {text: inputs.text}}
  one: {use: toy/upper, in: {text: parts.left}}
  two: {use: toy/upper, in: {text: parts.right}}
  whole: {use: toy/join, in: {left: one, right: two}}
outputs: {text: whole}
"""

SIGHT = """
inputs: {image: image}
nodes:
  eye: {use: toy/eye, in: {image: inputs.image}, frozen: true}
  bridge: {use: toy/linear, in: {x: eye.tokens}}
outputs: {media: bridge, pooled: eye.pooled}
"""
