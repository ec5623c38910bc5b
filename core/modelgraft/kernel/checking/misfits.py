"""Says which wires do not fit: axes, numbers of axes, dtypes and dimensions that nobody decides."""

from __future__ import annotations

from dataclasses import dataclass

from modelgraft.kernel.checking.adviser import Advice
from modelgraft.kernel.checking.concrete import types_of
from modelgraft.kernel.checking.drafts import Part
from modelgraft.kernel.checking.matching import dtypes_meet
from modelgraft.kernel.checking.solver import Equation
from modelgraft.kernel.checking.unify import Bond, Link, Unified, open_fields
from modelgraft.kernel.words.errors import Collector


@dataclass(frozen=True, slots=True)
class Misfits:
    """Turns what the unifier found into problems."""

    found: Unified
    problems: Collector
    advice: Advice

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

    def _ends(self, link: Link) -> str:
        given, wanted = types_of(link, self.found)
        return f"{link.ref} gives {given}, but {link.node}.{link.port} takes {wanted}"

    def _rank(self, link: Link) -> None:
        counts = [f"{len(t.axes) - 1} or more" if None in t.axes else str(len(t.axes)) for t in types_of(link, self.found)]
        found = f"{self._ends(link)}: {counts[0]} axes where {counts[1]} are wanted"
        hint = self.advice.between(self.found, link)
        self.problems.add("rank-mismatch", found, place=link.place, node=link.node, port=link.port, hint=hint)

    def _dtype(self, link: Link) -> None:
        hint = "these are numbers of another meaning: nothing converts them; wire the port that was meant"
        self.problems.add("dtype-mismatch", self._ends(link), place=link.place, node=link.node, port=link.port, hint=hint)

    def _axes(self, link: Link, conflicts: list[Equation]) -> None:
        """One problem for a wire, however many of its sizes differ."""
        told, hint = self.advice.apart(self.found, link, conflicts)
        found = f"{self._ends(link)}: {told}" if told else self._ends(link)
        self.problems.add("dim-mismatch", found, place=link.place, node=link.node, port=link.port, hint=hint)

    def _bond(self, conflict: Equation) -> None:
        if not isinstance(conflict.why, Bond):
            self._self_contradiction(conflict)
            return
        bond, told = conflict.why, self.advice.bound(self.found, conflict)
        found = f"{bond.one} and {bond.other} must be the same, because one uses the weights of the other{told and f': {told}'}"
        node = self.found.parts[bond.one.rpartition(".")[0]].node
        self.problems.add("dim-mismatch", found, place=bond.place, node=node, hint=f"leave {bond.one} out")

    def _self_contradiction(self, conflict: Equation) -> None:
        """A property of a config gives another number than the wires do, once these have decided its fields."""
        symbol = conflict.left.symbol or ""
        part = self.found.parts[symbol.rpartition(".")[0]]
        behind, told = self.advice.derived(self.found, conflict)
        follows = behind and f", which follows from {behind}"
        found = f"{symbol} is {conflict.right}{follows}, but its wires make it another number{told and f': {told}'}"
        self.problems.add("dim-mismatch", found, place=part.place, node=part.node)

    def _open(self) -> None:
        """Dimensions that a config leaves open and no neighbour decides."""
        for part in self.found.parts.values():
            for name in open_fields(part):
                ports = [f"{part.node}.{port}" for port in _ports_with(part, name)]
                seen = f"nothing that is wired to {', '.join(ports)} says it" if ports else "none of its ports has it"
                found = f"{part.scope}.{name} ({part.component.id}) is not known: {seen}"
                hint = f"write with: {{{name}: NUMBER}} at {part.scope}" + (", or wire it to a port that knows its size" if ports else "")
                self.problems.add("unsolved-dim", found, place=part.place, node=part.node, hint=hint)


def _ports_with(part: Part, name: str) -> list[str]:
    """The ports of a part in whose axes a name stands."""
    every = [*part.face.declared.inputs.items(), *part.face.declared.outputs.items()]
    return [port for port, declared in every if declared.tensor is not None and name in declared.tensor.names]
