"""Files of results: JSON with a versioned schema, written whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelgraft.commands import write_value
from modelgraft.plugin import InputError
from modelgraft_plugins.benching.results import VERSION, Results

if TYPE_CHECKING:
    from pydantic import TypeAdapter

MOST_BYTES = 256 << 20  # ten thousand cells of a hundred rounds have about 200 MB
MOST_TOLD = 3  # things that are wrong in a file: the first ones say what it is


def adapter() -> TypeAdapter[Results]:
    """What reads, writes and describes results."""
    from pydantic import TypeAdapter

    return TypeAdapter(Results)


def schema() -> dict[str, Any]:  # Any: JSON
    """The JSON Schema of a file of results."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Results of modelgraft bench", **adapter().json_schema()}


def plain_results(results: Results) -> dict[str, Any]:  # Any: JSON
    """Results as plain values."""
    found: dict[str, Any] = adapter().dump_python(results, mode="json")
    return found


def write_results(results: Results, path: Path) -> None:
    """Put results into a file, in place of what it held before; a reader sees the one or the other, never a half."""
    write_value(plain_results(results), path)  # as it is: a text that goes into .json is a text there as well


def read_results(path: Path) -> Results:
    """Read a file of results. Raises InputError for one that cannot be read, is of another version, or is something else."""
    found = _read_json(path)
    if not isinstance(found, dict) or "cells" not in found or "surroundings" not in found:
        raise InputError(f"'{path}' holds no results of modelgraft bench; wanted: a file that --out has written")
    version = found.get("version")
    if version != VERSION:
        way = "measure again with this release" if not isinstance(version, int) or version < VERSION else "read it with a newer release"
        raise InputError(f"'{path}' holds results of schema version {version}; this release reads version {VERSION}: {way}")
    from pydantic import ValidationError

    try:
        return adapter().validate_python(found)
    except ValidationError as error:
        told = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()]
        more = f"; and {len(told) - MOST_TOLD} more" if len(told) > MOST_TOLD else ""
        raise InputError(f"'{path}' holds results that cannot be read: {'; '.join(told[:MOST_TOLD])}{more}") from error


def _read_json(path: Path) -> Any:  # Any: JSON
    try:
        if path.stat().st_size > MOST_BYTES:
            raise InputError(f"'{path}' has {path.stat().st_size:,} bytes; results of a bench have {MOST_BYTES:,} at most")
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"'{path}' cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"'{path}' is no JSON: {error}") from error
