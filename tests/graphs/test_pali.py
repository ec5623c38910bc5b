"""PaLI in both readings, equal to the ViT and mT5 of transformers put together by hand; its tasks, and what it is trained by."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import modelgraft as mg
from modelgraft.testing import conform, open_node
from modelgraft_plugins.pali import Boxes, MemoryConfig, SpanCorruption, TaskConfig
from modelgraft_plugins.pali.spans import noise
from support.pali import Reference, saved
from support.pictures import picture

CLOSE = {"rtol": 0.0, "atol": 1e-5}  # float32, elementwise
PROMPTS = ["Answer in EN: what is it? <extra_id_0>", "Generate <extra_id_0>", "Answer in DE: was steht da, und wo? <extra_id_0>"]
READINGS = {"pali": "encoder_concat", "pali/decoder_only": "decoder_only"}
TRAINED = {"pali/train": "encoder_concat", "pali/train_decoder_only": "decoder_only"}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Reference]:
    """A saved one and its parts."""
    folder = tmp_path_factory.mktemp("pali")
    return folder, saved(folder)


def answers(graph: str, folder: Path, lines: list[str], **options: Any) -> Mapping[str, Any]:
    """What a graph gives for as many pictures."""
    outputs = ["pixels.pixels", "llm.logits", "llm.ids"]
    with mg.open(graph, params={"checkpoint": str(folder), "max_new_tokens": 6}, **options) as pipeline:
        return dict(pipeline.run(image=[picture(31, 23, seed=at) for at in range(len(lines))], prompt=lines, outputs=outputs).outputs)


@pytest.mark.parametrize(("graph", "fusion"), READINGS.items())
def test_each_reading_is_the_one_put_together_by_hand(graph: str, fusion: str, home: tuple[Path, Reference]):
    """Logits of the first token within 1e-5, and the very tokens of greedy answers; lines of a batch are unequally long."""
    folder, theirs = home
    found = answers(graph, folder, PROMPTS)
    pixels = found["pixels.pixels"]
    start = torch.full((len(PROMPTS), 1), 5)
    expected = theirs.forced(pixels, PROMPTS, start, fusion).logits[:, 0]
    torch.testing.assert_close(found["llm.logits"], expected, **CLOSE)
    written = theirs.written(pixels, PROMPTS, fusion, 6)
    ids = torch.where(found["llm.ids"] < 0, theirs.tokenizer.pad_token_id, found["llm.ids"])
    assert torch.equal(ids, written[:, : ids.shape[1]])


def test_the_readings_are_two_models(home: tuple[Path, Reference]):
    first, second = (answers(graph, home[0], PROMPTS)["llm.logits"] for graph in READINGS)
    assert (first - second).abs().max() > 1e-2


@pytest.mark.parametrize("graph", READINGS)
def test_padding_is_inert(graph: str, home: tuple[Path, Reference]):
    """A line beside longer ones gives what it gives alone."""
    together, alone = answers(graph, home[0], PROMPTS)["llm.logits"], answers(graph, home[0], PROMPTS[:1])["llm.logits"]
    torch.testing.assert_close(together[0], alone.reshape(-1), rtol=0.0, atol=1e-5)


@pytest.mark.parametrize(("graph", "fusion"), TRAINED.items())
def test_what_it_is_trained_by_is_the_loss_of_transformers(graph: str, fusion: str, home: tuple[Path, Reference]):
    """The mean over the batch, labels moved on by one, and what stands behind the end of an answer does not count."""
    folder, theirs = home
    questions, wanted = ["what is it?", "wo ist der Hund?"], ["a cat", "im Garten, hinter dem Haus"]
    with mg.open(graph, params={"checkpoint": str(folder)}) as pipeline:
        given = {"image": [picture(31, 23), picture(20, 40)], "question": questions, "answer": wanted}
        found = pipeline.run(**given, outputs=["pixels.pixels", "loss.loss", "logits"]).outputs
    labels = theirs.tokenizer(wanted, return_tensors="pt", padding=True)
    ids = labels.input_ids.masked_fill(labels.attention_mask == 0, -100)
    lines = [f"Answer in EN: {question} <extra_id_0>" for question in questions]
    expected = theirs.forced(found["pixels.pixels"], lines, ids, fusion)
    torch.testing.assert_close(found["logits"][ids >= 0], expected.logits[ids >= 0], **CLOSE)
    torch.testing.assert_close(found["loss.loss"].mean(), expected.loss, **CLOSE)


def test_what_is_trained_is_run(home: tuple[Path, Reference], tmp_path: Path):
    """The trained files stand in the place of the checkpoint, and answer otherwise."""
    (image := picture(17, 23)).save(tmp_path / "image.png")
    (tmp_path / "rows.jsonl").write_text(json.dumps({"image": str(tmp_path / "image.png"), "question": "what?", "answer": "a cat"}))
    given, told = {"checkpoint": str(home[0])}, {"steps": 2, "batch": 1, "learning_rate": 0.01, "device": "cpu"}
    folder = mg.train("pali/train", out=tmp_path / "out", data=str(tmp_path / "rows.jsonl"), params=given, **told).last
    sources = {f"nodes.{name}.from": str(folder / f"{name}.safetensors") for name in ("llm", "project")}
    found = []
    for more in ({}, sources):
        with mg.open("pali", params={**given, **more}) as pipeline:
            found.append(pipeline.run(image=image, prompt=PROMPTS[0], outputs=["llm.logits"])["llm.logits"])
    assert (found[0] - found[1]).abs().max() > 1e-3  # of two steps, while the rate warms up


TOTALS = {  # parameters of each part: the eye without a class token and without a head, the linear layer, mT5 with a head of its own
    "pali-3b": (1664, 8192, 48, 1024, 1_229_581_312),
    "pali-15b": (1664, 8192, 48, 4096, 12_921_057_280),
    "pali-17b": (1792, 15360, 56, 4096, 12_921_057_280),
}


@pytest.mark.parametrize(("name", "sizes"), TOTALS.items())
def test_published_sizes_are_counted_to_the_unit(name: str, sizes: tuple[int, int, int, int, int]):
    """mT5 as its published checkpoints count it; the eye by its widths, 256 places for patches of 14."""
    width, inner, layers, words, language = sizes
    block = 4 * (width * width + width) + (width * inner + inner) + (inner * width + width) + 4 * width
    eye = 3 * 14 * 14 * width + width + 256 * width + layers * block + 2 * width
    nodes = mg.plan(mg.load("pali", params={"checkpoint": f"preset:{name}"})).nodes
    assert nodes["vision"].parameters.total == eye
    assert nodes["vision"].parameters.trainable == 0
    assert nodes["project"].parameters.total == width * words + words
    assert nodes["llm"].parameters.total == language


@pytest.mark.parametrize("graph", [*READINGS, *TRAINED])
def test_plans_count_what_is_built(graph: str, home: tuple[Path, Reference]):
    planned = mg.load(graph, params={"checkpoint": str(home[0])})
    assert mg.plan(planned).totals.parameters == mg.plan(planned, exact=True).totals.parameters


# -- tasks ---------------------------------------------------------------------------------------------------------------------

OBJECTS = ["cat", "dog", "snow leopard"]
BOXES = [
    {"x0": 2.0, "y0": 1.0, "x1": 10.0, "y1": 9.0, "text": "cat"},
    {"x0": 3.0, "y0": 2.0, "x1": 10.0, "y1": 10.0, "text": "snow leopard"},
]
LINES = [  # task, what it speaks of, line, answer: the examples of the paper, filled in
    ("caption", {"caption": "a cat"}, "Generate the alt_text in EN at 0: <extra_id_0>", "a cat"),
    ("split_caption", {"begun": "a cat on", "rest": "a mat"}, "Generate the alt_text in EN at 3: a cat on <extra_id_0>", "a mat"),
    ("ocr", {"words": "OPEN 9-5"}, "Generate the ocr_text in EN: <extra_id_0>", "OPEN 9-5"),
    ("vqa", {"question": "what?", "answer": "a cat"}, "Answer in EN: what? <extra_id_0>", "a cat"),
    ("vqg", {"answer": "a cat", "question": "what?"}, "Generate a question in EN for a cat: <extra_id_0>", "what?"),
    ("list_objects", {"present": ["cat", "dog"]}, "Answer in EN: List the objects present: <extra_id_0>", "cat, dog"),
    ("are_there", {"objects": ["cat", "dog"], "present": ["cat"]}, "Answer in EN: Is cat, dog in the image? <extra_id_0>", "No"),
    (
        "which_are_there", {"objects": OBJECTS, "present": ["dog", "cat"]},
        "Answer in EN: Which of cat, dog, snow leopard are in the image? <extra_id_0>", "cat, dog",
    ),
    (
        "detect", {"objects": OBJECTS, "image": Image.new("RGB", (100, 10)), "boxes": BOXES},
        "detect cat and dog and snow leopard <extra_id_0>", "100 20 900 100 cat 200 30 999 100 snow leopard",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("task", "given", "line", "answer"), LINES, ids=[row[0] for row in LINES])
def test_tasks_are_worded_as_published(task: str, given: dict[str, Any], line: str, answer: str):
    trial = open_node(TaskConfig, {"task": task, "answers": True})
    assert list(trial.node.in_ports) == list(given)
    found = trial.loaded.call(*[[value] for value in given.values()])
    assert (found["text"], found["answer"]) == ([line], [answer])


def test_boxes_are_read_back_from_their_line():
    """To a thousandth of the sides; what is no box is left out."""
    read = open_node(Boxes).loaded.call
    line = LINES[-1][3]
    (found,) = read([f"and {line} 3 4 lost 1 2 3 4"], [Image.new("RGB", (100, 10))])
    assert [box["text"] for box in found] == ["cat", "snow leopard"]
    for box, wanted in zip(found, BOXES, strict=True):
        assert all(abs(box[side] - wanted[side]) <= 0.11 for side in ("x0", "y0", "x1", "y1"))


@pytest.mark.parametrize(("given", "told"), [([], "no objects"), (["cat", ""], "an empty name"), (["cat", "dog", "cat"], "'cat' twice")])
def test_objects_that_are_none_are_refused(given: list[str], told: str):
    with pytest.raises(mg.InputError, match=f"record 0 has {told}; wanted: names, each once"):
        open_node(TaskConfig, {"task": "detect"}).loaded.call([given])


def test_objects_are_asked_for_in_english_alone():
    with pytest.raises(mg.InputError, match="detect is trained in English alone, and language is DE"):
        open_node(TaskConfig, {"task": "detect", "language": "DE"})


# -- spans ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [2, 3, 7, 20, 100, 333])
def test_spans_are_as_many_and_as_long_as_published(length: int):
    """15 % of the tokens, in spans of 3 on the average; the first token stays, and the last is taken."""
    taken = noise(length, density=0.15, mean_span=3.0, generator=np.random.RandomState(length))
    assert taken.sum() == min(max(round(length * 0.15), 1), length - 1)
    begins = int((taken[1:] & ~taken[:-1]).sum())
    assert begins == min(max(round(taken.sum() / 3), 1), length - int(taken.sum()))
    assert not taken[0]
    assert taken[-1]


def test_a_text_can_be_put_together_again():
    """Each sentinel stands once in what is read and once in the answer, in order, and stands for what was taken."""
    trial = open_node(SpanCorruption, {"first_sentinel": 500})
    tokens = torch.tensor([[*range(10, 50), 1], [*range(60, 70), 1, *[0] * 30]])
    found = trial.loaded.call(tokens, tokens != 0)
    for row in range(2):
        read = found["ids"][row][found["mask"][row]].tolist()
        answer = found["answer_ids"][row][found["answer_mask"][row]].tolist()
        assert read[-1] == answer[-1] == 1
        spans: dict[int, list[int]] = {}
        for token in answer[:-1]:
            if token > 400:
                current = spans.setdefault(token, [])
            else:
                current.append(token)
        assert list(spans) == [500 - at for at in range(len(spans))]
        whole = [part for token in read[:-1] for part in spans.get(token, [token])]
        assert whole == [token for token in tokens[row].tolist() if token > 1]


def test_spans_follow_from_the_seed_and_the_text(home: tuple[Path, Reference]):
    """The same seed gives the same spans, another seed others; sentinels are those of the tokenizer."""
    text_ = "the quick brown fox jumps over the lazy dog, and the dog does not even look up"
    graph = mg.load("pali/spans", params={"checkpoint": str(home[0])})
    drawn = []
    for seed in (1, 1, 2):
        with mg.open(graph, seed=seed) as pipeline:
            drawn.append(pipeline.run(text=text_)["ids"].flatten().tolist())
    assert drawn[0] == drawn[1] != drawn[2]
    assert home[1].tokenizer.convert_tokens_to_ids("<extra_id_0>") in drawn[0]


@pytest.mark.parametrize(
    ("tokens", "config", "told"),
    [
        ([7, 1], {}, "record 0 has 1 tokens; wanted at least 2, one to take and one to keep"),
        ([*range(5, 60)], {"sentinels": 1}, "record 0 has 3 spans, and there are 1 sentinels"),
    ],
)
def test_texts_without_room_for_spans_are_refused(tokens: list[int], config: dict[str, int], told: str):
    with pytest.raises(mg.InputError, match=told):
        open_node(SpanCorruption, {"first_sentinel": 500, **config}).loaded.call(torch.tensor([tokens]))


# -- parts ---------------------------------------------------------------------------------------------------------------------


def test_parts_keep_their_declarations():
    conform(
        MemoryConfig,
        {},
        mask=torch.tensor([[True, True, False], [True, True, True]]),
        text=torch.randn(2, 3, 5),
        image=torch.randn(2, 4, 5),
    )
    conform(TaskConfig, {"task": "vqa", "answers": True})
    conform(SpanCorruption, {"first_sentinel": 500}, ids=torch.randint(5, 90, (2, 11)), mask=torch.ones(2, 11, dtype=torch.bool))


@pytest.mark.parametrize("graph", ["pali/caption", "pali/ocr", "pali/vqa", "pali/detect"])
def test_a_photograph_goes_through_the_tasks(graph: str, home: tuple[Path, Reference]):
    """With random weights, for nobody has published others."""
    data = pytest.importorskip("skimage.data", reason="the photographs ship with scikit-image")
    more = {"pali/vqa": {"question": "who is it?"}, "pali/detect": {"objects": ["face", "flag"]}}.get(graph, {})
    with mg.open(graph, params={"checkpoint": str(home[0]), "max_new_tokens": 4}) as pipeline:
        found = pipeline.run(image=Image.fromarray(data.astronaut()), **more)
    assert isinstance(found["text"], str)
    assert "boxes" not in found.outputs or isinstance(found["boxes"], list)


@pytest.mark.whole(
    "tests/graphs/test_onnx_graphs.py::test_a_graph_answers_on_onnx_as_on_torch",
    "tests/plugins/test_llm_onnx.py::test_an_encoder_decoder_keeps_the_keys_of_its_memory",
)
@pytest.mark.slow
@pytest.mark.parametrize("graph", READINGS)
def test_both_readings_answer_on_onnx_as_on_torch(graph: str, home: tuple[Path, Reference]):
    ours, theirs = (answers(graph, home[0], PROMPTS, backend=backend) for backend in ("onnx", "torch"))
    torch.testing.assert_close(ours["llm.logits"], theirs["llm.logits"], rtol=0.0, atol=1e-4)
    assert torch.equal(ours["llm.ids"], theirs["llm.ids"])
