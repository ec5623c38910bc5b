"""Graphs for many rows: products by the numbers of the blocks, of the same file, and only for many rows."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from tests.plugins.onnx.test_kept_blocks import SIZES
from tests.plugins.test_formats import gguf_of, randomised
from transformers import LlamaConfig, LlamaForCausalLM

import modelgraft as mg
from modelgraft import InputError
from modelgraft.plugin import seals
from modelgraft_plugins.onnx import many_rows, measured, traced
from modelgraft_plugins.onnx.begun import started, tuned_folder
from modelgraft_plugins.onnx.by_rows import ByRows
from modelgraft_plugins.onnx.graphs import SessionGraph
from modelgraft_plugins.onnx.opened import FolderOpened
from modelgraft_plugins.onnx.reducing import matrices_of, reduce, save
from modelgraft_plugins.onnx.runtime import open_on_host, options_of
from modelgraft_plugins.onnx.sessions import open_session
from modelgraft_plugins.onnx.traced import open_many

ROWS, COLUMNS, SIZE = 128, 96, 32


def exact(rows, columns, *, seed):
    """A matrix [rows columns] that is the same in blocks: each has whole numbers, the largest -128, times a power of two."""
    rng = np.random.default_rng(seed)
    whole = rng.integers(-127, 128, (columns, rows // SIZE, SIZE))
    whole[:, :, 5] = -128
    scales = 2.0 ** rng.integers(-9, -4, (columns, rows // SIZE, 1))
    return (whole * scales).reshape(columns, rows).T.astype(np.float32).copy()


@pytest.fixture
def written(tmp_path):
    """A function that writes two products and, behind a row that is picked, a third, in blocks of so many bits; gives the matrices."""

    def made(bits):
        matrices = [exact(ROWS, COLUMNS, seed=1), exact(COLUMNS, ROWS, seed=2), exact(ROWS, COLUMNS, seed=3)]
        nodes = [
            helper.make_node("MatMul", ["x", "w0"], ["a"], name="first"), helper.make_node("MatMul", ["a", "w1"], ["y"], name="second"),
            helper.make_node("Gather", ["y", "last"], ["picked"], axis=1), helper.make_node("MatMul", ["picked", "w2"], ["z"], name="head"),
        ]  # fmt: skip
        ports = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", "tokens", None]) for name in "xyz"}
        constants = [numpy_helper.from_array(matrix, f"w{number}") for number, matrix in enumerate(matrices)]
        constants.append(numpy_helper.from_array(np.array([2]), "last"))
        graph = helper.make_graph(nodes, "g", [ports["x"]], [ports["y"], ports["z"]], constants)
        model = ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10))
        reduce(model, dynamic=(), blocked=matrices_of(model), bits=bits, size=SIZE, dynamic_bits=8)
        save(model, tmp_path / "model.onnx")
        return matrices

    return made


def test_many_rows_are_multiplied_by_the_very_numbers_of_the_blocks(written, tmp_path):
    """What a row holds is brought to 8 bits no more: as near to torch as float32 is, where blocks are not."""
    first, second, head = (torch.from_numpy(matrix).double() for matrix in written(8))
    assert many_rows.write(tmp_path / "model.onnx", measured.beside(tmp_path / "model.onnx"))
    x = torch.randn(2, 7, ROWS, generator=torch.Generator().manual_seed(4))
    wanted = x.double() @ first @ second
    many, few = (open_session(tmp_path / name, device="cpu").run(None, {"x": x.numpy()}) for name in ("model.many.onnx", "model.onnx"))
    assert np.abs(many[0] - wanted.numpy()).max() < 1e-5 * wanted.abs().max()
    assert np.abs(few[0] - wanted.numpy()).max() > 1e-4 * wanted.abs().max()
    last = (wanted[:, 2:3] @ head).numpy()
    assert np.abs(many[1] - last).max() < 0.02 * np.abs(last).max()  # by blocks: one row


def test_the_graph_for_many_rows_has_no_weights_of_its_own(written, tmp_path):
    """They are those of the file beside the other graph, where it reads scales too; the product of few rows stays in blocks."""
    written(8)
    many = measured.beside(tmp_path / "model.onnx")
    assert many_rows.write(tmp_path / "model.onnx", many)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model.many.onnx", "model.onnx", "model.onnx.data"]
    graph = ir.load(many).graph
    assert [node.name for node in graph if node.op_type == "MatMulNBits"] == ["head"]
    numbers = [node.inputs[0].const_value for node in graph if node.op_type == "DequantizeLinear"]
    assert [tuple(tensor.shape) for tensor in numbers] == [(COLUMNS * ROWS // SIZE, SIZE)] * 2  # a row for each block
    assert {tensor.location for tensor in numbers} == {"model.onnx.data"}


def test_a_matrix_is_made_just_before_it_is_multiplied(written, tmp_path):
    """By itself onnxruntime makes all of them first: of a large model as many bytes as float32 has."""
    written(8)
    many = measured.beside(tmp_path / "model.onnx")
    many_rows.write(tmp_path / "model.onnx", many)
    options = options_of(as_needed=True)
    options.enable_profiling, options.profile_file_prefix = True, str(tmp_path / "profile")
    session = open_on_host(many, options)
    session.run(None, {"x": np.ones((2, 7, ROWS), np.float32)})
    events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    ran = [event["args"]["op_name"] for event in events if event["name"].endswith("_kernel_time")]
    assert [name for name in ran if name in {"DequantizeLinear", "FusedMatMul"}] == ["DequantizeLinear", "FusedMatMul"] * 2


def test_blocks_of_4_bits_have_none(written, tmp_path):
    """For those float32 is no faster."""
    written(4)
    assert not many_rows.write(tmp_path / "model.onnx", tmp_path / "many.onnx")
    assert not (tmp_path / "many.onnx").exists()


def test_runs_go_to_the_graph_for_their_rows(written, tmp_path):
    """All tokens of a batch are counted; the graph for many is opened when they come, and once, whoever asks."""
    written(8)
    opened = []

    def open_many():
        opened.append(SessionGraph(open_session(tmp_path / "model.onnx", device="cpu"), device="cpu"))
        return opened[-1]

    few = SessionGraph(open_session(tmp_path / "model.onnx", device="cpu"), device="cpu")
    graph = ByRows(few, open_many, many=12)
    assert graph._for(torch.empty(1, 11, ROWS)) is few
    assert graph._for(torch.empty(3, 3, ROWS)) is few
    assert not opened
    with ThreadPoolExecutor(4) as pool:
        found = set(pool.map(lambda _: graph._for(torch.empty(3, 4, ROWS)), range(8)))
    assert found == set(opened)
    assert len(opened) == 1
    x = torch.randn(1, 12, ROWS, generator=torch.Generator().manual_seed(4))
    bound = graph.bind({"x": x}, {"y": None, "z": None})
    bound.run()
    for mine, theirs in zip(bound.made().values(), few(x), strict=True):
        assert np.array_equal(mine, theirs)


@pytest.mark.slow
def test_texts_are_the_same_where_prompts_are_read_by_float32(tmp_path, monkeypatch):
    """Through a whole model: alone, in a batch, and with a beginning that was read before."""
    model = randomised(LlamaForCausalLM(LlamaConfig(**SIZES, tie_word_embeddings=True)))
    gguf_of(tmp_path / "m.gguf", model, "llama", "Q8_0")
    (tmp_path / "g.yaml").write_text(
        "modelgraft: 1\ninputs: {q: text}\noutputs: {text: a.text}\n"
        "nodes: {a: {use: llm/causal, from: ./m.gguf, frozen: true, in: {q: inputs.q}, with: {prompt: '{q}', max_new_tokens: 8}}}\n"
    )
    monkeypatch.setenv("MODELGRAFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(measured, "widens", lambda: True)
    monkeypatch.setattr("modelgraft_plugins.onnx.opened.MANY", 8)
    asked = ["a long question indeed", "another of about as many"]
    texts, used = {}, []
    for widens in (False, True):
        monkeypatch.setattr(traced, "widens_here", lambda widens=widens: widens)
        monkeypatch.setattr(traced, "started", lambda what: used.append(what.path.name) or started(what))
        with mg.open(tmp_path / "g.yaml", backend="onnx", precision="w8", export="now") as opened:
            alone = [opened.run(q=text)["text"] for text in asked]
            together = opened.run(q=asked)["text"]
            further = opened.run(q=f"{asked[0]} x")["text"]
            texts[widens] = (alone, list(together), further)
        assert used == (["model.many.onnx"] if widens else [])
    assert texts[True] == texts[False]


def test_weights_that_only_long_prompts_read_are_proven_when_a_pipeline_opens(written, tmp_path):
    """The graph for few rows is read as it was tuned, with weights of its own: its session proves those alone."""
    written(8)
    many_rows.write(tmp_path / "model.onnx", measured.beside(tmp_path / "model.onnx"))
    seals.seal(tmp_path)
    tuned_folder(tmp_path, "model.onnx").mkdir()

    def session(file):
        return open_session(tmp_path / file, device="cpu")

    opened = FolderOpened(tmp_path, {"notes": {}, "kept": {}}, session, device="cpu", weights=None, of_many=session)
    assert isinstance(opened.graph("model"), ByRows)
    content = bytearray((tmp_path / "model.onnx.data").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "model.onnx.data").write_bytes(content)
    with pytest.raises(seals.BrokenSeal, match=r"model\.onnx\.data"):
        opened.graph("model")


@pytest.mark.parametrize(("held", "said"), [(None, "is gone"), (b"cut", "cannot be read")])
def test_a_cache_that_is_deleted_beneath_a_pipeline_is_told(tmp_path, held, said):
    """The graph for many rows is opened in the middle of a run: where it lies, and what to do."""
    path = tmp_path / "decoder.many.onnx"
    if held is not None:
        path.write_bytes(held)
    with pytest.raises(InputError, match=rf"tokens and more {said}.*{path.name}.*open the pipeline anew"):
        open_many(path, count=1)
