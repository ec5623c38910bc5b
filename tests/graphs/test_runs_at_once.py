"""Real graphs in several runs at once: what they give one after another, on both backends."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch

import modelgraft as mg
from support import checkpoints, pictures

THREADS, RUNS = 4, 6
WORDS = ("a cat", "what is on the grass ?", "a", "a photo of a dog", "the", "two birds")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("blip2")
    checkpoints.blip2(path)
    return path


def asked(thread: int, number: int) -> dict[str, Any]:
    """The inputs and the seed of a run: batches of one and two, each thread with pictures and prompts of its own."""
    prompts = [WORDS[(thread + number + record) % len(WORDS)] for record in range(1 + number % 2)]
    return {"image": [pictures.picture(30 + thread, 40, seed=number)] * len(prompts), "prompt": prompts, "seed": 10 * thread + number}


def answers(result: mg.Result) -> tuple[list[str], torch.Tensor]:
    return result["text"], result["llm.logits"]


SMALLER = pytest.mark.whole(
    "tests/graphs/test_runs_at_once.py::test_runs_at_once_equal_runs_one_after_another",  # on torch
    "tests/plugins/test_sessions.py::test_several_sessions_go_on_beside_each_other",
)


@pytest.mark.parametrize("is_kept", [False, True], ids=["read anew", "conversations kept"])
@pytest.mark.parametrize("backend", ["torch", pytest.param("onnx", marks=[pytest.mark.slow, SMALLER])])
def test_runs_at_once_equal_runs_one_after_another(folder, backend, is_kept, monkeypatch):
    """Encoder, Q-Former and projection, fused on onnx, and a language model that samples, with its cache in memory of its own.

    To the last bit where every prompt is read as a whole; up to rounding where a prompt goes on from whichever conversation began alike.
    """
    if not is_kept:
        monkeypatch.setattr("modelgraft.loops.prefixes.SHORTEST", 10**9)
    params = {"checkpoint": str(folder), "max_new_tokens": 6, "nodes.llm.with.temperature": 1.3, "nodes.llm.with.min_new_tokens": 6}
    graph = mg.load("blip2", params=params)
    wanted = ["text", "llm.logits"]
    with mg.open(graph, backend=backend, device="cpu", cache_bytes=0) as pipeline:
        alone = {
            (thread, number): answers(pipeline.run(outputs=wanted, **asked(thread, number)))
            for thread in range(THREADS)
            for number in range(RUNS)
        }
        found: dict[tuple[int, int], Any] = {}
        heard: dict[int, set[str]] = {}

        def work(thread: int) -> None:
            for number in range(RUNS):
                events = list(pipeline.stream(outputs=wanted, **asked(thread, number)))
                found[thread, number] = answers(events[-1]["result"])
                pieces = [
                    "".join(event.text for event in events if event.kind == "token" and event.record == record) for record in range(2)
                ]
                assert pieces[: len(found[thread, number][0])] == found[thread, number][0], "the events are of this run"
                heard.setdefault(thread, set()).update(event.run for event in events)

        threads = [threading.Thread(target=work, args=(thread,)) for thread in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found.keys() == alone.keys()
    for key, (texts, logits) in alone.items():
        assert found[key][0] == texts, key
        scale = logits.abs().max().item()
        assert (found[key][1] - logits).abs().max().item() <= (1e-5 * scale if is_kept else 0.0), key
    assert len(set.union(*heard.values())) == THREADS * RUNS
    assert len({tuple(texts) for texts, _ in alone.values()}) > THREADS, "runs that differ"
