"""What a bench found, as values: written as JSON with a versioned schema, read again by `--compare` and `--resume`, drawn by the page.

Seconds, bytes and records are counted in ones; a figure that was not taken is None, and `Cell.untaken` says why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

VERSION = 1  # of the schema: goes up when a figure changes its name or its meaning

State = Literal["measured", "pruned", "failed", "unfinished"]
Better = Literal["higher", "lower"]
Value = str | int | float | bool | None  # of an axis: what a sweep may put in a place


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """A figure that was taken several times.

    low, high  the ends of the 95 % interval of `value`; None where there are too few samples for one
    n          how many samples it is made of
    """

    value: float
    low: float | None = None
    high: float | None = None
    n: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """Why a cell does not fit, or failed: a problem of the checker, or an error of a run.

    code   of the problem, such as "dim-mismatch"; of an error its class
    place  "file:line", or the node; "" when there is none
    """

    code: str
    text: str
    place: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One timed run of a batch.

    round   the number of the round, from 0;  records  how many records it ran
    wall_s, cpu_s  of the call: cpu_s is that of all threads of the process
    first_token_s, per_token_s  None where nothing is written;  tokens  how many were
    """

    round: int
    records: int
    wall_s: float
    cpu_s: float
    first_token_s: float | None = None
    per_token_s: float | None = None
    tokens: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Starts:
    """Seconds from the start of a fresh process to its first answer.

    cold  nothing that modelgraft derives from weights is kept on the disk yet (exports, converted files); downloads are there
    warm  a second process, which finds what the first has kept
    """

    cold: Spread | None = None
    warm: Spread | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """Where the time of a run goes, in seconds of the mean run. `nodes` and `rest` add up to `wall_s` exactly.

    nodes  by node; where nodes overlap, an instant is shared among those that run in it
    rest   what no node does, by name: "inputs" (before the first node), "scheduler" (between nodes), "copies" (between
           devices, where they are known), "waiting" (for a lane or a node that another run holds), "outputs" (after the last)
    overlapped_s  how much longer the nodes took by their own clocks, because they ran beside each other
    """

    wall_s: float
    nodes: Mapping[str, float]
    rest: Mapping[str, float]
    overlapped_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Bytes.

    planned   of weights, as the plan says;  measured  of weights, as the ledger of the pipeline says
    resident  the most that a fresh process took in memory over the first answers;  device  the same by device
    """

    planned: int | None = None
    measured: int | None = None
    resident: int | None = None
    device: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeCost:
    """A node as the plan has it."""

    node: str
    component: str
    backend: str
    parameters: int | None = None
    bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """A cell over the baseline: the median of the ratios within rounds, with a paired bootstrap interval.

    verdict  "no difference seen" when the interval spans 1
    warning  that wall and CPU part, or that the load was high; "" otherwise
    """

    wall: Spread
    cpu: Spread
    verdict: Literal["faster", "slower", "no difference seen", "baseline"]
    warning: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """A metric over the records.

    value, low, high  of this cell, by bootstrap over records, in clusters where several records share a picture
    difference  from the baseline cell on the same records, paired;  n  records;  clusters  how many draws are independent
    """

    metric: str
    output: str
    better: Better
    value: float
    low: float | None = None
    high: float | None = None
    difference: Spread | None = None
    n: int = 0
    clusters: int | None = None
    unit: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordFailure:
    """A record that failed in a cell: counted and listed, and in no figure."""

    record: int
    place: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One composition that was, or was not, measured.

    key      a digest of what the cell means (graph as solved, values of its axes, placement): the same in every file
    values   by axis: "graph", the swept ones, "backend", "precision", "batch", "threads", "device"
    command  the line that measures this cell alone
    p        by percentile, as {"50": s, "90": s}: of `wall_s`, and only those that the number of samples allows
    parity   by output: how far its numbers are from those of the baseline, as a part of the largest (1 - that is "parity")
    agreement  the part of the records whose answers equal those of the baseline
    edges    bytes by wire, as "giver.port -> taker.port", of the mean record
    cached   nodes that the cache spared when the same records were run again, untimed, with in how many of such runs
    warm_ups how many untimed runs came before the first round, beside the one that answered every record
    untaken  by figure: why it is None
    """

    id: str
    key: str
    values: Mapping[str, Value]
    command: str
    state: State
    graph: str
    digest: str = ""
    reasons: Sequence[Reason] = ()
    parameters: int | None = None
    nodes: Sequence[NodeCost] = ()
    memory: Memory = Memory()
    start: Starts = Starts()
    samples: Sequence[Sample] = ()
    wall_s: Spread | None = None
    cpu_s: Spread | None = None
    p: Mapping[str, float] = field(default_factory=dict)
    first_token_s: Spread | None = None
    per_token_s: Spread | None = None
    per_second: Spread | None = None
    shares: Shares | None = None
    edges: Mapping[str, int] = field(default_factory=dict)
    cached: Mapping[str, int] = field(default_factory=dict)
    shared: Sequence[str] = ()
    warm_ups: int = 0
    parity: Mapping[str, float] = field(default_factory=dict)
    agreement: float | None = None
    ratio: Ratio | None = None
    quality: Sequence[Quality] = ()
    failures: Sequence[RecordFailure] = ()
    warnings: Sequence[str] = ()
    untaken: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """How it was measured: all that `--resume` must find unchanged."""

    seed: int = 0
    rounds: int = 0
    warm_ups: int = 0
    cold: int = 1
    precision_target: float | None = None
    budget_s: float | None = None
    stopped_by: str = ""
    share_upstream: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """The machine: what a figure may be compared with."""

    date: str
    versions: Mapping[str, str]
    processor: str
    features: Sequence[str]
    cores: int
    memory: int
    devices: Sequence[str] = ()
    system: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)
    load_before: float | None = None
    load_during: float | None = None
    pressure: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """The records that every cell ran."""

    name: str
    digest: str | None
    records: int
    failed: Sequence[RecordFailure] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """A whole bench. The first measured cell is the baseline."""

    version: int
    command: Sequence[str]
    surroundings: Surroundings
    method: Method
    data: Data
    axes: Mapping[str, Sequence[Value]]
    cells: Sequence[Cell]
    baseline: str = ""
    is_finished: bool = False
    warnings: Sequence[str] = ()
