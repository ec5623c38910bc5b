"""Tokens to text, piece by piece: whole characters only, nothing that a stop string may still take back."""

from __future__ import annotations

from collections.abc import Callable, Sequence

Decode = Callable[[list[int]], str]
UNFINISHED = "\N{REPLACEMENT CHARACTER}"  # what a tokenizer gives for the first bytes of a character


class Reader:
    """The text of one answer while it is written.

    decode  tokens -> text, special tokens left out;  stop  strings that end the answer;  emit  takes each new piece

    The pieces together are the text that `finish` gives.
    """

    def __init__(self, decode: Decode, *, stop: Sequence[str] = (), emit: Callable[[str], None] | None = None) -> None:
        self.decode, self.stop, self.emit = decode, tuple(stop), emit
        self.ids: list[int] = []
        self.text = ""
        self._sent = 0  # letters that were handed on
        self._known, self._read = 0, 0  # tokens before `_known` are not needed any more; those before `_read` are in `text`
        self._longest = max(map(len, self.stop), default=0)

    def add(self, token: int) -> bool:
        """Take one more token; True when a stop string is complete."""
        self.ids.append(token)
        if self.emit is None and not self.stop:
            return False
        # A token's text may depend on the one before it (a leading space): decode both, keep what is new.
        before, now = self.decode(self.ids[self._known : self._read]), self.decode(self.ids[self._known :])
        if len(now) <= len(before) or now.endswith(UNFINISHED):
            return False
        start = max(0, len(self.text) - self._longest + 1)
        self.text += now[len(before) :]
        self._known, self._read = self._read, len(self.ids)
        if any(string in self.text[start:] for string in self.stop):
            return True
        self._send(self.text[: len(self.text) - self._held_back()])
        return False

    def finish(self, ids: Sequence[int] | None = None) -> str:
        """The whole text, cut before the first stop string; hands on what is left of it.

        ids  the answer, when it is not what was added
        """
        text = cut(self.decode(list(self.ids if ids is None else ids)), self.stop)
        if self._sent == 0 or text.startswith(self.text[: self._sent]):
            self._send(text)
        return text

    def _held_back(self) -> int:
        """How many letters at the end may be the beginning of a stop string."""
        tail = self.text[-self._longest :] if self._longest else ""
        sizes = (size for string in self.stop for size in range(1, min(len(string), len(tail) + 1)) if tail.endswith(string[:size]))
        return max(sizes, default=0)

    def _send(self, text: str) -> None:
        if self.emit is not None and len(text) > self._sent:
            piece, self._sent = text[self._sent :], len(text)
            self.emit(piece)


def cut(text: str, stop: Sequence[str]) -> str:
    """The text before the first stop string."""
    found = [position for string in stop if (position := text.find(string)) >= 0]
    return text[: min(found)] if found else text
