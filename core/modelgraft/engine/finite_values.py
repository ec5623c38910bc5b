"""NaN and infinity are told where they begin: at the first call of a node that gives some and was given none."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from modelgraft.engine.backend import Call
from modelgraft.engine.inplace import Tell
from modelgraft.kernel.words.graph import Node
from modelgraft.kernel.words.ports import Tensor
from modelgraft.records.owning import is_array, is_tensor, unusual_layout

NAN, INFINITY = "NaN", "infinity"


def gives_floats(node: Node) -> bool:
    """Say whether a node has an output of floating numbers."""
    return any(isinstance(port.type, Tensor) and port.type.dtype.startswith(("float", "bfloat")) for port in node.out_ports.values())


def looked_at_once(call: Call, node: Node, *, seen: set[str], state: Callable[[], Any], tell: Tell) -> Call:
    """Look at what the first call gives.

    seen   the names of the nodes that were looked at
    state  gives the torch module behind the node, or None
    """

    def run(*arguments: Any) -> Any:
        result = call(*arguments)
        if node.name not in seen:
            seen.add(node.name)
            _look(node, arguments, result, state, tell)
        return result

    return run


def _look(node: Node, arguments: Iterable[Any], result: Any, state: Callable[[], Any], tell: Tell) -> None:
    given = result if isinstance(result, Mapping) and len(node.out_ports) > 1 else {next(iter(node.out_ports)): result}
    odd = {name: kind for name, value in given.items() if (kind := _odd(value))}
    if not odd:
        return
    came_in = {_odd(value) for value in arguments}
    weights = {} if NAN in came_in else {name: kind for name, value in _parameters(state()) if (kind := _odd(value))}
    if weights:
        first, what = next(iter(weights.items()))
        more = f" and {len(weights) - 1} more" if len(weights) > 1 else ""
        tell(f"its weights hold {what} ({first}{more}), and so does what it gives ({next(iter(odd))}): the checkpoint is damaged", True)
    elif NAN in odd.values() and NAN not in came_in:
        name = next(name for name, kind in odd.items() if kind == NAN)
        cause = "it was given infinity" if INFINITY in came_in else "all that it was given are numbers"
        tell(f"its output {name} holds NaN, and {cause}: look for values too large for its dtype (float16 ends at 65504)", False)


def _parameters(module: Any) -> Iterable[tuple[str, Any]]:
    return module.named_parameters() if module is not None else ()


def _odd(value: Any) -> str:
    """What a tensor or an array of floating numbers holds that is no number, NaN before infinity; nothing for one that is sound."""
    if is_tensor(value) and value.is_floating_point():
        if value.element_size() == 1 or unusual_layout(value):  # 8 bits, which torch cannot look at, or not plain: for the check to tell
            return ""
        return "" if bool(value.isfinite().all()) else NAN if bool(value.isnan().any()) else INFINITY
    if is_array(value) and value.dtype.kind == "f":
        import numpy

        return "" if bool(numpy.isfinite(value).all()) else NAN if bool(numpy.isnan(value).any()) else INFINITY
    return ""
