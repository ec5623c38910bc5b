"""What a loaded node takes, measured: the memory of its torch module, and what its backend has noted of other code while it was loaded.

A piece of memory that several names or several nodes have is one block, so that it counts once: it is told by where it begins and ends.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from modelgraft.engine.backend import Loaded
from modelgraft.engine.ledger import Block

if TYPE_CHECKING:
    from torch import Tensor

_METER: ContextVar[dict[Block, int] | None] = ContextVar("meter", default=None)


@contextmanager
def metered() -> Iterator[dict[Block, int]]:
    """Gather what is noted within the block."""
    found: dict[Block, int] = {}
    token = _METER.set(found)
    try:
        yield found
    finally:
        _METER.reset(token)


def note_memory(device: str, size: int, *, block: Hashable = None) -> None:
    """Note that what is being loaded takes bytes on a device, beside the parameters and buffers of its torch module.

    block  what tells them from others: noted of several nodes, it counts once; None: they are the node's own
    """
    meter = _METER.get()
    if meter is not None:
        meter[device, object() if block is None else block] = size


def blocks_of(loaded: Loaded) -> dict[Block, int]:
    """The memory of the parameters and buffers of a node's torch module; nothing where there is none."""
    module = loaded.state
    if module is None or not hasattr(module, "parameters"):
        return {}
    spans: dict[tuple[str, int], list[tuple[int, int]]] = {}
    for tensor in (*module.parameters(), *module.buffers()):
        if not tensor.is_meta and tensor.numel():
            home, start, end = _span(tensor)
            spans.setdefault(home, []).append((start, end))
    return {(device, (base, start)): end - start for (device, base), found in spans.items() for start, end in _apart(found)}


def _span(tensor: Tensor) -> tuple[tuple[str, int], int, int]:
    """The device and the storage of a tensor, and the bytes there that it covers: a file that is mapped is one storage for many."""
    storage: Any = tensor.untyped_storage()  # Any: torch types storages only in part
    start = int(tensor.storage_offset()) * tensor.element_size()
    last = sum((size - 1) * int(stride) for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return (str(tensor.device), storage.data_ptr()), start, start + (last + 1) * tensor.element_size()


def _apart(spans: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Spans that overlap as one."""
    ordered = sorted(spans)
    start, end = ordered[0]
    for first, last in ordered[1:]:
        if first >= end:
            yield start, end
            start, end = first, last
        else:
            end = max(end, last)
    yield start, end
