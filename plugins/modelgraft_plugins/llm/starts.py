"""How the answers of a decoder begin: a start token, the language that is spoken, a task. Which there are says the source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from modelgraft.plugin import choices

AUTO = "auto"  # the language is heard: the likeliest of those that the model knows


class Spoken(Protocol):
    """The fields of llm/seq2seq that say how an answer begins."""

    @property
    def codes(self) -> Mapping[str, str]:
        """Name of a language -> its code."""
        ...

    @property
    def decoder_start_ids(self) -> tuple[int, ...]:
        """The start token, and what follows it."""
        ...

    @property
    def language(self) -> str | None:
        """A name, a code, a token, or auto."""
        ...

    @property
    def task(self) -> str | None:
        """Transcribe or translate."""
        ...

    @property
    def languages(self) -> Mapping[str, int]:
        """The token of a language -> its id."""
        ...

    @property
    def tasks(self) -> Mapping[str, int]:
        """A task -> the id of its token."""
        ...


def token_of(language: str, languages: Mapping[str, int], codes: Mapping[str, str]) -> int:
    """The id of a language by its name, code or token. Raises ValueError with those that there are."""
    word = language.lower()
    for known in (word, f"<|{word}|>", f"<|{codes.get(word, word)}|>"):
        if known in languages:
            return languages[known]
    there = choices(sorted(name.strip("<|>") for name in languages), most=30)
    raise ValueError(f"language: {language!r} is none of those that the source knows (its lang_to_id): {there}")


def starts(config: Spoken, heard: Sequence[int] | None = None) -> list[tuple[int, ...]]:
    """What answers begin with: one for all, or one for each of the languages that were heard.

    Raises ValueError for a language or a task that the source does not know.
    """
    first, *rest = config.decoder_start_ids
    named = None if config.language in (None, AUTO) else token_of(str(config.language), config.languages, config.codes)
    if config.language is not None:
        rest = [token for token in rest if token not in config.languages.values()]
    task = _task_of(config, rest, is_named=named is not None)
    if task is not None:
        rest = [task, *(token for token in rest if token not in config.tasks.values())]
    if named is None and heard is None:
        return [(first, *rest)]
    return [(first, language, *rest) for language in (heard if heard is not None else [named or 0])]


def _task_of(config: Spoken, rest: Sequence[int], *, is_named: bool) -> int | None:
    """The token of the task, where one is to be said; None: what stands there already."""
    if config.task is not None:
        if config.task not in config.tasks:
            raise ValueError(f"task: {config.task!r} is none of those that the source knows: {choices(config.tasks)}")
        return config.tasks[config.task]
    is_said = any(token in config.tasks.values() for token in rest)
    return config.tasks.get("transcribe") if is_named and not is_said else None
