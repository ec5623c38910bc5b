"""Results of nodes in a folder: one safetensors file per key with its checksum in it, whole or not at all; the oldest are removed first.

Several processes may use the folder at the same time. A file that cannot be read back is a miss, is removed, and that is said.
"""

from __future__ import annotations

import json
import os
import re
import zlib
from collections.abc import Mapping
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from modelgraft.records.arrays import as_array, as_tensor
from modelgraft.records.owning import is_array, is_picture, is_tensor
from modelgraft.records.publishing import file_aside
from modelgraft.records.record import Record
from modelgraft.sources import kept
from modelgraft.sources.seals import BrokenSeal

FORMAT = "3"  # raised when files of an older form must not be read
SUFFIX = ".safetensors"
CHECK = re.compile(rb'"check":"([0-9a-f]{8})"')  # in the header: the CRC-32 of the file with zeros in its place
NO_CHECK = b'"check":"00000000"'
WIDEST_BYTES = 8  # of a number of an array; C's long double has no form in such files


class DiskCache:
    """The files of a cache folder."""

    def __init__(self, folder: Path, *, limit_bytes: int) -> None:
        self._folder, self._limit = folder, limit_bytes

    def read(self, key: str) -> dict[str, Any] | None:
        """The outputs under a key; None when there are none or the file is damaged, which is then removed."""
        path = self._path(key)
        try:
            content = path.read_bytes()
        except OSError:
            return None
        try:
            outputs = _unpack(content, key)
        except Exception as error:  # noqa: BLE001 a damaged file may fail in any way
            with suppress(OSError):
                path.unlink()
            kept.remark(f"a result was kept and is broken ({path}: {error}): it is computed again")
            return None
        with suppress(OSError):
            os.utime(path)  # so that what is used stays
        return outputs

    def write(self, key: str, outputs: Mapping[str, Any]) -> None:
        """Keep outputs. Values that cannot be written, and a folder that cannot be, are passed over: a cache is no result."""
        try:
            content = _pack(outputs, key)
        except _Unwritable:
            return
        if len(content) > self._limit:
            return
        try:
            with file_aside(self._path(key)) as aside:
                aside.write_bytes(content)
        except OSError:
            return
        self._make_room()

    def files(self) -> list[Path]:
        """Every result in the folder, and what killed processes have left of one."""
        found = self._folder.glob(f"??/*{SUFFIX}*")
        return sorted(path for path in found if path.parent.name == path.name.removeprefix(".")[:2])

    def complaint(self, path: Path) -> str:
        """What is wrong with a result that `files` has given, or an empty string."""
        if path.suffix != SUFFIX or path.name.startswith("."):
            return "it was not finished"
        try:
            _facts(path.read_bytes(), path.stem)
        except FileNotFoundError:
            return ""  # removed meanwhile
        except Exception as error:  # noqa: BLE001 a damaged file may fail in any way
            return str(error)
        return ""

    def _path(self, key: str) -> Path:
        return self._folder / key[:2] / f"{key}{SUFFIX}"

    def _make_room(self) -> None:
        """Remove the files that were not used for longest until the folder is within its limit."""
        files = []
        for path in self.files():
            with suppress(OSError):  # another process may remove it first
                stat = path.stat()
                files.append((stat.st_mtime, stat.st_size, path))
        total = sum(size for _, size, _ in files)
        for _, size, path in sorted(files, key=lambda file: (file[0], str(file[2]))):
            if total <= self._limit:
                return
            with suppress(OSError):
                path.unlink()
            total -= size


class _Unwritable(TypeError):
    """A value that has no form on disk."""


# -- values as files ----------------------------------------------------------------------------------------------------


def _pack(outputs: Mapping[str, Any], key: str) -> bytes:
    blocks: dict[str, Any] = {}
    tree = json.dumps({name: _flatten(value, blocks) for name, value in outputs.items()})
    has_tensors = any(map(is_tensor, blocks.values()))
    written = {name: as_tensor(block) for name, block in blocks.items()} if has_tensors else blocks
    content: bytes = _library(has_tensors).save(written, metadata={"modelgraft": FORMAT, "key": key, "tree": tree, "check": "00000000"})
    return content.replace(NO_CHECK, f'"check":"{zlib.crc32(content):08x}"'.encode(), 1)


def _unpack(content: bytes, key: str) -> dict[str, Any]:
    tree = _facts(content, key)["tree"]
    blocks = _library('"tensor": ' in tree).load(content)
    return {name: _restore(part, blocks) for name, part in json.loads(tree).items()}


def _library(has_tensors: bool) -> Any:  # noqa: FBT001 one of two modules
    """What reads and writes blocks: with torch where some are tensors; arrays that it reads by numpy are not to be written to."""
    return import_module("safetensors.torch" if has_tensors else "safetensors.numpy")


def _facts(content: bytes, key: str) -> dict[str, Any]:
    """What a file says of itself, if it is what was written for this key. Raises BrokenSeal, or as the reading of JSON does."""
    length = int.from_bytes(content[:8], "little")
    check = CHECK.search(content, 8, 8 + length)
    if check is None or zlib.crc32(content[: check.start()] + NO_CHECK + content[check.end() :]) != int(check[1], 16):
        raise BrokenSeal("its checksum is of something else")
    facts = json.loads(content[8 : 8 + length])["__metadata__"]
    if (facts["modelgraft"], facts["key"]) != (FORMAT, key):
        raise BrokenSeal("it is of another version, or the result of something else")
    return dict(facts)


def _flatten(value: Any, blocks: dict[str, Any]) -> Any:
    """A value as JSON; tensors, arrays and pictures move to `blocks`."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list):
        return [_flatten(item, blocks) for item in value]
    if isinstance(value, tuple):
        return {"tuple": [_flatten(item, blocks) for item in value]}
    if isinstance(value, dict) and all(isinstance(name, str) for name in value):
        return {"dict": {name: _flatten(item, blocks) for name, item in value.items()}}
    if isinstance(value, Record):
        kind = type(value)
        return {"record": f"{kind.__module__}:{kind.__qualname__}", "parts": _flatten(value.parts(), blocks)}
    if is_tensor(value):
        return {"tensor": str(value.device), "block": _store(value.detach().to("cpu").contiguous().clone(), blocks)}
    if is_array(value) and value.dtype.kind in "biuf" and value.dtype.isnative and value.dtype.itemsize <= WIDEST_BYTES:
        import numpy

        return {"array": list(value.shape), "block": _store(numpy.array(value, order="C"), blocks)}
    if is_picture(value) and value.mode in ("L", "RGB", "RGBA"):
        import numpy

        pixels = numpy.frombuffer(bytearray(value.tobytes()), numpy.uint8)
        return {"picture": value.mode, "size": list(value.size), "block": _store(pixels, blocks)}
    raise _Unwritable(type(value).__name__)


def _store(block: Any, blocks: dict[str, Any]) -> str:
    name = str(len(blocks))
    blocks[name] = block
    return name


def _restore(tree: Any, blocks: Mapping[str, Any]) -> Any:
    if isinstance(tree, list):
        return [_restore(item, blocks) for item in tree]
    if not isinstance(tree, dict):
        return tree
    if "tuple" in tree:
        return tuple(_restore(item, blocks) for item in tree["tuple"])
    if "dict" in tree:
        return {name: _restore(item, blocks) for name, item in tree["dict"].items()}
    if "record" in tree:
        return _record_class(tree["record"]).whole(_restore(tree["parts"], blocks))
    block = blocks[tree["block"]]
    if "tensor" in tree:
        return block.to(tree["tensor"])
    if "array" in tree:
        return as_array(block).reshape(tree["array"]).copy()
    from PIL import Image

    return Image.frombytes(tree["picture"], tuple(tree["size"]), as_array(block).tobytes())


def _record_class(target: str) -> type[Record]:
    """The class of a record by its place. Raises BrokenSeal for what is none, ImportError where its plugin is gone."""
    module, _, name = target.partition(":")
    found: Any = import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    if not isinstance(found, type) or not issubclass(found, Record):
        raise BrokenSeal(f"{target} is no record")
    return found
