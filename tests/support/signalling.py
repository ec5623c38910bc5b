"""Generators that answer signal tokens: tiny, and they count how often they are loaded and called."""

from __future__ import annotations

from collections import Counter
from types import ModuleType
from typing import Any, ClassVar

import numpy
import torch
from PIL import Image
from torch import Tensor, nn

import modelgraft as mg
from modelgraft import Config, Dim, component, hookimpl

WEIGHTS = 1000  # numbers that each generator holds


class Draw(nn.Module):
    """Vectors of a span to colours."""

    loads: ClassVar[Counter[str]] = Counter()
    calls: ClassVar[list[tuple[str, int]]] = []

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.name = "draw"
        self.weight = nn.Parameter(torch.ones(WEIGHTS))
        Draw.loads[self.name] += 1

    def forward(self, states: Tensor) -> Tensor:
        """float[batch layers tokens width] -> float[batch 3]: from 0 to 1."""
        Draw.calls.append((self.name, len(states)))
        return states.flatten(1)[:, :3].sigmoid() * self.weight[:3]


class Hum(Draw):
    """The same for sounds."""

    def __init__(self, config: Any) -> None:
        nn.Module.__init__(self)
        self.name = "hum"
        self.weight = nn.Parameter(torch.ones(WEIGHTS))
        Draw.loads[self.name] += 1


@component(
    "toy/draw",
    kind="generator",
    module="support.signalling:Draw",
    random=True,
    inputs={"states": "float[batch layers tokens width]"},
    outputs={"colour": "float[batch 3]"},
)
class DrawConfig(Config):
    """Colours."""

    width: Dim = None

    def parameters(self) -> int:
        return WEIGHTS


@component(
    "toy/hum",
    kind="generator",
    module="support.signalling:Hum",
    random=True,
    inputs={"states": "float[batch layers tokens width]"},
    outputs={"wave": "float[batch 3]"},
)
class HumConfig(Config):
    """Waves."""

    width: Dim = None

    def parameters(self) -> int:
        return WEIGHTS


@component("toy/picture", kind="head", inputs={"colour": "float[batch 3]"}, outputs={"image": "image"})
def picture(colour: Tensor) -> list[Image.Image]:
    """Pictures of one colour."""
    return [Image.new("RGB", (2, 2), tuple(int(255 * value) for value in row)) for row in colour.tolist()]


@component("toy/sound", kind="head", inputs={"wave": "float[batch 3]", "text": "text"}, outputs={"audio": "audio"})
def sound(wave: Tensor, text: list[str]) -> list[mg.Audio]:
    """Sounds of three samples; refused for what is not to be heard."""
    if any("silence" in one for one in text):
        raise RuntimeError("out of memory")
    return [mg.Audio(numpy.asarray(row, numpy.float32)[None], 8000) for row in wave.tolist()]


@component("toy/find", kind="retriever", inputs={"text": "text"}, outputs={"hits": "list[image]"})
def find(text: list[str]) -> list[list[Image.Image]]:
    """As many pictures as the text has words."""
    return [[Image.new("RGB", (1, 1), (index, 0, 0)) for index, _ in enumerate(one.split())] for one in text]


@component("toy/spell", kind="tokenizer", inputs={"text": "text"}, outputs={"pieces": "list[text]", "states": "float[batch 2 n 4]"})
def spell(text: list[str]) -> dict[str, Any]:
    """A language model that says what it is given, cut at |; the states of a signal, which stands in brackets, tell its place."""
    pieces = [one.split("|") for one in text]
    rows = [[float(place) for place, piece in enumerate(each) if piece.startswith("[")] for each in pieces]
    longest = max(map(len, rows))
    states = torch.tensor([[*row, *[0.0] * (longest - len(row))] for row in rows]).view(len(rows), 1, longest, 1)
    return {"pieces": pieces, "states": states.expand(-1, 2, -1, 4).contiguous() / 8}


def plugin() -> ModuleType:
    """All of them."""

    @hookimpl
    def register_components(register: Any) -> None:
        for subject in (DrawConfig, HumConfig, picture, sound, find, spell):
            register(subject)

    made = ModuleType("signalling")
    made.register_components = register_components  # type: ignore[attr-defined]
    return made
