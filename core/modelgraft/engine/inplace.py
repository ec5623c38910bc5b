"""Nodes that write to what they are given: found at their first call, and given copies from then on.

The first call of each node gets copies of its arguments, which are compared with them afterwards, as is torch's count of
writes to them: so a node that works in place changes nothing that another node, the cache or the user holds, whatever the
order of the nodes is. What keeps its hands off is given the values themselves later, at no cost. A node that writes only
now and then is found by the count of writes where its calls are long enough to be looked at, or at any call with `debug`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import is_
from time import perf_counter
from typing import Any

from modelgraft.engine.backend import Call
from modelgraft.kernel.words.errors import NodeError, choices
from modelgraft.kernel.words.graph import Node
from modelgraft.records.owning import is_array, is_picture, is_tensor, own, twin
from modelgraft.records.record import Record

Tell = Callable[[str, bool], None]  # (what was found, whether it is so in every run)


@dataclass(slots=True)
class Habits:
    """What is known of the nodes of a pipeline, by name.

    tidy     leave what they are given as it is
    writing  do not: the ports that they write to
    spent    the seconds that copies and comparisons took in the calls since they were last counted
    """

    tidy: set[str] = field(default_factory=set)
    writing: dict[str, tuple[str, ...]] = field(default_factory=dict)
    spent: dict[str, float] = field(default_factory=dict)


def apart(call: Call, node: Node, *, habits: Habits, is_watched: bool, is_strict: bool, tell: Tell) -> Call:
    """Wrap what runs a node so that it cannot change what others hold; the call itself when there is nothing to fear.

    is_watched  its later calls are long enough to be looked at;  is_strict  every call is looked at as the first is
    """
    ports = tuple(name for name in node.in_ports for _ in (node.wired.get(name) or (None,)))
    if not ports or (node.name in habits.tidy and not is_watched and not is_strict):
        return call

    def run(*arguments: Any) -> Any:
        if node.name in habits.writing:
            return call(*own(list(arguments), twin))
        if node.name in habits.tidy and not is_strict:
            return _watched(call, node, ports, arguments, habits)
        start = perf_counter()
        given = own(list(arguments), twin)
        marks = [_counts(value) for value in given]
        before = perf_counter()
        result = call(*given)
        after = perf_counter()
        counted = [port for port, value, mark in zip(ports, given, marks, strict=True) if _counts(value) != mark]
        written = tuple(dict.fromkeys([*counted, *written_ports(ports, arguments, given)]))
        habits.spent[node.name] = before - start + perf_counter() - after
        if written:
            habits.writing[node.name] = written
            tell(_told(node, written), True)
        else:
            habits.tidy.add(node.name)
        return result

    return run


def written_ports(ports: Sequence[str], before: Sequence[Any], after: Sequence[Any]) -> tuple[str, ...]:
    """The ports whose values are not what they were, each once."""
    return tuple(dict.fromkeys(port for port, was, now in zip(ports, before, after, strict=True) if not unchanged(was, now)))


def _told(node: Node, written: Sequence[str]) -> str:
    plugin = f"plugin '{node.component.plugin}': " if node.component.plugin else ""
    return f"{plugin}{node.component.id} writes to its input {choices(written)} in place; it is given a copy in every run, which takes time"


def _watched(call: Call, node: Node, ports: Sequence[str], arguments: Sequence[Any], habits: Habits) -> Any:
    """Call with aliases of the tensors, each with a count of writes of its own, and the lists as they are."""
    handed = [value if type(value) is list or not _is_counted(value) else value.data for value in arguments]
    marks = [value.copy() if type(value) is list else value._version if _is_counted(value) else None for value in handed]
    result = call(*handed)
    if not all(map(_is_as_marked, handed, marks)):
        written = tuple(port for port, value, mark in zip(ports, handed, marks, strict=True) if not _is_as_marked(value, mark))
        habits.writing[node.name] = written
        text = f"{_told(node, written)}. It had not done so before, so what others got of it in this run is not to be trusted: run it again"
        raise NodeError(f"node '{node.name}': {text}", node=node.name, component=node.component.id)
    return result


def _is_counted(value: Any) -> bool:
    """Whether torch counts what is written to a tensor; it does not for those of its inference mode."""
    return is_tensor(value) and not value.is_inference()


def _counts(value: Any) -> list[int]:
    """Torch's counts of writes in a value: a `relu_` of what is positive already changes nothing this time, and will another time."""
    if _is_counted(value):
        return [value._version]
    if isinstance(value, Record):
        value = value.parts()
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return [count for part in parts for count in _counts(part)]


def _is_as_marked(value: Any, mark: Any) -> bool:
    if type(mark) is list:
        return len(value) == len(mark) and all(map(is_, value, mark))
    return mark is None or bool(value._version == mark)


# -- equal to the last bit ----------------------------------------------------------------------------------------------


def unchanged(was: Any, now: Any) -> bool:
    """Whether two values have the same content, NaN equal to itself; of a type that is not known, whether they are one."""
    if was is now:
        return True
    if is_picture(was) and is_picture(now):  # a copy of one from a file has another class
        return bool(was.size == now.size and was.mode == now.mode and was.tobytes() == now.tobytes())
    if type(was) is not type(now):
        return is_tensor(was) and is_tensor(now) and _same_tensor(was, now)
    if is_tensor(was):
        return _same_tensor(was, now)
    if is_array(was):
        return bool(was.shape == now.shape and was.dtype == now.dtype and was.tobytes() == now.tobytes())
    if isinstance(was, Record):
        return unchanged(was.parts(), now.parts())
    if isinstance(was, Mapping):
        return list(was) == list(now) and all(unchanged(was[name], now[name]) for name in was)
    if isinstance(was, list | tuple):
        return len(was) == len(now) and all(unchanged(one, other) for one, other in zip(was, now, strict=True))
    return bool(was == now)


def _same_tensor(was: Any, now: Any) -> bool:
    import torch

    if was.shape != now.shape or was.dtype != now.dtype or was.layout != now.layout:
        return False
    if was.layout != torch.strided or was.is_quantized:
        return True  # a copy of such a tensor is written to, if anything is
    flat = [value.detach().reshape(-1) for value in (was, now)]
    return bool(torch.equal(*(value.contiguous().view(torch.uint8) for value in flat))) if flat[0].numel() else True
