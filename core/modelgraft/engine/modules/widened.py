"""Modules that compute in a wider dtype than their weights lie in: those of each layer are brought over for its turn, and let go of again.

What is computed is what the module gives whose weights were all brought over before: widening changes no number. It takes longer, once for
each call, and needs no memory for the weights: they stay in their file. For what is computed a few times, such as what an export is
compared with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import groupby
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from modelgraft.engine.modules.casting import span_of
from modelgraft.engine.modules.pages import Stretch, file_of, give_back, untouched

LARGE = 1 << 23  # numbers of a matrix that is gone through piece by piece even where it has the dtype: the head of a language model
PIECE = 1 << 20  # numbers of a matrix that are brought over at a time: what is read and made of them lies in a processor's cache


@contextmanager
def in_turn(module: torch.nn.Module, dtype: torch.dtype) -> Iterator[None]:
    """Let a module compute in a dtype while its weights stay where and as they are; pages of files are given back layer by layer.

    Whoever calls it within the block does so from one thread, and writes to no weight.
    """
    files, room = untouched(), torch.empty(PIECE, dtype=dtype)
    with ExitStack() as undo:
        for part in module.modules():
            own = [tensor for tensor in (*part.parameters(recurse=False), *part.buffers(recurse=False)) if _is_on_host(tensor)]
            spans = [span_of(tensor) for tensor in own]
            is_large = type(part) is torch.nn.Linear and part.weight.numel() > LARGE and file_of(spans[0], files) is not None
            if is_large or any(tensor.is_floating_point() and tensor.dtype is not dtype for tensor in own):
                undo.callback(_widen(part, room, files))
            if any(file_of(span, files) is not None for span in spans):
                undo.callback(_after(part, spans, files))
        yield


def giving_back(tensors: Iterable[Tensor]) -> Callable[[], None]:
    """What lets go of the pages of tensors that lie in files to which nobody has written by now, each time that it is called.

    Whoever calls it writes to none of them. They are held until it is let go of, so that none of the files is unmapped. To look for mapped
    files takes 20 ms or more, which `give_back_files` spends each time.
    """
    held, files = list(tensors), untouched()
    lying = [(place, span) for span in sorted(map(span_of, held)) if (place := file_of(span, files)) is not None]
    runs = [run for _, of_file in groupby(lying, itemgetter(0)) for run in _runs(span for _, span in of_file)]

    def give(_: object = held) -> None:
        for run in runs:
            give_back(run, files)

    return give


def _runs(spans: Iterable[Stretch]) -> list[Stretch]:
    """Spans, in order, of which those that touch are one."""
    found = list[Stretch]()
    for span in spans:
        if found and span[0] <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], span[1]))
        else:
            found.append(span)
    return found


def _is_on_host(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu" and tensor.layout is torch.strided


def _after(part: torch.nn.Module, spans: list[Stretch], files: Any) -> Callable[[], None]:
    """Give pages back after each call; gives what ends it."""

    def give(*_: Any) -> None:
        for span in spans:
            give_back(span, files)

    return part.register_forward_hook(give).remove


def _widen(part: torch.nn.Module, room: Tensor, files: Sequence[Stretch]) -> Callable[[], None]:
    """Let one module compute in the dtype of `room`, with its own weights as they are; gives what ends it."""
    if type(part) is torch.nn.Linear:
        return _replaced(part, lambda x: _product(part, x, room, files))
    if type(part) is torch.nn.Embedding and part.max_norm is None:
        return part.register_forward_hook(lambda _, __, rows: rows.to(room.dtype)).remove
    return _swapped(part, room.dtype)


def _replaced(part: torch.nn.Module, forward: Callable[[Tensor], Tensor]) -> Callable[[], None]:
    part.forward = forward

    def restore() -> None:
        del part.forward

    return restore


def _product(linear: torch.nn.Linear, x: Tensor, room: Tensor, files: Sequence[Stretch]) -> Tensor:
    """What a linear layer gives, some of its outputs at a time: no matrix is there twice, and none that lies in a file whole."""
    weight, bias, made = linear.weight, linear.bias, list[Tensor]()
    rows = max(1, PIECE // max(weight.shape[1], 1))
    for start in range(0, len(weight), rows):
        piece = weight[start : start + rows]
        made.append(functional.linear(x, _wide(piece, room), None if bias is None else bias[start : start + rows].to(room.dtype)))
        give_back(span_of(piece), files)
    return torch.cat(made, -1) if len(made) > 1 else made[0]


def _wide(piece: Tensor, room: Tensor) -> Tensor:
    """In the dtype of `room`: there, where it fits in, or as it is."""
    if piece.dtype is room.dtype or piece.numel() > len(room):
        return piece.to(room.dtype)
    return room[: piece.numel()].view(piece.shape).copy_(piece)


def _swapped(part: torch.nn.Module, dtype: torch.dtype) -> Callable[[], None]:
    """Put wider weights in the place of a module's own while it is called."""
    kept = list[dict[str, dict[str, Any]]]()

    def widen(*_: Any) -> None:
        kept.append({})
        for kind in ("_parameters", "_buffers"):
            held = getattr(part, kind)
            kept[-1][kind] = dict(held)
            for name, tensor in held.items():
                if tensor is not None and tensor.is_floating_point():
                    held[name] = torch.nn.Parameter(tensor.to(dtype), requires_grad=False) if kind == "_parameters" else tensor.to(dtype)

    def restore(*_: Any) -> None:
        if kept:
            for kind, held in kept.pop().items():
                getattr(part, kind).update(held)

    handles = [part.register_forward_pre_hook(widen), part.register_forward_hook(restore, always_call=True)]

    def end() -> None:
        for handle in handles:
            handle.remove()
        restore()

    return end
