"""Values at the edge of a graph: what a user gives becomes a batch of records, what a run gives becomes what a user gets.

Inside a run every modality port carries a list of records and every tensor has `batch` as its first axis. Here, and only
here, single values are told from batches: a Python list is a batch, except on a `list[...]` port, where a list is one
record and a list of lists a batch. One record is a batch of one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modelgraft.errors import InputError
from modelgraft.media import Audio, read_audio, read_picture
from modelgraft.ports import DTYPES, ListOf, Modality, Port, PortType, Tensor

__all__ = ["Audio", "Given", "describe", "present", "read_input", "spread"]


@dataclass(frozen=True, slots=True)
class Given:
    """An input as a batch.

    value   a list of records, or a tensor with `batch` first
    count   how many records it has
    single  the user gave one record, not a batch: it is repeated to match the other inputs
    """

    value: Any
    count: int
    single: bool


def read_input(name: str, port: Port, value: Any) -> Given:
    """Turn what the user gave for an input into a batch.

    Raises InputError with the input, what was found and what was wanted.
    """
    label = f"input '{name}'"
    kind = _choose(port, value)
    if isinstance(kind, Tensor):
        tensor = _read_tensor(label, kind, value)
        count = int(tensor.shape[0]) if tensor.ndim else 1
        return Given(tensor, count, count == 1)
    read = _reader(kind)
    if isinstance(value, list) and _is_batch(kind, value):
        if not value:
            raise InputError(f"{label}: the batch is empty; wanted: at least one {kind}")
        return Given([read(record, f"{label}[{index}]") for index, record in enumerate(value)], len(value), False)
    return Given([read(value, label)], 1, True)


def spread(given: Given, count: int) -> Any:
    """The value of a single record, repeated to a batch of `count`; a batch of that size stays as it is."""
    if given.count == count:
        return given.value
    if isinstance(given.value, list):
        return given.value * count
    return given.value.expand(count, *given.value.shape[1:])


def present(port: Port, value: Any, *, single: bool) -> Any:
    """What the user gets: tensors whole, with their batch axis; of one record the record itself, of a batch the list."""
    return value[0] if single and isinstance(value, list) and len(value) == 1 and not isinstance(port.type, Tensor) else value


def describe(value: Any) -> str:
    """Name a value in a message: `float32[2 257 1024]`, `a list of 3`, `'cat.png'`."""
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"{str(value.dtype).removeprefix('torch.')}[{' '.join(map(str, value.shape))}]"
    if isinstance(value, list | tuple):
        return f"a {type(value).__name__} of {len(value)}"
    if isinstance(value, str):
        return repr(value if len(value) <= 40 else value[:37] + "...")
    return f"a {type(value).__name__}" if not isinstance(value, bool | int | float | type(None)) else repr(value)


def _choose(port: Port, value: Any) -> PortType:
    """Which of the alternatives of an input the value is meant for."""
    if len(port.types) == 1:
        return port.types[0]
    is_array = hasattr(value, "shape") and hasattr(value, "dtype")
    return next((kind for kind in port.types if isinstance(kind, Tensor) == is_array), port.types[0])


def _is_batch(kind: PortType, value: list[Any]) -> bool:
    """Tell a batch from a record that is itself a list."""
    if isinstance(kind, ListOf):
        return bool(value) and all(isinstance(record, list | tuple) for record in value)
    if isinstance(kind, Modality) and kind.name in ("conversation", "boxes"):
        return bool(value) and all(isinstance(record, list | tuple) for record in value)
    return True


# -- records ------------------------------------------------------------------------------------------------------------


def _reader(kind: PortType) -> Callable[[Any, str], Any]:
    """The function that turns one user value into a record of this kind."""
    if isinstance(kind, ListOf):
        item = _reader(kind.item)
        return lambda value, label: _read_list(value, label, kind, item)
    assert isinstance(kind, Modality)
    return _READERS.get(kind.name, lambda value, label: value)  # noqa: ARG005 a plugin's own record type is handed on


def _read_list(value: Any, label: str, kind: ListOf, item: Callable[[Any, str], Any]) -> list[Any]:
    if isinstance(value, str | bytes) or not isinstance(value, Sequence):
        raise InputError(f"{label}: found {describe(value)}, wanted {kind}: a list, such as [a, b]")
    return [item(entry, f"{label}[{index}]") for index, entry in enumerate(value)]


def _read_text(value: Any, label: str) -> str:
    if not isinstance(value, str):
        raise InputError(f"{label}: found {describe(value)}, wanted text: a string")
    return value


def _read_image(value: Any, label: str) -> Any:
    if hasattr(value, "getbands"):  # a Pillow picture
        return value
    if isinstance(value, str | bytes | os.PathLike):
        return read_picture(value, name=label)
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return _picture_of_array(value, label)
    raise InputError(f"{label}: found {describe(value)}, wanted an image: a file name, bytes, a Pillow picture or uint8[height width 3]")


def _picture_of_array(value: Any, label: str) -> Any:
    import numpy
    from PIL import Image

    array = numpy.asarray(value)
    fits = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))
    if array.dtype != numpy.uint8 or not fits or 0 in array.shape:
        raise InputError(f"{label}: found {describe(value)}, wanted uint8[height width], uint8[height width 3] or uint8[height width 4]")
    return Image.fromarray(array)


def _read_sound(value: Any, label: str) -> Audio:
    import numpy

    if isinstance(value, Audio):
        if value.samples.ndim != 2 or value.samples.shape[1] == 0 or value.samples.dtype != numpy.float32 or value.sample_rate_hz <= 0:
            found = f"samples {describe(value.samples)} at {value.sample_rate_hz} Hz"
            raise InputError(f"{label}: found {found}, wanted samples float32[channels frames] with at least one frame")
        return value
    if isinstance(value, str | bytes | os.PathLike):
        return read_audio(value, name=label)
    if isinstance(value, tuple) and len(value) == 2 and hasattr(value[0], "shape"):
        samples = numpy.atleast_2d(numpy.asarray(value[0], dtype=numpy.float32))
        return _read_sound(Audio(samples, int(value[1])), label)
    raise InputError(f"{label}: found {describe(value)}, wanted audio: a file name, bytes, modelgraft.Audio or (samples, sample_rate_hz)")


def _read_conversation(value: Any, label: str) -> tuple[dict[str, Any], ...]:
    """Check messages `{"role": ..., "content": text or parts}`; a string is one message of the user."""
    if isinstance(value, str):
        value = [{"role": "user", "content": value}]
    if not isinstance(value, Sequence) or isinstance(value, bytes) or not value:
        raise InputError(f"{label}: found {describe(value)}, wanted a conversation: a list of messages with role and content")
    return tuple(_read_message(message, f"{label} message {index}") for index, message in enumerate(value))


def _read_message(message: Any, label: str) -> dict[str, Any]:
    if not isinstance(message, Mapping) or set(message) != {"role", "content"} or not isinstance(message["role"], str):
        raise InputError(f"{label}: found {describe(message)}, wanted a mapping of exactly `role` (text) and `content` (text or parts)")
    content = message["content"]
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    if not isinstance(parts, Sequence):
        raise InputError(f"{label}: content is {describe(content)}, wanted text or a list of parts")
    return {"role": message["role"], "content": [_read_part(part, f"{label} part {i}") for i, part in enumerate(parts)]}


def _read_part(part: Any, label: str) -> dict[str, Any]:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind not in ("text", "image", "audio") or kind not in part:
        raise InputError(
            f"{label}: found {describe(part)}, wanted {{type: text, text: ...}}, {{type: image, image: ...}} or audio likewise"
        )
    return {"type": kind, kind: _READERS[kind](part[kind], label)}


def _read_boxes(value: Any, label: str) -> list[dict[str, Any]]:
    corners = ("x0", "y0", "x1", "y1")
    if isinstance(value, str | bytes) or not isinstance(value, Sequence):
        raise InputError(f"{label}: found {describe(value)}, wanted boxes: a list of mappings with {', '.join(corners)}")
    for index, box in enumerate(value):
        if not isinstance(box, Mapping) or any(not isinstance(box.get(corner), int | float) for corner in corners):
            raise InputError(
                f"{label} box {index}: found {describe(box)}, wanted a mapping with the numbers {', '.join(corners)}, in pixels"
            )
    return [dict(box) for box in value]


_READERS: Mapping[str, Callable[[Any, str], Any]] = {
    "text": _read_text,
    "label": _read_text,
    "image": _read_image,
    "depth": _read_image,
    "thermal": _read_image,
    "audio": _read_sound,
    "conversation": _read_conversation,
    "boxes": _read_boxes,
}


# -- tensors ------------------------------------------------------------------------------------------------------------


def _read_tensor(label: str, kind: Tensor, value: Any) -> Any:
    """Take a tensor, an array or nested lists of numbers; the dtype is checked, never changed."""
    import numpy
    import torch

    if isinstance(value, numpy.ndarray):
        value = _tensor_of_array(value)
    elif isinstance(value, list | tuple | bool | int | float):
        try:
            value = torch.tensor(value)
        except (TypeError, ValueError, RuntimeError) as error:
            raise InputError(f"{label}: found {describe(value)}, wanted numbers for {kind}: {error}") from error
    if not isinstance(value, torch.Tensor):
        raise InputError(f"{label}: found {describe(value)}, wanted {kind}: a tensor, an array or lists of numbers")
    wrong = tensor_mismatch(kind, value)
    if wrong:
        raise InputError(f"{label}: found {describe(value)}, wanted {kind}: {wrong}")
    return value


def _tensor_of_array(array: Any) -> Any:
    """Share the memory of an array; a read-only or non-native one is copied, because torch cannot hold it."""
    import numpy
    import torch

    if not array.flags.writeable or not array.dtype.isnative or any(stride < 0 for stride in array.strides):
        array = numpy.array(array, dtype=array.dtype.newbyteorder("="))
    return torch.from_numpy(array)


def tensor_mismatch(kind: Tensor, value: Any) -> str:
    """Say in a few words why a tensor is not of this type, or give an empty string when it is."""
    dtype = str(value.dtype).removeprefix("torch.")
    if dtype not in DTYPES[kind.dtype]:
        return f"the dtype is {dtype}, not {' or '.join(sorted(DTYPES[kind.dtype]))}"
    fixed = [axis for axis in kind.axes if axis is not None]
    if value.ndim != len(fixed) and (len(fixed) == len(kind.axes) or value.ndim < len(fixed)):
        return f"it has {value.ndim} axes, not {len(fixed)}"
    if len(fixed) != len(kind.axes):
        return ""
    wrong = [(axis, size) for axis, size in zip(fixed, value.shape, strict=True) if axis.size not in (None, size)]
    return f"an axis is {wrong[0][1]} long, not {wrong[0][0]}" if wrong else ""
