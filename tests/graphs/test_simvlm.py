"""The graphs of SimVLM on a real photograph: no weights of it exist, so they are random ones, compared with layers of torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data
from torch import Tensor

import modelgraft as mg
from support import simvlm

LONGEST = 8  # tokens of an answer
PROMPTS = ("a photo of", "", "how many cats are there?")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A tiny SimVLM in a folder."""
    return simvlm.saved(tmp_path_factory.mktemp("simvlm") / "whole")


def photograph() -> Image.Image:
    return Image.fromarray(data.chelsea())


def pixels() -> Tensor:
    """The photograph at the trained size, from -1 to 1."""
    shade = np.asarray(photograph().resize((48, 48), Image.Resampling.BICUBIC), dtype=np.float32)
    return torch.tensor(shade).permute(2, 0, 1)[None] / 127.5 - 1


def opened(name: str, saved: simvlm.Saved, backend: str = "torch", **params):
    graph = mg.load(name)
    asked = {"checkpoint": str(saved.folder), "size": 48, "max_new_tokens": LONGEST, **params}
    return mg.open(mg.load(name, params={key: value for key, value in asked.items() if key in graph.params}), backend=backend)


def memory_of(saved: simvlm.Saved, prompt: str, *, patches: bool = True) -> Tensor:
    ids = torch.tensor([simvlm.tokenizer()(prompt, add_special_tokens=False).input_ids], dtype=torch.int64)
    seen = simvlm.stem(simvlm.part(saved.state, "stem."), pixels()) if patches else None
    return simvlm.encode(saved.state, saved.facts, seen, ids, torch.ones_like(ids, dtype=torch.bool))


def greedy(saved: simvlm.Saved, memory: Tensor) -> tuple[str, Tensor]:
    """The likeliest token after each, without a cache; and the logits of the first."""
    said, first = [saved.facts["bos_token_id"]], None
    there = torch.ones(memory.shape[:2], dtype=torch.bool)
    for _ in range(LONGEST):
        logits = simvlm.decode(saved.state, saved.facts, memory, there, torch.tensor([said]))[0, -1]
        first = logits if first is None else first
        said.append(int(logits.argmax()))
        if said[-1] == saved.facts["eos_token_id"]:
            break
    assert first is not None
    return simvlm.tokenizer().decode(said[1:], skip_special_tokens=True), first


def test_a_photograph_is_told_as_by_layers_of_torch(saved):
    """A batch of prompts of unlike lengths, one of them empty, against each alone: the same first logits and the same words."""
    wanted = [greedy(saved, memory_of(saved, prompt)) for prompt in PROMPTS]
    with opened("simvlm", saved) as pipeline:
        result = pipeline.run(image=[photograph()] * len(PROMPTS), prompt=list(PROMPTS))
        alone = pipeline.run(image=photograph())
    assert result["text"] == [text for text, _ in wanted]
    torch.testing.assert_close(result["logits"], torch.stack([logits for _, logits in wanted]), rtol=0.0, atol=5e-5)
    assert alone["text"] == wanted[1][0]  # the prompt is empty by itself


def test_questions_are_answered_and_texts_go_on_without_a_picture(saved):
    """The same parts, wired to a question, and to a text alone."""
    with opened("simvlm/vqa", saved) as pipeline:
        assert pipeline.run(image=photograph(), question=PROMPTS[2])["text"] == greedy(saved, memory_of(saved, PROMPTS[2]))[0]
    with opened("simvlm/text", saved) as pipeline:
        assert pipeline.run(prompt=PROMPTS[0])["text"] == greedy(saved, memory_of(saved, PROMPTS[0], patches=False))[0]
    with opened("simvlm", saved, beams=3) as pipeline:
        assert isinstance(pipeline.run(image=photograph(), prompt=PROMPTS[0])["text"], str)


def test_padding_on_the_left_writes_the_same(saved, tmp_path):
    """A tokenizer that fills up on the other side."""
    other = simvlm.saved(tmp_path / "left", side="left")
    answers = []
    for one in (saved, other):
        with opened("simvlm", one) as pipeline:
            answers.append(pipeline.run(image=[photograph()] * len(PROMPTS), prompt=list(PROMPTS))["text"])
    assert answers[0] == answers[1]


@pytest.mark.whole(
    "tests/plugins/test_onnx_parts.py::test_a_part_gives_torchs_numbers",
    "tests/plugins/test_llm_onnx.py::test_an_encoder_decoder_keeps_the_keys_of_its_memory",
)
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_the_graph_answers_on_onnx_as_on_torch(saved, tmp_path, monkeypatch):
    """Stem, encoder and decoder, and the words that are written."""
    monkeypatch.setenv("MODELGRAFT_CACHE", str(tmp_path / "cache"))
    asked = ["stem.patches", "read.memory", "logits"]
    answers = []
    for backend in ("torch", "onnx"):
        with opened("simvlm", saved, backend) as pipeline:
            answers.append(pipeline.run(image=[photograph()] * 2, prompt=["a photo of", "two cats"], outputs=[*asked, "text"]))
    for output in asked:
        expected, got = (answer[output] for answer in answers)
        assert (expected - got).abs().max() <= 1e-4 * max(expected.abs().max().item(), 1.0), output
    assert answers[0]["text"] == answers[1]["text"]
