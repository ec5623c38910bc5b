"""CLIP beside choosing a text: vectors of pictures and texts, classes in several phrasings, and what cannot be answered."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

import modelgraft as mg
from support import checkpoints
from support.pictures import gallery, picture

CLOSE = {"rtol": 0.0, "atol": 1e-5}  # float32, elementwise
PICTURES = [gallery()[name] for name in ("landscape", "portrait", "rgba")]
TEXTS = ["a photo of a cat", "dog", "the grass of the dog"]
CLASSES = ["cat", "dog", "grass"]
TEMPLATES = ["a photo of a {}", "the {} of the {}"]


def vectors(theirs: checkpoints.Checkpoint, texts: list[str]) -> torch.Tensor:
    """Unit vectors of texts by transformers: float64[texts width]."""
    inputs = theirs.processor(text=texts, return_tensors="pt", padding=True)
    with torch.no_grad():
        found = theirs.model.get_text_features(**inputs).pooler_output.double()
    return found / found.norm(dim=-1, keepdim=True)


def seen(theirs: checkpoints.Checkpoint, pictures: list) -> torch.Tensor:
    """Unit vectors of pictures by transformers: float64[pictures width]."""
    inputs = theirs.processor(images=pictures, return_tensors="pt")
    with torch.no_grad():
        found = theirs.model.get_image_features(**inputs).pooler_output.double()
    return found / found.norm(dim=-1, keepdim=True)


def test_pictures_and_texts_lie_in_one_space(tmp_path: Path):
    """Unit vectors as transformers gives them; one side needs only its own input, and each names its space."""
    theirs = checkpoints.clip(tmp_path)
    with mg.open("clip/embed", params={"checkpoint": str(tmp_path)}) as pipeline:
        found = pipeline.run(image=PICTURES, text=TEXTS)
        alone = pipeline.run(text=TEXTS, outputs=["text_embedding"])["text_embedding"]
    torch.testing.assert_close(found["image_embedding"].double(), seen(theirs, PICTURES), **CLOSE)
    torch.testing.assert_close(found["text_embedding"].double(), vectors(theirs, TEXTS), **CLOSE)
    torch.testing.assert_close(alone, found["text_embedding"], **CLOSE)
    with pytest.raises(mg.GraphError, match="space"):
        mg.check(mg.load(_of_two(tmp_path, theirs)))


def _of_two(folder: Path, theirs: checkpoints.Checkpoint) -> Path:
    """A graph that compares the vectors of a CLIP with those of another one of the same sizes."""
    for name in ("one", "other"):
        theirs.model.save_pretrained(folder / name)
        theirs.processor.save_pretrained(folder / name)
    path = folder / "two.yaml"
    path.write_text(
        "modelgraft: 1\nextends: clip/embed\nparams.checkpoint.default: ./one\n"
        "nodes.other_proj: {use: projector/linear, from: ./other#text_projection, with: {over: vector}, in: {x: reader.pooled}}\n"
        "nodes.other: {use: embedding/normalize, in: {x: other_proj}}\n"
        "nodes.fit: {use: loss/contrastive, with: {scale: 1.0}, in: {x: picture, y: other}}\n"
        "outputs.fit: fit\n"
    )
    return path


def test_classes_in_several_phrasings_are_averaged(tmp_path: Path):
    """The unit vectors of the phrasings of a class, averaged and of length 1 again; by a loop in float64 over transformers' vectors."""
    theirs = checkpoints.clip(tmp_path)
    classes = []
    for name in CLASSES:
        mean = vectors(theirs, [template.replace("{}", name) for template in TEMPLATES]).mean(0)
        classes.append(mean / mean.norm())
    expected = theirs.model.logit_scale.detach().double().exp() * seen(theirs, PICTURES) @ torch.stack(classes).T
    with mg.open("clip/ensemble", params={"checkpoint": str(tmp_path), "templates": TEMPLATES}) as pipeline:
        found = pipeline.run(image=PICTURES, labels=[CLASSES] * 3)
        given = pipeline.run(image=PICTURES, labels=[CLASSES] * 3, templates=[TEMPLATES[:1], TEMPLATES, TEMPLATES[1:]])
        mixed = pipeline.run(image=PICTURES[:2], labels=[CLASSES, CLASSES[1:]])
    torch.testing.assert_close(found["logits"].double(), expected, **CLOSE)
    assert found["label"] == [CLASSES[index] for index in expected.argmax(-1).tolist()]
    torch.testing.assert_close(given["logits"][1].double(), expected[1], **CLOSE)
    torch.testing.assert_close(mixed["logits"][1, :2].double(), expected[1, 1:], **CLOSE)
    assert mixed["probabilities"][1, 2] == 0


def test_one_phrasing_is_the_plain_graph(tmp_path: Path):
    """Texts that are written out beforehand are chosen alike."""
    checkpoints.clip(tmp_path)
    with mg.open("clip/ensemble", params={"checkpoint": str(tmp_path), "templates": ["a photo of a {}"]}) as pipeline:
        phrased = pipeline.run(image=PICTURES[0], labels=CLASSES)["logits"]
    with mg.open("clip", params={"checkpoint": str(tmp_path)}) as pipeline:
        plain = pipeline.run(image=PICTURES[0], labels=[f"a photo of a {name}" for name in CLASSES])["logits"]
    torch.testing.assert_close(phrased, plain, **CLOSE)


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        ([], "no record has a text: give at least one|has no labels"),
        (["cat", "dog", "cat"], "the label 'cat' stands there 2 times"),
        (["cat", "  "], "label 1 is empty; name every class"),
    ],
)
@pytest.mark.parametrize("graph", ["clip", "clip/ensemble"])
def test_labels_that_cannot_be_told_apart_are_refused(tmp_path: Path, graph: str, labels: list[str], told: str):
    """None, one twice, one of nothing: one sentence each."""
    checkpoints.clip(tmp_path)
    phrased = {"templates": TEMPLATES} if graph == "clip/ensemble" else {}
    with mg.open(graph, params={"checkpoint": str(tmp_path), **phrased}) as pipeline, pytest.raises(mg.ModelgraftError, match=told):
        pipeline.run(image=PICTURES[0], labels=labels)


def test_a_template_without_a_place_is_refused(tmp_path: Path):
    """In the graph before anything loads, and where it is given with a picture."""
    checkpoints.clip(tmp_path)
    with pytest.raises(mg.GraphError, match=r"the template 'a photo' has no \{\}, where a label would go"):
        mg.check(mg.load("clip/ensemble", params={"checkpoint": str(tmp_path), "templates": ["a photo"]}))
    with (
        mg.open("clip/ensemble", params={"checkpoint": str(tmp_path)}) as pipeline,
        pytest.raises(mg.ModelgraftError, match="'a photo' has no"),
    ):
        pipeline.run(image=PICTURES[0], labels=CLASSES, templates=["a photo"])


def test_pictures_of_a_point_and_of_a_line_are_seen_or_refused(tmp_path: Path):
    """A single pixel is enlarged; of a strip of 20,000 x 3 the preparation says what it would become."""
    theirs = checkpoints.clip(tmp_path)
    point = picture(2, 2).resize((1, 1))
    with mg.open("clip/embed", params={"checkpoint": str(tmp_path)}) as pipeline:
        found = pipeline.run(image=point, outputs=["image_embedding"])["image_embedding"]
        strip = pipeline.run(image=picture(20_000, 3), outputs=["image_embedding"])["image_embedding"]
    torch.testing.assert_close(found.double().reshape(1, -1), seen(theirs, [point]), **CLOSE)
    assert strip.isfinite().all()


def test_a_linear_probe_is_fitted_on_vectors_and_used_as_a_graph(tmp_path: Path):
    """By scikit-learn on pieces of two photographs; the graph gives its probabilities, of pieces that it was not fitted on."""
    from safetensors.torch import save_file
    from skimage import data
    from sklearn.linear_model import LogisticRegression

    checkpoints.clip(tmp_path)
    whole = {"cat": Image.fromarray(data.chelsea()), "coffee": Image.fromarray(data.coffee())}
    pieces = {
        name: [image.crop((x, y, x + 90, y + 90)) for x in (0, 100, 200, 300) for y in (0, 100, 200)] for name, image in whole.items()
    }
    named = [name for name, images in pieces.items() for _ in images]
    with mg.open("clip/embed", params={"checkpoint": str(tmp_path)}) as pipeline:
        vectors = pipeline.run(image=[image for images in pieces.values() for image in images], outputs=["vision.pooled"])["vision.pooled"]
    fitted = LogisticRegression(max_iter=1000).fit(vectors[::2].numpy(), named[::2])
    rows, bias = torch.from_numpy(fitted.coef_).float(), torch.from_numpy(fitted.intercept_).float()
    save_file({"weight": torch.cat([-rows, rows]) / 2, "bias": torch.cat([-bias, bias]) / 2}, tmp_path / "probe.safetensors")
    params = {"checkpoint": str(tmp_path), "probe": str(tmp_path / "probe.safetensors"), "names": [str(name) for name in fitted.classes_]}
    with mg.open("clip/probe", params=params) as pipeline:
        found = pipeline.run(image=[*pieces["cat"][1::2], *pieces["coffee"][1::2]])
    wanted = torch.from_numpy(fitted.predict_proba(vectors[1::2].numpy())).float()
    torch.testing.assert_close(found["probabilities"], wanted, rtol=0, atol=1e-5)
    assert found["label"] == [str(name) for name in fitted.predict(vectors[1::2].numpy())]
