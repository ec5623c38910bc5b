"""CoCa, whole in one file, in reading order: blocks, eye, pooler, the half that reads text, the half that looks at the picture.

Source: arXiv 2205.01917; names of tensors and the maths of `openclip` after the published weights of open_clip 3.3. Norms have torch's
own eps, 1e-5, and feed-forward layers the exact GELU.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from modelgraft.plugin import Driven

if TYPE_CHECKING:
    from modelgraft.plugin import LoadContext, Weights
    from modelgraft_plugins import coca

BELOW = 4  # times the width: feed-forward layers


class Attention(nn.Module):
    """Attention of several heads, under the names that torch's own has: queries of one width, keys and values of the same or another.

    Of the latter kind the three maps are apart, of the former they are one tensor.
    """

    def __init__(self, width: int, heads: int, *, wide: int | None = None) -> None:
        super().__init__()
        self.heads, self.is_one = heads, wide in (None, width)
        if wide is None or self.is_one:
            self.in_proj_weight = _parameter(3 * width, width)
        else:
            self.q_proj_weight = _parameter(width, width)
            self.k_proj_weight, self.v_proj_weight = _parameter(width, wide), _parameter(width, wide)
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor, keys: Tensor, seen: Tensor | None = None) -> Tensor:
        """x float[batch n width], keys float[batch m wide]; seen bool[batch 1 n m], or without batch, True where x looks."""
        maps = self.in_proj_weight.chunk(3) if self.is_one else (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        given = zip((x, keys, keys), maps, self.in_proj_bias.chunk(3), strict=True)
        queries, keys, values = (functional.linear(*each).unflatten(-1, (self.heads, -1)).transpose(1, 2) for each in given)  # type: ignore[no-untyped-call]
        found = functional.scaled_dot_product_attention(queries, keys, values, attn_mask=seen)
        return self.out_proj(found.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


def _parameter(*shape: int) -> nn.Parameter:
    drawn = nn.Parameter(torch.empty(*shape))
    nn.init.normal_(drawn, std=shape[-1] ** -0.5)
    return drawn


class Feed(nn.Sequential):
    """The feed-forward layers, under the names of the published files."""

    def __init__(self, width: int) -> None:
        parts = (("c_fc", nn.Linear(width, BELOW * width)), ("gelu", nn.GELU()), ("c_proj", nn.Linear(BELOW * width, width)))
        super().__init__(OrderedDict(parts))


class Block(nn.Module):
    """Norm, attention, norm, feed-forward: float[batch places width] to the same."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = Attention(width, heads)
        self.mlp = Feed(width)

    def forward(self, x: Tensor, seen: Tensor | None = None) -> Tensor:
        """`seen` is True where a place looks: bool[batch 1 places places], or without batch."""
        normed = self.ln_1(x)
        x = x + self.attn(normed, normed, seen)
        return x + self.mlp(self.ln_2(x))  # type: ignore[no-any-return]


class Look(nn.Module):
    """A look at the picture: norm of who looks, norm of what is looked at, attention; in open_clip a feed-forward layer of its own."""

    def __init__(self, width: int, heads: int, *, feeds: bool) -> None:
        super().__init__()
        self.ln_1, self.ln_1_kv = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = Attention(width, heads)
        if feeds:
            self.ln_2, self.mlp = nn.LayerNorm(width), Feed(width)
        self.feeds = feeds

    def forward(self, x: Tensor, image: Tensor) -> Tensor:
        """x float[batch places width], image float[batch n width]."""
        x = x + self.attn(self.ln_1(x), self.ln_1_kv(image))
        return x + self.mlp(self.ln_2(x)) if self.feeds else x


class PaperLayer(Block):
    """A decoder layer of the paper: attention among the text, a look at the picture, and one feed-forward layer for both."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__(width, heads)
        self.look = Look(width, heads, feeds=False)

    def read(self, x: Tensor, seen: Tensor, image: Tensor) -> Tensor:
        """As Block, with the look in its middle."""
        normed = self.ln_1(x)
        x = x + self.attn(normed, normed, seen)
        x = self.look(x, image)
        return x + self.mlp(self.ln_2(x))  # type: ignore[no-any-return]


class Blocks(nn.Module):
    """Blocks one behind the other, nested as in the published files."""

    def __init__(self, blocks: nn.ModuleList) -> None:
        super().__init__()
        self.resblocks = blocks

    def forward(self, x: Tensor, seen: Tensor | None = None) -> Tensor:
        """See Block."""
        for block in self.resblocks:
            x = block(x, seen)
        return x


def _blocks(count: int, width: int, heads: int) -> Blocks:
    """As the published files nest them."""
    return Blocks(nn.ModuleList(Block(width, heads) for _ in range(count)))


def _causal(places: int, like: Tensor) -> Tensor:
    """True where a place does not lie behind the one that looks: bool[places places]."""
    return torch.ones(places, places, dtype=torch.bool, device=like.device).tril()


def _taken(weights: Weights, names: Iterable[str], *, part: str, leave: tuple[str, ...] = ()) -> dict[str, Tensor]:
    """The tensors below a part of the whole file under our names, which are its own; `names` are those of the module's state."""
    roots = {name.split(".")[0] for name in names}
    keys = [key for key in weights.keys() if key.startswith(part)]  # noqa: SIM118 not a mapping
    rests = {key.removeprefix(part): key for key in keys}
    return {rest: weights.tensor(key) for rest, key in rests.items() if rest.split(".")[0] in roots and rest not in leave}


class Eye(nn.Module):
    """pixels float[batch 3 height width] to tokens float[batch tokens width]."""

    def __init__(self, config: coca.Eye) -> None:
        super().__init__()
        width, side = config.vision_width, config.image_size // config.patch_size
        self.conv1 = nn.Conv2d(3, width, config.patch_size, stride=config.patch_size, bias=False)
        self.class_embedding = _parameter(width) if config.class_token else None
        self.positional_embedding = _parameter(side**2 + int(config.class_token), width)
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = _blocks(config.vision_layers, width, config.vision_heads)

    def from_checkpoint(self, weights: Weights) -> Mapping[str, Tensor]:
        """Take the eye out of the file of a whole CoCa."""
        return _taken(weights, self.state_dict(), part="visual.")

    def forward(self, pixels: Tensor) -> Tensor:
        """Patches with their places, and the blocks."""
        x = self.conv1(pixels).flatten(2).transpose(1, 2)
        if self.class_embedding is not None:
            x = torch.cat([self.class_embedding.expand(x.shape[0], 1, -1), x], dim=1)
        return self.transformer(self.ln_pre(x + self.positional_embedding))  # type: ignore[no-any-return]


class AttentionPool(nn.Module):
    """Learned queries look at vectors of another width: float[batch n wide] to float[batch queries width]."""

    def __init__(self, wide: int, width: int, *, heads: int, queries: int) -> None:
        super().__init__()
        self.query = _parameter(queries, width)
        self.attn = Attention(width, heads, wide=wide)
        self.ln_q, self.ln_k = nn.LayerNorm(width), nn.LayerNorm(wide)

    def forward(self, x: Tensor) -> Tensor:
        """Queries and keys are normed, values are the keys."""
        keys = self.ln_k(x)
        queries = self.ln_q(self.query).expand(x.shape[0], -1, -1)
        return self.attn(queries, keys)  # type: ignore[no-any-return]


class Pooler(nn.Module):
    """x float[batch patches wide] to vector float[batch width], of the length 1, and tokens float[batch n width]."""

    def __init__(self, config: coca.Pooler) -> None:
        super().__init__()
        wide, width, heads = config.vision_width, config.embedding_size, config.pooler_heads
        self.pooling = config.pooling
        self.attn_pool = AttentionPool(wide, width, heads=heads, queries=config.queries)
        self.ln_post = nn.LayerNorm(width if self.pooling == "openclip" else wide)
        if self.pooling != "openclip":
            behind = wide if self.pooling == "parallel" else width
            self.attn_pool_contrastive = AttentionPool(behind, width, heads=heads, queries=1)
        self.proj = _parameter(width, width)

    def from_checkpoint(self, weights: Weights) -> Mapping[str, Tensor]:
        """Take the pooler out of the file of a whole CoCa."""
        return _taken(weights, self.state_dict(), part="visual.")

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Pool, and norm before it (as in the paper) or behind (as published)."""
        if self.pooling == "openclip":
            pooled = self.ln_post(self.attn_pool(x))
            vector, seen = pooled[:, 0], pooled[:, 1:]
        else:
            x = self.ln_post(x)
            seen = self.attn_pool(x)
            vector = self.attn_pool_contrastive(x if self.pooling == "parallel" else seen)[:, 0]
        return {"vector": functional.normalize(vector @ self.proj, dim=-1), "tokens": seen}


class Words(nn.Module):
    """The half that reads text alone, without what makes one vector of it: ids int64[batch slots] to float[batch slots width]."""

    def __init__(self, *, vocabulary: int, width: int, layers: int, heads: int, places: int, exact: bool) -> None:
        super().__init__()
        self.exact = exact
        self.token_embedding = nn.Embedding(vocabulary, width)
        self.positional_embedding = _parameter(places, width)
        self.transformer = _blocks(layers, width, heads)

    def run(self, x: Tensor, ids: Tensor) -> Tensor:
        """Embedded tokens, perhaps one more than there are ids. No token sees what follows it."""
        places = x.shape[1]
        seen = _causal(places, ids) & _taken_places(ids, exact=self.exact)[:, :, :, :places]
        return self.transformer(x + self.positional_embedding[:places], seen)  # type: ignore[no-any-return]

    def forward(self, ids: Tensor) -> Tensor:
        """A learned token behind all of them would change none."""
        return self.run(self.token_embedding(ids), ids)


class Text(Words):
    """ids int64[batch n] to vector float[batch embedding], of the length 1, and tokens float[batch places width]."""

    def __init__(self, config: coca.Text) -> None:
        super().__init__(
            vocabulary=config.vocab_size, width=config.text_width, layers=config.text_layers, heads=config.text_heads,
            places=config.context_length + 1, exact=config.class_sees == "correct",
        )  # fmt: skip
        self.places, self.many = config.context_length, config.many
        self.cls_emb = _parameter(config.text_width)
        self.ln_final = nn.LayerNorm(config.text_width)
        self.text_projection = _parameter(config.text_width, config.embedding_size)

    def from_checkpoint(self, weights: Weights) -> Mapping[str, Tensor]:
        """Take this half out of the file of a whole CoCa."""
        return _taken(weights, self.state_dict(), part="text.")

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> dict[str, Tensor] | Tensor:  # type: ignore[override]  # and a vector
        """mask is True where there is a token. Of many texts, an axis behind batch, the vectors alone."""
        if not self.many:
            return self._read(filled(ids, mask, self.places))
        flat = filled(ids.flatten(0, 1), None if mask is None else mask.flatten(0, 1), self.places)
        return self._read(flat)["vector"].unflatten(0, ids.shape[:2])  # type: ignore[no-untyped-call,no-any-return]

    def _read(self, ids: Tensor) -> dict[str, Tensor]:
        """The learned token stands last and sees the text; only it is normed and mapped."""
        x = torch.cat([self.token_embedding(ids), self.cls_emb.expand(ids.shape[0], 1, -1)], dim=1)
        x = self.run(x, ids)
        vector = self.ln_final(x[:, -1]) @ self.text_projection
        return {"vector": functional.normalize(vector, dim=-1), "tokens": x[:, :-1]}


def _taken_places(ids: Tensor, *, exact: bool) -> Tensor:
    """Places to look at, all but those of the id 0, and that behind the last: bool[batch 1 1 places]. As published, one place off."""
    taken = ids != 0
    always = torch.ones_like(taken[:, :1])
    return torch.cat([taken, always] if exact else [always, taken], dim=1)[:, None, None]


def filled(ids: Tensor, mask: Tensor | None, places: int) -> Tensor:
    """Ids filled up with 0: int64[batch n] to int64[batch places]; what is no token becomes 0 too."""
    ids = ids if mask is None else ids * mask
    return torch.cat([ids, ids.new_zeros(ids.shape[0], places - ids.shape[1])], dim=1)


class Captions(nn.Module):
    """The half that looks at the picture: tokens float[batch slots width], image float[batch n width] to logits."""

    def __init__(self, *, width: int, layers: int, heads: int, vocabulary: int, layer: str) -> None:
        super().__init__()
        self.is_paper = layer == "paper"
        kind = PaperLayer if self.is_paper else Block
        self.resblocks = nn.ModuleList(kind(width, heads) for _ in range(layers))
        if not self.is_paper:
            self.cross_attn = nn.ModuleList(Look(width, heads, feeds=True) for _ in range(layers))
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = _parameter(width, vocabulary)

    def states(self, tokens: Tensor, image: Tensor) -> Tensor:
        """What the head reads: float[batch slots width]."""
        x, seen = tokens, _causal(tokens.shape[1], tokens)
        if self.is_paper:
            for layer in self.resblocks:
                x = layer.read(x, seen, image)  # type: ignore[operator]
        else:
            for block, look in zip(self.resblocks, self.cross_attn, strict=True):
                x = look(block(x, seen), image)
        return self.ln_final(x)  # type: ignore[no-any-return]


class Decoder(Captions):
    """tokens float[batch slots width], image float[batch n width] to logits float[batch slots vocabulary]."""

    def __init__(self, config: coca.Decoder) -> None:
        super().__init__(
            width=config.text_width, layers=config.decoder_layers, heads=config.decoder_heads, vocabulary=config.vocab_size,
            layer=config.decoder_layer,
        )  # fmt: skip

    def from_checkpoint(self, weights: Weights) -> Mapping[str, Tensor]:
        """Take this half out of the file of a whole CoCa."""
        return _taken(weights, self.state_dict(), part="text_decoder.")

    def forward(self, tokens: Tensor, image: Tensor) -> Tensor:
        """Logits at every place, about the token behind it."""
        return self.states(tokens, image) @ self.text_projection


class Read(nn.Module):
    """Both halves: ids int64[batch slots], places int64[batch], image float[batch n width] to logits float[batch vocabulary]."""

    def __init__(self, config: coca.Writer) -> None:
        super().__init__()
        width = config.text_width
        self.text = Words(
            vocabulary=config.vocab_size, width=width, layers=config.text_layers, heads=config.text_heads,
            places=config.context_length + 1, exact=config.class_sees == "correct",
        )  # fmt: skip
        self.text_decoder = Captions(
            width=width, layers=config.decoder_layers, heads=config.decoder_heads, vocabulary=config.vocab_size, layer=config.decoder_layer,
        )  # fmt: skip

    def forward(self, ids: Tensor, places: Tensor, image: Tensor) -> Tensor:
        """Logits at one place of each row."""
        states = self.text_decoder.states(self.text(ids), image)
        asked = states.gather(1, places[:, None, None].expand(-1, 1, states.shape[-1]))[:, 0]
        return asked @ self.text_decoder.text_projection


class Writing(Driven):
    """What coca/writer goes round."""

    def __init__(self, config: coca.Writer) -> None:
        super().__init__()
        self.read = Read(config)

    def from_checkpoint(self, weights: Weights) -> Mapping[str, Tensor]:
        """Take both halves out of the file of a whole CoCa, without what makes one vector of a text."""
        halves = {"text": ("cls_emb", "ln_final.weight", "ln_final.bias", "text_projection"), "text_decoder": ()}
        found: dict[str, Tensor] = {}
        for half, leave in halves.items():
            names = self.read.get_submodule(half).state_dict()
            found |= {f"read.{half}.{key}": tensor for key, tensor in _taken(weights, names, part=f"{half}.", leave=leave).items()}
        return found


def targets(config: coca.Targets, _context: LoadContext) -> Callable[..., Tensor]:
    """ids int64[batch n] to labels int64[batch places]: the id behind each place, -100 at the last one and where that is free."""

    def label(ids: Tensor, mask: Tensor | None = None) -> Tensor:
        behind = filled(ids, mask, config.context_length + 1)[:, 1:]
        return torch.where(behind == 0, -100, behind)

    return label
