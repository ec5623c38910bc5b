"""`modelgraft export`: the ONNX segments of a graph in a folder that onnxruntime alone can run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelgraft.kernel.words.errors import InputError
from modelgraft.kernel.words.graph import GraphSpec, Node, SolvedGraph
from modelgraft.kernel.words.plans import Plan, Step
from modelgraft.records.writing import told_of
from modelgraft.sources import kept, seals
from modelgraft.sources.storage import digest_of, folder_aside
from modelgraft.tools.exported_script import SCRIPT

if TYPE_CHECKING:
    from modelgraft_plugins.onnx.backend import OnnxBackend
    from modelgraft_plugins.onnx.store import Entry

MANIFEST = "manifest.json"  # of an export, and of the folder that is written for others
MOST_LETTERS = 80  # of a folder's name: file systems take 255 bytes, and paths have several


def export_graph(graph: GraphSpec | SolvedGraph, folder: Path, *, open_pipeline: Callable[..., Any]) -> Mapping[str, Any]:
    """Export what the onnx backend runs of a graph, with a manifest and a script.

    open_pipeline  opens the graph on the onnx backend

    Gives the manifest. Raises InputError for a folder that exists, GraphError for a graph that cannot be exported. The
    folder appears whole or not at all.
    """
    if folder.exists():
        raise InputError(f"'{folder}' exists already; name a new folder")
    if not folder.absolute().parent.is_dir():
        raise InputError(f"'{folder}' cannot be made: there is no folder '{folder.absolute().parent}'")
    with open_pipeline(graph) as pipeline:
        warnings = pipeline.load()
        backend: OnnxBackend | None = pipeline.backend("onnx")
        exports = dict(backend.exports) if backend is not None else {}
        if not exports:
            raise InputError("nothing of this graph runs on the onnx backend, so there is nothing to export")
        if _let_go_of_broken(exports.values()):
            return export_graph(graph, folder, open_pipeline=open_pipeline)
        with told_of(folder), folder_aside(folder.absolute()) as aside:
            exported = [step for step in pipeline.plan.steps if step.node.name in exports]
            segments = [
                _copy(step, exports[step.node.name], aside / _folder_name(step, index), pipeline.plan)
                for index, step in enumerate(exported, 1)
            ]
            for step, segment in zip(exported, segments, strict=True):
                _add_embeddings(pipeline.plan.graph, step.node, exports[step.node.name], aside / segment["folder"])
            manifest = {**_about(pipeline.plan, exports), "segments": segments, "warnings": list(warnings)}
            (aside / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
            (aside / "run.py").write_text(SCRIPT, encoding="utf-8")
    return manifest


def _let_go_of_broken(exports: Iterable[Entry]) -> bool:
    """Delete exports that are kept and broken, and say whether there were any: what ran may have been tuned of them before they broke.

    Raises InputError for one that cannot be deleted.
    """
    from modelgraft_plugins.onnx import store

    broken = [entry.folder for entry in exports if store.broken(entry)]
    for folder in broken:
        if not kept.delete(folder):
            raise InputError(
                f"the cached export {folder} is broken, and is in use or cannot be deleted; end what uses it, and export again"
            )
    return bool(broken)


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


def _add_embeddings(graph: SolvedGraph, node: Node, entry: Entry, target: Path) -> None:
    """Write the input embeddings of a language model, float32[vocab width], where numpy reads them: `embeddings.npy`."""
    where = entry.manifest.get("embeddings")
    if not where:
        return
    import numpy

    source = graph.nodes[node.share].source if node.share else node.source
    if "key" in where and source is not None:
        from modelgraft.sources import weights

        table = weights.open(source, offline=True).tensor(where["key"])
    else:
        from safetensors.torch import load_file

        table = load_file(entry.folder / where["file"])["table"]
        (target / where["file"]).unlink()
    numpy.save(target / "embeddings.npy", table.float().numpy())


def _copy(step: Step, entry: Entry, target: Path, plan: Plan) -> dict[str, Any]:
    """Copy the files of one segment and describe it."""
    node, facts = step.node, entry.manifest
    target.mkdir()
    names = [name for name in seals.names_in(entry.folder) if name != MANIFEST]
    for name in names:
        shutil.copyfile(entry.folder / name, target / name)
    prefix = "" if node.parts else f"{node.name}."
    return {
        "nodes": [part.name for part in node.parts] or [node.name],
        "folder": target.name,
        "style": facts.get("style", "tensors"),
        "wires": {port: _value_name(plan, str(node.wired[port][0])) for port in facts.get("inputs", {})},
        "gives": [f"{prefix}{name}" for name in facts.get("outputs", {})],
        "ports": {"inputs": facts.get("inputs", {}), "outputs": facts.get("outputs", {})},
        "layout": facts.get("layout"),
        **({"media": _value_name(plan, _media_of(node))} if facts.get("style", "").startswith("gated") else {}),
        "opset": facts["opset"],
        "precision": facts["precision"],
        "weights": facts["weights"],
        "parity": facts["parity"],
        "sha256": {name: digest_of(target / name) for name in names if name != facts.get("embeddings", {}).get("file")},
    }


def _media_of(node: Node) -> str:
    """What a language model with gated cross-attention looks at: what feeds the port that its adapter has added."""
    port = next(port for adapter in node.adapters for port in adapter.ports)
    return str(node.wired[port][0])
