"""Fitting centres: features of many sounds, gathered in files beside the result, and MiniBatchKMeans over them.

Memory stays flat: features are written as they come, and scikit-learn reads its batches from the files.
"""

from __future__ import annotations

import json
import random
import tempfile
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from modelgraft.commands import (
    DataRow,
    Dataset,
    Opening,
    Pace,
    check_writable,
    counting,
    data_named,
    in_bytes,
    opened,
    refuse_for_graph,
    types_of,
)
from modelgraft.plugin import InputError
from modelgraft_plugins.units.belonging import Belonging, refuse_other_ending, solve, write_centres

if TYPE_CHECKING:
    from modelgraft import Pipeline
    from modelgraft.commands import CliSession
    from modelgraft.plugin import SolvedGraph

# How HuBERT's centres were made. Source: examples/hubert/simple_kmeans/learn_kmeans.py of fairseq.
RECIPE: Mapping[str, Any] = {
    "init": "k-means++", "batch_size": 10_000, "max_iter": 100, "tol": 0.0, "max_no_improvement": 100, "n_init": 20,
    "reassignment_ratio": 0.0,
}  # fmt: skip
MOST_TOLD = 20  # failures that are told
MASKS = ("mask", "frame_mask")  # what a graph usually calls the output that says which frames there are


@dataclass(frozen=True, slots=True)
class Fitting:
    """What was asked for: see the options of the command."""

    graph: str
    params: Mapping[str, str]
    allow: tuple[str, ...]
    data: str
    clusters: int
    books: int
    output: str | None
    mask: str | None
    share: float
    batch_size: int
    opening: Opening


class NoRoomError(InputError):
    """The disk takes no more features."""


@contextmanager
def _kept() -> Iterator[None]:
    """Turn what the disk refuses within the block into NoRoomError."""
    try:
        yield
    except OSError as error:
        raise NoRoomError(f"features cannot be kept: {error.strerror or error}; --share 0.1 takes a tenth of the records") from error


@dataclass(slots=True)
class Gathered:
    """Features on the disk: a file for each book, float32[frames width/books]."""

    files: list[IO[bytes]]
    frames: int = 0
    width: int = 0
    done: int = 0
    failed: int = 0

    def take(self, rows: Any) -> None:
        """Write float32[frames width]; each book its part. Raises InputError for rows that no centre can be near to."""
        import numpy

        if not numpy.isfinite(rows).all():
            raise InputError("its features hold numbers that are none")
        if rows.shape[1] % len(self.files) or self.width not in (0, rows.shape[1]):
            raise InputError(f"its frames have {rows.shape[1]} numbers, which do not go into {len(self.files)} books of {self.width}")
        self.width = rows.shape[1]
        self.frames += len(rows)
        with _kept():
            for file, part in zip(self.files, numpy.split(rows, len(self.files), axis=1), strict=True):
                file.write(numpy.ascontiguousarray(part, dtype=numpy.float32).tobytes())

    def part(self, book: int) -> Any:
        """The features of a book, mapped into memory."""
        import numpy

        with _kept():
            self.files[book].flush()
        return numpy.memmap(self.files[book], numpy.float32, mode="r", shape=(self.frames, self.width // len(self.files)))


def fit_centres(session: CliSession, wanted: Fitting, out: Path) -> dict[str, Any]:
    """Gather, fit and write; gives what was made.

    Raises InputError for data, graphs and sizes that no centres can be made of.
    """
    _need_sklearn()
    refuse_other_ending(out)
    check_writable(out)
    solved, owner = solve(session, wanted.graph, wanted.params, wanted.allow, wanted.output)
    _refuse_uneven(owner, wanted)
    dataset = data_named(wanted.data, solved.inputs, note=session.screen.note, types=types_of(solved.graph.registry))
    refuse_for_graph(out, solved, dict.fromkeys(dataset.files, "the data"))
    with ExitStack() as stack:
        files = [stack.enter_context(_passing_file(out)) for _ in range(wanted.books)]
        found = _gather(session, wanted, solved, dataset, owner, Gathered(files))
        _refuse_few(found, wanted)
        size = in_bytes(4 * found.frames * found.width)
        session.screen.note(f"fitting {wanted.clusters} centres to {found.frames:,} frames of {found.width} numbers ({size})")
        centres, apart = _fitted(found, wanted, session)
    recipe = json.dumps({**RECIPE, "scikit-learn": _version()}, sort_keys=True)
    about = {"frames": str(found.frames), "recipe": recipe, "seed": str(wanted.opening.seed)}
    written = write_centres(centres, out, owner, about)
    facts = {"frames": found.frames, "records": found.done - found.failed, "failed": found.failed, "mean_squared_distance": apart}
    return {**written, **facts}


def _passing_file(out: Path) -> IO[bytes]:
    """A file without a name, which goes with the process, on the disk of the result."""
    try:
        return tempfile.TemporaryFile(dir=out.resolve().parent)
    except OSError as error:
        raise InputError(f"features cannot be kept beside '{out}': {error.strerror or error}") from error


# -- gathering ----------------------------------------------------------------------------------------------------------


def _gather(session: CliSession, wanted: Fitting, solved: SolvedGraph, dataset: Dataset, owner: Belonging, found: Gathered) -> Gathered:
    """Write the features of every record; one that fails is told and left out."""
    mask = wanted.mask or next((name for name in MASKS if name in solved.outputs), None)
    rows = _drawn(dataset, wanted)
    pace = Pace(len(rows) if isinstance(rows, list) else None)
    with (
        opened(session, solved, opening=wanted.opening) as pipeline,
        counting(session.screen, pace, is_on=session.progress) as (count, note),
    ):
        for row, result in _results(pipeline, rows, [owner.name, *([mask] if mask else [])], wanted.batch_size):
            session.interrupts.raise_if_heard()
            error = result.error
            if error is None:
                try:
                    found.take(_frames(result, owner.name, mask))
                except InputError as refused:
                    error = refused
                except OSError as full:
                    raise InputError(
                        f"features cannot be kept: {full.strerror or full}; --share 0.1 takes a tenth of the records"
                    ) from full
            found.done, found.failed = found.done + 1, found.failed + (error is not None)
            if error is not None and found.failed <= MOST_TOLD:
                note(f"{row.place}: {getattr(error, 'unworded', error)}")
            count(found.done, found.failed)
    return found


def _drawn(dataset: Dataset, wanted: Fitting) -> list[DataRow] | Iterator[DataRow]:
    """The records, or as large a part of them as was asked for, in their order."""
    if wanted.share == 1.0:
        return list(dataset.read()) if dataset.digest is not None else dataset.read()
    rows = list(dataset.read())
    if not rows:
        return rows
    number = max(1, round(wanted.share * len(rows)))
    chosen = random.Random(wanted.opening.seed).sample(range(len(rows)), number)  # noqa: S311 no secret
    return [rows[index] for index in sorted(chosen)]


def _results(pipeline: Pipeline, rows: Any, outputs: list[str], batch_size: int) -> Iterator[tuple[DataRow, Any]]:
    ahead = deque[DataRow]()

    def records() -> Iterator[Any]:
        for row in rows:
            ahead.append(row)
            yield InputError(row.error) if row.error else row.inputs

    for result in pipeline.map(records(), batch_size=batch_size, outputs=outputs):
        yield ahead.popleft(), result


def _frames(result: Any, name: str, mask: str | None) -> Any:
    """The features of one record, float32[frames width] of numpy, without frames that the mask leaves out."""
    rows = result[name][0].detach().float().cpu()
    if mask is not None:
        rows = rows[result[mask][0].cpu()]
    return rows.numpy()


# -- fitting ------------------------------------------------------------------------------------------------------------


def _fitted(found: Gathered, wanted: Fitting, session: CliSession) -> tuple[Any, float]:
    """(float32[clusters width] or [books clusters width], mean squared distance of a frame from its centres)."""
    import numpy
    from sklearn.cluster import MiniBatchKMeans

    centres, apart = [], 0.0
    for book in range(wanted.books):
        seed = (wanted.opening.seed + book) % 2**32  # what scikit-learn takes
        kmeans = MiniBatchKMeans(wanted.clusters, random_state=seed, compute_labels=False, **RECIPE)
        kmeans.fit(found.part(book))
        session.interrupts.raise_if_heard()
        centres.append(kmeans.cluster_centers_)
        apart += float(kmeans.inertia_) / found.frames
    return numpy.stack(centres) if wanted.books > 1 else centres[0], apart


def _refuse_uneven(owner: Belonging, wanted: Fitting) -> None:
    if owner.width is not None and owner.width % wanted.books:
        raise InputError(f"--books {wanted.books}: frames of {owner.name} have {owner.width} numbers, which so many books do not divide")


def _refuse_few(found: Gathered, wanted: Fitting) -> None:
    if found.frames < wanted.clusters:
        heard = f"{found.frames:,} frames of {found.done - found.failed:,} records ({found.failed:,} failed)"
        raise InputError(f"{wanted.clusters} centres are wanted of {heard}: give more sound, or ask for fewer with --clusters")


def _need_sklearn() -> None:
    try:
        import sklearn  # type: ignore[import-untyped, unused-ignore]  # noqa: F401
    except ImportError as error:
        raise InputError("centres are fitted by scikit-learn: pip install 'modelgraft[units]'") from error


def _version() -> str:
    from importlib.metadata import version

    return version("scikit-learn")
