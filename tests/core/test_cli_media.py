"""Media on the command line: read from files, folders and words, written by the endings of files, and told."""

from __future__ import annotations

import json
from pathlib import Path

import numpy
import pytest
from PIL import Image

import modelgraft as mg
from modelgraft.records.shipped import SHIPPED
from modelgraft.records.values import read_input
from modelgraft.records.writing import write_value
from modelgraft.testing import same
from support.command import commands
from support.running import function, registry_of

KINDS = ("video", "depth", "thermal", "imu", "mask", "embedding")


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    """The command line with a component for each medium that hands it on, and a file of each."""
    registry = registry_of(*(function(f"toy/{kind}", {"x": kind}, {"y": kind}, lambda x: [*x]) for kind in KINDS))
    found = commands(monkeypatch, tmp_path, capsys)
    monkeypatch.setattr("modelgraft.installed.discovery.discover", lambda **_: registry)
    for kind in KINDS:
        Path(f"{kind}.yaml").write_text(
            f"# Hand on.\nmodelgraft: 1\ninputs: {{x: {kind}}}\nnodes: {{a: {{use: toy/{kind}, in: {{x: inputs.x}}}}}}\noutputs: {{y: a}}\n"
        )
        for suffix in SHIPPED[kind].writes:
            write_value(SHIPPED[kind].example(0), Path(f"{kind}{suffix}"))
    return found


def record(kind, name):
    return read_input("x", mg.port(kind), name).value[0]


FILES = ("video.gif", "video.mp4", "depth.png", "thermal.npy", "imu.csv", "mask.png", "embedding.json")


@pytest.mark.parametrize("file", FILES)
def test_a_file_goes_in_and_a_file_comes_out(run, file):
    """What is in the second is what was in the first."""
    kind, suffix = Path(file).stem, Path(file).suffix
    out = {".gif": ".webp", ".mp4": ".webp"}.get(suffix, suffix)
    code, _, err = run("run", f"{kind}.yaml", "--input", f"x={file}", "--output", f"y=out{out}")
    assert (code, err.count("wrote y to")) == (0, 1), err
    assert same(record(kind, f"out{out}"), record(kind, file), tolerance=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_what_goes_into_no_file_is_told(run, kind):
    """In a line for people, and as plain values for programs."""
    word = f"x={kind}{SHIPPED[kind].writes[-1]}" if kind != "imu" else "x=imu.csv"
    code, out, _ = run("run", f"{kind}.yaml", "--input", word)
    assert code == 0
    assert out.rstrip().endswith(f"; write it with --output NAME=FILE{SHIPPED[kind].writes[0]}")
    assert json.loads(run("run", f"{kind}.yaml", "--input", word, "--json")[1])["outputs"]["y"]["type"] == kind


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_is_not_there_is_told(run, kind):
    """Place, found, wanted."""
    code, _, err = run("run", f"{kind}.yaml", "--input", "x=missing.mp4")
    assert code != 0
    assert "input 'x': there is no file 'missing.mp4'; wanted: " in err


@pytest.mark.parametrize("kind", KINDS)
def test_an_output_of_another_ending_is_refused(run, kind):
    """Before anything runs."""
    code, _, err = run("run", f"{kind}.yaml", "--input", f"x={kind}{SHIPPED[kind].writes[0]}", "--output", "y=out.pdf")
    assert code != 0
    assert f"output 'out.pdf': y is {kind} and goes into a file that ends in {', '.join(SHIPPED[kind].writes)}" in err


def test_more_than_a_file_is_said_in_json(run):
    """A part of a video, the rate of readings, the unit of a depth map, numbers themselves."""
    words = {
        "video": '{"file": "video.gif", "start_s": 0.2, "most_frames": 2}',
        "imu": '{"file": "imu.npy", "rate_hz": 50}',
        "depth": '{"file": "depth.png", "unit": 0.0002}',
        "embedding": "[1, 2, 3]",
    }
    told = {}
    for kind, word in words.items():
        told[kind] = json.loads(run("run", f"{kind}.yaml", "--input", f"x={word}", "--json")[1])["outputs"]["y"]
    assert told["video"]["frames"] == 2
    assert told["imu"]["rate_hz"] == 50
    assert told["depth"]["farthest_m"] == pytest.approx(0.8)
    assert told["embedding"]["vector"] == [1, 2, 3]


def test_a_folder_is_a_video_or_a_batch_of_them(run):
    """Of pictures the one, of films the other; the frames in the order of their numbers."""
    Path("frames").mkdir()
    for index in (9, 10, 11):
        Image.fromarray(numpy.full((6, 8, 3), index * 20, numpy.uint8)).save(f"frames/{index}.png")
    code, out, err = run("run", "video.yaml", "--input", "x=frames", "--json")
    assert code == 0
    assert json.loads(out)["outputs"]["y"]["frames"] == 3
    assert "they are taken as 25 a second" in err
    Path("films").mkdir()
    for name in ("a.gif", "b.webp", "c.mp4"):
        Path(f"films/{name}").write_bytes(Path(f"video{Path(name).suffix}").read_bytes())
    assert len(json.loads(run("run", "video.yaml", "--input", "x=films", "--json")[1])["outputs"]["y"]) == 3


def test_media_are_mapped(run):
    """A table of names, each a record; one that is not there keeps its error."""
    Path("data.csv").write_text('x\nvideo.gif\nnone.gif\n"{""file"": ""video.gif"", ""most_frames"": 1}"\n')
    assert run("map", "video.yaml", "data.csv", "--out", "out.jsonl")[0] == 1
    rows = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    assert [row["y"]["frames"] if "y" in row else None for row in rows] == [5, None, 1]
    assert "there is no file 'none.gif'" in rows[1]["error"]


def test_a_folder_of_frames_is_mapped_as_one_record(run):
    """And a map is not resumed when a frame in it is another."""
    Path("frames").mkdir()
    for index in range(3):
        Image.new("RGB", (8, 6), (index, 0, 0)).save(f"frames/{index}.png")
    assert run("map", "video.yaml", "frames", "--out", "out.jsonl")[0] == 0
    assert [json.loads(line)["y"]["frames"] for line in Path("out.jsonl").read_text().splitlines()] == [3]
    assert run("map", "video.yaml", "frames", "--out", "out.jsonl", "--resume")[0] == 0
    Image.new("RGB", (8, 6), (99, 0, 0)).save("frames/1.png")
    assert run("map", "video.yaml", "frames", "--out", "out.jsonl", "--resume")[0] != 0
