"""What is told of branches that records ask several times: by check, plan, show and run, on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from PIL import Image

import modelgraft as mg
from modelgraft import port
from support.command import commands
from support.running import document, function, registry_of

NODES = {
    "cut": {"use": "toy/cut", "in": {"x": "inputs.x"}},
    "draw": {"use": "toy/draw", "in": {"word": "cut"}},
    "size": {"use": "toy/size", "in": {"image": "draw"}},
    "all": {"use": "toy/all", "in": {"image": "draw"}},
}
OUTPUTS = {"images": "all", "drawn": "draw", "sizes": "size"}


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    parts = [
        function("toy/cut", {"x": "text"}, {"word": port("text", several="words")}, lambda x: [one.split() for one in x]),
        function("toy/draw", {"word": "text"}, {"image": "image"}, lambda word: [Image.new("RGB", (len(one), 1)) for one in word]),
        function("toy/size", {"image": "image"}, {"size": "text"}, lambda image: [str(one.width) for one in image]),
        function("toy/all", {"image": port("image", several="*")}, {"out": "list[image]"}, lambda image: image),
    ]
    called = commands(monkeypatch, tmp_path, capsys)
    monkeypatch.setattr("modelgraft.installed.discovery.discover", lambda **_: registry_of(*parts))
    Path("words.yaml").write_text(yaml.safe_dump(document(NODES, inputs={"x": "text"}, outputs=OUTPUTS)), encoding="utf-8")
    return called


def width_of(path):
    with Image.open(path) as picture:
        return picture.width


def test_check_tells_lists(run):
    """An output within a branch is a list, as one is that takes it together."""
    _, out, _ = run("check", "words.yaml")
    assert out.strip().endswith("x: text -> drawn: list[image], images: list[image], sizes: list[text]")


def test_plan_tells_what_runs_once_for_each(run):
    _, out, _ = run("plan", "words.yaml")
    names = {line.partition("  ")[0] for line in out.splitlines()}
    assert {"cut", "draw (each cut.words)", "size (each cut.words)", "all"} <= names
    _, out, _ = run("plan", "words.yaml", "--json")
    nodes = json.loads(out)["nodes"]
    assert {name: facts["each"] for name, facts in nodes.items()} == {"cut": [], "draw": ["cut.words"], "size": ["cut.words"], "all": []}


@pytest.mark.parametrize("form", ["mermaid", "dot", "svg", "html"])
def test_a_drawing_tells_it_in_every_form(run, form):
    _, out, _ = run("show", "words.yaml", "--format", form)
    assert out.count("once for each cut.words") >= 2


def test_several_pictures_of_a_record_are_numbered_files(run):
    code, _, err = run("run", "words.yaml", "--input", "x=a bcd", "--output", "images=cat.png", "--output", "drawn=dog.png")
    assert (code, "wrote images to cat-0.png, cat-1.png" in err) == (0, True)
    assert [width_of(f"{name}-{number}.png") for name in ("cat", "dog") for number in range(2)] == [1, 3, 1, 3]
    assert not Path("cat.png").exists()


def test_several_pictures_of_several_records_are_numbered_by_both(run):
    code, _, _ = run("run", "words.yaml", "--input", "x=a bcd", "--input", "x=ef", "--output", "images=cat.png")
    assert code == 0
    assert {path.name: width_of(path) for path in Path().glob("*.png")} == {"cat-0-0.png": 1, "cat-0-1.png": 3, "cat-1-0.png": 2}


@pytest.mark.parametrize("output", ["images", "drawn"])
def test_no_picture_is_no_file_and_is_told(run, output):
    Path("cat.png").write_bytes(b"of yesterday")
    code, _, err = run("run", "words.yaml", "--input", "x=", "--output", f"{output}=cat.png")
    assert code == 0
    assert f"{output} is empty: there is none; cat.png is not written, and what stands there is of an earlier run" in err
    assert Path("cat.png").read_bytes() == b"of yesterday"


def test_json_has_the_lists(run):
    _, out, _ = run("run", "words.yaml", "--input", "x=a bcd", "--output", "sizes", "--output", "drawn", "--json")
    outputs = json.loads(out)["outputs"]
    assert outputs["sizes"] == ["1", "3"]
    assert [one["width"] for one in outputs["drawn"]] == [1, 3]


def test_a_notebook_shows_each(run):
    with mg.open("words.yaml") as pipeline:
        result = pipeline.run(x="a bcd")
        assert result._repr_html_().count("<img") == 4
        assert "each cut.words" in pipeline.plan._repr_html_()
