"""Names on pictures: letters that the font has, cut to the room that there is."""

from __future__ import annotations

import unicodedata

from PIL import ImageFont

MOST_LETTERS = 400  # of a line: more than any picture of names is wide
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def cut(text: str, most: float, font: Font, *, keeps_end: bool = False) -> str:
    """A text that is no wider than so many pixels; letters are left out at its end, or at its beginning."""
    text = _drawn(text[-MOST_LETTERS:] if keeps_end else text[:MOST_LETTERS], font)
    if font.getlength(text) <= most:
        return text
    while text and font.getlength(f"...{text}") > most:
        text = text[1:] if keeps_end else text[:-1]
    return f"...{text}" if keeps_end else f"{text}..."


def _drawn(text: str, font: Font) -> str:
    """A text of letters that the font has: without their marks where it has them so alone, and ? for those of other scripts."""
    lacking = bytes(font.getmask("\U0010ffff"))  # what is drawn for a letter that is not there

    def letter_of(letter: str) -> str:
        bare = unicodedata.normalize("NFKD", letter)[0]
        return next((one for one in (letter, bare) if one.isprintable() and bytes(font.getmask(one)) != lacking), "?")

    return "".join(letter_of(letter) for letter in unicodedata.normalize("NFC", text))
