"""Adapters: small trained parts that are grafted into the modules of a host node."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import Field, model_validator

from modelgraft import Config, component, hookimpl
from modelgraft.plugin import families
from modelgraft_plugins.stated import Table, told

if TYPE_CHECKING:
    from modelgraft.plugin import SolvedNode, Source

FILE = "adapter_config.json"
# peft's key -> ours, where they differ; the others of OBEYED have one name
NAMES: Mapping[str, str] = {"r": "rank", "lora_alpha": "alpha", "target_modules": "targets"}
OBEYED = (
    *NAMES, "use_rslora", "rank_pattern", "alpha_pattern", "exclude_modules", "layers_to_transform", "layers_pattern", "modules_to_save",
    "bias", "lora_bias", "use_dora", "fan_in_fan_out", "target_parameters", "trainable_token_indices", "ensure_weight_tying",
)  # fmt: skip
# What changes the base model itself, or what a call would have to say: such an adapter is refused, because without it the answer is
# another. Key -> the values at which it does nothing. How new updates start ("gaussian") does not matter once they are trained.
REFUSED: Mapping[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "init_lora_weights": (True, False, "gaussian", "eva", "orthogonal"),
    "layer_replication": ([],),
    "alora_invocation_tokens": ([],),
    "use_qalora": (False,),
    "use_bdlora": (),
    "arrow_config": (),
    "kasa_config": (),
    "velora_config": (),
    "monteclora_config": (),
    "megatron_config": (),
}
SQUARE = {"q_proj", "k_proj", "v_proj", "o_proj"}  # layers that are as wide as what they read, where heads share no keys
HOST = ("host_width", "host_layers")  # our own words, which recorded configs may have beside peft's
TABLE = Table(
    FILE,
    obeyed=frozenset(OBEYED),
    idle=frozenset({
        "task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode", "lora_dropout",
        *HOST, "megatron_core", "loftq_config", "eva_config", "corda_config", "lora_ga_config", "qalora_group_size", "runtime_config",
    }),
    still=REFUSED,
)  # fmt: skip
T = TypeVar("T")
UPDATE = ".lora_"  # what the names of an update's tensors hold behind that of their layer
TABLES = ("embed_tokens.weight", "wte.weight", "lm_head.weight")  # how the names of whole embeddings and heads end in its files


@component("adapter/lora", kind="adapter", load="modelgraft_plugins.adapters.lora:graft", inputs={}, outputs={})
class Lora(Config):
    """Add low-rank updates to linear layers of the host (LoRA, arXiv 2106.09685).

    A folder that peft has saved says all of this in its adapter_config.json, and a file that `modelgraft train` has left in its header;
    a bare file of tensors does not. Tensors may have the names that they have in training, `lora_A.default.weight`, and be a part of a
    larger file: `trained.pt#llama_model`.
    The fields that are named as in peft mean what they mean there.
    """

    grafts_tensors = True

    rank: int = Field(8, gt=0, description="width of the update")
    alpha: int | float = Field(16, description="the update is scaled by alpha / rank")
    targets: tuple[str, ...] | str | None = Field(
        ("q_proj", "v_proj"), description="names of the layers to update, as in the host; one text: a regular expression, or all-linear"
    )
    use_rslora: bool = Field(False, description="scale by alpha / sqrt(rank) instead (arXiv 2312.03732)")
    rank_pattern: dict[str, Annotated[int, Field(gt=0)]] = Field(
        {}, description="rank of some layers, by a regular expression of their names"
    )
    alpha_pattern: dict[str, int | float] = Field({}, description="alpha of some layers, likewise")
    exclude_modules: tuple[str, ...] | str | None = Field(None, description="layers that are left alone although `targets` names them")
    layers_to_transform: tuple[int, ...] | int | None = Field(None, description="numbers of the layers to update; null: all")
    layers_pattern: tuple[str, ...] | str | None = Field(None, description="name of the list that these numbers count in")
    modules_to_save: tuple[str, ...] | None = Field(None, description="modules that the adapter replaces as a whole")
    bias: Literal["none", "all", "lora_only"] = Field("none", description="which biases were trained too, and replace those of the host")
    lora_bias: bool = Field(False, description="the updates have biases of their own")
    use_dora: bool = Field(False, description="the lengths of the weights were trained too (DoRA, arXiv 2402.09353)")
    fan_in_fan_out: bool = Field(False, description="the layers hold their weights transposed, as those of GPT-2 do")
    target_parameters: tuple[str, ...] | None = Field(None, description="parameters that lie in no layer of their own, such as experts")
    trainable_token_indices: tuple[int, ...] | dict[str, tuple[int, ...]] | None = Field(
        None, description="tokens whose embeddings the adapter replaces"
    )
    ensure_weight_tying: bool = Field(False, description="what is replaced of tied embeddings is replaced in the head as well")

    host_width: int | None = Field(
        None, gt=0, description="width of the host, of published numbers without files: so that a plan can count"
    )
    host_layers: int | None = Field(None, gt=0, description="how many layers it has, likewise")
    vocabulary: int | None = Field(None, gt=0, description="tokens whose embeddings its files hold whole; null: they hold none")
    count: int | None = Field(None, gt=0, description="numbers that it adds to its host; null: not known before its files are there")

    @model_validator(mode="after")
    def _can_be_grafted(self) -> Lora:
        """What peft would stumble over while it loads."""
        written = {"targets": self.targets, "exclude_modules": self.exclude_modules}
        patterns = [(name, value) for name, value in written.items() if isinstance(value, str)]
        patterns += [("rank_pattern", key) for key in self.rank_pattern] + [("alpha_pattern", key) for key in self.alpha_pattern]
        for name, pattern in patterns:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"{name} has {pattern!r}, which is no regular expression: {error}") from error
        if isinstance(self.targets, str) and self.targets != "all-linear" and self.layers_to_transform is not None:
            raise ValueError("layers_to_transform goes with a list of `targets`: name the layers within the regular expression instead")
        return self

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Read adapter_config.json. Raises ValueError for an adapter of another kind, or one that changes the base model."""
        stated, shapes = source.root, source.tensor_shapes()
        if (trained := source.states("adapter/lora", is_graft=True)) is not None:
            return {**trained, **_held(own(shapes))}
        found = _held(shapes)
        if (fields := _fields(source)) is not None:  # the trained parts of a whole that states its own words
            return {**told(stated, fields), **found}
        for key, value in TABLE.over({key: stated[key] for key in REFUSED if key in stated}).items():
            raise ValueError(f"its {FILE} states {key}: {value!r}, which adapter/lora does not have; {_way(key)}")
        return {NAMES.get(key, key): stated[key] for key in OBEYED if stated.get(key) is not None} | _host(source) | found

    @classmethod
    def unheeded(cls, source: Source) -> list[tuple[str, ...]]:
        """Keys that peft did not have when this was written; and a file of tensors alone, which states nothing."""
        if source.states("adapter/lora", is_graft=True) is not None:
            return []
        if not source.root:
            hint = "name the folder that peft has saved, or set rank, alpha and targets"
            return [(f"{source.text} has no {FILE} beside it, so that alpha is the usual 16, not one that it states", hint, "alpha")]
        if _fields(source) is not None:
            return []  # who reads the other parts of it tells what is not known
        return list(TABLE.unheeded(source.root, source.text))

    def parameters(self) -> int | None:
        """What its files hold, but for embeddings that take the place of the host's.

        Without files: two matrices for each layer of attention that is as wide as the host, where published numbers say that; else None.
        """
        if self.count is not None:
            return self.count
        if self.host_width is None or self.host_layers is None or isinstance(self.targets, str) or not set(self.targets or ()) <= SQUARE:
            return None
        return self.host_layers * len(self.targets or ()) * 2 * self.rank * self.host_width

    def review(self, node: SolvedNode) -> Iterable[tuple[str, str, str]]:
        """Embeddings of another number of tokens than those of the host, which they would replace."""
        logits = node.out_ports.get("logits")
        axis = logits.tensor.axes[-1] if logits is not None and logits.tensor is not None else None
        there = axis.size if axis is not None else None
        if self.vocabulary is not None and there not in (None, self.vocabulary):
            found = f"the adapter of {node.name} holds embeddings of {self.vocabulary:,} tokens, and {node.name} has {there:,}"
            way = f"name the language model as it was before tokens were added to it, and those tokens in {node.name}.extra_tokens"
            yield "config-mismatch", found, way


def _fields(source: Source) -> Mapping[str, tuple[str, Any]] | None:
    """Where the config of a whole says what is a field here; None: it is peft's own."""
    return families().whole(source.root.get("model_type")).components.get("adapter/lora")


def _host(source: Source) -> dict[str, int]:
    """What published numbers say of the host; files of weights say more than that."""
    return {} if source.has_weights else {key: source.root[key] for key in HOST if key in source.root}


def own(tensors: Mapping[str, T]) -> dict[str, T]:
    """Those of a file that was trained here which are of LoRA: it may hold what other adapters of the node have learnt too."""
    return {key: tensor for key, tensor in tensors.items() if UPDATE in key or ".modules_to_save." in key}


def _held(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """What the files hold: how many tokens embeddings or a head have that are replaced as a whole, and how many numbers beside these."""
    tables = {key: shape for key, shape in shapes.items() if UPDATE not in key and key.endswith(TABLES) and "modules_to_save" not in key}
    beside = sum(math.prod(shape) for key, shape in shapes.items() if key not in tables)
    rows = max((shape[0] for shape in tables.values() if shape), default=0)
    return {name: number for name, number in (("count", beside), ("vocabulary", rows)) if number}


def _way(key: str) -> str:
    if key == "init_lora_weights":
        return "save it again with peft's path_initial_model_for_weight_conversion, which makes a plain LoRA of it"
    return "merge it into its base model with peft, and name the merged folder"


@hookimpl
def register_components(register: Callable[[Any], None]) -> None:
    """Offer the adapters."""
    register(Lora)
