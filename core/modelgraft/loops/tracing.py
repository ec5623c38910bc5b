"""For driven components that need more than a plain export of their parts: a decoder whose cache is updated in place, say.

Such a component declares no parts. Its module is a `Traced` (module.py), which writes graphs with what the backend offers (`Tracer`);
its loop is an `Assembling`, which makes the parts of the graphs that were written (`Graph`), without the module. What the graphs
are, and how many styles of them there are, is the component's own affair.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from modelgraft.loops.driven import Loop

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from modelgraft.records.arrays import Array
    from modelgraft.sources.published_blocks import PublishedBlocks
    from modelgraft.sources.row_tables import Table


class Tracer(Protocol):
    """What a backend offers to a module that is to be exported."""

    @property
    def half(self) -> bool:
        """Whether its graphs are to compute in float16."""
        ...

    @property
    def variant(self) -> str:
        """Which of its exports is wanted: see `Assembling.variant`."""
        ...

    def trace(
        self, module: torch.nn.Module, example: tuple[Any, ...], name: str, *, sizes: Any, inputs: Sequence[str], outputs: Sequence[str]
    ) -> None:
        """Write a module as a graph.

        name    of the graph;  inputs, outputs  the names of its tensors, in order: those of nested lists follow one another
        sizes   which axes of the example may have other sizes, as `torch.export.export(dynamic_shapes=...)` takes them

        Raises ExportError with what cannot be traced.
        """
        ...

    def write(self, graph: Any, name: str) -> None:
        """Write a graph that the module has put together itself: an onnx_ir.Model. Its tensors may be made as they are written.

        A matrix may note in its `meta`, under "published", what gives the blocks that the file holds it in, `() -> PublishedBlocks | None`:
        a list, of each matrix that lies side by side in it. They are taken over where weights of few bits are wanted.
        """
        ...

    def published(self, name: str, tensor: Tensor) -> PublishedBlocks | None:
        """A matrix as the file of the checkpoint holds it in blocks of few bits; None where it holds it otherwise.

        name  of the matrix in the checkpoint, where it has that there;  tensor  float[rows columns], the numbers, which must be these
        """
        ...

    def keep(self, name: str, tensor: Tensor) -> None:
        """Keep a tensor that the parts need beside the graphs; one that the checkpoint holds as it is takes no room."""
        ...


@dataclass(frozen=True, slots=True)
class Slot:
    """An input or output of a graph.

    axes    numbers, or names where sizes are open
    dtype   by its name, "float32"
    device  where it is read or written, "cpu" or "cuda:0"
    """

    name: str
    axes: tuple[int | str, ...]
    dtype: str
    device: str


class Bound(Protocol):
    """A graph with memory for its inputs and outputs: it runs again and again, and nothing is bound or allocated meanwhile."""

    def run(self) -> None:
        """Read the inputs and write the outputs, where they lie."""
        ...

    def made(self) -> Mapping[str, Array]:
        """The outputs of the last run for which the graph has made the memory itself: arrays, or where it is ordered tensors."""
        ...


class Repeatable(Protocol):
    """A run that is always the same but for what its inputs hold, so that a device may record and replay it."""

    @property
    def logits(self) -> Tensor:
        """What it writes, on a device."""
        ...

    @property
    def has_room(self) -> bool:
        """Whether the run after this one could be tried."""
        ...

    def plain(self) -> None:
        """Run without recording."""
        ...

    def move(self, by: int) -> None:
        """Go to another run: on by so many, or back."""
        ...


class Replay(Protocol):
    """A run that is recorded the first time, and replayed once that is proven to give the same."""

    @property
    def is_proven(self) -> bool | None:
        """Whether it does; None: not tried yet."""
        ...

    def run(self) -> None:
        """Run it: replayed, or plainly where it cannot be."""
        ...

    def release(self) -> None:
        """Forget what was recorded, before the memory that it writes to goes."""
        ...


class Graph(Protocol):
    """A graph that a backend has opened. Its runs may overlap: memory belongs to whoever binds it."""

    @property
    def device(self) -> str:
        """Where it runs, "cpu" or "cuda:0"."""
        ...

    @property
    def inputs(self) -> Sequence[Slot]:
        """What it takes, in order."""
        ...

    @property
    def outputs(self) -> Sequence[Slot]:
        """What it gives, in order."""
        ...

    @property
    def is_ordered(self) -> bool:
        """Whether torch and the graph share the order of a device, so that `turn` and `hand_over` matter."""
        ...

    def __call__(self, *values: Array) -> tuple[Array, ...]:
        """Run once; the outputs own their memory, on the host arrays. Floating inputs come to the type that the graph takes."""
        ...

    def bind(self, inputs: Mapping[str, Array], outputs: Mapping[str, Array | None]) -> Bound:
        """Bind contiguous arrays or tensors by name, which live as long as what this gives; None: the graph makes the memory of an output.

        What lies on a device is a tensor.
        """
        ...

    def turn(self, *given: Array) -> AbstractContextManager[None]:
        """Inside, torch and the graph work in turn on the device; `given` comes from outside."""
        ...

    def hand_over(self, made: Sequence[Array]) -> None:
        """Say what was made inside a turn and is used outside."""
        ...

    def replay(self, bound: Any, run: Repeatable) -> Replay | None:
        """What records a run that was bound to it (`Any`: its own kind of Bound); None where there is no such thing."""
        ...


class Opened(Protocol):
    """What was exported, opened: the graphs by name, what is kept beside them, and what the module noted as it traced them."""

    @property
    def notes(self) -> Mapping[str, Any]:
        """What `Traced.trace` gave. Beside it "briefly" where graphs for many rows are compared: each run of such makes all matrices
        anew, so that `Assembling.rehearse` may leave out what comes last."""
        ...

    def graph(self, name: str) -> Graph:
        """A graph that was traced under this name."""
        ...

    def table(self, name: str) -> Table:
        """A matrix that was kept, as numpy indexes it; mapped from its file, not read."""
        ...


class Assembling(Loop):
    """A loop that makes its parts of traced graphs, and says what they are compared by.

    script  what runs the graphs without modelgraft, written beside those that are handed to others: the text of a Python module with
            `options(parser)` and `compute(part, values, words, opened, folder)`, whose docstring says how it is called; "": nothing does
    """

    script: ClassVar[str] = ""

    @classmethod
    def variant(cls, config: Any, wanted: frozenset[str]) -> str:  # noqa: ARG003 most have one export
        """Which export the wanted outputs need, where one that gives all of them costs more; "": the plain one, which others contain."""
        return ""

    @abstractmethod
    def assemble(self, opened: Opened) -> Mapping[str, Any]:
        """The parts, as `Driven.parts` gives those in torch."""
        ...

    @abstractmethod
    def rehearsals(self, parts: Mapping[str, Any]) -> Sequence[tuple[Tensor, ...]]:
        """What to compare the parts by: each entry is given to `rehearse`. parts: those in torch."""
        ...

    @abstractmethod
    def rehearse(self, parts: Mapping[str, Any], case: tuple[Tensor, ...], *, variant: str) -> tuple[Tensor, ...]:
        """Call the parts as a run would, and give what must be alike in torch and exported; logits where parts write."""
        ...
