"""Retrieval: indexes of vectors, and what is nearest in them. See README.md beside this file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from modelgraft import Config, Ports, Space, component, hookimpl, port
from modelgraft.plugin import SpaceOf
from modelgraft_plugins.retrieval.header import peek

if TYPE_CHECKING:
    from modelgraft.plugin import SolvedNode, Source

MOST_HITS = 1_000  # on one sheet; a page of more is no answer


@component(
    "retrieval/nearest",
    kind="retriever",
    load="modelgraft_plugins.retrieval.nearest:load",
    arrays=True,
    cache=False,
    taps=("sheet", "page"),  # pictures are drawn for who looks at them
)
class Nearest(Config):
    """Find what is nearest to a vector in an index that `modelgraft index` wrote: files, how near each is, and a sheet to look at.

    The index is the source of the node: `from: ./photos.safetensors`. It says which model its vectors are of: those of another one
    are refused. Nothing but the index is read, also for the sheet, whose small pictures lie in it.

    paths   the files, nearest first;  scores  the cosine of the angle to each
    sheet   the hits as one picture;  page  the same as an HTML page that needs nothing else, light or dark as its reader's system is
    title   written above them, such as what was asked
    """

    count: int = Field(9, gt=0, le=MOST_HITS, description="how many hits, if there are so many")
    exact: bool | None = Field(
        None, description="compare with every vector; false: search the approximate graph; None: that if there is one"
    )
    theme: Literal["light", "dark"] = Field("light", description="of the sheet")
    width: int = Field(gt=0, description="numbers of a vector, as the index says: write from: ./photos.safetensors")
    entries: int = Field(gt=0, description="files in the index, as it says")
    model: str = Field("", description="the model whose vectors they are, as the index says")
    space: str = Field("", description="the name of the space that they lie in, as the index says")
    given: Annotated[Space | None, SpaceOf("vector")] = Field(None, description="the space of what is asked with; None: that of the wire")

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Read what the index says of itself."""
        path = source.path()
        if path is None or not path.is_file():
            raise ValueError("it is no file: an index is a file that `modelgraft index` wrote, such as ./photos.safetensors")
        found = peek(path)
        return {"width": found.width, "entries": found.entries, "model": found.model["name"], "space": found.model["space"]}

    @property
    def hits(self) -> int:
        """How many there are for each record."""
        return min(self.count, self.entries)

    def ports(self) -> Ports:
        """A vector of the space of the index in, the hits out."""
        vector = port("float[batch width]", space=self._space())
        outputs = {"paths": "list[text]", "scores": "float[batch hits]", "sheet": "image", "page": "text"}
        return Ports.of({"vector": vector, "title": "optional[text]"}, outputs)

    def _space(self) -> Space | None:
        """The space that is wanted. A path says where a model lay and not which it is: then its contents are compared at the load."""
        given = dict(self.given.facts).get("model") if self.given is not None else None
        if not self.space or (isinstance(given, str) and given.startswith((".", "/", "~"))):
            return None
        return Space.of("embedding", model=self.space)

    def review(self, node: SolvedNode) -> Iterable[tuple[str, str, str]]:
        """The index must be its source, because the node opens it there."""
        if node.source is None:
            found = f"{node.name} has no index"
            yield "config-mismatch", found, "make one with modelgraft index, and write from: ./photos.safetensors"


@component("retrieval/unseen", kind="retriever", load="modelgraft_plugins.retrieval.unseen:load", cache=False)
class Unseen(Nearest):
    """Answer each ask of a record with the pictures that are nearest to its vector, and show none twice.

    A record asks any number of times, as router/signal-tokens lets it. What an earlier ask was answered with, and what `seen` lists, stands
    behind all that is new, as FROMAGe pushes it down. Where an index has too little that is new, it is shown again.

    images  `count` pictures for each ask, nearest first;  paths, scores  their files, and how near each is
    whole   the pictures are read from their files, of which the index has small ones alone; only below the folder that it is of
    """

    count: int = Field(1, gt=0, le=MOST_HITS, description="how many pictures for each ask, if there are so many")
    whole: bool = Field(False, description="read the pictures from their files; otherwise the small ones in the index are given")

    def ports(self) -> Ports:
        """Vectors of the space of the index in, several for a record; as many answers out."""
        vector = port("float[batch width]", space=self._space(), several="*")
        seen = port("optional[list[text]]", doc="files that were shown before, as `paths` names them")
        outputs = {
            "images": port("list[image]", several="hits"),
            "paths": port("list[text]", several="hits"),
            "scores": port("float[batch hits]", several="hits"),
        }
        return Ports.of({"vector": vector, "seen": seen}, outputs)


@component("retrieval/pictures", kind="retriever", load="modelgraft_plugins.retrieval.pictures:load", cache=False)
class Pictures(Unseen):
    """Find the pictures of an index that are nearest to a vector, and give them themselves.

    image   the nearest;  images  all of them, nearest first
    names   what their files are called;  paths  where they are;  scores  the cosine of the angle to each
    whole   they are read from their files, of which the index has small ones alone; only below the folder that it is of
    """

    def ports(self) -> Ports:
        """A vector of the space of the index in, pictures out."""
        vector = port("float[batch width]", space=self._space())
        named = {"names": "list[text]", "paths": "list[text]", "scores": "float[batch hits]"}
        return Ports.of({"vector": vector}, {"image": "image", "images": "list[image]", **named})


@hookimpl
def register_components(register: Callable[[Any], None]) -> None:
    """Offer the components of this plugin."""
    register(Nearest)
    register(Unseen)
    register(Pictures)


@hookimpl
def register_commands(app: Any) -> None:  # Any: a typer app, which is imported where there is a command line
    """Add `modelgraft index`."""
    from modelgraft.commands import Answering
    from modelgraft_plugins.retrieval.command import index

    app.command("index", cls=Answering)(index)
