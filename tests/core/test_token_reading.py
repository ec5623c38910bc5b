"""Tokens become text piece by piece, whole characters only."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from modelgraft.loops.reading import Reader


def bytes_to_text(ids: list[int]) -> str:
    """One token per byte of UTF-8."""
    return bytes(ids).decode(errors="replace")


def words_to_text(ids: list[int]) -> str:
    """Words, of which the first of a text loses its space, as SentencePiece decodes them."""
    return "".join((" one", " two", "three", "##", " five")[token] for token in ids).removeprefix(" ")


def read(decode, ids: list[int], stop: tuple[str, ...] = ()) -> tuple[list[str], str, int]:
    """The pieces, the text, and how many tokens were read."""
    pieces: list[str] = []
    reader = Reader(decode, stop=stop, emit=pieces.append)
    count = next((index + 1 for index, token in enumerate(ids) if reader.add(token)), len(ids))
    return pieces, reader.finish(), count


def test_a_character_comes_when_its_last_byte_is_there():
    """Pieces never hold half a character."""
    text = "naïve 🦙 café"
    pieces, whole, _ = read(bytes_to_text, list(text.encode()))
    assert pieces == list(text)
    assert whole == text


def test_an_unfinished_character_at_the_end_comes_last():
    """What cannot be decoded is handed on when the answer ends, not lost."""
    pieces, whole, _ = read(bytes_to_text, list("a🦙".encode())[:-1])
    assert "".join(pieces) == whole == "a\N{REPLACEMENT CHARACTER}"


def test_spaces_that_depend_on_the_token_before_are_kept():
    """A decoder that drops a leading space must not drop it between pieces."""
    pieces, whole, _ = read(words_to_text, [0, 1, 2, 4])
    assert pieces == ["one", " two", "three", " five"]
    assert whole == "one twothree five"


def test_what_may_begin_a_stop_string_is_held_back():
    """`#` waits for what follows; the stop string itself is never handed on."""
    pieces, whole, count = read(bytes_to_text, list(b"a#b##c###d"), stop=("###",))
    assert pieces == ["a", "#b", "##c"]
    assert whole == "a#b##c"
    assert count == 9


def test_what_was_held_back_comes_when_the_answer_ends():
    """A beginning of a stop string that never completes is text."""
    pieces, whole, _ = read(bytes_to_text, list(b"ab#"), stop=("###",))
    assert pieces == ["a", "b", "#"]
    assert whole == "ab#"


@given(st.text(max_size=30), st.lists(st.text(min_size=1, max_size=3), max_size=3))
def test_the_pieces_join_to_the_text(text, stop):
    """For any text and stop strings: pieces join to it, and it is what stands before the first stop string to be complete."""
    pieces, whole, count = read(bytes_to_text, list(text.encode()), tuple(stop))
    assert "".join(pieces) == whole
    seen = text.encode()[:count].decode(errors="ignore")
    cuts = [seen.find(string) for string in stop if string in seen]
    assert whole == (seen[: min(cuts)] if cuts else text)
