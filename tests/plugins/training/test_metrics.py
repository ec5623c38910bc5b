"""Metrics of an evaluation: the figures of `eval`, told in the table, and what decides which weights are the best."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

import modelgraft as mg
from modelgraft_plugins.training.rows import held_out
from modelgraft_plugins.training.watching import read_table
from support.learners import write_graph

SAID = ("  apart: ", '  said: {use: text/template, with: {template: "the {word}"}, in: {word: inputs.word}}\n  apart: ')
WORD = ("nodes:", "  word: text\nnodes:")
WORDS = ("cat", "cat", "dog")


def with_words(tmp_path, metrics, more=""):
    """The tiny graph, whose records also hold a word, and what is right of every third is another one."""
    change = ("steps: 12", f"steps: 12\n  valid: 0.5\n  evaluate: 3\n  metrics: {metrics}{more}")
    graph = write_graph(tmp_path, change, SAID, WORD)
    rows = [json.loads(line) for line in (tmp_path / "data.jsonl").read_text().splitlines()]
    rows = [{**row, "word": "cat", "right": WORDS[number % 3]} for number, row in enumerate(rows)]
    (tmp_path / "data.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return graph, rows


def test_metrics_are_told_and_the_best_of_one_is_what_a_stage_gives(tmp_path):
    """Recall by loops over the held-out records with the weights that were kept; word F1 is the part whose word is right."""
    graph, rows = with_words(
        tmp_path, '["recall:k=1,prediction=hand,references=y", "word_f1:prediction=said,references=right"]', '\n  best: "recall(k=1)"'
    )
    folder = mg.train(graph, out=tmp_path / "out", device="cpu").last
    table = [row for row in read_table(folder / "metrics.csv") if row["part"] == "valid"]
    assert [int(row["step"]) for row in table] == [3, 6, 9, 12]
    _, held = held_out(len(rows), 0.5, seed=0)
    right = sum(WORDS[number % 3] == "cat" for number in held) / len(held)
    assert [float(row["word_f1"]) for row in table] == pytest.approx([right] * 4)
    figures = [float(row["recall(k=1)"]) for row in table]
    card = json.loads((folder / "card.json").read_text())
    assert card["best"] == {"recall(k=1)": max(figures), "step": 3 * (figures.index(max(figures)) + 1)}
    kept = load_file(folder / "hand.safetensors")
    with mg.open(graph, seed=0) as pipeline:
        seen = pipeline.run(x=torch.tensor([rows[number]["x"][0] for number in held]), outputs=["eye.y"])["eye.y"]
    found = torch.nn.functional.normalize(seen @ kept["weight"].T + kept["bias"], dim=-1)
    wanted = torch.nn.functional.normalize(torch.tensor([rows[number]["y"][0] for number in held]), dim=-1)
    hits = sum(int((found[one] @ wanted.T).argmax()) == one for one in range(len(held)))
    assert max(figures) == pytest.approx(hits / len(held))
    assert (folder / "checkpoints/best/hand.safetensors").is_file()


def test_a_stage_ends_where_a_metric_is_no_better(tmp_path):
    """Word F1 never changes: the first evaluation is the best, and two that are no better end the stage."""
    graph, _ = with_words(tmp_path, '["word_f1:prediction=said,references=right"]', "\n  best: word_f1\n  patience: 2")
    told: list[str] = []
    card = json.loads((mg.train(graph, out=tmp_path / "out", device="cpu", note=told.append).last / "card.json").read_text())
    assert told[-1] == "train: ends behind step 9 of 12: word_f1 is no better than at step 3, and `patience` is 2"
    assert (card["steps"], card["best"]["step"], card["weights"]) == (9, 3, "of step 3")


def test_a_metric_that_cannot_be_taken_is_told_and_ends_nothing(tmp_path):
    """Most records say nothing of what is right: word F1 has no number, recall has, and what was told is drawn."""
    graph, rows = with_words(
        tmp_path, '["recall:k=1,prediction=hand,references=y", "word_f1:prediction=said,references=right"]', "\n  best: word_f1"
    )
    rows = [row if number == 0 else {key: value for key, value in row.items() if key != "right"} for number, row in enumerate(rows)]
    (tmp_path / "data.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    told = []
    folder = mg.train(graph, out=tmp_path / "out", device="cpu", note=told.append).last
    assert any("train: step 3: the metric word_f1 gives no number: " in text for text in told)
    table = [row for row in read_table(folder / "metrics.csv") if row["part"] == "valid"]
    assert [bool(row["recall(k=1)"]) for row in table] == [True] * 4
    assert {row["word_f1"] for row in table} == {""}
    card = json.loads((folder / "card.json").read_text())
    assert (card["steps"], card["weights"]) == (12, "of the last step")
    assert ">recall(k=1)</text>" in (folder / "evaluations.svg").read_text()


@pytest.mark.parametrize(
    ("metrics", "more", "found"),
    [
        ('["word_f2"]', "", "there is no metric 'word_f2'"),
        ('["word_f1"]', "", "does not say what it looks at"),
        ('["word_f1:prediction=said"]', "", "compares with references, and names none"),
        ('["word_f1:prediction=says,references=right"]', "", "looks at 'says', which is no output of a node"),
        ('["word_f1:prediction=hand,references=right"]', "", r"hand.y gives .*, but the metric .* takes text \| label"),
        ('["word_f1:prediction=said,references=wrong"]', "", "no column gives the references 'wrong' of a metric"),
        ('["recall:k=none,prediction=hand,references=y"]', "", "metric/recall has k='none'"),
        ("[]", "\n  best: word_f1", "best names 'word_f1'; the table of an evaluation has: loss"),
    ],
)
def test_a_metric_that_does_not_fit_is_told_by_the_checker(tmp_path, metrics, more, found):
    graph, _ = with_words(tmp_path, metrics, more)
    with pytest.raises(mg.GraphError, match=found):
        mg.check(mg.load(graph))
