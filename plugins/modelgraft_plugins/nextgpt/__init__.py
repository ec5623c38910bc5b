"""NExT-GPT: any medium in, and any out by signal tokens that ask diffusion models (arXiv 2309.05519).

What is its own: the projection of the states of signal tokens onto what a diffusion model reads of its text encoder, and how a prompt is
written. All else is wiring: the input projection is `projector/linear`, the language model `llm/causal` with `adapter/lora`, what reads its
signal tokens `router/signal-tokens`, the loss `loss/alignment`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator

from modelgraft import Config, Dim, Port, Ports, component, hookimpl, port
from modelgraft_plugins.nextgpt import sizes
from modelgraft_plugins.widths import uneven_heads

if TYPE_CHECKING:
    from modelgraft.plugin import SolvedNode, Source

PRESETS = ("nextgpt-7b",)
MEDIA = ("image", "audio", "video")  # what may be shown, in the order in which objects stand that no mark places


def _signals(name: str, count: int) -> str:
    """Such as [IMG0][IMG1], as they were added to Vicuna."""
    return "".join(f"[{name}{number}]" for number in range(count))


@component("nextgpt/output", kind="projector", module="modelgraft_plugins.nextgpt.modules:Output", exportable=True)
class Output(Config):
    """Turn the signal tokens of one wish into what a diffusion model would read of its text encoder.

    states         of each signal token its embedding and its last hidden state, `states: {layers: [0, -1]}` of llm/causal
    prompt_embeds  a vector for each learned query, in the place of the text encoder's states
    vector         the same where there is one query, as AudioLDM reads it
    Source: `TextFcLayer(mode='transformer')` of the published code of 2023. The order of the tokens does not matter: they have no places.
    """

    hidden_size: Dim = Field(None, description="width of the language model")
    inner_size: int = Field(512, gt=0, description="width between the two maps")
    encoder_layers: int = Field(4, gt=0)
    decoder_layers: int = Field(4, gt=0)
    heads: int = Field(4, gt=0, description="of attention; a file of weights alone does not say it")
    feed_forward: int = Field(2048, gt=0, description="width of the layers between those of attention")
    queries: int = Field(77, gt=0, description="vectors that come out: the places of the text encoder")
    width: int = Field(768, gt=0, description="of each: 768 for Stable Diffusion 1, 1024 for 2 and Zeroscope, 512 for AudioLDM")
    signals: Dim = Field(None, description="signal tokens of one wish")

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Read the sizes of one medium: the source has a part, such as pytorch_model.pt#gen_text_hidden_fcs_video."""
        return sizes.of_output(source)

    @classmethod
    def unheeded(cls, source: Source) -> Iterable[tuple[str, str]]:
        """What a config states and this does not know."""
        return sizes.TABLE.unheeded(source.root, source.text) if source.root else ()

    def ports(self) -> Ports:
        """Two states of each token in, a vector for each query out; of one query, that vector alone too."""
        outputs = {"prompt_embeds": "float[batch queries width]"}
        if self.queries == 1:
            outputs["vector"] = "float[batch width]"
        return Ports.of({"states": "float[batch 2 signals hidden_size]"}, outputs)

    def export_facts(self) -> Mapping[str, Any]:
        """How many signal tokens there are changes no graph."""
        return self.model_dump(mode="json", exclude={"signals"})

    def parameters(self) -> int | None:
        """Count both maps, the queries, and an encoder and a decoder with a norm behind each."""
        if self.hidden_size is None:
            return None
        inner, norm = self.inner_size, 2 * self.inner_size
        attention = 4 * (inner * inner + inner)
        feed = 2 * inner * self.feed_forward + self.feed_forward + inner
        layers = self.encoder_layers * (attention + feed + 2 * norm) + self.decoder_layers * (2 * attention + feed + 3 * norm)
        maps = (self.hidden_size + 1) * inner + (inner + 1) * self.width
        return maps + self.queries * inner + layers + 2 * norm

    def review(self, node: SolvedNode) -> Iterable[tuple[str, str, str]]:
        """The heads must share the width evenly."""
        return uneven_heads(node.name, self.inner_size, self.heads)


@component("nextgpt/prompt", kind="router", load="modelgraft_plugins.nextgpt.prompting:load", cache=False)
class Prompt(Config):
    """Write what a user says and shows as the language model of NExT-GPT reads it, and hand on each object by itself.

    prompt               a text, in which <image>, <audio> and <video> mark where objects stand; those of a medium that it marks nowhere
                         come before it. Or a conversation, whose messages hold their objects; others come before its last message
    image, audio, video  the objects of a text
    text    the prompt, with the placeholder where objects stand, for `llm/causal` with `placeholder: <object>`
    places  which objects stand at each place, for `nextgpt/objects`
    The outputs image, audio and video are there once for each object, so that all of a batch are encoded together.
    """

    human: str = Field("### Human: ", description="what stands before what the user says")
    assistant: str = Field("\n### Assistant:", description="what stands before what the model says")
    end: str = Field("\n", description="what stands behind that, before the next turn")
    begin: str = Field("<s>", description="the token before every piece of text that stands behind an object; the first piece has its own")
    open: str = Field("<Img>", description="the token before an object, whatever its medium")
    close: str = Field("</Img>", description="the token behind it")
    placeholder: str = Field("<object>", description="what stands for the embedding of an object, as in the language model")

    def ports(self) -> Ports:
        """What is said and shown in, the prompt and every object out."""
        shown = {name: port(f"optional[list[{name}]]") for name in MEDIA}
        outputs: dict[str, str | Port] = {name: port(name, several=name) for name in MEDIA}
        return Ports.of({"prompt": "text | conversation", **shown}, {"text": "text", "places": "object", **outputs})


@component("nextgpt/objects", kind="projector", load="modelgraft_plugins.nextgpt.placing:load", cache=False)
class Objects(Config):
    """Bring the embeddings of objects in the order of their places in the prompt; those at one place are added up, as published.

    places               of `nextgpt/prompt`
    image, audio, video  the embedding of each object, by its medium
    tokens               one embedding for each place
    """

    hidden_size: Dim = Field(None, description="width of the language model")

    def ports(self) -> Ports:
        """Embeddings by medium in, embeddings by place out."""
        inputs: dict[str, str | Port] = {"places": "object"}
        inputs |= {name: port("float[batch hidden_size]", several="*") for name in MEDIA}
        return Ports.of(inputs, {"tokens": port("float[batch 1 hidden_size]", several="places")})


@component("nextgpt/requests", kind="router", load="modelgraft_plugins.nextgpt.mosit:requests", cache=False, keywords=("mosit", "data"))
class Requests(Config):
    """Read a dialogue that a language model wrote, and what its answers ask for: `GPT: Here it is. <Image>a red fox</Image>`.

    written                              turns of `Human:` and `GPT:`, each on lines of its own
    image_text, audio_text, video_text   what is asked for, in words: they run what follows once for each, such as a search
    fits     where it is a dialogue to train on: both take turns, the human shows nothing, an answer asks for something, and it is not
             too long; `trouble` says why it is none, "" where it fits
    A last turn of the human, which was cut before its answer, is left out.
    """

    media: tuple[Literal["image", "audio", "video"], ...] = Field(
        ("image", "audio", "video"), min_length=1, description="what may be asked for"
    )
    most_words: int = Field(300, gt=0, description="longer dialogues do not fit, as published")

    def one_of(self) -> tuple[str, ...]:
        """It fits, or it does not."""
        return ("fits", "else")

    def ports(self) -> Ports:
        """What was written in, a dialogue and each of its asks out."""
        asks = {f"{name}_text": port("text", several=name) for name in MEDIA}
        masks = {name: port("mask[batch]") for name in self.one_of()}
        return Ports.of({"written": "text"}, {"dialogue": "object", **asks, "trouble": port("text"), **masks})


@component(
    "nextgpt/dialogue", kind="preprocess", load="modelgraft_plugins.nextgpt.mosit:dialogues", cache=False, keywords=("mosit", "data")
)
class Dialogue(Config):
    """Write a dialogue with what was found for its asks, to be trained on (MosIT).

    dialogue        of `nextgpt/requests`
    image, audio, video   the name of the file that was found for each ask, such as the first of `paths` of retrieval/nearest
    image_scores, ...     how near each is; what is farther than `least_score` is not shown
    conversation    messages of user and assistant, as a port `conversation` reads them again, with what was found; else a mark, `<image>`
    conversations   the same in the layout of NExT-GPT's files: marks in the words, `caption` and `output_modality` beside them
    image_captions, ...   what is asked for of each medium, in its order;  image_files, ...  what was found for it, or null
    prompt, answer        the same to be learnt, as nextgpt/train_instruct reads it: all before the last answer, and that answer, both with
                          signals where something is asked for;  answer_image_captions, ...  what the last answer asks for
    """

    signals: dict[Literal["image", "audio", "video"], str] = Field(
        {"image": _signals("IMG", 4), "audio": _signals("AUD", 8), "video": _signals("VID", 24)},
        description="what a language model writes for each medium that it asks for",
    )
    least_score: float = Field(-1.0, ge=-1, le=1, description="files that are farther from what was asked for are not shown")

    @field_validator("signals")
    @classmethod
    def _are_whole(cls, signals: dict[str, str]) -> dict[str, str]:
        if lacking := [name for name in MEDIA if name not in signals]:
            raise ValueError(f"signals does not say what asks for {' and '.join(lacking)}; wanted: all of {', '.join(MEDIA)}")
        return signals

    def ports(self) -> Ports:
        """A dialogue and files in, rows out."""
        files = {name: port("optional[text]", several="*") for name in MEDIA}
        scores = {f"{name}_scores": port("optional[float[batch hits]]", several="*") for name in MEDIA}
        told = {f"{name}_{what}": port("object") for what in ("captions", "files") for name in MEDIA}
        learnt = {"prompt": port("object"), "answer": port("text"), **{f"answer_{name}_captions": port("object") for name in MEDIA}}
        inputs = {"dialogue": port("object"), **files, **scores}
        return Ports.of(inputs, {"conversation": port("object"), "conversations": port("object"), **told, **learnt})


@hookimpl
def register_components(register: Callable[[object], None]) -> None:
    """Offer the components."""
    for declared in (Output, Prompt, Objects, Requests, Dialogue):
        register(declared)


@hookimpl
def register_recorded_configs(register: Callable[[str, Path], None]) -> None:
    """Offer the published sizes."""
    for name in PRESETS:
        register(f"preset:{name}", Path(__file__).parent / "presets" / name)
