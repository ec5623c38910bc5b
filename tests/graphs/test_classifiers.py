"""ViT and CLIP of parts give what transformers gives."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import modelgraft as mg
from support import checkpoints
from support.pictures import gallery

CLOSE = {"rtol": 0.0, "atol": 1e-5}  # float32, elementwise
PICTURES = [gallery()[name] for name in ("landscape", "portrait", "grey", "rgba", "tiny")]
LABELS = ["a photo of a cat", "dog", "the grass of the dog"]


def test_vit_names_the_class_that_transformers_names(tmp_path: Path):
    """Logits within 1e-5, and the label by id2label; of one picture and of a batch."""
    theirs = checkpoints.vit(tmp_path)
    with torch.no_grad():
        logits = theirs.model(**theirs.processor([one.convert("RGB") for one in PICTURES], return_tensors="pt")).logits
    labels = [theirs.model.config.id2label[index] for index in logits.argmax(-1).tolist()]
    with mg.open("vit", params={"checkpoint": str(tmp_path)}) as pipeline:
        result = pipeline.run(image=PICTURES)
        assert result["label"] == labels
        assert pipeline.run(image=PICTURES[1])["label"] == labels[1]
    torch.testing.assert_close(result["logits"], logits, **CLOSE)
    torch.testing.assert_close(result["probabilities"], logits.softmax(-1), **CLOSE)


@pytest.mark.parametrize("graph", ["clip", "siglip"])
def test_texts_are_chosen_as_in_transformers(tmp_path: Path, graph: str):
    """Logits of every picture with every text within 1e-5."""
    theirs = getattr(checkpoints, graph)(tmp_path)
    padding = {"padding": True} if graph == "clip" else {"padding": "max_length", "max_length": 17}
    inputs = theirs.processor(images=PICTURES, text=LABELS, return_tensors="pt", **padding)
    if graph == "siglip":
        del inputs["attention_mask"]  # SigLIP's own tokenizer gives none: the tower sees the padding
    with torch.no_grad():
        logits = theirs.model(**inputs).logits_per_image
    with mg.open(graph, params={"checkpoint": str(tmp_path)}) as pipeline:
        result = pipeline.run(image=PICTURES, labels=[LABELS] * len(PICTURES))
        single = pipeline.run(image=PICTURES[0], labels=LABELS)
    torch.testing.assert_close(result["logits"], logits, **CLOSE)
    torch.testing.assert_close(result["probabilities"], logits.softmax(-1) if graph == "clip" else logits.sigmoid(), **CLOSE)
    assert result["label"] == [LABELS[index] for index in logits.argmax(-1).tolist()]
    assert single["label"] == result["label"][0]


def test_each_picture_may_have_labels_of_its_own(tmp_path: Path):
    """Also of different number: a batch gives what its records give one by one."""
    checkpoints.clip(tmp_path)
    labels = [LABELS, LABELS[:1], LABELS[1:]]
    with mg.open("clip", params={"checkpoint": str(tmp_path)}) as pipeline:
        batch = pipeline.run(image=PICTURES[:3], labels=labels)
        alone = [pipeline.run(image=image, labels=own) for image, own in zip(PICTURES[:3], labels, strict=True)]
    assert batch["label"] == [one["label"] for one in alone]
    for row, one in zip(batch["probabilities"], alone, strict=True):
        torch.testing.assert_close(row[: one["probabilities"].shape[-1]], one["probabilities"].flatten(), **CLOSE)


def test_pixels_of_another_eye_are_refused(tmp_path: Path):
    """A mean and std that the eye was not trained with is an error before anything runs."""
    checkpoints.clip(tmp_path / "clip")
    checkpoints.siglip(tmp_path / "siglip")
    path = tmp_path / "wrong.yaml"
    path.write_text(
        "modelgraft: 1\n"
        "inputs: {image: image}\n"
        "nodes:\n"
        "  pixels: {use: vision/preprocess, from: ./siglip, with: {size: {height: 15, width: 15}}, in: {image: inputs.image}}\n"
        '  vision: {use: vision/encoder, from: "./clip#vision_model", in: {pixels: pixels}}\n'
        "outputs: {tokens: vision.tokens}\n"
    )
    with pytest.raises(mg.GraphError) as caught:
        mg.check(mg.load(path))
    assert [problem.code for problem in caught.value.problems] == ["space-mismatch"]
    assert "mean" in str(caught.value)


def test_ids_of_another_tokenizer_are_refused(tmp_path: Path):
    """SigLIP's ids mean other tokens in CLIP's table."""
    checkpoints.clip(tmp_path / "clip")
    checkpoints.siglip(tmp_path / "siglip")
    path = tmp_path / "wrong.yaml"
    path.write_text(
        "modelgraft: 1\n"
        "inputs: {text: text}\n"
        "nodes:\n"
        "  tokens: {use: text/tokenizer, from: ./siglip, in: {text: inputs.text}}\n"
        '  encode: {use: text/encoder, from: "./clip#text_model", in: {ids: tokens.ids}}\n'
        "outputs: {vector: encode.pooled}\n"
    )
    with pytest.raises(mg.GraphError, match=r"space-mismatch .*tokens\.ids .*tokenizer") as caught:
        mg.check(mg.load(path))
    assert len(caught.value.problems) == 1


def test_vectors_of_two_clips_are_not_compared(tmp_path: Path):
    """They are equally wide and mean different things."""
    checkpoints.clip(tmp_path / "one", seed=1)
    checkpoints.clip(tmp_path / "other", seed=2)
    graph = mg.load("clip", params={"checkpoint": str(tmp_path / "one"), "nodes.text_proj.from": f"{tmp_path}/other#text_projection"})
    with pytest.raises(mg.GraphError, match="space-mismatch") as caught:
        mg.check(graph)
    assert [problem.node for problem in caught.value.problems] == ["similarity"]
