"""In which form numbers reach code: tensors of torch, or, for what says `arrays=True`, arrays of numpy on the host.

What a node gives may be either, so that nothing is imported of torch by a run in which nobody computes with it. It is brought over here
alone, on its way into a node or to a user, and on the same memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from modelgraft.engine.backend import Call
from modelgraft.kernel.checking.matching import ANYTHING
from modelgraft.kernel.words.graph import Node
from modelgraft.kernel.words.ports import ListOf, Port, PortType, Tensor
from modelgraft.records.arrays import as_array, as_tensor
from modelgraft.records.batch import Batch
from modelgraft.records.owning import is_array, is_tensor

Bring = Callable[[Any], Any]
NUMBERS = frozenset("biuf")  # kinds of dtypes as numpy calls them; its texts have one too


def may_give_arrays(node: Node, *, on_torch: bool = False) -> bool:
    """Whether a node may give arrays: code that says so, a module that a backend may have exported, and whoever gives masks as lists.

    on_torch  no backend has exported it
    """
    component = node.component
    return (
        component.arrays is not False
        or (component.exportable and not on_torch)
        or any(is_mask(port.type) for port in node.out_ports.values())
    )


def is_fed_arrays(node: Node, nodes: Mapping[str, Node]) -> bool:
    """Whether what feeds a node may be arrays.

    nodes  of the graph, by name; of one that is not there nothing is known
    """
    return any(name not in nodes or may_give_arrays(nodes[name]) for name in node.feeders)


def is_number(value: Any) -> bool:
    """Whether a value is a number of numpy's, which its arithmetic gives for an array without axes."""
    return getattr(getattr(value, "dtype", None), "kind", "no") in NUMBERS and not is_array(value)


def is_mask(kind: PortType) -> bool:
    """Whether values of a type are truth values, which code may give as a list."""
    return isinstance(kind, Tensor) and kind.dtype in ("mask", "bool")


def in_form(call: Call, node: Node, *, is_joined: bool = False) -> Call:
    """Call the code of a node with its numbers in the form that it has declared.

    is_joined  of a port that is fed by several wires it is given one list; otherwise an argument for each wire
    """
    bring = _in_array if node.component.arrays else _in_tensor
    wires = [(name, port) for name, port in node.in_ports.items() for _ in ((None,) if is_joined else node.wired.get(name) or (None,))]
    how = [_for_port(port, bring, is_list=is_joined and name in node.lists) for name, port in wires]
    if not any(how):
        return call

    def run(*arguments: Any) -> Any:
        known = how[: len(arguments)]  # who calls it alone may leave the last optional ones out
        return call(*[value if one is None else one(value) for value, one in zip(arguments, known, strict=True)])

    return run


def in_tensors(value: Any) -> Any:
    """What travels on a wire, with a tensor in place of an array."""
    return _of_rows(value, _in_tensor)


def in_tensors_at(port: Port | None, value: Any) -> Any:
    """What was given for a port, with tensors in place of arrays, in lists too where the port is of lists of tensors; None: of no port."""
    bring = None if port is None else _for_port(port, _in_tensor, is_list=False)
    return value if bring is None else _of_rows(value, bring)


def is_tensor_to_be(port: Port, value: Any) -> bool:
    """Whether `in_tensors_at` makes a tensor of a value."""
    return is_array(value) and _for_port(port, _in_tensor, is_list=False) is not None


def _of_rows(value: Any, bring: Bring) -> Any:
    """What travels on a wire brought over, also where it holds some of the records of a run."""
    return replace(value, value=bring(value.value)) if isinstance(value, Batch) else bring(value)


def _for_port(port: Port, bring: Bring, *, is_list: bool) -> Bring | None:
    """What brings over the values of a port; None where these are no tensors.

    A port that takes every value takes tensors too: records of other kinds travel in lists, so an array is what a tensor's port gave.
    """
    kinds = port.types
    if any(map(_has_tensors, kinds)):
        within = is_list or port.several or any(isinstance(kind, ListOf) for kind in kinds)
        return (lambda value: _within(value, bring)) if within else bring
    if any(kind in (ANYTHING, ListOf(ANYTHING)) for kind in kinds):
        return (lambda value: [*map(bring, value)] if isinstance(value, list) else bring(value)) if is_list else bring
    return None


def _has_tensors(kind: PortType) -> bool:
    return _has_tensors(kind.item) if isinstance(kind, ListOf) else isinstance(kind, Tensor)


def _within(value: Any, bring: Bring) -> Any:
    """The same of what lies in lists."""
    return [_within(one, bring) for one in value] if isinstance(value, list) else bring(value)


def _in_tensor(value: Any) -> Any:
    """An array as a tensor; a row of an array with one axis, which is a number of numpy's, as a tensor without axes.

    One that may not be written to, such as a part of a file or of bytes, is copied: torch knows no such tensors, and code that writes to
    one now and then would change what cannot change, or end the process.
    """
    if is_array(value):
        return as_tensor(value if value.flags.writeable else value.copy())
    return as_tensor(value.reshape(1)).reshape(()) if is_number(value) else value


def _in_array(value: Any) -> Any:
    """A tensor on the host as an array, one of a device brought there."""
    return as_array(value.cpu() if is_tensor(value) else value)
