"""Which model gave some vectors, known without reading its weights whole. Light: any plugin may import it.

What was made of a model's vectors, such as centres of clusters, is of no use with those of another. Names do not tell models apart:
a folder is moved, another is put in its place. So the identity is made of what the model is and of samples of its weights.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from modelgraft import Space

if TYPE_CHECKING:
    from modelgraft.plugin import Source

FEATURES = "features"  # the family of the spaces of vectors that are told apart by their model and layer
SAMPLES, SAMPLE_BYTES = 64, 4096  # of a file: enough that each layer of a model of hundreds of megabytes is met several times
LETTERS = 12  # of the digest: 48 bits, beside a name that people read


def features_space(model: str | None, layer: int | str | None) -> Space:
    """The space of the vectors that a layer of a model gives. What is None is not known, and not compared.

    layer  its number; "last": behind the last norm, which belongs to no layer
    """
    return Space.of(FEATURES, model=model, layer=layer)


def model_identity(source: Source) -> str | None:
    """Such as `hubert, weights 3f9c01ab22cd`: the same for the same files, whatever their folder is called.

    A preset, or a folder without weights, is known by what its config says of itself; None where nothing is known yet, such as of a
    checkpoint that is still to be fetched.
    """
    kind = str(source.root.get("model_type") or "")
    if source.kind == "preset":
        return f"preset {source.named[1]}, no weights"
    if not source.has_weights:
        return f"{kind}, no weights" if source.kind == "folder" and kind else None
    return ", ".join(filter(None, (kind, f"weights {_digest(source)}")))


def _digest(source: Source) -> str:
    """Of the sizes and samples of the files of weights, the smaller first: their names and times do not count."""
    single = source.path()
    files = source.weight_files or ((single,) if single is not None and single.is_file() else ())
    whole = hashlib.sha256()
    for found in sorted(_of_file(path, path.stat().st_size, path.stat().st_mtime_ns) for path in files):
        whole.update(found.encode())
    return whole.hexdigest()[:LETTERS]


@lru_cache(maxsize=64)
def _of_file(path: Path, size: int, _changed: int) -> str:
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        for start in _starts(size):
            file.seek(start)
            digest.update(file.read(SAMPLE_BYTES))
    return digest.hexdigest()


def _starts(size: int) -> Iterator[int]:
    """Where samples begin: at each piece of a small file, otherwise evenly from its beginning to its end."""
    if size <= SAMPLES * SAMPLE_BYTES:
        return iter(range(0, size, SAMPLE_BYTES))
    return ((size - SAMPLE_BYTES) * sample // (SAMPLES - 1) for sample in range(SAMPLES))
