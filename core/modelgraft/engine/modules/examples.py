"""Inputs for tracing modules and for the parity gate, made from declared ports: small, odd, unlike sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from modelgraft.kernel.words.ports import Axis, Port, Tensor

TRACED = {"batch": 2, "sizes": (5, 7, 11, 13, 17)}
CHECKED = ({"batch": 1, "sizes": (6, 3, 4, 9, 10)}, {"batch": 3, "sizes": (9, 14, 8, 6, 5)})


def sizes_of(ports: Sequence[Port], choice: Mapping[str, object], most: Mapping[str, int]) -> dict[str, int]:
    """A size for each free axis name of some ports: `batch` has its own, the others get one of the list each, within `most`."""
    names = dict.fromkeys(name for port in ports if port.tensor is not None for name in port.tensor.names)
    free = [name for name in names if name != "batch"]
    sizes = choice["sizes"]
    batch = choice["batch"]
    assert isinstance(sizes, tuple)
    assert isinstance(batch, int)
    return {"batch": batch, **{name: _within(sizes[index % len(sizes)], most.get(name)) for index, name in enumerate(free)}}


def _within(size: int, most: int | None) -> int:
    """A size that is not above the largest, and not 1 where there is a choice: a traced 1 stays 1 for ever."""
    if most is None or size <= most:
        return size
    return max(size % (most + 1), min(2, most))


def make_inputs(
    ports: Sequence[Port],
    choice: Mapping[str, object],
    *,
    seed: int,
    most: Mapping[str, int] | None = None,
    times: Mapping[str, int] | None = None,
) -> tuple[torch.Tensor, ...]:
    """One tensor per port; `most` has the largest sizes by axis, `times` what they are multiples of.

    Masks are true up to a length that differs between records, so that no row is all false.
    """
    factors = times or {}
    sizes = {name: size * factors.get(name, 1) for name, size in sizes_of(ports, choice, most or {}).items()}
    generator = torch.Generator().manual_seed(seed)
    return tuple(_tensor(port.tensor, sizes, generator) for port in ports if port.tensor is not None)


def _tensor(kind: Tensor, sizes: Mapping[str, int], generator: torch.Generator) -> torch.Tensor:
    shape = [(axis or Axis(constant=3)).bind(sizes).size or 1 for axis in kind.axes]
    if kind.dtype in ("mask", "bool") and len(shape) == 1:
        return torch.arange(shape[0]) % 2 == 0  # one for each record
    if kind.dtype in ("mask", "bool"):
        lengths = torch.tensor([max(1, shape[-1] - record) for record in range(shape[0])])
        return (
            (torch.arange(shape[-1]) < lengths[:, None]).reshape(shape[0], *([1] * (len(shape) - 2)), shape[-1]).expand(shape).contiguous()
        )
    if kind.dtype.startswith(("int", "uint")):
        dtype = torch.int64 if kind.dtype == "int" else getattr(torch, kind.dtype)
        return torch.randint(1, 9, shape, generator=generator).to(dtype)
    return torch.randn(shape, generator=generator)


def dynamic_axes(ports: Sequence[Port], most: Mapping[str, int]) -> tuple[dict[int, object], ...]:
    """For each tensor port, which axes may have any size: those with a name that the solver left open, and that may be more than 1."""
    return tuple(
        {
            index: torch.export.Dim.DYNAMIC
            for index, axis in enumerate(port.tensor.axes)
            if axis is not None and axis.size is None and most.get(axis.symbol or "") != 1
        }
        for port in ports
        if port.tensor is not None
    )
