"""Whether one row is read by matrices that are not packed: what is chosen of what was measured, where it is kept, when it is asked for."""

from __future__ import annotations

import pytest
from tests.plugins.onnx.test_kept_blocks import SIZES
from tests.plugins.test_formats import gguf_of, randomised
from transformers import LlamaConfig, LlamaForCausalLM

import modelgraft as mg
from modelgraft_plugins.onnx import one_row, runtime, store, tuned
from modelgraft_plugins.onnx.keeping import Exports


@pytest.fixture(autouse=True)
def empty(monkeypatch, tmp_path):
    """An empty cache."""
    monkeypatch.setenv("MODELGRAFT_CACHE", str(tmp_path))


@pytest.mark.parametrize(("packed", "wanted"), [(1.3, True), (1.16, True), (1.14, False), (0.5, False)])
def test_it_must_be_worth_a_second_session(monkeypatch, packed, wanted):
    monkeypatch.setattr(one_row, "seconds", lambda: {"packed": packed, "as they lie": 1.0})
    one_row.prepare()
    assert one_row.is_faster_as_they_lie() == wanted


def test_it_is_measured_once_for_one_onnxruntime(monkeypatch):
    """Not known before, of another version, or of a broken file: then as it always was."""
    asked = []
    monkeypatch.setattr(one_row, "seconds", lambda: asked.append(1) or {"packed": 2.0, "as they lie": 1.0})
    assert not one_row.is_faster_as_they_lie()
    one_row.prepare()
    one_row.prepare()
    assert (len(asked), one_row.is_faster_as_they_lie()) == (1, True)
    assert one_row.file().parent == store.exports_root()
    monkeypatch.setattr(one_row, "installed", lambda: "onnxruntime 0.1")
    assert not one_row.is_faster_as_they_lie()
    monkeypatch.setattr(one_row, "installed", runtime.installed)
    one_row.file().write_text("{}", encoding="ascii")
    assert not one_row.is_faster_as_they_lie()


@pytest.mark.slow
def test_both_run_here():
    """On whatever processor this is."""
    taken = one_row.seconds()
    assert set(taken) == {"packed", "as they lie"}
    assert all(0 < seconds < 10 for seconds in taken.values())


@pytest.mark.parametrize(
    ("device", "size", "is_tuned", "is_faster", "opens"),
    [
        ("cpu", 10, True, True, True),
        ("cuda:0", 10, True, True, False),
        ("cpu", 9, True, True, False),
        ("cpu", 10, False, True, False),
        ("cpu", 10, True, False, False),
    ],
)
def test_a_second_session_is_opened_where_it_is_worth_it(tmp_path, monkeypatch, device, size, is_tuned, is_faster, opens):
    """Of a large graph on the host that is tuned, where it was measured to be faster; without packing."""
    monkeypatch.setattr(tuned, "WORTH_BYTES", 10)
    monkeypatch.setattr(one_row, "is_faster_as_they_lie", lambda: is_faster)
    asked = {}
    monkeypatch.setattr(tuned, "open_session", lambda path, **how: asked.update(how, path=path) or "session")
    (tmp_path / "model.onnx").write_bytes(b"0" * size)
    folder = tuned.tuned_folder(tmp_path, "model.onnx")
    if is_tuned:
        folder.mkdir()
    monkeypatch.setattr(tuned, "files_of", lambda *_: ("model.onnx",))
    assert tuned.for_one_row(tmp_path, device, graph="model.onnx") == ("session" if opens else None)
    if opens:
        wanted = {"path": folder / "model.onnx", "optimised": True, "settings": {"session.disable_prepacking": "1"}}
        assert wanted.items() <= asked.items()


def test_what_was_measured_is_listed_among_kept_exports(monkeypatch):
    """So that it is verified, and cleared, with them."""
    monkeypatch.setattr(one_row, "seconds", lambda: {"packed": 2.0, "as they lie": 1.0})
    one_row.prepare()
    (found,) = Exports().items()
    assert (found.path, found.about) == (one_row.file(), "how one row is read fastest on a processor")


@pytest.mark.slow
def test_a_tuned_graph_that_is_broken_reads_no_row(tmp_path, monkeypatch):
    """Where it could not be tuned again it still lies there: all rows are read by the plain graph."""
    gguf_of(tmp_path / "m.gguf", randomised(LlamaForCausalLM(LlamaConfig(**SIZES, tie_word_embeddings=True))), "llama", "Q8_0")
    (tmp_path / "g.yaml").write_text(
        "modelgraft: 1\ninputs: {q: text}\noutputs: {text: a.text}\n"
        "nodes: {a: {use: llm/causal, from: ./m.gguf, frozen: true, in: {q: inputs.q}, with: {prompt: '{q}', max_new_tokens: 8}}}\n"
    )
    monkeypatch.setattr(tuned, "WORTH_BYTES", 1)
    monkeypatch.setattr(one_row, "_kept", lambda: True)
    opened, opening = [], tuned.open_session
    monkeypatch.setattr(tuned, "open_session", lambda path, **how: opened.append(path) or opening(path, **how))

    def answer():
        with mg.open(tmp_path / "g.yaml", backend="onnx", export="now") as pipeline:
            return pipeline.run(q="a question")

    wanted = answer()["text"]
    assert len(opened) == 1  # so that the list below can differ
    (data,) = tmp_path.glob("exports/*/*/tuned-*/*.data")
    data.write_bytes(bytes(data.stat().st_size))
    monkeypatch.setattr(tuned, "_tune", lambda *_, **__: "No space left on device")
    found = answer()
    assert found["text"] == wanted
    assert any("No space left on device" in text for text in found.warnings)
    assert len(opened) == 1
