"""`modelgraft map`: a row for every record, whatever the data hold; nothing lost, nothing twice, nothing mixed."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from modelgraft.installed.discovery import discover
from support.command import commands

TESTS = Path(__file__).parents[1]
WORDS = [{"text": word} for word in "abcdefgh"]
MAP = ("map", "capitals.yaml", "data.jsonl", "--out", "out.jsonl")
SEES = """modelgraft: 1
inputs: {image: image, prompt: {type: text, default: "?"}}
nodes: {say: {use: toy/upper, in: {text: inputs.prompt}}}
outputs: {text: say, image: inputs.image}
"""


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    """Run a command in an empty folder with the toys alone; gives its exit code, stdout and stderr."""
    return commands(monkeypatch, tmp_path, capsys)


def write(records, name="data.jsonl"):
    """A file of JSON lines."""
    Path(name).write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


def rows(name="out.jsonl"):
    """The rows of a file of JSON lines, which must hold nothing else."""

    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    text = Path(name).read_bytes().decode("utf-8")
    assert text == "" or text.endswith("\n")
    return [json.loads(line, parse_constant=refuse) for line in text.splitlines()]


def stop_after(count, tail=b""):
    """Make of a finished map one that was killed after so many rows and a tail."""
    lines = Path("out.jsonl").read_bytes().splitlines(keepends=True)
    Path("out.jsonl.part").write_bytes(b"".join(lines[:count]) + tail)
    Path("out.jsonl").unlink()
    noted = json.loads(Path("out.jsonl.job").read_text())
    Path("out.jsonl.part.job").write_text(json.dumps({**noted, "finished": None}))
    Path("out.jsonl.job").unlink()


# -- records that fail ----------------------------------------------------------------------------------------------------


def test_a_failed_record_keeps_its_reason_beside_the_others(run):
    """In order, with file and line; the code says that one failed."""
    write([{"text": "a"}, {"text": "bad"}, {"text": "c"}])
    code, _, err = run("map", "failing.yaml", "data.jsonl", "--out", "out.jsonl", "--batch-size", "2")
    found = rows()
    assert code == 1
    assert (found[0], found[2]) == ({"text": "a"}, {"text": "c"})
    assert found[1]["error"].startswith("data.jsonl:2: node 'big'")
    assert "bad was given" in found[1]["error"]
    assert found[1]["line"] == 2
    assert "3 records, 1 failed; wrote out.jsonl" in err
    assert not Path("out.jsonl.part").exists()


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"nonsense", "this line is no JSON: Expecting value"),
        (b"[]", "found a list, wanted one record per line"),
        (b"null", "found null, wanted one record per line"),
        (b'{"text": 3}', "input 'text': found 3, wanted text"),
        (b'{"text": NaN}', "this line is no JSON: NaN is no number in JSON"),
        (b'{"text": "a"', "this line is no JSON"),
        (b'{"text": "a", "text": "b"}', "'text' stands in it twice"),
        (b"{}", "input 'text' is missing; wanted: text"),
        (b'{"text": "\xff"}', "this line is no UTF-8 text: byte 10 is 0xff"),
        (b'{"text": "\x00"}', "this line is no JSON: Invalid control character"),
        (b"\x00\x00\x00", "this line is no JSON"),
        (b'{"text": ' + b"[" * 100_000, "this line is no JSON that can be read: it is nested too deep"),
        (b'{"text": ' + b"1" * 5_000 + b"}", "this line is no JSON: Exceeds the limit"),
        (b'{"text": ["a"]}', "input 'text' holds a batch"),
    ],
    ids=lambda value: repr(value)[:24] if isinstance(value, bytes) else "",
)
def test_a_line_that_is_no_record_fails_alone(run, line, reason):
    """Whatever stands in it: the lines around it keep their results, and its row says where and why."""
    Path("data.jsonl").write_bytes(b'{"text": "before"}\n' + line + b'\r\n\n{"text": "after"}')
    code, _, err = run(*MAP)
    before, bad, after = rows()
    assert (code, before, after) == (1, {"text": "BEFORE"}, {"text": "AFTER"})
    assert bad["error"].startswith("data.jsonl:2: ")
    assert reason in bad["error"]
    assert "3 records, 1 failed" in err


def test_a_line_without_end_fails_alone(run, monkeypatch):
    """It is not even read into the memory."""
    monkeypatch.setattr("modelgraft.data.datasets.LINE_BYTES", 64)
    Path("data.jsonl").write_bytes(b'{"text": "a"}\n{"text": "' + b"x" * 1000 + b'"}\n{"text": "b"}\n')
    code, _, _ = run(*MAP)
    found = rows()
    assert (code, found[0], found[2]) == (1, {"text": "A"}, {"text": "B"})
    assert "this line is longer than" in found[1]["error"]


def test_half_a_character_fails_its_record_alone(run):
    """As cut texts of the web hold it: no tokenizer takes it, so the row says where it stands; each row is JSON in UTF-8."""
    Path("data.jsonl").write_bytes(b'{"text": "a \\ud83d b", "id": 1}\n{"text": "c", "id": 2}\n')
    assert run(*MAP)[0] == 1
    bad, good = rows()
    assert (bad["id"], good) == (1, {"id": 2, "text": "C"})
    assert bad["error"].startswith("data.jsonl:1: input 'text': letter 3 of the text is '\\ud83d', half a character")


def test_half_a_character_of_a_column_that_is_no_input_is_handed_through_as_an_escape(run):
    """What no model reads is nobody's to refuse."""
    Path("data.jsonl").write_bytes(b'{"text": "a", "id": "\\udc00"}\n{"text": "c"}\n')
    assert run(*MAP)[0] == 0
    assert rows() == [{"id": "\udc00", "text": "A"}, {"text": "C"}]


def test_columns_that_are_no_inputs_are_handed_through(run):
    """Said once, with the input that may be meant; an output or an error never loses its name to them."""
    write([{"id": 7, "text": "a", "error": "x"}, {"id": 8, "text": "bad", "line": "y"}])
    code, _, err = run("map", "failing.yaml", "data.jsonl", "--out", "out.jsonl")
    found = rows()
    assert code == 1
    assert found[0] == {"id": 7, "data.error": "x", "text": "a"}
    assert (found[1]["id"], found[1]["data.line"], found[1]["line"]) == (8, "y", 2)
    assert err.count("no inputs of the graph, handed through to the results: error, id") == 1
    write([{"text": "a", "error": 1, "data.error": 2, "data.data.error": 3}])
    run("map", "failing.yaml", "data.jsonl", "--out", "out.jsonl")
    assert rows() == [{"data.data.data.error": 1, "data.error": 2, "data.data.error": 3, "text": "a"}]
    write([{"txt": "a"}])
    assert "Did you mean 'text'?" in run(*MAP)[2]


@pytest.mark.parametrize(
    "path", ["nowhere.png", ".", "a\0b", "data.jsonl", "https://example.org/cat.png", "pypi:nothing-of-this-name==1.0/a.png"]
)
def test_a_picture_that_cannot_be_read_fails_alone_and_nothing_is_fetched(run, path, monkeypatch, tmp_path):
    """A missing file, a folder, a name with a NUL, a text, an address, a package: one row, one reason, no download, no folder."""
    monkeypatch.setenv("MODELGRAFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("subprocess.run", None)
    picture("good.png")
    Path("sees.yaml").write_text(SEES)
    write([{"image": "good.png"}, {"image": path}, {"image": "good.png"}])
    code, _, _ = run("map", "sees.yaml", "data.jsonl", "--out", "out.jsonl")
    found = rows()
    assert code == 1
    assert [("error" in row) for row in found] == [False, True, False]
    assert "image" in found[1]["error"]
    assert not (tmp_path / "cache").exists()


def test_memory_that_does_not_suffice_fails_one_record(run, monkeypatch):
    """While its file is decoded, and in a node."""
    from modelgraft.records import pictures

    picture("good.png")
    Path("sees.yaml").write_text(SEES)
    whole = pictures.read_picture

    def read(source, **options):
        if str(source) == "huge.png":
            raise MemoryError
        return whole(source, **options)

    monkeypatch.setattr(pictures, "read_picture", read)
    write([{"image": "good.png"}, {"image": "huge.png"}, {"image": "good.png"}])
    assert run("map", "sees.yaml", "data.jsonl", "--out", "out.jsonl")[0] == 1
    found = rows()
    assert [("error" in row) for row in found] == [False, True, False]
    assert "MemoryError" in found[1]["error"]


# -- kinds of data --------------------------------------------------------------------------------------------------------


def picture(name):
    """A picture of 4 x 3 pixels."""
    from PIL import Image

    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 3)).save(name)


def test_a_folder_of_pictures_is_data(run):
    """In the order of their numbers; each row names its file, and files of other kinds are told and left out."""
    for name in ("2.png", "10.png", "1.PNG"):
        picture(f"imgs/{name}")
    Path("imgs/notes.txt").write_text("no picture")
    Path("imgs/.hidden.png").write_text("no picture")
    Path("sees.yaml").write_text(SEES)
    code, _, err = run("map", "sees.yaml", "imgs", "--out", "out.jsonl", "--output", "text")
    assert code == 0
    assert [row["file"] for row in rows()] == ["imgs/1.PNG", "imgs/2.png", "imgs/10.png"]
    assert "1 of 4 files in 'imgs' are left out by their endings: notes.txt" in err
    assert run("map", "sees.yaml", "imgs/*.png", "--out", "few.jsonl", "--output", "text")[0] == 0
    assert [row["file"] for row in rows("few.jsonl")] == ["imgs/2.png", "imgs/10.png"]


def test_a_folder_says_nothing_of_other_inputs(run):
    """A graph that needs more than files takes records."""
    Path("imgs").mkdir()
    code, _, err = run("map", "capitals.yaml", "imgs", "--out", "out.jsonl")
    assert code == 1
    assert "is a folder of files, which can fill one input alone, and the graph takes: text (text)" in err


def test_a_table_is_data(run):
    """CSV with a heading: quoted commas and line ends, other columns, an empty cell as the default, and rows that are none."""
    table = b'\xef\xbb\xbfid,x,y\r\n1,"a,\nb",c\r\n2,d,\r\n3\r\n4,\xff,e\r\n5,f,g\r\n'
    Path("data.csv").write_bytes(table)
    graph = "modelgraft: 1\ninputs: {x: text, y: {type: text, default: '-'}}\n"
    Path("two.yaml").write_text(graph + "nodes: {both: {use: toy/join, in: {left: inputs.x, right: inputs.y}}}\noutputs: {text: both}\n")
    code, _, _ = run("map", "two.yaml", "data.csv", "--out", "out.jsonl")
    found = rows()
    assert code == 1
    assert [found[index] for index in (0, 1, 4)] == [{"id": "1", "text": "a,\nb-c"}, {"id": "2", "text": "d--"}, {"id": "5", "text": "f-g"}]
    assert "data.csv:5: this row has 1 cells, and the heading 3" in found[2]["error"]
    assert "data.csv:6: this row is no UTF-8 text" in found[3]["error"]


@pytest.mark.skipif(sys.platform == "win32", reason="there are no named pipes")
def test_a_pipe_and_stdin_are_read_once(run, monkeypatch):
    """All records of them; they cannot be resumed, because what was read is gone."""
    os.mkfifo("pipe")
    writer = threading.Thread(target=lambda: Path("pipe").write_text('{"text": "a"}\n{"text": "b"}\n'))
    writer.start()
    assert run("map", "capitals.yaml", "pipe", "--out", "out.jsonl")[0] == 0
    writer.join()
    assert rows() == [{"text": "A"}, {"text": "B"}]
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b'{"text": "c"}\n')))
    assert run("map", "capitals.yaml", "-", "--out", "out.jsonl")[0] == 0
    assert rows() == [{"text": "C"}]
    assert "the data '-' cannot be read again" in run("map", "capitals.yaml", "-", "--out", "out.jsonl", "--resume")[2]


def test_memory_that_a_node_lacks_fails_its_record(run, monkeypatch):
    """The others of its batch run again without it."""
    from support import toys

    def greedy(text):
        if "c" in text:
            raise MemoryError
        return [one.upper() for one in text]

    write(WORDS[:4])
    monkeypatch.setattr(toys.upper.__component__.function, "__code__", greedy.__code__)
    assert run(*MAP)[0] == 1
    assert [row.get("text") for row in rows()] == ["A", "B", None, "D"]
    assert "MemoryError" in rows()[2]["error"]


def test_parquet_says_what_reads_it(run, monkeypatch):
    """Where pyarrow is not installed."""
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    Path("data.parquet").write_bytes(b"PAR1")
    code, _, err = run("map", "capitals.yaml", "data.parquet", "--out", "out.jsonl")
    assert (code, err) == (1, "error: the data 'data.parquet' is a Parquet table, which pyarrow reads: pip install 'modelgraft[parquet]'\n")


def test_data_that_is_not_there_is_one_error(run):
    """And nothing is written."""
    code, _, err = run(*MAP)
    assert (code, err) == (1, "error: the data 'data.jsonl' cannot be read: No such file or directory\n")
    assert not list(Path().glob("out*"))


# -- going on -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tail", [b"", b'{"te', b"\x00" * 40, b"\x00" * 16 + b'\n{"text": "X"}\n', b"[]\n", b'{"other": 1}\n'])
def test_a_stopped_map_goes_on_after_its_whole_rows(run, tail):
    """Half a row, NULs of a lost power, rows that are none: made again, nothing twice."""
    write(WORDS)
    assert run(*MAP)[0] == 0
    whole = Path("out.jsonl").read_bytes()
    stop_after(3, tail)
    code, _, err = run(*MAP, "--resume")
    assert (code, Path("out.jsonl").read_bytes()) == (0, whole)
    assert "5 records, 0 failed, 3 were done before" in err
    assert ("are made again" in err) == bool(tail)
    assert sorted(path.name for path in Path().glob("out*")) == ["out.jsonl", "out.jsonl.job"]


def test_a_finished_map_is_finished(run, monkeypatch):
    """It says so with 0, also when records failed, and opens nothing."""
    write([{"text": "a"}, {"text": "bad"}])
    words = ("map", "failing.yaml", "data.jsonl", "--out", "out.jsonl")
    assert run(*words)[0] == 1
    monkeypatch.setattr("modelgraft.api.open", None)
    code, _, err = run(*words, "--resume")
    assert (code, err) == (0, "out.jsonl is finished: 2 records, 1 failed; nothing is left to do\n")


@pytest.mark.parametrize("is_finished", [True, False])
@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--output", "big.text"), "the outputs are big.text, not text"),
        (("--seed", "1"), "the seed is 1, not 0"),
        (("--set", "nodes.big.use=toy/fail"), "the graph, its sources, params or backend are others at: big"),
        ("data", "the data are others"),
        ("graph", "the graph, its sources, params or backend are others at: big, more"),
    ],
    ids=["outputs", "seed", "set", "data", "graph"],
)
def test_rows_of_something_else_are_not_mixed_in(run, words, reason, is_finished):
    """Other outputs, another seed, other params, other data, another graph: refused, and what is there stays."""
    write(WORDS)
    assert run(*MAP)[0] == 0
    if not is_finished:
        stop_after(3)
    there = {path.name: path.read_bytes() for path in Path().glob("out*")}
    if words == "data":
        write([*WORDS[1:], WORDS[0]])
    if words == "graph":
        text = Path("capitals.yaml").read_text()
        more = "  more: {use: toy/upper, in: {text: inputs.text}}\n  big: {use: toy/upper, in: {text: more}}\n"
        Path("capitals.yaml").write_text(text.replace("  big: {use: toy/upper, in: {text: inputs.text}}\n", more))
    code, _, err = run(*MAP, "--resume", *(words if isinstance(words, tuple) else ()))
    assert code == 1
    assert f"cannot be resumed, because it was made of something else: {reason};" in err
    assert {path.name: path.read_bytes() for path in Path().glob("out*")} == there


def test_a_checkpoint_is_another_when_its_files_are_and_not_when_results_lie_beside_them(run, monkeypatch):
    """The same names with other weights are refused; the part of the map itself changes nothing."""
    monkeypatch.setattr("modelgraft.installed.discovery.discover", lambda **_: discover(only=("projectors", "torch")))
    import torch
    from safetensors.torch import save_file

    head = "modelgraft: 1\ninputs: {x: 'float[batch tokens 3]'}\noutputs: {y: a}\n"
    Path("linear.yaml").write_text(head + "nodes: {a: {use: projector/linear, from: ., with: {out_features: 2}, in: {x: inputs.x}}}\n")
    Path("config.json").write_text("{}")
    save_file({"weight": torch.zeros(2, 3), "bias": torch.zeros(2)}, "model.safetensors")
    write([{"x": [[[1.0, 2.0, 3.0]]]}] * 3)
    words = ("map", "linear.yaml", "data.jsonl", "--out", "out.jsonl")
    assert run(*words)[0] == 0
    stop_after(1)
    assert run(*words, "--resume")[0] == 0
    assert [row["y"] for row in rows()] == [[[[0.0, 0.0]]]] * 3
    for file in ("config.json", "model.safetensors"):
        assert "would replace a file of the checkpoint" in run("map", "linear.yaml", "data.jsonl", "--out", file)[2]
    stop_after(1)
    save_file({"weight": torch.ones(2, 3), "bias": torch.zeros(2)}, "model.safetensors")
    assert "the graph, its sources, params or backend are others at: a" in run(*words, "--resume")[2]


def test_rows_of_which_nothing_is_known_are_kept_aside(run):
    """Rows without the note of what they are made of are neither mixed in nor lost."""
    write(WORDS[:2])
    Path("out.jsonl.part").write_text('{"text": "kept"}\n')
    code, _, err = run(*MAP, "--resume")
    assert (code, rows()) == (0, [{"text": "A"}, {"text": "B"}])
    assert Path("out.jsonl.part.unknown").read_text() == '{"text": "kept"}\n'
    assert "nothing says what" in err
    Path("out.jsonl.job").unlink()
    assert "says what it was made of, so that it cannot be resumed" in run(*MAP, "--resume")[2]


def test_rows_of_a_stopped_map_are_not_lost_where_resume_was_forgotten(run):
    """They may have taken hours: each is kept aside."""
    write(WORDS)
    run(*MAP)
    for name in ("before", "before-2"):
        stop_after(1)
        kept = Path("out.jsonl.part").read_bytes()
        assert f"it is kept as out.jsonl.part.{name}, and all rows are made" in run(*MAP)[2]
        assert Path(f"out.jsonl.part.{name}").read_bytes() == kept != b""
        assert len(rows()) == len(WORDS)


def test_a_result_that_was_changed_is_not_called_finished(run):
    """Its length is known."""
    write(WORDS)
    run(*MAP)
    Path("out.jsonl").write_text("{}\n")
    assert "was changed since it was finished" in run(*MAP, "--resume")[2]


def test_two_maps_do_not_write_into_one_file(run):
    """The second says who the first is, and changes nothing; links are no way around."""
    import fcntl

    write(WORDS)
    run(*MAP)
    stop_after(2)
    Path("link.jsonl").symlink_to("out.jsonl")
    there = {path.name: path.read_bytes() for path in Path().glob("out*")}
    with Path("out.jsonl.part").open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        for words in (MAP, (*MAP, "--resume"), ("map", "capitals.yaml", "data.jsonl", "--out", "link.jsonl")):
            code, _, err = run(*words)
            assert code == 1
            assert f"out.jsonl' is being written by process {os.getpid()} on" in err
    assert {path.name: path.read_bytes() for path in Path().glob("out*")} == there


KILLED = """
import os, signal
from modelgraft.data import shards
left = [{after}]
def count(step):
    left[0] -= 1
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
def counted(whole):
    def call(*arguments, **options):
        count(whole); found = whole(*arguments, **options); count(whole)
        return found
    return call
shards.publish = counted(shards.publish)
shards.os = type('os', (), {{**vars(os)}})
class File:
    def __init__(self, file): self.file = file
    def write(self, view): count('half'); found = self.file.write(view[:7]); count('row'); return found
    def __getattr__(self, name): return getattr(self.file, name)
whole = shards._open_alone
shards._open_alone = lambda *words: File(whole(*words))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has other signals")
def test_a_map_that_is_killed_at_any_moment_goes_on(run):
    """kill -9 within a row, between rows, and between the changes of names at the end: the whole is that of an undisturbed map."""
    write(WORDS[:2])
    assert run(*MAP)[0] == 0
    wanted = Path("out.jsonl").read_bytes()
    start = "import sys; import modelgraft.installed.discovery as registry; from support import toys; registry.discover = toys.registry;"
    end = "from modelgraft.cli import main; sys.exit(main())"
    codes = []
    for after in (2, 9, 10):  # half a row is there; all rows; all rows under their final name
        for path in Path().glob("out*"):
            path.unlink()
        done = subprocess.run(
            [sys.executable, "-c", start + KILLED.format(after=after) + end, *MAP],
            env={**os.environ, "PYTHONPATH": str(TESTS)}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        codes.append(done.returncode)
        code, _, err = run(*MAP, "--resume")
        assert (code, Path("out.jsonl").read_bytes(), after, err) == (0, wanted, after, err)
        assert sorted(path.name for path in Path().glob("out*")) == ["out.jsonl", "out.jsonl.job"]
    assert codes == [-signal.SIGKILL] * 3


def test_ctrl_c_says_what_is_kept(run, monkeypatch):
    """And how to go on."""
    from support import toys

    def stop(text):
        import signal

        if text == ["c"]:
            signal.raise_signal(signal.SIGINT)
        return [one.upper() for one in text]

    write(WORDS)
    monkeypatch.setattr(toys.upper.__component__.function, "__code__", stop.__code__)
    code, _, err = run(*MAP, "--batch-size", "1")
    assert code == 130
    assert "2 records are done and kept in" in err
    assert len(rows("out.jsonl.part")) == 2


# -- what is written where ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("out", ["data.jsonl", "./data.jsonl", "link.jsonl", "hard.jsonl", "capitals.yaml"])
def test_a_map_does_not_replace_what_it_reads(run, out):
    """Under no name of it; the data stay as they are."""
    write(WORDS)
    Path("link.jsonl").symlink_to("data.jsonl")
    os.link("data.jsonl", "hard.jsonl")
    before = {path.name: path.read_bytes() for path in Path().iterdir()}
    code, _, err = run("map", "capitals.yaml", "data.jsonl", "--out", out)
    assert code == 1
    assert "would replace the" in err
    assert {path.name: path.read_bytes() for path in Path().iterdir()} == before


def test_the_part_of_a_map_is_not_its_own_data(run):
    """It would be emptied before it is read."""
    write(WORDS, "out.jsonl.part")
    code, _, err = run("map", "capitals.yaml", "out.jsonl.part", "--out", "out.jsonl")
    assert code == 1
    assert "would replace the data" in err


def test_map_tells_what_the_system_refuses_to_write(run):
    """A disk that is full, a folder in the way: one sentence with the file."""
    write(WORDS)
    Path("out.jsonl.part").mkdir()
    code, _, err = run(*MAP)
    assert code == 1
    assert "out.jsonl.part' cannot be written: Is a directory" in err
