"""What `modelgraft export` writes: the segments of a graph in a folder that onnxruntime alone can run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from modelgraft.plugin import InputError, Node, Plan, SolvedGraph, StaleLoad, Step, digest_of, kept, seals
from modelgraft_plugins.onnx import store
from modelgraft_plugins.onnx.exported_script import SCRIPT
from modelgraft_plugins.onnx.store import MANIFEST, Entry

MOST_LETTERS = 80  # of a folder's name: file systems take 255 bytes, and paths have several


def write(plan: Plan, exports: Mapping[str, Entry], folder: Path, *, warnings: Sequence[str]) -> Mapping[str, Any]:
    """Write the exports that the nodes of a plan run into an empty folder, with a manifest and a script.

    Gives the manifest. Raises InputError when there are none, StaleLoad for exports that were harmed since they were opened.
    """
    if not exports:
        raise InputError("nothing of this graph runs on the onnx backend, so there is nothing to export")
    _let_go_of_broken(exports.values())
    exported = [step for step in plan.steps if step.node.name in exports]
    segments = [_copy(step, exports[step.node.name], folder / _folder_name(step, index), plan) for index, step in enumerate(exported, 1)]
    for step, segment in zip(exported, segments, strict=True):
        _add_kept(plan.graph, step.node, exports[step.node.name], folder / segment["folder"])
    parts = [_copy_part(name, part, exports[f"{name}.{part}"], folder) for name, part in _parts(plan, exports)]
    manifest = {**_about(plan, exports), "segments": segments, "parts": parts, "warnings": list(warnings)}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    (folder / "run.py").write_text(SCRIPT, encoding="utf-8")
    return manifest


def _parts(plan: Plan, exports: Mapping[str, Entry]) -> list[tuple[str, str]]:
    """(node, part) of driven components, in the order of the plan: what their loops call, each a file of its own."""
    found = [(step.node.name, part) for step in plan.steps for part in step.node.component.parts(step.node.config)]
    return [(name, part) for name, part in found if f"{name}.{part}" in exports]


def _copy_part(node: str, part: str, entry: Entry, folder: Path) -> dict[str, Any]:
    """Copy a part of a driven component and describe it; the loop around it is for who runs it."""
    target, facts = folder / f"part-{node.replace('/', '_')[:MOST_LETTERS]}-{part}", entry.manifest
    target.mkdir()
    names = [name for name in seals.names_in(entry.folder) if name != MANIFEST]
    for name in names:
        shutil.copyfile(entry.folder / name, target / name)
    return {
        "node": node,
        "part": part,
        "folder": target.name,
        "ports": {"inputs": facts.get("inputs", {}), "outputs": facts.get("outputs", {})},
        **{key: facts[key] for key in ("opset", "precision", "weights", "parity")},
        "sha256": {name: digest_of(target / name) for name in names},
    }


def _let_go_of_broken(exports: Iterable[Entry]) -> None:
    """Delete exports that are kept and broken: what ran may have been tuned of them before they broke.

    Raises StaleLoad when there were any, InputError for one that cannot be deleted.
    """
    broken = [entry.folder for entry in exports if store.broken(entry)]
    for folder in broken:
        if not kept.delete(folder):
            raise InputError(
                f"the cached export {folder} is broken, and is in use or cannot be deleted; end what uses it, and export again"
            )
    if broken:
        raise StaleLoad("exports were harmed since they were opened: they are made again")


def _about(plan: Plan, exports: Mapping[str, Entry]) -> dict[str, Any]:
    """What the manifest says of the graph: its outputs, and the nodes that need modelgraft."""
    return {
        "graph": plan.graph.name,
        "outputs": {name: _value_name(plan, str(ref)) for name, ref in plan.wanted.items()},
        "not_exported": {step.node.name: step.node.component.id for step in plan.steps if step.node.name not in exports},
    }


def _value_name(plan: Plan, text: str) -> str:
    """The name of a value in the graph: `project.y`, also when a fused node gives it."""
    for step in plan.steps:
        if step.node.parts and text.startswith(f"{step.node.name}."):
            return text.removeprefix(f"{step.node.name}.")
    return text


def _folder_name(step: Step, index: int) -> str:
    """A name for the files of a segment: its number makes it one of its own, however names were cut."""
    return f"{index:02d}-{step.node.name.replace('/', '_')[:MOST_LETTERS]}"


def _add_kept(graph: SolvedGraph, node: Node, entry: Entry, target: Path) -> None:
    """Write the tensors that stand beside the graphs where numpy reads them, in float32: `NAME.npy`, such as embeddings.npy."""
    import numpy

    source = graph.nodes[node.share].source if node.share else node.source
    for name, where in entry.manifest.get("kept", {}).items():
        if "key" in where and source is not None:
            from modelgraft.plugin import weights

            table = weights.open(source, offline=True).tensor(where["key"])
        else:
            from safetensors.torch import load_file

            table = load_file(entry.folder / where["file"])["table"]
            (target / where["file"]).unlink()
        numpy.save(target / f"{name}.npy", table.float().numpy())
    if script := entry.manifest.get("script"):
        (target / "script.py").write_text(script, encoding="utf-8")


def _copy(step: Step, entry: Entry, target: Path, plan: Plan) -> dict[str, Any]:
    """Copy the files of one segment and describe it."""
    node, facts = step.node, entry.manifest
    notes, files = facts.get("notes", {}), {where.get("file") for where in facts.get("kept", {}).values()}
    target.mkdir()
    names = [name for name in seals.names_in(entry.folder) if name != MANIFEST]
    for name in names:
        shutil.copyfile(entry.folder / name, target / name)
    prefix = "" if node.parts else f"{node.name}."
    return {
        "nodes": [part.name for part in node.parts] or [node.name],
        "folder": target.name,
        "style": notes.get("style", "tensors"),
        "wires": {port: _value_name(plan, str(node.wired[port][0])) for port in facts.get("inputs", {})},
        "gives": [f"{prefix}{name}" for name in facts.get("outputs", {})],
        "ports": {"inputs": facts.get("inputs", {}), "outputs": facts.get("outputs", {})},
        "layout": notes.get("layout"),
        **({"attends": notes["attends"]} if "attends" in notes else {}),
        "beside": {name: _value_name(plan, str(node.wired[name][0])) for name in _grafted(node)},
        "script": "script.py" if facts.get("script") else None,
        "opset": facts["opset"],
        "precision": facts["precision"],
        "weights": facts["weights"],
        "parity": facts["parity"],
        "sha256": {name: digest_of(target / name) for name in names if name not in files},
    }


def _grafted(node: Node) -> list[str]:
    """The wired ports that adapters have added to a node."""
    return [port for adapter in node.adapters for port in adapter.ports if node.wired.get(port)]
