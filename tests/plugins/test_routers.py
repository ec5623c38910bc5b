"""Routers without code: every record goes exactly one way, and the ways meet again, whatever travels on them."""

from __future__ import annotations

import re

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

import modelgraft as mg
from modelgraft import GraphError
from modelgraft.engine.pipeline import ABSENT
from modelgraft.installed.discovery import assemble
from modelgraft.testing import conform, imports_of, run_node
from modelgraft.tools.checked import checked
from modelgraft_plugins import routers, text
from modelgraft_plugins import torch as torch_backend
from modelgraft_plugins.routers import Length, Match, Merge, Threshold
from support import checkable
from support.checkable import graph_of, plugin
from support.running import function

REGISTRY = assemble({"routers": routers, "text": text})
TEXTS = ["A Cat sat", "concatenate", "two dogs", ""]


def ways(subject, config, **inputs):
    """For each record the one way that it goes; fails when it is not one."""
    masks = run_node(subject, config, **inputs)
    rows = list(zip(*masks.values(), strict=True))
    assert all(sum(row) == 1 for row in rows)
    return [list(masks)[row.index(True)] for row in rows]


@pytest.mark.parametrize(
    ("config", "wanted"),
    [
        ({"text": "cat"}, "matches matches else else"),
        ({"text": "cat", "case": True}, "else matches else else"),
        ({"text": ["dogs", "Cat"], "case": True}, "matches else matches else"),
        ({"text": "cat", "where": "word"}, "matches else else else"),
        ({"text": "a", "where": "start"}, "matches else else else"),
        ({"text": "s", "where": "end"}, "else else matches else"),
        ({"text": "two dogs", "where": "whole"}, "else else matches else"),
        ({"text": "c.t"}, "else else else else"),
        ({"pattern": "c.t"}, "matches matches else else"),
        ({"pattern": ["^$", "dog|cow"]}, "else else matches matches"),
        ({"pattern": "dogs|A", "where": "whole"}, "else else else else"),
        ({"text": "dog", "pattern": "^$"}, "else else matches matches"),
        ({"cases": {"cats": ["cat", "kitten"], "two": "two", "late": "dogs"}}, "cats cats two else"),
        ({"cases": {"starts": "^a", "rest": "."}, "patterns": True}, "starts rest rest else"),
    ],
)
def test_a_match_sends_each_text_one_way(config, wanted):
    assert ways(Match, config, text=TEXTS) == wanted.split()


def test_of_a_list_of_texts_one_must_match():
    assert ways(Match, {"text": "cat"}, text=[["a dog", "a cat"], ["a dog"], []]) == ["matches", "else", "else"]


@pytest.mark.slow
@settings(max_examples=200)
@given(st.lists(st.text(max_size=6)), st.text(min_size=1, max_size=3))
def test_a_text_is_found_as_python_finds_it(texts, wanted):
    """No letter of it means anything else, as letters of patterns do."""
    assert [way == "matches" for way in ways(Match, {"text": wanted, "case": True}, text=texts)] == [wanted in text for text in texts]


@pytest.mark.parametrize(
    ("subject", "config", "message"),
    [
        (Match, {}, "it takes either `cases`, or `text` and `pattern`: say what to look for"),
        (Match, {"text": "a", "cases": {"b": "c"}}, "it takes either `cases`"),
        (Match, {"text": ["a", ""]}, "an empty text matches everything"),
        (Match, {"pattern": "(a"}, re.escape("the pattern '(a' cannot be read: missing ), unterminated subpattern")),
        (Match, {"cases": {"else": "a"}}, "the case 'else' cannot name an output"),
        (Match, {"cases": {"a b": "a"}}, "the case 'a b' cannot name an output"),
        (Match, {"cases": {"a": []}}, "the case 'a' has no text to look for"),
        (Threshold, {}, "it needs `above`, `below` or both"),
        (Length, {"above": 3, "below": 5}, "numbers between 3 and 5 would be above and below"),
        (Merge, {"type": "text | label"}, "'text | label' is not one type"),
    ],
)
def test_what_decides_nothing_is_refused_by_the_check(subject, config, message):
    with pytest.raises(ValidationError, match=message):
        subject(**config)


def test_a_threshold_sends_each_score_one_way():
    """The number itself is neither above nor below, and no number is neither."""
    scores = torch.tensor([0.1, 0.5, 0.9, float("nan"), float("inf")])
    assert ways(Threshold, {"above": 0.5}, score=scores) == ["else", "else", "above", "else", "above"]
    assert ways(Threshold, {"above": 0.5, "below": 0.5}, score=scores) == ["below", "else", "above", "else", "above"]


@pytest.mark.parametrize(("of", "wanted"), [("largest", "above above"), ("smallest", "else else"), (0, "else above"), (2, "above else")])
def test_of_several_scores_the_named_one_decides(of, wanted):
    scores = torch.tensor([[0.1, 0.2, 0.9], [0.8, 0.1, 0.3]])
    assert ways(Threshold, {"above": 0.5, "of": of}, score=scores) == wanted.split()


def test_a_score_that_is_not_there_is_told_by_the_check():
    text = """
    modelgraft: 1
    inputs: {s: "float[batch 3]"}
    nodes: {sure: {use: router/threshold, with: {above: 0.5, of: 3}, in: {score: inputs.s}}}
    outputs: {y: sure.above}
    """
    with pytest.raises(GraphError, match=r"sure looks at score 3, but there are 3, numbered from 0\n    set of: 2 or less"):
        checked(graph_of(text, registry=REGISTRY))


def test_lengths_are_counted_in_what_is_asked_for():
    sounds = [mg.Audio(numpy.zeros((2, frames), numpy.float32), 100) for frames in (90, 110)]
    mask = torch.tensor([[True, True, False], [True, True, True]])
    assert ways(Length, {"above": 7}, x=["one two", "12345678"]) == ["else", "above"]
    assert ways(Length, {"below": 2, "unit": "words"}, x=["one two", "12345678"]) == ["else", "below"]
    assert ways(Length, {"above": 1, "below": 1, "unit": "items"}, x=[[], ["a"], ["a", "b"]]) == ["below", "else", "above"]
    assert ways(Length, {"above": 2, "unit": "tokens"}, x=mask) == ["else", "above"]
    assert ways(Length, {"above": 1, "unit": "seconds"}, x=sounds) == ["else", "above"]


def test_the_routers_conform():
    conform(Match, {"text": "fox"}, text=["a fox", "rain"])
    conform(Match, {"cases": {"fox": "fox", "rain": "rain"}}, text=["a fox", "rain"])
    for of in ("largest", "smallest", 2):
        conform(Threshold, {"above": 0.3, "of": of})
    conform(Threshold, {"above": 0.3, "below": 0.1})
    for unit in routers.MEASURES:
        conform(Length, {"above": 1, "unit": unit}, **({"x": ["a fox", "rain"]} if unit in ("letters", "words") else {}))
    assert imports_of("modelgraft_plugins.routers") == frozenset()


# -- meeting again --------------------------------------------------------------------------------------------------------

IMAGE = Image.new("RGB", (3, 2), "red")
SOUND = mg.Audio(numpy.ones((1, 5), numpy.float32), 8000)
TALK = ({"role": "user", "content": [{"type": "text", "text": "Hello"}]},)
RECORDS = {
    "text": ["a", "b", "c"],
    "label": ["a", "b", "c"],
    "image": [IMAGE, IMAGE.rotate(90, expand=True), IMAGE],
    "audio": [SOUND, SOUND, SOUND],
    "conversation": [TALK, TALK, TALK],
    "list[text]": [["a", "b"], [], ["c"]],
    "list[image]": [[IMAGE], [], [IMAGE, IMAGE]],
    "object": [{"n": 1}, None, 3],
    "float[batch 2]": torch.tensor([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]),
    "int64[batch n w]": torch.arange(12).reshape(3, 2, 2),
    "bool[batch]": torch.tensor([True, False, True]),
}
MEETING = """
modelgraft: 1
inputs: {way: text, x: "%s"}
nodes:
  kind: {use: router/match, with: {cases: {left: left, right: right}, where: whole}, in: {text: inputs.way}}
  one: {use: test/pass, in: {x: inputs.x}, when: kind.left}
  two: {use: test/pass, in: {x: inputs.x}, when: kind.right}
  met: {use: router/merge, in: {options: [one, two]}}
  again: {use: router/merge, in: {options: [met, inputs.x]}}
outputs: {met: met, again: again, one: one}
"""


def passing(type_):
    """A part that hands on what it takes, of this type."""
    return function("test/pass", {"x": type_}, {"y": type_}, lambda x: x)


def opened(type_):
    registry = assemble({"routers": routers, "torch": torch_backend, "toys": plugin(passing(type_))})
    return mg.open(graph_of(MEETING % type_, registry=registry))


def rows(value):
    """Values of a batch, in a form that can be compared."""
    return [row.tolist() if hasattr(row, "tolist") else row.samples.tolist() if hasattr(row, "samples") else row for row in value]


@pytest.mark.parametrize("type_", RECORDS)
def test_branches_meet_for_every_type(type_):
    """Each record has the value of its branch; one that went neither way is absent, and then the next option counts."""
    records = RECORDS[type_]
    with opened(type_) as pipeline:
        assert str(pipeline.plan.graph.nodes["met"].out_ports["out"].type) == type_
        result = pipeline.run(way=["left", "right", "neither"], x=records)
        wanted = rows(records)
        assert rows(result["met"]) == [*wanted[:2], ABSENT]
        assert rows(result["again"]) == wanted
        assert rows(result["one"]) == [wanted[0], ABSENT, ABSENT]


def test_when_no_record_goes_a_way_everything_behind_it_is_absent():
    with opened("text") as pipeline:
        assert dict(pipeline.run(way="neither", x="a").outputs) == {"met": ABSENT, "again": "a", "one": ABSENT}


@settings(max_examples=50)
@given(st.lists(st.sampled_from(["left", "right", "neither"]), min_size=1, max_size=7))
def test_a_mixed_batch_gives_what_its_records_give_alone(way):
    with opened("text") as pipeline:
        texts = [f"text {index}" for index in range(len(way))]
        together = pipeline.run(way=way, x=texts)["met"]
        assert together == [pipeline.run(way=[one], x=[text])["met"][0] for one, text in zip(way, texts, strict=True)]


def test_options_of_two_types_are_told_with_both():
    text = """
    modelgraft: 1
    inputs: {a: image, b: text}
    nodes: {met: {use: router/merge, in: {options: [inputs.a, inputs.b]}}}
    outputs: {y: met}
    """
    with pytest.raises(GraphError, match=r"inputs\.b gives text, but met\.options takes list\[image\]"):
        checked(graph_of(text, registry=REGISTRY))


def test_what_follows_a_wrong_name_is_not_told_again():
    """The type of a merge whose wires lead nowhere is not known, so nothing is said about what it feeds."""
    text = """
    modelgraft: 1
    inputs: {a: image}
    nodes:
      met: {use: router/merge, in: {options: [nobody, nothing]}}
      pixels: {use: toy/pixels, in: {image: met}}
      eye: {use: toy/eye, in: {pixels: pixels}}
    outputs: {y: eye.pooled, a: inputs.a}
    """
    registry = assemble({"routers": routers, "toys": plugin(*checkable.EVERY)})
    with pytest.raises(GraphError) as caught:
        checked(graph_of(text, registry=registry))
    assert [problem.code for problem in caught.value.problems] == ["unknown-node", "unknown-node"]


def test_a_merge_keeps_widths_and_value_spaces():
    """What differs between branches, or between a branch and what comes after them, is told as without a merge."""
    text = """
    modelgraft: 1
    inputs: {image: image}
    nodes:
      one: {use: toy/pixels, with: {size: 28}, in: {image: inputs.image}}
      two: {use: toy/pixels, with: {size: %s, image_mean: [%s, 0.5, 0.5]}, in: {image: inputs.image}}
      met: {use: router/merge, in: {options: [one, two]}}
      eye: {use: toy/eye, with: {image_size: 28, image_mean: [%s, 0.5, 0.5]}, in: {pixels: met}}
    outputs: {y: eye.pooled}
    """
    registry = assemble({"routers": routers, "toys": plugin(*checkable.EVERY)})

    def codes(*values):
        try:
            checked(graph_of(text % values, registry=registry))
        except GraphError as error:
            return [(problem.code, problem.node) for problem in error.problems]
        return []

    assert codes(28, 0.5, 0.5) == []
    assert codes(14, 0.5, 0.5) == [("dim-mismatch", "met")]
    assert codes(28, 0.4, 0.5) == [("space-mismatch", "met")]
    assert codes(28, 0.5, 0.4) == [("space-mismatch", "eye")]


BRANCHED = """
modelgraft: 1
inputs: {x: text}
nodes:
  kind: {use: router/match, with: {cases: {a: a, b: b}}, in: {text: inputs.x}}
  one: {use: text/template, with: {template: "{x}!"}, in: {x: inputs.x}, when: kind.a}
  two: {use: text/template, with: {template: "{x}?"}, in: {x: inputs.x}, when: kind.b}
  end: %s
outputs: {y: end}
"""


@pytest.mark.parametrize(
    ("end", "told"),
    [
        (
            '{use: text/template, with: {template: "{x}."}, in: {x: one}, when: kind.b}',
            "it runs when kind.b, and what feeds it comes by kind.a",
        ),
        (
            '{use: text/template, with: {template: "{x}{y}"}, in: {x: one, y: two}}',
            "it needs all its inputs, and what feeds it comes by kind.a and kind.b",
        ),
        ("{use: router/merge, in: {options: [one]}, when: kind.else}", "runs when kind.else, and what feeds it comes by kind.a"),
    ],
)
def test_a_node_that_no_record_can_reach_is_told(end, told):
    with pytest.raises(GraphError) as caught:
        checked(graph_of(BRANCHED % end, registry=REGISTRY))
    assert [(p.code, p.node) for p in caught.value.problems if p.code != "unused-node"] == [("never-runs", "end")]
    assert told in str(caught.value)


@pytest.mark.parametrize(
    "end",
    [
        '{use: text/template, with: {template: "{x}."}, in: {x: one}, when: kind.a}',
        '{use: text/template, with: {template: "{x}."}, in: {x: inputs.x}, when: kind.else}',
        "{use: router/merge, in: {options: [one, two]}, when: kind.b}",
        "{use: router/merge, in: {options: [one, two, inputs.x]}}",
    ],
)
def test_ways_that_meet_run(end):
    assert checked(graph_of(BRANCHED % end, registry=REGISTRY, allow=["unused"]))


def routed_by(kind):
    text = f"""
    modelgraft: 1
    inputs: {{x: text, m: "{kind}"}}
    nodes: {{end: {{use: text/template, with: {{template: "{{x}}"}}, in: {{x: inputs.x}}, when: inputs.m}}}}
    outputs: {{y: end}}
    """
    return checked(graph_of(text, registry=REGISTRY))


@pytest.mark.parametrize("kind", ["mask[n]", "mask[batch 1]", "int64[batch]", "text"])
def test_a_route_is_a_mask_of_the_batch(kind):
    """One entry for each record; anything else could not be told apart by records when it runs."""
    assert routed_by("mask[batch]").nodes["end"].when is not None
    with pytest.raises(GraphError, match=r"route-not-mask"):
        routed_by(kind)
