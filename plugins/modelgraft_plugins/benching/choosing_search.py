"""The search for a placement: each part alone within the whole graph, then together, then one by one around what was found.

What is measured is told by a function that is handed in. It measures the graph as it stands beside everything else that it is
asked for, so that times that were taken at another time are compared as parts of that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median

from modelgraft_plugins.benching.choosing_wish import Condition, Wish
from modelgraft_plugins.benching.placing import Placement, Places
from modelgraft_plugins.benching.results import Cell
from modelgraft_plugins.intervals import ratio_of_rounds

CLEARLY = 0.02  # what is better by less is not worth a line in a graph
BEAM = 64  # combinations that are kept while they are put together, best first
TOGETHER = 3  # combinations that are measured at first
AROUND = 6  # neighbours of the best that are measured at once
STEPS = 4  # times that the search goes on from a better neighbour

Figures = Mapping[str, float | None]  # by name, those that the wish looks at
Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A placement that was measured.

    placement  the options that differ from the graph as it stands: none is the graph itself
    figures    None for what was not taken;  lacks  why, by figure
    failed     why it could not be measured; "" otherwise
    start      the graph as it stands, measured beside it; None for that itself
    """

    placement: Placement
    figures: Figures
    cell: Cell | None = None
    lacks: Mapping[str, str] = field(default_factory=dict)
    failed: str = ""
    start: Trial | None = None


Measure = Callable[[Sequence[Placement]], Sequence[Trial]]  # gives the graph as it stands first, then what was asked for, in order


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a search found.

    best     the placement to be written; the graph as it stands where nothing is clearly better; None: none fulfils the conditions
    start    the graph as it stands
    trials   everything that was measured, in order; what was measured again stands there as it was last
    dropped  parts that were left out after they were measured alone, by what they are, with the reason
    """

    best: Trial | None
    start: Trial
    trials: Sequence[Trial]
    dropped: Mapping[str, str]

    def nearest(self, wish: Wish, *, most: int = 5) -> list[Trial]:
        """The trials that came closest to the conditions, the closest first."""
        alive = [trial for trial in self.trials if not trial.failed]
        return sorted(alive, key=lambda trial: (missed_by(trial, wish.conditions), _relative(trial, wish)))[:most]


def search(places: Places, wish: Wish, measure: Measure, *, tell: Tell) -> Found:
    """Find the placement of least cost that fulfils all conditions, or tell that none does."""
    going = _Search(places, wish, measure)
    tell("each node alone")
    going.alone()
    tell("together")
    going.together()
    best = going.best()
    for step in range(STEPS):
        if going.fulfils(best) and step == 0 and not going.is_disappointing(best):
            break
        tell("around the best so far")
        better = going.around(best)
        if better is best:
            break
        best = better
    if len(best.placement) > 1 and going.fulfils(best):
        tell("without each of its parts")
        best = going.simplest(best)
    return going.found(best)


def missed_by(trial: Trial, conditions: Iterable[Condition]) -> float:
    """How far a trial is from fulfilling conditions, all together; 0 when it does."""
    return sum(condition.missed_by(trial.figures.get(condition.figure.name)) for condition in conditions)


def _relative(trial: Trial, wish: Wish) -> float:
    """The cost of a trial; of times as a part of the graph as it stood beside it, so that those of other hours can be compared."""
    value = trial.figures.get(wish.aim.name)
    if wish.aim.kind != "time" or value is None:
        return wish.cost(value)
    beside = trial.figures if trial.start is None else trial.start.figures
    return value / (beside.get(wish.aim.name) or value)


def is_clearly_better(trial: Trial, other: Trial, wish: Wish) -> bool:
    """Whether the aim of the wish is better by more than CLEARLY, and by more than chance where both were measured round by round."""
    walls = [_walls(one.cell) for one in (trial, other)]
    same = sorted(walls[0].keys() & walls[1].keys())
    if wish.aim.name == "p50" and same and (trial.start or trial) is (other.start or other):
        ratio = ratio_of_rounds(*([wall[number] for number in same] for wall in walls))
        return ratio.verdict == "faster" and ratio.value < 1 - CLEARLY
    mine, theirs = _relative(trial, wish), _relative(other, wish)
    return mine < theirs - CLEARLY * abs(theirs)


def _walls(cell: Cell | None) -> dict[int, float]:
    """The median time of a run by round."""
    by_round: dict[int, list[float]] = {}
    for sample in cell.samples if cell is not None else ():
        by_round.setdefault(sample.round, []).append(sample.wall_s)
    return {number: median(times) for number, times in by_round.items()}


def _key(placement: Placement) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(placement.items()))


@dataclass(slots=True)
class _Search:
    """A search under way.

    known    what was measured, by placement
    moves    single parts that are worth combining: what each changes, and by how much it moves each figure
    """

    places: Places
    wish: Wish
    measure: Measure
    known: dict[tuple[tuple[str, str], ...], Trial] = field(default_factory=dict)
    moves: dict[tuple[tuple[str, str], ...], Mapping[str, float]] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)

    # -- measuring ------------------------------------------------------------------------------------------------------

    @property
    def start(self) -> Trial:
        """The graph as it stands, as it was last measured."""
        return self.known[()]

    def take(self, placements: Iterable[Placement], *, again: bool = False) -> list[Trial]:
        """Measure what is not known yet, or all of it once more."""
        wanted = {_key(placement): placement for placement in placements if placement}
        new = [placement for key, placement in wanted.items() if again or key not in self.known]
        if new or not self.known:
            start, *trials = self.measure(new)
            self.known[()] = start
            self.known |= {_key(trial.placement): trial if trial.start is not None else replace(trial, start=start) for trial in trials}
        return [self.known[key] for key in wanted]

    def fulfils(self, trial: Trial) -> bool:
        """Whether all conditions hold."""
        return not trial.failed and all(one.holds(trial.figures.get(one.figure.name)) for one in self.wish.conditions)

    # -- the phases -----------------------------------------------------------------------------------------------------

    def alone(self) -> None:
        """Measure every part alone: each option of each unit, and each group that would become one call, as one."""
        singles = [{name: option} for name, unit in self.places.units.items() for option in unit.options if option != unit.start]
        groups = [dict.fromkeys(call, option) for call in self.places.calls for option in self._fusing(call)]
        for trial in self.take([*singles, *groups]):
            reason = self._why_drop(trial)
            if reason:
                self.dropped[told(trial.placement)] = reason
                continue
            self.moves[_key(trial.placement)] = _moved(trial)

    def _fusing(self, call: Sequence[str]) -> list[str]:
        """The options that make one call of a group; one that a unit runs on already is for the others to join."""
        units = [self.places.units[name] for name in call]
        return [name for name, option in units[0].options.items() if option.fuses and all(name in unit.options for unit in units)]

    def _why_drop(self, trial: Trial) -> str:
        """Why a part is not worth combining: it failed, or breaks alone what it would break beside others as well."""
        if trial.failed:
            return trial.failed
        for condition in self.wish.conditions:
            value = trial.figures.get(condition.figure.name)
            if condition.figure.is_lasting and value is not None and not condition.holds(value):
                return f"{condition.figure.name} {condition.figure.shown(value)}, wanted {condition.text}"
        return ""

    def together(self) -> None:
        """Measure the combinations that should be best, as far as the parts alone tell."""
        ranked = self._combined()
        self.take([placement for placement in ranked if len(placement) > 1][:TOGETHER])

    def best(self) -> Trial:
        """The best that was measured: what fulfils the conditions at least cost, or else what comes closest."""
        alive = [trial for trial in self.known.values() if not trial.failed]
        return min(alive, key=self._rank, default=self.start)

    def is_disappointing(self, best: Trial) -> bool:
        """Whether the combination that the parts promised breaks a condition, or is clearly worse than the best."""
        trial = self.known.get(_key(self._combined()[0]), best)
        return trial is not best and (not self.fulfils(trial) or is_clearly_better(best, trial, self.wish))

    def around(self, best: Trial) -> Trial:
        """The best of a trial and its neighbours: one part of it changed, those first that should be best."""
        neighbours = [
            self._without_start({**best.placement, **change})
            for change in (*map(dict, self.moves), *({name: self.places.units[name].start} for name in best.placement))
        ]
        fresh = {_key(placement): placement for placement in neighbours if placement and _key(placement) not in self.known}
        ranked = sorted(fresh.values(), key=self._promise)
        found = self.take(ranked[:AROUND])
        return min([best, *(trial for trial in found if not trial.failed)], key=self._rank)

    def simplest(self, best: Trial) -> Trial:
        """The same without the parts that are no gain: measured once more beside it."""
        while len(best.placement) > 1:
            less = [self._without_start({**best.placement, name: self.places.units[name].start}) for name in best.placement]
            best, *others = self.take([best.placement, *less], again=True)
            as_good = [trial for trial in others if self.fulfils(trial) and not is_clearly_better(best, trial, self.wish)]
            if not as_good:
                return best
            best = min(as_good, key=self._rank)
        return best

    def found(self, best: Trial) -> Found:
        """The end: the best, unless the graph as it stands is as good; what breaks a condition when it is measured again gives way."""
        best = best if self.fulfils(best) else self.best()
        chosen: Trial | None = best if self.fulfils(best) else None
        beside = (best.start or self.start) if chosen is not None else self.start
        if chosen is not None and self.fulfils(beside) and not is_clearly_better(chosen, beside, self.wish):
            chosen = beside
        return Found(best=chosen, start=beside, trials=tuple(self.known.values()), dropped=self.dropped)

    # -- what combinations should give ----------------------------------------------------------------------------------

    def _combined(self) -> list[Placement]:
        """Combinations of parts, those first that should be best. The graph as it stands is one of them."""
        kept: list[Placement] = [{}]
        for name, unit in self.places.units.items():
            options = [option for option in unit.options if option == unit.start or ((name, option),) in self.moves]
            options += [option for move in self.moves for at, option in move if at == name and option not in options]
            grown: list[Placement] = [self._without_start({**placement, name: option}) for placement in kept for option in options]
            kept = sorted(grown, key=self._promise)[:BEAM]
        return kept

    def _promise(self, placement: Placement) -> tuple[float, float, int]:
        """What a placement should come to: how far beyond the conditions, at which cost, with how many changes."""
        figures = self._predicted(placement)
        trial = Trial(placement=placement, figures=figures)
        return missed_by(trial, self.wish.conditions), self.wish.cost(figures.get(self.wish.aim.name)), len(placement)

    def _predicted(self, placement: Placement) -> Figures:
        """The figures as they should be if each part moved them as it does alone, and each group that is one call as a group."""
        left, moved = dict(placement), list[Mapping[str, float]]()
        for move in sorted(self.moves, key=len, reverse=True):
            if all(left.get(name) == option for name, option in move):
                moved.append(self.moves[move])
                left = {name: option for name, option in left.items() if name not in dict(move)}
        figures = self.start.figures
        return {
            name: None if value is None or left else value + sum(one.get(name, float("inf")) for one in moved)
            for name, value in figures.items()
        }

    def _without_start(self, placement: Placement) -> dict[str, str]:
        return {name: option for name, option in placement.items() if option != self.places.units[name].start}

    def _rank(self, trial: Trial) -> tuple[float, float, int]:
        return missed_by(trial, self.wish.conditions), _relative(trial, self.wish), len(trial.placement)


def _moved(trial: Trial) -> dict[str, float]:
    """By how much a trial moves each figure from the graph as it stood beside it."""
    before = trial.start.figures if trial.start is not None else {}
    pairs = ((name, value, before.get(name)) for name, value in trial.figures.items())
    return {name: value - start for name, value, start in pairs if value is not None and start is not None}


def told(placement: Placement) -> str:
    """A placement in words."""
    return ", ".join(f"{name} on {option}" for name, option in placement.items()) or "as it stands"
