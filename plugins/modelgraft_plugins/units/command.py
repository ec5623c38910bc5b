"""The commands `modelgraft units fit` and `modelgraft units convert`: files of centres for units/kmeans."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from modelgraft.commands import (
    USUAL_OPENING,
    Allow,
    Answering,
    AsJson,
    GraphName,
    Opening,
    SetOptions,
    count,
    out_file,
    session_of,
    settings_of,
    with_opening,
)

HELP = """Discrete units of speech: centres of features, for units/kmeans.

A file of centres says of which layer of which model the features were, and is refused for those of others."""
DATA = "A folder of sounds, or whatever else `modelgraft map` takes as data."
OUTPUT = "What gives the features, an output or any port as node.port. Usually features."
MASK = "What says which frames there are, for batches of sounds of unlike lengths. Usually mask, where the graph has that output."
SHARE = "Fit on this part of the records, drawn by the seed: 0.1. Features of all lie beside FILE while it is made."
CENTRES = "A plain array [clusters width]: .npy, .npz with cluster_centers_, or .safetensors. A pickle is not opened."
Out = Annotated[Path, typer.Option("--out", metavar="FILE.safetensors", parser=out_file, help="Where the centres go.")]
Output = Annotated[str | None, typer.Option("--output", metavar="K", help=OUTPUT)]


def group() -> typer.Typer:
    """The group of both."""
    app = typer.Typer(help=HELP, no_args_is_help=True, rich_markup_mode=None)
    app.command("fit", cls=Answering)(fit)
    app.command("convert", cls=Answering)(convert)
    return app


def share(word: str) -> float:
    """A part of a whole, above 0 and at most 1."""
    try:
        found = float(word)
    except ValueError:
        found = 0.0
    if not 0 < found <= 1:
        raise typer.BadParameter(f"found '{word}'; wanted: a number above 0 and at most 1")
    return found


@with_opening("map")
def fit(  # noqa: PLR0913, PLR0917 typer makes an option of each argument
    context: typer.Context,
    graph: GraphName,
    data: Annotated[str, typer.Argument(metavar="DATA", help=DATA)],
    out: Out,
    clusters: Annotated[int, typer.Option("--clusters", metavar="N", parser=count, help="How many centres. Usually 500.")] = 500,
    books: Annotated[
        int, typer.Option("--books", metavar="N", parser=count, help="Cut each frame into N parts that have centres of their own.")
    ] = 1,
    output: Output = None,
    mask: Annotated[str | None, typer.Option("--mask", metavar="K", help=MASK)] = None,
    part: Annotated[float, typer.Option("--share", metavar="P", parser=share, help=SHARE)] = 1.0,
    batch_size: Annotated[int, typer.Option("--batch-size", metavar="N", parser=count, help="How many records run together.")] = 1,
    settings: SetOptions = None,
    opening: Opening = USUAL_OPENING,
    allow: Allow = None,
    as_json: AsJson = False,
) -> None:
    """Fit centres to the features that a graph gives of a folder of sounds, by scikit-learn's MiniBatchKMeans as HuBERT was made."""
    from modelgraft_plugins.units.fitting import Fitting, fit_centres

    session = session_of(context)
    wanted = Fitting(
        graph=graph,
        params=settings_of(settings),
        allow=tuple(allow or ()),
        data=data,
        clusters=clusters,
        books=books,
        output=output,
        mask=mask,
        share=part,
        batch_size=batch_size,
        opening=opening,
    )
    found = fit_centres(session, wanted, out)
    _say(session, found, as_json=as_json)
    raise typer.Exit(1 if found["failed"] else 0)


def convert(  # noqa: PLR0917 typer makes an option of each argument
    context: typer.Context,
    graph: GraphName,
    centres: Annotated[Path, typer.Argument(metavar="CENTRES", help=CENTRES)],
    out: Out,
    output: Output = None,
    settings: SetOptions = None,
    allow: Allow = None,
    as_json: AsJson = False,
) -> None:
    """Make a file of centres of a plain array that was fitted on the features of a graph, such as those of a published quantiser."""
    from modelgraft_plugins.units.converting import convert_centres

    session = session_of(context)
    found = convert_centres(session, centres, out, graph=graph, params=settings_of(settings), allow=tuple(allow or ()), output=output)
    _say(session, found, as_json=as_json)


def _say(session: Any, found: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        session.screen.document({"ok": not found.get("failed"), **found})
        return
    sizes = f"{found['clusters']} centres of {found['width']} numbers" + (f" in {found['books']} books" if found["books"] > 1 else "")
    fitted = f", of {found['frames']:,} frames of {found['records']:,} records" if "frames" in found else ""
    failed = f", {found['failed']:,} failed" if found.get("failed") else ""
    session.screen.note(f"{sizes}{fitted}{failed}; wrote {found['out']}")
