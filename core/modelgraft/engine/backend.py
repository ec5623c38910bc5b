"""What a backend is: it loads one node on one device and gives back a callable.

This module is light; torch and onnxruntime are imported by the backends that need them.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from modelgraft.engine.ledger import Ledger
from modelgraft.kernel.words.errors import Cancelled
from modelgraft.kernel.words.graph import Node

if TYPE_CHECKING:
    from modelgraft.kernel.shelf.registry import Registry
    from modelgraft.loops.driven import Loop
    from modelgraft.sources.weights import Weights


def _nobody_listens(kind: str, **facts: Any) -> None:
    """Take an event outside of a run."""


@dataclass(slots=True)
class NodeRuntime:
    """What loaded code may ask of the run it serves. One per node; the scheduler sets `seed` and `emit` for each run.

    Code that wants it has a method `bind(runtime)`, called once after loading. A long loop calls `check()` at every
    step and `emit(...)` for what a user may want to watch: `emit("token", text=...)`, `emit("progress", done=, total=)`.
    """

    node: str
    component: str = ""
    seed: int = 0
    cancelled: threading.Event = field(default_factory=threading.Event)
    emit: Callable[..., None] = field(default=_nobody_listens)

    def check(self) -> None:
        """Raise Cancelled when the run was stopped."""
        if self.cancelled.is_set():
            raise Cancelled(f"{self.node} was stopped", node=self.node, component=self.component)

    def node_seed(self) -> int:
        """A seed of this node in this run: the same for the same run seed, different between nodes."""
        return (self.seed * 0x9E3779B1 + zlib.crc32(self.node.encode())) & 0x7FFF_FFFF_FFFF_FFFF


@dataclass(frozen=True, slots=True)
class LoadContext:
    """What code gets when it is loaded.

    device   "cpu", "cuda:0";  dtype  the floating dtype to run in, e.g. "float32"
    weights  the files of the node's source, of the node that it shares weights with when that keeps none; or None
    init     "random": a source without weights gives seeded random numbers; None: that is an error
    precision of the weights where it is not the dtype, such as "int8"; "" otherwise
    threads  that the node may compute with; None: what the backend finds best
    fallback "torch": what another backend cannot run stays on torch, with a warning; None: that is an error
    merge    adapters become part of the weights where they can: nobody will train them or take them off
    of       the context of a part, for a node that stands for several (`node.parts`)
    ledger   what the pipeline holds on each device: code that keeps much beside its weights tells it there, and makes room
    """

    node: Node
    device: str
    dtype: str
    weights: Weights | None
    seed: int
    offline: bool
    registry: Registry
    init: str | None = None
    precision: str = ""
    threads: int | None = None
    fallback: str | None = None
    merge: bool = False
    of: Callable[[Node], LoadContext] | None = None
    ledger: Ledger = field(default_factory=Ledger)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A node that is ready to run.

    call        takes the values of the input ports in order, None for an unwired optional one. Gives the value of the
                only output, or a mapping by port name when there are several.
    state       the torch module behind it, for training and for nodes that share its weights; None where there is none, or
                none that is whole
    bind        takes the NodeRuntime, or None when the code does not ask for one
    close       frees devices and files
    warnings    what a user must know about the load: random weights, a dtype that was changed
    keeps       what must live as long as the node, such as weights that other pipelines may share
    loop        of a driven component, what goes around its parts
    """

    call: Callable[..., Any]
    state: Any = None
    bind: Callable[[NodeRuntime], None] | None = None
    close: Callable[[], None] = lambda: None
    warnings: tuple[str, ...] = ()
    keeps: Any = None  # Any: the backend's own
    loop: Loop | None = None


def bound_function(function: Callable[..., Any], node: Node) -> Callable[..., Any]:
    """The function with its config; the function itself when it has none, so that a call costs nothing more."""
    fields = {name: getattr(node.config, name) for name in type(node.config).model_fields}
    return partial(function, **fields) if fields else function


class Backend(Protocol):
    """Loads nodes. A class registered with `register_backends`; made once per pipeline."""

    name: str

    def load(self, context: LoadContext, shared: Mapping[str, Loaded]) -> Loaded:
        """Load one node; `shared` holds the nodes that are loaded already, for `share`."""
        ...

    def close(self) -> None:
        """Free what the backend holds beside its nodes."""
        ...
