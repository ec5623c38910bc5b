"""`modelgraft run --stream`: a text as it grows, and the events of a run as lines of JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from modelgraft.cli import main
from modelgraft.tools.event_schema import event_schema
from support import talking

TESTS = Path(__file__).parents[1]
CODE = (
    "import sys; import modelgraft.installed.discovery as registry; from support import talking; registry.discover = talking.registry;"
    "from modelgraft.cli import main; sys.exit(main())"
)


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Run a graph that talks, with these settings of the node; gives the exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("modelgraft.installed.discovery.discover", talking.registry)

    def run_talking(*words: str, settings: str = "{}") -> tuple[int, str, str]:
        Path("talk.yaml").write_text(talking.GRAPH.replace("WITH", settings), encoding="utf-8")
        code = main(("run", "talk.yaml", "--device", "cpu", "--quiet", *words))
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return code, captured.out, captured.err

    return run_talking


@pytest.mark.parametrize(
    "words",
    [
        ("--input", "x=one two three", "--output", "text"),
        ("--input", "x=one two three"),
        ("--input", "x=one two three", "--output", "loud", "--output", "text"),
        ("--input", "x=one two three", "--output", "loud"),
        ("--input", "x=one two", "--input", "x=three four five", "--output", "text"),
        ("--input", "x=one two", "--output", "text=text.txt", "--output", "loud"),
        ("--input", "x=one two", "--output", "text=text.txt"),
    ],
    ids=["one text", "two outputs", "the text second", "no text that grows", "a batch", "the text into a file", "nothing to stdout"],
)
@pytest.mark.parametrize("settings", ["{}", "{change: true}"])
def test_in_the_end_stdout_holds_what_it_holds_without(run, words, settings):
    """Whatever is asked for; a text that was changed after it was written is told whole, with a note."""
    plain = run(*words, settings=settings)
    streamed = run(*words, "--stream", settings=settings)
    if "change" in settings and "changed" in streamed[2]:
        head, _, rest = streamed[1].partition("\n")
        assert rest == plain[1]
        assert head.strip()
    else:
        assert streamed[:2] == plain[:2]
    assert plain[0] == 0


def test_each_line_of_json_is_an_event(run):
    """The last is the result, with the outputs; nothing else stands on stdout."""
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is a development tool")
    validator = jsonschema.Draft202012Validator(event_schema())
    code, out, _ = run("--input", "x=one two", "--stream", "--json")
    events = [json.loads(line) for line in out.splitlines()]
    for event in events:
        validator.validate(event)
    assert code == 0
    assert [event["kind"] for event in events][:1] == ["run-started"]
    assert events[-1]["kind"] == "result"
    assert events[-1]["result"]["outputs"] == {"text": "one two ", "loud": "ONE TWO "}
    assert [event["text"] for event in events if event["kind"] == "token"] == ["one ", "two "]
    assert len({event["run"] for event in events}) == 1


def test_a_failure_is_the_last_line_of_json_and_told_once(run):
    """With the sentence, the kind and the node; before a run begins, it is a document in a line."""
    code, out, err = run("--input", "x=one two three", "--stream", "--json", settings="{fail: true}")
    events = [json.loads(line) for line in out.splitlines()]
    assert code == 1
    assert events[-1]["kind"] == "run-failed"
    assert events[-1]["error"]["message"] == "node 'talk' (toy/talk, plugin 'toy') failed: ValueError: no more words"
    assert events[-1]["error"]["node"] == "talk"
    assert "no more words" not in err
    code, out, _ = run("--input", "y=one", "--stream", "--json")
    assert code == 1
    assert json.loads(out)["ok"] is False
    assert out.count("\n") == 1


def test_a_failure_in_the_middle_of_a_text_is_told_on_a_line_of_its_own(run):
    """Stdout keeps what was written, and ends its line."""
    code, out, err = run("--input", "x=one two three", "--output", "text", "--stream", settings="{fail: true}")
    assert (code, out) == (1, "one two \n")
    assert err.count("no more words") == 1


def process(folder: Path, *words: str) -> subprocess.Popen[str]:
    """The command in a process, its text waiting for the file `go`."""
    (folder / "talk.yaml").write_text(talking.GRAPH.replace("WITH", "{wait: go}"), encoding="utf-8")
    return subprocess.Popen(
        [sys.executable, "-c", CODE, "run", "talk.yaml", "--device", "cpu", "--input", "x=one two three", "--output", "text", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_a_pipe_gets_the_text_while_it_is_written(tmp_path):
    """The first word is there before the second is allowed to be written."""
    with process(tmp_path, "--stream") as running:
        assert running.stdout.read(4) == "one "
        assert running.poll() is None
        (tmp_path / "go").touch()
        out, err = running.communicate(timeout=120)
    assert (running.returncode, out) == (0, "two three \n")
    assert "Traceback" not in err


@pytest.mark.skipif(sys.platform == "win32", reason="a pipe without a reader is another error there")
@pytest.mark.parametrize("words", [(), ("--json",)], ids=["text", "json"])
def test_a_reader_that_leaves_stops_the_run(tmp_path, words):
    """As with `head`: no message, exit code 1, and the node is not waited for."""
    with process(tmp_path, "--stream", *words) as running:
        assert running.stdout.read(4)
        running.stdout.close()
        (tmp_path / "go").touch()
        err = running.stderr.read()
    assert running.returncode == 1
    assert "Traceback" not in err
    assert "error" not in err
