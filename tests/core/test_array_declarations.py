"""Code that gives and takes arrays of numpy is held to what it declares, as code with tensors is."""

from __future__ import annotations

from contextlib import suppress

import numpy
import pytest
import torch

import modelgraft as mg
from modelgraft.testing import conform, open_node, run_node
from support.arrays import CHAIN, FLOATS, doubling, lengths, measuring
from support.running import TEXT, Counter, function, opened


def test_an_array_that_nobody_declared_is_told_with_the_way_out(tmp_path):
    """At the first run."""
    part = function("toy/quiet", TEXT, {"out": FLOATS}, lengths)
    with opened(tmp_path, [part], {"a": {"use": "toy/quiet", "in": {"x": "inputs.x"}}}, outputs={"out": "a"}) as pipeline:
        message = r"output 'out': found float32\[1 2\], wanted float\[batch 2\]: a torch tensor, or say arrays=True where it is declared"
        with pytest.raises(mg.NodeError, match=message):
            pipeline.run(x="a")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (numpy.zeros((1, 3), numpy.float32), r"found float32\[1 3\], wanted float\[batch 2\]: an axis is 3 long, not 2"),
        (numpy.zeros((1, 2), numpy.int64), r"found int64\[1 2\], wanted float\[batch 2\]: the dtype is int64, not "),
        (numpy.zeros((4, 2), numpy.float32), r"found float32\[4 2\], wanted float\[batch 2\]: it holds 4 records, the batch 1"),
        ([[1.0, 2.0]], r"found a list of 1, wanted float\[batch 2\]: a torch tensor$"),
    ],
)
def test_arrays_are_held_to_their_declaration(tmp_path, given, message):
    """As tensors are."""
    part = function("toy/odd", TEXT, {"out": FLOATS}, lambda x: given, arrays=True)
    pipeline = opened(tmp_path, [part], {"a": {"use": "toy/odd", "in": {"x": "inputs.x"}}}, outputs={"out": "a"})
    with pipeline, pytest.raises(mg.NodeError, match=message):
        pipeline.run(x="a")


def test_code_that_takes_either_is_given_what_comes(tmp_path):
    """Arrays of what gives arrays, tensors of what gives tensors, and a user gets tensors of both."""
    seen = Counter()
    either = function("toy/either", {"x": FLOATS}, {"out": FLOATS}, lambda x: seen.note(type(x)) or x, arrays="either")
    tensors = function("toy/numbers", TEXT, {"out": FLOATS}, lambda x: torch.from_numpy(lengths(x)))
    nodes = {name: {"use": f"toy/{use}", "in": {"x": "inputs.x"}} for name, use in (("a", "lengths"), ("b", "numbers"))}
    nodes |= {f"{name}_on": {"use": "toy/either", "in": {"x": name}} for name in "ab"}
    with opened(tmp_path, [measuring(), tensors, either], nodes, outputs={"a": "a_on", "b": "b_on"}) as pipeline:
        found = pipeline.run(x="abc")
        assert torch.equal(found["a"], found["b"])
    assert set(seen.calls) == {numpy.ndarray, torch.Tensor}


def test_a_masked_array_is_refused(tmp_path):
    """What is masked in it would be numbers like others to whoever reads the wire."""
    part = function("toy/masked", TEXT, {"out": FLOATS}, lambda x: numpy.ma.masked_less(lengths(x), 1), arrays=True)
    told = r"'out': found a masked array, wanted float\[batch 2\]: fill what is masked first"
    nodes = {"a": {"use": "toy/masked", "in": {"x": "inputs.x"}}}
    with opened(tmp_path, [part], nodes, outputs={"out": "a"}) as pipeline, pytest.raises(mg.NodeError, match=told):
        pipeline.run(x="a")


@pytest.mark.parametrize(
    ("odd", "told"),
    [
        (lambda x: x.to_sparse(), r"found a tensor whose layout is sparse_coo, wanted float\[batch 2\]: numbers beside each other"),
        (lambda x: x.to_sparse_csr(), r"found a tensor whose layout is sparse_csr, wanted "),
        (lambda x: x.to_mkldnn(), r"found a tensor whose layout is mkldnn, wanted "),
        (lambda x: x.to("meta"), r"found a tensor whose layout is meta, a shape without numbers, wanted "),
        (lambda x: torch.nested.nested_tensor([*x]), r"found a tensor whose layout is nested, wanted "),
        (lambda x: x.to(torch.float8_e4m3fn), r"found float8_e4m3fn\[1 2\], wanted float\[batch 2\]: the dtype is float8_e4m3fn, not "),
    ],
)
@pytest.mark.filterwarnings("ignore:Sparse CSR", "ignore:The PyTorch API of nested tensors")  # torch says that they are new
def test_a_tensor_that_most_code_cannot_compute_with_is_told_with_its_port(tmp_path, odd, told):
    """By the node that gives it, and not as what torch has not implemented where somebody looks at it."""
    part = function("toy/odd", TEXT, {"out": FLOATS}, lambda x: odd(torch.ones(len(x), 2)))
    pipeline = opened(tmp_path, [part], {"a": {"use": "toy/odd", "in": {"x": "inputs.x"}}}, outputs={"out": "a"})
    with pipeline, pytest.raises(mg.NodeError, match=rf"toy/odd breaks its declaration in node 'a': output 'out': {told}"):
        pipeline.run(x="a")


def test_no_number_in_an_array_is_told_where_it_begins(tmp_path):
    """Once, at the node that gives it."""
    part = function("toy/nan", TEXT, {"out": FLOATS}, lambda x: numpy.full((len(x), 2), numpy.nan, numpy.float32), arrays=True)
    nodes = {"a": {"use": "toy/nan", "in": {"x": "inputs.x"}}, "two": {"use": "toy/arrays", "in": {"x": "a"}}}
    with opened(tmp_path, [part, doubling(Counter(), arrays=True)], nodes, outputs={"out": "two"}) as pipeline:
        (warning,) = pipeline.run(x="a").warnings
    assert warning.startswith("a: its output out holds NaN, and all that it was given are numbers")


@pytest.mark.parametrize("arrays", [True, False])
def test_code_that_writes_to_an_array_changes_nothing_that_others_hold(tmp_path, arrays):
    """It is named, and given copies: also where the array came to it as a tensor."""

    def spoil(x):
        x[:] = 0
        return x

    parts = [measuring(), function("toy/spoil", {"x": FLOATS}, {"out": FLOATS}, spoil, arrays=arrays)]
    nodes = {"long": CHAIN["long"], "spoil": {"use": "toy/spoil", "in": {"x": "long"}}}
    with opened(tmp_path, parts, nodes, outputs={"out": "spoil", "long": "long"}) as pipeline:
        for _ in range(3):
            found = pipeline.run(x="ab")
            assert found["long"].tolist() == [[2.0, 1.0]]
            assert "toy/spoil writes to its input x in place" in found.warnings[0]


def test_code_that_writes_now_and_then_changes_no_memory_that_may_not_be_written_to(tmp_path):
    """Numpy would refuse it; torch knows no such tensors, and would change the bytes of the plugin, or end the process in a mapped file."""
    held, calls = bytes(8), Counter()

    def seldom(x):
        calls.note(1)
        return x.add_(1.0).clone() if len(calls.calls) > 1 else x.clone()

    given = function("toy/given", TEXT, {"out": FLOATS}, lambda x: numpy.frombuffer(held, numpy.float32).reshape(1, 2), arrays=True)
    parts = [given, function("toy/seldom", {"x": FLOATS}, {"out": FLOATS}, seldom)]
    nodes = {"a": {"use": "toy/given", "in": {"x": "inputs.x"}}, "b": {"use": "toy/seldom", "in": {"x": "a"}}}
    with opened(tmp_path, parts, nodes, outputs={"out": "b"}) as pipeline:
        for _ in range(3):
            with suppress(mg.NodeError):  # where its calls are long enough to be looked at
                pipeline.run(x="a")
    assert len(calls.calls) == 3
    assert held == bytes(8)


@pytest.mark.parametrize(("kind", "facts", "reason"), [
    ("projector", {"module": "toy:Module"}, "a module computes with tensors of torch"),
    ("loss", {"load": "toy:load"}, "a loss is followed by gradients"),
])  # fmt: skip
def test_a_declaration_that_cannot_be_kept_is_refused(kind, facts, reason):
    """At once."""
    with pytest.raises(mg.PluginError, match=rf"component 'toy/odd': arrays= is of code that load= gives, or of a function; {reason}"):

        @mg.component("toy/odd", kind=kind, inputs={"x": FLOATS}, outputs={"y": FLOATS}, arrays=True, **facts)
        class Odd(mg.Config):
            """Do nothing."""


def test_code_that_gives_the_other_form_than_it_declares_is_told():
    """By `conform`, as `modelgraft plugins check` tells it; what keeps its word passes, and a test is handed tensors."""
    conform(function("toy/kept", {"x": FLOATS}, {"out": FLOATS}, lambda x: x * 2, arrays=True))
    assert torch.equal(run_node(measuring(), x=["ab"])["out"], torch.tensor([[2.0, 1.0]]))
    tensors = function("toy/other", {"x": FLOATS}, {"out": FLOATS}, lambda x: torch.from_numpy(x * 2), arrays=True)
    with pytest.raises(Exception, match="arrays: 'out' holds tensors of torch, and it is declared with arrays=True"):
        conform(tensors)
    with pytest.raises(Exception, match="arrays: 'out' holds arrays of numpy, and it is not declared with arrays=True"):
        conform(function("toy/quiet", {"x": FLOATS}, {"out": FLOATS}, lambda x: (x * 2).numpy()))


@pytest.mark.parametrize("arrays", [False, True])
def test_code_that_is_called_alone_may_be_given_fewer_values_than_it_has_inputs(arrays):
    """What is optional and stands last is left out, as its default says; the others come in the form that it declares."""

    def both(x, more=None):
        assert isinstance(x, numpy.ndarray if arrays else torch.Tensor)
        return x if more is None else x + more

    inputs = {"x": FLOATS, "more": f"optional[{FLOATS}]"}
    trial = open_node(function("toy/both", inputs, {"out": FLOATS}, both, arrays=arrays))
    one = numpy.ones((1, 2), numpy.float32)
    assert trial(one)["out"].tolist() == [[1, 1]]
    assert trial(one, torch.ones(1, 2))["out"].tolist() == [[2, 2]]
