"""What a run spent, laid over a drawing: seconds by node, and what came from the cache."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from modelgraft.kernel.words.errors import InputError, choices
from modelgraft.records.amounts import in_seconds
from modelgraft.tools.draw.picture import Box, Picture

MOST_BYTES = 256 * 2**20  # of a file of a run: its outputs stand in it too
CACHED = "from the cache"


class NodeRan(Protocol):
    """A result, as far as drawings look at it."""

    @property
    def timings(self) -> Mapping[str, float]:
        """Seconds by node; nodes that ran as one stand together, joined by +."""
        ...

    @property
    def cached(self) -> Collection[str]:
        """The nodes that the cache spared."""
        ...


@dataclass(frozen=True, slots=True)
class Spent:
    """What a run spent.

    seconds  by node;  together  the nodes that ran as one call with a node, by node
    cached   the nodes that the cache spared
    source   where it was told, for messages
    """

    seconds: Mapping[str, float]
    together: Mapping[str, tuple[str, ...]]
    cached: frozenset[str]
    source: str

    @property
    def total(self) -> float:
        """Seconds of all nodes, each call once."""
        return sum(self.seconds.values())


def spent_of(result: NodeRan) -> Spent:
    """What a result tells."""
    return _spent(result.timings, result.cached, "the result")


def read_spent(path: Path) -> Spent:
    """Read what `modelgraft run --json` printed into a file. Raises InputError for anything else."""
    document = _read(path)
    if document.get("ok") is False:
        raise InputError(f"'{path}' tells of a run that failed: it has no times to draw")
    timings, cached = document.get("timings"), document.get("cached", [])
    is_times = isinstance(timings, Mapping) and all(_is_time(value) for value in timings.values())
    if not is_times or not isinstance(cached, list) or not all(isinstance(name, str) for name in cached):
        raise InputError(f"'{path}' is not what `modelgraft run GRAPH --json` prints: it has no `timings` by node")
    assert isinstance(timings, Mapping), "as was just seen"
    return _spent(timings, cached, f"'{path}'")


def _is_time(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < float("inf")


def _read(path: Path) -> Mapping[str, Any]:
    try:
        if path.stat().st_size > MOST_BYTES:
            raise InputError(f"'{path}' has {path.stat().st_size:,} bytes; the file of a run has at most {MOST_BYTES:,}")
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"'{path}' cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"'{path}' is not JSON; wanted what `modelgraft run GRAPH --json` prints") from error
    if not isinstance(found, dict):
        raise InputError(f"'{path}' is not what `modelgraft run GRAPH --json` prints: it is no JSON object")
    return found


def _spent(timings: Mapping[str, float], cached: Collection[str], source: str) -> Spent:
    seconds, together = dict[str, float](), dict[str, tuple[str, ...]]()
    for name, value in timings.items():
        parts = tuple(name.split("+"))
        seconds[parts[0]] = seconds.get(parts[0], 0.0) + float(value)
        together |= dict.fromkeys(parts, parts) if len(parts) > 1 else {}
    return Spent(seconds, together, frozenset(cached), source)


def lay_over(drawn: Picture, spent: Spent) -> Picture:
    """The picture with what each node spent. Raises InputError when the run was of another graph."""
    nodes = {box.id for box in drawn.boxes if box.role == "node"}
    told = {*spent.seconds, *spent.together, *spent.cached}
    if strange := sorted(told - nodes):
        known = choices(nodes, most=8)
        raise InputError(f"{spent.source} is of another graph: it tells of {choices(strange, most=8)}, and {drawn.name} has {known}")
    boxes = tuple(_with_time(box, spent) if box.role == "node" else box for box in drawn.boxes)
    hits = len(spent.cached)
    said = f"run: {in_seconds(spent.total)} in {len(spent.seconds)} call{'s' * (len(spent.seconds) != 1)}"
    return replace(drawn, boxes=boxes, run=f"{said}, {hits} node{'s' * (hits != 1)} {CACHED}" if hits else said)


def in_percent(share: float) -> str:
    """A share of the whole: `29%`; what is less than one is told so."""
    return "<1%" if 0 < share < 0.005 else f"{share:.0%}"


def _with_time(box: Box, spent: Spent) -> Box:
    if box.id in spent.cached:
        return replace(box, time=CACHED, facts=(("time", CACHED, ""), *box.facts))
    group = spent.together.get(box.id)
    first = group[0] if group else box.id
    if first not in spent.seconds:
        return replace(box, facts=(("time", "it did not run", ""), *box.facts))
    seconds = spent.seconds[first]
    share = seconds / spent.total if spent.total else 0.0
    if group and box.id != first:
        return replace(box, time=f"with {first}", facts=(("time", f"in one call with {first}: {in_seconds(seconds)}", ""), *box.facts))
    note = f"in one call with {', '.join(group[1:])}" if group else f"{share:.1%} of the run"
    told = f"{in_seconds(seconds)} · {in_percent(share)}" + (f" with {len(group) - 1} more" if group else "")
    return replace(box, time=told, seconds=seconds, share=share, facts=(("time", in_seconds(seconds), note), *box.facts))
