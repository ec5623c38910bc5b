"""A tower of ImageBind, whole in one file, in reading order: patches, transformer, head, scale.

Source: arXiv 2305.05665 and the layout of its published weights; checked against the published code, tower by tower.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from modelgraft.plugin import Weights
    from modelgraft_plugins.embedding import Combine as CombineConfig
    from modelgraft_plugins.embedding import Tower as TowerConfig

BLOCK_EPS = 1e-6  # of every norm but the one behind the patches, which has torch's own 1e-5
MOST_SCALE = 100.0  # a learned scale is cut here
START_SCALE = {"text": 1 / 0.07, "audio": 20.0, "depth": 5.0, "thermal": 10.0, "imu": 5.0}  # only that of text is learned

# name in the published file, with M for the modality -> name here
LAYOUT: tuple[tuple[str, str], ...] = (
    (r"modality_preprocessors\.M\.(?:pos_embedding_helper\.)?pos_embed", "positions"),
    (r"modality_preprocessors\.M\.cls_token", "class_token"),
    (r"modality_preprocessors\.M\.token_embedding\.weight", "table.weight"),
    (r"modality_preprocessors\.M\.\w+_stem\.proj(?:\.1)?\.weight", "stem"),
    (r"modality_preprocessors\.M\.\w+_stem\.norm_layer\.(\w+)", r"stem_norm.\1"),
    (r"modality_trunks\.M\.pre_transformer_layer\.0\.(\w+)", r"entry_norm.\1"),
    (r"modality_trunks\.M\.(blocks\..+)", r"\1"),
    (r"modality_heads\.M\.(?:proj\.)?0\.(\w+)", r"head_norm.\1"),
    (r"modality_heads\.M\.(?:proj\.1|[23])\.weight", "head.weight"),
    (r"modality_postprocessors\.M\.1\.log_logit_scale", "log_scale"),
)
COMPUTED = "modality_preprocessors.text.mask"  # the causal mask


class Block(nn.Module):
    """Norm, attention, norm, feed-forward: float[batch places width] to the same."""

    def __init__(self, config: TowerConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.norm_1 = nn.LayerNorm(width, eps=BLOCK_EPS)
        assert config.num_attention_heads is not None, "a config without heads is refused"
        self.attn = nn.MultiheadAttention(width, config.num_attention_heads, add_bias_kv=config.has_normed_stem, batch_first=True)
        self.norm_2 = nn.LayerNorm(width, eps=BLOCK_EPS)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, 4 * width), "fc2": nn.Linear(4 * width, width)})

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """`mask` is True where a place must not look."""
        normed = self.norm_1(x)
        x = x + self.attn(normed, normed, normed, attn_mask=mask, need_weights=False)[0]
        hidden = functional.gelu(self.mlp["fc1"](self.norm_2(x)))
        return x + self.mlp["fc2"](hidden)  # type: ignore[no-any-return]


class Tower(nn.Module):
    """A prepared medium to its vector: head, embedding and unit, float[batch embedding_size]."""

    def __init__(self, config: TowerConfig) -> None:
        super().__init__()
        self.config = config
        width = config.hidden_size
        self.positions = nn.Parameter(0.02 * torch.randn(1, config.positions, width))
        if config.is_text:
            self.table = nn.Embedding(config.vocab_size, width)
        else:
            self.class_token = nn.Parameter(0.02 * torch.randn(1, 1, width))
            self.stem = nn.Parameter(0.02 * torch.randn(width, *_stem_shape(config)))
        self.stem_norm = nn.LayerNorm(width) if config.has_normed_stem else nn.Identity()
        self.entry_norm = nn.LayerNorm(width, eps=BLOCK_EPS) if config.modality == "vision" else nn.Identity()
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_hidden_layers))
        self.head_norm = nn.LayerNorm(width, eps=BLOCK_EPS)
        self.head = nn.Linear(width, config.embedding_size, bias=False)
        scale = torch.tensor(START_SCALE.get(config.modality, 1.0)).log()
        if config.is_text:
            self.log_scale = nn.Parameter(scale)
        elif config.modality != "vision":
            self.register_buffer("log_scale", scale)

    def from_checkpoint(self, weights: Weights) -> Mapping[str, Tensor]:
        """Take this tower's tensors out of the published file, which holds all six."""
        modality = self.config.modality
        found: dict[str, Tensor] = {}
        for key in weights.keys():  # noqa: SIM118 not a mapping
            mine = key.startswith("modality_") and key.split(".")[1] == modality
            if mine and key != COMPUTED:
                found[_rename(key, modality)] = weights.tensor(key)
        return found

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Encode; of clips the vectors are averaged as they are, so that their length may fall."""
        is_nested = self.config.clips or self.config.many
        head = self._encode(x.flatten(0, 1) if is_nested else x)
        embedding = functional.normalize(head, dim=-1)
        if self.config.modality != "vision":
            embedding = embedding * self.log_scale.exp().clamp(max=MOST_SCALE)
        if is_nested:
            head, embedding = (rows.reshape(x.shape[0], x.shape[1], -1) for rows in (head, embedding))
        if self.config.clips:
            embedding = embedding.mean(1)
        return {"head": head, "embedding": embedding, "unit": functional.normalize(embedding, dim=-1)}

    def _encode(self, x: Tensor) -> Tensor:
        """The vector before normalisation: float[batch embedding_size]."""
        hidden = self.table(x) if self.config.is_text else self._patches(x)
        hidden = self.entry_norm(hidden + self.positions)
        places = hidden.shape[1]
        mask = torch.ones(places, places, dtype=torch.bool, device=x.device).triu(1) if self.config.is_text else None
        for block in self.blocks:
            hidden = block(hidden, mask)
        if self.config.is_text:  # the end token has the highest id
            place = x.argmax(-1)[:, None, None].expand(-1, 1, hidden.shape[-1])
            return self.head(self.head_norm(hidden.gather(1, place)[:, 0]))  # type: ignore[no-any-return]
        return self.head(self.head_norm(hidden[:, 0]))  # type: ignore[no-any-return]

    def _patches(self, x: Tensor) -> Tensor:
        """Class token and patches: float[batch places width]."""
        stride = self.config.stride
        match self.config.modality:
            case "vision":
                moving = x if x.ndim == self.stem.ndim else x.unsqueeze(2).expand(-1, -1, self.config.frames, -1, -1)
                patches = functional.conv3d(moving, self.stem, stride=(self.config.frames, stride, stride))
            case "imu":
                blocks = x.unfold(2, self.config.kernel, self.config.kernel)  # [batch channels blocks samples]
                patches = functional.linear(blocks.transpose(1, 2).flatten(2), self.stem).transpose(1, 2)
            case _:
                patches = functional.conv2d(x, self.stem, stride=stride)
        rows = self.stem_norm(patches.flatten(2).transpose(1, 2))
        return torch.cat([self.class_token.expand(x.shape[0], -1, -1), rows], dim=1)


class Combine(nn.Module):
    """Vectors float[batch width], one for each weight, to their weighted sum."""

    def __init__(self, config: CombineConfig) -> None:
        super().__init__()
        self.weights = tuple(config.weights.values())

    def forward(self, *vectors: Tensor) -> dict[str, Tensor]:
        """Add them up at the length 1; what adds up to nothing has no direction, and its unit is 0."""
        units = [weight * functional.normalize(vector, dim=-1) for weight, vector in zip(self.weights, vectors, strict=True)]
        total = torch.stack(units).sum(0)
        return {"sum": total, "unit": functional.normalize(total, dim=-1)}


def _stem_shape(config: TowerConfig) -> tuple[int, ...]:
    """The shape of the patch weights behind the width."""
    side = config.kernel
    match config.modality:
        case "vision":
            return config.channels, config.frames, side, side
        case "imu":
            return (config.patch_values,)
    return config.channels, side, side


def _rename(key: str, modality: str) -> str:
    for pattern, name in LAYOUT:
        found = re.fullmatch(pattern.replace("M", modality, 1), key)
        if found is not None:
            return found.expand(name)
    return key
