"""LoRA through peft: the maths and the layout of its files are peft's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from modelgraft.backends.base import LoadContext
from modelgraft.errors import PluginError, Problem, SourceError, choices
from modelgraft_plugins.adapters import Lora

PEFT_PREFIX = "base_model.model."  # what peft puts before the names of the host's layers in its files


def graft(config: Lora, context: LoadContext) -> Callable[[torch.nn.Module], torch.nn.Module]:
    """Give the function that adds the updates to a host module.

    A new update starts at zero, so that the host first answers as without it. Weights in peft's layout
    (`base_model.model.<layer>.lora_A.weight`) come from the adapter's own source. With `context.merge` the updates are
    added to the weights of the host, which then has the layers that it had before.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise PluginError("the adapter 'adapter/lora' needs peft: pip install 'modelgraft[lora]'") from error

    def add(host: torch.nn.Module) -> torch.nn.Module:
        _refuse_unknown_layers(config, context, host)
        settings = LoraConfig(r=config.rank, lora_alpha=config.alpha, target_modules=list(config.targets), lora_dropout=0.0)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(context.seed)
            grafted: torch.nn.Module = inject_adapter_in_model(settings, host, adapter_name="default")
        if context.weights is not None:
            _fill(grafted, context.weights.state(), context)
        return _merged(grafted, context) if context.merge else grafted

    return add


def _merged(grafted: torch.nn.Module, context: LoadContext) -> torch.nn.Module:
    """Add every update to the weights of its layer, and put that layer back in its place. Raises SourceError for NaN in them."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, layer in list(grafted.named_modules()):
        if isinstance(layer, BaseTunerLayer):
            try:
                layer.merge(safe_merge=True)  # into a copy: the weights themselves are mapped from their file
            except ValueError as error:
                found = f"the updates of {name} make NaN of the weights of {context.node.name}"
                raise SourceError(Problem("source-damaged", found, context.node.place, node=context.node.name)) from error
            owner, _, last = name.rpartition(".")
            setattr(grafted.get_submodule(owner), last, layer.get_base_layer())
    return grafted


def _refuse_unknown_layers(config: Lora, context: LoadContext, host: torch.nn.Module) -> None:
    layers = {name.rpartition(".")[2] for name, layer in host.named_modules() if isinstance(layer, torch.nn.Linear)}
    unknown = sorted(set(config.targets) - layers)
    if unknown:
        node = context.node
        found = f"{node.name} ({node.component.id}) has no linear layer named {', '.join(unknown)}; it has {choices(layers)}"
        raise SourceError(Problem("no-such-layer", found, node.place, "name the layers in the adapter's `targets`", node=node.name))


def _fill(host: torch.nn.Module, state: Mapping[str, torch.Tensor], context: LoadContext) -> None:
    """Put the tensors of a peft file where they belong: each into the one parameter whose name ends like it."""
    wanted = {name: parameter for name, parameter in host.named_parameters() if ".lora_" in name}
    placed = dict[str, torch.Tensor]()
    for key, tensor in state.items():
        tail = (
            key.removeprefix(PEFT_PREFIX)
            .replace(".lora_A.weight", ".lora_A.default.weight")
            .replace(".lora_B.weight", ".lora_B.default.weight")
        )
        homes = [name for name in wanted if name == tail or name.endswith(f".{tail}")]
        if len(homes) != 1 or wanted[homes[0]].shape != tensor.shape:
            where = f"{len(homes)} layers end like it" if len(homes) != 1 else f"the layer takes {list(wanted[homes[0]].shape)}"
            raise SourceError(_misfit(context, f"{key} {list(tensor.shape)} has no place in the host: {where}"))
        placed[homes[0]] = tensor
    missing = sorted(set(wanted) - set(placed))
    if missing:
        raise SourceError(_misfit(context, f"{len(missing)} missing: {choices(missing, most=4)}"))
    with torch.no_grad():
        for name, tensor in placed.items():
            wanted[name].copy_(tensor)


def _misfit(context: LoadContext, found: str) -> Problem:
    node = context.node
    return Problem("weights-do-not-fit", f"the adapter's file does not fit {node.name}: {found}", node.place, "", node=node.name)
