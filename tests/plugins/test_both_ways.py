"""Prompts that are read in both directions: the logits of a model of transformers that is given such a mask."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers as hf

from support import checkpoints
from support.installed import registry
from support.open_part import open_part

REGISTRY = registry()
PROMPTS = ["Question: how many cats are there? Answer", "the"]


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_every_token_of_a_prompt_sees_all_of_it(tmp_path: Path, kind: str):
    """Of families whose own models read onward, the plainest ones included; each prompt as if it were alone in its batch."""
    made = getattr(checkpoints, kind)(tmp_path)
    model = hf.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    wanted = []
    for prompt in PROMPTS:
        ids = made.processor(prompt, return_tensors="pt").input_ids
        sees_all = torch.ones(1, 1, ids.shape[1], ids.shape[1], dtype=torch.bool)
        with torch.no_grad():
            wanted.append(model(ids, attention_mask=sees_all).logits[0, -1])
    part = open_part(REGISTRY, "llm/causal", str(tmp_path), max_new_tokens=0, reads="both")
    torch.testing.assert_close(part(PROMPTS)["logits"], torch.stack(wanted), rtol=1e-4, atol=1e-4)
    onward = open_part(REGISTRY, "llm/causal", str(tmp_path), max_new_tokens=0)
    assert (onward(PROMPTS)["logits"][0] - wanted[0]).abs().max() > 0.01
