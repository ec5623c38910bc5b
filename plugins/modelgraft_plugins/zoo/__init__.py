"""The models of the MMBench table: what was published of each, and the parts that only one of them has."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from modelgraft import Config, Dim, Ports, component, hookimpl
from modelgraft.plugin import families
from modelgraft_plugins.stated import told, tower_table
from modelgraft_plugins.widths import uneven_heads

if TYPE_CHECKING:
    from modelgraft.plugin import SolvedNode, Source

HERE = Path(__file__).parent
PRESETS = (  # in the folder presets
    "blip2-flan-t5-xxl", "instructblip-vicuna-13b", "llama-adapter-v2-7b", "minigpt4-13b", "minigpt4-7b", "mmgpt-lora",
    "mplug-owl-llama-7b", "mpt-7b", "pandagpt-13b", "shikra-7b",
)  # fmt: skip
ABSTRACTOR = {  # our word -> its key in a config of mPLUG-Owl, and what that means where it is silent
    "hidden_size": ("hidden_size", 1024), "num_hidden_layers": ("num_hidden_layers", 6), "num_attention_heads": ("num_attention_heads", 16),
    "intermediate_size": ("intermediate_size", 4096), "layer_norm_eps": ("layer_norm_eps", 1e-6),
}  # fmt: skip
ABSTRACTOR_TABLE = tower_table({key for key, _ in ABSTRACTOR.values()} | {"num_queries", "language_hidden_size", "encoder_hidden_size"})


@component("zoo/abstractor", kind="resampler", module="modelgraft_plugins.zoo.abstractor:Abstractor", exportable=True)
class Abstractor(Config):
    """Let queries read a picture and become vectors of a language model, with a learned one behind the last (mPLUG-Owl).

    queries  of `qformer/queries`;  memory  what an eye gives, as wide as they are
    """

    hidden_size: Dim = Field(None, description="width of the queries and of what they read")
    language_size: Dim = Field(None, description="width of the language model")
    num_hidden_layers: int = Field(6, gt=0)
    num_attention_heads: int = Field(16, gt=0)
    intermediate_size: int = Field(4096, gt=0, description="width of the feed-forward layers")
    layer_norm_eps: float = Field(1e-6, description="of the norm within the feed-forward layers")
    num_queries: Dim = Field(None, description="how many queries read")

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Read the config of mPLUG-Owl; sizes that its tensors say are taken from them."""
        found = told(source.config, ABSTRACTOR)
        read = source.config.get("encoder_hidden_size", found["hidden_size"])
        if read != found["hidden_size"]:
            raise ValueError(f"its queries are {found['hidden_size']} wide and what they read {read}, which no abstractor can norm as one")
        text = source.root.get("text_config")
        wide = source.config.get("language_hidden_size", text.get("hidden_size") if isinstance(text, Mapping) else None)
        weight, inner = source.shape("visual_fc.weight"), source.shape("encoder.layers.0.crossattention.output.mlp.w1.weight")
        if weight is not None and inner is not None:
            layers = {key.split(".")[2] for key in source.tensor_shapes() if key.startswith("encoder.layers.")}
            found |= {"hidden_size": weight[1], "intermediate_size": inner[0], "num_hidden_layers": len(layers)}
            wide = weight[0]
        return {**found, **({"language_size": wide} if wide is not None else {})}

    @classmethod
    def unheeded(cls, source: Source) -> Iterable[tuple[str, str]]:
        """What its config states and this does not know."""
        return ABSTRACTOR_TABLE.unheeded(source.config, source.text) if source.config is not source.root else ()

    @property
    def vectors(self) -> int | None:
        """How many come out."""
        return self.num_queries + 1 if self.num_queries is not None else None

    def ports(self) -> Ports:
        """Queries and what they read in, vectors out."""
        inputs = {"queries": "float[batch num_queries hidden_size]", "memory": "float[batch memory_tokens hidden_size]"}
        return Ports.of(inputs, {"tokens": "float[batch vectors language_size]"})

    def parameters(self) -> int | None:
        """Count the layers, the map to the language model and the learned vector."""
        if self.hidden_size is None or self.language_size is None:
            return None
        width, inner = self.hidden_size, self.intermediate_size
        attention, norms = 4 * (width * width + width), 3 * 2 * width
        feed = 2 * (width * inner + inner) + inner * width + width + 2 * inner
        return self.num_hidden_layers * (attention + norms + feed) + (width + 1) * self.language_size + self.language_size

    def review(self, node: SolvedNode) -> Iterable[tuple[str, str, str]]:
        """The heads must share the width evenly."""
        return uneven_heads(node.name, self.hidden_size, self.num_attention_heads)


@component("zoo/visual_prompt", kind="resampler", module="modelgraft_plugins.zoo.visual_prompt:VisualPrompt", exportable=True)
class VisualPrompt(Config):
    """Let learned queries read what CLIP makes of a picture, in blocks of their own, and become as wide as a tongue (LLaMA-Adapter V2).

    What comes out is for `adapter/prefix_attention`, of which it is the prompt.
    """

    in_features: Dim = Field(None, description="width of what is read")
    language_size: Dim = Field(None, description="width of the language model")
    width: int = Field(768, gt=0, description="within the blocks")
    depth: int = Field(8, gt=0, description="how many blocks")
    heads: int = Field(16, gt=0)
    inner_size: int = Field(3072, gt=0, description="width of the feed-forward layers")
    queries: int = Field(10, gt=0, description="how many vectors come out")
    block_eps: float = Field(
        1e-5, description="of the norms in the blocks: timm 0.3.2, which its code stands on, has 1e-5, later ones 1e-6"
    )

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Read what the config of a LLaMA-Adapter says."""
        fields = families().whole(source.root.get("model_type")).components.get("zoo/visual_prompt")
        if fields is None:
            raise ValueError(f"{source.text} holds no visual prompt, such as that of a LLaMA-Adapter V2")
        return told(source.root, fields)

    @classmethod
    def unheeded(cls, source: Source) -> Iterable[tuple[str, ...]]:
        """What the config states and nobody knows."""
        whole = families().whole(source.root.get("model_type"))
        return tower_table(whole.obeyed, whole.idle).unheeded(source.root, source.whole)

    def ports(self) -> Ports:
        """What an eye gives in, vectors out."""
        return Ports.of({"x": "float[batch tokens in_features]"}, {"prompt": "float[batch queries language_size]"})

    def parameters(self) -> int | None:
        """Count both maps with their norms, the queries and the blocks."""
        if self.in_features is None or self.language_size is None:
            return None
        width, inner, wide = self.width, self.inner_size, self.language_size
        block = 4 * (width * width + width) + 2 * width * inner + inner + width + 4 * width
        maps = (self.in_features + 1) * width + 2 * width + (width + 1) * wide + 2 * wide
        return maps + self.queries * width + self.depth * block

    def review(self, node: SolvedNode) -> Iterable[tuple[str, str, str]]:
        """The heads must share the width evenly."""
        return uneven_heads(node.name, self.width, self.heads)


@component("zoo/sum", kind="router", load="modelgraft_plugins.zoo.adding:load", cache=False)
class Sum(Config):
    """Add up the vectors that each record has, of media that may be left out, and give them as one token (PandaGPT)."""

    width: Dim = Field(None, description="of the vectors")

    def ports(self) -> Ports:
        """Any number of vectors in, one token out."""
        return Ports.of({"vectors": "list[float[batch width]]"}, {"token": "float[batch 1 width]"})


@component("zoo/square", kind="preprocess", load="modelgraft_plugins.zoo.squaring:load", cache=False,
           inputs={"image": "image"}, outputs={"image": "image"})  # fmt: skip
class Square(Config):
    """Put edges of one colour around pictures that are not square, so that all of them is seen in its shape (LLaVA, Shikra).

    Source: `expand2square` of the code of LLaVA and Shikra; where an odd number of pixels is to be added, more of them stand behind.
    """

    colour: tuple[int, int, int] = Field((122, 116, 104), description="of the edges, in bytes: the mean that CLIP takes off")


@hookimpl
def register_components(register: Callable[[object], None]) -> None:
    """Offer the components."""
    for declared in (Abstractor, VisualPrompt, Sum, Square):
        register(declared)


@hookimpl
def register_recorded_configs(register: Callable[[str, Any], None]) -> None:
    """Offer the published sizes."""
    for name in PRESETS:
        register(f"preset:{name}", HERE / "presets" / name)


@hookimpl(optionalhook=True)
def register_graph_tables(register: Callable[[str, Path], None]) -> None:
    """Offer the table for `modelgraft graphs --table`."""
    register("mmbench", HERE / "tables" / "mmbench.yaml")
