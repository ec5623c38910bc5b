"""The towers of transformers that read patches of pictures of any size: run layer by layer, each picture for itself.

Here the patches of all pictures stand in one row, and those that see each other are gathered by how many they are. An exported graph,
whose shapes cannot depend on what a grid says, keeps records apart, and masks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from modelgraft_plugins.huggingface import build, convert
from modelgraft_plugins.patches.places import Places, drawn, locate

if TYPE_CHECKING:
    from modelgraft.plugin import Weights
    from modelgraft_plugins.patches import Encoder as EncoderConfig

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]  # queries, keys, values float[rows heads width] -> float[rows heads*width]


class Steps(Protocol):
    """How a tower is run. `tower` is the model of transformers, `hidden` float[rows width]."""

    def enter(self, tower: Any, patches: Tensor) -> Tensor:
        """Patches float[rows values] -> what the first layer reads."""
        ...

    def turns(self, tower: Any, hidden: Tensor, positions: Tensor) -> Any:
        """Rows and columns int64[rows 2] -> cosines and sines that queries and keys are turned by."""
        ...

    def layers(self, tower: Any) -> Sequence[Any]:
        """The layers in order."""
        ...

    def layer(self, block: Any, hidden: Tensor, turns: Any, attend: Attend) -> Tensor:
        """What a layer makes of the patches."""
        ...


class Encoder(nn.Module):
    """A vision transformer for pictures of any size.

    patches  float[batch patches values];  grids  int64[batch media 3]: frames, rows and columns of patches of each picture
    returns  tokens float[batch patches hidden_size], zeros behind the pictures of a record; where layers are asked for beside the last
             one, deep float[batch layers patches hidden_size] of them as well
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.tower = build(config.facts(), config.card.architecture)
        for name in config.card.more.get("without", ()):
            setattr(self.tower, name, None)
        depth, layer = config.num_hidden_layers, config.layer
        self.depth = depth if layer is None else layer % (depth + 1)  # hidden_states[0] is what enters the first layer
        self.deep = config.deep_layers
        self.window = (
            None if config.window_size is None else config.window_size // config.merge_size // config.patch_size * config.merge_size
        )

    def from_checkpoint(self, weights: Weights) -> Mapping[str, Tensor]:
        """Give the tensors of the tower in the names of transformers' memory, without those of parts that are components of their own."""
        others = tuple(f"tower.{name}." for name in self.config.card.more.get("without", ()))
        found = convert(weights.state(), self.tower, prefix="tower.")
        return {name: tensor for name, tensor in found.items() if not name.startswith(others)} if others else found

    def forward(self, patches: Tensor, grids: Tensor) -> Tensor | dict[str, Tensor]:
        """Give a vector for each patch, of each layer that is asked for."""
        found = self._seen(patches, grids)
        return {"tokens": found[:, -1], "deep": found[:, :-1]} if self.deep else found[:, 0]

    def _seen(self, patches: Tensor, grids: Tensor) -> Tensor:
        """float[batch layers patches width], the one that `layer` names last."""
        if not torch.compiler.is_exporting() and not patches.shape[1]:  # no record has a picture
            return patches.new_zeros(len(patches), len(self.deep) + 1, 0, self.config.hidden_size)
        places = locate(grids, patches.shape[1], group=self.config.merge_size)
        if not torch.compiler.is_exporting():
            there = places.there
            found = self._read(patches[there], places, there, lambda side: _gathered(places.alike(side)[there]))
            whole = found.new_zeros(*patches.shape[:2], *found.shape[1:])
            whole[there] = found
            return whole.transpose(1, 2)
        found = self._read(patches.flatten(0, 1), places, None, lambda side: _masked(places.alike(side)))
        whole = found.reshape(*patches.shape[:2], *found.shape[1:]) * places.there[..., None, None].to(found.dtype)
        return whole.transpose(1, 2)

    def _read(self, rows: Tensor, places: Places, there: Tensor | None, attending: Callable[[int | None], Attend]) -> Tensor:
        """rows float[rows values] -> float[rows layers width]; `there`: which of all places they have."""
        steps: Steps = self.config.card.steps
        positions = torch.stack([places.row, places.column], -1)
        positions = positions.flatten(0, 1) if there is None else positions[there]
        hidden = steps.enter(self.tower, rows)
        if self.config.num_position_embeddings is not None:
            learned = drawn(self.tower.pos_embed.weight, places)
            hidden = hidden + (learned.flatten(0, 1) if there is None else learned[there])
        turns = steps.turns(self.tower, hidden, positions)
        whole = attending(None)
        windows = whole if self.window is None else attending(self.window)
        inner: list[Tensor] = []
        for number, block in enumerate(steps.layers(self.tower)[: self.depth]):
            hidden = steps.layer(block, hidden, turns, whole if number in self.config.full_layers else windows)
            if number in self.deep:
                inner.append(hidden)
        return torch.stack([*inner, hidden], 1)


def _gathered(alike: Tensor) -> Attend:
    """Attention among the rows of one number, int64[rows]: those that are as many as others are read together."""
    order = torch.argsort(alike, stable=True)
    lengths = torch.unique(alike, return_counts=True)[1]
    begins = lengths.cumsum(0) - lengths
    groups = [order[begins[lengths == length][:, None] + torch.arange(length, device=alike.device)] for length in lengths.unique().tolist()]

    def attend(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        found = torch.empty_like(values)
        for rows in groups:  # [segments length]
            asked, kept, given = (one[rows].transpose(1, 2) for one in (queries, keys, values))  # [segments heads length width]
            seen = functional.scaled_dot_product_attention(asked, kept, given)
            found[rows] = seen.transpose(1, 2)
        return found.flatten(1)

    return attend


def _masked(alike: Tensor) -> Attend:
    """The same by a mask, int64[batch patches]."""
    mask = (alike[:, None] == alike[:, :, None])[:, None]  # [batch 1 patches patches]

    def attend(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        asked, kept, given = (one.reshape(*alike.shape, *one.shape[1:]).transpose(1, 2) for one in (queries, keys, values))
        seen = functional.scaled_dot_product_attention(asked, kept, given, attn_mask=mask)
        return seen.transpose(1, 2).flatten(2).flatten(0, 1)

    return attend
