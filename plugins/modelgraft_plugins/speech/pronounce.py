"""The work of speech/phonemes: from words to the sounds that the voice was trained on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from modelgraft.plugin import LoadContext, archives
from modelgraft_plugins.speech.letters import LetterNetwork
from modelgraft_plugins.speech.spelling import pieces

if TYPE_CHECKING:
    from modelgraft_plugins.speech import Phonemes

DICTIONARY = (
    "pypi:pocketsphinx==5.1.1/pocketsphinx/model/en-us/cmudict-en-us.dict"
    "#sha256=20b5c293e1f311fb375fe067e500ec5636f4fc7af5594967263696def9b23bfe"
)
LETTERS = "pypi:g2p-en==2.1.0/g2p_en/checkpoint20.npz#sha256=b8af35e4596d8dd5836dfd3fe9b2ba4f97b9c311efe8879544cbcfcbd566d8c6"

CONSONANTS: Mapping[str, str] = {
    "B": "b", "CH": "ʧ", "D": "d", "DH": "ð", "F": "f", "G": "ɡ", "HH": "h", "JH": "ʤ", "K": "k", "L": "l", "M": "m", "N": "n", "NG": "ŋ",
    "P": "p", "R": "ɹ", "S": "s", "SH": "ʃ", "T": "t", "TH": "θ", "V": "v", "W": "w", "Y": "j", "Z": "z", "ZH": "ʒ",
}  # fmt: skip
# the capitals stand for diphthongs: A as in day, I in my, O in go, W in now, Y in boy
VOWELS: Mapping[str, str] = {
    "AA": "ɑ", "AE": "æ", "AH": "ʌ", "AO": "ɔ", "AW": "W", "AY": "I", "EH": "ɛ", "ER": "ɜɹ", "EY": "A", "IH": "ɪ", "IY": "i", "OW": "O",
    "OY": "Y", "UH": "ʊ", "UW": "u",
}  # fmt: skip
WEAK: Mapping[str, str] = {"AH": "ə", "ER": "əɹ"}  # without stress
MARKS = {"0": "", "1": "ˈ", "2": "ˌ"}  # no, main and second stress; written before the vowel
# small words that a sentence leaves unstressed
SMALL: Mapping[str, str] = {
    "a": "ɐ", "an": "ɐn", "the": "ðə", "to": "tə", "of": "əv", "and": "ænd", "in": "ɪn", "is": "ɪz", "it": "ɪt", "its": "ɪts", "as": "æz",
    "at": "æt", "for": "fɔɹ", "from": "fɹʌm", "on": "ɔn", "or": "ɔɹ", "that": "ðæt", "was": "wʌz", "were": "wɜɹ", "are": "ɑɹ", "be": "bi",
    "by": "bI", "with": "wɪð", "his": "hɪz", "her": "hɜɹ", "has": "hæz", "have": "hæv", "had": "hæd", "can": "kæn", "you": "ju", "he": "hi",
    "she": "ʃi", "we": "wi", "they": "ðA", "been": "bɪn", "but": "bʌt", "if": "ɪf", "than": "ðæn", "into": "ˈɪntu", "read": "ɹˈid",
}  # fmt: skip
VOWEL_LETTERS = frozenset("ɑæʌɔWIɛɜAɪiOYʊuəɐ")  # a sound that begins with one of these takes "thee" and not "the" before it


def load(_config: Phonemes, context: LoadContext) -> Callable[[list[str]], list[str]]:
    """Fetch dictionary and network, and make the function from texts to sounds."""
    speaker = Pronouncer(archives.member(DICTIONARY, offline=context.offline), archives.member(LETTERS, offline=context.offline))
    return lambda text: [speaker.sentence(record) for record in text]


class Pronouncer:
    """Knows how words sound."""

    def __init__(self, dictionary: Path, letters: Path) -> None:
        self.words = read_dictionary(dictionary)
        self.network = LetterNetwork(letters)
        self.word = lru_cache(maxsize=4096)(self._word)

    def sentence(self, text: str) -> str:
        """Give the sounds of a text: words apart by spaces, marks of punctuation behind the word before them."""
        sounds = list[str]()
        for piece in pieces(text):
            if piece[0].isalpha():
                sounds.append(self.word(piece))
            elif sounds and sounds[-1][-1].isalpha():  # one mark is enough
                sounds[-1] += piece
        linked = [*sounds]
        for index, following in enumerate(sounds[1:]):
            if sounds[index] == SMALL["the"] and following.lstrip("ˈˌ")[0] in VOWEL_LETTERS:
                linked[index] = "ði"
        return " ".join(linked)

    def _word(self, word: str) -> str:
        """The sounds of one word."""
        lower = word.lower()
        if lower in SMALL and not (word.isupper() and len(word) > 1):
            return SMALL[lower]
        if lower in self.words:
            return self._stressed(lower, self.words[lower])
        stem = lower.removesuffix("'s")
        if stem != lower and stem in self.words:
            return self._stressed(stem, self.words[stem]) + possessive(self.words[stem][-1])
        if (word.isupper() and len(word) > 1) or not any(letter in "aeiouy" for letter in lower):
            return " ".join(self._stressed(letter, self.words[f"{letter}."]) for letter in lower if letter.isalpha())
        return "".join(map(sound, self.network.read(lower.replace("'", ""))))

    def _stressed(self, word: str, phones: tuple[str, ...]) -> str:
        """Add the stress that the dictionary does not have: from the network, where it hears the same sounds in the word."""
        heard = self.network.read(word)
        pattern = "".join(phone[-1] for phone in heard if phone[-1].isdigit())
        if tuple(phone.rstrip("012") for phone in heard) != phones or "1" not in pattern:
            pattern = default_stress(phones)
        digits = iter(pattern)
        return "".join(sound(phone + next(digits) if phone in VOWELS else phone) for phone in phones)


def sound(phone: str) -> str:
    """The letters of one sound of the dictionary, such as `AH0` or `SH`."""
    if phone in CONSONANTS:
        return CONSONANTS[phone]
    vowel, stress = phone.rstrip("012"), phone[-1] if phone[-1].isdigit() else "1"
    letters = WEAK.get(vowel, VOWELS[vowel]) if stress == "0" else VOWELS[vowel]
    return MARKS[stress] + letters


def possessive(last: str) -> str:
    """How 's sounds behind a last sound."""
    if last in ("S", "Z", "SH", "ZH", "CH", "JH"):
        return "əz"
    return "s" if last in ("P", "T", "K", "F", "TH") else "z"


def default_stress(phones: tuple[str, ...]) -> str:
    """Stress the first vowel that is not the weak one."""
    vowels = [phone for phone in phones if phone in VOWELS]
    main = next((index for index, vowel in enumerate(vowels) if vowel != "AH"), 0)
    return "".join("1" if index == main else "0" for index in range(len(vowels)))


def read_dictionary(path: Path) -> dict[str, tuple[str, ...]]:
    """Word -> its sounds; of several pronunciations the first."""
    found: dict[str, tuple[str, ...]] = {}
    with path.open(encoding="utf-8") as file:
        for line in file:
            word, *phones = line.split()
            if not word.endswith(")"):
                found[word] = tuple(phones)
    return found
