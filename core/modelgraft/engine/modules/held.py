"""Weights that pipelines of one process share: frozen ones of one source, in one dtype, on one device, are there once.

The tensors are shared, never the modules: each pipeline has modules of its own, with its own seed, events and cancellation.
What is held is freed with the last node that uses it.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from modelgraft.engine.backend import LoadContext
from modelgraft.kernel.words.errors import GraphError
from modelgraft.kernel.words.guard import contained

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Held:
    """The tensors of a loaded module by name; `buffers` are those that its code may write to."""

    tensors: Mapping[str, Tensor]
    buffers: frozenset[str] = field(default=frozenset())

    def state(self) -> dict[str, Tensor]:
        """What another module of this kind is filled with: the same parameters, and buffers of its own."""
        return {name: tensor.clone() if name in self.buffers else tensor for name, tensor in self.tensors.items()}


LOCK = threading.RLock()  # two pipelines that load the same weights at once: the second waits, and finds them
_HELD: WeakValueDictionary[str, Held] = WeakValueDictionary()  # of the process, because that is what shares its memory


def key_of(context: LoadContext) -> str | None:
    """What makes weights the same; None for those that are a node's own.

    They are its own when they may be trained, when adapters may write to them, and when nobody can tell what they are.
    """
    node = context.node
    if not node.frozen or node.adapters or node.share or node.source is None or context.weights is None:
        return None
    try:
        with contained():
            facts = json.dumps(node.config.export_facts(), sort_keys=True)
        identity = node.source.identity()
    except (GraphError, OSError):
        return None
    except Exception:  # noqa: BLE001 code of a plugin may raise anything; what it cannot tell is not shared
        return None
    component = node.component
    code = component.id, component.version, component.module, id(component.config)  # the same declaration, not one of the same name
    return json.dumps([*code, facts, identity, context.device, context.dtype, context.as_stored])


def find(key: str) -> Held | None:
    """What some pipeline holds already. Ask under LOCK."""
    return _HELD.get(key)


def hold(key: str, module: Module) -> Held:
    """Let others find the tensors of a module that was just filled, for as long as what this gives is kept."""
    buffers = frozenset(name for name, _ in module.named_buffers(remove_duplicate=False))
    tensors = {name: tensor for name, tensor in module.state_dict().items() if not tensor.is_meta}
    held = _HELD[key] = Held(tensors, buffers)
    return held
