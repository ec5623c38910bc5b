"""The work of retrieval/unseen."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from modelgraft import ABSENT
from modelgraft.plugin import InputError, LoadContext, NodeRuntime, Reading
from modelgraft_plugins.retrieval.filed import Index
from modelgraft_plugins.retrieval.header import NOWHERE
from modelgraft_plugins.retrieval.nearest import opened, search_of
from modelgraft_plugins.retrieval.searching import unit

if TYPE_CHECKING:
    from modelgraft_plugins.retrieval import Unseen

Rows = list[int]


def load(config: Unseen, context: LoadContext) -> Answering:
    """Open the index and make what answers asks. Raises InputError as retrieval/nearest does."""
    types: Any = context.registry.record_types  # Any: what reads a picture, which the kernel does not know
    return Answering(config, opened(config, context), node=context.node.name, read=types["image"].read)


class Answering:
    """Answers the asks of records, each with what its record has not seen yet."""

    def __init__(self, config: Unseen, index: Index, *, node: str, read: Callable[[str, Reading], Any]) -> None:
        self.config, self.index, self.node, self.read = config, index, node, read
        self.searching, self.root = search_of(config, index), Path(index.about.root)
        self.rows = {index.about.place(entry.path): row for row, entry in enumerate(index.entries)}
        self.runtime = NodeRuntime(node)

    def bind(self, runtime: NodeRuntime) -> None:
        """Take who hears of files that are gone."""
        self.runtime = runtime

    def __call__(self, vector: list[list[Any]], seen: list[list[str]] | None = None) -> dict[str, list[Any]]:
        """vector: of each record its asks, float[width] or ABSENT; seen: of each record the files that were shown before."""
        before = [self._known(paths) for paths in seen] if seen is not None else [[] for _ in vector]
        found = [self._record(asks, rows) for asks, rows in zip(vector, before, strict=True)]
        return {
            "images": [[self._images(rows) for rows, _ in record] for record in found],
            "paths": [[[self.index.about.place(self.index.entries[row].path) for row in rows] for rows, _ in record] for record in found],
            "scores": [self._stacked([scores for _, scores in record]) for record in found],
        }

    def _record(self, asks: Sequence[Any], before: Rows) -> list[tuple[Rows, Tensor]]:
        """(rows, scores) of each ask of one record; what comes first is not shown again behind it."""
        shown = dict.fromkeys(before)
        found = []
        for ask in asks:
            if ask is ABSENT:
                found.append((Rows(), torch.zeros(self.config.hits)))
                continue
            rows, scores = self._search(ask, len(shown))
            new = [place for place, row in enumerate(rows) if row not in shown]
            old = [place for place, row in enumerate(rows) if row in shown]
            chosen = [*new, *old][: self.config.hits]
            shown |= dict.fromkeys(rows[place] for place in chosen)
            found.append(([rows[place] for place in chosen], torch.from_numpy(scores[chosen])))
        return found

    def _search(self, ask: Tensor, more: int) -> tuple[Rows, Any]:
        """The nearest rows, with so many more as may be passed over; Any: float32[rows] of numpy."""
        count = min(self.config.hits + more, len(self.index.entries))
        rows, scores = self.searching(unit(ask.detach().cpu().float().numpy()[None]), count)
        return rows[0].tolist(), np.asarray(scores[0])

    def _stacked(self, scores: list[Tensor]) -> Tensor:
        return torch.stack(scores) if scores else torch.zeros(0, self.config.hits)

    def _known(self, paths: Sequence[str]) -> Rows:
        """The rows of files by their names; one that is not in the index cannot be shown again."""
        return [self.rows[path] for path in paths if path in self.rows]

    def _images(self, rows: Rows) -> list[Any]:
        return [image for row in rows if (image := self._image(row)) is not None]

    def _image(self, row: int) -> Any:
        """The picture of a row: its file, or the small one; None where there is neither."""
        if self.config.whole and self.index.about.root != NOWHERE and (whole := self._whole(self.index.entries[row].path)) is not None:
            return whole
        small = self.index.thumbnails[row]
        if not small:
            return None
        with Image.open(io.BytesIO(small)) as picture:
            return picture.convert("RGB")

    def _whole(self, name: str) -> Any:
        """The picture in a file below the folder of the index; None, which is told, where it is gone or cannot be read."""
        path = (self.root / name).resolve()
        try:
            if not path.is_relative_to(self.root.resolve()):
                raise InputError("it leads out of the folder of the index")
            return self.read(str(path), Reading("image"))
        except InputError as error:
            self.runtime.emit("warning", text=f"{self.node}: {name} is shown small, as it is in the index: {error.unworded}")
            return None
