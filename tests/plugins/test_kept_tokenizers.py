"""A tokenizer that is kept does what the one of transformers does, and is never believed when anything has changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import transformers as hf

from modelgraft.sources import kept, seals
from modelgraft_plugins import kept_tokenizers
from modelgraft_plugins.kept_tokenizers import Kept, open_tokenizer
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


def test_a_class_that_does_more_than_the_tokenizer_inside_is_not_kept(tmp_path: Path, cache: Path):
    """Whisper's decoding leaves out timestamps by code of its own, and so may a class that changes one call."""

    class Shouting(hf.PreTrainedTokenizerFast):
        def _decode(self, *args: Any, **options: Any) -> str:
            return super()._decode(*args, **options).upper()

    plain = checkpoints.llama_tokenizer()
    shouting = Shouting(tokenizer_object=plain.backend_tokenizer, unk_token=plain.unk_token)
    kept_tokenizers._keep(shouting, cache / "one.json")
    assert not cache.exists()
    kept_tokenizers._keep(plain, cache / "one.json")
    assert cache.exists()


def test_one_that_was_changed_after_it_was_built_is_not_kept(tmp_path: Path, cache: Path):
    """CLIP's tokenizer decodes through a function that is put around the one inside, which a file cannot hold."""
    folder = saved(tmp_path / "files", clip_bpe())
    opened = [open_tokenizer(folder) for _ in range(2)]
    assert all(isinstance(one, hf.CLIPTokenizer) for one in opened)
    assert not cache.exists()


def test_one_that_would_answer_otherwise_is_not_kept(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch):
    """The proof compares answers before anything is written."""
    plain = checkpoints.llama_tokenizer()
    monkeypatch.setattr(Kept, "decode", lambda _self, _ids, **_options: "something else")
    kept_tokenizers._keep(plain, cache / "one.json")
    assert not cache.exists()
