"""Instructions about pictures, written by a language model that sees nothing, as LLaVA made them (arXiv 2304.08485).

    scene:    {use: instruct/scene, in: {captions: inputs.captions, boxes: inputs.boxes}}    # what is known of a picture, in words
    ask:      {use: instruct/ask, with: {kind: conversation}, in: {scene: scene}}            # what a language model is told
    llm:      {use: llm/causal, from: "${language}", with: {prompt: "{talk}"}, in: {talk: ask.talk}}
    dialogue: {use: instruct/dialogue, with: {kind: conversation}, in: {written: llm.text}}  # questions and answers, to be trained on

The words of its prompts are data: `prompts.yaml` beside this file, in words of our own; `system`, `examples` and `requests` take others.
What the published prompts ask for (JSON lines, or blocks with ===) is read as well.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.resources import files
from typing import Any, Literal

from pydantic import Field, field_validator

from modelgraft import Config, Ports, component, hookimpl, port

Kind = Literal["conversation", "detail", "reasoning"]
FORBIDDEN = ("caption", "captions", "bounding box", "bounding boxes", "coordinates")  # what gives away that nothing was seen


@component("instruct/scene", kind="preprocess", load="modelgraft_plugins.instructing.scenes:scene", cache=False)
class Scene(Config):
    """Write down what is known of a picture: its captions, a line each, then a line for each box, `dog: [0.312, 0.420, 0.611, 0.874]`.

    boxes          each with its name as `text`: in pixels where `width` and `height` of the picture are given, else from 0 to 1
    width, height  of the picture, in pixels
    """

    digits: int = Field(3, ge=1, le=6, description="digits behind the point of a place")

    def ports(self) -> Ports:
        """What is known in, a text out."""
        size = port("optional[object]", doc="a number: pixels of the picture that the boxes are on")
        known = {"captions": port("list[text]"), "boxes": port("optional[boxes]"), "width": size, "height": size}
        return Ports.of(known, {"scene": "text"})


class _OfKind(Config):
    """Which kind of instruction is made; not a component itself."""

    kind: Kind = Field(
        "conversation", description="conversation: questions and answers; detail: a description; reasoning: a question that needs thought"
    )


@component("instruct/ask", kind="preprocess", load="modelgraft_plugins.instructing.scenes:ask", cache=False)
class Ask(_OfKind):
    """Tell a language model to write of a picture as if it saw it: instructions, examples, and what is known of the picture.

    talk     a conversation for it: instructions, examples as questions with their answers, and the scene
    request  what its answer will answer, of the kind `detail`: one of `requests`, drawn by the seed of the run and the scene; "" otherwise
    """

    system: str | None = Field(None, description="the instructions; none: those that ship")
    examples: tuple[tuple[str, str], ...] | None = Field(
        None, description="scenes, each with what was written of it; none: those that ship"
    )
    requests: tuple[str, ...] | None = Field(None, description="of the kind detail: what may be asked; none: those that ship")

    @field_validator("requests")
    @classmethod
    def _are_some(cls, requests: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if requests is not None and not all(request.strip() for request in (requests or ("",))):
            raise ValueError("requests names none, or an empty one")
        return requests

    def ports(self) -> Ports:
        """A scene in, what is asked of whom out."""
        return Ports.of({"scene": "text"}, {"talk": "conversation", "request": "text"})


@component("instruct/dialogue", kind="preprocess", load="modelgraft_plugins.instructing.dialogues:load", cache=False)
class Dialogue(_OfKind):
    """Read what was written of a picture as a dialogue about it, to be trained on.

    written        by the language model: `Question:` and `Answer:` on lines of their own, JSON lines of question and answer, or blocks
                   with === between them; of the kind detail a description, which answers `request`
    image          the name of the picture's file, which stands in the first question: before or behind its words, drawn by the seed
    conversation   messages of user and assistant, as a port `conversation` reads them again
    conversations  the same in the layout of LLaVA's own files: `[{"from": "human", "value": "<image>\\n..."}, ...]`
    prompt, answer the first question and its answer, which is all of the kinds detail and reasoning
    fits           where it can be read, has `least` questions, and gives nothing away; `trouble` says why not, "" where it fits
    A last question that was cut before its answer, and one that was asked before, with its answer, are left out.
    """

    least: int = Field(1, gt=0, description="fewest questions with answers")
    forbidden: tuple[str, ...] = Field(FORBIDDEN, description="words that give away that the picture was not seen")

    def one_of(self) -> tuple[str, ...]:
        """It fits, or it does not."""
        return ("fits", "else")

    def ports(self) -> Ports:
        """What was written in, a dialogue out."""
        inputs = {"written": "text", "request": "optional[text]", "image": "optional[text]"}
        texts = {name: port("text") for name in ("prompt", "answer", "trouble")}
        masks = {name: port("mask[batch]") for name in self.one_of()}
        return Ports.of(inputs, {"conversation": "object", "conversations": "object", **texts, **masks})


@cache
def shipped() -> dict[str, dict[str, Any]]:  # Any: a text, or lists of texts
    """The words that ship, by kind."""
    import yaml

    found: dict[str, dict[str, Any]] = yaml.safe_load(files(__name__).joinpath("prompts.yaml").read_text(encoding="utf-8"))
    return found


@hookimpl
def register_components(register: Callable[[Any], None]) -> None:
    """Offer the components of this plugin."""
    for declared in (Scene, Ask, Dialogue):
        register(declared)
