"""Driven components that trace their graphs themselves: what they are offered, and how what they wrote is proven and opened.

What graphs there are, and what is made of them, is the component's own affair: see `modelgraft.plugin.Tracer`. The module is needed to
trace, and never again: what its loop must know stands in the manifest, and tensors beside the graphs are read from the checkpoint, or
from a file of the export where the checkpoint does not hold them. Nothing of torch is imported where the export is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from modelgraft.plugin import (
    Assembling,
    InputError,
    LoadContext,
    Loaded,
    ModelgraftError,
    Parity,
    PluginError,
    driving,
    in_numpy,
    loop_of,
    owner_of,
    resolve,
    said,
)
from modelgraft_plugins.onnx import proofs, store, tuned
from modelgraft_plugins.onnx.begun import Begun, note_many, started
from modelgraft_plugins.onnx.measured import MANY
from modelgraft_plugins.onnx.measured import widens as widens_here
from modelgraft_plugins.onnx.opened import FolderOpened
from modelgraft_plugins.onnx.sharing import Sharing

Parts = Mapping[str, Any]  # as loops call them


def load(
    context: LoadContext, open_host: Callable[[], Loaded], *, key_for: Callable[[str], str], precision: str, sharing: Sharing
) -> tuple[Loaded, store.Entry]:
    """Give a component whose parts are made of graphs that it has traced, and the export that it runs.

    open_host  loads the node on torch; called only when its export is not kept
    key_for    what the export of a variant is kept under: see `Assembling.variant`
    sharing    opens its sessions

    Nobody can take weights from it: `Loaded.state` is None. Raises ExportError.
    """
    node, owner = context.node, owner_of(context.node)
    at_home = replace(context, device="cpu", dtype="float32")  # where a loop computes what it hands to graphs
    kind, wanted = resolve(owner.loop or "", owner), frozenset(node.out_ports)
    _refuse_others(kind, context)
    own = kind.variant(node.config, wanted)

    def opened(variant: str) -> tuple[tuple[Assembling, Parts, list[str]], store.Entry, tuple[str, ...]]:
        fresh = dict[str, tuned.Fresh]()  # sessions by the file of their graph
        return proofs.opened(  # which lets go of the module before sessions open
            key_for(variant),
            partial(_open, context, sharing, fresh, at_home if variant == own else None),
            build=lambda folder: _build(open_host(), context, precision, folder, variant, fresh),
            prove=lambda kept: _prove(open_host(), kept, context, precision),
        )

    (loop, parts, remarks), entry, said = opened(own)
    variants = {own: parts}

    def giving(wanted: frozenset[str]) -> Callable[..., Any]:
        variant = kind.variant(node.config, wanted) or own  # an export that gives more serves those who want less
        if variant not in variants:
            (_, variants[variant], _), _, _ = opened(variant)
        return in_numpy(driving(loop, variants[variant], wanted), at_home)

    remark = entry.manifest["notes"].get("remark", "")
    warnings = [*entry.manifest["warnings"], *(f"{node.name}: {text}" for text in (*said, remark, *remarks) if text)]
    taps = giving if node.component.taps else None
    settings: dict[str, Any] = {"bind": loop.bind, "close": loop.close, "loop": loop, "giving": taps}
    return Loaded(giving(wanted), warnings=tuple(warnings), is_shared=False, arrays=True, **settings), entry


def _open(
    context: LoadContext, sharing: Sharing, fresh: Mapping[str, tuned.Fresh], at_home: LoadContext | None, entry: store.Entry
) -> tuple[Assembling, Parts, list[str]]:
    """The loop of a node, its parts, and what a user must know of the sessions.

    sharing  opens them
    fresh    those that its graphs were proven with, where this process has just written them
    at_home  what the loop is prepared with, before they are opened: reading a tokenizer takes much for a moment; None: it is not needed
    """
    remarks = list[str]()

    def session(graph: str) -> Any:
        opened, said = sharing.session(entry.folder, context.device, graph=graph, count=context.threads, fresh=fresh.get(graph))
        remarks.extend(said)
        return opened

    def of_many(graph: str) -> Any:
        return open_many(entry.folder / graph, count=context.threads)

    loop = loop_of(context.node, entry.manifest["facts"], resolve)
    assert isinstance(loop, Assembling)
    if at_home is not None:
        _prepare(loop, at_home)
    widens = context.device == "cpu" and widens_here()
    settings: dict[str, Any] = {"device": context.device, "weights": context.weights, "of_many": of_many if widens else None}
    opened = FolderOpened(entry.folder, entry.manifest, session, **settings)
    return loop, loop.assemble(opened), remarks


def _build(
    host: Loaded, context: LoadContext, precision: str, folder: Path, variant: str, fresh: dict[str, tuned.Fresh]
) -> Mapping[str, Any]:
    """See tracing.build, which is torch's affair."""
    from modelgraft_plugins.onnx import tracing

    return tracing.build(host, context, precision, folder, variant, fresh)


def _prove(host: Loaded, kept: store.Entry, context: LoadContext, precision: str) -> Parity:
    """See tracing.compared_again."""
    from modelgraft_plugins.onnx import tracing

    return tracing.compared_again(host, kept, context, precision)


def _prepare(loop: Assembling, context: LoadContext) -> None:
    """Prepare a loop. Raises PluginError for whatever its code raises: it is not the export that is broken, which would be made again."""
    try:
        loop.prepare(context)
    except ModelgraftError:
        raise
    except Exception as error:
        component = context.node.component
        raise PluginError(f"plugin '{component.plugin}': {component.id} could not be prepared: {said(error)}") from error


def open_many(path: Path, *, count: int | None) -> Any:  # Any: onnxruntime has no types
    """The session on a graph for many rows, in the middle of a run; the next start begins it before. Raises InputError where it is no
    longer there."""
    try:
        opened = started(Begun(path, False, count, as_needed=True))
        note_many(path.parent, is_needed=True)
        return opened
    except Exception as error:  # what onnxruntime raises has no base of its own
        was = f"cannot be read ({store.first_line(error)})" if path.is_file() else "is gone"
        found = f"the graph that reads prompts of {MANY} tokens and more {was}: {path}. It was there when the pipeline was opened"
        raise InputError(f"{found}; open the pipeline anew, and the export is made again") from error


def _refuse_others(kind: Any, context: LoadContext) -> None:
    """Raise PluginError for a loop that makes no parts of graphs."""
    if isinstance(kind, type) and issubclass(kind, Assembling):
        return
    component = context.node.component
    found = f"{component.id} declares no parts, and its loop is no modelgraft.plugin.Assembling, which makes them of traced graphs"
    raise PluginError(f"plugin '{component.plugin}': {found}")
