"""The learned part of prefix attention, and how it stands in a LLaMA of transformers.

Source: `llama/llama.py` of the published LLaMA-Adapter V2, where a layer adds to its attention over words, before the way out,
tanh(gate) * softmax(queries · keys of the prompt / sqrt(d)) · values of the prompt; queries are rotated, the prompt has no places.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from modelgraft_plugins.llm.gated_blocks import GatedLayers, attend, layers_of, split

if TYPE_CHECKING:
    from modelgraft_plugins.llm.gated import GatedCrossAttention
    from modelgraft_plugins.llm.prefix import PrefixAttention

Model = Any  # a model of transformers, which is only partly annotated
MAPS: Mapping[str, str] = {  # our word -> the linear layer within a layer of the host
    "q_proj": "self_attn.q_proj", "k_proj": "self_attn.k_proj", "v_proj": "self_attn.v_proj", "o_proj": "self_attn.o_proj",
    "gate_proj": "mlp.gate_proj", "up_proj": "mlp.up_proj", "down_proj": "mlp.down_proj",
}  # fmt: skip
BIASED = ("q_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


class PrefixLayer(nn.Module):
    """What one layer of the host has: a gate for each head, perhaps one for all, biases, and updates (`q_proj_down`, `q_proj_up`)."""

    def __init__(self, config: PrefixAttention) -> None:
        super().__init__()
        width, inner, heads = config.hidden_size or 0, config.intermediate_size or 0, config.num_attention_heads or 0
        self.gate = nn.Parameter(torch.zeros(heads))
        if config.second_gate:
            self.second_gate = nn.Parameter(torch.ones(1))
        for name in BIASED if config.biases else ():
            self.register_parameter(name, nn.Parameter(torch.zeros(inner if name in ("gate_proj", "up_proj") else width)))
        for name in MAPS if config.lora_rank else ():
            given, found = (inner if name == "down_proj" else width), (inner if name in ("gate_proj", "up_proj") else width)
            down = nn.Parameter(torch.empty(config.lora_rank, given))
            nn.init.kaiming_uniform_(down, a=5**0.5)
            self.register_parameter(f"{name}_down", down)
            self.register_parameter(f"{name}_up", nn.Parameter(torch.zeros(found, config.lora_rank)))

    @property
    def weight(self) -> Tensor:
        """What the values of the vectors are weighed by, float[heads]."""
        found = self.gate.tanh()
        return found * self.second_gate if hasattr(self, "second_gate") else found


class PrefixLayers(GatedLayers):
    """The learned vectors and gates of a host; keys and values are made by the maps of the host itself."""

    def __init__(self, config: PrefixAttention) -> None:
        nn.Module.__init__(self)
        assert config.vectors is not None
        assert config.hidden_size is not None
        self.config = cast("GatedCrossAttention", config)  # it says all that gated layers are asked for
        self.own, self.now, self.vectors = config, None, config.vectors
        self.query = nn.Parameter(torch.empty(config.layers * config.vectors, config.hidden_size))
        nn.init.normal_(self.query)
        self.layers = nn.ModuleList(PrefixLayer(config) for _ in range(config.num_hidden_layers or 0))
        self.blocks = nn.ModuleDict()  # of the layers that look, the attention of the host, once it is there

    def attach(self, model: Model) -> None:
        """Give the layers of a model their biases, and let the last of them look where `looking` says.

        Raises ValueError for a model whose attention is not that of a LLaMA.
        """
        found = layers_of(model)
        attention = getattr(found[0], "self_attn", None)
        if type(attention).__name__ != "LlamaAttention":
            raise ValueError(f"a {model.config.model_type} has other attention than LLaMA, which a prefix of LLaMA-Adapter stands in")
        for layer, own in zip(found, self.layers, strict=True):
            for name in BIASED if self.own.biases else ():
                layer.get_submodule(MAPS[name]).bias = getattr(own, name)
            for name, place in MAPS.items() if self.own.lora_rank else ():
                layer.get_submodule(place).register_forward_hook(_Update(cast("PrefixLayer", own), name))  # before what keeps queries
        for index, number in enumerate(self.own.looking):
            looks: Any = found[number].self_attn
            self.blocks[str(number)] = looks
            _Reading(self, index).attach(looks)

    def keys_values(self, media: Tensor) -> list[Tensor]:
        """media float[batch vectors width] -> keys and values of the layers that look by turns, float[batch heads vectors d].

        The values are weighed by the gates.
        """
        found: list[Tensor] = []
        prompts = self.query.view(self.own.layers, self.own.vectors or 0, -1)
        for prompt, number in zip(prompts, self.own.looking, strict=True):
            attention: Any = self.blocks[str(number)]
            maps = (attention.k_proj, attention.v_proj)  # by themselves: updates are for words
            key, value = (_for_each(linear(media + prompt, of.weight, of.bias), attention) for of in maps)
            found += [key, cast("PrefixLayer", self.layers[number]).weight[:, None, None] * value]
        return found


class _Update:
    """What LoRA adds behind a linear layer of the host. An object, as `_Reading` is one."""

    def __init__(self, layer: PrefixLayer, name: str) -> None:
        self.layer, self.name = layer, name

    def __call__(self, _module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        down, up = (getattr(self.layer, f"{self.name}_{way}") for way in ("down", "up"))
        return output + linear(linear(args[0], down), up)


class _Reading:
    """What one layer reads of the vectors. An object, so that a deep copy of model and layers belongs together."""

    def __init__(self, prefix: PrefixLayers, index: int) -> None:
        self.prefix, self.index = prefix, index
        self.queries: Tensor | None = None
        self.rotation: tuple[Tensor, Tensor] | None = None

    def attach(self, attention: Any) -> None:  # Any: a module of transformers
        """Stand around the parts of a module of attention."""
        attention.register_forward_pre_hook(self.begin, with_kwargs=True)
        attention.q_proj.register_forward_hook(self.keep)
        attention.o_proj.register_forward_pre_hook(self.add)

    def begin(self, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Keep how places rotate queries."""
        if self.prefix.now is not None:
            self.rotation = kwargs["position_embeddings"] if "position_embeddings" in kwargs else args[1]

    def keep(self, _module: nn.Module, _args: tuple[Any, ...], output: Tensor) -> None:
        """Keep the queries, float[batch tokens heads*d]."""
        if self.prefix.now is not None:
            self.queries = output

    def add(self, _module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        """Add what the heads read of the vectors to what they read of words, float[batch tokens heads*d]."""
        now = self.prefix.now
        if now is None:
            return None
        assert self.queries is not None
        assert self.rotation is not None
        queries, (cos, sin) = split(self.queries, self.prefix.own.num_attention_heads or 1), self.rotation
        rotated, _ = apply_rotary_pos_emb(queries, queries, cos, sin)
        self.queries = self.rotation = None
        return (args[0] + attend(rotated, *now.pairs[self.index], now), *args[1:])


def _for_each(states: Tensor, attention: Any) -> Tensor:  # Any: a module of transformers
    """[batch vectors kv_heads*d] -> [batch heads vectors d], of heads that share keys and values as well."""
    heads = states.shape[-1] // int(attention.head_dim)
    return split(states, heads).repeat_interleave(int(attention.num_key_value_groups), 1)
