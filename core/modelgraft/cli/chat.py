"""`modelgraft chat GRAPH`: talk with any graph that takes words or files, and answers with them. One process, one conversation."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelgraft.cli.chat_answers import Writing, files_of, play
from modelgraft.cli.chat_doors import ALONE, BESIDE, WHOLE, Doors, takes_file
from modelgraft.cli.chat_pictures import show, show_image
from modelgraft.cli.given import GivenInputs
from modelgraft.cli.lines import LineTaker, take_lines
from modelgraft.cli.overwriting import refuse_for_graph
from modelgraft.kernel.words.errors import InputError, choices, nearest
from modelgraft.records.absence import ABSENT
from modelgraft.records.conversation import WORDS, is_conversation
from modelgraft.records.conversation_page import PAGE_ENDING, conversation_page
from modelgraft.records.homes import home_read
from modelgraft.records.record_type import Reading, types_of
from modelgraft.records.writing import check_writable, file_named, write_value

if TYPE_CHECKING:
    from modelgraft.cli.session import CliSession
    from modelgraft.engine.pipeline import Pipeline
    from modelgraft.engine.result import Result
    from modelgraft.kernel.words.graph import SolvedGraph
    from modelgraft.records.record_type import Types

USER, MODEL = "user", "assistant"
CHAT_COMMANDS: Mapping[str, str] = {
    "/help": "this text",
    "/attach FILE ...": "send files along with the next message; an empty line sends them alone; without a file: what is attached",
    "/retry": "ask the last question once more, with another seed",
    "/undo": "take back the last question and its answer",
    "/history": "what was said so far",
    "/new": "begin a new conversation; so does /reset",
    "/save FILE": "keep the conversation: .html is a page with its media, .json can be loaded again",
    "/load FILE": "go on with a conversation that was saved as .json",
    "/set NAME=VALUE": "a value of another input of the graph, from here on; /unset NAME lets go of it",
    "/seed N": "the seed from here on",
    "/quit": "leave, as the end of the input does",
}
CHAT_NAMES = tuple(dict.fromkeys([*(command.split()[0] for command in CHAT_COMMANDS), "/unset", "/reset"]))
Message = dict[str, Any]


@dataclass
class Chat(LineTaker):
    """What holds from one line to the next.

    messages  the conversation so far;  attached  (input, medium, record) of the files that go with the next message
    kept      words of inputs that hold for the whole chat;  held  what an input that is needed was given last
    held_before  the same before each turn, to be taken back
    asked     the last question, for /retry;  failed  how many lines could not be done
    saved     by node, what of the last prompt was read before
    """

    session: CliSession
    pipeline: Pipeline
    solved: SolvedGraph
    doors: Doors
    home: Path
    is_json: bool = False
    plays: bool = False
    seed: int = 0
    kept: dict[str, str] = field(default_factory=dict)
    messages: list[Message] = field(default_factory=list)
    attached: list[tuple[str, str, Any]] = field(default_factory=list)
    held: dict[str, Any] = field(default_factory=dict)
    held_before: list[dict[str, Any]] = field(default_factory=list)
    asked: Message | None = None
    turns: int = 0
    saved: dict[str, dict[str, int]] = field(default_factory=dict)
    failed: int = 0
    is_over: bool = False

    @property
    def types(self) -> Types:
        """The record types that there are."""
        return types_of(self.solved.graph.registry)

    def do(self, line: str) -> None:
        """Do a command, or send what is typed; where that fails the conversation stays as it was."""
        if line.startswith("/") and line.split(maxsplit=1)[0].count("/") == 1:
            self._command(line)
        elif line or self.attached:
            self.ask(self._message(line))

    # -- a turn ---------------------------------------------------------------------------------------------------------

    def _message(self, line: str) -> Message:
        """What is typed and attached, as a message. Raises InputError where the graph takes no words."""
        if line and not self.doors.words and self.doors.taking != WHOLE:
            takes = choices(self.doors.files, sort=False)
            raise InputError(f"{self.solved.name} takes no words, but files ({takes}): /attach FILE, then an empty line")
        parts = [{"type": medium, medium: record} for _, medium, record in self.attached]
        return {"role": USER, "content": [*parts, *([{"type": WORDS, WORDS: line}] if line else [])], "time": _now()}

    def ask(self, message: Message, *, again: Sequence[tuple[str, str, Any]] | None = None) -> None:
        """Send a message, print the answer, and keep both; what was attached is sent only once, unless it fails."""
        attached = list(self.attached if again is None else again)
        self.asked, given = message, self._given(message, attached)
        start = time.perf_counter()
        result = self._run(given)
        self.attached, held = [], dict(self.held)
        self.held.update({name: given[name] for name, _, _ in attached})
        self.asked = {**message, "_attached": attached}
        answer = self._answer(result)
        asked = self._heard(result, message)
        self.turns += 1
        self.messages += [asked, answer]
        self.held_before.append(held)
        files = self._show(answer)
        if self.is_json:
            words = " ".join(part[WORDS] for part in answer["content"] if part["type"] == WORDS)
            self.document({"ok": True, "answer": words, "files": files, "seconds": time.perf_counter() - start, "read_before": self.saved})

    def _run(self, given: dict[str, Any]) -> Result:
        screen = self.session.screen
        writing = Writing(screen, self.doors.writers if not self.is_json else frozenset(), is_on=self.session.progress)
        try:
            with self.pipeline.stream(seed=self.seed, **given) as events:
                for event in events:
                    writing.take(event)
                result = events.result
        except BaseException:
            writing.stop()
            raise
        self.saved = {node: {"kept": told.kept, "tokens": told.tokens} for node, told in writing.kept.items()}
        if not self.is_json:
            writing.finish(_words_of(self._answer(result)))
            for told in self.saved.values():
                self.session.screen.note(f"({told['kept']:,} of the {told['tokens']:,} tokens of the prompt were read before)")
        return result

    def _given(self, message: Message, attached: Sequence[tuple[str, str, Any]]) -> dict[str, Any]:
        """The inputs of the graph for a message."""
        reading = GivenInputs(self.solved.inputs, note=self.session.screen.note, stdin=False, types=self.types)
        given: dict[str, Any] = reading.read(list(self.kept.items()))
        for name, _, record in attached:
            given[name] = [*given.get(name, ()), record] if name in self.doors.lists else record
        for name in self.doors.files:
            item = self.solved.inputs[name]
            if name not in given and name in self.held and not item.has_default and not item.port.optional:
                given[name] = self.held[name]  # what is talked about, until something else is attached
        line = _words_of(message)
        if self.doors.words and self.doors.taking != WHOLE and line:
            given[self.doors.words] = line
        if self.doors.taking == BESIDE and self.messages:
            given[self.doors.history] = tuple(map(_plain, self.messages))
        if self.doors.taking == WHOLE:
            given[self.doors.history] = self._whole(message)
        return given

    def _whole(self, message: Message) -> tuple[Message, ...]:
        """The conversation with the new message; where its media go into inputs of their own, its words alone."""
        told = [*map(_plain, self.messages), _plain(message)]
        if not self.doors.files:
            return tuple(told)
        bare = [{**one, "content": [part for part in one["content"] if part["type"] == WORDS]} for one in told]
        said = tuple(one for one in bare if one["content"])
        if not said:
            raise InputError(f"{self.solved.name} answers words: write a message beside {choices(self.doors.files, sort=False)}")
        return said

    def _answer(self, result: Result) -> Message:
        """The answer as a message: the last one of a conversation that the graph gives, or else its text and its media."""
        nodes = {name: seconds for name, seconds in result.timings.items() if seconds > 0}
        about = {"time": _now(), "nodes": nodes}
        talk: Any = result.outputs.get(self.doors.talk)
        if is_conversation(talk) and talk[-1]["role"] == MODEL:
            return {**about, **talk[-1]}
        found = {name: result.outputs.get(name, ABSENT) for name in (self.doors.text, *self.doors.media) if name}
        parts = [
            {"type": (medium := self.doors.media.get(name, WORDS)), medium: record}
            for name, value in found.items()
            for record in (value if isinstance(value, list) else [value])
            if record is not ABSENT and record is not None
        ]
        return {"role": MODEL, "content": parts, **about}

    def _heard(self, result: Result, message: Message) -> Message:
        """The question as the graph understood it, where it says so: a recogniser has words for a sound."""
        talk: Any = result.outputs.get(self.doors.talk)
        if is_conversation(talk) and len(talk) > 1 and talk[-2]["role"] == USER:
            return {"time": message["time"], **talk[-2]}
        return message

    def _show(self, answer: Message) -> dict[str, str]:
        """Write the media of an answer into files and name them."""
        files: dict[str, str] = {}
        screen = self.session.screen
        start = f"{self.solved.name.replace('/', '-')}-{self.turns}"
        for medium, path in files_of(answer["content"], self.home, start):
            files[f"{medium}{'' if medium not in files else len(files)}"] = str(path)
            if not self.is_json:
                screen.say(f"[{medium}: {path}]")
                show(path, screen)
                screen.flush()
                if self.plays:
                    play(path, screen)
        return files

    # -- commands -------------------------------------------------------------------------------------------------------

    def _command(self, line: str) -> None:
        name, _, rest = line.partition(" ")
        doing: Mapping[str, Callable[[str], None]] = {
            "/help": self._help, "/attach": self._attach, "/retry": self._retry, "/undo": self._undo, "/new": self._new,
            "/reset": self._new, "/history": self._history,
            "/save": self.save, "/load": self.load, "/set": self._set, "/unset": self._unset, "/seed": self._seed, "/quit": self._quit,
        }  # fmt: skip
        if name not in doing:
            raise InputError(f"there is no '{name}'; there is: {', '.join(CHAT_NAMES)}. {nearest(name, CHAT_NAMES)}".rstrip())
        doing[name](rest.strip())

    def _help(self, _rest: str) -> None:
        note = self.session.screen.note
        files = "; ".join(f"{name} takes {', '.join(self.types[kind].reads[:4])} and others" for name, kind in self.doors.files.items())
        note(f"A line is a message to {self.solved.name}.{f' Files: {files}.' if files else ''}")
        taken = {ALONE: "Each message stands alone: the graph takes no conversation."}.get(
            self.doors.taking, "It reads what was said before."
        )
        note(taken)
        for command, about in CHAT_COMMANDS.items():
            note(f"  {command:<18}{about}")

    def _attach(self, rest: str) -> None:
        if not rest:
            there = ", ".join(f"{name} ({medium})" for name, medium, _ in self.attached) or "nothing"
            self.session.screen.note(f"attached: {there}")
            return
        found = [self._opened(file) for file in _names(rest)]
        for name, medium, record in found:
            others = [one for one in self.attached if one[0] != name or name in self.doors.lists]
            instead = " in place of the one before, because it takes one" if len(others) < len(self.attached) else ""
            self.attached = [*others, (name, medium, record)]
            if hasattr(record, "convert") and not self.is_json:  # a picture
                show_image(record, self.session.screen)
            self.session.screen.note(f"attached as {name}{instead}; it goes with the next message, an empty line sends it alone")

    def _opened(self, file: str) -> tuple[str, str, Any]:
        """The input that a file is for, its medium, and the record in it. Raises InputError for a file that nothing takes."""
        inputs = self.solved.inputs
        name = next((name for name in self.doors.files if takes_file(inputs[name], file, self.types)), None)
        if name is None:
            ends = ", ".join(dict.fromkeys(ending for kind in self.doors.files.values() for ending in self.types[kind].reads[:6]))
            wanted = f"it takes files such as {ends}" if ends else "it takes no files"
            raise InputError(f"{self.solved.name} takes no file like '{file}': {wanted}")
        medium = self.doors.files[name]
        reading = Reading(f"input '{name}'", say=self.session.screen.note, types=self.types)
        return name, medium, self.types[medium].read(file, reading)

    def _retry(self, _rest: str) -> None:
        if self.asked is None:
            raise InputError("there is no question to ask again: none was asked since the start, or since /undo, /new or /load")
        asked = dict(self.asked)
        again = asked.pop("_attached", None)
        if again is not None:  # it was answered: the answer makes room for another
            self.seed += 1
            self._take_back()
        self.ask({**asked, "time": _now()}, again=again if again is not None else self.attached)

    def _undo(self, _rest: str) -> None:
        if not self.messages:
            raise InputError("there is nothing to take back")
        self.asked = None
        self._take_back()
        self.session.screen.note(f"taken back; the conversation has {len(self.messages)} messages")

    def _take_back(self) -> None:
        """The last question and its answer were not said, and what it was about is what was talked about before."""
        self.messages = self.messages[:-2]
        self.held = self.held_before.pop() if self.held_before else {}

    def _history(self, _rest: str) -> None:
        if not self.messages:
            self.session.screen.note("nothing was said yet")
        for message in self.messages:
            media = [f"[{part['type']}]" for part in message["content"] if part["type"] != WORDS]
            self.session.screen.note(f"{message['role']}: {' '.join([*media, _words_of(message)])}")

    def _new(self, _rest: str) -> None:
        self.messages, self.attached, self.held, self.held_before, self.asked = [], [], {}, [], None
        self.session.screen.note("a new conversation begins")

    def save(self, rest: str) -> None:
        """Write the conversation. Raises InputError for a file that is no page and no JSON, and where there is nothing to write."""
        if not self.messages:
            raise InputError("there is nothing to save: nothing was said yet")
        path = page_or_json(_one_name(rest, "/save takes FILE.html or FILE.json"))
        refuse_for_graph(path, self.solved)
        about = f"A conversation with {self.solved.name}"
        page = conversation_page(self.messages, about=about) if path.suffix.lower() == PAGE_ENDING else None
        write_value(page if page is not None else tuple(self.messages), path)
        self.session.screen.note(f"wrote {len(self.messages)} messages to {path}")

    def load(self, rest: str) -> None:
        """Go on with a conversation of a file. Raises InputError for a file that holds none; then the one that is there stays."""
        file = _one_name(rest, "/load takes FILE.json")
        talk = next(kind for kind in self.types.values() if kind.is_talk)
        try:
            value = json.loads(home_read(file).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(f"'{file}' cannot be read as a conversation: {getattr(error, 'strerror', None) or error}") from error
        reading = Reading(f"'{file}'", say=self.session.screen.note, types=self.types)
        self.messages, self.attached, self.held, self.asked = list(talk.read(value, reading)), [], {}, None
        self.held_before = []
        self.session.screen.note(f"the conversation has {len(self.messages)} messages")

    def _set(self, rest: str) -> None:
        name, equals, value = rest.partition("=")
        if not equals:
            raise InputError("/set takes NAME=VALUE")
        GivenInputs(self.solved.inputs, note=self.session.screen.note, stdin=False, types=self.types).read([(name.strip(), value)])
        self.kept[name.strip()] = value

    def _unset(self, rest: str) -> None:
        if rest not in self.kept:
            raise InputError(f"'{rest}' is not set; set is: {choices(self.kept)}")
        del self.kept[rest]

    def _seed(self, rest: str) -> None:
        if not rest.removeprefix("-").isdigit() or len(rest) > 18:
            raise InputError(f"/seed takes a whole number, found '{rest}'")
        self.seed = int(rest)

    def _quit(self, _rest: str) -> None:
        self.is_over = True


def page_or_json(file: str) -> Path:
    """The file that a conversation goes into. Raises InputError for one that is no page and no JSON, or cannot be written."""
    path = file_named(file)
    if path.suffix.lower() not in (PAGE_ENDING, ".json"):
        raise InputError(f"a conversation goes into a file that ends in {PAGE_ENDING} or .json, not '{file}'")
    check_writable(path)
    return path


def converse(chat: Chat) -> int:
    """Take lines until they end: see `take_lines`. What was attached at the end of a pipe goes out alone."""
    files = f", /attach FILE sends {choices(chat.doors.files, sort=False)} along" if chat.doors.files else ""
    return take_lines(
        chat,
        greeting=f"{chat.solved.name}: a line is a message{files}. /help says more, /quit leaves.",
        stopped="stopped; the conversation stays as it was. /retry asks again, /quit leaves",
        commands=CHAT_NAMES,
        last=lambda: [""] if chat.attached else [],
    )


def _now() -> str:
    return datetime.now(UTC).astimezone().isoformat(timespec="seconds")


def _plain(message: Message) -> Message:
    """A message without what is noted of it."""
    return {"role": message["role"], "content": message["content"]}


def _words_of(message: Message) -> str:
    return "\n".join(part[WORDS] for part in message["content"] if part["type"] == WORDS)


def _names(rest: str) -> list[str]:
    """The files of a line: one whose name may hold spaces, or several, quoted as a shell has them."""
    if home_read(rest).exists():
        return [rest]
    try:
        return shlex.split(rest)
    except ValueError:
        return [rest]


def _one_name(rest: str, wanted: str) -> str:
    if not rest:
        raise InputError(wanted)
    return rest[1:-1] if len(rest) > 1 and rest[0] == rest[-1] and rest[0] in "'\"" else rest
