"""What the config model found, as a person wrote it: pydantic tells a value that may be of several types once for each of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

Detail = Mapping[str, Any]  # of pydantic: loc, msg, input, type
Path = tuple[str, ...]


def details_of(error: ValidationError, given: Mapping[str, Any]) -> list[tuple[Path, Detail, tuple[str, ...]]]:
    """For each place in the config the keys that lead there, the first thing that was found, and all that was said, in order.

    given  what the config was to be made of

    Of a list that might have been one value as well, what is wrong inside is told, not that it is no value.
    """
    found: dict[Path, list[Detail]] = {}
    for detail in error.errors(include_url=False, include_context=False):
        found.setdefault(_written(detail["loc"], given, is_missing=detail["type"] == "missing"), []).append(detail)
    inner = {path[:length] for path in found for length in range(1, len(path))}
    return [
        (path, details[0], tuple(dict.fromkeys(detail["msg"] for detail in details)))
        for path, details in found.items()
        if not (path in inner and len(details[0]["loc"]) > len(path))
    ]


def _written(steps: Sequence[Any], given: Any, *, is_missing: bool) -> Path:
    """The keys and places that a document has; without the names of the types that were tried, which lead nowhere in what is given."""
    path: list[str] = []
    here = given
    for index, step in enumerate(steps):
        if (isinstance(here, Mapping) and step in here) or (isinstance(here, list | tuple) and isinstance(step, int) and step < len(here)):
            here = here[step]
        elif isinstance(here, BaseModel) and isinstance(step, str) and hasattr(here, step):
            here = getattr(here, step)
        elif index and not (is_missing and index == len(steps) - 1):
            continue  # the first step is a field, also where its default is what is wrong
        path.append(str(step))
    return tuple(path)
