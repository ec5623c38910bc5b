"""Matrices that a file holds in blocks of 4 or 8 bits, taken over as they are: no number of theirs is brought to blocks anew.

MatMulNBits multiplies by `scale * (number - 8)`, or 128 in 8 bits. Where the blocks of a file have a least value of their own, as those of
q4_1 have, something else stands at 8: that number of each block is multiplied by the sum of what a row reads there, and added. The operator
knows zeros of its own for blocks: with whole ones it is a tenth slower, with fractions sixty times (1.31).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from modelgraft_plugins.onnx.blocks import ACCURACY
from modelgraft_plugins.onnx.constants import LYING
from modelgraft_plugins.onnx.giving_back import GivingBack

if TYPE_CHECKING:
    from modelgraft.plugin import PublishedBlocks

NOTED = "published"  # where a matrix of a graph notes what gives its blocks: see `Tracer.write`
MIDDLE = {4: 8, 8: 128}  # the number that a node of MatMulNBits takes for zero
MOSTLY = 0.5  # of the numbers of a graph: where fewer are held in 4 bits, 4 bits are made of those in 8 too

Array = Any  # of numpy
Value = Any  # of onnx_ir, which is not among what mypy sees


@dataclass(frozen=True, slots=True)
class Kept:
    """A matrix [rows columns] of such blocks: what reads them, of each that lies side by side in it.

    is_shifted  another number than zero stands at the middle of some of them
    """

    readers: Sequence[Callable[[], PublishedBlocks]]
    rows: int
    columns: int
    bits: int
    size: int
    is_shifted: bool

    @property
    def attributes(self) -> Mapping[str, int]:
        """The attributes of its node."""
        return {"K": self.rows, "N": self.columns, "bits": self.bits, "block_size": self.size, "accuracy_level": ACCURACY}

    def packed(self) -> Array:
        """uint8[columns blocks bytes], as MatMulNBits reads it."""
        import numpy

        numbers = numpy.concatenate([read().numbers for read in self.readers])
        bytes_ = numbers if self.bits == 8 else numbers[:, 0::2] | numbers[:, 1::2] << 4
        return bytes_.reshape(self.columns, self.rows // self.size, -1)

    def scales(self) -> Array:
        """float32[columns blocks]."""
        import numpy

        return numpy.concatenate([read().scales for read in self.readers])

    def shifts(self) -> Array:
        """What stands at the middle of each block, as often as it has numbers, for means of what is read: float32[blocks columns]."""
        import numpy

        found = [_left(read()) for read in self.readers]
        return numpy.ascontiguousarray(numpy.concatenate(found).T * numpy.float32(self.size))


def is_of_use(blocks: PublishedBlocks, *, bits: int) -> bool:
    """Whether blocks of a file may be kept where so many bits are wanted: see `kept_of`. Known before they are compared."""
    return bits < max(MIDDLE) or blocks.bits == bits or not _is_shifted(blocks)


def _is_shifted(blocks: PublishedBlocks) -> bool:
    """Whether another number than zero stands at the middle of some of them."""
    return blocks.offsets is not None or blocks.centre != MIDDLE[blocks.bits]


def _left(blocks: PublishedBlocks) -> Array:
    """float32[rows blocks]: what stands at the number that the operator takes for zero."""
    beside = blocks.scales * blocks.scales.dtype.type(MIDDLE[blocks.bits] - blocks.centre)
    return beside if blocks.offsets is None else beside + blocks.offsets


def kept_of(weights: Mapping[str, Value], *, bits: int) -> Mapping[str, Kept]:
    """Those of some matrices, by the names of their nodes, that are held in blocks, and are to be kept where so many bits are wanted.

    In 4 bits all that a file holds in blocks is kept, also in 8, where most of it is in 4: so its maker has divided it. In 8 bits those
    of 4 are kept as well, but where they are shifted: 8 bits are then as near as what is read is, and faster than adding what is left.
    """
    read = [tensor for weight in weights.values() for tensor in weight.meta.get(LYING, ())]
    found, giving = dict[str, Kept](), GivingBack((weight.const_value.nbytes for weight in weights.values()), read)
    for name, weight in weights.items():
        if (kept := _kept(weight)) is not None:
            found[name] = kept
        giving.note(weight.const_value.nbytes)  # it was compared with its blocks, number by number
    fitting = {name: kept for name, kept in found.items() if kept.bits == bits or (kept.bits < bits and not kept.is_shifted)}
    few = sum(kept.rows * kept.columns for kept in fitting.values())
    every = sum(weight.const_value.shape[0] * weight.const_value.shape[1] for weight in weights.values())
    return found if few >= MOSTLY * every and bits < max(MIDDLE) else fitting


def _kept(weight: Value) -> Kept | None:
    """A matrix whose parts are all held in blocks of one kind."""
    readers = weight.meta.get(NOTED, ())
    first = readers[0]() if readers else None
    if first is None or first.bits not in MIDDLE:
        return None
    is_shifted = _is_shifted(first)
    for read in readers[1:]:
        other = read()
        if other is None or (other.bits, other.size, other.centre) != (first.bits, first.size, first.centre):
            return None
        is_shifted = is_shifted or other.offsets is not None
    rows, columns = weight.const_value.shape
    return Kept(readers, rows, columns, first.bits, first.size, is_shifted)
