"""GrIT of Kosmos-2: the things that captions name, where they are on pictures, and both together as it is trained on them."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import modelgraft as mg
from modelgraft.cli import main
from modelgraft.testing import conform, open_node
from modelgraft_plugins.detecting import PEOPLE, mtcnn
from modelgraft_plugins.detecting.faces import whose
from modelgraft_plugins.kosmos import Grit
from modelgraft_plugins.kosmos.grit import apart
from modelgraft_plugins.parsing import Phrases

CAPTION = "a dog in a field of flowers"
CHUNKS = [  # of the example of the paper
    {"text": "a dog", "start": 0, "end": 5, "head": "dog", "expression": [0, 27]},
    {"text": "a field", "start": 9, "end": 16, "head": "field", "expression": [9, 27]},
    {"text": "flowers", "start": 20, "end": 27, "head": "flowers", "expression": [20, 27]},
]
DOG = {"text": "a dog", "x0": 10, "y0": 5, "x1": 30, "y1": 20, "score": 0.9}
FIELD = {"text": "a field", "x0": 0, "y0": 10, "x1": 40, "y1": 20, "score": 0.8}
UNSURE = {"text": "flowers", "x0": 0, "y0": 0, "x1": 5, "y1": 5, "score": 0.6}


FIND = """inputs: {image: image, phrases: 'list[text]'}
nodes:
  seen: {use: detect/phrases, from: %s, in: {image: inputs.image, phrases: inputs.phrases}}
"""


def parsed(words: list[str], heads: list[int], relations: list[str], kinds: list[str]):
    """A sentence whose tree is written down here, as spaCy has it."""
    spacy = pytest.importorskip("spacy", reason="texts are parsed by spaCy")
    tokens = pytest.importorskip("spacy.tokens", reason="texts are parsed by spaCy")
    return tokens.Doc(spacy.blank("en").vocab, words=words, heads=heads, deps=relations, pos=kinds)


@pytest.mark.parametrize(
    ("words", "heads", "relations", "kinds", "wanted"),
    [
        (
            f"{CAPTION} .", [1, 1, 1, 4, 2, 4, 5, 1], "det ROOT prep det pobj prep pobj punct", "DET NOUN ADP DET NOUN ADP NOUN PUNCT",
            {"a dog": CAPTION, "a field": "a field of flowers", "flowers": "flowers"},
        ),
        (  # joined ones are not expanded: who rides may be both
            "a man and a woman who ride", [1, 1, 1, 4, 1, 6, 4], "det ROOT cc det conj nsubj relcl", "DET NOUN CCONJ DET NOUN PRON VERB",
            {"a man": "a man", "a woman": "a woman"},
        ),
        (  # of a subject its verb is no part
            "The girl with glasses reads .", [1, 4, 1, 2, 4, 4], "det nsubj prep pobj ROOT punct", "DET NOUN ADP NOUN VERB PUNCT",
            {"The girl": "The girl with glasses", "glasses": "glasses"},
        ),
    ],
)  # fmt: skip
def test_an_expression_is_a_noun_with_all_that_hangs_on_it(words, heads, relations, kinds, wanted):
    from modelgraft_plugins.parsing.phrases import _is_thing, expression_of

    text = parsed(words.split(), heads, relations.split(), kinds.split())
    chunks = [chunk for chunk in text.noun_chunks if _is_thing(chunk, frozenset())]
    assert {chunk.text: text.text[slice(*expression_of(chunk))] for chunk in chunks} == wanted


def test_what_no_picture_shows_is_left_out():
    """Abstract nouns, in the plural too, and pronouns."""
    from modelgraft_plugins.parsing.phrases import _is_thing

    text = parsed(["ideas", "show", "it", "dogs"], [1, 1, 1, 1], ["nsubj", "ROOT", "dobj", "dobj"], ["NOUN", "VERB", "PRON", "NOUN"])
    assert [chunk.text for chunk in text.noun_chunks if _is_thing(chunk, frozenset({"idea"}))] == ["dogs"]


def test_a_model_that_is_not_there_is_told():
    pytest.importorskip("spacy", reason="texts are parsed by spaCy")
    with pytest.raises(mg.ModelgraftError, match=r"spaCy cannot open the model './none'"):
        open_node(Phrases, {"model": "./none"})


def test_grit_keeps_its_declaration():
    pictures = [Image.new("RGB", (40, 20))] * 2
    conform(Grit, caption=[CAPTION] * 2, image=pictures, parse=[CHUNKS] * 2, boxes=[[DOG], []])


def test_chunks_and_expressions_are_rows_as_they_were_published():
    """Letters of the caption and parts of the picture; an expression within another is left out, unsure boxes too."""
    picture = Image.new("RGB", (40, 20))
    found = open_node(Grit)([CAPTION] * 2, [picture] * 2, [CHUNKS] * 2, [[FIELD, UNSURE, DOG], [FIELD]])
    assert found["noun_chunks"][0] == [[0, 5, 0.25, 0.25, 0.75, 1.0, 0.9], [9, 16, 0.0, 0.5, 1.0, 1.0, 0.8]]
    assert found["ref_exps"][0] == [[0, 27, 0.25, 0.25, 0.75, 1.0, 0.9]]
    assert found["boxes"][0] == [{**DOG, "text": CAPTION}]
    assert found["ref_exps"][1] == [[9, 27, 0.0, 0.5, 1.0, 1.0, 0.8]]  # nothing around it was found
    assert (found["width"], found["height"]) == ([40, 40], [20, 20])
    assert found["fits"].tolist() == [True, True]


def test_a_caption_of_which_nothing_was_found_does_not_fit_and_a_strange_phrase_is_refused():
    picture = Image.new("RGB", (40, 20))
    found = open_node(Grit)([CAPTION], [picture], [CHUNKS], [[UNSURE]])
    assert (found["fits"].tolist(), found["else"].tolist(), found["noun_chunks"]) == ([False], [True], [[]])
    with pytest.raises(mg.InputError, match="found 'a cat', which is none of the phrases: a dog, a field, flowers"):
        open_node(Grit)([CAPTION], [picture], [CHUNKS], [[{**DOG, "text": "a cat"}]])


def test_boxes_that_overlap_a_surer_one_are_left_out_as_pixel_by_pixel():
    """Counted on a grid of pixels, whatever phrase they are of."""
    draw = random.Random(3)
    boxes = []
    for number in range(40):
        x0, y0 = draw.randrange(20), draw.randrange(20)
        boxes.append(
            {"text": str(number), "x0": x0, "y0": y0, "x1": x0 + draw.randint(1, 9), "y1": y0 + draw.randint(1, 9), "score": draw.random()}
        )

    def pixels(box):
        return {(x, y) for x in range(box["x0"], box["x1"]) for y in range(box["y0"], box["y1"])}

    wanted = []
    for box in sorted(boxes, key=lambda one: -one["score"]):
        if all(len(pixels(box) & pixels(other)) / len(pixels(box) | pixels(other)) <= 0.4 for other in wanted):
            wanted.append(box)
    assert apart(boxes, 0.4) == wanted
    corners = torch.tensor([[box[corner] for corner in ("x0", "y0", "x1", "y1")] for box in boxes], dtype=torch.float64)
    chosen = mtcnn.apart(corners, torch.tensor([box["score"] for box in boxes]), 0.4)
    assert [boxes[number] for number in chosen] == wanted


def test_a_face_belongs_to_the_one_phrase_that_names_somebody():
    assert whose(["a dog", "The Astronaut", "a rocket"], PEOPLE) == ("The Astronaut", False)
    assert whose(["two astronauts"], PEOPLE) == ("two astronauts", True)
    assert whose(["some people"], PEOPLE) == ("some people", True)
    assert whose(["a man", "a woman"], PEOPLE) is None
    assert whose(["a manual", "a dog"], PEOPLE) is None


def photograph(name: str) -> Path:
    skimage = pytest.importorskip("skimage", reason="the photographs ship with scikit-image")
    return Path(skimage.__file__).parent / "data" / name


@pytest.mark.slow  # weights are fetched
@pytest.mark.network
@pytest.mark.timeout(900)
def test_captions_of_photographs_become_grounded_texts(tmp_path):
    """End to end: spaCy parses, MTCNN finds the face where another detector sees it, and the text is read as Kosmos-2 reads it."""
    pytest.importorskip("spacy", reason="texts are parsed by spaCy")
    from skimage.feature import Cascade

    rows = [
        ("astronaut.png", "An astronaut in an orange suit smiles."),
        ("chelsea.png", "A tabby cat with green eyes looks at the camera."),
    ]
    data = [{"file": name, "image": str(photograph(name)), "caption": caption} for name, caption in rows]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, data)), encoding="utf-8")
    assert main(["map", "kosmos2/grit", str(tmp_path / "in.jsonl"), "--out", str(tmp_path / "out.jsonl")]) == 0
    first, second = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert (second["text"], second["noun_chunks"]) == (None, [])  # no face of a person
    ((start, end, *places, _score),) = first["noun_chunks"]
    assert (first["caption"][start:end], first["file"]) == ("An astronaut", "astronaut.png")
    picture = np.asarray(Image.open(photograph("astronaut.png")))
    cascade = Cascade(str(photograph("lbpcascade_frontalface_opencv.xml")))
    (face,) = cascade.detect_multi_scale(img=picture, scale_factor=1.2, step_ratio=1, min_size=(60, 60), max_size=(200, 200))
    seen = {"x0": face["c"], "y0": face["r"], "x1": face["c"] + face["width"], "y1": face["r"] + face["height"], "score": 0.0}
    x0, y0, x1, y1 = (place * 512 for place in places)
    assert len(apart([{"x0": x0, "y0": y0, "x1": x1, "y1": y1, "score": 1.0}, seen], 0.4)) == 1  # they share more than 0.4
    from transformers.models.kosmos2.processing_kosmos2 import clean_text_and_extract_entities_with_bboxes as read

    _, ((phrase, _span, ((left, top, right, bottom),)),) = read(first["text"].removeprefix("<grounding>"))
    assert phrase == "An astronaut in an orange suit"
    assert np.allclose([left, top, right, bottom], places, atol=1 / 32)


@pytest.fixture(scope="module")
def owl(tmp_path_factory):
    """A small random OWL-ViT, as transformers saves it."""
    import transformers as hf
    from transformers.models.owlvit.image_processing_pil_owlvit import OwlViTImageProcessorPil

    from support.checkpoints import randomise
    from support.tokenizers import clip_bpe

    folder, tokenizer = tmp_path_factory.mktemp("owl"), clip_bpe()
    tokenizer.model_max_length = 16
    sizes = {"hidden_size": 18, "intermediate_size": 29, "num_hidden_layers": 2, "num_attention_heads": 3}
    text = {**sizes, "vocab_size": len(tokenizer), "max_position_embeddings": 16, "pad_token_id": tokenizer.pad_token_id,
            "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}  # fmt: skip
    eye = {**sizes, "image_size": 24, "patch_size": 6}
    model = hf.OwlViTForObjectDetection(hf.OwlViTConfig(text_config=text, vision_config=eye, projection_dim=18))
    randomise(model, seed=5)
    model.save_pretrained(folder)
    hf.OwlViTProcessor(OwlViTImageProcessorPil(size={"height": 24, "width": 24}), tokenizer).save_pretrained(folder)
    return folder


def test_phrases_are_found_as_transformers_finds_them(owl, tmp_path):
    """Each record with its own phrases; boxes on the picture, each named after its phrase. No phrases: nothing is looked for."""
    import transformers as hf

    graph = FIND % "'${owl}', with: {least_score: 0}"
    (tmp_path / "find.yaml").write_text(f"# Find.\nmodelgraft: 1\nparams: {{owl: {{type: text}}}}\n{graph}outputs: {{boxes: seen}}\n")
    pictures = [Image.effect_noise((40, 30), 80).convert("RGB"), Image.effect_noise((25, 50), 90).convert("RGB")]
    phrases = [["a dog", "a field"], ["the cat"]]
    with mg.open(tmp_path / "find.yaml", params={"owl": str(owl)}) as pipeline:
        found = pipeline.run(image=pictures, phrases=phrases)["boxes"]
        assert pipeline.run(image=pictures[0], phrases=[])["boxes"] == []
    processor, model = hf.AutoProcessor.from_pretrained(owl), hf.OwlViTForObjectDetection.from_pretrained(owl).eval()
    for picture, named, boxes in zip(pictures, phrases, found, strict=True):
        given = processor(text=[named], images=picture, return_tensors="pt")
        with torch.no_grad():
            seen = model(**given)
        scores, best = seen.logits[0].sigmoid().amax(-1), seen.logits[0].argmax(-1)  # by logits: some scores are 1 to the last bit
        middle, half = seen.pred_boxes[0, :, :2], seen.pred_boxes[0, :, 2:] / 2
        corners = torch.cat([middle - half, middle + half], 1) * torch.tensor(picture.size * 2)
        corners = torch.minimum(corners.clamp(min=0), torch.tensor(picture.size * 2, dtype=torch.float32))
        kept = (scores > 0) & (corners[:, 0] < corners[:, 2]) & (corners[:, 1] < corners[:, 3])
        assert len(boxes) == int(kept.sum()) > 0
        ours = torch.tensor([[box[corner] for corner in ("x0", "y0", "x1", "y1")] for box in boxes])
        assert torch.allclose(ours, corners[kept], atol=1e-4)
        assert [box["text"] for box in boxes] == [named[number] for number in best[kept]]
        assert np.allclose([box["score"] for box in boxes], scores[kept], atol=1e-6)


def test_a_folder_without_a_detector_is_told(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    (tmp_path / "model.safetensors").write_bytes(b"")
    graph = FIND % "."
    (tmp_path / "find.yaml").write_text(f"# Find.\nmodelgraft: 1\n{graph}outputs: {{boxes: seen}}\n")
    with pytest.raises(mg.ModelgraftError), mg.open(tmp_path / "find.yaml") as pipeline:
        pipeline.run(image=Image.new("RGB", (9, 9)), phrases=["a dog"])
