"""Commands that look after what is kept on this machine."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from modelgraft.cli.options import AsJson
from modelgraft.cli.session import session_of
from modelgraft.records.amounts import in_bytes

if TYPE_CHECKING:
    from modelgraft.sources.keeping import KeptItem
    from modelgraft.tools.keeping import Keeping

Kinds = Annotated[
    list[str] | None,
    typer.Argument(metavar="KIND", help="A kind of what is kept, such as exports or results; without one, all of them."),
]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    cache = typer.Typer(no_args_is_help=True, help="See, prove and clear what is kept on this machine.")
    cache.command("list")(cache_list)
    cache.command("verify")(cache_verify)
    cache.command("clear")(cache_clear)
    app.add_typer(cache, name="cache")


def cache_list(context: typer.Context, kinds: Kinds = None, as_json: AsJson = False) -> None:
    """List what is kept: exports (with how far each is from torch), converted weights, tokenizers, results and downloads."""
    from modelgraft.sources.storage import cache_root

    screen, keeping = session_of(context).screen, _keeping(context)
    found = [(item, keeping.bytes_of(item)) for item in keeping.items(_chosen(kinds, keeping))]
    if as_json:
        screen.document(
            [{"key": item.name, "bytes": size, "folder": str(item.path), **item.facts, "kind": item.kind} for item, size in found]
        )
        return
    rows = [(item.kind, _short(item), item.about, item.parity, in_bytes(size)) for item, size in found]
    screen.table(("kind", "name", "about", "furthest from torch", "bytes"), rows, right=frozenset({4}))
    screen.say(f"{len(found)} kept, {in_bytes(sum(size for _, size in found))}, in {cache_root()}")


def cache_verify(context: typer.Context, kinds: Kinds = None, as_json: AsJson = False) -> None:
    """Read all that is kept and compare it with its seals; what is broken is deleted, and made again when it is needed."""
    screen, keeping, start = session_of(context).screen, _keeping(context), time.perf_counter()
    found = [(item, keeping.bytes_of(item)) for item in keeping.items(_chosen(kinds, keeping))]
    broken = [entry for item, _ in found for entry in keeping.verify(item)]
    read = sum(size for _, size in found)
    if as_json:
        listed = [
            {"kind": entry.item.kind, "key": entry.item.name, "path": str(entry.path), "found": entry.found, "deleted": entry.is_deleted}
            for entry in broken
        ]
        screen.document({"ok": not broken, "checked": len(found), "bytes": read, "broken": listed})
    else:
        for entry in broken:
            done = "deleted, and made again when it is needed" if entry.is_deleted else "in use, or not to be deleted: it stays"
            screen.say(f"{entry.item.kind}: {entry.path} is broken ({entry.found}): {done}")
        verdict = f"{len(broken)} broken" if broken else "all is whole"
        screen.say(f"{len(found)} kept, {in_bytes(read)} read in {time.perf_counter() - start:.1f} s: {verdict}")
    if broken:
        raise typer.Exit(1)


def cache_clear(context: typer.Context, kinds: Kinds = None, as_json: AsJson = False) -> None:
    """Delete what is kept, or some kinds of it: all of it is made or fetched again when it is needed."""
    from modelgraft.tools.keeping import forget_notes

    screen, keeping = session_of(context).screen, _keeping(context)
    chosen = _chosen(kinds, keeping)
    found = [(item, keeping.bytes_of(item)) for item in keeping.items(chosen)]
    gone = [(item, size) for item, size in found if keeping.delete(item)]
    left = [item for item, _ in found if not any(item is other for other, _ in gone)]
    if len(chosen) == len(keeping.keepers):
        forget_notes()
    total = sum(size for _, size in gone)
    counts = {kind: sum(item.kind == kind for item, _ in gone) for kind in chosen}
    if as_json:
        screen.document({"ok": not left, **counts, "bytes": total, "left": [str(item.path) for item in left]})
    else:
        sizes = {kind: in_bytes(sum(size for item, size in gone if item.kind == kind)) for kind in chosen}
        told = [f"{count} {kind if count > 1 else kind.removesuffix('s')} ({sizes[kind]})" for kind, count in counts.items() if count]
        screen.say(f"deleted {', '.join(told)}; {in_bytes(total)} in all" if told else "nothing of this is kept")
        for item in left:
            screen.note(f"left, because it is in use or cannot be deleted: {item.path}")
    if left:
        raise typer.Exit(1)


def _keeping(context: typer.Context) -> Keeping:
    from modelgraft.tools.keeping import Keeping

    session = session_of(context)
    session.looks = True
    return Keeping(session.registry)


def _chosen(kinds: Sequence[str] | None, keeping: Keeping) -> tuple[str, ...]:
    """The kinds that were named, or all. A name that is none is a usage error."""
    if unknown := [kind for kind in kinds or () if kind not in keeping.keepers]:
        raise typer.BadParameter(f"what is kept is {', '.join(keeping.keepers)}; found '{unknown[0]}'")
    return tuple(kind for kind in keeping.keepers if not kinds or kind in kinds)


def _short(item: KeptItem) -> str:
    """A name in the table: of what is named by a digest the beginning of it."""
    return item.name if "==" in item.name else item.name[:12]
