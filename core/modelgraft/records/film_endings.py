"""Whether a file of moving pictures is all there: what its beginning states against where it ends, without decoding."""

from __future__ import annotations

import os
from typing import IO

MOST_BOXES = 1_000  # of an MP4 at its top level
SLACK = 16  # bytes that writers count wrongly
SEGMENT = b"\x18\x53\x80\x67"  # what a Matroska or WebM file is, behind its header


def cut_of(stream: IO[bytes]) -> str:
    """Why a file is not whole, such as "is cut: ...", and go back to its beginning; "" when it is, or its kind is not known."""
    head = stream.read(16)
    size = stream.seek(0, os.SEEK_END)
    try:
        if head[:4] == b"GIF8":
            return _tail(stream, size, b";", "the mark of its end is missing")
        if head[:4] == b"\x89PNG":
            return _tail(stream, size, b"IEND\xaeB`\x82", "the mark of its end is missing")
        if head[:4] == b"RIFF":
            return _short(int.from_bytes(head[4:8], "little") + 8, size)
        if head[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"wide", b"skip"):
            return _boxes(stream, size)
        if head[:4] == b"\x1a\x45\xdf\xa3":
            return _segment(stream, size)
        return ""
    finally:
        stream.seek(0)


def _short(stated: int, size: int) -> str:
    return f"is cut: it says that it has {stated:,} bytes, and has {size:,}" if size + SLACK < stated else ""


def _tail(stream: IO[bytes], size: int, mark: bytes, found: str) -> str:
    """Look for the mark in the last bytes: some writers fill up behind it."""
    stream.seek(max(0, size - 1024))
    return "" if mark in stream.read().rstrip(b"\0")[-64 - len(mark) :] else f"is cut: {found}"


def _boxes(stream: IO[bytes], size: int) -> str:
    """Go from box to box of an MP4: the last must end where the file does, and one must be the table of contents."""
    place, names = 0, set[bytes]()
    for _ in range(MOST_BOXES):
        stream.seek(place)
        box = stream.read(16)
        if len(box) < 8:
            break
        length, name = int.from_bytes(box[:4], "big"), box[4:8]
        names.add(name)
        if length == 1:
            length = int.from_bytes(box[8:16], "big")
        if length == 0:  # to the end of the file
            break
        if place + length > size + SLACK:
            return _short(place + length, size)
        if length < 8:
            return f"is damaged: a box at byte {place:,} has {length} bytes"
        place += length
    return "" if names & {b"moov", b"moof"} else "is cut: its table of contents (moov) is missing"


def _segment(stream: IO[bytes], size: int) -> str:
    """What a Matroska file states of its segment; nothing where it was written into a pipe."""
    stream.seek(0)
    head = stream.read(4096)
    at = head.find(SEGMENT)
    if at < 0 or at + 12 > len(head):
        return ""
    first = head[at + 4]
    width = 9 - first.bit_length()
    stated = int.from_bytes(head[at + 4 : at + 4 + width], "big") & (1 << 7 * width) - 1
    return "" if stated == (1 << 7 * width) - 1 else _short(at + 4 + width + stated, size)
