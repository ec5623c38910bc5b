"""Files that a user names for outputs: each names a file, takes nothing from others, and is looked at before any work."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

import modelgraft as mg
from modelgraft.kernel.words.errors import InputError
from modelgraft.records.writing import write_value
from support.command import commands

WRITERS = {
    "show": ("show", "capitals.yaml", "--format", "svg", "--out", "{}"),
    "map": ("map", "capitals.yaml", "data.jsonl", "--out", "{}"),
    "import": ("import", "google/vit-base-patch16-224", "--out", "{}"),
    "run": ("run", "capitals.yaml", "--input", "text=a", "--output", "text={}"),
    "trace": ("run", "capitals.yaml", "--input", "text=a", "--trace", "{}"),
}
every_writer = pytest.mark.parametrize("words", WRITERS.values(), ids=WRITERS)


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    """Run a command in an empty folder with the toys alone; `{}` in it stands for the file."""
    called = commands(monkeypatch, tmp_path, capsys)
    Path("data.jsonl").write_text('{"text": "a"}\n')
    return lambda words, file: called(*(word.format(file) for word in words))


@every_writer
@pytest.mark.parametrize(
    ("file", "told"),
    [
        (".", "is a folder; name a file in it"),
        ("..", "is a folder; name a file in it"),
        ("/", "names a folder; name a file in it"),
        ("new/", "names a folder; name a file in it"),
        ("", "names no file; what is given no file goes to stdout"),
        ("-", "names no file; what is given no file goes to stdout"),
        ("no/such", "there is no folder"),
    ],
)
def test_a_word_that_names_no_file_is_refused_and_nothing_is_made(run, words, file, told):
    """Whatever command writes it, also one that makes files beside it."""
    before = sorted(Path().iterdir())
    code, out, err = run(words, file)
    assert (code, out) == (1, "")
    assert told in err
    assert sorted(Path().iterdir()) == before


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="file descriptors have no names here")
@every_writer
def test_the_name_of_a_stream_names_no_file(run, words):
    """What is open there would be taken from whoever has it: /dev/stdout leads to a file where stdout was sent into one."""
    with Path("open.txt").open("w+") as file:
        link = Path("link.jsonl")
        link.symlink_to(f"/proc/self/fd/{file.fileno()}")
        for name in (f"/dev/fd/{file.fileno()}", f"/proc/{os.getpid()}/fd/{file.fileno()}", str(link)):
            code, _, err = run(words, name)
            assert (code, f"output '{name}' stands for what is open already" in err or "is there already" in err) == (1, True)
        assert os.path.samestat(Path("open.txt").stat(), os.fstat(file.fileno()))
    link.unlink()


@every_writer
def test_what_is_no_ordinary_file_is_refused_and_stays(run, words):
    """A pipe, or a device such as that of nothing, belongs to everybody: a file in its place would take it from them."""
    os.mkfifo("pipe.jsonl")
    code, _, err = run(words, "pipe.jsonl")
    assert code == 1
    assert "is no ordinary file; name one" in err or "is there already" in err
    assert stat.S_ISFIFO(Path("pipe.jsonl").stat().st_mode)


def test_python_refuses_the_same(tmp_path, monkeypatch):
    """A graph that is saved, a drawing that is saved, and a value."""
    monkeypatch.chdir(tmp_path)
    graph = mg.Graph("small")
    graph.output("text", graph.node("text/template", template="{text}", text=graph.input("text", "text")))
    os.mkfifo("pipe.svg")
    for save in (graph.save, mg.show(graph).save, lambda path: write_value("a", Path(path))):
        with pytest.raises(InputError, match="no ordinary file"):
            save("pipe.svg")
    for save in (graph.save, mg.show(graph).save):
        with pytest.raises(InputError, match="names a folder"):
            save("new.svg/")
    assert [path.name for path in tmp_path.iterdir()] == ["pipe.svg"]


@pytest.mark.parametrize("name", ["show", "map", "run", "trace"])
def test_a_link_stays_a_link(run, name):
    """What it leads to is written, whether it is there or not."""
    Path("out").mkdir()
    Path("link.jsonl").symlink_to("out/real.jsonl")
    for _ in range(2):
        code, _, err = run(WRITERS[name], "link.jsonl")
        assert code == 0, err
        assert Path("link.jsonl").is_symlink()
        assert Path("out/real.jsonl").stat().st_size > 0


@pytest.mark.parametrize("file", ["out.csv", "out.tsv", "out.PARQUET", "out.png", "out.npy", "out.zip"])
def test_rows_of_a_map_go_into_no_file_that_promises_something_else(run, file):
    """They are JSON lines."""
    code, _, err = run(WRITERS["map"], file)
    assert code == 1
    assert "the rows are JSON lines, and go into a file such as out.jsonl" in err
    assert not Path(file).exists()
