"""A plan as people see it: a table, a line, and HTML for notebooks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from modelgraft.engine.asking import asked_by
from modelgraft.kernel.words.plan import Plan, Step
from modelgraft.records import markup
from modelgraft.records.amounts import UNKNOWN, exact_count, in_bytes, short_count

PLAN_HEADS = ("node", "kind", "component", "parameters", "trained", "bytes", "runs on", "outputs")  # of the table of a plan
PLAN_NUMBERS = frozenset({3, 4, 5})  # the columns of it that are numbers


@runtime_checkable
class Elsewhere(Protocol):
    """A config of what another machine computes: what its node reads leaves this one, and a plan says so."""

    @property
    def elsewhere(self) -> str:
        """Which machine, in a few words, such as `server https://host`."""
        ...


def rows(plan: Plan) -> list[tuple[str, ...]]:
    """A plan as a table under HEADS: a row for each step in the order in which they run, and the totals."""
    totals, asked = plan.totals, asked_by(plan.graph.nodes)
    sums = exact_count(totals.parameters), exact_count(totals.trainable), in_bytes(totals.bytes)
    return [
        *(_row(step, asked) for step in plan.steps),
        ("total", "", f"{len(plan.steps)} node{'s' * (len(plan.steps) != 1)}", *sums, "", ""),
    ]


class ShownPlan(Plan):
    """A plan that displays itself."""

    __slots__ = ()

    def __repr__(self) -> str:
        totals, count = self.totals, len(self.steps)
        parameters = UNKNOWN if totals.parameters is None else short_count(totals.parameters)
        trained = UNKNOWN if totals.trainable is None else short_count(totals.trainable)
        nodes = f"{count} node{'s' * (count != 1)}"
        return f"<Plan {self.graph.name}: {nodes}, {parameters} parameters ({trained} trained), {in_bytes(totals.bytes)}>"

    def _repr_html_(self) -> str:
        """The table, for notebooks."""
        left_out = markup.faint(f"left out, because no wanted output needs them: {', '.join(self.pruned)}") if self.pruned else ""
        said = "".join(markup.faint(f"warning: {warning}") for warning in self.graph.warnings)
        table = markup.table(PLAN_HEADS, rows(self), right=PLAN_NUMBERS, last=True)
        return markup.title(self.graph.name, self.graph.graph.doc) + table + left_out + said


def _row(step: Step, asked: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    node, counted = step.node, step.parameters
    shapes = ", ".join(f"{name}: {shape}" if len(step.shapes) > 1 else shape for name, shape in step.shapes.items())
    has_weights = counted.total != 0
    total = exact_count(counted.total) if has_weights else "-"
    trained = exact_count(counted.trainable) if has_weights else "-"
    where = node.config.elsewhere if isinstance(node.config, Elsewhere) else "python"
    if node.component.module is not None:
        where = f"{step.backend} {step.device} {step.precision or step.dtype}"
    name = f"{node.name} (= {node.share})" if node.share else node.name
    name += f" (each {', '.join(asked[node.name])})" if node.name in asked else ""
    return name, node.component.kind, node.component.id, total, trained, in_bytes(step.bytes) if has_weights else "-", where, shapes
