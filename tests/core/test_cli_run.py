"""`modelgraft run` and `modelgraft map`: inputs, outputs into files, mistakes in one message, records that fail."""

from __future__ import annotations

import json
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


# -- map ------------------------------------------------------------------------------------------------------------------


def test_map_keeps_the_error_of_a_record_beside_the_others(run):
    """In order; the code says that one failed."""
    Path("data.jsonl").write_text("\n".join(json.dumps({"text": word}) for word in ("a", "bad", "c")), encoding="utf-8")
    code, _, err = run("map", "failing.yaml", "data.jsonl", "--out", "out.jsonl", "--batch-size", "2")
    lines = [json.loads(line) for line in Path("out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert code == 1
    assert (lines[0], lines[2]) == ({"text": "a"}, {"text": "c"})
    assert "bad was given" in lines[1]["error"]
    assert "3 records, 1 failed; wrote out.jsonl" in err
    assert not Path("out.jsonl.part").exists()


def test_map_resumes_after_the_whole_lines_of_a_stopped_run(run):
    """The half line is done again, and nothing twice."""
    Path("data.jsonl").write_text("\n".join(json.dumps({"text": word}) for word in "abcd"), encoding="utf-8")
    Path("out.jsonl.part").write_text('{"text": "kept"}\n{"te', encoding="utf-8")
    code, _, err = run("map", "capitals.yaml", "data.jsonl", "--out", "out.jsonl", "--resume")
    assert code == 0
    assert [json.loads(line)["text"] for line in Path("out.jsonl").read_text(encoding="utf-8").splitlines()] == ["kept", "B", "C", "D"]
    assert "3 records, 0 failed, 1 were done before" in err


def test_map_names_the_line_that_is_no_record(run):
    """File and line, and nothing half-written under the final name."""
    Path("data.jsonl").write_text('{"text": "a"}\nnonsense\n', encoding="utf-8")
    code, _, err = run("map", "capitals.yaml", "data.jsonl", "--out", "out.jsonl")
    assert code == 1
    assert "data.jsonl:2: this line is no JSON" in err
    assert not Path("out.jsonl").exists()


def test_map_tells_what_the_system_refuses_to_write(run):
    """A disk that is full, a folder in the way: one sentence with the file."""
    Path("data.jsonl").write_text('{"text": "a"}', encoding="utf-8")
    Path("out.jsonl.part").mkdir()
    code, _, err = run("map", "capitals.yaml", "data.jsonl", "--out", "out.jsonl")
    assert code == 1
    assert "output 'out.jsonl.part' cannot be written: Is a directory" in err
