"""Modules filled from a checkpoint, strictly: what is missing, over, or of another shape is told. Nothing is copied in vain."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from modelgraft.engine.backend import LoadContext
from modelgraft.engine.modules import held
from modelgraft.engine.modules.building import build, dtype_of, parameters_without_memory
from modelgraft.engine.modules.casting import cast
from modelgraft.engine.modules.held import Held
from modelgraft.engine.modules.protocol import AfterLoad, FromCheckpoint, KeepsStored, OptionalKeys
from modelgraft.kernel.words.errors import Problem, SourceError, choices


def filled(context: LoadContext) -> tuple[torch.nn.Module, Held | None]:
    """Fill from the checkpoint, or with what another pipeline of this process holds of it."""
    key = held.key_of(context)
    if key is None:
        return fill(context, None), None
    with held.LOCK:
        found = held.find(key)
        if found is not None:
            try:
                return fill(context, found.state()).to(device=context.device), found
            except SourceError:  # it does not fit after all: this config decides more of the weights than it says
                return fill(context, None), None
        module = fill(context, None).to(device=context.device)
        return module, held.hold(key, module)


def fill(context: LoadContext, state: Mapping[str, torch.Tensor] | None) -> torch.nn.Module:
    """Build without memory, then take every tensor from the checkpoint.

    state  tensors under the module's own names; None: those of the checkpoint of the context
    """
    node = context.node
    with parameters_without_memory():
        module = build(node.component, node)
    if state is None:
        state = _read_state(module, context)
    _compare(module, state, context)
    module.load_state_dict(state, strict=False, assign=True)
    if isinstance(module, AfterLoad):
        module.after_load()
    del state  # what is left of it is mapped, or in the module alone
    stays = context.as_stored and isinstance(module, KeepsStored) and module.keeps_stored
    return cast(module, None if stays else dtype_of(context.dtype))


def _read_state(module: torch.nn.Module, context: LoadContext) -> Mapping[str, torch.Tensor]:
    """The tensors under the module's own names."""
    weights = context.weights
    assert weights is not None
    is_own = weights.view.states(context.node.component.id) is not None  # of a training: under the module's own names already
    return module.from_checkpoint(weights) if isinstance(module, FromCheckpoint) and not is_own else weights.state()


def _compare(module: torch.nn.Module, state: Mapping[str, torch.Tensor], context: LoadContext) -> None:
    """Raise SourceError naming what a checkpoint lacks, has over, or has in another shape or kind of numbers."""
    wanted = module.state_dict()
    expected = {name: tuple(tensor.shape) for name, tensor in wanted.items()}
    optional = set(module.optional_keys) if isinstance(module, OptionalKeys) else set[str]()
    missing = sorted(set(expected) - set(state) - optional)
    left_over = sorted(set(state) - set(expected))
    shapes = [
        f"{name} is {list(tensor.shape)}, wanted {list(expected[name])}"
        for name, tensor in sorted(state.items())
        if name in expected and tuple(tensor.shape) != expected[name]
    ]
    kinds = [
        f"{name} is {_word(tensor)}, wanted {_word(wanted[name])}"
        for name, tensor in sorted(state.items())
        if name in wanted and _kind(tensor) != _kind(wanted[name])
    ]
    found = [
        *([f"{len(missing)} missing: {choices(missing, most=4)}"] if missing else []),
        *([f"{len(left_over)} left over: {choices(left_over, most=4)}"] if left_over else []),
        *([f"{len(shapes)} of another shape: {'; '.join(shapes[:3])}"] if shapes else []),
        *([f"{len(kinds)} of another kind of numbers: {'; '.join(kinds[:3])}"] if kinds else []),
    ]
    if found:
        raise SourceError(_misfit(context, found))


def _kind(tensor: torch.Tensor) -> str:
    """What its numbers are: a quantised weight is no float of another precision, and would be read as one without its scales."""
    return "float" if tensor.is_floating_point() else "complex" if tensor.is_complex() else "integer"


def _word(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _misfit(context: LoadContext, found: list[str]) -> Problem:
    node, text = context.node, context.weights.view.text if context.weights is not None else "the shared node"
    return Problem(
        "weights-do-not-fit",
        f"the tensors of {text} do not fit {node.name} ({node.component.id}): {'; '.join(found)}",
        node.place,
        "the config and the weights belong to different models, or the part after # is another one",
        node=node.name,
    )
