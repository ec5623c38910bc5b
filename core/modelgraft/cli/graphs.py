"""Commands about graphs as values: nothing of them loads weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modelgraft.cli.options import Allow, AsJson, GraphName, SetOptions, Wanted, out_file, settings_of, with_opening
from modelgraft.cli.session import CliSession, session_of
from modelgraft.engine.opening import USUAL_OPENING, Opening, Placing, given_in
from modelgraft.kernel.words.errors import GraphError, InputError, Place
from modelgraft.kernel.words.notation import in_yaml
from modelgraft.records.readers import for_command

if TYPE_CHECKING:
    from modelgraft.kernel.words.graph import SolvedGraph
    from modelgraft.tools.explain import NodeRow

FORMATS = ("mermaid", "dot", "svg", "html", "png")
WIDEST = 72  # letters of a value in a table; --json has all of it


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("check")(check)
    app.command("plan")(plan)
    app.command("show")(show)
    app.command("explain")(explain)
    app.command("graphs")(graphs)
    app.command("schema")(schema)
    app.command("import")(import_graph)


def check(
    context: typer.Context,
    names: Annotated[list[str], typer.Argument(metavar="GRAPH", help="YAML files, or names of shipped graphs.")],
    settings: SetOptions = None,
    allow: Allow = None,
    as_json: AsJson = False,
) -> None:
    """Report every problem of graphs, without weights, torch or network. Exits with 1 when there is one."""
    session = session_of(context)
    screen = session.screen
    reports = [_check(session, name, settings, allow) for name in names]
    is_clean = all(report["ok"] for report in reports)
    if as_json:
        screen.document(
            {"ok": is_clean, "graphs": [{k: v for k, v in report.items() if k not in ("found", "warned")} for report in reports]}
        )
    for report in () if as_json else reports:
        if report["ok"]:
            screen.say(
                f"{screen.paint('ok', 'green')}  {report['graph']}  {report['nodes']} node{'s' * (report['nodes'] != 1)}, {_ports(report)}"
            )
        for problem in report["found"]:
            screen.say(screen.paint_problem(problem, on=screen.out))
        for warning in report["warned"]:
            screen.note(f"{screen.paint('warning', 'yellow', on=screen.err)}: {warning.unworded}")
    if not as_json and not is_clean:
        count = sum(len(report["found"]) for report in reports)
        bad = sum(not report["ok"] for report in reports)
        screen.note(f"{count} problem{'s' * (count != 1)} in {bad} of {len(reports)} graph{'s' * (len(reports) != 1)}")
    raise typer.Exit(0 if is_clean else 1)


def _check(session: CliSession, name: str, settings: list[str] | None, allow: list[str] | None) -> dict[str, Any]:
    from modelgraft import api

    try:
        solved = api.check(session.load(name, settings_of(settings), allow or ()))
    except GraphError as error:
        problems = [problem.as_json() for problem in error.noted]
        return {"graph": name, "ok": False, "problems": problems, "warnings": [], "found": error.noted, "warned": ()}
    ports = {"inputs": {k: str(v.port) for k, v in solved.inputs.items()}, "outputs": _outputs(solved)}
    warnings = [warning.as_json() for warning in solved.remarks]
    found = {"graph": name, "ok": True, "problems": [], "warnings": warnings, "nodes": len(solved.nodes), **ports}
    return {**found, "found": (), "warned": solved.remarks}


def _outputs(solved: SolvedGraph) -> dict[str, str]:
    from modelgraft.engine.asking import branches_of, outputs_of

    ports = {name: (ref, solved.port_of(ref)) for name, ref in solved.outputs.items()}
    within = branches_of(solved.nodes)
    return {name: str(port and outputs_of(solved.nodes, ref, port, within)) for name, (ref, port) in ports.items()}


def _ports(report: dict[str, Any]) -> str:
    sides = (", ".join(f"{name}: {kind}" for name, kind in report[side].items()) or "nothing" for side in ("inputs", "outputs"))
    return " -> ".join(sides)


@with_opening("plan")
def plan(
    context: typer.Context,
    graph: GraphName,
    settings: SetOptions = None,
    wanted: Wanted = None,
    exact: Annotated[bool, typer.Option("--exact", help="Count by building every module without memory (imports torch).")] = False,
    opening: Opening = USUAL_OPENING,
    allow: Allow = None,
    as_json: AsJson = False,
) -> None:
    """Show what would run: each node with its parameters, bytes, place and outputs, and the totals."""
    from modelgraft import api
    from modelgraft.cli.tables import plan_document, print_plan
    from modelgraft.engine.choosing import when_exported

    session = session_of(context)
    loaded = session.load(graph, settings_of(settings), allow or ())
    found = api.plan(loaded, wanted=wanted, exact=exact, **given_in(opening, Placing))
    export = when_exported(found.graph, opening)
    if as_json:
        session.screen.document(plan_document(found, export=export))
    else:
        print_plan(found, session.screen, export=export)


def show(
    context: typer.Context,
    graph: GraphName,
    form: Annotated[
        str | None, typer.Option("--format", metavar="|".join(FORMATS), help="The form of the drawing; otherwise what the file ends in.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", parser=out_file, help="Write here instead of to stdout.")] = None,
    ran: Annotated[
        Path | None, typer.Option("--run", metavar="FILE", help="Lay over what a run took: the file holds what `run --json` printed.")
    ] = None,
    fold: Annotated[bool, typer.Option("--fold", help="Draw each graph that stands as a node as one box.")] = False,
    settings: SetOptions = None,
    wanted: Wanted = None,
    allow: Allow = None,
) -> None:
    """Draw a graph: frozen and trained parts, media, inner graphs, the types on the wires, the times of a run. Works offline."""
    from modelgraft import api
    from modelgraft.records.writing import check_writable
    from modelgraft.tools.drawings import DRAWING_ENDINGS, PNG

    if form is not None and form not in FORMATS:
        raise typer.BadParameter(f"--format takes {', '.join(FORMATS)}, found '{form}'")
    if form == PNG and out is None:
        raise typer.BadParameter("a drawing in png goes into a file: --out FILE.png")
    session = session_of(context)
    if out is not None:
        check_writable(out)
    found = api.plan(session.load(graph, settings_of(settings), allow or ()), wanted=wanted)
    if out is not None:
        from modelgraft.cli.overwriting import refuse_for_graph

        refuse_for_graph(out, found.graph, {ran: "the run"} if ran is not None else None)
    form = form or _form_of(out, DRAWING_ENDINGS)
    drawing = api.show(found, run=ran, fold=fold)
    if out is None:
        session.screen.write(drawing.text(form))
    else:
        drawing.save(out, form=form)
        session.screen.note(f"wrote {out}")


def _form_of(out: Path | None, endings: Mapping[str, str]) -> str:
    """The form of a drawing by the file that it goes into. Raises InputError for an ending that says none."""
    if out is None:
        return FORMATS[0]
    if (form := endings.get(out.suffix.lower())) is None:
        raise InputError(f"output '{out}': a drawing goes into a file that ends in {', '.join(endings)}; for another, say --format too")
    return form


def explain(
    context: typer.Context,
    graph: GraphName,
    target: Annotated[
        str | None,
        typer.Argument(metavar="NODE[.KEY]", help="A node, or one value of it, or training.STAGE; without it the nodes are listed."),
    ] = None,
    settings: SetOptions = None,
    allow: Allow = None,
    as_json: AsJson = False,
) -> None:
    """Show the values that hold for a node, and where each comes from; without a node, the nodes of the graph and where each is written."""
    from modelgraft import api
    from modelgraft.tools import explain as explaining

    session = session_of(context)
    solved = api.check(session.load(graph, settings_of(settings), allow or ()))
    if target is None:
        _list_nodes(session, explaining.nodes_of(solved), as_json=as_json)
        return
    rows = explaining.explain(solved, target, worded=for_command)
    if as_json:
        session.screen.document([row.as_json() for row in rows])
        return
    cells = [(row.key, one_line(row.value), row.origin, "; ".join(row.replaced)) for row in rows]
    session.screen.table(("key", "value", "comes from", "goes over"), cells)


def _list_nodes(session: CliSession, nodes: list[NodeRow], *, as_json: bool) -> None:
    if as_json:
        session.screen.document([node.as_json() for node in nodes])
        return
    cells = [(node.node, node.kind, node.use, one_line(node.source), Place(node.file, node.line).short) for node in nodes]
    session.screen.table(("node", "kind", "use", "source", "written at"), cells)


def one_line(value: Any) -> str:
    """A value in a table: one line, cut when it is long."""
    text = value if isinstance(value, str) else in_yaml(value)
    text = text.replace("\n", "\\n")
    return text if len(text) <= WIDEST else text[: WIDEST - 3] + "..."


def graphs(
    context: typer.Context,
    table: Annotated[
        str | None,
        typer.Option("--table", metavar="NAME", help="Count the models of a published table, such as mmbench, beside its numbers."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the shipped graphs and what each is for."""
    from modelgraft.kernel.language import document
    from modelgraft.kernel.language.shipped_graphs import find_shipped, shipped_names

    screen = session_of(context).screen
    if table is not None:
        from modelgraft.cli.tables import answer_table

        answer_table(session_of(context), table, as_json=as_json)
        return
    found = {}
    for name in shipped_names():
        path = find_shipped(name)
        assert path is not None, "a shipped name has a file"
        found[name] = document.read(path).doc
    if as_json:
        screen.document([{"name": name, "about": doc} for name, doc in found.items()])
    else:
        screen.table(("graph", "what it is for"), [(name, doc.partition("\n")[0]) for name, doc in found.items()])


def schema(
    context: typer.Context,
    events: Annotated[bool, typer.Option("--events", help="That of the events of a run, as `run --stream --json` prints them.")] = False,
) -> None:
    """Print the JSON Schema of the graph language with the installed components: for editors."""
    session = session_of(context)
    if events:
        from modelgraft.tools.event_schema import event_schema

        session.screen.document(event_schema())
        return
    from modelgraft.kernel.language.shipped_graphs import shipped_names

    def make() -> object:
        from modelgraft.tools.schema import graph_schema

        return graph_schema(session.registry)

    session.screen.document(session.made_once("schema", make, beside=shipped_names()))


def import_graph(
    context: typer.Context,
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="A checkpoint: a folder, or a hub id that is on disk or known.")],
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", parser=out_file, help="Write here instead of to stdout.")] = None,
) -> None:
    """Write a graph for a known checkpoint (BLIP-2, LLaVA, ...), to rewire."""
    from modelgraft.cli.overwriting import refuse_new
    from modelgraft.records.writing import check_writable, write_value
    from modelgraft.tools import importer

    session = session_of(context)
    if out is not None:
        check_writable(out)
        refuse_new(out, "a graph is rewired by hand")
    folder = out.absolute().parent if out is not None else None  # nobody knows where stdout leads
    text = importer.import_graph(source, registry=session.registry, folder=folder, offline=session.offline)
    if out is None:
        session.screen.write(text)
    else:
        write_value(text, out)
        session.screen.note(f"wrote {out}; look at it with: modelgraft check {out}")
