"""The work of the heads that name classes: by numpy, on the host."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from modelgraft.plugin import InputError, LoadContext
from modelgraft_plugins.shares import logistic, softmax

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from modelgraft_plugins.heads import Classifier, Top

    Numbers = NDArray[Any]

Labels = list[list[str]] | None  # the names of the classes of each record, or None for those of the config


def classifier(config: Classifier, _context: LoadContext) -> Callable[..., dict[str, Any]]:
    """Make the function from float[batch classes] to labels and probabilities."""

    def classify(logits: Numbers, labels: Labels = None) -> dict[str, Any]:
        named = _names(config.names, labels, logits)
        for index, names in enumerate(labels or ()):
            _refuse_unclear(index, names)
        logits = np.where(_beyond(named, logits), logits.dtype.type(-np.inf), logits)
        probabilities = logistic(logits) if config.function == "sigmoid" else softmax(logits)
        best = logits.argmax(-1).tolist()
        return {"label": [names[index] for names, index in zip(named, best, strict=True)], "probabilities": probabilities}

    return classify


def top(config: Top, _context: LoadContext) -> Callable[..., list[str]]:
    """Make the function from float[batch classes] to a line of text per record."""

    def write(probabilities: Numbers, labels: Labels = None) -> list[str]:
        named = _names(config.names, labels, probabilities)
        return [_line(row[: len(names)], names, config.count) for row, names in zip(probabilities, named, strict=True)]

    return write


def _line(probabilities: Numbers, names: Sequence[str], count: int) -> str:
    likeliest = np.argsort(-probabilities, kind="stable")[:count]  # of equal ones the first in the list
    pairs = zip(likeliest.tolist(), probabilities[likeliest].tolist(), strict=True)
    return ", ".join(f"{names[index]} ({100 * value:.0f} %)" for index, value in pairs)


def _names(own: tuple[str, ...], labels: Labels, numbers: Numbers) -> Sequence[Sequence[str]]:
    named: Sequence[Sequence[str]] = labels if labels is not None else [own] * numbers.shape[0]
    for index, names in enumerate(named):
        if not names or len(names) > numbers.shape[1]:
            raise InputError(f"record {index} has {len(names)} names for {numbers.shape[1]} classes")
    return named


def _refuse_unclear(record: int, names: Sequence[str]) -> None:
    """Raise InputError for classes that an answer could not tell apart: one that is named twice, or by nothing."""
    for place, name in enumerate(names):
        if not name.strip():
            raise InputError(f"record {record}: label {place} is empty; name every class, or leave it out")
        if name in names[:place]:
            found = f"record {record}: the label {name!r} stands there {names.count(name)} times, so its share would be split"
            raise InputError(f"{found}; name every class once")


def _beyond(named: Sequence[Sequence[str]], numbers: Numbers) -> Numbers:
    """True for columns that fill up a record whose list of names is shorter than the longest of the batch."""
    lengths = np.array([len(names) for names in named])
    found: Numbers = np.arange(numbers.shape[1]) >= lengths[:, None]
    return found
