"""A token that is chosen behind a layer is chosen before it: the numbers stay, and the others are not computed."""

from __future__ import annotations

from collections.abc import Callable

import numpy
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from modelgraft_plugins.onnx import chosen_rows
from modelgraft_plugins.onnx.chosen_rows import choose_early
from modelgraft_plugins.onnx.runtime import open_on_host, options_of

BATCH, TOKENS, WIDE, HEADS = 2, 7, 6, 2


def layer(change: Callable[[list[onnx.NodeProto]], None] | None = None, *, place: int = 0, read: str = "") -> onnx.ModelProto:
    """A graph of a transformer's layer, its norm, a token of it, and a head of three classes.

    read  a value of it that is given as well
    """
    draw = numpy.random.default_rng(0)
    sizes = dict.fromkeys(("q", "k", "v", "o"), (WIDE, WIDE)) | {"up": (WIDE, 11), "down": (11, WIDE), "head": (WIDE, 3)}
    held = {name: draw.standard_normal(size).astype(numpy.float32) for name, size in sizes.items()}
    held |= {"bias": draw.standard_normal(WIDE).astype(numpy.float32), "place": numpy.array(place), "ones": numpy.ones(WIDE, numpy.float32)}
    steps = [
        ("LayerNormalization", ["x", "ones", "bias"], "n", {"axis": -1}),
        *(("MatMul", ["n", name], f"{name}.y", {}) for name in "qkv"),
        ("Attention", ["q.y", "k.y", "v.y"], "a", {"q_num_heads": HEADS, "kv_num_heads": HEADS}),
        ("MatMul", ["a", "o"], "o.y", {}),
        ("Add", ["o.y", "x"], "s", {}),
        ("MatMul", ["s", "up"], "up.y", {}),
        ("Gelu", ["up.y"], "g", {}),
        ("MatMul", ["g", "down"], "down.y", {}),
        ("Add", ["down.y", "bias"], "down.b", {}),
        ("Add", ["s", "down.b"], "t", {}),
        ("LayerNormalization", ["t", "ones", "bias"], "u", {"axis": -1}),
        ("Gather", ["u", "place"], "one", {"axis": 1}),
        ("MatMul", ["one", "head"], "y", {}),
    ]
    nodes = [helper.make_node(kind, given, [name], **facts) for kind, given, name, facts in steps]
    if change is not None:
        change(nodes)
    given = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("batch", TOKENS, WIDE))]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in filter(None, ("y", read))]
    graph = helper.make_graph(nodes, "layer", given, outputs, [numpy_helper.from_array(array, name) for name, array in held.items()])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)


def answers(model: onnx.ModelProto) -> list[numpy.ndarray]:
    """Of the same records."""
    x = numpy.random.default_rng(1).standard_normal((BATCH, TOKENS, WIDE)).astype(numpy.float32)
    return open_on_host(model.SerializeToString(), options_of()).run(None, {"x": x})


def lengths(model: onnx.ModelProto) -> dict[str, int]:
    """How many tokens values have, as onnxruntime computes them."""
    names = ("q.y", "k.y", "a", "s", "g", "u")
    del model.graph.output[:]
    model.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names)
    return {name: found.shape[1] for name, found in zip(names, answers(model), strict=True)}


@pytest.mark.parametrize("place", [0, 3, -1])
def test_a_layer_is_computed_for_the_token_that_is_chosen(place):
    """But for the keys and values of all; by whichever end it is counted from."""
    before, model = answers(layer(place=place)), ir.from_proto(layer(place=place))
    assert choose_early(model) == 1
    after = ir.to_proto(model)
    numpy.testing.assert_allclose(answers(after)[0], before[0], rtol=1e-5, atol=1e-6)
    assert lengths(after) == {"q.y": 1, "k.y": TOKENS, "a": 1, "s": 1, "g": 1, "u": 1}


def mixing(nodes: list[onnx.NodeProto]) -> None:
    """Let tokens be mixed behind the layer."""
    (norm,) = [node for node in nodes if node.output[0] == "u"]
    nodes.insert(nodes.index(norm), helper.make_node("Softmax", ["t"], ["mixed"], axis=1))
    norm.input[0] = "mixed"


def causal(nodes: list[onnx.NodeProto]) -> None:
    """Let tokens see those before them alone: which one it is counts then."""
    (attention,) = [node for node in nodes if node.op_type == "Attention"]
    attention.attribute.append(helper.make_attribute("is_causal", 1))


def by_record(nodes: list[onnx.NodeProto]) -> None:
    """Choose of another axis."""
    (choice,) = [node for node in nodes if node.op_type == "Gather"]
    choice.attribute[0].i = 0


@pytest.mark.parametrize(
    ("change", "read", "moved", "short"),
    [(mixing, "", 0, set()), (by_record, "", 0, set()), (None, "u", 0, set()), (None, "t", 0, set()), (causal, "", 1, {"s", "g", "u"})],
)
def test_what_needs_other_tokens_is_computed_for_all(change, read, moved, short):
    """Where they are mixed, are asked for, or attend by their place; what is behind that is still computed for one."""
    model = ir.from_proto(layer(change, read=read))
    before = answers(layer(change, read=read))
    assert choose_early(model) == moved
    for one, other in zip(answers(ir.to_proto(model)), before, strict=True):
        numpy.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    if moved:
        assert {name for name, length in lengths(ir.to_proto(model)).items() if length == 1} == short


def test_shapes_are_not_asked_for_where_no_choice_can_be_moved(monkeypatch):
    """What is chosen from is given as well, so that it is computed for all tokens. Looking for shapes takes long."""
    monkeypatch.setattr(chosen_rows, "_tell_shapes", lambda model: pytest.fail("asked"))
    assert choose_early(ir.from_proto(layer(read="u"))) == 0
