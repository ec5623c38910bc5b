"""BLIP-2 of the first stage: picture and text compared, matched and captioned, equal to the code of its authors, from their keys."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from torch import Tensor

import modelgraft as mg
from support.oracles import Case, Oracle, cases, must_differ, oracle

NAME = "blip2_stage1"
GRAPH = """
modelgraft: 1
extends: blip2/stage1
inputs:
  image: null
  text: null
  memory: "float[batch memory_tokens {width}]"
  ids: "int64[batch text_tokens]"
  mask: "bool[batch text_tokens]"
  neg_image: "int64[batch]"
  neg_text: "int64[batch]"
nodes:
  pixels: null
  vision: null
  tokens: null
  see: {{in: {{memory: inputs.memory}}}}
  read: {{in: {{ids: inputs.ids, mask: inputs.mask}}}}
  negatives: {{in: {{memory: inputs.memory, ids: inputs.ids, mask: inputs.mask, neg_image: inputs.neg_image, neg_text: inputs.neg_text}}}}
  write: {{in: {{memory: inputs.memory, ids: inputs.ids, mask: inputs.mask}}}}
  joint: {{use: qformer/pair, share: see, with: {{reads: both}}, in: {{memory: inputs.memory, ids: inputs.ids, mask: inputs.mask}}}}
outputs:
  query_states: see.tokens
  text_states: read.tokens
  multimodal_query_states: joint.tokens
  image_features: image
  text_features: text
  pair_logits: match.logits
  itg_logits: words.logits
"""


def answered(given: Oracle, case: Case) -> Mapping[str, Tensor]:
    """All of a case from the graph of the three losses, fed with what an eye gives; wrong partners are those of the case."""
    inputs, mask = case.inputs, case.inputs["mask"].bool()
    with TemporaryDirectory() as home:
        folder = Path(home)
        source = given.as_folder(folder / "trained", {"model_type": "blip2_qformer", **given.config})
        (folder / "fed.yaml").write_text(GRAPH.format(width=given.config["encoder_width"]))
        with mg.open(mg.load(folder / "fed.yaml", params={"checkpoint": str(source)})) as pipeline:
            asked = {name: inputs[name] for name in ("ids", "neg_image", "neg_text")}
            found = dict(pipeline.run(memory=inputs["image_embeds"], mask=mask, **asked))
        found["sim_i2t"] = compared(source, found["image_features"], found["text_features"])
    matched = found.pop("pair_logits").transpose(0, 1).flatten(0, 1)  # theirs stand by kind, ours by record
    losses = {f"loss_{kind}": found.pop(kind).mean() for kind in ("itc", "itm", "itg")}
    there = mask[..., None]
    return {
        **{name: found[name] for name in ("query_states", "multimodal_query_states", "image_features", "text_features", "sim_i2t")},
        "text_states": found["text_states"] * there, "itg_logits": found["itg_logits"] * there, "itm_logits": matched, **losses,
    }  # fmt: skip


def compared(source: Path, image: Tensor, text: Tensor) -> Tensor:
    """Each picture with all texts of the batch, by the component on the same source."""
    path = source.parent / "compared.yaml"
    path.write_text(
        "modelgraft: 1\ninputs: {image: 'float[batch queries width]', text: 'float[batch candidates width]'}\n"
        f"nodes: {{scores: {{use: similarity/best_query, from: ./{source.name}, in: {{image: inputs.image, text: inputs.text}}}}}}\n"
        "outputs: {scores: scores}\n"
    )
    with mg.open(path) as pipeline:
        return pipeline.run(image=image, text=text.expand(len(image), -1, -1))["scores"]


@pytest.mark.parametrize("case", cases(NAME))
def test_its_three_uses_and_their_losses_equal_the_code_of_its_authors(case: Case):
    """States, unit vectors, scores, logits and losses, through the shipped graph."""
    case.compare_all(answered(oracle(NAME), case))


def test_a_weight_that_is_off_shows():
    """Any that matters, the norm behind the eye among them."""
    must_differ(NAME, answered)
