"""PaliGemma is one card: an imported graph answers as transformers' own `generate`, and its prompt is read in both directions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import modelgraft as mg
from modelgraft.tools.importer import import_graph
from support import checkpoints
from support.checkpoints import Checkpoint
from support.pictures import gallery

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of transformers' own processor
NEW_TOKENS = 11
PICTURES = [gallery()[name] for name in ("landscape", "portrait", "grey", "rgba")]
PROMPTS = ["caption en", "answer en what is it?", "the", "detect cat ; dog"]  # of unequal length, so that a batch is padded


@pytest.fixture(scope="module", params=["gemma", "gemma2"])
def theirs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return checkpoints.paligemma(tmp_path_factory.mktemp(request.param) / "model", language=request.param)


@pytest.fixture(scope="module")
def graph(theirs: Checkpoint) -> Path:
    """The graph that import writes beside it."""
    path = theirs.folder.parent / "mine.yaml"
    path.write_text(import_graph(str(theirs.folder), folder=path.parent))
    return path


def answers(theirs: Checkpoint, count: int) -> tuple[list[str], torch.Tensor]:
    """The new texts, and the logits of the first new token, of transformers' own `generate`."""
    texts = [f"<image>{prompt}" for prompt in PROMPTS[:count]]
    inputs = theirs.processor(images=PICTURES[:count], text=texts, padding=True, return_tensors="pt")
    inputs.pop("labels", None)
    found = theirs.model.generate(**inputs, max_new_tokens=NEW_TOKENS, do_sample=False, output_logits=True, return_dict_in_generate=True)
    new = found.sequences[:, inputs["input_ids"].shape[1] :]
    return [theirs.processor.tokenizer.decode(row, skip_special_tokens=True) for row in new], found.logits[0]


def ask(graph: Path, count: int, **params: Any) -> Any:
    with mg.open(graph, params={"max_new_tokens": NEW_TOKENS, **params}) as pipeline:
        one = count == 1
        return pipeline.run(
            image=PICTURES[0] if one else PICTURES[:count], prompt=PROMPTS[0] if one else PROMPTS[:count], outputs=["text", "llm.logits"]
        )


@pytest.mark.parametrize("count", [1, 4])
def test_answers_are_those_of_transformers(theirs: Checkpoint, graph: Path, count: int):
    """Alone, and in a batch whose prompts are padded: with windows of nine tokens as well."""
    texts, logits = answers(theirs, count)
    result = ask(graph, count)
    assert result["text"] == (texts[0] if count == 1 else texts)
    torch.testing.assert_close(result["llm.logits"], logits, rtol=0, atol=2e-4)


def test_a_prompt_that_is_read_onward_gives_another_answer(theirs: Checkpoint, graph: Path):
    """So the test above would fail without the mask; the graph may ask for it."""
    onward = ask(graph, 1, **{"nodes.llm.with.reads": "onward"})
    assert (onward["llm.logits"] - answers(theirs, 1)[1]).abs().max() > 0.1


def test_the_graph_is_checked_and_planned_without_warnings(theirs: Checkpoint, graph: Path):
    assert not mg.check(graph).warnings
    plan = mg.plan(graph)
    assert plan.totals.parameters == sum(parameter.numel() for parameter in theirs.model.parameters())


SEVERAL = """
modelgraft: 1
extends: ./mine.yaml
inputs.image: "list[image]"
nodes.each: {use: router/each, in: {x: inputs.image}}
nodes.pixels.in.image: each
nodes.llm.with.prompt: "{image:*}{prompt}\\n"
"""


def test_several_pictures_stand_before_the_begin_token(theirs: Checkpoint, graph: Path):
    """As its processor places them, in a batch of two and one: three lines make the graph take any number."""
    path = graph.parent / "several.yaml"
    path.write_text(SEVERAL)
    records, prompts = [[PICTURES[0], PICTURES[1]], [PICTURES[2]]], PROMPTS[:2]
    texts = ["<image>" * len(pictures) + prompt for pictures, prompt in zip(records, prompts, strict=True)]
    given = theirs.processor(images=records, text=texts, padding=True, return_tensors="pt")
    given.pop("labels", None)
    found = theirs.model.generate(**given, max_new_tokens=NEW_TOKENS, do_sample=False, output_logits=True, return_dict_in_generate=True)
    new = found.sequences[:, given["input_ids"].shape[1] :]
    with mg.open(path, params={"max_new_tokens": NEW_TOKENS}) as pipeline:
        result = pipeline.run(image=records, prompt=prompts, outputs=["text", "llm.logits"])
    assert result["text"] == [theirs.processor.tokenizer.decode(row, skip_special_tokens=True) for row in new]
    torch.testing.assert_close(result["llm.logits"], found.logits[0], rtol=0, atol=2e-4)


@pytest.mark.slow
def test_on_onnx_the_answers_are_the_same(theirs: Checkpoint, graph: Path):
    """With prompts of unlike length, read in both directions, with windows and without."""
    plain = ask(graph, 4)
    with mg.open(graph, params={"max_new_tokens": NEW_TOKENS}, backend="onnx") as pipeline:
        exported = pipeline.run(image=PICTURES, prompt=PROMPTS, outputs=["text", "llm.logits"])
    assert exported["text"] == plain["text"] == answers(theirs, 4)[0]
    torch.testing.assert_close(exported["llm.logits"], plain["llm.logits"], rtol=0, atol=1e-3)
