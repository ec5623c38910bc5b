"""Files of weights that a plugin's reader turns into a folder in Hugging Face layout, once; the folder is cached.

A reader is a function `(path, folder)` in a module that is light to import. The module may also hold
`peek(path) -> Mapping`: the config.json that the reader would write, without reading tensors, so that a graph can be
checked before the file was converted; `blocks(path) -> Mapping`: what reads the matrices that the file holds in blocks of
few bits, by their names in the folder (`published_blocks.py`), for backends that keep them; and `VERSION`, raised when the
reader gives other results than before.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from modelgraft.kernel.words.errors import GraphError, PluginError, Problem, SourceError
from modelgraft.kernel.words.guard import contained, place_of, said, shown
from modelgraft.sources import kept, seals
from modelgraft.sources.headers import damaged
from modelgraft.sources.storage import cache_root, stamp_of

if TYPE_CHECKING:
    from modelgraft.kernel.shelf.registry import Registry
    from modelgraft.sources.published_blocks import PublishedBlocks

NEIGHBOURS = (".json", ".txt", ".model")  # what a reader may need beside the weights: configs, vocabularies, tokenizers
_ZIP = b"PK\x03\x04"  # what torch.save writes today;  before, it wrote pickles of protocol 2
_TORCH = (_ZIP, b"\x80\x02")
_BARE = tuple(b"\x80" + bytes([protocol]) for protocol in range(3, 6))  # pickles that torch.save did not write


def reader_for(name: str, registry: Registry) -> str | None:
    """The reader (`package.module:function`) registered for a file's ending, the longest ending first."""
    fitting = [suffix for suffix in registry.weight_readers if name.endswith(suffix)]
    return registry.weight_readers[max(fitting, key=len)] if fitting else None


def is_pickle(path: Path) -> bool:
    """The file is a pickle, or an archive with one in it, as `torch.save` writes them; whatever its ending says."""
    return _start(path).startswith((*_TORCH, *_BARE))


def is_bare_pickle(path: Path) -> bool:
    """The file is a pickle that `torch.save` did not write."""
    return _start(path).startswith(_BARE)


def is_zip(path: Path) -> bool:
    """The file is of the form that torch can map into memory."""
    return _start(path) == _ZIP


def _start(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(len(_ZIP))


def find(path: Path, reader: str, *, sha256: str = "") -> Path | None:
    """The folder that a reader made of a file before, or None; its large files are not read whole: see `weights.open`."""
    folder = _target(path, reader, sha256)
    return folder if folder.is_dir() and not seals.complaint(folder, quick=True) else None


def convert(path: Path, reader: str, *, sha256: str = "") -> Path:
    """Give the folder that a reader makes of a file, whole; made on the first call, by one process at a time.

    Raises SourceError `source-damaged` when the file cannot be read, PluginError when the reader breaks its contract.
    """
    folder = _target(path, reader, sha256)
    module, function = _load(reader)

    def write(aside: Path) -> None:
        try:
            with contained():
                getattr(module, function)(path, aside)
        except ImportError as error:
            raise _lacking(path, error) from error
        except (ValueError, EOFError, KeyError, IndexError) as error:
            raise damaged(path, f"cannot be read: {error}") from error
        except (GraphError, OSError):
            raise
        except Exception as error:  # code of a plugin may raise anything
            raise _failed(reader, path, error) from error
        if not (aside / "config.json").is_file() or not (aside / "model.safetensors").is_file():
            raise PluginError(f"the weight reader {reader} did not write config.json and model.safetensors")

    return kept.keep(folder, write, lock=folder.with_suffix(".lock"), what=f"{path.name} as it was converted")


def peek(path: Path, reader: str) -> Mapping[str, Any]:
    """The config.json that a reader would write, or {} when it cannot say without reading the weights."""
    module, _ = _load(reader)
    look = getattr(module, "peek", None)
    if look is None:
        return {}
    try:
        with contained():
            found: Mapping[str, Any] = look(path)
    except (ValueError, EOFError, KeyError, IndexError) as error:
        raise damaged(path, f"cannot be read: {error}") from error
    except (GraphError, OSError):
        raise
    except Exception as error:  # code of a plugin may raise anything
        raise _failed(reader, path, error) from error
    if not isinstance(found, Mapping):
        raise PluginError(f"peek of the weight reader {reader} gave {shown(found)} for {path}; wanted: the content of config.json")
    return found


def blocks(path: Path, reader: str) -> Mapping[str, Callable[[], PublishedBlocks]]:
    """What reads the matrices that a file holds in blocks, by their names in the folder that was made of it; {} where that is unknown."""
    module, _ = _load(reader)
    look = getattr(module, "blocks", None)
    try:
        with contained():
            found: Mapping[str, Callable[[], PublishedBlocks]] = {} if look is None else look(path)
    except (ValueError, EOFError, KeyError, IndexError) as error:
        raise damaged(path, f"cannot be read: {error}") from error
    except (GraphError, OSError):
        raise
    except Exception as error:  # code of a plugin may raise anything
        raise _failed(reader, path, error) from error
    return found


def _target(path: Path, reader: str, sha256: str) -> Path:
    module, _ = _load(reader)
    content = sha256 or f"{path.resolve()}\0{stamp_of(path)}"
    key = hashlib.sha256(f"{content}\0{reader}\0{getattr(module, 'VERSION', 1)}".encode()).hexdigest()
    return cache_root() / "converted" / key[:32]


def _lacking(path: Path, error: ImportError) -> SourceError:
    name = error.name or str(error)
    return SourceError(
        Problem("missing-package", f"reading {path.name} needs the package {name}, which is not installed", hint=f"pip install {name}")
    )


def _failed(reader: str, path: Path, error: Exception) -> SourceError:
    """A reader that raised what no damaged file explains."""
    place = place_of(error, reader)
    found, hint = f"the weight reader {reader} failed on {path}: {said(error)}", "this is a defect of its plugin"
    return SourceError(Problem("component-failed", found, hint=f"{hint}: {place}" if place else hint))


def _load(reader: str) -> tuple[ModuleType, str]:
    name, _, function = reader.partition(":")
    try:
        with contained():
            module = importlib.import_module(name)
    except Exception as error:  # code of a plugin may raise anything while it is imported
        place = place_of(error, reader)
        found = f"the weight reader {reader} cannot be imported: {said(error)}"
        raise SourceError(Problem("source-not-found", found, hint=f"see {place}" if place else "")) from error
    if not callable(getattr(module, function, None)):
        raise SourceError(Problem("source-not-found", f"the weight reader {reader} is not there: {name} has no function '{function}'"))
    return module, function
