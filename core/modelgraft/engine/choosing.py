"""What backend "auto" is, where somebody says so: one that exports, when this machine and what is asked for suit it."""

from __future__ import annotations

import os

from modelgraft.engine.opening import Placing
from modelgraft.kernel.planning.planner import UNSAID, Placement
from modelgraft.kernel.words.backends import UNCHOSEN, USUAL
from modelgraft.kernel.words.errors import InputError, Problem
from modelgraft.kernel.words.graph import Node, SolvedGraph
from modelgraft.kernel.words.plan import Plan
from modelgraft.kernel.words.wording import option

BACKGROUND, OFF = "MODELGRAFT_BACKGROUND", "off"  # the variable by which nothing is left to other processes


def is_auto(solved: SolvedGraph, asked: str | None, node: Node | None = None) -> bool:
    """Whether the backend of a graph, or of a node in it, was left to choose, in so many words.

    asked  the backend that was asked for beside the graph
    """
    whole = solved.graph.runtime.get("backend")
    own = None if node is None else node.runtime.get("backend")
    said = next((word for word in (asked, own, None if whole is None else whole.value) if word is not None), None)
    return said == UNCHOSEN


def is_off() -> bool:
    """Whether nothing is left to other processes. Raises InputError for a setting that says nothing."""
    chosen = os.environ.get(BACKGROUND, "")
    if chosen not in ("", OFF):
        raise InputError(f"{BACKGROUND} is '{chosen}', wanted: {OFF}, or not set: whether exports are made beside the answers")
    return bool(chosen)


def when_exported(solved: SolvedGraph, placing: Placing, node: Node | None = None) -> str:
    """When the exports of a graph, or of a node in it, are made: "now", "later" or "never"."""
    asked = placing.export or ("later" if is_auto(solved, placing.backend, node) else "now")
    return "never" if is_off() and asked == "later" else asked


def unheeded_export(solved: SolvedGraph, placing: Placing, backend: str) -> str:
    """What is to be said where `export` was asked for and nothing runs on a backend that exports; "" otherwise.

    backend  what "auto" and silence mean
    """
    cards = solved.graph.registry.backends
    places = Placement(solved, placing.placement(), {**UNSAID, "backend": backend})
    used = {places.of(node, "backend") for node in solved.nodes.values()}
    if placing.export is None or any(name not in cards or cards[name].exports for name in used):
        return ""
    return (
        f"{option('export', placing.export)} changes nothing: no node runs on a backend that exports, as with {option('backend', UNCHOSEN)}"
    )


def chosen_backend(solved: SolvedGraph, placing: Placing, *, device: str) -> tuple[str, str]:
    """The backend that "auto" and silence mean for a graph, and why it is the usual one where another was wanted; "" otherwise.

    device  of this machine, where nobody says one
    """
    if not is_auto(solved, placing.backend):
        return USUAL, ""
    registry = solved.graph.registry
    name = next((name for name, card in registry.backends.items() if card.exports), None)
    if name is None:
        return USUAL, "no installed backend exports"
    from modelgraft.engine.backend import open_backend  # what runs is imported where it is asked

    why = open_backend(registry, name).why_not() or _misfit(solved, placing, name, device=device)
    return (USUAL, why) if why else (name, "")


def _misfit(solved: SolvedGraph, placing: Placing, name: str, *, device: str) -> str:
    """What is asked for that the backend does not have, for the first node that asks it; "" when there is nothing."""
    places = Placement(solved, placing.placement(), {**UNSAID, "backend": name, "device": device})
    card = solved.graph.registry.backends[name]
    for node in solved.nodes.values():
        if node.component.module is None or places.of(node, "backend") != name:
            continue
        if (where := places.of(node, "device")) != "cpu":
            return f"{node.name} runs on {where}, and what is exported later is for the CPU"
        wanted = places.of(node, "precision") or places.of(node, "dtype")
        if card.precisions and wanted not in card.precisions:
            return f"{node.name} runs in {wanted}, which the {name} backend does not have"
    return ""


def unready(plan: Plan) -> list[Problem]:
    """A problem for each backend of a plan that lacks something on this machine, such as its library: a run would refuse its nodes."""
    from modelgraft.engine.backend import open_backend  # as above

    registry = plan.graph.graph.registry
    names = {step.backend for step in plan.steps if step.node.component.module is not None or step.node.parts}
    whys = {name: open_backend(registry, name).why_not() for name in sorted(names & registry.backends.keys())}
    return [Problem("missing-package", f"the {name} backend cannot run here, {why}", None) for name, why in whys.items() if why]
