"""Where the time of runs goes: by node, and what no node does by name, adding up to the whole without a rest.

Time is counted in whole ticks of 2**-40 s, about a picosecond. Such numbers are exact as floating ones, and so are their sums, so
that what is added up again, by whoever reads it, gives the whole to the last bit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from modelgraft_plugins.benching.results import Shares

TICKS = 1 << 40  # in a second
INPUTS, SCHEDULER, OUTPUTS = "inputs", "scheduler", "outputs"

Span = Sequence[object]  # node, start, end: seconds from the beginning of the run


@dataclass(slots=True)
class Account:
    """Runs added up, in ticks.

    nodes, rest  by name, as in Shares;  overlapped  what nodes took by their own clocks beyond what is in `nodes`
    """

    runs: int = 0
    wall: int = 0
    nodes: Counter[str] = field(default_factory=Counter)
    rest: Counter[str] = field(default_factory=Counter)
    overlapped: int = 0

    def add(self, wall_s: float, spans: Iterable[Span]) -> None:
        """Add a run that took `wall_s`, with the spans of its nodes."""
        wall = round(wall_s * TICKS)
        found = sorted((min(_ticks(start), wall), min(_ticks(end), wall), str(node)) for node, start, end in spans)
        self.runs, self.wall = self.runs + 1, self.wall + wall
        if not found:
            self.rest[SCHEDULER] += wall
            return
        first, last = found[0][0], max(end for _, end, _ in found)
        self.rest[INPUTS] += first
        self.rest[OUTPUTS] += wall - last
        given = self._share_out(found)
        self.rest[SCHEDULER] += last - first - given
        self.overlapped += sum(end - start for start, end, _ in found) - given

    def _share_out(self, spans: Sequence[tuple[int, int, str]]) -> int:
        """Share every instant among the nodes that run in it; gives how many ticks were shared out."""
        edges = sorted({edge for start, end, _ in spans for edge in (start, end)})
        total = 0
        for left, right in pairwise(edges):
            running = [node for start, end, node in spans if start <= left and right <= end]
            for place, node in enumerate(running):
                self.nodes[node] += (right - left) // len(running) + (place < (right - left) % len(running))
            total += (right - left) * bool(running)
        return total

    def merge(self, shares: Shares, runs: int) -> None:
        """Add the runs that shares were made of, as they are in a file of results."""
        self.runs += runs
        self.wall += _ticks(shares.wall_s) * runs
        self.nodes.update({name: _ticks(seconds) * runs for name, seconds in shares.nodes.items()})
        self.rest.update({name: _ticks(seconds) * runs for name, seconds in shares.rest.items()})
        self.overlapped += _ticks(shares.overlapped_s) * runs

    def shares(self) -> Shares | None:
        """The mean run; None where there was none. What the division leaves over is the scheduler's: less than a tick a node."""
        if not self.runs:
            return None
        wall = self.wall // self.runs
        nodes = {name: ticks // self.runs for name, ticks in self.nodes.items()}
        rest = {name: ticks // self.runs for name, ticks in self.rest.items()}
        rest[SCHEDULER] = rest.get(SCHEDULER, 0) + wall - sum(nodes.values()) - sum(rest.values())
        return Shares(
            wall_s=wall / TICKS,
            nodes={name: ticks / TICKS for name, ticks in nodes.items()},
            rest={name: rest[name] / TICKS for name in (INPUTS, SCHEDULER, OUTPUTS) if name in rest},
            overlapped_s=self.overlapped // self.runs / TICKS,
        )


def _ticks(seconds: object) -> int:
    assert isinstance(seconds, float | int)
    return max(0, round(seconds * TICKS))
