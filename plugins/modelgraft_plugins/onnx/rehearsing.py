"""The gate of components that trace their graphs themselves: what their loop rehearses, with parts in torch and with parts of graphs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from modelgraft.plugin import Assembling, Parity, let_go, parity_of
from modelgraft_plugins.onnx.exporting import ahead, in_order
from modelgraft_plugins.onnx.precision import TOLERANCES

Parts = Mapping[str, Any]  # as loops call them


@dataclass(frozen=True, slots=True)
class Asked:
    """What a loop rehearses, and what parts in torch give for each case of it."""

    cases: Sequence[tuple[Tensor, ...]]
    expected: Sequence[Sequence[Tensor]]


def asked(loop: Assembling, torch_parts: Parts, *, variant: str = "") -> Asked:
    """Rehearse with the parts in torch."""
    with torch.no_grad():
        cases = loop.rehearsals(torch_parts)
        return Asked(cases, ahead(lambda *case: loop.rehearse(torch_parts, case, variant=variant), cases))


def prove(
    loop: Assembling,
    told: Asked,
    assemble: Callable[[], Parts],
    precision: str,
    *,
    variant: str = "",
    many: Callable[[], Parts] | None = None,
) -> Parity:
    """Compare parts with those in torch, on what the loop rehearses; they are assembled when torch is done.

    many  parts that do the same for many rows at once, compared before the others, by what has the most rows, of which they may leave out
          what comes last: the worse of both counts
    """
    cases, expected = told.cases, told.expected

    def compared(assemble: Callable[[], Parts], numbers: Sequence[int], *, is_brief: bool = False) -> Parity:
        let_go()  # of those that were compared before: their weights are never held beside these
        parts, tolerance, some = assemble(), TOLERANCES[precision][0], [cases[number] for number in numbers]
        theirs = [expected[number] for number in numbers]
        tried: Callable[..., Sequence[Tensor]] = partial(_rehearsed, loop, parts, variant)
        if is_brief:  # what they leave out comes last
            mine = ahead(tried, some)
            tried, theirs = in_order(mine), [full[: len(own) or None] for full, own in zip(theirs, mine, strict=True)]
        return parity_of(in_order(theirs), tried, some, tolerance=tolerance, writes=True)

    with torch.no_grad():
        largest = max(range(len(cases)), key=lambda number: sum(tensor.numel() for tensor in cases[number]))
        before = [compared(many, [largest], is_brief=True)] if many is not None else []
        return max([*before, compared(assemble, range(len(cases)))], key=lambda parity: parity.relative)


def _rehearsed(loop: Assembling, parts: Parts, variant: str, *case: Any) -> Sequence[Tensor]:
    """What parts give for a case of what a loop rehearses."""
    return loop.rehearse(parts, case, variant=variant)
