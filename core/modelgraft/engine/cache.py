"""Results of nodes by provenance: in memory, least recently used first out, and on disk when a folder is given.

What is kept is a copy, and what is handed out is one: neither a node that fills the same memory in every run nor one that writes to
what it is given reaches it.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelgraft.records.digests import size_bytes
from modelgraft.records.owning import own, twin

if TYPE_CHECKING:
    from modelgraft.engine.disk import DiskCache

MEMORY_BYTES = 512 * 2**20  # enough for the vectors of thousands of pictures
DISK_BYTES = 4 * 2**30

Outputs = Mapping[str, Any]  # the outputs of a node by port


class Cache:
    """A bounded store of node results by key. Safe to use from several threads; the disk part from several processes.

    memory_bytes  the most that is kept in memory; 0 keeps nothing
    folder        where results are kept between processes; None keeps none
    disk_bytes    the most that is kept in the folder
    """

    def __init__(self, *, memory_bytes: int = MEMORY_BYTES, folder: Path | None = None, disk_bytes: int = DISK_BYTES) -> None:
        self._limit = memory_bytes
        self._disk: DiskCache | None = None
        if folder is not None:
            from modelgraft.engine.disk import DiskCache

            self._disk = DiskCache(folder, limit_bytes=disk_bytes)
        self._lock = threading.Lock()
        self._entries: OrderedDict[str, tuple[Outputs, int]] = OrderedDict()
        self._bytes = 0

    @property
    def is_on(self) -> bool:
        """Whether anything is kept at all."""
        return self._limit > 0 or self._disk is not None

    @property
    def bytes(self) -> int:
        """What is kept in memory now."""
        return self._bytes

    def get(self, key: str) -> Outputs | None:
        """The outputs that were kept under a key, or None."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is not None:
                self._entries.move_to_end(key)
        if entry is not None:
            return _own(entry[0])
        found = self._disk.read(key) if self._disk is not None else None
        if found is not None:
            self._keep(key, _own(found), _size(found))
        return found

    def put(self, key: str, outputs: Outputs) -> None:
        """Keep outputs under a key; what holds a value of an unknown type is not kept."""
        size = _size(outputs)
        if size is None:
            return
        if size <= self._limit:
            self._keep(key, _own(outputs), size)
        if self._disk is not None:
            self._disk.write(key, outputs)

    def clear(self) -> None:
        """Forget what is in memory; the folder stays."""
        with self._lock:
            self._entries.clear()
            self._bytes = 0

    def _keep(self, key: str, outputs: Outputs, size: int | None) -> None:
        if size is None or size > self._limit:
            return
        with self._lock:
            self._drop(key)
            self._entries[key] = (outputs, size)
            self._bytes += size
            while self._bytes > self._limit:
                self._drop(next(iter(self._entries)))

    def _drop(self, key: str) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._bytes -= entry[1]


def _own(outputs: Outputs) -> Outputs:
    """A copy with the same strides, so that what follows is equal to the last bit."""
    return {name: own(value, twin) for name, value in outputs.items()}


def _size(outputs: Outputs) -> int | None:
    total = 0
    for value in outputs.values():
        size = size_bytes(value)
        if size is None:
            return None
        total += size
    return total
