"""The tokenizer of BEiT-3 and XLM-RoBERTa, from the file of SentencePiece alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import modelgraft as mg
from modelgraft_plugins.sentence_pieces import open_pieces, pieces_file, read
from support.installed import registry
from support.open_part import open_part
from support.tokenizers import sentence_pieces

REGISTRY = registry()
TEXTS = ["a photo of a cat", "the dogs   of the grass?", "x", "", "photograph cat\tdog"]


def best(word: str, scores: dict[str, float]) -> list[str] | None:
    """The pieces of a word whose scores have the largest sum, of all ways to cut it; None where there is no way."""
    if not word:
        return []
    ways = [
        [word[:size], *rest]
        for size in range(1, len(word) + 1)
        if word[:size] in scores and (rest := best(word[size:], scores)) is not None
    ]
    return max(ways, key=lambda way: sum(scores[piece] for piece in way), default=None)


@pytest.mark.parametrize("name", ["sentencepiece.bpe.model", "beit3.spm"])
def test_ids_are_one_more_than_the_places_of_the_pieces(tmp_path: Path, name: str):
    """`<s>` 0, pad 1, `</s>` 2, unknown 3, and the mask behind all pieces; texts of a batch are filled up at their ends."""
    pieces = sentence_pieces(tmp_path / name)
    place = {piece: index + 1 for index, (piece, _) in enumerate(pieces) if index > 2}
    found = open_part(REGISTRY, "text/tokenizer", folder_of(tmp_path), max_length=64)(TEXTS)
    for row, (text, ids, mask) in enumerate(zip(TEXTS, found["ids"], found["mask"], strict=True)):
        words = [best("▁" + word, dict(pieces[3:])) for word in text.split()]
        wanted = [0, *(place.get(piece, 3) for word in words for piece in (word or ["▁", "<unk>"])), 2]
        assert ids[mask].tolist() == wanted, row
        assert ids[~mask].tolist() == [1] * (len(ids) - len(wanted))
    tokenizer = open_pieces(tmp_path / name)
    assert tokenizer.mask_token_id == len(pieces) + 1
    assert tokenizer.decode(found["ids"][0], skip_special_tokens=True) == TEXTS[0]


def folder_of(folder: Path) -> str:
    """The same as the folder of a checkpoint."""
    (folder / "config.json").write_text('{"model_type": "beit3"}')
    return str(folder)


def test_a_text_that_is_too_long_is_told(tmp_path: Path):
    """With how long it is, and how long it may be; or it is cut, its end token in place."""
    sentence_pieces(tmp_path / "beit3.spm")
    with pytest.raises(
        mg.InputError, match=r"a text has 7 tokens and 6 is the most: 'a photo of a cat'\.\.\.; shorten it, or set truncate: true"
    ):
        open_part(REGISTRY, "text/tokenizer", folder_of(tmp_path), max_length=6)(TEXTS[:1])
    cut = open_part(REGISTRY, "text/tokenizer", folder_of(tmp_path), max_length=6, truncate=True)(TEXTS[:1])
    assert cut["ids"].shape == (1, 6)
    assert cut["ids"][0, -1] == 2


def test_files_that_say_more_go_first(tmp_path: Path):
    """A folder that names its class is opened as it says."""
    assert pieces_file(tmp_path) is None
    sentence_pieces(tmp_path / "beit3.spm")
    assert pieces_file(tmp_path) == tmp_path / "beit3.spm"
    (tmp_path / "tokenizer_config.json").write_text("{}")
    assert pieces_file(tmp_path) is None


def test_a_file_of_something_else_or_a_part_of_one_is_told(tmp_path: Path):
    """And a model of another kind, whose ids would be others."""
    pieces = sentence_pieces(tmp_path / "whole")
    found, characters = read(tmp_path / "whole")
    assert [piece for piece, _ in found] == [piece for piece, _ in pieces]
    torch.testing.assert_close(torch.tensor([score for _, score in found]), torch.tensor([score for _, score in pieces]))
    assert characters == b""
    data = (tmp_path / "whole").read_bytes()
    for name, content in (("cut", data[:-3]), ("text", b"no pieces at all"), ("empty", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=rf"{name} (is no file of SentencePiece|holds 0 pieces)"):
            read(tmp_path / name)
