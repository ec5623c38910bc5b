"""Threads that a whole graph is given go to the nodes whose backend heeds them."""

from __future__ import annotations

from dataclasses import replace

from modelgraft.kernel.words.plan import Plan, Step


def for_those_that_heed(plan: Plan) -> Plan:
    """The same plan without threads at modules whose backend gives them none, where others take them; a node's own stay its own."""

    def heeds(step: Step) -> bool:
        card = plan.graph.graph.registry.backends.get(step.backend)
        return card is not None and "threads" in card.heeds

    modules = [step for step in plan.steps if step.node.component.module is not None]
    if not any(step.threads and heeds(step) for step in modules):
        return plan
    deaf = {step.node.name for step in modules if not heeds(step) and step.node.runtime.get("threads") is None}
    return replace(plan, steps=tuple(replace(step, threads=None) if step.node.name in deaf else step for step in plan.steps))
