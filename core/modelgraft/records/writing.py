"""Values as files: each appears whole under its name, of the kind that its ending says."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelgraft.kernel.words.errors import InputError
from modelgraft.records.absence import ABSENT
from modelgraft.records.conversation import is_conversation
from modelgraft.records.conversation_files import with_media
from modelgraft.records.conversation_page import PAGE_ENDING, conversation_page
from modelgraft.records.homes import home_read
from modelgraft.records.json_text import json_text
from modelgraft.records.opening import Say, silent
from modelgraft.records.owning import is_array
from modelgraft.records.pictures import eight_bits, on_white
from modelgraft.records.publishing import file_aside
from modelgraft.records.record import Record

if TYPE_CHECKING:
    from PIL.Image import Image

    from modelgraft.records.record_type import Types

_PROMISING = frozenset({".npy", ".safetensors", ".pdf", ".zip"})  # what promises something else than text, beside the files of media
STREAMS = re.compile(r"/proc/[^/]+(/task/[^/]+)?/fd|/dev/fd")  # where file descriptors have names: of Linux, and of other systems
LINKS = 40  # as many as Linux follows
_OF_NUMBERS = frozenset({".npy", ".safetensors"})
_OF_TEXT = frozenset({".json", ".csv", ".tsv", ".html"})  # what holds text, although media are written into it too


def write_value(value: Any, path: Path, *, say: Say = silent) -> None:
    """Write one output as its kind and the file's suffix ask for; the file appears whole or not at all.

    pictures .png .jpg .webp, records as they say, tensors .npy .safetensors (.npy has bfloat16 as the same numbers in float32), text
    .txt and any other suffix, .json for all plain values, conversations .html too. `say` takes what is written though not quite as it is.
    Raises InputError when the kind does not go into that suffix, or the file cannot be written.
    """
    writer = _writer(value, path, say)
    check_writable(path)
    with told_of(path), file_aside(Path(os.path.realpath(path)), suffix=path.suffix) as aside:  # a link stays a link
        writer(aside)


@contextmanager
def told_of(path: Path) -> Iterator[None]:
    """Turn what the system refuses within the block (no room, no permission) into InputError that names this output."""
    try:
        yield
    except OSError as error:
        raise InputError(f"output '{path}' cannot be written: {error.strerror or error}") from error


def file_named(word: str | os.PathLike[str]) -> Path:
    """The path of the file that a user has named for an output, `~` read as the home.

    Raises InputError for a word that names no file: nothing, `-`, or a folder by its last letter.
    """
    text = os.fspath(word)
    if text in ("", "-"):
        raise InputError(f"output '{text}' names no file; what is given no file goes to stdout")
    if text.endswith(("/", os.sep)):
        raise InputError(f"output '{text}' names a folder; name a file in it")
    return home_read(text)


def check_writable(path: Path) -> None:
    """Raise InputError when a file cannot be put there: before the work, not after it.

    A file appears whole under its name, in place of what has it: that would take a device or a pipe from everybody who uses it, and from
    /dev/stdout or /dev/fd/3 the file that is open there.
    """
    if _is_open_stream(path):
        raise InputError(f"output '{path}' stands for what is open already; name a file, or none: what is given none goes to stdout")
    folder = Path(os.path.realpath(path)).parent if path.is_symlink() else path.parent
    if path.is_dir():
        raise InputError(f"output '{path}' is a folder; name a file in it")
    if path.exists() and not path.is_file():
        raise InputError(f"output '{path}' is no ordinary file; name one")
    if not folder.is_dir():
        raise InputError(f"output '{path}' cannot be written: there is no folder '{folder}'")
    if not os.access(folder, os.W_OK) or (path.exists() and not os.access(path, os.W_OK)):
        raise InputError(f"output '{path}' cannot be written: no permission in '{folder}'")


def _is_open_stream(path: Path) -> bool:
    """Whether a name is that of a file descriptor, perhaps by way of links."""
    for _ in range(LINKS):
        if STREAMS.fullmatch(os.path.realpath(path.parent)):
            return True
        if not path.is_symlink():
            return False
        path = path.parent / path.readlink()
    return False


def _writer(value: Any, path: Path, say: Say) -> Callable[[Path], None]:
    suffix = path.suffix.lower()
    if isinstance(value, Record):
        _need(suffix, value.endings, value.called, path)
        return lambda target: value.save(target, f"output '{path}'", say)
    if hasattr(value, "getbands"):  # a Pillow picture
        _need(suffix, (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tiff"), "a picture", path)
        return lambda target: _save_picture(value, target)
    if hasattr(value, "detach"):  # a torch tensor
        _need(suffix, (".npy", ".safetensors", ".json"), "a tensor", path)
        return lambda target: _save_tensor(value, target)
    if is_array(value) and suffix in _OF_NUMBERS:
        return lambda target: _save_array(value, target)
    if isinstance(value, bytes):  # a file that is made already
        return lambda target: _save_bytes(value, target)
    if suffix == PAGE_ENDING and is_conversation(value):
        text = conversation_page(value)
    elif suffix == ".json" or not isinstance(value, str):
        text = json_text(with_media(value), indent=1, plain=_plain) + "\n"
    else:
        text = value if value.endswith("\n") else value + "\n"
    return lambda target: _save_text(text, target)


def _need(suffix: str, accepted: tuple[str, ...], what: str, path: Path) -> None:
    if suffix not in accepted:
        raise InputError(f"output '{path}': {what} goes into a file that ends in {', '.join(accepted)}")


def _save_text(text: str, target: Path) -> None:
    target.write_text(text, encoding="utf-8", errors="backslashreplace")  # half a surrogate pair has no other form


def _save_bytes(content: bytes, target: Path) -> None:
    target.write_bytes(content)


def _save_picture(picture: Image, target: Path) -> None:
    jpeg = target.suffix.lower() in (".jpg", ".jpeg")
    (on_white(eight_bits(picture, "the picture")) if jpeg else picture).save(target)


def _save_array(array: Any, target: Path) -> None:
    import numpy

    if target.suffix.lower() == ".npy":
        numpy.save(target, array)
        return
    from safetensors.numpy import save_file

    save_file({"value": numpy.ascontiguousarray(array)}, str(target))


def _save_tensor(tensor: Any, target: Path) -> None:
    plain = tensor.detach().cpu().contiguous()
    if target.suffix.lower() == ".npy":
        import numpy

        numpy.save(target, plain.float().numpy() if str(plain.dtype) == "torch.bfloat16" else plain.numpy())
    elif target.suffix.lower() == ".safetensors":
        from safetensors.torch import save_file

        save_file({"value": plain}, str(target))
    else:
        _save_text(json_text(plain.tolist()) + "\n", target)


def _plain(value: Any) -> Any:
    """What JSON has no form for: tensors and arrays become lists, records what they measure, what is absent is null, the rest its text."""
    if value is ABSENT:
        return None
    if isinstance(value, Record):
        return value.facts()
    return value.tolist() if hasattr(value, "tolist") else str(value)


def no_texts(types: Types) -> frozenset[str]:
    """The endings that promise something else than text."""
    return _PROMISING | {ending for kind in types.values() for ending in (*kind.reads, *kind.writes)} - _OF_TEXT
