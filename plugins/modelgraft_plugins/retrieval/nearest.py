"""The work of retrieval/nearest."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelgraft.plugin import InputError, LoadContext
from modelgraft_plugins.retrieval.filed import Index, read_index
from modelgraft_plugins.retrieval.models import contents_of, feeding, stranger
from modelgraft_plugins.retrieval.page import page_of
from modelgraft_plugins.retrieval.searching import Approximate, exact, unit
from modelgraft_plugins.retrieval.sheet import Hit, sheet_of

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

    from modelgraft_plugins.retrieval import Nearest


OUTPUTS = frozenset({"paths", "scores", "sheet", "page"})


def load(config: Nearest, context: LoadContext) -> Finder:
    """Open the index and make the function from float[batch width] to the hits of each record.

    Raises InputError for an index that is none, that was replaced by one of another size, or whose vectors are of another model.
    """
    return Finder(config, opened(config, context))


def opened(config: Nearest, context: LoadContext) -> Index:
    """The index of a node. Raises InputError as `load` does."""
    path = context.node.source.path() if context.node.source is not None else None
    if path is None:
        raise InputError(f"{context.node.name} has no index: write from: ./photos.safetensors")
    index = read_index(path)
    if index.vectors.shape != (config.entries, config.width):
        raise InputError(f"the index '{path}' was written anew since the graph was checked: open the graph again")
    _refuse_stranger(index, path, context)
    return index


class Finder:
    """From float[batch width], and a title for each record, to the hits of each. A sheet takes longer than all of the search."""

    def __init__(self, config: Nearest, index: Index) -> None:
        self.config, self.index, self.searching = config, index, search_of(config, index)

    def __call__(self, vector: NDArray[numpy.float32], title: list[str] | None = None) -> dict[str, Any]:
        """All outputs."""
        return self.find(vector, title, wanted=OUTPUTS)

    def giving(self, wanted: frozenset[str]) -> Callable[..., dict[str, Any]]:
        """See modelgraft.plugin.Gives."""
        return lambda vector, title=None: self.find(vector, title, wanted=wanted)

    def find(self, vector: NDArray[numpy.float32], title: list[str] | None, *, wanted: frozenset[str]) -> dict[str, Any]:
        """The outputs that are wanted."""
        rows, scores = self.searching(unit(vector.astype("float32", copy=False)), self.config.hits)
        pairs = zip(rows.tolist(), scores.tolist(), strict=True)
        hits = [[_hit(self.index, row, score) for row, score in zip(*pair, strict=True)] for pair in pairs]
        titles, about = title if title is not None else [""] * len(hits), self.index.about
        found: dict[str, Any] = {"paths": [[about.place(hit.name) for hit in one] for one in hits], "scores": scores}
        if "sheet" in wanted:
            found["sheet"] = [sheet_of(one, title=said, theme=self.config.theme) for one, said in zip(hits, titles, strict=True)]
        if "page" in wanted:
            found["page"] = [page_of(one, title=said, about=about) for one, said in zip(hits, titles, strict=True)]
        return found


def _refuse_stranger(index: Index, path: Path, context: LoadContext) -> None:
    """Vectors of another model have other meanings, however wide they are."""
    if context.graph is None:
        return
    sources = contents_of(feeding(context.graph, context.node, "vector"), seed=context.seed)
    if sources and (why := stranger(index.about.model, sources)):
        held = f"the index '{path}' holds vectors of {index.about.model['name']} ({index.about.model['output']})"
        raise InputError(f"{held}: {why}. Ask with the model that it was made with, or make an index with this one by modelgraft index")


def search_of(config: Nearest, index: Index) -> Callable[[Any, int], Any]:
    """The function from queries, float32[queries width], and a number of hits to their rows and scores."""
    if config.exact or (config.exact is None and index.graph is None):
        return lambda queries, count: exact(index.vectors, queries, count)
    if index.graph is None:
        made = "make it with modelgraft index --approximate, or leave out exact: false"
        raise InputError(f"the index of '{index.about.root}' has no approximate graph: {made}")
    return Approximate(index.vectors, index.graph).search


def _hit(index: Index, row: int, score: float) -> Hit:
    return Hit(index.entries[row].path, score, index.thumbnails[row])
