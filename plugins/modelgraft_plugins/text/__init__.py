"""Texts: templates, cuts, tokenizers, and the towers that turn texts into vectors."""

from __future__ import annotations

import string
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator, model_validator

from modelgraft import Config, Ports, component, hookimpl, port
from modelgraft.plugin import AUTO, TowerCard, families
from modelgraft_plugins.counted import counted, no_card
from modelgraft_plugins.text.towers import MEDIUM, NEEDED, UNKNOWN, card_of, stated, styles, table
from modelgraft_plugins.tokens import image_token, token_space, tokenizer_identity
from modelgraft_plugins.widths import uneven_heads

if TYPE_CHECKING:
    from modelgraft.plugin import SolvedNode, Source

VOCABULARIES = ("tokenizer.*", "*.model", "vocab*", "*.bpe*", "*.tiktoken", "*.spm", "*vocab*")  # files that tokenizers are made of


@component("text/template", kind="preprocess", load="modelgraft_plugins.text.templates:load", cache=False)
class Template(Config):
    """Fill a template: `template: "{question} Answer with one word."` has an input port `question`.

    A field takes a text or a label; write {{ and }} for braces. Without a field it is the same text for every record.
    """

    template: str

    @field_validator("template")
    @classmethod
    def _is_readable(cls, template: str) -> str:
        fields_of(template)
        return template

    def ports(self) -> Ports:
        """One input per field, in the order in which the fields first stand."""
        return Ports.of({field: port("text | label") for field in fields_of(self.template)}, {"text": "text"})


def fields_of(template: str) -> tuple[str, ...]:
    """The fields of a template, each once. Raises ValueError that says what cannot be read."""
    try:
        found = list(string.Formatter().parse(template))
    except ValueError as error:
        raise ValueError(f"the template {template!r} cannot be read: {error}; write {{{{ and }}}} for braces") from error
    for _, field, layout, conversion in found:
        if field is not None and (not field.isidentifier() or layout or conversion):
            raise ValueError(f"the template {template!r} has a field {{{field}}}: a field is a plain name such as {{question}}")
    return tuple(dict.fromkeys(field for _, field, _, _ in found if field is not None))


SETTINGS = "modelgraft_tokenizer"  # a key of the config.json that a reader of files makes: fields of text/tokenizer
PLACE = "{}"  # where a label goes in a template of text/prompts, as in the lists that were published for CLIP


@component("text/prompts", kind="preprocess", load="modelgraft_plugins.text.prompts:load", arrays=True, cache=False)
class Prompts(Config):
    """Put every label into every template, as in "a photo of a {}.", and say which of the texts belong to one label.

    templates  the phrasings, each with {} where the label goes; the input `templates` gives others, such as the lines of a file
    prompts    the texts, label by label;  shares  1 / number of templates where a text belongs to a label, as embedding/ensemble reads it
    """

    templates: tuple[str, ...] = Field(("a photo of a {}.",), min_length=1)

    @field_validator("templates")
    @classmethod
    def _have_a_place(cls, templates: tuple[str, ...]) -> tuple[str, ...]:
        if complaint := next(filter(None, map(prompt_complaint, templates)), ""):
            raise ValueError(complaint)
        return templates

    def ports(self) -> Ports:
        """Labels, and other templates, in; texts and what belongs together out."""
        inputs = {"labels": "list[text]", "templates": "optional[list[text]]"}
        return Ports.of(inputs, {"prompts": "list[text]", "shares": "float[batch groups texts]"})


def prompt_complaint(template: str) -> str:
    """What is wrong with a template of text/prompts; "" for one that has a place for a label."""
    return "" if PLACE in template else f"the template {template!r} has no {PLACE}, where a label would go"


@component("text/first", kind="router", inputs={"texts": "list[text]"}, outputs={"text": "text"})
def first(texts: list[list[str]]) -> list[str]:
    """Give the first text of a list; of a list of wires from branches, that of the branch that ran."""
    return [record[0] for record in texts]


@component("text/split", kind="preprocess", load="modelgraft_plugins.text.cutting:load", random=True, cache=False)
class Split(Config):
    """Cut each text in two between words: a beginning, which an encoder may read, and the rest, which a decoder has to say.

    least   fewest words of a beginning: 0 beside a picture, which is the beginning of every pair; 1 for a text alone
    at      cut here in place of a place that is drawn
    draw    another number, another cut of the same text
    The place is drawn evenly from those that leave one word or more, by the seed of the run and by the text: alone and in a batch it is
    the same. A text that has no more words than its beginning is to have is not cut: nothing is begun. The white space between the two
    is in neither.
    Source: the prefix language modelling of SimVLM (arXiv 2108.10904, 3.1) and BLIP-2 (arXiv 2301.12597, 3.3), and PaLI's SplitCap.
    """

    least: int = Field(0, ge=0, description="fewest words of a beginning")
    at: int | None = Field(None, ge=0, description="words of every beginning; None: it is drawn")
    draw: int = Field(0, ge=0, description="the number of the draw")

    def ports(self) -> Ports:
        """A text in, its two pieces out."""
        return Ports.of({"text": "text"}, {"beginning": "text", "rest": "text"})


@component("text/tokenizer", kind="tokenizer", load="modelgraft_plugins.text.tokenizing:load", arrays=True, cache=False)
class Tokenizer(Config):
    """Turn texts into token ids, with the tokenizer that a source holds.

    folder     below the source that holds the tokenizer's files, such as qformer_tokenizer
    padding    "longest" of the batch, or always "max_length"
    truncate   cut texts that are longer than max_length; otherwise they are an error
    many       each record is a list of texts, such as the labels to choose from; `there` is false where a list has no more
    without    what is taken out of the texts before: the placeholder of a picture is no word for a reader that has none
    clean      "web": mend texts first as CLIP's own code does (broken letters, HTML, white space, small letters), with the package ftfy
    pad_id     what fills up shorter texts; None: the tokenizer's own. CLIP's code has 0, transformers the end of a text
    """

    folder: str = ""
    padding: Literal["longest", "max_length"] = "longest"
    max_length: int | None = Field(None, gt=0, description="most tokens of a text, special ones included")
    truncate: bool = False
    many: bool = False
    without: str | None = Field(None, min_length=1)
    clean: Literal["none", "web"] = "none"
    pad_id: int | None = Field(None, ge=0)
    identity: str | None = Field(None, description="names the vocabulary; worked out from the source")
    vocab_size: int | None = Field(None, gt=0, description="rows of the embeddings that the ids are for; None: not known")

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Read what the text tower beside the tokenizer can take."""
        config = source.config.get("text_config", source.config)
        card = families().of_medium(MEDIUM).get(kind_of(config, source))
        found: dict[str, Any] = {"identity": tokenizer_identity(source), **source.root.get(SETTINGS, {})}
        longest = config.get("max_position_embeddings")
        if card is not None and card.style != AUTO:
            known = stated(config, card)
            longest, found["vocab_size"] = known["max_position_embeddings"], known["vocab_size"]
            found["max_length"] = longest
        if card is not None:
            found |= {key: value for key, value in card.more.items() if key == "padding"}
        beside = families().whole(source.root.get("model_type")).components.get("text/tokenizer")
        if beside is not None:  # another reader of the prompt, which takes no picture from it
            found["without"] = image_token(source) or beside["without"]
            found["vocab_size"] = (source.root.get(beside["vocabulary_of"]) or {}).get("vocab_size", beside["vocab_size"])
        return found

    def ports(self) -> Ports:
        """Ids in the space of their tokenizer, and where there is a token."""
        axes = "batch texts text_tokens" if self.many else "batch text_tokens"
        ids = port(f"int64[{axes}]", space=token_space(None if self.folder else self.identity))
        there = {"there": "bool[batch texts]"} if self.many else {}
        return Ports.of({"text": "list[text]" if self.many else "text"}, {"ids": ids, "mask": f"bool[{axes}]", **there})

    def review(self, node: SolvedNode) -> Iterable[tuple[str, str, str]]:
        """A vocabulary must come from somewhere: a folder without one stays without."""
        hint = "name a source that has tokenizer.json or the files of a vocabulary"
        if node.source is None:
            yield "no-tokenizer", f"{node.name} has no `from`, so there is no tokenizer to cut texts with", hint
        elif node.source.folder is not None and node.source.kind == "folder":
            home = node.source.folder / self.folder
            if not any(path.match(pattern) for path in home.glob("*") for pattern in VOCABULARIES):
                yield "no-tokenizer", f"{node.name}: {home} has no file of a tokenizer", hint


@component("text/encoder", kind="encoder", module="modelgraft_plugins.text.modules:Encoder", exportable=True)
class Encoder(Config):
    """Turn token ids into one vector per token and one per text, with a text tower such as that of CLIP, SigLIP or BERT.

    many  each record is a list of texts: the results have an axis `texts` behind `batch`
    """

    family: str = Field("clip", description="how the tower is built: a style such as clip, siglip or bert; auto: by its `model`")
    model: dict[str, Any] = Field({}, description="auto: the tower's own config, as in its config.json; the fields below go over it")
    hidden_size: int = Field(512, gt=0)
    intermediate_size: int = Field(2048, gt=0)
    num_hidden_layers: int = Field(12, gt=0)
    num_attention_heads: int = Field(8, ge=0)
    vocab_size: int = Field(49408, gt=0)
    max_position_embeddings: int = Field(77, gt=0)
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5
    eos_token_id: int = Field(49407, description="clip: the pooled vector stands at its first place; 2 means at the highest id")
    pad_token_id: int | None = 1
    type_vocab_size: int = Field(2, gt=0, description="bert: kinds of segments")
    projection_size: int | None = Field(None, gt=0, description="siglip: width of the pooled vector; None: that of the tokens")
    many: bool = False
    identity: str | None = Field(None, description="names the vocabulary that the ids must be of")

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Read a text config."""
        kind = kind_of(source.config, source)
        card = families().of_medium(MEDIUM).get(kind)
        if card is None and not _is_clear(source.config, kind):
            known = ", ".join(sorted(families().of_medium(MEDIUM)))
            raise ValueError(f"text/encoder serves {known}, not model_type '{kind}': name the part, such as #text_model")
        card = card or UNKNOWN
        model = {"model": {**source.config, "model_type": kind}} if card.style == AUTO else {}
        words = {word: value for word, value in stated(source.config, card).items() if word in cls.model_fields}
        return {"family": card.style, **model, **words, "identity": tokenizer_identity(source)}

    @classmethod
    def unheeded(cls, source: Source) -> list[tuple[str, str]]:
        """What the config of the tower states and this does not know; and where no card knows the tower."""
        kind = kind_of(source.config, source)
        card = families().of_medium(MEDIUM).get(kind)
        if card is None and _is_clear(source.config, kind):
            return no_card(source, kind)
        return [] if card is not None and card.style == AUTO else table().unheeded(source.config, source.text)

    @model_validator(mode="after")
    def _can_be_built(self) -> Encoder:
        if self.family not in styles():
            raise ValueError(f"family is {self.family!r}, wanted one of {', '.join(styles())}")
        if self.family == AUTO and "model_type" not in self.model:
            raise ValueError("family: auto wants `model`, the tower's own config with its model_type")
        if not self.num_attention_heads:
            raise ValueError(
                "num_attention_heads is 0: the files do not say how many heads share the width; say it with num_attention_heads"
            )
        return self

    @property
    def card(self) -> TowerCard:
        """What its family says of it."""
        return card_of(self.family, self.model)

    @property
    def pooled_size(self) -> int:
        """Width of the vector of a text."""
        return self.projection_size or self.hidden_size

    @property
    def has_pooled(self) -> bool:
        """It gives one vector for the text."""
        return bool(self.card.pooled)

    def facts(self) -> dict[str, Any]:
        """The config that transformers builds the tower from."""
        card = self.card
        if self.family != AUTO:
            return {**{key: getattr(self, word) for word, key in card.settings.items()}, **card.fixed}
        keys = {word: card.names.get(word, word) for word in stated(self.model, card) if word in type(self).model_fields}
        return {**self.model, **{key: getattr(self, word) for word, key in keys.items()}}

    def ports(self) -> Ports:
        """Ids in; a vector per token and one per text out."""
        before = "batch texts" if self.many else "batch"
        ids = port(f"int64[{before} text_tokens]", space=token_space(self.identity))
        outputs = {"tokens": f"float[{before} text_tokens hidden_size]"}
        if self.has_pooled:
            outputs["pooled"] = f"float[{before} pooled_size]"
        return Ports.of({"ids": ids, "mask": f"optional[bool[{before} text_tokens]]"}, outputs)

    def most(self) -> Mapping[str, int]:
        """There are no more positions."""
        is_stated = self.family != AUTO or "max_position_embeddings" in stated(self.model, self.card)
        return {"text_tokens": self.max_position_embeddings} if is_stated else {}

    def review(self, node: SolvedNode) -> Iterable[tuple[str, str, str]]:
        """The heads must share the width evenly, where their own width is not stated."""
        if self.family == AUTO and any({**self.card.more.get("facts", {}), **self.model}.get(key) for key in ("d_kv", "head_dim")):
            return ()
        return uneven_heads(node.name, self.hidden_size, self.num_attention_heads)

    def parameters(self) -> int | None:
        """Count the tower; None where that takes building it."""
        if self.card.count is None:
            return counted(self.facts())
        if self.family == AUTO:
            return self.card.count({**self.card.more.get("facts", {}), **self.facts()})
        return self.card.count({**self.model_dump(), "pooled_size": self.pooled_size})


def _is_clear(config: Mapping[str, Any], kind: str) -> bool:
    """A config of which no card speaks says by itself what its tower gives: one tower, its width, its vocabulary."""
    is_one = bool(kind) and families().of(kind) is None and not any(key.endswith("_config") for key in config)
    return is_one and all(key in stated(config, UNKNOWN) for key in NEEDED)


def kind_of(config: Mapping[str, Any], source: Source) -> str:
    """The model_type of a text tower's config."""
    return str(config.get("model_type") or families().inside(source.root.get("model_type"), MEDIUM)[1])


@hookimpl
def register_components(register: Callable[[Any], None]) -> None:
    """Offer the components of this plugin."""
    for subject in (Template, Prompts, first, Split, Tokenizer, Encoder):
        register(subject)
