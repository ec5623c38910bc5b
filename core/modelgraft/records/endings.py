"""Whether a file of sound is all there: its end against what its beginning states, without decoding.

Decoders take what is left of a cut OGG or MP3 as the whole, and a wav that was written into a pipe as an empty one.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from typing import IO

SLACK = 16  # bytes that writers count wrongly: their own header, or the last one of an odd length
OPEN_END = 0x7FFF0000  # what is written into a pipe states the most that there can be, because its end is not known
MOST_CHUNKS = 1_000  # of a wav, before its data
OGG_PAGE = 65_307  # the longest page: 27 + 255 + 255 * 255 bytes
OGG_LAST = 4  # the flag of the last page of a stream

# of MPEG audio: kilobits by index, by (version 1, layer); hertz by index, by version bits
_RATES = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_KILOBITS = {
    (True, 1): tuple(32 * index for index in range(15)),
    (True, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): _RATES,
    (False, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_HERTZ = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}


@dataclass(frozen=True, slots=True)
class Ending:
    """How a file ends.

    refused  why it is not to be read, such as "is cut: ..."; "" when it is
    odd      what is out of order though all can be heard; "" when nothing is
    patched  the content with the length that it has; None: it is to be read as it is
    """

    refused: str = ""
    odd: str = ""
    patched: bytes | None = None


WHOLE = Ending()


def look(stream: IO[bytes]) -> Ending:
    """Look at a file of any kind, and go back to its beginning; of an unknown kind nothing is said."""
    head = stream.read(44)
    size = stream.seek(0, os.SEEK_END)
    try:
        if head[:4] in (b"RIFF", b"RF64") and head[8:12] == b"WAVE":
            return _wave(stream, head, size)
        stated = _caf_bytes(stream, size) if head[:4] == b"caff" else _stated_bytes(head)
        if size + SLACK < stated < 2**63:
            return _short(stated, size)
        if head[:4] == b"OggS":
            return _ogg(stream, size)
        return _mpeg(stream, head, size)
    finally:
        stream.seek(0)


def _short(stated: int, size: int) -> Ending:
    return Ending(refused=f"is cut: it says that it has {stated:,} bytes, and has {size:,}")


def _stated_bytes(head: bytes) -> int:
    """The bytes that an AIFF, AU or W64 file says it has; 0 when it is none of them or does not say."""
    if head[:4] == b"FORM" and len(head) >= 12:
        return int.from_bytes(head[4:8], "big") + 8
    if head[:4] == b".snd" and len(head) >= 12:
        start, length = struct.unpack(">II", head[4:12])
        return 0 if length >= OPEN_END else int(start + length)
    if head[:4] == b"riff" and len(head) >= 24:
        return int.from_bytes(head[16:24], "little")
    return 0


def _caf_bytes(stream: IO[bytes], size: int) -> int:
    """Where the data of a CAF file end, as it says; 0 when it does not say."""
    place = 8
    for _ in range(MOST_CHUNKS):
        stream.seek(place)
        chunk = stream.read(12)
        if len(chunk) < 12 or place >= size:
            return 0
        place += 12 + (length := int.from_bytes(chunk[4:], "big", signed=True))
        if chunk[:4] == b"data" or length < 0:
            return place if length >= 0 else 0
    return 0


# -- wav ----------------------------------------------------------------------------------------------------------------


def _wave(stream: IO[bytes], head: bytes, size: int) -> Ending:
    whole = int.from_bytes(head[4:8], "little") + 8
    start, stated = _data_chunk(stream, size)
    present = size - start
    if head[:4] == b"RF64" and stated == 0xFFFF_FFFF and head[12:16] == b"ds64":
        stated = int.from_bytes(head[28:36], "little")
        return _short(start + stated, size) if stated > present + SLACK else WHOLE
    is_open = start and (
        (stated >= OPEN_END and stated > present) or (stated == 0 and present > SLACK and not _is_chunk(stream, start, size))
    )
    if is_open:
        return _open_ended(stream, start, present)
    if start and stated > present + SLACK:
        return _short(start + stated, size)
    return _short(whole, size) if size + SLACK < whole < OPEN_END else WHOLE


def _data_chunk(stream: IO[bytes], size: int) -> tuple[int, int]:
    """Where the samples of a wav begin, and how many bytes they are said to be; (0, 0) when there are none."""
    place = 12
    for _ in range(MOST_CHUNKS):
        stream.seek(place)
        chunk = stream.read(8)
        if len(chunk) < 8 or place >= size:
            return 0, 0
        length = int.from_bytes(chunk[4:], "little")
        if chunk[:4] == b"data":
            return place + 8, length
        place += 8 + length + length % 2
    return 0, 0


def _is_chunk(stream: IO[bytes], place: int, size: int) -> bool:
    """Say whether what stands there is another chunk that fits the file, as after the data of an empty wav."""
    stream.seek(place)
    chunk = stream.read(8)
    return chunk[:4].isascii() and chunk[:3].decode("latin-1").isalnum() and place + 8 + int.from_bytes(chunk[4:], "little") <= size


def _open_ended(stream: IO[bytes], start: int, present: int) -> Ending:
    stream.seek(0)
    content = bytearray(stream.read())
    content[4:8] = struct.pack("<I", min(len(content) - 8, 0xFFFF_FFFF))
    content[start - 4 : start] = struct.pack("<I", min(present, 0xFFFF_FFFF))
    return Ending(odd="was written into a pipe and states no length; all to its end is heard", patched=bytes(content))


# -- ogg ----------------------------------------------------------------------------------------------------------------


def _ogg(stream: IO[bytes], size: int) -> Ending:
    stream.seek(max(0, size - 2 * OGG_PAGE))
    tail = stream.read()
    place = tail.rfind(b"OggS\0")
    if place < 0:
        return Ending(refused="is cut: its last page is missing")
    page = tail[place:]
    lengths = page[27 : 27 + page[26]] if len(page) > 26 else b""
    if len(page) < 27 or len(lengths) < page[26] or len(page) < 27 + page[26] + sum(lengths):
        return Ending(refused="is cut: it ends within a page")
    return WHOLE if page[5] & OGG_LAST else Ending(odd="does not say where it ends: it was cut, or recording it was stopped")


# -- mp3 ----------------------------------------------------------------------------------------------------------------


def _mpeg(stream: IO[bytes], head: bytes, size: int) -> Ending:
    """Go from frame to frame: the last one must be whole, and as many there as the first one states."""
    start = place = _after_tag(head)
    stated, found = 0, 0
    while True:
        stream.seek(place)
        length = _frame_bytes(stream.read(4))
        if not length:
            break
        if place + length > size:
            return Ending(refused="is cut: it ends within a frame")
        if not found:
            stream.seek(place)
            stated = _stated_frames(stream.read(min(length, 256)))
        place, found = place + length, found + 1
    if found and not stated:
        return _counted(stream, start, found)
    missing = stated + 1 - found  # the frame that states it is no sound; some writers count it
    refused = f"is cut: it says that it has {stated:,} frames, and has {found - 1:,}"
    return Ending(refused=refused) if found and missing > 1 else WHOLE


def _counted(stream: IO[bytes], start: int, found: int) -> Ending:
    """Put a frame before the first one that says how many follow: a decoder guesses from the first, and leaves out the rest."""
    stream.seek(start)
    content = stream.read()
    version, layer, mono = content[1] >> 3 & 3, 4 - (content[1] >> 1 & 3), content[3] >> 6 == 3
    if layer != 3:
        return WHOLE
    header = bytes((0xFF, content[1] | 1, content[2] & 0x0C | 0xE0, content[3]))  # no checksum, the highest rate, no padding
    side = (17 if mono else 32) if version == 3 else (9 if mono else 17)  # bytes before what a frame holds
    frame = header + bytes(side) + b"Xing" + struct.pack(">II", 1, found)
    return Ending(patched=frame.ljust(_frame_bytes(header), b"\0") + content)


def _after_tag(head: bytes) -> int:
    """Where the sound begins, behind an ID3 tag: its length has 7 bits in each byte."""
    if head[:3] != b"ID3" or len(head) < 10:
        return 0
    length = sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
    return 10 + length + (10 if head[5] & 0x10 else 0)


def _frame_bytes(header: bytes) -> int:
    """The length of a frame of MPEG audio; 0 when none begins here, or it has a free bit rate."""
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE0 != 0xE0:
        return 0
    version, layer = header[1] >> 3 & 3, 4 - (header[1] >> 1 & 3)
    rate, hertz, padding = header[2] >> 4, header[2] >> 2 & 3, header[2] >> 1 & 1
    if version == 1 or layer == 4 or rate in (0, 15) or hertz == 3:
        return 0
    bits = 1_000 * _KILOBITS[version == 3, layer][rate]
    if layer == 1:
        return (12 * bits // _HERTZ[version][hertz] + padding) * 4
    return (72 if layer == 3 and version != 3 else 144) * bits // _HERTZ[version][hertz] + padding


def _stated_frames(frame: bytes) -> int:
    """The number of frames that the first one states (Xing, Info); 0 when it does not."""
    place = max(frame.find(b"Xing"), frame.find(b"Info"))
    if place < 0 or len(frame) < place + 12 or not frame[place + 7] & 1:
        return 0
    return int.from_bytes(frame[place + 8 : place + 12], "big")
