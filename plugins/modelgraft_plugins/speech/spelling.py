"""English text as words that can be looked up: numbers spelled out, signs and abbreviations named, accents dropped."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping

ONES = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen", "fourteen",
    "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
TENS = ("zero", "ten", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
SCALES = ((10**12, "trillion"), (10**9, "billion"), (10**6, "million"), (1000, "thousand"))
MOST_DIGITS = 15  # a longer number is read digit by digit
ORDINALS: Mapping[str, str] = {
    "one": "first", "two": "second", "three": "third", "five": "fifth", "eight": "eighth", "nine": "ninth", "twelve": "twelfth",
}  # fmt: skip
SIGNS: Mapping[str, str] = {
    "%": " percent ", "&": " and ", "+": " plus ", "=": " equals ", "@": " at ", "#": " number ", "°": " degrees ", "€": " euros ",
    "£": " pounds ", "$": " dollars ", "*": " ", "_": " ", "/": " ", "\\": " ", "~": " ", "^": " ", "|": " ", "<": " ", ">": " ",
}  # fmt: skip
ABBREVIATIONS: Mapping[str, str] = {
    "mr.": "mister", "mrs.": "missus", "ms.": "miz", "dr.": "doctor", "st.": "saint", "prof.": "professor", "vs.": "versus",
    "etc.": "et cetera", "e.g.": "for example", "i.e.": "that is", "no.": "number", "approx.": "approximately", "km": "kilometers",
    "kg": "kilograms", "cm": "centimeters", "mm": "millimeters", "km²": "square kilometers",
}  # fmt: skip
CURRENCIES: Mapping[str, tuple[str, str]] = {
    "$": ("dollar", "cent"), "€": ("euro", "cent"), "£": ("pound", "penny"),
}  # fmt: skip

_MONEY = re.compile(r"([$€£])\s?([\d,]*\d)(?:\.(\d\d))?(?!\d)(\s+(?:thousand|million|billion|trillion)\b)?")
_NUMBER = re.compile(r"(?<![\w.])(-?)([\d,]*\d)((?:\.\d+)*)(st|nd|rd|th|s)?(?![\d])")
_YEAR = re.compile(r"(?<![\d,.\-])(1[1-9]\d\d|20[1-9]\d)(?![\d,%]|\.\d)(s?)\b")
_ABBREVIATION = re.compile(rf"(?<!\w)({'|'.join(map(re.escape, ABBREVIATIONS))})(?!\w)", re.IGNORECASE)
_UNIT_BEHIND = frozenset({"km", "kg", "cm", "mm", "km²"})  # read as units behind a number only
_PIECE = re.compile(r"[A-Za-z]+(?:['’][A-Za-z]+)*|[.,;:!?…—]")


def pieces(text: str) -> Iterator[str]:
    """Give the words and the marks that a speaker pauses at, in order; everything else is dropped."""
    text = text.translate({0x2019: "'", 0x2018: "'", 0x2013: "—", 0x00AD: ""})
    text = re.sub(r"[\n\r]+", ". ", text.strip())
    text = re.sub(r"(?<=\d)\s*[—](?=\s*\d)", " to ", text)
    text = _MONEY.sub(lambda match: f" {money(*match.groups())} ", text)
    text = _ABBREVIATION.sub(_abbreviation, text)
    text = _YEAR.sub(lambda match: f" {plural(year(int(match[1]))) if match[2] else year(int(match[1]))} ", text)
    text = _NUMBER.sub(lambda match: f" {_number(match)} ", text)
    for sign, word in SIGNS.items():
        text = text.replace(sign, word)
    text = unicodedata.normalize("NFD", text.replace("ß", "ss").replace("ø", "o").replace("æ", "ae"))
    text = "".join(letter for letter in text if unicodedata.category(letter) != "Mn")
    yield from _PIECE.findall(text)


def _abbreviation(match: re.Match[str]) -> str:
    short = match[0].lower()
    is_unit = short in _UNIT_BEHIND
    before = match.string[: match.start()].rstrip()
    return ABBREVIATIONS[short] if not is_unit or before[-1:].isdigit() else match[0]


def _number(match: re.Match[str]) -> str:
    sign, whole, fractions, ending = match.groups()
    digits = whole.replace(",", "")
    words = cardinal(digits)
    for fraction in filter(None, (fractions or "").split(".")):
        words += f" point {' '.join(ONES[int(digit)] for digit in fraction)}"
    if ending in ("st", "nd", "rd", "th"):
        words = ordinal(words)
    return f"{'minus ' if sign else ''}{plural(words) if ending == 's' else words}"


def cardinal(digits: str) -> str:
    """Name a whole number: "one hundred twenty three"; zeros in front and very long numbers are read digit by digit."""
    if len(digits) > MOST_DIGITS or (len(digits) > 1 and digits[0] == "0"):
        return " ".join(ONES[int(digit)] for digit in digits)
    number = int(digits)
    if number < 20:  # the names up to nineteen are not composed
        return ONES[number]
    words = list[str]()
    for size, name in SCALES:
        if number >= size:
            words += [cardinal(str(number // size)), name]
            number %= size
    if number >= 100:
        words += [ONES[number // 100], "hundred"]
        number %= 100
    if number >= 20:
        words.append(TENS[number // 10])
        number %= 10
    if number:
        words.append(ONES[number])
    return " ".join(words)


def ordinal(words: str) -> str:
    """Turn "twenty one" into "twenty first"."""
    *first, last = words.split()
    regular = f"{last[:-1]}ieth" if last.endswith("y") else f"{last}th"
    return " ".join([*first, ORDINALS.get(last, regular)])


def plural(words: str) -> str:
    """Turn "nineteen ninety" into "nineteen nineties"."""
    return f"{words[:-1]}ies" if words.endswith("y") else f"{words}es" if words.endswith("x") else f"{words}s"


def year(number: int) -> str:
    """Name a year as people say it: "nineteen eighty four", "nineteen oh five", "two thousand eleven"."""
    century, rest = divmod(number, 100)
    if rest == 0:
        return f"{cardinal(str(century))} hundred" if century % 10 else cardinal(str(number))
    return f"{cardinal(str(century))} {cardinal(str(rest)) if rest > 9 else 'oh ' + ONES[rest]}"


def money(sign: str, whole: str, cents: str | None, scale: str | None) -> str:
    """Name an amount: "five dollars and twenty cents", "two million euros"."""
    unit, small = CURRENCIES[sign]
    digits = whole.replace(",", "")
    if scale:
        fraction = f" point {' '.join(ONES[int(digit)] for digit in cents)}" if cents else ""
        return f"{cardinal(digits)}{fraction}{scale} {unit}s"
    words = f"{cardinal(digits)} {unit}{'' if digits == '1' else 's'}"
    if not cents or not int(cents):
        return words
    plural = "pence" if small == "penny" else f"{small}s"
    return f"{words} and {cardinal(str(int(cents)))} {small if int(cents) == 1 else plural}"
