"""The plainest decoders are built without transformers, and give the numbers that it gives; anything beyond them is left to it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf

from modelgraft_plugins.llm import plain, plain_kinds
from modelgraft_plugins.llm.decoders import CausalDecoder
from support import checkpoints

SIZES = {
    "vocab_size": 61, "hidden_size": 24, "intermediate_size": 37, "num_hidden_layers": 3, "num_attention_heads": 6,
    "num_key_value_heads": 2, "eos_token_id": 2, "max_position_embeddings": 40,
}  # fmt: skip
# Bands of a rotation that all occur: 4 pairs, whose turns take 6 to 6,000 positions.
BANDS = {
    "rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 200,
}  # fmt: skip
CONFIGS = {
    "mistral": lambda: hf.MistralConfig(**SIZES, head_dim=8, sliding_window=None, tie_word_embeddings=False),
    "qwen3": lambda: hf.Qwen3Config(**SIZES, head_dim=10, tie_word_embeddings=True),
    "llama3": lambda: hf.LlamaConfig(**SIZES, head_dim=8, rope_parameters=BANDS),
    "linear": lambda: hf.LlamaConfig(**SIZES, rope_parameters={"rope_type": "linear", "rope_theta": 1e4, "factor": 2.5}),
}
NAMES = ("llama", "smollm", "qwen2", *CONFIGS)
LENGTHS = (5, 2, 7)  # of the prompts of a batch: the shorter ones are padded


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, checkpoints.Checkpoint]:
    """One checkpoint of each kind: grouped queries, tied embeddings, biases, heads that are normed or wide, slowed rotations."""
    folder = tmp_path_factory.mktemp("plain")
    return {name: saved(folder / name) if name in CONFIGS else getattr(checkpoints, name)(folder / name) for name in NAMES}


def saved(folder: Path) -> checkpoints.Checkpoint:
    """A checkpoint without a tokenizer, of the kind that the folder is named after."""
    model = hf.AutoModelForCausalLM.from_config(CONFIGS[folder.name]())
    checkpoints.randomise(model, seed=len(folder.name))
    model.save_pretrained(folder)
    return checkpoints.Checkpoint(folder, model.eval(), None)


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


@pytest.mark.parametrize("kind", ["plain", "transformers"])
def test_the_head_of_a_model_in_bfloat16_reads_rows_that_lie_one_behind_the_other(made, kind):
    """A slice of longer rows has torch multiply 20 times as slowly; the logits are those of transformers' own call."""
    checkpoint = made[NAMES[0]]
    theirs = hf.AutoModelForCausalLM.from_pretrained(checkpoint.folder, dtype=torch.bfloat16).eval()
    model = ours(checkpoint).bfloat16() if kind == "plain" else theirs
    read = list[tuple[int, ...]]()
    model.lm_head.register_forward_hook(lambda _, given, __: read.append(given[0].stride()))
    width = theirs.config.hidden_size
    prompts = list(torch.randn(2, 5, width, generator=torch.Generator().manual_seed(3)).bfloat16())
    with torch.no_grad():
        got = (plain.Decoder if kind == "plain" else CausalDecoder)(model).start(prompts, room=1).logits.clone()
        assert read == [(width, width, 1)]
        expected = theirs(inputs_embeds=torch.stack(prompts)).logits[:, -1]
    torch.testing.assert_close(got, expected, atol=0.02, rtol=0.02)


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
        {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 8.0}},
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 8.0, "more": 1}},
        {"partial_rotary_factor": 0.5}, {"quantization_config": {"quant_method": "awq"}}, {"model_type": "mistral"}, {"model_type": "phi"},
        {"model_type": "mistral", "sliding_window": 5}, {"model_type": "qwen2", "use_sliding_window": True, "sliding_window": 5},
        {"model_type": "qwen3", "head_dim": None}, {"model_type": "qwen2", "layer_types": ["sliding_attention"]},
        {"num_key_value_heads": 3}, {"eos_token_id": None}, {"some_new_key": 1}, {"head_dim": 7},
    ],
    ids=str,
)  # fmt: skip
def test_a_config_that_says_more_is_left_to_transformers(made, change):
    """To the last key: one that a later version adds is not passed over."""
    facts = facts_of(made["llama"])
    assert plain_kinds.serves(facts)
    assert not plain_kinds.serves({**facts, **change})


def test_every_key_of_the_configs_of_transformers_is_known():
    """What its classes have, and this file obeys or knows to say nothing; a new key of theirs fails here."""
    common = set(hf.PreTrainedConfig().to_dict())
    for kind in (hf.LlamaConfig, hf.MistralConfig, hf.Qwen2Config, hf.Qwen3Config):
        known = plain_kinds.OBEYED | plain_kinds.ONLY.keys() | plain_kinds.SILENT | {"sliding_window", "layer_types"}
        assert set(kind().to_dict()) - common - known == set()


def test_rotations_are_those_of_transformers_bit_for_bit():
    """As told today and before, of bands that are slowed, kept, and between."""
    for told in (BANDS, {"rope_type": "linear", "rope_theta": 5e5, "factor": 4.0}, {"rope_type": "default", "rope_theta": 5e5}):
        config = hf.LlamaConfig(**SIZES, head_dim=64, rope_parameters=told)
        theirs = hf.models.llama.modeling_llama.LlamaRotaryEmbedding(config)
        before = {key: value for key, value in told.items() if key != "rope_theta"}
        facts = {**SIZES, "model_type": "llama", "head_dim": 64, "rms_norm_eps": 1e-6, "tie_word_embeddings": False}
        for said in ({"rope_parameters": told}, {"rope_theta": told["rope_theta"], "rope_scaling": before}):
            assert plain_kinds.serves({**facts, **said}), said
            assert torch.equal(plain_kinds.frequencies({**facts, **said}), theirs.inv_freq), said


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
