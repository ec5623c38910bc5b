"""The decoders of Kosmos: that of transformers for Kosmos-2, and with xPos in the place of its positions for Kosmos-1.

Both are Magneto: a norm before each part of a layer, and another within it. What Kosmos-1 has of its own is how it knows positions: queries
and keys are turned as by RoPE, in pairs of neighbours, and what lies far apart is made smaller (xPos).

Sources: arXiv 2302.14045 (Kosmos-1), 2210.06423 (Magneto), 2212.10554 (xPos). Checked against torchscale in tests/oracles/test_kosmos.py.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from torch.nn import functional
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.kosmos2 import modeling_kosmos2

theirs: Any = modeling_kosmos2  # transformers is only partly annotated: its models and configs are `Any` here
TheirConfig = Any

GAMMA = 0.4  # of xPos: no pair fades faster than by GAMMA / (1 + GAMMA) over a scale
BASE = 10_000.0  # of all angles


@strict
class Kosmos1TextConfig(theirs.Kosmos2TextConfig):  # type: ignore[misc]
    """What the config of Kosmos-2 says, and how far apart is far."""

    model_type = "kosmos_1_text_model"

    vocab_size: int = 64_007  # that of Kosmos-2 without the 1,030 tokens for places and phrases
    xpos_scale_base: int = 512


class Kosmos2(theirs.Kosmos2TextForCausalLM):  # type: ignore[misc]
    """The decoder of Kosmos-2. Its positions are counted from 0, as those of other models."""

    def __init__(self, config: TheirConfig) -> None:
        theirs.Kosmos2PreTrainedModel.__init__(self, config)
        self.model = self.body(config)
        self.lm_head = nn.Linear(config.embed_dim, config.vocab_size, bias=False)
        self.post_init()

    def body(self, config: TheirConfig) -> Body:
        """All but the head."""
        return Body(config, Sinusoids(config.embed_dim, first=(config.pad_token_id or 0) + 1))

    def forward(self, input_ids: Tensor | None = None, *, position_ids: Tensor | None = None, **given: Any) -> Any:
        """See Kosmos2TextForCausalLM. position_ids int64[batch or 1 tokens]; None: one behind the other, from what was read."""
        if position_ids is None:
            read = given["inputs_embeds"] if input_ids is None else input_ids
            past = given.get("past_key_values")
            start = past.get_seq_length() if past is not None else 0
            position_ids = start + torch.arange(read.shape[1], device=read.device)[None]
        return super().forward(input_ids, position_ids=position_ids, places=position_ids, **given)  # the second reaches attention


class Body(theirs.Kosmos2TextTransformer):  # type: ignore[misc]
    """The layers of Kosmos-2 with other positions, and a mask where one is needed alone."""

    def __init__(self, config: TheirConfig, positions: nn.Module) -> None:
        super().__init__(config)
        self.embed_positions = positions

    def _prepare_decoder_attention_mask(
        self, attention_mask: Tensor | None, input_shape: Any, inputs_embeds: Tensor, past_key_values_length: Any
    ) -> Tensor | None:
        """float[batch or 1, 1, tokens, keys] that is added to scores, or None: each token reads all that are not behind it.

        attention_mask  [batch keys], true where a token may be read, or the same as [batch 1 tokens keys]
        """
        tokens, past = input_shape[-1], past_key_values_length
        if attention_mask is None and (past == 0 or tokens == 1) and self.config._attn_implementation != "eager":
            return None
        places = torch.arange(past + tokens, device=inputs_embeds.device)
        seen = (places[None] <= past + torch.arange(tokens, device=places.device)[:, None])[None, None]
        if attention_mask is not None:
            there = attention_mask.bool()
            seen = seen & (there if there.ndim == 4 else there[:, None, None])
        nothing = inputs_embeds.new_zeros(())
        return torch.where(seen, nothing, torch.finfo(inputs_embeds.dtype).min)


class Sinusoids(nn.Module):
    """The positions of fairseq: a half of sines, then a half of cosines, of frequencies from 1 to 1/10,000."""

    def __init__(self, width: int, *, first: int) -> None:
        """first: the row of position 0 in its table, behind that of padding."""
        super().__init__()
        self.width, self.first = width, first

    def forward(self, *, inputs_embeds: Tensor, position_ids: Tensor, **_rest: Any) -> Tensor:
        """What is added to the embeddings, float[batch or 1 tokens width]."""
        half = self.width // 2
        steps = torch.arange(half, dtype=torch.float32, device=position_ids.device)
        frequencies = torch.exp(steps * -(math.log(BASE) / (half - 1)))
        angles = (position_ids + self.first)[..., None].float() * frequencies
        waves = torch.cat([angles.sin(), angles.cos()], -1)
        return functional.pad(waves, (0, self.width % 2)).to(inputs_embeds.dtype)


# -- Kosmos-1 -------------------------------------------------------------------------------------------------------------


class Kosmos1(Kosmos2):
    """The decoder of Kosmos-1: nothing is added to the embeddings, and attention knows how far apart its tokens are."""

    config_class = Kosmos1TextConfig
    _keys_to_ignore_on_load_missing = (r"\.xpos\.scale$",)  # what it is follows from the width of a head

    def body(self, config: TheirConfig) -> Body:
        """All but the head."""
        body = Body(config, Nothing())
        for number, layer in enumerate(body.layers):
            layer.self_attn = XPosAttention(config, number)
        return body


class Nothing(nn.Module):
    """No positions."""

    def forward(self, *, inputs_embeds: Tensor, **_rest: Any) -> Tensor:
        """0."""
        return inputs_embeds.new_zeros(())


class XPosAttention(theirs.KosmosTextAttention):  # type: ignore[misc]
    """The attention of Kosmos-2, whose queries and keys are turned before they meet."""

    def __init__(self, config: TheirConfig, layer: int) -> None:
        super().__init__(
            config,
            config.embed_dim,
            config.attention_heads,
            is_decoder=True,
            add_inner_attn_layernorm=True,
            layer_idx=layer,
            is_causal=True,
        )
        self.xpos = XPos(self.head_dim, scale_base=config.xpos_scale_base)
        self.middle = config.max_position_embeddings // 2

    def forward(
        self, hidden_states: Tensor, *, places: Tensor, past_key_values: Any = None, attention_mask: Tensor | None = None, **rest: Any
    ) -> tuple[Tensor, Any]:
        """hidden_states float[batch tokens width], places int64[batch or 1 tokens]. Keys are kept turned: see XPos."""
        heads = (*hidden_states.shape[:-1], -1, self.head_dim)
        query, key, value = (part(hidden_states).view(heads).transpose(1, 2) for part in (self.q_proj, self.k_proj, self.v_proj))
        offsets = (places - self.middle)[:, None]
        query, key = self.xpos(query, places[:, None], offsets), self.xpos(key, places[:, None], -offsets)
        if past_key_values is not None:
            key, value = past_key_values.update(key, value, self.layer_idx)
        attend: Any = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, theirs.eager_attention_forward)
        mixed, weights = attend(self, query, key, value, attention_mask, scaling=self.scaling, **rest)
        return self.out_proj(self.inner_attn_ln(mixed.reshape(hidden_states.shape))), weights


class XPos(nn.Module):
    """Turn pairs of neighbours (0, 1), (2, 3), ... by the angle of a position, and make them larger or smaller.

    A query at m is multiplied by scale ** (m / base) and a key at n by scale ** -(n / base), so that their product fades with m - n.
    Positions may be counted from anywhere for that: from the middle of the context, no number becomes large.
    """

    scale: Tensor

    def __init__(self, width: int, *, scale_base: int) -> None:
        super().__init__()
        self.width, self.base = width, scale_base
        self.register_buffer("scale", (torch.arange(0, width, 2) + GAMMA * width) / ((1 + GAMMA) * width))

    def forward(self, x: Tensor, places: Tensor, offsets: Tensor) -> Tensor:
        """x float[... tokens width], places and offsets int64[... tokens]: of the angles, and of the sizes."""
        half = self.width // 2
        frequencies = BASE ** (-torch.arange(half, dtype=torch.float32, device=x.device) / half)
        angles = places[..., None].float() * frequencies
        sizes = self.scale.float() ** (offsets[..., None].float() / self.base)
        cosine, sine = (angles.cos() * sizes).to(x.dtype), (angles.sin() * sizes).to(x.dtype)
        first, second = x[..., ::2], x[..., 1::2]
        turned = torch.stack([first * cosine - second * sine, second * cosine + first * sine], -1)
        return turned.flatten(-2)


CLASSES = {"kosmos_1_text_model": Kosmos1, "kosmos_2_text_model": Kosmos2}  # by model type
