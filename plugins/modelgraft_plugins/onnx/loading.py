"""How a node is loaded: exported once, proven, and run on ONNX Runtime. Light: what exports and proves imports torch when it is called."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelgraft.plugin import (
    Backend,
    ExportError,
    GraphError,
    InputError,
    LoadContext,
    Loaded,
    Node,
    Parity,
    PluginError,
    Problem,
    Signature,
    Unfinished,
    in_torch,
    is_driven,
    option,
    placed,
    signature_of,
    starts_new,
    wired_inputs,
)
from modelgraft_plugins.cores import threads
from modelgraft_plugins.onnx import driven, measured, proofs, store, traced, tuned
from modelgraft_plugins.onnx.calling import Exported
from modelgraft_plugins.onnx.keys import NONE, WEIGHT_BITS, has_none, identity_of, key_of
from modelgraft_plugins.onnx.leaving import Left, leaving
from modelgraft_plugins.onnx.sharing import Sharing

if TYPE_CHECKING:
    import torch


class Loads:
    """Loads nodes for a backend.

    torch    the backend that builds the modules, and runs what cannot run here
    exports  where it notes what the loaded nodes run, by their names
    """

    def __init__(self, torch: Backend, exports: dict[str, store.Entry]) -> None:
        self._torch, self.exports, self._sharing = torch, exports, Sharing()

    def load(self, context: LoadContext, shared: Mapping[str, Loaded]) -> Loaded:
        """Load one node, as `OnnxBackend.load` says."""
        node = context.node
        if node.component.module is None and not node.parts:
            return self._torch.load(context, shared)
        if context.device != "cpu" and (reason := _why_not()):
            raise InputError(
                f"{node.name} cannot run on {context.device} with the onnx backend: {reason}; or choose {option('device', 'cpu')}"
            )
        if context.device == "cpu" and _precision(context) in WEIGHT_BITS and context.export != "never":
            measured.prepare()  # before anything is looked for under a key, which it is part of
        try:
            threads()  # refused now, and not once the export is made
            return self._open_or_leave(placed(context), shared)
        except InputError as error:
            if str(error).startswith(node.name):
                raise
            raise InputError(f"{node.name}: {error.unworded}") from error
        except ExportError as error:
            problem = _not_exportable(context.node, str(error))
            if context.fallback != "torch":
                raise GraphError(problem) from error
            return self._on_torch(context, shared, f"{problem.found}; it stays on torch")

    def close(self) -> None:
        """Free what torch holds beside the sessions."""
        self._torch.close()

    def _open_or_leave(self, context: LoadContext, shared: Mapping[str, Loaded]) -> Loaded:
        """Open a node now, or as torch has it until its export is there."""
        with leaving(exports=context.export in ("later", "never"), tuning=bool(context.export)) as left:
            try:
                loaded = self._open(context, shared)
            except Left as export:
                return self._until(export.key, context, shared)
            except ExportError as error:
                if left.wanted:
                    store.write_refusal(left.wanted, str(error))
                raise
        if not left.untuned or context.export == "never":
            return loaded
        return replace(loaded, unfinished=Unfinished("tuning for this machine", f"{left.untuned[0]}-tuning"))

    def _until(self, key: str, context: LoadContext, shared: Mapping[str, Loaded]) -> Loaded:
        """The node as torch has it until its export is there. Raises ExportError for one of which it is known that it cannot be made."""
        if why := store.refusal(key):
            raise ExportError(why)
        differs = context.precision not in ("", context.dtype)
        until = f"torch in {context.dtype}" if differs else "torch"
        return replace(self._on_torch(context, shared), unfinished=Unfinished("export for onnx", key, meanwhile=until, differs=differs))

    def _on_torch(self, context: LoadContext, shared: Mapping[str, Loaded], *warning: str) -> Loaded:
        """Run on torch what cannot run here, or not yet, and say so."""
        node = context.node
        if not node.parts:
            loaded = self._torch.load(replace(context, precision=""), shared)
            return replace(loaded, warnings=(*loaded.warnings, *warning))
        from modelgraft_plugins.onnx.exporting import joined

        parts = [self._torch.load(replace(part, precision=""), shared) for part in _parts(context)]
        module = joined(node, [part.state for part in parts])
        return Loaded(in_torch(module, context), state=module, warnings=(*(text for part in parts for text in part.warnings), *warning))

    def _open(self, context: LoadContext, shared: Mapping[str, Loaded]) -> Loaded:
        node = context.node
        if not node.component.exportable:
            raise ExportError("the component is not declared exportable")
        if is_driven(node) and node.component.parts(node.config):
            loaded, entries = driven.load(
                context,
                lambda: self._torch.load(_on_host(context), shared),
                identity=_identity(context),
                precision=_precision(context),
                sharing=self._sharing,
            )
            self.exports.update({f"{node.name}.{part}": entry for part, entry in entries.items()})
            return loaded
        if is_driven(node):
            identity, precision = [_identity(context)], _precision(context)
            loaded, self.exports[node.name] = traced.load(
                context,
                lambda: self._torch.load(_on_host(context), shared),
                key_for=lambda variant: key_of(node, None, identity, precision=precision, part=variant),
                precision=precision,
                sharing=self._sharing,
            )
            return loaded
        wired = wired_inputs(node)
        calls = _Calls(node, lambda names: self._session(context, shared, names)[0])
        calls.sessions[wired], self.exports[node.name], warnings = self._session(context, shared, wired)
        is_on_host = context.device == "cpu"
        return Loaded(calls, warnings=warnings, is_shared=False, arrays=is_on_host)  # sessions are opened between calls, with their memory

    def _session(
        self, context: LoadContext, shared: Mapping[str, Loaded], names: Sequence[str]
    ) -> tuple[Exported, store.Entry, tuple[str, ...]]:
        """A session that takes these inputs, its export, and what a user must know. The modules are let go of when it is there."""
        node, precision = context.node, _precision(context)
        signature = signature_of(node, names)
        key_in = partial(key_of, node, signature, [_identity(part) for part in _parts(context)])

        def on_host() -> list[Loaded]:
            return [self._torch.load(_on_host(part), shared) for part in _parts(context)]

        fresh = tuned.Fresh(count=context.threads)

        def build(folder: Path) -> Mapping[str, Any]:
            from modelgraft_plugins.onnx import plain

            kept = proofs.kept_plain(key_in(precision="float32")) if precision in WEIGHT_BITS else None
            found = plain.derive(kept, signature, precision, folder) if kept else None
            if found is not None:
                return found
            made = _build(on_host(), node, signature, precision, folder, fresh)
            fresh.keep_for(context.device)
            return made

        def prove(kept: store.Entry) -> Parity:
            from modelgraft_plugins.onnx import plain

            return plain.prove(_plain(on_host(), node, signature), kept.folder / store.GRAPH, signature, precision)

        (session, remarks), entry, said = proofs.opened(
            key_in(precision=precision),
            lambda kept: self._sharing.session(kept.folder, context.device, count=context.threads, fresh=fresh),
            build=build,
            prove=prove,
        )
        warnings = [*(f"{node.name}: {text}" for text in said), *entry.manifest.get("warnings", ())]
        return Exported(session, device=context.device), entry, (*warnings, *(f"{node.name}: {text}" for text in remarks))


class _Calls:
    """What runs a node: a session for each set of inputs that are there, because an optional one may be absent for some records."""

    def __init__(self, node: Node, open_for: Callable[[tuple[str, ...]], Exported]) -> None:
        self.ports, self.outputs, self.open_for = tuple(node.in_ports), tuple(node.out_ports), open_for
        self.sessions: dict[tuple[str, ...], Exported] = {}

    def __call__(self, *values: Any) -> Any:
        names = tuple(name for name, value in zip(self.ports, values, strict=True) if value is not None)
        exported = self.sessions.get(names)
        if exported is None:
            exported = self.sessions[names] = self.open_for(names)
        found = exported(*(value for value in values if value is not None))
        return found[0] if len(self.outputs) == 1 else dict(zip(self.outputs, found, strict=True))


def _why_not() -> str:
    from modelgraft_plugins.onnx.cuda import why_not  # which imports torch

    return why_not()


def _precision(context: LoadContext) -> str:
    return context.precision or context.dtype


def _parts(context: LoadContext) -> list[LoadContext]:
    """The contexts of the parts of a node; its own when it stands for itself."""
    return [context.of(part) for part in context.node.parts] if context.of is not None else [context]


def _on_host(context: LoadContext) -> LoadContext:
    """Where torch builds what is exported; adapters that can are merged into the weights, which then are in one dtype."""
    return replace(context, device="cpu", dtype="float32", precision="", merge=True, as_stored=not context.node.adapters)


def _identity(context: LoadContext) -> str:
    """What tells the weights of a node and its adapters from others."""
    node = context.node
    drawn = NONE if has_none(node) else f"drawn one by one {context.seed} {node.share or node.name}"
    own = context.weights.view.identity() if context.weights is not None else drawn
    new = f"random {context.seed} {node.name}"
    grafted = [
        adapter.source.identity() if adapter.source is not None and not starts_new(adapter, context) else new for adapter in node.adapters
    ]
    return identity_of(own, grafted)


def _plain(loaded: Sequence[Loaded], node: Node, signature: Signature) -> torch.nn.Module:
    """The modules of a node as one that takes and gives what its graph does."""
    from modelgraft_plugins.onnx.exporting import flat, joined

    module = joined(node, [part.state for part in loaded])
    return flat(module, ports=list(node.in_ports), wired=[name for name, _ in signature.inputs], outputs=list(node.out_ports))


def _build(
    loaded: Sequence[Loaded], node: Node, signature: Signature, precision: str, folder: Path, fresh: tuned.Fresh
) -> Mapping[str, Any]:
    """Export into the folder, and say in the manifest what came out."""
    from modelgraft_plugins.onnx import plain

    for one, part in zip(node.parts or (node,), loaded, strict=True):
        _refuse_weights(one, part.state)
    facts, reduced = plain.write(_plain(loaded, node, signature), signature, precision, folder, opened=fresh)
    warnings = [*(text for part in loaded for text in part.warnings), *(f"{node.name}: {text}" for text in reduced.warnings)]
    return {"node": node.name, "component": node.component.id, **facts, "warnings": warnings}


def _refuse_weights(node: Node, module: torch.nn.Module) -> None:
    """Raise PluginError for weights in a module that has none by its declaration: its export would serve others that drew other ones."""
    if has_none(node) and (count := sum(one.numel() for one in module.parameters())):
        found = f"{node.component.id} has no parameters by its formula, but {count:,} when it is built"
        raise PluginError(f"plugin '{node.component.plugin}': {found}: its parameters() and its module disagree")


def _not_exportable(node: Node, reason: str) -> Problem:
    settings = " and ".join(f"nodes.{part.name}.runtime: {{backend: torch}}" for part in node.parts or (node,))
    return Problem(
        "not-exportable",
        f"{node.name} ({node.component.id}) cannot run on the onnx backend: {reason}",
        node.place,
        f"let it stay on torch: {option('fallback', 'torch')}, or, with runtime: {{backend: onnx}} of the graph in place of "
        f"{option('backend', 'onnx')}, {settings}",
        node=node.name,
    )
