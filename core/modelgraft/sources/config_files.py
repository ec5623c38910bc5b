"""The configs of a folder, read within bounds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelgraft.kernel.words.errors import Problem, SourceError, choices
from modelgraft.sources import collections, config_rules, named_paths
from modelgraft.sources.headers import damaged

NAMES = ("config.json", "adapter_config.json", "open_clip_config.json", "model_args.json")  # the last: of FROMAGe and its kin
MOST_JSON_BYTES = 32 << 20  # the index of a model of a hundred thousand tensors has about 10 MB


def config_of(folder: Path, boundary: Path | None = None) -> Mapping[str, Any]:
    """The config of a folder, the first of NAMES or of a collection. Raises SourceError `no-config`, `outside-folder`, `source-damaged`."""
    for name in NAMES:
        if (folder / name).is_file():
            named_paths.refuse_outside(folder / name, boundary, str(folder))
            found = read_json(folder / name)
            config_rules.check(folder / name, found)
            return found
    if collections.is_collection(folder):
        found = collections.config_of(folder, lambda path: _below(path, boundary))
        config_rules.check(folder / collections.LIST, found)
        return found
    there = [path.name for path in folder.iterdir()]
    told = f"{folder} has no config.json; it has: {choices(there)}" if there else f"{folder} is an empty folder"
    raise SourceError(Problem("no-config", told, hint="name a folder in Hugging Face layout, or the file that is meant"))


def _below(path: Path, boundary: Path | None) -> Mapping[str, Any]:
    named_paths.refuse_outside(path, boundary, str(path.parent))
    return read_json(path)


def read_json(path: Path) -> Mapping[str, Any]:
    """A JSON object of a file, MOST_JSON_BYTES at most. Raises SourceError `source-damaged`."""
    if path.stat().st_size > MOST_JSON_BYTES:
        raise damaged(path, f"has {path.stat().st_size} bytes; a config has at most {MOST_JSON_BYTES}")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise damaged(path, f"is not JSON: {str(error).partition(chr(10))[0]}") from error
    if not isinstance(found, dict):
        raise damaged(path, f"holds a {type(found).__name__} where a JSON object is wanted")
    return found
