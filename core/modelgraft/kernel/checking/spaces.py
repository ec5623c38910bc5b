"""Value spaces: numbers that have the right shape and mean something else, such as pixels normalised for another encoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelgraft.kernel.checking.drafts import Draft, Part
from modelgraft.kernel.words.errors import Collector, Place
from modelgraft.kernel.words.graph import Ref
from modelgraft.kernel.words.ports import Port


def check_spaces(drafts: Mapping[str, Draft], problems: Collector) -> None:
    """Note every wire whose two ends state facts that differ. An end that states no space is not checked."""
    for draft in drafts.values():
        for name, refs in draft.wired.items():
            wanted = draft.in_ports[name]
            for ref in refs:
                giver = drafts.get(ref.node)
                if giver is not None and wanted.space is not None:
                    _compare(draft, name, wanted, giver, ref, problems)


def _compare(draft: Draft, name: str, wanted: Port, giver: Draft, ref: Ref, problems: Collector) -> None:
    given = giver.out_ports[ref.port]
    if given.space is None or wanted.space is None:
        return
    place, taker = ref.place or draft.wires[name].place, draft.owners[name]
    told = []
    for fact, mine, theirs in given.space.differences(wanted.space):
        if fact == "family":
            told.append(f"one is {mine}, the other {theirs}")
            continue
        ends = [f"{_shown(value)} ({_origin(part, fact, value, place)})" for part, value in ((giver.host, mine), (taker, theirs))]
        told.append(f"{fact} is {ends[0]}, wanted {ends[1]}")
    if told:
        family = wanted.space.family
        found = f"{ref} gives {given.space.family} of another kind than {draft.name}.{name} takes: {'; '.join(told)}"
        hint = _way_out(giver.host, taker, family)
        problems.add("space-mismatch", found, place=place, node=draft.name, port=name, hint=hint)


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(map(_shown, value))})"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _origin(part: Part, fact: str, value: Any, near: Place | None) -> str:
    """The config field behind a fact: the one of that name, else the first that holds the value."""
    named = [key for key in part.origins if key == fact or key.endswith(f"_{fact}")]
    holding = [key for key in part.origins if _plain(getattr(part.config, key, None)) == value]
    for key in [*(key for key in named if key in holding), *holding]:
        origin = part.origins[key]
        if origin.layer == "source" and part.source is not None:
            return f"{part.scope}.{key}, from the source {part.source.text}"
        if origin.layer == "default":
            return f"{part.scope}.{key}, the default of {part.component.id}"
        where = origin.place
        same = where is not None and near is not None and where.file == near.file and where.line is not None
        return f"{part.scope}.{key}, {f'line {where.line}' if same and where else origin.unworded}"
    return f"from the source {part.source.text}" if part.source is not None else f"fixed by {part.component.id}"


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _way_out(giver: Part, taker: Part, family: str) -> str:
    if taker.source is not None and (giver.source is None or giver.source.text != taker.source.text):
        whole = taker.source.whole
        return f"let both come from one source: give {giver.node} from: {whole}"
    return f"put a component between them that gives the {family} that {taker.node} takes, or wire the one that was made for it"
