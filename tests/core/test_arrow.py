"""Parquet tables, Arrow files and folders that `datasets` has saved are read as JSON lines are, some rows at a time."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

import modelgraft as mg
from modelgraft.commands import open_dataset, types_of
from modelgraft.data import arrow
from support.pictures import picture

pa = pytest.importorskip("pyarrow", reason="reads and writes the tables")

GRAPH = """
modelgraft: 1
inputs: {image: image, wanted: "float[batch 2]"}
nodes: {pixels: {use: vision/preprocess, from: preset:vit-ti-16, in: {image: inputs.image}}}
outputs: {pixels: pixels}
"""
COUNT = 150  # more than two batches


@pytest.fixture
def table() -> pa.Table:
    """Pictures as `datasets` has them, bytes with a path, numbers, and a column that is no input."""
    stream = io.BytesIO()
    picture(5, 7).save(stream, "PNG")
    rows = [{"image": {"bytes": stream.getvalue(), "path": None}, "wanted": [float(n), 0.5], "title": f"n{n}"} for n in range(COUNT)]
    return pa.Table.from_pylist(rows)


def saved(folder: Path, table: pa.Table, **more: object) -> Path:
    """What `Dataset.save_to_disk` writes: two shards of streams, and their list."""
    folder.mkdir(parents=True)
    names = [f"data-0000{number}-of-00002.arrow" for number in range(2)]
    for name, part in zip(names, (table.slice(0, 100), table.slice(100)), strict=True):
        with pa.OSFile(str(folder / name), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(part, max_chunksize=90)
    (folder / "dataset_info.json").write_text("{}")
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names], **more}))
    return folder


def rows_of(name: Path, tmp_path: Path) -> list[object]:
    (tmp_path / "graph.yaml").write_text(GRAPH)
    graph = mg.load(tmp_path / "graph.yaml", allow=["unused"]).spec
    dataset = open_dataset(str(name), graph.inputs, note=print, types=types_of(graph.registry))
    found = list(dataset.read())
    assert dataset.count() == len(found) == COUNT
    assert dataset.digest
    return found


@pytest.mark.parametrize("kind", ["parquet", "arrow", "folder"])
def test_rows_of_a_table_are_records(tmp_path: Path, table: pa.Table, kind: str):
    if kind == "folder":
        path = saved(tmp_path / "saved", table)
    elif kind == "parquet":
        from pyarrow import parquet

        path = tmp_path / "t.parquet"
        parquet.write_table(table, path, row_group_size=70)
    else:
        path = tmp_path / "t.arrow"
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
    found = rows_of(path, tmp_path)
    assert [row.inputs["wanted"] for row in found] == [[float(n), 0.5] for n in range(COUNT)]
    assert {row.extras["title"] for row in found} == {f"n{n}" for n in range(COUNT)}
    assert found[0].inputs["image"].startswith(b"\x89PNG")
    assert found[120].place == f"{path.name}:121"


def test_a_saved_folder_that_cannot_be_read_says_why(tmp_path: Path, table: pa.Table):
    both = tmp_path / "both"
    saved(both / "train", table)
    saved(both / "test", table)
    (both / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    with pytest.raises(mg.InputError, match=r"several data sets: test, train; name one, such as .*both/test"):
        rows_of(both, tmp_path)
    chosen = saved(tmp_path / "chosen", table, _indices_files=[{"filename": "indices.arrow"}])
    with pytest.raises(mg.InputError, match=r"call flatten_indices\(\)"):
        rows_of(chosen, tmp_path)
    (both / "train" / "data-00001-of-00002.arrow").unlink()
    with pytest.raises(mg.InputError, match=r"not whole: there is no data-00001-of-00002\.arrow"):
        rows_of(both / "train", tmp_path)
    (tmp_path / "no.arrow").write_text("nothing of the kind")
    with pytest.raises(mg.InputError, match="no Arrow table that can be read"):
        rows_of(tmp_path / "no.arrow", tmp_path)


def test_what_cannot_be_read_without_pyarrow_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(mg.InputError, match=r"pip install 'modelgraft\[datasets\]'"):
        arrow.require_arrow(tmp_path)
