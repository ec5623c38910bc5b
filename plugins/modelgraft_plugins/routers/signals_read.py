"""The work of router/signal-tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from modelgraft.plugin import InputError, LoadContext, NodeRuntime

if TYPE_CHECKING:
    from modelgraft_plugins.routers.signals import SignalTokens

SHOWN = 6  # tokens of a broken span that a message shows


@dataclass(frozen=True, slots=True)
class Signal:
    """A signal token of an answer: what it asks for, its place in a span, its name, and its hidden states float[layers width]."""

    medium: str
    place: int
    name: str
    states: Tensor


@dataclass(slots=True)
class Asked:
    """What one record asks for: the answer in order, and of each medium the hidden states of its spans, float[layers tokens width]."""

    parts: list[dict[str, Any]] = field(default_factory=list)
    spans: dict[str, list[Tensor]] = field(default_factory=dict)
    left_out: int = 0  # asks beyond the most

    def say(self, text: str) -> None:
        """Add words."""
        if not text:
            return
        if self.parts and self.parts[-1]["type"] == "text":
            self.parts[-1]["text"] += text
        else:
            self.parts.append({"type": "text", "text": text})

    def ask(self, medium: str, states: Tensor, most: int) -> None:
        """Add an ask, unless there are so many already."""
        if sum(map(len, self.spans.values())) >= most:
            self.left_out += 1
            return
        self.parts.append({"type": "ask", "medium": medium, "number": len(self.spans[medium])})
        self.spans[medium].append(states)


def load(config: SignalTokens, context: LoadContext) -> SignalReader:
    """Make the function from taps of a language model to what it asks for."""
    return SignalReader(config, context.node.name)


class SignalReader:
    """Reads the answers of a batch, and tells of what is broken in them."""

    def __init__(self, config: SignalTokens, name: str) -> None:
        self.config, self.name, self.owners = config, name, config.owners()
        self.runtime: NodeRuntime | None = None

    def bind(self, runtime: NodeRuntime) -> None:
        """Take the run that is served: it hears the warnings."""
        self.runtime = runtime

    def __call__(
        self,
        pieces: list[list[str]],
        states: Tensor,
        prompt_pieces: list[list[str]] | None = None,
        prompt_states: Tensor | None = None,
        *captions: list[list[str]] | None,
    ) -> dict[str, list[Any]]:
        """Give the asks of each record by the ports of each medium: tensors whose first axis is the asks, lists of texts; and `parts`.

        captions  of each medium what the asks of each record are for, where that is known

        Raises InputError for a broken span where those are refused, for states that are not those of the signals, and for captions that are
        not as many as the asks.
        """
        if (prompt_pieces is None) != (prompt_states is None):
            raise InputError(f"{self.name}: of prompt_pieces and prompt_states one is wired: wire both, or none")
        records = list[Asked]()
        for row, written in enumerate(pieces):
            begun = self._begun(prompt_pieces[row], prompt_states[row]) if prompt_pieces is not None and prompt_states is not None else []
            records.append(self._read([*begun, *self._placed(written, states[row])], f"record {row + 1} of {len(pieces)}"))
        found = self._given(records, states)
        for medium, given in zip(self.config.media, captions, strict=False):
            if given is not None:
                found[f"{medium}_text"] = [self._captioned(medium, *one, row) for row, one in enumerate(zip(records, given, strict=True))]
        return found

    def _captioned(self, medium: str, record: Asked, captions: Sequence[str], row: int) -> list[str]:
        asks = len(record.spans[medium])
        if len(captions) != asks:
            found = f"{self.name}.{medium}_captions: record {row + 1} has {len(captions)}, and its answer asks for {medium} {asks} times"
            raise InputError(f"{found}: give one for each")
        return list(captions)

    def _placed(self, pieces: Sequence[str], states: Tensor, *, called: str = "states") -> list[Signal | str]:
        """Signals with their states, float[layers positions width] for those of the whole record; texts as they are."""
        is_signal = [piece in self.owners for piece in pieces]
        count = sum(is_signal) if self.config.at == "signals" else len(pieces)
        if states.shape[1] < count or bool(states[:, count:].ne(0).any()):
            what = "signal tokens" if self.config.at == "signals" else "tokens"
            way_out = "let states.at of the language model name the tokens of `media` and no others, or say which there are with `at`"
            raise InputError(f"{self.name}.{called} has other positions than the {count} {what} of an answer: {way_out}")
        places = iter(range(count)) if self.config.at == "signals" else (place for place, hit in enumerate(is_signal) if hit)
        return [
            Signal(*self.owners[piece], piece, states[:, next(places)]) if hit else piece
            for piece, hit in zip(pieces, is_signal, strict=True)
        ]

    def _begun(self, pieces: Sequence[str], states: Tensor) -> list[Signal | str]:
        """The signals that a prompt ends with: the answer begins with them."""
        placed = self._placed(pieces, states, called="prompt_states")
        start = len(placed)
        while start and (isinstance(item := placed[start - 1], Signal) or not item.strip()):
            start -= 1
        return [item for item in placed[start:] if isinstance(item, Signal)]

    def _read(self, items: Sequence[Signal | str], label: str) -> Asked:
        """Go through one answer."""
        asked = Asked(spans={medium: [] for medium in self.config.media})
        for item in self._runs(items):
            if isinstance(item, str):
                asked.say(item)
            else:
                for span in self._spans(item, label):
                    asked.ask(item[0].medium, torch.stack([signal.states for signal in span], 1), self.config.max_objects)
        if asked.left_out:
            self._tell(f"{label} asks for {asked.left_out} more than max_objects: {self.config.max_objects}; these are left out")
        return asked

    def _runs(self, items: Sequence[Signal | str]) -> Iterator[str | list[Signal]]:
        """Words, and runs of signals of one medium; white space within a run is left out."""
        run, spaces = list[Signal](), ""
        for item in items:
            if isinstance(item, str):
                if run and not item.strip():
                    spaces += item
                    continue
                if run:
                    yield run
                yield spaces + item
                run, spaces = [], ""
            elif run and run[0].medium != item.medium:
                yield run
                yield spaces
                run, spaces = [item], ""
            else:
                run, spaces = [*run, item], ""
        if run:
            yield run
        yield spaces

    def _spans(self, run: Sequence[Signal], label: str) -> Iterator[list[Signal]]:
        """The spans of a run of signals of one medium: complete ones, and between them what is made of the others."""
        size, start, pending = len(self.config.media[run[0].medium].names), 0, list[Signal]()
        while start < len(run):
            if [signal.place for signal in run[start : start + size]] == list(range(size)):
                yield from self._mended(pending, size, label)
                pending = []
                yield list(run[start : start + size])
                start += size
            else:
                pending.append(run[start])
                start += 1
        yield from self._mended(pending, size, label)

    def _mended(self, broken: Sequence[Signal], size: int, label: str) -> list[list[Signal]]:
        """What becomes of signals that are no complete span. Raises InputError where they are refused."""
        if not broken:
            return []
        names = [signal.name for signal in broken]
        shown = " ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
        whole = self.config.media[broken[0].medium].names
        found = f"{label} holds a broken span of {broken[0].medium}: {shown}, wanted {whole[0]} to {whole[-1]} in their order"
        if self.config.broken == "error":
            way_out = "ask again, let max_new_tokens be larger, or set broken: drop or repair"
            raise InputError(f"{self.name}: {found}; {way_out}")
        if self.config.broken == "drop":
            self._tell(f"{found}; it is left out")
            return []
        mended = [_filled(each, size) for each in _parted(broken, size)]
        self._tell(f"{found}; it is read as {len(mended)} of {broken[0].medium}")
        return mended

    def _given(self, records: Sequence[Asked], states: Tensor) -> dict[str, list[Any]]:
        """By ports."""
        found: dict[str, list[Any]] = {}
        for medium, span in self.config.media.items():
            empty = states.new_zeros(0, states.shape[1], len(span.names), states.shape[3])
            asks = [torch.stack(record.spans[medium]) if record.spans[medium] else empty for record in records]
            found[f"{medium}_states"] = asks
            found[f"{medium}_vector"] = [each[:, -1, -1] for each in asks]
            found[f"{medium}_text"] = [_words(record.parts, medium) for record in records]
        return {**found, "parts": [record.parts for record in records]}

    def _tell(self, text: str) -> None:
        if self.runtime is not None:
            self.runtime.emit("warning", text=f"{self.name}: {text}")


def _parted(broken: Sequence[Signal], size: int) -> list[dict[int, Signal]]:
    """Broken signals as the spans that they may have been: a first token begins one, and one that is there already does not count."""
    spans: list[dict[int, Signal]] = []
    for signal in broken:
        if not spans or len(spans[-1]) == size or (signal.place == 0 and 0 in spans[-1]):
            spans.append({})
        spans[-1].setdefault(signal.place, signal)
    return spans


def _filled(span: dict[int, Signal], size: int) -> list[Signal]:
    """A span in its order, where the nearest of its signals stand in for those that are not there; of two as near the earlier one."""
    return [span[min(span, key=lambda there: (abs(there - place), there))] for place in range(size)]


def _words(parts: Sequence[dict[str, Any]], medium: str) -> list[str]:
    """For each ask of a medium the words that it belongs to."""
    found, words = list[str](), ""
    for place, part in enumerate(parts):
        if part["type"] == "text":
            words = part["text"].strip() or words
        elif part["medium"] == medium:
            behind = next((other["text"].strip() for other in parts[place:] if other["type"] == "text" and other["text"].strip()), "")
            found.append(words or behind)
    return found
