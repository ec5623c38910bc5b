"""BEiT-3's graphs on real pictures and texts, over files as they are published: tiny random weights, a small file of SentencePiece."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from skimage import data

import modelgraft as mg
from modelgraft.cli import main
from modelgraft.kernel.words.errors import InputError
from modelgraft.testing import open_node
from modelgraft_plugins.beit3.captioner import Captioner
from modelgraft_plugins.beit3.encoder import Encoder
from support.beit3 import PIECES, SIZES, WIDTH, published, tokenizer_of_pictures

EXAMPLES = ["a photo of a cat", "the dogs of the grass?"]


CAT, WOMAN = Image.fromarray(data.chelsea()), Image.fromarray(data.astronaut())


def run(graph: str, params: Mapping[str, Any], **inputs: Any) -> mg.Result:
    """Open a shipped graph and run it once."""
    with mg.open(mg.load(graph, params=params)) as pipeline:
        return pipeline.run(**inputs)


def test_a_picture_and_a_text_are_read_together(tmp_path: Path):
    """From a file alone: its sizes, its tokenizer beside it, and the square that its positions are for."""
    path = published(tmp_path, "itc")
    found = run("beit3", {"checkpoint": path}, image=[CAT, WOMAN], text=EXAMPLES)
    assert found.outputs["image_tokens"].shape == (2, 10, WIDTH)
    assert found.outputs["tokens"].shape == (*found.outputs["token_mask"].shape, WIDTH)
    assert not found.outputs["token_mask"].all()
    turned = run("beit3", {"checkpoint": path}, image=[WOMAN, CAT], text=EXAMPLES[::-1])
    torch.testing.assert_close(turned.outputs["pooled"].flip(0), found.outputs["pooled"], rtol=0.0, atol=1e-5)


def test_pictures_and_texts_in_one_space(tmp_path: Path):
    """Each by itself: a vector does not know of the other medium."""
    params = {"checkpoint": published(tmp_path, "itc")}
    found = run("beit3/contrast", params, image=[CAT, WOMAN], text=EXAMPLES).outputs
    other = run("beit3/retrieval", params, image=[CAT, CAT], text=EXAMPLES).outputs
    torch.testing.assert_close(found["image_vec"].norm(dim=1), torch.ones(2))
    torch.testing.assert_close(other["image_vec"][0], found["image_vec"][0])
    torch.testing.assert_close(other["text_vec"], found["text_vec"])
    logits = found["image_vec"] @ found["text_vec"].T * torch.tensor(2.0).exp()
    wanted = (torch.nn.functional.cross_entropy(logits, torch.arange(2)) + torch.nn.functional.cross_entropy(logits.T, torch.arange(2))) / 2
    torch.testing.assert_close(found["loss"].mean(), wanted)


def test_a_folder_of_pictures_is_searched(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """It is embedded once; a text then finds the picture whose vector is nearest."""
    path, photos = published(tmp_path / "weights", "itc"), tmp_path / "photos"
    photos.mkdir()
    for name, picture in (("cat", CAT), ("woman", WOMAN), ("coffee", Image.fromarray(data.coffee()))):
        picture.save(photos / f"{name}.png")
    index = tmp_path / "photos.safetensors"
    words = ["index", "beit3/retrieval", str(photos), "--out", str(index), "--set", f"checkpoint={path}"]
    assert main(words) == 0
    assert "3 files, 3 new: 3 embedded" in "".join(capsys.readouterr())
    found = run("beit3/search", {"checkpoint": path, "index": str(index), "count": 3}, text=EXAMPLES[0])
    pictures = [photos / f"{name}.png" for name in ("cat", "woman", "coffee")]
    vectors = run("beit3/retrieval", {"checkpoint": path}, image=list(map(str, pictures)), text=EXAMPLES[:1] * 3).outputs
    order = (vectors["image_vec"] @ vectors["text_vec"][0]).argsort(descending=True).tolist()
    assert [Path(hit).name for hit in found["paths"]] == [pictures[place].name for place in order]


def test_a_question_about_a_picture(tmp_path: Path):
    """The answers have their names where a file beside the weights says them."""
    params = {"checkpoint": published(tmp_path, "vqa")}
    found = run("beit3/vqa", params, image=CAT, question="a cat?")
    best = int(found.outputs["logits"].argmax())
    assert found["answer"] == f"LABEL_{best}"
    names = ["yes", "no", "cat", "dog", "two", "red", "grass"]
    (tmp_path / "answer2label.txt").write_text(
        "".join(json.dumps({"answer": name, "label": index}) + "\n" for index, name in enumerate(names))
    )
    assert run("beit3/vqa", params, image=CAT, question="a cat?")["answer"] == names[best]
    (tmp_path / "answer2label.txt").write_text('{"answer": "yes", "label": 1}\n')
    with pytest.raises(mg.GraphError, match="has 1 answers, and their labels are not the numbers from 0 to 0, each once"):
        mg.check(mg.load("beit3/vqa", params=params))


def test_a_sentence_about_two_pictures(tmp_path: Path):
    """Which is left and which is right matters."""
    params = {"checkpoint": published(tmp_path, "nlvr2")}
    found = run("beit3/nlvr2", params, first=CAT, second=WOMAN, text=EXAMPLES[0])
    assert found["answer"] in ("true", "false")
    turned = run("beit3/nlvr2", params, first=WOMAN, second=CAT, text=EXAMPLES[0])
    assert not torch.allclose(found.outputs["logits"], turned.outputs["logits"])


def test_what_is_on_a_picture(tmp_path: Path):
    """The middle of the picture, with the mean and std of ImageNet."""
    found = run("beit3/classify", {"checkpoint": published(tmp_path, "in1k")}, image=CAT)
    assert found["label"] == f"LABEL_{int(found.outputs['logits'].argmax())}"
    assert found.outputs["probabilities"].shape == (1, 6)


def reading_all(captioner: Any, pixels: torch.Tensor, ids: list[int], mask_id: int) -> torch.Tensor:
    """The logits of the place behind a text: everything read at once, in one pass of the whole trunk."""
    text = torch.tensor([[*ids, mask_id]])
    config = {**SIZES, "causal": True}
    trial = open_node(Encoder, config, state={f"trunk.{name}": tensor for name, tensor in captioner.beit3.state_dict().items()})
    return captioner.mlm_head(trial(pixels, None, text, None)["text_tokens"][0, -1])


@torch.no_grad()
def test_a_caption_is_what_reading_everything_again_gives(tmp_path: Path):
    """Token by token, up to the end token; the text is what the tokenizer makes of it."""
    params = {"checkpoint": published(tmp_path, "caption"), "max_new_tokens": 6}
    with mg.open(mg.load("beit3/caption", params=params)) as pipeline:
        found = pipeline.run(image=[CAT, WOMAN])
        pixels = pipeline.run(image=[CAT, WOMAN], outputs=["pixels.pixels"]).outputs["pixels.pixels"]
    captioner = open_node(Captioner, SIZES).loaded.state
    state = torch.load(params["checkpoint"])["model"]
    captioner.load_state_dict(state)
    for record, written in enumerate(found.outputs["ids"].tolist()):
        ids = [0]
        while len(ids) <= 6 and ids[-1] != 2:
            ids.append(int(reading_all(captioner, pixels[record : record + 1], ids, PIECES - 1).argmax()))
        assert written[: len(ids) - 1] == ids[1:]
        assert set(written[len(ids) - 1 :]) <= {1}
    assert all(isinstance(text, str) for text in found.outputs["text"])


@torch.no_grad()
def test_beams_find_what_looking_at_every_caption_finds(tmp_path: Path):
    """As many beams as there are tokens: of all captions of two tokens the likeliest by the length-normalised sum."""
    params = {"checkpoint": published(tmp_path, "caption"), "max_new_tokens": 2, "beams": PIECES}
    with mg.open(mg.load("beit3/caption", params=params)) as pipeline:
        ids = pipeline.run(image=CAT).outputs["ids"][0].tolist()
        pixels = pipeline.run(image=CAT, outputs=["pixels.pixels"]).outputs["pixels.pixels"]
    captioner = open_node(Captioner, SIZES).loaded.state
    captioner.load_state_dict(torch.load(params["checkpoint"])["model"])
    first = reading_all(captioner, pixels, [0], PIECES - 1).log_softmax(-1)
    ways = {(2,): float(first[2])}
    for token in range(PIECES):
        if token != 2:
            second = reading_all(captioner, pixels, [0, token], PIECES - 1).log_softmax(-1)
            ways |= {(token, other): float(first[token] + second[other]) / 2**0.6 for other in range(PIECES)}
    assert tuple(token for token in ids if token != 1 or len(ids) == 2) == max(ways, key=lambda way: ways[way])


def test_a_caption_without_a_tokenizer_is_ids(tmp_path: Path):
    """Who wants the text is told what is missing, and where to put it."""
    params = {"checkpoint": published(tmp_path, "caption"), "max_new_tokens": 2}
    (tmp_path / "beit3.spm").unlink()
    with mg.open(mg.load("beit3/caption", params=params)) as pipeline:
        assert pipeline.run(image=CAT, outputs=["ids"]).outputs["ids"].shape[0] == 1
        with pytest.raises((InputError, mg.NodeError), match=r"put sentencepiece\.bpe\.model or beit3\.spm beside the weights"):
            pipeline.run(image=CAT)


def test_a_picture_in_visual_words(tmp_path: Path):
    """An id for each patch, and a picture of them beside the one that was read."""
    path = tokenizer_of_pictures(tmp_path / "vqkd_tiny.pth")
    found = run("beit3/tokenize", {"checkpoint": path}, image=[CAT, WOMAN])
    assert found.outputs["ids"].shape == (2, 9)
    assert found.outputs["codes"].shape == (2, 5, 3, 3)
    state = torch.load(path)["model"]["quantize.embedding.weight"]
    torch.testing.assert_close(found.outputs["codes"].flatten(2).transpose(1, 2), state[found.outputs["ids"]], rtol=0.0, atol=1e-6)
    assert found.outputs["picture"][0].size == (2 * 3 * 36 + 8, 3 * 36)


def test_what_is_hidden_is_guessed(tmp_path: Path):
    """Masked data modelling, all of it: a picture, a text, and both; each loss is the mean over what was hidden."""
    params = {"checkpoint": published(tmp_path, ""), "visual_words": tokenizer_of_pictures(tmp_path / "vqkd.pth"), "codes": 11}
    asked = ["see_guess.y", "wanted.ids", "holes.mask", "image_loss", "text_loss", "pair_image_loss", "pair_text_loss"]
    with mg.open(mg.load("beit3/pretrain", params=params), seed=4) as pipeline:
        found = pipeline.run(image=[CAT, WOMAN], text=EXAMPLES, outputs=asked).outputs
    hidden = found["holes.mask"]
    assert hidden.sum(1).tolist() == [3, 3]  # 40 % of nine, as published
    wanted = torch.nn.functional.cross_entropy(found["see_guess.y"][hidden], found["wanted.ids"][hidden])
    torch.testing.assert_close(found["image_loss"].mean(), wanted)
    assert all(bool(found[name].isfinite().all()) for name in asked if name.endswith("loss"))


def test_a_text_that_is_too_long_names_itself(tmp_path: Path):
    """Before anything is read of the picture."""
    params = {"checkpoint": published(tmp_path, "itc")}
    with pytest.raises((InputError, mg.NodeError), match=r"has \d+ tokens and 64 is the most"):
        run("beit3", params, image=CAT, text="a photo of a cat " * 20)


def test_weights_of_another_use_are_told(tmp_path: Path):
    """At the check, with what the file has instead."""
    params = {"checkpoint": published(tmp_path, "itc")}
    with pytest.raises(mg.GraphError, match=r"has no head\.3\.weight: beside the trunk it has language_head, logit_scale, vision_head"):
        mg.check(mg.load("beit3/vqa", params=params))
    with pytest.raises(mg.GraphError, match="holds no VQ-KD"):
        mg.check(mg.load("beit3/tokenize", params=params))


GRAPHS = {
    "beit3": ("itc", {"image": [CAT, WOMAN], "text": EXAMPLES}, ["tokens", "pooled"]),
    "beit3/contrast": ("itc", {"image": [CAT, WOMAN], "text": EXAMPLES}, ["image_vec", "text_vec", "loss"]),
    "beit3/vqa": ("vqa", {"image": [CAT, WOMAN], "question": EXAMPLES}, ["logits"]),
    "beit3/nlvr2": ("nlvr2", {"first": CAT, "second": WOMAN, "text": EXAMPLES[0]}, ["logits"]),
    "beit3/classify": ("in1k", {"image": CAT}, ["logits"]),
    "beit3/caption": ("caption", {"image": [CAT, WOMAN]}, ["ids", "logits", "text"]),
    "beit3/tokenize": ("vqkd", {"image": CAT}, ["ids", "codes"]),
}


@pytest.mark.slow
@pytest.mark.usefixtures("untuned_cache")
@pytest.mark.parametrize("graph", GRAPHS)
def test_exports_give_what_torch_gives(graph: str, tmp_path: Path):
    """Every part that is a tensor function runs on ONNX Runtime; ids are equal."""
    use, inputs, outputs = GRAPHS[graph]
    path = tokenizer_of_pictures(tmp_path / "vqkd.pth") if use == "vqkd" else published(tmp_path, use)
    params = {"checkpoint": path, **({"max_new_tokens": 4} if graph == "beit3/caption" else {})}
    found = {}
    for backend in ("torch", "onnx"):
        with mg.open(mg.load(graph, params=params), backend=backend) as pipeline:
            found[backend] = pipeline.run(**inputs, outputs=outputs).outputs
    for name in outputs:
        one, other = found["torch"][name], found["onnx"][name]
        if isinstance(one, torch.Tensor) and one.is_floating_point():
            torch.testing.assert_close(other, one, rtol=0.0, atol=1e-4)
        else:
            assert torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other
