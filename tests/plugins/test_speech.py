"""Speech: how text is read aloud, and that a recogniser understands what is said is tested with the graph `talk`."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from modelgraft import InputError
from modelgraft.sources import archives
from modelgraft.testing import conform, imports_of, open_node
from modelgraft_plugins.speech import Kokoro, Phonemes, kokoro, pronounce, spelling, transcript

pytestmark = pytest.mark.slow  # it runs real models


@cache
def speaker() -> pronounce.Pronouncer:
    """The dictionary and the network, read once."""
    return pronounce.Pronouncer(archives.member(pronounce.DICTIONARY), archives.member(pronounce.LETTERS))


@cache
def voice():
    """The voice, opened once."""
    archives.join(kokoro.PARTS, sha256=kokoro.WHOLE_SHA256, name="kokoro-v1.0.int8.onnx")
    for text in (kokoro.SYMBOLS, kokoro.VOICES):
        archives.member(text)
    return open_node(Kokoro)


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("0", "zero"),
        ("13", "thirteen"),
        ("40", "forty"),
        ("99", "ninety nine"),
        ("100", "one hundred"),
        ("215", "two hundred fifteen"),
        ("1,000", "one thousand"),
        ("12,345,678", "twelve million three hundred forty five thousand six hundred seventy eight"),
        ("007", "zero zero seven"),
        ("3.14", "three point one four"),
        ("-4 °C", "minus four degrees C"),
        ("42 %", "forty two percent"),
        ("1st", "first"),
        ("22nd", "twenty second"),
        ("30th", "thirtieth"),
        ("112th", "one hundred twelfth"),
        ("in 1984", "in nineteen eighty four"),
        ("in 1905", "in nineteen oh five"),
        ("in 1900", "in nineteen hundred"),
        ("in 2000", "in two thousand"),
        ("in 2024", "in twenty twenty four"),
        ("the 1990s", "the nineteen nineties"),
        ("$5.20", "five dollars and twenty cents"),
        ("$1", "one dollar"),
        ("£2.01", "two pounds and one penny"),
        ("€3 million", "three million euros"),
        ("10 km", "ten kilometers"),
        ("Dr. Smith vs. Mr. Jones", "doctor Smith versus mister Jones"),
        ("cats, e.g. tabbies", "cats , for example tabbies"),
        ("salt & pepper", "salt and pepper"),
        ("naïve café", "naive cafe"),
        ("Yes!\nNo?", "Yes ! . No ?"),
        ("**bold** `code`", "bold code"),
        ("the cat’s 7 lives", "the cat's seven lives"),
        ("3–5 days", "three to five days"),
        ("", ""),
    ],
)
def test_numbers_signs_and_abbreviations_are_written_as_they_are_said(written, said):
    """Everything that a voice cannot read becomes words."""
    assert " ".join(spelling.pieces(written)) == said


@pytest.mark.network
@pytest.mark.parametrize(
    ("word", "sounds"),
    [
        ("hello", "həlˈO"),  # as in the dictionaries that the voice was trained with
        ("world", "wˈɜɹld"),
        ("boy", "bˈY"),
        ("the", "ðə"),
        ("XKCD", "ˈɛks kˈA sˈi dˈi"),
    ],
)
def test_words_sound_as_dictionaries_say(word, sounds):
    """Sounds and stress of words whose pronunciation nobody doubts."""
    assert speaker().sentence(word) == sounds


@pytest.mark.network
def test_a_word_that_is_in_no_dictionary_is_pronounced_and_spoken_of_in_the_genitive():
    """The network reads unknown words; 's sounds as English has it."""
    known = speaker().words
    assert "zorblatt" not in known
    assert speaker().sentence("zorblatt").replace("ˈ", "").replace("ˌ", "").startswith("z")
    assert [speaker().sentence(f"{word}'s")[-1] for word in ("cat", "dog")] == ["s", "z"]


@pytest.mark.network
def test_the_article_changes_before_a_vowel_and_marks_stay_with_their_word():
    """The apple, the dog; commas and full stops behind the word before them, one each."""
    sounds = speaker().sentence("The apple, the dog!!")
    assert sounds.startswith("ði ˈæpəl, ðə dˈɔɡ")
    assert sounds.endswith("!")
    assert sounds.count("!") == 1


@pytest.mark.network
def test_every_sound_is_known_to_the_voice():
    """No word of the dictionary holds a sound that the voice would drop."""
    import json

    symbols = json.loads(archives.member(kokoro.SYMBOLS).read_text(encoding="utf-8"))["vocab"]
    phones = {phone for phones in speaker().words.values() for phone in phones}
    spoken = [phone + stress for phone in phones for stress in (("0", "1", "2") if phone in pronounce.VOWELS else ("",))]
    letters = set("".join([*map(pronounce.sound, spoken), *pronounce.SMALL.values()]))
    assert letters <= set(symbols), f"not known: {letters - set(symbols)}"


@pytest.mark.parametrize("most", [7, 20, 50])
def test_long_speech_is_cut_where_a_speaker_pauses_and_nothing_is_lost(most):
    """Sentences first, then commas, then words, then anywhere; no piece is too long."""
    text = "ˈA bˈi. sˈi dˈi, ˈi ˈɛf ʤˈi; ˈAʧ ˈI! " + "x" * 31 + " wˈʌn tˈu θɹˈi"
    found = list(kokoro.sentences_of(text, most=most))
    assert all(0 < len(piece) <= most for piece in found)
    assert "".join("".join(found).split()) == "".join(text.split())
    assert found[0] == "ˈA bˈi."


@pytest.mark.network
def test_the_voice_speaks_two_sentences_with_a_pause_between_them():
    """A recording at 24 kHz, longer than its parts, with real sound in it."""
    first, second = "həlˈO wˈɜɹld.", "ɡˈʊd mˈɔɹnɪŋ."
    one, two, both = voice()([first, second, f"{first} {second}"])["audio"]
    assert both.sample_rate_hz == 24_000
    assert both.samples.shape[1] == one.samples.shape[1] + round(0.25 * 24_000) + two.samples.shape[1]
    assert 0.05 < np.abs(both.samples).max() <= 1.5


@pytest.mark.network
def test_silence_cannot_be_spoken():
    """A record without a sound is an error that says what is wanted."""
    with pytest.raises(InputError, match=r"there is nothing to say: found '\.\.', wanted sounds such as 'həlˈO'"):
        voice()([".."])


def test_the_voice_takes_sounds_and_says_so():
    """Sounds of the language are a space of their own at both ends of the wire."""
    assert Phonemes().ports().outputs["phonemes"].space == Kokoro().ports().inputs["phonemes"].space


def test_what_a_recogniser_wrote_is_tidied():
    """Single spaces, none at the ends; and the component keeps its declaration."""
    assert transcript(["  What is\n it? ", ""]) == ["What is it?", ""]
    conform(transcript)


@pytest.mark.parametrize("plugin", ["audio", "efficientnet", "ocr", "speech"])
def test_declarations_are_light(plugin):
    """Listing components imports neither torch nor onnxruntime nor numpy."""
    assert imports_of(f"modelgraft_plugins.{plugin}") == frozenset()
