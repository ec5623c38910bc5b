"""Outputs as files and as text: where they go is looked at before anything runs, what they are is written after it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

from modelgraft.cli.screen import Screen
from modelgraft.kernel.planning.planner import find_output
from modelgraft.kernel.words.errors import InputError
from modelgraft.kernel.words.graph import SolvedGraph
from modelgraft.kernel.words.guard import written as spelled
from modelgraft.kernel.words.ports import ListOf, Modality, Port, PortType, Tensor
from modelgraft.records.absence import ABSENT
from modelgraft.records.opening import Say, silent
from modelgraft.records.owning import is_array
from modelgraft.records.record_type import Types, types_of
from modelgraft.records.showing import FEW, kind_of, stands_for_file
from modelgraft.records.writing import check_writable, file_named, no_texts, write_value

TENSORS = (".npy", ".safetensors", ".json")


@dataclass(frozen=True, slots=True)
class Targets:
    """What is wanted, and the file for each that goes into one.

    media  the names of those that go into files of their own kind, such as pictures: of none of them there is no file
    """

    wanted: tuple[str, ...] | None
    files: Mapping[str, Path]
    media: frozenset[str] = frozenset()


def read_targets(words: list[str] | None, solved: SolvedGraph) -> Targets:
    """Read `--output name[=file]`. Raises InputError for a file that cannot be written or that does not fit what goes in."""
    files: dict[str, Path] = {}
    names: list[str] = []
    types, media = types_of(solved.graph.registry), set[str]()
    for word in words or ():
        name, equals, file = word.partition("=")
        ref = find_output(solved, name)
        names.append(name)
        if equals:
            port = solved.port_of(ref)
            files[name] = _usable(file_named(file), port, name, taken=files, types=types)
            media |= {name} if port is not None and _fitting(port.type, types) else set()
    return Targets(tuple(dict.fromkeys(names)) or None, files, frozenset(media))


def _usable(path: Path, port: Port | None, name: str, *, taken: Mapping[str, Path], types: Types) -> Path:
    suffix = path.suffix.lower()
    kind = port.type if port is not None else None
    fitting = _fitting(kind, types)
    if fitting and suffix not in fitting:
        raise InputError(f"output '{path}': {name} is {kind} and goes into a file that ends in {', '.join(fitting)}")
    if isinstance(item := _item(kind), Modality) and types[item.name].is_text and suffix in no_texts(types):
        raise InputError(f"output '{path}': {name} is {kind} and goes into a file such as {path.stem}.txt, or .json; not {suffix}")
    if path in taken.values():
        raise InputError(f"output '{path}' is named twice; each output needs a file of its own")
    check_writable(path)
    return path


def _item(kind: PortType | None) -> PortType | None:
    return _item(kind.item) if isinstance(kind, ListOf) else kind


def _fitting(kind: PortType | None, types: Types) -> tuple[str, ...]:
    """The endings of a file that a type goes into; none: any."""
    item = _item(kind)
    return TENSORS if isinstance(item, Tensor) else types[item.name].writes if isinstance(item, Modality) else ()


def write_outputs(outputs: Mapping[str, Any], targets: Targets, *, say: Say = silent) -> dict[str, list[str]]:
    """Write what goes into files and give their names by output; each appears whole or not at all, an absent one not at all.

    say  takes what is written though not quite as it is, such as a sound that is too loud for its file
    """
    found = {name: _write(outputs[name], path, say) for name, path in targets.files.items() if not _is_none(name, outputs, targets)}
    return {name: paths for name, paths in found.items() if paths}


def noted(outputs: Mapping[str, Any], targets: Targets, solved: SolvedGraph, *, nodes: Mapping[str, float]) -> dict[str, Any]:
    """Outputs as they go into files: a type that keeps what is known of the run that gave it, such as a conversation, is told now.

    nodes  the seconds that each took
    """
    from datetime import UTC, datetime

    types, time, found = types_of(solved.graph.registry), datetime.now(UTC).isoformat(timespec="seconds"), dict(outputs)
    for name in targets.files:
        kind, value = _item_of(solved, name), found[name]
        if isinstance(kind, Modality):
            tell = partial(types[kind.name].noted, time=time, nodes=nodes)
            found[name] = [tell(record) for record in value] if isinstance(value, list) else tell(value)
    return found


def _item_of(solved: SolvedGraph, name: str) -> PortType | None:
    port = solved.port_of(find_output(solved, name))
    return _item(port.type) if port is not None else None


def _write(value: Any, path: Path, say: Say) -> list[str]:
    """Write a value, a batch as numbered files; texts of a batch that are all there go into one file, and all into .json."""
    if value is ABSENT:
        return []
    is_json = path.suffix.lower() == ".json"
    if not isinstance(value, list) or is_json or all(isinstance(record, str) for record in value):
        text = "\n".join(value) if isinstance(value, list) and not is_json else value
        write_value(text, path, say=say)
        return [str(path)]
    numbered = [(record, path.with_name(f"{path.stem}-{index}{path.suffix}")) for index, record in enumerate(value)]
    return [name for record, file in numbered for name in _write(record, file, say)]


def absent_in(outputs: Mapping[str, Any]) -> list[str]:
    """What the routes of the graph left out: `text`, or `text[1]` for a record of a batch."""
    whole = [name for name, value in outputs.items() if value is ABSENT]
    parts = [
        f"{name}[{index}]"
        for name, value in outputs.items()
        if isinstance(value, list)
        for index, record in enumerate(value)
        if record is ABSENT
    ]
    return whole + parts


def absences(outputs: Mapping[str, Any], targets: Targets) -> Iterator[str]:
    """A sentence for each output that is absent, and for the file that is therefore not written."""
    for name in absent_in(outputs):
        left = "" if (path := _missing(name, targets)) is None else f"; {path} is not written"
        old = ", and what stands there is of an earlier run" if path is not None and path.exists() else ""
        yield f"{name} is absent: a route of the graph left it out{left}{old}"
    for name, path in targets.files.items():
        if _is_none(name, outputs, targets):
            old = ", and what stands there is of an earlier run" if path.exists() else ""
            yield f"{name} is empty: there is none; {path} is not written{old}"


def _is_none(name: str, outputs: Mapping[str, Any], targets: Targets) -> bool:
    """Whether an output is a list without any of what would go into files of their own."""
    value = outputs.get(name)
    return name in targets.media and targets.files[name].suffix.lower() != ".json" and isinstance(value, list) and not value


def _missing(name: str, targets: Targets) -> Path | None:
    """The file that an absent output would have gone into; of a record in .json, null stands for it there."""
    output, _, index = name.removesuffix("]").partition("[")
    path = targets.files.get(output)
    if path is None or not index:
        return path
    return None if path.suffix.lower() == ".json" else path.with_name(f"{path.stem}-{index}{path.suffix}")


def say_outputs(outputs: Mapping[str, Any], files: Mapping[str, list[str]], screen: Screen) -> None:
    """Print outputs as text: a single one alone, several each under its name."""
    shown = {name: value for name, value in outputs.items() if name not in files}
    for name, value in shown.items():
        for record in value if isinstance(value, list) and not _is_numbers(value) else [value]:
            if record is ABSENT:
                continue  # stdout holds what there is; that this is not is said beside it
            text = record if isinstance(record, str) else described(record)
            screen.say(text if len(shown) == 1 else f"{screen.paint(name, 'bold')}: {text}")
    for name, paths in files.items():
        screen.note(f"wrote {name} to {', '.join(paths)}")


def described(value: Any) -> str:
    """A value that is no text, in words that fit a line."""
    if hasattr(value, "detach") or is_array(value):
        return _tensor_text(value)
    if (found := stands_for_file(value)) is not None:
        return f"{found[0]}; write it with --output NAME=FILE{found[1]}"
    if isinstance(value, dict):
        return ", ".join(f"{key}: {described(part)}" for key, part in value.items())
    if isinstance(value, list | tuple):
        return "[" + ", ".join(described(part) for part in value) + "]"
    if isinstance(value, float):
        return f"{value:.6g}"
    return spelled(value)


def _tensor_text(tensor: Any) -> str:
    """A tensor, or an array."""
    if prod(tensor.shape) <= FEW:
        return described(tensor.tolist())
    return f"{kind_of(tensor)}; write it with --output NAME=FILE.npy or .safetensors"


def _is_numbers(value: list[Any]) -> bool:
    return bool(value) and all(isinstance(part, int | float) for part in value)
