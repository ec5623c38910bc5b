"""Driven components: plain Python around one or more tensor parts, the same on every backend.

A token loop around a decoder, a denoising loop around a UNet, a vocoder that goes over a sound in pieces. Three things make one:

    the declaration   @component("toy/settle", kind="generator", module="toy.modules:Settling", loop="toy.loops:Settle", exportable=True,
                                 parts={"field": Ports.of({"state": "float[batch width]"}, {"force": "float[batch width]"})})
    the module        holds the parts, as a `Driven` (module.py): what is filled from checkpoints, frozen, trained and counted
    the loop          a `Loop`: made as `Class(config, facts)`, and handed the parts by name in every run

The backend loads the parts: the torch backend as they stand in the module, the onnx backend each as a session of its own, proven
against torch. Called they are alike: tensors in the order of the part's inputs; of one output the tensor, of several a mapping by name.

A loop must not import what its parts are made of: where every part has been exported, no module is built at all.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from modelgraft.engine.backend import LoadContext
    from modelgraft.engine.run import NodeRuntime


class Loop(ABC):
    """What repeats inside a component. One per loaded node; made as `Class(config, facts)`.

    config   the component's own;  facts  what its module says of itself: see `Driven.facts`
    arrays   where its parts are sessions on the host it takes and gives arrays of numpy, and so do they; otherwise tensors
    """

    arrays: ClassVar[bool] = False

    def __init__(self, config: Any, facts: Mapping[str, Any]) -> None:
        self.config, self.facts = config, facts

    def prepare(self, context: LoadContext) -> None:  # noqa: B027 most loops have nothing beside their parts
        """Open what lies beside the weights, such as a tokenizer or the settings of a scheduler. Called once, after loading."""

    def bind(self, runtime: NodeRuntime) -> None:  # noqa: B027 most loops need nothing of the run
        """Take what tells seed, cancellation and events of a run: `check()` belongs into every round, `emit` where a user may watch."""

    def hold(self, parts: Mapping[str, Any]) -> None:  # noqa: B027 most loops call their parts in `run` alone
        """Take the parts, once they are loaded: for loops that begin before they are run, such as those that listen to other nodes."""

    def close(self) -> None:  # noqa: B027 most loops keep nothing between runs
        """Give back what is kept between runs. Called once, when the pipeline closes or lets go of the node; nothing is called after it."""

    @abstractmethod
    def run(self, values: Sequence[Any], parts: Mapping[str, Any], *, wanted: frozenset[str]) -> Any:
        """Answer one batch.

        values   of the node's input ports, in order; None for an unwired optional one
        parts    by name: see above; `Any`, because a loop may have parts of its own making (tracing.py)
        wanted   the outputs that somebody reads: what costs something and is not among them need not be made
        returns  the value of the only output, or a mapping by port name when there are several
        """
        ...
