"""The blocks of gated cross-attention, and how they stand in a language model of transformers.

Source: arXiv 2204.14198, sections 2.2 and 2.3, with the parameter names of OpenFlamingo; IDEFICS' blocks are transformers' own.
Axes: `tokens` of the text; `seen` is its text time, the number of the medium that a token sees, counted from 1 (0: none yet);
`media` are the vectors of all media of a record in a row, and `medium` says to which of them each belongs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn
from transformers import IdeficsConfig
from transformers.activations import ACT2FN
from transformers.models.idefics.modeling_idefics import IdeficsGatedCrossAttentionLayer

if TYPE_CHECKING:
    from modelgraft_plugins.llm.gated import GatedCrossAttention

ACTIVATIONS = {"gelu": "gelu", "squared_relu": "relu2"}  # our word -> that of transformers

Model = Any  # a model of transformers, which is only partly annotated


@dataclass(frozen=True, slots=True)
class Sight:
    """What the tokens of one call see.

    pairs    of each block, keys and values float[batch heads media d]
    allowed  bool[batch 1 tokens media]
    sees     bool[batch tokens 1]: the token sees something; what the others get is exactly 0
    """

    pairs: Sequence[tuple[Tensor, Tensor]]
    allowed: Tensor
    sees: Tensor


def sight(pairs: Sequence[Tensor], seen: Tensor, medium: Tensor, *, attends: str) -> Sight:
    """Work out what may be seen.

    pairs    keys and values of the blocks by turns;  seen  int64[batch tokens];  medium  int64[batch media]
    attends  "last", "next": the medium whose number is the text time; "all": those up to it, and as in OpenFlamingo a token
             before the first medium sees all of them alike
    """
    time, medium = seen[:, None, :, None], medium[:, None, None]
    allowed = time >= medium if attends == "all" else time == medium
    sees = torch.ones_like(seen, dtype=torch.bool)[:, :, None] if attends == "all" else (seen > 0)[:, :, None]
    return Sight(list(zip(pairs[::2], pairs[1::2], strict=True)), allowed, sees)


def attend(queries: Tensor, keys: Tensor, values: Tensor, seen: Sight) -> Tensor:
    """queries float[batch heads tokens d] -> float[batch tokens heads*d]; 0 for tokens that see nothing."""
    scores = queries @ keys.mT * queries.shape[-1] ** -0.5  # [batch heads tokens media]
    scores = scores.masked_fill(~seen.allowed, torch.finfo(scores.dtype).min)  # not -inf: a row without media would be NaN
    read = (scores.softmax(-1) @ values).transpose(1, 2).flatten(2)
    return torch.where(seen.sees, read, 0.0)  # softmax over nothing is even, not nothing


def split(states: Tensor, heads: int) -> Tensor:
    """[batch n heads*d] -> [batch heads n d]."""
    return states.reshape(*states.shape[:2], heads, -1).transpose(1, 2)


class Block(Protocol):
    """A block that stands before a layer."""

    def keys_values(self, media: Tensor) -> tuple[Tensor, Tensor]:
        """media float[batch media media_size] -> keys and values float[batch heads media d]."""
        ...

    def __call__(self, tokens: Tensor, keys: Tensor, values: Tensor, seen: Sight) -> Tensor:
        """tokens float[batch tokens width] -> the same with what they see added to them."""
        ...


class MaskedCrossAttention(nn.Module):
    """Text attends to media; only the text is normed."""

    def __init__(self, width: int, media_width: int, heads: int, head_width: int) -> None:
        super().__init__()
        self.heads, inner = heads, heads * head_width
        self.norm = nn.LayerNorm(width)
        self.to_q = nn.Linear(width, inner, bias=False)
        self.to_kv = nn.Linear(media_width, 2 * inner, bias=False)
        self.to_out = nn.Linear(inner, width, bias=False)

    def forward(self, tokens: Tensor, keys: Tensor, values: Tensor, seen: Sight) -> Tensor:
        """See Block."""
        read: Tensor = self.to_out(attend(split(self.to_q(self.norm(tokens)), self.heads), keys, values, seen))
        return read


class GatedCrossAttentionBlock(nn.Module):
    """Flamingo's block: attention and feed-forward layers, each behind a gate that is closed at first."""

    def __init__(self, width: int, media_width: int, *, heads: int, head_width: int, multiple: int, activation: str = "gelu") -> None:
        """activation: of the feed-forward layers, "gelu" or "squared_relu"."""
        super().__init__()
        self.attn = MaskedCrossAttention(width, media_width, heads, head_width)
        self.attn_gate, self.ff_gate = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
        self.ff = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, multiple * width, bias=False),
            ACT2FN[ACTIVATIONS[activation]],
            nn.Linear(multiple * width, width, bias=False),
        )

    def keys_values(self, media: Tensor) -> tuple[Tensor, Tensor]:
        """See Block."""
        keys, values = self.attn.to_kv(media).chunk(2, dim=-1)
        return split(keys, self.attn.heads), split(values, self.attn.heads)

    def forward(self, tokens: Tensor, keys: Tensor, values: Tensor, seen: Sight) -> Tensor:
        """See Block."""
        tokens = tokens + self.attn_gate.tanh() * self.attn(tokens, keys, values, seen)
        whole: Tensor = tokens + self.ff_gate.tanh() * self.ff(tokens)
        return whole


class IdeficsBlock(nn.Module):
    """The block of IDEFICS: the attention and the feed-forward layers of LLaMA behind gates. `layer` holds its parts."""

    def __init__(self, config: GatedCrossAttention) -> None:
        super().__init__()
        facts: dict[str, Any] = {
            "hidden_size": config.hidden_size, "num_attention_heads": config.num_heads, "intermediate_size": config.intermediate_size,
            "vision_config": {"embed_dim": config.media_size}, "qk_layer_norms": config.qk_norms, "hidden_act": config.hidden_act,
            "rms_norm_eps": config.rms_norm_eps, "alpha_type": config.gates, "alpha_initializer": "zeros",
        }  # fmt: skip
        layer: Any = IdeficsGatedCrossAttentionLayer(IdeficsConfig(**facts), layer_idx=0)  # it keeps nothing: its number means nothing
        layer.cross_attn.rotary_emb = None  # media have no positions
        self.layer = layer

    def keys_values(self, media: Tensor) -> tuple[Tensor, Tensor]:
        """See Block."""
        inner = self.layer.cross_attn
        keys, values = (split(map_(media), inner.num_heads) for map_ in (inner.k_proj, inner.v_proj))
        return (inner.k_layer_norm(keys) if inner.qk_layer_norms else keys), values

    def forward(self, tokens: Tensor, keys: Tensor, values: Tensor, seen: Sight) -> Tensor:
        """See Block."""
        layer, inner = self.layer, self.layer.cross_attn
        queries = split(inner.q_proj(layer.input_layernorm(tokens)), inner.num_heads)
        queries = inner.q_layer_norm(queries) if inner.qk_layer_norms else queries
        tokens = tokens + layer.alpha_cross_attn.tanh() * inner.o_proj(attend(queries, keys, values, seen))
        whole: Tensor = tokens + layer.alpha_dense.tanh() * layer.mlp(layer.post_attention_layernorm(tokens))
        return whole


class GatedLayers(nn.Module):
    """The blocks of one host, by the number of the layer that each stands before.

    vectors  how many there are of all media of a record together; None: any number
    """

    vectors: int | None = None

    def __init__(self, config: GatedCrossAttention) -> None:
        super().__init__()
        self.config = config
        self.blocks = nn.ModuleDict({str(layer): _block(config) for layer in config.layers})
        self.now: Sight | None = None

    def attach(self, model: Model) -> None:
        """Stand before the layers of a model: they look where `looking` says, and nowhere outside of it."""
        layers = layers_of(model)
        for number in self.config.layers:
            layers[number].register_forward_pre_hook(_Before(self, number), with_kwargs=True)

    def keys_values(self, media: Tensor) -> list[Tensor]:
        """media float[batch media media_size] -> keys and values of the blocks by turns, float[batch heads media d]."""
        return [tensor for block in self.blocks.values() for tensor in block.keys_values(media)]  # type: ignore[operator]

    @contextlib.contextmanager
    def looking(self, pairs: Sequence[Tensor], seen: Tensor, medium: Tensor) -> Iterator[None]:
        """Let the tokens of the calls inside see media: see `sight`."""
        self.now = sight(pairs, seen, medium, attends=self.config.attends)
        try:
            yield
        finally:
            self.now = None


class _Before:
    """What runs before a layer. An object, not a function, so that a deep copy of model and blocks belongs together."""

    def __init__(self, gated: GatedLayers, number: int) -> None:
        self.gated, self.number = gated, number

    def __call__(self, _layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        now = self.gated.now
        if now is None:
            return None
        block, pair = self.gated.blocks[str(self.number)], now.pairs[self.gated.config.layers.index(self.number)]
        if args:
            return (block(args[0], *pair, now), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": block(kwargs["hidden_states"], *pair, now)}


def layers_of(model: Model) -> nn.ModuleList:
    """The layers of a decoder of transformers.

    Raises ValueError for a model that does not hold them in one list.
    """
    count = model.config.get_text_config(decoder=True).num_hidden_layers
    found = [part for part in model.modules() if isinstance(part, nn.ModuleList) and len(part) == count]
    if not found:
        raise ValueError(f"a {model.config.model_type} does not hold its {count} layers in one list, so that nothing can stand before them")
    return found[0]


def _block(config: GatedCrossAttention) -> nn.Module:
    if config.family == "idefics":
        return IdeficsBlock(config)
    assert config.hidden_size is not None
    assert config.media_size is not None
    return GatedCrossAttentionBlock(
        config.hidden_size, config.media_size, heads=config.num_heads, head_width=config.head_dim, multiple=config.ff_mult,
        activation=config.activation,
    )  # fmt: skip
