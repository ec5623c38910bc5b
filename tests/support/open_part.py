"""One component on its part of a checkpoint, without a graph around it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from modelgraft.engine.backend import LoadContext
from modelgraft.engine.forms import in_form, in_tensors_at
from modelgraft.engine.modules.building import count_parameters
from modelgraft.kernel.shelf.registry import Registry
from modelgraft.kernel.words.errors import SourceError
from modelgraft.kernel.words.graph import Node
from modelgraft.kernel.words.kinds import Component
from modelgraft.sources import views, weights
from modelgraft.testing import node_of
from modelgraft_plugins.torch.backend import TorchBackend


@dataclass(frozen=True, slots=True)
class Part:
    """A loaded component: call it with the values of its input ports in order."""

    node: Node
    call: Callable[..., Any]
    module: Any  # the torch module, or None for other code
    loop: Any = None  # what goes around the parts of a driven component

    def __call__(self, *values: Any) -> Any:
        """Run it."""
        return self.call(*values)

    @property
    def outputs(self) -> dict[str, str]:
        """The types of its output ports."""
        return {name: str(port) for name, port in self.node.out_ports.items()}


def configured(registry: Registry, component_id: str, source: str, **config: Any) -> Node:
    """A component with the config that a source and `config` give it."""
    component: Component = registry.components[component_id]
    view = views.view(views.parse(source), registry=registry, folder=None, trusted=True, offline=True)
    return replace(node_of(component, {**(view.states(component_id) or component.config.from_source(view)), **config}), source=view)


def open_part(registry: Registry, component_id: str, source: str, **config: Any) -> Part:
    """Load a component with the config and the weights of a source."""
    node = configured(registry, component_id, source, **config)
    assert node.source is not None
    try:
        opened = weights.open(node.source, offline=True)
    except SourceError:
        opened = None
    loaded = TorchBackend().load(LoadContext(node, "cpu", "float32", opened, 0, offline=True, registry=registry), {})
    return Part(node, _of_tensors(loaded.call, node), loaded.state, loaded.loop)


def _of_tensors(call: Callable[..., Any], node: Node) -> Callable[..., Any]:
    """Code that takes and gives arrays as a user meets it: with tensors."""
    if not node.component.arrays:
        return call

    def run(*values: Any) -> Any:
        found, ports = in_form(call, node)(*values), node.out_ports
        if len(ports) == 1:
            return in_tensors_at(*ports.values(), found)
        return {name: in_tensors_at(ports[name], value) for name, value in found.items()}

    return run


def counts(node: Node) -> tuple[int | None, int | None]:
    """The parameters by the component's formula, and those of the module built without memory."""
    return node.config.parameters(), count_parameters(node)
