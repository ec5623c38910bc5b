"""What a graph is opened with: every option in one place.

An option is a field of `Placing` or `Opening`: its type, its default, a sentence, and where else it can be given. To add one,
add a field: `modelgraft.open` and `modelgraft.plan` take it by name, the commands that it says take its flag, and pipeline and
loader find it in the Opening that they are handed. Nothing else lists the options.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
import os
import re
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from modelgraft.kernel.words.errors import InputError, nearest
from modelgraft.kernel.words.sizes import SIZES, sizes_of

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T")
P = ParamSpec("P")
Form = TypeVar("Form", bound="DataclassInstance")
Subject = TypeVar("Subject")
Given = TypeVar("Given")

RUNS = ("run", "repl", "map")  # the commands that run a graph
EXPORTS = ("now", "later", "never")  # when a backend that keeps exports makes one that is not there
OPENS = (*RUNS, "export")  # and the one that loads it alone


@dataclass(frozen=True, slots=True)
class Option:
    """All that is known of an option beside its name, its type and its default.

    help     one sentence, for `--help` and for `help(modelgraft.open)`; `also` is what Python must know beside it
    flag     how a command has it, as "--seed N"; "" when no command does;  on  the commands that do
    words    the only values beside the default;  fits  what tells a value that means something;  wanted  such a value in words
    read     makes a value of a word of the command line; raises ValueError that says what was found and wanted
    runtime  the key of a graph's `runtime` that it goes over; "" when a graph cannot say it
    environment  the variable that holds when nobody else says it
    """

    help: str
    flag: str = ""
    on: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    fits: Callable[[Any], bool] = lambda _: True
    wanted: str = ""
    read: Callable[[str], Any] | None = None  # Any: of the type of the option
    runtime: str = ""
    environment: str = ""
    also: str = ""


def option(default: T, sentence: str, **facts: Any) -> T:  # Any: the fields of Option
    """A field of an Opening."""
    found: T = dataclasses.field(default=default, metadata={"option": Option(sentence, **facts)})
    return found


# -- words of the command line ------------------------------------------------------------------------------------------


def whole_number(word: str) -> int:
    """Read a whole number."""
    if not re.fullmatch(r"[+-]?\d{1,18}", str(word)):
        raise ValueError(f"found '{word}'; wanted: a whole number")
    return int(word)


def seconds(word: str) -> float:
    """Read a time in seconds, more than 0."""
    try:
        time_s = float(word)
    except ValueError:
        time_s = 0.0
    if not 0 < time_s < math.inf:
        raise ValueError(f"found '{word}'; wanted: seconds, more than 0")
    return time_s


def threads(word: str) -> int:
    """Read a number of threads."""
    if (number := whole_number(word)) < 1:
        raise ValueError(f"found {number}; wanted: a whole number, at least 1")
    return number


def sizes(word: str) -> str:
    """Read sizes by device, and leave them as they are written."""
    sizes_of(word)
    return word


def _are_sizes(value: object) -> bool:
    try:
        return value is None or bool(sizes_of(value))
    except ValueError:
        return False


def is_seed(value: object) -> bool:
    """Whether generators of numbers take it: a whole number of 64 bits."""
    return isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63


def _is_count(value: object) -> bool:
    return value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 1)


def _is_time(value: object) -> bool:
    return value is None or (isinstance(value, int | float) and value > 0)


SEED = "a whole number, from -2**63 up to 2**63 - 1"

# -- the options --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Placing:
    """Where and how precisely nodes run; each goes over what the graph says. A plan needs nothing more.

    Raises InputError for a value that means nothing.
    """

    backend: str | None = option(
        None,
        "Where nodes run: torch, or another backend that a plugin offers; auto is one that exports, and torch until it has.",
        flag="--backend NAME",
        on=(*RUNS, "plan"),
        runtime="backend",
    )
    device: str | None = option(
        None, "cpu, cuda:0.", flag="--device D", on=(*OPENS, "plan"), runtime="device",
        also="'auto' is the first GPU, else the CPU.",
    )  # fmt: skip
    dtype: str | None = option(
        None, "The dtype to run in, such as bfloat16; a precision goes over it.", flag="--dtype T", on=(*RUNS, "plan"), runtime="dtype"
    )
    precision: str | None = option(
        None,
        "Of the weights, where a backend has several: float32, float16, int8, w8 or w4.",
        flag="--precision P",
        on=(*OPENS, "plan"),
        runtime="precision",
    )
    threads: int | None = option(
        None, "The threads that a node computes with, on a backend that gives each its own.", flag="--threads N", on=(*RUNS, "plan"),
        runtime="threads", read=threads, fits=_is_count, wanted="a whole number, at least 1, or None",
    )  # fmt: skip
    max_memory: str | int | Mapping[str, str | int] | None = option(
        None, "The most that loaded nodes may take: 8GB on each device, or cpu=2GB,cuda:0=8GB.",
        flag="--max-memory SIZES", on=(*OPENS, "plan"), read=sizes, fits=_are_sizes, wanted=f"{SIZES}; or None",
        runtime="max_memory", environment="MODELGRAFT_MAX_MEMORY",
    )  # fmt: skip
    export: str | None = option(
        None, "Where a node has no export yet: make it now, later beside the answers of torch, or never.",
        flag="--export now|later|never", on=(*RUNS, "plan"), words=EXPORTS,
        also="None: now for a backend that is named, later for auto.",
    )  # fmt: skip

    def __post_init__(self) -> None:
        for name, (known, default) in options_of(type(self)).items():
            value = getattr(self, name)
            if (known.words and value not in (default, *known.words)) or not known.fits(value):
                raise InputError(f"{name} is {value!r}; wanted: {known.wanted or _told(known, default)}")

    def placement(self) -> dict[str, Any]:  # Any: what the options hold
        """What was asked for, by its key of `runtime`."""
        return {known.runtime: getattr(self, name) for name, (known, _) in options_of(type(self)).items() if known.runtime}


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening(Placing):
    """What a pipeline is opened with."""

    fallback: str | None = option(
        None, "Let what another backend cannot run stay on torch, with a warning.", flag="--fallback torch", on=OPENS, words=("torch",),
        also="None: that is an error.",
    )  # fmt: skip
    seed: int = option(0, "The seed of everything that is drawn.", flag="--seed N", on=OPENS, read=whole_number, fits=is_seed, wanted=SEED)
    init: str | None = option(
        None, "Random numbers for sources without weights, such as presets.", flag="--init random", on=OPENS, words=("random",),
        also="None: that is an error. A part without a source is new, and starts from them in any case, with a warning.",
    )  # fmt: skip
    cache_dir: str | Path | None = option(  # noqa: RUF009 a field, whatever its type
        None, "Keep results here between runs.", flag="--cache DIR", on=("run", "repl"), read=Path,
        also="None keeps none beyond this process.",
    )  # fmt: skip
    timeout_s: float | None = option(
        None, "The most seconds that any node may take.", flag="--timeout S", on=("run", "repl"), read=seconds, fits=_is_time,
        wanted="seconds, more than 0, or None",
    )  # fmt: skip
    offline: bool = option(default=False, sentence="Fetch nothing: use files on disk and the cache alone.")
    cache_bytes: int | None = option(None, "The most that results take in memory; 0 keeps none, None the usual 512 MB.")
    timings: bool = option(default=True, sentence="Keep how long each node took.")
    trace: bool = option(default=False, sentence="Measure what the outputs of each node take, for `trace.chrome_trace`.")
    debug: bool = option(
        default=False, sentence="Look at every call of a node for inputs that it writes to, not at the first one alone; this takes time."
    )


# -- who takes them -----------------------------------------------------------------------------------------------------


def options_of(form: type) -> Mapping[str, tuple[Option, Any]]:  # Any: of the type of the option
    """The options of a form, by name, each with its default, in the order in which they stand there."""
    return {field.name: (field.metadata["option"], field.default) for field in dataclasses.fields(form)}


def given_in(opening: Placing, form: type[Placing] = Opening) -> dict[str, Any]:  # Any: of the type of each option
    """The options of a form as they stand in an Opening, for who takes them by name."""
    return {name: getattr(opening, name) for name in options_of(form)}


def in_environment(form: type[Placing] = Placing) -> dict[str, str]:
    """What the environment says of the options, by their key of `runtime`. Raises InputError for what means nothing."""
    found = {known: os.environ.get(known.environment, "") for known, _ in options_of(form).values() if known.environment}
    for known, value in found.items():
        if value and not known.fits(value):
            wanted = known.wanted.removesuffix("or None").rstrip(",; ")  # a variable that says nothing is left out
            raise InputError(f"{known.environment} is {value!r}; wanted: {wanted}")
    return {known.runtime: value for known, value in found.items() if value}


def _told(known: Option, default: object) -> str:
    return f"{', '.join(map(repr, known.words))}, or {default!r}"


def taking(
    form: Callable[P, Form],
) -> Callable[[Callable[[Subject, Form], Given]], Callable[Concatenate[Subject, P], Given]]:
    """Let a function of a graph and a form take the options of the form by name.

    Editors, `help` and type checkers see each of them, with its type and its default.
    """

    def wrap(function: Callable[[Subject, Form], Given]) -> Callable[Concatenate[Subject, P], Given]:
        make: Any = form  # Any: called with options whose names are not known here
        run: Any = function
        first, *_ = inspect.signature(function).parameters.values()
        own = list(inspect.signature(form).parameters.values())
        known = [parameter.name for parameter in own]

        @functools.wraps(function)
        def call(*subject: Any, **options: Any) -> Given:  # Any: as the signature says
            if first.name in options and not subject:
                subject = (options.pop(first.name),)
            if unknown := next((name for name in options if name not in known), None):
                raise TypeError(f"{function.__name__}() has no option '{unknown}'. {nearest(unknown, known)}".rstrip())
            given: Given = run(*subject, make(**options))
            return given

        signature = inspect.signature(function)
        call.__signature__ = signature.replace(parameters=[first, *own])  # type: ignore[attr-defined]
        call.__doc__ = f"{inspect.getdoc(function)}\n\nOptions:\n{_listed(form)}"
        return call

    return wrap


def _listed(form: Any) -> str:  # Any: a class, which `taking` sees as what makes a form
    known = options_of(form)
    width = max(map(len, known))
    return "\n".join(_in_a_paragraph(f"{name:{width}}  {found.help} {found.also}", width) for name, (found, _) in known.items())


def _in_a_paragraph(text: str, width: int) -> str:
    return textwrap.fill(text.replace("--", ""), 120, initial_indent=" " * 4, subsequent_indent=" " * (width + 6))


USUAL_OPENING = Opening()  # what silence means
