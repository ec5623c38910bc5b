"""What frozen parts make of each record, written once and read in every epoch: the parts themselves run no more."""

from __future__ import annotations

import json
import os
import shutil
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from modelgraft.commands import Learning, folder_aside, lock_folder
from modelgraft.plugin import InputError, ModelgraftError, Node, Tensor, clear_leftovers
from modelgraft_plugins.training.kept import ABOUT, note_home
from modelgraft_plugins.training.mapped import Mapped

BATCH = 32  # records of a pass: no gradients are kept, so that more fit than in a step

Ref = Any  # a port of a node, as the plan names it


def is_even(node: Node, port: str) -> bool:
    """Whether what a port gives has one size for every record."""
    kind = node.out_ports[port].type
    assert isinstance(kind, Tensor), "others are not kept"
    return all(axis is not None and axis.size is not None for axis in kind.axes[1:])


class Features:
    """What is kept of every record: a file for each port, mapped, not read. Records that could not be read have none."""

    def __init__(self, folder: Path, refs: Sequence[Ref]) -> None:
        self.folder, self.refs = folder, tuple(refs)
        note_home(folder.parent)
        if (handle := lock_folder(folder, is_shared=True)) is not None:  # `modelgraft cache clear` leaves it alone meanwhile
            weakref.finalize(self, os.close, handle)
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        self.bad: dict[int, str] = {int(number): why for number, why in about["bad"].items()}
        self.bytes = sum(path.stat().st_size for path in folder.iterdir())
        self._columns = {ref: _Column(folder / _name(ref), about["columns"][str(ref)]) for ref in refs}

    def take(self, numbers: Sequence[int]) -> dict[Ref, torch.Tensor]:
        """What was kept of some records, as a batch; uneven ones are filled up with zeros."""
        return {ref: column.take(numbers) for ref, column in self._columns.items()}


class _Column:
    def __init__(self, path: Path, about: Mapping[str, Any]) -> None:
        self.shapes = np.load(path.with_suffix(".shapes.npy"), mmap_mode="r")
        self.starts = np.load(path.with_suffix(".starts.npy"), mmap_mode="r")
        kind = np.dtype(about["dtype"])
        self._mapped = Mapped(path, kind)
        self.values = self._mapped.values
        self.is_even = bool(about["is_even"])

    def take(self, numbers: Sequence[int]) -> torch.Tensor:
        if self.is_even:
            shape = tuple(self.shapes[numbers[0]])
            size = int(np.prod(shape))
            rows = self.values.reshape(-1, size)
            self._mapped.note(len(numbers), size * self.values.itemsize)
            return torch.from_numpy(np.ascontiguousarray(rows[self.starts[numbers] // max(size, 1)]).reshape(len(numbers), *shape))
        shapes = self.shapes[numbers]
        whole = np.zeros((len(numbers), *shapes.max(axis=0)), self.values.dtype)
        self._mapped.note(len(numbers), whole[0].nbytes)
        for row, (number, shape) in enumerate(zip(numbers, shapes, strict=True)):
            start = int(self.starts[number])
            part = self.values[start : start + int(np.prod(shape))].reshape(shape)
            whole[row][tuple(slice(int(size)) for size in shape)] = part
        return torch.from_numpy(whole)


def write_features(
    folder: Path,
    learning: Learning,
    refs: Sequence[Ref],
    *,
    count: int,
    read: Callable[[Sequence[int]], Any],
    seed: int,
    dtype: str,
    tell: Callable[[int], None],
) -> None:
    """Run the parts once over every record, and keep what they give. Memory does not grow with the records.

    learning  of these ports alone;  count  of the records;  read  some of them as a batch;  dtype  of what is floating
    tell      hears how many are done

    Raises InputError where there is no room.
    """
    nodes = learning.plan.graph.nodes
    clear_leftovers(folder.parent)
    even = {ref: is_even(nodes[ref.node], ref.port) for ref in refs}
    size = BATCH if all(even.values()) else 1  # uneven ones are filled up in a batch, and nobody can tell how far
    try:
        with folder_aside(folder) as aside, ExitStack() as stack:
            writers = {ref: _Writer(stack.enter_context((aside / _name(ref)).open("wb")), dtype) for ref in refs}
            bad: dict[int, str] = {}
            for start in range(0, count, size):
                numbers = range(start, min(start + size, count))
                batch = read(numbers)
                bad |= {numbers[index]: str(error) for index, error in batch.left_out.items()}
                rows, refused = _called(learning, batch, numbers, read, seed)
                bad |= refused
                for ref, writer in writers.items():
                    for number in numbers:
                        writer.add(rows[number][str(ref)] if number in rows else None)
                tell(numbers[-1] + 1)
            for ref, writer in writers.items():
                writer.finish(aside / _name(ref))
            columns = {str(ref): {"dtype": writer.kind, "is_even": even[ref] and not bad} for ref, writer in writers.items()}
            (aside / ABOUT).write_text(json.dumps({"bad": bad, "columns": columns}), encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"the features in {folder} cannot be written: {error.strerror or error}; make room, or set features: off"
        ) from error


def _called(
    learning: Learning, batch: Any, numbers: Sequence[int], read: Callable[[Sequence[int]], Any], seed: int
) -> tuple[dict[int, dict[str, torch.Tensor]], dict[int, str]]:
    """What is given for each record of a batch by its number, and why a node refuses others: found one by one."""
    there = [number for index, number in enumerate(numbers) if index not in batch.left_out]
    try:
        found = learning(batch, seed=seed) if batch.count else {}
    except ModelgraftError as error:
        if len(numbers) == 1:
            return {}, {numbers[0]: error.unworded}
        parts = [_called(learning, read([number]), [number], read, seed) for number in there]
        return {n: row for rows, _ in parts for n, row in rows.items()}, {n: why for _, bad in parts for n, why in bad.items()}
    values = {name: value.detach().cpu() for name, value in found.items()}
    return {number: {name: value[index] for name, value in values.items()} for index, number in enumerate(there)}, {}


class _Writer:
    def __init__(self, file: BinaryIO, dtype: str) -> None:
        self.file, self.dtype, self.kind = file, dtype, ""
        self.starts: list[int] = []
        self.shapes: list[tuple[int, ...]] = []
        self._end = 0

    def add(self, value: torch.Tensor | None) -> None:
        self.starts.append(self._end)
        if value is None:
            self.shapes.append(())
            return
        array = value.to(getattr(torch, self.dtype)).numpy() if value.is_floating_point() else value.numpy()
        if self.dtype == "float16" and value.is_floating_point() and not np.isfinite(array).all():
            raise InputError("a feature is larger than float16 holds: set features: float32")
        self.kind = array.dtype.str
        self.shapes.append(array.shape)
        self.file.write(np.ascontiguousarray(array).tobytes())
        self._end += array.size

    def finish(self, path: Path) -> None:
        self.file.flush()
        axes = max(map(len, self.shapes), default=0)
        shapes = np.array([shape or (0,) * axes for shape in self.shapes], np.int32).reshape(len(self.shapes), axes)
        np.save(path.with_suffix(".shapes.npy"), shapes)
        np.save(path.with_suffix(".starts.npy"), np.array(self.starts, np.int64))


def _name(ref: Ref) -> str:
    return f"{str(ref).replace('/', '.')}.bin"


def clear_others(home: Path, kept: Iterable[str]) -> None:
    """Delete features of other data or weights in a folder."""
    for path in home.iterdir() if home.is_dir() else ():
        if path.name not in set(kept) and path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
