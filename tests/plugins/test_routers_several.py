"""Several takes of one record: asked, taken together, and the best of them kept."""

from __future__ import annotations

import numpy
import pytest
import torch
from PIL import Image

import modelgraft as mg
from modelgraft import ABSENT, GraphError
from modelgraft.installed.discovery import assemble
from modelgraft.testing import conform, run_node
from modelgraft_plugins import routers
from modelgraft_plugins import text as text_plugin
from modelgraft_plugins import torch as torch_backend
from modelgraft_plugins.routers.several import Asked, Best, Each, Gather, Repeat, best, repeat
from support.running import function, graph_of

NAN = float("nan")
TOGETHER = """
modelgraft: 1
name: takes
inputs: {text: TYPE}
nodes:
  takes: {use: router/repeat, with: {times: 3}, in: {x: inputs.text}}
  same:  {use: toy/same, in: {x: takes.out, number: takes.number}}
  score: {use: toy/score, in: {number: takes.number}}
  all:   {use: router/gather, in: {x: same}}
  best:  {use: router/best, in: {x: same, score: score}}
outputs: {all: all, best: best.out, score: best.score, number: best.number, scores: best.scores}
"""


def opened(tmp_path, kind, same):
    parts = [
        function("toy/same", {"x": kind, "number": "int64[batch]"}, {"out": kind}, same),
        function("toy/score", {"number": "int64[batch]"}, {"out": "float[batch]"}, lambda number: torch.tensor([0.5, 0.9, 0.1])[number]),
    ]
    from types import ModuleType

    plugin = ModuleType("toy")

    @mg.hookimpl
    def register_components(register):
        for subject in parts:
            register(subject)

    plugin.register_components = register_components
    registry = assemble({"routers": routers, "text": text_plugin, "torch": torch_backend, "toy": plugin})
    return mg.open(graph_of(registry, tmp_path, TOGETHER.replace("TYPE", f'"{kind}"')))


def test_takes_are_asked_for_and_the_best_is_kept(tmp_path):
    with opened(tmp_path, "text", lambda x, number: [f"{one} {take}" for one, take in zip(x, number.tolist(), strict=True)]) as pipeline:
        result = pipeline.run(text=["a", "b"])
    assert result["all"] == [["a 0", "a 1", "a 2"], ["b 0", "b 1", "b 2"]]
    assert (result["best"], result["number"]) == (["a 1", "b 1"], [1, 1])
    assert result["scores"] == [pytest.approx([0.5, 0.9, 0.1])] * 2
    assert result["score"] == pytest.approx([0.9, 0.9])


def test_pictures_are_kept_as_they_are(tmp_path):
    picture = Image.fromarray(numpy.arange(12, dtype=numpy.uint8).reshape(2, 2, 3))
    with opened(tmp_path, "image", lambda x, number: x) as pipeline:
        result = pipeline.run(text=picture)
    assert numpy.array_equal(numpy.asarray(result["best"]), numpy.asarray(picture))
    assert len(result["all"]) == 3


def test_tensors_go_the_same_way(tmp_path):
    given = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    with opened(tmp_path, "float[batch 2]", lambda x, number: x * (number + 1)[:, None]) as pipeline:
        result = pipeline.run(text=given)
    assert torch.equal(result["best"], given * 2)
    assert [torch.stack(list(one)).tolist() for one in result["all"]] == [[[1, 2], [2, 4], [3, 6]], [[3, 4], [6, 8], [9, 12]]]


@pytest.mark.parametrize(("by", "scores", "number"), [
    ("largest", [1.0, 3.0, 2.0], 1), ("smallest", [1.0, 3.0, 2.0], 0), ("largest", [2.0, 2.0], 0), ("largest", [NAN, -1.0], 1),
    ("smallest", [NAN, 5.0], 1), ("largest", [NAN, NAN], 0), ("largest", [ABSENT, 0.0], 1),
])  # fmt: skip
def test_the_best_by_its_score(by, scores, number):
    """No number is never the best, unless there is nothing else; an ask that failed is not looked at."""
    texts = [f"take {index}" for index in range(len(scores))]
    found = best(Best(type="text", by=by), None)([texts], [scores])
    assert (found["out"], found["number"]) == ([f"take {number}"], [number])


def test_a_record_with_nothing_goes_on_without_it():
    found = best(Best(type="text"), None)([["a"], [], [ABSENT]], [[1.0], [], [2.0]])
    assert (found["out"], found["number"], found["score"]) == (["a", ABSENT, ABSENT], [0, ABSENT, ABSENT], [1.0, ABSENT, ABSENT])


def test_an_ask_that_gave_nothing_is_left_out_or_refused(tmp_path):
    def run(failed):
        text = TOGETHER.replace("TYPE", "text").replace("{use: toy/same, in", "{use: toy/same, runtime: {failure: mark}, in")
        text = text.replace("router/gather, in", f"router/gather, with: {{failed: {failed}}}, in")
        parts = [
            function("toy/same", {"x": "text", "number": "int64[batch]"}, {"out": "text"}, odd_ones),
            function("toy/score", {"number": "int64[batch]"}, {"out": "float[batch]"}, lambda number: number.float()),
        ]
        from types import ModuleType

        plugin = ModuleType("toy")
        plugin.register_components = mg.hookimpl(lambda register: [register(subject) for subject in parts] and None)
        with mg.open(graph_of(assemble({"routers": routers, "torch": torch_backend, "toy": plugin}), tmp_path, text)) as pipeline:
            return pipeline.run(text="a")

    def odd_ones(x, number):
        if 2 in number.tolist():
            raise MemoryError("no room")
        return x

    result = run("leave")
    assert (result["all"], result["number"]) == (["a", "a"], 1)  # the third would have had the best score
    with pytest.raises(mg.InputError, match="gave nothing for one of the asks"):
        run("refuse")


def test_a_gathered_port_may_be_fed_by_what_each_record_has_once(tmp_path):
    text = "modelgraft: 1\nname: one\ninputs: {text: text}\nnodes:\n  all: {use: router/gather, in: {x: inputs.text}}\noutputs: {all: all}"
    with mg.open(graph_of(assemble({"routers": routers, "torch": torch_backend}), tmp_path, text)) as pipeline:
        assert pipeline.run(text=["a", "b"])["all"] == [["a"], ["b"]]


def test_too_many_takes_are_refused(tmp_path):
    with pytest.raises(GraphError, match="times"):
        graph_of(assemble({"routers": routers}), tmp_path, TOGETHER.replace("TYPE", "text").replace("times: 3", "times: 0"))


@pytest.mark.parametrize("subject", [Repeat, Each, Gather, Best])
def test_they_conform(subject):
    conform(subject, {"type": "text"})


def test_takes_by_their_values():
    found = repeat(Repeat(type="text", values=("low", "high")), None)(["a", "b"])
    assert found["take"] == [["low", "high"]] * 2
    assert (found["out"], [one.tolist() for one in found["number"]]) == ([["a", "a"], ["b", "b"]], [[0, 1], [0, 1]])


def test_the_entries_of_a_list_are_asked_for_each(tmp_path):
    text = """
modelgraft: 1
name: each
inputs: {texts: "list[text]"}
nodes:
  each: {use: router/each, in: {x: inputs.texts}}
  said: {use: text/template, with: {template: "{x}!"}, in: {x: each}}
  all:  {use: router/gather, in: {x: said}}
outputs: {all: all}
"""
    with mg.open(graph_of(assemble({"routers": routers, "text": text_plugin, "torch": torch_backend}), tmp_path, text)) as pipeline:
        assert pipeline.run(texts=[["a", "b"], [], ["c"]])["all"] == [["a!", "b!"], [], ["c!"]]


def test_who_asks_a_branch_is_told_apart():
    """A mask for those that ask at all, once or several times, and one for the others."""
    found = run_node(Asked, {"type": "text"}, x=[["a"], [], ["b", "c"]])
    assert found["asked"].tolist() == [True, False, True]
    assert found["none"].tolist() == [False, True, False]


JOINED = """
modelgraft: 1
name: joined
inputs: {parts: "list[text]", counts: "int64[batch media]"}
nodes:
  each:  {use: router/each, in: {x: inputs.parts}}
  seen:  {use: toy/seen, in: {x: each.out}}
  whole: {use: router/join, with: {masked: MASKED}, in: {tokens: seen.out, COUNTS mask: seen.mask}}
outputs: {tokens: whole.tokens, lengths: whole.lengths}
"""


def seen(x):
    """For "12" the vectors (1, 12) (2, 12) (3, 12), of which as many count as the text has letters."""
    out = torch.stack([torch.tensor([[float(row), float(one)] for row in (1, 2, 3)]) for one in x])
    return {"out": out, "mask": torch.arange(3) < torch.tensor([len(one) for one in x])[:, None]}


def joining(tmp_path, *, masked: bool, counted: bool = True):
    from types import ModuleType

    plugin = ModuleType("toy")
    part = function("toy/seen", {"x": "text"}, {"out": "float[batch 3 2]", "mask": "bool[batch 3]"}, seen)
    plugin.register_components = mg.hookimpl(lambda register: register(part), specname="register_components")
    registry = assemble({"routers": routers, "torch": torch_backend, "toy": plugin})
    text = JOINED.replace("MASKED", str(masked).lower()).replace("COUNTS", "counts: inputs.counts," if counted else "")
    if not counted:
        text = text.replace(', counts: "int64[batch media]"', "")
    return mg.open(graph_of(registry, tmp_path, text if masked else text.replace(" mask: seen.mask", "")))


def test_what_a_branch_gave_stands_behind_each_other_with_its_lengths(tmp_path):
    """Two media of one and two pieces, one medium of one, and none; of each piece as many vectors as count."""
    with joining(tmp_path, masked=True) as pipeline:
        result = pipeline.run(parts=[["7", "23", "456"], ["89"], []], counts=torch.tensor([[1, 2], [1, 0], [0, 0]]))
    assert result["lengths"].tolist() == [[1, 5], [2, 0], [0, 0]]
    assert result["tokens"].tolist() == [
        [[1, 7], [1, 23], [2, 23], [1, 456], [2, 456], [3, 456]],
        [[1, 89], [2, 89], *[[0, 0]] * 4],
        [[0, 0]] * 6,
    ]


def test_without_counts_each_ask_is_a_medium(tmp_path):
    with joining(tmp_path, masked=False, counted=False) as pipeline:
        result = pipeline.run(parts=[["7", "23"], []])
        assert (result["lengths"].tolist(), result["tokens"].shape) == ([[3, 3], [0, 0]], (2, 6, 2))
        nothing = pipeline.run(parts=[[]])
    assert (nothing["lengths"].shape, nothing["tokens"].shape) == ((1, 0), (1, 0, 2))


def test_counts_that_speak_of_other_asks_are_refused(tmp_path):
    with (
        joining(tmp_path, masked=True) as pipeline,
        pytest.raises(mg.InputError, match="`counts` speaks of 3 asks, and the branch was asked 2 times"),
    ):
        pipeline.run(parts=[["7", "23"]], counts=torch.tensor([[1, 2]]))
