"""Options that several commands take."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

GraphName = Annotated[str, typer.Argument(metavar="GRAPH", help="A YAML file, or the name of a shipped graph.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="P=V", help="Set a param of the graph, or any value by its key, such as nodes.llm.with.seed=1."),
]
Allow = Annotated[
    list[str] | None, typer.Option("--allow", metavar="unused", help="Let unused params, inputs and nodes stand while drafting.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout and nothing else there.")]
BackendName = Annotated[str | None, typer.Option("--backend", metavar="NAME", help="Where nodes run: torch, onnx or what a plugin offers.")]
Device = Annotated[str | None, typer.Option("--device", metavar="D", help="cpu, cuda:0.")]
Dtype = Annotated[
    str | None,
    typer.Option("--dtype", metavar="T", help="The dtype to run in, such as bfloat16; --precision goes over it."),
]
Precision = Annotated[
    str | None, typer.Option("--precision", metavar="P", help="Of the weights on onnx: float32, float16, int8, w8 or w4.")
]
Fallback = Annotated[
    str | None, typer.Option("--fallback", metavar="torch", help="Let what onnx cannot run stay on torch, with a warning.")
]
Wanted = Annotated[
    list[str] | None, typer.Option("--output", metavar="K", help="What is wanted: an output, or any port as node.port. Repeat for several.")
]


def out_file(word: str) -> Path:
    """The file that an option names for an output. Raises InputError for a word that names none."""
    from modelgraft.records.media import file_named

    return file_named(word)


def whole_number(word: str) -> int:
    """An option that is a whole number; raises a usage error for another word."""
    if not re.fullmatch(r"[+-]?\d{1,18}", str(word)):
        raise typer.BadParameter(f"found '{word}'; wanted: a whole number")
    return int(word)


def count(word: str) -> int:
    """An option that is a whole number from 1 on."""
    if (number := whole_number(word)) < 1:
        raise typer.BadParameter(f"found {number}; wanted: a whole number, at least 1")
    return number


def seconds(word: str) -> float:
    """An option that is a time in seconds, more than 0."""
    try:
        time_s = float(word)
    except ValueError:
        time_s = 0.0
    if not 0 < time_s < math.inf:
        raise typer.BadParameter(f"found '{word}'; wanted: seconds, more than 0")
    return time_s


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
