"""Two processes of one training: each takes its part of every batch, and what comes out is that of one process with the whole batch."""

from __future__ import annotations

import json
import math
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import modelgraft as mg
from modelgraft_plugins.training.asked import Asked
from modelgraft_plugins.training.chosen import chosen_stages, stage_run
from modelgraft_plugins.training.evaluating import evaluation
from modelgraft_plugins.training.processes import Processes
from modelgraft_plugins.training.watching import read_table
from support.forking import forks
from support.learners import write_graph

CHANGE = (
    "batch: 4",
    "batch: 5\n  accumulate: 2\n  valid: valid.jsonl\n  evaluate: 4\n  save: 5\n  features: float32\n"
    '  metrics: ["recall:k=1,prediction=hand,references=y"]',
)


COMMAND = "import sys; from modelgraft.cli import main; sys.exit(main())"


def launched(graph: Path, out: Path, *more: str) -> list[subprocess.CompletedProcess[str]]:
    """Two processes that accelerate joins, as its launcher starts them: by variables of the environment."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    usual = {**os.environ, "ACCELERATE_USE_CPU": "true", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    usual["GLOO_SOCKET_IFNAME"] = "lo"  # whatever the name of this machine means to it
    words = [sys.executable, "-c", COMMAND, "train", str(graph), "--out", str(out), "--device", "cpu", *more]
    each = [{**usual, "RANK": str(rank), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"} for rank in range(2)]
    return forks("accelerate", "torch.distributed", "modelgraft_plugins.training.stage").together([(words, one) for one in each])


@pytest.mark.slow  # processes of their own
def test_two_processes_end_where_one_does(tmp_path: Path):
    """With features, evaluations and metrics, accumulated batches of odd sizes, a record that is left out, a stop behind the tenth step."""
    graph = write_graph(tmp_path, CHANGE)
    with (tmp_path / "data.jsonl").open("a") as file:
        file.write('{"x": [[1, 2]], "y": [[1, 2, 3]]}\n')
    shutil.copy(tmp_path / "data.jsonl", tmp_path / "valid.jsonl")
    alone = mg.train(graph, out=tmp_path / "alone", device="cpu", skip_bad=True).last
    first = launched(graph, tmp_path / "pair", "--skip-bad")
    assert [one.returncode for one in first] == [0, 0], first[0].stderr + first[1].stderr
    assert "train: " in first[0].stdout
    assert "2 processes train together" in first[0].stderr
    assert first[1].stdout == ""
    folder = tmp_path / "pair" / "train"
    torch.testing.assert_close(load_file(folder / "hand.safetensors"), load_file(alone / "hand.safetensors"), atol=1e-5, rtol=1e-5)
    ours, theirs = read_table(folder / "metrics.csv"), read_table(alone / "metrics.csv")
    assert [(row["step"], row["part"]) for row in ours] == [(row["step"], row["part"]) for row in theirs]
    for name in ("loss", "norm", "recall(k=1)"):
        assert [float(row[name] or 0) for row in ours] == pytest.approx([float(row[name] or 0) for row in theirs], rel=1e-4), name
    whole = (folder / "hand.safetensors").read_bytes()
    (folder / "card.json").unlink()
    for path in (folder / "checkpoints" / "step-00000012").iterdir():
        path.unlink()
    (folder / "checkpoints" / "step-00000012").rmdir()
    again = launched(graph, tmp_path / "pair", "--skip-bad", "--resume")
    assert [one.returncode for one in again] == [0, 0], again[0].stderr
    assert "goes on behind step 10" in again[0].stderr
    assert (folder / "hand.safetensors").read_bytes() == whole
    assert json.loads((folder / "run.json").read_text())["processes"] == 2


def test_each_process_judges_its_part_of_an_evaluation(tmp_path: Path):
    """Their means, weighed by the records that each has judged, are those of the whole; no record is judged twice."""
    graph = mg.check(mg.load(write_graph(tmp_path, ("steps: 12", "steps: 12\n  valid: 0.8\n  shuffle: false"))))
    (stage,) = chosen_stages(graph, None, {})
    run, found = stage_run(graph, stage, Asked(out=tmp_path / "out", device="cpu")), []
    with run.opened() as stepper:
        for index, count in ((0, 1), (0, 2), (1, 2)):
            run.processes = Unmet(index, count, torch.device("cpu"))
            found.append(evaluation(run, stepper, *run.data.evaluated)["apart"])
    whole, first, second = found  # 10 records in batches of 4, 4 and 2
    assert whole == pytest.approx((6 * first + 4 * second) / 10)
    assert first != pytest.approx(second)


class Unmet(Processes):
    """One of several processes, without the others: sums are its own."""

    def sums(self, values: Sequence[float]) -> list[float]:
        return list(values)


def test_a_process_that_the_others_leave_says_so_in_a_sentence(monkeypatch: pytest.MonkeyPatch):
    def left(_tensor: torch.Tensor) -> None:
        raise RuntimeError("[pair.cc:553] Connection closed by peer")

    monkeypatch.setattr(torch.distributed, "all_reduce", left)
    with pytest.raises(mg.InputError, match="another of the 2 processes that train together has ended, and says why; resume=True goes on"):
        Processes(0, 2, torch.device("cpu")).sums([1.0])


def test_a_launcher_that_starts_one_process_of_several_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`accelerate launch --cpu --num_processes 2` starts one, and says nothing."""
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")
    monkeypatch.setenv("MASTER_PORT", "29500")
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with pytest.raises(mg.InputError, match=r"starts one process alone .*: torchrun --nproc_per_node 2 -m modelgraft train"):
        mg.train(write_graph(tmp_path), out=tmp_path / "out", device="cpu")


@pytest.mark.parametrize(("index", "wanted"), [(0, [5, 7, 9]), (1, [6, 8])])
def test_each_process_takes_its_part_of_a_batch(index: int, wanted: list[int]):
    assert Processes(index, 2, torch.device("cpu")).part([5, 6, 7, 8, 9]) == wanted


def test_one_process_weighs_batches_alike():
    """However many records each has: as accumulated batches always were."""
    assert Processes(0, 1, torch.device("cpu")).shares([4, 2, 0]) == [0.5, 0.5, 0.0]


def test_float16_is_refused_where_there_is_no_gpu(tmp_path: Path):
    with pytest.raises(mg.InputError, match=r"stage train computes in float16, .* trained on the CPU; take precision: bfloat16"):
        mg.train(write_graph(tmp_path), out=tmp_path / "out", device="cpu", precision="float16")


def test_scaled_losses_end_at_the_same_numbers_and_leave_out_a_step_that_overflows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """By a scaler of torch on the CPU, with float32 inside, where scaling by a power of two changes nothing."""
    from modelgraft_plugins.training import stepping

    graph = write_graph(tmp_path, ("batch: 4", "batch: 4\n  losses: {apart: 64}"))
    plain = load_file(mg.train(graph, out=tmp_path / "plain", device="cpu").last / "hand.safetensors")
    begin = stepping.Stepper.__init__

    def scaled(scale: float) -> None:
        def begun(self, *arguments, **options):
            begin(self, *arguments, **options)
            self.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=scale)

        monkeypatch.setattr(stepping.Stepper, "__init__", begun)

    scaled(2.0**16)
    folder = mg.train(graph, out=tmp_path / "scaled", device="cpu").last
    torch.testing.assert_close(load_file(folder / "hand.safetensors"), plain)
    scaled(2.0**127)
    folder = mg.train(graph, out=tmp_path / "over", device="cpu").last
    norms = [float(row["norm"]) for row in read_table(folder / "metrics.csv")]
    assert not math.isfinite(norms[0])
    assert all(map(math.isfinite, norms[-3:]))
    state = json.loads((folder / "checkpoints" / "step-00000012" / "state.json").read_text())
    assert 2.0**100 < state["scaling"]["scale"] < 2.0**127
