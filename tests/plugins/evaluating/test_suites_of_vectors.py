"""The suites that compare: search both ways, and zero-shot classes. The toys see the mean colour, and read which colours a text names."""

from __future__ import annotations

import json
from pathlib import Path

import numpy
import pytest
from PIL import Image

import modelgraft as mg
import modelgraft_plugins.evaluating as evaluating
import modelgraft_plugins.metrics as metrics
import modelgraft_plugins.torch as backend
from modelgraft.installed.discovery import assemble
from support import checkpoints, sensing
from support.command import commands

GRAPHS = {
    "both.yaml": "inputs: {image: image, labels: 'list[text]'}\nnodes:\n  eye: {use: toy/see, in: {image: inputs.image}}\n"
    "  reader: {use: toy/read, in: {texts: inputs.labels}}\noutputs: {image_vector: eye, text_vectors: reader}\n",
    "name.yaml": "inputs: {image: image}\nnodes: {eye: {use: toy/name, in: {image: inputs.image}}}\noutputs: {label: eye}\n",
}
# What is seen and what is said of it: the second red picture is called blue.
PICTURES = {
    "r.png": ("red", ["red"]),
    "s.png": ("#f00010", ["a blue one"]),
    "g.png": ("lime", ["green", "green, green"]),
    "b.png": ("blue", ["blue"]),
}


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    """Run a command in a folder with graphs and pictures; gives code, stdout, stderr."""
    found = commands(monkeypatch, tmp_path, capsys)
    registry = assemble({"sensing": sensing, "evaluating": evaluating, "metrics": metrics, "torch": backend})
    monkeypatch.setattr("modelgraft.installed.discovery.discover", lambda only=None: registry)
    for name, text in GRAPHS.items():
        Path(name).write_text("modelgraft: 1\n" + text)
    for name, (colour, _) in PICTURES.items():
        Image.new("RGB", (4, 4), colour).save(name)
    return found


def lines(name, records):
    Path(name).write_text("".join(json.dumps(one) + "\n" for one in records))


def evaluated(run, *words, code=0):
    found, out, err = run("eval", *words, "--json")
    assert found == code, err
    return json.loads(out)


def values(document, group):
    return {one["metric"]: one["value"] for one in document["scores"] if one["group"] == group}


def test_search_is_scored_both_ways_with_several_texts_to_a_picture(run):
    """Five texts and four pictures, one of which is called what it is not; ranks by loops."""
    lines("a.jsonl", [{"image": name, "captions": texts} for name, (_, texts) in PICTURES.items()])
    document = evaluated(run, "retrieval", "both.yaml", "--data", "a.jsonl", "--out", "found")
    assert document["counts"] == {"pictures": 4, "texts": 5}
    eye = numpy.array([numpy.asarray(Image.open(name)).reshape(-1, 3).mean(axis=0) for name in PICTURES])
    texts = [text for _, those in PICTURES.values() for text in those]
    read = numpy.array([[0.1 + text.count(colour) for colour in sensing.COLOURS] for text in texts])
    near = (eye / numpy.linalg.norm(eye, axis=1)[:, None]) @ (read / numpy.linalg.norm(read, axis=1)[:, None]).T
    owner = [0, 1, 2, 2, 3]
    forth = []
    for picture in range(4):
        best = max(near[picture, text] for text in range(5) if owner[text] == picture)
        forth.append(1 + sum(near[picture, text] >= best for text in range(5) if owner[text] != picture))
    back = [1 + sum(near[picture, text] >= near[owner[text], text] for picture in range(4) if picture != owner[text]) for text in range(5)]
    assert (min(forth), min(back)) == (1, 1)
    assert max(forth + back) > 1
    for ranks, way in ((forth, "pictures to texts"), (back, "texts to pictures")):
        found = values(document, way)
        assert {k: found[f"R@{k}"] for k in (1, 5, 10)} == {k: pytest.approx(numpy.mean([rank <= k for rank in ranks])) for k in (1, 5, 10)}
    assert values(document, "pictures to texts")["median rank"] == numpy.median(forth)


def test_a_picture_that_fails_is_not_among_what_is_searched_and_that_is_told(run):
    lines("a.jsonl", [{"image": "r.png", "captions": ["red"]}, {"image": "lost.png", "captions": ["green"]}])
    document = evaluated(run, "retrieval", "both.yaml", "--data", "a.jsonl", code=1)
    assert document["counts"] == {"pictures": 1, "texts": 1}
    assert "1 records failed and are not among what is searched" in document["notes"][0]


ZERO_SHOT = ("classification", "both.yaml", "--data", "a.jsonl")


def test_classes_are_found_by_the_mean_of_their_prompts(run, monkeypatch):
    """The graph sees pictures once, and reads the prompts of each class once: a picture needs no labels."""
    lines("a.jsonl", [{"image": name, "label": label} for name, label in zip(PICTURES, ("red", "blue", "green", "blue"), strict=True)])
    document = evaluated(run, *ZERO_SHOT, "--out", "found")
    assert values(document, "") == {"top-1": 0.75}
    assert values(document, "class blue") == {"top-1": 0.5}
    assert document["notes"] == ["zero-shot: each class is the mean of 7 prompts (seven)"]
    asked = [json.loads(line) for line in Path("found/classes.jsonl").read_text().splitlines()]
    assert [one["id"] for one in asked] == ["blue", "green", "red"]
    assert len(asked[0]["text_vectors"][0]) == 7
    again = evaluated(run, *ZERO_SHOT, "--out", "found", "--report-only")
    assert again["scores"] == document["scores"]
    Path("prompts.txt").write_text("{}\n{} and nothing else\n")
    assert values(evaluated(run, *ZERO_SHOT, "--templates", "prompts.txt"), "") == {"top-1": 0.75}
    Path("prompts.txt").write_text("a red thing\n")
    monkeypatch.setattr("modelgraft_plugins.evaluating.running.opened", lambda *_, **__: pytest.fail("a graph runs"))
    code, _, err = run("eval", *ZERO_SHOT, "--templates", "prompts.txt")
    assert code == 1
    assert "hold 'a red thing'; wanted: {} where the class stands" in err


def test_a_mean_of_prompts_is_one_of_unit_vectors(run):
    """A prompt that repeats itself is longer, and weighs no more: by the plain mean the picture would be red."""
    Image.new("RGB", (4, 4), (120, 110, 0)).save("olive.png")
    lines("a.jsonl", [{"image": "olive.png", "label": "x"}])
    Path("classes.txt").write_text("x\ty\nz\n")
    vectors = {"a": [[9.0, 0, 0], [0, 1.0, 0]], "b": [[2.0, 1.0, 0.0], [2.0, 1.0, 0.0]]}
    from modelgraft_plugins.evaluating.classifying import _nearest
    from modelgraft_plugins.evaluating.suites import Answer

    picture = Answer(id="1", facts={}, outputs={"picture": [[1.0, 1.0, 0.0]]})
    (found,) = _nearest([picture], list(vectors), list(vectors.values()))
    assert found.outputs == {"label": "a", "nearest": ["a", "b"]}  # the mean of units is (1/2, 1/2, 0), the plain one (9/2, 1/2, 0)


def test_of_many_classes_the_five_nearest_count_too_and_files_name_them(run):
    """Eleven classes, of which nine are as far from everything; folders are named by a file."""
    for folder, name in (("n01", "r.png"), ("n02", "s.png"), ("n03", "g.png")):
        Path("data", folder).mkdir(parents=True)
        Path(name).rename(Path("data", folder, name))
    Path("data/n02/notes.txt").write_text("no picture")
    words = [f"word{n}" for n in range(8)]
    Path("classes.txt").write_text("n01\tred\nn02\tgreen\nn03\tthe green\n" + "".join(f"{word}\n" for word in words))
    document = evaluated(run, "classification", "both.yaml", "--data", "data", "--classes", "classes.txt")
    found = values(document, "")
    assert (document["records"], found["top-1"]) == (3, pytest.approx(1 / 3))
    assert found["top-5"] == pytest.approx(2 / 3)  # the green one is called `the green`, which is as near as `green`
    Path("data/other").mkdir()
    Image.new("RGB", (4, 4), "red").save("data/other/x.png")
    document = evaluated(run, "classification", "both.yaml", "--data", "data", "--classes", "classes.txt", code=1)
    assert "its class 'other' is none of the 11 classes" in document["failed"][0]["error"]


def test_a_graph_that_names_classes_is_scored_by_its_labels(run):
    lines("a.jsonl", [{"image": "r.png", "label": "red"}, {"image": "g.png", "label": "blue"}, {"image": "b.png"}])
    document = evaluated(run, "classification", "name.yaml", "--data", "a.jsonl", code=1)
    assert values(document, "") == {"top-1": 0.5}
    assert "it has no `label`" in document["failed"][0]["error"]
    assert document["settings"]["by"] == "label"


def test_misfits_of_both_questions_are_told_before_anything_runs(run):
    lines("a.jsonl", [{"image": "r.png", "label": "red"}])
    code, _, err = run("eval", "classification", "name.yaml", "--data", "a.jsonl", "--by", "vectors")
    assert code == 1
    assert "the suite reads picture (float[batch width]), and the graph has no output 'picture'; it has: label (label)" in err
    assert "the suite gives prompts (list[text]), and the graph has no input 'prompts'" in err
    code, _, err = run("eval", *ZERO_SHOT, "--output", "texts=eye")
    assert code == 1
    assert "rank-mismatch  eye gives float[batch 3], but the suite's texts takes float[batch texts width]" in err


@pytest.mark.slow
def test_clip_is_searched_and_classifies_by_its_own_ports(monkeypatch, tmp_path, capsys):
    """The shipped graph with tiny random weights: what the suite says is what CLIP's own vectors say."""
    found = commands(monkeypatch, tmp_path, capsys)
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", "")
    checkpoint = checkpoints.clip(tmp_path / "clip")
    for name, (colour, _) in PICTURES.items():
        Image.new("RGB", (40, 30), colour).save(name)
    lines("a.jsonl", [{"image": name, "captions": texts, "label": texts[0]} for name, (_, texts) in PICTURES.items()])
    where = ("--output", "picture=vision_proj", "--output", "texts=text_proj", "--set", f"checkpoint={checkpoint.folder}")
    document = evaluated(found, "retrieval", "clip", "--data", "a.jsonl", *where)
    with mg.open("clip", params={"checkpoint": str(checkpoint.folder)}) as pipeline:
        seen = [pipeline.run(image=name, labels=texts, outputs=["vision_proj", "text_proj"]) for name, (_, texts) in PICTURES.items()]
    eye = numpy.concatenate([one["vision_proj"].numpy() for one in seen])
    read = numpy.concatenate([one["text_proj"][0].numpy() for one in seen])
    near = (eye / numpy.linalg.norm(eye, axis=1)[:, None]) @ (read / numpy.linalg.norm(read, axis=1)[:, None]).T
    owner = numpy.array([0, 1, 2, 2, 3])
    hits = [owner[near[picture].argmax()] == picture for picture in range(4)]
    assert values(document, "pictures to texts")["R@1"] == numpy.mean(hits)
    document = evaluated(found, "classification", "clip", "--data", "a.jsonl", "--templates", "one", *where)
    assert document["records"] == 4
    assert document["settings"]["by"] == "vectors"
