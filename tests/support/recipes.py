"""Recipes as a test trains them: a stage of a shipped graph on tiny weights, all records in each batch."""

from __future__ import annotations

import json
import wave as wavelib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image

import modelgraft as mg
from modelgraft_plugins.training.running import chosen_stages, stage_run
from modelgraft_plugins.training.stage import Asked
from modelgraft_plugins.training.stepping import Stepper, seed_of
from modelgraft_plugins.training.trained import write_trained
from support.oracles import fed
from support.pictures import picture

GRAPHS = Path(__file__).parents[2] / "graphs"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the reference gives for the records: its losses by the recipe's names, and its model, whose `grad`s are those of their sum."""

    losses: Mapping[str, float]
    model: torch.nn.Module | None = None


@dataclass(frozen=True, slots=True)
class Recipe:
    """A stage of a graph, and what it is compared with.

    make       what makes tiny weights in a folder, and gives the params of the graph and what the reference takes
    reference  what `make` gave, the records, and what nodes gave in the first step by node.port -> Wanted; None: nothing gives this loss
    records    the values of each record by column; an image is a picture, a tensor a batch of one
    feeds      node.port -> type: what comes of the column node_port instead of what the graph prepares;  without  what the graph then lacks
    runs       what it trains is opened where it is run: not where weights lie without what prepares pictures
    trained    the nodes that are trained;  rate  of the test, over that of the recipe;  falls  how far the loss comes down at least
    """

    graph: str
    stage: str
    make: Callable[[Path], tuple[dict[str, Any], Any]]
    reference: Callable[[Any, Sequence[Mapping[str, Any]], Mapping[str, Any]], Wanted] | None
    records: Sequence[Mapping[str, Any]]
    trained: frozenset[str]
    rate: float = 3e-3
    steps: int = 24
    falls: float = 0.9
    params: Mapping[str, Any] = field(default_factory=dict)
    init: str | None = None
    feeds: Mapping[str, str] = field(default_factory=dict)
    without: tuple[str, ...] = ()
    runs: bool = True


@dataclass(slots=True)
class Found:
    """What a stage gave: losses, gradients and what nodes gave (`seen`) at its first step, the sum of losses at each, what changed, and
    the folder of its trained files."""

    first: dict[str, float]
    sums: list[float]
    grads: dict[str, tuple[torch.Tensor, torch.Tensor]]
    changed: set[str]
    idle: list[str]
    seen: dict[str, Any]
    folder: Path


def trained(recipe: Recipe, params: Mapping[str, Any], folder: Path) -> Found:
    """Train a stage. Gradients come with the parameters that they are of, as they were."""
    data = folder / "data.jsonl"
    data.write_text("".join(f"{json.dumps(_row(record, folder, number))}\n" for number, record in enumerate(recipe.records)))
    path = fed(folder, recipe.graph, recipe.feeds, {}, without=recipe.without) if recipe.feeds else GRAPHS / f"{recipe.graph}.yaml"
    solved = mg.check(mg.load(path, params={**params, **recipe.params}, allow=["unused"] if recipe.feeds else []))
    flags = {"data": str(data), "batch": len(recipe.records), "steps": recipe.steps, "learning_rate": recipe.rate, "precision": "float32"}
    (stage,) = chosen_stages(solved, recipe.stage, flags)
    run = stage_run(solved, stage.with_(shuffle=False, warmup=0), Asked(out=folder / "out", device="cpu", init=recipe.init))
    with run.opened() as stepper:
        batch, ready = run.batch(stepper.learning, range(len(recipe.records)), run.data.rows)
        every = stepper.learning.modules
        before = {name: {key: tensor.clone() for key, tensor in every_tensor(module).items()} for name, module in every.items()}
        modes = {part: part.training for module in every.values() for part in module.modules()}
        for part in modes:
            part.training = False  # without dropout, which the reference would draw otherwise
        found, seen = stepper.losses(batch, step=0, number=0, ready=ready), look(stepper, batch, ready)
        weights = {name: weight for name, (_, weight) in run.resolved.losses.items()}
        sum(found[name] * weight for name, weight in weights.items()).backward()
        grads = {one.key: (one.parameter.detach().clone(), one.parameter.grad) for one in stepper.trained if one.parameter.grad is not None}
        stepper.optimizer.zero_grad(set_to_none=True)
        for part, mode in modes.items():
            part.training = mode
        sums = [stepper.update([batch], step=step, ready=[ready]).loss for step in range(recipe.steps)]
        changed = {
            name
            for name, module in every.items()
            if any(not torch.equal(tensor, before[name][key]) for key, tensor in every_tensor(module).items())
        }
        write_trained(run, stepper, metrics={}, seconds=0.0)
        first = {name: float(loss.detach()) for name, loss in found.items()}
        return Found(first, sums, grads, changed, stepper.idle, seen, run.folder)


def every_tensor(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """All of a module, also parameters that it leaves out of its state."""
    return {**dict(module.named_parameters()), **module.state_dict()}


def look(stepper: Stepper, batch: Any, ready: Any) -> dict[str, Any]:
    """What the nodes give in the first step, by node.port: the same that its losses come of."""
    found: dict[str, Any] = {}

    def note(node: str, port: str, value: Any) -> None:
        found[f"{node}.{port}"] = value.detach() if isinstance(value, torch.Tensor) else value

    stepper.learning(batch, seed=seed_of(stepper.stage["seed"], 0, 0, 0), ready=ready, seen=note)
    return found


def unlike(found: Found, model: torch.nn.Module, *, atol: float) -> list[str]:
    """The parameters whose gradients are not those of the model's parameter of the same numbers."""
    theirs = dict(model.named_parameters())
    told = []
    for key, (parameter, grad) in found.grads.items():
        own = parameter.flatten()
        same = [one for one in theirs.values() if one.numel() == own.numel() and torch.equal(one.detach().flatten(), own)]
        if not same:
            told.append(f"{key}: the reference has no such numbers")
        elif not any(one.grad is not None and torch.allclose(one.grad.flatten(), grad.flatten(), atol=atol, rtol=1e-4) for one in same):
            told.append(f"{key}: other gradients")
    return told


def _row(record: Mapping[str, Any], folder: Path, number: int) -> dict[str, Any]:
    return {name: _value(value, folder / f"{number}-{name}.png") for name, value in record.items()}


def _value(value: Any, path: Path) -> Any:
    if isinstance(value, list):
        return [_value(one, path.with_stem(f"{path.stem}-{number}")) for number, one in enumerate(value)]
    if isinstance(value, dict):
        return {name: _value(one, path.with_stem(f"{path.stem}-{name}")) for name, one in value.items()}
    if isinstance(value, torch.Tensor):
        return value[None].tolist()  # a batch of one
    if isinstance(value, Image.Image):
        value.save(path)
        return str(path)
    if isinstance(value, mg.Audio):
        wave = path.with_suffix(".wav")
        with wavelib.open(str(wave), "wb") as file:
            file.setparams((1, 2, value.sample_rate_hz, 0, "NONE", ""))
            file.writeframes((value.samples[0] * 32767).astype("<i2").tobytes())
        return str(wave)
    return value


def drawn(seed: int) -> Image.Image:
    """A picture of a test."""
    return picture(17, 23, seed=seed)
