"""VQ-KD, whole in one file, in reading order: attention, block, tower, code book, tokenizer, decoder, loss.

Source: arXiv 2208.06366. Names are those of the published weights. Axes: `patches` are the rows*columns of a picture, row by row.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from modelgraft.plugin import InputError

if TYPE_CHECKING:
    from modelgraft.plugin import Weights
    from modelgraft_plugins.beit3.vqkd import Loss as LossConfig
    from modelgraft_plugins.beit3.vqkd import VqkdSizes

EPS = 1e-6  # of every norm
DECAY = 0.99  # of the code book: what stays of a code vector in one step
ROUNDS = 10  # of the k-means that a new code book starts with
SPENT = ("teacher", "scaling", "loss")  # in files of training: the teacher, and what prepares its pictures
STATISTICS = ("embedding.cluster_size", "embedding.embed_avg", "embedding.initted")  # of a code book, which nothing reads


class Attention(nn.Module):
    """Attention whose queries and values have a bias, and whose keys have none."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.q_bias, self.v_bias = nn.Parameter(torch.zeros(width)), nn.Parameter(torch.zeros(width))
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """float[batch tokens width] to the same."""
        bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        states = functional.linear(x, self.qkv.weight, bias).reshape(*x.shape[:2], 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(states[0], states[1], states[2])  # [batch heads tokens d]
        return self.proj(seen.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class Block(nn.Module):
    """Norm, attention, norm, feed-forward, each added to what came in."""

    def __init__(self, sizes: VqkdSizes) -> None:
        super().__init__()
        width = sizes.hidden_size
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=EPS), nn.LayerNorm(width, eps=EPS)
        self.attn = Attention(width, sizes.heads)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, sizes.inner), "fc2": nn.Linear(sizes.inner, width)})

    def forward(self, x: Tensor) -> Tensor:
        """float[batch tokens width] to the same."""
        x = x + self.attn(self.norm1(x))
        return x + self.mlp["fc2"](functional.gelu(self.mlp["fc1"](self.norm2(x))))  # type: ignore[no-any-return]


class Tower(nn.Module):
    """A vision transformer that gives its patches, normed, without the class token."""

    def __init__(self, sizes: VqkdSizes, *, channels: int, patch: int, layers: int) -> None:
        super().__init__()
        width = sizes.hidden_size
        self.grid, self.resizes = sizes.grid, sizes.interpolate
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.empty(1, sizes.grid**2 + 1, width))
        nn.init.normal_(self.pos_embed, std=0.02)
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(channels, width, kernel_size=patch, stride=patch)})
        self.blocks = nn.ModuleList(Block(sizes) for _ in range(layers))
        self.fc_norm = nn.LayerNorm(width, eps=EPS)

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """float[batch channels height width] to float[batch patches width], and the rows and columns of patches."""
        grid: Tensor = self.patch_embed["proj"](x)
        patches = grid.flatten(2).transpose(1, 2)
        hidden = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), patches], dim=1) + self._positions(grid.shape[2], grid.shape[3])
        for block in self.blocks:
            hidden = block(hidden)
        return self.fc_norm(hidden)[:, 1:], (grid.shape[2], grid.shape[3])

    def _positions(self, rows: int, columns: int) -> Tensor:
        """float[1 1+rows*columns width]: bicubic over those of the patches where pictures may have any size."""
        if not self.resizes:
            return self.pos_embed
        square = self.pos_embed[:, 1:].float().reshape(1, self.grid, self.grid, -1).permute(0, 3, 1, 2)
        wanted = functional.interpolate(square, size=(rows, columns), mode="bicubic", align_corners=False)
        return torch.cat([self.pos_embed[:, :1], wanted.flatten(2).transpose(1, 2).to(self.pos_embed.dtype)], dim=1)


class CodeBook(nn.Module):
    """Vectors on the unit sphere, of which the nearest stands for a feature: the one of the largest product.

    `embedding.weight` float[codes d]; `cluster_size` float[codes] tells how often each was taken of late, in training.
    """

    def __init__(self, codes: int, size: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(codes, size)
        self.register_buffer("cluster_size", torch.zeros(codes))
        self.cluster_size: Tensor

    def after_load(self) -> None:
        """Nothing moves the vectors but `update`: no gradient is wanted of them."""
        self.embedding.weight.requires_grad_(False)

    def nearest(self, features: Tensor) -> Tensor:
        """float[... d], of any length, to int64[...]."""
        return (functional.normalize(features, dim=-1) @ self._units().T).argmax(-1)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map features, float[batch d rows columns], to their codes. The module is as it was afterwards, in training too.

        returns  codes float[batch d rows columns], past which gradients go to the features; the commitment float[batch], the mean
                 of (code - unit feature)^2 of each record; ids int64[batch rows*columns]
        """
        units = functional.normalize(features, dim=1)
        ids = self.nearest(features.flatten(2).transpose(1, 2))
        codes = self._units()[ids].transpose(1, 2).reshape(features.shape)
        commitment = (codes.detach() - units).pow(2).flatten(1).mean(1)
        return units + (codes - units).detach(), commitment, ids

    @torch.no_grad()
    def update(self, features: Tensor, *, decay: float = DECAY) -> None:
        """Move the code vectors towards the mean of the features that took them; those that none took stay as they are.

        features  float[batch d rows columns], of one step of training
        """
        units = functional.normalize(features, dim=1).flatten(2).transpose(1, 2).flatten(0, 1)  # [n d]
        means, counts = _means(units, self.nearest(units), codes=self.embedding.num_embeddings)
        moved = functional.normalize(decay * self._units() + (1 - decay) * means, dim=-1)
        self.embedding.weight.copy_(torch.where(counts[:, None] > 0, moved, self.embedding.weight))
        self.cluster_size.mul_(decay).add_(counts, alpha=1 - decay)

    @torch.no_grad()
    def start(self, features: Tensor, *, seed: int, rounds: int = ROUNDS) -> None:
        """Put the code vectors where features are, by k-means on the sphere: how a new code book starts.

        features  float[batch d rows columns] of the first step
        """
        units = functional.normalize(features, dim=1).flatten(2).transpose(1, 2).flatten(0, 1)  # [n d]
        generator, codes = torch.Generator().manual_seed(seed), self.embedding.num_embeddings
        is_enough = len(units) >= codes
        drawn = torch.randperm(len(units), generator=generator)[:codes] if is_enough else _drawn(len(units), codes, generator)
        self.embedding.weight.copy_(units[drawn.to(units.device)])
        for _ in range(rounds):
            means, counts = _means(units, self.nearest(units), codes=codes)
            self.embedding.weight.copy_(torch.where(counts[:, None] > 0, means, self.embedding.weight))
        self.cluster_size.copy_(counts)

    def _units(self) -> Tensor:
        """The code vectors at the length 1, which those of files have already."""
        return functional.normalize(self.embedding.weight, dim=-1)


def _drawn(count: int, wanted: int, generator: torch.Generator) -> Tensor:
    return torch.randint(count, (wanted,), generator=generator)


def _means(units: Tensor, ids: Tensor, *, codes: int) -> tuple[Tensor, Tensor]:
    """The mean of the vectors of each code, at the length 1, float[codes d]; and how many there were, float[codes]."""
    counts = torch.bincount(ids, minlength=codes).to(units.dtype)
    sums = units.new_zeros(codes, units.shape[1]).index_add_(0, ids, units)
    return functional.normalize(sums / counts.clamp(min=1)[:, None], dim=-1), counts


class Tokenizer(nn.Module):
    """pixels float[batch 3 height width] from -1 to 1 to ids, codes and features, row by row and as maps."""

    def __init__(self, sizes: VqkdSizes) -> None:
        super().__init__()
        self.patch = sizes.patch_size
        self.encoder = Tower(sizes, channels=sizes.num_channels, patch=sizes.patch_size, layers=sizes.num_hidden_layers)
        self.encode_task_layer = _task_layer(sizes.hidden_size, sizes.code_size)
        self.quantize = CodeBook(sizes.codes, sizes.code_size)

    def from_checkpoint(self, weights: Weights) -> Mapping[str, Tensor]:
        """Leave the decoder and the teacher in the file."""
        return _of(weights, without=("decoder.", "decode_task_layer.", *(f"quantize.{name}" for name in STATISTICS)))

    def after_load(self) -> None:
        """See CodeBook."""
        self.quantize.after_load()

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        """Raises InputError for pictures that are not of whole patches."""
        if pixels.shape[2] % self.patch or pixels.shape[3] % self.patch:
            found = f"beit3/vqkd got pictures of {pixels.shape[2]} x {pixels.shape[3]} pixels"
            raise InputError(
                f"{found}, which its patches of {self.patch} x {self.patch} do not divide: resize them to multiples of {self.patch}"
            )
        patches, grid = self.encoder(pixels)
        features = self.encode_task_layer(patches)
        codes, _, ids = self.quantize(features.transpose(1, 2).unflatten(2, grid))
        return {
            "ids": ids, "map": ids.reshape(-1, *grid), "vectors": codes.flatten(2).transpose(1, 2), "codes": codes, "features": features,
        }  # fmt: skip


class Decoder(nn.Module):
    """codes float[batch d rows columns] to float[batch patches decoded_size]."""

    def __init__(self, sizes: VqkdSizes) -> None:
        super().__init__()
        self.decoder = Tower(sizes, channels=sizes.code_size, patch=1, layers=sizes.decoder_layers)
        self.decode_task_layer = _task_layer(sizes.hidden_size, sizes.decoded_size)

    def from_checkpoint(self, weights: Weights) -> Mapping[str, Tensor]:
        """Leave the encoder, the code book and the teacher in the file."""
        return _of(weights, without=("encoder.", "encode_task_layer.", "quantize."))

    def forward(self, codes: Tensor) -> Tensor:
        """Each place is a patch of one."""
        patches, _ = self.decoder(codes)
        return self.decode_task_layer(patches)  # type: ignore[no-any-return]


class Loss(nn.Module):
    """features, vectors, decoded and teacher, float[batch patches ...], to the share of each record: float[batch]."""

    def __init__(self, config: LossConfig) -> None:
        super().__init__()
        self.beta = config.beta

    def forward(self, features: Tensor, vectors: Tensor, decoded: Tensor, teacher: Tensor) -> Tensor:
        """The teacher and the codes are where the others have to go."""
        units = functional.normalize(features, dim=-1)
        commitment = (vectors.detach() - units).pow(2).flatten(1).mean(1)
        angle = 1 - functional.cosine_similarity(decoded, teacher.detach(), dim=-1)
        return self.beta * commitment + angle.mean(1)


def _task_layer(width: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, out))


def _of(weights: Weights, *, without: tuple[str, ...]) -> dict[str, Tensor]:
    """The tensors of one side of a file of both."""
    left = (*without, *SPENT)
    return {key: weights.tensor(key) for key in weights.keys() if not key.startswith(left)}  # noqa: SIM118 not a mapping
