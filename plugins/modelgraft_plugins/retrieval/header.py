"""What an index says of itself, read without numpy and without trusting the file.

An index is a safetensors file, so that it is one file, appears whole or not at all, and holds numbers and texts alone:

    vectors         float32[entries width]   of length 1
    files           uint8[bytes]             a line of JSON for each entry, then one for each file that was left out
    thumbnails      uint8[bytes]             small pictures as JPEG, one behind the other; thumbnail_ends int64[entries]: where each ends
    graph           uint8[bytes]             usearch's own form of an approximate index, where one was asked for

Its `__metadata__` holds `modelgraft_index`, the version of this form, and `about`, a mapping as JSON: see About.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

VERSION = "1"
MARK = "modelgraft_index"
ENDING = ".safetensors"
NOWHERE = ""  # the root of vectors that were given: their files are named as they were, such as by addresses of the web
MOST_HEADER_BYTES = 64 << 20  # an LLM's config has kilobytes; more is no index


@dataclass(frozen=True, slots=True)
class About:
    """What an index says of itself.

    width, entries  of its vectors
    model   the model that made them, as plain values (`models.Model`)
    root    the folder that was indexed, as an absolute path, or NOWHERE;  medium  of its files: "image"
    recall  the share of the ten nearest that its approximate graph finds, measured when it was made; None where there is none
    """

    width: int
    entries: int
    model: Mapping[str, Any]
    root: str
    medium: str
    recall: float | None = None

    def place(self, name: str) -> str:
        """Where the file of an entry lies."""
        return name if self.root == NOWHERE else str(Path(self.root) / name)


def peek(path: Path) -> About:
    """Read what a file says of itself. Raises ValueError with one sentence when it is no index; OSError when it cannot be read."""
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if not 2 <= length <= MOST_HEADER_BYTES:
                raise ValueError("its header has no sensible length")
            header = json.loads(file.read(length))
        about = header.get("__metadata__", {})
    except (struct.error, ValueError, RecursionError, AttributeError) as error:
        raise ValueError(f"it is no index: it cannot be read as a safetensors file ({str(error).partition(chr(10))[0]})") from error
    if not isinstance(about, dict) or MARK not in about:
        raise ValueError("it is no index: modelgraft index FOLDER writes one")
    if about[MARK] != VERSION:
        raise ValueError(f"it is an index of version {about[MARK]}, and this modelgraft reads version {VERSION}: index the folder again")
    return about_of(about, header)


def about_of(metadata: Mapping[str, str], header: Mapping[str, Any]) -> About:
    """The form of what stands in the file. Raises ValueError for one that lacks or contradicts something."""
    try:
        found = About(**json.loads(metadata["about"]))
        shape = header["vectors"]["shape"]
        _ = found.model["name"], found.model["space"], found.model["sources"], found.model["digest"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"it is a damaged index: {type(error).__name__}: {error}") from error
    if shape != [found.entries, found.width]:
        raise ValueError(f"it is a damaged index: it says {found.entries} vectors of {found.width} numbers, and has {shape}")
    return found
