"""Pipelines: inputs, outputs, checks at the edge, events, records in batches, seeds."""

from __future__ import annotations

import threading
import time

import pytest
import torch
import yaml

import modelgraft as mg
from modelgraft.running.events import KINDS
from support.running import Counter, document, function, graph_of, handing_on, joiner, registry_of

TEXT = {"x": "text"}


def shout(x):
    return [text.upper() for text in x]


def opened(tmp_path, parts, nodes, *, outputs, inputs=None, hooks=None, **options):
    graph = graph_of(registry_of(*parts, **(hooks or {})), tmp_path, document(nodes, inputs=inputs or TEXT, outputs=outputs))
    return mg.open(graph, **options)


def shouting(tmp_path, **options):
    """Text in capitals, joined with a second input that has a default."""
    parts = [function("toy/shout", TEXT, {"out": "text"}, shout), joiner(2)]
    nodes = {"loud": {"use": "toy/shout", "in": {"x": "inputs.x"}}, "end": {"use": "toy/join2", "in": {"x0": "loud", "x1": "inputs.y"}}}
    inputs = {"x": "text", "y": {"type": "text", "default": "-"}}
    return opened(tmp_path, parts, nodes, inputs=inputs, outputs={"both": "end", "loud": "loud"}, **options)


# -- inputs and outputs -------------------------------------------------------------------------------------------------


def test_one_record_gives_values_and_a_batch_gives_lists(tmp_path):
    """A single value is repeated against a batch, a default as well."""
    with shouting(tmp_path) as pipeline:
        assert dict(pipeline.run(x="a")) == {"both": ("A", "-"), "loud": "A"}
        assert dict(pipeline.run(x=["a", "b"], y="!")) == {"both": [("A", "!"), ("B", "!")], "loud": ["A", "B"]}
        assert dict(pipeline.run(x=["a"])) == {"both": [("A", "-")], "loud": ["A"]}


def test_an_output_of_a_graph_within_is_asked_for_by_its_outer_name(tmp_path):
    """As it is wired, beside its inner name; what the graph around does not use is told from what is not there."""
    inner = document(
        {"loud": {"use": "toy/shout", "in": {"x": "inputs.x"}}, "twice": {"use": "toy/shout", "in": {"x": "loud"}}},
        inputs=TEXT,
        outputs={"y": "loud", "z": "twice"},
    )
    (tmp_path / "inner.yaml").write_text(yaml.safe_dump(inner))
    parts = [function("toy/shout", TEXT, {"out": "text"}, shout), handing_on()]
    nodes = {"eye": {"use": "graph:inner.yaml", "in": {"x": "inputs.x"}}, "end": {"use": "toy/same", "in": {"x": "eye.y"}}}
    with opened(tmp_path, parts, nodes, outputs={"end": "end"}) as pipeline:
        assert dict(pipeline.run(x="a", outputs=["eye.y"])) == {"eye.y": "A"}
        assert dict(pipeline.run(x="a", outputs=["eye", "eye/loud.out"])) == {"eye": "A", "eye/loud.out": "A"}
        with pytest.raises(mg.InputError, match=r"^eye has no output 'z' that the graph uses; it has: y\."):
            pipeline.run(x="a", outputs=["eye.z"])


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, r"input 'x' is missing; wanted: text"),
        ({"x": "a", "why": "b"}, r"the graph has no input 'why'; it has: x \(text\), y \(text\)\."),
        ({"x": ["a", "b"], "y": ["c", "d", "e"]}, r"batches of different sizes: 'x' has 2, 'y' has 3; wanted: one size"),
        ({"x": 7}, r"input 'x': found 7, wanted text"),
    ],
)
def test_inputs_that_do_not_fit_are_named(tmp_path, inputs, message):
    """Missing, unknown, of different sizes, of another type."""
    with shouting(tmp_path) as pipeline, pytest.raises(mg.InputError, match=message):
        pipeline.run(**inputs)


def test_a_misspelt_input_names_the_nearest_one(tmp_path):
    """Did you mean."""
    nodes = {"a": {"use": "toy/same", "in": {"x": "inputs.picture"}}}
    pipeline = opened(tmp_path, [handing_on()], nodes, inputs={"picture": "object"}, outputs={"out": "a"})
    with pipeline, pytest.raises(mg.InputError, match=r"it has: picture \(object\)\. Did you mean 'picture'\?"):
        pipeline.run(pictrue=1)


def test_any_port_can_be_asked_for_and_nothing_else_runs(tmp_path):
    """`outputs=["loud.out"]` runs one node and needs only its inputs; an unknown output lists those there are."""
    with shouting(tmp_path) as pipeline:
        result = pipeline.run(outputs=["loud.out"], x="a")
        assert dict(result) == {"loud.out": "A"}
        assert list(result.timings) == ["loud"]
        with pytest.raises(mg.InputError, match=r"there is no output 'lout'; the outputs are: both, loud"):
            pipeline.run(outputs=["lout"], x="a")
        with pytest.raises(KeyError, match=r"there is no output 'laud'; there are: both, loud\. Did you mean 'loud'"):
            pipeline.run(x="a")["laud"]


def test_a_large_payload_is_handed_on_by_reference(tmp_path):
    """An array of 1 MB goes through three nodes as the same object."""
    payload = torch.zeros(262_144).numpy()
    nodes = {"a": {"use": "toy/same", "in": {"x": "inputs.x"}}, "b": {"use": "toy/same", "in": {"x": "a"}}}
    with opened(tmp_path, [handing_on()], nodes, inputs={"x": "object"}, outputs={"out": "b"}) as pipeline:
        assert all(pipeline.run(x=payload)["out"] is payload for _ in range(3))


def test_a_list_port_gets_one_list_per_record(tmp_path):
    """Two wires into `list[text]` become, for each record, the list of both."""
    parts = [
        function("toy/shout", TEXT, {"out": "text"}, shout),
        function("toy/all", {"x": "list[text]"}, {"out": "text"}, lambda x: ["+".join(i) for i in x]),
    ]
    nodes = {"loud": {"use": "toy/shout", "in": {"x": "inputs.x"}}, "all": {"use": "toy/all", "in": {"x": ["inputs.x", "loud"]}}}
    with opened(tmp_path, parts, nodes, outputs={"out": "all"}) as pipeline:
        assert pipeline.run(x=["a", "b"])["out"] == ["a+A", "b+B"]


def test_a_closed_pipeline_says_so(tmp_path):
    """Running after close is an error, closing twice is none."""
    pipeline = shouting(tmp_path)
    pipeline.close()
    pipeline.close()
    with pytest.raises(mg.InputError, match="the pipeline is closed"):
        pipeline.run(x="a")


def test_runs_from_several_threads_take_turns(tmp_path):
    """Each gets the answer to its own question."""
    answers = {}
    with shouting(tmp_path) as pipeline:
        threads = [threading.Thread(target=lambda i=i: answers.update({i: pipeline.run(x=f"t{i}")["loud"]})) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert answers == {i: f"T{i}" for i in range(8)}


# -- what the code of a node gives --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("declared", "given", "message"),
    [
        ("text", ["a"], r"output 'out': found 1 record, wanted 2, the size of the batch"),
        ("text", "ab", r"output 'out': found 'ab', wanted text: a list with one record per entry of the batch"),
        ("text", ["a", 3], r"output 'out': record 1 is 3, wanted text"),
        ("list[text]", [["a"], "b"], r"output 'out': record 1 is 'b', wanted list\[text\]"),
        ("float[batch 3]", torch.zeros(2, 4), r"output 'out': found float32\[2 4\], wanted float\[batch 3\]: an axis is 4 long, not 3"),
        (
            "float[batch 3]",
            torch.zeros(5, 3),
            r"output 'out': found float32\[5 3\], wanted float\[batch 3\]: it holds 5 records, the batch 2",
        ),
        (
            "int64[batch 3]",
            torch.zeros(2, 3),
            r"output 'out': found float32\[2 3\], wanted int64\[batch 3\]: the dtype is float32, not int64",
        ),
        ("float[batch 3]", [[0.0] * 3] * 2, r"output 'out': found a list of 2, wanted float\[batch 3\]: a torch tensor"),
    ],
)
def test_what_a_node_gives_is_checked_against_its_declaration(tmp_path, declared, given, message):
    """One NodeError that names plugin, component, node and port, what was found and what was wanted."""
    part = function("toy/bad", TEXT, {"out": declared}, lambda x: given)
    with opened(tmp_path, [part], {"a": {"use": "toy/bad", "in": {"x": "inputs.x"}}}, outputs={"out": "a"}) as pipeline:
        with pytest.raises(mg.NodeError, match=r"plugin 'toy': toy/bad breaks its declaration in node 'a': " + message) as caught:
            pipeline.run(x=["p", "q"])
        assert (caught.value.node, caught.value.component) == ("a", "toy/bad")


def test_a_node_with_several_outputs_must_give_each_by_name(tmp_path):
    """A missing port and an unknown one are named with those that were declared."""
    part = function("toy/two", TEXT, {"left": "text", "right": "text"}, lambda x: {"left": x, "rihgt": x})
    pipeline = opened(tmp_path, [part], {"a": {"use": "toy/two", "in": {"x": "inputs.x"}}}, outputs={"out": "a.left"})
    with pipeline, pytest.raises(mg.NodeError, match="it gave the outputs left, rihgt, wanted left, right"):
        pipeline.run(x="p")


def test_slow_nodes_are_checked_in_every_run(tmp_path):
    """A node that takes long enough for the check to cost nothing is caught also in a later run."""
    good = [True]

    def slow(x):
        time.sleep(0.001)
        return x if good[0] else x[0]

    part = function("toy/slow", TEXT, {"out": "text"}, slow)
    with opened(tmp_path, [part], {"a": {"use": "toy/slow", "in": {"x": "inputs.x"}}}, outputs={"out": "a"}) as pipeline:
        for _ in range(3):
            pipeline.run(x="p")
        good[0] = False
        with pytest.raises(mg.NodeError, match="output 'out': found 'p', wanted text"):
            pipeline.run(x="p")


def test_straight_code_names_the_node_that_fails(tmp_path):
    """In the third run of trivial nodes nothing is caught in between, and still node, cause and partial outputs are there."""
    fail = [False]

    def brittle(x):
        if fail[0]:
            raise ValueError("too thin")
        return x

    parts = [function("toy/brittle", TEXT, {"out": "text"}, brittle), function("toy/shout", TEXT, {"out": "text"}, shout)]
    nodes = {"loud": {"use": "toy/shout", "in": {"x": "inputs.x"}}, "thin": {"use": "toy/brittle", "in": {"x": "loud"}}}
    with opened(tmp_path, parts, nodes, outputs={"out": "thin"}) as pipeline:
        for _ in range(2):
            pipeline.run(x="p")
        fail[0] = True
        with pytest.raises(mg.NodeError, match=r"^node 'thin' \(toy/brittle, plugin 'toy'\) failed: ValueError: too thin$") as caught:
            pipeline.run(x="p")
        assert caught.value.outputs == {"loud.out": ["P"]}
        assert isinstance(caught.value.__cause__, ValueError)


# -- hooks and events ---------------------------------------------------------------------------------------------------


def test_hooks_see_nodes_run_fail_and_load(tmp_path):
    """Each observing hook of a plugin is called with node and component, in the order in which things happen."""
    seen = []

    @mg.hookimpl
    def before_node(node, component):
        seen.append(("before", node, component))

    @mg.hookimpl
    def after_node(node, seconds, outputs):
        seen.append(("after", node, seconds >= 0, dict(outputs)))

    @mg.hookimpl
    def on_node_error(node, error):
        seen.append(("error", node, str(error)))

    @mg.hookimpl
    def on_node_load(node):
        seen.append(("load", node))

    def fail(x):
        raise ValueError("no")

    parts = [function("toy/shout", TEXT, {"out": "text"}, shout), function("toy/fail", TEXT, {"out": "text"}, fail)]
    nodes = {"a": {"use": "toy/shout", "in": {"x": "inputs.x"}}, "b": {"use": "toy/fail", "in": {"x": "a"}}}
    hooks = {"before_node": before_node, "after_node": after_node, "on_node_error": on_node_error, "on_node_load": on_node_load}
    with opened(tmp_path, parts, nodes, outputs={"out": "b"}, hooks=hooks) as pipeline, pytest.raises(mg.NodeError):
        pipeline.run(x="p")
    assert seen == [
        ("load", "a"),
        ("load", "b"),
        ("before", "a", "toy/shout"),
        ("after", "a", True, {"out": ["P"]}),
        ("before", "b", "toy/fail"),
        ("error", "b", "no"),
    ]


class Talker:
    """Code that tells of its progress and of what it writes, with the seed of its run."""

    def __init__(self):
        self.runtime = None

    def bind(self, runtime):
        """Take what a run offers."""
        self.runtime = runtime

    def __call__(self, x):
        """Write the seed, letter by letter."""
        for step, letter in enumerate("ab"):
            self.runtime.check()
            self.runtime.emit("token", text=letter, record=0)
            self.runtime.emit("progress", done=step + 1, total=2)
        self.runtime.emit("warning", text="it was resampled")
        return [f"ab {self.runtime.seed} {self.runtime.node_seed()}" for _ in x]


def talker():
    @mg.component("toy/talker", kind="llm", load="support.talkers:load", inputs=TEXT, outputs={"out": "text"})
    class TalkerConfig(mg.Config):
        """Talk."""

    return TalkerConfig


@pytest.fixture
def talking(tmp_path, monkeypatch):
    """A pipeline with a node that talks, loaded as any other code."""
    import sys
    from types import ModuleType

    module = ModuleType("support.talkers")
    module.load = lambda config, context: Talker()
    monkeypatch.setitem(sys.modules, "support.talkers", module)
    hooks = {"register_backends": mg.hookimpl(lambda register: register("torch", "modelgraft.backends.torch:TorchBackend"))}
    nodes = {"talk": {"use": "toy/talker", "in": {"x": "inputs.x"}}}
    with opened(tmp_path, [talker()], nodes, outputs={"text": "talk"}, hooks=hooks, seed=5, cache_bytes=0, device="cpu") as pipeline:
        yield pipeline


def test_a_stream_tells_what_happens_and_ends_with_the_result(talking):
    """Loads, starts, tokens, progress, warnings and outputs as they come; every kind is described."""
    for wanted_start in (["node-loading", "node-loaded"], []):
        events = list(talking.stream(x="p"))
        kinds = [event.kind for event in events]
        assert kinds == [
            *wanted_start,
            "node-started",
            "token",
            "progress",
            "token",
            "progress",
            "warning",
            "node-finished",
            "output",
            "result",
        ]
        assert set(kinds) <= set(KINDS)
        assert "".join(event["text"] for event in events if event.kind == "token") == "ab"
        assert events[-1]["result"]["text"] == events[-2]["value"]
        assert events[-1]["result"].warnings == ("talk: it was resampled",)


def test_the_seed_of_a_run_reaches_the_code(talking):
    """That of the pipeline unless the run gives its own; each node has a seed of its own."""
    assert talking.run(x="p")["text"].split()[1] == "5"
    assert talking.run(x="p", seed=9)["text"].split()[1] == "9"
    assert talking.run(x="p")["text"] == talking.run(x="p")["text"]
    assert talking.run(x="p", seed=9)["text"].split()[2] != talking.run(x="p", seed=8)["text"].split()[2]


def test_leaving_a_stream_early_stops_its_run(tmp_path):
    """The next node does not start, and the pipeline is free for the next run."""
    ran, going = Counter(), threading.Event()

    def slow(x):
        going.wait(1)
        time.sleep(0.05)
        return x

    parts = [function("toy/slow", TEXT, {"out": "text"}, slow), function("toy/next", TEXT, {"out": "text"}, lambda x: ran.note(x) or x)]
    nodes = {"a": {"use": "toy/slow", "in": {"x": "inputs.x"}}, "b": {"use": "toy/next", "in": {"x": "a"}}}
    with opened(tmp_path, parts, nodes, outputs={"out": "b"}) as pipeline:
        for event in pipeline.stream(x="p"):
            if event.kind == "node-started":
                going.set()
                break
        time.sleep(0.1)
        assert ran.calls == []
        assert pipeline.run(x="q")["out"] == "q"


def test_a_stream_raises_what_the_run_raises(tmp_path):
    """After the events that came before it."""
    with shouting(tmp_path) as pipeline, pytest.raises(mg.InputError, match="input 'x' is missing"):
        list(pipeline.stream())


# -- map ----------------------------------------------------------------------------------------------------------------


def careful(ran):
    def body(x):
        ran.note(len(x))
        if "bad" in x:
            raise ValueError("a bad one")
        return shout(x)

    return function("toy/careful", TEXT, {"out": "text"}, body)


def test_records_come_back_in_order_and_a_failure_stays_with_its_record(tmp_path):
    """Five records in batches of two: the batch with the bad one is run again one by one."""
    ran = Counter()
    nodes = {"a": {"use": "toy/careful", "in": {"x": "inputs.x"}}}
    with opened(tmp_path, [careful(ran)], nodes, outputs={"out": "a"}) as pipeline:
        results = list(pipeline.map([{"x": text} for text in ("a", "b", "c", "bad", "e")], batch_size=2))
    assert [result.error is None and result["out"] for result in results] == ["A", "B", "C", False, "E"]
    assert "a bad one" in str(results[3].error)
    with pytest.raises(mg.NodeError, match="a bad one"):
        results[3]["out"]
    assert ran.calls == [2, 2, 1, 1, 1]


def test_a_record_that_cannot_be_read_does_not_hold_up_the_others(tmp_path):
    """A wrong type, a missing and an unknown input: each is the error of its own record."""
    with shouting(tmp_path) as pipeline:
        results = list(pipeline.map([{"x": "a"}, {"x": 3}, {}, {"z": "a"}, {"x": "b", "y": "!"}], batch_size=8))
    assert [type(result.error).__name__ for result in results] == ["NoneType", "InputError", "InputError", "InputError", "NoneType"]
    assert results[0]["both"] == ("A", "-")
    assert results[4]["both"] == ("B", "!")


def test_a_record_that_is_no_mapping_does_not_hold_up_the_others(tmp_path):
    """What was found, and what a record is."""
    with shouting(tmp_path) as pipeline:
        found = list(pipeline.map([3, {"x": "a"}], batch_size=2))
    assert str(found[0].error) == "found 3, wanted a record: a mapping of inputs to values"
    assert found[1].error is None


def test_a_seed_that_is_no_number_is_the_users_mistake(tmp_path):
    """Not that of the first node that draws."""
    with shouting(tmp_path) as pipeline, pytest.raises(mg.InputError, match="seed is 'x'; wanted: a whole number"):
        pipeline.run(x="a", seed="x")


def test_records_are_read_no_further_ahead_than_one_batch(tmp_path):
    """A source without end can be mapped."""
    taken = []

    def endless():
        while True:
            taken.append(1)
            yield {"x": "a"}

    with shouting(tmp_path) as pipeline:
        results = pipeline.map(endless(), batch_size=3)
        assert next(results)["loud"] == "A"
        assert len(taken) == 3


def test_a_mapped_tensor_output_is_that_of_a_run_of_its_own(tmp_path):
    """It keeps its batch axis, one long."""
    part = function("toy/vector", TEXT, {"out": "float[batch 2]"}, lambda x: torch.tensor([[len(t), 1.0] for t in x]))
    nodes = {"a": {"use": "toy/vector", "in": {"x": "inputs.x"}}}
    with opened(tmp_path, [part], nodes, outputs={"out": "a"}) as pipeline:
        mapped = list(pipeline.map([{"x": "a"}, {"x": "bcd"}]))
        alone = pipeline.run(x="bcd")
    assert mapped[1]["out"].tolist() == alone["out"].tolist() == [[3.0, 1.0]]


def test_tensors_of_different_shapes_are_mapped_one_by_one(tmp_path):
    """They make no batch together."""
    part = function("toy/sum", {"x": "float[batch tokens]"}, {"out": "float[batch]"}, lambda x: x.sum(1))
    nodes = {"a": {"use": "toy/sum", "in": {"x": "inputs.x"}}}
    with opened(tmp_path, [part], nodes, inputs={"x": "float[batch tokens]"}, outputs={"out": "a"}) as pipeline:
        results = list(pipeline.map([{"x": torch.ones(1, 2)}, {"x": torch.ones(1, 3)}]))
    assert [result["out"].tolist() for result in results] == [[2.0], [3.0]]
