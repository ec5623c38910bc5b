"""Does a graph take what a suite gives, and give what it takes? Told in the words of the checker, before anything runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import modelgraft as mg
from modelgraft.plugin import GraphError, InputError, Port, Problem, SolvedGraph, Tensor, choices, choose, nearest, port
from modelgraft_plugins.evaluating.suites import Field


@dataclass(frozen=True, slots=True)
class Fit:
    """How a suite and a graph are joined.

    inputs   the graph's input by the name of what the suite gives
    outputs  the graph's output, or port as "node.port", by the name of what the suite takes
    left     what the suite gives and the graph has no input for
    """

    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    left: tuple[str, ...] = ()

    @property
    def wanted(self) -> tuple[str, ...]:
        """What is asked of the graph, each once."""
        return tuple(dict.fromkeys(self.outputs.values()))

    @property
    def told(self) -> str:
        """The joints whose names differ, and what is left out, in a sentence; "" when there are none."""
        joints = [f"{name} goes to the input '{mine}'" for name, mine in self.inputs.items() if name != mine]
        joints += [f"{name} is read from '{mine}'" for name, mine in self.outputs.items() if name != mine]
        joints += [f"the graph has no input for {name}" for name in self.left]
        return "; ".join(joints)

    def record(self, given: Mapping[str, Any]) -> dict[str, Any]:  # Any: whatever goes into the ports
        """A record for the graph, of one for the suite."""
        return {self.inputs[name]: value for name, value in given.items() if name in self.inputs}


def fit(
    solved: SolvedGraph,
    gives: Mapping[str, Field],
    takes: Mapping[str, Field],
    *,
    inputs: Mapping[str, str] | None = None,
    outputs: Mapping[str, str] | None = None,
) -> Fit:
    """Join a suite and a graph by names: those that the user chose, the suite's own, and those that graphs usually have.

    inputs, outputs  the graph's name by the suite's, as the user chose them

    Raises GraphError with every misfit, InputError for a choice that names nothing of the suite.
    """
    return fit_both(solved, (gives, takes), ({}, {}), inputs=inputs, outputs=outputs)[0]


Fields = tuple[Mapping[str, Field], Mapping[str, Field]]  # what is given, and what is read


def fit_both(
    solved: SolvedGraph,
    first: Fields,
    more: Fields,
    *,
    inputs: Mapping[str, str] | None = None,
    outputs: Mapping[str, str] | None = None,
) -> tuple[Fit, Fit]:
    """Join what a suite asks of a graph, and what it asks the same graph later; the second is empty where that is nothing.

    Raises as `fit` does, with the misfits of both.
    """
    chosen, read = inputs or {}, outputs or {}
    _refuse_strange(chosen, {**first[0], **more[0]}, "--input", "gives")
    _refuse_strange(read, {**first[1], **more[1]}, "--output", "reads")
    (one, problems), (other, others) = (_joined(solved, *fields, chosen, read) for fields in (first, more))
    if problems or others:
        raise GraphError(list(dict.fromkeys([*problems, *others])))
    return one, other


def _joined(
    solved: SolvedGraph, gives: Mapping[str, Field], takes: Mapping[str, Field], chosen: Mapping[str, str], read: Mapping[str, str]
) -> tuple[Fit, list[Problem]]:
    seen, unread = _read(solved, takes, {name: mine for name, mine in read.items() if name in takes})
    needed = set(solved.inputs) if unread else _inputs_for(solved, seen) if seen else set()
    found, unfed = _feed(solved, gives, {name: mine for name, mine in chosen.items() if name in gives}, needed)
    return Fit(found, seen, tuple(name for name in gives if name not in found)), [*unfed, *unread]


def _inputs_for(solved: SolvedGraph, seen: Mapping[str, str]) -> set[str]:
    """The inputs that what is read depends on: others may stay without a value."""
    plan = mg.plan(solved, wanted=list(dict.fromkeys(seen.values())))
    direct = {ref.port for ref in plan.wanted.values() if ref.node == "inputs"}
    return direct.union(*(step.reads for step in plan.steps))


def _refuse_strange(chosen: Mapping[str, str], known: Mapping[str, Field], option: str, what: str) -> None:
    for name in chosen:
        if name not in known:
            raise InputError(
                f"{option} {name}=...: the suite {what} no '{name}'; it {what}: {choices(known)}. {nearest(name, known)}".strip()
            )


# -- what the graph is given --------------------------------------------------------------------------------------------


def _feed(
    solved: SolvedGraph, gives: Mapping[str, Field], chosen: Mapping[str, str], needed: set[str]
) -> tuple[dict[str, str], list[Problem]]:
    found: dict[str, str] = {}
    problems: list[Problem] = []
    for name, wanted in gives.items():
        taken = {*found.values(), *(mine for other, mine in chosen.items() if other != name)}
        mine = chosen.get(name) or next((one for one in (name, *wanted.names) if one in solved.inputs and one not in taken), None)
        if mine is None:
            problems += [_no_input(solved, name, wanted)] if wanted.is_needed else []
        elif mine not in solved.inputs:
            problems.append(_unknown_input(solved, name, mine))
        else:
            found[name] = mine
            problems += _misfits(_first(wanted.type), solved.inputs[mine].port, f"the suite gives {name}", f"inputs.{mine}", solved)
    fed = set(found.values())
    for item in solved.inputs.values():
        if item.name in needed - fed and not item.has_default and not item.port.optional and not problems:
            hint = f"give the input a default, or run the suite with --input NAME={item.name}; the suite gives: {choices(gives)}"
            text = f"the graph needs its input '{item.name}' ({item.port}), and the suite has nothing for it"
            problems.append(Problem("missing-input", text, item.place, hint, port=item.name))
    return found, problems


def _no_input(solved: SolvedGraph, name: str, wanted: Field) -> Problem:
    there = choices([f"{item.name} ({item.port})" for item in solved.inputs.values()])
    text = f"the suite gives {name} ({wanted.type}), and the graph has no input '{name}'; it has: {there}"
    return Problem("unknown-input", text, _place(solved), f"say which one takes it: --input {name}=NAME")


def _unknown_input(solved: SolvedGraph, name: str, mine: str) -> Problem:
    text = f"--input {name}={mine}: the graph has no input '{mine}'; it has: {choices(solved.inputs)}"
    return Problem("unknown-input", text, _place(solved), nearest(mine, solved.inputs))


# -- what is read of it -------------------------------------------------------------------------------------------------


def _read(solved: SolvedGraph, takes: Mapping[str, Field], chosen: Mapping[str, str]) -> tuple[dict[str, str], list[Problem]]:
    found: dict[str, str] = {}
    problems: list[Problem] = []
    for name, wanted in takes.items():
        mine = chosen.get(name) or next((one for one in (name, *wanted.names) if one in solved.outputs), None)
        if mine is None and not wanted.is_needed:
            continue
        given = _port_of(solved, mine) if mine is not None else None
        if mine is None or given is None:
            problems.append(_no_output(solved, name, wanted, mine))
            continue
        found[name] = mine
        for type_ in given.types:
            problems += _misfits(type_, port(wanted.type), f"{mine} gives {type_}", f"the suite's {name}", solved)
    return found, problems


def _port_of(solved: SolvedGraph, name: str) -> Port | None:
    """The port of an output, or of one that is named as "node.port"."""
    if name in solved.outputs:
        return solved.port_of(solved.outputs[name])
    node, _, inner = name.partition(".")
    ports = solved.nodes[node].out_ports if node in solved.nodes else {}
    return ports.get(inner) if inner else next(iter(ports.values()), None) if len(ports) == 1 else None


def _no_output(solved: SolvedGraph, name: str, wanted: Field, mine: str | None) -> Problem:
    known = choices([f"{one} ({_port_of(solved, one)})" for one in solved.outputs])
    start = f"--output {name}={mine}: the graph has no output or port '{mine}'" if mine else f"the suite reads {name} ({wanted.type})"
    hint = nearest(mine, solved.outputs) if mine else f"say where it is: --output {name}=NAME, an output or any port as node.port"
    return Problem(
        "unknown-port", f"{start}{'' if mine else f', and the graph has no output {name!r}'}; it has: {known}", _place(solved), hint
    )


# -- types --------------------------------------------------------------------------------------------------------------


def _first(text: str) -> Any:  # Any: a port type
    return port(text).type


def _misfits(given: Any, taker: Port, giving: str, taking: str, solved: SolvedGraph) -> Iterator[Problem]:
    """Why a type does not go into a port: another kind of value, or another number of axes."""
    accepted = choose(given, taker)
    if accepted is None:
        text = f"{giving}{'' if str(given) in giving else f' ({given})'}, but {taking} takes {taker}"
        yield Problem("modality-mismatch", text, _place(solved), "name another one, or put a node between that makes the one of the other")
    elif isinstance(given, Tensor) and isinstance(accepted, Tensor) and _are_apart(given, accepted):
        text = f"{giving}, but {taking} takes {accepted}: {len(given.axes)} axes where {len(accepted.axes)} are wanted"
        yield Problem("rank-mismatch", text, _place(solved))


def _are_apart(given: Tensor, accepted: Tensor) -> bool:
    return None not in (*given.axes, *accepted.axes) and len(given.axes) != len(accepted.axes)


def _place(solved: SolvedGraph) -> Any:  # Any: a Place, or None for a graph without nodes
    """The document of the graph."""
    places: Sequence[Any] = [item.place for item in solved.inputs.values() if item.place is not None]
    places = places or [node.place for node in solved.nodes.values()]
    return places[0] if places else None
