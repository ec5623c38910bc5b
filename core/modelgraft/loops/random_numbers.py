"""Random numbers of torch's generator on the host, without torch: each answer is drawn by a row of them that its seed decides."""

from __future__ import annotations

import random
from collections.abc import Iterator

STATE_WORDS = 624  # of the state of a Mersenne twister
LOW = 0xFFFF_FFFF
MIXED = 1_812_433_253


def numbers_of(seed: int) -> Iterator[float]:
    """The numbers in [0, 1) that `torch.rand(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)` gives, without end.

    Python's generator is the same twister, filled in another way: numpy's, which is filled alike, takes 20 ms to import. Torch makes a
    number of the lowest 53 bits of two words, the first of which is the upper one, and has only the low 32 bits of a seed.
    Source: Matsumoto and Nishimura 1998, mt19937ar.c (init_genrand).
    """
    state = [seed & LOW]
    for place in range(1, STATE_WORDS):
        state.append((MIXED * (state[-1] ^ (state[-1] >> 30)) + place) & LOW)
    twister = random.Random()  # noqa: S311 nothing is secret
    twister.setstate((3, (*state, STATE_WORDS), None))
    words = twister.getrandbits
    while True:
        upper, lower = words(32), words(32)
        yield ((upper & 0x1F_FFFF) << 32 | lower) * 2.0**-53
