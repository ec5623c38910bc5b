"""A decoder on ONNX Runtime whose tokens look at media (gated cross-attention): keys and values of media are made once per prompt.

media.onnx takes media float[batch media media_size], the vectors of all media of a record in a row, and gives of each block
media.key.i and media.value.i float[batch heads media d]. model.onnx takes, beside what decoding.py lists, these and
    seen    int64[batch tokens]  the number of the medium that each token sees, from 1; 0: none
    medium  int64[batch media]   the number of the medium that each vector belongs to
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from modelgraft.backends.onnx.calling import bind
from modelgraft.backends.onnx.decoding import Layout, OnnxDecoder

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
        with self._in_turn(media):
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
        with self._in_turn(rows):
            picked = rows.to(self.device)
            old = {**self.pairs, "medium": self.medium, "last": self.last}
            if is_larger:
                self._lay_out(len(rows), self.medium.shape[1])
            for name, tensor in {**self.pairs, "medium": self.medium, "last": self.last}.items():
                tensor.copy_(old[name].index_select(0, picked))

    def _in_turn(self, given: Tensor) -> AbstractContextManager[None]:
        return self.order(given) if self.order is not None else nullcontext()

    def _lay_out(self, batch: int, vectors: int) -> None:
        """Take memory for the media of so many rows; steps are to be bound anew."""
        self._let_go()
        self.medium = torch.empty(batch, vectors, dtype=torch.int64, device=self.device)
        self.last = torch.empty(batch, 1, dtype=torch.int64, device=self.device)
        self.pairs = {}
        for entry in self.media.get_outputs():
            _, heads, _, width = entry.shape
            self.pairs[entry.name] = torch.empty(batch, heads, vectors, width, dtype=self.layout.dtype, device=self.device)

    def _fill(self, media: Tensor) -> None:
        """Make keys and values of the media, float[batch media width]."""
        binding = self.media.io_binding()
        bind(binding.bind_input, "media", media)
        for name, tensor in self.pairs.items():
            bind(binding.bind_output, name, tensor)
        self.media.run_with_iobinding(binding, self.order.options if self.order is not None else None)

    def _common(self, prompt: Tensor) -> int:
        """What was read while other media were shown is not what would be read now."""
        return super()._common(prompt) if self.is_same else 0

    def _bind(self, inputs: dict[str, Tensor]) -> Any:
        if self.is_reading:
            self.text = self.text[:, self.reused :].contiguous()
        seen = self.text if self.is_reading else self.last
        return super()._bind({**inputs, "seen": seen, "medium": self.medium, **self.pairs})


def rehearse(decoder: Any, prompts: Sequence[Tensor], *, media_size: int) -> None:
    """Show a decoder, exported or in torch (`Any`: both have `show`), media for the prompts of the parity gate.

    The first token sees nothing, then each sees the next medium until the last; a prompt of one token sees nothing at all.
    """
    images, latents = REHEARSED
    generator = torch.Generator().manual_seed(11)
    media = torch.randn(len(prompts), images, latents, media_size, generator=generator)
    decoder.show(media, [torch.arange(len(prompt)).clamp(max=images) for prompt in prompts])
