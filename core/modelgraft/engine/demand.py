"""What one record needs beside weights, at least, as it is known before a run: a run that cannot fit is refused before it begins.

It is a lower bound: values on wires of which the check has found all sizes, and what components say that they work with
(`Config.working`). So nothing is refused that would have fit.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from modelgraft.kernel.words.plan import Step
from modelgraft.kernel.words.ports import BATCH, Port, Tensor
from modelgraft.records.amounts import in_bytes
from modelgraft.records.room import ASKED_BYTES, free_bytes, refuse_without_room

LEAST_BYTES: Mapping[str, int] = {"float": 2}  # the least of the dtypes that a word accepts; of others 1


@dataclass(frozen=True, slots=True)
class Demand:
    """The most that a node is known to need at once for one record, beside its weights.

    what  the value, or the setting that decides it;  bytes  at least
    """

    node: str
    what: str
    device: str
    bytes: int

    def refuse(self, count: int) -> None:
        """Raise InputError where so many records need more than there is."""
        if self.bytes * count < ASKED_BYTES:  # of most runs, which it costs next to nothing
            return
        way = "choose a smaller number there" if count == 1 else "take fewer records at once, or choose a smaller number there"
        records = "" if count == 1 else f"{count:,} records of "
        refuse_without_room(f"{self.node}: {records}{self.what}", self.bytes * count, self.device, way=way)

    def told(self) -> str:
        """What a plan says of it; "" for what fits."""
        free = free_bytes(self.device)
        if free is None or self.bytes <= free:
            return ""
        return f"{self.node}: {self.what} take at least {in_bytes(self.bytes)} for a record, and {self.device} has {in_bytes(free)} left"


NO_DEMAND = Demand("", "", "cpu", 0)


def most_demanding(steps: Iterable[Step]) -> Demand:
    """What needs the most for a record, of all that is known of some steps."""
    return max((one for step in steps for one in _demands(step)), key=lambda one: one.bytes, default=NO_DEMAND)


def _demands(step: Step) -> Iterable[Demand]:
    node = step.node
    for name, port in node.out_ports.items():
        yield Demand(node.name, f"the numbers of {name}, {port},", step.device, _size_of(port))
    for what, size in node.config.working().items():
        yield Demand(node.name, what, step.device, size)


def _size_of(port: Port) -> int:
    """The bytes of one record of a tensor whose sizes are all known; else 0."""
    if len(port.types) != 1 or not isinstance(port.type, Tensor):
        return 0
    sizes = [None if axis is None else axis.size for axis in port.type.bind({BATCH: 1}).axes]
    known = [size for size in sizes if size is not None]
    return _item(port.type.dtype) * math.prod(known) if len(known) == len(sizes) else 0


def _item(dtype: str) -> int:
    digits = "".join(filter(str.isdigit, dtype))
    return int(digits) // 8 if digits else LEAST_BYTES.get(dtype, 1)
