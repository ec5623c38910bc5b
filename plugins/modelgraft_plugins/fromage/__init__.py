"""FROMAGe: pictures in and out of a frozen language model, by linear maps and a token that asks for one (arXiv 2301.13823).

What is trained is small: `fromage/prefix` makes words of a picture, `fromage/key` the vector that a picture is found by,
`fromage/query` the vector of what the language model means by [RET], and `fromage/ret` is the row of that token. The eye, the
language model, the index and the loss of pairs are components that any graph has: vision/encoder, llm/causal, retrieval/nearest,
loss/contrastive. `fromage/language` reads given captions, which both losses of its training ask for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from modelgraft import Config, Dim, Port, Ports, Space, component, hookimpl, port
from modelgraft.plugin import families
from modelgraft_plugins.tokens import token_space, tokenizer_identity

if TYPE_CHECKING:
    from modelgraft.plugin import SolvedNode, Source

PRESETS = ("fromage", "fromage-vis4")
PICTURE, RET = "<|image|>", "[RET]"  # the tokens that its code adds to those of OPT, in this order
CAPTION = 24  # tokens of a caption, [RET] among them: --max-len of its code
KIND = "fromage"


class FromageConfig(Config):
    """What the trained parts share: their sizes come from one source; not a component itself."""

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Read model_args.json, a config.json in its words, or the shapes of the tensors. Raises ValueError for another model."""
        root = _whole(source)
        found = {
            "vision_width": root["vision_width"], "text_width": root["text_width"], "embedding_size": root["shared_emb_dim"],
            "tokens": root["n_visual_tokens"], "layers": len(root["text_emb_layers"]), "space": source.whole,
        }  # fmt: skip
        return {name: value for name, value in found.items() if name in cls.model_fields}


def _whole(source: Source) -> Mapping[str, Any]:
    """The config of a FROMAGe. Raises ValueError for one of another model."""
    if source.root.get("model_type") != KIND:
        stated = f"its model_type is {source.root.get('model_type')!r}" if source.root else "it has no tensor visual_embeddings.weight"
        raise ValueError(f"{source.text} is no FROMAGe: {stated}")
    return source.root


def _linear(inputs: int, outputs: int) -> int:
    """Count the parameters of a linear layer with its bias."""
    return inputs * outputs + outputs


def _vector(space: str | None) -> Port:
    return port("float[batch embedding_size]", space=Space.of("embedding", model=space) if space else None)


@component("fromage/prefix", kind="projector", module="modelgraft_plugins.fromage.modules:Prefix", exportable=True)
class Prefix(FromageConfig):
    """Make words of the vector of a picture, which a language model reads among its own: what one linear layer gives is cut in `tokens`."""

    vision_width: int = Field(1024, gt=0, description="of the vector of a picture")
    text_width: int = Field(4096, gt=0, description="of the embeddings of the language model")
    tokens: int = Field(1, gt=0, description="words that a picture becomes")

    def ports(self) -> Ports:
        """The vector of a picture in, its words out."""
        return Ports.of({"pooled": "float[batch vision_width]"}, {"tokens": "float[batch tokens text_width]"})

    def parameters(self) -> int:
        """One linear layer."""
        return _linear(self.vision_width, self.tokens * self.text_width)


@component("fromage/key", kind="projector", module="modelgraft_plugins.fromage.modules:Key", exportable=True)
class Key(FromageConfig):
    """Make of the vector of a picture the one that it is found by, of the length 1."""

    vision_width: int = Field(1024, gt=0)
    embedding_size: int = Field(256, gt=0)
    space: str | None = Field(None, description="names the space of the vector, so that others are not compared with it")

    def ports(self) -> Ports:
        """The vector of a picture in, one in the shared space out."""
        return Ports.of({"pooled": "float[batch vision_width]"}, {"vector": _vector(self.space)})

    def parameters(self) -> int:
        """One linear layer."""
        return _linear(self.vision_width, self.embedding_size)


@component("fromage/query", kind="projector", module="modelgraft_plugins.fromage.modules:Query", exportable=True)
class Query(FromageConfig):
    """Make of the hidden states at a [RET] the vector of the picture that is asked for, of the length 1.

    Of several layers each has a map of its own, and what they give is added.
    """

    text_width: int = Field(4096, gt=0)
    embedding_size: int = Field(256, gt=0)
    layers: int = Field(1, gt=0, description="of the language model, whose states are read: `text_emb_layers` of its code")
    space: str | None = Field(None, description="names the space of the vector, so that others are not compared with it")

    def ports(self) -> Ports:
        """States of one token in, a vector in the shared space out."""
        return Ports.of({"states": "float[batch layers 1 text_width]"}, {"vector": _vector(self.space)})

    def parameters(self) -> int:
        """A linear layer for each layer."""
        return self.layers * _linear(self.text_width, self.embedding_size)


@component(
    "fromage/ret",
    kind="adapter",
    load="modelgraft_plugins.fromage.grafting:graft",
    inputs={},
    outputs={},
    hosts=("llm/causal", "fromage/language"),
)
class Ret(Config):
    """Give a language model the embedding of [RET], which was trained while all others stayed.

    Without a checkpoint it starts from the row that the host has for it.
    """

    hidden_size: Dim = Field(None, description="width of the embeddings of the host")
    token_id: int | None = Field(None, ge=0, description="of [RET]; None: the last that the host knows, as its code adds it")

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Read the width and the id, or a file that `modelgraft train` has left. Raises ValueError for another model."""
        if (trained := source.states("fromage/ret", is_graft=True)) is not None:
            return trained
        root = _whole(source)
        token = {"token_id": root["ret_token_id"]} if "ret_token_id" in root else {}
        return {"hidden_size": root["text_width"], **token}

    def parameters(self) -> int:
        """One row."""
        return self.hidden_size or 0


@component("fromage/language", kind="llm", module="modelgraft_plugins.fromage.language:Language", random=True)
class LanguageConfig(Config):
    """Read given captions with an OPT, and say how likely each token is when all before it are given: what FROMAGe is trained by.

    task     caption: a picture's words stand before the caption, and its words are to be written; match: the caption alone is read,
             its [RET] is to be written too, and the states there are given
    concat   share of the batches in which captions are folded, two to a row, so that the second pair sees the first; drawn by the seed
    prefix   text between picture and caption (match: before the caption), such as `A picture of`
    logits   at each place of a record, with picture and prefix before its caption; where two were folded, they are taken apart again
    labels   the token at each place, -100 where none is to be written; targets are the same one place on: the token behind each place
    Captions are filled up behind their ends, which no place before them sees; positions count what fills up, as published.
    """

    model: dict[str, Any] = Field({}, description="the config of the OPT, as in its config.json")
    task: Literal["caption", "match"] = "caption"
    concat: float = Field(0.0, ge=0, le=1)
    prefix: str = ""
    text_width: int = Field(gt=0, description="of its embeddings")
    vocab_size: int = Field(gt=0, description="tokens that it knows; rows of its table behind these are left out")
    added: int = Field(0, ge=0, description="tokens that are added to these: 2 where the table has no rows for <|image|> and [RET]")
    ret_id: int | None = Field(None, ge=0, description="of [RET]; None: the last")
    layers: tuple[int, ...] = Field((-1,), min_length=1, description="match: whose states are given, as fromage/query reads them")
    identity: str | None = Field(None, description="names the vocabulary that the ids must be of")

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Read an OPT, alone or the one in a whole FROMAGe. Raises ValueError for another model."""
        config = dict(source.config)
        if config.get("model_type") != "opt":
            raise ValueError(f"fromage/language reads with an OPT, not model_type {config.get('model_type')!r}")
        facts = families().languages["opt"].facts(config)
        found = {
            "model": config, "text_width": facts.get("word_embed_proj_dim") or facts["hidden_size"],
            "vocab_size": facts["vocab_size"], "identity": tokenizer_identity(source),
        }  # fmt: skip
        whole = source.root if source.root.get("model_type") == KIND else {}
        own = {"ret_id": whole.get("ret_token_id"), "layers": whole.get("text_emb_layers")}
        return {**found, **{name: value for name, value in own.items() if value is not None}}

    @property
    def vocabulary(self) -> int:
        """All tokens."""
        return self.vocab_size + self.added

    @property
    def state_layers(self) -> int:
        """How many layers `states` gives."""
        return len(self.layers)

    @property
    def ret(self) -> int:
        """The id of [RET]."""
        return self.vocabulary - 1 if self.ret_id is None else self.ret_id

    def facts(self) -> dict[str, Any]:
        """The config that transformers builds it from."""
        return {**self.model, "vocab_size": self.vocabulary, "use_cache": False}

    def ports(self) -> Ports:
        """Captions, and for writing them pictures, in; logits and what they should have said out."""
        space = token_space(None if self.added else self.identity)
        inputs: dict[str, str | Port] = {
            "ids": port("int64[batch caption_tokens]", space=space, doc="captions up to [RET]"),
            "mask": "optional[bool[batch caption_tokens]]",
        }
        outputs = {"logits": "float[batch places vocabulary]", "labels": "int64[batch places]", "targets": "int64[batch places]"}
        if self.task == "caption":
            inputs["image"] = port("float[batch image_tokens text_width]", doc="the words of the picture")
            return Ports.of(inputs, outputs)
        return Ports.of(inputs, {**outputs, "states": "float[batch state_layers 1 text_width]"})

    def review(self, node: SolvedNode) -> Iterable[tuple[str, str, str]]:
        """Captions that are only matched are not folded."""
        if self.task == "match" and self.concat:
            found = f"{node.name}.concat is {self.concat}, and its task is match"
            yield "config-mismatch", found, "captions are folded where they are written: set concat: 0"

    def parameters(self) -> int | None:
        """By the formula of the family."""
        card = families().languages["opt"]
        return card.count(card.facts({**self.model, "vocab_size": self.vocabulary})) if card.count is not None else None


@component("fromage/words", kind="tokenizer", load="modelgraft_plugins.fromage.wording:load", cache=False)
class Words(Config):
    """Cut captions into tokens as they are trained: the begin token, the caption, [RET]; where it is longer, [RET] in the last place.

    Its tokenizer is that of an OPT, to which the tokens of `extra_tokens` are added.
    """

    max_length: int = Field(CAPTION, gt=1, description="most tokens of a caption, the first and [RET] among them")
    extra_tokens: tuple[str, ...] = Field((PICTURE, RET), min_length=1, description="what is added to the tokenizer, [RET] the last")
    pad_id: int = Field(1, ge=0, description="what fills up shorter captions: OPT's own, which is not its end token")

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Read what fills up."""
        pad = source.config.get("pad_token_id")
        return {} if pad is None else {"pad_id": pad}

    def ports(self) -> Ports:
        """Captions in; ids, and where there is a token, out."""
        return Ports.of({"text": "text"}, {"ids": "int64[batch caption_tokens]", "mask": "bool[batch caption_tokens]"})


@component("fromage/dialogue", kind="preprocess", load="modelgraft_plugins.fromage.dialogue:load", cache=False)
class Dialogue(Config):
    """Write a conversation as FROMAGe reads one, with a token where each picture stands, and give the pictures in that order.

    style      dialogue: `Q: ...` and `A:` by turns, as its code prompts for talk; plain: the parts one behind the other
    retrieved  what becomes of pictures in answers. token: [RET], as its code has it: what was found is not looked at again; shown: they are
               pictures like others
    text       goes into llm/causal, whose prompt has a field for the pictures: `prompt: "{image:*}{prompt}"`
    image      the pictures, several for a record
    A message of the user stands behind the pictures that it begins with; an answer at the end is gone on with.
    """

    style: Literal["dialogue", "plain"] = "dialogue"
    retrieved: Literal["token", "shown"] = "token"
    ends_with: str = Field("", description="put behind everything: [RET] asks for a picture whatever the language model thinks")
    before_question: str = "Q: "
    before_answer: str = "\nA:"
    after_answer: str = "\n"
    placeholder: str = Field(PICTURE, min_length=1, description="the token that stands for a picture")
    signal: str = Field(RET, min_length=1, description="the token that asks for one")
    tokens: int = Field(1, gt=0, description="words that a picture becomes, which take places of the context")
    most_pictures: int | None = Field(None, gt=0, description="most pictures of a conversation; None: as many as the context holds")

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Read how many words a picture becomes. Raises ValueError for another model."""
        return {"tokens": _whole(source)["n_visual_tokens"]}

    def ports(self) -> Ports:
        """A conversation in; the prompt, and the pictures, out."""
        return Ports.of({"conversation": "conversation"}, {"text": "text", "image": port("image", several="pictures")})


@hookimpl
def register_components(register: Callable[[Any], None]) -> None:
    """Offer the components of this plugin."""
    for subject in (Prefix, Key, Query, Ret, LanguageConfig, Words, Dialogue):
        register(subject)


@hookimpl
def register_recorded_configs(register: Callable[[str, Any], None]) -> None:
    """Offer the published sizes."""
    for name in PRESETS:
        register(f"preset:{name}", Path(__file__).parent / "presets" / name)
