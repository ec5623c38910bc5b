"""The work of instruct/scene and instruct/ask: what is known of a picture, and what a language model is told of it."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from modelgraft.plugin import InputError, LoadContext, NodeRuntime
from modelgraft_plugins.instructing import shipped

if TYPE_CHECKING:
    from modelgraft_plugins.instructing import Ask, Scene

CORNERS = (("x0", "width"), ("y0", "height"), ("x1", "width"), ("y1", "height"))
LOOSE = 1e-3  # a box may stand so far over the edge, as a part of the picture: rounding in files


def scene(config: Scene, context: LoadContext) -> Callable[..., list[str]]:
    """Make the function from captions, boxes and sizes, each a batch or None, to texts."""
    node = context.node.name

    def write(captions: list[list[str]], boxes: list[Any] | None, width: list[Any] | None, height: list[Any] | None) -> list[str]:
        sizes = {"width": width, "height": height}
        found = list[str]()
        for row, said in enumerate(captions):
            size = {side: _number(value[row], side, node) for side, value in sizes.items() if value is not None and value[row] is not None}
            lines = [line for text in said if (line := " ".join(text.split()))]
            lines += [_line(box, size, config.digits, node) for box in (boxes[row] if boxes is not None else ())]
            if not lines:
                raise InputError(f"{node}: nothing is known of this picture: no caption, and no box")
            found.append("\n".join(lines))
        return found

    return write


def _number(value: Any, side: str, node: str) -> float:
    """Pixels, of which a table may have made a text. Raises InputError for what is no such number."""
    try:
        found = float(value)
    except (TypeError, ValueError):
        found = 0.0
    if not 0 < found < float("inf"):
        raise InputError(f"{node}: {side} is {value!r}, wanted a number of pixels")
    return found


def _line(box: Mapping[str, Any], size: Mapping[str, float], digits: int, node: str) -> str:
    """A box with its name. Raises InputError for one without, and for one that is not on the picture."""
    name = " ".join(str(box.get("text") or "").split())
    if not name:
        raise InputError(f"{node}: the box {dict(box)} has no `text`, and a place without a name says nothing")
    if len(size) == 1:
        raise InputError(f"{node}: of the picture's size only its {next(iter(size))} is given: give both, or neither")
    places = [float(box[corner]) / size.get(side, 1.0) for corner, side in CORNERS]
    if not all(-LOOSE <= place <= 1 + LOOSE for place in places) or places[0] > places[2] or places[1] > places[3]:
        hint = "" if size else "; boxes in pixels need width and height of the picture"
        raise InputError(
            f"{node}: the box of {name!r} is not on the picture: {[round(place, digits) for place in places]}, from 0 to 1{hint}"
        )
    return f"{name}: [{', '.join(f'{min(max(place, 0.0), 1.0):.{digits}f}' for place in places)}]"


def ask(config: Ask, _context: LoadContext) -> Asking:
    """Make what writes prompts, with the words that ship where the config has none."""
    words = shipped()[config.kind]
    system = words["system"] if config.system is None else config.system
    examples = words["examples"] if config.examples is None else config.examples
    requests = (words.get("requests", ()) if config.requests is None else config.requests) if config.kind == "detail" else ()
    return Asking(system, examples, requests)


class Asking:
    """Writes what a language model is told of each scene."""

    def __init__(self, system: str, examples: Sequence[Sequence[str]], requests: Sequence[str]) -> None:
        shown = [_message(role, text) for pair in examples for role, text in zip(("user", "assistant"), pair, strict=True)]
        self._begin = (*([_message("system", system)] if system else []), *shown)
        self._requests = requests
        self.runtime: NodeRuntime | None = None

    def bind(self, runtime: NodeRuntime) -> None:
        """Take the seed of the run."""
        self.runtime = runtime

    def __call__(self, scene: list[str]) -> dict[str, Any]:
        """Give a conversation, and a request, for each scene."""
        seed = 0 if self.runtime is None else self.runtime.node_seed()
        drawn = [self._requests[zlib.crc32(f"{seed} {text}".encode()) % len(self._requests)] if self._requests else "" for text in scene]
        return {"talk": [(*self._begin, _message("user", text)) for text in scene], "request": drawn}


def _message(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "content": [{"type": "text", "text": text}]}
