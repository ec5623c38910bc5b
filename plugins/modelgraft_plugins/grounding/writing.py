"""What a format of phrases and boxes is: how a text with them is read, and how it is written. Each lies in a file of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from modelgraft_plugins.grounding.boxes import Box, Frame


@dataclass(frozen=True, slots=True)
class Words:
    """A piece of text without marks."""

    text: str


@dataclass(frozen=True, slots=True)
class Grounded:
    """A phrase with the boxes that were written for it, one or more. phrase: "" where there are boxes alone."""

    phrase: str
    boxes: tuple[Box, ...]


@dataclass(frozen=True, slots=True)
class Broken:
    """Something that looks like a box and is none: as it was written, and what is wrong with it."""

    written: str
    why: str


Piece = Words | Grounded | Broken


@dataclass(frozen=True, slots=True)
class Format:
    """How one family of models writes phrases and boxes.

    about   one sentence: which models, and what it looks like
    frame   what of a picture the numbers are fractions of: the whole of it, or the square that it is padded to
    bins    how many places there are along a side, where the numbers are counted; of another count `bins` of the component says it
    marks   a regular expression of what stands for no words: a user's text must not hold it
    lead    what a prompt begins with that asks for boxes; "" where nothing does
    read    (text, bins) -> its pieces in order; the words of all of them joined are the text without marks
    write   (phrase, its boxes, bins) -> both as the model reads them; phrase "" for boxes alone, no boxes for a phrase to be found
    """

    about: str
    frame: Frame
    bins: int
    marks: str
    lead: str
    read: Callable[[str, int], Iterator[Piece]]
    write: Callable[[str, Sequence[Box], int], str]
