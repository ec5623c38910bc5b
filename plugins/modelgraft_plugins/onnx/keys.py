"""What an export is kept under, worked out without torch: for the backend, and for `modelgraft plan`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from modelgraft.plugin import (
    Adapter,
    Config,
    ExportError,
    Node,
    PluginError,
    Signature,
    Tensor,
    contained,
    defect_of,
    said,
    signature_of,
    wired_inputs,
)
from modelgraft_plugins.onnx import measured, store
from modelgraft_plugins.processor import products_saturate

NONE = "no weights"  # what tells those of a node that has none from others
WEIGHT_BITS: Mapping[str, int] = {"int8": 8, "w8": 8, "w4": 4}
OPSET = 23  # the first with one operator for attention, for RMS norm and for rotary positions; onnxruntime runs it since 1.23


def dynamic_bits() -> int:
    """Bits of the weights of dynamic 8-bit products: as many as this kind of processor multiplies without overflow."""
    return 7 if products_saturate() else 8


def key_of(node: Node, signature: Signature | None, weights: Sequence[str], *, precision: str, part: str = "") -> str:
    """What an export is kept under: everything that its numbers depend on.

    signature  of its graph; None for a language model, whose graphs do not depend on its ports
    weights    what tells the weights of each part, and of its adapters, from others, in the order of the parts
    part       of a driven component, the part that is exported
    """
    parts = node.parts or (node,)
    facts = [
        {**_facts(part), "adapters": [_facts(adapter) for adapter in part.adapters], "weights": identity}
        for part, identity in zip(parts, weights, strict=True)
    ]
    shape: Any = ["decoder", *([part] if part else [])]
    if signature is not None:
        inner = [(part.name, {port: str(refs[0]) for port, refs in part.wired.items() if refs}) for part in node.parts]
        shape = [[(name, str(port)) for name, port in side] for side in (signature.inputs, signature.outputs)] + [inner]
        shape += [part] if part else []
    modules = [part.component.module or "" for part in parts]
    bits = dynamic_bits() if precision == "int8" else WEIGHT_BITS.get(precision)
    modules += [adapter.component.load or "" for part in parts for adapter in part.adapters]
    block = measured.size_of(WEIGHT_BITS[precision]) if precision in WEIGHT_BITS else None
    keeps = block is not None and measured.asked() is None  # blocks that a file holds
    return store.export_key(modules, parts=facts, shape=shape, precision=precision, bits=bits, block=block, keeps=keeps, opset=OPSET)


def _facts(part: Node | Adapter) -> dict[str, Any]:
    component = part.component
    try:
        with contained():
            facts = dict(part.config.export_facts())
    except Exception as error:  # code of a plugin may raise anything
        found = f"plugin '{component.plugin}': {component.id} could not tell its export facts: {said(error)}"
        raise PluginError(f"{found}\n    {defect_of(component, error)}") from error
    return {"component": f"{component.id}@{component.version}", "config": facts}


def identity_of(own: str, adapters: Sequence[str]) -> str:
    """What tells the weights of a node with its adapters from others, made of what tells each of them."""
    return " + ".join([own, *adapters])


def has_none(node: Node) -> bool:
    """Whether a node has no weights at all, and so is the same whatever its name and the seed: its config says so itself, inheriting is not
    saying."""
    says_so = type(node.config).parameters is not Config.parameters
    return says_so and node.source is None and node.share is None and node.config.parameters() == 0


def recorded(node: Node, *, precision: str) -> Mapping[str, Any]:
    """The manifest of the export that a node would run, when one is kept; `kept` is False in it when there is none.

    Empty when it cannot be told: weights that are random, shared, or not on this machine yet.
    """
    key = kept_key(node, precision=precision)
    return (store.manifest_of(key) or {"kept": False}) if key else {}


def kept_key(node: Node, *, precision: str) -> str:
    """What the export is kept under that a node would run; "" when it cannot be told, see `recorded`."""
    parts = node.parts or (node,)
    sources = [[part.source, *(adapter.source for adapter in part.adapters)] for part in parts]
    if any(part.share is not None or part.component.module is None or part.config.parts() for part in parts):
        return ""
    if any(source is None or not source.weight_files for group in sources for source in group[1:]):
        return ""
    if any(not has_none(part) and (part.source is None or not part.source.weight_files) for part in parts):
        return ""
    gives_text = any(not isinstance(port.type, Tensor) for port in node.out_ports.values())
    try:
        signature = None if gives_text else signature_of(node, wired_inputs(node))
    except ExportError:
        return ""
    identities = [[source.identity() if source is not None else NONE for source in group] for group in sources]
    weights = [identity_of(own, adapters) for own, *adapters in identities]
    return key_of(node, signature, weights, precision=precision)
