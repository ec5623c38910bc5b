"""Routers without code: which records go which way, and where the ways meet again.

A router gives masks for `when:`. Of the masks of one router exactly one is true for each record, because all have an `else`;
`router/merge` then gives every record the value of the branch that it went through.
Branches that a record asks several times: `several.py`, `joining.py`; those that a language model asks: `signals.py`, `interleaving.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from modelgraft import Config, Port, Ports, Space, component, hookimpl, port
from modelgraft.plugin import SpaceOf, TypeOf
from modelgraft_plugins.routers.interleaving import Interleave
from modelgraft_plugins.routers.joining import Join
from modelgraft_plugins.routers.several import Asked, Best, Each, Gather, Repeat
from modelgraft_plugins.routers.signals import SignalTokens

if TYPE_CHECKING:
    from modelgraft.plugin import SolvedNode

ELSE = "else"
MASK = "mask[batch]"
Texts = str | tuple[str, ...]
Where = Literal["anywhere", "word", "start", "end", "whole"]
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@component("router/match", kind="router", load="modelgraft_plugins.routers.deciding:match", arrays=True, cache=False)
class Match(Config):
    """Tell which texts hold one of some words or patterns: `matches`, and `else` for the others.

    text     one text or several, as they are written;  pattern  one regular expression or several
    cases    several ways: a name for each, with its text or texts. Each is an output; the first that matches wins, and `else`
             is for what none matches. With `patterns: true` they are regular expressions
    where    anywhere in the text, as a whole word, at its start, at its end, or the whole text
    case     capitals differ from small letters
    A label is matched as a text is; of a list of texts one must match.
    """

    text: Texts = Field((), description="the text or texts to look for")
    pattern: Texts = Field((), description="the regular expression or expressions to look for")
    cases: dict[str, Texts] = Field({}, description="several ways: the text or texts of each, by name")
    patterns: bool = Field(False, description="the cases are regular expressions")
    where: Where = Field("anywhere", description="where in the text it must stand")
    case: bool = Field(False, description="capitals differ from small letters")

    @field_validator("text", "pattern")
    @classmethod
    def _is_something(cls, texts: Texts) -> Texts:
        _refuse_empty(listed(texts))
        return texts

    @model_validator(mode="after")
    def _means_something(self) -> Match:
        if bool(self.cases) == bool(self.text or self.pattern):
            raise ValueError("it takes either `cases`, or `text` and `pattern`: say what to look for")
        for name, texts in self.cases.items():
            if NAME.fullmatch(name) is None or name == ELSE:
                raise ValueError(f"the case '{name}' cannot name an output: take a word of letters, digits and _, and not '{ELSE}'")
            if not listed(texts):
                raise ValueError(f"the case '{name}' has no text to look for")
            _refuse_empty(listed(texts))
        for expression in (expression for texts in self.searched().values() for expression in texts):
            _refuse_pattern(expression)
        return self

    def searched(self) -> dict[str, tuple[str, ...]]:
        """The regular expressions by output, in the order in which they are tried."""
        if self.cases:
            return {name: _expressions(texts, are_patterns=self.patterns) for name, texts in self.cases.items()}
        return {"matches": _expressions(self.text, are_patterns=False) + _expressions(self.pattern, are_patterns=True)}

    def one_of(self) -> tuple[str, ...]:
        """The first case that matches, or else."""
        return (*self.searched(), ELSE)

    def ports(self) -> Ports:
        """Texts in, a mask for each way out."""
        return Ports.of({"text": "text | label | list[text]"}, dict.fromkeys(self.one_of(), MASK))


def listed(texts: Texts) -> tuple[str, ...]:
    """One text or several, as several."""
    return (texts,) if isinstance(texts, str) else texts


def _expressions(texts: Texts, *, are_patterns: bool) -> tuple[str, ...]:
    return tuple(f"(?:{text})" if are_patterns else re.escape(text) for text in listed(texts))


def _refuse_empty(texts: Iterable[str]) -> None:
    if "" in texts:
        raise ValueError("an empty text matches everything: write what to look for")


def _refuse_pattern(expression: str) -> None:
    try:
        re.compile(expression)
    except re.error as error:
        raise ValueError(f"the pattern {expression.removeprefix('(?:').removesuffix(')')!r} cannot be read: {error.msg}") from error


class Bounds(Config):
    """What a number is compared with: `above` and `below` are outputs where they are given, and `else` is for all other numbers."""

    above: float | None = Field(None, description="the output `above` is for what is greater than this")
    below: float | None = Field(None, description="the output `below` is for what is less than this")

    @model_validator(mode="after")
    def _is_bounded(self) -> Bounds:
        if self.above is None and self.below is None:
            raise ValueError("it needs `above`, `below` or both: the number that decides")
        if self.above is not None and self.below is not None and self.below > self.above:
            raise ValueError(f"numbers between {self.above:g} and {self.below:g} would be above and below: let `below` be at most `above`")
        return self

    def one_of(self) -> tuple[str, ...]:
        """Above, below, or neither."""
        return (*(side for side in ("above", "below") if getattr(self, side) is not None), ELSE)

    def masks(self) -> dict[str, str | Port]:
        """A mask for each way."""
        return dict.fromkeys(self.one_of(), MASK)


@component("router/threshold", kind="router", load="modelgraft_plugins.routers.deciding:threshold", arrays=True, cache=False)
class Threshold(Bounds):
    """Tell which scores are `above` or `below` a number; `else` is for the others, a score that is no number among them.

    of  "one": a score per record; "largest" or "smallest" of several, such as probabilities; or the number of one of them, from 0
    """

    of: Literal["one", "largest", "smallest"] | Annotated[int, Field(ge=0)] = Field("one", description="which score decides")

    def ports(self) -> Ports:
        """Scores in, a mask for each way out."""
        return Ports.of({"score": "float[batch]" if self.of == "one" else "float[batch scores]"}, self.masks())

    def review(self, node: SolvedNode) -> Iterable[tuple[str, str, str]]:
        """The score that is asked for must be there."""
        tensor = node.in_ports["score"].tensor
        axis = tensor.axes[-1] if tensor is not None else None
        if isinstance(self.of, int) and axis is not None and axis.size is not None and self.of >= axis.size:
            found = f"{node.name} looks at score {self.of}, but there are {axis.size}, numbered from 0"
            yield "config-mismatch", found, f"set of: {axis.size - 1} or less"


MEASURES: Mapping[str, tuple[str, str]] = {  # unit -> the port that is measured, and what is counted
    "letters": ("text | label", "letters of a text"),
    "words": ("text | label", "words of a text, as white space parts them"),
    "items": ("list[object]", "entries of a list"),
    "tokens": ("mask[batch tokens]", "tokens, as the mask of a tokenizer has them"),
    "seconds": ("audio", "seconds of a sound"),
}


@component("router/length", kind="router", load="modelgraft_plugins.routers.deciding:length", arrays=True, cache=False)
class Length(Bounds):
    """Tell which texts, lists, tokens or sounds are longer (`above`) or shorter (`below`) than a number; `else` is for the others."""

    unit: Literal["letters", "words", "items", "tokens", "seconds"] = Field("letters", description="what is counted")

    def ports(self) -> Ports:
        """What is measured in, a mask for each way out."""
        return Ports.of({"x": MEASURES[self.unit][0]}, self.masks())


@component("router/merge", kind="router", load="modelgraft_plugins.routers.merging:merge", arrays="either", cache=False)
class Merge(Config):
    """Let branches meet: each record has the value of the first of `options` that it went through.

    Serves every type of record and tensors; all options are of one.
    type, space  what travels through; taken from the first wire
    """

    type: Annotated[str | None, TypeOf("options")] = Field(None, description="the port type of the options; None: that of the first wire")
    space: Annotated[Space | None, SpaceOf("options")] = Field(None, description="their value space; None: that of the first wire")

    @field_validator("type")
    @classmethod
    def _is_a_type(cls, type: str | None) -> str | None:
        if type is not None and (len(port(type).types) > 1 or port(type).optional):
            raise ValueError(f"'{type}' is not one type")
        return type

    def ports(self) -> Ports:
        """A list of one type in, that type out."""
        type_ = port(self.type or "object").type
        options = port(f"list[{type_}]", space=self.space)
        return Ports.of({"options": options}, {"out": port(str(type_), space=self.space)})


@hookimpl
def register_components(register: Callable[[Any], None]) -> None:
    """Offer the components of this plugin."""
    for subject in (Match, Threshold, Length, Merge, Repeat, Each, Gather, Join, Best, Asked, SignalTokens, Interleave):
        register(subject)
