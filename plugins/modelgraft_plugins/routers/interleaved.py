"""The work of router/interleave."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from modelgraft import ABSENT
from modelgraft.plugin import InputError, LoadContext

if TYPE_CHECKING:
    from modelgraft_plugins.routers.interleaving import Interleave

Part = Mapping[str, Any]
Made = Mapping[str, Sequence[Any]]  # of each medium what one record got, in the order of asking


def load(config: Interleave, context: LoadContext) -> Callable[..., dict[str, list[Any]]]:
    """Make the function from the parts of answers, and what was made for each, to conversations."""
    name = context.node.name

    def interleave(parts: list[list[Part]], *made: list[list[Any]]) -> dict[str, list[Any]]:
        """A conversation of one message for each record, and its words."""
        told = list[list[dict[str, Any]]]()
        for row, record in enumerate(parts):
            got = {medium: each[row] for medium, each in zip(config.media, made, strict=True)}
            told.append(_told(record, got, config, name))
        texts = ["".join(part["text"] for part in record if part["type"] == "text") for record in parts]
        return {"conversation": [({"role": "assistant", "content": content},) for content in told], "text": texts}

    return interleave


def _told(parts: Sequence[Part], made: Made, config: Interleave, name: str) -> list[dict[str, Any]]:
    """The parts of the message. White space alone between two media is no part."""
    content = list[dict[str, Any]]()
    for part in parts:
        if part["type"] == "text":
            content += [{"type": "text", "text": part["text"]}] if part["text"].strip() else []
        else:
            content += _answered(part, made, config, name)
    return content or [{"type": "text", "text": ""}]


def _answered(ask: Part, made: Made, config: Interleave, name: str) -> list[dict[str, Any]]:
    """What stands for one ask. Raises InputError for a medium that the node does not take."""
    medium, number = ask["medium"], ask["number"]
    if medium not in config.media:
        known = ", ".join(config.media)
        raise InputError(
            f"{name}: the answer asks for {medium}, and {name}.media names {known}: name it there, and wire what is made for it"
        )
    inner = config.media[medium].removeprefix("list[").removesuffix("]")
    found = list[Any]()
    if number < len(made[medium]) and (value := made[medium][number]) is not ABSENT:
        found = list(value) if inner != config.media[medium] else [value]
    return [{"type": inner, inner: each} for each in found] or [{"type": "text", "text": config.missing.replace("{medium}", medium)}]
