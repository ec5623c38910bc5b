"""Arrays: from files, bytes, pictures, tensors and lists, with what is told beside them; and the ways between arrays and tensors.

What an exported graph takes and gives on the host may be an array of numpy or a tensor of torch: the two stand for each other without
a copy, and importing torch takes longer than the answer of a small model.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, TypeAlias

from modelgraft.kernel.words.errors import InputError, choices, nearest
from modelgraft.records.opening import open_named, reason
from modelgraft.records.owning import is_array, is_tensor
from modelgraft.records.tensor_files import read_json, read_npy

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image
    from torch import Tensor

    from modelgraft.records.record_type import Reading

    Array: TypeAlias = Tensor | NDArray[Any]
else:
    Array = Any

NPY = b"\x93NUMPY"
ARRAY_VALUES = 345_600_000  # as many as a sound may have: 1.4 GB of float32
TEXT_BYTES = 64 * 2**20  # of numbers as text, which take about ten letters each


@dataclass(frozen=True, slots=True)
class Told:
    """A value with what a user tells of it: `{"file": "wall.png", "unit": "mm"}`; a value alone has nothing beside it."""

    value: Any
    facts: Mapping[str, Any]


def as_tensor(value: Any) -> Any:
    """An array as a tensor on the same memory, which nobody may write to where the array may not be written to; all else as it is.

    One whose steps torch does not know is copied: those that run backwards, and those of a field among others.
    """
    if not is_array(value):
        return value
    import numpy
    import torch

    if any(step < 0 or step % value.itemsize for step in value.strides):
        value = value.copy()
    if is_bfloat16 := _is_bfloat16(value):
        value = value.view(numpy.int16)
    found = torch.from_numpy(value if value.flags.writeable else numpy.asarray(_Unguarded(value)))
    return found.view(torch.bfloat16) if is_bfloat16 else found


def as_array(value: Any) -> Any:
    """A tensor on the host as an array on the same memory; bfloat16, which numpy has not, as float32. All else as it is."""
    if not is_tensor(value):
        return value.astype("float32") if is_array(value) and _is_bfloat16(value) else value
    value = value.detach().resolve_conj().resolve_neg()
    return value.float().numpy() if str(value.dtype) == "torch.bfloat16" else value.numpy()


def _is_bfloat16(array: NDArray[Any]) -> bool:
    """Whether an array is of bfloat16, which ml_dtypes adds to numpy's types: torch has it as well, and takes it of no array."""
    return array.dtype.kind == "V" and array.dtype.name == "bfloat16"


def in_kind_of(array: NDArray[Any], like: Array) -> Any:
    """An array as it is where `like` is one, else a tensor of it, where that tensor lies."""
    return as_tensor(array).to(like.device) if is_tensor(like) else array


def on_host(value: Any) -> bool:
    """Whether an array or a tensor lies where numpy reads it."""
    return not is_tensor(value) or value.device.type == "cpu"


class _Unguarded:
    """The memory of an array that may not be written to, such as that of a mapped file: torch warns of it, and knows no such tensors."""

    def __init__(self, array: NDArray[Any]) -> None:
        self.array = array  # it lives as long as what is made of this
        found = dict(array.__array_interface__)
        self.__array_interface__ = {**found, "data": (found["data"][0], False)}


def told(value: Any, reading: Reading, *, key: str, known: tuple[str, ...]) -> Told:
    """Take apart a mapping with `file`, or with the numbers under `key`, and the facts that are known. Raises InputError for others."""
    if not isinstance(value, Mapping):
        return Told(value, {})
    holders = [name for name in ("file", key) if name in value]
    if len(holders) != 1:
        raise reading.refused(value, f"a mapping with `file` or `{key}`, and beside it {choices(known)}")
    facts = {name: fact for name, fact in value.items() if name != holders[0]}
    for name in facts:
        if name not in known:
            near = nearest(str(name), known)
            raise InputError(f"{reading.label}: found '{name}' beside {holders[0]}; wanted: {choices(known)}. {near}".rstrip())
    return Told(value[holders[0]], facts)


def number_of(facts: Mapping[str, Any], name: str, reading: Reading) -> float | None:
    """A fact that is a number above 0; None when it is not told."""
    if (found := facts.get(name)) is None:
        return None
    if isinstance(found, bool) or not isinstance(found, int | float) or not 0 < found < float("inf"):
        raise InputError(f"{reading.label}: {name} is {found!r}; wanted: a number above 0")
    return float(found)


def is_source(value: Any) -> bool:
    """Whether a value is a file: its name, or what is in it."""
    return isinstance(value, str | os.PathLike | bytes | bytearray | memoryview)


def array_of(value: Any, reading: Reading, wanted: str) -> Any:
    """A copy of an array, a tensor or nested lists of numbers, as numpy has it. Raises InputError for what is none."""
    import numpy

    if is_tensor(value):
        value = as_array(value.cpu())
    if isinstance(value, numpy.ma.MaskedArray):
        raise InputError(f"{reading.label}: found a masked array, wanted {wanted}: fill what is masked first, array.filled(0)")
    if not isinstance(value, numpy.ndarray | list | tuple):
        raise reading.refused(value, wanted)
    try:
        array = numpy.array(value, order="C")
    except (ValueError, OverflowError, RecursionError) as error:  # lists of unlike length
        raise InputError(f"{reading.label}: found lists that are no array ({reason(error)}), wanted {wanted}") from error
    if array.dtype.kind not in "biuf":
        raise reading.refused(array, wanted)
    if array.size > ARRAY_VALUES:
        raise InputError(f"{reading.label}: {array.size:,} numbers, more than {ARRAY_VALUES:,} are not held at once: cut it into pieces")
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def array_or_picture(value: Any, reading: Reading, wanted: str) -> tuple[Any, Image | None]:
    """An array as it is, or the picture that a file holds: of what a user gives, whichever it is.

    Raises InputError for what is neither, and as the readers of files do.
    """
    from modelgraft.records import pictures

    if hasattr(value, "getbands"):
        return None, pictures.raster_of(value, reading, wanted)
    if not is_source(value):
        return array_of(value, reading, wanted), None
    label, stream = open_named(value, name=reading.label, wanted=wanted, find=reading.find)
    with stream:
        if stream.read(len(NPY)) == NPY:
            return npy_in(stream, f"{reading.label}: {label}"), None
        stream.seek(0)
        return None, pictures.picture_in(stream, name=reading.label, label=label, say=reading.tell)


def npy_in(stream: IO[bytes], label: str) -> Any:
    """The array in a stream of the .npy format. Raises InputError that begins with the label."""
    stream.seek(0)
    try:
        found = read_npy(stream)
    except (OSError, ValueError, EOFError, MemoryError) as error:
        raise InputError(f"{label} cannot be read as an array: {reason(error)}") from error
    if found.size > ARRAY_VALUES:
        raise InputError(f"{label} has {found.size:,} numbers, more than {ARRAY_VALUES:,} are not held at once: cut it into pieces")
    return found.astype(found.dtype.newbyteorder("="), copy=False)


def text_in(stream: IO[bytes], label: str) -> str:
    """The text in a stream. Raises InputError for what is too long or none."""
    stream.seek(0)
    content = stream.read(TEXT_BYTES + 1)
    if len(content) > TEXT_BYTES:
        raise InputError(f"{label} has more than {TEXT_BYTES:,} bytes of text; save it as .npy")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{label} is no text: byte {error.start} is {content[error.start]:#04x}") from error


def json_in(stream: IO[bytes], label: str) -> Any:
    """The JSON in a stream. Raises InputError for what is none."""
    try:
        return read_json(text_in(stream, label))
    except ValueError as error:
        raise InputError(f"{label} is no JSON: {error}") from error


def grey_png(array: Any, longest: int = 512) -> bytes:
    """A picture of measures for a page: the least is black, the most white, what is no number black too."""
    import io

    import numpy
    from PIL import Image

    there = numpy.isfinite(array)
    low, high = (float(array[there].min()), float(array[there].max())) if there.any() else (0.0, 1.0)
    scaled = (numpy.where(there, array, low) - low) / ((high - low) or 1.0) * 255.0
    picture, stream = Image.fromarray(scaled.round().astype(numpy.uint8)), io.BytesIO()
    picture.thumbnail((longest, longest))
    picture.save(stream, "PNG")
    return stream.getvalue()
