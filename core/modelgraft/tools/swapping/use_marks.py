"""The mark of config fields that say how a graph uses a node, whatever stands in it."""

from __future__ import annotations

from dataclasses import dataclass

from modelgraft.kernel.words.kinds import Config


@dataclass(frozen=True, slots=True)
class KeptMark:
    """Marks a config field as of the use of a node, not of its source: where another source is put there, its value stays.

    `layer: Annotated[int | None, KEPT] = None` of an encoder: a model that takes the last layer but one of its eye takes it of
    another eye as well.
    """


KEPT = KeptMark()


def kept_fields(config: type[Config]) -> tuple[str, ...]:
    """The fields that are marked so."""
    return tuple(name for name, field in config.model_fields.items() if any(isinstance(mark, KeptMark) for mark in field.metadata))
