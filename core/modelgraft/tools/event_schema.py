"""The events of a run as a JSON Schema (draft 2020-12): what `run --stream --json` prints, line by line."""

from __future__ import annotations

from typing import Annotated, Any, get_args, get_origin, get_type_hints

from modelgraft.engine.events import CLASSES, EVENT_KINDS, Event
from modelgraft.engine.result import Result
from modelgraft.tools.schema import DIALECT, Schema

TEXTS: Schema = {"type": "array", "items": {"type": "string"}}
RESULT: Schema = {
    "type": "object",
    "properties": {
        "outputs": {"type": "object", "description": "Each output by its name."},
        "timings": {"type": "object", "additionalProperties": {"type": "number"}, "description": "Seconds of each node that ran."},
        "cached": {**TEXTS, "description": "The nodes that the cache spared."},
        "warnings": {**TEXTS, "description": "What works but not as one may expect."},
    },
    "required": ["outputs", "timings", "cached", "warnings"],
}
ERROR: Schema = {
    "type": "object",
    "properties": {
        "kind": {"type": "string", "description": "The class of the error; defect when it is none of ours."},
        "message": {"type": "string"},
        "node": {"type": "string"},
        "component": {"type": "string"},
        "place": {"type": "string", "description": "The file and line of the node that refused a value."},
    },
    "required": ["kind", "message"],
}
TYPES: dict[Any, Schema] = {  # Any: types as annotations have them
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    int | None: {"type": ["integer", "null"]},
    float | None: {"type": ["number", "null"]},
    tuple[str, ...]: TEXTS,
    Any: {},
    BaseException: ERROR,
    Result: RESULT,
}


def event_schema() -> Schema:
    """Describe every event that a run can tell of: one alternative for each kind."""
    return {
        "$schema": DIALECT,
        "title": "modelgraft event",
        "description": "One thing that happened during a run.",
        "oneOf": [_of(kind, event) for kind, event in CLASSES.items()],
    }


def _of(kind: str, event: type[Event]) -> Schema:
    hints = get_type_hints(event, include_extras=True)
    fields = {name: _typed(hint) for name, hint in hints.items() if get_origin(hint) is Annotated}
    properties: Schema = {"kind": {"const": kind}, **fields}
    return {
        "title": event.__name__,
        "description": EVENT_KINDS[kind],
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _typed(hint: Any) -> Schema:
    kind, about = get_args(hint)
    return {**TYPES[kind], "description": about}
