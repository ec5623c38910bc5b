"""Driven components on ONNX Runtime: each declared part is a session of its own, and around them the loop stays what it is on torch.

Where the exports of all parts are kept no module is built: what the loop must know of it stands in their manifests.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelgraft.plugin import (
    ExportError,
    LoadContext,
    Loaded,
    Parity,
    Ports,
    Signature,
    as_tensor,
    driving,
    in_numpy,
    in_torch,
    loop_of,
    resolve,
)
from modelgraft_plugins.onnx import proofs, store, tuned
from modelgraft_plugins.onnx.calling import Exported
from modelgraft_plugins.onnx.keys import WEIGHT_BITS, key_of
from modelgraft_plugins.onnx.sharing import Sharing

if TYPE_CHECKING:
    import torch


class Session:
    """A part as its loop calls it: the only output, or a mapping by name when there are several; tensors, unless the loop takes arrays."""

    def __init__(self, exported: Exported, outputs: tuple[str, ...], *, arrays: bool) -> None:
        self.exported, self.outputs, self.arrays = exported, outputs, arrays

    def __call__(self, *values: Any) -> Any:
        """Tensors or arrays in the order of the part's inputs."""
        found = self.exported(*values)
        found = found if self.arrays else tuple(map(as_tensor, found))
        return found[0] if len(self.outputs) == 1 else dict(zip(self.outputs, found, strict=True))


class _Host:
    """The module of a node, built when the first of its parts must be exported or proven, for all of them."""

    def __init__(self, open_host: Callable[[], Loaded], names: tuple[str, ...]) -> None:
        self.open_host, self.names = open_host, names

    @cached_property
    def loaded(self) -> Loaded:
        return self.open_host()

    @cached_property
    def parts(self) -> Mapping[str, torch.nn.Module]:
        found: Mapping[str, torch.nn.Module] = self.loaded.state.parts(self.names)
        return found


@dataclass(frozen=True, slots=True)
class _Part:
    """One part that is to be opened, of the module that holds it."""

    name: str
    ports: Ports
    signature: Signature
    host: _Host

    def module(self) -> torch.nn.Module:
        """As its graph takes and gives."""
        from modelgraft_plugins.onnx.exporting import flat

        names = list(self.ports.inputs)
        return flat(self.host.parts[self.name], ports=names, wired=names, outputs=list(self.ports.outputs))


def load(
    context: LoadContext, open_host: Callable[[], Loaded], *, identity: str, precision: str, sharing: Sharing
) -> tuple[Loaded, dict[str, store.Entry]]:
    """Give a driven component whose parts run on ONNX Runtime, and the exports that they run, by the names of the parts.

    open_host  loads the node on torch;  identity  tells its weights from others;  sharing  opens its sessions

    Raises ExportError for a part that cannot be exported.
    """
    node = context.node
    declared = node.component.parts(node.config)
    if not declared:
        raise ExportError("it declares no parts that could be exported")
    host = _Host(open_host, tuple(declared))
    entries, parts, warnings = dict[str, store.Entry](), dict[str, Session](), list[str]()
    for name, ports in declared.items():
        part = _Part(name, ports, _signature(name, ports, node.config.most()), host)
        parts[name], entries[name], said = _open(part, context, identity=identity, precision=precision, sharing=sharing)
        warnings += [text for text in said if text not in warnings]
    at_home = replace(context, dtype="float32")  # of what the loop itself computes: a session takes and gives float32 in any precision
    loop = loop_of(node, next(iter(entries.values())).manifest["facts"], resolve)
    loop.prepare(at_home)
    arrays = loop.arrays and context.device == "cpu"
    for session in parts.values():
        session.arrays = arrays
    return Loaded(
        (in_numpy if arrays else in_torch)(driving(loop, parts, frozenset(node.out_ports)), at_home),
        bind=loop.bind,
        close=loop.close,
        warnings=tuple(warnings),
        loop=loop,
        is_shared=False,
        arrays=arrays,
    ), entries


def _open(
    part: _Part, context: LoadContext, *, identity: str, precision: str, sharing: Sharing
) -> tuple[Session, store.Entry, tuple[str, ...]]:
    """The session of a part, its export, and what a user must know."""
    node, signature, fresh = context.node, part.signature, tuned.Fresh(count=context.threads)
    (session, remarks), entry, said = proofs.opened(
        key_of(node, signature, [identity], precision=precision, part=part.name),
        lambda kept: sharing.session(kept.folder, context.device, count=context.threads, fresh=fresh),
        build=partial(_build, part, context, precision, key_of(node, signature, [identity], precision="float32", part=part.name), fresh),
        prove=partial(_prove, part, precision),
    )
    warnings = [f"{node.name}.{part.name}: {text}" for text in (*said, *remarks)]
    opened = Session(Exported(session, device=context.device), tuple(part.ports.outputs), arrays=False)
    return opened, entry, (*entry.manifest.get("warnings", ()), *warnings)


def _prove(part: _Part, precision: str, kept: store.Entry) -> Parity:
    from modelgraft_plugins.onnx import plain

    return plain.prove(part.module(), kept.folder / store.GRAPH, part.signature, precision)


def _build(part: _Part, context: LoadContext, precision: str, plain_key: str, fresh: tuned.Fresh, folder: Path) -> Mapping[str, Any]:
    """The manifest of what is written.

    plain_key  of the same in float32, from which fewer bits are made where it is kept
    fresh      where the session is left that it was proven with
    """
    from modelgraft_plugins.onnx import plain

    kept = proofs.kept_plain(plain_key) if precision in WEIGHT_BITS else None
    try:
        if kept is not None and (found := plain.derive(kept, part.signature, precision, folder)) is not None:
            return found
        node, loaded = context.node, part.host.loaded
        facts, reduced = plain.write(part.module(), part.signature, precision, folder, opened=fresh)
        fresh.keep_for(context.device)
    except ExportError as error:
        raise ExportError(f"its part {part.name}: {error}") from error
    warnings = [*loaded.warnings, *(f"{node.name}.{part.name}: {text}" for text in reduced.warnings)]
    about = {"node": node.name, "component": node.component.id, "part": part.name, "facts": dict(loaded.state.facts())}
    return {**about, **facts, "warnings": warnings}


def _signature(name: str, ports: Ports, most: Mapping[str, int]) -> Signature:
    """What the graph of a part takes and gives. Raises ExportError for what is no tensor."""
    odd = [f"{port} is {kind}" for side in (ports.inputs, ports.outputs) for port, kind in side.items() if kind.tensor is None]
    if odd:
        raise ExportError(f"its part {name}: {odd[0]}, not a tensor")
    inputs = tuple((port, replace(kind, types=(kind.tensor,))) for port, kind in ports.inputs.items() if kind.tensor is not None)
    return Signature(inputs, tuple(ports.outputs.items()), most)
