"""Value spaces: numbers that have the right shape and mean something else, such as pixels normalised for another encoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelgraft.kernel.checking.adviser import Advice
from modelgraft.kernel.checking.drafts import Draft
from modelgraft.kernel.words.errors import Collector
from modelgraft.kernel.words.graph import Ref
from modelgraft.kernel.words.ports import Port


def check_spaces(drafts: Mapping[str, Draft], problems: Collector, advice: Advice) -> None:
    """Note every wire whose two ends state facts that differ. An end that states no space is not checked."""
    for draft in drafts.values():
        for name, refs in draft.wired.items():
            wanted = draft.in_ports[name]
            for ref in refs:
                giver = drafts.get(ref.node)
                if giver is not None and wanted.space is not None:
                    _compare(draft, name, wanted, giver, ref, problems, advice=advice)


def _compare(draft: Draft, name: str, wanted: Port, giver: Draft, ref: Ref, problems: Collector, *, advice: Advice) -> None:
    given = giver.out_ports[ref.port]
    if given.space is None or wanted.space is None:
        return
    place, taker = ref.place or draft.wires[name].place, draft.owners[name]
    told = []
    for fact, mine, theirs in given.space.differences(wanted.space):
        if fact == "family":
            told.append(f"one is {mine}, the other {theirs}")
            continue
        ends = [f"{_shown(value)}{advice.fact(part, fact, value, place)}" for part, value in ((giver.host, mine), (taker, theirs))]
        told.append(f"{fact} is {ends[0]}, wanted {ends[1]}")
    if told:
        found = f"{ref} gives {given.space.family} of another kind than {draft.name}.{name} takes: {'; '.join(told)}"
        hint = advice.space(giver.host, taker, wanted.space.family)
        problems.add("space-mismatch", found, place=place, node=draft.name, port=name, hint=hint)


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(map(_shown, value))})"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
