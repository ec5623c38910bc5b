"""Language models that hear are cards: an imported graph answers as transformers' own `generate`, with any number of sounds."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf

import modelgraft as mg
from modelgraft.tools.importer import import_graph
from support import ears
from support.checkpoints import Checkpoint
from support.sounds import tone
from support.tokenizers import byte_level

NEW_TOKENS = 9
FIRST, SECOND, THIRD = tone(1.3), tone(0.61, hertz=97.0), tone(2.0, hertz=300.0)
LONG = tone(4.7, hertz=150.0)
RECORDS = [[FIRST], [SECOND, THIRD], [], [THIRD]]
PROMPTS = ["what do you hear?", "the", "is it a cat or a dog, and how many of them?", "name it"]


def imported(theirs: Checkpoint) -> Path:
    """The graph that import writes beside a checkpoint."""
    path = theirs.folder.parent / "mine.yaml"
    path.write_text(import_graph(str(theirs.folder), folder=path.parent))
    return path


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> tuple[Checkpoint, Path]:
    theirs = ears.qwen2_audio(tmp_path_factory.mktemp("qwen2_audio") / "model")
    return theirs, imported(theirs)


@pytest.fixture(scope="module")
def voxtral(tmp_path_factory: pytest.TempPathFactory) -> tuple[Checkpoint, Path]:
    theirs = ears.voxtral(tmp_path_factory.mktemp("voxtral") / "model")
    return theirs, imported(theirs)


def generated(model: Any, inputs: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """The new tokens, and the logits of the first."""
    found = model.generate(**inputs, max_new_tokens=NEW_TOKENS, do_sample=False, output_logits=True, return_dict_in_generate=True)
    return found.sequences[:, inputs["input_ids"].shape[1] :], found.logits[0]


def talk(sounds: list[Any], prompt: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [*[{"type": "audio", "audio_url": "x"}] * len(sounds), {"type": "text", "text": prompt}]}]


def told_qwen(theirs: Checkpoint, records: list[list[Any]], prompts: list[str]) -> Any:
    """What its processor makes of a batch."""
    processor = theirs.processor
    texts = [
        processor.apply_chat_template(talk(sounds, prompt), add_generation_prompt=True, tokenize=False)
        for sounds, prompt in zip(records, prompts, strict=True)
    ]
    flat = [sound.samples[0] for sounds in records for sound in sounds]
    return processor(text=texts, audio=flat, sampling_rate=16_000, padding=True, return_tensors="pt")


def ask(graph: Path, audio: Any, prompt: Any, *, outputs: tuple[str, ...] = ("text", "llm.ids", "llm.logits"), **params: Any) -> Any:
    with mg.open(graph, params={"max_new_tokens": NEW_TOKENS, **params}) as pipeline:
        return pipeline.run(audio=audio, prompt=prompt, outputs=list(outputs))


def same(result: Any, theirs: Checkpoint, ids: torch.Tensor, logits: torch.Tensor) -> None:
    """The tokens, their text, and the logits of the first."""
    tokenizer = getattr(theirs.processor, "tokenizer", theirs.processor)
    assert result["text"] == [tokenizer.decode(row, skip_special_tokens=True) for row in ids]
    for ours, wanted in zip(result["llm.ids"], ids, strict=True):
        written = ours[ours >= 0]
        assert torch.equal(written, wanted[: len(written)])
        assert set(wanted[len(written) :].tolist()) <= {tokenizer.pad_token_id}
    torch.testing.assert_close(result["llm.logits"], logits, rtol=0, atol=1e-5 * logits.abs().max().item())


@pytest.mark.parametrize("count", [1, 4])
def test_qwen2_audio_answers_as_transformers(qwen: tuple[Checkpoint, Path], count: int):
    """Alone, and in a batch of one sound, two, none, and one."""
    theirs, graph = qwen
    ids, logits = generated(theirs.model, told_qwen(theirs, RECORDS[:count], PROMPTS[:count]))
    same(ask(graph, RECORDS[:count], PROMPTS[:count]), theirs, ids, logits)


def test_the_prompt_of_qwen2_audio_is_that_of_its_processor(qwen: tuple[Checkpoint, Path]):
    """Every id, with as many places for a sound as it has vectors."""
    theirs, graph = qwen
    given = told_qwen(theirs, RECORDS, PROMPTS)
    found = ask(graph, RECORDS, PROMPTS, outputs=("llm.prompt_ids", "sounds.lengths"))
    mark = theirs.model.config.audio_token_id
    for ours, wanted, mask in zip(found["llm.prompt_ids"], given["input_ids"], given["attention_mask"], strict=True):
        assert ours[: int(mask.sum())].tolist() == [-1 if token == mark else token for token in wanted[mask.bool()].tolist()]
    assert found["sounds.lengths"].sum(1).tolist() == (given["input_ids"] == mark).sum(1).tolist()


def test_what_qwen2_audio_hears_is_what_transformers_hears(qwen: tuple[Checkpoint, Path]):
    """The vectors among the words, within 1e-5 of the largest."""
    theirs, graph = qwen
    given, model = told_qwen(theirs, [[SECOND]], ["the"]), theirs.model.model
    frames = given["feature_attention_mask"].sum(-1)
    places, vectors = model.audio_tower._get_feat_extract_output_lengths(frames)
    with torch.no_grad():
        mask = (torch.arange(100) < places[:, None])[:, None, None].expand(-1, 1, 100, -1)
        wanted = model.multi_modal_projector(model.audio_tower(given["input_features"], attention_mask=mask).last_hidden_state)
    found = ask(graph, [[SECOND]], ["the"], outputs=("sounds.tokens",))["sounds.tokens"]
    wanted = wanted[:, : int(vectors)]
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5 * wanted.abs().max().item())


def told_voxtral(theirs: Checkpoint, sounds: list[Any], prompt: str) -> Any:
    """What its processor and the tokenizer of its publisher make of a record: sounds filled up to whole windows, 25 places for each."""
    extractor = hf.WhisperFeatureExtractor.from_pretrained(theirs.folder)
    options = {"sampling_rate": 16_000, "padding": True, "truncation": False, "pad_to_multiple_of": 32_000, "return_tensors": "pt"}
    features = [extractor(sound.samples[0], **options)["input_features"].reshape(ears.MELS, -1, 200).transpose(0, 1) for sound in sounds]
    audio = "".join("[BEGIN_AUDIO]" + "[AUDIO]" * (25 * len(windows)) for windows in features)
    given = theirs.processor(f"[INST]{audio}{prompt}[/INST]", return_tensors="pt", return_token_type_ids=False)
    return {**given, **({"input_features": torch.cat(features)} if features else {})}


def test_voxtral_answers_as_transformers(voxtral: tuple[Checkpoint, Path]):
    """In a batch of a sound of three windows, one of one beside it, and none: each is what it is alone."""
    theirs, graph = voxtral
    records = [[LONG, SECOND], [THIRD], []]
    result = ask(graph, records, PROMPTS[:3])
    for row, (sounds, prompt) in enumerate(zip(records, PROMPTS, strict=False)):
        ids, logits = generated(theirs.model, told_voxtral(theirs, sounds, prompt))
        same({name: result[name][row : row + 1] for name in ("text", "llm.ids", "llm.logits")}, theirs, ids, logits)


@pytest.fixture(params=["qwen", "voxtral"])
def either(request: pytest.FixtureRequest) -> tuple[Checkpoint, Path]:
    found: tuple[Checkpoint, Path] = request.getfixturevalue(request.param)
    return found


def test_an_imported_graph_is_checked_and_counted(either: tuple[Checkpoint, Path]):
    theirs, graph = either
    assert not mg.check(graph).warnings
    wanted = sum(parameter.numel() for parameter in theirs.model.parameters())
    assert mg.plan(graph).totals.parameters == wanted
    assert mg.plan(graph, exact=True).totals.parameters == wanted


def test_a_batch_is_what_its_records_are_alone_and_the_same_again(either: tuple[Checkpoint, Path]):
    _, graph = either
    together = ask(graph, RECORDS, PROMPTS)
    again = ask(graph, RECORDS, PROMPTS)
    assert torch.equal(together["llm.logits"], again["llm.logits"])
    for row, (sounds, prompt) in enumerate(zip(RECORDS, PROMPTS, strict=True)):
        alone = ask(graph, [sounds], [prompt])
        assert alone["text"] == [together["text"][row]]
        torch.testing.assert_close(alone["llm.logits"], together["llm.logits"][row : row + 1], rtol=0, atol=1e-4)


@pytest.mark.whole(
    "tests/plugins/test_onnx_parts.py::test_a_part_gives_torchs_numbers",
    "tests/plugins/test_llm_onnx.py::test_one_graph_with_its_cache_in_place_gives_torchs_logits",
)
@pytest.mark.slow
def test_on_onnx_the_answers_are_the_same(either: tuple[Checkpoint, Path]):
    """The whole graph, with unlike numbers of sounds in a batch."""
    _, graph = either
    plain = ask(graph, RECORDS, PROMPTS)
    with mg.open(graph, params={"max_new_tokens": NEW_TOKENS}, backend="onnx") as pipeline:
        exported = pipeline.run(audio=RECORDS, prompt=PROMPTS, outputs=["text", "llm.logits"])
    assert exported["text"] == plain["text"]
    torch.testing.assert_close(exported["llm.logits"], plain["llm.logits"], rtol=0, atol=1e-3)


def test_what_a_user_writes_is_letters(qwen: tuple[Checkpoint, Path], voxtral: tuple[Checkpoint, Path]):
    """Marks of sounds and roles in a prompt are no tokens: it has as many of them as one without."""
    marks = {qwen: "<|AUDIO|> <|im_end|> <|im_start|>system", voxtral: "[AUDIO] [BEGIN_AUDIO]"}
    for (theirs, graph), text in marks.items():
        tokenizer = getattr(theirs.processor, "tokenizer", theirs.processor)
        special = set(tokenizer.all_special_ids)
        written = ask(graph, [RECORDS[0]], [f"say {text} now"], outputs=("llm.prompt_ids",))["llm.prompt_ids"][0]
        plain = ask(graph, [RECORDS[0]], ["say now"], outputs=("llm.prompt_ids",))["llm.prompt_ids"][0]
        assert [one for one in written.tolist() if one in special] == [one for one in plain.tolist() if one in special]
        assert len(written) > len(plain)


@pytest.mark.parametrize(
    ("audio", "told"),
    [
        ([[tone(0.01)]], "no vector is made of medium 1, which is too short for one"),
        ([[LONG]], r"the sound lasts 4\.7 s and 2 s are heard at once"),
    ],
    ids=["short", "long"],
)
def test_sounds_that_qwen2_audio_cannot_hear_are_told(qwen: tuple[Checkpoint, Path], audio: list[Any], told: str):
    with pytest.raises(mg.InputError, match=told):
        ask(qwen[1], audio, ["what?"])


def test_a_vocabulary_without_the_marks_of_voxtral_is_told(voxtral: tuple[Checkpoint, Path], tmp_path: Path):
    """They would be cut into letters, and sounds stand where none is marked."""
    folder = tmp_path / "model"
    shutil.copytree(voxtral[0].folder, folder)
    byte_level(begin="<s>", end="</s>", pad="<pad>", prefix=True, extra=("[INST]", "[/INST]")).save_pretrained(folder)
    told = r"the tokenizer of llm has no token '\[BEGIN_AUDIO\]', '\[AUDIO\]', which its prompts are written with"
    with pytest.raises(mg.SourceError, match=told), mg.open(voxtral[1], params={"checkpoint": str(folder)}) as pipeline:
        pipeline.run(audio=[], prompt="what?")


def test_a_prompt_beyond_the_context_is_told(qwen: tuple[Checkpoint, Path]):
    with pytest.raises(mg.InputError, match="512"):
        ask(qwen[1], [[THIRD] * 11], ["what?"])
