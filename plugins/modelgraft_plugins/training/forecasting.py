"""What a stage will take, before it starts: parameters, bytes, hours by steps that are timed, and what keeping features would save."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from time import perf_counter
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch

from modelgraft.commands import in_bytes
from modelgraft.plugin import ModelgraftError, choices
from modelgraft_plugins.training.tuning import optimizer_bytes

if TYPE_CHECKING:
    from modelgraft_plugins.training.stage import StageRun
    from modelgraft_plugins.training.stepping import Stepper

MOST_TIMED = 20  # steps
ASIDE = 100  # of a stage, one step in so many may be spent on timing


@runtime_checkable
class TellsOfTraining(Protocol):
    """A module that has something to say of how it computes a batch, such as what it computes once for all records."""

    def told_of_training(self) -> str:
        """Of the last batch; "" for nothing."""
        ...


@dataclass(frozen=True, slots=True)
class Forecast:
    """What was counted and timed.

    parameters   that are trained, and of all nodes that are called
    optimizer, activations  bytes;  step_s  of one update, without reading records;  steps  that are left
    shares       of a step, by node that stays as it is;  kept_bytes  of features in float16, 0 where there is nothing to keep
    told         by node, what it says of the last batch: see TellsOfTraining
    """

    stage: str
    trainable: int
    total: int
    optimizer: int
    activations: int
    step_s: float
    steps: int
    records: int
    shares: Mapping[str, float]
    kept_bytes: int
    kept_share: float
    told: Mapping[str, str]

    @property
    def gain(self) -> float:
        """How many times as fast a step is with features."""
        return 1 / max(1e-3, 1 - self.kept_share)

    def lines(self) -> list[str]:
        """As it is told."""
        left = timedelta(seconds=round(self.step_s * self.steps))
        found = [
            f"{self.stage}: trains {self.trainable:,} of {self.total:,} parameters; optimiser and gradients {in_bytes(self.optimizer)}, "
            f"activations {in_bytes(self.activations)}; {self.step_s:.3g} s a step, {self.steps:,} step{'s' * (self.steps != 1)} in {left}"
        ]
        if self.kept_bytes and self.kept_share > 0.05:
            heavy = choices([f"{name} {share:.0%}" for name, share in sorted(self.shares.items(), key=lambda one: -one[1])[:3]], sort=False)
            found.append(
                f"{self.stage}: of a step, what stays as it is takes {self.kept_share:.0%} ({heavy}); "
                f"with `features: float16` a step is {self.gain:.1f} times as fast, for {in_bytes(self.kept_bytes)} on disk"
            )
        return [*found, *(f"{self.stage}: {name}: {text}" for name, text in self.told.items())]


def forecast(run: StageRun, stepper: Stepper) -> Forecast:
    """Time some steps that change nothing, and count."""
    learning, kept = stepper.learning, run.kept
    count = max(1, min(MOST_TIMED, run.total // ASIDE))
    sizes, spent = dict[str, int](), dict[str, float]()

    def look(node: str, port: str, value: Any) -> None:
        if any((node, port) == (ref.node, ref.port) for ref in kept.refs) and isinstance(value, torch.Tensor):
            sizes[f"{node}.{port}"] = value[0].numel() * (2 if value.is_floating_point() else value.element_size())

    with _unchanged(stepper):
        seconds, activations, last = [], 0, None
        for _, numbers in islice(run.data.order.from_batch(run.progress.batch), count + 1):
            batch, ready = run.batch(learning, numbers, run.data.rows)
            if not batch.count:
                continue
            spent.clear()
            learning.spent = spent
            start = perf_counter()
            try:
                activations = max(activations, stepper.rehearse(batch, ready))
            except ModelgraftError as error:
                stepper.optimizer.zero_grad(set_to_none=True)
                learning.spent = None
                run.leave_out(error, learning, numbers, run.data.rows)
                continue
            seconds.append(perf_counter() - start)
            learning.spent, last = None, (batch, ready)
        if last is not None:
            with torch.no_grad():
                learning(last[0], seed=0, ready=last[1], seen=look)
    step_s = min(seconds) * run.stage["accumulate"] if seconds else 0.0
    whole = sum(spent.values()) or 1.0
    share_of_calls = whole / max(seconds[-1], 1e-9) if seconds else 0.0
    shares = {name: took / whole * min(1.0, share_of_calls) for name, took in spent.items() if name in kept.before}
    return Forecast(
        run.stage.name,
        sum(one.parameter.numel() for one in stepper.trained),
        sum({id(p): p.numel() for module in learning.modules.values() for p in module.parameters()}.values()),
        optimizer_bytes(stepper.trained, run.stage),
        activations,
        step_s,
        run.total - run.progress.step,
        len(run.data.rows),
        shares,
        sum(sizes.values()) * len(run.data.rows) if run.features is None else 0,
        sum(shares.values()),
        {
            name: text
            for name, module in learning.modules.items()
            if isinstance(module, TellsOfTraining) and (text := module.told_of_training())
        },
    )


@contextmanager
def _unchanged(stepper: Stepper) -> Iterator[None]:
    """Put back what forward passes change by themselves, such as means of batches."""
    buffers = [buffer for module in stepper.modules.values() for buffer in module.buffers()]
    before = [buffer.detach().clone() for buffer in buffers]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, old in zip(buffers, before, strict=True):
                buffer.copy_(old)
