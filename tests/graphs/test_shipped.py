"""Every shipped graph by itself: it reads as prose, and fits as it stands, without a network and without weights."""

from __future__ import annotations

import subprocess
import sys

import pytest

import modelgraft as mg
from modelgraft.kernel.language.shipped_graphs import find_shipped, shipped_names
from support.sampling import WHOLE

OWN = {
    "beit3/search",
    "clip/probe",
    "clip/retrieval",
    "companion/album",
    "find",
    "fromage",
    "fromage/retrieve",
    "grafted/gaze",
    "grafted/tell",
    "grafted/tell_lora",
    "imagebind/retrieval",
    "nextgpt/mosit_album",
}  # the user's own is searched, or begun with
BETWEEN = {name for name in shipped_names() if name.startswith("connectors/")}  # as wide as what stands on either side of them


@pytest.mark.parametrize("name", sorted(set(shipped_names()) - OWN - BETWEEN))
def test_it_fits_as_it_stands(name: str):
    """Published configs are recorded, so that a graph can be looked at before anything is fetched."""
    mg.check(mg.load(name))


@pytest.mark.parametrize("name", sorted(BETWEEN))
def test_a_connector_fits_between_an_eye_and_a_tongue(name: str):
    """In place of LLaVA's own; one that reads a text too is given the question."""
    asks = {"nodes.project.in.text": "inputs.prompt"} if "text" in mg.load(name).inputs else {}
    solved = mg.check(mg.load("llava", params={"project": f"graph:{name}", **asks}))
    assert next(iter(solved.nodes["project/mapped"].out_ports.values())).tensor.axes[-1].size == 4096


@pytest.mark.parametrize("name", sorted(OWN & set(shipped_names())))
def test_what_is_the_users_own_is_asked_for(name: str):
    with pytest.raises(mg.GraphError, match="has no default and is not set"):
        mg.check(mg.load(name))


@pytest.mark.parametrize("name", shipped_names())
def test_it_begins_with_what_it_is_for(name: str):
    """A sentence in its first line, which `modelgraft graphs` lists."""
    path = find_shipped(name)
    assert path is not None
    first = path.read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith("# ")
    assert first.split()[-1][-1] in ".:," or len(first) > 60


LOOKING = """
import sys
import modelgraft as mg
for name in {names!r}:
    graph = mg.load(name)
    mg.check(graph)
    mg.plan(graph)
    assert not {{"torch", "transformers", "onnxruntime", "numpy", "PIL"}} & sys.modules.keys(), name
"""


@pytest.mark.slow
def test_looking_at_all_of_them_imports_nothing_heavy():
    """Checked and planned, one after the other, in a process of its own; every fourth of them where not all tests run."""
    names = sorted(set(shipped_names()) - OWN - BETWEEN)[:: 1 if WHOLE else 4]
    told = subprocess.run([sys.executable, "-c", LOOKING.format(names=names)], capture_output=True, text=True, check=False, timeout=300)
    assert (told.returncode, told.stderr) == (0, "")
