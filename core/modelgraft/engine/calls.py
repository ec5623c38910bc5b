"""What stands between a plan and the code of a node: lists of wires, and the check of what the code gave.

Each function wraps a call into another one. Which wrappers a node gets is decided when its plan is made ready, so that
a run pays only for those that it needs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from modelgraft.engine.backend import Call
from modelgraft.engine.forms import is_mask, is_number, may_give_arrays
from modelgraft.kernel.words.errors import Cancelled, NodeError, choices
from modelgraft.kernel.words.graph import Node
from modelgraft.kernel.words.ports import ListOf, Modality, Port, PortType, Tensor
from modelgraft.records import values
from modelgraft.records.absence import ABSENT
from modelgraft.records.batch import Batch, is_whole
from modelgraft.records.owning import is_array, is_tensor, unusual_layout
from modelgraft.records.record_type import Types

Check = Callable[[Any, int], Any]  # (what the code gave, size of the batch) -> the same, or raises


def listed(call: Call, node: Node) -> Call:
    """Join the arguments of each port that is fed by a list of wires: of records, one list per record; of tensors, a list."""
    if not node.lists:
        return call
    shape = [(len(node.wired.get(name) or (None,)), name in node.lists) for name in node.in_ports]

    def run(*arguments: Any) -> Any:
        position, joined = 0, []
        for width, is_list in shape:
            part = arguments[position : position + width]
            joined.append(Batch.gather(part) if is_list else part[0])
            position += width
        return call(*joined)

    return run


def checked(
    call: Call, node: Node, *, count: Callable[[], int], is_stopped: Callable[[], bool], types: Types, on_torch: bool = False
) -> Call:
    """Look at everything that a call gives, and do not start it in a run that was stopped.

    on_torch  what runs it is torch, whatever it could be exported to
    """
    check = check_of(node, types, on_torch=on_torch)

    def run(*arguments: Any) -> Any:
        if is_stopped():
            raise Cancelled(f"stopped before node '{node.name}' ran", node=node.name, component=node.component.id)
        return check(call(*arguments), count())

    return run


def check_of(node: Node, types: Types, *, on_torch: bool = False) -> Check:
    """What looks at the results of a node: each port there, a batch of the right size, of the declared type.

    types  the record types that there are;  on_torch  see `checked`

    Raises NodeError that names plugin, component, node and port, what was found and what was wanted.
    """
    ports = dict(node.out_ports)
    spread = _spread if is_constant(node) else _as_it_is
    if len(ports) == 1:
        ((name, port),) = ports.items()
        look = port_check(node, name, port, types, on_torch=on_torch)
        return lambda result, count: look(spread(port, result, count), count)

    looks = {name: port_check(node, name, port, types, on_torch=on_torch) for name, port in ports.items()}
    together = _asked_together(node)

    def check(result: Any, count: int) -> Any:
        if not isinstance(result, Mapping):
            raise _broken(node, f"it gave {values.describe(result)}, wanted a mapping with {choices(ports)}")
        missing = [name for name, port in ports.items() if name not in result and not port.optional]
        extra = [str(name) for name in result if name not in ports]
        if missing or extra:
            raise _broken(node, f"it gave the outputs {choices(map(str, result))}, wanted {choices(ports)}")
        found = {name: looks[name](spread(port, result.get(name), count), count) for name, port in ports.items()}
        if together is not None:
            together(found)
        return found

    return check


def _asked_together(node: Node) -> Callable[[Mapping[str, Any]], None] | None:
    """What tells of outputs that ask one branch a different number of times; None where no two ask the same."""
    names: dict[str, list[str]] = {}
    for name, port in node.out_ports.items():
        if port.several:
            names.setdefault(port.several, []).append(name)
    several = [ports for ports in names.values() if len(ports) > 1]

    def look(found: Mapping[str, Any]) -> None:
        for first, *others in several:
            for other in others:
                pairs = enumerate(zip(found[first] or (), found[other] or (), strict=False))
                odd = next((index for index, (mine, theirs) in pairs if len(mine) != len(theirs)), None)
                if odd is not None:
                    counts = f"'{first}' asks {len(found[first][odd])} times, '{other}' {len(found[other][odd])}"
                    wanted = f"the same number: both are several '{node.out_ports[first].several}'"
                    raise _broken(node, f"for record {odd} the output {counts}; wanted {wanted}")

    return look if several else None


def is_constant(node: Node) -> bool:
    """Whether nothing feeds a node: it gives one record, which counts for every record of the batch."""
    return not node.wired


def _as_it_is(_port: Port, value: Any, _count: int) -> Any:
    return value


def _spread(port: Port, value: Any, count: int) -> Any:
    """The one record of a constant, once for each of the batch; anything else as it is, for the check to tell."""
    return value if count == 1 or value is None or is_whole(port.type) else Batch(value).spread(count)


def gives_masks(node: Node) -> bool:
    """Say whether a node has an output of truth values, which may come as a list and is made an array."""
    return any(is_mask(port.type) for port in node.out_ports.values())


def port_check(node: Node, name: str, port: Port, types: Types, *, on_torch: bool = False) -> Check:
    """What gives what a node gave for a port, a list of truth values as an array, or raises NodeError when it is not what was declared."""
    if port.several:
        return _asks_check(node, name, port, types)
    if isinstance(kind := port.type, Tensor):
        takes_arrays = may_give_arrays(node, on_torch=on_torch)
        return lambda value, count: None if value is None and port.optional else _check_tensor(node, name, kind, value, count, takes_arrays)
    wrong_record = record_check(kind, types)

    def check(value: Any, count: int) -> Any:
        if value is None and port.optional:
            return None
        if not isinstance(value, list):
            found = f"output '{name}': found {values.describe(value)}, wanted {port}: a list with one record per entry of the batch"
            raise _broken(node, found)
        if len(value) != count:
            raise _broken(node, f"output '{name}': found {_records(len(value))}, wanted {count}, the size of the batch")
        there = [record for record in value if record is not ABSENT] if port.optional else value
        if wrong := wrong_record(there):
            raise _broken(node, f"output '{name}': {wrong}, wanted {port}")
        return value

    return check


def _asks_check(node: Node, name: str, port: Port, types: Types) -> Check:
    """What looks at an output of which each record has any number: a list, with a list or a tensor of its asks for each record."""
    one = port_check(node, name, replace(port, several="", optional=False), types)
    is_tensor = isinstance(port.type, Tensor)

    def check(value: Any, count: int) -> Any:
        if value is None and port.optional:
            return None
        if not isinstance(value, list) or len(value) != count:
            wanted = f"a list of {count}, with a list or a tensor of what it asks for each record of the batch"
            raise _broken(node, f"output '{name}': found {values.describe(value)}, wanted {wanted} ({port}, several)")
        for index, asked in enumerate(value):
            if not (isinstance(asked, list) or (is_tensor and bool(getattr(asked, "ndim", False)))):
                wanted = "a tensor with a row for each of its asks" if is_tensor else "a list of its asks"
                raise _broken(
                    node, f"output '{name}': found {values.describe(asked)} for record {index}, wanted {wanted} ({port}, several)"
                )
        return [asked if isinstance(asked, list) and not asked else one(asked, len(asked)) for asked in value]

    return check


def record_check(kind: PortType, types: Types) -> Callable[[Sequence[Any]], str]:
    """What tells of records which is the first that is no value of a type, as "record 1 is a list of 3"; "" when all are."""
    fits = _fits(kind, types)

    def wrong(records: Sequence[Any]) -> str:
        if all(map(fits, records)):
            return ""
        return next((f"record {index} is {values.describe(record)}" for index, record in enumerate(records) if not fits(record)), "")

    return wrong


def _fits(kind: PortType, types: Types) -> Callable[[Any], bool]:
    """What tells whether a record is a value of a type."""
    if isinstance(kind, ListOf):
        inside = _fits(kind.item, types)
        return lambda record: isinstance(record, list | tuple) and all(map(inside, record))
    return types[kind.name].accepts if isinstance(kind, Modality) else lambda _record: True  # tensors in a list are looked at by who reads


def _check_tensor(node: Node, name: str, kind: Tensor, value: Any, count: int, takes_arrays: bool) -> Any:  # noqa: FBT001 once, here
    is_flags = isinstance(value, list) and is_mask(kind) and all(isinstance(flag, bool) for flag in value)
    if is_flags or (takes_arrays and is_number(value)):
        import numpy

        value = numpy.asarray(value, numpy.bool_ if is_flags else None)
    if not is_tensor(value) and not (takes_arrays and is_array(value)):
        say_so = ", or say arrays=True where it is declared" if is_array(value) else ""
        raise _broken(node, f"output '{name}': found {values.describe(value)}, wanted {kind}: a torch tensor{say_so}")
    if is_array(value) and hasattr(value, "filled"):
        raise _broken(node, f"output '{name}': found a masked array, wanted {kind}: fill what is masked first, array.filled(0)")
    if is_tensor(value) and (lies := unusual_layout(value)):
        raise _broken(node, f"output '{name}': found a tensor whose layout is {lies}, wanted {kind}: numbers beside each other")
    wrong = values.tensor_mismatch(kind, value)
    if not wrong and not is_whole(kind) and kind.axes[0] is not None and len(value) != count:
        wrong = f"it holds {_records(len(value))}, the batch {count}"
    if wrong:
        raise _broken(node, f"output '{name}': found {values.describe(value)}, wanted {kind}: {wrong}")
    return value


def _records(count: int) -> str:
    return "1 record" if count == 1 else f"{count} records"


def _broken(node: Node, found: str) -> NodeError:
    plugin = f"plugin '{node.component.plugin}': " if node.component.plugin else ""
    text = f"{plugin}{node.component.id} breaks its declaration in node '{node.name}': {found}"
    return NodeError(text, node=node.name, component=node.component.id)
