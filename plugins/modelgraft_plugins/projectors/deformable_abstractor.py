"""Honeybee's D-Abstractor (arXiv 2312.06742, section 3.2): a grid of queries, and the decoder layers of Deformable DETR."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from transformers.models.deformable_detr.configuration_deformable_detr import DeformableDetrConfig
from transformers.models.deformable_detr.modeling_deformable_detr import DeformableDetrDecoderLayer

from modelgraft_plugins.projectors.pooling_modules import pooled_grid, side_of

if TYPE_CHECKING:
    from modelgraft.plugin import Weights
    from modelgraft_plugins.projectors import abstractors

RENAMED = ((".self_attn.out_proj.", ".self_attn.o_proj."), (".fc1.", ".mlp.fc1."), (".fc2.", ".mlp.fc2."))  # Honeybee's -> transformers'


class DAbstractor(nn.Module):
    """float[batch patches in_features] to float[batch tokens+eos out_features], in the names of Honeybee's `abstractor`.

    The layers are those of transformers; they read maps in float32, as the published code has it.
    """

    def __init__(self, config: abstractors.DAbstractor) -> None:
        super().__init__()
        assert config.in_features is not None
        assert config.out_features is not None
        assert config.patches is not None
        given, width, wanted = config.in_features, config.hidden_size, config.out_features
        self.side, self.tokens, self.queries = side_of("projector/d_abstractor", config.patches), config.tokens, config.queries
        self.input_proj = nn.ModuleList([nn.Linear(given, width) if given != width else nn.Identity()])
        self.layers = nn.ModuleList(DeformableDetrDecoderLayer(_layer_config(config)) for _ in range(config.depth))
        self.query_position_embeddings = nn.Embedding(config.tokens, width * (2 if config.queries == "none" else 1))
        self.reference_points = nn.Parameter(_places(math.isqrt(config.tokens), self.side))
        self.v_pos_emb = nn.Parameter(torch.empty(1, config.patches, width)) if config.positions else None
        self.eos_tokens = nn.Parameter(torch.empty(1, config.eos_tokens, width)) if config.eos_tokens else None
        for learned in (self.v_pos_emb, self.eos_tokens):
            if learned is not None:
                nn.init.trunc_normal_(learned, std=0.02)
        self.output_proj = nn.Linear(width, wanted) if wanted != width else nn.Identity()

    def from_checkpoint(self, weights: Weights) -> Mapping[str, Tensor]:
        """Take the names that transformers had for its layers when Honeybee was written."""
        found = {}
        for key, tensor in weights.state().items():
            name = key
            for old, new in RENAMED:
                name = name.replace(old, new) if key.startswith("layers.") and new not in key else name
            found[name] = tensor
        return found

    def forward(self, x: Tensor) -> Tensor:
        """Make a few tokens of the patches."""
        if x.shape[1] != self.side**2:
            side_of("projector/d_abstractor", x.shape[1])
        seen = self.input_proj[0](x)
        if self.v_pos_emb is not None:
            seen = seen + self.v_pos_emb
        where, hidden = self._begun(seen)
        shape = torch.tensor([[self.side, self.side]], device=x.device)
        for layer in self.layers:
            hidden = layer(
                hidden,
                object_queries_position_embeddings=where,
                reference_points=self.reference_points[:, :, None].expand(x.shape[0], -1, -1, -1),
                spatial_shapes=shape,
                spatial_shapes_list=[(self.side, self.side)],
                level_start_index=torch.zeros(1, dtype=torch.int64, device=x.device),
                encoder_hidden_states=seen,
            )
        if self.eos_tokens is not None:
            hidden = torch.cat([hidden, self.eos_tokens.expand(x.shape[0], -1, -1)], dim=1)
        return self.output_proj(hidden)  # type: ignore[no-any-return]

    def _begun(self, seen: Tensor) -> tuple[Tensor, Tensor]:
        """What says where to look, and what is worked on: [batch tokens width] each, learned or pooled of the patches."""
        learned = self.query_position_embeddings.weight.expand(seen.shape[0], -1, -1)
        if self.queries == "none":
            return learned[..., : seen.shape[-1]], learned[..., seen.shape[-1] :]
        grid = seen.view(seen.shape[0], self.side, self.side, seen.shape[-1])
        pooled = pooled_grid(grid, math.isqrt(self.tokens)).flatten(1, 2)
        return (learned, pooled) if self.queries == "tgt" else (pooled, learned)


def _layer_config(config: abstractors.DAbstractor) -> DeformableDetrConfig:
    found = DeformableDetrConfig(
        backbone_config={"model_type": "resnet"},
        d_model=config.hidden_size,
        decoder_attention_heads=config.heads,
        decoder_n_points=config.points,
        decoder_ffn_dim=config.inner_size,
        activation_function=config.hidden_act,
        num_feature_levels=1,
        disable_custom_kernels=True,
    )
    found._attn_implementation = "eager"
    return found


def _places(steps: int, side: int) -> Tensor:
    """Where the queries begin to look: [1 queries 2] as (x, y) from 0 to 1, from the middle of the first patch to that of the last."""
    middles = torch.linspace(0.5, side - 0.5, steps) / side
    rows, columns = torch.meshgrid(middles, middles, indexing="ij")
    return torch.stack([columns.flatten(), rows.flatten()], dim=-1)[None]
