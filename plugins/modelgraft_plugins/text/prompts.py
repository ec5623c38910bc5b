"""The work of text/prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from modelgraft.plugin import InputError, LoadContext
from modelgraft_plugins.text import PLACE, prompt_complaint

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from modelgraft_plugins.text import Prompts

Texts = list[list[str]]  # a list of texts for each record


def load(config: Prompts, context: LoadContext) -> Callable[..., dict[str, Any]]:
    """Make the function from the labels, and where they are given the templates, of each record to prompts and what belongs together."""
    name = context.node.name

    def write(labels: Texts, templates: Texts | None = None) -> dict[str, Any]:
        phrasings: Sequence[Sequence[str]] = templates if templates is not None else [config.templates] * len(labels)
        for record, (words, phrased) in enumerate(zip(labels, phrasings, strict=True)):
            _refuse(record, words, phrased, name)
        prompts = [
            [phrase.replace(PLACE, word) for word in words for phrase in phrased] for words, phrased in zip(labels, phrasings, strict=True)
        ]
        return {"prompts": prompts, "shares": _shares([len(words) for words in labels], [len(phrased) for phrased in phrasings])}

    return write


def _shares(groups: Sequence[int], sizes: Sequence[int]) -> NDArray[np.float32]:
    """float[batch groups texts]: 1 / size where a text belongs to a group; what fills a record up is its first text."""
    most = max(count * size for count, size in zip(groups, sizes, strict=True))
    shares = np.zeros((len(groups), max(groups), most), dtype=np.float32)
    for row, count, size in zip(shares, groups, sizes, strict=True):
        row[count:, 0] = 1.0  # so that no vector is without a direction; nobody reads it
        for group in range(count):
            row[group, group * size : (group + 1) * size] = 1.0 / size
    return shares


def _refuse(record: int, labels: Sequence[str], templates: Sequence[str], name: str) -> None:
    """Raise InputError for a record without a label or template, and for a template that has no place for a label."""
    if not labels or not templates:
        found = "labels" if not labels else "templates"
        raise InputError(f"{name}: record {record} has no {found}: give at least one")
    for template in templates:
        if complaint := prompt_complaint(template):
            raise InputError(f"{name}: record {record}: {complaint}")
