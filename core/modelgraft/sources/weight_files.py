"""Which files of a folder hold its weights: the first that is there, in the order in which transformers looks.

    what `transformers_weights` in config.json names
    model.safetensors              then the shards of model.safetensors.index.json
    diffusion_pytorch_model.safetensors, adapter_model.safetensors    the same of models of diffusers, and of an adapter
    open_clip_model.safetensors
    pytorch_model.bin              then the shards of pytorch_model.bin.index.json
    diffusion_pytorch_model.bin, adapter_model.bin, open_clip_pytorch_model.bin
    the only other .safetensors file of the folder; where there is none, the only one that torch or numpy wrote, and the only
    generator of a vocoder, such as g_00500000

One file goes over an index: a folder that was saved again in one piece keeps the index of its former shards.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from modelgraft.kernel.words.errors import Problem, SourceError, choices
from modelgraft.sources.headers import damaged
from modelgraft.sources.refs import is_safe

NAMES = (
    "model.safetensors",
    "diffusion_pytorch_model.safetensors",
    "adapter_model.safetensors",
    "open_clip_model.safetensors",
    "pytorch_model.bin",
    "diffusion_pytorch_model.bin",
    "adapter_model.bin",
    "open_clip_pytorch_model.bin",
)
GENERATOR = re.compile("g_[0-9]+")  # as trainings of vocoders call what torch.save writes after so many steps
FURTHER = (".pt", ".pth", ".pth.tar", ".torch", ".ckpt", ".npz")
INDEX = ".index.json"  # behind the name of what was cut into shards
EXPLICIT = "transformers_weights"

ReadNamed = Callable[[str], Mapping[str, Any] | None]  # a JSON file of the folder by name, None when it is not there


def files_of(folder: Path, root: Mapping[str, Any], *, read: ReadNamed, may_be_fetched: bool) -> tuple[Path, ...]:
    """The files of weights, shards in the order of their names; empty when there are none.

    root            the folder's config.json
    may_be_fetched  missing shards are no error: they come when the weights are opened

    Raises SourceError `source-damaged` for an index that cannot be read, or whose shards are not all there.
    """
    if root.get(EXPLICIT) is not None:
        return _explicit(folder, root[EXPLICIT], read, may_be_fetched=may_be_fetched)
    for name in NAMES:
        if (folder / name).is_file():
            return (folder / name,)
        if (shards := _shards(folder, name + INDEX, read, may_be_fetched=may_be_fetched)) is not None:
            return shards
    others = others_in(folder)
    return tuple(others) if len(others) == 1 else ()


def others_in(folder: Path) -> list[Path]:
    """Files of weights by other names, such as `model.fp16.safetensors`: one alone is taken, of several none."""
    found = sorted(folder.glob("*.safetensors"))
    return found or sorted(path for path in folder.iterdir() if _is_further(path) and path.is_file())


def _is_further(path: Path) -> bool:
    return path.name.endswith(FURTHER) or is_generator(path)


def is_generator(path: Path) -> bool:
    """Whether a file is named as the generators of vocoders are, which have no ending."""
    return GENERATOR.fullmatch(path.name) is not None


def _explicit(folder: Path, name: Any, read: ReadNamed, *, may_be_fetched: bool) -> tuple[Path, ...]:
    if not isinstance(name, str) or not is_safe(name) or not name.endswith((".safetensors", f".safetensors{INDEX}")):
        found = f"names {name!r} as {EXPLICIT}; wanted: a .safetensors file of the folder, or a .safetensors{INDEX}"
        raise damaged(folder / "config.json", found)
    if name.endswith(INDEX):
        shards = _shards(folder, name, read, may_be_fetched=may_be_fetched)
        if shards is not None:
            return shards
    elif (folder / name).is_file():
        return (folder / name,)
    if may_be_fetched:
        return ()
    raise damaged(folder / "config.json", f"names {name} as {EXPLICIT}, which is not there")


def _shards(folder: Path, index_name: str, read: ReadNamed, *, may_be_fetched: bool) -> tuple[Path, ...] | None:
    """The shards that an index lists; None when there is no index."""
    index = read(index_name)
    if index is None:
        return None
    table = index.get("weight_map")
    if not isinstance(table, dict) or not table or not all(isinstance(name, str) and is_safe(name) for name in table.values()):
        raise damaged(folder / index_name, "has no weight_map of file names")
    names = sorted(set(table.values()))
    missing = [name for name in names if not (folder / name).is_file()]
    if missing and may_be_fetched:
        return ()
    if missing:
        problem = f"{folder} lacks {choices(missing)} of the {len(names)} files that {index_name} lists"
        raise SourceError(Problem("source-damaged", problem, hint="fetch the missing files"))
    return tuple((folder / name) for name in names)
