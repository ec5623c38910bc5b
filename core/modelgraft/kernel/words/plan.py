"""A plan as a value: what runs, in which order, and what it costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from modelgraft.kernel.words.graph import Node, Ref, SolvedGraph


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
