"""The work of instruct/dialogue: what a language model wrote becomes questions and answers."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from modelgraft.plugin import LoadContext, NodeRuntime

if TYPE_CHECKING:
    from modelgraft_plugins.instructing import Dialogue

HEAD = re.compile(r"^[\W\d_]*(question|answer|q|a)\s*\d*\s*[:.)]\**\s*", re.IGNORECASE)  # also "**Question 2:**", "1. Q:"
PLACES = re.compile(r"\[\s*\d*\.\d+(?:\s*,\s*\d*\.\d+){3}\s*\]")  # a box, copied
IMAGE = "<image>"  # where the picture stands in LLaVA's own files
Pair = tuple[str, str]


def load(config: Dialogue, _context: LoadContext) -> Dialogues:
    """Make what reads dialogues."""
    words = "|".join(re.escape(word) for word in config.forbidden)
    return Dialogues(config, re.compile(rf"\b(?:{words})\b", re.IGNORECASE) if words else None)


class Dialogues:
    """Reads what was written."""

    def __init__(self, config: Dialogue, forbidden: re.Pattern[str] | None) -> None:
        self.config, self._forbidden = config, forbidden
        self.runtime: NodeRuntime | None = None

    def bind(self, runtime: NodeRuntime) -> None:
        """Take the seed of the run."""
        self.runtime = runtime

    def __call__(self, written: list[str], request: list[str] | None, image: list[str] | None) -> dict[str, Any]:
        """Give a dialogue for each text, or what is wrong with it."""
        import torch

        rows = [self._row(text, request[row] if request else "", image[row] if image else None) for row, text in enumerate(written)]
        fits = torch.tensor([not row["trouble"] for row in rows], dtype=torch.bool)
        return {**{name: [row[name] for row in rows] for name in rows[0]}, "fits": fits, "else": ~fits}

    def _row(self, written: str, request: str, image: str | None) -> dict[str, Any]:
        found = self._pairs(written, request)
        pairs, trouble = ([], found) if isinstance(found, str) else (found, self._complaint(found))
        first = self._is_first(written)
        return {
            "conversation": messages(pairs, image, first=first),
            "conversations": in_llavas_layout(pairs, has_image=image is not None, first=first),
            "prompt": pairs[0][0] if pairs else "",
            "answer": pairs[0][1] if pairs else "",
            "trouble": trouble,
        }

    def _pairs(self, written: str, request: str) -> list[Pair] | str:
        """Questions with their answers, or why there are none."""
        if self.config.kind == "detail":
            text = written.strip()
            return [(request.strip(), text)] if text and request.strip() else f"there is no {'request' if text else 'description'}"
        return pairs_of(written)

    def _complaint(self, pairs: Sequence[Pair]) -> str:
        """What is wrong with a dialogue; "" for one to train on."""
        if len(pairs) < self.config.least:
            return f"there are {len(pairs)} questions with answers, wanted at least {self.config.least}"
        if self.config.kind == "reasoning" and len(pairs) > 1:
            return f"there are {len(pairs)} questions, wanted one"
        if hit := next((hit for pair in pairs for text in pair if (hit := self._forbidden and self._forbidden.search(text))), None):
            return f"it speaks of what it was told: {hit[0]!r}"
        if hit := next((hit for pair in pairs for text in pair if (hit := PLACES.search(text))), None):
            return f"it copies a box: {hit[0]}"
        return ""

    def _is_first(self, written: str) -> bool:
        """Whether the picture stands before the first question, or behind it: drawn."""
        seed = 0 if self.runtime is None else self.runtime.node_seed()
        return zlib.crc32(f"{seed} {written}".encode()) % 2 == 0


def pairs_of(written: str) -> list[Pair] | str:
    """Questions with their answers in their order, or a sentence that says what cannot be read. A last question without an
    answer is no pair, and one that was asked before is none."""
    parts = _of_json(written) or _of_heads(written)
    if isinstance(parts, str):
        return parts
    if parts and parts[-1][0] == "q":
        parts = parts[:-1]
    if not parts:
        return "there is no question with an answer"
    for number, (kind, text) in enumerate(parts):
        if kind != "qa"[number % 2]:
            return f"{'an answer stands without its question' if kind == 'a' else 'a question has no answer'}: {_short(text)}"
        if not text:
            return "a question or an answer is empty"
    found: dict[str, Pair] = {}
    for (_, question), (_, answer) in zip(parts[::2], parts[1::2], strict=True):
        found.setdefault(question.casefold(), (question, answer))
    return [*found.values()]


def _of_heads(written: str) -> list[tuple[str, str]] | str:
    """What stands behind each head, `Question:` or `Answer:`; lines without one go on with what is before them."""
    parts = list[tuple[str, list[str]]]()
    for line in written.strip().splitlines():
        bare = line.strip()
        if bare == "===":  # between a question and its answer, in LLaVA's own prompts
            continue
        head = HEAD.match(bare)
        if head is not None:
            parts.append((head[1][0].lower(), [bare[head.end() :]]))
        elif parts:
            parts[-1][1].append(bare)
        elif bare:
            return f"it begins with neither a question nor an answer: {_short(bare)}"
    return [(kind, "\n".join(lines).strip()) for kind, lines in parts]


def _of_json(written: str) -> list[tuple[str, str]] | None:
    """The parts of JSON lines of question and answer; None where it is none, or only the last line is whole, which is cut."""
    lines = [line.strip().rstrip(",") for line in written.strip().splitlines() if line.strip() not in ("", "[", "]", "```", "```json")]
    found = list[tuple[str, str]]()
    for number, line in enumerate(lines):
        try:
            pair = json.loads(line)
        except ValueError:
            if found and number == len(lines) - 1:  # the end of it was cut
                break
            return None
        if not isinstance(pair, dict) or not all(isinstance(pair.get(key), str) for key in ("question", "answer")):
            return None
        found += [("q", pair["question"].strip()), ("a", pair["answer"].strip())]
    return found or None


def messages(pairs: Sequence[Pair], image: str | None, *, first: bool) -> list[dict[str, Any]]:
    """A dialogue as messages; the picture stands in the first, before its words or behind them."""
    found = list[dict[str, Any]]()
    for question, answer in pairs:
        shown = [{"type": "image", "image": image}] if image is not None and not found else []
        said = [{"type": "text", "text": question}]
        found.append({"role": "user", "content": [*shown, *said] if first else [*said, *shown]})
        found.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
    return found


def in_llavas_layout(pairs: Sequence[Pair], *, has_image: bool, first: bool) -> list[dict[str, str]]:
    """The same as the files of LLaVA hold it."""
    found = list[dict[str, str]]()
    for number, (question, answer) in enumerate(pairs):
        shown = has_image and number == 0
        value = (f"{IMAGE}\n{question}" if first else f"{question}\n{IMAGE}") if shown else question
        found += [{"from": "human", "value": value}, {"from": "gpt", "value": answer}]
    return found


def _short(text: str) -> str:
    line = " ".join(text.split())
    return repr(line if len(line) <= 60 else f"{line[:60]}...")
