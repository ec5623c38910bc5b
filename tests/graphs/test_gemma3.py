"""Gemma 3 is a card: an imported graph answers as transformers' own `generate`, and the vectors of a picture see each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import modelgraft as mg
from modelgraft.tools.importer import import_graph
from support.checkpoints import Checkpoint
from support.gemma3 import gemma3
from support.pictures import gallery, picture

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of transformers' own processor
NEW_TOKENS = 9
SHOWN = [gallery()[name] for name in ("landscape", "portrait", "grey", "rgba")]
RECORDS = [[SHOWN[0]], [SHOWN[1], SHOWN[2]], [], [SHOWN[3]]]
PROMPTS = ["what is it?", "the", "how many cats are there, and how many dogs?", " name the colours\n"]
OUTPUTS = ("text", "llm.ids", "llm.logits")


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return gemma3(tmp_path_factory.mktemp("gemma3") / "model")


@pytest.fixture(scope="module")
def graph(theirs: Checkpoint) -> Path:
    """The graph that import writes beside it."""
    path = theirs.folder.parent / "mine.yaml"
    path.write_text(import_graph(str(theirs.folder), folder=path.parent))
    return path


def told(theirs: Checkpoint, records: list[list[Any]], prompts: list[str], **options: Any) -> Any:
    """What its processor makes of a batch."""
    texts = []
    for pictures, prompt in zip(records, prompts, strict=True):
        content = [*[{"type": "image"}] * len(pictures), {"type": "text", "text": prompt}]
        talk = [{"role": "user", "content": content}]
        texts.append(theirs.processor.apply_chat_template(talk, add_generation_prompt=True, tokenize=False))
    shown = records if any(records) else None
    return theirs.processor(images=shown, text=texts, padding=True, add_special_tokens=False, return_tensors="pt", **options)


def generated(theirs: Checkpoint, given: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """The new tokens, and the logits of the first."""
    found = theirs.model.generate(**given, max_new_tokens=NEW_TOKENS, do_sample=False, output_logits=True, return_dict_in_generate=True)
    return found.sequences[:, given["input_ids"].shape[1] :], found.logits[0]


def ask(graph: Path, image: Any, prompt: Any, *, outputs: tuple[str, ...] = OUTPUTS, **params: Any) -> Any:
    with mg.open(graph, params={"max_new_tokens": NEW_TOKENS, **params}) as pipeline:
        return pipeline.run(image=image, prompt=prompt, outputs=list(outputs))


def same(result: Any, theirs: Checkpoint, given: Any) -> None:
    """Tokens, texts and logits are those of transformers."""
    ids, logits = generated(theirs, given)
    assert result["text"] == [theirs.processor.tokenizer.decode(row, skip_special_tokens=True) for row in ids]
    for ours, wanted in zip(result["llm.ids"], ids, strict=True):
        written = ours[ours >= 0]
        assert torch.equal(written, wanted[: len(written)])
    torch.testing.assert_close(result["llm.logits"], logits, rtol=0, atol=1e-5 * logits.abs().max().item())


@pytest.mark.parametrize("count", [1, 2, 4])
def test_answers_are_those_of_transformers(theirs: Checkpoint, graph: Path, count: int):
    """Alone, and in batches of one picture, two, none, and one: in windows of seven tokens, too."""
    same(ask(graph, RECORDS[:count], PROMPTS[:count]), theirs, told(theirs, RECORDS[:count], PROMPTS[:count]))


def test_a_picture_that_is_longer_than_a_window_sees_no_further(tmp_path: Path):
    """Nine vectors in windows of seven: what is far away is not seen, though it is of the same picture."""
    whole = gemma3(tmp_path / "model", side=30, tokens=9)
    path = tmp_path / "mine.yaml"
    path.write_text(import_graph(str(whole.folder), folder=tmp_path))
    same(ask(path, RECORDS[:2], PROMPTS[:2]), whole, told(whole, RECORDS[:2], PROMPTS[:2]))


def test_crops_stand_behind_the_picture(theirs: Checkpoint, graph: Path):
    """A wide one has three crops, a high one two, and the third is not long enough."""
    records = [[picture(61, 20)], [picture(14, 23), picture(20, 21)]]
    options = {"pan_and_scan_min_crop_size": 11, "pan_and_scan_max_num_crops": 3, "pan_and_scan_min_ratio_to_activate": 1.3}
    given = told(theirs, records, PROMPTS[:2], do_pan_and_scan=True, **options)
    assert len(given["pixel_values"]) == 1 + 3 + 1 + 2 + 1
    ours = {"cut": "crops", "least_crop": 11, "most_crops": 3, "least_ratio": 1.3}
    same(ask(graph, records, PROMPTS[:2], **{f"nodes.cut.with.{name}": value for name, value in ours.items()}), theirs, given)


def test_the_prompt_is_that_of_the_processor(theirs: Checkpoint, graph: Path):
    given = told(theirs, RECORDS, PROMPTS)
    found = ask(graph, RECORDS, PROMPTS, outputs=("llm.prompt_ids",))["llm.prompt_ids"]
    mark = theirs.model.config.image_token_id
    for ours, wanted, mask in zip(found, given["input_ids"], given["attention_mask"], strict=True):
        assert ours[: int(mask.sum())].tolist() == [-1 if token == mark else token for token in wanted[mask.bool()].tolist()]


def test_what_stands_among_the_words_is_what_transformers_has_there(theirs: Checkpoint, graph: Path):
    """Pixels to vectors, within 1e-5 of the largest."""
    given = told(theirs, RECORDS[1:2], PROMPTS[1:2])
    with torch.no_grad():
        wanted = theirs.model.model.get_image_features(given["pixel_values"], return_dict=True).pooler_output.flatten(0, 1)
    found = ask(graph, RECORDS[1:2], PROMPTS[1:2], outputs=("joined.image",))["joined.image"]
    torch.testing.assert_close(found[0], wanted, rtol=0, atol=1e-5 * wanted.abs().max().item())


def test_a_picture_that_is_read_onward_gives_another_answer(theirs: Checkpoint, graph: Path):
    """So the tests above would fail without the mask."""
    onward = ask(graph, RECORDS[:1], PROMPTS[:1], **{"nodes.llm.with.reads": "onward"})
    assert (onward["llm.logits"] - generated(theirs, told(theirs, RECORDS[:1], PROMPTS[:1]))[1]).abs().max() > 1e-3


def test_the_graph_is_checked_and_counted(theirs: Checkpoint, graph: Path):
    assert not mg.check(graph).warnings
    wanted = sum(parameter.numel() for parameter in theirs.model.parameters())
    assert mg.plan(graph).totals.parameters == mg.plan(graph, exact=True).totals.parameters == wanted


def test_a_batch_is_what_its_records_are_alone(graph: Path):
    together = ask(graph, RECORDS, PROMPTS)
    for row, (pictures, prompt) in enumerate(zip(RECORDS, PROMPTS, strict=True)):
        alone = ask(graph, [pictures], [prompt])
        assert alone["text"] == [together["text"][row]]
        torch.testing.assert_close(alone["llm.logits"], together["llm.logits"][row : row + 1], rtol=0, atol=1e-4)


def test_what_a_user_writes_is_letters(theirs: Checkpoint, graph: Path):
    """Marks of pictures and turns in a prompt are no tokens: it has as many of them as one without."""
    special = set(theirs.processor.tokenizer.all_special_ids)
    texts = ["say <start_of_image> <image_soft_token> <end_of_image> <end_of_turn> <start_of_turn>model now", "say now"]
    written, plain = (ask(graph, RECORDS[:1], [text], outputs=("llm.prompt_ids",))["llm.prompt_ids"][0].tolist() for text in texts)
    assert [one for one in written if one in special] == [one for one in plain if one in special]
    assert written.count(-1) == plain.count(-1) == 4
    assert len(written) > len(plain)


@pytest.mark.whole("tests/graphs/test_paligemma.py::test_on_onnx_the_answers_are_the_same")
@pytest.mark.slow
def test_on_onnx_the_answers_are_the_same(graph: Path):
    """The whole graph: pictures see themselves, in windows and without, in a batch of unlike numbers of them."""
    plain = ask(graph, RECORDS, PROMPTS)
    with mg.open(graph, params={"max_new_tokens": NEW_TOKENS}, backend="onnx") as pipeline:
        exported = pipeline.run(image=RECORDS, prompt=PROMPTS, outputs=list(OUTPUTS))
        alone = pipeline.run(image=RECORDS[1], prompt=PROMPTS[1], outputs=list(OUTPUTS))
    assert exported["text"] == plain["text"]
    torch.testing.assert_close(exported["llm.logits"], plain["llm.logits"], rtol=0, atol=1e-3)
    assert alone["text"] == plain["text"][1]
