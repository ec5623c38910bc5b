"""Whether a decoder's matrices are laid in panels: what is chosen of what was measured, where it is kept, when it is asked for."""

from __future__ import annotations

import pytest
from tests.plugins.onnx.test_kept_blocks import SIZES
from tests.plugins.test_formats import gguf_of, randomised
from transformers import LlamaConfig, LlamaForCausalLM

import modelgraft as mg
from modelgraft_plugins.onnx import one_row, runtime, store, tuned, tuning
from modelgraft_plugins.onnx.keeping import Exports

WIDTH = 8


@pytest.fixture(autouse=True)
def empty(monkeypatch, tmp_path):
    """An empty cache, on a processor that has panels."""
    monkeypatch.setenv("MODELGRAFT_CACHE", str(tmp_path))
    monkeypatch.setattr(one_row, "panel_width", lambda: WIDTH)


@pytest.mark.parametrize(("packed", "wanted"), [(1.3, WIDTH), (0.9, WIDTH), (0.85, 0), (0.5, 0)])
def test_panels_are_taken_where_texts_take_about_as_long(monkeypatch, packed, wanted):
    """They open in a fraction of the time, so that they need not be faster."""
    monkeypatch.setattr(one_row, "seconds", lambda width: {"packed": packed, "panels": 1.0})
    one_row.prepare()
    assert one_row.panels() == wanted


@pytest.mark.parametrize(("width", "taken"), [(0, {"packed": 2.0, "panels": 1.0}), (WIDTH, {})], ids=["no kernels", "not to be written"])
def test_where_there_are_none_matrices_are_packed(monkeypatch, width, taken):
    monkeypatch.setattr(one_row, "panel_width", lambda: width)
    monkeypatch.setattr(one_row, "seconds", lambda _: taken)
    one_row.prepare()
    assert one_row.file().is_file()
    assert one_row.panels() == 0


def test_it_is_measured_once_for_one_onnxruntime(monkeypatch):
    """Not known before, of another version, or of a broken file: then they are packed."""
    asked = []
    monkeypatch.setattr(one_row, "seconds", lambda width: asked.append(width) or {"packed": 2.0, "panels": 1.0})
    assert not one_row.panels()
    one_row.prepare()
    one_row.prepare()
    assert (asked, one_row.panels()) == ([WIDTH], WIDTH)
    assert one_row.file().parent == store.exports_root()
    monkeypatch.setattr(one_row, "installed", lambda: "onnxruntime 0.1")
    assert not one_row.panels()
    monkeypatch.setattr(one_row, "installed", runtime.installed)
    one_row.file().write_text("{}", encoding="ascii")
    assert not one_row.panels()


@pytest.mark.slow
def test_both_run_here():
    """On whatever processor this is that has panels."""
    if not (width := tuning.panel_width()):
        pytest.skip("onnxruntime has no kernels here that go through several panels")
    taken = one_row.seconds(width)
    assert set(taken) == {"packed", "panels"}
    assert all(0 < seconds < 60 for seconds in taken.values())


@pytest.mark.parametrize(
    ("size", "precision", "tokens", "panels", "wanted"),
    [
        (10, "float32", True, 8, 8),
        (9, "float32", True, 8, 0),
        (10, "w8", True, 8, 0),
        (10, "float32", False, 8, 0),
        (10, "float32", True, 0, 0),
    ],
)
def test_a_graph_is_laid_in_panels_where_that_pays(tmp_path, monkeypatch, size, precision, tokens, panels, wanted):
    """A large decoder of float32: others lie in caches, or are read in 8 bits, or in many rows; for these nothing is measured."""
    asked = list[bool]()
    monkeypatch.setattr(tuned, "WORTH_BYTES", 10)
    monkeypatch.setattr(tuned, "reads_tokens", lambda _: tokens)
    monkeypatch.setattr(one_row, "prepare", lambda: asked.append(True))
    monkeypatch.setattr(one_row, "panels", lambda: panels)
    monkeypatch.setattr(store, "manifest_in", lambda _: {"precision": precision})
    (tmp_path / "model.onnx").write_bytes(b"0" * size)
    monkeypatch.setattr(tuned, "files_of", lambda *_: ("model.onnx",))
    assert tuned._panels(tmp_path, "model.onnx") == wanted
    assert bool(asked) is (tokens and size == 10 and precision == "float32")


def test_what_was_measured_is_listed_among_kept_exports(monkeypatch):
    """So that it is verified, and cleared, with them."""
    monkeypatch.setattr(one_row, "seconds", lambda _: {"packed": 2.0, "panels": 1.0})
    one_row.prepare()
    (found,) = Exports().items()
    assert (found.path, found.about) == (one_row.file(), "how a decoder reads its matrices fastest on a processor")


@pytest.mark.slow
def test_a_damaged_panel_is_found_and_read_by_nobody(tmp_path, monkeypatch):
    """A decoder answers by panels as by the plain graph, which answers where they can be neither read nor made again."""
    gguf_of(tmp_path / "m.gguf", randomised(LlamaForCausalLM(LlamaConfig(**SIZES, tie_word_embeddings=True))), "llama", "Q8_0")
    (tmp_path / "g.yaml").write_text(
        "modelgraft: 1\ninputs: {q: text}\noutputs: {text: a.text}\n"
        "nodes: {a: {use: llm/causal, from: ./m.gguf, frozen: true, in: {q: inputs.q}, with: {prompt: '{q}', max_new_tokens: 8}}}\n"
    )
    monkeypatch.setattr(tuned, "WORTH_BYTES", 1)
    monkeypatch.setattr(one_row, "panels", tuning.panel_width)
    monkeypatch.setattr(one_row, "prepare", lambda: None)

    def answer():
        with mg.open(tmp_path / "g.yaml", backend="onnx", export="now") as pipeline:
            return pipeline.run(q="a question")

    wanted = answer()["text"]
    again = answer()
    assert (again["text"], [text for text in again.warnings if "tuned" in text]) == (wanted, [])
    (data,) = tmp_path.glob("exports/*/*/tuned-*/*.panels")
    data.write_bytes(bytes(data.stat().st_size))
    monkeypatch.setattr(tuned, "_tune", lambda *_, **__: "No space left on device")
    found = answer()
    assert found["text"] == wanted
    assert any("No space left on device" in text for text in found.warnings)
