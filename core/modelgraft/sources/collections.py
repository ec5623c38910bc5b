"""Folders of models: a checkpoint that is several, each in a folder of its own, with a list of them beside.

    model_index.json                  {"_class_name": ..., "unet": ["diffusers", "UNet2DConditionModel"], ...}
    unet/config.json                  unet/diffusion_pytorch_model.safetensors
    scheduler/scheduler_config.json   no weights
    tokenizer/...                     files that a component opens

It is seen as one source with a part for each folder: `#unet`. Its config holds each inner one under `unet_config`, as configs of
wholes do, and its tensors are those of the folders, behind the folder's name: `unet.conv_in.weight`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from modelgraft.sources import weight_files

LIST = "model_index.json"
CONFIGS = ("config.json", "scheduler_config.json")  # of a model within; of what steps its loop

Read = Callable[[Path], Mapping[str, Any]]


def is_collection(folder: Path) -> bool:
    """A list of models, and no config of the folder's own."""
    return (folder / LIST).is_file() and not (folder / "config.json").is_file()


def config_of(folder: Path, read: Read) -> dict[str, Any]:
    """The list itself, and the config of each folder that it names under `<folder>_config`."""
    index = read(folder / LIST)
    found: dict[str, Any] = dict(index)
    for name in members(index):
        path = next((path for config in CONFIGS if (path := folder / name / config).is_file()), None)
        if path is not None:
            found[f"{name}_config"] = read(path)
    return found


def members(index: Mapping[str, Any]) -> Iterator[str]:
    """The folders that a list names: entries of a library and a class, both of them there."""
    for name, entry in index.items():
        if isinstance(entry, list) and len(entry) == 2 and all(entry) and name.isidentifier():
            yield name


def weights_of(folder: Path, root: Mapping[str, Any], *, read: Read, may_be_fetched: bool) -> tuple[Path, ...]:
    """The files of weights of all the folders. Raises SourceError as `weight_files.files_of`."""
    found: list[Path] = []
    for name in members(root):
        home = folder / name
        if home.is_dir():

            def beside(file: str, home: Path = home) -> Mapping[str, Any] | None:
                return read(home / file) if (home / file).is_file() else None

            config = root.get(f"{name}_config", {})
            found.extend(weight_files.files_of(home, config, read=beside, may_be_fetched=may_be_fetched))
    return tuple(found)


def prefix_of(file: Path, folder: Path | None) -> str:
    """What stands before the keys of a file: the folder of a collection that it lies in."""
    return "" if folder is None or file.parent == folder else f"{file.parent.name}."


def home_of(folder: Path, part: str) -> Path:
    """Where the files of a part lie: the folder of its own that a collection has for it, or the folder itself."""
    inner = folder / part.partition(".")[0]
    return inner if part and is_collection(folder) and inner.is_dir() else folder
