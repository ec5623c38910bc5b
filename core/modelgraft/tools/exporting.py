"""`modelgraft export`: what a backend runs of a graph, in a folder that runs without modelgraft."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from modelgraft.engine.backend import StaleLoad
from modelgraft.kernel.shelf.registry import Registry
from modelgraft.kernel.words.errors import InputError, PluginError
from modelgraft.kernel.words.graph import GraphSpec, SolvedGraph
from modelgraft.records.writing import told_of
from modelgraft.sources.storage import folder_aside


def exporting_backend(registry: Registry) -> str:
    """The backend that graphs are opened on to be exported: the first in precedence that writes what it runs.

    Raises PluginError when there is none.
    """
    for what, name in registry.owners:
        if what == "backend" and name in registry.backends and registry.backends[name].exports:
            return name
    raise PluginError("no plugin offers a backend that writes what it runs; see `modelgraft plugins list`")


def export_graph(graph: GraphSpec | SolvedGraph, folder: Path, *, backend: str, open_pipeline: Callable[..., Any]) -> Mapping[str, Any]:
    """Export what a backend runs of a graph, with a manifest.

    open_pipeline  opens the graph on the backend

    Gives the manifest. Raises InputError for a folder that exists and when nothing runs on the backend, GraphError for a graph
    that cannot be exported. The folder appears whole or not at all.
    """
    if folder.exists():
        raise InputError(f"'{folder}' exists already; name a new folder")
    if not folder.absolute().parent.is_dir():
        raise InputError(f"'{folder}' cannot be made: there is no folder '{folder.absolute().parent}'")
    with open_pipeline(graph) as pipeline:
        warnings = pipeline.load()
        loaded = pipeline.backend(backend)
        if loaded is None:
            raise InputError(f"nothing of this graph runs on the {backend} backend, so there is nothing to export")
        try:
            with told_of(folder), folder_aside(folder.absolute()) as aside:
                manifest: Mapping[str, Any] = loaded.export(pipeline.plan, aside, warnings=warnings)
        except StaleLoad:
            return export_graph(graph, folder, backend=backend, open_pipeline=open_pipeline)
    return manifest
