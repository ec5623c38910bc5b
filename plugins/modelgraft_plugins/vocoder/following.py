"""A voice that speaks while its units are written: it hears the words of a language model, and makes each piece as soon as it can be made.

Units are written as `<12>`, between `<sosp>` and `<eosp>`. What is made early is what would be made late: see `Voice`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from modelgraft_plugins.vocoder.voicing import Voice

WORD = re.compile(r"<\s*(sosp|eosp|\d+)\s*>")
MOST = 64  # records that are followed at once: those whose voice is never asked are forgotten, the oldest first

Key = tuple[str, int]  # the id of a run, and the number of a record


@dataclass
class Heard:
    """What a voice has made of what was written so far.

    text  the end of it that is no whole word yet;  is_off  something was heard that cannot be spoken, which its node will tell
    """

    voice: Voice
    text: str = ""
    is_inside: bool = False
    is_off: bool = False
    units: list[int] = field(default_factory=list)
    pieces: list[Tensor] = field(default_factory=list)

    def take(self, text: str) -> list[int]:
        """The units that are complete with what follows."""
        self.text += text
        found, end = list[int](), 0
        for word in WORD.finditer(self.text):
            end = word.end()
            if word[1].isdigit():
                found += [int(word[1])] * self.is_inside
            else:
                self.is_inside = word[1] == "sosp"
        self.text = self.text[end:]
        return found


class Follower:
    """Keeps what is heard of each record until its units come.

    node   whose words are heard;  units  how many there are
    voice  makes one that knows nothing yet;  tell  takes a piece and the number of its record
    """

    def __init__(self, node: str, units: int, *, voice: Callable[[], Voice | None], tell: Callable[[Tensor, int], None]) -> None:
        self.node, self.units, self._voice, self._tell = node, units, voice, tell
        self._heard: dict[Key, Heard] = {}
        self._lock = Lock()  # several runs may be under way, and all speak with one voice

    def hear(self, event: Any) -> None:  # Any: an event of any kind
        """Speak what can be spoken with a piece of text that was written."""
        if event.kind != "token" or event.node != self.node:
            return
        with self._lock, torch.inference_mode():
            heard = self._of((event.run, event.record))
            if heard is None or heard.is_off:
                return
            for unit in heard.take(event.text):
                heard.is_off = heard.is_off or unit >= self.units
                if not heard.is_off:
                    self._say(heard, unit, event.record)

    def _of(self, key: Key) -> Heard | None:
        if key not in self._heard and (voice := self._voice()) is not None:
            self._heard[key] = Heard(voice)
            if len(self._heard) > MOST:
                del self._heard[next(iter(self._heard))]
        return self._heard.get(key)

    def _say(self, heard: Heard, unit: int, record: int) -> None:
        heard.units.append(unit)
        for piece in heard.voice.speak(torch.tensor([unit])):
            heard.pieces.append(piece)
            self._tell(piece, record)

    def spoken(self, key: Key, units: Sequence[int]) -> Heard | None:
        """What was made of a record whose units are known now; None where nothing was, or of others than these."""
        with self._lock:
            heard = self._heard.pop(key, None)
        fits = heard is not None and not heard.is_off and bool(heard.units) and list(units[: len(heard.units)]) == heard.units
        return heard if fits else None
