"""A conversation with a real language model in the terminal."""

from __future__ import annotations

import io
import re
from pathlib import Path

import torch
import transformers as hf

from modelgraft.cli import main
from support.tokenizers import byte_level


def test_what_was_read_before_is_told_and_reset_begins_anew(monkeypatch, tmp_path, capsys):
    """The cache of the common beginning is kept from turn to turn, by a real language model with random weights."""
    monkeypatch.chdir(tmp_path)
    tokenizer = byte_level(begin="<s>", end="</s>", pad="<pad>", prefix=True, extra=())
    tokenizer.chat_template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"
    tokenizer.save_pretrained("llm")
    torch.manual_seed(1)
    sizes = {"vocab_size": len(tokenizer), "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    hf.LlamaForCausalLM(hf.LlamaConfig(**sizes, eos_token_id=len(tokenizer) - 1)).save_pretrained("llm")
    graph = "{use: llm/causal, from: ./llm, with: {prompt: '{talk}', max_new_tokens: 6}, in: {talk: inputs.talk}}"
    Path("talk.yaml").write_text(f"modelgraft: 1\ninputs: {{talk: conversation}}\nnodes:\n  llm: {graph}\noutputs: {{text: llm.text}}\n")
    lines = ["one two three four five six", "and what else is there?", "/history", "/undo", "/history", "/reset", "/history", "again"]
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("\n".join(lines).encode())))
    assert main(["chat", "talk.yaml"]) == 0
    err = capsys.readouterr().err
    kept = re.findall(r"\((\d+) of the (\d+) tokens of the prompt were read before\)", err)
    assert len(kept) >= 1
    assert 20 < int(kept[0][0]) < int(kept[0][1])
    shown = [line.partition(":")[0] for line in err.splitlines() if line.startswith(("user:", "assistant:"))]
    assert shown == ["user", "assistant"] * 3
    assert "nothing was said yet" in err
