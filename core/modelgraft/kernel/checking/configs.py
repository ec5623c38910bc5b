"""Configs of nodes: component default < source < what the documents and the user give, each value with its origin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from modelgraft.kernel.checking.drafts import Draft, Part
from modelgraft.kernel.checking.members import details_of
from modelgraft.kernel.words.errors import Collector, GraphError, Place, Problem, choices, nearest
from modelgraft.kernel.words.graph import GraphSpec, NodeSpec, Origin, Value, Wire
from modelgraft.kernel.words.guard import contained, said, shown
from modelgraft.kernel.words.kinds import Component, Config, Face, defect_of, face_of
from modelgraft.kernel.words.source import Source, Sources


@dataclass(slots=True)
class Configs:
    """Makes the parts of nodes. Sources are looked at once, and nodes that are configured alike share their ports."""

    graph: GraphSpec
    problems: Collector
    sources: Sources
    _views: dict[tuple[str, Path | None, bool], Source | GraphError] = field(default_factory=dict)
    _made: dict[tuple[Any, ...], tuple[Config, Face]] = field(default_factory=dict)
    _told: set[tuple[str, str]] = field(default_factory=set)
    _read: dict[tuple[str, int], Mapping[str, Any] | str | GraphError] = field(default_factory=dict)

    def pick(self, spec: NodeSpec, components: tuple[Component, ...]) -> Component:
        """Of several components that a node may be, the first that its source is made for; the first of all when none is."""
        if len(components) == 1 or spec.source is None:
            return components[0]
        view = self._view(Part(spec.name, spec.name, spec.place, components[0]), spec.source, spec.folder)
        made_for = (component for component in components if view is not None and isinstance(self._reading(component, view), Mapping))
        return next(made_for, components[0])

    def draft(self, spec: NodeSpec, component: Component, adapters: tuple[Component, ...], share: NodeSpec | None) -> Draft | None:
        """Make a node's parts; None after noting what is wrong. A node that shares weights takes over the config of the other."""
        source = spec.source or (share.source if share else None)
        given = {**share.config, **spec.config} if share else spec.config
        folder = spec.folder if spec.source or share is None else share.folder
        host = Part(spec.name, spec.name, spec.place, component)
        are_made = [self._configure(host, given, source, folder)]
        grafts = []
        for index, (adapter, graft) in enumerate(zip(spec.adapters, adapters, strict=True)):
            part = Part(f"{spec.name}.adapters[{index}]", spec.name, adapter.place, graft)
            are_made.append(self._configure(part, adapter.config, adapter.source, adapter.folder))
            grafts.append(part)
        if not all(are_made):
            return None
        wires: dict[str, Wire] = dict(spec.wires)
        for adapter in spec.adapters:
            wires.update({name: wire for name, wire in adapter.wires.items() if name not in wires})
        draft = Draft(spec, host, tuple(grafts), share.name if share else None, wires)
        draft.open_ports()
        self._refuse_clashes(draft)
        return draft

    def _refuse_clashes(self, draft: Draft) -> None:
        for part in draft.adapters:
            for name in part.face.declared.inputs:
                if draft.owners[name] is not part:
                    found = f"{part.component.id} adds an input '{name}' to {draft.name}, which has one of that name already"
                    self.problems.add("port-clash", found, place=part.place, node=draft.name, port=name, hint="take another adapter")

    def remake(self, part: Part, solved: Mapping[str, Any]) -> bool:
        """Put solved dimensions, or types of what is wired, into a part's config. True when its ports read differently afterwards."""
        made = self._make(part, {**part.given, **solved})
        if made is None:
            return False
        before = part.face.declared
        part.given.update(solved)
        part.take(*made)
        return part.face.declared != before

    # -- inside ---------------------------------------------------------------------------------------------------------

    def _configure(self, part: Part, given: Mapping[str, Value], source: Value | None, folder: Path | None) -> bool:
        """Give a part its config; False after noting what is wrong."""
        keys_are_known = self._check_keys(part, given)
        part.source = self._view(part, source, folder) if source is not None else None
        written = source.origin.place if source is not None else None
        read = self._from_source(part, part.source, written) if part.source is not None else {}
        if read is None or not keys_are_known or (source is not None and part.source is None):
            return False
        from_source = {key: Value(value, Origin("source", written, part.source.text if part.source else "")) for key, value in read.items()}
        part.given = {key: value.value for key, value in {**from_source, **given}.items()}
        part.origins = dict.fromkeys(part.component.config.model_fields, Origin("default"))
        part.origins |= {key: value.origin for key, value in from_source.items()}
        part.origins |= {key: _over(value.origin, from_source.get(key)) for key, value in given.items()}
        made = self._make(part, part.given)
        if made is None:
            return False
        part.take(*made)
        part.remarks = _remarks(part, part.source, given, written) if part.source is not None else ()
        return True

    def _check_keys(self, part: Part, given: Mapping[str, Value]) -> bool:
        fields = part.component.config.model_fields
        unknown = [key for key in given if key not in fields]
        for key in unknown:
            there = f"it has: {choices(fields, sort=False)}. {nearest(key, fields)}".rstrip()
            found = f"{part.scope} ({part.component.id}) has no config key '{key}'; {there}"
            self.problems.add("unknown-key", found, place=given[key].origin.place, node=part.node)
        return not unknown

    def _view(self, part: Part, source: Value, folder: Path | None) -> Source | None:
        """Look at a source; each distinct one once. The problem is told for each node that names it."""
        if not isinstance(source.value, str):
            found = f"{part.scope}: `from` takes one text, e.g. org/model#part; it is {source.value!r}"
            self.problems.add("source-syntax", found, place=source.origin.place, node=part.node)
            return None
        key = (source.value, folder, source.origin.is_users)
        if key not in self._views:
            try:
                self._views[key] = self.sources.find(source.value, folder=folder, trusted=source.origin.is_users)
            except GraphError as error:
                self._views[key] = error
        view = self._views[key]
        if isinstance(view, GraphError):
            self._tell(part, view, source.origin.place)
            return None
        return view

    def _tell(self, part: Part, error: GraphError, place: Place | None) -> None:
        """Note what is wrong with a source: once, however many nodes take something from it."""
        for problem in error.noted:
            if (problem.code, problem.found) not in self._told:
                self._told.add((problem.code, problem.found))
                self.problems.problems.append(replace(problem, place=problem.place or place, node=problem.node or part.node))

    def _reading(self, component: Component, view: Source) -> Mapping[str, Any] | str | GraphError:
        """What a component reads from a source; each pair once."""
        key = (component.id, id(view))
        if key not in self._read:
            self._read[key] = _read_source(component, view)
        return self._read[key]

    def _from_source(self, part: Part, view: Source, place: Place | None) -> Mapping[str, Any] | None:
        read = self._reading(part.component, view)
        if isinstance(read, GraphError):
            self._tell(part, read, place)
            return None
        if isinstance(read, str):
            found = f"{part.scope}: {part.component.id} cannot use {view.text}: {read}"
            hint = "name another part after #, or another component"
            self.problems.add("source-mismatch", found, place=place, node=part.node, hint=hint)
            return None
        return read

    def _make(self, part: Part, values: Mapping[str, Any]) -> tuple[Config, Face] | None:
        component = part.component
        key = (component.id, id(part.source), *((name, repr(value)) for name, value in sorted(values.items())))
        if key in self._made:
            return self._made[key]
        if oversized := self._oversized(part, values):
            self.problems.problems.extend(oversized)
            return None
        try:
            with contained():
                config = component.config.model_validate(values)
                made = self._made[key] = (config, face_of(config))
        except ValidationError as error:
            self.problems.problems.extend(_explain(error, part, values))
        except Exception as error:  # noqa: BLE001 validators and ports are code of a plugin, which may raise anything
            found = f"plugin '{component.plugin}': {component.id} could not tell the ports of {part.scope}: {said(error)}"
            hint = defect_of(component, error)
            self.problems.add("component-failed", found, place=part.place, node=part.node, hint=hint)
        else:
            return made
        return None

    def _oversized(self, part: Part, values: Mapping[str, Any]) -> list[Problem]:
        """Sizes that no model has: to count or to build them would keep the checks, or the machine, busy for ever."""
        if set(values) - set(part.component.config.model_fields):
            return []  # told as keys that are not there
        return [
            Problem("wrong-value", f"{part.scope}.{key} is {held}, wanted {wanted}", _place_of(part, name), node=part.node)
            for name, key, held, wanted in self.sources.too_large(values)
        ]


def _over(origin: Origin, below: Value | None) -> Origin:
    """The origin of a value that goes over what the source says."""
    return origin if below is None else replace(origin, replaced=(*origin.replaced, below))


def _place_of(part: Part, key: str) -> Place:
    """Where a config value is written, or else its node."""
    origin = part.origins.get(key)
    return (origin.place if origin else None) or part.place


def _read_source(component: Component, view: Source) -> Mapping[str, Any] | str | GraphError:
    """What the source decides, or the sentence that says why it decides nothing."""
    try:
        with contained():
            found = dict(component.config.from_source(view) if (trained := view.states(component.id)) is None else trained)
    except GraphError as error:
        return error
    except ValueError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001 a config from elsewhere may lack or hold anything
        return f"its config cannot be read as one of this kind ({said(error)})"
    unknown = sorted(set(found) - set(component.config.model_fields))
    if unknown:
        return f"plugin '{component.plugin}' reads {choices(unknown)} from it, which are no config keys: a defect of the plugin"
    return found


def _remarks(part: Part, view: Source, given: Mapping[str, Value], written: Place | None) -> tuple[Problem, ...]:
    """What the source states and the component does not heed, at the line that names the source; of a trained file nothing."""
    place, component = written or part.place, part.component
    try:
        found = [] if view.states(component.id) else list(component.config.unheeded(view))
    except Exception as error:  # noqa: BLE001 a config from elsewhere may lack or hold anything
        sentence = f"plugin '{component.plugin}': {component.id} could not tell what it does not heed of {view.text}: {said(error)}"
        return (Problem("unheeded", sentence, place, "this is a defect of the plugin", node=part.node),)
    return tuple(
        Problem("unheeded", f"{part.scope}: {sentence}", place, hint, node=part.node)
        for sentence, hint, *key in found
        if not given.keys() & set(key)
    )


def _explain(error: ValidationError, part: Part, values: Mapping[str, Any]) -> list[Problem]:
    """One problem for each thing that the config model found, at the line of its key."""
    problems = []
    fields, who = part.component.config.model_fields, f"{part.scope} ({part.component.id})"
    for path, detail, messages in details_of(error, values):
        key, origin = ".".join(path), part.origins.get(path[0]) if path else None
        if detail["type"] == "missing":
            described = fields[key].description if key in fields else None
            found = f"{who} needs the config key '{key}'{f': {described}' if described else ''}"
            problems.append(Problem("missing-key", found, part.place, f"write with: {{{key}: ...}}", node=part.node))
            continue
        came = f" ({origin.unworded})" if origin is not None and origin.layer in ("source", "solved") else ""
        told = f"{part.scope}.{key} is {shown(detail['input'])}{came}" if path else f"the config of {who} does not hold together"
        place = _place_of(part, path[0]) if path else part.place
        problems.append(Problem("wrong-value", f"{told}: {', or '.join(map(_in_words, messages))}", place, node=part.node))
    return problems


def _in_words(message: str) -> str:
    """What pydantic says, as the second half of a sentence; kinds have the names that documents have for them."""
    words = message.removeprefix("Value error, ").removeprefix("Assertion failed, ").replace("valid tuple", "list")
    return (words[:1].lower() + words[1:]).replace("valid list", "list").replace("valid dictionary", "mapping, such as {name: value}")
