"""When long work is done for the nodes of a pipeline: before they answer, beside the answers, or never; and what is told of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from modelgraft.engine.backend import Loaded, Unfinished
from modelgraft.engine.choosing import BACKGROUND, OFF, is_auto, is_off, when_exported
from modelgraft.engine.events import Progress, Warned
from modelgraft.engine.opening import Opening
from modelgraft.engine.run import SERVING, tell
from modelgraft.engine.standing import WAITS, StandIn
from modelgraft.kernel.words.errors import ModelgraftError
from modelgraft.kernel.words.graph import Node, SolvedGraph
from modelgraft.kernel.words.plan import Step
from modelgraft.kernel.words.wording import option

if TYPE_CHECKING:
    from modelgraft.engine.meanwhile import Meanwhile

Anew = Callable[[Node, Step], Loaded | None]  # loads a node again; None where there is no room for both


class Leaving:
    """What is left for later of the loads of a pipeline.

    standing  the nodes that answer in another way until what they want is there
    """

    def __init__(self, graph: SolvedGraph, *, opening: Opening, is_aside: bool) -> None:
        """is_aside: this is the process that does what others have left."""
        self._graph, self._opening, self._is_aside = graph, opening, is_aside
        self.standing = frozenset[str]()
        self._now: dict[str, str] = {}  # by what was said of a load: what holds in its place; "": nothing

    @cached_property
    def _meanwhile(self) -> Meanwhile:
        """The jobs that are left; most pipelines leave none."""
        from modelgraft.engine.meanwhile import Meanwhile

        return Meanwhile(self._graph, opening=self._opening)

    def export(self, node: Node) -> str:
        """`LoadContext.export` of a node."""
        if self._is_aside:
            return ""
        when = when_exported(self._graph, self._opening, node)
        return "" if when == "now" and is_off() else when

    def fallback(self, node: Node) -> str | None:
        """`LoadContext.fallback` of a node: where nobody has named a backend, what cannot run there stays on torch.

        Who does what others have left must hear that it cannot be done.
        """
        if self._is_aside:
            return None
        return "torch" if self.is_auto(node) else self._opening.fallback

    def is_auto(self, node: Node) -> bool:
        """Whether its backend was left to choose."""
        return is_auto(self._graph, self._opening.backend, node)

    def take(self, loaded: Loaded, node: Node, step: Step, anew: Anew) -> Loaded:
        """A node as a pipeline keeps it, with what a user must know of what was left out."""
        unfinished = loaded.unfinished
        if unfinished is None:
            return loaded
        is_begun = self._opening.export != "never" and not is_off()
        text = self._meanwhile.add(replace(step, node=node), unfinished) if is_begun else self._refusal(unfinished)
        warning = f"{node.name}: {text}"
        loaded = replace(loaded, warnings=(*loaded.warnings, warning))
        if not unfinished.meanwhile:
            return loaded
        self.standing |= {node.name}
        if not is_begun:
            return replace(loaded, state=None)  # as with an export: nobody takes weights from it
        return StandIn(loaded, partial(self._renewed, unfinished, node, step, anew, warning)).loaded()

    def now(self, warning: str) -> str:
        """What holds now of what a load has told; "" when nothing does any more."""
        return self._now.get(warning, warning)

    def begin(self) -> None:
        """Have done what was left, once the first answer is there."""
        if "_meanwhile" in vars(self):
            self._meanwhile.begin()

    def _refusal(self, unfinished: Unfinished) -> str:
        """What a user must know of work that nobody will do."""
        why = option("export", "never") if self._opening.export == "never" else f"{BACKGROUND}={OFF}"
        where = f"answers on {unfinished.meanwhile}: " if unfinished.meanwhile else ""
        return f"{where}its {unfinished.what} is not there yet, and with {why} none is made"

    def _renewed(self, unfinished: Unfinished, node: Node, step: Step, anew: Anew, warning: str) -> Any:  # Any: see Renew
        """The node as it is once its work is done; see StandIn. What differs does not change within a map: its results belong together."""
        served = SERVING.get()
        if unfinished.differs and served is not None and served.is_of_map:
            return WAITS
        state = self._meanwhile.look(unfinished.key)
        if state is not None and not state.is_over:
            if state.label:
                tell(Progress, node.name, done=state.done, total=state.total, label=f"meanwhile, {state.label}")
            return WAITS
        found: Loaded | None = None
        if state is None or state.failed:
            why = f"was not made ({state.failed if state is not None else 'the process that made it ended early'})"
        else:
            found, why = _tried(lambda: anew(node, step))
        if found is None:
            self._now[warning] = text = f"{node.name}: goes on answering on {unfinished.meanwhile}: its {unfinished.what} {why}"
            tell(Warned, node.name, text=text, lasting=True)
            return None
        self.standing -= {node.name}
        self._now[warning] = ""
        tell(Warned, node.name, text=f"answers on {step.backend} from here on: its {unfinished.what} is there")
        return found


def _tried(anew: Callable[[], Loaded | None]) -> tuple[Loaded | None, str]:
    """A node that is loaded anew, or why it is not."""
    try:
        found = anew()
    except ModelgraftError as error:
        from modelgraft.engine.meanwhile import in_a_line

        return None, f"cannot be used ({in_a_line(error)})"
    if found is None:
        return None, "is there for the next start, which need not hold both"
    if found.unfinished is not None and found.unfinished.meanwhile:
        found.close()
        return None, "is gone again"
    return found, ""
