"""The presets: published sizes that plugins record, and which components each is for, found by letting them read it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from modelgraft.kernel.shelf.registry import Registry
from modelgraft.kernel.words.errors import GraphError
from modelgraft.kernel.words.guard import contained
from modelgraft.kernel.words.kinds import Component, Config, dimension_fields
from modelgraft.sources import parts, views
from modelgraft.sources.refs import parse
from modelgraft.sources.source_view import SourceView

PRESET = "preset:"
LAYERS = ("num_hidden_layers", "encoder_layers", "num_layers", "depth")  # what configs call their number of layers
WIDTH = ("hidden_size", "d_model", "dim")  # and the width of their vectors


@dataclass(frozen=True, slots=True)
class Use:
    """What a component reads from a source.

    source      as `from:` has it, with its part;  values  the config values that it decides
    parameters  that a node of it has
    """

    component: str
    source: str
    values: Mapping[str, Any]
    parameters: int


@dataclass(frozen=True, slots=True)
class Preset:
    """Published sizes without weights.

    source  as `from:` has it;  family  the `model_type` of its config;  about  family and sizes, in words
    plugin  that records it;  uses  the components that read it, each at its part
    also    hub ids and packages whose config is the same one on record
    """

    source: str
    family: str
    about: str
    plugin: str
    uses: tuple[Use, ...]
    also: tuple[str, ...]


def recorded_presets(registry: Registry) -> list[Preset]:
    """The presets, and which components each is for. Raises nothing: one whose folder is damaged says so in `about`."""
    found = []
    for name in registry.recorded_configs:
        if name.startswith(PRESET):
            view = _view(name, registry)
            root = view.root if isinstance(view, SourceView) else {}
            about = _about(root) if isinstance(view, SourceView) else view
            uses = [use for component in registry.components.values() for use in _uses(component, view)]
            plugin = registry.owners.get(("recorded config", name), "")
            family = str(root.get("model_type", ""))
            found.append(Preset(name, family, about, plugin, tuple(uses), _also(name, registry)))
    return found


def _also(name: str, registry: Registry) -> tuple[str, ...]:
    recorded = registry.recorded_configs
    return tuple(other for other, folder in recorded.items() if folder == recorded[name] and not other.startswith(PRESET))


def uses_of(component: Component, registry: Registry) -> Iterator[Use]:
    """What a component reads from the presets, one for each that it serves."""
    for name in registry.recorded_configs:
        if name.startswith(PRESET):
            yield from _uses(component, _view(name, registry))


def _view(name: str, registry: Registry) -> SourceView | str:
    try:
        return views.view(parse(name), registry=registry, folder=None, trusted=False, offline=True)
    except GraphError as error:
        return f"cannot be read: {error.problems[0].found}"


def _uses(component: Component, view: SourceView | str) -> Iterator[Use]:
    if isinstance(view, str) or component.config.from_source.__func__ is Config.from_source.__func__:  # type: ignore[attr-defined]
        return
    seen: list[Mapping[str, Any]] = []
    for part in ("", *parts.part_names(view.root, ())):
        values = _read(component, view, part)
        if values and values not in seen and values != _read(component, _otherwise(view, part), part):
            seen.append(values)
            parameters = _parameters(component, values)
            if parameters is not None:
                yield Use(component.id, f"{view.text}#{part}" if part else view.text, values, parameters)


def _otherwise(view: SourceView, part: str) -> SourceView:
    """The same source with other numbers in a part, or with nothing in it: who reads the same from it does not read the part."""
    if not part:
        return replace(view, root={}, recorded=None)
    own = parts.subconfig(view.root, part)
    others = {key: _other_numbers(own) for key, value in view.root.items() if own is not None and value is own}
    return replace(view, root={**view.root, **others})


def _other_numbers(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value + 1 if isinstance(value, int) and not isinstance(value, bool) else value for key, value in config.items()}


def _read(component: Component, view: SourceView, part: str) -> Mapping[str, Any]:
    """What a component reads from a part, {} when that is none for it."""
    try:
        with contained():
            return dict(component.config.from_source(view.at(part) if part else view))
    except Exception:  # noqa: BLE001 a component says by any error that a source is not for it
        return {}


def _parameters(component: Component, values: Mapping[str, Any]) -> int | None:
    """How many parameters these values make; None where they do not go together, do not say it all, or are of another family."""
    try:
        with contained():
            config = component.config.model_validate(dict(values))
            is_open = any(getattr(config, name) is None for name in dimension_fields(component.config))
            return None if is_open else config.parameters()
    except Exception:  # noqa: BLE001 see _read
        return None


def _about(root: Mapping[str, Any]) -> str:
    """Family and sizes of a config in words: "clip: text 12 layers of 768, vision 24 layers of 1024"."""
    named = [("", root), *((key.removesuffix("_config"), part) for key, part in root.items() if key.endswith("_config"))]
    sized = [f"{name} {size}".strip() for name, part in named if isinstance(part, Mapping) and (size := _size(part))]
    return f"{root.get('model_type', 'sizes')}: {', '.join(sized)}" if sized else str(root.get("model_type", ""))


def _size(config: Mapping[str, Any]) -> str:
    layers, width = (next((config[key] for key in keys if isinstance(config.get(key), int)), None) for keys in (LAYERS, WIDTH))
    if layers is None and width is None:
        return ""
    return f"{layers} layers of {width}" if layers and width else f"{width} wide" if width else f"{layers} layers"
