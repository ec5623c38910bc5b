"""The colours of what travels on wires: those that record types say, and greys for numbers."""

from __future__ import annotations

from collections.abc import Mapping

from modelgraft.kernel.checking.matching import ANYTHING
from modelgraft.records.record_type import Types

Colours = Mapping[str, tuple[str, str]]  # of what travels on wires, by family: on paper, and on a dark page
ANY = ANYTHING.name  # the family of what has no colour of its own
# Media have the strong colours that their types say; numbers have greys, by what they mean.
NUMBERS: Colours = {"tokens": ("#8a6d3b", "#cfb27e"), "tensor": ("#5b6470", "#a7b0bc"), "mask": ("#9f5f4b", "#d99b87")}


def palette(types: Types) -> Colours:
    """The colour of each family, in the order of a legend: media, numbers, and anything."""
    media = {name: kind.colour for name, kind in types.items() if kind.colour is not None}
    rest = {ANY: media.pop(ANY)} if ANY in media else {}
    return {**media, **NUMBERS, **rest}


def known(family: str, colours: Colours) -> str:
    """The family, or that of anything when it has no colour of its own."""
    return family if family in colours else ANY
