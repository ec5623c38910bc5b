"""Models that read pictures at their own size: an imported graph answers as `generate` of transformers, whatever a record shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import modelgraft as mg
from modelgraft.tools.importer import import_graph
from support import native
from support.checkpoints import Checkpoint
from support.pictures import gallery

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
NEW_TOKENS = 9
_SEEN = gallery()
PICTURES = [[_SEEN["landscape"], _SEEN["portrait"], _SEEN["tiny"]], [_SEEN["rgba"]], [], [_SEEN["square"], _SEEN["grey"]]]
PROMPTS = ["what do you see in the pictures?", "the colours", "how many cats are there?", "a dog"]  # of unequal length: batches are padded
KINDS = ("qwen2_vl", "qwen2_5_vl", "mistral3", "pixtral")


@pytest.fixture(scope="module", params=KINDS)
def theirs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Checkpoint]:
    kind = request.param
    folder = tmp_path_factory.mktemp(kind) / "model"
    return kind, native.qwen(folder, kind) if kind in native.QWEN else native.mistral(folder, kind)


@pytest.fixture(scope="module")
def graph(theirs: tuple[str, Checkpoint]) -> Path:
    """The graph that import writes beside it."""
    path = theirs[1].folder.parent / "mine.yaml"
    path.write_text(import_graph(str(theirs[1].folder), folder=path.parent))
    return path


def answers(theirs: tuple[str, Checkpoint], pictures: list[list[Image.Image]], prompts: list[str]) -> tuple[list[str], torch.Tensor]:
    kind, checkpoint = theirs
    if kind in native.QWEN:
        return native.asked_qwen(pictures, prompts, checkpoint, NEW_TOKENS)
    return native.asked_mistral(pictures, prompts, checkpoint, NEW_TOKENS, merge=2 if kind == "mistral3" else 1)


def ask(graph: Path, pictures: list[list[Image.Image]], prompts: list[str], **more: Any) -> Any:
    with mg.open(graph, params={"max_new_tokens": NEW_TOKENS}, **more) as pipeline:
        return pipeline.run(image=pictures, prompt=prompts, outputs=["text", "llm.logits"])


def test_a_batch_of_unlike_records_answers_as_transformers(theirs: tuple[str, Checkpoint], graph: Path):
    """Three pictures, one, none and two, of any shape and mode."""
    texts, logits = answers(theirs, PICTURES, PROMPTS)
    result = ask(graph, PICTURES, PROMPTS)
    assert result["text"] == texts
    torch.testing.assert_close(result["llm.logits"], logits, rtol=0, atol=1e-5 * logits.abs().max().item())


def test_one_record_answers_as_in_a_batch(theirs: tuple[str, Checkpoint], graph: Path):
    whole = ask(graph, PICTURES, PROMPTS)["text"]
    with mg.open(graph, params={"max_new_tokens": NEW_TOKENS}) as pipeline:
        assert [pipeline.run(image=one, prompt=prompt)["text"] for one, prompt in zip(PICTURES, PROMPTS, strict=True)] == whole


def test_the_graph_is_checked_and_planned_without_warnings(theirs: tuple[str, Checkpoint], graph: Path):
    assert not mg.check(graph).warnings
    plan = mg.plan(graph)
    assert plan.totals.parameters == sum(parameter.numel() for parameter in theirs[1].model.parameters())


def test_shapes_in_comments_are_those_of_the_node_that_they_stand_beside(graph: Path):
    """A node in several lines ends where the next one begins, whose comment is not its own."""
    text = graph.read_text()
    assert text.count("# [batch patches 24]") == 1
    assert text.count("# [batch tokens 32]") == 1


@pytest.mark.slow  # it exports
def test_answers_on_onnx_are_those_of_torch(theirs: tuple[str, Checkpoint], graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The eye and what joins its patches are one exported graph, which takes any pictures; the decoder counts their places."""
    monkeypatch.setenv("MODELGRAFT_CACHE", str(tmp_path))
    monkeypatch.setattr("modelgraft_plugins.onnx.tuned.tune", lambda source, target: "not in this test")
    expected = ask(graph, PICTURES, PROMPTS)
    found = ask(graph, PICTURES, PROMPTS, backend="onnx")
    assert found["text"] == expected["text"]
    logits = expected["llm.logits"]
    torch.testing.assert_close(found["llm.logits"], logits, rtol=0, atol=2e-5 * logits.abs().max().item())
