"""Blocks that a GGUF file holds are taken over as they are: every number is that of the `gguf` package, and products are by them."""

from __future__ import annotations

from functools import partial

import gguf as library
import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx import numpy_helper
from tests.plugins.test_formats import LLAMA, gguf_of, randomised
from transformers import LlamaConfig, LlamaForCausalLM

from modelgraft.installed.discovery import assemble
from modelgraft.sources import views, weights
from modelgraft_plugins import formats
from modelgraft_plugins.llm import built
from modelgraft_plugins.onnx import giving_back, reducing, tracing
from modelgraft_plugins.onnx.blocks import is_of
from modelgraft_plugins.onnx.kept_blocks import NOTED
from modelgraft_plugins.onnx.reducing import matrices_of, reduce, save
from modelgraft_plugins.onnx.sessions import open_session
from modelgraft_plugins.onnx.tracing import FolderTracer

REGISTRY = assemble({"formats": formats})
SIZES = {
    **LLAMA,
    "hidden_size": 96,
    "intermediate_size": 64,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 40,
}
BITS = {"Q4_0": 4, "Q4_1": 4, "Q8_0": 8}


@pytest.fixture
def published(tmp_path, monkeypatch):
    """Gives the model that a file in blocks holds, and its weights."""
    monkeypatch.setenv("MODELGRAFT_CACHE", str(tmp_path / "cache"))

    def made(kind, *, tied=True):
        model = randomised(LlamaForCausalLM(LlamaConfig(**SIZES, tie_word_embeddings=tied)))
        path = gguf_of(tmp_path / f"{kind}-{tied}.gguf", model, "llama", kind)
        found = weights.open(views.view(views.parse(str(path)), registry=REGISTRY, folder=None, trusted=True, offline=True), offline=True)
        model.load_state_dict(found.state(), strict=False)
        model.tie_weights()
        return model, found, path

    return made


def exported(model, found, folder, *, bits, keeps=True, known=True):
    """The graph in blocks, and how many of them were there already. known: the tracer knows beforehand how many bits are wanted."""
    tracer = FolderTracer(folder, half=False, weights=found, bits=bits if known else 0)
    built.export(built.known_of(model, SIZES["max_position_embeddings"]), tracer)
    (graph,) = tracer.unwritten.values()
    kept = reduce(graph, dynamic=(), blocked=matrices_of(graph), bits=bits, size=32, dynamic_bits=8, keeps=keeps)
    save(graph, folder / "model.onnx")
    return kept


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("kind", BITS)
def test_blocks_that_are_of_no_use_are_not_compared(published, tmp_path, monkeypatch, kind, bits):
    """Those of 4 bits around another number, where 8 are wanted; what is written is what is written where all were compared."""
    model, found, _ = published(kind)
    compared, compare = list[object](), tracing.is_of
    monkeypatch.setattr(tracing, "is_of", lambda blocks, tensor: compared.append(blocks) or compare(blocks, tensor))
    folders = [tmp_path / name for name in ("all", "known")]
    for folder in folders:
        folder.mkdir()
    first = exported(model, found, folders[0], bits=bits, known=False)
    every = len(compared)
    compared.clear()
    assert exported(model, found, folders[1], bits=bits) == first
    assert every > 0
    assert len(compared) == (0 if (kind, bits) == ("Q4_1", 8) else every)
    for name in ("model.onnx", "model.onnx.data"):
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()


def numbers_of(folder):
    """The matrix that each node multiplies by, float32[out in], worked out of what its graph holds; and its bits."""
    graph = onnx.load(folder / "model.onnx").graph
    held = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    beside = {node.name.removesuffix(".shifts"): held[node.input[1]] for node in graph.node if node.name.endswith(".shifts")}
    found = {}
    for node in graph.node:
        if node.op_type == "MatMulNBits":
            name, bits = node.name.removesuffix(".blocks"), next(fact.i for fact in node.attribute if fact.name == "bits")
            packed, scales = held[node.input[1]].astype(np.float32), held[node.input[2]]
            whole = packed.astype(np.uint8)
            numbers = whole if bits == 8 else np.stack([whole & 15, whole >> 4], -1).reshape(*whole.shape[:2], -1)
            zeros = np.full(scales.shape, 1 << (bits - 1))
            assert len(node.input) == 3, "zeros of its own make the operator slower"
            matrix = (numbers.astype(np.float32) - zeros[:, :, None].astype(np.float32)) * scales[:, :, None]
            matrix = matrix + beside[name].T[:, :, None] / 32 if name in beside else matrix
            found[name] = (matrix.reshape(len(matrix), -1), bits)
    return found


@pytest.mark.parametrize("kind", BITS)
def test_blocks_are_the_numbers_of_the_gguf_package(published, kind):
    """Bit by bit, in the order of the rows that transformers has."""
    _, found, path = published(kind)
    reader = library.GGUFReader(path)
    raw = next(tensor for tensor in reader.tensors if tensor.name == "blk.1.ffn_up.weight")
    blocks = found.blocks("model.layers.1.mlp.up_proj.weight")
    assert np.array_equal(blocks.rows(0, 64), library.quants.dequantize(raw.data, raw.tensor_type))
    every = found.keys()
    held = [key for key in every if len(found.shape(key)) == 2]
    assert len(held) == 15
    for key in held:  # among them queries and keys, whose rows are in another order in the file
        assert is_of(found.blocks(key), found.tensor(key)), key
    assert found.blocks("model.norm.weight") is None


@pytest.mark.parametrize(("kind", "tied"), [("Q4_0", True), ("Q4_1", True), ("Q8_0", False)])
def test_a_graph_multiplies_by_the_numbers_of_the_file(published, tmp_path, kind, tied):
    """All matrices of it, those side by side and a tied head included; those of q4_1 up to one rounding of a sum."""
    model, found, _ = published(kind, tied=tied)
    assert exported(model, found, tmp_path, bits=BITS[kind]) == 11
    state, matrices = model.state_dict(), numbers_of(tmp_path)
    assert len(matrices) == 11
    for name, (matrix, bits) in matrices.items():
        stem = name.removesuffix(".joined")
        names = [stem.replace("q_proj", each) for each in ("q_proj", "k_proj", "v_proj")] if stem != name else [stem]
        wanted = torch.cat([state[f"{each}.weight"] for each in names]).numpy()
        assert bits == BITS[kind]
        np.testing.assert_allclose(matrix, wanted, rtol=0, atol=3e-7 * np.abs(wanted).max() if kind == "Q4_1" else 0)


@pytest.mark.parametrize(("kind", "least"), [*((kind, reducing.WHOLE) for kind in BITS), ("Q4_1", 1024)])
def test_a_kept_graph_computes_as_torch_does(published, tmp_path, monkeypatch, kind, least):
    """Up to the 8 bits in which a row is read; rows of a batch, several tokens at once, a head in parts."""
    monkeypatch.setattr(reducing, "WHOLE", least)
    model, found, _ = published(kind)
    exported(model, found, tmp_path, bits=BITS[kind])
    ids = torch.tensor([[3, 40, 7, 200, 3], [5, 9, 31, 90, 17]])
    session = open_session(tmp_path / "model.onnx", device="cpu")
    past = {entry.name: np.zeros((2, 2, 16, 16), np.float32) for entry in session.get_inputs() if entry.name.startswith("past.")}
    given = {
        "inputs_embeds": model.get_input_embeddings()(ids).detach().numpy(), "position_ids": np.arange(5)[None].repeat(2, 0),
        "seqlens_k": np.full(2, 4, np.int32), "total": np.array([5], np.int32), "last": np.array([[1, 4], [2, 4]]),
    }  # fmt: skip
    logits = session.run(
        ["logits"], {**{name: value for name, value in given.items() if name in {e.name for e in session.get_inputs()}}, **past}
    )[0]
    wanted = model(ids).logits.detach().numpy()[[[0], [1]], [[1, 4], [2, 4]]]
    assert np.abs(logits - wanted).max() < 0.03 * np.abs(wanted).max()


def test_blocks_that_fit_what_is_asked_for_are_kept(published, tmp_path):
    """A file that holds all in 8 bits is brought to 4 anew; one in 4 bits serves who asks for 8, unless zero is a fraction there."""
    model, found, _ = published("Q8_0")
    for name in "abcd":
        (tmp_path / name).mkdir()
    assert exported(model, found, tmp_path / "a", bits=4) == 0
    assert {bits for _, bits in numbers_of(tmp_path / "a").values()} == {4}
    assert exported(model, found, tmp_path / "b", bits=8, keeps=False) == 0
    model, found, _ = published("Q4_0")
    assert exported(model, found, tmp_path / "c", bits=8) == 11
    assert {bits for _, bits in numbers_of(tmp_path / "c").values()} == {4}
    model, found, _ = published("Q4_1")
    assert exported(model, found, tmp_path / "d", bits=8) == 0
    assert {bits for _, bits in numbers_of(tmp_path / "d").values()} == {8}


def test_a_matrix_with_other_numbers_than_the_file_is_brought_to_blocks(published, tmp_path):
    """As adapters that were merged into it leave one."""
    model, found, _ = published("Q4_0")
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight[5, 7] += 1e-3
    assert exported(model, found, tmp_path, bits=4) == 10


def test_a_file_that_is_not_in_blocks_has_none(published):
    _, found, _ = published("F16")
    every = found.keys()
    assert {found.blocks(key) for key in every} == {None}


def test_parts_side_by_side_in_blocks_of_several_kinds_are_not_kept(published):
    """They would be one node, which has one number of bits."""
    from modelgraft_plugins.onnx.kept_blocks import kept_of

    four, eight = (published(kind)[1].blocks for kind in ("Q4_0", "Q8_0"))
    key = "model.layers.0.self_attn.k_proj.weight"
    weight = ir.Value(name="w", const_value=ir.tensor(np.zeros((96, 64), np.float32)))
    weight.meta[NOTED] = [partial(four, key), partial(eight, key)]
    assert kept_of({"node": weight}, bits=8) == {}
    weight.meta[NOTED] = [partial(four, key), partial(four, key)]
    assert kept_of({"node": weight}, bits=8)["node"].columns == 64


def test_pages_of_files_are_given_back_while_matrices_are_compared(monkeypatch):
    """Twenty times for a graph, and never for a few bytes: a file of 500 MB is not wholly there at once."""
    given = []
    monkeypatch.setattr(giving_back, "give_back_files", lambda: given.append(1))
    large, small = giving_back.GivingBack([5_000_000] * 100), giving_back.GivingBack([1000] * 100)
    for _ in range(100):
        large.note(5_000_000)
        small.note(1000)
    assert 15 <= len(given) <= 20


def test_pages_of_the_tensors_that_a_graph_reads_are_given_back_where_it_knows_them(monkeypatch):
    """All files that are mapped are looked through only for a graph that does not."""
    given = list[object]()
    monkeypatch.setattr(giving_back, "give_back_files", lambda: given.append("all"))
    monkeypatch.setattr("modelgraft.plugin.giving_back", lambda tensors: lambda: given.append(list(tensors)))
    for tensors in ((), ("a", "b")):
        giving_back.GivingBack([1 << 23], tensors).note((1 << 23) + 1)
    assert given == ["all", ["a", "b"]]
