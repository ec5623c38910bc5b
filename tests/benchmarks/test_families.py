"""Every family has a row, and its two sides are held against each other before anything is timed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks import families, family_sides
from benchmarks.families import FAMILIES, Family
from modelgraft.kernel.language.shipped_graphs import shipped_names

CARDS = Path(__file__).parents[2] / "plugins" / "modelgraft_plugins" / "families"
NEW = {
    "caption",
    "companion",
    "critics",
    "describe",
    "draw",
    "fewshot",
    "find",
    "glance",
    "glimpse",
    "grafted",
    "look",
    "many",
    "read",
    "talk",
    "zoo",
}  # graphs that nobody has whole
APART = {"diffusion", "connectors"}  # generators, beside the libraries' own in `painting` and `replies`; parts of graphs


def test_every_card_and_every_shipped_graph_has_a_row() -> None:
    """A family that is added without one is told here; the graphs in one folder share a row."""
    cards = {path.stem for path in CARDS.glob("[!_]*.py")} - {"others"}
    assert (cards | {name.partition("/")[0] for name in shipped_names()}) - NEW - APART <= set(FAMILIES)


def test_a_family_without_another_side_says_why() -> None:
    assert all(bool(family.why) is (family.sides is None) for family in FAMILIES.values())


@pytest.mark.parametrize(
    ("theirs", "ours", "told"),
    [
        ("a b c", "a b c", ""),
        ("a b c", "a b d", "'a b c' and 'a b d'"),
        ("", "", "they say nothing"),
        (torch.ones(2, 3), torch.ones(3, 2), "shapes (2, 3) and (3, 2)"),
        (torch.tensor([0.0, 4.0]), torch.tensor([0.0, 4.0003]), ""),
        (torch.tensor([0.0, 4.0]), torch.tensor([0.0, 4.004]), "1.0e-03 of the largest number"),
        (torch.zeros(2), torch.zeros(2), "they hold nothing but zeros"),
        (torch.tensor([1.0]), torch.tensor([float("nan")]), "nan of the largest number"),
    ],
)
def test_answers_are_compared(theirs: object, ours: object, told: str) -> None:
    assert families.difference(theirs, ours) == told


def test_sides_that_answer_differently_are_not_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The row says how they differ."""
    monkeypatch.setattr(families.family_checkpoints, "make", lambda name, folder, *, layers: folder)
    monkeypatch.setitem(FAMILIES, "vit", Family("", lambda folder: (lambda: "one", lambda: "other")))  # type: ignore[index]
    assert families.work("vit", tmp_path, 0.0, 1, 2) == {"why": "the answers differ: 'one' and 'other'"}


def test_both_sides_read_the_same_records() -> None:
    """In the same order, however often they are asked."""
    one, other = family_sides.texts(), family_sides.texts()
    assert [next(one) for _ in range(10)] == [next(other) for _ in range(10)]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gpt2", "vit"])
def test_a_family_is_measured(name: str, tmp_path: Path) -> None:
    """Random weights, one layer: equal answers, and a sample of each side for each round."""
    found = families.work(name, tmp_path, 0.0, 1, 2)
    assert "why" not in found
    assert {side: len(samples) for side, samples in found["samples"].items()} == {"theirs": 2, "ours": 2}
