"""When long work is done for the nodes of a pipeline: before they answer, beside the answers, or never; and what is told of it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from modelgraft.engine.backend import Loaded, Unfinished
from modelgraft.engine.choosing import is_auto
from modelgraft.engine.events import Progress, Warned
from modelgraft.engine.meanwhile import Meanwhile
from modelgraft.engine.opening import Opening
from modelgraft.engine.run import tell
from modelgraft.engine.standing import WAITS, StandIn
from modelgraft.kernel.words.graph import Node, SolvedGraph
from modelgraft.kernel.words.plan import Step
from modelgraft.kernel.words.wording import option

BACKGROUND, OFF = "MODELGRAFT_BACKGROUND", "off"  # the variable by which nothing is left to other processes

Anew = Callable[[Node, Step], Loaded | None]  # loads a node again; None where there is no room for both


class Leaving:
    """What is left for later of the loads of a pipeline.

    standing  the nodes that answer in another way until what they want is there
    """

    def __init__(self, graph: SolvedGraph, *, opening: Opening, is_aside: bool) -> None:
        """is_aside: this is the process that does what others have left."""
        self._graph, self._opening, self._is_aside = graph, opening, is_aside
        self._meanwhile = Meanwhile(graph, opening=opening)
        self.standing = frozenset[str]()

    def export(self, node: Node) -> str:
        """`LoadContext.export` of a node."""
        asked = self._opening.export or ("later" if self.is_auto(node) else "now")
        return "" if self._is_aside or (asked == "now" and _is_off()) else asked

    def is_auto(self, node: Node) -> bool:
        """Whether its backend was left to choose."""
        return is_auto(self._graph, self._opening.backend, node)

    def take(self, loaded: Loaded, node: Node, step: Step, anew: Anew) -> Loaded:
        """A node as a pipeline keeps it, with what a user must know of what was left out."""
        unfinished = loaded.unfinished
        if unfinished is None:
            return loaded
        text = f"{node.name}: {self._left(unfinished, replace(step, node=node))}"
        loaded = replace(loaded, warnings=(*loaded.warnings, text))
        if not unfinished.meanwhile:
            return loaded
        self.standing |= {node.name}
        return StandIn(loaded, partial(self._renewed, unfinished, node, step, anew)).loaded()

    def begin(self) -> None:
        """Have done what was left, once the first answer is there."""
        self._meanwhile.begin()

    def _left(self, unfinished: Unfinished, step: Step) -> str:
        """Leave work for later; gives what a user must know of it."""
        if self._opening.export != "never" and not _is_off():
            return self._meanwhile.add(step, unfinished)
        why = option("export", "never") if self._opening.export == "never" else f"{BACKGROUND}={OFF}"
        return f"answers on {unfinished.meanwhile}: there is no {unfinished.what} of it yet, and {why} makes none"

    def _renewed(self, unfinished: Unfinished, node: Node, step: Step, anew: Anew) -> Any:  # Any: see Renew
        """The node as it is once its work is done; see StandIn."""
        state = self._meanwhile.look(unfinished.key)
        if state is not None and not state.is_over:
            if state.label:
                tell(Progress, node.name, done=state.done, total=state.total, label=f"meanwhile, {state.label}")
            return WAITS
        if state is None or state.failed:
            why = state.failed if state is not None else "the process that made it ended early"
            tell(Warned, node.name, text=f"goes on answering on {unfinished.meanwhile}: its {unfinished.what} was not made ({why})")
            return None
        found = anew(node, step)
        if found is not None and found.unfinished is None:
            self.standing -= {node.name}
            tell(Warned, node.name, text=f"answers on {step.backend} from here on: its {unfinished.what} is there")
            return found
        if found is not None:
            found.close()
        tell(Warned, node.name, text=f"goes on answering on {unfinished.meanwhile}; its {unfinished.what} is there for the next start")
        return None


def _is_off() -> bool:
    return os.environ.get(BACKGROUND, "") == OFF
