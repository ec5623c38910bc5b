"""Options that several commands take."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from modelgraft.engine import opening
from modelgraft.engine.opening import USUAL_OPENING, Opening, Option, options_of

T = TypeVar("T")

GraphName = Annotated[str, typer.Argument(metavar="GRAPH", help="A YAML file, or the name of a shipped graph.")]
SetOptions = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="P=V", help="Set a param of the graph, or any value by its key, such as nodes.llm.with.seed=1."),
]
Allow = Annotated[
    list[str] | None, typer.Option("--allow", metavar="unused", help="Let unused params, inputs and nodes stand while drafting.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout and nothing else there.")]
Wanted = Annotated[
    list[str] | None, typer.Option("--output", metavar="K", help="What is wanted: an output, or any port as node.port. Repeat for several.")
]


def out_file(word: str) -> Path:
    """The file that an option names for an output. Raises InputError for a word that names none."""
    from modelgraft.records.writing import file_named

    return file_named(word)


def as_usage(read: Callable[[str], T]) -> Callable[[str], T]:
    """What reads a word, so that a word that means nothing is a usage error."""

    @functools.wraps(read)
    def checked(word: str) -> T:
        try:
            return read(word)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from error

    return checked


whole_number, seconds = as_usage(opening.whole_number), as_usage(opening.seconds)


def count(word: str) -> int:
    """An option that is a whole number from 1 on."""
    if (number := whole_number(word)) < 1:
        raise typer.BadParameter(f"found {number}; wanted: a whole number, at least 1")
    return number


def pairs(words: Sequence[str] | None, option: str) -> list[tuple[str, str]]:
    """Cut `name=value` words; raises a usage error for one without `=`."""
    found = []
    for word in words or ():
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise typer.BadParameter(f"{option} takes NAME=VALUE, found '{word}'")
        found.append((name.strip(), value))
    return found


def settings_of(words: Sequence[str] | None) -> dict[str, str]:
    """Read `--set`; a name that is set twice is a usage error."""
    found = pairs(words, "--set")
    for name, value in found:
        if any("\ud800" <= letter <= "\udfff" for letter in value):
            raise typer.BadParameter(f"--set {name}: this is no UTF-8 text: {value!a}")
    twice = {name for name, _ in found if sum(other == name for other, _ in found) > 1}
    if twice:
        raise typer.BadParameter(f"--set gives {', '.join(sorted(twice))} twice")
    return dict(found)


# -- what a graph is opened with ----------------------------------------------------------------------------------------


Command = Callable[..., Any]  # typer keeps commands as any callable


def with_opening(name: str = "", *, taking: Collection[str] = ()) -> Callable[[Command], Command]:
    """Give a command options of an Opening in place of its parameter `opening`.

    name    the command whose options these are: a command of a plugin may take those of "run", for example
    taking  or the options that it takes, by their names
    """
    taken = {key: known for key, (known, _) in options_of(Opening).items() if name in known.on or key in taking}

    def wrap(command: Command) -> Command:
        @functools.wraps(command)
        def call(**given: Any) -> Any:
            asked = {key: given.pop(key) for key in taken}
            for key, value in asked.items():
                _refuse(taken[key], value)
            return command(**given, opening=Opening(**asked))

        options = [_parameter(key, known) for key, known in taken.items()]
        signature = inspect.signature(command, eval_str=True)
        own = signature.parameters.values()
        listed = [one for parameter in own for one in (options if parameter.name == "opening" else [parameter])]
        call.__signature__ = signature.replace(parameters=listed)  # type: ignore[attr-defined]
        call.__annotations__ = {parameter.name: parameter.annotation for parameter in listed}
        return call

    return wrap


def _parameter(name: str, known: Option) -> inspect.Parameter:
    """An option as typer reads it."""
    default, (flag, _, metavar) = getattr(USUAL_OPENING, name), known.flag.partition(" ")
    read = as_usage(known.read) if known.read is not None else None
    found = typer.Option(default, flag, metavar=metavar or None, parser=read, help=known.help)
    kind = bool if isinstance(default, bool) else str | None
    return inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=found, annotation=kind)


def _refuse(known: Option, value: object) -> None:
    if known.words and value not in (None, *known.words):
        raise typer.BadParameter(f"{known.flag.partition(' ')[0]} takes {' or '.join(known.words)}, found '{value}'")
