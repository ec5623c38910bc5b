"""Files of centres: a safetensors file with `cluster_centers_` float32[clusters width], or float32[books clusters width/books].

Its metadata say what the centres belong to: `model` and `layer` of the features, `frames` that they were fitted on, `recipe` and `seed`.
A folder with a config.json that says the same is read as well. Nothing is unpickled.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelgraft.plugin import damaged

if TYPE_CHECKING:
    from modelgraft.plugin import Source

KEY = "cluster_centers_"  # as scikit-learn calls them
FIELDS = ("clusters", "width", "books", "model", "layer")  # of units/kmeans
LAST = "last"  # the layer of features from behind the last norm
ABOUT = ("model", "layer", "frames", "recipe", "seed", "model_type", "clusters", "width", "books")  # what a file may say
CONVERT = "`modelgraft units convert GRAPH CENTRES.npy --out FILE.safetensors` makes one of a plain array"


def centres_config(source: Source) -> dict[str, Any]:
    """What a source says of its centres, in the words of units/kmeans.

    Raises ValueError for a source that holds none, or that says what is not known.
    """
    shape, stated = source.shape(KEY), said_of(source)
    if shape is None and not source.has_weights and {"clusters", "width"} <= set(stated):  # published numbers without centres
        return {name: stated[name] for name in FIELDS if stated.get(name) is not None}
    if shape is None:
        raise ValueError(f"units/kmeans takes a safetensors file with '{KEY}'; {source.text} has none that can be read: {CONVERT}")
    if len(shape) not in (2, 3) or 0 in shape:
        raise ValueError(f"'{KEY}' of {source.text} is [{' '.join(map(str, shape))}], wanted [clusters width] or [books clusters width]")
    others = sorted(set(source.tensor_shapes()) - {KEY})
    if others:
        raise ValueError(f"{source.text} holds {', '.join(others)} beside '{KEY}': it is no file of centres")
    books, clusters, width = shape if len(shape) == 3 else (1, *shape)
    found = {"clusters": clusters, "books": books, "width": books * width}
    for name, number in found.items():
        if name in stated and stated[name] != number:
            raise ValueError(f"{source.text} says {name}: {stated[name]}, and its centres have {number}")
    return {**found, **{name: stated[name] for name in ("model", "layer") if stated.get(name) is not None}}


def unsaid(source: Source) -> list[tuple[str, ...]]:
    """(sentence, way out, key that settles it) for each of model and layer that the file does not say."""
    stated = said_of(source)
    return [
        (f"the centres of {source.text} do not say which {name} they were fitted on: any is taken", f"set `{name}` of the node", name)
        for name in ("model", "layer")
        if stated.get(name) is None
    ]


def said_of(source: Source) -> dict[str, Any]:
    """What config.json or the metadata of the file say. Raises ValueError for words that are not known."""
    path = source.path()
    told: dict[str, Any] = dict(source.root)
    if not told and path is not None and path.is_file() and path.suffix == ".safetensors":
        told.update(metadata(path))
    if unknown := sorted(set(told) - set(ABOUT)):
        raise ValueError(f"{source.text} says {', '.join(unknown)}, which files of centres do not have; they have {', '.join(ABOUT)}")
    for name in ("layer", "clusters", "width", "books"):
        if name in told and not (name == "layer" and told[name] == LAST):
            told[name] = _number(told[name], name, source)
    if not isinstance(told.get("model", ""), str):
        raise ValueError(f"{source.text} says model: {told['model']!r}, wanted a text")  # noqa: TRY004 the value of a file, not of an argument
    return told


def metadata(path: Path) -> dict[str, str]:
    """The texts in the header of a safetensors file, which the source has checked already; {} where there are none."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    found: Mapping[str, str] = header.get("__metadata__", {})
    if not all(isinstance(value, str) for value in found.values()):
        raise damaged(path, "has metadata that are no texts")
    return {name: value for name, value in found.items() if name != "format"}


def _number(value: Any, name: str, source: Source) -> int:
    try:
        found = int(value)
    except (TypeError, ValueError):
        found = -1
    if found < 0 or isinstance(value, bool | float):
        raise ValueError(f"{source.text} says {name}: {value!r}, wanted a natural number")
    return found
