"""Exports are proven on the kind of processor that runs them: one that was carried from another machine is compared again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from modelgraft.plugin import ExportError, ModelgraftError
from modelgraft_plugins.onnx import store
from modelgraft_plugins.onnx.leaving import ask_to_export

if TYPE_CHECKING:
    from modelgraft.plugin import Parity

Opened = TypeVar("Opened")


def proven(
    key: str, *, build: Callable[[Path], Mapping[str, Any]], prove: Callable[[store.Entry], Parity]
) -> tuple[store.Entry, tuple[str, ...]]:
    """The export of a key, which is near enough to torch on this kind of processor, and what a user must know.

    build  makes it, see `store.make`; called when it is not kept, was harmed, or is too far from torch here
    prove  compares one that is kept with torch; called for one that was made on another kind of processor, once

    Raises ExportError as they do, Left where one would be called and that is not to be done now. The manifest of the entry
    has the parity that was found on this kind of processor.
    """
    entry, complaint = store.find(key)
    said = [complaint] if complaint else []
    if entry is not None:
        if (known := store.parity_here(entry)) is not None:
            return _with_parity(entry, known), ()
        if complaint := store.broken(entry):
            damaged = f"the cached export {key} is damaged ({complaint}): it is made again"
            return store.make(key, build, instead_of=entry), (*said, damaged)
        ask_to_export(key)
        store.tell(3, "comparing with torch on this processor")
        parity, carried = prove(entry), f"the cached export {entry.folder.name} was made on another kind of processor"
        if parity.holds:
            said += [f"{carried}: it was compared with torch again ({parity})", *_note(entry, parity)]
            return _with_parity(entry, asdict(parity)), tuple(said)
        said.append(f"{carried} and differs from torch on this one ({parity}): it is made again")
    return store.make(key, build, instead_of=entry), tuple(said)


def kept_plain(key: str) -> store.Entry | None:
    """A kept float32 export that others can be made from: whole, and proven on this kind of processor."""
    entry, _ = store.find(key)
    known = store.parity_here(entry) if entry is not None else None
    return _with_parity(entry, known) if entry is not None and known is not None and not store.broken(entry) else None


def opened(
    key: str,
    open_entry: Callable[[store.Entry], Opened],
    *,
    build: Callable[[Path], Mapping[str, Any]],
    prove: Callable[[store.Entry], Parity],
) -> tuple[Opened, store.Entry, tuple[str, ...]]:
    """Open the export of a key: gives what `open_entry` does, the export, and what a user must know.

    One that is kept and turns out broken as it is opened is made again, once, and that is said: a seal that does not hold,
    weights that its graph looks for elsewhere, a manifest that lacks something.

    Raises ExportError as `proven` does, and what `open_entry` raises on purpose.
    """
    entry, said = proven(key, build=build, prove=prove)
    try:
        return open_entry(entry), entry, said
    except ModelgraftError:
        raise
    except Exception as error:  # noqa: BLE001 what onnxruntime raises has no base of its own
        said = (*said, f"the cached export {key} cannot be used ({store.first_line(error)}): it is made again")
    entry = store.make(key, build, instead_of=entry)
    try:
        return open_entry(entry), entry, said
    except ModelgraftError:
        raise
    except Exception as error:
        raise ExportError(f"onnxruntime does not read the export: {store.first_line(error)}") from error


def _with_parity(entry: store.Entry, parity: Mapping[str, Any]) -> store.Entry:
    return store.Entry(entry.folder, {**entry.manifest, "parity": dict(parity)})


def _note(entry: store.Entry, parity: Parity) -> list[str]:
    """Keep a proof beside its export; gives what a user must know when that cannot be."""
    try:
        store.write_proof(entry, asdict(parity))
    except OSError as error:
        return [f"that cannot be kept ({error.strerror}): every start compares again"]
    return []
