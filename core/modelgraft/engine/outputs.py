"""Outputs of a run whose numbers lie in arrays: tensors once somebody reads them, so that who asks for a text alone imports no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, eq=False)
class Lying:
    """An array on the host, in memory of its own, that a user gets as a tensor."""

    array: Any  # of numpy, which is not imported here

    def read(self) -> Any:
        """The tensor, on the same memory."""
        from modelgraft.engine.forms import in_tensors  # light commands tell events, and read none

        return in_tensors(self.array)


class Yielded(Mapping[str, Any]):
    """Values by name; see `Lying`."""

    __slots__ = ("_values",)

    def __init__(self, values: dict[str, Any]) -> None:
        self._values = values

    def __getitem__(self, name: str) -> Any:
        found = self._values[name]
        if type(found) is Lying:
            found = self._values[name] = found.read()
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"Yielded({', '.join(self._values)})"

    def lying(self) -> dict[str, Any]:
        """The same with arrays where nobody has asked for tensors."""
        return {name: value.array if type(value) is Lying else value for name, value in self._values.items()}


def to_be_read(values: dict[str, Any]) -> Mapping[str, Any]:
    """What a user gets of these, some of which may be `Lying`."""
    return Yielded(values) if any(type(value) is Lying for value in values.values()) else values


def as_they_lie(outputs: Mapping[str, Any]) -> Mapping[str, Any]:
    """Outputs for who writes numbers down, whatever holds them: arrays are not made tensors for it."""
    return outputs.lying() if isinstance(outputs, Yielded) else outputs
