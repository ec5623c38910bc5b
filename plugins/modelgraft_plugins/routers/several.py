"""Branches that a record asks several times: to ask them, to take together what they gave, and to keep the best of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from modelgraft import ABSENT, Config, Ports, Space, component, port
from modelgraft.plugin import InputError, SpaceOf, TypeOf

if TYPE_CHECKING:
    from modelgraft.plugin import LoadContext

HERE = "modelgraft_plugins.routers.several"
ASKS = "float[batch]"


class Carrying(Config):
    """What goes through as it is; not a component itself."""

    type: Annotated[str | None, TypeOf("x")] = Field(None, description="the port type of `x`; None: that of its wire")
    space: Annotated[Space | None, SpaceOf("x")] = Field(None, description="its value space; None: that of its wire")

    @property
    def carried(self) -> str:
        """The type of what goes through."""
        return str(port(self.type or "object").type)


@component("router/repeat", kind="router", load=f"{HERE}:repeat", cache=False)
class Repeat(Carrying):
    """Ask what follows several times with the same record, such as for four pictures of one text.

    times        how often;  values  or once for each of these: what `take` says, such as the names of voices
    type, space  what is asked with; taken from its wire

    Serves every type of record and tensors. `number` tells the takes apart (0, 1, ...): where something is drawn, wire it to
    `diffusion/noise`. `take` is its number as a text, or one of `values`. `router/gather` takes all of them together again,
    `router/best` one.
    """

    times: int = Field(2, gt=0, le=1000, description="how often each record asks, where there are no values")
    values: tuple[str, ...] = Field((), description="what `take` is, one after the other, once each")

    @property
    def takes(self) -> tuple[str, ...]:
        """What `take` is of each."""
        return self.values or tuple(map(str, range(self.times)))

    def ports(self) -> Ports:
        """One in, several out."""
        takes = {"number": port("int64[batch]", several="takes"), "take": port("text", several="takes")}
        return Ports.of(
            {"x": port(self.carried, space=self.space)}, {"out": port(self.carried, space=self.space, several="takes"), **takes}
        )


@component("router/each", kind="router", load=f"{HERE}:each", cache=False)
class Each(Config):
    """Ask what follows once for each entry of a list, such as for a picture of each line; of an empty list it is not asked.

    type, space  what a list holds; taken from the wire
    """

    type: Annotated[str | None, TypeOf("x")] = Field(None, description="the port type of an entry of `x`; None: that of its wire")
    space: Annotated[Space | None, SpaceOf("x")] = Field(None, description="its value space; None: that of its wire")

    def ports(self) -> Ports:
        """A list in, its entries out."""
        entry = str(port(self.type or "object").type)
        return Ports.of({"x": port(f"list[{entry}]", space=self.space)}, {"out": port(entry, space=self.space, several="entries")})


@component("router/gather", kind="router", load=f"{HERE}:gather", cache=False)
class Gather(Carrying):
    """Take together what a branch gave for each record: a list, in the order of asking; empty where the record asked nothing.

    type, space  what is taken; that of its wire.  failed  what becomes of an ask that the branch gave nothing for: left out, or an error
    """

    failed: Literal["leave", "refuse"] = Field("leave", description="what becomes of an ask that gave nothing: it is left out, or refused")

    def ports(self) -> Ports:
        """Several in, a list out."""
        taken = port(self.carried, space=self.space, several="*")
        return Ports.of({"x": taken}, {"out": port(f"list[{self.carried}]", space=self.space)})


@component("router/asked", kind="router", load=f"{HERE}:asked", arrays=True, cache=False)
class Asked(Config):
    """Tell which records ask a branch at all: `asked`, or `none`. For what the branch needs once for a record, which need not be made then.

    Serves every type of record and tensors: wire into it what the branch begins with.
    """

    type: Annotated[str | None, TypeOf("x")] = Field(None, description="the port type of `x`; None: that of its wire")

    def one_of(self) -> tuple[str, ...]:
        """Asked, or not."""
        return ("asked", "none")

    def ports(self) -> Ports:
        """Several in, a mask for each way out."""
        return Ports.of({"x": port(str(port(self.type or "object").type), several="*")}, dict.fromkeys(self.one_of(), "mask[batch]"))


@component("router/best", kind="router", load=f"{HERE}:best", cache=False)
class Best(Carrying):
    """Keep of what a record has several of the one with the best score; the first of equals. A record without any goes on without.

    type, space  what is kept; that of its wire.  by  whether the largest score is the best, or the smallest
    A score that is no number (NaN) is the worst.
    """

    by: Literal["largest", "smallest"] = Field("largest", description="which score is the best")

    def ports(self) -> Ports:
        """Several with scores in, one of them out with its score and its number; all scores as a list."""
        several = {"x": port(self.carried, space=self.space, several="*"), "score": port(ASKS, several="*")}
        kept = {
            "out": port(f"optional[{self.carried}]", space=self.space),
            "score": port("optional[object]"),
            "number": port("optional[object]"),
        }
        return Ports.of(several, {**kept, "scores": port("object", doc="the scores of all, in the order of asking")})


def repeat(config: Repeat, _context: LoadContext) -> Callable[[Any], Mapping[str, list[Any]]]:
    """Make the function from records to several of each."""
    import torch

    def run(x: Any) -> Mapping[str, list[Any]]:  # Any: a list of records, or a tensor with one in each row
        times = len(config.takes)
        asked = [[one] * times if isinstance(x, list) else one.expand(times, *one.shape) for one in x]
        return {"out": asked, "number": [torch.arange(times)] * len(x), "take": [list(config.takes)] * len(x)}

    return run


def each(_config: Each, _context: LoadContext) -> Callable[[list[Any]], list[list[Any]]]:
    """Make the function from lists to what is asked of each of their entries."""
    return lambda x: [list(entries) for entries in x]


def gather(config: Gather, _context: LoadContext) -> Callable[[list[list[Any]]], list[list[Any]]]:
    """Make the function from what each record has to lists of it."""

    def run(x: list[list[Any]]) -> list[list[Any]]:
        if config.failed == "refuse" and any(one is ABSENT for asked in x for one in asked):
            raise InputError("the branch gave nothing for one of the asks; `failed: leave` goes on without it")
        return [[one for one in asked if one is not ABSENT] for asked in x]

    return run


def asked(_config: Asked, _context: LoadContext) -> Callable[[list[list[Any]]], Mapping[str, Any]]:
    """Make the function from what each record has to masks."""
    import numpy

    def run(x: list[list[Any]]) -> Mapping[str, Any]:
        there = numpy.array([bool(len(one)) for one in x], dtype=bool)
        return {"asked": there, "none": ~there}

    return run


def best(config: Best, _context: LoadContext) -> Callable[[list[list[Any]], list[list[Any]]], Mapping[str, Any]]:
    """Make the function from what each record has, and its scores, to the best of it."""

    def goodness(score: float) -> float:
        return -math.inf if math.isnan(score) else score if config.by == "largest" else -score

    def run(x: list[list[Any]], score: list[list[Any]]) -> Mapping[str, Any]:
        scores = [[None if one is ABSENT else float(one) for one in given] for given in score]
        numbers = [_best(asked, given, goodness) for asked, given in zip(x, scores, strict=True)]
        kept = [_at(asked, number) for asked, number in zip(x, numbers, strict=True)]
        chosen = {"score": [_at(given, number) for given, number in zip(scores, numbers, strict=True)], "scores": scores}
        return {"out": _stacked(kept), "number": [ABSENT if number is None else number for number in numbers], **chosen}

    return run


def _best(asked: list[Any], scores: list[float | None], goodness: Callable[[float], float]) -> int | None:
    """The number of the best of those that are there and have a score."""
    there = {
        number: goodness(score)
        for number, (one, score) in enumerate(zip(asked, scores, strict=False))
        if one is not ABSENT and score is not None
    }
    return max(there, key=there.__getitem__, default=None)


def _at(values: list[Any], number: int | None) -> Any:
    return ABSENT if number is None else values[number]


def _stacked(kept: list[Any]) -> Any:
    """What is kept of each record, as a batch; tensors as one. Raises InputError where a record has no tensor."""
    if not any(hasattr(one, "dtype") and hasattr(one, "unsqueeze") for one in kept):
        return kept
    if any(one is ABSENT for one in kept):
        raise InputError("a record has nothing to choose from, and tensors cannot be left out of a batch: keep records, such as pictures")
    import torch

    return torch.stack(kept)
