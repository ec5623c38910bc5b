"""Which results of frozen parts are worth keeping, and having them at hand before a stage begins."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any

from modelgraft.commands import Learning, keepable, plan_for
from modelgraft.plugin import Plan, sha256_of
from modelgraft_plugins.training.features import Features, write_features
from modelgraft_plugins.training.kept import ABOUT
from modelgraft_plugins.training.rows import refuse_bad
from modelgraft_plugins.training.shared import Front
from modelgraft_plugins.training.watching import EVERY_S

if TYPE_CHECKING:
    from modelgraft import Pipeline
    from modelgraft_plugins.training.stage import StageRun

Ref = Any  # a port of a node, as the plan names it


@dataclass(frozen=True, slots=True)
class Kept:
    """The ports that are kept, and why others are not.

    refs    the ports; nodes  those that give them, which are not run again;  before  these and all that only they need
    others  by node: why what it gives is made anew in each step
    """

    refs: tuple[Ref, ...]
    nodes: frozenset[str]
    before: frozenset[str]
    others: Mapping[str, str]


def kept_of(plan: Plan, learners: frozenset[str]) -> Kept:
    """What of a plan is worth keeping: what nodes with weights give to what learns, where it is tensors and nothing is drawn."""
    keys = {step.node.name: step.key for step in plan.steps}
    found = keepable({step.node.name: step.node for step in plan.steps}, learners)
    chosen = {name for name in found.nodes if keys[name]}
    others = {**found.others, **dict.fromkeys(found.nodes - chosen, "nobody can tell what its results depend on")}
    read = {ref for step in plan.steps if step.node.name not in chosen for ref in step.node.references if ref.node in chosen}
    return Kept(tuple(sorted(read, key=str)), frozenset(chosen), _before(plan, chosen), others)


def _before(plan: Plan, chosen: set[str]) -> frozenset[str]:
    """The nodes that are not run where these are kept."""
    nodes = plan.nodes
    wanted = [ref.node for ref in plan.wanted.values()]
    running, left = set[str](), wanted
    while left:
        name = left.pop()
        if name in nodes and name not in chosen and name not in running:
            running.add(name)
            left.extend(nodes[name].node.feeders)
    return frozenset(nodes) - running


# -- before a stage begins ------------------------------------------------------------------------------------------------


def have_features(run: StageRun, pipeline: Pipeline, wanted: Sequence[str]) -> None:
    """Find what frozen parts give to those that learn, and have it at hand where the stage asks for that: written in a pass of its own."""
    plan, name, dtype = plan_for(pipeline, wanted), run.stage.name, run.stage["features"]
    run.kept = kept_of(plan, run.resolved.learners)
    if dtype == "off":
        return
    for node, why in run.kept.others.items():
        run.asked.note(f"{name}: what {node} gives is made anew in each step: {why}")
    if not run.kept.refs:
        run.asked.note(f"{name}: there is nothing to keep: no frozen part with weights gives tensors to what learns")
        return
    folder = (run.asked.home or run.asked.out) / "features" / _key(run, plan, dtype)
    if run.is_rehearsal and not (folder / ABOUT).is_file():
        run.asked.note(f"{name}: a dry run keeps no features, so that its steps are those without")
        return
    if run.processes.is_main and not (folder / ABOUT).is_file():
        start, rows = monotonic(), run.data.rows
        learning = Learning(pipeline, [str(ref) for ref in run.kept.refs], learners=())
        run.take_over(learning)
        write_features(
            folder, learning, run.kept.refs, count=len(rows), read=lambda numbers: learning.read(*rows.take(numbers, learning.inputs)),
            seed=run.stage["seed"], dtype=dtype, tell=_telling(run, len(rows)),
        )  # fmt: skip
        run.asked.note(
            f"{name}: kept the features of {len(rows):,} record{'s' * (len(rows) != 1)}, in {monotonic() - start:.1f} s: {folder}"
        )
    run.processes.wait()
    run.features = Features(folder, run.kept.refs)
    bad = {run.data.rows.place(number): why for number, why in run.features.bad.items()}
    new = {place: why for place, why in bad.items() if place not in run.progress.skipped}
    refuse_bad(new, data=run.data.name, skips=run.asked.skips, note=run.asked.note)
    run.progress.skipped.update(bad)


def front_of(run: StageRun, pipeline: Pipeline) -> Front | None:
    """What stays as it is, where the variants of a sweep may call it once for all of them: keeping its results would give the same."""
    shared = run.asked.shared
    if shared is None or run.features is not None or not run.kept.refs or run.stage["precision"] != "float32":
        return None  # of a step in another precision these parts are called in it too
    key = _key(run, plan_for(pipeline, [str(ref) for ref in run.kept.refs]), "as they are")
    return Front(shared, pipeline, run.kept.refs, key=key, begin=run.take_over)


def _key(run: StageRun, plan: Plan, dtype: str) -> str:
    """What features depend on: the parts and their weights, the data, the columns, what new weights are drawn from."""
    steps = [(name, plan.nodes[name].key) for name in sorted(run.kept.nodes)]
    former = [sha256_of(file) for file, name, _ in run.former() if name in run.kept.before]
    facts = [
        steps,
        former,
        run.data.rows.digest,
        run.data.rows.files,
        sorted(run.resolved.columns.items()),
        dtype,
        run.stage["seed"],
        run.asked.init,
        len(run.data.rows),
    ]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:24]


def _telling(run: StageRun, total: int) -> Callable[[int], None]:
    last = monotonic()

    def tell(done: int) -> None:
        nonlocal last
        if (now := monotonic()) - last >= EVERY_S and run.asked.screen is not None:
            last = now
            run.asked.note(f"{run.stage.name}: features of {done:,} of {total:,} records")

    return tell
