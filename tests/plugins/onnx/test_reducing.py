"""Matrices in 8 and 4 bits: the numbers that onnxruntime's own quantisers would write, made as a graph is written."""

from __future__ import annotations

import errno
import os
import resource
from collections import Counter

import numpy
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer

from modelgraft_plugins.onnx import reducing
from modelgraft_plugins.onnx.keys import dynamic_bits
from modelgraft_plugins.onnx.sessions import open_session

DRAW = numpy.random.default_rng(0)
WIDTH, INNER = 40, 72  # no multiples of a block


def drawn(*shape):
    return DRAW.standard_normal(shape).astype(numpy.float32) * 0.2


WEIGHTS = {"up": drawn(INNER, WIDTH), "bias": drawn(INNER), "side": drawn(WIDTH, INNER), "down": drawn(INNER, WIDTH)}
WEIGHTS["side"][:, 3] = 0.0  # a column of zeros has no scale of its own


def model(*, turned):
    """Two matrices that read x, the first a Gemm whose weight may lie turned, and one that narrows; a product without weights."""
    nodes = [
        helper.make_node("Gemm", ["x", "up", "bias"], ["a"], "up", transB=1)
        if turned
        else helper.make_node("MatMul", ["x", "upT"], ["p"], "up"),
        *([] if turned else [helper.make_node("Add", ["p", "bias"], ["a"], "sum")]),
        helper.make_node("MatMul", ["x", "side"], ["b"], "side"),
        helper.make_node("Mul", ["a", "b"], ["c"], "gate"),
        helper.make_node("MatMul", ["c", "down"], ["y"], "down"),
        helper.make_node("Transpose", ["x"], ["t"], "turn"),
        helper.make_node("MatMul", ["x", "t"], ["z"], "own"),
    ]
    tensors = {**WEIGHTS, "upT": WEIGHTS["up"].T.copy()}
    used = {name for node in nodes for name in node.input}
    held = [numpy_helper.from_array(array, name) for name, array in tensors.items() if name in used]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", WIDTH])
    y, z = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", size]) for name, size in (("y", WIDTH), ("z", "rows")))
    graph = helper.make_graph(nodes, "g", [x], [y, z], held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def plain(tmp_path):
    """The graph as the quantisers of onnxruntime read it, and its file."""
    path = tmp_path / "plain.onnx"
    onnx.save(model(turned=False), path)
    return path


def reduced(tmp_path, **given):
    """The graph brought to other numbers here: the outputs of a session on it, and its operators."""
    one, path = ir.from_proto(model(turned=True)), tmp_path / "reduced.onnx"
    reducing.reduce(one, **{"dynamic": (), "blocked": (), "bits": 8, "size": 32, "dynamic_bits": 8, **given})
    reducing.save(one, path)
    return run(path), Counter(node.op_type for node in one.graph)


def run(path):
    x = numpy.random.default_rng(1).standard_normal((5, WIDTH)).astype(numpy.float32)
    return open_session(path, device="cpu").run(["y", "z"], {"x": x})


def test_matrices_are_found_with_the_way_they_go():
    """However they lie; a product of two values has none."""
    assert reducing.matrices_of(ir.from_proto(model(turned=True))) == {"up": False, "side": False, "down": True}
    assert reducing.matrices_of(ir.from_proto(model(turned=False))) == {"up": False, "side": False, "down": True}


@pytest.mark.parametrize("bits", [8, 4])
def test_blocks_are_those_of_onnxruntimes_quantiser(bits, tmp_path):
    """Number by number, so that both graphs give the same."""
    config = DefaultWeightOnlyQuantConfig(block_size=32, is_symmetric=True, accuracy_level=4, bits=bits)
    quantiser = MatMulNBitsQuantizer(onnx.load(plain(tmp_path)), algo_config=config)
    quantiser.process()
    quantiser.model.save_model_to_file(str(tmp_path / "theirs.onnx"), use_external_data_format=False)
    got, operators = reduced(tmp_path, blocked=("up", "side", "down"), bits=bits)
    assert (operators["MatMulNBits"], operators["MatMul"], operators["Gemm"]) == (3, 1, 0)
    for mine, theirs in zip(got, run(tmp_path / "theirs.onnx"), strict=True):
        numpy.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("bits", [8, 4])
def test_large_matrices_in_parts_give_the_same(bits, tmp_path, monkeypatch):
    """No part is larger than wanted, so that whoever packs them never holds a whole one twice; each column has the numbers that it had."""
    wanted, whole = reduced(tmp_path, blocked=("up", "side", "down"), bits=bits)
    held = constants(tmp_path / "reduced.onnx")
    monkeypatch.setattr(reducing, "WHOLE", 20 * INNER)
    got, operators = reduced(tmp_path, blocked=("up", "side", "down"), bits=bits)
    parts = constants(tmp_path / "reduced.onnx")
    assert (whole["MatMulNBits"], operators["MatMulNBits"], operators["Concat"]) == (3, 6, 3)
    facts = [{fact.name: fact.i for fact in node.attribute} for node in onnx.load(tmp_path / "reduced.onnx").graph.node]
    assert all(each["K"] * (each["N"] - 16) < 20 * INNER for each in facts if "K" in each)
    for name in filter(lambda name: name.endswith((".packed", ".scales")), held):
        stem, half = name.rsplit(".", 1)
        mine = sorted(
            (int(other.split(".")[-2]), array) for other, array in parts.items() if other.startswith(stem) and other.endswith(half)
        )
        numpy.testing.assert_array_equal(numpy.concatenate([array for _, array in mine]), held[name])
    for mine, theirs in zip(got, wanted, strict=True):  # a bias may be added elsewhere, and a sum ends in another digit
        numpy.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-5)


def constants(path):
    return {held.name: numpy_helper.to_array(held, str(path.parent)) for held in onnx.load(path).graph.initializer}


@pytest.mark.parametrize("bits", [8, 7])
def test_dynamic_products_are_those_of_onnxruntimes_quantiser(bits, tmp_path):
    """With 7 bits where pairs of products overflow; what two matrices read is brought to 8 bits once."""
    quantize_dynamic(
        plain(tmp_path), tmp_path / "theirs.onnx", op_types_to_quantize=["MatMul"], nodes_to_quantize=["up", "side", "down"],
        weight_type=QuantType.QInt8, per_channel=True, reduce_range=bits == 7,
    )  # fmt: skip
    got, operators = reduced(tmp_path, dynamic=("up", "side", "down"), dynamic_bits=bits)
    assert (operators["MatMulInteger"], operators["DynamicQuantizeLinear"]) == (3, 2)
    for mine, theirs in zip(got, run(tmp_path / "theirs.onnx"), strict=True):
        numpy.testing.assert_allclose(mine, theirs, rtol=1e-6, atol=1e-6)


def test_both_ways_stand_in_one_graph(tmp_path):
    """The narrowing matrix in blocks, the others dynamic, in as many bits as this processor multiplies; near what the graph gave."""
    got, operators = reduced(tmp_path, dynamic=("up", "side"), blocked=("down",), dynamic_bits=dynamic_bits())
    assert (operators["MatMulInteger"], operators["MatMulNBits"]) == (2, 1)
    for mine, theirs in zip(got, run(plain(tmp_path)), strict=True):
        assert abs(mine - theirs).max() <= 0.03 * abs(theirs).max()


def test_numbers_are_made_when_they_are_written_and_not_kept(tmp_path):
    """Nothing is read before; what is written twice is made twice."""
    one, asked = ir.from_proto(model(turned=True)), Counter[str]()
    for name, value in one.graph.initializers.items():
        array = value.const_value.numpy()
        value.const_value = ir.LazyTensor(
            lambda array=array, name=name: asked.update([name]) or ir.Tensor(array, name=name),
            dtype=ir.DataType.FLOAT, shape=value.const_value.shape, name=name,
        )  # fmt: skip
    reducing.reduce(one, dynamic=(), blocked=("up", "side", "down"), bits=4, size=32, dynamic_bits=8)
    assert not asked
    reducing.save(one, tmp_path / "once.onnx")
    assert asked == {"up": 1, "side": 1, "down": 1, "bias": 1}
    reducing.save(one, tmp_path / "twice.onnx")
    assert asked["up"] == 2


def test_what_stops_the_writing_of_weights_is_told_as_the_system_tells_it(tmp_path):
    """Numpy tells how many bytes of an array were taken: here no file may be longer than a part of one matrix."""
    x = ir.Value(name="x", shape=ir.Shape(["rows", 300]), type=ir.TensorType(ir.DataType.FLOAT))
    wide = ir.Value(name="wide", const_value=ir.tensor(drawn(300, 600), name="wide"))  # 720 kB
    node = ir.node("MatMul", [x, wide])
    one = ir.Model(ir.Graph([x], node.outputs, nodes=[node], initializers=[wide], opset_imports={"": 21}), ir_version=10)
    allowed = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, allowed[1]))
    try:
        with pytest.raises(OSError, match=os.strerror(errno.EFBIG)):
            reducing.save(one, tmp_path / "wide.onnx")
        assert list(tmp_path.iterdir()) == []
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, allowed)
