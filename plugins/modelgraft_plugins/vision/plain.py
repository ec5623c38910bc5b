"""Vision transformers of the plainest kind, in torch alone: see `plain_kinds.py`.

What transformers builds for them does the same, but importing it takes longer than all else of a start. Their parts have the names that
they have there, and call the same operators, so that both give the same bits. Checked against it in tests/plugins/test_vision_plain.py.

Sources: Dosovitskiy et al. 2020 (arXiv 2010.11929, ViT), Radford et al. 2021 (arXiv 2103.00020, CLIP), Zhai et al. 2023 (arXiv
2303.15343, SigLIP), Oquab et al. 2023 (arXiv 2304.07193, DINOv2).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from modelgraft.plugin import InputError
from modelgraft_plugins.vision.plain_kinds import Kind, Sizes, renamed
from modelgraft_plugins.vision.positions import resampled

SPREAD = 0.02  # of new weights, as transformers draws most of them


def quick_gelu(x: Tensor) -> Tensor:
    """x * sigmoid(1.702 x), as CLIP was trained with."""
    return x * torch.sigmoid(1.702 * x)


def tanh_gelu(x: Tensor) -> Tensor:
    """GELU by a hyperbolic tangent."""
    return functional.gelu(x, approximate="tanh")


ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "gelu": functional.gelu, "gelu_new": tanh_gelu, "gelu_pytorch_tanh": tanh_gelu, "quick_gelu": quick_gelu, "relu": functional.relu,
}  # fmt: skip


class Tower(nn.Module):
    """A tower up to any of its layers.

    way    how places are brought to another grid, see `positions.py`;  fits  whether pictures of other sizes are taken
    """

    def __init__(self, sizes: Sizes, *, way: str = "hf", fits: bool = False) -> None:
        super().__init__()
        kind, width, self.sizes, self.way, self.fits = sizes.kind, sizes.width, sizes, way, fits
        put(self, kind.patches, nn.Conv2d(sizes.channels, width, sizes.patch, stride=sizes.patch, bias=kind.patch_bias))
        rows, columns = sizes.grid
        places = torch.empty(rows * columns + sizes.lead, width)
        put(self, kind.places, nn.Parameter(places if kind.places.endswith("weight") else places[None]))
        if kind.first:
            put(self, kind.first, nn.Parameter(torch.empty(width) if kind.first.endswith("class_embedding") else torch.empty(1, 1, width)))
        if sizes.has_unread:
            put(self, kind.unread, nn.Parameter(torch.zeros(1, width)))
        if kind.before:
            put(self, kind.before, nn.LayerNorm(width, eps=sizes.epsilon))
        put(self, kind.layers, nn.ModuleList(Layer(sizes) for _ in range(sizes.layers)))
        put(self, kind.after, nn.LayerNorm(width, eps=sizes.epsilon))
        if sizes.has_head:
            self.head = Head(sizes)
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif name.endswith("lambda1"):
                nn.init.constant_(parameter, sizes.scale)
            elif (parameter.ndim > 1 and name != kind.unread) or name == kind.first:
                nn.init.normal_(parameter, std=SPREAD)

    @property
    def kind(self) -> Kind:
        """How its parts are called."""
        return self.sizes.kind

    @property
    def blocks(self) -> nn.ModuleList:
        """The layers in order."""
        found = self.get_submodule(self.kind.layers)
        assert isinstance(found, nn.ModuleList)
        return found

    def forward(self, pixels: Tensor, *, depth: int | None = None) -> tuple[Tensor, Tensor | None]:
        """Tokens float[batch tokens width] and the vector of the picture float[batch width], where there is one.

        depth  the layer whose tokens are given as they are, 0: what the first reads; None: to the end
        """
        hidden = self.entered(pixels)
        for layer in self.blocks[:depth]:
            hidden = layer(hidden)
        if depth is not None:
            return hidden, None
        after = self.get_submodule(self.kind.after)
        if not self.kind.is_normed:
            return hidden, after(hidden[:, 0])
        tokens: Tensor = after(hidden)
        if self.kind.first:
            return tokens, tokens[:, 0]
        return tokens, self.head(tokens) if self.sizes.has_head else None

    def entered(self, pixels: Tensor) -> Tensor:
        """What the first layer reads, of float[batch channels height width]."""
        kind, convolution = self.kind, self.get_submodule(self.kind.patches)
        assert isinstance(convolution, nn.Conv2d)
        grid = (pixels.shape[2] // self.sizes.patch, pixels.shape[3] // self.sizes.patch)
        if not self.fits and tuple(pixels.shape[2:]) != self.sizes.sides:
            height, width = pixels.shape[2:]
            raise InputError(
                f"vision/encoder got pictures of {height}x{width} pixels; it takes {self.sizes.sides[0]}x{self.sizes.sides[1]}"
            )
        x = convolution(pixels.to(convolution.weight.dtype)).flatten(2).transpose(1, 2)
        if kind.first:
            x = torch.cat([self.get_parameter(kind.first).expand(x.shape[0], 1, -1), x], 1)
        x = x + self._places(grid)
        return self.get_submodule(kind.before)(x) if kind.before else x  # type: ignore[no-any-return]

    def _places(self, grid: tuple[int, int]) -> Tensor:
        table: Tensor = self.get_parameter(self.kind.places)
        table = table if table.ndim > 2 else table[None]
        is_traced = torch.compiler.is_exporting() and self.fits  # a graph takes other sizes too
        if not is_traced and grid == self.sizes.grid:
            return table
        return resampled(table, grid, stored=self.sizes.grid, lead=self.sizes.lead, way=self.way)


class Layer(nn.Module):
    """Attention and the feed-forward, each behind a norm and added to what it reads."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        first, second, attention, last, scales = sizes.kind.halves
        for norm in (first, second):
            put(self, norm, nn.LayerNorm(sizes.width, eps=sizes.epsilon))
        put(self, attention, Attention(sizes, last))
        self.mlp = FeedForward(sizes)
        for name in scales:
            put(self, name, Scale(sizes.width))
        self.names = sizes.kind.halves

    def forward(self, x: Tensor) -> Tensor:
        """Read float[batch tokens width]."""
        first, second, attention, _, scales = self.names
        part = self._modules.__getitem__
        mixed: Any = part(attention)(part(first)(x))  # type: ignore[misc]
        x = (part(scales[0])(mixed) if scales else mixed) + x  # type: ignore[misc]
        fed = self.mlp(part(second)(x))  # type: ignore[misc]
        return (part(scales[1])(fed) if scales else fed) + x  # type: ignore[misc,no-any-return]


class Attention(nn.Module):
    """All tokens read all tokens."""

    def __init__(self, sizes: Sizes, last: str) -> None:
        super().__init__()
        width, self.head_size, self.last = sizes.width, sizes.width // sizes.heads, last
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(width, width, bias=sizes.qkv_bias) for _ in range(3))
        put(self, last, nn.Linear(width, width))

    def forward(self, x: Tensor) -> Tensor:
        """Attend within float[batch tokens width]."""
        split = (*x.shape[:2], -1, self.head_size)
        query, key, value = (part(x).view(split).transpose(1, 2) for part in (self.q_proj, self.k_proj, self.v_proj))
        mixed = functional.scaled_dot_product_attention(query, key, value, scale=self.head_size**-0.5)
        return getattr(self, self.last)(mixed.transpose(1, 2).reshape(x.shape))  # type: ignore[no-any-return]


class FeedForward(nn.Module):
    """Two layers."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(sizes.width, sizes.inner), nn.Linear(sizes.inner, sizes.width)
        self.activation = sizes.activation

    def forward(self, x: Tensor) -> Tensor:
        """Apply it to float[... width]."""
        return self.fc2(ACTIVATIONS[self.activation](self.fc1(x)))  # type: ignore[no-any-return]


class Scale(nn.Module):
    """A factor for each number of a vector."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.lambda1 = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """Apply it to float[... width]."""
        return x * self.lambda1


class Head(nn.Module):
    """One learned query reads all tokens: the vector of the picture."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.probe = nn.Parameter(torch.empty(1, 1, sizes.width))
        self.attention = nn.MultiheadAttention(sizes.width, sizes.heads, batch_first=True)
        self.layernorm = nn.LayerNorm(sizes.width, eps=sizes.epsilon)
        self.mlp = FeedForward(sizes)

    def forward(self, tokens: Tensor) -> Tensor:
        """float[batch tokens width] -> float[batch width]."""
        mixed = self.attention(self.probe.expand(tokens.shape[0], -1, -1), tokens, tokens)[0]
        return (mixed + self.mlp(self.layernorm(mixed)))[:, 0]  # type: ignore[no-any-return]


def put(module: nn.Module, name: str, part: nn.Module | nn.Parameter) -> None:
    """Give a module a part under a name with dots, and what stands between."""
    owner, _, last = name.rpartition(".")
    for step in owner.split(".") if owner else ():
        if step not in module._modules:
            module.add_module(step, nn.Module())
        module = module.get_submodule(step)
    setattr(module, last, part)


def read(state: Mapping[str, Tensor], tower: Tower, unread: tuple[str, ...]) -> dict[str, Tensor] | None:
    """The tensors of a file under the names of a tower; None for a layout that is none of its own, which transformers may know.

    unread  names in memory of what files may hold beside them
    """
    names = renamed(state, tower.kind)
    found = {names[name]: tensor for name, tensor in state.items() if not name.endswith("embeddings.position_ids")}
    found = {name: tensor for name, tensor in found.items() if name not in unread}
    return found if found.keys() == tower.state_dict().keys() else None
