"""What a backend is: it loads one node on one device and gives back a callable.

This module is light; torch and onnxruntime are imported by the backends that need them.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from modelgraft.engine.ledger import Ledger
from modelgraft.engine.modules.protocol import Close
from modelgraft.kernel.words.errors import InputError, ModelgraftError, PluginError
from modelgraft.kernel.words.graph import Adapter, Node, SolvedGraph
from modelgraft.kernel.words.guard import contained, place_of, said

if TYPE_CHECKING:
    from pathlib import Path

    from modelgraft.engine.run import NodeRuntime
    from modelgraft.kernel.shelf.registry import Registry
    from modelgraft.kernel.words.plan import Plan
    from modelgraft.loops.driven import Loop
    from modelgraft.sources.weights import Weights


Call = Callable[..., Any]  # what runs a node: takes and gives whatever the ports carry


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
    as_stored  weights stay in the dtypes of their file where the module says that it serves so: see `KeepsStored`
    of       the context of a part, for a node that stands for several (`node.parts`)
    ledger   what the pipeline holds on each device: code that keeps much beside its weights tells it there, and makes room
    graph    the checked graph that the node stands in, for code that must know what feeds it: a node of it may stand for several, as
             above; None for a node that is loaded alone
    export   when long work is done that is kept for later starts, such as an export: "now", before the node answers; "later", beside
             the answers; "never"; "" now, and with it what an answer need not wait for
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
    as_stored: bool = False
    of: Callable[[Node], LoadContext] | None = None
    ledger: Ledger = field(default_factory=Ledger)
    graph: SolvedGraph | None = None
    export: str = ""


@dataclass(frozen=True, slots=True)
class Unfinished:
    """Long work on a node that a load has left out: it is kept once it is done, and done in a process of its own, beside the answers.

    what       in words that go behind "its", such as "export"
    key        tells it from other work, in every process that has the same cache
    meanwhile  where the node answers until it is done, such as "torch"; it is loaded anew then. "": as it does afterwards
    differs    what it gives until then differs by more than rounding, as other precisions do
    """

    what: str
    key: str
    meanwhile: str = ""
    differs: bool = False


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
    giving      of a component with taps, the call that gives these outputs: `call` gives those of the node that was loaded
    is_shared   runs may call it at the same time; False: it holds something during a call, such as memory of a session
    arrays      where its ports are tensors it takes arrays of numpy as well, and may give them, as sessions on the host do
    unfinished  what was left out, because `LoadContext.export` says so; None: nothing
    """

    call: Callable[..., Any]
    state: Any = None
    bind: Callable[[NodeRuntime], None] | None = None
    close: Callable[[], None] = lambda: None
    warnings: tuple[str, ...] = ()
    keeps: Any = None  # Any: the backend's own
    loop: Loop | None = None
    giving: Callable[[frozenset[str]], Callable[..., Any]] | None = None

    def call_for(self, node: Node) -> Callable[..., Any]:
        """What gives the outputs that a node has in a plan."""
        return self.call if self.giving is None else self.giving(frozenset(node.out_ports))

    is_shared: bool = True
    arrays: bool = False
    unfinished: Unfinished | None = None


def bound_function(function: Callable[..., Any], node: Node) -> Callable[..., Any]:
    """The function with its config; the function itself when it has none, so that a call costs nothing more."""
    fields = {name: getattr(node.config, name) for name in type(node.config).model_fields}
    return partial(function, **fields) if fields else function


def starts_new(adapter: Adapter, context: LoadContext) -> bool:
    """Whether an adapter has no weights to start from, as a host that is new or asked to be random."""
    return adapter.source is None or (context.init == "random" and not adapter.source.has_weights)


FileCall = Callable[[Mapping[str, Any]], Mapping[str, Any]]  # numpy arrays by the names of inputs -> those of outputs by theirs


class StaleLoad(ModelgraftError):
    """What was loaded has been harmed since, and was let go of: who asked loads it anew, and asks again."""


@runtime_checkable
class Backend(Protocol):
    """What runs nodes: torch, ONNX Runtime, or what a plugin brings. A pipeline makes one of each that its plan names.

    What a check or a plan must know is said with `register_backends`, before anything is imported. The class inherits from
    this one and has at least `load`; every other method has an answer here that suits a backend with nothing to say. Importing
    its module is light: torch and its like are imported by `load`, because `recorded` is asked for a plan, without loading.

        class Shouting(Backend):
            name = "shouting"

            def load(self, context, shared):
                loaded = open_backend(context.registry, "torch").load(context, shared)
                return replace(loaded, call=lambda *values: loaded.call(*map(aloud, values)))
    """

    name: str

    def load(self, context: LoadContext, shared: Mapping[str, Loaded]) -> Loaded:
        """Load one node, so that it can be called from any thread.

        context  the node, its device, dtype and precision, its weights, and what is allowed; the device is one of those that
                 the backend knows, and not "auto"
        shared   the nodes that are loaded already, by name: a node with `share` takes the weights of the one that it names

        A node of a backend that fuses may stand for several: then `context.of(part)` is the context of each of `node.parts`.

        Raises InputError for what this machine or this backend lacks, SourceError for weights that do not fit, GraphError
        `not-exportable` for a node that it cannot run; with `context.fallback == "torch"` it hands such a node to the torch
        backend, and says so among the warnings. Whatever else it raises is told as a defect of the component.
        """
        ...

    def begin(self, node: Node, *, precision: str, threads: int | None) -> bool:  # noqa: ARG002 for those who can begin
        """Begin with what takes long about a node that is about to be loaded on the CPU, in a thread; say whether it needs no torch.

        precision  of its weights, or else its dtype;  threads  that it may compute with; None: what the backend finds best

        Where one of the nodes needs it, torch is imported meanwhile. The load need not follow: `close` frees what was begun. What it
        raises is not told: the load raises it again.
        """
        return False

    def close(self) -> None:
        """Free what the backend holds beside its nodes, each of which is closed before."""

    def auto_device(self, device: str) -> str:
        """Where nodes run when nobody says it, on a machine on which torch would take `device`, such as "cuda:0".

        Gives `device`, or another with a RuntimeWarning that says why.
        """
        return device

    def why_not(self) -> str:
        """What is missing on this machine for it to run anything, in words; "" when nothing is. Asked where nobody has chosen a backend."""
        return ""

    def recorded(self, node: Node, *, precision: str) -> Mapping[str, Any]:  # noqa: ARG002 for those who have something to tell
        """What an earlier load has left behind of a node: told by `modelgraft plan`, and worked out without loading anything.

        A mapping with `parity` (how far it is from torch: the fields of Parity; `how` beside them says what was done, where that
        is not "exported") and `weights` (how they are held, in words); `kept` is False where nothing is there and a load would make
        it. Empty when nothing is known.
        """
        return {}

    def describe(self) -> str:
        """What the backend runs on here, such as a library with its version, in a few words: told by `modelgraft plugins info`."""
        return ""

    def open_file(self, path: Path, *, threads: int | None) -> FileCall:  # noqa: ARG002 likewise
        """Open a file that computes, such as an ONNX graph, as the backend opens its own: with its threads, and as these wait for work.

        threads  to compute with; None: what the backend finds best

        It runs on the CPU, and may be called from any thread. Asked of backends that are registered with `opens`, for files with
        one of these endings. Raises PluginError where its library is missing, InputError for a file that it cannot read.
        """
        raise InputError(f"the {self.name} backend opens no files")

    def export(self, plan: Plan, folder: Path, *, warnings: Sequence[str]) -> Mapping[str, Any]:  # noqa: ARG002 likewise
        """Write what the loaded nodes of a plan run into an empty folder, as something that runs without modelgraft.

        warnings  what was said of their loads: it belongs into the manifest

        Gives the manifest, which lies in the folder too: `segments`, each with its `nodes`, `folder`, `precision` and `parity`;
        `not_exported`, the component of each node that is left out, by its name; and `warnings`.

        Asked of backends that are registered with `exports=True`. Raises InputError when nothing of the plan runs here,
        StaleLoad when something that was loaded must be loaded anew.
        """
        raise InputError(f"the {self.name} backend writes nothing for others")


class _Plain(Backend):
    """A backend of a plugin that has `load`, and perhaps `close`, and nothing else to say."""

    def __init__(self, name: str, backend: Any) -> None:  # Any: the plugin's own class
        self.name, self._backend = name, backend

    def load(self, context: LoadContext, shared: Mapping[str, Loaded]) -> Loaded:
        loaded: Loaded = self._backend.load(context, shared)
        return loaded

    def close(self) -> None:
        if isinstance(self._backend, Close):
            self._backend.close()


def open_backend(registry: Registry, name: str) -> Backend:
    """Make a backend that is registered.

    Raises PluginError for one that no plugin offers, for one that cannot be imported or made, and for what loads nothing.
    """
    target = registry.backend(name).target
    module, _, attribute = target.partition(":")
    try:
        with contained():
            made = getattr(importlib.import_module(module), attribute)()
    except ModelgraftError:
        raise
    except Exception as error:  # code of a plugin may raise anything while it is imported
        text, at = error if isinstance(error, ImportError) else said(error), place_of(error, module)
        raise PluginError(f"the backend '{name}' ({target}) cannot be imported: {text}" + (f"\n    see {at}" if at else "")) from error
    if not callable(getattr(made, "load", None)):
        raise PluginError(f"the backend '{name}' ({target}) has no method load: let it inherit from modelgraft.plugin.Backend")
    return made if isinstance(made, Backend) else _Plain(name, made)
