"""The section `training` as a JSON Schema, made of its table of words."""

from __future__ import annotations

from typing import Any

from modelgraft.tools.training.stage_words import STAGE_KEYS, STAGES, STAGES_DOC, TUNE_KEYS, TUNES, Key

JsonSchema = dict[str, Any]  # Any: JSON
FILLED: JsonSchema = {"type": "string", "pattern": r"\$\{[^}]*\}", "description": "A param: ${name}."}
NAMES = {str: "string", int: "integer", float: "number", bool: "boolean", dict: "object", list: "array"}


def training_schema() -> JsonSchema:
    """What `training` may hold."""
    keys: JsonSchema = {key: _key(key, known) for key, known in STAGE_KEYS.items()}
    stage = {"type": ["object", "null"], "properties": keys, "additionalProperties": False}
    stages = {"type": "object", "additionalProperties": stage, "minProperties": 1, "description": STAGES_DOC}
    return {"type": "object", "properties": {**keys, STAGES: stages}, "additionalProperties": False}


def _key(name: str, known: Key) -> JsonSchema:
    one = _value(known)
    if known.by_node:
        one = {"anyOf": [one, {"type": "object", "additionalProperties": one}]}
    if name == "train":
        tune = {"enum": list(TUNES)}
        parts = {"type": "array", "items": {"type": "string"}, "minItems": 1, "description": TUNE_KEYS["parts"]}
        full = {
            "type": "object",
            "properties": {"tune": {**tune, "description": TUNE_KEYS["tune"]}, "parts": parts},
            "additionalProperties": False,
        }
        one = {"anyOf": [_list(), {"type": "object", "additionalProperties": {"anyOf": [tune, full, FILLED]}}]}
    elif name == "losses":
        one = {"anyOf": [_list(), {"type": "object", "additionalProperties": {"anyOf": [{"type": "number", "minimum": 0}, FILLED]}}]}
    elif name == "columns":
        one = {"type": "object", "additionalProperties": {"type": "string"}}
    return {"anyOf": [one, FILLED, {"type": "null"}], "description": known.doc}


def _list() -> JsonSchema:
    return {"type": "array", "items": {"type": "string"}}


def _value(known: Key) -> JsonSchema:
    if known.words:
        return {"enum": list(known.words)}
    names = [NAMES[kind] for kind in known.types if not (kind is int and float in known.types)]
    bounds = {key: value for key, value in (("minimum", known.least), ("maximum", known.most)) if value is not None}
    return {"type": names if len(names) > 1 else names[0], **bounds}
