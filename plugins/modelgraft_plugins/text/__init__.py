"""Texts: templates, tokenizers, and the towers that turn texts into vectors."""

from __future__ import annotations

import string
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator

from modelgraft import Config, Ports, component, hookimpl, port
from modelgraft_plugins.text.towers import FAMILIES, INSIDE, MODEL_TYPES, TABLE, count
from modelgraft_plugins.tokens import image_token, token_space, tokenizer_identity
from modelgraft_plugins.widths import uneven_heads

if TYPE_CHECKING:
    from modelgraft.plugin import SolvedNode, Source

QFORMER_VOCABULARY = 30522  # what the config of a Q-Former means where it is silent
VOCABULARIES = ("tokenizer.*", "*.model", "vocab*", "*.bpe*", "*.tiktoken", "*vocab*")  # files that tokenizers are made of
READ_TWICE = ("instructblip", "instructblipvideo")  # the Q-Former reads the prompt too, and takes no picture from it


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


@component("text/first", kind="router", inputs={"texts": "list[text]"}, outputs={"text": "text"})
def first(texts: list[list[str]]) -> list[str]:
    """Give the first text of a list; of a list of wires from branches, that of the branch that ran."""
    return [record[0] for record in texts]


@component("text/tokenizer", kind="tokenizer", load="modelgraft_plugins.text.tokenizing:load", cache=False)
class Tokenizer(Config):
    """Turn texts into token ids, with the tokenizer that a source holds.

    folder     below the source that holds the tokenizer's files, such as qformer_tokenizer
    padding    "longest" of the batch, or always "max_length"
    truncate   cut texts that are longer than max_length; otherwise they are an error
    many       each record is a list of texts, such as the labels to choose from
    without    what is taken out of the texts before: the placeholder of a picture is no word for a reader that has none
    """

    folder: str = ""
    padding: Literal["longest", "max_length"] = "longest"
    max_length: int | None = Field(None, gt=0, description="most tokens of a text, special ones included")
    truncate: bool = False
    many: bool = False
    without: str | None = Field(None, min_length=1)
    identity: str | None = Field(None, description="names the vocabulary; worked out from the source")
    vocab_size: int | None = Field(None, gt=0, description="rows of the embeddings that the ids are for; None: not known")

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Read what the text tower beside the tokenizer can take."""
        config = source.config.get("text_config", source.config)
        kind = kind_of(config, source)
        known = FAMILIES[MODEL_TYPES[kind]].defaults if kind in MODEL_TYPES else {}
        longest = config.get("max_position_embeddings", known.get("max_position_embeddings"))
        found: dict[str, Any] = {"identity": tokenizer_identity(source)}
        if kind in MODEL_TYPES:
            found["max_length"] = longest
            found["vocab_size"] = config.get("vocab_size", known["vocab_size"])
        if kind == "siglip_text_model":
            found["padding"] = "max_length"  # it was trained so, and pools the last position
        if source.root.get("model_type") in READ_TWICE:
            found["without"] = image_token(source) or "<image>"
            found["vocab_size"] = (source.root.get("qformer_config") or {}).get("vocab_size", QFORMER_VOCABULARY)
        return found

    def ports(self) -> Ports:
        """Ids in the space of their tokenizer, and where there is a token."""
        axes = "batch texts text_tokens" if self.many else "batch text_tokens"
        ids = port(f"int64[{axes}]", space=token_space(None if self.folder else self.identity))
        return Ports.of({"text": "list[text]" if self.many else "text"}, {"ids": ids, "mask": f"bool[{axes}]"})

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
    """Turn token ids into one vector per token and one per text, with the text tower of CLIP, SigLIP or BERT.

    many  each record is a list of texts: the results have an axis `texts` behind `batch`
    """

    family: Literal["clip", "siglip", "bert"] = "clip"
    hidden_size: int = Field(512, gt=0)
    intermediate_size: int = Field(2048, gt=0)
    num_hidden_layers: int = Field(12, gt=0)
    num_attention_heads: int = Field(8, gt=0)
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
        if kind not in MODEL_TYPES:
            raise ValueError(f"text/encoder serves {', '.join(MODEL_TYPES)}, not model_type '{kind}': name the part, such as #text_model")
        family = MODEL_TYPES[kind]
        found = {name: source.config.get(name, default) for name, default in FAMILIES[family].defaults.items()}
        if family == "siglip":
            found["projection_size"] = source.config.get("projection_size")
        return {"family": family, **found, "identity": tokenizer_identity(source)}

    @classmethod
    def unheeded(cls, source: Source) -> list[tuple[str, str]]:
        """What the config of the tower states and this does not know."""
        return TABLE.unheeded(source.config, source.text)

    @property
    def pooled_size(self) -> int:
        """Width of the vector of a text."""
        return self.projection_size if self.family == "siglip" and self.projection_size else self.hidden_size

    def ports(self) -> Ports:
        """Ids in; a vector per token and one per text out."""
        before = "batch texts" if self.many else "batch"
        ids = port(f"int64[{before} text_tokens]", space=token_space(self.identity))
        return Ports.of(
            {"ids": ids, "mask": f"optional[bool[{before} text_tokens]]"},
            {"tokens": f"float[{before} text_tokens hidden_size]", "pooled": f"float[{before} pooled_size]"},
        )

    def most(self) -> Mapping[str, int]:
        """There are no more positions."""
        return {"text_tokens": self.max_position_embeddings}

    def review(self, node: SolvedNode) -> Iterable[tuple[str, str, str]]:
        """The heads must share the width evenly."""
        return uneven_heads(node.name, self.hidden_size, self.num_attention_heads)

    def parameters(self) -> int:
        """Count the tower."""
        return count(
            self.family, width=self.hidden_size, inner=self.intermediate_size, layers=self.num_hidden_layers, vocabulary=self.vocab_size,
            longest=self.max_position_embeddings, types=self.type_vocab_size, pooled=self.pooled_size,
        )  # fmt: skip


def kind_of(config: Mapping[str, Any], source: Source) -> str:
    """The model_type of a text tower's config."""
    return str(config.get("model_type") or INSIDE.get(str(source.root.get("model_type")), ""))


@hookimpl
def register_components(register: Callable[[Any], None]) -> None:
    """Offer the components of this plugin."""
    for subject in (Template, first, Tokenizer, Encoder):
        register(subject)
