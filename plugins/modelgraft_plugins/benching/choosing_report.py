"""What a choice says: the table of placements, the reason above a placement that is written, and the same as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from modelgraft_plugins.benching.cells import WantedCell
from modelgraft_plugins.benching.choosing_search import Found, Trial, told
from modelgraft_plugins.benching.choosing_wish import Figure, Wish
from modelgraft_plugins.benching.files import plain_results
from modelgraft_plugins.benching.measuring_figures import ratio_to
from modelgraft_plugins.benching.placing import Places
from modelgraft_plugins.benching.placing_file import Placed
from modelgraft_plugins.benching.results import Ratio, Results

if TYPE_CHECKING:
    from modelgraft.commands import Screen

RUNS_ON = ("modelgraft", "torch", "onnxruntime", "onnxruntime-gpu")  # packages whose versions decide how fast a placement is


# -- above a placement --------------------------------------------------------------------------------------------------


def comment_of(found: Found, wish: Wish, text: str, results: Results, cell: WantedCell) -> list[str]:
    """Why a placement was chosen, as lines: the conditions, when and on what, and the figures."""
    around, best = results.surroundings, found.best
    versions = [f"{name} {around.versions[name]}" for name in RUNS_ON if name in around.versions]
    lines = [f"'{' '.join(text.split())}' on {around.date[:10]}", ", ".join([around.processor, f"{around.cores} cores", *versions])]
    lines.append(f"{results.data.records} record{'s' * (results.data.records != 1)} of {' '.join(results.data.name.split())}")
    settings = [f"--set {name}={value}" for name, value in cell.settings.items()]
    settings += [f"--{name} {value}" for name in ("device", "threads") if (value := getattr(cell, name)) is not None]
    settings += [f"--batch {cell.batch}"] if cell.batch != 1 else []
    if settings:
        lines.append(f"with {' '.join(' '.join(settings).split())}")
    if best is not None:
        lines += [f"{figure.name} {_compared(figure, best, found.start)}" for figure in wish.figures]
    return lines


def _compared(figure: Figure, best: Trial, start: Trial) -> str:
    """A figure of what was chosen, with what it was before."""
    value, before = best.figures.get(figure.name), start.figures.get(figure.name)
    ratio = ratio_of(best) if figure.name == "p50" else None
    sure = f", {_in_words(ratio)}" if ratio is not None else ""
    note = f" ({best.lacks[figure.name]})" if best.lacks.get(figure.name) else ""
    return f"{figure.shown(value)}, before {figure.shown(before)}{sure}{note}"


def ratio_of(trial: Trial) -> Ratio | None:
    """The time of a trial over that of the graph as it stood beside it."""
    beside = trial.start.cell if trial.start is not None else None
    return None if trial.cell is None or beside is None else ratio_to(beside, trial.cell, seed=0)


def _in_words(ratio: Ratio) -> str:
    wall = ratio.wall
    if wall.low is None or wall.high is None:
        return f"{wall.value:.2f} of it (n={wall.n}, too few for an interval)"
    return f"{wall.value:.2f} of it (95 % from {wall.low:.2f} to {wall.high:.2f}, n={wall.n})"


# -- on the terminal ----------------------------------------------------------------------------------------------------


def say_choice(screen: Screen, found: Found, wish: Wish, placed: Placed | None, places: Places) -> None:
    """Answer with every placement that was measured, with what was chosen, and with where it was written."""
    heads = ("placement", *(figure.name for figure in wish.figures), "to the start", "")
    numbers = frozenset(range(1, len(heads) - 1))
    screen.table(heads, [_row(trial, found, wish) for trial in _ordered(found, wish)], right=numbers)
    for line in _left_out(found, places):
        screen.say(line)
    screen.say("")
    if found.best is None:
        closest = found.nearest(wish, most=1)
        screen.say(f"no placement fulfils: {wish.text}")
        screen.say(f"closest is: {told(closest[0].placement)}; nothing is written" if closest else "nothing is written")
    elif placed is None:
        screen.say(f"the graph as it stands is as good as anything that was measured, for: {wish.text}; nothing is written")
    else:
        screen.say(f"written to {placed.path}:" if placed.path is not None else f"not written: {placed.why}")
        for line in placed.lines:
            screen.say(f"  {line}")


def _ordered(found: Found, wish: Wish) -> list[Trial]:
    """The trials, the graph as it stands first, then the best first, what failed last."""
    others = [trial for trial in found.nearest(wish, most=len(found.trials)) if trial.placement]
    return [found.start, *others, *(trial for trial in found.trials if trial.failed)]


def _row(trial: Trial, found: Found, wish: Wish) -> tuple[str, ...]:
    figures = [figure.shown(trial.figures.get(figure.name)) if not trial.failed else "-" for figure in wish.figures]
    ratio = None if trial.failed else ratio_of(trial)
    return told(trial.placement), *figures, _short(ratio), _verdict(trial, found, wish)


def _short(ratio: Ratio | None) -> str:
    if ratio is None:
        return "-"
    wall = ratio.wall
    return f"{wall.value:.2f}" if wall.low is None or wall.high is None else f"{wall.value:.2f} [{wall.low:.2f}, {wall.high:.2f}]"


def _verdict(trial: Trial, found: Found, wish: Wish) -> str:
    if trial.failed:
        return "failed"
    missed = [one for one in wish.conditions if not one.holds(trial.figures.get(one.figure.name))]
    if missed:
        lacking = [one for one in missed if trial.figures.get(one.figure.name) is None]
        return f"not {', '.join(one.text for one in missed)}" + (f" ({trial.lacks.get(lacking[0].figure.name)})" if lacking else "")
    is_best = found.best is not None and found.best.placement == trial.placement
    return "chosen" if is_best else "fulfils" if wish.conditions else ""


def _left_out(found: Found, places: Places) -> Iterator[str]:
    """What was not measured or left out early, with the reason."""
    for unit in places.units.values():
        for option, reason in unit.refused.items():
            yield f"{unit.name} on {option} was not tried: {reason}"
    for what, reason in found.dropped.items():
        yield f"{what} was left out: {reason}"
    failed = [trial for trial in found.trials if trial.failed and told(trial.placement) not in found.dropped]
    for trial in failed:
        yield f"{told(trial.placement)} failed: {trial.failed}"
    if places.plain:
        yield f"plain code, which has no place: {', '.join(places.plain)}"


# -- as JSON ------------------------------------------------------------------------------------------------------------


def document_of(found: Found, wish: Wish, placed: Placed | None, places: Places, results: Results) -> dict[str, Any]:
    """A choice as one JSON document."""
    best = found.best
    return {
        "wish": wish.text,
        "chosen": None if best is None else dict(best.placement),
        "runtime": None if best is None else {name: dict(keys) for name, keys in places.keys_of(best.placement).items()},
        "written": str(placed.path) if placed is not None and placed.path is not None else None,
        "why": placed.why if placed is not None else "",
        "lines": list(placed.lines) if placed is not None else [],
        "trials": [_plain(trial, found, wish) for trial in _ordered(found, wish)],
        "left_out": list(_left_out(found, places)),
        "results": plain_results(results),
    }


def _plain(trial: Trial, found: Found, wish: Wish) -> dict[str, Any]:
    figures: dict[str, float | None] = dict(trial.figures)
    verdict: Sequence[str] = _verdict(trial, found, wish)
    return {"placement": dict(trial.placement), "figures": figures, "verdict": verdict, "failed": trial.failed}
