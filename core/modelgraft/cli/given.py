"""Values of inputs as words of the command line: `image=cat.png`, `image=imgs/*.png`, `text=Hello`, `text=@file.txt`, `text=-`."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from modelgraft.data.cells import is_tensor, read_record, read_tensor, record_kind
from modelgraft.data.naming import Note, files_in, is_file, item_of
from modelgraft.kernel.words.errors import InputError, choices, nearest
from modelgraft.kernel.words.graph import GraphInput
from modelgraft.kernel.words.ports import ListOf, Port
from modelgraft.records.homes import home_read
from modelgraft.records.record_type import Types
from modelgraft.records.shipped import SHIPPED

STDIN = "-"
STDIN_BYTES = 1 << 30  # more than any picture or sound that is read at once
TEXT_BYTES = 16 * 2**20  # a prompt of millions of words: more than any model reads


class GivenInputs:
    """Reads the words of inputs of one command.

    note      hears what is left out of a folder
    stdin     False where stdin is not for values, because commands are read from it
    types     the record types that there are
    files     the files that were read or named, and what each is in a message
    """

    def __init__(self, inputs: Mapping[str, GraphInput], *, note: Note, stdin: bool = True, types: Types = SHIPPED) -> None:
        self._inputs, self._note, self._types = inputs, note, types
        self._stdin_is_for = "" if stdin else "the commands"
        self.files: dict[Path, str] = {}

    def read(self, words: Sequence[tuple[str, str]]) -> dict[str, Any]:
        """Read `name=value` words; a name that is given several times, a folder and a pattern make a batch.

        Raises InputError for a name that is no input, and for a file that cannot be read.
        """
        gathered: dict[str, list[Any]] = {}
        for name, word in words:
            if name not in self._inputs:
                known = choices(self._inputs)
                raise InputError(f"the graph has no input '{name}'; it has: {known}. {nearest(name, self._inputs)}".strip())
            gathered.setdefault(name, []).extend(self.read_word(name, self._inputs[name].port, word))
        return {name: values[0] if len(values) == 1 else _batch(name, values) for name, values in gathered.items()}

    def read_word(self, name: str, port: Port, word: str) -> list[Any]:
        """The records that a word stands for."""
        label = f"input '{name}'"
        if is_tensor(port, word):
            self._name(word, label)
            return [read_tensor(word, label)]
        kind = record_kind(port)
        if is_file(kind, self._types):
            return self._read_files(port, word, label)
        if isinstance(kind, ListOf) and is_file(kind.item, self._types) and not word.lstrip().startswith(("[", "@")):
            words = [entry.strip() for entry in word.split(",") if entry.strip()]
            return [[file for entry in words for file in self._read_files(port, entry, label)]]
        is_lines = word == STDIN or (word.startswith("@") and not word.startswith("@@"))
        return [read_record(kind, self._text(word, label), label, self._types, is_lines=is_lines)]

    def _read_files(self, port: Port, word: str, label: str) -> list[Any]:
        if word == STDIN:
            return [self._from_stdin(label, STDIN_BYTES)]
        if not isinstance(told := self._types[item_of(record_kind(port))].spoken(word, label), str):
            self._name_told(told, label)
            return [told]
        found = files_in(word, port, label, note=self._note, types=self._types)
        for file in found:
            self._name(file, label)
        return list(found)

    def _text(self, word: str, label: str) -> str:
        """A string, or with `@` the contents of a file; `-` and `@-` are stdin, and `@@` a string that starts with `@`."""
        if word.startswith("@@") or (not word.startswith("@") and word != STDIN):
            return _utf8(word.removeprefix("@"), label)
        if word in (STDIN, "@-"):
            return _decoded(self._from_stdin(label, TEXT_BYTES), label, "stdin")
        self._name(word[1:], label)
        return _decoded(_content(word[1:], label), label, f"the file '{word[1:]}'")

    def _from_stdin(self, label: str, most: int) -> bytes:
        if self._stdin_is_for:
            raise InputError(f"{label}: stdin is for {self._stdin_is_for}; name a file")
        self._stdin_is_for = label
        if sys.stdin is None:
            raise InputError(f"{label}: stdin is closed; name a file")
        content = sys.stdin.buffer.read(most + 1)
        if not content:
            raise InputError(f"{label}: stdin is empty")
        if len(content) > most:
            raise InputError(f"{label}: stdin has more than {most:,} bytes{' of text; give a part of it' if most == TEXT_BYTES else ''}")
        return content

    def _name_told(self, told: Any, label: str) -> None:
        """Note the file that a mapping names: `{"file": "clip.mp4", "start_s": 2}`."""
        if isinstance(told, Mapping) and isinstance(file := told.get("file"), str):
            self._name(file, label)

    def _name(self, word: str, label: str) -> None:
        if "\0" not in word and (path := home_read(word)).is_file():
            self.files[path] = label


def read_word(name: str, port: Port, word: str, *, types: Types = SHIPPED) -> Any:
    """Read one word of one input."""
    (found, *more) = GivenInputs({}, note=lambda text: None, types=types).read_word(name, port, word)  # noqa: ARG005 nobody listens
    return [found, *more] if more else found


def _utf8(text: str, label: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        byte = f"the byte {ord(text[error.start]) - 0xDC00:#04x}" if "\udc80" <= text[error.start] <= "\udcff" else f"{text[error.start]!a}"
        raise InputError(f"{label}: this is no UTF-8 text: it holds {byte}; write it into a file as UTF-8 and give @FILE") from error
    return text


def _content(file: str, label: str) -> bytes:
    try:
        with home_read(file).open("rb") as stream:
            content = stream.read(TEXT_BYTES + 1)
    except (OSError, ValueError, RuntimeError) as error:  # a NUL in the name is a ValueError, no home folder a RuntimeError
        raise InputError(f"{label}: the file '{file}' cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if len(content) > TEXT_BYTES:
        raise InputError(f"{label}: the file '{file}' has more than {TEXT_BYTES:,} bytes of text; give a part of it")
    return content


def _decoded(content: bytes, label: str, what: str) -> str:
    """The text in bytes. Its lines end as in a program, whatever system wrote it: `\\r\\n` is `\\n`, and the last one is left off."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        other = "; it looks like UTF-16: save it as UTF-8" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else ""
        raise InputError(f"{label}: {what} is no UTF-8 text: byte {error.start} is {content[error.start]:#04x}{other}") from error
    return text.replace("\r\n", "\n").replace("\r", "\n").removesuffix("\n")


def _batch(name: str, values: list[Any]) -> Any:
    if any(hasattr(value, "shape") for value in values):
        raise InputError(f"input '{name}' is a tensor and given {len(values)} times; its batch is its first axis: give one tensor")
    return values
