"""SpeechGPT: units of speech as words of a language model (arXiv 2305.11000). See README.md beside this file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from pydantic import Field

from modelgraft import Config, Ports, Space, component, hookimpl, port

SELF = (  # what every dialogue of its training begins with, word for word
    "You are an AI assistant whose name is SpeechGPT.\n"
    "- SpeechGPT is a intrinsic cross-modal conversational language model that is developed by Fudan University.  "
    "SpeechGPT can understand and communicate fluently with human through speech or text chosen by the user.\n"
    "- It can perceive cross-modal inputs and generate cross-modal outputs.\n"
)
PRESETS = ("speechgpt-7b", "speechgpt-7b-com")
ON_THE_HUB = {  # a checkpoint of fnlp's -> its sizes
    "SpeechGPT-7B-ma": "speechgpt-7b",
    "SpeechGPT-7B-cm": "speechgpt-7b",
    "SpeechGPT-7B-com": "speechgpt-7b-com",
}


class OfUnits(Config):
    """Which units a language model was taught; not a component itself."""

    units: int = Field(1000, gt=0, description="how many units there are: centres of clusters, and tokens <0>, <1>, ...")
    model: str | None = Field(None, description="of which model's features they are clusters; None: any")
    layer: int | Literal["last"] | None = Field(None, description="of which of its layers; None: any")

    @property
    def space(self) -> Space:
        """The space of these units, as units/kmeans gives them and vocoders take them."""
        return Space.of("units", clusters=self.units, model=self.model, layer=self.layer)


@component("speechgpt/prompt", kind="preprocess", load="modelgraft_plugins.speechgpt.prompts:load", cache=False)
class Prompt(OfUnits):
    """Write what SpeechGPT reads: who it is, and a turn of a human with text, units of speech, or both.

    wants  speech or text: one of the four templates of its training step by step (chain of modality): an instruction, spoken or typed, is
           to be written down first, then answered in words, then spoken, as far as that is asked for;
           None: what is typed, as it is. Units stand where it has {speech}, otherwise behind its end, after "This is input:"
    introduction  what a dialogue begins with
    """

    wants: Literal["speech", "text"] | None = Field("speech", description="how the answer should come; None: what is typed says it")
    introduction: str = Field(SELF, description="what a dialogue begins with")

    def ports(self) -> Ports:
        """A text, units without repetitions, or both in; a prompt out."""
        text = port("optional[text]", doc="an instruction, or what to do with the units")
        units = port(
            "optional[int64[batch runs]]",
            space=self.space,
            doc="units of speech; -1 behind the end of shorter rows, and throughout where none is",
        )
        return Ports.of({"text": text, "units": units}, {"prompt": "text"})


@component("speechgpt/reply", kind="router", load="modelgraft_plugins.speechgpt.replies:load", cache=False)
class Reply(OfUnits):
    """Take an answer of SpeechGPT apart: what it heard, what it answers, and the units that it speaks.

    tq, ta  what was asked, written down, and the answer in words, as [tq] and [ta] mark them; "" where there is none
    ua      the units of the answer in their order; -1 behind the end of shorter rows
    text    the answer in words: `ta`, or where nothing marks it all words but units
    speaks  which answers have units: a route for what needs them, so that nothing speaks where nothing is said; `else` are the others
    White space between marks and units does no harm, and an answer ends at <eoa>, <ea>, <eos> or </s>.
    """

    def one_of(self) -> tuple[str, ...]:
        """With units, or without."""
        return ("speaks", "else")

    def ports(self) -> Ports:
        """An answer in, its parts out."""
        words = {"tq": port("text", doc="what was asked"), "ta": port("text", doc="the answer in words, where it is marked")}
        units = port("int64[batch runs]", space=self.space, doc="the units of the answer; -1 behind the end of shorter rows")
        return Ports.of({"text": "text"}, {**words, "text": "text", "ua": units, **dict.fromkeys(self.one_of(), port("mask[batch]"))})


@hookimpl
def register_components(register: Callable[[object], None]) -> None:
    """Offer the components."""
    for declared in (Prompt, Reply):
        register(declared)


@hookimpl
def register_recorded_configs(register: Callable[[str, Path], None]) -> None:
    """Offer the published sizes: of the language model with 1,000 units, and of the adapter of its last training."""
    presets = Path(__file__).parent / "presets"
    for name in PRESETS:
        register(f"preset:{name}", presets / name)
    for source, name in ON_THE_HUB.items():
        register(f"fnlp/{source}", presets / name)
