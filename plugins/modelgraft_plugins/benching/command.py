"""The command `modelgraft bench`, with its options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from modelgraft.commands import (
    USUAL_OPENING,
    Allow,
    AsJson,
    Opening,
    SetOptions,
    Wanted,
    as_usage,
    out_file,
    pairs,
    session_of,
    settings_of,
    with_opening,
)
from modelgraft_plugins.benching import words
from modelgraft_plugins.listed import listed

GRAPHS = "YAML files or names of shipped graphs; or one sweep file, whose first key is `sweep`."
SWEEP = "Vary a param, a node (eye=a,b), a setting of one (eye.rank=4,8), or any value by its key. Repeat for a matrix."
METRIC = "Score the answers: wer, or wer:prediction=text,references=transcript. Repeat for several."
CHOOSE = "Measure each node on every backend, and write the fastest that keeps to this into the graph: 'p50 < 300ms, parity > 0.99'."
CHOOSE_OUT = "Write the graph with what was chosen here, not into its own file."
OPTIONS = ("max_memory", "fallback", "seed", "init")  # of opening, which hold for every cell


@with_opening(taking=OPTIONS)
def bench(  # noqa: PLR0913, PLR0917 typer makes an option of each argument
    context: typer.Context,
    graphs: Annotated[list[str] | None, typer.Argument(metavar="GRAPH...", help=GRAPHS)] = None,
    sweep: Annotated[list[str] | None, typer.Option("--sweep", metavar="NAME=A,B", help=SWEEP)] = None,
    backend: Annotated[str | None, typer.Option("--backend", metavar="A,B", help="Backends to compare: torch,compile,onnx.")] = None,
    precision: Annotated[str | None, typer.Option("--precision", metavar="A,B", help="Precisions of the weights to compare.")] = None,
    device: Annotated[str | None, typer.Option("--device", metavar="A,B", help="Devices to compare: cpu,cuda:0.")] = None,
    threads: Annotated[str | None, typer.Option("--threads", metavar="N,M", help="Numbers of threads to compare.")] = None,
    batch: Annotated[str | None, typer.Option("--batch", metavar="N,M", help="How many records run together: 1,8.")] = None,
    records: Annotated[str | None, typer.Option("--records", metavar="FILE", help="The data: JSON lines, CSV, Parquet, a folder.")] = None,
    inputs: Annotated[list[str] | None, typer.Option("--input", metavar="K=V", help="One record, as `modelgraft run` takes it.")] = None,
    outputs: Wanted = None,
    metrics: Annotated[list[str] | None, typer.Option("--metric", metavar="M", help=METRIC)] = None,
    settings: SetOptions = None,
    opening: Opening = USUAL_OPENING,
    allow: Allow = None,
    rounds: Annotated[str | None, typer.Option("--rounds", metavar="N", help="The most rounds; each cell runs once in each.")] = None,
    warm_up: Annotated[str | None, typer.Option("--warm-up", metavar="N", help="The most runs of a cell before its first round.")] = None,
    cold: Annotated[str | None, typer.Option("--cold", metavar="N", help="Fresh processes for each cell's cold start; 0: none.")] = None,
    target: Annotated[str | None, typer.Option("--precision-target", metavar="P", help="Stop when ratios are known to 3%.")] = None,
    budget: Annotated[str | None, typer.Option("--budget", metavar="T", help="Stop after 5m.")] = None,
    timeout: Annotated[
        str | None, typer.Option("--timeout", metavar="T", help="The most that a cell may take to do one thing: 10m.")
    ] = None,
    share_upstream: Annotated[bool, typer.Option("--share-upstream", help="Compute nodes that no swept value changes once.")] = False,
    check_only: Annotated[bool, typer.Option("--check-only", help="Check and plan every cell, and measure none.")] = False,
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE.json", parser=out_file, help="Write the results here.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Keep the finished cells of --out.")] = False,
    html: Annotated[Path | None, typer.Option("--html", metavar="FILE", parser=out_file, help="Write a page.")] = None,
    compare: Annotated[Path | None, typer.Option("--compare", metavar="OLD.json", help="Say what moved since.")] = None,
    fail_over: Annotated[str | None, typer.Option("--fail-over", metavar="P", help="Exit 1 where a cell became 5% worse.")] = None,
    choose: Annotated[str | None, typer.Option("--choose", metavar="CONDITIONS", help=CHOOSE)] = None,
    choose_out: Annotated[Path | None, typer.Option("--choose-out", metavar="FILE.yaml", parser=out_file, help=CHOOSE_OUT)] = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON Schema of the results, and measure nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Measure graphs beside each other: part by part, backend by backend, with intervals. What does not fit is left out, with reasons."""
    from modelgraft_plugins.benching.asking import Wishes, asked_for
    from modelgraft_plugins.benching.files import schema as schema_of_results

    session = session_of(context)
    if schema:
        session.screen.document(schema_of_results())
        return
    given = {"backend": backend, "precision": precision, "device": device, "threads": threads, "batch": batch}
    asked = asked_for(
        graphs or (),
        swept=pairs(sweep, "--sweep"),
        placing={name: as_usage(listed)(value) for name, value in given.items() if value is not None},
        settings=settings_of(settings),
        inputs=pairs(inputs, "--input"),
        records=records,
        metrics=metrics,
        outputs=outputs,
        allow=allow,
        opening=opening,
        method={
            "rounds": rounds,
            "warm_up": warm_up,
            "cold": cold,
            "precision_target": target,
            "budget": budget,
            "share_upstream": share_upstream or None,
        },
    )
    wishes = Wishes(
        out=out,
        html=html,
        compare=compare,
        fail_over=None if fail_over is None else as_usage(words.part)(fail_over),
        timeout_s=None if timeout is None else as_usage(words.duration)(timeout),
        choose=choose,
        choose_out=choose_out,
        is_resumed=resume,
        is_check=check_only,
        is_json=as_json,
    )
    from modelgraft_plugins.benching.running import run_bench

    raise typer.Exit(run_bench(session, asked, wishes))
