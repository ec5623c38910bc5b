"""A tiny graph that is trained: a frozen layer, a trained one behind it, and what it should give."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

WIDTH, INNER, GIVEN = 5, 7, 3
GRAPH = f"""
modelgraft: 1
name: tiny
inputs:
  x: "float[batch {WIDTH}]"
  y: "float[batch {GIVEN}]"
nodes:
  eye:  {{use: projector/linear, with: {{over: vector, out_features: {INNER}}}, in: {{x: inputs.x}}, frozen: true}}
  hand: {{use: projector/linear, with: {{over: vector, out_features: {GIVEN}}}, in: {{x: eye}}}}
outputs:
  hand: hand
losses:
  apart: {{use: loss/alignment, with: {{over: vector}}, in: {{x: hand, wanted: inputs.y}}}}
training:
  data: data.jsonl
  batch: 4
  steps: 12
  learning_rate: 0.05
"""
TEXTS = """
modelgraft: 1
inputs: {text: text, wanted: "float[batch 3]"}
nodes:
  ids:  {use: text/tokenizer, from: "./CLIP", in: {text: inputs.text}}
  read: {use: text/encoder, from: "./CLIP#text_model", in: {ids: ids.ids, mask: ids.mask}, frozen: true}
  hand: {use: projector/linear, with: {over: vector, out_features: 3}, in: {x: read.pooled}}
outputs: {hand: hand}
losses: {apart: {use: loss/alignment, with: {over: vector}, in: {x: hand, wanted: inputs.wanted}}}
training: {data: data.jsonl, batch: 2, steps: 4}
"""


def write_graph(folder: Path, *more: tuple[str, str], records: int = 13, name: str = "tiny.yaml") -> Path:
    """The graph in a folder, with some of its text replaced, and its data beside it: a linear map of what is drawn."""
    text = GRAPH
    for old, new in more:
        assert old in text, old
        text = text.replace(old, new, 1)
    (folder / name).write_text(text)
    draws = np.random.default_rng(3)
    x, by = draws.normal(size=(records, WIDTH)), draws.normal(size=(WIDTH, GIVEN))
    rows = [{"x": [one.tolist()], "y": [(one @ by).tolist()]} for one in x]
    (folder / "data.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return folder / name
