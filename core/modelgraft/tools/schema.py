"""The graph language as a JSON Schema (draft 2020-12), with the components that are installed: for editors and checks.

Every `${param}` may stand for any value, so wherever a number is wanted a text with `${` in it is allowed too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from modelgraft.kernel.language.document import (
    ADAPTER_KEYS,
    INPUT_KEYS,
    LANGUAGE_VERSION,
    NODE_KEYS,
    NODE_RUNTIME_KEYS,
    PARAM_KEYS,
    PARAM_TYPES,
    RUNTIME_KEYS,
    SECTIONS,
    SUBGRAPH_KEYS,
    TOP_KEYS,
    RuntimeKey,
)
from modelgraft.kernel.language.shipped_graphs import shipped_names
from modelgraft.kernel.shelf.registry import Registry
from modelgraft.kernel.words.guard import contained
from modelgraft.kernel.words.kinds import Component, Config
from modelgraft.kernel.words.ports import DTYPE_FAMILIES, Port
from modelgraft.records.record_type import RecordType, types_of
from modelgraft.tools.training.stage_schema import training_schema

Schema = dict[str, Any]  # Any: JSON

DIALECT = "https://json-schema.org/draft/2020-12/schema"
NAME = "^[A-Za-z_][A-Za-z0-9_]*$"
NODE_NAME = "^(?!inputs$)[A-Za-z_][A-Za-z0-9_]*$"
FILLED: Schema = {"type": "string", "pattern": r"\$\{[^}]*\}", "description": "A param: ${name}."}
HELD = ("additionalProperties", "items")  # what a mapping or a list holds, which may be a param by itself
REF: Schema = {
    "type": "string",
    "pattern": r"^[A-Za-z_][A-Za-z0-9_]*(/[A-Za-z_][A-Za-z0-9_]*)*(\.[A-Za-z_][A-Za-z0-9_]*)?$|\$\{",
    "description": "A port: node.port, node when it has one output, graph/node.port inside a graph that stands as a node, or inputs.name.",
}
NULL: Schema = {"type": "null", "description": "Removes what the graph below has here (with `extends`)."}


def graph_schema(registry: Registry) -> Schema:
    """Describe every graph that can be written with the installed components."""
    return {
        "$schema": DIALECT,
        "title": "modelgraft graph",
        "description": "A graph of multimodal model parts. Editor set-up: # yaml-language-server: $schema=graph.schema.json",
        "type": "object",
        "properties": _top_level(),
        "patternProperties": {rf"^({'|'.join(SECTIONS)})\.": {"description": "A value by its dotted key; goes over what is below."}},
        "additionalProperties": False,
        "required": ["modelgraft"],
        "if": {"not": {"required": ["extends"]}},
        "then": {
            "required": ["nodes", "outputs"],
            "properties": {"nodes": {"additionalProperties": {"type": "object", "required": ["use"]}}},
        },
        "$defs": {
            "name": {"pattern": NAME},
            "nodeName": {"pattern": NODE_NAME},
            "ref": REF,
            "wire": {"anyOf": [{"$ref": "#/$defs/ref"}, {"type": "array", "items": {"$ref": "#/$defs/ref"}, "minItems": 1}]},
            "portType": _port_type(registry),
            "runtime": _runtime(per_node=False),
            "node": _node(registry),
            "adapter": _adapter(registry),
            **{_place(component.id): _component(component) for component in registry.components.values()},
        },
    }


def _place(id: str) -> str:
    """The name of a component's config in `$defs`: a JSON pointer must not hold a slash."""
    return f"component:{id.replace('/', ':')}"


def _top_level() -> Schema:
    shapes: dict[str, Schema] = {
        "modelgraft": {"const": LANGUAGE_VERSION},
        "name": {"type": "string", "minLength": 1},
        "params": _named({"anyOf": [_param(), {"not": {"type": "object"}}]}),
        "inputs": _named({"anyOf": [{"$ref": "#/$defs/portType"}, _input(), NULL]}),
        "nodes": _named({"anyOf": [{"$ref": "#/$defs/node"}, NULL]}, names="nodeName"),
        "outputs": _named({"anyOf": [{"$ref": "#/$defs/ref"}, NULL]}),
        "runtime": _runtime(per_node=True),
        "losses": _named({"anyOf": [{"$ref": "#/$defs/node"}, NULL]}, names="nodeName"),
        "training": training_schema(),
        "extends": {"type": "string", "anyOf": [{"enum": list(shipped_names())}, {"pattern": r"\.ya?ml$"}]},
    }
    return {key: {**shape, "description": TOP_KEYS[key]} for key, shape in shapes.items()}


def _named(entry: Schema, *, names: str = "name") -> Schema:
    return {"type": "object", "propertyNames": {"$ref": f"#/$defs/{names}"}, "additionalProperties": entry}


def _closed(docs: Mapping[str, str], shapes: Mapping[str, Schema], **more: Any) -> Schema:
    described = {key: {**shape, "description": docs[key]} for key, shape in shapes.items()}
    return {"type": "object", "properties": described, "additionalProperties": False, **more}


def _param() -> Schema:
    shapes: dict[str, Schema] = {
        "type": {"enum": list(PARAM_TYPES)},
        "default": {},
        "doc": {"type": "string"},
        "choices": {"type": "array", "minItems": 1},
    }
    return _closed(PARAM_KEYS, shapes)


def _input() -> Schema:
    shapes: dict[str, Schema] = {"type": {"$ref": "#/$defs/portType"}, "default": {}, "doc": {"type": "string"}}
    return _closed(INPUT_KEYS, shapes, required=["type"])


def _port_type(registry: Registry) -> Schema:
    """Any combination is allowed; the single record types are offered with their meaning."""
    records = [{"const": name, "description": _meant(kind)} for name, kind in sorted(types_of(registry).items())]
    atom = rf"(?:{'|'.join(map(re.escape, registry.record_types))})|(?:{'|'.join(DTYPE_FAMILIES)})\[[^\[\]]*\]"
    atom = rf"(?:{atom}|list\[(?:{atom})\])"
    whole = rf"{atom}(?: *\| *{atom})*"
    return {
        "type": "string",
        "anyOf": [*records, {"pattern": rf"^(?:{whole}|optional\[{whole}\])$"}, FILLED],
        "examples": ["list[text]", "float[batch tokens 768]", "optional[text]", "mask[batch]"],
    }


def _meant(kind: RecordType) -> str:
    """What a record type is, and its files."""
    told = [f"read from {' '.join(kind.reads)}" if kind.reads else "", f"written to {' '.join(kind.writes)}" if kind.writes else ""]
    return "; ".join([kind.meaning, *filter(None, told)])


def _runtime(*, per_node: bool) -> Schema:
    def shape(key: RuntimeKey) -> Schema:
        one = _placement(key)
        several = {"type": "object", "additionalProperties": one, "description": "{default: value, node: value}"}
        return {"anyOf": [one, several, NULL] if per_node and not key.is_whole else [one, NULL]}

    known = RUNTIME_KEYS if per_node else NODE_RUNTIME_KEYS
    shapes = {name: shape(key) for name, key in known.items()}
    return _closed({name: key.doc for name, key in known.items()}, shapes)


def _placement(key: RuntimeKey) -> Schema:
    if bool in key.types:
        return {"anyOf": [{"type": "boolean"}, FILLED]}
    if key.types == (str, int):
        return {"anyOf": [{"type": "string", "minLength": 1}, {"type": "integer", "exclusiveMinimum": 0}]}
    if str not in key.types:
        return {"anyOf": [{"type": "number" if float in key.types else "integer", "exclusiveMinimum": 0}, FILLED]}
    return {"anyOf": [{"enum": list(key.words)}, FILLED]} if key.words else {"type": "string", "minLength": 1}


# -- nodes --------------------------------------------------------------------------------------------------------------


def _node(registry: Registry) -> Schema:
    flag = {"anyOf": [{"type": "boolean"}, FILLED, NULL]}
    text = {"anyOf": [{"type": "string", "minLength": 1}, NULL]}
    shapes: dict[str, Schema] = {
        "use": _use(registry, graphs=True),
        "from": text,
        "with": {"type": ["object", "null"]},
        "in": {"anyOf": [{"type": "object", "additionalProperties": {"anyOf": [{"$ref": "#/$defs/wire"}, NULL]}}, NULL]},
        "frozen": flag,
        "when": {"anyOf": [{"$ref": "#/$defs/ref"}, NULL]},
        "lazy": flag,
        "adapters": {"anyOf": [{"type": "array", "items": {"$ref": "#/$defs/adapter"}}, NULL]},
        "share": text,
        "runtime": {"anyOf": [{"$ref": "#/$defs/runtime"}, NULL]},
    }
    whole_graph = {
        "if": {"properties": {"use": {"pattern": "^graph:"}}, "required": ["use"]},
        "then": {"properties": {key: False for key in NODE_KEYS if key not in SUBGRAPH_KEYS}},
    }
    cases = [_case(component) for component in registry.components.values()]
    return _closed(NODE_KEYS, shapes, allOf=[whole_graph, *cases, _alternatives(registry)])


def _adapter(registry: Registry) -> Schema:
    shapes: dict[str, Schema] = {
        "use": _use(registry, graphs=False),
        "from": {"type": "string", "minLength": 1},
        "with": {"type": "object"},
        "in": {"type": "object", "additionalProperties": {"$ref": "#/$defs/wire"}},
    }
    cases = [_case(component) for component in registry.components.values() if component.kind == "adapter"]
    return _closed(ADAPTER_KEYS, shapes, required=["use"], allOf=cases)


def _use(registry: Registry, *, graphs: bool) -> Schema:
    """The ids that there are, each with its sentence; with a version; or several, of which the source picks one."""
    known = [{"const": component.id, "description": component.summary} for component in registry.components.values()]
    ids = "|".join(re.escape(component.id) for component in registry.components.values()) or "(?!)"
    versioned = [rf"(?:{ids})@[0-9]+", rf"(?:{ids})(?: *\| *(?:{ids}))+"]
    names = [f"graph:{name}" for name in shipped_names()] if graphs else []
    files = [{"pattern": r"^graph: *[^ ].*\.ya?ml$", "description": "A graph of your own, as one node."}] if graphs else []
    return {
        "type": "string",
        "anyOf": [*known, {"pattern": f"^(?:{'|'.join(versioned)})$"}, *([{"enum": names}] if names else []), *files, FILLED],
    }


def _case(component: Component) -> Schema:
    """What holds for the nodes that use a component."""
    return {
        "if": {"properties": {"use": {"pattern": f"^{re.escape(component.id)}(@[0-9]+)?$"}}, "required": ["use"]},
        "then": {"$ref": f"#/$defs/{_place(component.id)}"},
    }


def _alternatives(registry: Registry) -> Schema:
    """Of `a | b` the source picks one: what is written must suit one of them."""
    listed = [
        {
            "properties": {"use": {"pattern": rf"(?:^|\| *){re.escape(component.id)}(?: *\||$)"}},
            "$ref": f"#/$defs/{_place(component.id)}",
        }
        for component in registry.components.values()
    ]
    return {"if": {"properties": {"use": {"pattern": r"\|"}}, "required": ["use"]}, "then": {"anyOf": listed}} if listed else {}


def _component(component: Component) -> Schema:
    described: Schema = {
        "title": component.id,
        "description": f"{component.summary} ({component.kind}, plugin {component.plugin or 'none'})",
        "properties": {"with": _config(component)},
    }
    inputs = component.config.declared_ports.inputs
    if inputs and component.kind != "adapter" and component.config.ports is Config.ports:  # no config makes other ports
        described["properties"]["in"] = {"properties": {name: _port(port) for name, port in inputs.items()}}
        described["if"] = {"not": {"required": ["adapters"]}}  # adapters add ports of their own
        described["then"] = {"properties": {"in": {"propertyNames": {"enum": list(inputs)}}}}
    return described


def _port(port: Port) -> Schema:
    sentence = f"{port}: {port.doc}" if port.doc else str(port)
    return {"anyOf": [{"$ref": "#/$defs/wire"}, NULL], "description": sentence}


# -- configs ------------------------------------------------------------------------------------------------------------


def _config(component: Component) -> Schema:
    """The config model as pydantic describes it, with references drawn in, nothing required and params allowed.

    Nothing is required because a source or a neighbour may give what `with` leaves out.
    """
    try:
        with contained():
            raw = component.config.model_json_schema(mode="validation", ref_template="#/$defs/{model}")
    except Exception:  # noqa: BLE001 a field of a type that JSON does not know, or code of a plugin, which may raise anything
        raw = {"properties": {name: {} for name in component.config.model_fields}}
    properties = {name: _drawn_in(shape, raw.get("$defs", {}), 0) for name, shape in raw.get("properties", {}).items()}
    return {
        "type": ["object", "null"],
        "description": component.summary,
        "properties": {name: _or_filled(shape) for name, shape in properties.items()},
        "additionalProperties": False,
    }


def _or_filled(shape: Schema) -> Schema:
    about: Schema = {key: shape[key] for key in ("description", "default", "title") if key in shape}
    rest = _filled_within({key: value for key, value in shape.items() if key not in about})
    return {**about, "anyOf": [*(rest["anyOf"] if set(rest) == {"anyOf"} else [rest]), FILLED]}


def _filled_within(shape: Schema) -> Schema:
    """The members of a mapping, a list or a model within the config may be params too, such as the sides of a size."""
    inner = {key: _or_filled(shape[key]) for key in ("additionalProperties", "items") if isinstance(shape.get(key), dict) and shape[key]}
    if isinstance(shape.get("properties"), dict):
        inner["properties"] = {name: _or_filled(one) for name, one in shape["properties"].items()}
    ways = {"anyOf": [_filled_within(way) for way in shape["anyOf"]]} if "anyOf" in shape else {}
    return {**shape, **inner, **ways}


def _drawn_in(shape: Any, models: Mapping[str, Any], depth: int) -> Any:
    """Put the models that a config refers to in the place of the references; those within themselves stay open."""
    if isinstance(shape, list):
        return [_drawn_in(part, models, depth) for part in shape]
    if not isinstance(shape, dict):
        return shape
    if "$ref" in shape:
        name = str(shape["$ref"]).rpartition("/")[2]
        return (
            {} if depth > 5 else _drawn_in({**models.get(name, {}), **{k: v for k, v in shape.items() if k != "$ref"}}, models, depth + 1)
        )
    drawn = {key: _drawn_in(part, models, depth) for key, part in shape.items()}
    return {**drawn, **{key: _or_filled(drawn[key]) for key in HELD if isinstance(drawn.get(key), dict)}}
