"""A plan as a value: what runs, in which order, what it costs, and when each value is last needed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from modelgraft.kernel.words import markup
from modelgraft.kernel.words.amounts import UNKNOWN, exact_count, in_bytes, short_count
from modelgraft.kernel.words.graph import Node, Ref, SolvedGraph

HEADS = ("node", "kind", "component", "parameters", "trained", "bytes", "runs on", "outputs")  # of the table of a plan
NUMBERS = frozenset({3, 4, 5})  # the columns of it that are numbers


@dataclass(frozen=True, slots=True)
class Parameters:
    """The parameters of a node.

    total, trainable  None when they are not known without building (`plan --exact` builds on the meta device)
    how               "formula", "checkpoint" (counted in the headers of the weight files), "built", or "none"
    """

    total: int | None
    trainable: int | None
    how: str


@dataclass(frozen=True, slots=True)
class Step:
    """One node in a plan.

    lane      the resource it occupies: "cpu", "cuda:0", or "free" for light code
    releases  values that nobody needs after this step
    bytes     size of the weights in the dtype they run in; None when the parameters are not known
    shapes    the type of each output port with every known size filled in, e.g. "float[batch 32 768]"
    key       what the result depends on beside the inputs: a hex digest, or "" when it must not be cached
    reads     the inputs of the graph that its result depends on
    precision of its weights where that is not the dtype, such as "int8"; "" otherwise
    threads   that it computes with, on a backend that gives each node its own; None: as many as the backend takes by itself
    fuses     its backend runs connected steps as one call
    """

    node: Node
    parameters: Parameters
    bytes: int | None
    backend: str
    device: str
    dtype: str
    lane: str
    releases: tuple[Ref, ...]
    shapes: Mapping[str, str]
    key: str
    reads: tuple[str, ...]
    precision: str = ""
    threads: int | None = None
    fuses: bool = False


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over the steps of a plan; weights that two nodes share count once. None when a part is not known."""

    parameters: int | None
    trainable: int | None
    bytes: int | None


@dataclass(frozen=True, slots=True, repr=False)
class Plan:
    """What will run for the wanted outputs.

    wanted   the outputs by name, and what gives each: declared outputs, or any port as "node.port"
    steps    in the order in which they run; the order does not depend on the order in the file
    pruned   the nodes that the wanted outputs do not need
    limits   the most bytes that loaded nodes may take, by device
    """

    graph: SolvedGraph
    wanted: Mapping[str, Ref]
    steps: tuple[Step, ...]
    pruned: tuple[str, ...]
    totals: Totals
    limits: Mapping[str, int] = field(default_factory=dict)

    @property
    def nodes(self) -> Mapping[str, Step]:
        """The steps by the name of their node."""
        return {step.node.name: step for step in self.steps}

    def rows(self) -> list[tuple[str, ...]]:
        """The plan as a table under HEADS: a row for each step in the order in which they run, and the totals."""
        totals = self.totals
        sums = exact_count(totals.parameters), exact_count(totals.trainable), in_bytes(totals.bytes)
        return [*map(_row, self.steps), ("total", "", f"{len(self.steps)} nodes", *sums, "", "")]

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
        return (
            markup.title(self.graph.name, self.graph.graph.doc)
            + markup.table(HEADS, self.rows(), right=NUMBERS, last=True)
            + left_out
            + said
        )


def _row(step: Step) -> tuple[str, ...]:
    node, counted = step.node, step.parameters
    shapes = ", ".join(f"{name}: {shape}" if len(step.shapes) > 1 else shape for name, shape in step.shapes.items())
    has_weights = counted.total != 0
    total = exact_count(counted.total) if has_weights else "-"
    trained = exact_count(counted.trainable) if has_weights else "-"
    where = f"{step.backend} {step.device} {step.precision or step.dtype}" if node.component.module is not None else "python"
    name = f"{node.name} (= {node.share})" if node.share else node.name
    return name, node.component.kind, node.component.id, total, trained, in_bytes(step.bytes) if has_weights else "-", where, shapes
