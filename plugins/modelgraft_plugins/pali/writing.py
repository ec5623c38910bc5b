"""The work of pali/task and pali/boxes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from modelgraft.plugin import InputError, LoadContext
from modelgraft_plugins.pali.tasks import TASKS, read

if TYPE_CHECKING:
    from modelgraft_plugins.pali import Boxes, TaskConfig

OF_OBJECTS = ("list_objects", "are_there", "which_are_there", "detect")  # English alone, as published


def task(config: TaskConfig, context: LoadContext) -> Callable[..., Any]:
    """Make the function from what a task speaks of, each a batch, to lines, or to lines and answers. Raises InputError for no objects."""
    spec, name = TASKS[config.task], context.node.name
    if config.task in OF_OBJECTS and config.language.upper() != "EN":
        raise InputError(f"{name}: {config.task} is trained in English alone, and language is {config.language}: leave it out")
    names = [*spec.reads, *(spec.answers if config.answers else ())]
    if not names:
        line = spec.line({}, config.language)
        return lambda: [line]  # one record, which counts for all

    def write(*given: list[Any]) -> Any:
        records = [dict(zip(names, values, strict=True)) for values in zip(*given, strict=True)]
        for row, record in enumerate(records):
            _refuse_bad(record, row, name)
        lines = [spec.line(record, config.language) for record in records]
        return {"text": lines, "answer": [spec.answer(record, config.language) for record in records]} if config.answers else lines

    return write


def _refuse_bad(record: dict[str, Any], row: int, node: str) -> None:
    """Raise InputError for no objects, one without a name, or one that stands there twice."""
    names = record.get("objects")
    if names is None:
        return
    twice = next((name for name in names if list(names).count(name) > 1), None)
    if not names or "" in names or twice is not None:
        found = "no objects" if not names else "an empty name" if "" in names else f"{twice!r} twice"
        raise InputError(f"{node}.objects: record {row} has {found}; wanted: names, each once")


def boxes(_config: Boxes, _context: LoadContext) -> Callable[..., list[list[dict[str, Any]]]]:
    """Make the function from lines and pictures to boxes."""
    return lambda texts, images: [read(text, *image.size) for text, image in zip(texts, images, strict=True)]
