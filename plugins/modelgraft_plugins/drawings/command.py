"""The command `modelgraft drawings`: data to train and judge small parts by, from packages, with their licences."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modelgraft.commands import AsJson, Pace, count, counting, session_of

if TYPE_CHECKING:
    from modelgraft_plugins.drawings.listing import Tell

WHAT = "emoji: by nine vendors, fetched by npm. clipart: in the public domain, with titles and keywords, fetched by apt-get."
OUT = "A folder for the drawings, their captions and packages; usually one of the name of what they are. What is there and whole stays."
SIDE = "The side of a picture in pixels."
VENDORS_HELP = "Draw only this vendor's; repeat for several. Usually all nine; of emoji alone."
COLLECTIONS = ("emoji", "clipart")
MOST_SIDE = 2048
TOLD = 5  # so many of the drawings that failed are named, the others are counted


def side(word: str) -> int:
    """A side in pixels, not so large that drawings fill a disk by a slip of the finger."""
    if (found := count(word)) > MOST_SIDE:
        raise typer.BadParameter(f"found {found}; wanted: at most {MOST_SIDE}")
    return found


def collection(word: str) -> str:
    """What is to be drawn."""
    if word not in COLLECTIONS:
        way = f"a folder is named behind one of them: modelgraft drawings {COLLECTIONS[0]} {word}"
        raise typer.BadParameter(f"found '{word}'; there are: {', '.join(COLLECTIONS)}; {way}")
    return word


def vendor(word: str) -> str:
    """The name of a vendor."""
    from modelgraft_plugins.drawings.vendors import VENDORS

    if word not in VENDORS:
        raise typer.BadParameter(f"found '{word}'; there are: {', '.join(VENDORS)}")
    return word


def drawings(
    context: typer.Context,
    what: Annotated[str, typer.Argument(metavar="emoji|clipart", parser=collection, help=WHAT)],
    out: Annotated[Path | None, typer.Argument(metavar="[OUT]", help=OUT)] = None,
    size: Annotated[int, typer.Option("--size", metavar="N", parser=side, help=SIDE)] = 128,
    vendors: Annotated[list[str] | None, typer.Option("--vendor", metavar="NAME", parser=vendor, help=VENDORS_HELP)] = None,
    as_json: AsJson = False,
) -> None:
    """Make a folder of drawings with their names, split into what trains and what judges: emoji by nine vendors, or clip art."""
    from modelgraft.plugin import InputError

    if vendors and what != "emoji":
        raise typer.BadParameter("only emoji are by several vendors", param_hint="--vendor")
    out = out or Path(what)
    screen, pace = session_of(context).screen, Pace(None)
    try:
        with counting(screen, pace, is_on=not as_json) as (take, _):

            def tell(done: int, failed: int, total: int) -> None:
                pace.total = total
                take(done, failed)

            found = _make(what, out, side=size, vendors=vendors, offline=session_of(context).offline, tell=tell)
    except OSError as error:
        raise InputError(f"the drawings cannot be written to {out}: {error.strerror or error}") from error
    _say(screen, found, as_json=as_json)
    raise typer.Exit(1 if found["failed"] else 0)


def _make(what: str, out: Path, *, side: int, vendors: list[str] | None, offline: bool, tell: Tell) -> dict[str, Any]:
    """Make the drawings of a collection; Any: what `making.make` and `clipart.make` tell."""
    if what == "clipart":
        from modelgraft_plugins.drawings import clipart

        return clipart.make(out, side=side, offline=offline, tell=tell)
    from modelgraft_plugins.drawings import making
    from modelgraft_plugins.drawings import vendors as known

    return making.make(out, side=side, vendors=vendors or tuple(known.VENDORS), offline=offline, tell=tell)


def _say(screen: Any, found: dict[str, Any], *, as_json: bool) -> None:  # Any: a Screen
    if as_json:
        screen.document({"ok": not found["failed"], **found})
        return
    for image, why in list(found["failed"].items())[:TOLD]:
        screen.note(f"{image}: {why}")
    counts = ", ".join(f"{number:,} {split.replace('_', ' ')}" for split, number in found["drawings"].items())
    for why, number in found.get("left_out", {}).items():
        screen.note(f"left out: {number:,} {why}")
    failed = f"; {len(found['failed']):,} could not be drawn" if found["failed"] else ""
    screen.note(f"drawings in {found['folder']}: {counts}{failed}. Whose they are: LICENCES.md beside that folder")
