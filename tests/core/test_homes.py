"""Names that begin with `~`: the home, that of an account, and files that are merely called so, such as those that editors leave."""

from __future__ import annotations

import json
import pwd
from pathlib import Path

import pytest

import modelgraft
import modelgraft_plugins
from modelgraft.cli import main
from modelgraft.kernel.words.errors import SourceError
from modelgraft.records.homes import home_read
from modelgraft.sources.storage import cache_root

SHOUTS = """modelgraft: 1
inputs: {x: text}
nodes:
  loud: {use: text/template, with: {template: "{x}!"}, in: {x: inputs.x}}
outputs: {said: loud}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, which is the home too, with a graph in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    Path("shouts.yaml").write_text(SHOUTS)
    return tmp_path


def test_only_the_home_of_an_account_takes_the_place_of_a_tilde(folder: Path):
    assert home_read("~") == folder
    assert home_read("~/a") == folder / "a"
    assert home_read("~root/a") == Path(pwd.getpwnam("root").pw_dir) / "a"
    for name in ("~draft.txt", "~nobody-has-this/a", "./~draft.txt", "a/~"):
        assert home_read(name) == Path(name)


def test_files_whose_names_begin_with_a_tilde_are_read_and_written(folder: Path, capsys: pytest.CaptureFixture[str]):
    Path("~draft.txt").write_text("hello")
    assert main(["run", "shouts.yaml", "--input", "x=@~draft.txt", "--output", "said=~said.txt"]) == 0, capsys.readouterr().err
    assert Path("~said.txt").read_text().strip() == "hello!"
    Path("~data.jsonl").write_text('{"x": "~5 apples"}\n')
    assert main(["map", "shouts.yaml", "~data.jsonl", "--out", "~made.jsonl"]) == 0, capsys.readouterr().err
    assert json.loads(Path("~made.jsonl").read_text())["said"] == "~5 apples!"
    capsys.readouterr()
    assert main(["run", "shouts.yaml", "--input", "x=@~none.txt"]) == 1
    assert "the file '~none.txt' cannot be read: No such file" in capsys.readouterr().err


def test_an_account_without_a_home_is_told_where_a_cache_may_be(monkeypatch: pytest.MonkeyPatch):
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("MODELGRAFT_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(SourceError, match="this account has no home folder"):
        cache_root()


@pytest.mark.parametrize("words", ["check shouts.yaml", "plan shouts.yaml", "run shouts.yaml --input x=a", "records"])
@pytest.mark.parametrize("why", ["there is no home", "nobody may look into it"])
@pytest.mark.usefixtures("folder")
def test_what_needs_nothing_that_is_kept_runs_where_nothing_can_be(monkeypatch: pytest.MonkeyPatch, words: str, why: str):
    """For an account without a home, and where the system refuses to look, as it does at names that are too long."""

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    if why == "there is no home":
        monkeypatch.delenv("MODELGRAFT_CACHE", raising=False)
        monkeypatch.setattr(Path, "home", homeless)
    else:
        monkeypatch.setenv("MODELGRAFT_CACHE", "x" * 300)
    assert main(words.split()) == 0


def test_homes_are_read_in_one_place():
    """Where pathlib reads them, a file that is called ~draft ends a command with a defect."""
    rooms = [Path(package.__path__[0]) for package in (modelgraft, modelgraft_plugins)]
    assert not [str(path) for room in rooms for path in room.rglob("*.py") if ".expanduser()" in path.read_text(encoding="utf-8")]
