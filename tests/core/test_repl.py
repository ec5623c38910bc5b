"""`modelgraft repl`: record after record in one process; what is wrong with one ends nothing."""

from __future__ import annotations

import io
import json
import os
import select
import subprocess
import sys
from pathlib import Path

import pytest

from modelgraft.cli.completing import completions
from modelgraft.kernel.words.graph import GraphInput
from modelgraft.kernel.words.ports import port
from support.command import commands

TESTS = Path(__file__).parents[1]
TWO = """modelgraft: 1
inputs: {image: image, prompt: {type: text, default: "?"}}
nodes: {say: {use: toy/fail, in: {text: inputs.prompt}}}
outputs: {text: say, image: inputs.image}
"""


@pytest.fixture
def talk(monkeypatch, tmp_path, capsys):
    """Pipe lines into a repl in an empty folder with the toys alone; gives exit code, stdout and stderr."""
    run = commands(monkeypatch, tmp_path, capsys)
    from PIL import Image

    Image.new("RGB", (4, 3)).save("cat.png")
    Path("two.yaml").write_text(TWO)

    def pipe(graph, *lines, words=("--quiet",)):
        content = b"".join(line if isinstance(line, bytes) else line.encode() + b"\n" for line in lines)
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
        return run("repl", graph, *words)

    return pipe


def test_records_follow_each_other_and_the_graph_is_opened_once(talk, monkeypatch):
    """One line, one answer."""
    from modelgraft import api

    opened = []
    whole = api.open
    monkeypatch.setattr(api, "open", lambda *words, **options: opened.append(1) or whole(*words, **options))
    assert talk("capitals.yaml", "text=a", "", "b c", "text='d e'") == (0, "A\nB C\nD E\n", "")
    assert opened == [1]


def test_a_value_reaches_to_the_next_name(talk):
    """So that a sentence needs no quotes."""
    _, out, _ = talk("two.yaml", "prompt=What's this, really? image=cat.png", words=("--quiet", "--json"))
    found = json.loads(out)["outputs"]
    assert (found["text"], found["image"]["width"]) == ("What's this, really?", 4)


def test_a_line_without_a_name_is_the_value_that_is_missing(talk):
    """The picture; once that is set, the question."""
    code, out, _ = talk(
        "two.yaml", "cat.png", "/set image=cat.png", "hello", "/unset image", "cat.png", words=("--quiet", "--output", "text")
    )
    assert (code, out) == (0, "?\nhello\n?\n")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("image=nowhere.png", "there is no file 'nowhere.png'"),
        ("imag=cat.png", "the graph has no input 'imag'; write image=... prompt=.... Did you mean 'image'?"),
        ("image=cat.png prompt=bad", "bad was given"),
        ("image=-", "stdin is for the commands"),
        ("/sed 1", "there is no '/sed'"),
        ("/seed x", "/seed takes a whole number, found 'x'"),
        ("/output txt", "there is no output 'txt'"),
        ("/set nothing", "/set takes NAME=VALUE"),
        ("/save text=a.txt", "/save takes NAME=FILE with an output of the last record; there is: none yet"),
        (b"\xff\n", "line 1 is no UTF-8 text: byte 0 is 0xff"),
    ],
)
def test_what_is_wrong_with_a_line_is_told_and_the_next_one_runs(talk, line, message):
    """Once; through a pipe the code says so at the end."""
    code, out, err = talk("two.yaml", line, "image=cat.png prompt=fine")
    assert (code, out.splitlines()[0], out.count("text: ")) == (1, "text: fine", 1)
    assert err.count("error: ") == 1
    assert message in err


def test_with_json_every_record_is_one_line(talk):
    """Failed ones too."""
    _, out, _ = talk("failing.yaml", "a", "bad", "c", words=("--json",))
    found = [json.loads(line) for line in out.splitlines()]
    assert [one["ok"] for one in found] == [True, False, True]
    assert found[1]["error"]["node"] == "big"


def test_an_output_is_saved_and_replaces_nothing_of_the_graph(talk):
    """The last record is at hand."""
    _, _, err = talk("capitals.yaml", "a", "/save text=out.txt", "/save text=capitals.yaml", "/quit", "never")
    assert Path("out.txt").read_text() == "A\n"
    assert "would replace the graph" in err


def test_help_says_what_a_line_may_be(talk):
    """With the inputs of this graph."""
    _, _, err = talk("two.yaml", "/help", "/inputs")
    assert "A line is a record: image=<image> prompt=<text>, or the image alone" in err
    assert "  prompt: text, '?' when it is left out" in err


def test_the_tab_key_completes_commands_names_and_files(tmp_path, monkeypatch):
    """A folder with its slash, an `@` kept."""
    monkeypatch.chdir(tmp_path)
    Path("imgs").mkdir()
    Path("imgs/cat.png").touch()
    Path("words.txt").touch()
    inputs = {name: GraphInput(name, port(kind)) for name, kind in (("image", "image"), ("prompt", "text"))}

    def complete(before, text):
        return completions(before, text, inputs=inputs, commands=("/help", "/set"))

    assert complete("", "/se")[0] == "/set "  # and files of the root that begin so
    assert complete("", "im") == ["image=", "imgs/"]
    assert complete("image=", "imgs/") == ["imgs/cat.png "]
    assert complete("image=x ", "") == ["prompt="]
    assert complete("prompt=", "@w") == ["@words.txt "]


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")
def test_on_a_terminal_ctrl_c_stops_a_record_and_not_the_process(tmp_path):
    """The prompt is back; the end of the input leaves with 0."""
    import pty

    graph = "modelgraft: 1\ninputs: {text: text}\nnodes: {slow: {use: toy/wait, with: {seconds: 1}, in: {text: inputs.text}}}\n"
    (tmp_path / "slow.yaml").write_text(graph + "outputs: {text: slow}\n")
    code = "import fcntl, os, termios; os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0);"  # so that Ctrl-C is its signal
    code += "import sys; import modelgraft.installed.discovery as registry; from support import toys; registry.discover = toys.registry;"
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", code + "from modelgraft.cli import main; sys.exit(main())", "repl", "slow.yaml"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(TESTS), "TERM": "xterm"},
        stdin=theirs, stdout=theirs, stderr=theirs,
    )  # fmt: skip
    os.close(theirs)
    shown = ""

    def read_until(text, times=1):
        nonlocal shown
        while shown.count(text) < times:
            assert select.select([ours], [], [], 30.0)[0], f"nothing more came after: {shown[-200:]}"
            shown += os.read(ours, 4096).decode(errors="replace")

    read_until("> ")
    os.write(ours, b"first\n")
    read_until("\rfirst")  # its answer, after the view is taken away
    os.write(ours, b"second\n")
    read_until("running", shown.count("running") + 1)
    os.write(ours, b"\x03")
    read_until("stopped; /quit leaves")
    os.write(ours, b"/quit\n")
    assert process.wait(timeout=60) == 0
    os.close(ours)
    assert "Traceback" not in shown
