"""What a file that torch.save or TorchScript wrote says of its tensors, read without torch and without running any of it.

The list of orders in such a file names classes. Here every name becomes an inert thing that keeps what it is given, save the few
that make tensors, which become their headers: name, dtype, shape and place. So sizes can be read while a graph is checked, what
stands beside the tensors (the settings of a training, say) is plain data, and the program in an archive of TorchScript is not run.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

from modelgraft.kernel.words.errors import SourceError
from modelgraft.sources import pickles
from modelgraft.sources.headers import ITEM_BYTES, TensorHeader

WRAPPERS = ("state_dict", "model_state_dict", "model", "generator")  # what the tensors stand under where more is saved with them
STORAGES: Mapping[str, str] = {
    "FloatStorage": "F32", "DoubleStorage": "F64", "HalfStorage": "F16", "BFloat16Storage": "BF16", "LongStorage": "I64",
    "IntStorage": "I32", "ShortStorage": "I16", "CharStorage": "I8", "ByteStorage": "U8", "BoolStorage": "BOOL",
}  # fmt: skip
MOST_NESTED = 64  # modules within modules, and settings within settings
COUNT_BYTES = 8  # how many numbers a storage has, in a file of former times
LEGACY = 4  # lists of orders in a file of former times: a number, a version, the machine, the object

Failures = (
    pickle.UnpicklingError, ValueError, EOFError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError, MemoryError,
    NotImplementedError, zipfile.BadZipFile, OSError,
)  # fmt: skip  # what bytes that are no orders make of a reader


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor in a file: the name of what holds its numbers, their dtype as safetensors calls it, and where in them it lies.

    shape, stride, offset  in numbers, not in bytes
    """

    store: str
    dtype: str
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int

    @property
    def header(self) -> TensorHeader:
        """As the header of a file of safetensors has it, from the beginning of its numbers."""
        count = 1
        for size in self.shape:
            count *= size
        return TensorHeader(self.dtype, self.shape, 0, count * ITEM_BYTES[self.dtype])


@dataclass(frozen=True, slots=True)
class TorchFile:
    """The tensors of a file by key, and what stands beside them, as plain values by name.

    named      the classes and functions that it names and that are none of a tensor
    prefix     of the names inside the archive;  is_script  it is a program of TorchScript, whose tensors are those of its modules
    places     of a file of former times: where in it the numbers of each storage lie, the first byte and the one behind the last, by
               name; empty where that cannot be told of all of them
    """

    tensors: Mapping[str, Stored] = field(default_factory=dict)
    beside: Mapping[str, Any] = field(default_factory=dict)
    named: frozenset[str] = frozenset()
    prefix: str = ""
    is_script: bool = False
    places: Mapping[str, tuple[int, int]] = field(default_factory=dict)


SILENT = TorchFile()


def look(path: Path) -> TorchFile:
    """Read what a file says of itself. One of another kind, or whose orders cannot be followed, says nothing: opening it tells why."""
    stat = path.stat()
    return _look(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=64)
def _look(path: Path, size: int, _changed: int) -> TorchFile:
    try:
        pickles.check(path)
        if zipfile.is_zipfile(path):
            return _of_archive(path)
        with path.open("rb") as file:
            *_, machine = [_Inert(file).load() for _ in range(LEGACY - 1)]
            reader = _Inert(file)
            found = _sorted(reader.load(), frozenset(reader.named))
            is_ours = isinstance(machine, dict) and machine.get("little_endian") is True
            return replace(found, places=_places(file, reader.stores, size)) if is_ours else found
    except (SourceError, *Failures):
        return SILENT


def _of_archive(path: Path) -> TorchFile:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        orders = next(name for name in names if name.endswith("data.pkl"))
        prefix = orders.removesuffix("data.pkl")
        found, named = _read(io.BytesIO(archive.read(orders)))
        if f"{prefix}constants.pkl" not in names:
            return _sorted(found, named, prefix=prefix)
    return TorchFile(dict(_of_module(found, "", 0)), {}, named, prefix, is_script=True)


def _places(file: IO[bytes], stores: Mapping[str, str], size: int) -> dict[str, tuple[int, int]]:
    """Where the numbers of each storage lie behind the orders: a list of names, then of each how many there are, and they themselves."""
    found = dict[str, tuple[int, int]]()
    try:
        names = _Inert(file).load()
    except Failures:  # it is cut here: opening it tells so
        return {}
    if not isinstance(names, list) or {str(name) for name in names} != stores.keys() or "" in stores.values():
        return {}
    for name in map(str, names):
        count = int.from_bytes(file.read(COUNT_BYTES), "little")
        start = file.tell()
        found[name] = start, start + count * ITEM_BYTES[stores[name]]
        if found[name][1] > size:
            return {}
        file.seek(found[name][1])
    return found


def _read(file: IO[bytes]) -> tuple[Any, frozenset[str]]:
    """What one list of orders makes, and the names in it."""
    reader = _Inert(file)
    return reader.load(), frozenset(reader.named)


def _sorted(found: Any, named: frozenset[str], *, prefix: str = "") -> TorchFile:
    """Tensors by key, and the rest as plain values."""
    beside: dict[str, Any] = {}
    for wrapper in WRAPPERS:
        if isinstance(found, dict) and isinstance(found.get(wrapper), dict):
            beside |= {str(key): plain(value) for key, value in found.items() if key != wrapper and not isinstance(value, Stored)}
            found = found[wrapper]
    if not isinstance(found, dict):
        return SILENT
    tensors = {key: value for key, value in found.items() if isinstance(key, str) and isinstance(value, Stored)}
    return TorchFile(tensors, beside, named, prefix)


def _of_module(module: Any, path: str, depth: int) -> Iterator[tuple[str, Stored]]:
    """The tensors of a module of TorchScript and of those inside, by their names with dots, one that is shared under each of them."""
    if not isinstance(module, Thing) or depth > MOST_NESTED:
        return
    for name, value in module.state.items():
        if isinstance(value, Stored):
            yield f"{path}{name}", value
        else:
            yield from _of_module(value, f"{path}{name}.", depth + 1)


def plain(value: Any, depth: int = 0) -> Any:
    """A value as JSON has it: what a thing keeps becomes a mapping, and what cannot be said its name."""
    if depth > MOST_NESTED:
        return None
    if isinstance(value, Thing):
        return {key: plain(held, depth + 1) for key, held in value.state.items()} or value.called
    if isinstance(value, dict):
        return {str(key): plain(held, depth + 1) for key, held in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(held, depth + 1) for held in value]
    return value if value is None or isinstance(value, str | int | float | bool) else type(value).__name__


class Thing:
    """What an order makes of a class that it names: it keeps what it is given, and does nothing."""

    def __init__(self, called: str, given: tuple[Any, ...] = ()) -> None:
        self.called, self.given, self.state = called, given, dict[str, Any]()

    def __setstate__(self, state: Any) -> None:
        for part in state if isinstance(state, tuple) else (state,):
            if isinstance(part, dict):
                self.state.update({str(key): value for key, value in part.items()})

    def __call__(self, *given: Any, **_more: Any) -> Thing:
        """What an order would make of it: another inert thing."""
        return Thing(self.called, given)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.state[str(key)] = value

    def append(self, value: Any) -> None:
        """Keep one more."""
        self.state[str(len(self.state))] = value

    def extend(self, values: Any) -> None:
        """Keep more."""
        for value in values:
            self.append(value)

    add = append


class Kept:
    """A thing of settings, for torch's own reader of tensors: it takes what it is given and does nothing."""

    def __init__(self, *_given: Any, **_more: Any) -> None:
        """Take it."""

    def __setstate__(self, _state: Any) -> None:
        """Take it."""


@dataclass(frozen=True, slots=True)
class _Storage:
    name: str
    dtype: str


class _Inert(pickle.Unpickler):
    """Follows orders; what they name is never imported."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file)
        self.named, self.stores = set[str](), dict[str, str]()  # dtype of each storage by its name; "" for an unknown one

    def find_class(self, module: str, name: str) -> Any:
        """What stands for a class or function of this name."""
        if name.endswith("Storage") and module.split(".", maxsplit=1)[0] == "torch":
            return STORAGES.get(name, "")
        called = f"{module}.{name}"
        if called not in _KNOWN:
            self.named.add(called)
        return _KNOWN.get(called) or _class(called)

    def persistent_load(self, pid: Any) -> Any:
        """What holds the numbers of a tensor: ("storage", type, name, device, numbers)."""
        if not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != "storage":
            raise ValueError("a tensor without numbers")
        found = _Storage(str(pid[2]), pid[1] if isinstance(pid[1], str) else "")
        is_whole = len(pid) < 6 or pid[5] is None  # torch 0.2 wrote parts of storages too
        self.stores[found.name] = found.dtype if is_whole else ""
        return found


def _class(called: str) -> type[Thing]:
    """A class of inert things of one name."""

    def new(cls: type[Thing], *given: Any, **_more: Any) -> Thing:
        thing = object.__new__(cls)
        Thing.__init__(thing, called, given)
        return thing

    return type("Thing", (Thing,), {"__new__": new, "__init__": _keep_as_made})


def _keep_as_made(_thing: Thing, *_given: Any, **_more: Any) -> None:
    """Whatever a constructor is given was kept by `__new__`."""


def _tensor(storage: Any, offset: Any, shape: Any, stride: Any, *_more: Any) -> Any:
    """torch._utils._rebuild_tensor_v2: of a dtype that is not known here, an inert thing."""
    if not isinstance(storage, _Storage) or not storage.dtype:
        return Thing("a tensor")
    sizes, strides = (tuple(int(size) for size in part) for part in (shape, stride))
    if len(sizes) != len(strides) or min((int(offset), *sizes, *strides)) < 0:
        raise ValueError("a tensor whose place is no place")
    return Stored(storage.name, storage.dtype, sizes, strides, int(offset))


def _first(value: Any, *_more: Any) -> Any:
    """torch._utils._rebuild_parameter, and marks of types in TorchScript: the value itself."""
    return value


def _as_tuple(*given: Any) -> tuple[Any, ...]:
    return tuple(given[0]) if given else ()


_KNOWN: Mapping[str, Any] = {
    "collections.OrderedDict": OrderedDict,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _first,
    "torch._utils._rebuild_parameter_with_state": _first,
    "torch.jit._pickle.restore_type_tag": _first,
    "torch.jit._pickle.build_intlist": _first,
    "torch.jit._pickle.build_doublelist": _first,
    "torch.jit._pickle.build_boollist": _first,
    "torch.jit._pickle.build_tensorlist": _first,
    "torch.Size": _as_tuple,
}
