"""Models of diffusers by their configs, of which every key must be known."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from modelgraft.plugin import Driven, InputError, SourceError, Weights, choices
from modelgraft.plugin import Problem as Fault
from modelgraft_plugins.counted import remember

try:
    import diffusers
except ImportError as error:
    raise InputError("diffusion needs the package diffusers: pip install 'modelgraft[diffusion]'") from error

# diffusers is only partly annotated: its models are `Any` here.
Model = Any


def built(name: str, config: Mapping[str, Any]) -> Model:
    """A model or scheduler of diffusers from its config, of which every key must be known to its class.

    Raises SourceError `source-damaged` for a key that it does not know, and for values that it cannot be built from.
    """
    subject: Any = getattr(diffusers, name)
    settings = {key: value for key, value in config.items() if not key.startswith("_")}  # _class_name and versions
    known = inspect.signature(subject.__init__).parameters
    unknown = [key for key in settings if key not in known]
    if unknown:
        found = f"the config of {name} has keys that diffusers {diffusers.__version__} does not know: {choices(unknown)}"
        raise SourceError(Fault("source-damaged", found, hint="install the version that wrote it, or take these keys out of the config"))
    try:
        return subject.from_config(dict(config))
    except Exception as error:  # a config from elsewhere may hold anything
        said = " ".join(str(error).split())
        found = f"diffusers cannot build {name} from its config: {type(error).__name__}: {said}"
        raise SourceError(Fault("source-damaged", found, hint="repair its config.json, or fetch it again")) from error


class Answering(nn.Module):
    """A model that a loop asks: a part derives from this, and says with what it is asked.

    name, config  the class of diffusers and its config;  the count of its parameters is remembered
    """

    def __init__(self, name: str, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.model: Model = built(name, config)
        remember(config, sum(parameter.numel() for parameter in self.model.parameters()))


class Asking(Driven):
    """The module of a loop: one part, which holds one model of diffusers.

    part   its name;  model  what is asked
    """

    def __init__(self, part: str, model: Answering) -> None:
        super().__init__()
        self.part, self.asked = part, (model,)  # in a tuple, so that it stands in the module once
        self.add_module(part, model)

    def from_checkpoint(self, weights: Weights) -> dict[str, Tensor]:
        """The tensors of the model, under the names of this version of diffusers."""
        (asked,) = self.asked
        found = asked.model._fix_state_dict_keys_on_load(weights.state())
        return {f"{self.part}.model.{key}": tensor for key, tensor in found.items()}
