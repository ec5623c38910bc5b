"""Vision towers, run up to the layer that is asked for: the plainest are built in `plain.py`, the others by transformers."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from modelgraft.plugin import InputError
from modelgraft_plugins.counted import remember
from modelgraft_plugins.vision import plain, plain_kinds, positions
from modelgraft_plugins.vision.patches import torn, whole

if TYPE_CHECKING:
    from modelgraft.plugin import Weights
    from modelgraft_plugins.vision import Encoder as EncoderConfig
    from modelgraft_plugins.vision.towers import Steps


class Encoder(nn.Module):
    """A vision transformer.

    pixels   float[batch channels height width], with an axis `images` behind `batch` if `many`
             a picture of zeros alone, which fills up a record that has fewer than others, gives zeros
    returns  tokens float[batch tokens hidden_size]; with a pooled vector a dict of `tokens` and `pooled` float[batch hidden_size];
             both with the axis `images` if there was one
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config, self.card = config, config.card
        depth, layer = config.num_hidden_layers, config.layer
        self.depth = depth if layer is None else layer % (depth + 1)  # hidden_states[0] is what enters the first layer
        self.is_whole = layer is None
        self.drop, self.has_pooled = (config.lead if config.select == "patches" else 0), config.has_pooled
        self.settings = {name: getattr(config, name) for name in ("attention_head", "pre_logits")}
        self.options: dict[str, bool] = {}
        sizes = plain_kinds.sizes_of(config)
        self.tower: Any = plain.Tower(sizes, way=config.positions, fits=config.takes_any_size) if sizes is not None else self._built()
        if sizes is None:
            self._see_to_places()

    def _built(self) -> Any:
        """The tower as transformers builds it."""
        from modelgraft_plugins.huggingface import build

        config = self.config
        tower = build(config.facts(), self.card.architecture)
        if self.card.count is None:
            remember(config.facts(), sum(parameter.numel() for parameter in tower.parameters()))
        for name in () if config.pre_logits is not None else self.card.more.get("without", ()):
            setattr(tower, name, None)
        return tower

    def _see_to_places(self) -> None:
        """Let a tower of transformers take pictures of the sizes that its config says."""
        config, takes = self.config, inspect.signature(self.tower.forward).parameters
        self.options = {"interpolate_pos_encoding": True} if config.interpolate and "interpolate_pos_encoding" in takes else {}
        if config.interpolate and (config.positions != "hf" or config.grid[0] != config.grid[1]):
            positions.replace_in(getattr(self.tower, "embeddings", None), config)

    def from_checkpoint(self, weights: Weights) -> Mapping[str, Tensor]:
        """Give the tensors of the tower in the names of transformers' memory."""
        state, tower = weights.state(), self.tower
        unused = self.config.card.more.get("unused", ())
        if isinstance(tower, plain.Tower):
            if (read := plain.read(state, tower, unused)) is not None:
                return {f"tower.{name}": tensor for name, tensor in read.items()}
            from modelgraft_plugins.huggingface import blueprint

            tower = blueprint(self.config.facts(), self.card.architecture)
        from modelgraft_plugins.huggingface import convert

        found = convert(state, tower, prefix="tower.")
        for name in unused:
            if self.config.pre_logits is None or not name.startswith(self.config.card.more["without"]):
                found.pop(f"tower.{name}", None)
        return found

    def for_adapters(self) -> Encoder:
        """The same with the tower of transformers, whose layers adapters look for by their names and classes."""
        if isinstance(plainest := self.tower, plain.Tower):
            from modelgraft_plugins.huggingface import blueprint

            with_everything = blueprint(self.config.facts(), self.card.architecture)
            for name in self.card.more.get("without", ()):
                setattr(with_everything, name, None)
            with_everything.load_state_dict(plainest.state_dict(), assign=True)
            self.tower = with_everything.requires_grad_(requires_grad=False).eval()
            self._see_to_places()
        return self

    def as_graph(self, graph: Any, *inputs: Any) -> Any:
        """See AsGraph; None for a tower that is none of `plain.py`."""
        if not isinstance(self.tower, plain.Tower) or self.config.many:
            return None
        from modelgraft_plugins.vision import plain_graph

        return plain_graph.write(self, graph, inputs[0])

    def forward(self, pixels: Tensor, shapes: Tensor | None = None) -> Tensor | dict[str, Tensor]:
        """Give the tokens, and the pooled vector when there is one; with `shapes` int64[batch 2], which of them are there."""
        if shapes is not None:
            return self._see_parts(pixels, shapes)
        if not self.config.many:
            return self._see(pixels)
        found = self._see(pixels.flatten(0, 1))  # each picture is looked at by itself
        there = pixels.flatten(2).ne(0).any(-1)  # [batch images]: not one that fills a record up
        if isinstance(found, Tensor):
            return _apart(found, there)
        return {name: _apart(tensor, there) for name, tensor in found.items()}

    def _see(self, pixels: Tensor) -> Tensor | dict[str, Tensor]:
        """pixels float[batch channels height width]."""
        if self.config.takes_any_size and not torch.compiler.is_exporting():
            self._refuse_torn(list(pixels.shape[-2:]))
        tokens, pooled = self._looked(pixels)
        tokens = tokens[:, self.drop :] if self.drop else tokens
        return {"tokens": tokens, "pooled": pooled} if pooled is not None and self.has_pooled else tokens

    def _looked(self, pixels: Tensor) -> tuple[Tensor, Tensor | None]:
        """Every token, and the vector of the picture where there is one."""
        if isinstance(self.tower, plain.Tower):
            found: tuple[Tensor, Tensor | None] = self.tower(pixels, depth=None if self.is_whole else self.depth)
            return found
        return self._as_transformers(pixels) if self.card.steps is None else self._by_steps(pixels)

    def _see_parts(self, pixels: Tensor, shapes: Tensor) -> dict[str, Tensor]:
        """Pictures that are filled up: their own whole patches see each other alone."""
        if not torch.compiler.is_exporting():
            self._refuse_torn(list(pixels.shape[-2:]))
        steps: Any = self.card.steps  # of a card that says so
        hidden, there = steps.enter_parts(self.tower, pixels, shapes)
        mask = there[:, None, None].expand(-1, 1, there.shape[1], -1)  # [batch heads queries keys]
        for block in steps.layers(self.tower)[: self.depth]:
            hidden = block(hidden, mask)
        tokens = steps.finish(self.tower, hidden, self.settings)[0] if self.is_whole else hidden
        return {"tokens": tokens, "there": there}

    def _refuse_torn(self, sides: list[int | None]) -> None:
        patch = self.config.patch_size
        if found := torn(sides, patch):
            raise InputError(f"vision/encoder got pictures of {found}: prepare them at {whole(sides, patch)}")

    def _by_steps(self, pixels: Tensor) -> tuple[Tensor, Tensor | None]:
        """No further than the layer that is asked for."""
        steps: Steps = self.card.steps
        hidden = steps.enter(self.tower, pixels, interpolate=self.config.interpolate)
        for block in steps.layers(self.tower)[: self.depth]:
            hidden = steps.layer(block, hidden)
        return steps.finish(self.tower, hidden, self.settings) if self.is_whole else (hidden, None)

    def _as_transformers(self, pixels: Tensor) -> tuple[Tensor, Tensor | None]:
        """All layers, one of which is taken."""
        if not self.is_whole:
            return self.tower(pixel_values=pixels, output_hidden_states=True, **self.options).hidden_states[self.depth], None
        found = self.tower(pixel_values=pixels, **self.options)
        return found.last_hidden_state, found.get("pooler_output")


def _apart(tensor: Tensor, there: Tensor) -> Tensor:
    """What pictures in a row give, float[n ...], by records: float[batch images ...], zeros where there was no picture."""
    by_record = tensor.reshape(*there.shape, *tensor.shape[1:])
    return by_record * there.to(tensor.dtype).reshape(*there.shape, *[1] * (tensor.ndim - 1))
