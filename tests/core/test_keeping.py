"""`modelgraft cache`: everything that is kept is listed, proven and cleared, each kind by its name."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from modelgraft.cli import main
from modelgraft.engine import states
from modelgraft.engine.disk import DiskCache
from modelgraft.engine.meanwhile import folder_of_states
from modelgraft.sources import archives, kept, seals
from modelgraft.sources.refs import parse
from modelgraft.sources.storage import cache_root, locked, remember_results
from modelgraft_plugins.onnx import store

KEY = "ab" * 16
KINDS = ("exports", "tokenizers", "conversions", "results", "downloads")


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    """What runs a `cache` command in a cache that holds one thing of each kind: gives its exit code, and its document or text."""
    monkeypatch.setenv("MODELGRAFT_CACHE", str(tmp_path / "cache"))
    fill(tmp_path)

    def run(*words: str):
        code = main(["cache", *words])
        out = capsys.readouterr().out
        return code, json.loads(out) if "--json" in words else out

    return run


def write(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (folder / name).write_bytes(content)


def fill(tmp_path: Path) -> None:
    """An export with a tuned file, a proof and a refusal, a conversion, a tokenizer, results, a package with a member."""
    entry = store.make(KEY, lambda aside: write(aside, {"model.onnx": bytes(100)}) or {"component": "toy/eye", "precision": "int8"})
    (entry.folder / "tuned-x-model").mkdir()
    write(entry.folder / "tuned-x-model", {"model.onnx": bytes(100)})
    seals.seal(entry.folder / "tuned-x-model")
    store.write_proof(entry, {"relative": 0.0})
    seals.write_sealed(entry.folder / "tuned-x-other.refused", "it gives other numbers")
    folder = cache_root() / "converted" / ("cd" * 16)
    config = {"config.json": b'{"model_type": "llama"}', "model.safetensors": bytes(1000)}
    kept.keep(folder, lambda aside: write(aside, config), lock=folder.with_suffix(".lock"), what="w.gguf")
    seals.write_sealed(cache_root() / "tokenizers" / "ef.json", {"facts": {}, "tokenizer": "{}"})
    (tmp_path / "mine").mkdir()
    remember_results(tmp_path / "mine")
    DiskCache(tmp_path / "mine", limit_bytes=10**6).write("12" * 20, {"x": torch.zeros(5)})
    write(tmp_path / "mine", {"notes.txt": b"of the user"})
    home = cache_root() / "archives" / "parts==1.0"
    for path in (home / "archive" / "parts.whl", home / "files" / "parts" / "w.bin"):
        path.parent.mkdir(parents=True)
        path.write_bytes(bytes(50))
        seals.seal_file(path)


def sealed_files() -> dict[str, Path]:
    """A file of each thing that has a seal."""
    root, export = cache_root(), store.exports_root() / "ab" / KEY
    return {
        "export": export / "model.onnx",
        "manifest": export / "manifest.json",
        "tuned": export / "tuned-x-model" / "model.onnx",
        "proof": next(export.glob("proof-*.json")),
        "refusal": export / "tuned-x-other.refused",
        "conversion": root / "converted" / ("cd" * 16) / "model.safetensors",
        "tokenizer": root / "tokenizers" / "ef.json",
        "result": next((root.parent / "mine" / "12").iterdir()),
        "package": root / "archives" / "parts==1.0" / "archive" / "parts.whl",
        "member": root / "archives" / "parts==1.0" / "files" / "parts" / "w.bin",
    }


def test_all_kinds_are_listed_with_their_bytes(call):
    """As documents with their kind, and as a table with totals; a kind alone by its name."""
    code, listed = call("list", "--json")
    assert code == 0
    assert [item["kind"] for item in listed] == ["exports", "tokenizers", "conversions", "results", "downloads"]
    assert all(item["bytes"] > 0 for item in listed)
    assert (listed[0]["component"], listed[4]["key"]) == ("toy/eye", "parts==1.0")
    *rows, total = [line.split() for line in call("list")[1].splitlines()]
    assert ["exports", "abababababab", "toy/eye", "int8"] in [row[:4] for row in rows]
    assert ["conversions", "cdcdcdcdcdcd", "llama"] in [row[:3] for row in rows]
    assert total[:2] == ["5", "kept,"]
    assert [item["kind"] for item in call("list", "results", "--json")[1]] == ["results"]


def test_what_is_whole_is_said_to_be(call):
    """And nothing is deleted."""
    before = call("list", "--json")[1]
    code, found = call("verify", "--json")
    assert (code, found["ok"], found["checked"], found["broken"]) == (0, True, 5, [])
    assert found["bytes"] == sum(item["bytes"] for item in before)
    assert call("verify")[1].rstrip().endswith("all is whole")
    assert call("list", "--json")[1] == before


@pytest.mark.parametrize(
    "name", ["export", "manifest", "tuned", "proof", "refusal", "conversion", "tokenizer", "result", "package", "member"]
)
def test_a_bit_that_turned_anywhere_is_found_and_its_thing_deleted(call, name):
    """Whatever it was in; the second look finds all whole."""
    path = sealed_files()[name]
    stat, content = path.stat(), bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    code, found = call("verify", "--json")
    assert (code, found["ok"], len(found["broken"])) == (1, False, 1)
    (broken,) = found["broken"]
    assert path.is_relative_to(broken["path"])
    assert broken["deleted"]
    assert not path.exists()
    assert call("verify", "--json")[0] == 0


def test_clear_deletes_all_and_leaves_what_is_the_users(call, tmp_path):
    """A file that lies among results is not ours."""
    code, found = call("clear", "--json")
    counts = {kind: found[kind] for kind in KINDS}
    assert (code, found["ok"], counts, found["left"]) == (0, True, dict.fromkeys(KINDS, 1), [])
    assert found["bytes"] > 1000
    assert call("list", "--json")[1] == []
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]
    assert call("clear")[1] == "nothing of this is kept\n"


def test_clear_deletes_what_was_measured_and_told_beside_exports(call):
    """Which blocks are fastest, a broken note of that too, and how far work in the background was; not of work that is under way."""
    measured, folder = store.exports_root() / "measured-of-this-one.json", folder_of_states()
    seals.write_sealed(measured, {"sizes": {"8": 64}})
    assert call("verify", "--json")[0] == 0
    for key in ("ended", "going"):
        states.write(folder, key, states.State(process=1, since=1.0, label="tracing"))
    with locked(states.lock_of(folder, "going")):
        assert call("clear", "tokenizers")[0] == 0
        assert measured.exists()
        assert call("clear", "--json")[1]["exports"] == 2
        assert sorted(path.name for path in folder.glob("*.json")) == ["going.json"]
    assert not measured.exists()
    measured.write_text("junk")
    assert [item["found"] != "" for item in call("verify", "--json")[1]["broken"]] == [True]
    assert not measured.exists()


def test_clear_of_a_kind_leaves_the_others(call):
    """By name; a name that is none says which there are."""
    assert call("clear", "downloads", "results")[1].startswith("deleted 1 result (")
    assert [item["kind"] for item in call("list", "--json")[1]] == ["exports", "tokenizers", "conversions"]
    assert main(["cache", "clear", "weights"]) == 2


def test_what_is_being_made_or_loaded_is_left_and_said(call):
    """By this process or another; the rest goes."""
    with locked(store.exports_root() / "locks" / KEY), kept.loading():
        archives.hold(parse("pypi:parts==1.0/parts/w.bin"))
        code, found = call("clear", "--json")
    assert (code, found["ok"], found["exports"], found["downloads"]) == (1, False, 0, 0)
    assert len(found["left"]) == 2
    assert [item["kind"] for item in call("list", "--json")[1]] == ["exports", "downloads"]


def test_a_cache_that_was_never_used_is_whole_and_empty(tmp_path, monkeypatch, capsys):
    """And is not made by looking."""
    monkeypatch.setenv("MODELGRAFT_CACHE", str(tmp_path / "cache"))
    for words in (["list"], ["verify"], ["clear"]):
        assert main(["cache", *words]) == 0
    capsys.readouterr()
    assert not (tmp_path / "cache").exists()


def test_looking_after_the_cache_needs_no_torch(tmp_path):
    """Results are proven by their checksums alone."""
    code = "import sys; from modelgraft.cli import main; main(['cache', 'verify']); print('torch' in sys.modules, file=sys.stderr)"
    environment = {**os.environ, "MODELGRAFT_CACHE": str(tmp_path / "cache")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stderr.splitlines()[-1] == "False"
