"""Outputs as files and as JSON: what is absent is not written and not printed, numbers stand in one line, files end as they should."""

from __future__ import annotations

import json
from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image

import modelgraft as mg
from modelgraft.cli.written import absent_in
from modelgraft.records.json_text import json_text
from modelgraft.records.pictures import read_picture
from modelgraft.records.showing import plain
from modelgraft.records.writing import write_value
from support.command import commands
from support.running import function, registry_of

ROUTED = """# A card and a text for whoever asks for one.
modelgraft: 1
inputs: {text: text}
nodes:
  asks: {use: toy/asks, in: {text: inputs.text}}
  loud: {use: toy/loud, in: {text: inputs.text}, when: asks}
  card: {use: toy/card, in: {text: inputs.text}, when: asks}
  long: {use: toy/numbers, in: {text: inputs.text}, when: asks}
outputs: {text: loud, card: card, numbers: long, all: "asks.asks"}
"""


def toys():
    text = {"text": "text"}
    return registry_of(
        function("toy/asks", text, {"asks": "mask[batch]"}, lambda text: torch.tensor([one.endswith("?") for one in text])),
        function("toy/loud", text, {"out": "text"}, lambda text: [one.upper() for one in text]),
        function("toy/card", text, {"card": "image"}, lambda text: [Image.new("L", (len(one), 1)) for one in text]),
        function("toy/numbers", text, {"out": "float[batch n]"}, lambda text: torch.arange(40.0).repeat(len(text), 1) / 4),
    )


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    """Run a command in an empty folder with a graph of routes."""
    called = commands(monkeypatch, tmp_path, capsys)
    monkeypatch.setattr("modelgraft.installed.discovery.discover", lambda **_: toys())
    Path("routed.yaml").write_text(ROUTED)
    return lambda *words: called("run", "routed.yaml", *words)


def test_an_absent_output_writes_no_file_and_is_said(run):
    """Not nine bytes that spell absent; a file of an earlier run is named as such."""
    Path("old.png").write_bytes(b"old")
    code, out, err = run("--input", "text=no", "--output", "card=card.png", "--output", "text=old.png.txt", "--output", "text")
    assert (code, out) == (0, "")
    assert not Path("card.png").exists()
    assert "card is absent: a route of the graph left it out; card.png is not written\n" in err
    code, _, err = run("--input", "text=no", "--output", "card=old.png")
    assert "card is absent: a route of the graph left it out; old.png is not written, and what stands there is of an earlier run" in err
    assert Path("old.png").read_bytes() == b"old"


def test_an_absent_output_is_null_in_json(run):
    """And listed, so that it is told from a null that was given; it is said on stderr as well."""
    code, out, err = run("--input", "text=no", "--output", "text", "--output", "card=card.png", "--json")
    found = json.loads(out)
    assert code == 0
    assert found["outputs"] == {"text": None, "card": None}
    assert found["absent"] == ["text", "card"]
    assert found["files"] == {}
    assert "text is absent: a route of the graph left it out\n" in err
    assert json.loads(run("--input", "text=yes?", "--output", "text", "--json")[1])["absent"] == []


def test_of_a_batch_the_records_that_are_there_are_written(run):
    """Each under its own number."""
    words = [part for text in ("a?", "no", "abc?") for part in ("--input", f"text={text}")]
    code, out, err = run(*words, "--output", "card=card.png", "--output", "text", "--output", "numbers=n.npy", "--json")
    found = json.loads(out)
    assert (code, found["absent"]) == (0, ["card[1]", "text[1]", "numbers[1]"])
    assert found["outputs"] == {"text": ["A?", None, "ABC?"]}
    assert found["files"] == {"card": ["card-0.png", "card-2.png"], "numbers": ["n-0.npy", "n-2.npy"]}
    assert [read_picture(name, name="x").size for name in found["files"]["card"]] == [(2, 1), (4, 1)]
    assert "card[1] is absent: a route of the graph left it out; card-1.png is not written\n" in err
    run(*words, "--output", "text=texts.json")
    assert json.loads(Path("texts.json").read_text()) == ["A?", None, "ABC?"]
    assert run(*words, "--output", "text")[1] == "A?\nABC?\n"


def test_rows_of_a_map_list_what_is_absent(run, monkeypatch, tmp_path, capsys):
    """As null, beside the rows that have everything."""
    Path("data.jsonl").write_text('{"text": "no"}\n{"text": "a?"}\n')
    called = commands(monkeypatch, tmp_path, capsys)
    monkeypatch.setattr("modelgraft.installed.discovery.discover", lambda **_: toys())
    code, _, _ = called("map", "routed.yaml", "data.jsonl", "--out", "out.jsonl", "--output", "text")
    assert code == 0
    assert [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()] == [
        {"text": None, "absent": ["text"]},
        {"text": "A?"},
    ]


def test_in_python_it_is_the_public_name(tmp_path):
    """One object, false, and no text."""
    (tmp_path / "routed.yaml").write_text(ROUTED)
    with mg.open(mg.check(mg.load(tmp_path / "routed.yaml", registry=toys()))) as pipeline:
        result = pipeline.run(text=["no", "a?"])
        assert result["text"] == [mg.ABSENT, "A?"]
        assert absent_in(result.outputs) == ["text[0]", "card[0]", "numbers[0]"]
        single = pipeline.run(text="no")
        assert single["card"] is mg.ABSENT
        assert "absent: a route of the graph left it out" in single._repr_html_()
        with pytest.raises(mg.InputError, match="input 'text': found ABSENT, which is what a route of a graph leaves out, wanted text"):
            pipeline.run(text=single["text"])
    assert plain({"a": [mg.ABSENT, 1.5]}) == {"a": [None, 1.5]}


def test_a_tensor_is_one_line_of_json(run):
    """However many numbers it has, all of them."""
    _, out, _ = run("--input", "text=a?", "--output", "numbers", "--json")
    (line,) = [line for line in out.splitlines() if line.startswith('  "numbers"')]
    assert json.loads("{" + line.strip().rstrip(",") + "}") == {"numbers": [[number / 4 for number in range(40)]]}


def test_json_is_what_every_reader_takes():
    """Numbers in a line, the rest spread; NaN is null, half a pair an escape."""
    value = {"a": [[1, 2.5], [None, True]], "b": ["x", {"c": []}], "\ud83d": float("nan"), "d": {}}
    text = json_text(value, indent=1)
    assert text.splitlines()[1] == ' "a": [[1, 2.5], [null, true]],'
    assert json.loads(text) == {"a": [[1, 2.5], [None, True]], "b": ["x", {"c": []}], "\ud83d": None, "d": {}}
    assert json_text(value).count("\n") == 0
    assert json_text([1.0, float("inf")], indent=1) == "[1.0, null]"


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("text=text.png", r"output 'text.png': text is text and goes into a file such as text.txt, or .json; not .png"),
        ("text=text.npy", "text is text and goes into a file such as"),
        ("text=text.WAV", r"not .wav"),
        ("card=card.txt", "card is image and goes into a file that ends in .png"),
        ("numbers=n.txt", r"numbers is float\[batch n\] and goes into a file that ends in .npy, .safetensors, .json"),
        ("loud=x.npy", "loud is text and goes into"),
    ],
)
def test_an_ending_that_promises_something_else_is_refused_before_the_run(run, target, message):
    """Nothing is loaded, nothing written."""
    code, out, err = run("--input", "text=a?", "--output", target)
    assert (code, out) == (1, "")
    assert __import__("re").search(message, err)
    assert not Path(target.partition("=")[2]).exists()


@pytest.mark.parametrize("ending", [".npy", ".safetensors", ".json"])
def test_a_tensor_goes_whole_into_a_file(run, ending):
    """Element for element."""
    from safetensors.numpy import load_file

    code, _, err = run("--input", "text=a?", "--output", f"numbers=n{ending}")
    read = {
        ".npy": numpy.load,
        ".safetensors": lambda name: load_file(name)["value"],
        ".json": lambda name: json.loads(Path(name).read_text()),
    }
    assert (code, f"wrote numbers to n{ending}" in err) == (0, True)
    assert numpy.array_equal(read[ending](f"n{ending}"), [[number / 4 for number in range(40)]])


def test_files_have_the_permissions_of_the_process_which_stay_what_they_are(tmp_path):
    """The mask of the process is not touched, not even for a moment."""
    import os
    import threading

    before, seen, stop = os.umask(0o027), set(), threading.Event()
    try:

        def watch():
            while not stop.is_set():
                (tmp_path / "other").touch()
                seen.add((tmp_path / "other").stat().st_mode & 0o777)
                (tmp_path / "other").unlink()

        thread = threading.Thread(target=watch)
        thread.start()
        for number in range(30):
            write_value("text", tmp_path / f"{number}.txt")
            assert (tmp_path / f"{number}.txt").stat().st_mode & 0o777 == 0o640
        stop.set()
        thread.join()
    finally:
        os.umask(before)
    assert seen == {0o640}


def test_a_sound_that_is_too_loud_or_no_sound_is_said(tmp_path):
    """A wav of 16 bits ends at 1."""
    said = []
    write_value(mg.Audio(numpy.array([[0.5, -1.5]], numpy.float32), 8000), tmp_path / "a.wav", say=said.append)
    assert said == [f"output '{tmp_path / 'a.wav'}': samples up to 1.5 are cut to 1, the most that a wav of 16 bits holds"]
    with pytest.raises(mg.InputError, match="holds samples that are no finite numbers, which no wav can hold"):
        write_value(mg.Audio(numpy.array([[numpy.nan]], numpy.float32), 8000), tmp_path / "b.wav")
    assert not (tmp_path / "b.wav").exists()


def test_what_is_transparent_is_white_in_a_jpeg(tmp_path):
    """Not the colour that was hidden."""
    write_value(Image.new("RGBA", (4, 4), (255, 0, 0, 0)), tmp_path / "a.jpg")
    assert read_picture(tmp_path / "a.jpg", name="x").getpixel((1, 1)) == (255, 255, 255)
