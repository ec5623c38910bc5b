"""Where a placement is written: into the file of the graph, beside a graph that ships, or nowhere, and then it is told what to write."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from modelgraft.commands import check_writable, shipped_graphs
from modelgraft.plugin import InputError, ModelgraftError
from modelgraft_plugins.benching.placing import Keys
from modelgraft_plugins.benching.placing_text import MARK, Unwritable, beside_runtime, block_of, with_runtime

Prove = Callable[[Path], Sequence[str]]  # takes a graph file; gives the nodes that it places elsewhere than wanted


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What is edited, and where that goes.

    text  that is edited;  path  the file that it is written to; None: no file is written
    why   why none is, as a sentence; "" otherwise
    is_own  it is the file that the text comes from
    """

    text: str
    path: Path | None
    why: str = ""
    is_own: bool = False


def target_of(graph: str, path: Path | None, *, out: Path | None) -> Target:
    """Find out where a placement goes, before anything is measured.

    graph  as the user named it;  path  its file;  out  where the user wants it

    Raises InputError for an `out` that cannot be written.
    """
    if out is not None:
        check_writable(out)
    if path is None:
        return Target(text="", path=None, why=f"{graph} has no file")
    text = path.read_bytes().decode("utf-8")
    if path.resolve().is_relative_to(shipped_graphs().resolve()):
        heading = f"# {graph}, placed as it was measured.\nmodelgraft: 1\nextends: {graph}\n"
        why = f"{graph} is a graph that ships: --choose-out FILE.yaml writes one that extends it" if out is None else ""
        return Target(text=heading, path=out, why=why)
    if out is not None:
        return Target(text=text, path=out)
    try:
        check_writable(path)
    except InputError as error:
        return Target(text=text, path=None, why=f"{error.unworded}; --choose-out FILE.yaml writes it elsewhere")
    return Target(text=text, path=path, is_own=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """What was written.

    path   the file; None: none was, and `why` says why
    lines  the block, with its comment, as it is told where it is not written
    """

    path: Path | None
    lines: Sequence[str]
    why: str = ""


def place(target: Target, placement: Mapping[str, Keys], comment: Sequence[str], *, prove: Prove) -> Placed:
    """Write a placement. The file is replaced as a whole, once the new text has been checked in its place.

    comment  why, as lines

    Nothing is written that says anything else than before beside the placement, or that places a node elsewhere.
    """
    first, *others = comment
    lines = [f"{MARK} {first}", *(f"#   {line}" for line in others), *block_of(placement)]
    if target.path is None:
        return Placed(path=None, lines=lines, why=target.why)
    home = Path(os.path.realpath(target.path))  # a link stays a link
    aside = home.with_name(f".{home.stem}.placing-{os.getpid()}{home.suffix}")
    try:
        _write_proven(target.text, placement, comment, aside, prove)
        if target.is_own and home.read_bytes() != target.text.encode("utf-8"):
            raise Unwritable("somebody has written to it meanwhile")
        if home.exists():
            shutil.copymode(home, aside)
        aside.replace(home)
    except Unwritable as error:
        return Placed(path=None, lines=lines, why=f"{target.path} stays as it is: {error}")
    except OSError as error:
        return Placed(path=None, lines=lines, why=f"{target.path} stays as it is: {error.strerror or error}")
    finally:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)
    return Placed(path=target.path, lines=lines)


def _write_proven(text: str, placement: Mapping[str, Keys], comment: Sequence[str], aside: Path, prove: Prove) -> None:
    """Write the edited text beside its place, once it is proven there; what a base or a node itself says goes over `runtime`."""
    dotted, why = set[tuple[str, str]](), ""
    for _ in range(2):
        edited = with_runtime(text, placement, comment, dotted=dotted)
        if beside_runtime(edited) != beside_runtime(text):
            raise Unwritable("an edit would change more than its placement")
        aside.write_bytes(edited.encode("utf-8"))
        try:
            odd = prove(aside)
            why = f"what it says elsewhere places {', '.join(odd)}"
        except ModelgraftError as error:  # a backend without a precision that stands elsewhere
            odd, why = list(placement), str(error)
        if not odd:
            return
        dotted = {(node, key) for node in odd for key in placement.get(node, {})}
    raise Unwritable(why)
