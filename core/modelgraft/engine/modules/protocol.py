"""The module protocol: what a component's module, or what its `load` gives, may have beside the call itself.

Each is a protocol of one method, and none is needed: a module that has the method is asked, at the moment that is said here. A name
that nobody asks for does nothing, so `modelgraft.testing.conform` tells of those that look misspelt, and of other signatures.

    built         without memory (parameters on the meta device, buffers real), where a checkpoint fills it
    filled        `from_checkpoint`, `optional_keys`, then `after_load`; not for random numbers, which the constructor draws
    adapted       `for_adapters`, then the adapters of the node
    placed        frozen, on its device, in its dtype, for inference
    exported      `as_graph`, by the backend onnx, in place of tracing
    prepared      `prepare`; then `bind`, where the module runs by itself; `close` when its pipeline closes

What one raises: SourceError for files that are not as they should be, InputError for what a user asks for; anything else is told as
a defect of the plugin.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

    from modelgraft.engine.backend import LoadContext
    from modelgraft.engine.run import NodeRuntime
    from modelgraft.sources.weights import Weights


@runtime_checkable
class FromCheckpoint(Protocol):
    """A module whose tensors have other names, or another layout, in files."""

    def from_checkpoint(self, weights: Weights) -> Mapping[str, Tensor]:
        """Give the tensors of a checkpoint under the names of this module's `state_dict()`.

        Called once, on the module as it was built without memory: its own names, shapes and config are there, its numbers are not.
        Without it, the names in the files are taken for those of the module. What a file has over is given too, under any name, so
        that it is told; a tensor that is left out on purpose is not given.
        """
        ...


@runtime_checkable
class OptionalKeys(Protocol):
    """A module that a checkpoint need not fill whole."""

    @property
    def optional_keys(self) -> Collection[str]:
        """Names of `state_dict()` that may stay as they were built: of buffers, or of weights that `after_load` ties to others."""
        ...


@runtime_checkable
class AfterLoad(Protocol):
    """A module that puts its tensors in order once it holds them."""

    def after_load(self) -> None:
        """Tie weights, compute what follows from them. Called once, after the tensors of a checkpoint, or of a node whose weights
        it shares, came in, before they are brought to the dtype of the run."""
        ...


@runtime_checkable
class KeepsStored(Protocol):
    """A module that an export can be made of while its weights are in the dtypes of their file."""

    @property
    def keeps_stored(self) -> bool:
        """Whether it is one. Asked once, after `after_load`, when it is loaded to be exported: its weights then stay mapped, and are
        brought over a layer at a time where it computes (`modelgraft.plugin.in_turn`)."""
        ...


@runtime_checkable
class ForAdapters(Protocol):
    """A module that has another form for those who change it."""

    def for_adapters(self) -> Module:
        """Give the module that adapters are grafted into, by its layers' names and classes; it may be this one. Called once, when
        the node has adapters, before the first."""
        ...


@runtime_checkable
class AsGraph(Protocol):
    """A module that can write what it computes as an ONNX graph, so that exporting it needs no tracing."""

    def as_graph(self, graph: Any, *inputs: Any) -> Any:
        """Write it, and give what the module gives as values of the graph, a mapping by name where it has several outputs.

        graph    takes nodes, and names tensors as `state_dict()` does: `GraphWriting` of `modelgraft_plugins.graph_writing`
        inputs   values, in the order of the ports; None for those that are unwired

        None says that this one must be traced; what was written until then is of no use. Called when an export is made.
        """
        ...


@runtime_checkable
class Prepare(Protocol):
    """A module that needs more than its weights, such as a tokenizer."""

    def prepare(self, context: LoadContext) -> None:
        """Open the files beside the weights. Called once, at the end of the load, with the context that the node was loaded in;
        `context.weights` is None where there is no checkpoint."""
        ...


@runtime_checkable
class Bind(Protocol):
    """Code that asks something of the run it serves: its seed, whether it was stopped, who listens."""

    def bind(self, runtime: NodeRuntime) -> None:
        """Take the runtime of the node, once, before the first call; what it says follows the run that is under way."""
        ...


@runtime_checkable
class Gives(Protocol):
    """What a `load` function gave, of a component with `taps`: outputs that cost something and that nobody may read."""

    def giving(self, wanted: frozenset[str]) -> Callable[..., Any]:
        """The call that gives these outputs, a mapping by name. The object itself, called, gives all of them."""
        ...


@runtime_checkable
class Close(Protocol):
    """What a `load` function gave, when it holds files, processes or device memory."""

    def close(self) -> None:
        """Give them back. Called once, when the pipeline closes or lets go of the node; nothing is called after it."""
        ...


@runtime_checkable
class Warns(Protocol):
    """What a `load` function gave, when a user must know something about the load."""

    @property
    def warnings(self) -> Sequence[str]:
        """Sentences that name the node; asked for once, after the load."""
        ...


# What a module is asked for, and what the callable of a `load` function is. Any: a protocol class has no type of its own.
OF_MODULES: Mapping[str, Any] = {
    "from_checkpoint": FromCheckpoint,
    "optional_keys": OptionalKeys,
    "after_load": AfterLoad,
    "keeps_stored": KeepsStored,
    "for_adapters": ForAdapters,
    "as_graph": AsGraph,
    "prepare": Prepare,
    "bind": Bind,
}
OF_CODE: Mapping[str, Any] = {"bind": Bind, "close": Close, "giving": Gives, "warnings": Warns}
