"""A decoder on ONNX Runtime whose tokens look at media (gated cross-attention): keys and values of media are made once per prompt.

media.onnx takes media float[batch media media_size], the vectors of all media of a record in a row, and gives of each block
media.key.i and media.value.i float[batch heads media d]. model.onnx takes, beside what decoding.py or growing.py lists, these and
    seen    int64[batch tokens]  the number of the medium that each token sees, from 1; 0: none
    medium  int64[batch media]   the number of the medium that each vector belongs to
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from modelgraft_plugins.onnx.calling import bind
from modelgraft_plugins.onnx.decoding import Layout, OnnxDecoder
from modelgraft_plugins.onnx.growing import GrowingDecoder, GrowingSession, pick
from modelgraft_plugins.onnx.streams import Order, unordered

MEDIA = "media.onnx"
REHEARSED = (3, 4)  # the parity gate shows so many media, each of so many vectors: others than those traced


class GatedDecoder(OnnxDecoder):
    """See OnnxDecoder; what a prompt sees is said by `show` before its prefill.

    What steps are bound to stays where it is, as the cache does: the next media of the same sizes are written over these.
    """

    def __init__(self, session: Any, layout: Layout, embed: Callable[[Tensor], Tensor], *, device: str, media: Any) -> None:
        """session, media: sessions on model.onnx and media.onnx."""
        super().__init__(session, layout, embed, device=device)
        self.media = media
        self.shown = torch.zeros(0)  # the media of the run, float[batch images latents width]
        self.pairs: dict[str, Tensor] = {}
        self.medium = torch.zeros(0, 0, dtype=torch.int64, device=device)
        self.last = torch.zeros(0, 1, dtype=torch.int64, device=device)  # what new tokens see, per row
        self.text = torch.zeros(0, 0, dtype=torch.int64, device=device)  # what those of the prompts see
        self.is_reading = self.is_same = False

    @property
    def media_size(self) -> int:
        """Width of the media."""
        return int(self.media.get_inputs()[0].shape[-1])

    def show(self, media: Tensor, seen: Sequence[Tensor]) -> None:
        """Say what the prompts of the next prefill see.

        media  float[batch images latents media_size];  seen  int64[tokens] per prompt, as in the graph
        """
        batch, images, latents = media.shape[:3]
        self.is_same = media.shape == self.shown.shape and torch.equal(media, self.shown)
        self.shown = media
        with (self.order or unordered)(media):
            self.text = torch.nn.utils.rnn.pad_sequence(list(seen), batch_first=True).to(self.device)  # padding sees nothing
            if self.medium.shape != (batch, images * latents):
                self._lay_out(batch, images * latents)
            self.medium.copy_(torch.arange(1, images + 1, device=self.device).repeat_interleave(latents))
            self.last.copy_(torch.stack([row[-1:] for row in seen]))
            self._fill(media.flatten(1, 2).to(self.device, self.layout.dtype).contiguous())

    def prefill(self, prompts: Sequence[Tensor], *, room: int) -> Tensor:
        """See Decoder.prefill."""
        self.is_reading = True
        try:
            return super().prefill(prompts, room=room)
        finally:
            self.is_reading = False

    def reorder(self, rows: Tensor) -> None:
        """See Decoder.reorder."""
        is_larger = len(rows) != len(self.last)
        super().reorder(rows)
        self.shown = torch.zeros(0)  # what lies there is that of other rows now
        with (self.order or unordered)(rows):
            picked = rows.to(self.device)
            old = {**self.pairs, "medium": self.medium, "last": self.last}
            if is_larger:
                self._lay_out(len(rows), self.medium.shape[1])
            for name, tensor in {**self.pairs, "medium": self.medium, "last": self.last}.items():
                tensor.copy_(old[name].index_select(0, picked))

    def _lay_out(self, batch: int, vectors: int) -> None:
        """Take memory for the media of so many rows; steps are to be bound anew."""
        self._let_go()
        self.medium = torch.empty(batch, vectors, dtype=torch.int64, device=self.device)
        self.last = torch.empty(batch, 1, dtype=torch.int64, device=self.device)
        self.pairs = _room(self.media, batch, vectors, like=torch.empty(0, dtype=self.layout.dtype, device=self.device))

    def _fill(self, media: Tensor) -> None:
        """Make keys and values of the media, float[batch media width]."""
        _look(self.media, media, self.pairs, self.order)

    def _common(self, prompt: Tensor) -> int:
        """What was read while other media were shown is not what would be read now."""
        return super()._common(prompt) if self.is_same else 0

    def _bind(self, inputs: dict[str, Tensor]) -> Any:
        if self.is_reading:
            self.text = self.text[:, self.reused :].contiguous()
        seen = self.text if self.is_reading else self.last
        return super()._bind({**inputs, "seen": seen, "medium": self.medium, **self.pairs})


class _Seeing(GrowingSession):
    """A growing session whose tokens see something."""

    beside: Mapping[str, Tensor]
    seen: Tensor

    def run(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """See GrowingSession."""
        return super().run({**tensors, "seen": self.seen, **self.beside})


class GatedGrowingDecoder(GrowingDecoder):
    """The same over a graph whose cache grows; rows are padded on the left, where nothing is seen."""

    body: _Seeing

    def __init__(self, session: Any, layout: Layout, embed: Callable[[Tensor], Tensor], *, device: str, media: Any) -> None:
        """See GatedDecoder."""
        super().__init__(session, layout, embed, device=device)
        self.body, self.media = _Seeing(session, layout, device=device, order=None), media
        self.last = torch.zeros(0, 1, dtype=torch.int64)

    @property
    def media_size(self) -> int:
        """Width of the media."""
        return int(self.media.get_inputs()[0].shape[-1])

    def show(self, media: Tensor, seen: Sequence[Tensor]) -> None:
        """See GatedDecoder.show."""
        body, (batch, images, latents) = self.body, media.shape[:3]
        with (body.order or unordered)(media):
            vectors = media.flatten(1, 2).to(body.device, body.layout.dtype).contiguous()
            pairs = _room(self.media, batch, images * latents, like=vectors)
            _look(self.media, vectors, pairs, body.order)
            numbers = torch.arange(1, images + 1, device=body.device).repeat_interleave(latents)
            body.beside = {**pairs, "medium": numbers.expand(batch, -1).contiguous()}
        longest = max(map(len, seen))
        body.seen = torch.stack([torch.nn.functional.pad(row, (longest - len(row), 0)) for row in seen])
        self.last = torch.stack([row[-1:] for row in seen])

    def prefill(self, prompts: Sequence[Tensor], *, room: int) -> Tensor:
        """See Decoder.prefill."""
        logits = super().prefill(prompts, room=room)
        self.body.seen = self.last
        return logits

    def reorder(self, rows: Tensor) -> None:
        """See Decoder.reorder."""
        super().reorder(rows)
        with (self.body.order or unordered)(rows):
            self.body.beside = pick(self.body.beside, rows)
        self.body.seen = self.last = self.last[rows.to(self.last.device)]


def _room(session: Any, batch: int, vectors: int, *, like: Tensor) -> dict[str, Tensor]:
    """Memory for keys and values of so many vectors, by their names; dtype and device of `like`."""
    sizes = {entry.name: entry.shape for entry in session.get_outputs()}
    return {name: like.new_empty(batch, heads, vectors, width) for name, (_, heads, _, width) in sizes.items()}


def _look(session: Any, media: Tensor, pairs: Mapping[str, Tensor], order: Order | None) -> None:
    """Make keys and values of media, float[batch media width], in the memory that there is for them."""
    binding = session.io_binding()
    bind(binding.bind_input, "media", media)
    for name, tensor in pairs.items():
        bind(binding.bind_output, name, tensor)
    session.run_with_iobinding(binding, order.options if order is not None else None)


def rehearse(decoder: Any, prompts: Sequence[Tensor], *, media_size: int) -> None:
    """Show a decoder, exported or in torch (`Any`: both have `show`), media for the prompts of the parity gate.

    The first token sees nothing, then each sees the next medium until the last; a prompt of one token sees nothing at all.
    """
    images, latents = REHEARSED
    generator = torch.Generator().manual_seed(11)
    media = torch.randn(len(prompts), images, latents, media_size, generator=generator)
    decoder.show(media, [torch.arange(len(prompt)).clamp(max=images) for prompt in prompts])


STYLES: Mapping[str, type[GatedDecoder | GatedGrowingDecoder]] = {"gated": GatedDecoder, "gated-growing": GatedGrowingDecoder}
