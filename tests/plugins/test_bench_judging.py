"""Metrics of what cells answer: one that fails is one figure, and records of one picture belong together."""

from __future__ import annotations

import pytest
import torch

from modelgraft.installed.discovery import discover
from modelgraft_plugins.benching.data import Records
from modelgraft_plugins.benching.judging import Judging, by_content
from modelgraft_plugins.benching.outcomes import Answers, Outcomes
from modelgraft_plugins.benching.results import Data
from modelgraft_plugins.scoring import metric_named


@pytest.fixture
def judged(tmp_path):
    """What judges four records of two pictures, of which one has two names; and a function that gives the answers of a cell."""
    columns = [{"image": str(tmp_path / name), "references": "cat", "class": place} for place, name in enumerate(("a", "b", "c", "c"))]
    for name, content in {"a": b"one", "b": b"one", "c": b"other"}.items():
        (tmp_path / name).write_bytes(content)

    def answers(cell, labels, **more):
        outcomes = Outcomes(tmp_path / "answers" / cell)
        for record, label in enumerate(labels):
            outcomes.add(record, {"label": label, "scores": torch.tensor([[0.5, 0.25, 0.25, 0.0]]), **more})
        return Answers(tmp_path / "answers" / cell)

    registry = discover(only=["metrics", "torch"])
    words = ("accuracy:prediction=label,references=references", "calibration:prediction=scores,references=class")
    measures = [metric_named(registry, word) for word in words]
    about = Data(name="four", digest=None, records=4)
    return Judging({"a": measures, "b": measures}, Records(columns, columns, about), 0), answers


def test_answers_are_scored_and_held_beside_those_of_the_first_cell(judged):
    """Clusters are pictures by what is in them; records that failed are left out on both sides."""
    judge, answers = judged
    (accuracy, _), untaken = judge("a", answers("a", ["cat", "cat", "dog", "cat"]), {}, media=["image"])
    assert untaken == {}
    assert (accuracy.value, accuracy.n, accuracy.clusters, accuracy.difference) == (0.75, 4, 2, None)
    (accuracy, _), _ = judge("b", answers("b", ["cat", "dog", "dog"]), {3: "failed"}, media=["image"])
    assert (accuracy.value, accuracy.n) == (pytest.approx(1 / 3), 3)
    assert (accuracy.difference.value, accuracy.difference.n) == (pytest.approx(-1 / 3), 3)


def test_a_metric_that_raises_is_a_figure_that_is_not_taken(judged):
    """The other one is, and the reason is told under its name."""
    judge, answers = judged
    quality, untaken = judge("a", answers("a", ["cat"] * 4, scores="none"), {}, media=[])
    assert [one.metric for one in quality] == ["accuracy"]
    assert list(untaken) == ["calibration"]
    assert untaken["calibration"].startswith("TypeError")


def test_pictures_are_told_apart_by_what_is_in_them(tmp_path):
    """By their files and as bytes; a name without a file stands for itself, and what is not there for nothing."""
    (tmp_path / "a").write_bytes(b"one")
    columns = [{"image": str(tmp_path / "a")}, {"image": b"one"}, {"image": "elsewhere"}, {"other": 1}]
    first, second, third, fourth = by_content(columns, ["image"])
    assert first == second
    assert (third, fourth) == ({"image": "elsewhere"}, {})
