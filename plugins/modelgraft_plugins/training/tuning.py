"""Which parameters of the nodes are trained, in which mode the modules are, and what the optimiser makes of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn

from modelgraft.commands import Resolved, Stage, Tuning
from modelgraft.plugin import InputError, SolvedGraph, choices


@runtime_checkable
class OffersParts(Protocol):
    """A module that knows what of it is trained while the rest is frozen, such as the rows of new tokens."""

    def trained_names(self) -> Mapping[str, tuple[str, ...]]:
        """Names of parameters by the name of the part that they are."""
        ...


@runtime_checkable
class AfterStep(Protocol):
    """A module that brings its weights in order behind each step of the optimiser."""

    def after_step(self) -> None:
        """The weights are those behind the step: change them in place, without gradients, by nothing but themselves."""
        ...


def those_after_steps(modules: Iterable[nn.Module]) -> list[AfterStep]:
    """All that are asked behind each step, of what is trained and of what lies in it."""
    return [part for module in modules for part in module.modules() if isinstance(part, AfterStep)]


@dataclass(frozen=True, slots=True)
class Trained:
    """A parameter that is trained: the node that has it, its name in the module, the tuning of the node."""

    node: str
    name: str
    parameter: nn.Parameter
    tuning: Tuning

    @property
    def key(self) -> str:
        """What it is called among all."""
        return f"{self.node}/{self.name}"


def prepare(modules: Mapping[str, nn.Module], resolved: Resolved, solved: SolvedGraph) -> list[Trained]:
    """Make the parameters of a stage trainable, all others not; modules that learn are in the mode of training, all others in that of use.

    Nodes that share weights have the same parameters afterwards. Raises InputError for parts that are not there.
    """
    for module in modules.values():
        module.requires_grad_(requires_grad=False).eval()
    _share(modules, solved)
    found = [one for name, tuning in sorted(resolved.trained.items()) for one in _of_node(name, modules.get(name), tuning)]
    ids = set[int]()
    alone = []
    for one in found:
        if id(one.parameter) not in ids:
            ids.add(id(one.parameter))
            alone.append(one)
    for one in alone:
        one.parameter.data = one.parameter.data.clone()  # what comes from a file may be mapped, or be another pipeline's too
        one.parameter.requires_grad_()
    for name, module in modules.items():
        _set_modes(module, is_whole=name in resolved.trained and resolved.trained[name].kind == "full")
    return alone


def _share(modules: Mapping[str, nn.Module], solved: SolvedGraph) -> None:
    for name, module in modules.items():
        host = solved.nodes[name].share
        while host is not None and solved.nodes[host].share is not None:
            host = solved.nodes[host].share
        if host is None or host not in modules:
            continue
        theirs = dict(modules[host].named_parameters())
        for key, parameter in list(module.named_parameters()):
            if key in theirs and theirs[key].data_ptr() == parameter.data_ptr() and theirs[key].shape == parameter.shape:
                home, _, leaf = key.rpartition(".")
                setattr(module.get_submodule(home), leaf, theirs[key])


def _of_node(name: str, module: nn.Module | None, tuning: Tuning) -> Iterator[Trained]:
    if module is None:
        raise InputError(f"{name} cannot be trained: its code holds no module of torch")
    every = dict(module.named_parameters())
    chosen = _chosen(name, module, every, tuning)
    if not chosen:
        raise InputError(f"{name}: nothing of it is trained: it has no such parameters")
    integral = [key for key in chosen if not every[key].is_floating_point()]
    if integral:
        raise InputError(f"{name}: {choices(integral)} are whole numbers, which no gradient changes")
    for key in chosen:
        yield Trained(name, key, every[key], tuning)


def _chosen(name: str, module: nn.Module, every: Mapping[str, nn.Parameter], tuning: Tuning) -> list[str]:
    if tuning.kind == "full":
        return list(every)
    if tuning.kind == "lora":
        return [key for key, parameter in every.items() if getattr(parameter, "is_grafted", False)]
    offered = dict(module.trained_names()) if isinstance(module, OffersParts) else {}
    wanted = tuning.parts or tuple(offered)
    if not wanted:
        raise InputError(f"{name} is trained in part, and its module does not say what: name it, {{tune: partial, parts: [...]}}")
    found: dict[str, None] = {}
    for pattern in wanted:
        keys = offered.get(pattern) or [key for key in every if fnmatchcase(key, pattern) or fnmatchcase(key, f"{pattern}.*")]
        if not keys:
            there = [*offered, *dict.fromkeys(key.rpartition(".")[0] for key in every)]
            raise InputError(f"{name} has no part '{pattern}'; it has: {choices(there, most=12)}")
        found |= dict.fromkeys(keys)
    return [key for key in every if key in found]


def _set_modes(module: nn.Module, *, is_whole: bool) -> None:
    """Training mode for what learns: dropout there, and nowhere else."""
    if is_whole:
        module.train()
        return
    for part in module.modules():
        if any(parameter.requires_grad for parameter in part.parameters(recurse=False)):
            part.training = True


# -- the optimiser ------------------------------------------------------------------------------------------------------


def optimizer_of(trained: list[Trained], stage: Stage) -> torch.optim.Optimizer:
    """The optimiser of a stage: a group for each learning rate and decay; vectors do not decay."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for one in trained:
        decay = one.tuning.decay if one.parameter.ndim > 1 else 0.0
        groups.setdefault((one.tuning.rate, decay), []).append(one.parameter)
    given: list[dict[str, Any]] = [{"params": params, "lr": rate, "weight_decay": decay} for (rate, decay), params in groups.items()]
    if stage["optimizer"] == "sgd":
        return torch.optim.SGD(given, momentum=stage["momentum"])
    kind = torch.optim.AdamW if stage["optimizer"] == "adamw" else torch.optim.Adam
    return kind(given, betas=tuple(stage["betas"]), eps=float(stage["eps"]), fused=True)


def optimizer_bytes(trained: list[Trained], stage: Stage) -> int:
    """What the optimiser keeps: two numbers for each parameter of Adam, one of SGD with momentum; and the gradients."""
    numbers = 1 + (2 if stage["optimizer"] != "sgd" else 1 if stage["momentum"] else 0)
    return sum(one.parameter.numel() * one.parameter.element_size() for one in trained) * numbers


def warmup_steps(stage: Stage, total: int) -> int:
    """The steps in which the learning rates rise."""
    asked = float(stage["warmup"])
    return round(asked * total) if asked < 1 else int(asked)


def rate_factor(stage: Stage, total: int) -> Any:  # Any: a function of the step, as torch wants it
    """What the learning rates are multiplied by at a step, from 0 on."""
    warmup = warmup_steps(stage, total)
    kind = stage["schedule"]

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        done = (step - warmup) / max(1, total - warmup)
        if kind == "constant":
            return 1.0
        return max(0.0, 1 - done) if kind == "linear" else 0.5 * (1 + math.cos(math.pi * min(1.0, done)))

    return factor
