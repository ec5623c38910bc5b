"""Tables of embeddings as numpy indexes them: mapped from a file of safetensors, without torch."""

from __future__ import annotations

import math
import mmap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelgraft.records.arrays import as_array
from modelgraft.sources.headers import read_header, start_of

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

# As a file says -> as numpy reads it; of bfloat16, which numpy has not, the bits.
AS_NUMPY = {"F32": "<f4", "F16": "<f2", "F64": "<f8", "BF16": "<u2"}


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """Rows of numbers that are looked up, [rows width]: float32, float16 or float64, or bfloat16 as its bits in uint16."""

    numbers: NDArray[Any]

    @property
    def is_bits(self) -> bool:
        """Whether it holds bfloat16, the upper halves of float32."""
        return self.numbers.dtype.kind == "u"

    @property
    def nbytes(self) -> int:
        """What it takes."""
        return self.numbers.nbytes

    def rows(self, ids: Any) -> NDArray[Any]:
        """Some rows, by an array or a list of their numbers, int64[n]: float32[n width], a copy."""
        found: NDArray[Any] = self.numbers[ids]
        if self.is_bits:
            found = (found.astype("uint32") << 16).view("float32")
        return found.astype("float32", copy=False)

    def __call__(self, ids: Any) -> NDArray[Any]:
        """Input embeddings that are these rows and nothing more, no scale, no projection: `rows`, by a tensor on the host as well."""
        return self.rows(as_array(ids))

    def tensor(self) -> Tensor:
        """As torch has it, on the same memory."""
        import torch

        if self.is_bits:
            return torch.from_numpy(self.numbers.view("int16")).view(torch.bfloat16)
        return torch.from_numpy(self.numbers)


def table_of(tensor: Tensor) -> Table:
    """A tensor on the host as a table on the same memory; one of another type, such as eight bits, is made float32."""
    import torch

    tensor = tensor.detach()
    if tensor.dtype is torch.bfloat16:
        return Table(tensor.contiguous().view(torch.int16).numpy().view("uint16"))
    return Table((tensor if tensor.dtype in (torch.float32, torch.float16, torch.float64) else tensor.float()).numpy())


def table_in(path: Path, key: str) -> Table:
    """A matrix of a file of safetensors, mapped; of a type that numpy has not it is read, and made float32."""
    import numpy

    header = read_header(path)[key]
    if header.dtype not in AS_NUMPY:
        from safetensors.torch import load_file

        return table_of(load_file(path)[key])
    place = place_in(path, key)
    aside = place.start % mmap.ALLOCATIONGRANULARITY
    with path.open("rb") as file:  # private, as torch maps files: what is written to it is not seen by others
        whole = mmap.mmap(file.fileno(), aside + len(place), access=mmap.ACCESS_COPY, offset=place.start - aside)
    numbers = numpy.frombuffer(whole, AS_NUMPY[header.dtype], count=math.prod(header.shape), offset=aside)
    return Table(numbers.reshape(header.shape))


def place_in(path: Path, key: str) -> range:
    """Which bytes of a file of safetensors are those of a tensor."""
    begin, header = start_of(path), read_header(path)[key]
    return range(begin + header.start, begin + header.end)
