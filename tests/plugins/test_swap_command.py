"""`modelgraft swap`: everything that is installed is tried in place of a node, and what fits is listed with what it changes."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import modelgraft as mg
from modelgraft.cli import main
from modelgraft.installed.discovery import discover
from modelgraft_plugins.swapping import trying


def command(*words: str, capsys) -> tuple[int, str, str]:
    """The exit code of a command, and what it says."""
    code = main([*words])
    said = capsys.readouterr()
    return code, said.out, said.err


@pytest.fixture(scope="module")
def eyes() -> list[trying.Fit]:
    return trying.tried("llava", "vision", {}, discover())


def test_the_graph_as_it_is_stands_first(eyes):
    plan = mg.plan("llava")
    first = eyes[0]
    assert (first.text, first.component) == ("", "vision/encoder")
    assert (first.parameters, first.bytes, first.tokens) == (plan.totals.parameters, plan.totals.bytes, 576)


def test_what_fits_is_what_the_planner_says_of_it(eyes):
    """Parameters, bytes and tokens of the whole graph, and what else is done."""
    found = {fit.text: fit for fit in eyes}
    siglip = found["preset:siglip-so400m-14-384"]
    assert siglip.parameters == 428_225_600 + (1152 * 4096 + 4096) + (4096 * 4096 + 4096) + mg.plan("llava").nodes["llm"].parameters.total
    assert siglip.tokens == 729
    assert siglip.follows[0] == "pixels prepares as preset:siglip-so400m-14-384 says"
    assert siglip.reason == ""
    assert [fit.parameters for fit in eyes[1:] if not fit.reason] == sorted(fit.parameters for fit in eyes[1:] if not fit.reason)


def test_what_does_not_fit_has_a_reason(eyes):
    found = {fit.text: fit for fit in eyes}
    assert "has no tower for model_type 'whisper'" in found["preset:whisper-tiny-en"].reason
    assert found["audio/encoder"].reason
    assert all(bool(fit.reason) is (fit.component == "") for fit in eyes)


@pytest.fixture(scope="module")
def connectors() -> list[trying.Fit]:
    return trying.tried("llava", "project", {}, discover())


def test_connectors_are_components_and_graphs(connectors):
    """Projectors and resamplers may stand where the other does; what is as wide as it was handed needs something behind it."""
    found = {fit.text: fit for fit in connectors}
    tokens = {"projector/linear": 576, "projector/c_abstractor": 144, "projector/d_abstractor": 144, "projector/experts": 576}
    graphs = {"average": 144, "merge": 144, "pool": 144, "shuffle": 144, "resampler": 64, "qformer": 32}
    for text, count in {**tokens, **{f"graph:connectors/{name}": count for name, count in graphs.items()}}.items():
        assert (found[text].reason, found[text].tokens) == ("", count), text
    assert "project.latents gives float[batch 64 1024], but llm.image takes float[batch 64 4096]" in found["resampler/perceiver"].reason
    assert found["resampler/perceiver"].way.startswith("insert projector/linear (1024 -> 4096")
    assert "nothing feeds the input 'text'" in found["graph:connectors/qformer_text"].reason


def test_what_looks_at_sizes_alone_connects_nothing(connectors):
    """Learned queries fit between any two widths, and no picture goes through them: neither listed nor proposed as a way out."""
    assert {"qformer/queries", "tiles/newline"}.isdisjoint(fit.text for fit in connectors)
    with pytest.raises(mg.GraphError) as told:
        mg.plan(mg.load("llava", params={"project": "projector/pixel_shuffle", "eye": "preset:siglip-so400m-14-384"}))
    assert "insert projector/linear" in str(told.value)
    assert "qformer/queries" not in str(told.value)


def test_the_command_prints_a_table(eyes, capsys, monkeypatch):
    asked = []
    monkeypatch.setattr(trying, "tried", lambda *given: asked.append(given[:3]) or eyes)
    code, out, err = command("swap", "llava", "eye", capsys=capsys)
    assert (code, asked) == (0, [("llava", "vision", {})])
    heads, first, *rows = out.splitlines()
    assert heads.split() == ["put", "there", "component", "parameters", "more", "bytes", "tokens", "what", "follows"]
    assert first.startswith("as it is")
    [clip] = [row for row in rows if row.startswith("preset:clip-vit-b-16 ")]
    assert "196 (-380)" in clip
    assert clip.rstrip().endswith("pixels, vision, project")
    assert "others do not fit in place of vision as they are; --all says why" in err


def test_all_and_json(connectors, capsys, monkeypatch):
    monkeypatch.setattr(trying, "tried", lambda *_: connectors)
    code, out, _ = command("swap", "llava", "project", "--all", capsys=capsys)
    assert (code, "insert projector/linear (1024 -> 4096" in out) == (0, True)
    code, out, _ = command("swap", "llava", "project", "--json", capsys=capsys)
    found = json.loads(out)
    assert (code, found[0]["text"], found[0]["tokens"]) == (0, "", 576)


def test_a_node_that_is_not_there_is_named(capsys):
    code, _, err = command("swap", "llava", "nose", capsys=capsys)
    assert code != 0
    assert "the graph llava has no node 'nose'; it has: pixels, vision, project, llm" in err


@pytest.mark.slow
def test_looking_imports_nothing_heavy():
    """No weights, no torch."""
    code = (
        "import sys; from modelgraft.cli import main\ntry: main(['swap', 'llava', 'project'])\nexcept SystemExit: pass\n"
        "assert not {'torch', 'transformers', 'onnxruntime'} & sys.modules.keys()"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=300)
    assert told.returncode == 0, told.stderr
