"""The multiway transformer of BEiT-3, whole in one file, in reading order: ways, attention, experts, layers, embeddings, trunk.

Every layer is there once for what comes from a picture (A) and once for what comes from a text (B), and the two meet in the softmax
of the attention alone. So it is published; the paper has one attention for both and experts for pairs in the top layers, which
`attention: shared` and `vl_expert_layers` build.

Source: arXiv 2208.10442, with the sub-LN of arXiv 2210.06423. Names are those of the published weights.
Axes: `places` are the class token and the patches of a picture, `text_tokens` those of a text, `tokens` both, the picture first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from modelgraft_plugins.beit3.sizes import Sizes

OFFSET = 2  # rows of a table of positions that stand before the first place: the published code counts from there
LEAD = OFFSET + 1  # rows of a picture's table before its first patch: those, and the class token


class Split(NamedTuple):
    """Which tokens come from where. It goes from call to call and is kept nowhere, so that several may be under way at once.

    at     the first token of the text: 0 where there is text alone, None where there is a picture alone
    joint  picture and text see each other
    """

    at: int | None
    joint: bool = False


PICTURE, TEXT = Split(None), Split(0)


class Multiway(nn.Module):
    """A layer in several ways: A for pictures, B for texts, VL for both of a pair, AB where there is but one."""

    def __init__(self, make: Callable[[], nn.Module], ways: tuple[str, ...]) -> None:
        super().__init__()
        for way in ways:
            self.add_module(way, make())

    def forward(self, x: Tensor, split: Split) -> Tensor:
        """float[batch tokens width] to float[batch tokens ...]: each token in the way of its kind."""
        ways: dict[str, nn.Module] = dict(self.named_children())
        if "AB" in ways:
            return ways["AB"](x)  # type: ignore[no-any-return]
        if "VL" in ways and split.joint:
            return ways["VL"](x)  # type: ignore[no-any-return]
        if not split.at:
            return ways["A" if split.at is None else "B"](x)  # type: ignore[no-any-return]
        return torch.cat([ways["A"](x[:, : split.at]), ways["B"](x[:, split.at :])], dim=1)


class Attention(nn.Module):
    """Attention with a norm behind the average of the values (sub-LN)."""

    def __init__(self, sizes: Sizes, ways: tuple[str, ...]) -> None:
        super().__init__()
        width, self.heads = sizes.hidden_size, sizes.heads
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (Multiway(lambda: nn.Linear(width, width), ways) for _ in range(4))
        self.inner_attn_ln = Multiway(lambda: nn.LayerNorm(width, eps=sizes.layer_norm_eps), ways)

    def memory(self, x: Tensor, split: Split) -> tuple[Tensor, Tensor]:
        """The keys and values of some tokens, float[batch tokens width] each."""
        return self.k_proj(x, split), self.v_proj(x, split)

    def forward(self, x: Tensor, split: Split, *, mask: Tensor | None, before: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """x float[batch tokens width] to the same.

        mask    bool, broadcast to [batch heads tokens keys]: True where a token may look; None: everywhere
        before  keys and values of tokens that stand before x
        """
        keys, values = self.memory(x, split)
        if before is not None:
            keys, values = torch.cat([before[0], keys], dim=1), torch.cat([before[1], values], dim=1)
        queries = self._heads(self.q_proj(x, split))
        seen = functional.scaled_dot_product_attention(queries, self._heads(keys), self._heads(values), attn_mask=mask)
        return self.out_proj(self.inner_attn_ln(seen.transpose(1, 2).flatten(2), split), split)  # type: ignore[no-any-return]

    def _heads(self, x: Tensor) -> Tensor:
        """[batch tokens heads*d] -> [batch heads tokens d]."""
        return x.reshape(*x.shape[:2], self.heads, -1).transpose(1, 2)


class Expert(nn.Module):
    """Widen, GELU, norm (sub-LN), narrow: float[batch tokens width] to the same."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.fc1 = nn.Linear(sizes.hidden_size, sizes.intermediate_size)
        self.ffn_layernorm = nn.LayerNorm(sizes.intermediate_size, eps=sizes.layer_norm_eps)
        self.fc2 = nn.Linear(sizes.intermediate_size, sizes.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        """The activation is computed in float32 in every precision, as published."""
        wide: Tensor = self.fc1(x)
        return self.fc2(self.ffn_layernorm(functional.gelu(wide.float()).type_as(wide)))  # type: ignore[no-any-return]


class Layer(nn.Module):
    """Norm, attention, norm, expert, each added to what came in."""

    def __init__(self, sizes: Sizes, ways: tuple[str, ...], *, has_pair_expert: bool) -> None:
        super().__init__()
        seeing = ("AB",) if sizes.attention == "shared" else ways
        experts = (*ways, "VL") if has_pair_expert else ways
        self.self_attn = Attention(sizes, seeing)
        self.self_attn_layer_norm = Multiway(lambda: nn.LayerNorm(sizes.hidden_size, eps=sizes.layer_norm_eps), seeing)
        self.ffn = Multiway(lambda: Expert(sizes), experts)
        self.final_layer_norm = Multiway(lambda: nn.LayerNorm(sizes.hidden_size, eps=sizes.layer_norm_eps), experts)

    def memory(self, x: Tensor, split: Split) -> tuple[Tensor, Tensor]:
        """What later tokens may look at: keys and values, float[batch tokens width] each."""
        found: tuple[Tensor, Tensor] = self.self_attn.memory(self.self_attn_layer_norm(x, split), split)
        return found

    def forward(self, x: Tensor, split: Split, *, mask: Tensor | None, before: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """See Attention."""
        x = x + self.self_attn(self.self_attn_layer_norm(x, split), split, mask=mask, before=before)
        return x + self.ffn(self.final_layer_norm(x, split), split)  # type: ignore[no-any-return]


class VisionEmbedding(nn.Module):
    """Patches behind a class token; a patch that is masked becomes the mask token."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, sizes.hidden_size))
        self.mask_token = nn.Parameter(torch.zeros(1, 1, sizes.hidden_size))
        self.proj = nn.Conv2d(sizes.num_channels, sizes.hidden_size, kernel_size=sizes.patch_size, stride=sizes.patch_size)

    def forward(self, pixels: Tensor, patch_mask: Tensor | None) -> tuple[Tensor, tuple[int, int]]:
        """float[batch places width], and the rows and columns of patches.

        patch_mask  bool[batch patches], row by row: True where a patch is hidden; None: nowhere
        """
        grid: Tensor = self.proj(pixels)
        patches = grid.flatten(2).transpose(1, 2)
        if patch_mask is not None:
            patches = torch.where(patch_mask.unsqueeze(-1), self.mask_token.to(patches.dtype), patches)
        return torch.cat([self.cls_token.expand(patches.shape[0], -1, -1), patches], dim=1), (grid.shape[2], grid.shape[3])


class Layers(nn.Module):
    """Positions, layers, and the last norm where there is one."""

    def __init__(self, sizes: Sizes, ways: tuple[str, ...]) -> None:
        super().__init__()
        rows = {"A": LEAD + sizes.patches, "B": sizes.max_position_embeddings}
        self.embed_positions = nn.ModuleDict({way: nn.Embedding(rows[way], sizes.hidden_size) for way in ways})
        first_joint = sizes.num_hidden_layers - (sizes.vl_expert_layers if len(ways) > 1 else 0)
        self.layers = nn.ModuleList(Layer(sizes, ways, has_pair_expert=i >= first_joint) for i in range(sizes.num_hidden_layers))
        if sizes.normalize_output:
            self.layer_norm = Multiway(lambda: nn.LayerNorm(sizes.hidden_size, eps=sizes.layer_norm_eps), ways)


class Trunk(nn.Module):
    """The transformer with the branches that are asked for: `ways` is A, B or both."""

    def __init__(self, sizes: Sizes, ways: tuple[str, ...]) -> None:
        super().__init__()
        self.sizes = sizes
        if "B" in ways:
            self.text_embed = nn.Embedding(sizes.vocab_size, sizes.hidden_size)
        if "A" in ways:
            self.vision_embed = VisionEmbedding(sizes)
        self.encoder = Layers(sizes, ways)

    def picture(self, pixels: Tensor, patch_mask: Tensor | None = None) -> Tensor:
        """What the first layer reads of a picture: float[batch places width]."""
        x, grid = self.vision_embed(pixels, patch_mask)
        table = self._positions("A")
        if self.sizes.interpolate:
            table = resized(table, grid)
        return x + table[OFFSET:]  # type: ignore[no-any-return]

    def text(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """What the first layer reads of a text, zeros where `mask` is False: float[batch text_tokens width]."""
        table = self._positions("B")
        x = self.text_embed(ids) + table[OFFSET : OFFSET + ids.shape[1]]
        return x if mask is None else x * mask.unsqueeze(-1).to(x.dtype)  # type: ignore[no-any-return]

    def _positions(self, way: str) -> Tensor:
        """The table of positions of a medium."""
        table = self.encoder.embed_positions[way]
        assert isinstance(table, nn.Embedding)
        return table.weight

    def run(self, x: Tensor, split: Split, *, mask: Tensor | None) -> Tensor:
        """All layers: float[batch tokens width] to the same; `mask` as Attention takes it."""
        for layer in self.encoder.layers:
            x = layer(x, split, mask=mask)
        return self.finish(x, split)

    def remember(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """What a text that is written behind a picture looks at: keys and values of each layer, float[batch layers places width] each.

        A picture does not see the text behind it, so that this is computed once for all of it.
        """
        x, split = self.picture(pixels), Split(None, joint=True)
        found: list[tuple[Tensor, Tensor]] = []
        for index, layer in enumerate(self.encoder.layers):
            x = self.encoder.layers[index - 1](x, split, mask=None) if index else x
            found.append(layer.memory(x, split))  # type: ignore[operator]  # a ModuleList does not say what it holds
        return torch.stack([keys for keys, _ in found], dim=1), torch.stack([values for _, values in found], dim=1)

    def write(self, ids: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """A text behind a picture, each token of which sees the picture and what stands before it: float[batch text_tokens width]."""
        x, split = self.text(ids), Split(0, joint=True)
        mask = behind(keys.shape[2], ids.shape[1], device=ids.device)
        for index, layer in enumerate(self.encoder.layers):
            x = layer(x, split, mask=mask, before=(keys[:, index], values[:, index]))
        return self.finish(x, split)

    def finish(self, x: Tensor, split: Split) -> Tensor:
        """The last norm, where there is one."""
        return self.encoder.layer_norm(x, split) if self.sizes.normalize_output else x


def behind(places: int, text_tokens: int, *, device: torch.device) -> Tensor:
    """bool[text_tokens places+text_tokens]: a token of a text sees the picture, itself and what stands before it."""
    onward = torch.ones(text_tokens, text_tokens, dtype=torch.bool, device=device).tril()
    return torch.cat([torch.ones(text_tokens, places, dtype=torch.bool, device=device), onward], dim=1)


def resized(table: Tensor, grid: tuple[int, int]) -> Tensor:
    """A picture's table of positions for another grid of patches: bicubic over the rows of patches, those before them as they are.

    table    float[LEAD+patches width], of a square grid
    returns  float[LEAD+rows*columns width]; of the same grid the table itself, number by number
    """
    side = round((table.shape[0] - LEAD) ** 0.5)
    square = table[LEAD:].float().reshape(1, side, side, -1).permute(0, 3, 1, 2)
    wanted = functional.interpolate(square, size=grid, mode="bicubic", align_corners=False)
    return torch.cat([table[:LEAD], wanted[0].flatten(1).T.to(table.dtype)])
