"""llm/causal with prefix attention grafted into it, in torch."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from modelgraft.plugin import LoadContext, Problem, SourceError, choices, parameters_without_memory, seeded
from modelgraft_plugins.llm.causal import Causal
from modelgraft_plugins.llm.gated_causal import GatedCausal
from modelgraft_plugins.llm.prefix import PrefixAttention
from modelgraft_plugins.llm.prefix_layers import PrefixLayers

TRAINED = "gated."  # before the names of what was trained here


class PrefixCausal(GatedCausal):
    """A decoder-only language model whose words look at a few vectors."""

    gated: PrefixLayers

    def facts(self) -> dict[str, Any]:
        """See GatedCausal.facts; beside it how many vectors there are."""
        return {**super().facts(), "media_vectors": self.gated.vectors}


def graft(config: PrefixAttention, context: LoadContext) -> Callable[[nn.Module], nn.Module]:
    """Give the function that puts the prefix into llm/causal.

    New vectors are random by the seed, gates closed and biases 0. Those of a source have the names that the card of LLaMA-Adapter gives
    them; norms of the host that it holds take the place of the host's.
    """

    def add(host: nn.Module) -> nn.Module:
        if not isinstance(host, Causal):
            found = f"{context.node.name} ({context.node.component.id}) has no layers that its adapter could stand in"
            raise SourceError(Problem("adapter-misplaced", found, context.node.place, "graft it into llm/causal", node=context.node.name))
        try:
            return PrefixCausal(host, _layers(config, context, host))
        except ValueError as error:
            raise SourceError(Problem("adapter-misplaced", str(error), context.node.place, node=context.node.name)) from error

    return add


def _layers(config: PrefixAttention, context: LoadContext, host: Causal) -> PrefixLayers:
    if context.weights is None:
        with seeded(context.seed + zlib.crc32(context.node.name.encode())):
            return PrefixLayers(config)
    with parameters_without_memory():
        prefix = PrefixLayers(config)
    files = context.weights.state()
    if context.weights.view.states("adapter/prefix_attention", is_graft=True) is not None:  # others may have learnt beside it
        files = {key.removeprefix(TRAINED): tensor for key, tensor in files.items() if key.startswith(TRAINED)}
    norms = {key: tensor for key, tensor in files.items() if key.endswith("norm.weight")}
    _load(prefix, {key: tensor for key, tensor in files.items() if key not in norms}, context, "prefix attention")
    if norms:
        wanted = {f"model.{key}": tensor for key, tensor in norms.items()}
        there = {key: tensor for key, tensor in host.model.state_dict().items() if key.endswith("norm.weight")}
        _refuse(there, wanted, context, "the norms")
        host.model.load_state_dict(wanted, strict=False, assign=True)
        host.model.requires_grad_(requires_grad=False)
    return prefix


def _load(module: nn.Module, files: Mapping[str, Tensor], context: LoadContext, what: str) -> None:
    _refuse(module.state_dict(), files, context, what)
    module.load_state_dict(dict(files), assign=True)


def _refuse(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor], context: LoadContext, what: str) -> None:
    """Raise SourceError with what is missing, left over, or of another shape."""
    wrong = [f"{name} is missing" for name in sorted(wanted.keys() - found.keys())]
    wrong += [f"{name} is left over" for name in sorted(found.keys() - wanted.keys())]
    wrong += [
        f"{name} is {list(found[name].shape)}, wanted {list(wanted[name].shape)}"
        for name in sorted(wanted.keys() & found.keys())
        if found[name].shape != wanted[name].shape
    ]
    if wrong:
        node = context.node
        text = f"the tensors of its adapter's source do not fit {what} of {node.name}: {choices(wrong, most=4)}"
        hint = "name the language model that the adapter was trained with"
        raise SourceError(Problem("weights-do-not-fit", text, node.place, hint, node=node.name))
