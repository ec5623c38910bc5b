"""Which of the types that a port accepts a given type goes into."""

from __future__ import annotations

from modelgraft.kernel.words.ports import DTYPE_FAMILIES, ListOf, Modality, Port, PortType, Tensor

ANYTHING = Modality("object")  # takes every value


def fits(given: PortType, accepted: PortType) -> bool:
    """The kinds of value agree. Axes and dtypes of tensors are not compared: messages about them come later."""
    if accepted == ANYTHING:
        return True
    if isinstance(given, ListOf) and isinstance(accepted, ListOf):
        return fits(given.item, accepted.item)
    if isinstance(given, Tensor) and isinstance(accepted, Tensor):
        return True
    return given == accepted


def choose(given: PortType, port: Port) -> PortType | None:
    """The alternative that takes the given type, or None. Of several tensors, one that agrees in dtype and axes first."""
    found = [accepted for accepted in port.types if fits(given, accepted)]
    if len(found) > 1 and isinstance(given, Tensor):
        found.sort(key=lambda accepted: not (isinstance(accepted, Tensor) and agree(given, accepted)))
    return found[0] if found else None


def dtypes_meet(given: str, accepted: str) -> bool:
    """There is a dtype in both families."""
    return not DTYPE_FAMILIES[given].isdisjoint(DTYPE_FAMILIES[accepted])


def agree(given: Tensor, accepted: Tensor) -> bool:
    """Two tensors have the same number of axes, and there is a dtype in both families."""
    same_rank = None in given.axes or None in accepted.axes or len(given.axes) == len(accepted.axes)
    return same_rank and dtypes_meet(given.dtype, accepted.dtype)
