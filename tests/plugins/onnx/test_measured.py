"""Blocks as they are fastest here: what is chosen of what was measured, where it is kept, and what it changes."""

from __future__ import annotations

from pathlib import Path

import pytest

import modelgraft as mg
from modelgraft.kernel.words.errors import InputError, PluginError
from modelgraft_plugins import processor
from modelgraft_plugins.onnx import measured, one_row, precision, runtime, store
from modelgraft_plugins.onnx.blocks import SIZE
from support.processors import PLAIN, tell


@pytest.fixture
def unasked(monkeypatch, tmp_path):
    """An empty cache, and no size that is asked for; elsewhere tests measure nothing."""
    monkeypatch.delenv("MODELGRAFT_BLOCKS")
    monkeypatch.setenv("MODELGRAFT_CACHE", str(tmp_path))


@pytest.mark.parametrize(
    ("taken", "wanted"),
    [
        ({32: 1.0, 64: 1.0}, 32),
        ({32: 1.1, 64: 1.0}, 32),
        ({32: 1.2, 64: 1.0}, 64),
        ({32: 1.2, 64: 1.0, 128: 0.9}, 64),
        ({32: 1.3, 64: 1.2, 128: 1.0}, 128),
        ({32: 0.5, 64: 1.0, 128: 2.0}, 32),
    ],
)
def test_a_larger_block_must_be_worth_its_loss(taken, wanted):
    """Against the largest of the smaller ones that was."""
    assert measured.chosen(taken) == wanted


@pytest.mark.slow
@pytest.mark.parametrize("bits", sorted(measured.TRIED))
def test_every_size_that_is_tried_runs_here(bits):
    """On whatever processor this is."""
    taken = measured.seconds(bits, measured.TRIED[bits])
    assert tuple(taken) == measured.TRIED[bits]
    assert all(0 < seconds < 10 for seconds in taken.values())


@pytest.mark.usefixtures("unasked")
def test_without_what_writes_graphs_nothing_is_measured_and_an_export_is_refused_with_the_way_out(monkeypatch):
    """onnxruntime is installed for others too, such as readers of text in pictures; no plugin is blamed, and no module is built."""
    monkeypatch.setattr(store, "EXPORTERS", ("onnx", "no_such_package"))
    for one in (measured, one_row):
        monkeypatch.setattr(one, "seconds", lambda *_: pytest.fail("it needs what is not there"))
        one.prepare()
    assert measured.size_of(8) == SIZE
    with pytest.raises(PluginError, match=r"exporting needs onnx and no_such_package: pip install 'modelgraft\[onnx\]'"):
        store.make("0" * 32, lambda _: pytest.fail("nothing can be written"))


@pytest.mark.usefixtures("unasked")
def test_what_was_measured_is_kept_for_one_onnxruntime(monkeypatch):
    """Measured once; not known before, of another version, or of a broken file."""
    asked = []
    monkeypatch.setattr(measured, "seconds", lambda bits, sizes: asked.append(bits) or {size: 1.0 / size for size in sizes})
    assert [measured.size_of(bits) for bits in (8, 4)] == [SIZE, SIZE]
    measured.prepare()
    measured.prepare()
    assert asked == [8, 4]
    assert [measured.size_of(bits) for bits in (8, 4)] == [max(measured.TRIED[8]), max(measured.TRIED[4])]
    assert measured.file().parent == store.exports_root()
    monkeypatch.setattr(measured, "installed", lambda: "onnxruntime 0.1")
    assert measured.size_of(8) == SIZE
    monkeypatch.setattr(measured, "installed", runtime.installed)
    measured.file().write_text("{}", encoding="ascii")
    assert measured.size_of(8) == SIZE


@pytest.mark.usefixtures("unasked")
@pytest.mark.parametrize("left", [b"", b"{}", b"half of i"])
def test_what_was_measured_and_is_damaged_is_told_once(monkeypatch, left):
    """It is part of what answers of w8 depend on: measured again, another size may win."""
    monkeypatch.setattr(measured, "seconds", lambda bits, sizes: {size: 1.0 / size for size in sizes})
    monkeypatch.setattr(measured, "seconds_of_many", lambda: (1.0, 1.0))
    measured.prepare()  # a file that is not there is no damage
    measured.file().write_bytes(left)
    with pytest.warns(mg.ModelgraftWarning, match=r"measured-.*\.json, what was measured of this processor, is damaged .* measured again"):
        measured.prepare()
    measured.prepare()


@pytest.fixture
def pipeline(tmp_path, monkeypatch):
    """A function that opens a graph of one node on onnx in w8; measuring is a mistake there."""
    monkeypatch.setattr(measured, "seconds", None)
    (tmp_path / "g.yaml").write_text(
        'modelgraft: 1\ninputs: {x: "float[batch n 64]"}\noutputs: {y: a}\n'
        "nodes: {a: {use: projector/linear, with: {in_features: 64, out_features: 64}, in: {x: inputs.x}}}\n"
    )
    return lambda **how: mg.open(tmp_path / "g.yaml", backend="onnx", precision="w8", init="random", **how)


@pytest.mark.usefixtures("unasked")
def test_who_exports_never_measures_nothing(pipeline):
    with pipeline(export="never") as opened:
        told = opened.load()
    assert any('with export="never" none is made' in text for text in told)
    assert not measured.file().exists()


@pytest.mark.parametrize("export", ["now", "later", "never"])
def test_threads_that_mean_nothing_are_refused_before_anything_is_made(pipeline, tmp_path, monkeypatch, export):
    monkeypatch.setenv("MODELGRAFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MODELGRAFT_THREADS", "two")
    with pipeline(export=export) as opened, pytest.raises(InputError, match="a: MODELGRAFT_THREADS is 'two', wanted a number of threads"):
        opened.load()
    assert not (tmp_path / "cache" / "exports").exists()


@pytest.mark.usefixtures("unasked")
def test_a_cache_that_cannot_be_written_leaves_blocks_as_they_are(monkeypatch):
    """Nothing is raised: the export will say it."""
    monkeypatch.setattr(measured, "seconds", lambda _, sizes: {size: 1.0 / size for size in sizes})

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(measured.seals, "write_sealed", full)
    measured.prepare()
    assert measured.size_of(8) == SIZE


def test_a_size_that_is_asked_for_goes_over_what_was_measured(monkeypatch):
    """Nothing is measured for it; one that there is not is refused, with those that there are."""
    monkeypatch.setattr(measured, "seconds", None)
    monkeypatch.setenv("MODELGRAFT_BLOCKS", "128")
    measured.prepare()
    assert measured.size_of(8) == measured.size_of(4) == 128
    monkeypatch.setenv("MODELGRAFT_BLOCKS", "48")
    with pytest.raises(InputError, match=r"MODELGRAFT_BLOCKS is '48', wanted one of 16, 32, 64, 128, 256"):
        measured.size_of(8)


@pytest.mark.parametrize(("kind", "most"), [("w8", 1), ("w4", 1), ("int8", 3)])
def test_blocks_that_lose_too_much_are_made_smaller(kind, most, monkeypatch):
    """The last way is that of 32, tried once everything else was."""
    matrices = {Path("a"): {"wide": False, "narrow": True}}
    ways = precision._ways(matrices, kind, 64)
    assert [size for _, size in ways] == [64] * most + [SIZE]
    assert ways[-1][0] == ways[-2][0] == {Path("a"): frozenset({"wide", "narrow"})}
    assert [size for _, size in precision._ways(matrices, kind, SIZE)] == [SIZE] * most


def test_what_was_measured_counts_for_one_design_of_processor(monkeypatch, tmp_path):
    """Two with the same instruction sets take the same exports, and may differ in what is fast."""
    found = []
    for model in ("49", "1"):
        tell(monkeypatch, tmp_path, f"vendor_id\t: AuthenticAMD\ncpu family\t: 23\nmodel\t\t: {model}\nmodel name\t: AMD EPYC\n{PLAIN}\n")
        found.append((processor.machine_key(), measured.file(), one_row.file()))
    (same, *first), (other, *second) = found
    assert same == other
    assert not set(first) & set(second)
