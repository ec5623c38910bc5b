"""The Q-Former of BLIP-2's first stage: it reads a picture, a text, or both, and what its vectors are compared and trained by."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from modelgraft import Config, Dim, Port, Ports, component, port
from modelgraft_plugins.short_texts import ShortTexts
from modelgraft_plugins.stated import tower_table
from modelgraft_plugins.widths import uneven_heads

if TYPE_CHECKING:
    from modelgraft.plugin import SolvedNode, Source

HERE = "modelgraft_plugins.qformer.pair_modules"
WHOLE = "blip-2"  # model_type of what holds it
AUTHORS = "norms_memory"  # what the config of a file of the authors says: it has the norm behind the eye, a temperature, a head for words
OWN: Mapping[str, str] = {  # our field -> key of the qformer_config
    name: name
    for name in (
        "hidden_size", "encoder_hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "cross_attention_frequency",
        "hidden_act", "layer_norm_eps", "vocab_size", "max_position_embeddings", "pad_token_id",
    )
}  # fmt: skip
TABLE = tower_table({*OWN.values(), "use_qformer_text_input"})
MASK = "optional[bool[batch {}text_tokens]]"


class PairSizes(Config):
    """The sizes; not a component itself."""

    hidden_size: Dim = None
    encoder_hidden_size: Dim = Field(None, description="width of what the eye gives")
    num_query_tokens: int = Field(32, gt=0)
    num_hidden_layers: int = Field(12, gt=0)
    num_attention_heads: int = Field(12, gt=0)
    intermediate_size: int = Field(3072, gt=0)
    cross_attention_frequency: int = Field(2, gt=0, description="every so many layers, from the first, the queries read the picture")
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-12
    vocab_size: int = Field(30523, gt=0)
    max_position_embeddings: int = Field(512, gt=0)
    pad_token_id: int = Field(0, ge=0)
    begin_id: int | None = Field(None, ge=0, description="the token that a caption begins with; None: the last of the vocabulary, [DEC]")
    norms_memory: bool = Field(False, description="the norm behind the eye is its own, as in the files of its authors")

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Read the sizes of a BLIP-2 of the first stage. Raises ValueError for another model, and for one that reads no text."""
        root = source.root
        if root.get("model_type") != WHOLE or source.part:
            told = f"#{source.part} of a " if source.part else ""
            raise ValueError(
                f"this reads a whole BLIP-2 of the first stage, not {told}{root.get('model_type') or 'model of an unknown kind'}"
            )
        own = root.get("qformer_config", {})
        if not own.get("use_qformer_text_input"):
            raise ValueError(
                f"the Q-Former of {source.text} reads no text (use_qformer_text_input): it was trained on for a language model; "
                "one of the first stage is Salesforce/blip2-itm-vit-g"
            )
        found = {name: own[key] for name, key in OWN.items() if own.get(key) is not None}
        more = {
            "num_query_tokens": root.get("num_query_tokens"),
            AUTHORS: root.get(AUTHORS),
            "begin_id": root.get("dec_token_id"),
        }
        return {"hidden_size": 768, **found, **{name: value for name, value in more.items() if value is not None}}

    @classmethod
    def unheeded(cls, source: Source) -> list[tuple[str, str]]:
        """Give what the config of the Q-Former states and this does not know."""
        return TABLE.unheeded(source.root.get("qformer_config", {}), f"{source.text} (qformer_config)")

    @property
    def first_id(self) -> int:
        """The token that a caption begins with."""
        return self.vocab_size - 1 if self.begin_id is None else self.begin_id

    def facts(self) -> dict[str, Any]:
        """The config of transformers."""
        return {**{key: getattr(self, name) for name, key in OWN.items()}, "use_qformer_text_input": True}

    def parameters(self) -> int:
        """Queries, tables, norms and layers, each with a feed-forward part for queries and one for words."""
        width, inner, memory = self.hidden_size or 0, self.intermediate_size, self.encoder_hidden_size or 0
        norm, attention = 2 * width, 4 * (width * width + width)
        block = attention + norm + 2 * (2 * width * inner + inner + width + norm)
        reading = 2 * (width * width + width) + 2 * (memory * width + width) + norm
        readers = -(-self.num_hidden_layers // self.cross_attention_frequency)
        tables = (self.num_query_tokens + self.vocab_size + self.max_position_embeddings) * width
        return self.num_hidden_layers * block + readers * reading + norm + tables + self.norms_memory * 2 * memory

    def review(self, node: SolvedNode) -> Iterable[tuple[str, str, str]]:
        """The heads must share the width evenly."""
        return uneven_heads(node.name, self.hidden_size, self.num_attention_heads)


@component("qformer/pair", kind="resampler", module=f"{HERE}:Pair", exportable=True)
class Pair(PairSizes):
    """Read a picture, a text, or both with the Q-Former of BLIP-2's first stage, queries and embeddings of words with it.

    reads    image: the queries read the picture -> `tokens`, one for each query
             text: words read each other -> `tokens`, and `pooled`, the first of them
             both: queries and words read each other, and the queries the picture -> `tokens`, one for each query
             caption: words read the queries and the words before them; the first becomes [DEC] -> `tokens`, and `targets`, the token behind
             each place, -100 where none is to be written
    many     several texts for each record: an axis `texts` behind `batch`; with `both` a picture for each of them, or one for all
    Nodes that share weights (`share`) may read in unlike ways.
    """

    reads: Literal["image", "text", "both", "caption"] = "image"
    many: bool = Field(False, description="text, both: several texts for each record")

    def ports(self) -> Ports:
        """See the list above."""
        texts = "texts " if self.many else ""
        ids: dict[str, str | Port] = {"ids": f"int64[batch {texts}text_tokens]", "mask": MASK.format(texts)}
        one = "float[batch memory_tokens encoder_hidden_size]"
        queries = {"tokens": "float[batch num_query_tokens hidden_size]"}
        if self.reads == "image":
            return Ports.of({"memory": one}, queries)
        if self.reads == "text":
            return Ports.of(ids, {"tokens": f"float[batch {texts}text_tokens hidden_size]", "pooled": f"float[batch {texts}hidden_size]"})
        if self.reads == "caption":
            return Ports.of(
                {"memory": one, **ids}, {"tokens": "float[batch text_tokens hidden_size]", "targets": "int64[batch text_tokens]"}
            )
        memory = port(f"float[batch texts memory_tokens encoder_hidden_size] | {one}") if self.many else port(one)
        return Ports.of({"memory": memory, **ids}, {"tokens": f"float[batch {texts}num_query_tokens hidden_size]"})

    def most(self) -> Mapping[str, int]:
        """There are no more places for words."""
        return {} if self.reads == "image" else {"text_tokens": self.max_position_embeddings}

    def review(self, node: SolvedNode) -> Iterable[tuple[str, str, str]]:
        """Several texts are read, or read beside a picture."""
        yield from super().review(node)
        if self.many and self.reads in ("image", "caption"):
            yield "config-mismatch", f"{node.name} has many: true and reads: {self.reads}", "leave many out, or read text or both"


@component("qformer/match", kind="head", module=f"{HERE}:Match", exportable=True)
class Match(Config):
    """Say whether a picture and a text belong together: one layer on each query that has read both, the mean of what they say.

    logits  no and yes;  score  by how much yes is the likelier: the sigmoid of it is the probability.  many  several texts for each record
    """

    hidden_size: Dim = None
    many: bool = False

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Read the width."""
        weight = source.shape("weight")
        return {"hidden_size": weight[1]} if weight is not None else {}

    def ports(self) -> Ports:
        """Queries in, two numbers and what they come to out."""
        texts = "texts " if self.many else ""
        given = {"logits": f"float[batch {texts}2]", "score": f"float[batch{' texts' if self.many else ''}]"}
        return Ports.of({"tokens": f"float[batch {texts}queries hidden_size]"}, given)

    def parameters(self) -> int:
        """One layer."""
        return 2 * (self.hidden_size or 0) + 2


@component("qformer/words", kind="head", module=f"{HERE}:Words", exportable=True)
class Words(Config):
    """Say which word comes next at each place, as BERT does: a layer, a norm, and a table of words with a bias."""

    hidden_size: Dim = None
    vocab_size: int = Field(30523, gt=0)
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-12

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Read the sizes. Raises ValueError for a file without such a head, as those of transformers are."""
        refuse_silent(source)
        own = source.root.get("qformer_config", {})
        return {name: own[name] for name in ("vocab_size", "hidden_size", "hidden_act", "layer_norm_eps") if name in own}

    def ports(self) -> Ports:
        """States of words in, logits out."""
        return Ports.of({"tokens": "float[batch text_tokens hidden_size]"}, {"logits": "float[batch text_tokens vocab_size]"})

    def parameters(self) -> int:
        """A layer, a norm, the table and its bias."""
        width = self.hidden_size or 0
        return width * width + width + 2 * width + self.vocab_size * width + self.vocab_size


def refuse_silent(source: Source) -> None:
    """Raise ValueError for a BLIP-2 without a head that writes words, as those of transformers are."""
    if not source.root.get(AUTHORS):
        raise ValueError(f"{source.text} has no head that writes words: the file of its authors has one (blip2_pretrained.pth)")


class Temperature(Config):
    """What cosines are divided by; not a component itself."""

    temperature: float = Field(0.07, gt=0, description="what cosines are divided by; with `learned` what it starts from")
    learned: bool = Field(False, description="it is a parameter, `temp` of the authors' files")

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """See whether it is a file of the authors; those of transformers have no temperature: their cosines are taken as they are."""
        return {"learned": True} if source.root.get(AUTHORS) else {"temperature": 1.0}

    def parameters(self) -> int:
        """The temperature, if it is learned."""
        return int(self.learned)


@component("similarity/best_query", kind="head", module=f"{HERE}:BestQuery", exportable=True)
class BestQuery(Temperature):
    """Compare the queries of a picture with texts: the cosine of the query that fits a text best, over the temperature.

    over  texts: one picture and several texts for each record; pair: one of each
    """

    over: Literal["texts", "pair"] = "texts"

    def ports(self) -> Ports:
        """Vectors in, a number for each text out."""
        texts, given = ("candidates ", "float[batch candidates]") if self.over == "texts" else ("", "float[batch]")
        return Ports.of({"image": "float[batch queries width]", "text": f"float[batch {texts}width]"}, {"logits": given})


@component("loss/contrastive_queries", kind="loss", module=f"{HERE}:Contrast", exportable=True)
class Contrast(Temperature):
    """Tell the pairs of a batch from all other combinations by the query that fits best, in both directions (ITC of BLIP-2).

    temperature  what it is at present, the same for each record, without gradients: qformer/negatives draws by it
    Source: arXiv 2301.12597, section 3.2; the label smoothing, and the temperature as a divisor, are those of its code.
    """

    label_smoothing: float = Field(0.1, ge=0, lt=1, description="share of the wanted answer that is spread over all")

    def ports(self) -> Ports:
        """Queries of a picture and the vector of a text for each record in; its share, and what cosines are divided by, out."""
        inputs = {"image": "float[batch queries width]", "text": "float[batch width]"}
        return Ports.of(inputs, {"loss": "float[batch]", "temperature": "float[batch]"})


@component("qformer/negatives", kind="preprocess", module=f"{HERE}:Negatives", random=True, cache=False)
class Negatives(Temperature):
    """Put beside each pair of a batch its text with a picture that is not its own, and its picture with another text (ITM of BLIP-2).

    Which ones is drawn by the seed, the likelier the more they are alike; `neg_image` and `neg_text` say it, by place in the batch.
    temperature  that of loss/contrastive_queries, which is trained; left out: that of the source, as it was
    labels       1 for the first of the three pairs, 0 for the others
    """

    def ports(self) -> Ports:
        """Vectors that say what is alike, and what is to be combined, in; three pairs for each record out."""
        inputs = {
            "image": "float[batch queries width]", "text": "float[batch width]", "memory": "float[batch memory_tokens memory_size]",
            "ids": "int64[batch text_tokens]", "mask": "bool[batch text_tokens]", "neg_image": "optional[int64[batch]]",
            "neg_text": "optional[int64[batch]]", "temperature": "optional[float[batch]]",
        }  # fmt: skip
        given = {
            "memory": "float[batch pairs memory_tokens memory_size]", "ids": "int64[batch pairs text_tokens]",
            "mask": "bool[batch pairs text_tokens]", "labels": "int64[batch pairs]",
        }  # fmt: skip
        return Ports.of(inputs, given)

    @property
    def pairs(self) -> int:
        """Pairs of a record: its own, and two wrong ones."""
        return 3


@component(
    "qformer/writer", kind="llm", module=f"{HERE}:Writing", loop="modelgraft_plugins.qformer.writing:Writer", exportable=True, random=True,
    taps=("text", "ids"),
)  # fmt: skip
class Writer(PairSizes, ShortTexts):
    """Write a caption of a picture with the Q-Former alone (ITG of BLIP-2): its words read the queries, and the words before them.

    Texts are short, so that reading what was written again costs little beside reading the weights, and is exact. Its weights are those
    of a file of the authors, which has a head that writes words. The published search has 3 beams, and texts of 10 to 30 tokens.
    prompt  what the caption begins with; it is not part of the answer
    """

    max_new_tokens: int = Field(29, ge=0, description="longest caption in tokens; 0 gives the logits alone")
    end_id: int = Field(102, ge=0, description="the token that ends a caption: [SEP]")

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Read the sizes. Raises ValueError for a file without the head."""
        refuse_silent(source)
        found = dict(super().from_source(source))
        end = source.root.get("sep_token_id")
        return found if end is None else {**found, "end_id": end}

    @property
    def last_ids(self) -> tuple[int, ...]:
        """The tokens that end a caption."""
        return (self.end_id,) if self.end_ids is None else self.end_ids

    def ports(self) -> Ports:
        """What an eye gives, and the beginning of the caption, in; the caption, and the logits of its first token, out."""
        inputs = {"memory": "float[batch memory_tokens encoder_hidden_size]", "prompt": "optional[text]"}
        return Ports.of(inputs, {"text": "text", "logits": "float[batch vocab_size]", "ids": "int64[batch written]"})

    def parts(self) -> Mapping[str, Ports]:
        """The Q-Former with its head: all ids so far, and the place that is asked about."""
        inputs = {"ids": "int64[batch slots]", "places": "int64[batch]", "memory": "float[batch memory_tokens encoder_hidden_size]"}
        return {"read": Ports.of(inputs, {"logits": "float[batch vocab_size]"})}

    def most(self) -> Mapping[str, int]:
        """There are no more places."""
        return {"slots": self.max_position_embeddings}

    def export_facts(self) -> dict[str, Any]:
        """The settings of the loop change no graph."""
        return self.model_dump(exclude={*ShortTexts.model_fields, "begin_id", "end_id"})

    def parameters(self) -> int:
        """Beside the Q-Former a layer, a norm, the table of words and its bias."""
        width = self.hidden_size or 0
        return super().parameters() + width * width + 3 * width + self.vocab_size * width + self.vocab_size
