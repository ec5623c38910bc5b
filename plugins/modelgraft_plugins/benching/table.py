"""The table of a bench on the terminal: one row for each cell, in as many blocks as the terminal needs, and what it does not hold below."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from modelgraft.commands import in_bytes, in_seconds, short_count
from modelgraft_plugins.benching.pruned import columns, in_cells, say_pruned, say_wrapped, shown, varied
from modelgraft_plugins.benching.results import Cell, Results, Spread

if TYPE_CHECKING:
    from modelgraft.commands import Screen
    from modelgraft_plugins.benching.checking import Checked
    from modelgraft_plugins.benching.comparing import Comparison, Moved

UNKNOWN, NONE = "?", "-"
MOST_BESIDE = 6  # cells whose nodes are shown beside each other: more are a matter for the page
MOST_NODES = 12  # rows of that table; the rest is one row
MOST_LISTED = 8  # records that failed, by cell


@dataclass(frozen=True, slots=True)
class Column:
    """A figure of every cell: its heading, and its texts in the order of the cells."""

    head: str
    texts: Sequence[str]
    is_number: bool = True

    @property
    def width(self) -> int:
        """How wide it is."""
        return max(map(len, (self.head, *self.texts)))

    @property
    def is_empty(self) -> bool:
        """Whether no cell has it."""
        return set(self.texts) <= {NONE, ""}


def say_checked(screen: Screen, checked: Checked) -> None:
    """Answer with the cells that fit, and why the others do not."""
    cells = [cell.planned for cell in checked.fitting]
    every = [*cells, *checked.pruned]
    _say_blocks(screen, [*_names(cells, every), *_planned(cells)])
    say_pruned(screen.say, checked.pruned, every=every)


def say_results(screen: Screen, results: Results) -> None:
    """Answer with the figures of every cell, where the time goes, and what is not there with the reasons."""
    pruned = [cell for cell in results.cells if cell.state == "pruned"]
    cells = [cell for cell in results.cells if cell.state != "pruned"]
    measured = [cell for cell in cells if cell.state == "measured"]
    names = _names(cells, results.cells)
    _say_blocks(screen, [*names, *(column for column in _figures(cells) if not column.is_empty)])
    if 0 < len(measured) <= MOST_BESIDE:
        _say_shares(screen, measured)
    for line in _notes(results, cells):
        say_wrapped(screen.say, line)
    say_pruned(screen.say, pruned, every=results.cells)


def say_comparison(screen: Screen, found: Comparison) -> None:
    """Answer with what moved beyond its interval since the older results, and what is another thing."""
    screen.say(f"since then: {in_cells(len(found.cells))} in both, {len(found.added)} new, {len(found.gone)} gone")
    for other in found.others:
        say_wrapped(screen.say, f"  {other}")
    rows = [(cell.id, *_moved(moved)) for cell in found.cells for moved in cell.moved if moved.is_worse or moved.is_better]
    if rows:
        screen.table(("cell", "figure", "then", "now", "now / then (95 %)", ""), rows, right=frozenset({2, 3, 4}))
    else:
        screen.say("  nothing moved beyond its interval")
    for cell in found.cells:
        for note in cell.notes:
            say_wrapped(screen.say, f"  {cell.id}: {note}")


def _moved(moved: Moved) -> tuple[str, str, str, str, str]:
    told = in_seconds if moved.figure.endswith(("time", "token", "start")) else short if moved.ratio is not None else _plain
    change = _ratio(moved.ratio) if moved.ratio is not None else _difference(moved.difference)
    return moved.figure, told(moved.old), told(moved.new), change, "worse" if moved.is_worse else "better"


# -- columns ------------------------------------------------------------------------------------------------------------


def _names(cells: Sequence[Cell], every: Sequence[Cell]) -> list[Column]:
    axes = [Column(name, [shown(cell.values.get(name, "")) for cell in cells], is_number=False) for name in varied(every)]
    return [Column("cell", [cell.id for cell in cells], is_number=False), *axes]


def _planned(cells: Sequence[Cell]) -> list[Column]:
    return [
        Column("parameters", [UNKNOWN if cell.parameters is None else short_count(cell.parameters) for cell in cells]),
        Column("bytes", [in_bytes(cell.memory.planned) for cell in cells]),
    ]


def _figures(cells: Sequence[Cell]) -> Iterator[Column]:
    """The columns, what matters most first."""
    yield _percentile("50", cells, lambda cell: _spread(cell.wall_s))
    yield Column("over the first", ["1" if cell.ratio and cell.ratio.verdict == "baseline" else _ratio(_wall(cell)) for cell in cells])
    yield Column("", [_verdict(cell) for cell in cells], is_number=False)
    keys = sorted({(one.metric, one.output) for cell in cells for one in cell.quality})
    for key in keys:
        yield Column(key[0], [_quality(cell, key) for cell in cells])
    yield Column("failed", [str(len(cell.failures)) if cell.failures else NONE for cell in cells])
    for key in keys:
        yield Column(f"{key[0]} less the first", [_apart(cell, key) for cell in cells])
    yield from _planned(cells)
    yield from _percentiles(cells)
    yield _times("first token", cells, lambda cell: cell.first_token_s)
    yield _times("per token", cells, lambda cell: cell.per_token_s)
    yield Column("records / s", [NONE if cell.per_second is None else f"{cell.per_second.value:.3g}" for cell in cells])
    yield _times("CPU", cells, lambda cell: cell.cpu_s)
    yield Column("CPU over the first", [NONE if cell.ratio is None else _ratio(cell.ratio.cpu) for cell in cells])
    yield Column("weights", [NONE if cell.memory.measured is None else in_bytes(cell.memory.measured) for cell in cells])
    yield Column("most resident", [NONE if cell.memory.resident is None else in_bytes(cell.memory.resident) for cell in cells])
    for device in sorted({name for cell in cells for name in cell.memory.device}):
        yield Column(
            f"most on {device}", [in_bytes(cell.memory.device[device]) if device in cell.memory.device else NONE for cell in cells]
        )
    yield _times("cold start", cells, lambda cell: cell.start.cold)
    yield _times("warm start", cells, lambda cell: cell.start.warm)
    yield Column("agree", [NONE if cell.agreement is None else f"{cell.agreement:.0%}" for cell in cells])
    yield Column("parity", [f"{1 - max(cell.parity.values()):.6g}" if cell.parity else NONE for cell in cells])
    yield Column("shared", [", ".join(cell.shared) or NONE for cell in cells], is_number=False)


def _percentiles(cells: Sequence[Cell]) -> Iterator[Column]:
    """Those above the median that the number of samples allows."""
    for name in sorted({name for cell in cells for name in cell.p} - {"50"}, key=float):
        yield _percentile(name, cells, lambda cell, name=name: in_seconds(cell.p[name]) if name in cell.p else NONE)  # type: ignore[misc]


def _percentile(name: str, cells: Sequence[Cell], told: Callable[[Cell], str]) -> Column:
    """A percentile with the number of samples that it is made of: in the heading where that is the same for all."""
    texts = [told(cell) for cell in cells]
    counts = {len(cell.samples) for cell, text in zip(cells, texts, strict=True) if text != NONE}
    if len(counts) == 1:
        return Column(f"p{name} (n={counts.pop()})", texts)
    own = [text if text == NONE else f"{text} (n={len(cell.samples)})" for cell, text in zip(cells, texts, strict=True)]
    return Column(f"p{name}", own)


def _times(head: str, cells: Sequence[Cell], figure: Callable[[Cell], Spread | None]) -> Column:
    return Column(head, [NONE if (found := figure(cell)) is None else in_seconds(found.value) for cell in cells])


def _spread(found: Spread | None) -> str:
    """A time with its interval, in one unit: `19.5 ms (14–35)`."""
    if found is None:
        return NONE
    told = in_seconds(found.value)
    number, _, unit = told.partition(" ")
    if found.low is None or found.high is None or not float(number):
        return told
    scale = float(number) / found.value
    return f"{number} {unit} ({found.low * scale:.3g}–{found.high * scale:.3g})"


def _wall(cell: Cell) -> Spread | None:
    return None if cell.ratio is None else cell.ratio.wall


def _ratio(found: Spread | None) -> str:
    if found is None:
        return NONE
    bounds = "" if found.low is None or found.high is None else f" ({found.low:.3g}–{found.high:.3g})"
    return f"{found.value:.3g}{bounds}"


def _difference(found: Spread | None) -> str:
    if found is None:
        return NONE
    bounds = "" if found.low is None or found.high is None else f" ({found.low:+.3g} to {found.high:+.3g})"
    return f"{found.value:+.3g}{bounds}"


def _verdict(cell: Cell) -> str:
    if cell.state != "measured":
        return cell.state
    if cell.ratio is None or cell.ratio.verdict == "baseline":
        return ""
    return "too few rounds for a verdict" if cell.ratio.wall.low is None else cell.ratio.verdict


def _quality(cell: Cell, key: tuple[str, str]) -> str:
    found = next((one for one in cell.quality if (one.metric, one.output) == key), None)
    if found is None:
        return NONE
    return f"{found.value:.3g}" if found.low is None or found.high is None else f"{found.value:.3g} ({found.low:.3g}–{found.high:.3g})"


def _apart(cell: Cell, key: tuple[str, str]) -> str:
    """How much more a cell has than the first, on the same records."""
    found = next((one.difference for one in cell.quality if (one.metric, one.output) == key), None)
    if found is None or found.low is None or found.high is None:
        return _difference(found)
    return "no difference seen" if found.low <= 0 <= found.high else _difference(found)


def short(number: float) -> str:
    """A count or a number of bytes."""
    return short_count(round(number))


def _plain(number: float) -> str:
    return f"{number:.4g}"


# -- blocks -------------------------------------------------------------------------------------------------------------


def _say_blocks(screen: Screen, every: Sequence[Column]) -> None:
    """Say columns in blocks that are as wide as the terminal; each begins with what names the cells."""
    names = [column for column in every if not column.is_number and column.head]
    names = names[: next((number for number, column in enumerate(every) if column not in names), len(names))]
    rest, room = list(every[len(names) :]), columns()
    while rest or names:
        block = list(names)
        while rest and (len(block) == len(names) or _width([*block, rest[0]]) <= room):
            block.append(rest.pop(0))
        right = frozenset(number for number, column in enumerate(block) if column.is_number)
        screen.table([column.head for column in block], list(zip(*(column.texts for column in block), strict=True)), right=right)
        if not rest:
            return
        names = names[:1]  # the other blocks name cells by their ids
        screen.say()


def _width(block: Sequence[Column]) -> int:
    return sum(column.width for column in block) + 2 * (len(block) - 1)


def _say_shares(screen: Screen, cells: Sequence[Cell]) -> None:
    """Where the time of a run goes, by node; the rows add up to the whole."""
    shared = [(cell, cell.shares) for cell in cells if cell.shares is not None]
    if not shared:
        return
    nodes = sorted({name for _, one in shared for name in one.nodes}, key=lambda name: -max(one.nodes.get(name, 0) for _, one in shared))
    rest = dict.fromkeys(name for _, one in shared for name in one.rest)
    rows = [(name, *(_share(one.nodes.get(name), one.wall_s) for _, one in shared)) for name in nodes[:MOST_NODES]]
    if more := nodes[MOST_NODES:]:
        rows.append((f"{len(more)} more", *(_share(sum(one.nodes.get(name, 0) for name in more), one.wall_s) for _, one in shared)))
    rows += [(f"({name})", *(_share(one.rest.get(name), one.wall_s) for _, one in shared)) for name in rest]
    rows.append(("the whole", *(in_seconds(one.wall_s) for _, one in shared)))
    screen.say()
    screen.table(("where the time goes", *(cell.id for cell, _ in shared)), rows, right=frozenset(range(1, len(shared) + 1)), last=True)


def _share(seconds: float | None, whole: float) -> str:
    return NONE if seconds is None else f"{in_seconds(seconds)} {seconds / whole:4.0%}" if whole > 0 else in_seconds(seconds)


# -- below it -----------------------------------------------------------------------------------------------------------


def _notes(results: Results, cells: Sequence[Cell]) -> Iterator[str]:
    """How it was measured, what to beware of, and what is not there."""
    yield ""
    yield from _method(results)
    yield from (f"warning: {warning}" for warning in results.warnings)
    told = [(text, cell.id) for cell in cells for text in cell.warnings]
    told += [
        (cell.ratio.warning, cell.id) for cell in cells if cell.ratio is not None and cell.ratio.warning not in ("", *results.warnings)
    ]
    yield from (f"warning: {text} ({ids})" for text, ids in _together(told, of=len(cells)))
    for cell in cells:
        for reason in cell.reasons:
            yield f"{cell.id} {cell.state}: {f'{reason.place}: ' if reason.place else ''}{reason.text}"
        yield from _failures(cell, results)
    for failure in results.data.failed[:MOST_LISTED]:
        yield f"{failure.place} is no record: {failure.text}"
    if len(results.data.failed) > MOST_LISTED:
        yield f"{len(results.data.failed)} lines of the data in all are no records"
    spared = [(", ".join(cell.cached), cell.id) for cell in cells if cell.cached]
    yield from (f"spared by the cache when the same records come again: {names} ({ids})" for names, ids in _together(spared, of=len(cells)))
    yield from _untaken(cells)


def _failures(cell: Cell, results: Results) -> Iterator[str]:
    """The records that failed in a cell: counted and listed."""
    if not cell.failures:
        return
    listed = (f"record {one.record}{f' ({one.place})' if one.place else ''}: {one.text}" for one in cell.failures[:MOST_LISTED])
    more = f"; and {len(cell.failures) - MOST_LISTED} more" if len(cell.failures) > MOST_LISTED else ""
    yield f"{cell.id}: {len(cell.failures)} of {_records(results)} failed, and are in no figure: {'; '.join(listed)}{more}"


def _untaken(cells: Sequence[Cell]) -> Iterator[str]:
    """The figures that are not there, those with the same reason together."""
    names: dict[str, dict[str, None]] = {}
    for cell in cells:
        for name, why in cell.untaken.items():
            names.setdefault(why, {})[name] = None
    for why, found in names.items():
        ids = [cell.id for cell in cells if why in cell.untaken.values()]
        yield f"no {', '.join(found)}: {why} ({_ids(ids, of=len(cells))})"


def _method(results: Results) -> Iterator[str]:
    method, around = results.method, results.surroundings
    counts = [len(cell.samples) for cell in results.cells if cell.samples]
    runs = f"{min(counts)} to {max(counts)}" if counts and min(counts) != max(counts) else str(counts[0]) if counts else "0"
    stopped = f", stopped by {method.stopped_by}" if method.stopped_by else ""
    shuffled = f"{runs} rounds in an order shuffled by the seed {method.seed}{stopped}"
    yield f"{_records(results)}; {shuffled}; the first is {results.baseline}"
    loads = [
        f"load {load:.1f} {when}" for load, when in ((around.load_before, "before"), (around.load_during, "during it")) if load is not None
    ]
    yield f"{around.processor or 'an unknown processor'}, {around.cores} cores; {', '.join(loads) or 'load unknown'}"
    yield "in brackets: 95 % intervals by bootstrap; over the first: the median of the ratios within rounds"


def _records(results: Results) -> str:
    return f"{results.data.records} record{'s' * (results.data.records != 1)}"


def _together(pairs: Sequence[tuple[str, str]], *, of: int) -> Iterator[tuple[str, str]]:
    """Texts, each once, with the cells that have it; those that differ in numbers alone are one.

    of  how many cells there are
    """
    found: dict[str, tuple[str, set[str], dict[str, None]]] = {}
    for text, id in pairs:
        _, texts, ids = found.setdefault(re.sub(r"\d[\d,.]*", "0", text), (text, set(), {}))
        texts.add(text)
        ids[id] = None
    for first, texts, ids in found.values():
        yield first + (f", and {len(texts) - 1} alike" if len(texts) > 1 else ""), _ids(list(ids), of=of)


def _ids(ids: Sequence[str], *, of: int) -> str:
    if len(ids) == of > 1:
        return "all cells"
    return ", ".join(ids[:MOST_LISTED]) + (f" and {len(ids) - MOST_LISTED} more" if len(ids) > MOST_LISTED else "")
