"""What pieces of files come to: of a small file its CRC-32, of a large one what takes less than half the time of that.

A piece of a large file is looked at as rows of 8 kB. The exclusive or of the words of each row, and that of each column of words, is
brought to a CRC-32. A bit that turned changes one word of each, and so both; a run of 32 bits too, or two words that lie beside each
other; rows that were exchanged change their CRC-32, and so does a row, or several, that something else was written to. What it misses for
certain are equal changes at the four corners of a rectangle of rows and columns, which no disk makes by chance; of other damage it misses
less than a CRC-32 does. The first megabyte has a CRC-32, so that a look at the beginning of a file, where headers lie, needs no numpy.
"""

from __future__ import annotations

import zlib
from typing import Any

LARGE_BYTES = 4 << 20  # of a file: what has not more is looked at before numpy would be there
FIRST_BYTES = 1 << 20  # of the first piece of a large file
ROW_BYTES = 8 << 10
WORD_BYTES = 8


def pieces_of(size: int, piece_bytes: int, *, is_large: bool) -> list[range]:
    """The bytes of each piece of a file."""
    first = [range(min(FIRST_BYTES, size))] if is_large else []
    behind = range(len(first[0]) if first else 0, size, piece_bytes)
    return first + [range(start, min(start + piece_bytes, size)) for start in behind]


def sum_of(file: Any, place: range, room: int, *, is_large: bool) -> int:  # Any: an unbuffered file
    """What a piece comes to, which is read `room` bytes at a time; of fewer bytes where the file ends before."""
    file.seek(place.start)
    return _rows_and_columns(file, len(place), room) if is_large and place.start else _crc(file, len(place), room)


def _crc(file: Any, size: int, room: int) -> int:
    buffer, found = memoryview(bytearray(min(room, size))), 0
    while size > 0 and (read := file.readinto(buffer[:size])):
        found, size = zlib.crc32(buffer[:read], found), size - read
    return found


def _rows_and_columns(file: Any, size: int, room: int) -> int:
    """The CRC-32 of rows in the upper 32 bits, that of columns in the lower ones; behind the end of a piece are zeros."""
    import numpy

    whole = bytearray(max(1, min(room, size) // ROW_BYTES) * ROW_BYTES)
    buffer, words = memoryview(whole), numpy.frombuffer(whole, "<u8").reshape(-1, ROW_BYTES // WORD_BYTES)
    columns, found = numpy.zeros(words.shape[1], "<u8"), 0
    while size > 0 and (read := _filled(file, buffer[: min(size, len(buffer))])):
        count = -(-read // ROW_BYTES)
        buffer[read : count * ROW_BYTES] = bytes(count * ROW_BYTES - read)
        found = zlib.crc32(numpy.bitwise_xor.reduce(words[:count], axis=1).tobytes(), found)
        columns ^= numpy.bitwise_xor.reduce(words[:count], axis=0)
        size -= read
    return found << 32 | zlib.crc32(columns.tobytes())


def _filled(file: Any, buffer: memoryview) -> int:
    """Read until it is full, or the file ends; gives how many bytes there were."""
    there = 0
    while there < len(buffer) and (read := file.readinto(buffer[there:])):
        there += read
    return there
