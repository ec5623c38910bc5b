"""How a chat answers: words as they are written, media in files that are named, and shown where a terminal can show them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelgraft.cli.live import amount, said_of
from modelgraft.engine.events import Event, NodeLoading, Progress, PromptRead, Token, Warned
from modelgraft.records.absence import ABSENT
from modelgraft.records.readers import for_command
from modelgraft.records.showing import stands_for_file
from modelgraft.records.writing import write_value

if TYPE_CHECKING:
    from modelgraft.cli.screen import Screen

PLAYERS = (("afplay",), ("paplay",), ("aplay", "-q"), ("ffplay", "-nodisp", "-autoexit", "-loglevel", "quiet"))
SOUNDS = (".wav", ".mp3", ".flac", ".ogg")  # what such a player plays


class Writing:
    """The words of an answer, printed as its nodes write them; on a terminal a line below says what is being loaded until they come."""

    def __init__(self, screen: Screen, writers: frozenset[str], *, is_on: bool) -> None:
        """is_on: tell what is being loaded."""
        self._screen, self._writers = screen, writers
        self._is_on = is_on and screen.err.isatty()
        self._told = False
        self.said = ""
        self.kept: dict[str, PromptRead] = {}  # by node: what of its prompt was read before

    def take(self, event: Event) -> None:
        """Hear what happens in the run."""
        if isinstance(event, Token) and event.node in self._writers and event.record == 0:
            self._say(event.text)
        elif isinstance(event, PromptRead) and event.record == 0:
            self.kept[event.node] = event
        elif isinstance(event, Warned):
            self._clear()
            self._screen.note(f"warning: {event.node}: {said_of(event)}" if event.node else f"warning: {event.text}")
        elif self._is_on and not self.said and isinstance(event, NodeLoading | Progress):
            self._tell(f"{event.node}: {'loading' if isinstance(event, NodeLoading) else amount(event.facts)}")

    def finish(self, text: str) -> None:
        """Print what is left of the answer, or all of it where it is not what was written."""
        self._clear()
        if self.said and not text.startswith(self.said):
            if text.strip() == self.said.strip():
                text = self.said
            else:
                self._screen.note("\nthe text was changed after it was written; the whole of it follows")
                self.said = ""
        self._say(text[len(self.said) :])
        self.stop()

    def stop(self) -> None:
        """End the line, also of an answer that did not come to its end."""
        self._clear()
        if self.said:
            self._screen.write("" if self.said.endswith("\n") else "\n")
            self._screen.flush()

    def _say(self, text: str) -> None:
        text = for_command(text if self.said else text.lstrip())
        if text:
            self._clear()
            self._screen.write(text)
            self._screen.flush()
            self.said += text

    def _tell(self, text: str) -> None:
        self._screen.err.write(f"\r\033[K\033[2m{text}\033[0m")
        self._screen.err.flush()
        self._told = True

    def _clear(self) -> None:
        if self._told:
            self._screen.err.write("\r\033[K")
            self._screen.err.flush()
            self._told = False


def files_of(parts: Sequence[Mapping[str, Any]], home: Path, start: str) -> Iterator[tuple[str, Path]]:
    """Write the media of a message into new files of a folder, which is made when the first comes; give the medium and file of each.

    start  how their names begin
    """
    for part in parts:
        medium = str(part["type"])
        value = part.get(medium)
        ending = stands_for_file(value) if value is not ABSENT else None
        if ending is not None:
            home.mkdir(parents=True, exist_ok=True)
            path = _free(home, f"{start}-{medium}", ending[1])
            write_value(value, path)
            yield medium, path


def _free(home: Path, stem: str, ending: str) -> Path:
    """A name that nothing has yet."""
    path, number = home / f"{stem}{ending}", 2
    while os.path.lexists(path):
        path, number = home / f"{stem}-{number}{ending}", number + 1
    return path


def play(path: Path, screen: Screen) -> None:
    """Play a sound with a player of this system, and wait for its end; where there is none, that is said."""
    if path.suffix.lower() not in SOUNDS:
        return
    found = next((command for command in PLAYERS if shutil.which(command[0])), None)
    if found is None:
        screen.note(f"there is no player for {path}: none of {', '.join(command[0] for command in PLAYERS)} is installed")
        return
    subprocess.run([*found, str(path)], check=False, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # noqa: S603 a player of the list
