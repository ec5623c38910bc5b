"""Put one document over another: `extends`, dotted keys and `--set nodes.llm.from=...`.

What goes over what: sections are merged entry by entry, a node key by key, `with`, `in` and `runtime` by key again.
An entry of `params`, `inputs` or `runtime` is merged key by key too; its plain form is one of its keys (`n: 3` is
`n: {default: 3}`). null removes a node, an input, an output, a wire or a key of a node; within `with` and `params` it
is a value. Dotted keys are applied from the outside in, so that the order in which they stand means nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from modelgraft.kernel.language.document import SECTIONS, described
from modelgraft.kernel.language.yaml_reader import Item, read_yaml, scalar
from modelgraft.kernel.words.errors import Collector, DocumentError, Place, choices, nearest, reading_order
from modelgraft.kernel.words.graph import Origin, Value
from modelgraft.kernel.words.wording import option

NOT_INHERITED = frozenset({"extends", "name", "modelgraft"})
SINGLE = {"runtime": "runtime key", "training": "key of training", "losses": "loss"}  # what an entry of a section is called
WRITTEN_OUT = {"params": "default", "inputs": "type", "runtime": "default"}  # the key that the plain form of an entry stands for


def overlay(base: Item, over: Item, collector: Collector) -> Item:
    """Give the document that results when `over` goes over `base`. Neither is changed."""
    merged = {key: item for key, item in base.value.items() if key not in NOT_INHERITED}
    for key, item in over.value.items():
        below = merged.get(key)
        if key in SECTIONS and below is not None and _both_mappings(below, item):
            merged[key] = item._replace(value=_section(key, below.value, item.value, collector))
        else:
            merged[key] = item
    return over._replace(value=merged)


def _both_mappings(below: Item, item: Item) -> bool:
    return isinstance(below.value, dict) and isinstance(item.value, dict)


def _section(section: str, below: Mapping[str, Item], over: Mapping[str, Item], collector: Collector) -> dict[str, Item]:
    merged = dict(below)
    for name, item in over.items():
        if item.value is None and section != "params":
            _remove(merged, name, item, f"{SINGLE.get(section, section[:-1])} '{name}'", collector)
        elif section == "training" and name in merged and _both_mappings(merged[name], item):
            merged[name] = item._replace(value=_section(section, merged[name].value, item.value, collector))
        elif section in ("nodes", "losses") and name in merged and _both_mappings(merged[name], item):
            merged[name] = merged[name]._replace(value=_node(name, merged[name].value, item.value, collector))
        elif section in WRITTEN_OUT and name in merged:
            merged[name] = _entry(section, merged[name], item)
        else:
            merged[name] = _noting(item, merged.get(name))
    return merged


def _remove(entries: dict[str, Item], name: str, item: Item, what: str, collector: Collector) -> None:
    if entries.pop(name, None) is None:
        hint = nearest(name, entries) or f"there are: {choices(entries)}"
        collector.add("unknown-override", f"null removes the {what}, but the graph below has none", place=item.at, hint=hint)


def _node(node: str, below: Mapping[str, Item], over: Mapping[str, Item], collector: Collector) -> dict[str, Item]:
    merged = dict(below)
    for key, item in over.items():
        if item.value is None:
            _remove(merged, key, item, f"key '{key}' of {node}", collector)
        elif key in ("with", "in", "runtime") and key in merged and _both_mappings(merged[key], item):
            merged[key] = item._replace(value=_entries(key, node, merged[key].value, item.value, collector))
        else:
            merged[key] = _noting(item, merged.get(key))
    return merged


def _entries(key: str, node: str, below: Mapping[str, Item], over: Mapping[str, Item], collector: Collector) -> dict[str, Item]:
    merged = dict(below)
    for name, item in over.items():
        if item.value is None and key != "with":
            _remove(merged, name, item, f"entry '{name}' of {node}.{key}", collector)
        elif key == "with" and name in merged and _both_mappings(merged[name], item):
            merged[name] = item._replace(value=_entries(key, node, merged[name].value, item.value, collector))
        else:
            merged[name] = _noting(item, merged.get(name))
    return merged


def _entry(section: str, below: Item, over: Item) -> Item:
    """An entry of params, inputs or runtime: key by key where one is written out.

    A plain value over a param that is declared with type and choices changes its default and keeps the rest; a plain type
    over an input, and a plain value over a placement by node, replace the whole.
    """
    if not isinstance(over.value, dict):
        if section == "params" and isinstance(below.value, dict):
            return over._replace(value={**below.value, "default": _noting(over, below.value.get("default"))})
        return _noting(over, below)
    there = below.value if isinstance(below.value, dict) else {WRITTEN_OUT[section]: below}
    merged = {**there, **{key: _noting(item, there.get(key)) for key, item in over.value.items()}}
    return below._replace(value=merged, layer=over.layer)


def _noting(item: Item, below: Item | None) -> Item:
    if below is None or isinstance(below.value, (dict, list)):
        return item
    return item._replace(replaced=(Value(below.value, Origin(below.layer, below.at)), *below.replaced))


def without_dotted_keys(root: Item) -> tuple[Item, list[tuple[str, Item]]]:
    """Split a document into the part in nested form and its dotted keys, such as `nodes.llm.from`."""
    dotted = [(key, item) for key, item in root.value.items() if key.partition(".")[0] in SECTIONS and "." in key]
    if not dotted:
        return root, []
    names = {key for key, _ in dotted}
    return root._replace(value={key: item for key, item in root.value.items() if key not in names}), dotted


def override(root: Item, changes: Iterable[tuple[str, Item]], collector: Collector) -> Item:
    """Apply dotted keys, the shorter ones first. Each must name a node that there is, unless it gives a whole node."""
    for dotted, item in sorted(changes, key=_outside_in):
        parts = dotted.split(".")
        entries = root.value.get(parts[0])
        known: Mapping[str, Any] = entries.value if entries is not None and isinstance(entries.value, dict) else {}
        if not all(parts) or len(parts) < 2:
            collector.add("unknown-override", f"'{dotted}' does not name a value", place=item.at, hint="write e.g. nodes.llm.from")
        elif parts[0] in ("nodes", "losses") and len(parts) > 2 and parts[1] not in known:
            hint = " ".join(filter(None, (f"there are: {choices(known)}.", nearest(parts[1], known))))
            collector.add("unknown-node", f"'{dotted}' changes the node '{parts[1]}', but there is none", place=item.at, hint=hint)
        elif (blocked := _blocked(root, parts)) is not None:
            where, there = blocked
            collector.add("wrong-type", f"'{dotted}' changes a part of {where}, but that is {described(there.value)}", place=item.at)
        else:
            root = overlay(root, _nested(root, parts, item), collector)._replace(place=root.place)
    return root


def _outside_in(change: tuple[str, Item]) -> tuple[object, ...]:
    """Flags go over what is set; of each, the shorter keys come first."""
    dotted, item = change
    return item.layer == "flag", dotted.count("."), reading_order(item.at), dotted


def _blocked(root: Item, parts: list[str]) -> tuple[str, Item] | None:
    """The value on the way to a dotted key that has no parts, if there is one."""
    here = root
    for depth, part in enumerate(parts[:-1]):
        below = here.value.get(part)
        if below is None or below.value is None or (depth == 1 and len(parts) == 3 and parts[0] in WRITTEN_OUT):
            return None
        if not isinstance(below.value, dict):
            return ".".join(parts[: depth + 1]), below
        here = below
    return None


def _nested(root: Item, parts: list[str], item: Item) -> Item:
    for part in reversed(parts):
        item = Item({part: item}, item.place, item.key, item.layer)
    kept = {key: root.value[key] for key in NOT_INHERITED if key in root.value}
    return Item({**kept, **item.value}, item.place, None, item.layer)


def given(name: str, value: Any, *, layer: str) -> Item:
    """Make an item of a value that the user gave by `--set name=value` or as an argument.

    Text is read as YAML reads an unquoted word, so that `5` is a number, `[a, b]` a list, and `"5"` with
    its quotes a text. Braces are text, because they stand in prompts, but for keys of `training` and `losses`.
    """
    place = Place(option("set", name)) if layer == "set" else Place(name)
    ends = ("[]", '""', "''", "{}") if name.startswith(("training.", "losses.")) else ("[]", '""', "''")
    return _item(value_of_words(value, ends) if isinstance(value, str) else value, place, layer)


def value_of_words(text: str, ends: tuple[str, ...] = ("[]", '""', "''")) -> Any:
    """What a text that the user gave stands for: what YAML has for an unquoted word, or for one between these letters."""
    try:
        return read_yaml(text, file="--set").plain() if text[:1] + text[-1:] in ends else scalar(text)
    except DocumentError:
        return text


def _item(value: Any, place: Place, layer: str) -> Item:
    if isinstance(value, Mapping):
        return Item({str(key): _item(part, place, layer) for key, part in value.items()}, place, place, layer)
    if isinstance(value, (list, tuple)):
        return Item([_item(part, place, layer) for part in value], place, place, layer)
    plain = value if value is None or isinstance(value, (bool, int, float, str)) else str(value)  # a Path, for one
    return Item(plain, place, place, layer)
