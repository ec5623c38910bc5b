"""What a graph says of its training: read with its places, and judged before anything loads."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

import modelgraft as mg
from modelgraft_plugins.training.watching import read_table
from support.learners import write_graph

TAIL = "  learning_rate: 0.05\n"


@pytest.mark.parametrize(
    ("old", "new", "code", "message"),
    [
        (TAIL, "  learning_rat: 1\n", "unknown-key", "training has no key 'learning_rat'; the keys are: doc, data,"),
        (TAIL, "  stages: {a: {optimizer: lion}}\n", "wrong-value", "training.stages.a.optimizer is 'lion'; wanted one of: adamw"),
        (TAIL, "  accumulate: 0\n", "wrong-value", "training.accumulate is 0; wanted a whole number from 1 on"),
        (TAIL, "  clip: -1\n", "wrong-value", "training.clip is -1; wanted a number from 0 on"),
        (TAIL, "  learning_rate: .inf\n", "wrong-value", "training.learning_rate is inf; wanted a number from 0 on"),
        (TAIL, "  epochs: .inf\n", "wrong-value", "training.epochs is inf; wanted a number from 0 on"),
        (TAIL, "  betas: [0, 1]\n", "wrong-type", "training.betas is a list; wanted two numbers from 0 on, below 1"),
        (TAIL, "  precision: 16\n", "wrong-type", "training.precision is the number 16; wanted one of: float32, bfloat16"),
        (TAIL, "  train: {hand: whole}\n", "wrong-value", "training.train.hand is 'whole'; wanted one of: frozen"),
        (TAIL, "  train: [arm]\n", "unknown-node", "there is no node 'arm'; those with weights are: eye, hand"),
        (TAIL, "  train: [apart]\n", "nothing-trainable", "apart (loss/alignment) has no weights that can be trained"),
        (TAIL, "  train: {hand: lora}\n", "nothing-trainable", "hand is to be tuned by what is grafted into it, and nothing is"),
        ("in: {x: eye}}", "in: {x: eye}, frozen: true}", "nothing-trainable", "weights that its losses need are frozen: eye, hand"),
        ("{x: hand, wanted: inputs.y}", "{x: inputs.y, wanted: inputs.y}", "loss-untrained", "(hand) to the loss apart"),
        (TAIL, "  losses: [hand]\n", "loss-not-scalar", "hand.y is float[batch 3]; wanted one number for each record"),
        (TAIL, "  columns: {x: a, z: b}\n", "unknown-input", "columns names the input 'z'; the graph has: x, y"),
        (TAIL, "  columns: {x: picture}\n", "missing-column", "the first record of data.jsonl has no column 'picture'"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_its_line(tmp_path, old, new, code, message):
    train = ("training:", "training:\n  train: [hand]") if code == "loss-untrained" else ("training:", "training:")
    graph = write_graph(tmp_path, (old, new), train)
    with pytest.raises(mg.GraphError) as caught:
        mg.check(graph)
    found = next(problem for problem in caught.value.problems if problem.code == code)
    assert message in found.found
    assert found.place is not None
    assert found.place.line is not None


CHOSEN = """
modelgraft: 1
inputs: {x: "float[batch 5]", y: "float[batch 8]"}
nodes:
  hand:  {use: projector/linear, with: {over: vector, out_features: 3}, in: {x: inputs.x}}
  label: {use: head/classifier, with: {names: [a, b, c]}, in: {logits: hand}}
  said:  {use: text/template, with: {template: "a {label}"}, in: {label: label.label}}
  ids:   {use: text/tokenizer, from: "preset:clip-vit-b-32", in: {text: said}}
  read:  {use: text/encoder, from: "preset:clip-vit-b-32#text_model", in: {ids: ids.ids}, frozen: true}
  back:  {use: projector/linear, with: {over: vector, out_features: 8}, in: {x: read.pooled}, frozen: true}
outputs: {label: label.label}
losses: {apart: {use: loss/alignment, with: {over: vector}, in: {x: back, wanted: inputs.y}}}
training: {train: [hand]}
"""


def test_no_gradient_comes_back_through_what_was_chosen(tmp_path):
    """A label of a classifier is no floating tensor: its wire is named."""
    graph = tmp_path / "a.yaml"
    graph.write_text(CHOSEN)
    with pytest.raises(mg.GraphError) as caught:
        mg.check(graph)
    assert {problem.code for problem in caught.value.problems} == {"no-gradient"}
    assert (
        "no gradient comes back from the loss apart to what is trained (hand): label computes with arrays of numpy"
        in caught.value.problems[0].found
    )


def test_losses_are_left_out_of_a_run_that_does_not_need_them(tmp_path):
    graph = write_graph(tmp_path)
    plan = mg.plan(graph)
    assert "apart" in plan.pruned
    with mg.open(graph) as pipeline:
        assert pipeline.run(x=[[0.0] * 5])["hand"].shape == (1, 3)
        assert pipeline.run(x=[[0.0] * 5], y=[[0.0] * 3], outputs=["apart.loss"])["apart.loss"].shape == (1,)


def test_stages_inherit_and_say_what_they_go_over(tmp_path):
    graph = write_graph(tmp_path, (TAIL, TAIL + "  stages:\n    first: {steps: 3}\n    second: {train: [hand], steps: 2}\n"))
    told = []
    found = mg.train(graph, out=tmp_path / "out", device="cpu", note=told.append)
    assert [*found.folder] == ["first", "second"]
    only = mg.train(graph, out=tmp_path / "other", device="cpu", stage=2, params={"training.stages.second.steps": 1})
    assert [*only.folder] == ["second"]


def test_explain_tells_where_each_value_of_a_stage_comes_from(tmp_path):
    from modelgraft.tools.explain import explain

    graph = write_graph(tmp_path, (TAIL, TAIL + "  stages:\n    first: {steps: 3}\n"))
    rows = {row.key: row for row in explain(mg.check(graph), "training.first")}
    assert (rows["first.steps"].value, rows["first.steps"].origin) == (3, "tiny.yaml:20")
    assert [text.partition(":")[0] for text in rows["first.steps"].replaced] == ["tiny.yaml"]
    assert (rows["first.clip"].value, rows["first.clip"].origin) == (1.0, "default")
    assert rows["first.train.hand"].origin == "solved (it has weights, is not frozen, and a loss depends on it)"


def test_a_beta_may_be_written_without_a_point(tmp_path):
    assert mg.check(write_graph(tmp_path, (TAIL, "  betas: [0, 0.9]\n")))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"batch": 0}, "training.batch is 0; wanted a whole number from 1 on"),
        ({"valid": 5.0}, "training.valid is 5.0; wanted a text or a number from 0 to 1"),
        ({"precision": "float64"}, "training.precision is 'float64'; wanted one of: float32, bfloat16, float16"),
        ({"learning_rate": {"hand": -1}}, "training.learning_rate.hand is -1; wanted a number from 0 on"),
    ],
)
def test_what_a_caller_gives_is_judged_as_what_a_graph_says(tmp_path, given, message):
    with pytest.raises(mg.GraphError) as caught:
        mg.train(write_graph(tmp_path), out=tmp_path / "out", device="cpu", **given)
    assert message in str(caught.value)


SOME = """
modelgraft: 1
name: some
inputs: {x: "float[batch 4]", y: "optional[float[batch 4]]", aim: "float[batch 2]"}
nodes:
  hand:  {use: projector/linear, with: {over: vector, out_features: 2}, in: {x: inputs.x}}
  other: {use: projector/linear, share: hand, with: {over: vector}, in: {x: inputs.y}}
outputs: {hand: hand, other: other}
losses:
  near: {use: loss/alignment, with: {over: vector}, in: {x: hand, wanted: inputs.aim}}
  far:  {use: loss/alignment, with: {over: vector}, in: {x: other, wanted: inputs.aim}}
training: {data: rows.jsonl, batch: 3, steps: 2, shuffle: false, bucket: false, optimizer: sgd, learning_rate: 1e-9, clip: 0}
"""


def test_a_loss_counts_over_the_records_that_have_what_it_needs(tmp_path):
    """Two of three in the first batch; none in the second, where it is 0 and the other trains; so does an evaluation."""
    draw = torch.Generator().manual_seed(4)
    rows = [{name: torch.randn(1, size, generator=draw).tolist() for name, size in (("x", 4), ("y", 4), ("aim", 2))} for _ in range(6)]
    for number in (1, 3, 4, 5):
        del rows[number]["y"]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "some.yaml").write_text(SOME)
    folder = mg.train(tmp_path / "some.yaml", out=tmp_path / "out", device="cpu").last
    weights = load_file(folder / "hand.safetensors")

    def lost(port, records):
        given, aims = (torch.tensor([record[name][0] for record in records]) for name in (port, "aim"))
        return float((given @ weights["weight"].T + weights["bias"] - aims).norm(dim=-1).mean())

    judged = mg.train(tmp_path / "some.yaml", out=tmp_path / "judged", device="cpu", valid=str(tmp_path / "rows.jsonl")).last
    last = read_table(judged / "metrics.csv")[-1]
    assert (last["part"], float(last["near"])) == ("valid", pytest.approx(lost("x", rows), rel=1e-4))
    assert float(last["far"]) == pytest.approx(lost("y", [rows[0], rows[2]]), rel=1e-4)
    assert float(last["loss"]) == pytest.approx(float(last["near"]) + float(last["far"]), rel=1e-4)
    first, second = [row for row in read_table(folder / "metrics.csv") if row["part"] == "train"]
    assert float(first["near"]) == pytest.approx(lost("x", rows[:3]), rel=1e-4)
    assert float(first["far"]) == pytest.approx(lost("y", [rows[0], rows[2]]), rel=1e-4)
    assert (float(second["near"]), float(second["far"])) == (pytest.approx(lost("x", rows[3:]), rel=1e-4), 0.0)
