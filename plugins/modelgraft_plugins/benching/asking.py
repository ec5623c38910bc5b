"""What a bench is asked for: the words of the command line, over those of a sweep file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import typer

from modelgraft.commands import Opening
from modelgraft_plugins.benching import words
from modelgraft_plugins.benching.results import Method
from modelgraft_plugins.benching.sweeps import Axis, Sweep, ordered, simple_axis
from modelgraft_plugins.listed import listed

ROUNDS, WARM_UPS = 20, 20  # the most of each; a target, a budget or steady figures end them before
OPTIONS = ("init", "fallback", "max_memory")  # of opening, that hold for every cell


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What is done with the results. `fail_over` is a part, such as 0.05; `is_check` measures nothing; no `timeout_s` is the usual."""

    out: Path | None = None
    html: Path | None = None
    compare: Path | None = None
    fail_over: float | None = None
    timeout_s: float | None = None
    choose: str | None = None
    choose_out: Path | None = None
    is_resumed: bool = False
    is_check: bool = False
    is_json: bool = False


# -- how it is measured -------------------------------------------------------------------------------------------------


def _from_0(word: Any) -> int:  # Any: a word, or a value of a file
    return words.counts([word], least=0)[0]


def _from_1(word: Any) -> int:  # Any: a word, or a value of a file
    return words.counts([word])[0]


def _switch(value: Any) -> bool:  # Any: a switch, or a value of a file, where "no" in quotes is a text
    if not isinstance(value, bool):
        raise ValueError(f"found '{value}'; wanted: true or false")  # noqa: TRY004 as for every value
    return value


METHOD: Mapping[str, tuple[str, Callable[[Any], Any]]] = {  # key of a file -> field of Method, and what reads it
    "seed": ("seed", _from_0),
    "rounds": ("rounds", _from_1),
    "warm_up": ("warm_ups", _from_0),
    "cold": ("cold", _from_0),
    "precision_target": ("precision_target", words.part),
    "budget": ("budget_s", words.duration),
    "share_upstream": ("share_upstream", _switch),
}
USUAL_METHOD = Method(rounds=ROUNDS, warm_ups=WARM_UPS)


def method_of(given: Mapping[str, Any], before: Method = USUAL_METHOD) -> Method:  # Any: words, or values of a file
    """The method with what is given over it. Raises ValueError that names the key."""
    found = {}
    for key, value in given.items():
        field, read = METHOD[key]
        try:
            found[field] = read(value)
        except ValueError as error:
            raise ValueError(f"{key}: {error}") from error
    return replace(before, **found)


# -- together -----------------------------------------------------------------------------------------------------------


def asked_for(  # noqa: PLR0913 each is what one option gave
    graphs: Sequence[str],
    *,
    swept: Sequence[tuple[str, str]],
    placing: Mapping[str, Sequence[str]],
    settings: Mapping[str, str],
    inputs: Sequence[tuple[str, str]],
    records: str | None,
    metrics: Sequence[str] | None,
    outputs: Sequence[str] | None,
    allow: Sequence[str] | None,
    opening: Opening,
    method: Mapping[str, str | bool | None],
) -> Sweep:
    """The sweep that the words of a command ask for. Raises a usage error for words that mean nothing."""
    if not graphs:
        raise typer.BadParameter("name a graph, or a sweep file")
    if twice := next((name for name in graphs if graphs.count(name) > 1), None):
        raise typer.BadParameter(f"'{twice}' is named twice")
    if records is not None and inputs:
        raise typer.BadParameter("--records and --input are both given; keep one of the two")
    if "auto" in placing.get("backend", ()):
        raise typer.BadParameter("--backend auto is whichever can answer yet; name those to compare, such as torch,onnx")
    before = _written(graphs)
    if unknown := next((word for word in allow or () if word != "unused"), None):
        raise typer.BadParameter(f"--allow takes unused, found '{unknown}'")
    axes = [_axis(name, _listed(name, text)) for name, text in swept]
    axes += [_axis(name, values) for name, values in placing.items()]
    options = {name: getattr(opening, name) for name in OPTIONS if getattr(opening, name) is not None}
    seed = {"seed": opening.seed} if opening.seed else {}
    return Sweep(
        graphs=before.graphs,
        axes=ordered(_over(before.axes, axes)),
        settings={**before.settings, **settings},
        records=records if records is not None or inputs else before.records,
        inputs=inputs if records is not None or inputs else before.inputs,
        metrics=metrics or before.metrics,
        outputs=outputs or before.outputs,
        allow=allow or before.allow,
        method=_method({name.replace("-", "_"): value for name, value in method.items() if value is not None} | seed, before.method),
        options={**before.options, **options},
    )


def _written(graphs: Sequence[str]) -> Sweep:
    """What is asked for before the options are heard: graphs alone, or all that a sweep file says."""
    from modelgraft_plugins.benching.sweep_files import sweep_in

    found = {name: sweep for name in graphs if (sweep := sweep_in(name)) is not None}
    if found and len(graphs) > 1:
        raise typer.BadParameter(f"'{next(iter(found))}' is a sweep file, which names its graphs itself: give it alone")
    return next(iter(found.values()), Sweep(graphs=graphs, method=USUAL_METHOD))


def _listed(name: str, text: str) -> list[str]:
    try:
        return listed(text)
    except ValueError as error:
        raise typer.BadParameter(f"--sweep {name}: {error}") from error


def _axis(name: str, values: Sequence[str]) -> Axis:
    try:
        return simple_axis(name, values)
    except ValueError as error:
        raise typer.BadParameter(f"{name}: {error}") from error


def _over(before: Sequence[Axis], axes: Sequence[Axis]) -> list[Axis]:
    """The axes of a file, with those of the command line in place of those of the same name."""
    given = {axis.name for axis in axes}
    return [*(axis for axis in before if axis.name not in given), *axes]


def _method(given: Mapping[str, Any], before: Method) -> Method:  # Any: words and switches
    try:
        return method_of(given, before)
    except ValueError as error:
        raise typer.BadParameter(f"--{str(error).replace('_', '-', 1)}") from error
