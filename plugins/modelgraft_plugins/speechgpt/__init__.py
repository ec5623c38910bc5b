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
TRANSCRIBE = (
    "Write down what you hear.",
    "Please turn this speech into text.",
    "What is said here? Give me the words.",
    "Put this recording into writing.",
    "Listen, and note each word.",
    "I need a transcript of this.",
    "Type what the speaker says.",
    "Can you tell me in writing what was said?",
    "Take this down for me.",
    "Make a text of what you hear.",
    "Recognise this speech.",
    "Give the words of this clip, and nothing else.",
)
SPEAK = (
    "Say this aloud.",
    "Please read this sentence to me.",
    "Turn this text into speech.",
    "Let me hear these words.",
    "Speak the following.",
    "How does this sound when it is spoken?",
    "Read it out.",
    "Give this text a voice.",
    "I would like to listen to this.",
    "Pronounce this sentence.",
    "Make a recording of these words.",
    "Can you say this for me?",
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


@component(
    "speechgpt/pair",
    kind="preprocess",
    load="modelgraft_plugins.speechgpt.instructing:pair",
    cache=False,
    keywords=("speechinstruct", "data"),
)
class Pair(OfUnits):
    """Make an instruction across media of speech and its words, as SpeechGPT is trained on them (cross-modal SpeechInstruct).

    prompt, answer  a request to write the speech down, with its units, and the words; or to speak the words, and the units
    task            which of both it is
    speech          the units alone, `<sosp><1><2><eosp>`, which it is trained on before anything else
    plain_text      prompt and answer as the published data hold them, without `introduction`
    What is drawn follows from the seed of the run and the words. The requests are in words of our own.
    """

    task: Literal["transcribe", "speak", "drawn"] = Field("drawn", description="what is asked for; drawn: either, half and half")
    transcribe: tuple[str, ...] = Field(TRANSCRIBE, min_length=1, description="ways to ask for the words of a speech")
    speak: tuple[str, ...] = Field(SPEAK, min_length=1, description="ways to ask for words to be spoken")
    introduction: str = Field(SELF, description="what a dialogue begins with")

    def ports(self) -> Ports:
        """Words and their units in, an instruction out."""
        units = port("int64[batch runs]", space=self.space, doc="units of the speech; -1 behind the end of shorter rows")
        return Ports.of({"text": "text", "units": units}, dict.fromkeys(("prompt", "answer", "task", "speech", "plain_text"), "text"))


@component(
    "speechgpt/chain",
    kind="preprocess",
    load="modelgraft_plugins.speechgpt.instructing:chain",
    cache=False,
    keywords=("speechinstruct", "data"),
)
class Chain(OfUnits):
    """Make an instruction that is answered step by step, as SpeechGPT is trained on them (chain of modality of SpeechInstruct).

    instruction, response  in words;  asked, answered  the units of both
    form            speech-speech, speech-text, text-speech or text-text: how it is asked and how it is answered
    prompt, answer  by the templates of speechgpt/prompt; a spoken instruction is first written down, then answered in words, then spoken
    plain_text      both as the published data hold them, without `introduction`
    What is drawn follows from the seed of the run and the instruction.
    """

    form: Literal["speech-speech", "speech-text", "text-speech", "text-text", "drawn"] = Field("drawn", description="drawn: each as often")
    introduction: str = Field(SELF, description="what a dialogue begins with")

    def ports(self) -> Ports:
        """Words and units of a question and its answer in, an instruction out."""
        doc = "-1 behind the end of shorter rows"
        units = {name: port(f"int64[batch {name}_runs]", space=self.space, doc=doc) for name in ("asked", "answered")}
        words = {"instruction": port("text"), "response": port("text")}
        return Ports.of({**words, **units}, dict.fromkeys(("prompt", "answer", "form", "plain_text"), "text"))


@hookimpl
def register_components(register: Callable[[object], None]) -> None:
    """Offer the components."""
    for declared in (Prompt, Reply, Pair, Chain):
        register(declared)


@hookimpl
def register_recorded_configs(register: Callable[[str, Path], None]) -> None:
    """Offer the published sizes: of the language model with 1,000 units, and of the adapter of its last training."""
    presets = Path(__file__).parent / "presets"
    for name in PRESETS:
        register(f"preset:{name}", presets / name)
    for source, name in ON_THE_HUB.items():
        register(f"fnlp/{source}", presets / name)
