"""adapter/prefix_attention: vectors that stand before nothing, and that every word of llm/causal looks at (LLaMA-Adapter V2)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from modelgraft.plugin import Config, Dim, Ports, SolvedNode, component, families, port
from modelgraft_plugins.stated import told

if TYPE_CHECKING:
    from modelgraft.plugin import Source

FAMILY = "prefix"  # what gated layers call these


@component(
    "adapter/prefix_attention",
    kind="adapter",
    load="modelgraft_plugins.llm.prefix_causal:graft",
    loop="modelgraft_plugins.llm.prefix_writer:PrefixWriter",
    hosts=("llm/causal",),
    keywords=("llama-adapter", "prefix"),
)
class PrefixAttention(Config):
    """Let every word of llm/causal look at a few vectors beside the words before it, in its last layers (LLaMA-Adapter, arXiv 2304.15010).

    Adds the input `media`: of each record as many vectors as there are learned ones for a layer, to which they are added. A layer makes
    keys and values of them as it does of words, without a place. What its heads read of them, in a softmax of its own, is weighed by a
    gate for each head, which is closed at first, and added to what they read of the words.
    Queries, the way out and the feed-forward layers may have got biases, and the norms of the host other weights.

    layers  how many layers look, counted from the last
    trains  what of it was trained: the prompt (learned vectors and gates), the biases, updates of low rank, the norms of the host
    """

    grafts_tensors = True

    hidden_size: Dim = Field(None, description="width of the host's layers, and of the vectors")
    num_hidden_layers: Dim = Field(None, description="layers of the host")
    num_attention_heads: Dim = Field(None, description="heads of the host")
    vectors: Dim = Field(None, description="how many vectors there are")
    layers: int = Field(31, gt=0, description="how many layers look at them, counted from the last")
    biases: bool = Field(True, description="linear layers of the host get biases, but for those of keys and values")
    intermediate_size: int | None = Field(None, gt=0, description="width of the host's feed-forward layers, for the biases")
    lora_rank: int = Field(0, ge=0, description="linear layers of the host get updates of this rank, which the vectors do not; 0: none")
    second_gate: bool = Field(False, description="one more factor for each layer, as published files with updates have it")
    trains: tuple[Literal["prompt", "biases", "lora", "norms"], ...] = Field(
        ("prompt", "biases", "lora", "norms"), description="what was trained: the last of them are parameters of the host"
    )

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Read what the config of a LLaMA-Adapter says, or a file that `modelgraft train` has left. Raises ValueError for any other."""
        if (trained := source.states("adapter/prefix_attention", is_graft=True)) is not None:
            return trained
        card = families().whole(source.root.get("model_type")).components.get("adapter/prefix_attention")
        if card is None:
            raise ValueError(f"{source.text} holds no prefix for attention, such as that of a LLaMA-Adapter V2")
        return told(source.root, card["fields"])

    @property
    def family(self) -> str:
        """As gated layers are asked."""
        return FAMILY

    @property
    def attends(self) -> Literal["all"]:
        """A word sees all of the vectors."""
        return "all"

    @property
    def media_size(self) -> int | None:
        """Width of the vectors."""
        return self.hidden_size

    @property
    def looking(self) -> tuple[int, ...]:
        """The numbers of the layers that look."""
        count = self.num_hidden_layers or 0
        return tuple(range(count - self.layers, count))

    def ports(self) -> Ports:
        """The vectors of each record."""
        return Ports({"media": port("float[batch vectors hidden_size]", doc="what every word looks at")}, {})

    def parameters(self) -> int | None:
        """Learned vectors of each layer, gates for each head of the host, biases and updates."""
        parts = (self._prompt(), self._biases(), self._updates())
        return None if None in parts else sum(part for part in parts if part is not None)

    def trained_parameters(self) -> int | None:
        """What `trains` names; the norms are those of the host."""
        if self.hidden_size is None or self.num_hidden_layers is None:
            return None
        norms = (2 * self.num_hidden_layers + 1) * self.hidden_size
        parts = {"prompt": self._prompt(), "biases": self._biases(), "lora": self._updates(), "norms": norms}
        counts = [parts[name] for name in dict.fromkeys(self.trains)]
        return None if None in counts else sum(count for count in counts if count is not None)

    def review(self, node: SolvedNode) -> Iterable[tuple[str, str, str]]:
        """It looks in layers that there are, and biases need their width."""
        if self.layers > (self.num_hidden_layers or self.layers):
            found = f"the prefix of {node.name} is read by its last {self.layers} layers, and it has {self.num_hidden_layers}"
            yield "config-mismatch", found, f"set `layers` of its adapter to at most {self.num_hidden_layers}"
        if (self.biases or self.lora_rank) and self.intermediate_size is None:
            found = f"the prefix of {node.name} brings biases or updates, and nothing says how wide its feed-forward layers are"
            yield "config-mismatch", found, "set intermediate_size, name its checkpoint, or set biases: false and lora_rank: 0"

    def _prompt(self) -> int | None:
        sizes = (self.hidden_size, self.num_hidden_layers, self.num_attention_heads, self.vectors)
        if None in sizes:
            return None
        width, count, heads, vectors = (size or 0 for size in sizes)
        return self.layers * vectors * width + count * (heads + self.second_gate)

    def _biases(self) -> int | None:
        if not self.biases:
            return 0
        if self.hidden_size is None or self.num_hidden_layers is None or self.intermediate_size is None:
            return None
        return self.num_hidden_layers * (3 * self.hidden_size + 2 * self.intermediate_size)

    def _updates(self) -> int | None:
        if not self.lora_rank:
            return 0
        if self.hidden_size is None or self.num_hidden_layers is None or self.intermediate_size is None:
            return None
        sides = 4 * 2 * self.hidden_size + 3 * (self.hidden_size + self.intermediate_size)  # of attention, of the feed-forward layers
        return self.num_hidden_layers * self.lora_rank * sides
