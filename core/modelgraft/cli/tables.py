"""A plan as a table and as a document, and many of them beside a published table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from modelgraft.engine.asking import asked_by
from modelgraft.engine.choosing import unready
from modelgraft.engine.demand import most_demanding
from modelgraft.engine.fusing import fuse, segments_of
from modelgraft.engine.needs import Forecast, forecasts
from modelgraft.kernel.words.graph import Ref
from modelgraft.records.amounts import UNKNOWN, exact_count, in_bytes
from modelgraft.tools.plan_tables import PLAN_HEADS, PLAN_NUMBERS, rows
from modelgraft.tools.unread import told, unread_parts

if TYPE_CHECKING:
    from modelgraft.cli.screen import Screen
    from modelgraft.cli.session import CliSession
    from modelgraft.kernel.words.plan import Plan, Step, Totals
    from modelgraft.tools.graph_tables import Compared

# What becomes of nodes whose exports are not there, by when they are made.
FIRST = {
    "now": "the first run exports before it answers",
    "later": "the first run answers on torch, and exports meanwhile",
    "never": "they answer on torch",
}


def print_plan(plan: Plan, screen: Screen, *, export: str) -> None:
    """Answer with the table of a plan, in the order in which it runs.

    export  when what is not exported yet is: "now", "later" or "never"
    """
    screen.table(PLAN_HEADS, rows(plan), right=PLAN_NUMBERS, last=True)
    if plan.pruned:
        screen.say(f"left out, because no wanted output needs them: {', '.join(plan.pruned)}")
    for forecast in forecasts(plan):
        if forecast.limit is not None or any(not need.stays for need in forecast.needs):
            screen.say(_told_of_memory(forecast))
    if told_of_room := most_demanding(plan.steps).told():
        screen.say(told_of_room)
    for source, parts in unread_parts(plan.graph).items():
        screen.say(f"no node reads of {source}: {told(parts)}")
    for warning in (*plan.graph.remarks, *unready(plan)):
        screen.note(f"{screen.paint('warning', 'yellow', on=screen.err)}: {warning.unworded}")
    _print_segments(plan, screen, export)
    unknown = [step.node.name for step in plan.steps if step.parameters.total is None]
    if unknown:
        screen.say(f"{UNKNOWN}: not known without building {', '.join(unknown)}; --exact builds on the meta device, without memory")


def _print_segments(plan: Plan, screen: Screen, export: str) -> None:
    """Which nodes are one call, what is kept of them, and where the plan is cut."""
    segments, cuts = segments_of(plan)
    for part in segments:
        screen.say(f"one {part.steps[0].backend} session: {part.name}")
    found = _recorded(plan)
    if unmade := _unmade(found):
        screen.say(f"not exported yet: {', '.join(unmade)}; {FIRST[export]}")
    for name, parity in _parities(found).items():
        screen.say(f"{parity.get('how', 'exported')}: {name}, {_told(parity)}")
    for cut in cuts:
        screen.say(f"cut between {cut.giver} and {cut.taker}: {cut.reason}")


def _told_of_memory(forecast: Forecast) -> str:
    """What a device must hold at once, and whether it may."""
    unknown = f", without {', '.join(forecast.unknown)}, which is not known" if forecast.unknown else ""
    limit = "" if forecast.limit is None else f"; it may hold {in_bytes(forecast.limit)}{'' if forecast.fits else ', which is not enough'}"
    return f"{forecast.device} holds {in_bytes(forecast.bytes)} at once{unknown}{limit}"


def _memory_document(plan: Plan) -> dict[str, Any]:
    return {
        forecast.device: {"bytes": forecast.bytes, "limit": forecast.limit, "fits": forecast.fits, "unknown": list(forecast.unknown)}
        for forecast in forecasts(plan)
    }


def _recorded(plan: Plan) -> dict[str, Mapping[str, Any]]:
    """What earlier loads have left of the nodes, by their names."""
    registry = plan.graph.graph.registry
    names = {step.backend for step in plan.steps} & registry.backends.keys()
    from modelgraft.engine.backend import open_backend  # most plans run on what is usual

    backends = {name: open_backend(registry, name) for name in names}
    steps = [step for step in fuse(plan).steps if step.backend in backends] if backends else []
    return {step.node.name: backends[step.backend].recorded(step.node, precision=step.precision or step.dtype) for step in steps}


def _unmade(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The nodes whose exports are not there."""
    return [name for name, manifest in found.items() if manifest.get("kept") is False]


def _parities(found: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """How far the exports that are kept already are from torch, by the nodes that run them."""
    return {name: {**manifest["parity"], "weights": manifest["weights"]} for name, manifest in found.items() if "parity" in manifest}


def _told(parity: Mapping[str, Any]) -> str:
    said = [f"at most {parity['relative']:.1e} of the largest value from torch, {parity['overall']:.1e} on the whole"]
    said += [f"the likeliest token is the same in {parity['same']:.0%}"] if parity["same"] is not None else []
    said += [parity["weights"]] if parity["weights"] else []
    return "; ".join(said)


def plan_document(plan: Plan, *, export: str = "now") -> dict[str, Any]:
    """A plan as plain values for `--json`. `export`: as in `print_plan`."""
    released, asked = releases(plan), asked_by(plan.graph.nodes)
    return {
        "graph": plan.graph.name,
        "wanted": {name: str(ref) for name, ref in plan.wanted.items()},
        "order": [step.node.name for step in plan.steps],
        "nodes": {step.node.name: _step_document(step, released[step.node.name], asked.get(step.node.name, ())) for step in plan.steps},
        "pruned": list(plan.pruned),
        "unread": unread_parts(plan.graph),
        "warnings": [warning.as_json() for warning in (*plan.graph.remarks, *unready(plan))],
        **_segments_document(plan, export),
        "totals": _totals_document(plan.totals),
        "memory": _memory_document(plan),
    }


def _segments_document(plan: Plan, export: str) -> dict[str, Any]:
    (segments, cuts), found = segments_of(plan), _recorded(plan)
    return {
        "segments": [[step.node.name for step in part.steps] for part in segments],
        "parity": _parities(found),
        "unexported": dict.fromkeys(_unmade(found), export),
        "cuts": [{"giver": cut.giver, "taker": cut.taker, "reason": cut.reason} for cut in cuts],
    }


def _totals_document(totals: Totals) -> dict[str, int | None]:
    return {"parameters": totals.parameters, "trainable": totals.trainable, "bytes": totals.bytes}


def releases(plan: Plan) -> dict[str, list[str]]:
    """By step: the values that nobody needs after it, because it uses them last or because nothing does."""
    last: dict[Ref, str] = {}
    for step in plan.steps:
        last.update({Ref(step.node.name, port): step.node.name for port in step.node.out_ports})
        last.update({Ref(ref.node, ref.port): step.node.name for ref in step.node.references})
    kept = set(plan.wanted.values())
    released: dict[str, list[str]] = {step.node.name: [] for step in plan.steps}
    for ref in sorted(last.keys() - kept, key=str):
        released[last[ref]].append(str(ref))
    return released


def _step_document(step: Step, released: list[str], asked: tuple[str, ...]) -> dict[str, Any]:
    node, counted = step.node, step.parameters
    return {
        "component": node.component.id,
        "kind": node.component.kind,
        "source": node.source.text if node.source else None,
        "frozen": node.frozen,
        "share": node.share,
        "adapters": [adapter.component.id for adapter in node.adapters],
        "parameters": {"total": counted.total, "trainable": counted.trainable, "how": counted.how},
        "bytes": step.bytes,
        "backend": step.backend,
        "device": step.device,
        "dtype": step.dtype,
        "precision": step.precision or step.dtype,
        "lane": step.lane,
        "inputs": {name: [str(ref) for ref in refs] for name, refs in node.wired.items()},
        "outputs": dict(step.shapes),
        "each": list(asked),
        "releases": released,
        "reads": list(step.reads),
        "key": step.key or None,
    }


TABLE_HEADS = ("model", "language", "vision", "overall", "ours", "verdict", "trained", "ours", "verdict", "graph")
TABLE_NUMBERS = frozenset({3, 4, 6, 7})


def answer_table(session: CliSession, name: str, *, as_json: bool) -> None:
    """Answer with a published table, what our graphs count beside each of its numbers, and what is to be known of those that differ.

    Raises InputError for a table that there is none of; exits with 1 where a graph cannot be counted.
    """
    import typer

    from modelgraft import api
    from modelgraft.tools.graph_tables import compared, read_table

    screen, table = session.screen, read_table(session.registry, name)
    found = list(compared(table, lambda graph, settings: api.plan(api.load(graph, params=settings, registry=session.registry))))
    if as_json:
        screen.document({"table": name, "about": table.about, "rows": [_compared_document(one) for one in found]})
    else:
        screen.say(table.about)
        screen.table(TABLE_HEADS, [_compared_row(one) for one in found], right=TABLE_NUMBERS)
        for one in found:
            for note in one.notes:
                screen.say(f"{one.row.model}: {note}")
    if any(one.row.graph and "not counted" in one.verdicts for one in found):
        raise typer.Exit(1)


def _compared_row(one: Compared) -> tuple[str, ...]:
    row, (overall, trained) = one.row, one.verdicts
    counts = [exact_count(number) if row.graph else "-" for number in (one.parameters, one.trained)]
    settings = "".join(f" --set {key}={value}" for key, value in row.set.items())
    cells = (row.parameters.published, counts[0], overall, row.trained.published, counts[1], trained)
    return (row.model, row.language, row.vision, *cells, f"{row.graph}{settings}" or "-")


def _compared_document(one: Compared) -> dict[str, Any]:
    row, (overall, trained) = one.row, one.verdicts
    return {
        "model": row.model,
        "language": row.language,
        "vision": row.vision,
        "parameters": {"published": row.parameters.published, "ours": one.parameters, "verdict": overall},
        "trained": {"published": row.trained.published, "ours": one.trained, "verdict": trained},
        "graph": row.graph or None,
        "set": row.set,
        "notes": list(one.notes),
    }
