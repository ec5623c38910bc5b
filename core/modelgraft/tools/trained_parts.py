"""How much of a plan is trained where that is a part of a node: the embeddings of a frozen model, an adapter that stays as it is.

A graph freezes whole nodes, and what is grafted into one is trained. A config that knows better has `trained_parameters` (see
TrainsParts).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Protocol, TypeVar, runtime_checkable

from modelgraft.kernel.planning.counting import count
from modelgraft.kernel.words.graph import Node
from modelgraft.kernel.words.kinds import Config
from modelgraft.kernel.words.plan import Parameters, Plan, Step

_Plan = TypeVar("_Plan", bound=Plan)


@runtime_checkable
class TrainsParts(Protocol):
    """A config that knows which of its parameters are trained."""

    def trained_parameters(self) -> int | None:
        """Count what is trained. None: not known without building.

        Of a node it is asked where the node is frozen, and says what of it is trained nevertheless. Of an adapter it is asked
        always, and may count parameters of the host that were trained along with it.
        """
        ...


def with_trained_parts(plan: _Plan) -> _Plan:
    """The plan with what its configs say of training in its counts; the same where none says anything."""
    steps = tuple(_step(step) for step in plan.steps)
    if steps == plan.steps:
        return plan
    pairs = [(new.parameters.trainable, old.parameters.trainable) for new, old in zip(steps, plan.steps, strict=True) if new is not old]
    change = _sum(None if new is None or old is None else new - old for new, old in pairs)
    known = None if change is None or plan.totals.trainable is None else plan.totals.trainable + change
    return replace(plan, steps=steps, totals=replace(plan.totals, trainable=known))


def _step(step: Step) -> Step:
    node, counted = step.node, step.parameters
    more = [_more_of_node(node), *(_more_of_adapter(node, index) for index in range(len(node.adapters)))]
    if node.share or not any(number is None or number for number in more):
        return step
    change = _sum(more)
    trained = None if change is None or counted.trainable is None else counted.trainable + change
    return replace(step, parameters=Parameters(counted.total, trained, counted.how))


def _asked(config: Config) -> Callable[[], int | None] | None:
    """What says of a config what is trained."""
    return config.trained_parameters if isinstance(config, TrainsParts) else None


def _more_of_node(node: Node) -> int | None:
    ask = _asked(node.config) if node.frozen else None
    return ask() if ask is not None else 0


def _more_of_adapter(node: Node, index: int) -> int | None:
    """What an adapter trains beyond all that it holds, below 0 where it is less."""
    adapter = node.adapters[index]
    if (ask := _asked(adapter.config)) is None:
        return 0
    alone = count(replace(node, component=adapter.component, config=adapter.config, source=adapter.source, adapters=(), frozen=False))
    trained = ask()
    return None if trained is None or alone.total is None else trained - alone.total


def _sum(numbers: Iterable[int | None]) -> int | None:
    known = list(numbers)
    return None if None in known else sum(number for number in known if number is not None)
