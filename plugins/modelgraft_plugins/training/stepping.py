"""One step of training: a batch through the graph, the losses, their gradients and the update."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from modelgraft.commands import Batch, Learning, ReadBatch, Resolved, Stage
from modelgraft.plugin import InputError, ModelgraftError, Plan, SolvedGraph, choices
from modelgraft_plugins.training.processes import processes
from modelgraft_plugins.training.tuning import Trained, optimizer_of, prepare, rate_factor, those_after_steps

MIXES = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}
LEAST_SCALE = 1.0  # of losses in float16: gradients that are none at this scale are none at all


class NotANumberError(InputError):
    """A loss or a gradient that is no number: the weights are those of before the step."""


class AgainError(ModelgraftError):
    """Another process refuses records of its part: the step is done again without them."""


class Losses(nn.Module):
    """The graph as accelerate sees it: the modules that are trained, and a call that gives the losses."""

    def __init__(self, learning: Learning, modules: Mapping[str, nn.Module], resolved: Resolved) -> None:
        super().__init__()
        self.parts = nn.ModuleList(modules.values())
        self.learning, self.resolved = [learning], resolved  # in a list: it is no module

    def forward(self, batch: ReadBatch, seed: int, ready: Mapping[Any, Any]) -> dict[str, torch.Tensor]:
        """The mean of each loss over the records of a batch, by name; by a route, over those that went it, and 0 where none did."""
        found = self.learning[0](batch, seed=seed, ready=ready)
        return {name: _mean(found[str(ref)]) for name, (ref, _) in self.resolved.losses.items()}


def _mean(loss: torch.Tensor | Batch) -> torch.Tensor:
    there = Batch.of(loss).value
    return torch.zeros(()) if there is None or not len(there) else there.float().mean()


@dataclass(slots=True)
class Step:
    """What an update gave: the weighted sum, each loss, the norm of the gradients before they were clipped."""

    loss: float
    losses: dict[str, float]
    norm: float


class Stepper:
    """The parts of a stage that change, and the optimiser that changes them."""

    def __init__(self, learning: Learning, resolved: Resolved, solved: SolvedGraph, accelerator: Accelerator, *, total: int) -> None:
        self.learning, self.resolved, self.accelerator, self.total = learning, resolved, accelerator, total
        self.stage: Stage = resolved.stage
        every = learning.modules
        self.trained: list[Trained] = prepare(every, resolved, solved)
        self.modules: Mapping[str, nn.Module] = {name: every[name] for name in sorted(resolved.trained)}
        self._after_step = those_after_steps(self.modules.values())
        self.optimizer = optimizer_of(self.trained, self.stage)
        self._rates = [group["lr"] for group in self.optimizer.param_groups]
        self._factor = rate_factor(self.stage, total)
        self._model = Losses(learning, self.modules, resolved)
        self.processes = processes(on_cpu=accelerator.device.type == "cpu")
        self._call = accelerator.prepare_model(self._model, evaluation_mode=self.processes.count > 1)  # gradients are added up at the end
        self._seen = set[str]()

    @property
    def plan(self) -> Plan:
        """The plan of what is called."""
        return self.learning.plan

    def update(self, batches: Sequence[ReadBatch], *, step: int, ready: Sequence[Mapping[Any, Any]]) -> Step:
        """One update by the mean gradient of some batches, of which other processes have other parts.

        Raises NotANumberError before anything was changed, AgainError where another process leaves records out.
        """
        weights = {name: weight for name, (_, weight) in self.resolved.losses.items()}
        sums, wrong, refused = dict.fromkeys(weights, 0.0), list[str](), list[ModelgraftError]()
        shares = self.processes.shares([batch.count for batch in batches])
        try:
            for number, (batch, given, share) in enumerate(zip(batches, ready, shares, strict=True)):
                if batch.count and not wrong:
                    wrong = self._add(self.losses(batch, step=step, number=number, ready=given), share, sums)
        except ModelgraftError as error:
            refused.append(error)
        any_refused, any_wrong, *means = self.processes.sums([float(bool(refused)), float(bool(wrong)), *sums.values()])
        if any_refused or any_wrong:
            self.optimizer.zero_grad(set_to_none=True)
        if any_refused:
            raise refused[0] if refused else AgainError("another process leaves records out")
        if any_wrong:
            raise NotANumberError(f"the loss {choices(wrong) if wrong else 'of another process'} is no number at step {step + 1}")
        norm = self._finish(step)
        losses = dict(zip(sums, means, strict=True))
        return Step(sum(losses[name] * weight for name, weight in weights.items()), losses, norm)

    def _add(self, found: Mapping[str, torch.Tensor], share: float, sums: dict[str, float]) -> list[str]:
        """Add the gradients of a batch, and its losses; gives the losses that are no numbers."""
        weights = {name: weight for name, (_, weight) in self.resolved.losses.items()}
        whole = torch.stack([found[name] * weight for name, weight in weights.items()]).sum()
        for name in weights:
            sums[name] += float(found[name].detach()) * share
        if not math.isfinite(float(whole.detach())):
            return [name for name in weights if not math.isfinite(float(found[name].detach()))] or list(weights)
        self._refuse_loose(whole)
        self.accelerator.backward(whole * share)
        return []

    def rehearse(self, batch: ReadBatch, ready: Mapping[Any, Any]) -> int:
        """Do all of a step but the update; gives the bytes that are kept for the gradients."""
        own = {one.parameter.data_ptr() for one in self.trained} | {
            p.data_ptr() for m in self.learning.modules.values() for p in m.parameters()
        }
        kept: dict[int, int] = {}

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            if tensor.data_ptr() not in own:
                kept[tensor.data_ptr()] = max(kept.get(tensor.data_ptr(), 0), tensor.numel() * tensor.element_size())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            found = self.losses(batch, step=0, number=0, ready=ready)
            whole = torch.stack([found[name] * weight for name, (_, weight) in self.resolved.losses.items()]).sum()
        self._refuse_loose(whole)
        self.accelerator.backward(whole)
        self.optimizer.zero_grad(set_to_none=True)
        return sum(kept.values())

    def losses(self, batch: ReadBatch, *, step: int, number: int, ready: Mapping[Any, Any]) -> dict[str, torch.Tensor]:
        """The losses of a batch; what is drawn follows from the seed of the stage, the step and the number of the batch in it."""
        seed = seed_of(self.stage["seed"], step, number, self.accelerator.process_index)
        _seed(seed)
        found: dict[str, torch.Tensor] = self._call(batch, seed, ready)
        return found

    def _refuse_loose(self, whole: torch.Tensor) -> None:
        if not whole.requires_grad:
            names = choices(self.resolved.trained)
            raise InputError(f"no gradient comes back from the losses to {names}: a node between gives numbers that are cut off from it")

    def _finish(self, step: int) -> float:
        scale = self._factor(step)
        for group, rate in zip(self.optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * scale
        parameters = [one.parameter for one in self.trained]
        self.processes.add_gradients(parameters)
        self._tell_idle()
        scaler, limit = self.accelerator.scaler, float(self.stage["clip"]) or math.inf
        if scaler is not None:
            scaler.unscale_(self.optimizer)
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, limit))
        if scaler is not None and not math.isfinite(norm) and scaler.get_scale() > LEAST_SCALE:
            scaler.update()  # a step is left out, and the next ones are scaled by less
            self.optimizer.zero_grad(set_to_none=True)
            return norm
        if not math.isfinite(norm):
            wrong = [one.key for one in self.trained if one.parameter.grad is not None and not bool(one.parameter.grad.isfinite().all())]
            self.optimizer.zero_grad(set_to_none=True)
            raise NotANumberError(f"the gradients of {choices(wrong, most=4)} are no numbers at step {step + 1}")
        if scaler is None:
            self.optimizer.step()
        else:
            scaler.step(self.optimizer)
            scaler.update()
        for part in self._after_step:
            part.after_step()
        self.optimizer.zero_grad(set_to_none=True)
        return norm

    @property
    def scaling(self) -> dict[str, Any]:
        """How losses are scaled in float16; nothing otherwise."""
        return dict(self.accelerator.scaler.state_dict()) if self.accelerator.scaler is not None else {}

    def set_scaling(self, scaling: dict[str, Any]) -> None:
        """Go on scaling losses as they were."""
        if self.accelerator.scaler is not None and scaling:
            self.accelerator.scaler.load_state_dict(scaling)

    def _tell_idle(self) -> None:
        self._seen |= {one.key for one in self.trained if one.parameter.grad is not None}

    @property
    def has_stepped(self) -> bool:
        """Whether a gradient has reached anything yet: a run that was stopped behind its last step makes none."""
        return bool(self._seen)

    @property
    def idle(self) -> list[str]:
        """The parameters that no gradient has reached yet."""
        return [one.key for one in self.trained if one.key not in self._seen]

    def rates(self, step: int) -> list[float]:
        """The learning rates at a step, the largest first."""
        scale = self._factor(step)
        return sorted({rate * scale for rate in self._rates}, reverse=True)


def _seed(seed: int) -> None:
    """Let dropout draw from here on. Not by `torch.manual_seed`, which notes a call for each kind of device that is not in use."""
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_available():
        torch.cuda.manual_seed_all(seed)


def seed_of(seed: int, step: int, number: int, process: int) -> int:
    """A seed of one batch: others for another step, batch in it, or process."""
    mixed = (int(seed) * 0x9E3779B97F4A7C15 + step * 0xBF58476D1CE4E5B9 + number * 0x94D049BB133111EB + process + 1) & 0xFFFF_FFFF_FFFF_FFFF
    mixed ^= mixed >> 31
    return mixed & 0x7FFF_FFFF_FFFF_FFFF


def find_origin(stepper: Stepper, batch: ReadBatch, *, step: int, number: int, ready: Mapping[Any, Any]) -> str:
    """The first node that gives something that is no number for a batch, in words; "" when none does."""
    found: list[str] = []

    def look(node: str, port: str, value: Any) -> None:
        if not found and isinstance(value, torch.Tensor) and value.is_floating_point() and not bool(value.isfinite().all()):
            found.append(f"{node}.{port}")

    seed = seed_of(stepper.stage["seed"], step, number, stepper.accelerator.process_index)
    _seed(seed)
    with torch.no_grad():
        stepper.learning(batch, seed=seed, ready=ready, seen=look)
    return found[0] if found else ""
