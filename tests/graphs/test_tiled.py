"""Models that cut pictures into tiles are cards: an imported graph answers as transformers' own processor and `generate`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import modelgraft as mg
from modelgraft.tools.importer import import_graph
from support import tiled
from support.checkpoints import Checkpoint
from support.pictures import gallery, picture

NEW_TOKENS = 9
GALLERY = gallery()
# pictures and a question each: of odd sizes, unlike in number, so that a batch is padded
ASKED: list[tuple[list[Any], str]] = [
    ([GALLERY["landscape"]], "what do you see?"),
    ([GALLERY["portrait"], GALLERY["rgba"], GALLERY["tiny"]], "the quick brown fox and the colours"),
    ([GALLERY["grey"]], "cats"),
    ([picture(97, 41, seed=12), GALLERY["palette"]], "a dog; a cat"),
]


@pytest.fixture(scope="module", params=tiled.MODELS)
def theirs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return tiled.MODELS[request.param](tmp_path_factory.mktemp(request.param) / "model")


@pytest.fixture(scope="module")
def graph(theirs: Checkpoint) -> Path:
    """The graph that import writes beside it."""
    path = theirs.folder.parent / "mine.yaml"
    path.write_text(import_graph(str(theirs.folder), folder=path.parent))
    return path


def answers(theirs: Checkpoint, asked: list[tuple[list[Any], str]]) -> tuple[list[str], torch.Tensor, list[list[int]]]:
    """The new texts, the logits of the first new token, and the prompts' tokens, of transformers' processor and `generate`."""
    tokenizer = theirs.processor.tokenizer
    talks = [
        [{"role": "user", "content": [*[{"type": "image"}] * len(pictures), {"type": "text", "text": text}]}] for pictures, text in asked
    ]
    texts = [tokenizer.apply_chat_template(talk, add_generation_prompt=True, tokenize=False) for talk in talks]
    given = [pictures for pictures, _ in asked]
    inputs = theirs.processor(images=given, text=texts, padding=True, return_tensors="pt", add_special_tokens=False)
    found = theirs.model.generate(**inputs, max_new_tokens=NEW_TOKENS, do_sample=False, output_logits=True, return_dict_in_generate=True)
    new = found.sequences[:, inputs["input_ids"].shape[1] :]
    prompts = [ids[mask.bool()].tolist() for ids, mask in zip(inputs["input_ids"], inputs["attention_mask"], strict=True)]
    return [tokenizer.decode(row, skip_special_tokens=True) for row in new], found.logits[0], prompts


def ask(graph: Path, asked: list[tuple[list[Any], str]], *, outputs: list[str], **settings: Any) -> Any:
    with mg.open(graph, params={"max_new_tokens": NEW_TOKENS}, **settings) as pipeline:
        return pipeline.run(image=[pictures for pictures, _ in asked], prompt=[text for _, text in asked], outputs=outputs)


@pytest.mark.parametrize("count", [1, 4])
def test_answers_are_those_of_transformers(theirs: Checkpoint, graph: Path, count: int):
    """Alone, and in a batch of unlike numbers of pictures and tiles; the tokens of the prompt too."""
    texts, logits, prompts = answers(theirs, ASKED[:count])
    result = ask(graph, ASKED[:count], outputs=["text", "llm.logits", "llm.prompt_ids"])
    assert result["text"] == texts
    torch.testing.assert_close(result["llm.logits"], logits, rtol=0, atol=2e-4)
    token = theirs.model.config.image_token_id
    for given, wanted in zip(result["llm.prompt_ids"].tolist(), prompts, strict=True):
        assert given[: len(wanted)] == [-1 if one == token else one for one in wanted]


def test_the_graph_is_checked_and_planned_without_warnings(theirs: Checkpoint, graph: Path):
    assert not mg.check(graph).warnings
    assert mg.plan(graph).totals.parameters == sum(parameter.numel() for parameter in theirs.model.parameters())


@pytest.mark.whole(
    "tests/plugins/test_onnx_parts.py::test_a_part_gives_torchs_numbers",
    "tests/plugins/test_llm_onnx.py::test_one_graph_with_its_cache_in_place_gives_torchs_logits",
)
@pytest.mark.slow
def test_onnx_answers_as_torch_does(theirs: Checkpoint, graph: Path):
    """Any number of tiles through one segment of eye and projector; what cuts and lays out is code on both."""
    torch_, onnx = (ask(graph, ASKED, outputs=["text", "llm.logits"], backend=backend) for backend in ("torch", "onnx"))
    assert onnx["text"] == torch_["text"]
    torch.testing.assert_close(onnx["llm.logits"], torch_["llm.logits"], rtol=0, atol=1e-4)


def test_records_may_show_no_picture(theirs: Checkpoint, graph: Path):
    """In a batch with others, and alone: then the eye is not asked at all."""
    asked = [([], "the quick brown fox"), ASKED[0]]
    texts = [answers(theirs, [ASKED[0]])[0][0]]
    together, alone = (ask(graph, some, outputs=["text"])["text"] for some in (asked, asked[:1]))
    assert together == [*alone, *texts]


def test_a_conversation_shows_its_pictures_where_it_says_so(theirs: Checkpoint, graph: Path):
    """Among the words of several turns, as the chat template of the checkpoint writes them."""
    shown: dict[str, Any] = {"type": "image"}
    talk = [
        {"role": "user", "content": [{"type": "text", "text": "look:"}, shown, {"type": "text", "text": "what?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "a cat"}]},
        {"role": "user", "content": [{"type": "text", "text": "and here"}, shown]},
    ]
    pictures = [GALLERY["landscape"], GALLERY["portrait"]]
    text = theirs.processor.tokenizer.apply_chat_template(talk, add_generation_prompt=True, tokenize=False)
    inputs = theirs.processor(images=[pictures], text=[text], return_tensors="pt", add_special_tokens=False)
    found = theirs.model.generate(**inputs, max_new_tokens=NEW_TOKENS, do_sample=False)[:, inputs["input_ids"].shape[1] :]
    said = graph.with_name("talk.yaml")
    said.write_text(graph.read_text().replace("prompt: {type: text,", "prompt: {type: conversation,"))
    with mg.open(said, params={"max_new_tokens": NEW_TOKENS}) as pipeline:
        held = [
            {**turn, "content": [{**part, "image": GALLERY["tiny"]} if part is shown else part for part in turn["content"]]}
            for turn in talk
        ]
        given = pipeline.run(image=pictures, prompt=held, outputs=["text"])
    assert given["text"] == theirs.processor.tokenizer.decode(found[0], skip_special_tokens=True)


def test_a_placeholder_in_what_a_user_says_brings_no_picture(theirs: Checkpoint, graph: Path):
    """More of them than pictures are refused; where there is none they are words."""
    token = theirs.processor.tokenizer.convert_ids_to_tokens(theirs.model.config.image_token_id)
    with pytest.raises(mg.InputError, match=r"the prompt has 2 places for media .*1 medium is given"):
        ask(graph, [([GALLERY["landscape"]], f"what is {token} and {token} here?")], outputs=["text"])
    ids = ask(graph, [([], f"what is {token} here?")], outputs=["llm.prompt_ids"])["llm.prompt_ids"][0]
    assert -1 not in ids.tolist()


def test_a_prompt_beyond_the_context_is_refused(theirs: Checkpoint, graph: Path):
    """With the number of its places, which the tiles decide."""
    many = [picture(29, 31, seed=number) for number in range(110)]
    with pytest.raises(mg.InputError, match=r"positions"):
        ask(graph, [(many, "so many?")], outputs=["text"])
