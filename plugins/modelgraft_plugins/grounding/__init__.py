"""Phrases and boxes: read out of answers, written into prompts, drawn into pictures.

asked: {use: grounding/write, with: {format: kosmos2}, in: {text: inputs.prompt, boxes: inputs.boxes, image: inputs.image}}
llm:   {use: llm/causal, from: "${checkpoint}#text_model", in: {image: latents, prompt: asked}}
found: {use: grounding/parse, with: {format: kosmos2}, in: {text: llm.text, image: inputs.image}}   # text, boxes and entities
shown: {use: grounding/draw, in: {image: inputs.image, boxes: found.boxes}}                        # the picture with what was found
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from pydantic import Field, field_validator

from modelgraft import Config, Port, Ports, component, hookimpl, port
from modelgraft.plugin import choices, nearest
from modelgraft_plugins.grounding.boxes import Frame
from modelgraft_plugins.grounding.formats import FORMATS
from modelgraft_plugins.grounding.writing import Format


class _InFormat(Config):
    """What is read or written as a family of models has it.

    format  how phrases and boxes are written: that of the model
    bins    how many places there are along a side of a picture; None: as the published model of the format has it
    frame   what the numbers are fractions of; None: as the format has it
    """

    format: str = Field(
        "kosmos2", description="whose way of writing phrases and boxes it is", json_schema_extra={"enum": [*sorted(FORMATS)]}
    )
    bins: int | None = Field(None, gt=0, le=100_000, description="how many places there are along a side; None: as published")
    frame: Frame | None = Field(
        None, description="what numbers are fractions of: the whole picture, or the square it is padded to; None: as published"
    )

    @field_validator("format")
    @classmethod
    def _is_known(cls, name: str) -> str:
        if name not in FORMATS:
            raise ValueError(f"there is no format {name!r}; there are: {choices(FORMATS)}. {nearest(name, FORMATS)}".removesuffix(". "))
        return name

    @property
    def written(self) -> Format:
        """The format."""
        return FORMATS[self.format]

    @property
    def places(self) -> int:
        """How many places there are along a side."""
        return self.bins or self.written.bins

    @property
    def seen(self) -> Frame:
        """What numbers are fractions of."""
        return self.frame or self.written.frame


@component("grounding/parse", kind="head", load="modelgraft_plugins.grounding.answering:parse", cache=False, keywords=("boxes", "detect"))
class Parse(_InFormat):
    """Read phrases with boxes out of what a model wrote: its text without marks, and where on the picture each phrase is.

    text      what was written, without marks, and without white space around it
    boxes     all boxes in pixels of the picture, each with its phrase as `text`
    entities  a list of {text, start, end, boxes}: each phrase that has boxes, and where it stands in `text`; a phrase without words is ""
    prompt    what the answer goes on from, where both are to be read as one text
    broken    boxes that end too soon, lie outside of the picture, or have their corners the wrong way round. drop: left out, which is told
    """

    broken: Literal["drop", "error"] = Field("drop", description="what becomes of boxes that are none: left out and told, or refused")

    def ports(self) -> Ports:
        """An answer and its picture, and what was asked, in; text, boxes and phrases out."""
        entities = port("object", doc="phrases, where they stand in the text, and their boxes")
        outputs: dict[str, str | Port] = {"text": "text", "boxes": "boxes", "entities": entities}
        prompt = port("optional[text]", doc="what the answer goes on from, read with it; a space is put between where two words would meet")
        return Ports.of({"text": "text", "image": "image", "prompt": prompt}, outputs)


@component("grounding/write", kind="preprocess", load="modelgraft_plugins.grounding.asking:write", cache=False, keywords=("boxes", "refer"))
class Write(_InFormat):
    """Write a prompt that points at places of a picture: each phrase that a box names is marked in the text, its boxes behind it.

    boxes    in pixels, each with its phrase as `text`, which stands in the text; several may share one
    unnamed  the phrase of boxes that name none; None: they stand at the end
    phrases  phrases that are marked without boxes, for the model to find
    ask      begin with what makes the model answer with boxes, such as <grounding>
    A phrase is marked where it stands first as words of their own. Marks in the text itself are refused: nobody can write himself a box.
    """

    unnamed: str | None = Field(None, min_length=1, description="the phrase of boxes that name none; None: they stand at the end")
    ask: bool = Field(True, description="begin with what asks for boxes, where the format has something")

    def ports(self) -> Ports:
        """A text, boxes and the picture in, the prompt out."""
        inputs = {"text": "text", "image": "image", "boxes": "optional[boxes]", "phrases": "optional[list[text]]"}
        return Ports.of(inputs, {"text": "text"})


@component("grounding/draw", kind="head", load="modelgraft_plugins.grounding.drawing:load", cache=False, keywords=("boxes", "picture"))
class Draw(Config):
    """Draw boxes into a picture, each with its name: boxes of one name in one colour, names beside each other and not over each other."""

    line: int | None = Field(None, gt=0, le=64, description="width of the lines in pixels; None: by the size of the picture")
    letters: int | None = Field(None, ge=6, le=256, description="height of the names in pixels; None: by the size of the picture")
    scores: bool = Field(True, description="write the score of a box behind its name, where it has one")

    def ports(self) -> Ports:
        """A picture and boxes in, a picture out."""
        return Ports.of({"image": "image", "boxes": "boxes"}, {"image": "image"})


@hookimpl
def register_components(register: Callable[[Any], None]) -> None:
    """Offer the components of this plugin."""
    for subject in (Parse, Write, Draw):
        register(subject)
