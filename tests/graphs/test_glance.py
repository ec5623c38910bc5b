"""A vision-language model that nobody published: one graph file, composed of parts that were there."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import modelgraft as mg
from modelgraft.kernel.language.shipped_graphs import shipped_graphs
from support import checkpoints
from support.pictures import picture


@pytest.fixture
def params(tmp_path: Path) -> dict[str, object]:
    """A SigLIP with 4 by 4 patches, and a Qwen2 with a chat template."""
    checkpoints.siglip(tmp_path / "siglip")
    tongue = checkpoints.qwen2(tmp_path / "qwen2")
    tongue.processor.chat_template = (
        "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}<|im_end|>{% endfor %}assistant:"
    )
    tongue.processor.save_pretrained(tmp_path / "qwen2")
    return {"eye": str(tmp_path / "siglip"), "tongue": str(tmp_path / "qwen2"), "factor": 2, "max_new_tokens": 9}


def test_no_width_is_written_and_the_tokens_are_counted(params: dict[str, object]):
    """16 patches of width 20 become 4 of width 80, then of the width of the tongue."""
    shapes = {name: list(step.shapes.values()) for name, step in mg.plan(mg.load("glance", params=params)).nodes.items()}
    assert shapes["join"] == ["float[batch 4 80]"]
    assert shapes["project"] == ["float[batch 4 32]"]
    text = (shipped_graphs() / "glance.yaml").read_text()
    assert not any(word in text for word in ("hidden_size", "in_features", "out_features"))


def test_a_side_that_the_squares_do_not_fill_is_found_before_anything_runs(params: dict[str, object]):
    """16 patches are no multiple of 9."""
    with pytest.raises(mg.GraphError, match=r"dim-mismatch|16"):
        mg.check(mg.load("glance", params={**params, "factor": 3}))


def test_it_answers_as_its_tongue_does_on_the_same_embeddings(params: dict[str, object]):
    """transformers' own Qwen2, given the words and our projected patches in their places, writes the same."""
    import transformers as hf

    folder = params["tongue"]
    model, tokenizer = hf.Qwen2ForCausalLM.from_pretrained(folder).eval(), hf.AutoTokenizer.from_pretrained(folder)
    with mg.open(mg.load("glance", params=params), seed=3) as pipeline:
        result = pipeline.run(outputs=["text", "project.y"], image=picture(20, 20), prompt="what is it?")
    before, after = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("user: ", "\nwhat is it?<|im_end|>assistant:"))
    table = model.get_input_embeddings()
    with torch.no_grad():
        embedded = torch.cat([table(torch.tensor([before])), result["project.y"].view(1, 4, -1), table(torch.tensor([after]))], dim=1)
        new = model.generate(inputs_embeds=embedded, attention_mask=torch.ones(embedded.shape[:2]), max_new_tokens=9, do_sample=False)
    assert result["text"] == tokenizer.decode(new[0], skip_special_tokens=True)
