"""The Q-Former: learned queries that read what an encoder gives, and an instruction beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from modelgraft import Config, Dim, Ports, component, hookimpl
from modelgraft.plugin import families
from modelgraft_plugins.qformer import first_stage, pairs
from modelgraft_plugins.stated import Table, told, tower_table
from modelgraft_plugins.widths import uneven_heads

if TYPE_CHECKING:
    from modelgraft.plugin import SolvedNode, Source

MEDIUM = "queries"
HIDDEN_SIZE = 768  # of the queries, where nobody says it
PUBLISHED = "blip2-itm-vit-g"  # the one of the first stage that is on the hub in the layout of transformers
READS = "reads"  # the style of those that read a text beside the queries, unless their config says otherwise


def table() -> Table:
    """What a published config states -> what becomes of it; a test compares it with the config classes of transformers."""
    return tower_table({"use_qformer_text_input", *(key for card in families().of_medium(MEDIUM).values() for key in card.defaults)})


@component(
    "qformer/queries",
    kind="resampler",
    module="modelgraft_plugins.qformer.modules:Queries",
    exportable=True,
    inputs={"memory": "float[batch memory_tokens memory_size]"},
    outputs={"queries": "float[batch num_query_tokens hidden_size]"},
)
class Queries(Config):
    """Give every record the same learned query vectors; of `memory` only the number of records matters."""

    sizes_only: ClassVar[bool] = True  # so that nobody proposes it between an eye and a tongue

    num_query_tokens: int = Field(32, gt=0)
    hidden_size: Dim = None

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Read the shape of the tensor itself, or the config of the model around it."""
        shape = source.shape("")
        if first_stage.of_training(source) is not None:
            shape = source.shape("reader.query_tokens")
        if shape is not None:
            return {"num_query_tokens": shape[-2], "hidden_size": shape[-1]}
        fields = families().whole(source.root.get("model_type")).components.get("qformer/queries")
        if fields is not None:
            return told(source.root, fields)
        own = source.config.get("qformer_config", {})
        kind = families().inside(source.config.get("model_type"), MEDIUM)[1]
        card = families().tower(own.get("model_type") or kind)
        wide = own.get("hidden_size", card.defaults["hidden_size"] if card is not None else HIDDEN_SIZE)
        return {"num_query_tokens": source.config.get("num_query_tokens", 32), "hidden_size": wide}

    def parameters(self) -> int:
        """Count the queries."""
        return self.num_query_tokens * (self.hidden_size or 0)


@component("qformer/qformer", kind="resampler", module="modelgraft_plugins.qformer.modules:QFormer", exportable=True)
class QFormer(Config):
    """Let queries read what an encoder gives: one vector per query, however long the memory is.

    hidden_size          width of the queries and of the result;  encoder_hidden_size  width of the memory
    intermediate_size    of the feed-forward layers; None: four times the width
    reads_text           an instruction stands beside the queries, as in InstructBLIP: inputs `ids` and `mask`
    norms_memory         the norm behind the eye is its own, as BLIP-2's first stage trains it: in place of `memory` it takes `unnormed`,
                         what the eye gives before its last norm (vision/encoder with layer: -1)
    Of a whole of the first stage, the authors' file or a trained qformer/pair, it takes this norm and the layers, not what reads words.
    """

    hidden_size: Dim = None
    encoder_hidden_size: Dim = None
    num_hidden_layers: int = Field(12, gt=0)
    num_attention_heads: int = Field(12, gt=0)
    intermediate_size: int | None = Field(None, gt=0)
    cross_attention_frequency: int = Field(2, gt=0, description="every so many layers, from the first, read the memory")
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-12
    reads_text: bool = False
    norms_memory: bool = Field(False, description="the norm behind the eye is its own: it takes `unnormed` in place of `memory`")
    vocab_size: int = Field(30522, gt=0)
    max_position_embeddings: int = Field(512, gt=0)
    pad_token_id: int | None = 0

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Read a Q-Former config; the width of the memory is that of the vision tower around it. Or the sizes of one of the first stage."""
        if (sizes := first_stage.sizes(source)) is not None:
            return sizes
        kind = source.config.get("model_type") or families().inside(source.root.get("model_type"), MEDIUM)[1]
        known = families().of_medium(MEDIUM)
        if kind not in known:
            served = ", ".join(sorted(known))
            raise ValueError(f"qformer/qformer serves {served}, not model_type '{kind}': write #qformer behind the source")
        found = {name: source.config.get(name, default) for name, default in known[kind].defaults.items()}
        vision = source.root.get("vision_config")
        if isinstance(vision, Mapping) and "hidden_size" in vision:
            found["encoder_hidden_size"] = vision["hidden_size"]
        return {**found, "reads_text": source.config.get("use_qformer_text_input", known[kind].style == READS)}

    @classmethod
    def unheeded(cls, source: Source) -> list[tuple[str, str]]:
        """What the config states and this does not know."""
        if first_stage.sizes(source) is not None:
            return list(pairs.Pair.unheeded(source))
        return table().unheeded(source.config, source.text)

    @property
    def inner_size(self) -> int:
        """Width of the feed-forward layers."""
        return self.intermediate_size or 4 * (self.hidden_size or 0)

    def ports(self) -> Ports:
        """Queries and memory in, one vector per query out."""
        memory = "unnormed" if self.norms_memory else "memory"
        inputs = {"queries": "float[batch queries hidden_size]", memory: "float[batch memory_tokens encoder_hidden_size]"}
        if self.reads_text:
            inputs |= {"ids": "int64[batch text_tokens]", "mask": "optional[bool[batch text_tokens]]"}
        return Ports.of(inputs, {"tokens": "float[batch queries hidden_size]"})

    def most(self) -> Mapping[str, int]:
        """There are no more positions for a text."""
        return {"text_tokens": self.max_position_embeddings} if self.reads_text else {}

    def parameters(self) -> int:
        """Count without the queries, which are a part of their own."""
        width, inner, memory = self.hidden_size or 0, self.inner_size, self.encoder_hidden_size or 0
        norm, attention = 2 * width, 4 * (width * width + width)
        feed_forward = 2 * width * inner + inner + width + norm
        block = attention + norm + feed_forward * (2 if self.reads_text else 1)
        reading = 2 * (width * width + width) + 2 * (memory * width + width) + norm
        readers = -(-self.num_hidden_layers // self.cross_attention_frequency)
        tables = (self.vocab_size + self.max_position_embeddings) * width if self.reads_text else 0
        return self.num_hidden_layers * block + readers * reading + norm + tables + self.norms_memory * 2 * memory

    def review(self, node: SolvedNode) -> Iterable[tuple[str, str, str]]:
        """The heads must share the width evenly."""
        return uneven_heads(node.name, self.hidden_size, self.num_attention_heads)


@hookimpl
def register_components(register: Callable[[Any], None]) -> None:
    """Offer the components of this plugin."""
    register(Queries)
    register(QFormer)
    for subject in (pairs.Pair, pairs.Match, pairs.Words, pairs.BestQuery, pairs.Contrast, pairs.Negatives, pairs.Writer):
        register(subject)


@hookimpl
def register_recorded_configs(register: Callable[[str, Any], None]) -> None:
    """Offer the sizes of the first stage: as its authors' file has them, and as that of transformers does."""
    for folder in sorted((Path(__file__).parent / "presets").iterdir()):
        register(f"preset:{folder.name}", folder)
        if folder.name == PUBLISHED:
            register(f"Salesforce/{PUBLISHED}", folder)
