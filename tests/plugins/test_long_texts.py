"""A text that no model could read is refused before it is cut into tokens."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelgraft.kernel.words.errors import InputError
from modelgraft_plugins import long_texts
from modelgraft_plugins.llm import CausalConfig
from modelgraft_plugins.llm.prompts import PromptWriter
from modelgraft_plugins.llm.tokens import Tokenizer
from modelgraft_plugins.text import Tokenizer as TextTokenizer
from modelgraft_plugins.text.tokenizing import _bounded, _encode
from support import checkpoints
from support.tokenizers import clip_bpe

LONG = {"words": "the red bird " * 800_000, "one word": "a" * 10_000_000, "spaces": " " * 10_000_000}


@pytest.mark.slow
@pytest.mark.parametrize("limit", [200, None])
@pytest.mark.parametrize("text", LONG)
def test_ten_megabytes_of_prompt_are_refused_at_once(text: str, limit: int | None):
    """By the positions of the model, or where it states none by what any model reads."""
    inner = checkpoints.llama_tokenizer()
    calls: list[int] = []
    tokenizer = Tokenizer(inner, placeholder="<image>")
    plain = tokenizer.plain
    tokenizer.plain = lambda piece: calls.append(len(piece)) or plain(piece)  # type: ignore[method-assign]
    config = CausalConfig(model_type="llama", max_position_embeddings=limit)
    most = limit or long_texts.MOST_TOKENS
    with pytest.raises(InputError, match=rf"llm: the prompt is too long: its {len(LONG[text]):,} letters are more than {most:,} tokens"):
        PromptWriter(config, tokenizer, node="llm").write({"prompt": LONG[text]})
    assert sum(calls) <= (2 * long_texts.PIECE if limit else 5_000_000)  # letters that were cut into tokens


@given(st.text(alphabet="ab \n", max_size=40), st.integers(1, 9))
def test_pieces_are_the_text(text: str, size: int):
    """Nothing is lost between them."""
    before, long_texts.PIECE = long_texts.PIECE, size
    try:
        found = list(long_texts.pieces(text))
    finally:
        long_texts.PIECE = before
    assert "".join(found) == text
    assert all(0 < len(piece) <= 2 * size for piece in found)


def test_a_long_text_of_few_tokens_is_read():
    """Letters are not what is counted: a word may be as long as it likes where it is one token."""
    assert not long_texts.more_than("x" * 1_000_000, 100, lambda piece: 1)
    assert long_texts.more_than("x y " * 1_000_000, 100, lambda piece: len(piece.split()))


def test_a_text_that_is_cut_gives_the_tokens_of_the_whole_text():
    """`truncate: true` reads no more of ten megabytes than it keeps."""
    tokenizer, config = clip_bpe(), TextTokenizer(max_length=9, truncate=True)
    text = "the red bird " * 20_000
    expected = tokenizer(text, truncation=True, max_length=9).input_ids
    assert _encode(tokenizer, [LONG["words"]], config)["ids"].tolist() == [expected]
    assert len(_bounded(tokenizer, LONG["words"], config)) <= 2 * long_texts.PIECE


def test_a_text_that_is_not_cut_is_refused():
    with pytest.raises(InputError, match=r"a text of 10,400,000 letters has more than 9 tokens, which is the most: .*truncate: true"):
        _encode(clip_bpe(), [LONG["words"]], TextTokenizer(max_length=9))
