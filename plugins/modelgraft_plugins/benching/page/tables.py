"""The table of cells: a column for each figure that some cell has."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from modelgraft.commands import in_bytes, in_seconds, short_count
from modelgraft_plugins.benching.page.amounts import NONE, interval, per_cent, plain_number, times, value_text
from modelgraft_plugins.benching.page.marks import Marks
from modelgraft_plugins.benching.page.naming import Names
from modelgraft_plugins.benching.page.thinning import Room, cut
from modelgraft_plugins.benching.results import Cell, Quality, Spread

FEW_WIRES = 8  # that a tooltip lists


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A figure in the table: how it is written, and what a pointer tells. The script sorts by the number and its unit."""

    text: str
    told: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column: its head, what a pointer on it tells, and its figure of a cell; None where the cell has none.

    figure  its name in `untaken`
    kind    what the script must know of it: "axis", "text", "count" (where B stands for thousand millions, not for bytes), or ""
    """

    head: str
    of: Callable[[Cell], Entry | None]
    told: str = ""
    figure: str = ""
    kind: str = ""


def table(cells: Sequence[Cell], rows: Mapping[str, int], names: Names, marks: Marks, room: Room) -> str:
    """The table of these cells. Every row has the id that charts lead to, and the line that measures its cell alone."""
    columns = [column for column in _columns(cells, names) if any(column.of(cell) for cell in cells)]
    heads = "".join(
        f"<th scope=col{f' class={column.kind}' if column.kind else ''}{_title(column.told)}>{escape(column.head)}" for column in columns
    )
    commands = [cut(cell.command, 6 * room.letters) for cell in cells]
    lead, tail = ("", "") if room.is_full else in_common(commands)
    body = "".join(
        _row(cell, rows[cell.id], columns, marks, command[len(lead) : len(command) - len(tail)], room)
        for cell, command in zip(cells, commands, strict=True)
    )
    left = ",".join(f"#cells td:nth-child({index})" for index, column in enumerate(columns, start=2) if column.kind in ("axis", "text"))
    return (
        f"{_told_once(lead, tail)}<style>{left} {{ text-align: left }}</style>"
        "<div class=wide tabindex=0 role=region aria-label='Table of cells'>"
        f'<table id=cells data-lead="{escape(lead)}" data-tail="{escape(tail)}"><thead><tr><th scope=col>cell{heads}'
        f"<th scope=col>measured by</thead><tbody>{body}</tbody></table></div>"
    )


def in_common(commands: Sequence[str]) -> tuple[str, str]:
    """The words that all commands begin and end with; "" of a single one, which is told whole."""
    words = [command.split(" ") for command in commands]
    if len(words) < 2:
        return "", ""
    shortest = min(map(len, words))
    lead = next((at for at in range(shortest) if len({one[at] for one in words}) > 1), shortest)
    tail = next((at for at in range(shortest - lead) if len({one[-1 - at] for one in words}) > 1), shortest - lead)
    first = words[0]
    return "".join(f"{word} " for word in first[:lead]), "".join(f" {word}" for word in first[len(first) - tail :])


def _told_once(lead: str, tail: str) -> str:
    if not lead and not tail:
        return ""
    return f"<p>A cell alone is measured by <code>{escape(lead)}… {escape(tail)}</code>; for the dots, the last column has its words.</p>"


def _row(cell: Cell, number: int, columns: Sequence[Column], marks: Marks, command: str, room: Room) -> str:
    state = "" if cell.state == "measured" else f' <i class="badge {cell.state}">{cell.state}</i>'
    marked = f" data-m={'.'.join(map(str, marks.of[cell.id]))}" if len(marks.axes) > 1 and cell.id in marks.of else ""
    head = f"<tr id=c{number}{marked}><th scope=row>{escape(cut(cell.id, room.letters))}{state}"
    entries = "".join(_entry(column, cell, room) for column in columns)
    return f"{head}{entries}<td><code>{escape(command)}</code>\n"


def _entry(column: Column, cell: Cell, room: Room) -> str:
    """A figure; its cell of the table ends where the next begins, as HTML allows."""
    entry = column.of(cell)
    if entry is None:
        return f"<td{_title(cell.untaken.get(column.figure, '')) if room.is_full else ''}>{NONE}"
    return f"<td{_title(entry.told) if room.is_full else ''}>{escape(entry.text)}"


def _title(text: str) -> str:
    return f' title="{escape(text)}"' if text else ""


def _columns(cells: Sequence[Cell], names: Names) -> Iterator[Column]:
    yield from (_axis(axis, names) for axis in names.axes)
    yield Column(head="parameters", of=_parameters, figure="parameters", kind="count")
    yield Column(head="weights", of=lambda cell: _bytes(cell.memory.planned), told="bytes, as planned", figure="planned")
    yield Column(head="weights, held", of=lambda cell: _bytes(cell.memory.measured), told="bytes, as measured", figure="measured")
    yield from _times(cells)
    yield Column(head="over baseline", of=_ratio, told="median of the ratios within rounds, with its 95 % interval", figure="ratio")
    yield Column(
        head="verdict", of=lambda cell: Entry(text=cell.ratio.verdict, told=cell.ratio.warning) if cell.ratio else None, kind="text"
    )
    yield Column(head="CPU over baseline", of=lambda cell: _times_over(cell.ratio.cpu) if cell.ratio else None, figure="ratio")
    yield from _qualities(cells)
    yield Column(head="agreement", of=_agreement, told="answers that equal those of the baseline", figure="agreement")
    yield Column(head="parity", of=_parity, told="1 less the largest distance from the baseline, as a part of its largest", figure="parity")
    yield Column(
        head="most memory", of=lambda cell: _bytes(cell.memory.resident), told="resident, of a fresh process", figure="memory.resident"
    )
    yield Column(head="on devices", of=_on_devices, figure="memory.device")
    yield Column(head="on wires", of=_on_wires, told="bytes of the mean record", figure="edges")
    yield Column(head="from the cache", of=_cached, told="nodes that the cache spared")
    yield Column(head="failed records", of=_failed, told="counted, and in no figure")


def _axis(axis: str, names: Names) -> Column:
    def of(cell: Cell) -> Entry:
        whole, short = value_text(cell.values.get(axis)), names.value(cell, axis)
        return Entry(text=short, told="" if whole == short else whole)

    return Column(head=axis, of=of, kind="axis")


def _times(cells: Sequence[Cell]) -> Iterator[Column]:
    for name in sorted({name for cell in cells for name in cell.p}, key=float):
        yield Column(head=f"p{name}", of=lambda cell, name=name: _percentile(cell, name), told="of a call", figure=f"p{name}")  # type: ignore[misc] # a default binds it
    spreads: tuple[tuple[str, str, Callable[[Cell], Spread | None]], ...] = (
        ("call", "wall_s", lambda cell: None if cell.p else cell.wall_s),
        ("CPU of a call", "cpu_s", lambda cell: cell.cpu_s),
        ("first token", "first_token_s", lambda cell: cell.first_token_s),
        ("a token", "per_token_s", lambda cell: cell.per_token_s),
        ("cold start", "start", lambda cell: cell.start.cold),
        ("warm start", "start", lambda cell: cell.start.warm),
    )
    for head, figure, of in spreads:
        yield Column(head=head, of=lambda cell, of=of: _seconds(of(cell)), figure=figure)  # type: ignore[misc] # a default binds it
    yield Column(head="records a second", of=_per_second, figure="per_second")


def _qualities(cells: Sequence[Cell]) -> Iterator[Column]:
    several = {(one.metric, one.output): one for cell in cells for one in cell.quality}
    alone = [metric for metric, _ in several]
    for (metric, output), one in several.items():
        head = metric if alone.count(metric) == 1 else f"{metric} of {output}"
        told = f"of {output}{f', in {one.unit}' if one.unit else ''}; {one.better} is better"
        yield Column(head=head, of=lambda cell, key=(metric, output): _quality(cell, key), told=told, figure=metric)  # type: ignore[misc] # a default binds it
        apart = f"{head} less baseline"
        yield Column(head=apart, of=lambda cell, key=(metric, output): _apart(cell, key), told="on the same records", figure=metric)  # type: ignore[misc]


def quality_of(cell: Cell, metric: str, output: str) -> Quality | None:
    """What a cell has of a metric."""
    return next((one for one in cell.quality if (one.metric, one.output) == (metric, output)), None)


def _quality(cell: Cell, key: tuple[str, str]) -> Entry | None:
    one = quality_of(cell, *key)
    if one is None:
        return None
    clusters = f" in {one.clusters} clusters" if one.clusters is not None else ""
    return Entry(text=f"{plain_number(one.value)} {interval(one)}".strip(), told=f"n={one.n}{clusters}")


def _apart(cell: Cell, key: tuple[str, str]) -> Entry | None:
    """How far a metric is from that of the baseline; a difference whose interval holds 0 is none that was seen."""
    one = quality_of(cell, *key)
    if one is None or one.difference is None:
        return None
    found = one.difference
    is_seen = found.low is None or found.high is None or not found.low <= 0 <= found.high
    return Entry(text=f"{found.value:+.3g} {interval(found)}".strip(), told="" if is_seen else "no difference seen")


def _parameters(cell: Cell) -> Entry | None:
    return None if cell.parameters is None else Entry(text=short_count(cell.parameters), told=f"{cell.parameters:,}")


def _bytes(number: int | None) -> Entry | None:
    return None if number is None else Entry(text=in_bytes(number))


def _seconds(spread: Spread | None) -> Entry | None:
    if spread is None:
        return None
    return Entry(text=in_seconds(spread.value), told=f"{_ends(spread)} n={spread.n}".strip())


def _ends(spread: Spread) -> str:
    return f"[{in_seconds(spread.low)}, {in_seconds(spread.high)}]" if spread.low is not None and spread.high is not None else ""


def _percentile(cell: Cell, name: str) -> Entry | None:
    value = cell.p.get(name)
    told = _ends(cell.wall_s) if name == "50" and cell.wall_s else ""
    return None if value is None else Entry(text=f"{in_seconds(value)} (n={len(cell.samples)})", told=told)


def _per_second(cell: Cell) -> Entry | None:
    one = cell.per_second
    return None if one is None else Entry(text=plain_number(one.value), told=f"{interval(one)} n={one.n}".strip())


def _ratio(cell: Cell) -> Entry | None:
    return _times_over(cell.ratio.wall) if cell.ratio else None


def _times_over(spread: Spread) -> Entry:
    return Entry(text=f"{times(spread.value)} {interval(spread)}".strip(), told=f"n={spread.n}")


def _agreement(cell: Cell) -> Entry | None:
    return None if cell.agreement is None else Entry(text=per_cent(cell.agreement))


def _parity(cell: Cell) -> Entry | None:
    if not cell.parity:
        return None
    worst = max(cell.parity.values())
    return Entry(text=f"{1 - worst:.6g}", told=", ".join(f"{name} {value:.3g}" for name, value in cell.parity.items()) + " apart")


def _on_devices(cell: Cell) -> Entry | None:
    device = cell.memory.device
    return Entry(text=", ".join(f"{name} {in_bytes(size)}" for name, size in device.items())) if device else None


def _on_wires(cell: Cell) -> Entry | None:
    if not cell.edges:
        return None
    largest = sorted(cell.edges.items(), key=lambda edge: -edge[1])
    told = ", ".join(f"{wire} {in_bytes(size)}" for wire, size in largest[:FEW_WIRES])
    more = f", and {len(largest) - FEW_WIRES} more" if len(largest) > FEW_WIRES else ""
    return Entry(text=in_bytes(sum(cell.edges.values())), told=told + more)


def _cached(cell: Cell) -> Entry | None:
    if not cell.cached:
        return None
    told = ", ".join(f"{node} in {runs} run{'s' * (runs != 1)}" for node, runs in cell.cached.items())
    return Entry(text=f"{len(cell.cached)} node{'s' * (len(cell.cached) != 1)}", told=told)


def _failed(cell: Cell) -> Entry | None:
    return Entry(text=str(len(cell.failures))) if cell.failures else None
