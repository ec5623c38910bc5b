"""Nobody writes to what another holds: users, nodes, the cache, whoever watches."""

from __future__ import annotations

import copy
import pickle
import sys
import time
from types import ModuleType

import numpy
import pytest
import torch
from PIL import Image

import modelgraft as mg
from modelgraft.records import owning
from modelgraft.records.owning import own, twin
from modelgraft.testing import ConformanceError, conform
from modelgraft_plugins.torch.backend import TorchBackend
from support.running import document, function, graph_of, opened, registry_of

NUMBERS = "float[batch n]"
X = {"x": NUMBERS}


def whole(id="toy/whole", **facts):
    """Gives what it was given."""
    return function(id, X, {"out": NUMBERS}, lambda x: x, **facts)


def doubling(id="toy/double", calls=None, **facts):
    """Doubles in memory of its own."""

    def double(x):
        if calls is not None:
            calls.append(1)
        return 2 * x

    return function(id, X, {"out": NUMBERS}, double, **facts)


def zeroing(id="toy/zero", **facts):
    """Works in place."""
    return function(id, X, {"out": NUMBERS}, lambda x: x.zero_(), **facts)


def side_by_side(tmp_path, **options):
    """One that writes and one that reads what is given, and what both give."""
    nodes = {name: {"use": use, "in": {"x": "inputs.x"}} for name, use in (("a", "toy/zero"), ("b", "toy/double"), ("c", "toy/whole"))}
    outputs = {"zero": "a", "double": "b", "whole": "c"}
    return opened(tmp_path, [zeroing(), doubling(), whole()], nodes, inputs=X, outputs=outputs, **options)


def test_a_user_may_write_to_a_result(tmp_path):
    """Neither the cache, nor the other outputs, nor what was given change by it."""
    calls, given = [], torch.ones(1, 3)
    nodes = {"a": {"use": "toy/double", "in": {"x": "inputs.x"}}}
    parts, outputs = [doubling(calls=calls, cache=True)], {"y": "a", "same": "a", "back": "inputs.x"}
    with opened(tmp_path, parts, nodes, inputs=X, outputs=outputs) as pipeline:
        for _ in range(3):
            result = pipeline.run(x=given)
            assert [result[name].tolist() for name in outputs] == [[[2.0] * 3], [[2.0] * 3], [[1.0] * 3]]
            result["y"].zero_()
            assert result["same"].tolist() == [[2.0] * 3]
            result["back"].zero_()
    assert given.tolist() == [[1.0] * 3]
    assert calls == [1]


def test_a_cached_result_is_not_tied_to_what_was_given(tmp_path):
    """A node that hands on its input keeps nothing of the user's in the cache."""
    nodes = {"a": {"use": "toy/whole", "in": {"x": "inputs.x"}}}
    with opened(tmp_path, [whole(cache=True)], nodes, inputs=X, outputs={"y": "a"}) as pipeline:
        given = torch.ones(1, 3)
        pipeline.run(x=given)
        given.zero_()
        found = pipeline.run(x=torch.ones(1, 3))
        assert found.cached == {"a"}
        assert found["y"].tolist() == [[1.0] * 3]


@pytest.mark.parametrize("folder", [False, True])
def test_a_node_that_fills_the_same_memory_again_reaches_no_earlier_result(tmp_path, folder):
    """Neither the cache nor what a user holds of an earlier run."""
    kept = torch.zeros(1, 3)
    parts = [function("toy/kept", X, {"out": NUMBERS}, lambda x: torch.add(x, 0, out=kept), cache=True)]
    nodes = {"a": {"use": "toy/kept", "in": {"x": "inputs.x"}}}
    options = {"cache_dir": tmp_path / "cache"} if folder else {}
    with opened(tmp_path, parts, nodes, inputs=X, outputs={"y": "a"}, **options) as pipeline:
        one = pipeline.run(x=torch.ones(1, 3))["y"]
        pipeline.run(x=torch.full((1, 3), 2.0))
        assert one.tolist() == [[1.0] * 3]
        assert pipeline.run(x=torch.ones(1, 3))["y"].tolist() == [[1.0] * 3]


@pytest.mark.parametrize("run", range(20))
def test_a_node_that_works_in_place_changes_nothing_of_others(tmp_path, run):
    """Right from the first run on, in lanes and in straight code, whatever the order; and it is said with plugin, node and port."""
    given = torch.ones(2, 3)
    with side_by_side(tmp_path) as pipeline:
        for _ in range(4):
            result = pipeline.run(x=given)
            assert result["zero"].sum() == 0
            assert result["double"].sum() == 12
            assert result["whole"].sum() == 6
            said = "a: plugin 'toy': toy/zero writes to its input x in place; it is given a copy in every run, which takes time"
            assert result.warnings == (said,)
    assert given.sum() == 6


def test_a_node_whose_first_call_writes_what_was_there_is_found_all_the_same(tmp_path):
    """`relu_` of what is positive already changes nothing, and will another time: torch's count of writes tells it."""
    parts = [function("toy/relu", X, {"out": NUMBERS}, lambda x: x.relu_()), doubling(), whole()]
    nodes = {"w": {"use": "toy/double", "in": {"x": "inputs.x"}}} | {
        name: {"use": use, "in": {"x": "w"}} for name, use in (("a", "toy/relu"), ("b", "toy/double"), ("c", "toy/whole"))
    }
    with opened(tmp_path, parts, nodes, inputs=X, outputs={"relu": "a", "double": "b", "whole": "c"}) as pipeline:
        for sign in (1.0, -1.0, -1.0):
            result = pipeline.run(x=torch.full((2, 3), sign))
            assert [float(result[name].sum()) for name in ("relu", "double", "whole")] == [max(12 * sign, 0), 24 * sign, 12 * sign]
    assert any("toy/relu writes to its input x in place" in text for text in result.warnings)


WRITERS = {
    "list": (lambda x: (x.sort(), x)[1], "text", ["b", "a"], ["b", "a"]),
    "list within": (lambda x: ([record.append("!") for record in x], x)[1], "list[text]", [["b"], ["a"]], [["b"], ["a"]]),
    "mapping": (lambda x: ([record.update(seen=1) for record in x], x)[1], "object", {"id": 1}, {"id": 1}),
    "boxes": (lambda x: ([box.update(x0=9) for box in x[0]], x)[1], "boxes", *([[{"x0": 1, "y0": 2, "x1": 3, "y1": 4}]] * 2)),
    "picture": (lambda x: ([record.putpixel((0, 0), 9) for record in x], x)[1], "image", *([Image.new("L", (2, 2))] * 2)),
    "numpy": (lambda x: ([record.fill(9) for record in x], x)[1], "object", *([numpy.zeros(3)] * 2)),
    "tensor by numpy": (lambda x: (x.numpy().fill(9), x)[1], NUMBERS, *([torch.ones(1, 3)] * 2)),
    "shape": (lambda x: x.t_(), "float[m n]", *([torch.ones(2, 3)] * 2)),
    "NaN": (lambda x: x.fill_(0), NUMBERS, *([torch.full((1, 2), torch.nan)] * 2)),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_whatever_can_be_written_to_is_watched(tmp_path, kind):
    """Lists, mappings, pictures, arrays, memory that torch does not count."""
    body, port, given, expected = WRITERS[kind]
    given = copy.deepcopy(given)
    out = "object" if port == "float[m n]" else port
    parts = [
        function("toy/write", {"x": port}, {"out": port}, body),
        function("toy/see", {"x": port}, {"out": out}, lambda x: [x] if out != port else x),
    ]
    nodes = {"a": {"use": "toy/write", "in": {"x": "inputs.x"}}, "b": {"use": "toy/see", "in": {"x": "inputs.x"}}}
    with opened(tmp_path, parts, nodes, inputs={"x": port}, outputs={"seen": "b", "done": "a"}) as pipeline:
        for _ in range(3):
            result = pipeline.run(x=given)
            assert "toy/write writes to its input x in place" in result.warnings[0]
            assert same(result["seen"], expected)
    assert same(given, expected)


def same(one, other):
    if isinstance(other, Image.Image):
        return one.tobytes() == other.tobytes()
    if isinstance(other, torch.Tensor):
        return torch.equal(one.nan_to_num(7), other.nan_to_num(7))
    return bool((one == other).all()) if isinstance(other, numpy.ndarray) else one == other


@pytest.mark.parametrize("view", ["expanded", "sliced", "turned"])
def test_views_of_one_memory_are_apart(tmp_path, view):
    """Two outputs that share storage, parts of one batch handed to branches: a writer on one leaves the other."""
    cut = {"expanded": lambda x: x[:, :1].expand(x.shape), "sliced": lambda x: x[:, 1:], "turned": lambda x: x.flip(1)[:, ::2]}[view]

    def split(x):
        return {"one": cut(x), "other": x}

    parts = [function("toy/split", X, {"one": NUMBERS, "other": "float[batch m]"}, split), doubling()]
    parts.append(function("toy/zero", {"x": NUMBERS}, {"out": NUMBERS}, lambda x: x.clone().zero_() if view == "expanded" else x.zero_()))
    nodes = {
        "cut": {"use": "toy/split", "in": {"x": "inputs.x"}},
        "zero": {"use": "toy/zero", "in": {"x": "cut.one"}},
        "double": {"use": "toy/double", "in": {"x": "cut.other"}},
    }
    outputs = {"zero": "zero", "double": "double", "one": "cut.one", "other": "cut.other"}
    given = torch.arange(6.0).reshape(2, 3)
    with opened(tmp_path, parts, nodes, inputs=X, outputs=outputs) as pipeline:
        for _ in range(3):
            result = pipeline.run(x=given)
            assert torch.equal(result["double"], 2 * given)
            assert torch.equal(result["one"], cut(given))
            result["one"].zero_()
            assert torch.equal(result["other"], given)


def test_a_node_that_writes_now_and_then_is_an_error_that_names_it(tmp_path):
    """One that is long enough to be looked at: what others got is not trusted, and the next run is right."""
    runs = []

    def sometimes(x):
        runs.append(1)
        time.sleep(0.001)
        return x.zero_() if len(runs) == 4 else x + 0

    nodes = {"a": {"use": "toy/sometimes", "in": {"x": "mid"}}, "b": {"use": "toy/double", "in": {"x": "mid"}}}
    nodes["mid"] = {"use": "toy/whole", "in": {"x": "inputs.x"}}
    parts = [function("toy/sometimes", X, {"out": NUMBERS}, sometimes), doubling(), whole()]
    with opened(tmp_path, parts, nodes, inputs=X, outputs={"a": "a", "b": "b"}) as pipeline:
        for _ in range(3):
            pipeline.run(x=torch.ones(1, 2))
        with pytest.raises(
            mg.NodeError, match=r"node 'a': plugin 'toy': toy/sometimes writes to its input x in place.* run it again"
        ) as caught:
            pipeline.run(x=torch.ones(1, 2))
        assert caught.value.node == "a"
        assert pipeline.run(x=torch.ones(1, 2))["b"].tolist() == [[2.0, 2.0]]


def test_debug_looks_at_every_call(tmp_path):
    """Also of a node that is too short to be looked at otherwise: it is right, and said."""
    runs = []

    def sometimes(x):
        runs.append(1)
        return x.zero_() if len(runs) == 4 else x + 0

    nodes = {"a": {"use": "toy/sometimes", "in": {"x": "inputs.x"}}, "b": {"use": "toy/double", "in": {"x": "inputs.x"}}}
    parts = [function("toy/sometimes", X, {"out": NUMBERS}, sometimes), doubling()]
    with opened(tmp_path, parts, nodes, inputs=X, outputs={"a": "a", "b": "b"}, debug=True) as pipeline:
        found = [pipeline.run(x=torch.ones(1, 2)) for _ in range(5)]
    assert [result["b"].sum().item() for result in found] == [4.0] * 5
    assert [len(result.warnings) for result in found] == [0, 0, 0, 1, 1]


def test_a_map_goes_on_after_a_node_that_wrote_now_and_then(tmp_path):
    """The batch that it spoilt is run again, record by record, from copies."""
    runs = []

    def sometimes(x):
        runs.append(1)
        time.sleep(0.001)
        return x.zero_() if len(runs) == 4 else x + 0

    nodes = {"a": {"use": "toy/sometimes", "in": {"x": "mid"}}, "b": {"use": "toy/double", "in": {"x": "mid"}}}
    nodes["mid"] = {"use": "toy/whole", "in": {"x": "inputs.x"}}
    parts = [function("toy/sometimes", X, {"out": NUMBERS}, sometimes), doubling(), whole()]
    records = [{"x": torch.full((1, 2), float(number))} for number in range(12)]
    with opened(tmp_path, parts, nodes, inputs=X, outputs={"a": "a", "b": "b"}) as pipeline:
        assert [result["b"][0, 0].item() for result in pipeline.map(records, batch_size=2)] == [2.0 * number for number in range(12)]


def test_records_of_one_array_that_is_filled_again_are_apart(tmp_path):
    """A camera that gives the same memory with every frame."""
    frame = numpy.zeros((1, 2), numpy.float32)

    def frames():
        for number in range(5):
            frame[:] = number
            yield {"x": frame}

    nodes = {"a": {"use": "toy/double", "in": {"x": "inputs.x"}}}
    with opened(tmp_path, [doubling()], nodes, inputs=X, outputs={"y": "a"}) as pipeline:
        assert [result["y"][0, 0].item() for result in pipeline.map(frames(), batch_size=3)] == [0.0, 2.0, 4.0, 6.0, 8.0]


def test_events_partial_outputs_and_hooks_hand_out_copies(tmp_path):
    """Whoever watches may write to what it sees."""

    def fail(x):
        raise ValueError("no")

    def after_node(node, component, seconds, outputs):
        for name in outputs:
            outputs[name].zero_()

    parts = [doubling(), whole(), function("toy/fail", X, {"out": NUMBERS}, fail)]
    nodes = {"a": {"use": "toy/double", "in": {"x": "inputs.x"}}, "b": {"use": "toy/whole", "in": {"x": "a"}}}
    hooks = {"after_node": mg.hookimpl(after_node)}
    with opened(tmp_path, parts, nodes, inputs=X, outputs={"a": "a", "b": "b"}, hooks=hooks) as pipeline:
        for event in pipeline.stream(x=torch.ones(1, 2)):
            if event.kind == "output":
                event["value"].zero_()
        assert event["result"]["b"].tolist() == [[2.0, 2.0]]
    nodes["c"] = {"use": "toy/fail", "in": {"x": "a"}}
    kept = torch.ones(1, 2)
    parts[0] = function("toy/double", X, {"out": NUMBERS}, lambda x: kept)
    with opened(tmp_path, parts, nodes, inputs=X, outputs={"b": "b", "c": "c"}) as pipeline, pytest.raises(mg.NodeError) as caught:
        pipeline.run(x=torch.ones(1, 2))
    assert "a.out" in caught.value.outputs
    caught.value.outputs["a.out"].zero_()
    assert kept.sum() == 2


def test_the_weights_of_a_module_are_not_handed_out(tmp_path):
    """A node that gives its own parameter, as learnt queries are: writing to the result leaves the weights."""
    weights = torch.ones(1, 3)
    nodes = {"a": {"use": "toy/weights", "in": {"x": "inputs.x"}}}
    with opened(
        tmp_path, [function("toy/weights", X, {"out": NUMBERS}, lambda x: weights)], nodes, inputs=X, outputs={"y": "a"}
    ) as pipeline:
        pipeline.run(x=torch.zeros(1, 2))["y"].zero_()
        assert pipeline.run(x=torch.zeros(1, 2))["y"].sum() == 3


def test_tensors_of_inference_mode_are_apart_too(tmp_path):
    """Torch does not count what is written to them: the first call compares, and results can be written to."""

    @torch.inference_mode()
    def made(x):
        return x * 1

    parts = [function("toy/made", X, {"out": NUMBERS}, made), doubling()]
    parts.append(function("toy/zero", X, {"out": NUMBERS}, torch.inference_mode()(lambda x: x.zero_())))
    nodes = {"m": {"use": "toy/made", "in": {"x": "inputs.x"}}, "a": {"use": "toy/zero", "in": {"x": "m"}}}
    nodes["b"] = {"use": "toy/double", "in": {"x": "m"}}
    with opened(tmp_path, parts, nodes, inputs=X, outputs={"a": "a", "b": "b"}) as pipeline:
        for _ in range(3):
            result = pipeline.run(x=torch.ones(1, 2))
            assert result["b"].tolist() == [[2.0, 2.0]]
            result["b"].zero_()


def test_a_node_that_is_tidy_costs_nothing_after_its_first_run(tmp_path):
    """What runs it in straight code is its own function."""
    from modelgraft.engine.inplace import Habits, apart

    node = graph_of(
        registry_of(doubling()), tmp_path, document({"a": {"use": "toy/double", "in": {"x": "inputs.x"}}}, inputs=X, outputs={"y": "a"})
    ).nodes["a"]

    def call(x):
        return x

    habits = Habits()
    first = apart(call, node, habits=habits, is_watched=True, is_strict=False, tell=print)
    assert first is not call
    first(torch.ones(1, 2))
    assert apart(call, node, habits=habits, is_watched=False, is_strict=False, tell=print) is call


def test_conform_names_the_port_that_is_written_to():
    """In place on one of two inputs."""

    def add(x, y):
        return y.add_(x)

    subject = function("toy/add", {"x": NUMBERS, "y": NUMBERS}, {"out": NUMBERS}, add)
    with pytest.raises(ConformanceError, match=r"inputs: 'y' is written to in place, and others may hold it: work on a copy$"):
        conform(subject)


@pytest.mark.parametrize("copied", [twin, None])
def test_a_copy_is_equal_and_apart(copied):
    """Down to what cannot be written to; a twin has the strides of what it is a copy of."""
    plain = torch.arange(24.0).reshape(4, 6)
    for tensor in (plain, plain.T, plain[1:, ::2], plain[:, :1].expand(4, 6), torch.zeros(0, 3), torch.tensor(3.0), plain.unfold(0, 2, 1)):
        made = own([{"a": (tensor,)}], copied)[0]["a"][0] if copied else own([{"a": (tensor,)}])[0]["a"][0]
        assert torch.equal(made, tensor)
        assert made.data_ptr() != tensor.data_ptr() or not tensor.numel()
        if copied and tensor.ndim == 2 and tensor.numel():
            assert made.stride() == tensor.stride()


@pytest.mark.parametrize(
    ("module", "value", "is_one"),
    [
        ("torch", torch.ones(1), owning.is_tensor),
        ("numpy", numpy.ones(1), owning.is_array),
        ("PIL.Image", Image.new("L", (1, 1)), owning.is_picture),
    ],
)
def test_a_value_is_looked_at_while_another_thread_imports_what_it_is_not_of(module, value, is_one, monkeypatch):
    """The module is there then, and its class not yet: nothing can be of it."""
    assert is_one(value)
    monkeypatch.setitem(sys.modules, module, ModuleType(module))
    assert not is_one("text")


def test_a_backend_is_closed_while_another_thread_imports_torch(monkeypatch):
    """There is nothing on a device that it could give back."""
    backend = TorchBackend()
    monkeypatch.setitem(sys.modules, "torch", ModuleType("torch"))
    backend.close()


def test_absent_is_one_object_wherever_it_comes_from():
    """A copy, and one from another process, are the same."""
    assert copy.deepcopy(mg.ABSENT) is mg.ABSENT
    assert pickle.loads(pickle.dumps(mg.ABSENT)) is mg.ABSENT
    assert own([mg.ABSENT])[0] is mg.ABSENT
