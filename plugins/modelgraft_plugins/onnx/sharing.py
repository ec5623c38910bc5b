"""Sessions of one pipeline that several of its nodes run: a graph is opened once, however many nodes share its weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from modelgraft_plugins.onnx import memory, store, tuned

Place = tuple[Path, int | None]  # a graph of an export, and the threads that it is computed with


class Sharing:
    """Opens sessions as `tuned.session` does. On the host one that is open serves whoever asks for it: calls may overlap there."""

    def __init__(self) -> None:
        self._open = WeakValueDictionary[Place, Any]()  # onnxruntime has no types
        self._said = dict[Place, tuple[str, ...]]()

    def session(
        self, folder: Path, device: str, *, graph: str = store.GRAPH, count: int | None = None, fresh: tuned.Fresh | None = None
    ) -> tuple[Any, tuple[str, ...]]:
        """See `tuned.session`."""
        place = (folder / graph, count)
        found = self._open.get(place) if device == "cpu" else None
        if found is not None:
            with memory.noted(device, folder, tuned.files_of(folder, graph)):
                return found, self._said[place]
        opened, remarks = tuned.session(folder, device, graph=graph, count=count, fresh=fresh)
        if device == "cpu":
            self._open[place], self._said[place] = opened, remarks
        return opened, remarks
