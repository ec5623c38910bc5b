"""Documents that are expanded without any component installed, and what is told of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from modelgraft import GraphError
from modelgraft.installed.discovery import assemble
from modelgraft.kernel.language.expand import load_graph
from modelgraft.kernel.words.errors import Problem
from modelgraft.kernel.words.graph import GraphSpec

REGISTRY = assemble({})


def load(folder: Path, text: str, *, head: str = "modelgraft: 1\n", name: str = "a.yaml", **options: Any) -> GraphSpec:
    """Read and expand a document of this text."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(head + text)
    return load_graph(path, registry=REGISTRY, **options)


def problems(folder: Path, text: str, **options: Any) -> list[Problem]:
    """What is wrong with it."""
    with pytest.raises(GraphError) as caught:
        load(folder, text, **options)
    return list(caught.value.problems)


def problem(folder: Path, text: str, **options: Any) -> Problem:
    """The one thing that is wrong with it."""
    (only,) = problems(folder, text, **options)
    return only


ONE = "inputs: {x: text}\nnodes:\n  a: {use: t/a, in: {x: inputs.x}%s}\noutputs: {y: a}\n"
