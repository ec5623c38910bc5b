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

from modelgraft.kernel.words.errors import InputError
from modelgraft.kernel.words.ports import ListOf, Modality, Port, PortType, Tensor
from modelgraft.records.media import Audio, read_audio, read_picture
from modelgraft.records.opening import Say
from modelgraft.records.owning import own
from modelgraft.records.pictures import check_size, eight_bits, picture_of_array, upright
from modelgraft.records.sounds import checked_sound, sound_of_array
from modelgraft.records.telling import describe
from modelgraft.records.tensors import read_tensor, tensor_mismatch

__all__ = ["Audio", "Given", "describe", "present", "read_input", "spread", "tensor_mismatch"]


@dataclass(frozen=True, slots=True)
class Given:
    """An input as a batch.

    value   a list of records, or a tensor with `batch` first; what can be written to is a copy of what the user holds
    count   how many records it has
    single  the user gave one record, not a batch: it is repeated to match the other inputs
    said    what the user should know of values that are used, but not quite as they are
    """

    value: Any
    count: int
    single: bool
    said: tuple[str, ...] = ()


def read_input(name: str, port: Port, value: Any) -> Given:
    """Turn what the user gave for an input into a batch.

    Raises InputError with the input, what was found and what was wanted.
    """
    label = f"input '{name}'"
    kind = _choose(port, value)
    if isinstance(kind, Tensor):
        tensor = read_tensor(label, kind, value)
        count = int(tensor.shape[0]) if tensor.ndim else 1
        return Given(tensor, count, count == 1)
    read, said = _reader(kind), list[str]()
    if isinstance(value, list) and _is_batch(kind, value):
        if not value:
            raise InputError(f"{label}: the batch is empty; wanted: at least one {kind}")
        records = [read(record, f"{label}[{index}]", said.append) for index, record in enumerate(value)]
        return Given(records, len(value), False, tuple(said))
    return Given([read(value, label, said.append)], 1, True, tuple(said))


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


Reader = Callable[[Any, str, Say], Any]  # (what the user gave, what to call it, what takes remarks) -> a record


def _reader(kind: PortType) -> Reader:
    """The function that turns one user value into a record of this kind."""
    if isinstance(kind, ListOf):
        item = _reader(kind.item)
        return lambda value, label, say: _read_list(value, label, say, kind, item)
    assert isinstance(kind, Modality)
    return _READERS.get(kind.name, lambda value, label, say: own(value))  # noqa: ARG005 what a plugin's own record type is, it knows


def _read_list(value: Any, label: str, say: Say, kind: ListOf, item: Reader) -> list[Any]:
    if isinstance(value, str | bytes) or not isinstance(value, Sequence):
        raise InputError(f"{label}: found {describe(value)}, wanted {kind}: a list, such as [a, b]")
    return [item(entry, f"{label}[{index}]", say) for index, entry in enumerate(value)]


def _read_text(value: Any, label: str, _say: Say) -> str:
    if not isinstance(value, str):
        raise InputError(f"{label}: found {describe(value)}, wanted text: a string")
    return value


def _read_image(value: Any, label: str, say: Say) -> Any:
    """A picture as models take it: upright, 8 bits a channel."""
    return eight_bits(_read_raster(value, label, say), label, lambda text: say(f"{label}: {text}"))


def _read_raster(value: Any, label: str, say: Say) -> Any:
    """A picture upright, its numbers as they are: depths and temperatures are measures, not brightness."""
    if hasattr(value, "getbands"):  # a Pillow picture
        check_size(value, label)
        return upright(value, label)
    if isinstance(value, str | bytes | os.PathLike):
        return read_picture(value, name=label, say=lambda text: say(f"{label}: {text}"))
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return picture_of_array(value, label)
    raise InputError(f"{label}: found {describe(value)}, wanted an image: a file name, bytes, a Pillow picture or uint8[height width 3]")


def _read_sound(value: Any, label: str, say: Say) -> Audio:
    if isinstance(value, Audio):
        found: Audio = own(checked_sound(value, label))
        return found
    if isinstance(value, str | bytes | os.PathLike):
        return read_audio(value, name=label, say=lambda text: say(f"{label}: {text}"))
    if isinstance(value, tuple) and len(value) == 2 and hasattr(value[0], "shape"):
        return sound_of_array(value[0], value[1], label)
    raise InputError(f"{label}: found {describe(value)}, wanted audio: a file name, bytes, modelgraft.Audio or (samples, sample_rate_hz)")


def _read_conversation(value: Any, label: str, say: Say) -> tuple[dict[str, Any], ...]:
    """Check messages `{"role": ..., "content": text or parts}`; a string is one message of the user."""
    if isinstance(value, str):
        value = [{"role": "user", "content": value}]
    if not isinstance(value, Sequence) or isinstance(value, bytes) or not value:
        raise InputError(f"{label}: found {describe(value)}, wanted a conversation: a list of messages with role and content")
    return tuple(_read_message(message, f"{label} message {index}", say) for index, message in enumerate(value))


def _read_message(message: Any, label: str, say: Say) -> dict[str, Any]:
    if not isinstance(message, Mapping) or set(message) != {"role", "content"} or not isinstance(message["role"], str):
        raise InputError(f"{label}: found {describe(message)}, wanted a mapping of exactly `role` (text) and `content` (text or parts)")
    content = message["content"]
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    if not isinstance(parts, Sequence):
        raise InputError(f"{label}: content is {describe(content)}, wanted text or a list of parts")
    return {"role": message["role"], "content": [_read_part(part, f"{label} part {i}", say) for i, part in enumerate(parts)]}


def _read_part(part: Any, label: str, say: Say) -> dict[str, Any]:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind not in ("text", "image", "audio") or kind not in part:
        raise InputError(
            f"{label}: found {describe(part)}, wanted {{type: text, text: ...}}, {{type: image, image: ...}} or audio likewise"
        )
    if extra := sorted(map(str, set(part) - {"type", kind})):
        raise InputError(f"{label}: found {', '.join(extra)} beside type and {kind}, which nothing reads: leave it out")
    return {"type": kind, kind: _READERS[kind](part[kind], label, say)}


def _read_boxes(value: Any, label: str, _say: Say) -> list[dict[str, Any]]:
    corners = ("x0", "y0", "x1", "y1")
    if isinstance(value, str | bytes) or not isinstance(value, Sequence):
        raise InputError(f"{label}: found {describe(value)}, wanted boxes: a list of mappings with {', '.join(corners)}")
    for index, box in enumerate(value):
        if not isinstance(box, Mapping) or any(not isinstance(box.get(corner), int | float) for corner in corners):
            raise InputError(
                f"{label} box {index}: found {describe(box)}, wanted a mapping with the numbers {', '.join(corners)}, in pixels"
            )
    return [own(dict(box)) for box in value]


_READERS: Mapping[str, Reader] = {
    "text": _read_text,
    "label": _read_text,
    "image": _read_image,
    "depth": _read_raster,
    "thermal": _read_raster,
    "audio": _read_sound,
    "conversation": _read_conversation,
    "boxes": _read_boxes,
}
