"""What a safetensors file says about its tensors, read without numpy and without trusting the file.

The header is 8 bytes of length (little endian), then that many bytes of JSON: {name: {dtype, shape, data_offsets}}.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from modelgraft.kernel.words.errors import Problem, SourceError

MOST_HEADER_BYTES = 100_000_000  # the limit of the safetensors format itself
MOST_TENSORS = 500_000  # of one file: five times those of the largest model of experts
MOST_AXES = 64  # as torch has
COMMAS = 16  # of an entry, at most: what has more is a list without end
LARGEST = 1 << 63  # above every size and offset
ITEM_BYTES: Mapping[str, int] = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0"), 1),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 2),
    **dict.fromkeys(("U32", "I32", "F32"), 4),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 8),
}


@dataclass(frozen=True, slots=True)
class TensorHeader:
    """One tensor in a file; `start` and `end` count from the end of the header."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def damaged(path: Path, found: str, *, hint: str = "fetch or copy the file again, and compare its size with the original") -> SourceError:
    """The error of a file that is not what its name promises."""
    return SourceError(Problem("source-damaged", f"{path}: {found}", hint=hint))


def read_header(path: Path) -> Mapping[str, TensorHeader]:
    """Read and check the header of a safetensors file.

    Raises SourceError `source-damaged` with what the header wants and what the file has.
    """
    try:
        stat = path.stat()
        return _read_header(path, stat.st_size, stat.st_mtime_ns)
    except OSError as error:
        raise SourceError(Problem("source-not-found", f"{path}: {error.strerror or error}")) from error


@lru_cache(maxsize=256)
def _read_header(path: Path, size: int, _changed: int) -> Mapping[str, TensorHeader]:
    if size < 8:
        raise damaged(path, f"has {size} bytes; a safetensors file has at least 8")
    text = _text(path, size)
    headers = {name: _entry(path, name, entry) for name, entry in _listed(path, text).items()}
    _refuse_gaps(path, headers, size - 8 - len(text))
    return headers


def _text(path: Path, size: int) -> bytes:
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        if length > min(MOST_HEADER_BYTES, size - 8):
            raise damaged(path, f"is no safetensors file or is cut: its header claims {length} bytes, the file has {size} in all")
        return file.read(length)


def start_of(path: Path) -> int:
    """The byte at which the tensors of a safetensors file begin, of one whose header was read."""
    with path.open("rb") as file:
        return 8 + int.from_bytes(file.read(8), "little")


def read_about(path: Path) -> Mapping[str, str]:
    """What a header says beside its tensors: texts by their name. Empty for a file that has none, or is no safetensors file."""
    try:
        size = path.stat().st_size
        found = json.loads(_text(path, size)).get("__metadata__", {}) if size >= 8 else {}
    except (OSError, ValueError, AttributeError, RecursionError, SourceError):
        return {}
    return found if isinstance(found, dict) else {}


def _listed(path: Path, text: bytes) -> dict[str, Any]:
    """The entries of a header by name, those of the format itself left out."""
    if text.count(b'"data_offsets"') > MOST_TENSORS or text.count(b",") > COMMAS * MOST_TENSORS:
        raise damaged(path, f"lists more than {MOST_TENSORS:,} tensors")
    try:
        listed = json.loads(text, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        said = str(error).partition("\n")[0]
        raise damaged(path, f"is no safetensors file: its header is not JSON: {said}") from error
    if not isinstance(listed, dict):
        raise damaged(path, "is no safetensors file: its header is not a JSON object")
    about = listed.pop("__metadata__", {})
    if not isinstance(about, dict) or not all(isinstance(value, str) for value in about.values()):
        raise damaged(path, "has a __metadata__ that is no mapping of texts")
    return listed


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"'{next(name for name in names if names.count(name) > 1)}' stands there twice")
    return found


def _entry(path: Path, name: str, entry: Any) -> TensorHeader:
    try:
        dtype, shape, (start, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
    except (TypeError, KeyError, ValueError) as error:
        raise damaged(path, f"has a header without dtype, shape or data_offsets for '{name}'") from error
    if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
        raise damaged(
            path,
            f"gives '{name}' the dtype {_shown(dtype) if isinstance(dtype, list | dict) else repr(dtype)}, which safetensors does not have",
        )
    if not isinstance(shape, list) or len(shape) > MOST_AXES:
        raise damaged(path, f"gives '{name}' the shape {_shown(shape)}, wanted a list of at most {MOST_AXES} sizes")
    if any(type(number) is not int or not 0 <= number < LARGEST for number in (*shape, start, end)):
        raise damaged(path, f"gives '{name}' sizes or offsets that are not natural numbers: {_shown(shape)}, {_shown([start, end])}")
    wanted = math.prod(shape) * ITEM_BYTES[dtype]
    if end - start != wanted:
        raise damaged(
            path, f"gives '{name}' {end - start} bytes, but {dtype}{_shown(shape)} takes {wanted if wanted < LARGEST else 'more'}"
        )
    return TensorHeader(dtype, tuple(shape), start, end)


def _shown(value: Any) -> str:
    """What a file holds, in a message: the beginning of it, when it is long."""
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _refuse_gaps(path: Path, headers: Mapping[str, TensorHeader], present: int) -> None:
    """Tensors must follow each other without gap or overlap and fill the file."""
    reached = 0
    for name, header in sorted(headers.items(), key=lambda item: (item[1].start, item[1].end)):
        if header.start != reached:
            raise damaged(path, f"places '{name}' at byte {header.start} where {reached} is expected: tensors overlap or leave a gap")
        reached = header.end
    if reached > present:
        raise damaged(path, f"is cut short: its header describes {reached} bytes of tensors, the file has {present}")
    if reached < present:
        raise damaged(path, f"has {present - reached} bytes that its header does not describe")
