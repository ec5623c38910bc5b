"""What all prompts of a batch begin with is read once by a frozen language model, and training is the same as without that."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf

import modelgraft as mg
from modelgraft_plugins.llm import plain, teaching
from modelgraft_plugins.llm.decoders import CausalDecoder
from modelgraft_plugins.llm.prompts import Prompt
from support import checkpoints

GRAPH = """
modelgraft: 1
name: spoken
params: {checkpoint: none}
inputs: {seen: "float[batch 5]", answer: text}
nodes:
  look: {use: fromage/prefix, with: {vision_width: 5, text_width: 27, tokens: 2}, in: {pooled: inputs.seen}}
  llm:
    use: llm/causal
    from: "${checkpoint}"
    with: {prompt: "what is on the mat near the house? {image} is", max_new_tokens: 0}
    in: {image: look, target: inputs.answer}
    frozen: true
outputs: {logits: llm.target_logits}
losses: {say: {use: loss/cross_entropy, with: {over: tokens}, in: {logits: llm.target_logits, labels: llm.target_ids}}}
training: {data: rows.jsonl, batch: 4, steps: 3, learning_rate: 1e-2}
"""


def plainly(folder: Path) -> tuple[Any, Any]:
    made = checkpoints.smollm(folder / "smollm")
    config = json.loads((made.folder / "config.json").read_text())
    model = plain.Model(config)
    model.load_state_dict(hf.AutoModelForCausalLM.from_pretrained(made.folder).state_dict())
    return plain.Decoder(model.requires_grad_(requires_grad=False).eval()), model.get_input_embeddings()


def by_transformers(folder: Path) -> tuple[Any, Any]:
    made = checkpoints.opt(folder / "opt")
    return CausalDecoder(made.model.requires_grad_(requires_grad=False)), made.model.get_input_embeddings()


@pytest.mark.parametrize("kind", [plainly, by_transformers])
def test_a_beginning_that_is_read_once_gives_the_same_states_and_gradients(kind, tmp_path):
    """Of records of unlike lengths; as read by plain models and by those of transformers."""
    decoder, table = kind(tmp_path)
    draw = torch.Generator().manual_seed(0)
    lead, lengths, wanted = torch.randint(3, 20, (5,), generator=draw), (4, 7, 2), ([7, 8], [6, 9, 11], [6])
    found = []
    for shared in (0, 5):
        draw.manual_seed(1)
        media = [torch.randn(length, table.weight.shape[1], generator=draw).requires_grad_() for length in lengths]
        found_at = teaching.states_at(
            decoder, [torch.cat([table(lead), one]) for one in media], wanted, None, shared=shared, layers=(1, -1)
        )
        states = [one.flatten(0, 1) for one in found_at]
        assert [len(one) for one in states] == [4, 6, 2]  # two layers
        sum(((index + 1) * one.sin()).sum() for index, one in enumerate(states)).backward()
        found.append(([one.detach() for one in states], [one.grad for one in media]))
    torch.testing.assert_close(found[1], found[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", [plainly, by_transformers])
def test_a_beginning_is_kept_for_the_next_batch_until_tokens_or_weights_change(kind, tmp_path, monkeypatch):
    """The second batch, of other lengths, has the states that it has alone; a third with other weights too, which reads it anew."""
    decoder, table = kind(tmp_path)
    draw = torch.Generator().manual_seed(0)
    lead, width, read = torch.randint(3, 20, (6,), generator=draw), table.weight.shape[1], []
    start = decoder.start
    monkeypatch.setattr(decoder, "start", lambda *given, **named: read.append(given) or start(*given, **named))
    kept = teaching.Beginning()

    def states(lengths, tokens, beginning):
        draw.manual_seed(2)
        prompts = [torch.cat([table(tokens), torch.randn(length, width, generator=draw)]) for length in lengths]
        wanted = [[len(tokens) + length - 1] for length in lengths]
        of = teaching.state_of(decoder.model)
        found = teaching.states_at(decoder, prompts, wanted, None, shared=len(tokens), beginning=beginning, of=of)
        return torch.cat(found).detach()

    batches = [((4, 2, 3), lead), ((2, 3), lead), ((2, 2), lead[:5]), ((5, 1), lead[:5])]
    for changed in range(2):
        for lengths, tokens in batches:
            torch.testing.assert_close(states(lengths, tokens, kept), states(lengths, tokens, None), atol=1e-6, rtol=1e-6)
        assert len(read) == (changed + 1) * (3 + len(batches))  # the second has no need of it, the last lacks room
        with torch.no_grad():
            next(decoder.model.parameters()).mul_(1.5)


def test_media_and_the_last_place_of_a_prompt_are_no_beginning():
    """Nor is what differs; the last place says the first token of an answer."""
    vector = torch.zeros(1, 3)
    cases = {
        ((1, 2, 3), (1, 2, 4)): 2,
        ((1, 2), (1, 2, 3)): 1,
        ((5, 2), (1, 2)): 0,
        ((7,), (7,)): 0,
        ((1, 2, 3),): 2,
    }
    assert {ids: teaching.shared_places([Prompt(list(row), None, []) for row in ids]) for ids in cases} == cases
    assert teaching.shared_places([Prompt([1, -1, 2, 3], vector, [1]), Prompt([1, -1, 2], vector, [1])]) == 1


@pytest.fixture
def spoken(tmp_path: Path) -> Path:
    draw = torch.Generator().manual_seed(3)
    rows = [
        {"seen": [torch.randn(5, generator=draw).tolist()], "answer": text}
        for text in (" a cat", " two dogs and a cat", " red", " the sea")
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "graph.yaml").write_text(GRAPH)
    return tmp_path / "graph.yaml"


def test_a_training_tells_what_is_read_once_and_ends_as_without_it(spoken, tmp_path, monkeypatch):
    """Losses of all steps are equal, and so are the trained weights."""
    params, ends = {"checkpoint": str(checkpoints.smollm(tmp_path / "smollm").folder)}, []
    for name in ("once", "each"):
        told: list[str] = []
        found = mg.train(spoken, out=tmp_path / name, params=params, device="cpu", note=told.append)
        metrics = (found.last / "metrics.csv").read_text().splitlines()
        ends.append([[float(cell) for cell in row.split(",")[3:5]] for row in metrics[1:]])
        if name == "once":
            [line] = [text for text in told if "begin with the same" in text]
            assert "train: llm: all prompts of a batch begin with the same" in line
            assert "they are read once and without gradients" in line
        monkeypatch.setattr(teaching, "shared_places", lambda _prompts: 0)
    torch.testing.assert_close(torch.tensor(ends[0]), torch.tensor(ends[1]), atol=1e-5, rtol=1e-5)
    assert ends[0][0] != ends[0][1]


def test_a_language_model_that_learns_reads_all_of_every_prompt(spoken, tmp_path):
    """What it makes of a beginning would change, and so would its gradients; that is told."""
    params = {"checkpoint": str(checkpoints.smollm(tmp_path / "smollm").folder)}
    told: list[str] = []
    spoken.write_text(GRAPH.replace("training: {", 'training: {train: {look: full, llm: {tune: partial, parts: ["*.layers.1"]}}, '))
    mg.train(spoken, out=tmp_path / "out", params=params, device="cpu", note=told.append, dry_run=True)
    assert any("they are read in each record, because something of it is trained" in text for text in told)
