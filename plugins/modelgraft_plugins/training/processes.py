"""Several processes of one training, as `accelerate launch` starts them: each takes its part of every batch, and the first alone writes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import gather_object

from modelgraft.plugin import InputError, option

T = TypeVar("T")
K = TypeVar("K")

PATIENCE = timedelta(days=2)  # one of them may write features for hours, while the others wait
LONE = (  # what one process is told that was to be one of several
    "accelerate starts one process alone where the CPU trains, unless mpirun joins several; "
    f"start them by: torchrun --nproc_per_node 2 -m modelgraft train GRAPH, with {option('device', 'cpu')}"
)


@dataclass(frozen=True, slots=True)
class Processes:
    """The processes that train together; one, where nobody has started several.

    index  of this one, from 0 on;  count  of all;  device  what is exchanged lies here
    """

    index: int
    count: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this one writes and tells."""
        return self.index == 0

    def wait(self) -> None:
        """Come here together."""
        if self.count > 1:
            with self._together():
                PartialState().wait_for_everyone()

    def part(self, numbers: Sequence[T]) -> list[T]:
        """What of a batch is this one's: every so many, so that records of like length are shared out evenly."""
        return list(numbers[self.index :: self.count])

    def sums(self, values: Sequence[float]) -> list[float]:
        """Numbers of each, added up over all."""
        if self.count == 1:
            return list(values)
        found = torch.tensor(values, dtype=torch.float64, device="cpu" if self.device.type == "cpu" else self.device)
        with self._together():
            torch.distributed.all_reduce(found)
        return [float(value) for value in found]

    def shares(self, counts: Sequence[int]) -> list[float]:
        """What the mean loss of each batch here weighs in the mean of all records of these batches; each batch weighs the same."""
        totals = self.sums([float(count) for count in counts])
        there = sum(total > 0 for total in totals)
        return [count / total / there if total else 0.0 for count, total in zip(counts, totals, strict=True)]

    def add_gradients(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Let every process have the sum of the gradients of all; one that no process has stays away."""
        if self.count == 1:
            return
        has = self.sums([float(one.grad is not None) for one in parameters])
        there = [one for one, count in zip(parameters, has, strict=True) if count]
        for one in there:
            one.grad = torch.zeros_like(one) if one.grad is None else one.grad
        flat = torch.cat([one.grad.reshape(-1) for one in there if one.grad is not None])
        with self._together():
            torch.distributed.all_reduce(flat)
        for one, grad in zip(there, torch.split(flat, [one.numel() for one in there]), strict=True):
            one.grad = grad.view_as(one)

    def merged(self, mine: dict[K, Any]) -> dict[K, Any]:
        """The mappings of all in one."""
        if self.count == 1:
            return mine
        with self._together():
            return {key: value for one in gather_object([mine]) for key, value in one.items()}

    @contextmanager
    def _together(self) -> Iterator[None]:
        """Raise InputError where another process does not come."""
        try:
            yield
        except RuntimeError as error:  # what torch raises has no type of its own
            told = f"another of the {self.count} processes that train together has ended, and says why"
            raise InputError(f"{told}; {option('resume')} goes on from the last checkpoint") from error


def processes(*, on_cpu: bool) -> Processes:
    """The processes that were started together, which find each other in the first call. Raises InputError for one that finds no other."""
    state = PartialState(cpu=on_cpu, timeout=PATIENCE)
    if state.num_processes == 1 and _was_one_of_several():
        raise InputError(LONE)
    return Processes(state.process_index, state.num_processes, state.device)


def _was_one_of_several() -> bool:
    """Whether accelerate's launcher was asked for several processes: it says where they meet, and not how many there are."""
    return {"ACCELERATE_USE_CPU", "MASTER_PORT"} <= os.environ.keys() and "WORLD_SIZE" not in os.environ
