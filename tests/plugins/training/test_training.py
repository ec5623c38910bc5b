"""Training: the numbers are those of a loop written by hand, what is frozen stays, and what was stopped goes on as if it had not been."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import modelgraft as mg
from modelgraft.records.publishing import path_aside
from modelgraft_plugins.losses.modules import Alignment
from modelgraft_plugins.training import checkpoints, stage
from modelgraft_plugins.training.alone import alone
from modelgraft_plugins.training.watching import Table, read_table
from support.checkpoints import clip
from support.learners import GIVEN, INNER, TEXTS, write_graph
from support.recipes import drawn


def column(folder, name, part="train"):
    return [float(row[name]) for row in read_table(folder / "metrics.csv") if row["part"] == part]


def test_a_step_is_that_of_a_loop_written_by_hand(tmp_path):
    """All records in each batch, in order: AdamW of torch over the same layers ends at the same numbers."""
    graph = write_graph(tmp_path, ("batch: 4", "batch: 13\n  shuffle: false\n  schedule: linear\n  warmup: 0\n  weight_decay: 0.1"))
    with mg.open(graph, seed=0) as pipeline:  # the numbers that the layers start from
        rows = [json.loads(line) for line in (tmp_path / "data.jsonl").read_text().splitlines()]
        x, y = (torch.tensor([row[key][0] for row in rows]) for key in "xy")
        seen = pipeline.run(x=x, outputs=["eye.y"])["eye.y"]
        pipeline.run(x=x)
        hand = torch.nn.Linear(INNER, GIVEN)
        hand.load_state_dict(pipeline._loader.loaded()["hand"].state.state_dict())
    optimizer = torch.optim.AdamW(
        [{"params": [hand.weight], "weight_decay": 0.1}, {"params": [hand.bias], "weight_decay": 0.0}],
        lr=0.05,
        betas=(0.9, 0.999),
        eps=1e-8,
    )
    wanted = []
    for step in range(12):
        for group in optimizer.param_groups:
            group["lr"] = 0.05 * (1 - step / 12)
        loss = ((hand(seen) - y) ** 2).sum(-1).sqrt().mean()
        wanted.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(hand.parameters(), 1.0)
        optimizer.step()
    folder = mg.train(graph, out=tmp_path / "out", device="cpu").last
    torch.testing.assert_close(torch.tensor(column(folder, "loss")), torch.tensor(wanted), atol=1e-5, rtol=1e-5)
    found = load_file(folder / "hand.safetensors")
    torch.testing.assert_close(found, dict(hand.state_dict()), atol=1e-5, rtol=1e-5)


def test_a_row_is_in_the_table_as_soon_as_its_step_is_done(tmp_path):
    """Where a step takes seconds, the next checkpoint may be an hour away."""
    table = Table(tmp_path, ["say"], upto=0)
    table.add({"step": 1, "loss": 0.5})
    assert [row["loss"] for row in read_table(tmp_path / "metrics.csv")] == ["0.5"]
    table.close()


def test_the_loss_falls_and_frozen_parts_stay_to_the_bit(tmp_path):
    """And the trained file is a `from` that gives what training had."""
    graph = write_graph(tmp_path, ("steps: 12", "steps: 60\n  valid: 0.3\n  evaluate: 20"))
    x = torch.randn(2, 5)
    with mg.open(graph) as pipeline:
        before = pipeline.run(x=x, outputs=["eye.y"])["eye.y"]
    folder = mg.train(graph, out=tmp_path / "out", device="cpu").last
    losses = column(folder, "loss")
    assert sum(losses[-5:]) < 0.6 * sum(losses[:5])
    assert len(column(folder, "loss", "valid")) == 3
    assert {path.name for path in folder.glob("*.safetensors")} == {"hand.safetensors"}
    again = write_graph(
        tmp_path, ("hand: {use: projector/linear,", "hand: {use: projector/linear, from: ./out/train/hand.safetensors,"), name="b.yaml"
    )
    with mg.open(again) as pipeline:
        found = pipeline.run(x=x, outputs=["eye.y", "hand"])
    assert torch.equal(found["eye.y"], before)
    trained = load_file(folder / "hand.safetensors")
    torch.testing.assert_close(found["hand"], before @ trained["weight"].T + trained["bias"])
    assert json.loads((folder / "card.json").read_text())["steps"] == 60
    assert (folder / "loss.svg").read_text().startswith("<svg")


@pytest.mark.slow  # starts python four times
def test_what_was_killed_goes_on_to_the_same_bytes(tmp_path):
    """Killed at moments that nobody chose, again and again, and resumed each time."""
    change = ("steps: 12", "steps: 150\n  save: 7\n  accumulate: 2")
    graph = write_graph(tmp_path, change)
    whole = mg.train(graph, out=tmp_path / "whole", device="cpu").last
    code = f"import modelgraft as mg; mg.train({str(graph)!r}, out={str(tmp_path / 'cut')!r}, device='cpu', resume=True)"
    folder, kills = tmp_path / "cut" / "train", 0
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
        there = {path.name for path in folder.glob("checkpoints/step-*")}
        while process.poll() is None and (kills == 2 or {path.name for path in folder.glob("checkpoints/step-*")} == there):
            time.sleep(0.002)
        if process.poll() is not None:
            break
        time.sleep(0.003 * kills)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        kills += 1
    assert kills == 2
    assert process.returncode == 0
    for name in ("hand.safetensors", "metrics.csv"):
        assert (folder / name).read_bytes() == (whole / name).read_bytes(), name


@pytest.mark.parametrize(("every_s", "wanted"), [(0, [1, 2, 3, 4]), (600, [3, 4])])
def test_a_checkpoint_is_written_when_much_time_has_passed_too(every_s, wanted, tmp_path, monkeypatch):
    """Where each step takes seconds, the steps of `save` would take too long; the end is the same."""
    saved, save = [], checkpoints.save
    monkeypatch.setattr(checkpoints, "save", lambda folder, progress, parts: saved.append(progress.step) or save(folder, progress, parts))
    monkeypatch.setattr(stage, "SAVE_S", every_s)
    mg.train(write_graph(tmp_path, ("steps: 12", "steps: 4\n  save: 3")), out=tmp_path / "out", device="cpu")
    assert saved == wanted


def test_what_killed_runs_have_half_written_is_cleared_away(tmp_path):
    """In the folder of a stage, among its checkpoints, of which no more stay than ever, and never what is not ours."""
    graph = write_graph(tmp_path, ("steps: 12", "steps: 12\n  save: 3"))
    folder = mg.train(graph, out=tmp_path / "out", device="cpu").last
    there = sorted(path.relative_to(folder) for path in folder.rglob("*"))
    (folder / "card.json").unlink()
    (folder / ".notes").write_text("mine")
    path_aside(folder / "metrics.csv").write_text("ste")
    half = path_aside(folder / "checkpoints/step-00000012")
    shutil.copytree(folder / "checkpoints/step-00000012", half)
    shutil.copytree(half, folder / "checkpoints/step-00000006")
    mg.train(graph, out=tmp_path / "out", device="cpu", resume=True)
    assert sorted(path.relative_to(folder) for path in folder.rglob("*")) == sorted([*there, Path(".notes")])


def test_a_run_that_was_another_one_is_refused_with_what_differs(tmp_path):
    graph = write_graph(tmp_path)
    mg.train(graph, out=tmp_path / "out", device="cpu", steps=2)
    with pytest.raises(mg.InputError, match="holds a training already"):
        mg.train(graph, out=tmp_path / "out", device="cpu", steps=2)
    with pytest.raises(mg.InputError, match=r"was another one:\s+stage.steps: 2 -> 3\s+stage.total: 2 -> 3"):
        mg.train(graph, out=tmp_path / "out", device="cpu", steps=3, resume=True)
    write_graph(tmp_path, records=12)
    with pytest.raises(mg.InputError, match=r"data.digest: .* -> .*\s+data.records: 13 -> 12"):
        mg.train(graph, out=tmp_path / "out", device="cpu", steps=2, resume=True)


def test_what_force_is_said_to_do_it_does(tmp_path):
    """Goes on after an early end; begins anew over what cannot be read; tells weights of another module, and how to begin anew."""
    graph = write_graph(tmp_path, ("steps: 12", "steps: 12\n  valid: 0.4\n  evaluate: 1\n  patience: 1"), ("rate: 0.05", "rate: 1e-12"))
    given = {"out": tmp_path / "out", "device": "cpu"}
    folder = mg.train(graph, **given).last
    assert json.loads((folder / "card.json").read_text())["steps"] < 4
    mg.train(graph, **given, resume=True, force=True, learning_rate=0.05)
    assert json.loads((folder / "card.json").read_text())["steps"] > 4
    (folder / "run.json").write_text("{")
    with pytest.raises(mg.InputError, match=r"run.json cannot be read: .* begin anew: force=True without resume=True"):
        mg.train(graph, **given, resume=True)
    mg.train(graph, **given, force=True)
    write_graph(tmp_path, ("out_features: 7", "out_features: 8"))
    with pytest.raises(mg.InputError, match="holds the tensors of another module: weight; force=True without resume=True begins anew"):
        mg.train(graph, **given, resume=True, force=True)


def test_rows_that_do_not_fit_are_listed_and_left_out_when_asked(tmp_path):
    graph, told = write_graph(tmp_path), []
    with (tmp_path / "data.jsonl").open("a") as file:
        file.write('{"x": [[1, 2]]}\nno json\n{"x": [[1, 2]], "y": [[1, 2, 3]]}\n')
    with pytest.raises(mg.InputError, match=r"3 rows of .*data.jsonl do not fit\s+data.jsonl:14: no column gives y") as caught:
        mg.train(graph, out=tmp_path / "out", device="cpu")
    assert all(f"data.jsonl:{line}" in str(caught.value) for line in (14, 15, 16))
    folder = mg.train(graph, out=tmp_path / "out", device="cpu", skip_bad=True, note=told.append).last
    assert any("data.jsonl:15" in text for text in told)
    assert json.loads((folder / "card.json").read_text())["skipped"] == 3


def test_a_loss_that_is_no_number_stops_and_keeps_what_was_good(tmp_path):
    graph = write_graph(tmp_path, ("batch: 4", "batch: 4\n  shuffle: false"))
    rows = (tmp_path / "data.jsonl").read_text().splitlines()
    rows[9] = json.dumps({"x": [[1e38] * 5], "y": [[1e38, -1e38, 3e38]]})
    (tmp_path / "data.jsonl").write_text("\n".join(rows))
    with pytest.raises(
        mg.InputError, match=r"(?s)the loss apart is no number at step 3: \w+\.\w+ is the first that is none.*data.jsonl:10"
    ) as caught:
        mg.train(graph, out=tmp_path / "out", device="cpu")
    assert "step-00000002" in str(caught.value)
    kept = load_file(tmp_path / "out/train/checkpoints/step-00000002/hand.safetensors")
    assert all(bool(tensor.isfinite().all()) for tensor in kept.values())


def test_a_full_disk_is_told_and_what_was_whole_goes_on(tmp_path, monkeypatch):
    """The second checkpoint does not find room; the first is whole, and nothing half stands beside it."""
    from safetensors import SafetensorError

    from modelgraft_plugins.training import checkpoints

    graph, write, calls = write_graph(tmp_path, ("steps: 12", "steps: 12\n  save: 5")), checkpoints.save_file, []

    def full(*arguments, **options):
        calls.append(arguments)
        if len(calls) > 2:
            raise SafetensorError("I/O error: No space left on device (os error 28)")
        write(*arguments, **options)

    monkeypatch.setattr(checkpoints, "save_file", full)
    with pytest.raises(
        mg.InputError, match=r"step-00000010 cannot be written: .*No space left on.*; resume=True goes on from step-00000005"
    ):
        mg.train(graph, out=tmp_path / "out", device="cpu")
    monkeypatch.undo()
    assert [path.name for path in (tmp_path / "out/train/checkpoints").iterdir()] == ["step-00000005"]
    folder = mg.train(graph, out=tmp_path / "out", device="cpu", resume=True).last
    whole = mg.train(graph, out=tmp_path / "whole", device="cpu").last
    assert (folder / "hand.safetensors").read_bytes() == (whole / "hand.safetensors").read_bytes()


def test_stages_of_one_process_may_compute_in_other_precisions(tmp_path):
    """Bfloat16 keeps eight bits, so its losses are those of float32 up to a hundredth."""
    graph = write_graph(tmp_path)
    exact, rough = (
        column(mg.train(graph, out=tmp_path / precision, device="cpu", precision=precision).last, "loss")
        for precision in ("float32", "bfloat16")
    )
    assert exact != rough
    assert rough == pytest.approx(exact, rel=0.05)


STAGES = ("steps: 12", "stages:\n    one: {steps: 3}\n    two: {steps: 3}")


def test_a_stage_begins_with_what_the_one_before_trained_also_without_its_checkpoints(tmp_path):
    graph = write_graph(tmp_path, STAGES)
    whole = mg.train(graph, out=tmp_path / "whole", device="cpu").last
    mg.train(graph, out=tmp_path / "out", device="cpu", stage="one")
    shutil.rmtree(tmp_path / "out/one/checkpoints")
    folder = mg.train(graph, out=tmp_path / "out", device="cpu", stage="two").last
    assert (folder / "hand.safetensors").read_bytes() == (whole / "hand.safetensors").read_bytes()
    (tmp_path / "out/one/hand.safetensors").unlink()
    with pytest.raises(mg.InputError, match=r"stage two begins with what was trained of hand before, and .* is not there"):
        mg.train(graph, out=tmp_path / "out", device="cpu", stage="two", force=True)


def test_a_stage_whose_former_one_was_trained_anew_is_another_run(tmp_path):
    graph = write_graph(tmp_path, STAGES)
    mg.train(graph, out=tmp_path / "out", device="cpu")
    mg.train(graph, out=tmp_path / "out", device="cpu", stage="one", force=True, seed=5)
    with pytest.raises(mg.InputError, match=r"was another one:\s+before.one.hand: "):
        mg.train(graph, out=tmp_path / "out", device="cpu", stage="two", resume=True)


def test_a_stage_that_was_stopped_behind_its_last_step_is_only_written(tmp_path):
    graph, told = write_graph(tmp_path), []
    folder = mg.train(graph, out=tmp_path / "out", device="cpu").last
    before = (folder / "hand.safetensors").read_bytes()
    (folder / "card.json").unlink()
    mg.train(graph, out=tmp_path / "out", device="cpu", resume=True, note=told.append)
    assert (folder / "hand.safetensors").read_bytes() == before
    assert not [text for text in told if "no gradient has reached" in text]


def test_records_of_which_none_fits_end_the_run(tmp_path):
    graph = write_graph(tmp_path)
    (tmp_path / "data.jsonl").write_text('{"x": [[1, 2]], "y": [[1, 2, 3]]}\n' * 9)
    with pytest.raises(mg.InputError, match=r"of the 9 records of .*data.jsonl none fits"):
        mg.train(graph, out=tmp_path / "out", device="cpu", skip_bad=True)


def test_a_share_that_leaves_nothing_to_train_on_is_told(tmp_path):
    graph = write_graph(tmp_path, records=1)
    with pytest.raises(mg.InputError, match=r"data.jsonl holds 1 record, and a share of 0.5 is held out: none is left to train on"):
        mg.train(graph, out=tmp_path / "out", device="cpu", valid=0.5)


PICTURES = """
modelgraft: 1
inputs: {image: image, wanted: "float[batch 3]"}
nodes:
  pixels: {use: vision/preprocess, from: "./CLIP", in: {image: inputs.image}}
  see:    {use: vision/encoder, from: "./CLIP#vision_model", in: {pixels: pixels}, frozen: true}
  hand:   {use: projector/linear, with: {over: vector, out_features: 3}, in: {x: see.pooled}}
outputs: {hand: hand}
losses: {apart: {use: loss/alignment, with: {over: vector}, in: {x: hand, wanted: inputs.wanted}}}
training: {data: data.jsonl, batch: 2, steps: 6}
"""


def test_pictures_that_cannot_be_read_are_listed_and_left_out_when_asked(tmp_path):
    """Cut off, another file by its name, empty, not there: each with its line; what is left trains as it does alone."""
    clip(tmp_path / "CLIP")
    for number in range(3):
        drawn(number).save(tmp_path / f"{number}.png")
    whole = (tmp_path / "1.png").read_bytes()
    for name, content in (("cut", whole[: len(whole) // 2]), ("text", b"hello"), ("empty", b"")):
        (tmp_path / f"{name}.png").write_bytes(content)
    names = ["0", "cut", "1", "text", "empty", "2", "gone"]
    (tmp_path / "data.jsonl").write_text("".join(f'{{"image": "{name}.png", "wanted": [[1, 2, 3]]}}\n' for name in names))
    (tmp_path / "a.yaml").write_text(PICTURES)
    bad = {2: "cut", 4: "text", 5: "empty", 7: "gone"}
    with pytest.raises(mg.InputError, match=r"of .*data.jsonl do(es)? not fit") as caught:
        mg.train(tmp_path / "a.yaml", out=tmp_path / "out", device="cpu")
    assert any(f"data.jsonl:{line}" in str(caught.value) and f"{name}.png" in str(caught.value) for line, name in bad.items())
    told: list[str] = []
    folder = mg.train(tmp_path / "a.yaml", out=tmp_path / "out", device="cpu", force=True, skip_bad=True, note=told.append).last
    assert json.loads((folder / "card.json").read_text())["skipped"] == 4
    for line, name in bad.items():
        assert any(f"data.jsonl:{line}" in text and f"{name}.png" in text for text in told), name


@pytest.mark.parametrize("x", [[1e38] * 5, [1, 2]], ids=["too-large", "none-fits"])
def test_an_evaluation_that_gives_no_number_is_not_the_best(x, tmp_path):
    """Also one of which no record fits, which are left out."""
    graph, told = write_graph(tmp_path, ("steps: 12", "steps: 2\n  valid: other.jsonl")), []
    (tmp_path / "other.jsonl").write_text(json.dumps({"x": [x], "y": [[1e38, -1e38, 3e38]]}))
    folder = mg.train(graph, out=tmp_path / "out", device="cpu", note=told.append, skip_bad=True).last
    assert "train: the evaluation at step 2 gives no number" in told
    card = json.loads((folder / "card.json").read_text())
    assert (card["best"], card["metrics"]["loss"]) == (None, None)


def test_a_node_may_be_called_as_what_stands_beside_it_in_a_checkpoint(tmp_path):
    text = write_graph(tmp_path).read_text().replace("hand", "optimizer")
    (tmp_path / "tiny.yaml").write_text(text)
    whole = mg.train(tmp_path / "tiny.yaml", out=tmp_path / "whole", device="cpu").last
    (whole / "card.json").unlink()
    mg.train(tmp_path / "tiny.yaml", out=tmp_path / "whole", device="cpu", resume=True)
    assert (whole / "card.json").exists()


def test_records_that_a_node_refuses_are_named_and_left_out_when_asked(tmp_path):
    """A text is too long for its reader, which the tokenizer finds in the midst of a batch."""
    clip(tmp_path / "CLIP")
    (tmp_path / "texts.yaml").write_text(TEXTS)
    texts = ["a cat", "a dog", "word " * 90, "a cow", "a hen"]
    rows = "".join(json.dumps({"text": text, "wanted": [[1, 2, 3]]}) + "\n" for text in texts)
    (tmp_path / "data.jsonl").write_text(rows)
    with pytest.raises(mg.InputError, match=r"(?s)1 row of .* does not fit\s+data.jsonl:3: a text has \d+ tokens .*skip_bad"):
        mg.train(tmp_path / "texts.yaml", out=tmp_path / "out", device="cpu")
    folder = mg.train(tmp_path / "texts.yaml", out=tmp_path / "out", device="cpu", skip_bad=True, force=True).last
    card = json.loads((folder / "card.json").read_text())
    assert (card["steps"], card["skipped"]) == (4, 1)
    mg.train(tmp_path / "texts.yaml", out=tmp_path / "judged", device="cpu", skip_bad=True, valid=str(tmp_path / "data.jsonl"))


def nothing(_found):
    raise ValueError("no luck")


@pytest.mark.parametrize(
    ("gives", "told"),
    [
        (lambda _found: None, r"loss/alignment breaks its declaration in node 'apart': output 'loss': found None, wanted float\[batch\]"),
        (lambda found: found[:, None], r"'loss': found float32\[4 1\], wanted float\[batch\]"),
        (lambda found: found.mean(), r"'loss': found float32\[\], wanted float\[batch\]"),
        (lambda found: found.detach().numpy(), "wanted .*: a torch tensor"),
        (lambda found: found.detach(), "no gradient comes back from the losses to hand"),
        (nothing, r"^node 'apart' \(loss/alignment\) failed: ValueError: no luck$"),
    ],
)
def test_a_loss_that_gives_nonsense_is_told_and_no_row_is_blamed(tmp_path, monkeypatch, gives, told):
    whole = Alignment.forward
    monkeypatch.setattr(Alignment, "forward", lambda self, *given, **more: gives(whole(self, *given, **more)))
    with pytest.raises(mg.ModelgraftError, match=told):
        mg.train(write_graph(tmp_path), out=tmp_path / "out", device="cpu")


def test_a_place_that_cannot_be_written_is_told_without_a_word_of_room(tmp_path):
    graph = write_graph(tmp_path)
    with pytest.raises(mg.InputError, match="cannot be written: Not a directory; name another folder as out"):
        mg.train(graph, out=graph, device="cpu")


def test_a_folder_is_trained_in_by_one_process_at_a_time(tmp_path):
    graph, folder = write_graph(tmp_path), tmp_path / "out/train"
    with alone(folder), pytest.raises(mg.InputError, match=rf"is being trained in by process {os.getpid()} on .*; wait for it"):
        mg.train(graph, out=tmp_path / "out", device="cpu")
    mg.train(graph, out=tmp_path / "out", device="cpu", steps=2)
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(("warmup", "told"), [("8", False), ("0.5", False), ("99", True)])
def test_a_rise_of_the_rate_that_the_stage_does_not_reach_is_told(tmp_path, warmup, told):
    """Recipes of the literature warm up for more steps than a trial has."""
    notes = []
    graph = write_graph(tmp_path, ("steps: 12", f"steps: 12\n  warmup: {warmup}"))
    mg.train(graph, out=tmp_path / "out", device="cpu", dry_run=True, note=notes.append)
    wanted = "train: warmup takes 99 steps: 12 steps end at 0.12 of the learning rate; below 1 it is a share of them, and 0 is none"
    assert (wanted in notes) is told
