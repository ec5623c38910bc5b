"""What the config model found, as a person wrote it: pydantic tells a value that may be of several types once for each of them."""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

Detail = Mapping[str, Any]  # of pydantic: loc, msg, input, type
Path = tuple[str, ...]


def details_of(error: ValidationError, model: type[BaseModel]) -> list[tuple[Path, Detail, tuple[str, ...]]]:
    """For each place in the config the keys that lead there, the first thing that was found, and all that was said, in order.

    Of a list that might have been one value as well, what is wrong inside is told, not that it is no value.
    """
    found: dict[Path, list[Detail]] = {}
    for detail in error.errors(include_url=False, include_context=False):
        found.setdefault(_written(detail["loc"], model), []).append(detail)
    inner = {path[:length] for path in found for length in range(1, len(path))}
    return [
        (path, details[0], tuple(dict.fromkeys(detail["msg"] for detail in details)))
        for path, details in found.items()
        if not (path in inner and len(details[0]["loc"]) > len(path))
    ]


def _written(steps: Sequence[Any], kind: Any) -> Path:
    """The keys and places that a document has; without the names of the types that were tried."""
    path: list[str] = []
    left = list(steps)
    while left:
        kinds = _alternatives(kind)
        if len(kinds) > 1:
            tag = str(left.pop(0))
            kind = next((one for one in kinds if _is_called(one, tag)), None)
            continue
        step = left.pop(0)
        path.append(str(step))
        kind = _inside(kinds[0] if kinds else None, step)
    return tuple(path)


def _alternatives(kind: Any) -> list[Any]:
    """The types that a value may have, beside None."""
    if get_origin(kind) is Annotated:
        return _alternatives(get_args(kind)[0])
    if get_origin(kind) in (Union, types.UnionType):
        return [one for one in get_args(kind) if one is not type(None)]
    return [kind]


def _is_called(kind: Any, tag: str) -> bool:
    """Whether pydantic means the type by a word such as `str` or `tuple[str, ...]`."""
    name = (get_origin(kind) or kind).__name__ if hasattr(get_origin(kind) or kind, "__name__") else str(kind)
    return tag.startswith(name) or tag == name.lower()


def _inside(kind: Any, step: Any) -> Any:
    """The type of what lies at a key or place of a value; None where it is not known."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        field = kind.model_fields.get(str(step))
        return field.annotation if field is not None else None
    arguments = get_args(kind)
    if not arguments:
        return None
    if issubclass(get_origin(kind) if isinstance(get_origin(kind), type) else object, Mapping):
        return arguments[1]
    return arguments[step] if isinstance(step, int) and step < len(arguments) and Ellipsis not in arguments[1:] else arguments[0]
