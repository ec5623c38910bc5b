"""The exports that are kept, for `modelgraft cache`: each with what was tuned of it, and proven for other kinds of processors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from modelgraft.plugin import Keeper, KeptItem, clear_leftovers, complaint_of_note, seals
from modelgraft_plugins.onnx import store

# What was measured of a processor, by how the names of its files begin, and those of their locks.
MEASURED = {"measured": "which blocks are fastest on a processor", "one-row": "how a decoder reads its matrices fastest on a processor"}


class Exports(Keeper):
    """ONNX files, with what was tuned of them and proven for each kind of processor."""

    kind = "exports"

    def items(self) -> Iterator[KeptItem]:
        """Each with its manifest, and what was measured for those to come."""
        root = store.exports_root()
        for folder in sorted(root.glob("*/[!.]*/")):
            if folder.parent.name == folder.name[:2]:
                facts = store.manifest_in(folder)
                about = " ".join(str(facts.get(name, "?")) for name in ("component", "precision"))
                parity = f"{facts['parity']['relative']:.1e}" if "parity" in facts else "?"
                yield KeptItem(self.kind, folder.name, folder, about, root / "locks" / folder.name, facts, parity)
        for name, about in MEASURED.items():
            for note in sorted(root.glob(f"{name}-*.json")):
                yield KeptItem(self.kind, note.stem, note, about, root / "locks" / name)

    def tidy(self, item: KeptItem) -> None:
        """What killed processes have left beside an export, and in it."""
        clear_leftovers(item.path.parent)
        if item.path.is_dir():
            clear_leftovers(item.path)

    def complaints(self, item: KeptItem) -> Iterator[tuple[Path, str]]:
        """The export, each tuned form of it, and each note beside them."""
        if not item.path.is_dir():
            yield item.path, complaint_of_note(item.path)
            return
        yield item.path, seals.complaint(item.path)
        for tuned in item.path.glob("tuned-*/"):
            yield tuned, seals.complaint(tuned)
        for note in (*item.path.glob("proof-*.json"), *item.path.glob("*.refused")):
            yield note, complaint_of_note(note)
