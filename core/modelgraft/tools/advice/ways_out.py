"""Ways out of wires that do not fit, and where the numbers at both ends come from."""

from __future__ import annotations

from collections.abc import Sequence

from modelgraft.kernel.checking.concrete import types_of
from modelgraft.kernel.checking.solver import Equation
from modelgraft.kernel.checking.unify import Link, Unified
from modelgraft.kernel.words.ports import Axis, Tensor
from modelgraft.tools.advice.proposals import between
from modelgraft.tools.advice.reasons import Reason, Reasons

# a layer between a model and the vectors of another one would find something, and nothing that was meant
SEARCHED = "ask with the model that the index was made with, or make an index with this one"


def between_ranks(unified: Unified, link: Link) -> str:
    """What could stand between ends that have other numbers of axes."""
    hint = _insert(unified, *types_of(link, unified))
    return hint and f"{hint} between them"


def apart(unified: Unified, link: Link, conflicts: Sequence[Equation]) -> tuple[str, str]:
    """Of a wire whose sizes differ: the origins of all numbers, and a line of ways out for each pair of them."""
    reasons = Reasons(unified, link.place)
    told: list[str] = []
    lines: list[str] = []
    seen: set[tuple[int | None, ...] | None] = set()
    for conflict, insert in zip(conflicts, _inserts(unified, link, len(conflicts)), strict=True):
        giving = reasons.of_axis(conflict.left, str(link.ref), unified.owner_of_giver(link))
        taking = reasons.of_axis(conflict.right, f"{link.node}.{link.port}", unified.owner_of_taker(link))
        pair = (unified.known(conflict.left).size, unified.known(conflict.right).size)
        told.extend(reason.words for reason in (*giving, *taking) if pair not in seen)
        seen.add(pair if None not in pair else None)  # height and width are one story
        at_taker = _change(reasons, taking, conflict.right, conflict.left)
        ways = at_taker or _change(reasons, giving, conflict.left, conflict.right)
        lines.append(", or ".join([*ways, *([f"{insert} between them"] if insert else [])]))
    if (taker := unified.owner_of_taker(link)) is not None and taker.component.kind == "retriever":
        lines = [SEARCHED]
    return "; ".join(dict.fromkeys(told)), "\n".join(dict.fromkeys(filter(None, lines)))


def bound(unified: Unified, conflict: Equation) -> str:
    """Where the numbers come from of two configs that must agree."""
    reasons = Reasons(unified, None)
    return "; ".join(reason.words for axis in (conflict.left, conflict.right) for reason in reasons.of_axis(axis, "", None))


def derived(unified: Unified, conflict: Equation) -> tuple[str, str]:
    """What a property of a config follows from, and where the other number comes from that its wires make it."""
    symbol = conflict.left.symbol or ""
    scope, _, name = symbol.rpartition(".")
    part = unified.parts[scope]
    reasons = Reasons(unified, part.place)
    return reasons.behind(part, name), "; ".join(reason.words for reason in reasons.of_axis(conflict.left, symbol, part))


def _inserts(unified: Unified, link: Link, count: int) -> list[str]:
    """For each differing pair of axes what could stand between, as if the other pairs were equal."""
    given, wanted = types_of(link, unified)
    pairs = list(zip(given.axes, wanted.axes, strict=False))
    apart = [index for index, (mine, theirs) in enumerate(pairs) if _differ(mine, theirs)]
    if len(apart) != count or len(given.axes) != len(wanted.axes):
        return [_insert(unified, given, wanted)] + [""] * (count - 1)
    return [_insert(unified, given, _equal_but(given, wanted, index, apart)) for index in apart]


def _change(reasons: Reasons, side: list[Reason], mine: Axis, theirs: Axis) -> list[str]:
    """The config value to change so that one end fits the other; nothing when a source decides it."""
    size = reasons.unified.known(theirs).size
    deciding = [reason for reason in side if reason.part is not None]
    if size is None or len(deciding) != 1 or (mine.terms and mine.symbol is None):
        return []
    reason, origin = deciding[0], deciding[0].origin
    if origin is None or origin.layer == "source" or reason.part is None:
        return []
    key, where = f"{reason.part.scope}.{reason.key}", f" ({reasons.origin(reason.part, reason.key)})" if origin.place else ""
    if reason.literal and isinstance(getattr(reason.part.config, reason.key), str):
        return [f"write {size} for {mine} in {key}{where}"]
    if reason.is_dimension and origin.layer != "default":
        return [f"leave {key} out{where}: the neighbours decide it"]
    return [f"set {key}: {size}"]


def _insert(unified: Unified, given: Tensor, wanted: Tensor) -> str:
    return " or ".join(map(str, between(unified.graph.registry, given, wanted)))


def _differ(mine: Axis | None, theirs: Axis | None) -> bool:
    return mine is not None and theirs is not None and None not in (mine.size, theirs.size) and mine != theirs


def _equal_but(given: Tensor, wanted: Tensor, index: int, apart: list[int]) -> Tensor:
    """The wanted type with the given sizes on the differing axes, all but one."""
    axes = [given.axes[at] if at in apart and at != index else axis for at, axis in enumerate(wanted.axes)]
    return Tensor(wanted.dtype, tuple(axes))
