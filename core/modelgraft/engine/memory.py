"""What a pipeline holds, as a table: each node and each thing that is kept, with its bytes on each device, planned and measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from modelgraft.engine.ledger import Holding, Ledger
from modelgraft.kernel.words.plan import Step
from modelgraft.kernel.words.sizes import named
from modelgraft.records import markup
from modelgraft.records.amounts import in_bytes

MEMORY_HEADS = ("what", "device", "planned", "measured", "state")
NUMBERS = frozenset({2, 3})  # the columns that are numbers


@dataclass(frozen=True, slots=True)
class MemoryRow:
    """What one node, or one thing that is kept, takes on a device.

    planned   None when it is not known;  measured  None when it is not loaded, or cannot be measured
    state     "stays", "in use", "may go", or "not loaded"
    """

    what: str
    device: str
    planned: int | None
    measured: int | None
    state: str

    def cells(self) -> tuple[str, ...]:
        """The row as texts."""
        measured = "-" if self.state == "not loaded" else in_bytes(self.measured)
        return self.what, self.device, in_bytes(self.planned), measured, self.state


@dataclass(frozen=True, slots=True, repr=False)
class Memory:
    """What a pipeline holds now.

    rows   the nodes of its plan, and what is kept beside them
    taken  bytes by device, memory that several hold once;  limits  the most that may be, None where there is no limit
    """

    rows: tuple[MemoryRow, ...]
    taken: Mapping[str, int]
    limits: Mapping[str, int | None]

    def cells(self) -> list[tuple[str, ...]]:
        """The table under HEADS, with a last line for each device."""
        sums = [(f"{device}, all of it", device, "", in_bytes(taken), _of(self.limits[device])) for device, taken in self.taken.items()]
        return [*(row.cells() for row in self.rows), *sums]

    def __repr__(self) -> str:
        told = ", ".join(f"{in_bytes(taken)} on {device}{_of(self.limits[device], ' ')}" for device, taken in self.taken.items())
        lines = [MEMORY_HEADS, *self.cells()]
        widths = [max(len(line[column]) for line in lines) for column in range(len(MEMORY_HEADS))]
        table = "\n".join("  ".join(_aligned(text, column, widths) for column, text in enumerate(line)).rstrip() for line in lines)
        return f"<Memory: {told or 'nothing is held'}>\n{table}"

    def _repr_html_(self) -> str:
        """The table, for notebooks."""
        return markup.table(MEMORY_HEADS, self.cells(), right=NUMBERS)


def _of(limit: int | None, before: str = "") -> str:
    return "" if limit is None else f"{before}of {in_bytes(limit)}"


def _aligned(text: str, column: int, widths: Sequence[int]) -> str:
    return text.rjust(widths[column]) if column in NUMBERS else text.ljust(widths[column])


def memory_of(ledger: Ledger, steps: Iterable[Step]) -> Memory:
    """What a ledger holds, with the steps that are not loaded."""
    holdings = ledger.holdings()
    rows = [row for held in holdings if held.planned != 0 or held.is_measured for row in _rows(held)]
    there = {held.what for held in holdings}
    missing = [step for step in steps if step.node.name not in there and step.parameters.total != 0]
    rows += [MemoryRow(step.node.name, named(step.device), step.bytes, None, "not loaded") for step in missing]
    devices = sorted({row.device for row in rows} | {device for device in ledger.limits if device != "*"})
    return Memory(tuple(rows), {device: ledger.taken(device) for device in devices}, {device: ledger.limit(device) for device in devices})


def _rows(held: Holding) -> Iterable[MemoryRow]:
    state = "in use" if held.uses else "stays" if held.let_go is None else "may go"
    for device in sorted({device for device, _ in held.blocks}):
        size = held.on(device)
        yield MemoryRow(held.what, device, held.planned if device == held.device else 0, size if held.is_measured else None, state)
