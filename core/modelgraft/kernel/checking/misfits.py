"""Says which wires do not fit, and why: axes, numbers of axes, dtypes and dimensions that nobody decides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from modelgraft.kernel.checking.concrete import concrete_tensor
from modelgraft.kernel.checking.drafts import Draft, Part
from modelgraft.kernel.checking.matching import dtypes_meet
from modelgraft.kernel.checking.proposals import between
from modelgraft.kernel.checking.reasons import Reason, Reasons
from modelgraft.kernel.checking.solver import Equation
from modelgraft.kernel.checking.unify import Bond, Link, Unified, open_fields
from modelgraft.kernel.words.errors import Collector, Place
from modelgraft.kernel.words.graph import GraphSpec
from modelgraft.kernel.words.ports import Axis, Tensor


@dataclass(frozen=True, slots=True)
class Misfits:
    """Turns what the unifier found into problems."""

    graph: GraphSpec
    drafts: Mapping[str, Draft]
    parts: Mapping[str, Part]
    found: Unified
    problems: Collector

    def report(self) -> None:
        """Note every misfit, each wire once."""
        for link in self.found.ranks:
            self._rank(link)
        for link in self.found.links:
            if not dtypes_meet(link.giver.dtype, link.taker.dtype):
                self._dtype(link)
        by_link: dict[int, list[Equation]] = {}
        for conflict in self.found.dims.conflicts:
            if isinstance(conflict.why, Link):
                by_link.setdefault(id(conflict.why), []).append(conflict)
            else:
                self._bond(conflict)
        for conflicts in by_link.values():
            self._axes(conflicts[0].why, conflicts)
        if not self.problems.problems:
            self._open()

    def types(self, link: Link) -> tuple[Tensor, Tensor]:
        """Both types of a link with every known number in place."""
        reasons = self._reasons(link.place)
        giver, taker = reasons.owner_of_giver(link), reasons.owner_of_taker(link)
        given = concrete_tensor(link.giver, giver, self.found)
        return given, link.taker if link in self.found.ranks else concrete_tensor(link.taker, taker, self.found)

    def _reasons(self, place: Place | None) -> Reasons:
        return Reasons(self.found.dims, self.parts, self.graph.inputs, place)

    def _ends(self, link: Link) -> str:
        given, wanted = self.types(link)
        return f"{link.ref} gives {given}, but {link.node}.{link.port} takes {wanted}"

    def _rank(self, link: Link) -> None:
        counts = [f"{len(t.axes) - 1} or more" if None in t.axes else str(len(t.axes)) for t in self.types(link)]
        found = f"{self._ends(link)}: {counts[0]} axes where {counts[1]} are wanted"
        hint = self._insert(*self.types(link))
        self.problems.add("rank-mismatch", found, place=link.place, node=link.node, port=link.port, hint=hint and f"{hint} between them")

    def _dtype(self, link: Link) -> None:
        hint = "these are numbers of another meaning: nothing converts them; wire the port that was meant"
        self.problems.add("dtype-mismatch", self._ends(link), place=link.place, node=link.node, port=link.port, hint=hint)

    def _axes(self, link: Link, conflicts: list[Equation]) -> None:
        """One problem for a wire: the origins of all numbers that differ, and a line of ways out for each pair of them."""
        reasons = self._reasons(link.place)
        told: list[str] = []
        lines: list[str] = []
        seen: set[tuple[int | None, ...] | None] = set()
        for conflict, insert in zip(conflicts, self._inserts(link, len(conflicts)), strict=True):
            giving = reasons.of_axis(conflict.left, str(link.ref), reasons.owner_of_giver(link))
            taking = reasons.of_axis(conflict.right, f"{link.node}.{link.port}", reasons.owner_of_taker(link))
            pair = (self._size(conflict.left), self._size(conflict.right))
            told.extend(reason.words for reason in (*giving, *taking) if pair not in seen)
            seen.add(pair if None not in pair else None)  # height and width are one story
            at_taker = self._change(reasons, taking, conflict.right, conflict.left)
            ways = at_taker or self._change(reasons, giving, conflict.left, conflict.right)
            lines.append(", or ".join([*ways, *([f"{insert} between them"] if insert else [])]))
        found = f"{self._ends(link)}: {'; '.join(dict.fromkeys(told))}"
        hint = "\n".join(dict.fromkeys(filter(None, lines)))
        self.problems.add("dim-mismatch", found, place=link.place, node=link.node, port=link.port, hint=hint)

    def _size(self, axis: Axis) -> int | None:
        return axis.bind({name: value for name in axis.names if (value := self.found.dims.value(name)) is not None}).size

    def _inserts(self, link: Link, count: int) -> list[str]:
        """For each differing pair of axes what could stand between, as if the other pairs were equal."""
        given, wanted = self.types(link)
        pairs = list(zip(given.axes, wanted.axes, strict=False))
        apart = [index for index, (mine, theirs) in enumerate(pairs) if _differ(mine, theirs)]
        if len(apart) != count or len(given.axes) != len(wanted.axes):
            return [self._insert(given, wanted)] + [""] * (count - 1)
        return [self._insert(given, _equal_but(given, wanted, index, apart)) for index in apart]

    def _change(self, reasons: Reasons, side: list[Reason], mine: Axis, theirs: Axis) -> list[str]:
        """The config value to change so that one end fits the other; nothing when a source decides it."""
        size = self._size(theirs)
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

    def _insert(self, given: Tensor, wanted: Tensor) -> str:
        return " or ".join(map(str, between(self.graph.registry, given, wanted)))

    def _bond(self, conflict: Equation) -> None:
        reasons = self._reasons(None)
        if not isinstance(conflict.why, Bond):
            self._self_contradiction(conflict)
            return
        bond = conflict.why
        told = [reason.words for axis in (conflict.left, conflict.right) for reason in reasons.of_axis(axis, "", None)]
        node = self.parts[bond.one.rpartition(".")[0]].node
        found = f"{bond.one} and {bond.other} must be the same, because one uses the weights of the other: {'; '.join(told)}"
        self.problems.add("dim-mismatch", found, place=bond.place, node=node, hint=f"leave {bond.one} out")

    def _self_contradiction(self, conflict: Equation) -> None:
        """A property of a config gives another number than the wires do, once these have decided its fields."""
        symbol = conflict.left.symbol or ""
        scope, _, name = symbol.rpartition(".")
        part = self.parts[scope]
        reasons = self._reasons(part.place)
        behind = reasons.behind(part, name)
        told = "; ".join(reason.words for reason in reasons.of_axis(conflict.left, symbol, part))
        found = f"{symbol} is {conflict.right}{behind and f', which follows from {behind}'}, but its wires make it another number: {told}"
        self.problems.add("dim-mismatch", found, place=part.place, node=part.node)

    def _open(self) -> None:
        """Dimensions that a config leaves open and no neighbour decides."""
        for part in self.parts.values():
            for name in open_fields(part):
                ports = [f"{part.node}.{port}" for port in _ports_with(part, name)]
                seen = f"nothing that is wired to {', '.join(ports)} says it" if ports else "none of its ports has it"
                found = f"{part.scope}.{name} ({part.component.id}) is not known: {seen}"
                hint = f"write with: {{{name}: NUMBER}} at {part.scope}" + (", or wire it to a port that knows its size" if ports else "")
                self.problems.add("unsolved-dim", found, place=part.place, node=part.node, hint=hint)


def _differ(mine: Axis | None, theirs: Axis | None) -> bool:
    return mine is not None and theirs is not None and None not in (mine.size, theirs.size) and mine != theirs


def _equal_but(given: Tensor, wanted: Tensor, index: int, apart: list[int]) -> Tensor:
    """The wanted type with the given sizes on the differing axes, all but one."""
    axes = [given.axes[at] if at in apart and at != index else axis for at, axis in enumerate(wanted.axes)]
    return Tensor(wanted.dtype, tuple(axes))


def _ports_with(part: Part, name: str) -> list[str]:
    """The ports of a part in whose axes a name stands."""
    every = [*part.face.declared.inputs.items(), *part.face.declared.outputs.items()]
    return [port for port, declared in every if declared.tensor is not None and name in declared.tensor.names]
