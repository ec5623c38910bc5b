"""What a plan needs on each device at once, as far as it can be known before anything is loaded.

Nodes that stay are there together. Of the others, `lazy: true` or `runtime: {keep: false}`, one is there at a time at least:
what was used least recently goes when another needs room.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from modelgraft.kernel.words.errors import Problem
from modelgraft.kernel.words.graph import Node, Value
from modelgraft.kernel.words.plan import Plan, Step
from modelgraft.kernel.words.sizes import EVERY_DEVICE, named
from modelgraft.kernel.words.wording import option
from modelgraft.records.amounts import UNKNOWN, in_bytes


@dataclass(frozen=True, slots=True)
class Need:
    """What one node takes on a device; nodes that share weights are one.

    bytes  None when it is not known;  stays  nobody lets go of it
    """

    node: str
    bytes: int | None
    stays: bool


@dataclass(frozen=True, slots=True)
class Forecast:
    """What nodes need on one device, the largest first, and the most that it may hold (None: what there is)."""

    device: str
    needs: tuple[Need, ...]
    limit: int | None

    @property
    def bytes(self) -> int:
        """What must be there at once: all that stays, and the largest of the others. What is not known is left out."""
        stays = sum(need.bytes or 0 for need in self.needs if need.stays)
        return stays + max((need.bytes or 0 for need in self.needs if not need.stays), default=0)

    @property
    def unknown(self) -> tuple[str, ...]:
        """The nodes whose bytes are not known."""
        return tuple(need.node for need in self.needs if need.bytes is None)

    @property
    def fits(self) -> bool:
        """Whether the device may hold it, as far as that is known."""
        return self.limit is None or self.bytes <= self.limit


def stays(node: Node, runtime: Mapping[str, Value]) -> bool:
    """Whether a loaded node is never let go of; `runtime` is that of the graph. One that stands for several stays when they all do."""
    return not node.lazy and keeps(node, runtime)


def keeps(node: Node, runtime: Mapping[str, Value]) -> bool:
    """Whether a node stays loaded after a use."""
    if node.parts:
        return all(keeps(part, runtime) for part in node.parts)
    whole = runtime.get("keep")
    return bool(node.runtime.get("keep", True if whole is None else whole.value))


def limit_of(limits: Mapping[str, int], device: str) -> int | None:
    """The most that a device may hold; None: what there is."""
    return limits.get(named(device), limits.get(EVERY_DEVICE))


def forecasts(plan: Plan, *, others: Iterable[tuple[str, Need]] = ()) -> tuple[Forecast, ...]:
    """What the steps of a plan need on each device that holds weights.

    others  what is there already and stays, each with its device
    """
    return forecasts_of(plan.steps, plan.graph.graph.runtime, plan.limits, others=others)


def forecasts_of(
    steps: Sequence[Step], runtime: Mapping[str, Value], limits: Mapping[str, int], *, others: Iterable[tuple[str, Need]] = ()
) -> tuple[Forecast, ...]:
    """The same of single steps."""
    found: dict[str, dict[str, Need]] = {}
    for device, need in others:
        found.setdefault(named(device), {})[need.node] = need
    for step in steps:
        if step.parameters.total == 0:
            continue
        needs, owner = found.setdefault(named(step.device), {}), step.node.share or step.node.name
        before, own = needs.get(owner), Need(owner, step.bytes, stays(step.node, runtime))
        needs[owner] = own if before is None else _together(before, own, has_more=bool(step.node.adapters))
    return tuple(_forecast(device, needs.values(), limits) for device, needs in found.items())


def _together(one: Need, other: Need, *, has_more: bool) -> Need:
    """Two nodes that share weights; the second may have adapters of its own, and is then counted whole."""
    known = None if one.bytes is None or other.bytes is None else one.bytes + other.bytes
    return Need(one.node, known if has_more else one.bytes, one.stays or other.stays)


def _forecast(device: str, needs: Iterable[Need], limits: Mapping[str, int]) -> Forecast:
    return Forecast(device, tuple(sorted(needs, key=lambda need: (-(need.bytes or 0), need.node))), limit_of(limits, device))


def misfits(found: Iterable[Forecast]) -> list[Problem]:
    """A problem for each device that may not hold what is needed there: what needs how much, and ways out."""
    return [_misfit(forecast) for forecast in found if not forecast.fits]


def _misfit(found: Forecast) -> Problem:
    width = max(len(need.node) for need in found.needs)
    rows = [f"{need.node:{width}}  {in_bytes(need.bytes):>9}  {_how(need)}" for need in found.needs]
    more = option("max_memory", f"{found.device}={math.ceil(found.bytes / (1 << 20))}MiB")
    ways = (
        f"let go of nodes that are not needed all the time (lazy: true, or runtime: {{keep: false}}), choose a smaller dtype or precision, \
place nodes on another device, or allow more: {more}"
    )
    told = f"the nodes of this plan need {in_bytes(found.bytes)} at once on {found.device}, and it may hold {in_bytes(found.limit)}"
    return Problem("does-not-fit", told, None, "\n".join([*rows, ways]))


def _how(need: Need) -> str:
    if need.bytes is None:
        return f"{UNKNOWN}: not known before it is loaded"
    return "stays" if need.stays else "let go of when another needs room"
