"""What a value is, as bytes: digests for cache keys, and sizes for cache limits. An unknown type has neither."""

from __future__ import annotations

import hashlib
import struct
import sys
from collections.abc import Callable, Iterable
from typing import Any

from modelgraft.records.owning import is_array, is_picture, is_tensor
from modelgraft.records.record import Record

PIXEL_BYTES = {"1": 1, "L": 1, "P": 1, "LA": 2, "RGB": 3, "RGBA": 4, "CMYK": 4, "YCbCr": 3, "LAB": 3, "HSV": 3, "I;16": 2, "I": 4, "F": 4}

Feed = Callable[[bytes], None]


class Unknown(TypeError):
    """A value of a type that has no digest."""


def digest(value: Any) -> str | None:
    """A hex digest that two values share only when they are equal in type and content; None for an unknown type."""
    state = hashlib.blake2b(digest_size=20)
    try:
        _feed(value, state.update)
    except (Unknown, RecursionError):
        return None
    return state.hexdigest()


def combine(*parts: str) -> str:
    """One digest of several texts."""
    state = hashlib.blake2b(digest_size=20)
    for part in parts:
        _feed(part, state.update)
    return state.hexdigest()


def _feed(value: Any, feed: Feed) -> None:
    kind = type(value)
    if value is None or kind in (bool, int):
        _tagged(feed, "number", repr(value).encode())
    elif kind is float:
        _tagged(feed, "float", struct.pack("<d", value))
    elif kind is str:
        _tagged(feed, "text", value.encode("utf-8", "surrogatepass"))
    elif kind is bytes:
        _tagged(feed, "bytes", value)
    elif kind in (list, tuple):
        _tagged(feed, f"{kind.__name__} {len(value)}", b"")
        _feed_all(value, feed)
    elif kind is dict:
        _tagged(feed, f"dict {len(value)}", b"")
        _feed_all((part for pair in value.items() for part in pair), feed)
    elif isinstance(value, Record):
        _tagged(feed, f"record {kind.__module__}.{kind.__qualname__}", b"")
        _feed(value.parts(), feed)
    else:
        _feed_block(value, feed)


def _feed_all(values: Iterable[Any], feed: Feed) -> None:
    for value in values:
        _feed(value, feed)


def _feed_block(value: Any, feed: Feed) -> None:
    """Feed a tensor, an array or a picture."""
    if is_tensor(value):
        import torch

        plain = value.detach().to("cpu").contiguous()
        _tagged(
            feed, f"tensor {value.dtype} {tuple(value.shape)}", plain.reshape(-1).view(torch.uint8).numpy().data if plain.numel() else b""
        )
    elif is_array(value) and value.dtype.kind in "biufc":
        import numpy

        _tagged(feed, f"array {value.dtype.str} {value.shape}", numpy.ascontiguousarray(value).tobytes())
    elif is_picture(value):
        _tagged(feed, f"picture {value.mode} {value.size}", value.tobytes())
        _feed(value.getpalette(), feed)
    else:
        raise Unknown(type(value).__name__)


def _tagged(feed: Feed, tag: str, content: Any) -> None:
    """Feed a tag and a content, with their lengths, so that no two sequences run together alike."""
    head = tag.encode()
    feed(struct.pack("<QQ", len(head), len(content)))
    feed(head)
    feed(content)


def size_bytes(value: Any) -> int | None:
    """The memory that a value holds, roughly; None when it holds something of an unknown type."""
    if value is None or isinstance(value, bool | int | float | str | bytes):
        return sys.getsizeof(value)
    if isinstance(value, list | tuple):
        return _sum(value)
    if isinstance(value, dict):
        return _sum(part for pair in value.items() for part in pair)
    if isinstance(value, Record):
        return _sum(value.parts().values())
    if is_tensor(value) or is_array(value):
        return int(value.nbytes)
    return int(value.width * value.height * PIXEL_BYTES.get(value.mode, 4)) if is_picture(value) else None


def _sum(values: Iterable[Any]) -> int | None:
    total = 64  # the container itself
    for value in values:
        size = size_bytes(value)
        if size is None:
            return None
        total += size
    return total
