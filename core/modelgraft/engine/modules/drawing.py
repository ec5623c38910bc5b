"""Modules that no checkpoint fills: each parameter drawn once, in the dtype that it runs in.

A constructor makes room for a parameter, draws numbers into it, and often a library draws others over them later. Here a draw is noted
and put off until somebody looks, which hardly a constructor does; a draw over it takes its place. What is left in the end is drawn in
pieces of a megabyte, each brought to the dtype of the run at once, by as many threads as torch has: memory that nobody wrote to is not
taken, so a model in float16 never lies there as float32.

A parameter that is drawn in the end has a generator of its own, seeded by the node's seed and its name. What is needed earlier, and
what a constructor computes itself, as in `nn.Parameter(0.02 * torch.randn(...))`, is drawn in the order of the code.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from modelgraft.engine.modules.seeding import drawing_form, seeded

PIECE = 1 << 18  # numbers that are drawn at a time: 1 MB of float32 stays in the cache of a core; part of what a seed gives
ROOM = ("empty", "empty_strided", "empty_like", "new_empty", "new_empty_strided")  # operators that give memory, not numbers
WHOLE = ("normal_", "uniform_", "zero_", "fill_")  # those that leave nothing of what was there
# Those that treat every number alike, so that they may be done piece by piece.
FIXED = ("zero_", "fill_")  # those that may be done to a part later, in any dtype
ALIKE = (*WHOLE, "mul_", "add_", "sub_", "div_", "clamp_", "clamp_min_", "clamp_max_")


@dataclass(frozen=True, slots=True)
class Draw:
    """An operator that was called on a whole tensor. `Any`: operators take whatever they like."""

    operator: Any
    args: Sequence[Any]
    options: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Pending:
    """Memory that nobody has written to: what is to be drawn into it, a tensor that keeps its place from others, and what is set last.

    parts  of a part of it each, with a tensor that says which; such as the embedding of padding, which is zeros
    """

    owner: Tensor
    draws: tuple[Draw, ...] = ()
    parts: tuple[tuple[Tensor, Draw], ...] = ()


class deferred(seeded):  # type: ignore[no-untyped-call]  # noqa: N801 as seeded; read as `with deferred(7) as draws:`
    """A block in which draws into new memory are put off; other numbers are drawn as in `seeded`."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.pending: dict[int, Pending] = {}  # by storage
        self._looking = _Looking(self)

    def __enter__(self) -> deferred:
        self._looking.__enter__()  # type: ignore[no-untyped-call]
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        self._looking.__exit__(*error)  # type: ignore[no-untyped-call]

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Put off what only fills new memory; before anything else is done with it, draw."""
        given, name = dict(kwargs or {}), func.overloadpacket.__name__
        if name in ROOM:
            made = super().__torch_dispatch__(func, types, args, given)
            if made.device.type == "cpu" and made.numel():
                self.pending[_place(made)] = Pending(made)
            return made
        if not self.pending or func.is_view:
            return super().__torch_dispatch__(func, types, args, given)
        if name in ALIKE and self._puts_off(name, Draw(func, args[1:], given), args[0]):
            return args[0]
        for tensor in _tensors((args, given)):
            self.settle(tensor)
        return super().__torch_dispatch__(func, types, args, given)

    def _puts_off(self, name: str, draw: Draw, tensor: Tensor) -> bool:
        found = self.pending.get(_place(tensor))
        if found is None or any(_tensors((draw.args, draw.options))):
            return False
        if _is_whole(tensor) and name in WHOLE:
            now = Pending(found.owner, (draw,))
        elif _is_whole(tensor) and found.draws and not found.parts:
            now = Pending(found.owner, (*found.draws, draw))
        elif name in FIXED and found.draws and tensor.dtype is found.owner.dtype:
            now = Pending(found.owner, found.draws, (*found.parts, (tensor, draw)))
        else:
            return False  # it changes numbers that are not there yet
        self.pending[_place(tensor)] = now
        return True

    def settle(self, tensor: Tensor) -> None:
        """Draw what was put off of the memory of a tensor, because somebody looks at it or writes to a part of it."""
        found = self.pending.pop(_place(tensor), None) if tensor.device.type == "cpu" else None
        if found is not None and found.draws:
            with torch.no_grad():
                _in_pieces(_flat(found.owner), found.draws, self._generator)
                _set_parts(_flat(found.owner), found.parts)


class _Looking(TorchFunctionMode):
    """Sees the ways to the memory of a tensor that lead past torch's operators."""

    WAYS = (Tensor.numpy, Tensor.tolist, Tensor.__array__, Tensor.data_ptr, Tensor.__dlpack__)

    def __init__(self, draws: deferred) -> None:
        super().__init__()
        self._draws = draws

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # Any: as torch calls it
        """Draw before the memory is handed out."""
        if func in self.WAYS:
            self._draws.settle(args[0])
        return func(*args, **(kwargs or {}))


def draw(module: torch.nn.Module, draws: deferred, *, seed: int, dtype: torch.dtype) -> None:
    """Draw what was put off while a module was built, its floating parameters in a dtype."""
    homes: dict[int, list[tuple[str, torch.nn.Parameter]]] = {}
    for name, parameter in module.named_parameters():
        homes.setdefault(_place(parameter), []).append((name, parameter))
    alone = {place: found[0] for place, found in homes.items() if len(found) == 1 and _is_whole(found[0][1]) and place in draws.pending}
    with torch.no_grad():
        for pending in [found for place, found in draws.pending.items() if place not in alone]:
            draws.settle(pending.owner)

        def one(place: int) -> None:
            name, parameter = alone[place]
            found, wanted = draws.pending.pop(place), dtype if parameter.is_floating_point() else parameter.dtype
            if found.draws:
                parameter.data = _drawn(parameter, found, generator_of(seed, name), wanted)

        with ThreadPoolExecutor(max_workers=max(1, torch.get_num_threads())) as pool:
            list(pool.map(one, alone))


def generator_of(seed: int, name: str) -> torch.Generator:
    """The generator of one parameter."""
    return torch.Generator().manual_seed((seed * 0x9E3779B1 + zlib.crc32(name.encode())) & 0x7FFF_FFFF_FFFF_FFFF)


def _drawn(parameter: Tensor, found: Pending, generator: torch.Generator, wanted: torch.dtype) -> Tensor:
    """The numbers of a parameter: in its own memory, or in that of another dtype, of which each piece is filled by way of a small one."""
    if wanted is parameter.dtype:
        memory = _flat(parameter)
        _in_pieces(memory, found.draws, generator)
    else:
        memory = torch.empty(parameter.numel(), dtype=wanted)
        room = torch.empty(min(parameter.numel(), PIECE), dtype=parameter.dtype)
        for piece in memory.split(PIECE):  # type: ignore[no-untyped-call]
            _in_pieces(room[: len(piece)], found.draws, generator)
            piece.copy_(room[: len(piece)])
    _set_parts(memory, found.parts)
    return memory.as_strided(parameter.shape, parameter.stride())


def _set_parts(memory: Tensor, parts: Sequence[tuple[Tensor, Draw]]) -> None:
    """Set parts of what was drawn."""
    for which, found in parts:
        found.operator(memory.as_strided(which.shape, which.stride(), which.storage_offset()), *found.args, **found.options)


def _in_pieces(memory: Tensor, draws: Sequence[Draw], generator: torch.Generator) -> None:
    """Fill memory, float[n], one piece after the other."""
    for piece in memory.split(PIECE):  # type: ignore[no-untyped-call]
        for found in draws:
            form = drawing_form(found.operator) if found.options.get("generator") is None else None
            if form is None:
                found.operator(piece, *found.args, **found.options)
            else:
                form(piece, *found.args, **{**found.options, "generator": generator})


def _flat(tensor: Tensor) -> Tensor:
    """All memory that a tensor lies in, as one row."""
    storage = tensor.untyped_storage()
    return torch.empty(0, dtype=tensor.dtype).set_(storage, 0, (storage.nbytes() // tensor.element_size(),))  # type: ignore[call-overload, no-any-return]


def _is_whole(tensor: Tensor) -> bool:
    """Whether a tensor is all that lies in its memory, each number once."""
    return tensor.numel() * tensor.element_size() == tensor.untyped_storage().nbytes() and 0 not in tensor.stride()


def _place(tensor: Tensor) -> int:
    """What tensors that share memory have in common."""
    return int(tensor.untyped_storage()._cdata)


def _tensors(value: Any) -> Iterator[Tensor]:
    """The tensors in what an operator takes."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        yield from _tensors(tuple(value.values()))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)
