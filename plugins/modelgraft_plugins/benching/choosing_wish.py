"""What a placement is chosen by: conditions on figures of a cell, and the figure that is to be least or most when all of them hold.

    p50 < 300ms, parity > 0.99
    least memory, p50 < 1s and agreement >= 95%

Conditions are joined by a comma or by "and". A figure that is to be small takes `<` or `<=`, one that is to be large `>` or `>=`;
times have a unit (us, ms, s), sizes too (kB, MB, GB, and KiB, MiB, GiB), parts may be written as 0.99 or 99%.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Literal, NoReturn

from modelgraft.commands import in_bytes, in_seconds
from modelgraft.plugin import InputError, choices, nearest
from modelgraft_plugins.benching.results import Cell, Spread

if TYPE_CHECKING:
    from modelgraft_plugins.benching.asking import Wishes
    from modelgraft_plugins.benching.sweeps import Sweep

Kind = Literal["time", "size", "part", "score"]

UNITS: Mapping[Kind, Mapping[str, float]] = {
    "time": {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0},
    "size": {"b": 1, "kb": 1000, "mb": 1000**2, "gb": 1000**3, "kib": 1024, "mib": 1024**2, "gib": 1024**3},
    "part": {"": 1.0, "%": 0.01},
    "score": {"": 1.0},
}
WANTED: Mapping[Kind, str] = {
    "time": "a time with its unit: 300ms, 0.3s",
    "size": "a size with its unit: 500MB, 2GiB",
    "part": "a part from 0 to 1, or of 100: 0.99, 99%",
    "score": "a number in the metric's own unit: 0.8",
}
OPERATORS: Mapping[str, Callable[[float, float], bool]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
EXAMPLE = "p50 < 300ms, parity > 0.99"

_CLAUSE = re.compile(r"\s*,\s*|\s+and\s+")
_AIM = re.compile(r"(least|most)\s+(\S.*)")
_CONDITION = re.compile(r"([^<>=!]+?)\s*(<=|>=|==|!=|<|>|=)\s*(.+)")
_AMOUNT = re.compile(r"([0-9]+(?:\.[0-9]+)?|\.[0-9]+)\s*([A-Za-zµ%]*)")


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure of a cell that can be asked for.

    kind     what its numbers are, and so which units it takes
    is_less  whether less of it is better; None: a metric may be either
    taken    gives it, or None where it was not taken
    is_lasting  what a part loses alone it loses beside others as well: parts that break a condition on it are left out early
    """

    name: str
    kind: Kind
    sentence: str
    taken: Callable[[Cell], float | None]
    is_less: bool | None = True
    is_lasting: bool = False

    def shown(self, value: float | None) -> str:
        """A value for people."""
        if value is None:
            return "not taken"
        if self.kind == "time":
            return in_seconds(value)
        return in_bytes(int(value)) if self.kind == "size" else f"{value:.4g}"


def _value(spread: Spread | None) -> float | None:
    return None if spread is None else spread.value


def _memory(cell: Cell) -> float | None:
    return None if cell.memory.resident is None else cell.memory.resident + sum(cell.memory.device.values())


def _weights(cell: Cell) -> float | None:
    return cell.memory.planned if cell.memory.measured is None else cell.memory.measured


def parity_of(cell: Cell) -> float | None:
    """1 minus the largest difference of a number of an output from the reference's, as a part of the largest number of that output."""
    return 1 - max(cell.parity.values()) if cell.parity else None


FIGURES: Mapping[str, Figure] = {
    figure.name: figure
    for figure in (
        Figure("p50", "time", "the median time of a run", lambda cell: cell.p.get("50")),
        Figure("p90", "time", "what nine runs of ten take at most", lambda cell: cell.p.get("90")),
        Figure("first_token", "time", "until the first piece of text", lambda cell: _value(cell.first_token_s)),
        Figure("per_token", "time", "for each further piece", lambda cell: _value(cell.per_token_s)),
        Figure("cpu", "time", "of all processors in a run", lambda cell: _value(cell.cpu_s)),
        Figure("memory", "size", "the most that a fresh process takes, with its devices", _memory),
        Figure("resident", "size", "the same without its devices", lambda cell: cell.memory.resident),
        Figure("weights", "size", "of weights as they are held", _weights),
        Figure("parity", "part", "1 minus the largest relative difference from torch", parity_of, is_less=False, is_lasting=True),
        Figure("agreement", "part", "of the records with torch's answer", lambda cell: cell.agreement, is_less=False, is_lasting=True),
    )
}
ALIASES = {"max memory": "memory", "max_memory": "memory"}
FRESH = ("memory", "resident")  # figures that only a fresh process shows


@dataclass(frozen=True, slots=True)
class Condition:
    """A bound on a figure, in seconds, bytes or as a number; `text` is as it was written."""

    figure: Figure
    sign: str
    bound: float
    text: str

    def holds(self, value: float | None) -> bool:
        """Whether a value is within the bound; what was not taken is not."""
        return value is not None and OPERATORS[self.sign](value, self.bound)

    def missed_by(self, value: float | None) -> float:
        """How far a value is beyond the bound, as a part of it: 0 within, infinite for what was not taken.

        Of a part such as parity it is what is lost that counts: 0.97 where 0.99 is wanted is twice too far from 1.
        """
        if value is None:
            return float("inf")
        if self.holds(value):
            return 0.0
        if self.figure.kind == "part":
            return abs(value - self.bound) / max(1 - self.bound, 1e-9)
        return abs(value - self.bound) / max(abs(self.bound), 1e-12)


@dataclass(frozen=True, slots=True)
class Wish:
    """Conditions, and the figure that is to be least (or most) among the cells that fulfil them."""

    conditions: Sequence[Condition]
    aim: Figure
    is_least: bool = True

    @property
    def text(self) -> str:
        """The wish as it is told again."""
        aim = f"{'least' if self.is_least else 'most'} {self.aim.name}"
        return ", ".join([*(condition.text for condition in self.conditions), aim])

    @property
    def figures(self) -> list[Figure]:
        """All that are looked at, each once: those of the conditions, then the aim."""
        return list({figure.name: figure for figure in (*(one.figure for one in self.conditions), self.aim)}.values())

    @property
    def needs_fresh(self) -> bool:
        """Whether a figure is asked for that only a fresh process shows."""
        return any(figure.name in FRESH for figure in self.figures)

    def cost(self, value: float | None) -> float:
        """The aim as a number of which less is better; infinite where it was not taken."""
        return float("inf") if value is None else value if self.is_least else -value


def read_wish(text: str, *, metrics: Collection[str] = ()) -> Wish:
    """Read what `--choose` was given.

    metrics  the names of the metrics that are measured: they are figures as well

    Raises InputError with the clause that means nothing, and what was wanted.
    """
    figures = {**FIGURES, **{name: _metric(name) for name in metrics}}
    conditions, aims = list[Condition](), list[tuple[Figure, bool]]()
    for clause in _CLAUSE.split(text.strip()):
        if not clause.strip():
            _refuse(text, "a condition is missing", f"such as '{EXAMPLE}'")
        aim = _AIM.fullmatch(clause.strip())
        if aim is not None:
            aims.append((_named(aim[2].strip(), figures, text), aim[1] == "least"))
        else:
            conditions.append(_condition(clause.strip(), figures, text))
    if len(aims) > 1:
        _refuse(text, f"{len(aims)} figures are to be least or most", "one")
    aimed, is_least = aims[0] if aims else (FIGURES["p50"], True)
    if aimed.is_less is not None and aimed.is_less != is_least:
        _refuse(text, f"'{'least' if is_least else 'most'} {aimed.name}' is the worst", f"'{'most' if is_least else 'least'} {aimed.name}'")
    return Wish(conditions, aimed, is_least)


def wish_of(sweep: Sweep, wishes: Wishes) -> Wish:
    """What is to be chosen by. Raises InputError for conditions that mean nothing, and for what cannot be done beside a choice."""
    wish = read_wish(wishes.choose or "", metrics=[word.partition(":")[0] for word in sweep.metrics])
    if len(sweep.graphs) > 1:
        raise InputError(f"--choose is for one graph, found {len(sweep.graphs)}: choose for each by itself")
    swept = [axis.name for axis in sweep.axes if len(axis.points) > 1]
    if swept:
        raise InputError(f"--choose takes the graph as it stands, and {', '.join(swept)} has several values: keep one of each")
    placed = [axis.name for axis in sweep.axes if axis.name in ("backend", "precision")]
    if placed:
        raise InputError(f"--choose decides {' and '.join(placed)} for each node: leave --{placed[0]} out")
    for option, reason in _beside(sweep, wishes):
        raise InputError(f"--choose {reason}: leave {option} out")
    return wish


def _beside(sweep: Sweep, wishes: Wishes) -> Iterator[tuple[str, str]]:
    """The options that mean nothing beside a choice, each with the reason."""
    if wishes.is_resumed:
        yield "--resume", "measures what the figures before ask for, so that none can be kept"
    if wishes.compare is not None:
        yield "--compare", "measures placements, and an older bench has others"
    if sweep.method.share_upstream:
        yield "--share-upstream", "looks at the time of the whole graph"


def _metric(name: str) -> Figure:
    def taken(cell: Cell) -> float | None:
        return next((one.value for one in cell.quality if name in (one.metric, one.metric.rpartition("/")[2])), None)

    return Figure(name, "score", "a metric", taken, is_less=None, is_lasting=True)


def _condition(clause: str, figures: Mapping[str, Figure], text: str) -> Condition:
    match = _CONDITION.fullmatch(clause)
    if match is None:
        _refuse(text, f"'{clause}' is no condition", f"a figure, a sign and an amount, such as '{EXAMPLE}', or 'least memory'")
    figure, sign = _named(match[1].strip(), figures, text), match[2]
    if sign not in OPERATORS:
        _refuse(text, f"'{sign}' in '{clause}' asks for an exact value, which no measurement gives", "<, <=, > or >=")
    if figure.is_less is not None and figure.is_less != sign.startswith("<"):
        turned = sign.translate(str.maketrans("<>", "><"))
        found = f"'{clause}' asks for {'more' if figure.is_less else 'less'} {figure.name}, which is worse"
        _refuse(text, found, f"{figure.name} {turned} {match[3].strip()}")
    return Condition(figure, sign, _amount(match[3].strip(), figure, clause, text), clause)


def _named(name: str, figures: Mapping[str, Figure], text: str) -> Figure:
    found = figures.get(ALIASES.get(" ".join(name.split()), name))
    if found is None:
        known = choices(figures, sort=False)
        hint = nearest(name, [*figures, *ALIASES])
        _refuse(text, f"there is no figure '{name}'", f"{known}; a metric is named by --metric first. {hint}".rstrip())
    return found


def _amount(word: str, figure: Figure, clause: str, text: str) -> float:
    match = _AMOUNT.fullmatch(word)
    wanted = WANTED[figure.kind]
    if match is None:
        _refuse(text, f"'{word}' in '{clause}' is no amount", wanted)
    number, unit = Fraction(match[1]), match[2]
    factor = UNITS[figure.kind].get(unit.lower())
    if factor is None:
        _refuse(text, f"'{clause}' has {f'the unit {unit!r}' if unit else 'no unit'}", wanted)
    amount = float(number * Fraction(str(factor)))
    if figure.kind == "part" and amount > 1:
        _refuse(text, f"'{clause}' asks for more than the whole", wanted)
    return amount


def _refuse(text: str, found: str, wanted: str) -> NoReturn:
    raise InputError(f"--choose '{text}': {found}; wanted: {wanted}")
