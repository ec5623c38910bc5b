"""The metrics of a stage: words as `modelgraft eval` and `bench` have them, found in the graph before anything loads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from modelgraft.kernel.checking.matching import choose
from modelgraft.kernel.words.errors import choices, nearest
from modelgraft.kernel.words.graph import Ref, SolvedGraph

METRIC, OWN = "metric", "metric/"  # the kind, and the namespace that a word may leave out
SIDES = ("prediction", "references")  # keys of a word, beside the fields of the metric

Add = Callable[..., None]  # tells what is wrong: code, text, hint


@dataclass(frozen=True, slots=True)
class Measured:
    """A metric of the evaluations of a stage.

    name        what the table calls it: `word_f1`, `recall(k=5)`
    word        the metric with its fields: `recall:k=5`;  better  which figure is the better one: higher | lower
    prediction  the port that it looks at
    references  what is right: a port, or a column of the data; None where it compares with nothing
    """

    name: str
    word: str
    better: str
    prediction: Ref
    references: Ref | str | None


def metric_of(word: str, solved: SolvedGraph, add: Add) -> Measured | None:
    """What `NAME:prediction=NODE.PORT,references=COLUMN` says; None where something is wrong, which is told."""
    called, _, rest = word.partition(":")
    known: Mapping[str, Any] = {id: one for id, one in solved.graph.registry.components.items() if one.kind == METRIC}
    component = known.get(called) or known.get(f"{OWN}{called}")
    if component is None:
        short = [name.removeprefix(OWN) for name in known]
        add("wrong-value", f"there is no metric '{called}'; there are: {choices(short, most=40)}", hint=nearest(called, short))
        return None
    pairs = [part.partition("=") for part in rest.split(",")] if rest else []
    if wrong := next((key for key, equals, value in pairs if not equals or not key or not value), None):
        add("wrong-value", f"the metric '{word}' holds '{wrong}'; wanted NAME:KEY=VALUE,KEY=VALUE, such as word_f1:prediction=llm.text")
        return None
    given = {key.strip(): value.strip() for key, _, value in pairs}
    sides = {side: given.pop(side) for side in SIDES if side in given}
    if unknown := [key for key in given if key not in component.config.model_fields]:
        there = choices([*SIDES, *component.config.model_fields], sort=False)
        add("wrong-value", f"the metric {component.id} has no '{unknown[0]}'; it has: {there}", hint=nearest(unknown[0], SIDES))
        return None
    try:
        inputs = component.ports(component.config(**given)).inputs
    except ValidationError as error:
        first = error.errors()[0]
        add("wrong-value", f"the metric {component.id} has {'.'.join(map(str, first['loc']))}={first['input']!r}; {first['msg']}")
        return None
    prediction = _prediction(sides.get("prediction"), word, solved, inputs["prediction"], add)
    references = _references(sides.get("references"), word, solved, has=("references" in inputs), add=add)
    if prediction is None or isinstance(references, bool):
        return None
    fields = ", ".join(f"{key}={value}" for key, value in given.items())
    said = f"{component.id}:{','.join(f'{key}={value}' for key, value in given.items())}".removesuffix(":")
    short = component.id.removeprefix(OWN)
    return Measured(f"{short}({fields})" if fields else short, said, component.config.better, prediction, references or None)


def _prediction(named: str | None, word: str, solved: SolvedGraph, taker: Any, add: Add) -> Ref | None:
    if named is None:
        add("wrong-value", f"the metric '{word}' does not say what it looks at", hint=f"write {word}{_more(word)}prediction=NODE.PORT")
        return None
    ref = solved.outputs.get(named) or _port(named, solved)
    if ref is None or ref.is_input:
        text = f"the metric '{word}' looks at '{named}', which is no output of a node and none of the graph"
        add("unknown-port", text, hint=nearest(named, [*solved.outputs, *_ports(solved)]))
        return None
    if (given := solved.port_of(ref)) is None or choose(given.type, taker) is None:
        add("modality-mismatch", f"{ref} gives {given}, but the metric '{word}' takes {taker}", hint="name another port")
        return None
    return ref


def _references(named: str | None, word: str, solved: SolvedGraph, *, has: bool, add: Add) -> Ref | str | bool:
    """A port or a column; "" where none is taken, False where it is wrong."""
    if has and named is None:
        add("wrong-value", f"the metric '{word}' compares with references, and names none", hint="write references=COLUMN of the data")
        return False
    if not has and named is not None:
        add("wrong-value", f"the metric '{word}' compares with nothing, and takes no references", hint="leave references out")
        return False
    if named is None or "." not in named:  # a column may have the name of a node
        return named or ""
    if (found := _port(named, solved)) is None:
        text = f"the metric '{word}' compares with '{named}', which is no output of a node; a column has no point in its name here"
        add("unknown-port", text, hint=nearest(named, _ports(solved)))
    return found or False


def _port(named: str, solved: SolvedGraph) -> Ref | None:
    node, _, port = named.rpartition(".")
    if node in solved.nodes and port in solved.nodes[node].out_ports:
        return Ref(node, port)
    alone = solved.nodes[named].out_ports if named in solved.nodes else {}
    return Ref(named, next(iter(alone))) if len(alone) == 1 else None


def _ports(solved: SolvedGraph) -> list[str]:
    return [f"{name}.{port}" for name, node in solved.nodes.items() for port in node.out_ports]


def _more(word: str) -> str:
    return "," if ":" in word else ":"
