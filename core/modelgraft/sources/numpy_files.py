"""Arrays of numpy in an archive, as `numpy.savez` writes them and Flax's published weights come: `.npz`.

Shapes are read without numpy from the headers of the members (numpy.lib.format, versions 1 to 3); tensors with it, pickles never.
"""

from __future__ import annotations

import ast
import struct
import zipfile
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from modelgraft.sources.headers import ITEM_BYTES, MOST_TENSORS, TensorHeader, damaged

if TYPE_CHECKING:
    from torch import Tensor

MAGIC = b"\x93NUMPY"
MOST_HEADER_BYTES = 1 << 16
AS_NUMPY: Mapping[str, str] = {  # as numpy writes them, the byte order left out -> as safetensors does
    "f4": "F32", "f8": "F64", "f2": "F16", "i8": "I64", "i4": "I32", "i2": "I16", "i1": "I8", "u1": "U8", "b1": "BOOL",
    "V2": "BF16",  # numpy has no bfloat16: jax writes it as two bytes of nothing
}  # fmt: skip


def look(path: Path) -> Mapping[str, TensorHeader]:
    """The header of every array by name. Raises SourceError `source-damaged`."""
    stat = path.stat()
    return _look(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=64)
def _look(path: Path, _size: int, _changed: int) -> Mapping[str, TensorHeader]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.endswith(".npy")]
            if len(names) > MOST_TENSORS:
                raise ValueError(f"it holds more than {MOST_TENSORS:,} arrays")
            return {name.removesuffix(".npy"): _header(archive.open(name), name) for name in names}
    except (zipfile.BadZipFile, ValueError, KeyError, EOFError, struct.error, SyntaxError, NotImplementedError, RuntimeError) as error:
        raise damaged(path, f"cannot be read as arrays of numpy: {error}") from error


def _header(member: IO[bytes], name: str) -> TensorHeader:
    with member:
        start = member.read(10)
        if not start.startswith(MAGIC):
            raise ValueError(f"its member {name} is no array")
        length = struct.unpack("<H", start[8:])[0] if start[6] == 1 else struct.unpack("<I", start[8:] + member.read(2))[0]
        if length > MOST_HEADER_BYTES:
            raise ValueError(f"the header of its member {name} has {length:,} bytes")
        said = ast.literal_eval(member.read(length).decode("latin1").strip())
    kind = str(said["descr"]).lstrip("<>|=")
    if kind not in AS_NUMPY:
        raise ValueError(f"its member {name} holds {said['descr']!r}, which are no numbers of a model")
    shape, count = tuple(int(size) for size in said["shape"]), 1
    for size in shape:
        count *= size
    return TensorHeader(AS_NUMPY[kind], shape, 0, count * ITEM_BYTES[AS_NUMPY[kind]])


def readers(path: Path) -> dict[str, Callable[[str], Tensor]]:
    """What reads each array by its name, as it is asked for."""
    headers = look(path)

    def read(name: str) -> Tensor:
        import numpy
        import torch

        try:
            with numpy.load(path, allow_pickle=False) as archive:
                found: Any = archive[name]
        except (ValueError, zipfile.BadZipFile, EOFError, OSError) as error:
            raise damaged(path, f"its array {name} cannot be read: {error}") from error
        if headers[name].dtype == "BF16":
            return torch.from_numpy(found.view("int16").copy()).view(torch.bfloat16)
        return torch.from_numpy(numpy.ascontiguousarray(found.astype(found.dtype.newbyteorder("="), copy=False))).reshape(found.shape)

    return dict.fromkeys(headers, read)
