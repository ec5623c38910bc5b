"""Matrices in blocks of 8 or 4 bits, as the operator MatMulNBits of onnxruntime reads them.

A block is a run of numbers of one column, which share a scale: the number of largest magnitude, with its sign, divided by -128 (or
-8), so that it is exact. The numbers are what onnxruntime's own kernel makes of them, the one behind its MatMulNBitsQuantizer; where all
blocks are full, torch computes the same in a fifth of its time (4 in place of 21 ns a number, Zen 3). Either is asked for a few columns
at a time: what it reads then lies in the cache, a transposed or mapped matrix is nowhere copied whole, and one of another type
becomes float32 only there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from modelgraft.plugin import ExportError
from modelgraft_plugins.onnx.giving_back import GIVEN_BACK

if TYPE_CHECKING:
    import numpy
    import torch

    from modelgraft.plugin import PublishedBlocks

SIZE = 32  # numbers that share a scale unless it is said otherwise
SIZES = (16, 32, 64, 128, 256)  # powers of two: what the kernels read
ACCURACY = 4  # what is multiplied by the blocks is brought to 8 bits as well: the fastest on a CPU
COMPARED = 1 << 20  # numbers that are compared at once
AT_ONCE = 1 << 18  # numbers that torch brings to blocks at once
COLUMNS = 32  # columns that are brought to blocks at once: with 16 or 128 it takes 1.4 times as long (2048 x 8192, Xeon with AVX-512)


@dataclass(frozen=True, slots=True)
class Blocks:
    """The weights of a MatMulNBits node: its second and third input, and its attributes.

    packed   uint8[out blocks bytes], blocks being ceil(in / size), bytes being size * bits / 8; the last block ends with zeros
    scales   float32[out blocks]
    rows     in, the length of a column
    bits     8 or 4
    size     numbers in a block
    """

    packed: numpy.ndarray[Any, Any]
    scales: numpy.ndarray[Any, Any]
    rows: int
    bits: int
    size: int

    @property
    def attributes(self) -> Mapping[str, int]:
        """The attributes of the node."""
        return {"K": self.rows, "N": len(self.packed), "bits": self.bits, "block_size": self.size, "accuracy_level": ACCURACY}


def in_blocks(matrix: numpy.ndarray[Any, Any] | torch.Tensor, *, bits: int, size: int = SIZE) -> Blocks:
    """Bring a matrix to blocks, symmetric around zero.

    matrix  float[in out], of any floating type; may be transposed, sliced, or mapped from a file

    Raises ExportError for what is no matrix, for other bits than 8 and 4, and for a size that is not among SIZES.
    """
    import numpy

    if len(matrix.shape) != 2 or bits not in (4, 8) or size not in SIZES:
        found = f"[{' '.join(map(str, matrix.shape))}] in {bits} bits and blocks of {size}"
        raise ExportError(f"blocks are made of matrices, in 8 or 4 bits and blocks of {', '.join(map(str, SIZES))}; found {found}")
    rows, columns = matrix.shape
    count = -(-rows // size)
    packed = numpy.zeros((columns, count, size * bits // 8), numpy.uint8)  # the kernel leaves the end of the last block as it is
    scales = numpy.empty((columns, count), numpy.float32)
    if rows % size == 0:
        _fill(packed, scales, matrix, bits=bits, size=size)
        return Blocks(packed, scales, rows, bits, size)
    unused = numpy.empty((COLUMNS, count), numpy.uint8)  # zero points, which symmetric blocks have none of
    quantise = _kernel(bits)
    for start in range(0, columns, COLUMNS):
        some = slice(start, min(start + COLUMNS, columns))
        width = some.stop - start
        quantise(packed[some], _plain(matrix[:, some]), scales[some], unused[:width], size, width, rows, True)
    return Blocks(packed, scales, rows, bits, size)


def _fill(packed: Any, scales: Any, matrix: Any, *, bits: int, size: int) -> None:
    """Write full blocks of a matrix, [in out], of numpy or torch (`Any`): rounded as the kernel rounds them, halves upwards."""
    import torch

    middle, step = 1 << (bits - 1), max(1, AT_ONCE // max(matrix.shape[0], 1))
    for start in range(0, len(packed), step):
        some = slice(start, start + step)
        numbers = turned(matrix[:, some]).view(*scales[some].shape, size)
        low, high = numbers.amin(-1), numbers.amax(-1)
        largest = torch.where(high.abs() > low.abs(), high, low)
        scale = torch.from_numpy(scales[some]).copy_(largest / -middle)
        inverse = torch.where(scale == 0, 0.0, 1.0 / scale)
        whole = (numbers * inverse[..., None]).add_(middle).add_(0.5).clamp_(0, 2 * middle - 1)  # a byte of it is rounded down
        if bits == 8:
            torch.from_numpy(packed[some]).copy_(whole)
        else:
            halves = whole.to(torch.uint8)
            torch.from_numpy(packed[some]).copy_(halves[..., 0::2] | halves[..., 1::2] << 4)


def side_by_side(parts: Sequence[Blocks]) -> Blocks:
    """The blocks of matrices of as many rows as those of one."""
    import numpy

    if len(parts) == 1:
        return parts[0]
    packed, scales = (numpy.concatenate([getattr(part, name) for part in parts]) for name in ("packed", "scales"))
    return Blocks(packed, scales, parts[0].rows, parts[0].bits, parts[0].size)


def is_of(blocks: PublishedBlocks, matrix: torch.Tensor) -> bool:
    """Whether a matrix, float[rows columns] of any floating type, has the very numbers of some blocks."""
    import numpy

    if blocks.numbers.shape != tuple(matrix.shape):
        return False
    step = max(1, COMPARED // max(matrix.shape[1], 1))
    from modelgraft.plugin import giving_back  # brings torch: a backend that begins sessions beside it is imported without

    give = giving_back([matrix.detach()]) if matrix.nbytes > GIVEN_BACK else lambda: None
    for start in range(0, len(matrix), step):
        if not numpy.array_equal(blocks.rows(start, start + step), matrix[start : start + step].detach().float().numpy()):
            return False
        give()
    return True


def turned(columns: Any) -> torch.Tensor:
    """A few columns, [in some] of numpy or torch, as float32[some in], column after column; of torch perhaps where they lay."""
    import numpy
    import torch

    if isinstance(columns, numpy.ndarray):
        return torch.from_numpy(numpy.array(columns.T, numpy.float32, order="C"))  # a copy: torch warns of what is mapped to be read
    found: torch.Tensor = columns.detach().T.float().contiguous()
    return found


def _kernel(bits: int) -> Callable[..., None]:
    """What fills packed blocks and scales: (packed, matrix, scales, zero points, size, columns, rows, is symmetric)."""
    from onnxruntime.capi import _pybind_state as own  # type: ignore[import-untyped, unused-ignore]

    kernel: Callable[..., None] = own.quantize_matmul_8bits if bits == 8 else own.quantize_matmul_4bits
    return kernel


def _plain(columns: Any) -> numpy.ndarray[Any, Any]:
    """A few columns as float32, row after row: the kernel reads memory as if it lay so. `Any`: of numpy or torch."""
    import numpy

    array = columns if isinstance(columns, numpy.ndarray) else columns.detach().float().contiguous().numpy()
    return numpy.ascontiguousarray(array, dtype=numpy.float32)
