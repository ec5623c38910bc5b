"""A metric alone: its rows and its figure, without a graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy

from modelgraft.testing import open_node


def scored(metric: Any, predictions: Any, references: Sequence[Any] | None = None) -> tuple[float, list[list[float]]]:
    """The figure over some records, and the rows that it is made of.

    metric  a config of one, such as Wer(text="as_is")
    """
    trial = open_node(type(metric), metric.model_dump())
    rows = trial(predictions, references)["rows"] if references is not None else trial(predictions)["rows"]
    return metric.summary(numpy.asarray(rows, dtype=float)), rows
