"""LoRA through peft: the maths, what is targeted, and the layout of its files are peft's own."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from modelgraft.plugin import LoadContext, PluginError, Problem, SourceError, Weights, choices, seeded
from modelgraft_plugins.adapters import NAMES, OBEYED, UPDATE, Lora, own

PEFT_PREFIX = "base_model.model."  # what peft puts before the names of the host's layers in its files
TRAINED = re.compile(r"(\.lora_\w+)\.([^.]+)(\.weight|\.bias)")  # the names of an update in training, which hold that of the adapter
Host = torch.nn.Module


def graft(config: Lora, context: LoadContext) -> Callable[[Host], Host]:
    """Give the function that adds the updates to a host module.

    A new update starts at zero, so that the host first answers as without it. Weights in peft's layout
    (`base_model.model.<layer>.lora_A.weight`) come from the adapter's own source. With `context.merge` the updates are
    added to the weights of the host, which then has the layers that it had before.
    """
    try:
        import peft  # noqa: F401 the functions below use it
    except ImportError as error:
        raise PluginError("the adapter 'adapter/lora' needs peft: pip install 'modelgraft[lora]'") from error

    def add(host: Host) -> Host:
        files = _as_saved(_state(context.weights), context) if context.weights is not None else None
        home = _inside(host, config, files or {})
        named = _names(home.model, files or {}, context)
        _refuse_unknown_layers(config, context, home.model, is_new=files is None)
        wrapped = _wrapped(home.model, _settings(config, home.model, named), context)
        if files is not None:
            _fill(wrapped, {named.ours(key): tensor for key, tensor in files.items()}, context)
        if context.merge:
            home.put(_merged(wrapped, context))
        return host

    return add


def _state(weights: Weights) -> dict[str, torch.Tensor]:
    is_ours = weights.view.states("adapter/lora", is_graft=True) is not None
    return own(weights.state()) if is_ours else weights.state()


def _as_saved(state: Mapping[str, torch.Tensor], context: LoadContext) -> dict[str, torch.Tensor]:
    """Tensors of a model in training by the names that peft saves them under. Raises SourceError for those of several adapters."""
    given = {key: TRAINED.fullmatch(key, max(key.find(UPDATE), 0)) for key in state}
    names = sorted({match[2] for match in given.values() if match is not None})
    if len(names) > 1:
        raise SourceError(_misfit(context, f"it holds several, {choices(names)}: save one of them"))
    return {(key[: match.start()] + match[1] + match[3] if match else key): state[key] for key, match in given.items()}


# -- where it goes ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Home:
    """The module whose layers are named as peft names them: the model of transformers inside a host, or the host itself."""

    model: Any  # Any: a model of transformers, which is only partly annotated
    put: Callable[[Any], None]


def _inside(host: Host, config: Lora, files: Mapping[str, torch.Tensor]) -> _Home:
    """The model inside; the host itself where layers beside that are updated too, such as gated blocks that were grafted before."""
    from transformers import PreTrainedModel

    for name, child in host.named_children():
        if isinstance(child, PreTrainedModel) and not _reaches_beyond(host, child, config, files):
            return _Home(child, lambda merged, name=name: setattr(host, name, merged))  # type: ignore[misc]
    return _Home(host, lambda _: None)  # merging works in place


def _reaches_beyond(host: Host, model: Host, config: Lora, files: Mapping[str, torch.Tensor]) -> bool:
    """Whether an update goes into a layer of the host that is not one of the model: by the files, or by `targets` where there are none."""
    theirs = {id(layer) for layer in model.modules()}
    beside = [name for name, layer in host.named_modules() if isinstance(layer, torch.nn.Linear) and id(layer) not in theirs]
    if files:
        updated = {key.removeprefix(PEFT_PREFIX).partition(UPDATE)[0] for key in files if UPDATE in key}
        return any(name in updated for name in beside)
    wanted = config.targets if isinstance(config.targets, tuple) else ()
    return any(name == target or name.endswith(f".{target}") for name in beside for target in wanted)


@dataclass(frozen=True, slots=True)
class _Names:
    """How the adapter's file and the host call the same layer: one of them may name it from further outside.

    beyond  what the file has before the host's names;  within  what the host has before the file's
    """

    beyond: str = ""
    within: str = ""

    @property
    def are_the_same(self) -> bool:
        return not self.beyond and not self.within

    def ours(self, key: str) -> str:
        """A key of the file by the names of the host."""
        return f"{self.within}{key.removeprefix(PEFT_PREFIX).removeprefix(self.beyond)}"

    def theirs(self, layer: str) -> str:
        """A layer of the host as the file calls it."""
        return f"{self.beyond}{layer.removeprefix(self.within)}"


def _names(model: Host, files: Mapping[str, torch.Tensor], context: LoadContext) -> _Names:
    """Find the difference by the first update in the file. Raises SourceError when its layer is nowhere in the host."""
    key = next((key for key in sorted(files) if UPDATE in key), None)
    if key is None:
        return _Names()
    layer = key.removeprefix(PEFT_PREFIX).partition(UPDATE)[0]
    layers = {name for name, _ in model.named_modules() if name}
    if layer in layers or layer.endswith("base_layer"):
        return _Names()
    shared = {name: _common_end(name, layer) for name in layers}
    most = max(shared.values(), default=0)
    found = {_apart(name, layer, most) for name, count in shared.items() if most and count == most}
    if len(found) != 1:
        size = list(files[key].shape)
        raise SourceError(_misfit(context, f"{key} {size} has no place in the host: {len(found)} layers end like it"))
    return found.pop()


def _common_end(one: str, other: str) -> int:
    """How many steps two names have in common at their ends."""
    pairs = zip(reversed(one.split(".")), reversed(other.split(".")), strict=False)
    return next((count for count, (mine, theirs) in enumerate(pairs) if mine != theirs), min(one.count("."), other.count(".")) + 1)


def _apart(name: str, layer: str, common: int) -> _Names:
    """What stands before the steps that a layer of the host and one of the file have in common."""
    within, beyond = ("".join(f"{step}." for step in whole.split(".")[:-common]) for whole in (name, layer))
    return _Names(beyond=beyond, within=within)


def _refuse_unknown_layers(config: Lora, context: LoadContext, model: Host, *, is_new: bool) -> None:
    """A slip in `targets`; of what peft has saved, the file tells which of them there were."""
    if not is_new or not isinstance(config.targets, tuple):
        return
    layers = [name for name, layer in model.named_modules() if isinstance(layer, torch.nn.Linear)]
    unknown = [target for target in config.targets if not any(name == target or name.endswith(f".{target}") for name in layers)]
    if unknown:
        node, there = context.node, choices({name.rpartition(".")[2] for name in layers})
        found = f"{node.name} ({node.component.id}) has no linear layer named {', '.join(unknown)}; it has {there}"
        raise SourceError(Problem("no-such-layer", found, node.place, "name the layers in the adapter's `targets`", node=node.name))


# -- what it is ---------------------------------------------------------------------------------------------------------


def _settings(config: Lora, model: Host, named: _Names) -> Any:
    """The config as peft has it. Where file and host name layers differently, it names those of the host one by one."""
    from peft import LoraConfig
    from peft.tuners.tuners_utils import check_target_module_exists
    from peft.utils.other import get_pattern_key

    given = {key: _plain(getattr(config, NAMES.get(key, key))) for key in OBEYED}
    settings = LoraConfig(**{key: value for key, value in given.items() if value is not None}, lora_dropout=0.0)
    if named.are_the_same or settings.target_modules == "all-linear":
        return settings
    checked = {name: check_target_module_exists(settings, named.theirs(name)) for name, _ in model.named_modules() if name}
    layers = [name for name, found in checked.items() if found is True or isinstance(found, re.Match)]  # of what is excluded: an object
    for pattern in ("rank_pattern", "alpha_pattern"):
        table = getattr(settings, pattern)
        chosen = {name: get_pattern_key(list(table), named.theirs(name)) for name in layers}
        setattr(settings, pattern, {f"^{name}": table[key] for name, key in chosen.items() if key in table})
    settings.target_modules, settings.exclude_modules = layers, None
    settings.layers_to_transform, settings.layers_pattern = None, None
    return settings


def _plain(value: Any) -> Any:
    """Lists where peft wants lists."""
    if isinstance(value, tuple):
        return [*value]
    return {key: _plain(inner) for key, inner in value.items()} if isinstance(value, dict) else value


def _wrapped(model: Any, settings: Any, context: LoadContext) -> Any:
    """Peft's tuner around the host, its new parameters drawn from the seed; the host answers with this adapter and those before it."""
    from peft.tuners.lora import LoraModel
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import set_additional_trainable_modules

    before = sorted({name for layer in model.modules() if isinstance(layer, BaseTunerLayer) for name in layer.active_adapters})
    name = f"next{len(before)}" if before else "default"
    earlier = vars(model).pop("peft_config", {})  # peft warns where it finds one
    with seeded(context.seed):
        try:
            wrapped = LoraModel(model, {name: settings}, name)
            set_additional_trainable_modules(
                model=model, peft_config=settings, model_config=LoraModel.get_model_config(model), adapter_name=name
            )
        except (ValueError, IndexError) as error:  # an index: a token that the embeddings do not have
            node = context.node
            found = f"peft cannot graft the adapter of {node.name} ({node.component.id}): {error}"
            hint = "look at `targets` and the tokens of the adapter, and at the kind of its host"
            raise SourceError(Problem("no-such-layer", found, node.place, hint, node=node.name)) from error
    model.peft_config = {**earlier, name: settings}
    for layer in model.modules():
        if before and isinstance(layer, BaseTunerLayer):
            layer.set_adapter([other for other in (*before, name) if other in layer._get_available_adapters()])
    return wrapped


# -- what fills it ------------------------------------------------------------------------------------------------------


def _fill(wrapped: Any, state: Mapping[str, torch.Tensor], context: LoadContext) -> None:
    """Put the tensors of a peft file where they belong. Raises SourceError for those without a place, and places without one."""
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    model, name = wrapped.model, list(wrapped.peft_config)[-1]
    wanted = get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False)
    base = dict(model.named_parameters(remove_duplicate=False))  # a tied head too, which peft writes out beside its update
    own = {key: tensor for key, tensor in state.items() if key in wanted}
    over = {key: tensor for key, tensor in state.items() if key not in wanted}
    for key, tensor in state.items():
        place = wanted.get(key, base.get(key))
        if place is None or place.shape != tensor.shape:
            where = "0 layers end like it" if place is None else f"the layer takes {list(place.shape)}"
            raise SourceError(_misfit(context, f"{key} {list(tensor.shape)} has no place in the host: {where}"))
    missing = sorted(wanted.keys() - own.keys())
    if missing:
        raise SourceError(_misfit(context, f"{len(missing)} missing: {choices(missing, most=4)}"))
    for key, tensor in over.items():  # embeddings that were trained whole: the tensor that is there is mapped, and must not be written to
        base[key].data = tensor.to(base[key].dtype).clone()
    set_peft_model_state_dict(model, own, adapter_name=name)


def _merged(wrapped: Any, context: LoadContext) -> Any:
    """The host with every update in the weights of its layer, and nothing of peft left. Raises SourceError for NaN in them."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    broken = [
        name
        for name, layer in wrapped.model.named_modules()
        if isinstance(layer, BaseTunerLayer) and not all(tensor.isfinite().all() for tensor in _updates(layer))
    ]
    _give_each_its_own(wrapped.model)
    try:
        if not broken:
            return wrapped.merge_and_unload(safe_merge=True)  # into copies: the weights themselves are mapped from their file
    except ValueError:  # numbers that are finite each, and no product of which is
        broken = ["some layer"]
    found = f"the updates of {choices(broken, most=4)} make NaN of the weights of {context.node.name}"
    raise SourceError(Problem("source-damaged", found, context.node.place, node=context.node.name))


def _give_each_its_own(model: Any) -> None:
    """What an update goes into must be of its layer alone: a tied head apart from the embeddings, and a bias where the update has one."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    owners = Counter(id(tensor) for _, tensor in model.named_parameters(remove_duplicate=False))
    for layer in model.modules():
        if not isinstance(layer, BaseTunerLayer):
            continue
        base: Any = layer.get_base_layer()
        weight: Any = getattr(base, "weight", None)
        if weight is not None and owners[id(weight)] > 1:
            base.weight = torch.nn.Parameter(weight.detach(), requires_grad=False)
            model.config.get_text_config(decoder=True).tie_word_embeddings = False
        if any(getattr(layer, "lora_bias", {}).values()) and base.bias is None:
            base.bias = torch.nn.Parameter(weight.new_zeros(weight.shape[0]), requires_grad=False)


def _updates(layer: Any) -> list[torch.Tensor]:
    """The tensors of the updates of a layer, without those of the layer itself."""
    return [tensor for name, tensor in layer.named_parameters() if name.startswith(UPDATE[1:])]


def _misfit(context: LoadContext, found: str) -> Problem:
    node = context.node
    return Problem("weights-do-not-fit", f"the adapter's file does not fit {node.name}: {found}", node.place, "", node=node.name)
