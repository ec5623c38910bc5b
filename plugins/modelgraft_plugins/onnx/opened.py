"""What was exported, opened: graphs by name, and tables beside them, which are read from the checkpoint, or from a file of the export where
the checkpoint does not hold them. Without torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from modelgraft.plugin import Table, Weights, note_memory, seals, table_in
from modelgraft_plugins.onnx import store, tuned
from modelgraft_plugins.onnx.begun import tuned_folder
from modelgraft_plugins.onnx.by_rows import ByRows
from modelgraft_plugins.onnx.graphs import SessionGraph
from modelgraft_plugins.onnx.measured import MANY, beside

KEPT = "table"  # what a matrix is called in a file of its own


class FolderOpened:
    """An Opened on the files of an export."""

    def __init__(
        self,
        folder: Path,
        manifest: Mapping[str, Any],
        session: Callable[[str], Any],
        *,
        device: str,
        weights: Weights | None,
        is_fresh: bool = False,
        of_many: Callable[[str], Any] | None = None,
    ) -> None:
        """What opens them.

        session   a graph file by its name
        of_many   one for many rows; None: all rows are read by the others
        is_fresh  the folder is being written, and has no seal yet
        """
        self.is_fresh, self.of_many = is_fresh, of_many
        self.folder, self.session, self.device, self.weights = folder, session, device, weights
        self.notes: Mapping[str, Any] = manifest["notes"]
        self.kept: Mapping[str, Mapping[str, str]] = manifest["kept"]

    def graph(self, name: str) -> SessionGraph | ByRows:
        """See Opened."""
        file, open_many = f"{name}.onnx", self.of_many
        many = beside(self.folder / file)
        proof = seals.Proof(partial(self._prove_many, file, many)) if open_many is not None and many.is_file() else None
        few = SessionGraph(self.session(file), device=self.device)
        if open_many is None or proof is None:
            return few
        proof.result()  # now: later nobody would make the export again
        return ByRows(few, lambda: SessionGraph(open_many(many.name), device=self.device), many=MANY)

    def _prove_many(self, file: str, many: Path) -> None:
        """Read the graph for many rows whole, and its weights where that for few has its own, as it was tuned. Raises BrokenSeal."""
        store.proven_file(self.folder, many.name)
        if tuned_folder(self.folder, file).is_dir():
            for name in tuned.files_of(self.folder, file):
                store.proven_file(self.folder, name)

    def table(self, name: str) -> Table:
        """See Opened."""
        where = self.kept[name]
        if "key" in where and self.weights is not None:
            table = self.weights.table(where["key"])
        else:
            file = where["file"]
            table = table_in(self.folder / file if self.is_fresh else store.proven_file(self.folder, file), KEPT)
        note_memory("cpu", table.nbytes)
        return table
