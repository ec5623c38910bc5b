"""Driven components that trace their graphs themselves: what they are offered, and how what they wrote is proven and opened.

What graphs there are, and what is made of them, is the component's own affair: see `modelgraft.plugin.Tracer`. The module is needed to
trace, and never again: what its loop must know stands in the manifest, and tensors beside the graphs are read from the checkpoint, or
from a file of the export where the checkpoint does not hold them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from modelgraft.plugin import (
    Assembling,
    InputError,
    LoadContext,
    Loaded,
    ModelgraftError,
    Parity,
    PluginError,
    PublishedBlocks,
    Traced,
    Weights,
    driving,
    in_torch,
    loop_of,
    note_memory,
    owner_of,
    resolve,
    said,
)
from modelgraft_plugins.onnx import proofs, store, tuned
from modelgraft_plugins.onnx.blocks import is_of
from modelgraft_plugins.onnx.by_rows import ByRows
from modelgraft_plugins.onnx.exporting import answering, open_fresh, trace
from modelgraft_plugins.onnx.graphs import SessionGraph
from modelgraft_plugins.onnx.kept_blocks import MIDDLE, is_of_use
from modelgraft_plugins.onnx.keys import OPSET, WEIGHT_BITS
from modelgraft_plugins.onnx.measured import MANY, beside
from modelgraft_plugins.onnx.measured import widens as widens_here
from modelgraft_plugins.onnx.precision import bring
from modelgraft_plugins.onnx.rehearsing import Asked, asked, prove
from modelgraft_plugins.onnx.sessions import open_session
from modelgraft_plugins.onnx.sharing import Sharing

Parts = Mapping[str, Any]  # as loops call them
Sessions = dict[str, tuned.Fresh]  # by the file of their graph
ROWS = 1024  # of a table that are compared at once


class FolderTracer:
    """A Tracer that writes into a folder.

    kept       where each tensor beside the graphs is found
    unwritten  the graphs that the module has put together, by the file that each becomes
    """

    def __init__(self, folder: Path, *, half: bool, weights: Weights | None, variant: str = "", bits: int = 0) -> None:
        """bits: that matrices are brought to; blocks of the file that are of no use for them are not looked at. 0: all are."""
        self.folder, self.half, self.weights, self.variant, self.bits = folder, half, weights, variant, bits
        self.kept: dict[str, Mapping[str, str]] = {}
        self.unwritten: dict[Path, Any] = {}
        self.proven = set[tuple[str, str]]()  # matrices of the checkpoint and of the module whose numbers are the same

    def trace(
        self, module: torch.nn.Module, example: tuple[Any, ...], name: str, *, sizes: Any, inputs: Sequence[str], outputs: Sequence[str]
    ) -> None:
        """See Tracer."""
        store.tell(1, "tracing")
        trace(module, example, self.folder / f"{name}.onnx", sizes=sizes, inputs=inputs, outputs=outputs)

    def write(self, graph: Any, name: str) -> None:
        """See Tracer. It is written when its precision is known: see `bring`."""
        self.unwritten[self.folder / f"{name}.onnx"] = graph

    def published(self, name: str, tensor: Tensor) -> PublishedBlocks | None:
        """See Tracer. A matrix of another name, such as a head that is tied, is looked for by its shape."""
        weights, shape = self.weights, tuple(tensor.shape)
        if weights is None:
            return None
        keys = weights.keys()
        named = [name] if name in keys else [key for key in keys if weights.shape(key) == shape]
        for key in named:
            found = weights.blocks(key)
            if found is None or (found.bits in MIDDLE and not is_of_use(found, bits=self.bits)):
                continue
            if (key, name) in self.proven or is_of(found, tensor):
                self.proven.add((key, name))
                return found
        return None

    def keep(self, name: str, tensor: Tensor) -> None:
        """See Tracer."""
        weights, shape = self.weights, tuple(tensor.shape)
        for key in weights.keys() if weights is not None else ():
            if weights is not None and weights.shape(key) == shape and _is_same(weights.tensor(key), tensor):
                self.kept[name] = {"key": key}
                return
        from safetensors.torch import save_file

        file = f"{name}.safetensors"
        save_file({"table": tensor.contiguous()}, self.folder / file)
        self.kept[name] = {"file": file}


def _is_same(stored: Tensor, tensor: Tensor) -> bool:
    """Whether a tensor is one of the checkpoint, or has its numbers; what lies in the same place is not read."""
    if (stored.data_ptr(), stored.dtype, stored.stride()) == (tensor.data_ptr(), tensor.dtype, tensor.stride()):
        return True
    return all(
        torch.equal(one.to(tensor.dtype), other) for one, other in zip(torch.split(stored, ROWS), torch.split(tensor, ROWS), strict=True)
    )


class FolderOpened:
    """An Opened on the files of an export."""

    def __init__(
        self,
        folder: Path,
        manifest: Mapping[str, Any],
        session: Callable[[str], Any],
        *,
        device: str,
        weights: Weights | None,
        is_fresh: bool = False,
        one_row: Callable[[str], Any] = lambda _: None,
        of_many: Callable[[str], Any] | None = None,
    ) -> None:
        """What opens them.

        session   a graph file by its name
        one_row   opens it once more, after that, for one token of one record; gives None where that is no faster
        of_many   one for many rows; None: all rows are read by the others
        is_fresh  the folder is being written, and has no seal yet
        """
        self.is_fresh, self.of_many = is_fresh, of_many
        self.folder, self.session, self.device, self.weights = folder, session, device, weights
        self.one_row = one_row
        self.notes: Mapping[str, Any] = manifest["notes"]
        self.kept: Mapping[str, Mapping[str, str]] = manifest["kept"]

    def graph(self, name: str) -> SessionGraph | ByRows:
        """See Opened."""
        file, open_many = f"{name}.onnx", self.of_many
        few = SessionGraph(self.session(file), device=self.device, one_row=self.one_row(file))
        many = beside(self.folder / file)
        if open_many is None or not many.is_file():
            return few
        store.proven_file(self.folder, many.name)  # now: later nobody would make the export again
        return ByRows(few, lambda: SessionGraph(open_many(many.name), device=self.device), many=MANY)

    def tensor(self, name: str) -> Tensor:
        """See Opened."""
        where = self.kept[name]
        if "key" in where and self.weights is not None:
            table = self.weights.tensor(where["key"])
            note_memory("cpu", table.nbytes)
            return table
        from safetensors.torch import load_file

        file = where["file"]
        table = load_file(self.folder / file if self.is_fresh else store.proven_file(self.folder, file))["table"]
        note_memory("cpu", table.nbytes)
        return table


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
        fresh: Sessions = {}
        return proofs.opened(  # which lets go of the module before sessions open
            key_for(variant),
            partial(_open, context, sharing, fresh, at_home if variant == own else None),
            build=lambda folder: _build(open_host(), context, precision, folder, variant, fresh),
            prove=lambda kept: _compared_again(open_host(), kept, context, precision),
        )

    (loop, parts, remarks), entry, said = opened(own)
    variants = {own: parts}

    def giving(wanted: frozenset[str]) -> Callable[..., Any]:
        variant = kind.variant(node.config, wanted) or own  # an export that gives more serves those who want less
        if variant not in variants:
            (_, variants[variant], _), _, _ = opened(variant)
        return in_torch(driving(loop, variants[variant], wanted), at_home)

    remark = entry.manifest["notes"].get("remark", "")
    warnings = [*entry.manifest["warnings"], *(f"{node.name}: {text}" for text in (*said, remark, *remarks) if text)]
    taps = giving if node.component.taps else None
    loaded = Loaded(giving(wanted), bind=loop.bind, close=loop.close, warnings=tuple(warnings), loop=loop, is_shared=False, giving=taps)
    return loaded, entry


def _open(
    context: LoadContext, sharing: Sharing, fresh: Sessions, at_home: LoadContext | None, entry: store.Entry
) -> tuple[Assembling, Parts, list[str]]:
    """The loop of a node, its parts, and what a user must know of the sessions.

    sharing  opens them
    fresh    those that its graphs were proven with, where this process has just written them
    at_home  what the loop is prepared with, before they are opened: reading a tokenizer takes much for a moment; None: it is not needed
    """
    remarks, doubted = list[str](), set[str]()

    def session(graph: str) -> Any:
        opened, said = sharing.session(entry.folder, context.device, graph=graph, count=context.threads, fresh=fresh.get(graph))
        remarks.extend(said)
        if said:
            doubted.add(graph)
        return opened

    def one_row(graph: str) -> Any:
        if entry.manifest["precision"] != "float32":
            return None  # 8-bit products are faster packed, blocks are packed in any case
        if graph in doubted:
            return None  # what was tuned may still lie there broken, where it could not be tuned again
        return sharing.for_one_row(entry.folder, context.device, graph=graph, count=context.threads)

    def of_many(graph: str) -> Any:
        return open_many(entry.folder / graph, count=context.threads)

    loop = loop_of(context.node, entry.manifest["facts"], resolve)
    assert isinstance(loop, Assembling)
    if at_home is not None:
        _prepare(loop, at_home)
    widens = context.device == "cpu" and widens_here()
    settings: dict[str, Any] = {"device": context.device, "weights": context.weights, "of_many": of_many if widens else None}
    opened = FolderOpened(entry.folder, entry.manifest, session, one_row=one_row, **settings)
    return loop, loop.assemble(opened), remarks


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
    """The session on a graph for many rows, in the middle of a run. Raises InputError where it is no longer there."""
    try:
        return open_session(path, device="cpu", count=count, as_needed=True)
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


def _build(host: Loaded, context: LoadContext, precision: str, folder: Path, variant: str, fresh: Sessions) -> Mapping[str, Any]:
    module, node = host.state, context.node
    if not isinstance(module, Traced):
        found = f"{node.component.id} declares no parts, and its module is no modelgraft.plugin.Traced, which traces them"
        raise PluginError(f"plugin '{node.component.plugin}': {found}")
    store.tell(1, "making graphs")
    bits = WEIGHT_BITS.get(precision, 0)
    tracer = FolderTracer(folder, half=precision == "float16", weights=context.weights, variant=variant, bits=bits)
    notes = module.trace(tracer)
    manifest: dict[str, Any] = {
        "node": node.name,
        "component": node.component.id,
        "opset": OPSET,
        "precision": precision,
        "facts": module.facts(),
        "notes": notes,
        "variant": variant,
        "script": host.loop.script if isinstance(host.loop, Assembling) else "",
        "kept": tracer.kept,
    }
    settings: dict[str, Any] = {"fresh": fresh, "count": context.threads}
    with answering(module, partial(_asked, host, variant)) as told:
        reduced = bring(
            sorted({*folder.glob("*.onnx"), *tracer.unwritten}),
            precision,
            lambda: _compared(host, folder, manifest, precision, context.weights, told, **settings),
            unwritten=tracer.unwritten,
            widens=True,
        )
    for one in fresh.values():
        one.keep_for(context.device)
    warnings = [*host.warnings, *(f"{node.name}: {text}" for text in reduced.warnings)]
    return {**manifest, "weights": reduced.weights, "warnings": warnings, "parity": asdict(reduced.parity)}


def _asked(host: Loaded, variant: str) -> Asked:
    assert isinstance(host.loop, Assembling)
    return asked(host.loop, host.state.parts(()), variant=variant)


def _compared_again(host: Loaded, kept: store.Entry, context: LoadContext, precision: str) -> Parity:
    """How far an export that was made on another kind of processor is from torch on this one."""
    settings: dict[str, Any] = {"fresh": {}, "count": context.threads}
    with answering(host.state, partial(_asked, host, kept.manifest["variant"])) as told:
        return _compared(host, kept.folder, kept.manifest, precision, context.weights, told, **settings)


def _compared(
    host: Loaded,
    folder: Path,
    manifest: Mapping[str, Any],
    precision: str,
    weights: Weights | None,
    told: Callable[[], Asked],
    *,
    fresh: Sessions,
    count: int | None,
) -> Parity:
    """How far the parts that a folder holds are from those in torch: the worse where there are others for many rows.

    told   waits for what those in torch give
    fresh  where the sessions of the graphs are left, but for those for many rows, which are opened again when many rows come
    count  threads that they compute with; None: as `runtime.threads` says
    """
    loop = host.loop
    assert isinstance(loop, Assembling)
    fresh.clear()  # of what was not near enough
    settings: dict[str, Any] = {"device": "cpu", "weights": weights, "is_fresh": True}

    def assembled(*, is_of_many: bool) -> Parts:
        fresh.clear()  # before others open

        def session(graph: str) -> Any:
            many = beside(folder / graph)
            if is_of_many and many.is_file():
                return open_fresh(many, count=count, as_needed=True)
            fresh[graph] = tuned.Fresh(count, open_fresh(folder / graph, count=count))
            return fresh[graph].session

        return loop.assemble(FolderOpened(folder, manifest, session, **settings))

    has_many = any(beside(graph).is_file() for graph in folder.glob("*.onnx"))
    few, many = (partial(assembled, is_of_many=is_of_many) for is_of_many in (False, True))
    return prove(loop, told(), few, precision, variant=manifest["variant"], many=many if has_many else None)
