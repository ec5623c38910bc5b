"""Checkpoints: all that a run needs to go on as if it had never stopped, in folders that appear whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from modelgraft.commands import discard, folder_aside
from modelgraft.plugin import InputError, option
from modelgraft_plugins.training.tuning import Trained

CHECKPOINTS, BEST = "checkpoints", "best"  # folders of a stage, and in it
KEPT = 2  # the newest ones: the last may be the one before a loss that is no number
STATE, OPTIMIZER = "state.json", "the-optimizer.safetensors"  # which is no name of a node


@dataclass(slots=True)
class Progress:
    """How far a stage is.

    step     updates that are done;  batch  the next batch, counted over all epochs
    best     the best figure of an evaluation, and the step of it;  since  evaluations since then
    skipped  records that were left out, by their place, with the reason
    """

    step: int = 0
    batch: int = 0
    best: float | None = None
    best_step: int = 0
    since: int = 0
    is_done: bool = False
    skipped: dict[str, str] = field(default_factory=dict)


class Changing(Protocol):
    """What changes in a training."""

    modules: Mapping[str, nn.Module]
    trained: list[Trained]
    optimizer: torch.optim.Optimizer

    @property
    def scaling(self) -> dict[str, Any]:
        """How losses are scaled; nothing where they are not."""
        ...

    def set_scaling(self, scaling: dict[str, Any]) -> None:
        """Go on scaling losses as they were."""
        ...


def save(folder: Path, progress: Progress, parts: Changing) -> Path:
    """Write a checkpoint into a folder of its own, and let go of old ones. Raises InputError where there is no room."""
    target = folder / f"step-{progress.step:08d}"
    try:
        with folder_aside(target) as aside:
            for name, module in parts.modules.items():
                save_file(tensors_of(module), aside / file_name(name))
            tensors, facts = _flat(parts.optimizer, parts.trained)
            save_file(tensors, aside / OPTIMIZER)
            state = {"progress": asdict(progress), "optimizer": facts, **({"scaling": parts.scaling} if parts.scaling else {})}
            (aside / STATE).write_text(json.dumps(state, indent=1), encoding="utf-8")
    except (OSError, SafetensorError) as error:
        raise _no_room(f"the checkpoint {target}", folder, error) from error
    let_go(folder)
    return target


def let_go(folder: Path) -> None:
    """Delete all checkpoints in a folder but the newest."""
    for old in checkpoints_in(folder)[:-KEPT]:
        discard(old)


def save_best(folder: Path, parts: Changing) -> None:
    """Keep the weights as they are, as the best so far, in place of what was kept. Raises InputError where there is no room."""
    target = folder / BEST
    try:
        with folder_aside(target) as aside:
            for name, module in parts.modules.items():
                save_file(tensors_of(module), aside / file_name(name))
    except (OSError, SafetensorError) as error:
        raise _no_room(f"the best weights {target}", folder, error) from error


def _no_room(what: str, folder: Path, error: Exception) -> InputError:
    kept = [path.name for path in checkpoints_in(folder)[-1:]]
    none = f"no checkpoint is there yet: {option('resume')} begins anew"
    way = f"{option('resume')} goes on from {kept[0]}, which is whole" if kept else none
    return InputError(f"{what} cannot be written: {getattr(error, 'strerror', None) or error}; {way}")


def take_best(folder: Path, parts: Changing) -> None:
    """Put the best weights that were kept into the modules."""
    for name, module in parts.modules.items():
        load_into(module, folder / BEST / file_name(name))


def clear(folder: Path) -> None:
    """Delete the checkpoints in a folder."""
    for old in (*([folder / BEST] if (folder / BEST).is_dir() else ()), *checkpoints_in(folder)):
        discard(old)


def checkpoints_in(folder: Path) -> list[Path]:
    """The checkpoints in a folder, the newest last."""
    return sorted(path for path in folder.glob("step-*") if (path / STATE).is_file())


def restore(folder: Path, parts: Changing) -> Progress:
    """Put everything back as it was; gives how far it was. Raises InputError for a checkpoint that does not fit."""
    try:
        state = json.loads((folder / STATE).read_text(encoding="utf-8"))
        for name, module in parts.modules.items():
            load_into(module, folder / file_name(name))
        _unflatten(parts.optimizer, parts.trained, load_file(folder / OPTIMIZER), state["optimizer"])
        parts.set_scaling(state.get("scaling", {}))
        return Progress(**state["progress"])
    except InputError as error:
        raise InputError(f"{error.unworded}; {option('force')} without {option('resume')} begins anew") from error
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"the checkpoint {folder} cannot be read: {error}; delete it, and {option('resume')} goes on from the one before"
        ) from error


def load_into(module: nn.Module, file: Path, *, is_graft: bool = False) -> None:
    """Copy the tensors of a file into a module, by their names. Raises InputError for those of another module.

    is_graft  the file holds what was grafted into the module, and the rest stays as it is
    """
    there, tensors = _held(module), load_file(file)
    wrong = sorted({*tensors} - {*there} if is_graft else {*tensors} ^ {*there}) or sorted(
        key for key in tensors if there[key].shape != tensors[key].shape
    )
    if wrong:
        raise InputError(f"{file} holds the tensors of another module: {', '.join(wrong[:4])}")
    with torch.no_grad():
        for key, tensor in tensors.items():
            there[key].copy_(tensor)


def tensors_of(module: nn.Module) -> dict[str, torch.Tensor]:
    """The tensors of a module by name, each in memory of its own, as its files have them."""
    found: dict[str, torch.Tensor] = {}
    places = set[int]()
    for key, tensor in _held(module).items():
        whole = tensor.detach().contiguous().cpu()
        found[key] = whole.clone() if whole.data_ptr() in places else whole
        places.add(whole.data_ptr())
    return found


def _held(module: nn.Module) -> dict[str, torch.Tensor]:
    """All tensors of a module by name, also parameters that it keeps from nodes which share its weights."""
    return {**dict(module.named_parameters()), **module.state_dict()}


def file_name(node: str) -> str:
    """The file of a node: nodes inside graphs have a slash in their name."""
    return f"{node.replace('/', '.')}.safetensors"


# -- the optimiser ------------------------------------------------------------------------------------------------------


def _flat(optimizer: torch.optim.Optimizer, trained: list[Trained]) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """What an optimiser keeps, as tensors by `parameter:fact`, and the numbers among it."""
    tensors: dict[str, torch.Tensor] = {}
    numbers: dict[str, Any] = {}
    for one in trained:
        for fact, value in optimizer.state.get(one.parameter, {}).items():
            if isinstance(value, torch.Tensor):
                tensors[f"{one.key}:{fact}"] = value.detach().contiguous().cpu().clone()
            else:
                numbers[f"{one.key}:{fact}"] = value
    return tensors, numbers


def _unflatten(
    optimizer: torch.optim.Optimizer, trained: list[Trained], tensors: Mapping[str, torch.Tensor], numbers: Mapping[str, Any]
) -> None:
    by_key = {one.key: one.parameter for one in trained}
    optimizer.state.clear()
    for key, value in {**tensors, **numbers}.items():
        name, _, fact = key.rpartition(":")
        parameter = by_key[name]
        is_of_parameter = isinstance(value, torch.Tensor) and value.shape == parameter.shape and value.ndim > 0
        kept = value.to(parameter.device) if is_of_parameter or (isinstance(value, torch.Tensor) and fact == "step") else value
        optimizer.state[parameter][fact] = kept
