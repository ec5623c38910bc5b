"""An index as it is held in memory, read from its file and written to it: whole, or not at all."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelgraft.commands import file_aside
from modelgraft.plugin import InputError
from modelgraft_plugins.retrieval.header import ENDING, MARK, VERSION, About, peek


@dataclass(frozen=True, slots=True)
class Entry:
    """A file that is in an index, or was left out.

    path    below the folder, its parts joined by /
    stamp   tells its contents from others without reading all of it;  digest  by reading all of it (SHA-256)
    why     it was left out; "" when it is in the index
    """

    path: str
    stamp: str
    digest: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class Index:
    """An index.

    vectors     float32[entries width], each of length 1
    entries     the files, in the order of the vectors;  left_out  those that could not be read
    thumbnails  a small picture of each as JPEG, b"" where there is none
    graph       usearch's own form of an approximate index; None: there is none
    """

    about: About
    vectors: NDArray[np.float32]
    entries: Sequence[Entry]
    thumbnails: Sequence[bytes]
    left_out: Sequence[Entry] = ()
    graph: NDArray[np.uint8] | None = field(default=None, repr=False)


def read_index(path: Path) -> Index:
    """Read an index. Raises InputError for a file that is none, or is damaged."""
    from safetensors import SafetensorError, safe_open

    try:
        about = peek(path)
        with safe_open(path, framework="numpy") as file:
            held: dict[str, NDArray[Any]] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 it is no mapping
        found = [Entry(**json.loads(line)) for line in held["files"].tobytes().splitlines()]
        ends = held["thumbnail_ends"].tolist()
        entries = [entry for entry in found if not entry.why]
        small = held["thumbnails"].tobytes()
        thumbnails = [small[start:end] for start, end in zip([0, *ends], ends, strict=False)]
        if not len(entries) == len(thumbnails) == about.entries:
            raise ValueError(f"it has {about.entries} vectors, {len(entries)} files and {len(thumbnails)} small pictures")
    except OSError as error:
        raise InputError(f"the index '{path}' cannot be read: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, SafetensorError) as error:
        raise InputError(f"'{path}' cannot be read as an index: {error}; index the folder again into another file") from error
    return Index(about, held["vectors"], entries, thumbnails, [entry for entry in found if entry.why], held.get("graph"))


def write_index(index: Index, path: Path) -> None:
    """Write an index in one step: whoever reads meanwhile has the one before, whole."""
    from safetensors.numpy import save_file

    lines = "\n".join(json.dumps(asdict(entry)) for entry in (*index.entries, *index.left_out))
    held: dict[str, NDArray[Any]] = {
        "vectors": np.ascontiguousarray(index.vectors, np.float32),
        "files": np.frombuffer(lines.encode(), np.uint8),
        "thumbnails": np.frombuffer(b"".join(index.thumbnails), np.uint8),
        "thumbnail_ends": np.cumsum([len(one) for one in index.thumbnails], dtype=np.int64),
    }
    if index.graph is not None:
        held["graph"] = index.graph
    with file_aside(path, suffix=ENDING) as aside:
        save_file(held, aside, metadata={MARK: VERSION, "about": json.dumps(asdict(index.about))})
