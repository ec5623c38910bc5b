"""What llm/causal and llm/seq2seq have in common: the model, the prompt, and how answers are written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from modelgraft.plugin import Dim, LanguageCard, Ports, SolvedNode
from modelgraft_plugins.conversations import Row, named
from modelgraft_plugins.llm import known, template, words
from modelgraft_plugins.llm.known import LAST, family_of, last_of, whole_of
from modelgraft_plugins.llm.ports import (
    CONTINUATIONS,
    GIVEN,
    GIVEN_ANSWER,
    OF_RECORDS,
    OUTPUTS,
    SETTINGS,
    TARGET,
    TAUGHT,
    beside_ports,
    field_port,
)
from modelgraft_plugins.llm.writing import WritingConfig, generation_of
from modelgraft_plugins.stated import REMARKS, told, tower_table
from modelgraft_plugins.tokens import begin_token, image_token
from modelgraft_plugins.widths import uneven_heads

if TYPE_CHECKING:
    from modelgraft.plugin import Source

NUMBERS = (
    "hidden_size", "vocab_size", "max_position_embeddings", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
    "tie_word_embeddings",
)  # fmt: skip


TAKEN = {GIVEN: "texts to be judged", SETTINGS: "settings of single records", TARGET: "the answer to learn"}
OWN_HEADS = ("head_dim", "d_kv", "qk_head_dim")  # a config that states one of these need not share its width among heads


class States(BaseModel):
    """Which hidden states are given."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    layers: tuple[int, ...] = Field(default=(-1,), min_length=1, description="0: embeddings, n: behind layer n, -1: what the head reads")
    at: Literal["written"] | tuple[str, ...] = Field(default="written", description="every token of the answer, or tokens by their names")


LAST_STATES = States.model_construct()  # States(), for which pydantic would build what reads such settings at every import


class LanguageConfig(WritingConfig):
    """The shared fields; not a component itself."""

    model: dict[str, Any] = Field(default={}, description="the model's own config, as in its config.json; the fields below override it")
    model_type: str | None = Field(default=None, description="family in the sense of transformers, e.g. llama, opt, qwen2, t5")
    hidden_size: Dim = Field(default=None, description="width of the embeddings that the model reads")
    vocab_size: int | None = Field(default=None, gt=0)
    max_position_embeddings: int | None = Field(default=None, gt=0, description="longest context in tokens; null: no limit")
    num_hidden_layers: int | None = Field(default=None, gt=0)
    num_attention_heads: int | None = Field(default=None, gt=0)
    num_key_value_heads: int | None = Field(default=None, gt=0)
    tie_word_embeddings: bool | None = Field(default=None, description="the output head is the embedding table")

    prompt: str = Field(default="{prompt}", description="template; each {field} or {field:tokens} becomes an input port")
    extra_tokens: tuple[str, ...] = Field(
        default=(), description="tokens that the source lacks: they are added to its tokenizer, its embeddings and its head"
    )
    extra_words: tuple[str, ...] = Field(
        default=(), description="the same of tokens that `text` shows, such as units of speech; <0>..<999> are all from <0> to <999>"
    )
    known_tokens: tuple[str, ...] = Field(
        default=(), description="tokens that prompts are written with, such as what stands around a picture: a tokenizer must have them"
    )
    token_scale: dict[str, float] = Field(
        default={}, description="tokens by their names: their logits are multiplied by a number before any other rule"
    )
    token_delay: dict[str, Annotated[int, Field(ge=0)]] = Field(
        default={}, description="tokens by their names: they are not chosen among so many first ones of an answer"
    )
    hidden_tokens: tuple[str, ...] = Field(
        default=(), description="tokens by their names that `text` leaves out as it does special tokens, such as signals of an answer"
    )
    placeholder: str = Field(default="<image>", description="what stands for an embedded medium within a text")
    mark: str | None = Field(
        default=None, description="what the chat template writes for a medium, where that is not the placeholder (Gemma 3)"
    )
    begin_token: str | None = Field(
        default=None, description="the token that every text begins with, in place of what the tokenizer puts around it (IDEFICS)"
    )
    begin: Literal["start", "text"] = Field(
        default="start", description="where the begin token goes: at the start, or before the first text, after media that lead (BLIP-2)"
    )
    media_edge: str | None = Field(
        default=None, description="what stands around media: where two of them meet there is one, and a space before a word (Idefics 2)"
    )
    reads: Literal["onward", "both", "media"] = Field(
        default="onward",
        description="both: the tokens of the prompt see each other in both directions, as in an encoder; media: those of one medium",
    )
    chat: bool = Field(default=False, description="put the prompt into the chat template of the tokenizer, as the user's message")
    chat_template: str | None = Field(
        default=None,
        description="name of a chat template of the source, or of one of those that ship (conversations); none: its default",
    )
    system: str | None = Field(default=None, description="system message of the chat template")

    final_scale: Literal["model", "none"] = Field(
        default="model", description="scale and soft cap of the logits: the model's own, or none, as in most wholes around it"
    )

    deep: int = Field(
        default=0, ge=0, description="so many first layers hear inner layers of an eye, which come as {field}_deep (DeepStack)"
    )
    states: States = Field(default=LAST_STATES, description="which hidden states the output `states` gives, where somebody reads it")
    trains: tuple[Literal["embeddings", "head"], ...] = Field(
        default=(), description="parts of a frozen model that are trained nevertheless, as a plan counts them"
    )

    def working(self) -> Mapping[str, int]:
        """Of beams: logits, their log-probabilities, and these added up, in float32 for each."""
        return {f"{self.beams:,} beams": self.beams * 3 * 4 * (self.vocab_size or 0)} if self.beams > 1 else {}

    @model_validator(mode="after")
    def _agrees(self) -> LanguageConfig:
        names = [field.name for field in self.fields]  # which raises ValueError for a template that cannot be read
        if ours := [name for name in TAKEN if name in names]:
            raise ValueError(f"the prompt has a field {{{ours[0]}}}, and a port of this name takes {TAKEN[ours[0]]}: give it another name")
        if taken := {*self.beside} & {*names}:
            raise ValueError(f"the prompt has a field {{{min(taken)}}}, and a port of this name tells of media: give it another name")
        for name, ids in self.chosen_tokens().items():
            self._refuse_no_tokens(name, ids, is_chosen=True)
        self._refuse_no_tokens("end_ids", self.end_ids, is_chosen=False)
        for name, given in (("extra_tokens", self.extra_tokens), ("extra_words", self.shown_words)):
            if len(set(given)) < len(given) or "" in given:
                raise ValueError(f"{name}: {list(getattr(self, name))} names an empty token, or one twice")
        if both := sorted({*self.extra_tokens} & {*self.shown_words}):
            raise ValueError(f"extra_tokens and extra_words both name {both[0]!r}: texts show it, or they do not")
        self._hears()
        own = self._own_width()
        if own is not None and self.hidden_size not in (None, own):
            raise ValueError(f"hidden_size is {self.hidden_size}, but the model of this source is {own} wide")
        return self

    def _hears(self) -> None:
        """Raises ValueError for inner layers of an eye that the model does not add, or not so many of them."""
        if self.deep and not self.family.more.get("deep"):
            raise ValueError(f"deep is {self.deep}, and the layers of a {self.kind} take no vectors of an eye: leave it out")
        if self.deep > (self.num_hidden_layers or self.deep):
            raise ValueError(f"deep is {self.deep}, and the model has {self.num_hidden_layers} layers: one hears one layer of the eye")

    def _refuse_no_tokens(self, name: str, ids: tuple[int, ...], *, is_chosen: bool) -> None:
        """Ids that stand for no token: what is to be chosen or suppressed must be there, an end that never comes does no harm."""
        rows = self.vocab_size + len(self.added) if is_chosen and self.vocab_size is not None else None
        wrong = [token for token in ids if token < 0 or (rows is not None and token >= rows)]
        if wrong:
            wanted = "0 or more" if rows is None else f"0 to {rows - 1:,}, the ids of the vocabulary"
            raise ValueError(f"{name} has {', '.join(map(str, wrong[:3]))}, wanted: {wanted}")

    @property
    def family(self) -> LanguageCard:
        """The card of the model's family."""
        return family_of(self.kind or "")

    @property
    def kind(self) -> str | None:
        """The model type, or None while it is not known."""
        return self.model_type or self.model.get("model_type")

    @property
    def state_layers(self) -> int:
        """How many layers `states` gives."""
        return len(self.states.layers)

    @property
    def vocabulary(self) -> int | None:
        """How many tokens the model knows: those of the source, and the extra ones; None while it is not known."""
        known = self.vocab_size or self.family.read(self.model, "vocab_size")
        return known + len(self.added) if known is not None else None

    @cached_property
    def shown_words(self) -> tuple[str, ...]:
        """The extra words, each by itself. Raises ValueError for a row of them that is none."""
        return tuple(word for given in self.extra_words for word in words.each(given))

    @property
    def added(self) -> tuple[str, ...]:
        """The tokens that the source lacks, in the order of their rows."""
        return (*self.extra_tokens, *self.shown_words)

    @property
    def taught(self) -> Row | None:
        """The way of writing conversations that `chat_template` names, where it is one of those that ship."""
        return named(self.chat_template)

    @cached_property
    def pieces(self) -> tuple[template.Piece, ...]:
        """The prompt template, read."""
        return template.parse(self.prompt)

    @property
    def fields(self) -> tuple[template.Field, ...]:
        """The fields of the prompt template."""
        return template.fields(self.pieces)

    @property
    def has_axes(self) -> bool:
        """The model counts frames, rows and columns of media: M-RoPE."""
        turns = self.model.get("rope_parameters") or self.model.get("rope_scaling") or {}
        return "mrope_section" in turns

    @property
    def hears(self) -> bool:
        """There is an input of inner layers of an eye."""
        return bool(self.deep) and any(field.ragged for field in self.fields)

    @property
    def beside(self) -> tuple[str, ...]:
        """The names of the inputs that tell of media, behind those of the fields."""
        deep = (template.DEEP,) if self.deep else ()
        return tuple(name for field in self.fields for name in (*field.beside, *(f"{field.name}_{kind}" for kind in deep if field.ragged)))

    def facts(self) -> dict[str, Any]:
        """The model's config with every override, under the keys of its family."""
        given = {self.family.names.get(name, name): value for name in NUMBERS if (value := getattr(self, name)) is not None}
        if self._own_width() is not None:
            given.pop(self.family.names.get("hidden_size", "hidden_size"), None)
        if self.added and self.vocabulary is not None:
            given["vocab_size"] = self.vocabulary
        whole = {**self.model, **given, "model_type": self.kind}
        neutral = {key: LAST[key] for key in last_of(whole)} if self.final_scale == "none" else {}
        return {**whole, **neutral}

    def trained_parameters(self) -> int | None:
        """Of a frozen model its embeddings, its head, or both; once, where they are one table."""
        width = self.hidden_size or self._own_width()
        if not self.trains or self.vocabulary is None or width is None:
            return None if self.trains else 0
        is_tied = self.family.facts(self.facts()).get("tie_word_embeddings", False)
        return (1 if is_tied else len({*self.trains})) * self.vocabulary * width

    def export_facts(self) -> dict[str, Any]:
        """The model's own config: templates and settings of the loop change no graph."""
        return {**self.facts(), **({"reads": self.reads} if self.reads != "onward" else {}), **({"deep": self.deep} if self.hears else {})}

    def ports(self) -> Ports:
        """Each field of the template is an input; then what tells of media, and last what `others` names."""
        fields = {field.name: field_port(field) for field in self.fields}
        beside = {name: found for field in self.fields for name, found in beside_ports(field, self.deep).items()}
        return Ports({**fields, **beside, GIVEN: CONTINUATIONS, SETTINGS: OF_RECORDS, TARGET: GIVEN_ANSWER}, {**OUTPUTS, **TAUGHT})

    def others(self) -> tuple[str, ...]:
        """The names of the inputs behind the fields of the prompt and what tells of media, in their order."""
        return (GIVEN, SETTINGS, TARGET)

    def without_layers(self, node: SolvedNode) -> Iterable[tuple[str, str, str]]:
        """Layers that `states` names and the model does not have."""
        count = self.family.facts(self.facts()).get(self.family.names.get("num_hidden_layers", "num_hidden_layers"))
        projected, own = self.model.get("word_embed_proj_dim"), self.model.get("hidden_size")
        if projected and own and projected != own and (inner := [layer for layer in self.states.layers if layer not in (-1, count)]):
            found = f"{node.name}.states.layers names layer {inner[0]}, {own} wide, and what the head reads is {projected} wide"
            yield "config-mismatch", found, "name -1 alone: the states of this model are of two widths"
        for layer in self.states.layers:
            if count is not None and not -count - 1 <= layer <= count:
                has = f"the model has {count} layers, which are 0 to {count}, or {-count - 1} to -1"
                yield "config-mismatch", f"{node.name}.states.layers names layer {layer}, and {has}", "name layers that there are"

    def uneven(self, node: SolvedNode) -> Iterable[tuple[str, str, str]]:
        """Heads that do not divide the width, where their own width is not stated, and heads that do not share keys evenly."""
        facts, names = self.family.facts(self.facts()), self.family.names
        width, heads, pairs = (facts.get(names.get(word, word)) for word in ("hidden_size", "num_attention_heads", "num_key_value_heads"))
        is_known = bool(self.family.defaults) and not any(facts.get(key) for key in OWN_HEADS)
        if is_known or self.family.even:
            words = (names.get("hidden_size", "hidden_size"), names.get("num_attention_heads", "num_attention_heads"))
            yield from uneven_heads(node.name, width, heads, names=words)
        if heads and pairs and heads % pairs:
            found = f"{node.name} has {heads} attention heads and {pairs} of keys and values, which do not divide them"
            yield "config-mismatch", found, "the config of the model is not one that can be built: look at num_key_value_heads"

    def _own_width(self) -> int | None:
        return width_of(self.family, self.model) if self.model else None


def width_of(family: LanguageCard, config: Mapping[str, Any]) -> int | None:
    """How wide the embeddings are that a model reads: of some OPT less than its layers."""
    found = config.get("word_embed_proj_dim") or family.read(config, "hidden_size")
    return int(found) if found is not None else None


def model_of(source: Source) -> dict[str, Any]:
    """The config of a language model, with its model_type.

    Raises ValueError when the source has none, or is a whole of which the language model is a part.
    """
    config = {key: value for key, value in source.config.items() if key != REMARKS}
    if not source.part and (made := known.made_of_whole(source, config)) != config:
        return made
    _refuse_quantised(source, config)
    if "text_config" in config and "model_type" in config:
        hint = f"{source.whole}#language_model"
        raise ValueError(f"{source.text} is a {config['model_type']} model, of which the language model is a part: write '{hint}'")
    config.setdefault("model_type", known.language_type(source.root))
    if not config["model_type"]:
        raise ValueError(f"the config of {source.text} has no model_type, so that it cannot be told which language model it is")
    return known.made_of_whole(source, config)


def _refuse_quantised(source: Source, config: Mapping[str, Any]) -> None:
    found = config.get("quantization_config") or source.root.get("quantization_config")
    if found and found.get("load_in_8bit") is not False and found.get("quant_method"):
        way = "name the checkpoint that it was made of, or a GGUF of it"
        raise ValueError(
            f"the weights of {source.text} are stored by {found['quant_method']} (quantization_config), which is not read: {way}"
        )


def unheeded_model(source: Source, config: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """What the config of a language model states and the whole around it leaves out."""
    card = whole_of(source)
    if card.obeyed:  # the config of the whole is that of the language model, and more
        return [tuple(remark) for remark in tower_table(card.obeyed, card.idle).unheeded(source.root, source.whole)]
    out = known.left_out(source.root, config) if source.part else {}
    whole = source.root.get("model_type")
    return [
        (
            f"the language model in {source.text} states {key}: {value}, which the {whole} around it leaves out, and so does this",
            "set final_scale: model for the logits of the language model by itself, or none to take this as it is",
            "final_scale",
        )
        for key, value in out.items()
    ]


def values_of(source: Source, config: Mapping[str, Any]) -> dict[str, Any]:
    """The config values of a language model that its source decides."""
    family = family_of(config["model_type"])
    numbers = {name: value for name in NUMBERS if (value := family.read(config, name)) is not None}
    width = width_of(family, config)
    found: dict[str, Any] = {"model": dict(config), "model_type": config["model_type"], **numbers, **generation_of(source, config)}
    if width is not None:
        found["hidden_size"] = width
    whole = whole_of(source)
    if whole.begin != "start":
        found["begin"] = whole.begin
    if whole.reads != "onward":
        found["reads"] = whole.reads
    found |= {key: value for key, value in whole.components.get("llm/causal", {}).items() if key != "deep"}
    if deep := whole.components.get("llm/causal", {}).get("deep"):
        found["deep"] = len(told(source.root, {"layers": deep})["layers"])
    if whole.begin_token:
        found["begin_token"] = begin_token(source) or whole.begin_token
    if source.part and known.left_out(source.root, config):
        found["final_scale"] = "none"
    if mark := whole.components.get("llm/causal", {}).get("mark"):
        found["mark"] = mark
    token = image_token(source)
    return {**found, "placeholder": token} if token else found
