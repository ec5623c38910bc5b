"""Files that a user names: opened by name, bounded in size, and told of in one sentence when they cannot be."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO

from modelgraft.kernel.words.errors import InputError, nearest
from modelgraft.records.homes import home_read

FILE_BYTES = 2**30  # 1 GiB: more than any picture or sound within the limits below takes, save uncompressed ones that exceed them

Say = Callable[[str], None]  # takes what a user should know of a value that is used, but not quite as it is
FindFile = Callable[[str], Path]  # gives the place of what a user names
FileOrBytes = str | os.PathLike[str] | bytes  # the name of a file, or what is in it


def silent(_text: str) -> None:
    """Say nothing: nobody listens."""


def plain_path(text: str) -> Path:
    """The file of a name, `~` read as the home."""
    return home_read(text)


def open_named(source: FileOrBytes, *, name: str, wanted: str, find: FindFile = plain_path) -> tuple[str, IO[bytes]]:
    """Open bytes or a file, and give what to call it. A pipe is read to its end.

    find  gives the place of the file that is named: who knows of archives finds those in them

    Raises InputError for no such file, one that cannot be read, one of more than FILE_BYTES.
    """
    if isinstance(source, bytes | bytearray | memoryview):
        return f"{len(source):,} bytes", io.BytesIO(bytes(source))
    if not (text := os.fspath(source)):
        raise InputError(f"{name}: found nothing, wanted the file of {wanted}")
    try:
        return f"'{text}'", _bounded(find(text).open("rb"), text, name)
    except FileNotFoundError as error:
        if "://" in text:
            raise InputError(f"{name}: '{text}' is an address, and nothing is fetched from one; wanted: the file of {wanted}") from error
        place = plain_path(text)
        if place.is_symlink():
            raise InputError(f"{name}: '{text}' is a link to '{place.readlink()}', which is not there; wanted: {wanted}") from error
        near = nearest(place.name, _siblings(place), before=text.removesuffix(place.name))
        raise InputError(f"{name}: there is no file '{text}'; wanted: {wanted}. {near}".rstrip()) from error
    except (OSError, ValueError, RuntimeError) as error:  # a NUL in the name is a ValueError, no home folder a RuntimeError
        raise InputError(
            f"{name}: '{text}' cannot be read ({getattr(error, 'strerror', None) or error}); wanted: the file of {wanted}"
        ) from error


def _bounded(stream: IO[bytes], text: str, name: str) -> IO[bytes]:
    """The stream itself, or what a pipe gave, in memory."""
    if not stream.seekable():
        with stream:
            content = stream.read(FILE_BYTES + 1)
        stream = io.BytesIO(content)
    size = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    if size > FILE_BYTES:
        stream.close()
        raise InputError(f"{name}: '{text}' has {size:,} bytes, more than {FILE_BYTES:,}; make it smaller first")
    return stream


def _siblings(path: Path) -> list[str]:
    try:
        return [entry.name for entry in path.parent.iterdir()]
    except OSError:
        return []


def unreadable(stream: IO[bytes], why: str) -> str:
    """Why a stream could not be read: that nothing is in it, or else what a decoder said."""
    return why if stream.seek(0, os.SEEK_END) else "it is empty"


def reason(error: BaseException) -> str:
    """The first line of a foreign message, without the addresses of objects."""
    text = (str(error).strip().partition("\n")[0] or type(error).__name__).partition(" <_io.")[0]
    return text[:160].rstrip(" :'\"")
