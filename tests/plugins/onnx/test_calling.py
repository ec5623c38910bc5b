"""Exported nodes as they are called: on the host by numpy, on a device by pointer; the second on memory of the host here."""

from __future__ import annotations

import numpy
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from modelgraft.kernel.words.errors import InputError
from modelgraft.records.arrays import as_tensor
from modelgraft_plugins.onnx import calling
from modelgraft_plugins.onnx.calling import Exported
from modelgraft_plugins.onnx.sessions import open_session
from support.ordering import HostOrder

WEIGHT = torch.randn(6, 3, generator=torch.Generator().manual_seed(3))


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    """scores = left @ WEIGHT, [batch tokens 3]; joined = both side by side, of a size that no input has; where = joined > 0."""
    inputs = [
        helper.make_tensor_value_info("left", TensorProto.FLOAT, ["batch", "tokens", 6]),
        helper.make_tensor_value_info("right", TensorProto.FLOAT, ["batch", "frames", 6]),
    ]
    outputs = [
        helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", "tokens", 3]),
        helper.make_tensor_value_info("joined", TensorProto.FLOAT, ["batch", "both", 6]),
        helper.make_tensor_value_info("where", TensorProto.BOOL, ["batch", "both", 6]),
    ]
    nodes = [
        helper.make_node("MatMul", ["left", "weight"], ["scores"]),
        helper.make_node("Concat", ["left", "right"], ["joined"], axis=1),
        helper.make_node("Greater", ["joined", "zero"], ["where"]),
    ]
    constants = [numpy_helper.from_array(WEIGHT.numpy(), "weight"), numpy_helper.from_array(torch.zeros(1).numpy(), "zero")]
    model = helper.make_model(helper.make_graph(nodes, "g", inputs, outputs, constants), opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 10
    path = tmp_path_factory.mktemp("calling") / "g.onnx"
    onnx.save(model, path)
    return open_session(path, device="cpu")


def pair(batch=2, tokens=3, frames=5):
    generator = torch.Generator().manual_seed(batch)
    return torch.randn(batch, tokens, 6, generator=generator), torch.randn(batch, frames, 6, generator=generator)


def assert_right(found, left, right):
    scores, joined, where = map(as_tensor, found)
    assert (scores - torch.einsum("btd,dw->btw", left, WEIGHT)).abs().max() <= 1e-6
    both = torch.cat([left, right], 1)
    assert torch.equal(joined, both)
    assert torch.equal(where, both > 0)


@pytest.mark.parametrize("order", [None, HostOrder()], ids=["by numpy", "by pointer"])
def test_outputs_own_their_memory(session, order):
    """Arrays, by pointer tensors, of tensors and of arrays, of any sizes; a later call leaves the results of an earlier one alone; strides
    and other floating types are brought in order."""
    exported = Exported(session, device="cpu", order=order)
    first = pair()
    found = exported(*first)
    assert {type(value) for value in found} == {numpy.ndarray if order is None else torch.Tensor}
    assert_right(exported(first[0], first[1].numpy()), *first)
    assert_right(exported(first[0].numpy().astype(numpy.float64)[:, ::-1], first[1]), first[0].flip(1), first[1])
    later = pair(1, 4, 2)
    assert_right(exported(*later), *later)
    assert_right(found, *first)
    left, right = pair(3, 2, 7)
    turned = left.transpose(1, 2).contiguous().transpose(1, 2)
    assert not turned.is_contiguous()
    assert_right(exported(turned, right.double().requires_grad_()), left, right)
    empty = exported(left[:0], right[:0])
    assert [list(value.shape) for value in empty] == [[0, 2, 3], [0, 9, 6], [0, 9, 6]]


def test_on_a_device_nothing_is_copied_that_need_not_be(session, monkeypatch):
    """What lies there in the right type is bound itself, an output of a known size is written where it stays."""
    places = {}
    real = calling.bind
    monkeypatch.setattr(
        calling, "bind", lambda method, name, tensor: (places.update({name: tensor.data_ptr()}), real(method, name, tensor))
    )
    left, right = pair()
    scores, _, _ = Exported(session, device="cpu", order=HostOrder())(left, right)
    assert places == {"left": left.data_ptr(), "right": right.data_ptr(), "scores": scores.data_ptr()}


def test_a_device_is_left_to_work_in_order(session):
    """Inputs are announced, the host waits only for outputs that it reads (all of them here), results are handed over."""
    order = HostOrder()
    Exported(session, device="cpu", order=order)(*pair())
    assert order.heard == [("begin", 2), ("wait",), ("end",), ("hand over", 3)]


@pytest.mark.parametrize("order", [None, HostOrder()], ids=["by numpy", "by pointer"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda left, right: (left[..., :5], right), r"input 'left' is \[2 3 5\], and the graph takes \[batch tokens 6\]$"),
        (lambda left, right: (left[0], right), r"input 'left' is \[3 6\], and the graph takes \[batch tokens 6\]$"),
        (
            lambda left, right: (left, right[:1]),
            r"input 'right' is \[1 5 6\], and the graph takes \[batch frames 6\] \(batch is 2 in another input\)$",
        ),
        (lambda left, right: (left,), "1 inputs came, and the graph takes 2: left, right$"),
    ],
    ids=["width", "axes", "batches", "number"],
)
def test_sizes_that_a_graph_does_not_take_are_named(session, order, change, message):
    """With what was found and what is wanted, whatever onnxruntime would say."""
    with pytest.raises(InputError, match=message):
        Exported(session, device="cpu", order=order)(*change(*pair()))


def test_what_only_onnxruntime_sees_is_passed_on():
    """A size that an operator refuses: with the sizes that were given, and a way out."""

    class Refusing:
        def get_inputs(self):
            return [type("Entry", (), {"name": "x", "type": "tensor(float)", "shape": ["batch", "samples"]})]

        def run(self, wanted, feed):
            raise RuntimeError("[ONNXRuntimeError] : Non-zero status code\nand more")

    expected = r"the export cannot run on x \[1 2\], sizes that it does not serve; backend=\"torch\" may. onnxruntime said: .* status code$"
    with pytest.raises(InputError, match=expected):
        Exported(Refusing(), device="cpu")(torch.zeros(1, 2))


@pytest.mark.parametrize(("number", "kind"), [("nan", "NaN"), ("inf", "infinite")])
def test_outputs_that_are_not_finite_are_refused(session, number, kind):
    """The output, how many, in which records, and what to do; the largest numbers are passed on."""
    left, right = pair(3)
    left[1, 0, 0] = float(number)
    expected = (
        rf"output 'scores' of the export has 3 of 27 numbers that are {kind} \(records 1\); wanted: finite ones\. .* precision float32"
    )
    with pytest.raises(InputError, match=expected):
        Exported(session, device="cpu")(left, right)
    large = torch.full((2, 3, 6), 2e38), torch.full((2, 5, 6), 2e38)
    left, right = large[0] * 0, large[1]
    assert torch.equal(as_tensor(Exported(session, device="cpu")(left, right)[1]), torch.cat([left, right], 1))
