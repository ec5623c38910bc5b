"""Params and `${name}`: a text that is one `${name}` alone takes the param's value, type and all; `$${` stands for `${`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from modelgraft.kernel.language.document import PARAM_KEYS, PARAM_TYPES, described
from modelgraft.kernel.language.overlay import given
from modelgraft.kernel.language.yaml_reader import Item
from modelgraft.kernel.words.errors import Collector, GraphError, Place, Problem, choices, nearest
from modelgraft.kernel.words.graph import Origin, Param, Value
from modelgraft.kernel.words.order import find_cycles, topological
from modelgraft.kernel.words.wording import option

MOST_FILLED = 10_000_000  # characters and values that params may add to a document: params of params grow exponentially

NAME_PATTERN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
NAME_HINT = "names are letters, digits and _, and start with a letter or _"
_FIELD = re.compile(r"\$\$\{|\$\{([^}]*)(\}?)")


@dataclass(slots=True)
class Scope:
    """The params of one document while it is read.

    declared  the names of all of them, also of those that are not read yet or cannot be
    """

    collector: Collector
    declared: frozenset[str] = frozenset()
    params: dict[str, Param] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    missing: dict[str, Problem] = field(default_factory=dict)  # of those without a value, until one is used
    filled: int = 0  # characters and values that params have added

    def fill(self, item: Item) -> Value:
        """Replace every `${name}` inside an item; unknown names are noted as problems."""
        value = item.value
        if isinstance(value, str) and "${" in value:
            return self._fill_text(value, item)
        if isinstance(value, (dict, list)):
            value = self._fill_parts(item)
        return Value(value, Origin(item.layer, item.at, replaced=item.replaced), item.at.file)

    def _fill_parts(self, item: Item) -> Any:
        if isinstance(item.value, dict):
            return {key: self._fill_parts(part) for key, part in item.value.items()}
        if isinstance(item.value, list):
            return [self._fill_parts(part) for part in item.value]
        return self.fill(item).value

    def _fill_text(self, text: str, item: Item) -> Value:
        names: list[str] = []

        def replaced(match: re.Match[str]) -> str:
            if match.group() == "$${":
                return "${"
            param = self._find(match, item)
            if param is None:
                return ""
            names.append(param.name)
            return self._inside_text(param, item)

        alone = _FIELD.fullmatch(text)
        if alone is not None and alone.group(1) is not None:
            param = self._find(alone, item)
            return self._origin(item, "" if param is None else param.value, [param.name] if param else [], leads=True)
        return self._origin(item, _FIELD.sub(replaced, text), names, leads=text.startswith("${") and ".." not in _FIELD.sub("", text))

    def _find(self, match: re.Match[str], item: Item) -> Param | None:
        name, closed = match.group(1).strip(), match.group(2)
        if not closed:
            hint = "write ${name}, or $${ for the two characters themselves"
            self.collector.add("unknown-param", "'${' has no closing brace", place=item.place, hint=hint)
            return None
        self.used.add(name)
        self.collector.problems += filter(None, [self.missing.pop(name, None)])
        if name in self.params:
            return self._counted(self.params[name], item)
        if name in self.declared:
            return None  # what is wrong with it was told
        hint = " ".join(filter(None, (f"params: {choices(self.declared)}.", nearest(name, self.declared))))
        self.collector.add("unknown-param", f"${{{name}}} names no param", place=item.place, hint=hint)
        return None

    def _counted(self, param: Param, item: Item) -> Param:
        """The param, unless params have added too much by now: then reading ends here."""
        self.filled += _size(param.value)
        if self.filled <= MOST_FILLED:
            return param
        found = f"params repeat more than {MOST_FILLED:,} characters and values"
        self.collector.add("too-large", found, place=item.place, hint="write the values out where they belong")
        raise GraphError(self.collector.problems)

    def _inside_text(self, param: Param, item: Item) -> str:
        if isinstance(param.value, (str, int, float)):
            return str(param.value).lower() if isinstance(param.value, bool) else str(param.value)
        found = f"${{{param.name}}} stands inside a text, but its value is {described(param.value)}"
        hint = f"set {param.name} to text or a number, or let ${{{param.name}}} stand alone"
        self.collector.add("wrong-type", found, place=item.place, hint=hint)
        return ""

    def _origin(self, item: Item, value: Any, names: list[str], *, leads: bool) -> Value:
        """A value that begins with what the user set is the user's; otherwise it is the document's, with a note."""
        place = item.at
        if not names:
            return Value(value, Origin(item.layer, place, replaced=item.replaced), place.file)
        lead = self.params[names[0]].origin
        origins = {name: self.params[name].origin for name in names}
        notes = [f"param {name}{'' if origin.is_users else f', {origin.unworded}'}" for name, origin in origins.items()]
        if lead.is_users and leads:
            return Value(value, Origin(lead.layer, lead.place, f"{place.short}, param {names[0]}"), place.file)
        home = self.params[names[0]].home if leads and lead.place is not None and not lead.is_users else place.file
        return Value(value, Origin(item.layer, place, "; ".join(notes), item.replaced), home)


def _size(value: Any) -> int:
    """The characters and values of a param."""
    if isinstance(value, dict):
        return 1 + sum(_size(part) for part in value.values())
    if isinstance(value, list):
        return 1 + sum(map(_size, value))
    return len(value) if isinstance(value, str) else 1


def read_params(item: Item | None, values: Mapping[str, Value], collector: Collector, *, title: str) -> Scope:
    """Read the `params` section and give each param its value: the one set from outside, or its default.

    values  what was set from outside, by name: by the user, or by the `with` of a graph that uses this one
    """
    declared: Mapping[str, Item] = item.value if item is not None and isinstance(item.value, dict) else {}
    scope = Scope(collector, frozenset(declared))
    if item is not None and not isinstance(item.value, dict):
        collector.add("wrong-type", f"params is {described(item.value)}; wanted a mapping of names to defaults", place=item.at)
    for name in _read_after_each_other(declared, collector):
        entry = declared[name]
        if NAME_PATTERN.fullmatch(name) is None:
            collector.add("bad-name", f"the param '{name}' is no name", place=entry.at, hint=NAME_HINT)
            continue
        param = _param(name, entry, values.get(name), scope)
        if param is not None:
            scope.params[name] = param
    scope.params = {name: scope.params[name] for name in declared if name in scope.params}
    for name in sorted(set(values) - set(declared)):
        found, hint = f"{title} has no param '{name}'; its params: {choices(declared)}", nearest(name, declared)
        collector.add("unknown-param", found, place=values[name].origin.place, hint=hint)
    return scope


def _read_after_each_other(declared: Mapping[str, Item], collector: Collector) -> list[str]:
    """The names of the params, each after those that its default names; those that stand in each other are told and left out."""
    names = {name: _named_in(entry) & declared.keys() for name, entry in declared.items()}
    cycles = find_cycles(names)
    for cycle in cycles:
        found = f"these params stand in each other's defaults: {' -> '.join([*cycle, cycle[0]])}"
        collector.add("cycle", found, place=declared[cycle[0]].at, hint="write one of them out")
    lost = {name for cycle in cycles for name in cycle}
    return topological({name: needed - lost for name, needed in names.items() if name not in lost})


def _named_in(item: Item) -> set[str]:
    """The names of all `${name}` inside an item."""
    if isinstance(item.value, dict):
        return {name for part in item.value.values() for name in _named_in(part)}
    if isinstance(item.value, list):
        return {name for part in item.value for name in _named_in(part)}
    text = item.value if isinstance(item.value, str) else ""
    return {match.group(1).strip() for match in _FIELD.finditer(text) if match.group(1) is not None}


def _param(name: str, entry: Item, value: Value | None, scope: Scope) -> Param | None:
    form = entry.value if isinstance(entry.value, dict) else {"default": entry}
    for key in sorted(set(form) - set(PARAM_KEYS)):
        found = f"the param '{name}' has no key '{key}'; the keys are: {choices(PARAM_KEYS)}"
        scope.collector.add("unknown-key", found, place=form[key].at, hint=nearest(key, PARAM_KEYS))
    default = scope.fill(form["default"]) if "default" in form else None
    kind = _kind(name, form, default, scope.collector)
    doc = form["doc"].value if "doc" in form and isinstance(form["doc"].value, str) else ""
    if default is not None and default.value is not None:
        _check(name, kind, default, form, scope.collector)
    if value is not None:
        value = _read(kind, name, value)
        _check(name, kind, value, form, scope.collector)
        return Param(name, value.value, default.value if default else None, value.origin, doc, entry.at, value.home)
    if default is None:
        found = f"the param '{name}' has no default and is not set"
        scope.missing[name] = Problem("missing-param", found, entry.at, f"set it: {option('set', f'{name}=...')}, or give it a default")
        return Param(name, "", None, Origin("default", entry.at), doc, entry.at, entry.at.file)
    return Param(name, default.value, default.value, default.origin, doc, entry.at, default.home)


def _kind(name: str, form: Mapping[str, Item], default: Value | None, collector: Collector) -> str:
    if "type" in form:
        kind = form["type"].value
        if isinstance(kind, str) and kind in PARAM_TYPES:
            return kind
        hint = nearest(kind, PARAM_TYPES) if isinstance(kind, str) else ""
        found = f"the type of the param '{name}' is {described(kind)}; the types are: {', '.join(PARAM_TYPES)}"
        collector.add("wrong-type", found, place=form["type"].at, hint=hint)
        return "any"
    sample = default.value if default is not None else None
    if isinstance(sample, bool):
        return "bool"
    return next((kind for kind, types in PARAM_TYPES.items() if kind not in ("bool", "any") and isinstance(sample, types)), "any")


def _read(kind: str, name: str, value: Value) -> Value:
    """Text that the user typed is read as YAML reads an unquoted word, unless text is wanted."""
    if not value.origin.is_typed:
        return value
    if kind == "text":
        return replace(value, value=str(value.value)) if not isinstance(value.value, (bool, int, float, list, dict, type(None))) else value
    return replace(value, value=given(name, value.value, layer="set").plain())


def _check(name: str, kind: str, value: Value, form: Mapping[str, Item], collector: Collector) -> None:
    found, place = value.value, value.origin.place
    is_stray_bool = isinstance(found, bool) and kind in ("int", "float")
    if not isinstance(found, PARAM_TYPES[kind]) or is_stray_bool:
        collector.add("wrong-type", f"the param '{name}' is {described(found)}; wanted {kind}", place=place, hint=_quote_hint(kind, found))
        return
    allowed = form["choices"].plain() if "choices" in form else None
    if allowed is not None and not isinstance(allowed, list):
        collector.add("wrong-type", f"choices of the param '{name}' is {described(allowed)}; wanted a list", place=form["choices"].at)
    elif allowed is not None and found not in allowed:
        hint = nearest(str(found), map(str, allowed))
        sentence = f"the param '{name}' is {described(found)}; allowed: {', '.join(map(str, allowed))}"
        collector.add("wrong-value", sentence, place=place, hint=hint)


def _quote_hint(kind: str, found: Any) -> str:
    if kind == "text" and isinstance(found, (bool, int, float)):
        return "put it in quotes"
    return "write true or false" if kind == "bool" and isinstance(found, str) else ""


def unused_params(scope: Scope, section: Item | None) -> list[Problem]:
    """One problem for each param that nothing names. Those of a base are left out: what names them may have been replaced."""
    hint = "write ${%s} where it belongs, or remove it (" + option("allow", "unused") + " while drafting)"
    return [
        Problem("unused-param", f"nothing uses the param '{name}'", param.place, hint % name)
        for name, param in scope.params.items()
        if name not in scope.used and section is not None and section.value[name].layer != "base"
    ]


def user_place(name: str) -> Place:
    """The place of a value that the user set."""
    return Place(option("set", name))
