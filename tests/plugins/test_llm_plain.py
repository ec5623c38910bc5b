"""The plainest decoders are built without transformers, and give the numbers that it gives; anything beyond them is left to it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest
import torch
import transformers as hf

from modelgraft_plugins.llm import plain
from modelgraft_plugins.llm.decoders import CausalDecoder
from support import checkpoints

NAMES = ("llama", "smollm", "qwen2")
LENGTHS = (5, 2, 7)  # of the prompts of a batch: the shorter ones are padded


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, checkpoints.Checkpoint]:
    """One checkpoint of each kind: grouped queries, tied embeddings, biases."""
    folder = tmp_path_factory.mktemp("plain")
    return {name: getattr(checkpoints, name)(folder / name) for name in NAMES}


def facts_of(checkpoint: checkpoints.Checkpoint) -> dict[str, Any]:
    return dict(json.loads((checkpoint.folder / "config.json").read_text()))


def ours(checkpoint: checkpoints.Checkpoint) -> plain.Model:
    state = hf.AutoModelForCausalLM.from_pretrained(checkpoint.folder).state_dict()
    facts = facts_of(checkpoint)
    read = plain.read(state, facts)
    assert read is not None
    model = plain.Model(facts)
    model.load_state_dict(read, assign=True)
    model.tie()
    return model.eval()


def answers(decoder: Any, prompts: list[torch.Tensor], vocabulary: int) -> list[torch.Tensor]:
    """The logits of prompts, then of tokens that do not depend on them, with the rows in another order and number between."""
    with torch.no_grad():
        session = decoder.start(prompts, room=6)
        found = [session.logits]
        for step in range(6):
            if step == 3:
                session.reorder(torch.tensor([len(prompts) - 1, 0, 0]))
            rows = len(prompts) if step < 3 else 3
            found.append(session.step(torch.tensor([(7 * step + 3 * row + 1) % vocabulary for row in range(rows)])))
    return found


@pytest.mark.parametrize("lengths", [LENGTHS, (6,), (4, 4)], ids=["padded", "one", "equal"])
@pytest.mark.parametrize("name", NAMES)
def test_the_logits_are_those_of_transformers(made, name, lengths):
    """Of prompts of unequal lengths and of every token after them, in float64, where rounding does not hide a difference."""
    checkpoint = made[name]
    theirs = hf.AutoModelForCausalLM.from_pretrained(checkpoint.folder, dtype=torch.float64).eval()
    own = ours(checkpoint).double()
    generator = torch.Generator().manual_seed(3)
    width, vocabulary = theirs.config.hidden_size, theirs.config.vocab_size
    prompts = [torch.randn(length, width, generator=generator, dtype=torch.float64) for length in lengths]
    wanted = answers(CausalDecoder(theirs), prompts, vocabulary)
    for mine, expected in zip(answers(plain.Decoder(own), prompts, vocabulary), wanted, strict=True):
        torch.testing.assert_close(mine, expected, atol=1e-5, rtol=1e-5)  # norms and angles are computed in float32 by both


@pytest.mark.parametrize("name", NAMES)
def test_a_whole_checkpoint_is_read_and_tied_as_transformers_does(made, name):
    """The same names, the same tensors, the same ones shared."""
    theirs, own = hf.AutoModelForCausalLM.from_pretrained(made[name].folder), ours(made[name])
    assert own.state_dict().keys() == theirs.state_dict().keys()
    assert all(torch.equal(tensor, theirs.state_dict()[key]) for key, tensor in own.state_dict().items())
    assert sum(map(torch.numel, own.parameters())) == sum(map(torch.numel, theirs.parameters()))


@pytest.mark.parametrize(
    "change",
    [
        {"attention_bias": True}, {"hidden_act": "gelu"}, {"rope_scaling": {"rope_type": "linear", "factor": 2.0}},
        {"rope_parameters": {"rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0}}, {"rope_parameters": None, "rope_theta": None},
        {"partial_rotary_factor": 0.5}, {"quantization_config": {"quant_method": "awq"}}, {"model_type": "mistral"},
        {"num_key_value_heads": 3}, {"eos_token_id": None}, {"some_new_key": 1}, {"head_dim": 7},
    ],
    ids=str,
)  # fmt: skip
def test_a_config_that_says_more_is_left_to_transformers(made, change):
    """To the last key: one that a later version adds is not passed over."""
    facts = facts_of(made["llama"])
    assert plain.serves(facts)
    assert not plain.serves({**facts, **change})


def test_every_key_of_the_configs_of_transformers_is_known():
    """What its classes have, and this file obeys or knows to say nothing; a new key of theirs fails here."""
    common = set(hf.PreTrainedConfig().to_dict())
    for kind in (hf.LlamaConfig, hf.Qwen2Config):
        known = plain.OBEYED | plain.ONLY.keys() | plain.SILENT | {"sliding_window", "layer_types"}
        assert set(kind().to_dict()) - common - known == set()


def test_a_layout_with_other_names_is_left_to_transformers(made):
    """A base model without its head, a tensor too many."""
    facts, state = facts_of(made["llama"]), ours(made["llama"]).state_dict()
    assert plain.read({**state, "model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(4)}, facts) is not None
    assert plain.read({key.removeprefix("model."): tensor for key, tensor in state.items()}, facts) is None
    assert plain.read({**state, "more": torch.zeros(1)}, facts) is None


CHILD = """
import json, sys
import modelgraft as mg
with mg.open(mg.load(sys.argv[1])) as pipeline:
    text = pipeline.run(prompt="a cat")["text"]
heavy = [name for name in ("transformers", "torch._dynamo", "torch.distributed.tensor", "scipy", "sympy") if name in sys.modules]
print(json.dumps({"text": text, "heavy": heavy}))
"""


@pytest.mark.slow
def test_a_plain_model_opens_on_torch_without_transformers(made, tmp_path):
    """Once its tokenizer is kept; the first start builds that with transformers, and says the same."""
    graph = made["smollm"].folder.with_name("graph.yaml")
    node = "{use: llm/causal, from: ./smollm, with: {max_new_tokens: 5}, in: {prompt: inputs.prompt}}"
    graph.write_text(f"modelgraft: 1\ninputs: {{prompt: text}}\nnodes:\n  llm: {node}\noutputs: {{text: llm.text}}\n")
    environment = {**os.environ, "MODELGRAFT_CACHE": str(tmp_path / "cache")}
    found = []
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", CHILD, str(graph)], capture_output=True, text=True, check=True, env=environment)
        found.append(json.loads(done.stdout.splitlines()[-1]))
    assert "transformers" in found[0]["heavy"]
    assert found[1] == {"text": found[0]["text"], "heavy": []}
