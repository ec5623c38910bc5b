"""Pipelines of one process that open the same source hold its weights once, and do not disturb each other."""

from __future__ import annotations

import gc
import threading
import weakref
from pathlib import Path

import pytest
import torch

import modelgraft as mg
from modelgraft.engine.modules import held
from support import checkpoints

PROMPT = "one two three"


def writer(folder: Path, *, frozen: bool = True, adapters: bool = False, **config: object) -> mg.Graph:
    """A language model that samples."""
    graph = mg.Graph("writer")
    lora = [graph.adapter("adapter/lora", rank=2)] if adapters else []
    settings = {"prompt": "{words}", "max_new_tokens": 6, "min_new_tokens": 6, "temperature": 1.3, **config}
    llm = graph.node(
        "llm/causal", name="llm", source=folder, config=settings, words=graph.input("words", "text"), frozen=frozen, adapters=lora
    )
    graph.output("text", llm.text)
    return graph


def tensors(pipeline: mg.Pipeline) -> dict[str, torch.Tensor]:
    pipeline.load()
    return pipeline._loader.loaded()["llm"].state.state_dict()


def places(pipeline: mg.Pipeline) -> set[int]:
    return {tensor.data_ptr() for tensor in tensors(pipeline).values()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("llama")
    checkpoints.llama(path)
    return path


def test_the_same_source_is_in_memory_once(folder):
    """Also where only the prompt differs; the modules are two."""
    with mg.open(writer(folder)) as one, mg.open(writer(folder, prompt="{words}!")) as two:
        assert places(one) == places(two)
        first, second = (pipeline._loader.loaded()["llm"].state for pipeline in (one, two))
        assert first is not second


def test_what_is_held_goes_with_the_last_pipeline(folder):
    """Closed pipelines keep nothing, even while their objects live."""
    held_by_others = set(held._HELD)
    one, two = mg.open(writer(folder)), mg.open(writer(folder))
    assert places(one) == places(two)
    one.run(words=PROMPT)
    kept = weakref.ref(one._loader.loaded()["llm"].keeps)
    weight = weakref.ref(next(one._loader.loaded()["llm"].state.parameters()))
    one.close()
    gc.collect()
    assert kept() is not None
    assert weight() is None
    assert two.run(words=PROMPT)["text"]
    two.close()
    gc.collect()
    assert kept() is None
    assert set(held._HELD) <= held_by_others


def test_settings_that_change_the_weights_are_kept_apart(folder):
    """Added tokens lengthen the embedding: the plain model beside it stays as it is."""
    with mg.open(writer(folder)) as one, mg.open(writer(folder, extra_tokens=["<left>", "<right>"])) as two:
        rows = [next(tensor.shape[0] for name, tensor in tensors(pipeline).items() if "embed" in name) for pipeline in (one, two)]
        assert rows[1] == rows[0] + 2
        assert two.run(words=PROMPT)["text"]


@pytest.mark.parametrize(
    ("other", "options"),
    [({"frozen": False}, {}), ({"adapters": True}, {}), ({}, {"dtype": "bfloat16"})],
    ids=["trained", "adapted", "another dtype"],
)
def test_what_may_differ_is_not_shared(folder, other, options):
    """Weights that may be trained, that adapters write to, or that are in another dtype."""
    with mg.open(writer(folder)) as one, mg.open(writer(folder, **other), **options) as two:
        assert places(one).isdisjoint(places(two))


def test_a_source_that_changed_is_loaded_anew(tmp_path):
    """Other files are other weights, although the folder has the same name."""
    checkpoints.llama(tmp_path, seed=1)
    with mg.open(writer(tmp_path)) as one:
        before = {name: tensor.clone() for name, tensor in tensors(one).items()}
        checkpoints.llama(tmp_path / "new", seed=2)
        (tmp_path / "new" / "model.safetensors").replace(tmp_path / "model.safetensors")
        with mg.open(writer(tmp_path)) as two:
            after = tensors(two)
            assert any(not torch.equal(before[name], after[name]) for name in before)
        assert all(torch.equal(before[name], tensor) for name, tensor in tensors(one).items())


def test_pipelines_that_share_do_not_disturb_each_other(folder):
    """Each has its own seed, its own events and its own end, also when they run at the same time."""
    alone = {}
    for seed in (1, 2):
        with mg.open(writer(folder), seed=seed, cache_bytes=0) as pipeline:
            alone[seed] = pipeline.run(words=PROMPT)["text"]
    assert alone[1] != alone[2]
    found: dict[int, list[str]] = {1: [], 2: []}
    heard: dict[int, int] = {}

    def work(seed: int, pipeline: mg.Pipeline) -> None:
        for _ in range(5):
            events = list(pipeline.stream(words=PROMPT))
            heard[seed] = heard.get(seed, 0) + sum(event.kind == "token" for event in events)
            found[seed].append(events[-1]["result"]["text"])

    with mg.open(writer(folder), seed=1, cache_bytes=0) as one, mg.open(writer(folder), seed=2, cache_bytes=0) as two:
        threads = [threading.Thread(target=work, args=pair) for pair in ((1, one), (2, two))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert places(one) == places(two)
    assert found == {seed: [text] * 5 for seed, text in alone.items()}
    assert all(count > 0 and count % 5 == 0 for count in heard.values())  # as many pieces in each run: none from the other pipeline


def test_many_threads_that_open_at_once_load_once(folder):
    """The second waits for the first, and finds what it loaded."""
    opened: list[mg.Pipeline] = []

    def work() -> None:
        pipeline = mg.open(writer(folder))
        pipeline.load()
        opened.append(pipeline)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({frozenset(places(pipeline)) for pipeline in opened}) == 1
    for pipeline in opened:
        pipeline.close()


def test_buffers_are_each_modules_own(folder):
    """Code may write to them while it runs."""
    module = torch.nn.BatchNorm1d(3)
    kept = held.hold("test", module)
    state = kept.state()
    assert state["weight"].data_ptr() == module.weight.data_ptr()
    assert state["running_mean"].data_ptr() != module.running_mean.data_ptr()
