"""The onnx backend as the core speaks to it. What needs torch or onnxruntime lies in siblings, and is imported when it is asked for."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelgraft.plugin import Backend, FileCall, LoadContext, Loaded, Node, Plan, open_backend, owner_of, resolve
from modelgraft_plugins.onnx import begun, keys, measured, store
from modelgraft_plugins.onnx.runtime import installed, open_file

if TYPE_CHECKING:
    from modelgraft_plugins.onnx.loading import Loads


class OnnxBackend(Backend):
    """Runs exportable modules on ONNX Runtime, and code that is no module as the torch backend does."""

    name = "onnx"

    def __init__(self) -> None:
        self.exports: dict[str, store.Entry] = {}  # what the loaded nodes run, by their names
        self._loads: Loads | None = None
        self._begun = list[begun.Begun]()

    def begin(self, node: Node, *, precision: str, threads: int | None) -> bool:
        """Begin the session of a node whose export is kept and was proven on this kind of processor; else measure what making it asks for.

        It needs no torch then, unless a loop goes around it that computes with tensors.
        """
        key = keys.kept_key(node, precision=precision)
        if not key or not store.manifest_of(key):
            if precision in keys.WEIGHT_BITS:
                begun.aside(measured.prepare)  # whoever loads it waits for that by its lock
            return False
        self._begin(store.folder_of(key), threads)
        owner = owner_of(node)
        return owner.loop is None or bool(resolve(owner.loop, owner).arrays)

    def load(self, context: LoadContext, shared: Mapping[str, Loaded]) -> Loaded:
        """Load one node: from the cache of exports, or by exporting it now.

        Raises GraphError `not-exportable` with the node and what the exporter or the parity gate said, InputError for a device
        that onnxruntime cannot use, before anything is exported for it.
        """
        if self._loads is None:
            from modelgraft_plugins.onnx.loading import Loads

            self._loads = Loads(open_backend(context.registry, "torch"), self.exports)
        return self._loads.load(context, shared)

    def close(self) -> None:
        """Free what torch holds beside the sessions, and sessions that nobody has taken."""
        for what in self._begun:
            if begun.drop(what) and what.as_needed:
                begun.note_many(what.path.parent, is_needed=False)
        if self._loads is not None:
            self._loads.close()

    def _begin(self, folder: Path, threads: int | None) -> None:
        """Begin the session on an export, and behind it that for many rows where the last who ran it needed that."""
        few = begun.begin(folder, store.GRAPH, count=threads)
        self._begun.append(few)
        many = measured.beside(folder / store.GRAPH)
        if begun.needs_many(folder) and many.is_file() and measured.widens():
            self._begun.append(begun.begin_many(few, many))

    def auto_device(self, device: str) -> str:
        """The CPU, with a warning, where onnxruntime cannot use the GPU that torch can."""
        from modelgraft_plugins.onnx.cuda import auto_device

        return auto_device(device)

    def why_not(self) -> str:
        """The packages that it needs and are not installed."""
        missing = [name for name in ("onnxruntime", "onnx", "onnxscript") if importlib.util.find_spec(name) is None]
        return f"not installed: {', '.join(missing)}; pip install 'modelgraft[onnx]'" if missing else ""

    def recorded(self, node: Node, *, precision: str) -> Mapping[str, Any]:
        """The manifest of the export that the node would run, when one is kept and was proven on this kind of processor."""
        return keys.recorded(node, precision=precision)

    def describe(self) -> str:
        """The distribution of onnxruntime that is installed, and its version."""
        return installed()

    def open_file(self, path: Path, *, threads: int | None) -> FileCall:
        """A session on a graph that was written elsewhere. Raises as `runtime.open_file` does."""
        return open_file(path, threads=threads)

    def export(self, plan: Plan, folder: Path, *, warnings: Sequence[str]) -> Mapping[str, Any]:
        """The ONNX segments of a plan, with a manifest and a script that runs them on onnxruntime and numpy alone."""
        from modelgraft_plugins.onnx import exported

        return exported.write(plan, dict(self.exports), folder, warnings=warnings)
