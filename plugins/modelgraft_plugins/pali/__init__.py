"""PaLI: a vision transformer and mT5, joined in both readings of the paper (arXiv 2209.06794).

The paper's figure puts what the eye sees in front of the words that mT5's encoder reads; its text lets mT5's decoder look at it
beside what the encoder gives. Both are served, by the graphs `pali` and `pali/decoder_only`; they are two models, with unlike answers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from modelgraft import Config, Ports, component, hookimpl
from modelgraft_plugins.pali.tasks import TASKS

if TYPE_CHECKING:
    from modelgraft.plugin import Source

PRESETS = ("pali-3b", "pali-15b", "pali-17b")
FIRST = {"t5": 32_099, "mt5": 250_099}  # model type -> id of <extra_id_0> in its published vocabulary; the others stand below it
GAP = "<extra_id_0>"


@component("pali/task", kind="preprocess", load="modelgraft_plugins.pali.writing:task", cache=False)
class TaskConfig(Config):
    """Write the line of one of PaLI's tasks, as it was trained; with `answers`, the wanted answer too.

    caption, split_caption (of the first words of a caption the rest: text/split cuts it), ocr, vqa, vqg (of an answer the question),
    list_objects, are_there, which_are_there, detect (a line of boxes, which pali/boxes reads). Inputs are what the task speaks of.
    """

    task: Literal[
        "caption", "split_caption", "ocr", "vqa", "vqg", "list_objects", "are_there", "which_are_there", "detect"
    ] = Field("caption", description="which task")  # fmt: skip
    language: str = Field("EN", min_length=1, description="code of the language of the answer; of objects it is always EN")
    answers: bool = Field(False, description="write what the model should answer, for training: its parts become inputs")

    def ports(self) -> Ports:
        """What the task speaks of in; the line, and the wanted answer, out."""
        task = TASKS[self.task]
        inputs = {**task.reads, **(task.answers if self.answers else {})}
        return Ports.of(inputs, {"text": "text", **({"answer": "text"} if self.answers else {})})


@component("pali/boxes", kind="head", load="modelgraft_plugins.pali.writing:boxes", cache=False)
class Boxes(Config):
    """Read the boxes in a line that PaLI wrote, `y0 x0 y1 x1 name` one behind another, as pixels of the picture.

    Numbers are thousandths of its sides. Words that are no box are left out.
    """

    def ports(self) -> Ports:
        """The line and the picture in, boxes out."""
        return Ports.of({"text": "text", "image": "image"}, {"boxes": "boxes"})


@component("pali/span_corruption", kind="preprocess", load="modelgraft_plugins.pali.spans:load", cache=False, random=True)
class SpanCorruption(Config):
    """Take spans out of a text, drawn by the seed: a sentinel stands for each, and the answer gives them one by one, as T5 is trained.

    ids, mask     the text with a sentinel in the place of each span, and the end token
    answer_ids, answer_mask    each sentinel with the span that it stands for, and the end token
    The number of tokens that are taken, and of spans, follows from the length; where they lie is drawn, between spans that stay.
    Source: arXiv 1910.10683, 3.1.4, and `random_spans_noise_mask` of its code.
    """

    density: float = Field(0.15, gt=0, lt=1, description="share of the tokens that is taken")
    mean_span: float = Field(3.0, ge=1, description="tokens of a span, on the average")
    first_sentinel: int = Field(gt=0, description="id of <extra_id_0>; the others stand below it")
    sentinels: int = Field(100, gt=0, description="how many there are")
    end_id: int = Field(1, ge=0, description="the end token, which is never taken")
    pad_id: int = Field(0, ge=0, description="what fills up shorter rows")

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Find the first sentinel in the tokenizer, or by the published vocabulary of the family."""
        added = (source.json("tokenizer.json") or {}).get("added_tokens", [])
        found = next((token["id"] for token in added if token.get("content") == GAP), FIRST.get(str(source.config.get("model_type"))))
        if found is None:
            raise ValueError(f"the tokenizer of {source.text} has no token {GAP}: say its id as first_sentinel")
        ends = {"end_id": source.config.get("eos_token_id"), "pad_id": source.config.get("pad_token_id")}
        return {"first_sentinel": found, **{name: value for name, value in ends.items() if value is not None}}

    def ports(self) -> Ports:
        """Token ids in; what is read and what is to be answered out."""
        outputs = {
            "ids": "int64[batch text_tokens]", "mask": "bool[batch text_tokens]",
            "answer_ids": "int64[batch answer_tokens]", "answer_mask": "bool[batch answer_tokens]",
        }  # fmt: skip
        return Ports.of({"ids": "int64[batch tokens]", "mask": "optional[bool[batch tokens]]"}, outputs)


@component("pali/memory", kind="projector", module="modelgraft_plugins.pali.modules:Memory", exportable=True)
class MemoryConfig(Config):
    """Put what an eye sees behind what an encoder gives, for a decoder that looks at both (`pali/decoder_only`)."""

    def parameters(self) -> int:
        """None."""
        return 0

    def ports(self) -> Ports:
        """Vectors of words and of a picture in; one row of both, and where there is something, out."""
        inputs = {
            "text": "float[batch text_tokens width]", "text_mask": "optional[bool[batch text_tokens]]",
            "image": "float[batch image_tokens width]",
        }  # fmt: skip
        outputs = {"memory": "float[batch text_tokens+image_tokens width]", "mask": "bool[batch text_tokens+image_tokens]"}
        return Ports.of(inputs, outputs)


@hookimpl
def register_components(register: Callable[[Any], None]) -> None:
    """Offer the components of this plugin."""
    for subject in (TaskConfig, Boxes, SpanCorruption, MemoryConfig):
        register(subject)


@hookimpl
def register_recorded_configs(register: Callable[[str, Any], None]) -> None:
    """Offer the published sizes."""
    for name in PRESETS:
        register(f"preset:{name}", Path(__file__).parent / "presets" / name)
