"""The blocks of 4 and 8 bits of a GGUF file as they are stored there, for backends that multiply by blocks themselves.

    q4_0  half scale, 16 bytes: number i in the lower, number i + 16 in the upper half of byte i    value = scale * (number - 8)
    q4_1  half scale, half least value, 16 bytes as before                                           value = scale * number + least
    q8_0  half scale, 32 signed bytes                                                                value = scale * number

Layout: ggml's `block_q4_0`, `block_q4_1` and `block_q8_0`. Tests compare with the `gguf` package's `dequantize`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from modelgraft.plugin import PublishedBlocks
from modelgraft_plugins.formats.gguf_file import GgufFile, Stored

if TYPE_CHECKING:
    import numpy as np

SIZE = 32  # numbers in a block of each of these types
BYTES = {2: 18, 3: 20, 8: 34}  # of a block, by the number of its type: q4_0, q4_1, q8_0

Array = Any  # of numpy


def holds(stored: Stored) -> bool:
    """Whether a tensor is a matrix in such blocks."""
    return stored.kind in BYTES and len(stored.shape) == 2 and stored.shape[1] % SIZE == 0


def read(source: GgufFile, stored: Stored, ordered: Callable[[Array], Array]) -> PublishedBlocks:
    """The blocks of a matrix. ordered: puts its rows in the order of transformers, along the first axis."""
    import numpy as np

    rows, count, width = stored.shape[0], stored.shape[1] // SIZE, BYTES[stored.kind]
    raw = np.fromfile(source.path, np.uint8, count=rows * count * width, offset=stored.start).reshape(rows, count, width)
    raw = ordered(raw)
    scales = _halves(raw, 0)
    if stored.kind == 8:
        return PublishedBlocks((raw[:, :, 2:] ^ 0x80).reshape(rows, -1), scales, 128, 8, SIZE)  # signed bytes as unsigned ones around 128
    packed = raw[:, :, -16:]
    numbers = np.concatenate([packed & 0x0F, packed >> 4], axis=2).reshape(rows, -1)
    if stored.kind == 2:
        return PublishedBlocks(numbers, scales, 8, 4, SIZE)
    return PublishedBlocks(numbers, scales, 0, 4, SIZE, _halves(raw, 2))


def widen(raw: Array, kind: int, made: Array) -> None:
    """Write the numbers of blocks, uint8[rows blocks bytes], into float32[rows columns]: rounded as the `gguf` package rounds them."""
    import numpy as np

    numbers, scales = made.reshape(*raw.shape[:2], SIZE), _halves(raw, 0)[..., None]
    if kind == 8:
        np.multiply(raw[:, :, 2:].view(np.int8), scales, out=numbers)
        return
    packed, half = raw[:, :, -16:], SIZE // 2
    np.bitwise_and(packed, 0x0F, out=numbers[..., :half], casting="unsafe")
    np.right_shift(packed, 4, out=numbers[..., half:], casting="unsafe")
    if kind == 2:
        numbers -= 8
    numbers *= scales
    if kind == 3:
        numbers += _halves(raw, 2)[..., None]


def _halves(raw: Array, start: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The half at a byte of each block, as float32[rows blocks]."""
    import numpy as np

    found: np.ndarray[Any, np.dtype[np.float32]] = (
        np.ascontiguousarray(raw[:, :, start : start + 2]).view("<f2")[:, :, 0].astype(np.float32)
    )
    return found
