"""Models of the transformers library as parts: built from a config without weights, filled from files in its layout.

Any plugin may import this module, inside its implementation modules only: it imports torch and transformers.

    model = build({"model_type": "llama", "hidden_size": 64, ...}, "AutoModelForCausalLM")      # in Module.__init__
    state = convert(weights.state(), model, prefix="model.")                                      # in from_checkpoint
    tie(model)                                                                                   # in after_load

Names on disk differ from names in memory, and both changed over the years. The translation is the one that
transformers itself applies in `from_pretrained`, called here on names and tensors alone, so that nothing is copied.
"""

from __future__ import annotations

import importlib
import re
from copy import deepcopy
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import transformers
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

from modelgraft.plugin import ModelgraftError, Problem, SourceError, parameters_without_memory

if TYPE_CHECKING:
    from collections.abc import Mapping

# transformers is only partly annotated: its models and configs are `Any` here.
Model = Any
ModelConfig = Any
Architecture = str | type[Any]  # a class of transformers by its name, or such a class of our own


def config_of(values: Mapping[str, Any] | ModelConfig, architecture: Architecture) -> ModelConfig:
    """Make the config object of a class of transformers, or of an `Auto...` class by its `model_type`.

    Raises ValueError for a model type that this version of transformers does not know.
    """
    if isinstance(values, transformers.PreTrainedConfig):
        return deepcopy(values)
    facts = {name: value for name, value in values.items() if name not in ("dtype", "torch_dtype")}
    if not _is_auto(architecture):
        return _named(architecture).config_class.from_dict(facts)
    kind = facts.pop("model_type", None)
    if kind is None:
        raise ValueError(f"the config has no model_type, so {architecture} cannot tell which model it is for")
    return transformers.AutoConfig.for_model(kind, **facts)


def class_of(config: ModelConfig, architecture: Architecture) -> type[Any]:
    """Find the model class: `architecture` itself, or what an `Auto...` class chooses for the config.

    Raises ValueError when the `Auto...` class has no model for it.
    """
    found = _named(architecture)
    if not _is_auto(architecture):
        return found  # type: ignore[no-any-return]
    try:
        return found._model_mapping[type(config)]  # type: ignore[no-any-return]
    except KeyError as error:
        raise ValueError(f"transformers has no {architecture} for model_type '{config.model_type}'") from error


def _is_auto(architecture: Architecture) -> bool:
    return isinstance(architecture, str) and architecture.startswith("Auto")


def _named(architecture: Architecture) -> Any:
    """A class by its name, or itself, or as "models.family.modeling_family:Class" where it is inside the library alone."""
    if not isinstance(architecture, str):
        return architecture
    module, _, name = architecture.rpartition(":")
    return getattr(importlib.import_module(f"transformers.{module}") if module else transformers, name)


def build(config: Mapping[str, Any] | ModelConfig, architecture: Architecture, *, attention: str | None = None) -> Model:
    """Build a model in float32 with fresh parameters, or without memory inside `parameters_without_memory()`.

    architecture  a class such as "CLIPVisionModel", or an `Auto...` class that goes by `model_type`; one that is inside the library alone
                  as "models.qwen2_vl.modeling_qwen2_vl:Qwen2VisionTransformerPretrainedModel"; or a class itself
    attention     "sdpa" or "eager"; None takes the fastest that the model knows, which is sdpa for nearly all

    Raises SourceError `source-damaged` for a config whose values are of other kinds than its family wants.
    """
    try:
        made = config_of(config, architecture)
        if attention is not None:
            made._attn_implementation = attention
        return class_of(made, architecture)(made)
    except (ValueError, ModelgraftError, MemoryError):
        raise
    except Exception as error:  # a config from elsewhere may hold anything under the keys of its family
        said = " ".join(str(error).split())
        found = f"transformers cannot build {architecture} from the config of this source: {type(error).__name__}: {said}"
        raise SourceError(Problem("source-damaged", found, hint="repair its config.json, or fetch it again")) from error


def blueprint(config: Mapping[str, Any] | ModelConfig, architecture: Architecture) -> Model:
    """Build the same model with parameters that take no memory: enough to know its names and shapes."""
    with parameters_without_memory():
        return build(config, architecture)


class _Translation(NamedTuple):
    renamings: list[WeightRenaming]
    converters: list[WeightConverter]
    base: str
    expected: Mapping[str, torch.Tensor]

    def name(self, key: str) -> tuple[str, str | None]:
        """The name in memory of a name on disk, and the pattern of the converter that it needs, if it needs one."""
        renamed, pattern = rename_source_key(key, self.renamings, self.converters, self.base, self.expected)  # type: ignore[arg-type]
        if renamed not in self.expected and key in self.expected:
            return rename_source_key(key, [], [], self.base, self.expected)  # type: ignore[arg-type]
        return renamed, pattern


def convert(state: Mapping[str, torch.Tensor], model: Model, *, prefix: str = "") -> dict[str, torch.Tensor]:
    """Rename and regroup tensors from a checkpoint into the names that `model` has in memory, each behind `prefix`.

    Tensors are handed on as they are unless the layout itself changed (fused or split weights). What the checkpoint
    lacks is absent from the result and what it has over is in it under a name that the model does not have, so that a
    strict load names both. Tied weights that the checkpoint holds once are given under all their names. Tensors that
    transformers ignores on purpose are dropped.
    """
    mapping = get_model_conversion_mapping(model)
    renamings = [entry for entry in mapping if isinstance(entry, WeightRenaming)]
    converters = [entry for entry in mapping if isinstance(entry, WeightConverter)]
    translation = _Translation(renamings, converters, model.base_model_prefix, model.state_dict())
    result: dict[str, torch.Tensor] = {}
    pending: dict[str, WeightConverter] = {}
    for key in sorted(state, key=_natural):
        name, pattern = translation.name(key)
        if pattern is None or name not in translation.expected:
            result[name] = state[key]
            continue
        if name not in pending:
            pending[name] = deepcopy(next(entry for entry in converters if pattern in entry.source_patterns))
        pending[name].add_tensor(name, key, pattern, state[key])  # type: ignore[arg-type]  # a tensor is as good as its future
    for name, converter in pending.items():
        for target, value in converter.convert(name, model=model, config=model.config).items():
            result[target] = value[0] if isinstance(value, list) else value
    _drop_ignored(result, model, translation.expected)
    _fill_tied(result, model)
    return {prefix + name: tensor for name, tensor in result.items()}


def tie(model: Model) -> None:
    """Make tied weights one parameter again where the checkpoint holds one tensor, or equal ones, for them.

    Weights that the config ties but the checkpoint holds with different values stay apart, as in `from_pretrained`.
    """
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for target, source in model.all_tied_weights_keys.items():
        kept, other = parameters.get(source), parameters.get(target)  # a part of the model may have been taken off
        if kept is not None and other is not None and kept is not other and _same(kept, other):
            owner, _, name = target.rpartition(".")
            setattr(model.get_submodule(owner), name, kept)


def optional_keys(model: Model, *, prefix: str = "") -> tuple[str, ...]:
    """The names, behind `prefix`, of tensors that checkpoints of this model may leave out."""
    patterns = tuple(model._keys_to_ignore_on_load_missing or ())
    return tuple(prefix + name for name in model.state_dict() if any(re.search(pattern, name) for pattern in patterns))


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    if one.is_meta or other.is_meta or one.shape != other.shape:
        return False
    return one.data_ptr() == other.data_ptr() or torch.equal(one, other)


def _drop_ignored(state: dict[str, torch.Tensor], model: Model, expected: Mapping[str, torch.Tensor]) -> None:
    """Drop what no model of transformers keeps in its files any more: buffers that are computed from the config."""
    patterns = [*(model._keys_to_ignore_on_load_unexpected or ()), r"rotary_emb\.inv_freq$", r"(^|\.)position_ids$"]
    for name in [name for name in state if name not in expected]:
        if any(re.search(pattern, name) for pattern in patterns):
            del state[name]


def _fill_tied(state: dict[str, torch.Tensor], model: Model) -> None:
    """Give every tied weight the tensor of its group, whichever of the group's names the file used."""
    tied = model.all_tied_weights_keys
    for target, source in tied.items():
        if source not in state and target in state:
            state[source] = state[target]
    for target, source in tied.items():
        if source in state:
            state.setdefault(target, state[source])


def _natural(key: str) -> tuple[tuple[int, int | str], ...]:
    """Sort layer 10 after layer 9."""
    return tuple((0, int(part)) if part.isdigit() else (1, part) for part in key.split("."))
