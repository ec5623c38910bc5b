"""A tokenizer that is kept does what the one of transformers does, and is never believed when anything has changed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import transformers as hf
from tokenizers import Tokenizer, pre_tokenizers

from modelgraft.sources import kept, seals
from modelgraft_plugins import kept_tokenizers
from modelgraft_plugins.formats import bpe
from modelgraft_plugins.kept_tokenizers import Kept, filling_of, open_tokenizer, rows_of
from support import checkpoints
from support.tokenizers import clip_bpe, word_piece

TEXTS = (
    "",
    "a",
    "A photo of a cat, isn't it?",
    "Question: how many?\n\nAnswer:",
    "<s>said</s> <image> <pad>",
    "  spaces \t and tabs  ",
    "žluťoučký kůň 漢字 🙂",
)
MAKERS = {
    "opt": checkpoints.opt_tokenizer,
    "llama": checkpoints.llama_tokenizer,
    "qwen2": checkpoints.qwen2_tokenizer,
    "t5": checkpoints.t5_tokenizer,
    "bert": word_piece,
}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own for each test."""
    monkeypatch.setenv("MODELGRAFT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tokenizers"


def saved(folder: Path, tokenizer: Any) -> Path:
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("name", MAKERS)
def test_a_kept_tokenizer_gives_the_ids_and_texts_of_transformers(name: str, tmp_path: Path):
    """Ids with and without special tokens, texts with and without them, tokens by name, what is added."""
    folder = saved(tmp_path / "files", MAKERS[name]())
    first, kept = open_tokenizer(folder), open_tokenizer(folder)
    theirs = hf.AutoTokenizer.from_pretrained(folder)
    assert isinstance(first, hf.PreTrainedTokenizerFast)
    assert isinstance(kept, Kept)
    for text in TEXTS:
        for special in (True, False):
            ids = theirs(text, add_special_tokens=special).input_ids
            assert kept(text, add_special_tokens=special).input_ids == ids
            for skip in (True, False):
                assert kept.decode(ids, skip_special_tokens=skip) == theirs.decode(ids, skip_special_tokens=skip)
    assert dict(kept.added_tokens_encoder) == theirs.added_tokens_encoder
    for token in (*theirs.added_tokens_encoder, "a", "no such token"):
        assert kept.convert_tokens_to_ids(token) == theirs.convert_tokens_to_ids(token)
    assert (kept.unk_token, kept.unk_token_id, kept.special_tokens_map) == (
        theirs.unk_token,
        theirs.unk_token_id,
        theirs.special_tokens_map,
    )


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("kind", ["llama", "qwen2", "bert", "t5", "mistral", "none-that-is-known"])
def test_a_class_that_the_files_name_is_that_of_transformers_whatever_the_model(name: str, kind: str, tmp_path: Path):
    """The type of the model alone is read for it: with the whole config transformers makes the same of the same files."""
    folder = saved(tmp_path / "files", MAKERS[name]())
    (folder / "config.json").write_text(json.dumps({"model_type": kind, "vocab_size": 99, "tokenizer_class": "OtherTokenizer"}))
    ours, theirs = kept_tokenizers._from_files(folder), hf.AutoTokenizer.from_pretrained(folder)
    assert kept_tokenizers._plain_config(folder) is not None
    assert (type(ours), ours.special_tokens_map) == (type(theirs), theirs.special_tokens_map)
    assert ours.backend_tokenizer.to_str() == theirs.backend_tokenizer.to_str()


def test_a_class_that_the_files_do_not_name_is_asked_of_the_whole_config(tmp_path: Path):
    """Nor is one whose code lies beside it, nor one of a model without a type."""
    folder = saved(tmp_path / "files", MAKERS["llama"]())
    own = json.loads((folder / "tokenizer_config.json").read_text())
    for named, model in (({"tokenizer_class": None}, "llama"), ({"auto_map": {"AutoTokenizer": "a.B"}}, "llama"), ({}, None)):
        (folder / "config.json").write_text(json.dumps({"model_type": model}))
        (folder / "tokenizer_config.json").write_text(json.dumps({**own, **named}))
        assert kept_tokenizers._plain_config(folder) is None


def test_the_tokenizer_of_a_llama_is_built_without_the_compiler_of_torch(tmp_path: Path):
    """Which takes longer than all else; a config of its class imports it."""
    folder = saved(tmp_path / "files", MAKERS["llama"]())
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    program = """
import sys
from pathlib import Path
from modelgraft_plugins.kept_tokenizers import open_tokenizer
open_tokenizer(Path(sys.argv[1]))
print("transformers" in sys.modules, "torch._dynamo" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program, str(folder)], capture_output=True, text=True, check=True, timeout=120)
    assert (done.stdout.split(), done.stderr) == (["True", "False"], "")


def as_read_from_gguf(folder: Path, *, split: str, first: int | None, kind: str = "llama", **settings: Any) -> Path:
    """The files of a small byte-level BPE, as our reader of GGUF writes them."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = ["<|end|>", "<|start|>", "<user>", *letters, "ab", "\u0120a", "abc"]
    written = bpe.tokenizer_json(tokens, ["a b", "\u0120 a", "ab c"], split=split, special=[0, 1], added=[2], first=first)
    own = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False, "model_max_length": 64}
    named = {"bos_token": "<|start|>", "eos_token": "<|end|>", "pad_token": "<|end|>", "unk_token": "<|end|>"}
    folder.mkdir()
    for name, content in (("tokenizer", written), ("tokenizer_config", {**own, **named, **settings}), ("config", {"model_type": kind})):
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


@pytest.mark.parametrize(("split", "first"), [("smollm", None), ("gpt-2", 1), ("llama-bpe", 1), ("qwen2", None)])
def test_files_that_ask_for_no_rule_are_opened_as_transformers_opens_them(split: str, first: int | None, tmp_path: Path):
    """Byte for byte the tokenizer inside, and all that is read of it beside."""
    folder = as_read_from_gguf(tmp_path / "files", split=split, first=first)
    ours, theirs = open_tokenizer(folder), hf.AutoTokenizer.from_pretrained(folder)
    assert isinstance(ours, Kept)
    assert ours.to_text() == theirs.backend_tokenizer.to_str()
    assert list(ours.added_tokens_encoder.items()) == list(theirs.added_tokens_encoder.items())
    assert list(ours.special_tokens_map.items()) == list(theirs.special_tokens_map.items())
    assert (ours.unk_token, ours.unk_token_id) == (theirs.unk_token, theirs.unk_token_id)
    assert filling_of(ours) == filling_of(theirs)
    assert kept_tokenizers._reads_alike(theirs, ours)
    assert kept_tokenizers._writes_alike(theirs, ours)


@pytest.mark.parametrize(
    "settings",
    [
        {"eos_token": "<|another|>"}, {"add_bos_token": True}, {"tokenizer_class": "LlamaTokenizer"},
        {"clean_up_tokenization_spaces": True}, {"kind": "mistral"}, {"kind": "qwen2"}, {"pad_token": "<user>"},
    ],
)  # fmt: skip
def test_files_that_ask_for_a_rule_are_left_to_transformers(settings: dict[str, Any], tmp_path: Path):
    """A token that is added, flags, classes, models whose files it mends, and a named token that is not special until it is named."""
    folder = as_read_from_gguf(tmp_path / "files", split="smollm", first=None, **settings)
    assert isinstance(open_tokenizer(folder), hf.PreTrainedTokenizerFast)


def test_files_that_ask_for_no_rule_are_opened_without_transformers(tmp_path: Path):
    """Its import takes as long as that of torch."""
    folder = as_read_from_gguf(tmp_path / "files", split="smollm", first=None)
    program = """
import sys
from pathlib import Path
from modelgraft_plugins.kept_tokenizers import open_tokenizer
print(open_tokenizer(Path(sys.argv[1]))("ab").input_ids, "transformers" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program, str(folder)], capture_output=True, text=True, check=True, timeout=120)
    assert (done.stdout.split("]")[1].strip(), done.stderr) == ("False", "")


def test_files_that_change_give_another_tokenizer(tmp_path: Path):
    """What is kept belongs to the contents of the files, not to their place."""
    folder = saved(tmp_path / "files", checkpoints.llama_tokenizer())
    open_tokenizer(folder)
    assert isinstance(open_tokenizer(folder), Kept)
    saved(folder, checkpoints.opt_tokenizer())
    assert not isinstance(open_tokenizer(folder), Kept)
    theirs = hf.AutoTokenizer.from_pretrained(folder)
    assert open_tokenizer(folder)("a cat").input_ids == theirs("a cat").input_ids


@pytest.mark.parametrize(
    "harm",
    [
        lambda content: content[:50],
        lambda content: content.replace(b'"unk_token_id"', b'"unk_token_1d"'),
        lambda content: content[:-9] + bytes([content[-9] ^ 4]) + content[-8:],
        lambda _: b"[]",
        lambda _: seals.sealed(b"[]"),
        lambda _: seals.sealed(b'{"facts": {"added": {}, "unk_token": null, "unk_token_id": 0, "chat_template": null}, "tokenizer": "{}"}'),
        lambda _: b"\xff\x00",
    ],
    ids=["cut", "tampered", "bit", "other", "other and sealed", "no tokenizer and sealed", "no text"],
)
def test_a_kept_file_that_was_changed_is_made_again_and_said(harm: Any, tmp_path: Path, cache: Path):
    """Cut, tampered with, or something else."""
    folder = saved(tmp_path / "files", checkpoints.llama_tokenizer())
    open_tokenizer(folder)
    (path,) = cache.iterdir()
    whole = path.read_bytes()
    path.write_bytes(harm(whole))
    with kept.loading() as said:
        assert not isinstance(open_tokenizer(folder), Kept)
    assert len(said) == 1
    assert said[0].startswith(f"the tokenizer of {folder} was kept and is broken (")
    assert path.read_bytes() == whole
    with kept.loading() as said:
        assert isinstance(open_tokenizer(folder), Kept)
    assert said == []


class Shouting(hf.PreTrainedTokenizerFast):
    def _decode(self, *args: Any, **options: Any) -> str:
        return super()._decode(*args, **options).upper()


class Stuttering(hf.PreTrainedTokenizerFast):
    def _encode_plus(self, *args: Any, **options: Any) -> Any:
        return super()._encode_plus(*args, **options)


@pytest.mark.parametrize(("kind", "is_kept"), [(Shouting, True), (Stuttering, False)])
def test_a_class_that_does_more_than_the_tokenizer_inside_writes_by_itself(kind: Any, is_kept: bool, cache: Path):
    """One that changes texts alone is kept for those who cut texts into tokens; one that changes that is not kept."""
    plain = checkpoints.llama_tokenizer()
    kept_tokenizers._keep(kind(tokenizer_object=plain.backend_tokenizer, unk_token=plain.unk_token), cache / "one.json")
    assert cache.exists() == is_kept
    if is_kept:
        assert not seals.read_sealed(cache / "one.json")["facts"]["writes"]


def test_one_that_was_changed_after_it_was_built_is_kept_for_those_who_read_texts(tmp_path: Path):
    """CLIP's tokenizer decodes through a function that is put around the one inside, which a file cannot hold."""
    folder = saved(tmp_path / "files", clip_bpe())
    assert all(isinstance(open_tokenizer(folder), hf.CLIPTokenizer) for _ in range(2))
    kept = open_tokenizer(folder, writes=False)
    assert isinstance(kept, Kept)
    assert rows_of(kept, TEXTS, most=9) == hf.AutoTokenizer.from_pretrained(folder)(list(TEXTS), truncation=True, max_length=9).input_ids


def test_what_is_kept_has_a_text_for_each_merge_and_is_the_same_tokenizer(tmp_path: Path, cache: Path):
    """A text is read sooner than a pair."""
    theirs = open_tokenizer(saved(tmp_path / "files", clip_bpe()))
    (place,) = cache.glob("[!.]*.json")
    text = seals.read_sealed(place)["tokenizer"]
    merges = json.loads(text)["model"]["merges"]
    assert merges
    assert all(isinstance(merge, str) for merge in merges)
    assert json.loads(Tokenizer.from_str(text).to_str())["model"] == json.loads(theirs.backend_tokenizer.to_str())["model"]


def whisper() -> Any:
    """A byte-level BPE of Whisper's class, which knows the tokens around what was said before, and times."""
    made = hf.WhisperTokenizer(
        vocab={letter: number for number, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, merges=[]
    )
    made.add_tokens(["<|startofprev|>", "<|startoftranscript|>", "<|notimestamps|>"], special_tokens=True)
    made.add_tokens([f"<|{number / 50:.2f}|>" for number in range(3)])
    return made


def test_a_kept_whisper_leaves_out_of_texts_what_its_class_does(tmp_path: Path):
    """Times, and what was said before."""
    folder = saved(tmp_path / "files", whisper())
    theirs, kept = open_tokenizer(folder), open_tokenizer(folder)
    assert (type(theirs).__name__, type(kept)) == ("WhisperTokenizer", Kept)
    before, start, begin, end = map(theirs.convert_tokens_to_ids, ("<|startofprev|>", "<|startoftranscript|>", "<|0.00|>", "<|0.04|>"))
    words, others = theirs("well ", add_special_tokens=False).input_ids, theirs("said", add_special_tokens=False).input_ids
    rows = [[before, *words, start, begin, *others, end], [before, *words], [begin, *words, begin, *others, end], [start, *words], []]
    for row in rows:
        for skip in (True, False):
            assert kept.decode(row, skip_special_tokens=skip) == theirs.decode(row, skip_special_tokens=skip)
    assert [kept.decode(row, skip_special_tokens=True) for row in rows[:3]] == ["said", "", "well said"]


def test_one_that_would_answer_otherwise_is_not_kept(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch):
    """The proof compares answers before anything is written; ids before texts."""
    plain = checkpoints.llama_tokenizer()
    monkeypatch.setattr(Kept, "decode", lambda _self, _ids, **_options: "something else")
    kept_tokenizers._keep(plain, cache / "one.json")
    assert not seals.read_sealed(cache / "one.json")["facts"]["writes"]
    monkeypatch.setattr(Kept, "rows", lambda _self, _texts, **_options: [[1]])
    kept_tokenizers._keep(plain, cache / "another.json")
    assert not (cache / "another.json").exists()
