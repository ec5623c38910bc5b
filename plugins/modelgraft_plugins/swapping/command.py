"""The command `modelgraft swap`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modelgraft.commands import AsJson, GraphName, SetOptions, in_bytes, session_of, settings_of
from modelgraft.plugin import InputError

if TYPE_CHECKING:
    from modelgraft.commands import Screen
    from modelgraft_plugins.swapping.trying import Fit

HEADS = ("put there", "component", "parameters", "more", "bytes", "tokens", "what follows")
NUMBERS = frozenset({2, 3, 4, 5})
NODE = "A node by its name, or by what it is: eye, tongue, llm, projector."
LONGEST = 160  # letters of a reason in the list; --json has all of it


def swap(
    context: typer.Context,
    graph: GraphName,
    node: Annotated[str, typer.Argument(metavar="NODE", help=NODE)],
    settings: SetOptions = None,
    every: Annotated[bool, typer.Option("--all", help="List what does not fit as well, with the reason.")] = False,
    as_json: AsJson = False,
) -> None:
    """List what fits in place of a node: every installed component and preset, with the difference in parameters, bytes and tokens."""
    from modelgraft.commands import node_named
    from modelgraft_plugins.swapping.trying import tried

    session = session_of(context)
    given = settings_of(settings)
    spec = session.load(graph, given).spec
    found = node_named(node, spec)
    if found is None:
        raise InputError(f"the graph {spec.name} has no node '{node}'; it has: {', '.join(spec.nodes)}")
    fits = tried(graph, found, given, session.registry)
    if as_json:
        session.screen.document([asdict(fit) for fit in fits])
    else:
        _print(session.screen, fits, found, every=every)


def _print(screen: Screen, fits: list[Fit], node: str, *, every: bool) -> None:
    base, *others = fits
    fitting = [fit for fit in others if not fit.reason]
    screen.table(HEADS, [_row(base, base), *(_row(fit, base) for fit in fitting)], right=NUMBERS)
    left = [fit for fit in others if fit.reason]
    if every:
        for fit in left:
            screen.say(f"{fit.text}  {fit.reason if len(fit.reason) <= LONGEST else fit.reason[: LONGEST - 3] + '...'}")
            if fit.way:
                screen.say(f"    {fit.way}")
    elif left:
        screen.note(f"{len(left)} others do not fit in place of {node} as they are; --all says why")


def _row(fit: Fit, base: Fit) -> tuple[str, ...]:
    return (
        fit.text or "as it is",
        fit.component,
        "unknown" if fit.parameters is None else f"{fit.parameters:,}",
        _signed(fit.parameters, base.parameters, lambda number: f"{number:,}"),
        _signed(fit.bytes, base.bytes, in_bytes),
        _tokens(fit, base),
        ", ".join(dict.fromkeys(sentence.partition(" ")[0].rstrip(",") for sentence in fit.follows)),
    )


def _tokens(fit: Fit, base: Fit) -> str:
    if fit.tokens is None:
        return "any"
    return f"{fit.tokens:,}" if base.tokens in (None, fit.tokens) else f"{fit.tokens:,} ({fit.tokens - (base.tokens or 0):+,})"


def _signed(found: int | None, base: int | None, worded: Any) -> str:  # Any: how an amount is written
    if found is None or base is None:
        return "unknown"
    return "-" if found == base else f"{'+' if found > base else '-'}{worded(abs(found - base))}"
