"""Vocabularies in the layout of tiktoken: read without it, to the same ids as by an encoder that is slow and obvious."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from modelgraft.kernel.words.errors import SourceError
from modelgraft_plugins import kept_tokenizers, tiktoken_files
from support import tiktokens

RANKS = tiktokens.vocabulary()
TEXTS = (
    "", "a", "a photo of two cats", "the  grass\n\n is 1234 grey\t", "naïve façade — 漢字 🙂", "cafe\N{COMBINING ACUTE ACCENT}", "I'LL see",
    "<|im_start|>user\nPicture 1: <img><imgpad><imgpad></img>\nhi<|im_end|>\n", "<ref>the dog</ref><box>(1,20),(300,999)</box>", "<im",
    " \r\n x", "<|extra_7|><quad>(0,0)</quad>", "aaaaaaa the the the",
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("qwen")
    tiktokens.write(home, RANKS)
    (home / "config.json").write_text(json.dumps({"model_type": "qwen", "visual": {}}))
    return home


@pytest.mark.parametrize("kept", [False, True], ids=["new", "kept"])
def test_texts_become_the_ids_of_the_slow_encoder(folder: Path, kept: bool):
    """Also by the tokenizer that was kept of it."""
    if kept:
        kept_tokenizers.open_tokenizer(folder)
    found = kept_tokenizers.open_tokenizer(folder) if kept else tiktoken_files.open_tokenizer(folder)
    for text in TEXTS:
        ids = found(text, add_special_tokens=False).input_ids
        assert ids == tiktokens.encode(text, RANKS), text
        assert found(text).input_ids == ids, "no token stands before a text of its own accord"


def test_what_is_said_is_shown_and_form_is_not(folder: Path):
    found = tiktoken_files.open_tokenizer(folder)
    ids = found("<ref>a dog</ref><box>(1,2),(3,4)</box><img><imgpad></img><|im_end|>").input_ids
    assert found.decode(ids, skip_special_tokens=True) == "<ref>a dog</ref><box>(1,2),(3,4)</box>"
    assert len(found) == len(RANKS) + len(tiktokens.MARKS)


def test_one_that_sees_nothing_has_no_marks_for_it(folder: Path, tmp_path: Path):
    tiktokens.write(tmp_path, RANKS)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen"}))
    found = tiktoken_files.open_tokenizer(tmp_path)
    assert found("<box>").input_ids == tiktokens.encode("<box>", RANKS, tiktoken_files.FORM)
    assert len(found("<box>").input_ids) > 1


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"YQ== 0\n", "has 1 tokens, which are not numbered from 0 on, or not each byte among them"),
        (b"YQ== 0 1\n", "has no token and its number in line 1"),
        (b"!!! 0\n", "has no token and its number in line 1"),
        (b"YQ== 0\n\xff\xfe x\n", "has no token and its number in line 2"),
        (b"", "has 0 tokens"),
    ],
)
def test_a_file_that_is_none_is_one_error(tmp_path: Path, content: bytes, said: str):
    (tmp_path / tiktoken_files.QWEN).write_bytes(content)
    with pytest.raises(SourceError, match="source-damaged") as caught:
        tiktoken_files.open_tokenizer(tmp_path)
    assert said in str(caught.value)


def test_other_folders_are_left_to_transformers(tmp_path: Path):
    assert tiktoken_files.open_tokenizer(tmp_path) is None
    tiktokens.write(tmp_path, RANKS)
    (tmp_path / "tokenizer.json").write_text("{}")
    assert tiktoken_files.open_tokenizer(tmp_path) is None
