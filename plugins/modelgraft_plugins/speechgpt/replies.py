"""Answers of SpeechGPT, taken apart.

As they are stored, an answer step by step is `transcript; [ta] words; [ua] <sosp><1><2><eosp><eoa>.`; as the templates write it, [tq]
stands before the transcript. Tokenizers put spaces around words that were added to them. Source: `cli_infer.py` of the authors, whose own
pattern gives nothing where the spaces differ.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.utils.rnn import pad_sequence

from modelgraft.plugin import LoadContext

if TYPE_CHECKING:
    from modelgraft_plugins.speechgpt import Reply

TURN = re.compile(r"\[\s*SpeechGPT\s*\]\s*:")  # where a whole dialogue is given, its last turn is the answer
END = re.compile(r"<\s*(?:eoa|ea|eos|/\s*s)\s*>")
MARK = re.compile(r"\[\s*(tq|ta|ua)\s*\]")
SPAN = re.compile(r"<\s*sosp\s*>(.*?)(?:<\s*eosp\s*>|\Z)", re.DOTALL)  # one that the end of the answer has cut counts as it is
UNIT = re.compile(r"<\s*(\d+)\s*>")
LONGEST = 18  # digits of a number that fits into int64


@dataclass(frozen=True, slots=True)
class Said:
    """The parts of an answer: see `Reply`."""

    tq: str
    ta: str
    text: str
    ua: tuple[int, ...]


def load(_config: Reply, _context: LoadContext) -> Callable[[list[str]], Mapping[str, Any]]:
    """Make the function from answers to their parts."""

    def parts(text: list[str]) -> dict[str, Any]:
        found = [parsed(answer) for answer in text]
        rows = [torch.tensor(said.ua, dtype=torch.int64) for said in found]
        speaks = torch.tensor([bool(said.ua) for said in found], dtype=torch.bool)
        words = {name: [getattr(said, name) for said in found] for name in ("tq", "ta", "text")}
        return {**words, "ua": pad_sequence(rows, batch_first=True, padding_value=-1), "speaks": speaks, "else": ~speaks}

    return parts


def parsed(answer: str) -> Said:
    """Take one answer apart."""
    whole = END.split(TURN.split(answer)[-1], maxsplit=1)[0]
    head, *rest = MARK.split(whole)
    marked = dict(zip(rest[::2], rest[1::2], strict=True))
    if head.strip():  # before the first mark stands what was heard, or the answer itself where nothing but speech follows
        marked.setdefault("tq" if "ta" in marked else "ta" if "ua" in marked else "text", head)
    units = tuple(int(number) for span in SPAN.findall(whole) for number in UNIT.findall(span) if len(number) <= LONGEST)
    tq, ta = (_words(marked.get(name, "")) for name in ("tq", "ta"))
    return Said(tq, ta, ta or ("" if "ta" in marked else _words(marked.get("text", ""))), units)


def _words(piece: str) -> str:
    """Without units, and without what stands between parts."""
    return " ".join(SPAN.sub(" ", piece).split()).removesuffix(";").rstrip()
