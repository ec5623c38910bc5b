"""Random numbers of a seed, drawn beside those of the program: torch's own generator stays where it is, in every thread."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class seeded(TorchDispatchMode):  # type: ignore[no-untyped-call]  # noqa: N801 torch has no types for it; read as `with seeded(7):`
    """A block in which this thread draws from a generator of its own: the numbers that `torch.manual_seed(seed)` would give.

    Operators that take a generator are given it where they have none; what is drawn on other devices than the CPU is left alone.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._generator = torch.Generator().manual_seed(seed)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # otherwise torch imports its compiler, only to leave this alone

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Hand on every operator, those that draw with our generator."""
        given = dict(kwargs or {})
        if _is_vain(func, args):
            return args[0]
        drawing = drawing_form(func) if given.get("generator") is None and _is_on_cpu(args, given) else None
        return func(*args, **given) if drawing is None else drawing(*args, **{**given, "generator": self._generator})


def drawing_form(operator: Any) -> Callable[..., Any] | None:
    """The form of an operator that takes a generator, such as `randn.generator` of `randn.default`; None when it does not draw."""
    if _takes_generator(operator):
        return operator  # type: ignore[no-any-return]
    packet, name = operator.overloadpacket, operator._overloadname
    other = "generator" if name == "default" else f"{name}_generator"
    found = getattr(packet, other, None) if other in packet.overloads() else None
    return found if found is not None and _takes_generator(found) else None


def _is_vain(operator: Any, args: Sequence[Any]) -> bool:
    """Whether numbers are drawn into a tensor without memory: torch imports its compiler to do nothing then, which takes half a second."""
    is_bare = bool(args) and isinstance(args[0], torch.Tensor) and args[0].is_meta
    return is_bare and operator.overloadpacket.__name__.endswith("_") and _takes_generator(operator)


def _takes_generator(operator: Any) -> bool:
    return any(argument.name == "generator" for argument in operator._schema.arguments)


def _is_on_cpu(args: Sequence[Any], given: Mapping[str, Any]) -> bool:
    """Whether the numbers are for the CPU: those of a tensor where it is, new ones where they are asked for."""
    tensor = next((value for value in args if isinstance(value, torch.Tensor)), None)
    device = given.get("device") or (tensor.device if tensor is not None else torch.get_default_device())
    return torch.device(device).type == "cpu"
