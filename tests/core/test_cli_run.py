"""`modelgraft run`: inputs, outputs into files, mistakes in one message."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import pytest

from support.command import commands


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    """Run a command in an empty folder with the toys alone; gives its exit code, stdout and stderr."""
    return commands(monkeypatch, tmp_path, capsys)


# -- run ------------------------------------------------------------------------------------------------------------------


def test_a_single_output_is_printed_alone(run):
    """So that it can be piped on."""
    code, out, _ = run("run", "capitals.yaml", "--input", "text=hello")
    assert (code, out) == (0, "HELLO\n")


def test_an_input_that_is_repeated_is_a_batch(run):
    """One line per record, and a list as JSON."""
    assert run("run", "capitals.yaml", "--input", "text=a", "--input", "text=b")[1] == "A\nB\n"
    _, out, _ = run("run", "capitals.yaml", "--input", "text=a", "--input", "text=b", "--json")
    assert json.loads(out)["outputs"] == {"text": ["A", "B"]}


def test_text_can_come_from_a_file(run):
    """`@FILE` is its contents, `@@` a text that starts with @."""
    Path("words.txt").write_text("grüße\n", encoding="utf-8")
    assert run("run", "capitals.yaml", "--input", "text=@words.txt")[1] == "GRÜSSE\n"
    assert run("run", "capitals.yaml", "--input", "text=@@home")[1] == "@HOME\n"


def test_outputs_go_into_files_and_any_port_can_be_asked_for(run):
    """Named outputs are written, the others printed; nothing temporary is left."""
    code, out, err = run("run", "diamond.yaml", "--input", "text=abcd", "--output", "text=text.txt", "--output", "parts.left")
    assert (code, out) == (0, "ab\n")
    assert Path("text.txt").read_text(encoding="utf-8") == "AB-CD\n"
    assert "wrote text to text.txt" in err
    assert not list(Path().glob(".text*"))


def test_an_output_path_that_cannot_be_written_is_found_before_the_run(run):
    """The failing node is not even started."""
    code, out, err = run("run", "failing.yaml", "--input", "text=bad", "--output", "text=nowhere/text.txt")
    assert (code, out) == (1, "")
    assert err == "error: output 'nowhere/text.txt' cannot be written: there is no folder 'nowhere'\n"


def test_an_output_goes_only_into_a_file_of_its_kind(run):
    """A tensor does not become a .txt, and two outputs do not share a file."""
    assert (
        "pooled is float[batch 12] and goes into a file that ends in .npy, .safetensors, .json"
        in (run("run", "sight.yaml", "--input", "image=cat.png", "--output", "pooled=pooled.txt")[2])
    )
    assert "is named twice" in run("run", "diamond.yaml", "--input", "text=a", "--output", "text=a.txt", "--output", "one=a.txt")[2]


def test_run_as_json_says_all_there_is(run):
    """Outputs, timings per node, and what came from the cache."""
    code, out, _ = run("run", "capitals.yaml", "--input", "text=a", "--json", "--quiet")
    found = json.loads(out)
    assert code == 0
    assert (found["ok"], found["outputs"], found["cached"], list(found["timings"])) == (True, {"text": "A"}, [], ["big"])


def test_plain_lines_tell_how_far_a_run_is(run):
    """On stderr, when it is no terminal; `--quiet` silences them."""
    assert "big: done in " in run("run", "capitals.yaml", "--input", "text=a")[2]
    assert run("run", "capitals.yaml", "--input", "text=a", "--quiet")[2] == ""


def test_a_trace_is_written(run):
    """With a span for each node."""
    run("run", "diamond.yaml", "--input", "text=abcd", "--trace", "trace.json")
    events = json.loads(Path("trace.json").read_text(encoding="utf-8"))["traceEvents"]
    assert {event["name"] for event in events if event["ph"] == "X"} == {"parts", "one", "two", "whole"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--input", "txt=a"), "the graph has no input 'txt'; it has: text. Did you mean 'text'?"),
        (("--input", "text=@nowhere.txt"), "input 'text': the file 'nowhere.txt' cannot be read: No such file or directory"),
        ((), "text"),
        (("--input", "text=a", "--output", "txt"), "txt"),
        (("--input", "text=a", "--set", "speed=1"), "unknown-param"),
    ],
)
def test_mistakes_in_a_run_have_one_message_and_1(run, words, message):
    """The message names what was given and what there is."""
    code, out, err = run("run", "capitals.yaml", *words)
    assert (code, out) == (1, "")
    assert message in err


def test_a_failing_node_is_named_with_its_cause(run):
    """One error, and as JSON the node beside it."""
    code, _, err = run("run", "failing.yaml", "--input", "text=bad")
    assert code == 1
    assert "big" in err
    assert "bad was given" in err
    _, out, _ = run("run", "failing.yaml", "--input", "text=bad", "--json")
    error = json.loads(out)["error"]
    assert (error["kind"], error["node"], error["component"]) == ("NodeError", "big", "toy/fail")


# -- what a value may be --------------------------------------------------------------------------------------------------

SEES = """modelgraft: 1
inputs: {image: image, prompt: {type: text, default: "?"}}
nodes: {say: {use: toy/upper, in: {text: inputs.prompt}}}
outputs: {text: say, image: inputs.image}
"""


def picture(name, width=4):
    """A picture of so many x 3 pixels."""
    from PIL import Image

    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, 3)).save(name)


def widths(out):
    """Of the pictures in a result."""
    found = json.loads(out)["outputs"]["image"]
    return [one["width"] for one in found] if isinstance(found, list) else found["width"]


@pytest.fixture
def stdin(monkeypatch):
    """Let stdin hold these bytes."""

    def hold(content):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content), encoding="ascii"))

    return hold


@pytest.mark.parametrize("word", ["-", "@-"])
def test_text_can_come_from_stdin(run, stdin, word):
    """As UTF-8, whatever the locale says."""
    stdin("grüße\n".encode())
    assert run("run", "capitals.yaml", "--input", f"text={word}")[1] == "GRÜSSE\n"


def test_a_picture_can_come_from_stdin_and_stdin_is_read_once(run, stdin):
    """Its bytes; a second `-` has nothing left."""
    picture("cat.png", 5)
    Path("sees.yaml").write_text(SEES)
    stdin(Path("cat.png").read_bytes())
    assert widths(run("run", "sees.yaml", "--input", "image=-", "--json")[1]) == 5
    stdin(Path("cat.png").read_bytes())
    _, _, err = run("run", "sees.yaml", "--input", "image=-", "--input", "prompt=-")
    assert "input 'prompt': stdin is for input 'image'; name a file" in err
    stdin(b"")
    assert "input 'image': stdin is empty" in run("run", "sees.yaml", "--input", "image=-")[2]


def test_a_pattern_and_a_folder_are_a_batch_in_the_order_of_their_numbers(run):
    """2 comes before 10; a name with brackets that is there is that file."""
    for number in (10, 2, 1):
        picture(f"imgs/cat{number}.png", number)
    picture("[1].png", 7)
    Path("imgs/notes.txt").write_text("no picture")
    Path("sees.yaml").write_text(SEES)
    for word in ("imgs/*.png", "imgs/", "imgs", "./**/cat*.png"):
        assert widths(run("run", "sees.yaml", "--input", f"image={word}", "--json")[1]) == [1, 2, 10]
    assert widths(run("run", "sees.yaml", "--input", "image=[1].png", "--json")[1]) == 7
    assert (
        "1 of 4 files in 'imgs' are left out by their endings: notes.txt" in run("run", "sees.yaml", "--input", "image=imgs", "--json")[2]
    )


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("imgs/*.png", "input 'image': no file matches 'imgs/*.png'"),
        ("empty", "input 'image': the folder 'empty' has none; wanted: files that end in .png, .jpg"),
        ("", "input 'image': found nothing, wanted a file"),
        ("a\0b", "input 'image'"),
        ("words.png", "input 'image': 'words.png' is no picture"),
        ("lost.png", "input 'image': 'lost.png' is a link to 'elsewhere.png', which is not there; wanted: a picture"),
        ("\udcff.png", "there is no file"),
    ],
)
def test_a_picture_that_is_none_is_named(run, word, message):
    """Input and file."""
    Path("empty").mkdir()
    Path("words.png").write_text("words")
    Path("lost.png").symlink_to("elsewhere.png")
    Path("sees.yaml").write_text(SEES)
    code, _, err = run("run", "sees.yaml", "--input", f"image={word}")
    assert code == 1
    assert message in err


def test_a_record_that_names_nothing_is_told_so(run):
    """The name of no letter is that of the working folder to the system."""
    Path("sees.yaml").write_text(SEES)
    Path("rows.jsonl").write_text('{"image": ""}\n')
    assert run("map", "sees.yaml", "rows.jsonl", "--out", "out.jsonl")[0] == 1
    assert "input 'image': found nothing, wanted the file of a picture" in json.loads(Path("out.jsonl").read_text())["error"]


def test_one_bad_picture_of_a_pattern_is_named(run):
    """By its file, not by its number alone."""
    picture("imgs/1.png")
    Path("imgs/2.png").write_text("words")
    Path("sees.yaml").write_text(SEES)
    assert "'imgs/2.png' is no picture" in run("run", "sees.yaml", "--input", "image=imgs/*.png")[2]


def test_bytes_of_a_word_that_are_no_text_are_told(run):
    """A name of a file may hold any; a text and a param may not."""
    picture("\udcff.png", 6)
    Path("sees.yaml").write_text(SEES)
    assert widths(run("run", "sees.yaml", "--input", "image=\udcff.png", "--json")[1]) == 6
    assert "input 'text': this is no UTF-8 text: it holds the byte 0xff" in run("run", "capitals.yaml", "--input", "text=a\udcff")[2]
    code, _, err = run("run", "capitals.yaml", "--input", "text=a", "--set", "p=\udcff")
    assert code == 2
    assert "--set p: this is no UTF-8 text" in err
    Path("\udcff.yaml").write_bytes(Path("capitals.yaml").read_bytes())
    code, out, _ = run("run", "\udcff.yaml", "--input", "text=a", "--json", "--output", "text=\udcff.txt")
    assert code == 0
    assert json.loads(out)["files"] == {"text": ["\udcff.txt"]}


@pytest.mark.parametrize("file", ["cat.png", "./cat.png", "link.png", "hard.png"])
def test_an_output_does_not_replace_an_input(run, file):
    """Under no name of it; neither a picture, nor a text, nor the graph, nor one of a numbered batch, nor by a trace."""
    picture("cat.png")
    picture("out-1.png")
    Path("link.png").symlink_to("cat.png")
    os.link("cat.png", "hard.png")
    Path("words.txt").write_text("a")
    Path("sees.yaml").write_text(SEES)
    before = {path.name: path.read_bytes() for path in Path().iterdir()}
    given = ("run", "sees.yaml", "--input", "image=cat.png", "--input", "image=out-1.png", "--input", "prompt=@words.txt")
    for words in (("--output", f"image={file}"), ("--output", "image=out.png"), ("--output", "text=words.txt"),
                  ("--output", "text=sees.yaml"), ("--trace", file)):  # fmt: skip
        code, _, err = run(*given, *words)
        assert (code, "would replace" in err) == (1, True)
    assert {path.name: path.read_bytes() for path in Path().iterdir()} == before


def test_a_failure_is_told_once(run):
    """Its node is named once, and so is the input of an error that a node raises."""
    code, _, err = run("run", "failing.yaml", "--input", "text=bad")
    assert code == 1
    assert err.count("bad was given") == 1
