"""Commands that run a graph."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modelgraft.cli.options import Allow, AsJson, GraphName, SetOptions, count, out_file, pairs, settings_of, with_opening
from modelgraft.cli.session import session_of
from modelgraft.engine.opening import USUAL_OPENING, Opening, Placing, given_in
from modelgraft.kernel.words.errors import InputError
from modelgraft.records.readers import for_command

if TYPE_CHECKING:
    from modelgraft.cli.session import CliSession
    from modelgraft.data.shards import Shard
    from modelgraft.engine.events import Event
    from modelgraft.engine.pipeline import Pipeline
    from modelgraft.engine.result import Result
    from modelgraft.kernel.words.graph import SolvedGraph


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("run")(run)
    app.command("map")(map_records)
    app.command("repl")(repl)
    app.command("chat")(chat)


@with_opening("run")
def run(
    context: typer.Context,
    graph: GraphName,
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            metavar="K=V",
            help="image=FILE, audio=FILE, text=STRING or @FILE, labels=a,b; - is stdin. A folder, a pattern such as 'imgs/*.png', or "
            "the same name again makes a batch.",
        ),
    ] = None,
    outputs: Annotated[
        list[str] | None,
        typer.Option("--output", metavar="K[=FILE]", help="What is wanted: an output or any port as node.port, to stdout or into a file."),
    ] = None,
    settings: SetOptions = None,
    opening: Opening = USUAL_OPENING,
    trace: Annotated[Path | None, typer.Option("--trace", metavar="FILE", parser=out_file, help="Write a Chrome trace of the run.")] = None,
    allow: Allow = None,
    stream: Annotated[bool, typer.Option("--stream", help="Print a text as it grows; with --json, each event as a line of JSON.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run a graph on real inputs. Loads only what the wanted outputs need."""
    from modelgraft.cli.given import GivenInputs
    from modelgraft.cli.growing import Growing, Lines
    from modelgraft.cli.overwriting import named, refuse_for_graph, refuse_to_replace
    from modelgraft.cli.written import absences, noted, read_targets, say_outputs, write_outputs
    from modelgraft.engine.outputs import as_they_lie
    from modelgraft.records.record_type import types_of
    from modelgraft.records.writing import check_writable, write_value

    session = session_of(context)
    solved = _solve(session, graph, settings, allow)
    reading = GivenInputs(solved.inputs, note=session.screen.note, types=types_of(solved.graph.registry))
    given = reading.read(pairs(inputs, "--input"))
    targets = read_targets(outputs, solved)
    for file in (*targets.files.values(), *((trace,) if trace is not None else ())):
        refuse_for_graph(file, solved, reading.files, numbered=file != trace)
    if trace is not None:
        check_writable(trace)
        refuse_to_replace(trace, named(targets.files.values(), "the output"))
    start = time.perf_counter()
    growing = Growing(session.screen, solved, targets)
    also = None if not stream else Lines(session.screen).take if as_json else growing.take
    with session.screen.only_answers():
        with growing, opened(session, solved, opening=replace(opening, trace=trace is not None)) as pipeline:
            result = run_watched(session, pipeline, targets.wanted, given, also=also)
        found = as_they_lie(result.outputs)
        files = write_outputs(noted(found, targets, solved, nodes=result.timings), targets, say=session.screen.note)
        if trace is not None:
            from modelgraft.engine.trace import chrome_trace

            write_value(chrome_trace(result), trace)
    for text in absences(found, targets):
        session.screen.note(text)
    if as_json and not stream:
        session.screen.document(run_document(solved, result, files, seconds=time.perf_counter() - start))
    elif not as_json and stream:
        growing.finish(found, files)
    elif not as_json:
        say_outputs(found, files, session.screen)


def run_document(solved: SolvedGraph, result: Result, files: Mapping[str, list[str]], *, seconds: float) -> dict[str, Any]:
    """A run as plain values for `--json`."""
    from modelgraft.cli.written import absent_in
    from modelgraft.engine.outputs import as_they_lie
    from modelgraft.records.showing import plain

    outputs = as_they_lie(result.outputs)
    return {
        "ok": True,
        "graph": solved.name,
        "outputs": {name: plain(value) for name, value in outputs.items() if name not in files},
        "absent": absent_in(outputs),
        "files": files,
        "timings": result.timings,
        "cached": sorted(result.cached),
        "warnings": list(result.warnings),
        "seconds": seconds,
    }


def _solve(session: CliSession, graph: str, settings: list[str] | None, allow: list[str] | None) -> SolvedGraph:
    from modelgraft import api
    from modelgraft.engine.torch_libraries import begin_to_take

    if session.is_first():  # plugins are read for the first time, which takes as long, and no export is there that would need no torch
        quiet_libraries()  # which they ask as soon as they are there
        begin_to_take()
    return api.check(session.load(graph, settings_of(settings), allow or ()), offline=session.offline)


def opened(session: CliSession, solved: SolvedGraph, *, opening: Opening) -> Pipeline:
    """Open a checked graph with the options of a command."""
    from modelgraft import api

    quiet_libraries()
    asked = replace(opening, offline=session.offline, debug=session.debug)
    with session.interrupts.at_once():
        return api.open(solved, **given_in(asked))


# Set before the libraries are imported, where the user has not set them.
LIBRARIES = {
    "TRANSFORMERS_VERBOSITY": "error",  # bars and notes would run through our own; what matters is raised
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TQDM_DISABLE": "1",  # some bars ask neither of these, such as that over a GGUF file
    "TOKENIZERS_PARALLELISM": "false",
    "OMP_WAIT_POLICY": "PASSIVE",  # threads of torch that wait by spinning starve sessions and processes beside them
}


def quiet_libraries() -> None:
    """Keep libraries from talking and from spinning."""
    for name, value in LIBRARIES.items():
        os.environ.setdefault(name, value)


def run_watched(
    session: CliSession,
    pipeline: Pipeline,
    wanted: tuple[str, ...] | None,
    given: dict[str, Any],
    *,
    seed: int | None = None,
    also: Callable[[Event], None] | None = None,
) -> Result:
    """Run a graph and show on stderr how far it is.

    also  takes the events as well, and answers with them on stdout: on a terminal the view would write over that
    """
    from modelgraft.cli.live import watching

    screen = session.screen
    is_on = session.progress and not (also is not None and screen.out.isatty())
    with watching(screen, is_on=is_on) as take, pipeline.stream(outputs=wanted, seed=seed, **given) as events:
        for event in events:
            take(event)
            if also is not None:
                also(event)
        return events.result


@with_opening("repl")
def repl(
    context: typer.Context,
    graph: GraphName,
    outputs: Annotated[
        list[str] | None, typer.Option("--output", metavar="K", help="What is wanted: an output, or any port as node.port.")
    ] = None,
    settings: SetOptions = None,
    opening: Opening = USUAL_OPENING,
    allow: Allow = None,
    as_json: Annotated[bool, typer.Option("--json", help="Answer each record with one JSON document on a line of its own.")] = False,
) -> None:
    """Run a graph on one record after another, in one process: a line of the terminal or of stdin is a record, /help says more."""
    from modelgraft.cli.repl import Repl, talk
    from modelgraft.cli.written import read_targets

    session = session_of(context)
    solved = _solve(session, graph, settings, allow)
    targets = read_targets(outputs, solved)
    if targets.files:
        raise typer.BadParameter("--output takes no file here: /save NAME=FILE writes an output of the last record")
    with opened(session, solved, opening=opening) as pipeline:
        code = talk(Repl(session, pipeline, solved, targets.wanted, as_json))
    raise typer.Exit(code)


@with_opening("repl")
def chat(
    context: typer.Context,
    graph: GraphName,
    inputs: Annotated[
        list[str] | None, typer.Option("--input", metavar="K=V", help="A value of an input for the whole chat, as `run` takes it.")
    ] = None,
    load: Annotated[str | None, typer.Option("--load", metavar="FILE", help="Go on with a conversation that was saved as .json.")] = None,
    save: Annotated[
        str | None, typer.Option("--save", metavar="FILE", help="Keep the conversation in the end: .html is a page, .json can be loaded.")
    ] = None,
    media: Annotated[
        Path | None,
        typer.Option("--media", metavar="DIR", help="Where pictures and sounds of answers go; GRAPH-chat unless this is given."),
    ] = None,
    play: Annotated[bool, typer.Option("--play", help="Play the sounds of answers with a player of this system.")] = False,
    settings: SetOptions = None,
    opening: Opening = USUAL_OPENING,
    allow: Allow = None,
    as_json: Annotated[bool, typer.Option("--json", help="Answer each message with one JSON document on a line of its own.")] = False,
) -> None:
    """Talk with a graph: a line of the terminal or of stdin is a message, files go along by /attach, /help says more."""
    from modelgraft.cli.chat import Chat, converse, page_or_json
    from modelgraft.cli.chat_doors import doors_of, with_history
    from modelgraft.cli.given import GivenInputs
    from modelgraft.records.record_type import types_of

    session = session_of(context)
    solved = _solve(session, graph, settings, allow)
    types = types_of(solved.graph.registry)
    kept = dict(pairs(inputs, "--input"))
    GivenInputs(solved.inputs, note=session.screen.note, stdin=False, types=types).read(list(kept.items()))
    doors = doors_of(solved, types, fixed=kept)
    solved, doors = with_history(solved, doors, types)
    if save is not None:
        page_or_json(save)
    home = media if media is not None else Path(f"{solved.name.replace('/', '-')}-chat")
    with opened(session, solved, opening=opening) as pipeline:
        found = Chat(session, pipeline, solved, doors, home, as_json, play, opening.seed, kept)
        if load is not None:
            found.load(load)
        try:
            code = converse(found)
        finally:
            if save is not None and found.messages:
                found.save(save)
    raise typer.Exit(code)


@with_opening("map")
def map_records(
    context: typer.Context,
    graph: GraphName,
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA",
            help="JSON lines with one record per line, its inputs by name; a .csv, .tsv or .parquet table; a folder or a pattern of files; "
            "- for JSON lines from stdin.",
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE", parser=out_file, help="Where the results go: JSON lines, in the order of the records.")
    ],
    outputs: Annotated[
        list[str] | None, typer.Option("--output", metavar="K", help="What is wanted: an output, or any port as node.port.")
    ] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", metavar="N", parser=count, help="How many records run together.")] = 8,
    resume: Annotated[bool, typer.Option("--resume", help="Go on after the records that a stopped map of the same has done.")] = False,
    settings: SetOptions = None,
    opening: Opening = USUAL_OPENING,
    allow: Allow = None,
    as_json: AsJson = False,
) -> None:
    """Run a graph over a file of records. A record that fails keeps its error beside the results of the others."""
    from modelgraft import api
    from modelgraft.cli.mapping import data_named, map_rows
    from modelgraft.cli.overwriting import named, refuse_for_graph
    from modelgraft.data.jobs import job_of
    from modelgraft.data.shards import refuse_other_rows, work_files, writing
    from modelgraft.records.record_type import types_of
    from modelgraft.records.writing import check_writable

    session = session_of(context)
    solved = _solve(session, graph, settings, allow)
    plan = api.plan(solved, wanted=outputs, **given_in(opening, Placing))
    check_writable(out)
    dataset = data_named(data, solved.inputs, note=session.screen.note, types=types_of(solved.graph.registry))
    for file in work_files(out):
        refuse_for_graph(file, solved, named(dataset.files, "the data"))
    refuse_other_rows(out, types_of(solved.graph.registry))
    if resume and dataset.digest is None:
        raise InputError(f"the data '{data}' cannot be read again: --resume takes data from a file")
    job = job_of(plan, data=dataset.digest, seed=opening.seed, init=opening.init)
    with writing(out, job, is_resumed=resume) as shard:
        before, was_finished = shard.done, shard.is_finished
        if shard.told:
            session.screen.note(for_command(shard.told))
        if not was_finished:
            with opened(session, solved, opening=opening) as pipeline:
                map_rows(pipeline, dataset, shard, outputs=outputs, batch_size=batch_size, session=session)
    _say_mapped(session, shard, out, before=before, was_finished=was_finished, as_json=as_json)
    raise typer.Exit(0 if was_finished or not shard.failed else 1)


def _say_mapped(session: CliSession, shard: Shard, out: Path, *, before: int, was_finished: bool, as_json: bool) -> None:
    fresh = shard.done - before
    if as_json:
        found = {"ok": was_finished or not shard.failed, "records": fresh, "failed": shard.failed, "skipped": before, "out": str(out)}
        session.screen.document({**found, "finished_before": was_finished})
    elif was_finished:
        session.screen.note(f"{out} is finished: {before} records, {shard.failed} failed; nothing is left to do")
    else:
        skipped = f", {before} were done before" if before else ""
        session.screen.note(f"{fresh} records, {shard.failed} failed{skipped}; wrote {out}")
