"""Probabilities of classes, by numpy on the host. Any plugin may import this module, inside its implementation modules only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def softmax(logits: NDArray[Any]) -> NDArray[np.float32]:
    """Probabilities, float32[batch classes]: of distances in float32, as torch takes them, by powers in float64, which round once."""
    plain = logits.astype(np.float32)
    powers = np.exp((plain - plain.max(-1, keepdims=True)).astype(np.float64))
    found: NDArray[np.float32] = (powers / powers.sum(-1, keepdims=True)).astype(np.float32)
    return found


def log_softmax(logits: NDArray[Any]) -> NDArray[np.float32]:
    """Their logarithms, float32[... classes]."""
    plain = logits.astype(np.float32).astype(np.float64)
    off = plain - plain.max(-1, keepdims=True)
    found: NDArray[np.float32] = (off - np.log(np.exp(off).sum(-1, keepdims=True))).astype(np.float32)
    return found


def logistic(logits: NDArray[Any]) -> NDArray[np.float32]:
    """The probability of each class by itself, float32[batch classes]."""
    with np.errstate(over="ignore"):  # of a class that is surely not there: 1 / infinity
        found: NDArray[np.float32] = (1.0 / (1.0 + np.exp(-logits.astype(np.float64)))).astype(np.float32)
    return found
