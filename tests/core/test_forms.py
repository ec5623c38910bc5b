"""Numbers on wires are tensors or arrays of numpy: code gets the form that it declares, users and hooks get tensors."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy
import pytest
import torch

import modelgraft as mg
from modelgraft.records.batch import Batch
from support.arrays import CHAIN, FLOATS, doubling, lengths, measuring
from support.running import TEXT, Counter, fresh, function, opened

HERE = Path(__file__).parent


@pytest.mark.parametrize("lazy", [False, True], ids=["stays", "lazy"])
def test_code_gets_the_form_that_it_declares_and_a_user_gets_tensors(tmp_path, lazy):
    """In every run, also of nodes that are loaded when a record comes: of any port, of one record and of a batch."""
    seen = Counter()
    parts = [measuring(), doubling(seen, arrays=False), doubling(seen, arrays=True)]
    nodes = {name: {**node, "lazy": True} if lazy else node for name, node in CHAIN.items()}
    with opened(tmp_path, parts, nodes, outputs={"out": "four", "long": "long"}) as pipeline:
        for _ in range(3):
            found = pipeline.run(x=["abc", "defgh"])
            assert torch.equal(found["out"], torch.tensor([[48.0, 24.0], [80.0, 40.0]]))
            assert torch.equal(found["long"], torch.tensor([[3.0, 1.5], [5.0, 2.5]]))
        assert torch.equal(pipeline.run(x="a", outputs=["three.out"])["three.out"], torch.tensor([[8.0, 4.0]]))
        seen.calls.clear()
        pipeline.run(x="a")
    assert seen.calls == [torch.Tensor, numpy.ndarray, numpy.ndarray, torch.Tensor]


@pytest.mark.parametrize("arrays", [False, True])
def test_arrays_of_bfloat16_reach_users_and_code_of_either_kind(tmp_path, arrays):
    """Numpy has it from ml_dtypes: torch's own for torch and for users, float32 for code of arrays; as an input of the graph too."""
    seen = Counter()
    given = numpy.array([[1.0, -2.5]], ml_dtypes.bfloat16)
    part = function("toy/short", {"x": FLOATS}, {"out": FLOATS}, lambda x: given, arrays=True)
    nodes = {"a": {"use": "toy/short", "in": {"x": "inputs.x"}}, "b": {"use": "toy/arrays" if arrays else "toy/tensors", "in": {"x": "a"}}}
    outputs = {"a": "a", "b": "b", "x": "inputs.x"}
    with opened(tmp_path, [part, doubling(seen, arrays=arrays)], nodes, inputs={"x": FLOATS}, outputs=outputs) as pipeline:
        found = pipeline.run(x=given)
    assert [found[name].tolist() for name in ("a", "b", "x")] == [[[1.0, -2.5]], [[2.0, -5.0]], [[1.0, -2.5]]]
    assert (found["a"].dtype, found["x"].dtype) == (torch.bfloat16, torch.bfloat16)
    assert seen.calls == [numpy.ndarray if arrays else torch.Tensor]


def test_a_user_gets_memory_of_its_own(tmp_path):
    """Two outputs of one node are not one memory, and writing to either reaches neither the cache nor what the code holds."""
    held = numpy.ones((1, 2), numpy.float32)
    part = function("toy/held", TEXT, {"out": FLOATS}, lambda x: held, arrays=True, cache=True)
    with opened(tmp_path, [part], {"a": {"use": "toy/held", "in": {"x": "inputs.x"}}}, outputs={"out": "a", "too": "a"}) as pipeline:
        found = pipeline.run(x="a")
        found["out"].zero_()
        assert found["too"].tolist() == pipeline.run(x="a")["out"].tolist() == held.tolist() == [[1.0, 1.0]]


def test_lists_of_wires_and_ports_of_lists_are_brought_over_entry_by_entry(tmp_path):
    """An array beside a tensor, for code of either kind."""
    seen = Counter()

    def total(x):
        seen.note([type(one) for one in x])
        return sum(x[1:], x[0])

    parts = [
        measuring(),
        doubling(Counter(), arrays=False),
        function("toy/total", {"x": f"list[{FLOATS}]"}, {"out": FLOATS}, fresh(total)),
        function("toy/total_of_arrays", {"x": f"list[{FLOATS}]"}, {"out": FLOATS}, fresh(total), arrays=True),
    ]
    nodes = {name: CHAIN[name] for name in ("long", "one")}
    nodes |= {use: {"use": f"toy/{use}", "in": {"x": ["long", "one"]}} for use in ("total", "total_of_arrays")}
    with opened(tmp_path, parts, nodes, outputs={"first": "total", "second": "total_of_arrays"}) as pipeline:
        for _ in range(2):
            found = pipeline.run(x=["ab", "c"])
            assert torch.equal(found["first"], 3 * torch.from_numpy(lengths(["ab", "c"])))
            assert torch.equal(found["second"], found["first"])
    assert {tuple(kinds) for kinds in seen.calls} == {(torch.Tensor, torch.Tensor), (numpy.ndarray, numpy.ndarray)}


def test_routes_cut_and_join_arrays(tmp_path):
    """A list of truth values is a mask for either kind of code; records that a route leaves out are absent, the others tensors."""
    seen = Counter()

    def told(mask):
        seen.note(type(mask))
        return [str(flag) for flag in mask.tolist()]

    parts = [
        measuring(),
        doubling(seen, arrays=True),
        function("toy/is_long", TEXT, {"out": "mask[batch]"}, lambda x: [len(text) > 2 for text in x]),
        function("toy/told", {"mask": "mask[batch]"}, {"out": "text"}, told),
    ]
    nodes = {
        "long": CHAIN["long"],
        "is_long": {"use": "toy/is_long", "in": {"x": "inputs.x"}},
        "two": {"use": "toy/arrays", "in": {"x": "long"}, "when": "is_long"},
        "told": {"use": "toy/told", "in": {"mask": "is_long"}},
    }
    with opened(tmp_path, parts, nodes, outputs={"out": "two", "mask": "is_long", "told": "told"}) as pipeline:
        found = pipeline.run(x=["abc", "d", "efgh"])
        assert [one if one is mg.ABSENT else one.tolist() for one in found["out"]] == [[6.0, 3.0], mg.ABSENT, [8.0, 4.0]]
        assert isinstance(found["out"][0], torch.Tensor)
        assert torch.equal(found["mask"], torch.tensor([True, False, True]))
        assert found["told"] == ["True", "False", "True"]
    assert set(seen.calls) == {numpy.ndarray, torch.Tensor}


def test_a_port_that_takes_every_value_is_given_tensors_of_a_port_of_tensors(tmp_path):
    """As without arrays, also of a list of wires and of a node that is loaded when a record comes; its own arrays stay what they are."""
    seen = Counter()

    def look(x):
        seen.note([type(one) for one in x] if isinstance(x, list) else type(x))
        return x if isinstance(x, list) else list(x)

    own = function("toy/own", TEXT, {"out": "object"}, lambda x: [numpy.ones(2) for _ in x])
    parts = [measuring(), own, function("toy/look", {"x": "object"}, {"out": "object"}, look)]
    parts += [function("toy/both", {"x": "list[object]"}, {"out": "object"}, lambda x: look(x) and [1, 1])]
    nodes = {"long": CHAIN["long"], "own": {"use": "toy/own", "in": {"x": "inputs.x"}}}
    nodes |= {f"look{lazy}": {"use": "toy/look", "in": {"x": "long"}, "lazy": bool(lazy)} for lazy in (0, 1)}
    nodes |= {f"both{lazy}": {"use": "toy/both", "in": {"x": ["long", "long"]}, "lazy": bool(lazy)} for lazy in (0, 1)}
    outputs = {name: name for name in nodes} | {"own": "own"}
    with opened(tmp_path, parts, nodes, outputs=outputs) as pipeline:
        for _ in range(2):
            found = pipeline.run(x=["ab", "c"])
            assert [type(one) for one in found["look0"] + found["look1"]] == [torch.Tensor] * 4
            assert [type(one) for one in found["own"]] == [numpy.ndarray] * 2
    assert all(kinds in (torch.Tensor, [torch.Tensor] * 2) for kinds in seen.calls), seen.calls


def test_lists_of_arrays_are_tensors_for_users_hooks_and_errors_where_a_route_has_left_records_out(tmp_path):
    """As they are where all records are there."""
    heard = {}

    @mg.hookimpl
    def after_node(node, outputs):
        heard[node] = outputs["out"]

    def fail(x):
        raise ValueError("no")

    parts = [
        function("toy/lists", TEXT, {"out": "list[float[2]]"}, lambda x: [[*lengths([one, one])] for one in x], arrays=True),
        function("toy/is_long", TEXT, {"out": "mask[batch]"}, lambda x: [len(text) > 2 for text in x]),
        function("toy/fail", {"x": "list[float[2]]"}, {"out": "text"}, fail),
    ]
    nodes = {
        "is_long": {"use": "toy/is_long", "in": {"x": "inputs.x"}},
        "lists": {"use": "toy/lists", "in": {"x": "inputs.x"}, "when": "is_long"},
        "fail": {"use": "toy/fail", "in": {"x": "lists"}},
    }
    with opened(tmp_path, parts, nodes, outputs={"out": "fail", "lists": "lists"}, hooks={"after_node": after_node}) as pipeline:
        first, second = pipeline.run(x=["abc", "d"], outputs=["lists"])["lists"]
        assert second is mg.ABSENT
        with pytest.raises(mg.NodeError) as caught:
            pipeline.run(x=["abc", "d"])
        for found in (first, heard["lists"].value[0], caught.value.outputs["lists.out"][0]):
            assert all(torch.equal(one, torch.tensor([3.0, 1.5])) for one in found)


def test_numbers_of_numpy_are_tensors_without_axes(tmp_path):
    """Arithmetic of numpy gives them for an array without axes, and the rows of an array of one axis are such."""
    seen = Counter()

    def look(x):
        seen.note(x)
        return x * 2

    def gather(sizes):
        seen.note(sizes[0][0])
        return [[one.tolist() for one in each] for each in sizes]

    parts = [
        function("toy/total", TEXT, {"out": "float32[]"}, lambda x: lengths(x).sum(), arrays=True),
        function("toy/look", {"x": "float32[]"}, {"out": "float32[]"}, look),
        function("toy/cut", TEXT, {"word": mg.port("text", several="words")}, lambda x: [one.split() for one in x]),
        function("toy/sizes", TEXT, {"out": "int64[batch]"}, lambda x: numpy.array([*map(len, x)]), arrays=True),
        function("toy/gather", {"sizes": mg.port("int64[batch]", several="*")}, {"out": "object"}, gather),
    ]
    nodes = {
        "total": {"use": "toy/total", "in": {"x": "inputs.x"}},
        "look": {"use": "toy/look", "in": {"x": "total"}},
        "cut": {"use": "toy/cut", "in": {"x": "inputs.x"}},
        "sizes": {"use": "toy/sizes", "in": {"x": "cut"}},
        "gather": {"use": "toy/gather", "in": {"sizes": "sizes"}},
    }
    with opened(tmp_path, parts, nodes, outputs={"out": "look", "total": "total", "each": "gather"}) as pipeline:
        for _ in range(3):
            found = pipeline.run(x=["ab cde", "f"])
            assert torch.equal(found["total"], torch.tensor(10.5))
            assert torch.equal(found["out"], torch.tensor(21.0))
            assert found["each"] == [[2, 3], [1]]
    assert all(isinstance(one, torch.Tensor) and not one.ndim for one in seen.calls), seen.calls


def test_a_text_of_numpy_is_no_number(tmp_path):
    """It has a dtype as one has, also where a port takes texts or tensors, and lists of them."""
    parts = [
        measuring(),
        function("toy/split", TEXT, {"out": "list[text]"}, lambda x: [list(numpy.array(one.split())) for one in x]),
        function("toy/join", {"long": FLOATS, "x": "list[text] | list[float[2]]"}, {"out": "object"}, lambda long, x: x),
    ]
    nodes = {
        "long": CHAIN["long"],
        "split": {"use": "toy/split", "in": {"x": "inputs.x"}},
        "join": {"use": "toy/join", "in": {"long": "long", "x": "split"}},
    }
    with opened(tmp_path, parts, nodes, outputs={"out": "join"}) as pipeline:
        assert pipeline.run(x=["ab cd", "ef"])["out"] == [["ab", "cd"], ["ef"]]


def test_records_of_a_map_are_run_together_and_come_apart(tmp_path):
    """Each with the batch axis, as a run of it alone gives it."""
    with opened(tmp_path, [measuring()], {"long": CHAIN["long"]}, outputs={"out": "long"}) as pipeline:
        found = [result["out"] for result in pipeline.map([{"x": "a"}, {"x": "bcd"}, {"x": "ef"}], batch_size=2)]
    assert [one.tolist() for one in found] == [[[1.0, 0.5]], [[3.0, 1.5]], [[2.0, 1.0]]]
    assert all(isinstance(one, torch.Tensor) for one in found)


def test_what_nothing_feeds_is_repeated_for_each_record(tmp_path):
    """One record of an array counts for all of the batch."""
    constant = function("toy/constant", {}, {"out": FLOATS}, lambda: numpy.array([[1.0, 2.0]], numpy.float32), arrays=True)
    parts = [constant, measuring(), function("toy/add", {"x": FLOATS, "y": FLOATS}, {"out": FLOATS}, lambda x, y: x + y, arrays=True)]
    nodes = {"c": {"use": "toy/constant"}, "long": CHAIN["long"], "sum": {"use": "toy/add", "in": {"x": "long", "y": "c"}}}
    with opened(tmp_path, parts, nodes, outputs={"out": "sum", "c": "c"}) as pipeline:
        found = pipeline.run(x=["ab", "cd"])
    assert found["out"].tolist() == [[3.0, 3.0], [3.0, 3.0]]
    assert found["c"].tolist() == [[1.0, 2.0], [1.0, 2.0]]


def test_arrays_and_tensors_behind_each_other_are_one_batch():
    """Arrays an array, both a tensor; unlike rows are told as of tensors."""
    rows = numpy.arange(6, dtype=numpy.float32).reshape(3, 2)
    whole = Batch.join([Batch(rows[2:], (1,)), Batch(rows[:2], (0, 2))])
    assert isinstance(whole.value, numpy.ndarray)
    assert whole.value.tolist() == [[0.0, 1.0], [4.0, 5.0], [2.0, 3.0]]
    mixed = Batch.join([Batch(rows[:1]), Batch(torch.from_numpy(rows[1:]))])
    assert torch.equal(mixed.value, torch.from_numpy(rows))


def test_hooks_and_errors_show_tensors(tmp_path):
    """Whatever form the node gave, a plugin that watches and who reads what was ready get a copy as a tensor."""
    heard = {}

    @mg.hookimpl
    def after_node(node, outputs):
        heard[node] = outputs["out"]

    fail = function("toy/fail", {"x": FLOATS}, {"out": FLOATS}, lambda x: x / 0 + [], arrays=True)
    nodes = {"long": CHAIN["long"], "fail": {"use": "toy/fail", "in": {"x": "long"}}}
    with opened(tmp_path, [measuring(), fail], nodes, outputs={"out": "fail"}, hooks={"after_node": after_node}) as pipeline:
        with numpy.errstate(divide="ignore"), pytest.raises(mg.NodeError) as caught:
            pipeline.run(x="abc")
        ready = caught.value.outputs["long.out"]
    assert torch.equal(heard["long"], ready)
    assert torch.equal(ready, torch.tensor([[3.0, 1.5]]))


def test_results_of_arrays_are_kept_in_memory_and_in_a_folder(tmp_path):
    """Found again by another pipeline, in memory that may be written to, and in the same form for who comes after."""
    ran, seen = Counter(), Counter()
    part = function("toy/lengths", TEXT, {"out": FLOATS}, lambda x: (ran.note(1), lengths(x))[1], arrays=True, cache=True)
    nodes = {"long": CHAIN["long"], "two": {"use": "toy/arrays", "in": {"x": "long"}}}
    for _ in range(2):
        with opened(tmp_path, [part, doubling(seen, arrays=True)], nodes, outputs={"out": "two"}, cache_dir=tmp_path / "kept") as pipeline:
            for _ in range(2):
                assert pipeline.run(x="abcd")["out"].tolist() == [[8.0, 4.0]]
    assert (len(ran.calls), set(seen.calls)) == (1, {numpy.ndarray})


ALONE = """
import sys
import numpy
import modelgraft as mg
import modelgraft.engine.devices as devices
from pathlib import Path
from support.running import opened, function

devices.DRIVERS = ()
folder = Path(sys.argv[1])
lengths = function("toy/lengths", {"x": "text"}, {"out": "float[batch 2]"},
                   lambda x: numpy.array([[len(one), 1.0] for one in x], numpy.float32), arrays=True, cache=True)
is_long = function("toy/is_long", {"x": "text"}, {"out": "mask[batch]"}, lambda x: [len(one) > 1 for one in x])
say = function("toy/say", {"x": "float[batch 2]"}, {"out": "text"}, lambda x: [str(row.tolist()) for row in x], arrays=True)
nodes = {"long": {"use": "toy/lengths", "in": {"x": "inputs.x"}}, "is_long": {"use": "toy/is_long", "in": {"x": "inputs.x"}},
         "say": {"use": "toy/say", "in": {"x": "long"}, "when": "is_long"}}
with opened(folder, [lengths, is_long, say], nodes, outputs={"text": "say", "long": "long"}, cache_dir=folder / "kept") as pipeline:
    for _ in range(2):
        print(pipeline.run(x=["ab", "c", "def"], outputs=["text"])["text"])
    print(pipeline.run(x="ab", outputs=["text"])["text"], "torch" in sys.modules)
    print(pipeline.run(x="ab", outputs=["long"])["long"], "torch" in sys.modules)
"""


def test_a_run_in_which_nobody_asks_for_a_tensor_imports_no_torch(tmp_path):
    """In a process of its own, with routes, masks and a folder of results; a tensor that a user asks for brings it."""
    for _ in range(2):  # the second reads what the first has kept
        done = subprocess.run([sys.executable, "-c", ALONE, str(tmp_path)], capture_output=True, text=True, check=False, cwd=HERE.parent)
        assert done.stdout.splitlines() == [
            *["['[2.0, 1.0]', absent, '[3.0, 1.0]']"] * 2,
            "[2.0, 1.0] False",
            "tensor([[2., 1.]]) True",
        ], done.stderr
