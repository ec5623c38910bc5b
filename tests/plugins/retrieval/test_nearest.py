"""retrieval/nearest in a graph: the hits are those of transformers, another model is refused, and nothing but the index is read."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image, ImageFont

import modelgraft as mg
from modelgraft.engine.fusing import fuse
from modelgraft.testing import conform
from modelgraft_plugins import retrieval
from modelgraft_plugins.lettering import cut
from modelgraft_plugins.retrieval import Nearest
from modelgraft_plugins.retrieval.filed import read_index
from modelgraft_plugins.retrieval.models import contents_of, feeding
from modelgraft_plugins.retrieval.nearest import Finder
from modelgraft_plugins.retrieval.page import page_of
from modelgraft_plugins.retrieval.sheet import Hit, columns_of, sheet_of
from support import checkpoints
from support.album import commands, embedded, indexed, small_clip

OUT = Path("photos.safetensors")
PARAMS = {"checkpoint": "./clip", "index": str(OUT), "count": 4}


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    found = commands(monkeypatch, tmp_path, capsys)
    assert indexed(found)[0] == 0
    return found


def test_a_text_and_a_picture_find_what_transformers_finds(run, tmp_path):
    """The four nearest by transformers' own vectors, in order, with their cosines; a picture of the folder finds itself."""
    clip = checkpoints.clip(tmp_path / "again")
    paths = [Path("photos") / entry.path for entry in read_index(OUT).entries]
    held = embedded(paths)
    with torch.inference_mode():
        asked = clip.model.get_text_features(**clip.processor.tokenizer("low wide", return_tensors="pt")).pooler_output.numpy()
    scores = (held @ (asked / np.linalg.norm(asked)).T)[:, 0]
    order = np.argsort(-scores)[:4]
    with mg.open("clip/retrieval", params=PARAMS) as pipeline:
        found = pipeline.run(text="low wide")
        assert found["paths"] == [str(paths[row].resolve()) for row in order]
        np.testing.assert_allclose(found["scores"][0].numpy(), scores[order], atol=3e-6)
        seen = pipeline.run(image=paths[2])
        assert seen["paths"][0] == str(paths[2].resolve())
        assert seen["scores"][0, 0].item() == pytest.approx(1.0, abs=1e-6)
        several = pipeline.run(image=[str(path) for path in paths[:3]])
        assert [one[0] for one in several["paths"]] == [str(path.resolve()) for path in paths[:3]]
        assert several["scores"].shape == (3, 4)


def test_a_text_loads_no_eye(run):
    """The branch of what was not given stays unloaded."""
    with mg.open("clip/retrieval", params=PARAMS) as pipeline:
        pipeline.run(text="low")
        assert {"reader", "text_proj"} <= set(pipeline._loader.loaded())
        assert not {"vision", "vision_proj"} & set(pipeline._loader.loaded())


def test_what_runs_as_few_sessions_is_of_the_same_model(run):
    """On onnx several nodes with weights are one call, and no weights of them are overlooked."""
    document = {
        "modelgraft": 1,
        "inputs": {"image": "image"},
        "nodes": {
            "pixels": {"use": "vision/preprocess", "from": "./clip", "in": {"image": "inputs.image"}},
            "eye": {"use": "vision/encoder", "from": "./clip#vision_model", "in": {"pixels": "pixels"}},
            "head": {"use": "projector/linear", "with": {"over": "vector", "out_features": 13}, "in": {"x": "eye.pooled"}},
            "found": {"use": "retrieval/nearest", "from": f"./{OUT}", "in": {"vector": "head"}},
        },
        "outputs": {"paths": "found.paths"},
    }
    Path("search.yaml").write_text(json.dumps(document))
    whole = mg.plan(mg.load("./search.yaml"), backend="onnx")
    fused = fuse(whole)
    assert any(step.node.parts for step in fused.steps)
    contents = [contents_of(feeding(plan.graph, plan.graph.nodes["found"], "vector"), seed=3) for plan in (whole, fused)]
    assert contents[0] == contents[1]
    assert len(contents[0]) == 2


def test_vectors_of_another_model_are_refused_and_both_are_named(run):
    """Of the same width, whatever it is called; and of what has the same name and other weights by now."""
    shutil.copytree(small_clip(5), "other")
    of_other = r"holds vectors of \./clip .*what is asked with is made by \./other \(sha256.*Ask with the model that it was made with"
    with mg.open("clip/retrieval", params={**PARAMS, "checkpoint": "./other"}) as pipeline, pytest.raises(mg.InputError, match=of_other):
        pipeline.run(text="low")
    shutil.rmtree("clip")
    shutil.copytree("other", "clip")
    changed = r"\./clip: its weights were sha256 \w+\.\.\. when it was made, and are sha256"
    with mg.open("clip/retrieval", params=PARAMS) as pipeline, pytest.raises(mg.InputError, match=changed):
        pipeline.run(text="low")


def test_vectors_of_another_width_are_refused_without_a_layer_between_them(run):
    """Such a layer would fit, and find nothing that was meant."""
    with pytest.raises(mg.GraphError, match="ask with the model that the index was made with") as caught:
        mg.check(mg.load("clip/retrieval", params={**PARAMS, "checkpoint": "preset:clip-vit-b-32"}))
    assert "insert" not in str(caught.value)


def test_the_same_model_elsewhere_may_ask(run):
    shutil.copytree("clip", "elsewhere")
    with mg.open("clip/retrieval", params={**PARAMS, "checkpoint": "./elsewhere"}) as pipeline:
        assert len(pipeline.run(text="low")["paths"]) == 4


def test_a_vector_of_another_width_does_not_pass_the_check(run):
    """Both numbers are told, without loading anything."""
    text = """
modelgraft: 1
inputs: {vector: "float[batch 12]"}
nodes: {found: {use: retrieval/nearest, from: ./photos.safetensors, in: {vector: inputs.vector}}}
outputs: {paths: found.paths}
"""
    Path("narrow.yaml").write_text(text)
    with pytest.raises(mg.GraphError, match=r"(?s)12.*13"):
        mg.check("narrow.yaml")
    Path("narrow.yaml").write_text(text.replace("12", "13"))
    with mg.open("narrow.yaml") as pipeline:
        assert len(pipeline.run(vector=torch.ones(1, 13))["paths"]) == 7
        with pytest.raises(mg.InputError, match="no direction"):
            pipeline.run(vector=torch.zeros(1, 13))


def test_a_document_names_no_index_outside_its_folder(run):
    """As it names no other file there."""
    Path("inner").mkdir()
    text = """
modelgraft: 1
inputs: {vector: "float[batch 13]"}
nodes: {found: {use: retrieval/nearest, from: ../photos.safetensors, in: {vector: inputs.vector}}}
outputs: {paths: found.paths}
"""
    Path("inner/out.yaml").write_text(text)
    with pytest.raises(mg.GraphError, match="outside-folder"):
        mg.check("inner/out.yaml")


def test_no_picture_is_read_to_draw_the_hits(run):
    """The sheet and the page are made of the small pictures in the index: the folder may be gone."""
    shutil.rmtree("photos")
    words = ("--set", "checkpoint=./clip", "--set", f"index={OUT}", "--input", "text=low")
    code, _, err = run("run", "clip/retrieval", *words, "--output", "sheet=hits.png", "--output", "found.page=hits.html")
    assert code == 0, err
    with Image.open("hits.png") as sheet:
        assert sheet.width > 300
    page = Path("hits.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 7
    assert "prefers-color-scheme: dark" in page
    assert not re.search(r'(src|href)="(?!data:)', page), "it needs nothing else"


@pytest.mark.parametrize(
    ("index", "said"),
    [
        ("clip/config.json", "source"),
        ("clip/model.safetensors", "it is no index: modelgraft index FOLDER writes one"),
        ("gone.safetensors", "gone"),
    ],
)
def test_what_is_no_index_is_told_by_the_check(run, index, said):
    with pytest.raises(mg.GraphError, match=said):
        mg.check(mg.load("clip/retrieval", params={**PARAMS, "index": index}))


def test_exact_and_approximate_search_are_chosen(run):
    pytest.importorskip("usearch", reason="approximate search is usearch's")
    text = """
modelgraft: 1
inputs: {vector: "float[batch 13]"}
nodes: {found: {use: retrieval/nearest, from: ./photos.safetensors, with: {exact: EXACT}, in: {vector: inputs.vector}}}
outputs: {paths: found.paths, scores: found.scores}
"""

    def found(exact):
        Path("one.yaml").write_text(text.replace("EXACT", exact))
        with mg.open("one.yaml") as pipeline:
            result = pipeline.run(vector=torch.linspace(-1, 1, 13)[None])
            return result["paths"], result["scores"].tolist()

    with pytest.raises(mg.InputError, match="has no approximate graph"):
        found("false")
    indexed(run, "--approximate")
    assert found("true")[0] == found("false")[0]


def test_a_check_of_the_graph_needs_no_weights_and_tells_what_is_missing(run):
    code, out, _ = run("check", "clip/retrieval", "--set", f"index={OUT}", "--set", "checkpoint=./clip", "--json")
    assert (code, json.loads(out)["ok"]) == (0, True)
    code, out, _ = run("check", "clip/retrieval")
    assert code != 0
    assert "the param 'index' has no default and is not set" in out


def test_the_example_of_the_page_runs(run):
    """As it stands there, with the tiny model in place of the published one."""
    page = (Path(retrieval.__file__).parent / "README.md").read_text(encoding="utf-8")
    Path("page.yaml").write_text(page.split("```yaml\n")[1].split("```")[0])
    with mg.open("page.yaml", params={"index": str(OUT), "nodes.clip.with.checkpoint": "./clip"}) as pipeline:
        assert len(pipeline.run(text="low")["paths"]) == 7


@pytest.mark.parametrize("exact", [True, False])
def test_it_keeps_its_declaration(run, monkeypatch, exact):
    """With an index that is at hand: conformance loads a component alone, without a source."""
    pytest.importorskip("usearch", reason="approximate search is usearch's")
    indexed(run, "--approximate")
    index = read_index(OUT)
    module = ModuleType("support.nearest_alone")
    module.load = lambda config, _context: Finder(config, index)
    monkeypatch.setitem(sys.modules, module.__name__, module)

    @mg.component("toy/nearest", kind="retriever", load="support.nearest_alone:load", arrays=True, cache=False)
    class Alone(Nearest):
        """Find what is nearest."""

    conform(Alone, {"count": 3, "exact": exact, "width": 13, "entries": len(index.entries)})


# -- drawing ------------------------------------------------------------------------------------------------------------


def test_names_and_titles_of_any_letters_are_written_as_they_are(run):
    """Nothing of them is markup, and a name that is no UTF-8 can be written too."""
    about = read_index(OUT).about
    page = page_of([Hit("<b>&\udcff.jpg", 0.5, b"")], title='"><script>', about=about)
    assert "<script>" not in page
    assert "<b>&amp;" not in page
    page.encode("utf-8")
    sheet_of([Hit("<b>\n\udcff.jpg" * 20, -0.5, b"")], title="t" * 500, theme="dark")


def test_letters_that_the_sheet_cannot_draw_are_no_boxes():
    """Without their marks, or ? for another script; and however long a text is, it is cut in no time."""
    font = ImageFont.load_default(13)
    assert cut("Über 猫 l.png", 300, font) == "Uber ? l.png"
    assert cut("x" * 1_000_000 + ".png", 100, font, keeps_end=True).endswith("x.png")


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 9, 12, 40])
def test_every_hit_has_its_place_on_the_sheet(count):
    """A bright picture shows in the middle of each cell, and nothing behind the last."""
    import io

    stream = io.BytesIO()
    Image.new("RGB", (60, 60), (255, 0, 0)).save(stream, "JPEG")
    sheet = np.asarray(sheet_of([Hit("x.jpg", 0.5, stream.getvalue())] * count, title="", theme="dark")).astype(int)
    red = (sheet[..., 0] > 200) & (sheet[..., 1] < 60)
    assert abs(red.sum() / 60**2 - count) < 0.05 * count
    columns = columns_of(count)
    assert 1 <= columns <= 5
    assert sheet.shape[1] > 160 * columns


def test_what_nobody_reads_is_not_drawn(run, monkeypatch):
    """The paths alone take no sheet and no page; who asks for one afterwards gets it."""
    drawn: list[str] = []
    monkeypatch.setattr(
        "modelgraft_plugins.retrieval.nearest.sheet_of", lambda *given, **more: drawn.append("sheet") or sheet_of(*given, **more)
    )
    monkeypatch.setattr(
        "modelgraft_plugins.retrieval.nearest.page_of", lambda *given, **more: drawn.append("page") or page_of(*given, **more)
    )
    with mg.open("clip/retrieval", params=PARAMS) as pipeline:
        found = pipeline.run(text="low", outputs=["paths", "scores"])
        assert not drawn
        assert pipeline.run(text="low", outputs=["sheet"])["sheet"].size[0] > 0
        assert drawn == ["sheet"]
        both = pipeline.run(text="low", outputs=["paths", "found.page"])
        assert drawn == ["sheet", "page"]
    assert both["paths"] == found["paths"]
