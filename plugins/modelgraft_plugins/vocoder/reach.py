"""How far a sample of a vocoder looks: which frames a stretch of it is made of, so that it can be made in pieces.

A vocoder is a stack of convolutions: one over frames, then for each rate a transposed one and residual blocks, and one over samples.
What a stretch of samples depends on is followed backwards through it; nothing beyond that can change it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod

OUTER = 3  # to each side: the convolutions before and behind the stack look at 7


@dataclass(frozen=True)
class Reach:
    """The sizes of a stack: a rate and a kernel for each transposed convolution, a kernel and dilations for each residual block."""

    rates: Sequence[int]
    kernels: Sequence[int]
    block_kernels: Sequence[int]
    block_dilations: Sequence[Sequence[int]]

    @cached_property
    def hop(self) -> int:
        """Samples of a frame."""
        return prod(self.rates)

    @cached_property
    def beyond(self) -> int:
        """Samples behind those of the last frame: of kernels that are wider than their rate by an odd number."""
        more = 0
        for rate, kernel in zip(self.rates, self.kernels, strict=True):
            more = more * rate + (kernel - rate) % 2
        return more

    @cached_property
    def before(self) -> int:
        """Frames before a frame that its samples depend on."""
        return -self._frames(0, self.hop - 1)[0]

    @cached_property
    def behind(self) -> int:
        """Frames behind a frame that its samples depend on."""
        return self._frames(0, self.hop - 1)[1]

    @property
    def block(self) -> int:
        """How far a residual block looks to each side: each dilation is followed by a convolution without one."""
        reaches = [
            sum((kernel - 1) // 2 * (dilation + 1) for dilation in dilations)
            for kernel, dilations in zip(self.block_kernels, self.block_dilations, strict=True)
        ]
        return max(reaches)

    def _frames(self, first: int, last: int) -> tuple[int, int]:
        """The first and the last frame that samples depend on, where there were frames without end."""
        low, high = first - OUTER, last + OUTER
        for rate, kernel in zip(reversed(self.rates), reversed(self.kernels), strict=True):
            padding = (kernel - rate) // 2
            low, high = low - self.block + padding - kernel + 1, high + self.block + padding
            low, high = -(-low // rate), high // rate  # output o is made of inputs i with 0 <= o + padding - i * rate < kernel
        return low - OUTER, high + OUTER
