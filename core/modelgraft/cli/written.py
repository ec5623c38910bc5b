"""Outputs as files and as text: where they go is looked at before anything runs, what they are is written after it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelgraft.cli.screen import Screen
from modelgraft.draw.picture import port_of
from modelgraft.errors import InputError
from modelgraft.graph import SolvedGraph
from modelgraft.media import check_writable, write_value
from modelgraft.planning.planner import find_output
from modelgraft.ports import Modality, Port, Tensor

# What a file may end in, by what goes into it.
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tiff")
SUFFIXES: Mapping[str, tuple[str, ...]] = {"image": PICTURES, "depth": PICTURES, "thermal": PICTURES, "audio": (".wav",)}
TENSOR_SUFFIXES = (".npy", ".safetensors", ".json")


@dataclass(frozen=True, slots=True)
class Targets:
    """What is wanted, and the file for each that goes into one."""

    wanted: tuple[str, ...] | None
    files: Mapping[str, Path]


def read_targets(words: list[str] | None, solved: SolvedGraph) -> Targets:
    """Read `--output name[=file]`. Raises InputError for a file that cannot be written or that does not fit what goes in."""
    files: dict[str, Path] = {}
    names: list[str] = []
    for word in words or ():
        name, equals, file = word.partition("=")
        ref = find_output(solved, name)
        names.append(name)
        if equals:
            files[name] = _usable(Path(file).expanduser(), port_of(ref, solved), name, taken=files)
    return Targets(tuple(dict.fromkeys(names)) or None, files)


def _usable(path: Path, port: Port | None, name: str, *, taken: Mapping[str, Path]) -> Path:
    kind = port.type if port is not None else None
    fitting = TENSOR_SUFFIXES if isinstance(kind, Tensor) else SUFFIXES.get(kind.name, ()) if isinstance(kind, Modality) else ()
    if fitting and path.suffix.lower() not in fitting:
        raise InputError(f"output '{path}': {name} is {kind} and goes into a file that ends in {', '.join(fitting)}")
    if path in taken.values():
        raise InputError(f"output '{path}' is named twice; each output needs a file of its own")
    check_writable(path)
    return path


def write_outputs(outputs: Mapping[str, Any], targets: Targets) -> dict[str, list[str]]:
    """Write what goes into files and give their names by output; each appears whole or not at all."""
    return {name: _write(outputs[name], path) for name, path in targets.files.items()}


def _write(value: Any, path: Path) -> list[str]:
    is_batch = isinstance(value, list) and path.suffix.lower() != ".json" and any(not isinstance(record, str) for record in value)
    if not is_batch:
        text = "\n".join(value) if isinstance(value, list) and path.suffix.lower() != ".json" else value
        write_value(text, path)
        return [str(path)]
    numbered = [path.with_name(f"{path.stem}-{index}{path.suffix}") for index in range(len(value))]
    for record, file in zip(value, numbered, strict=True):
        write_value(record, file)
    return [str(file) for file in numbered]


def say_outputs(outputs: Mapping[str, Any], files: Mapping[str, list[str]], screen: Screen) -> None:
    """Print outputs as text: a single one alone, several each under its name."""
    shown = {name: value for name, value in outputs.items() if name not in files}
    for name, value in shown.items():
        for record in value if isinstance(value, list) and not _is_numbers(value) else [value]:
            text = record if isinstance(record, str) else described(record)
            screen.say(text if len(shown) == 1 else f"{screen.paint(name, 'bold')}: {text}")
    for name, paths in files.items():
        screen.note(f"wrote {name} to {', '.join(paths)}")


def described(value: Any) -> str:
    """A value that is no text, in words that fit a line."""
    if hasattr(value, "detach"):
        return _tensor_text(value)
    if hasattr(value, "getbands"):
        return f"a picture of {value.width} x {value.height}; write it with --output NAME=FILE.png"
    if hasattr(value, "sample_rate_hz"):
        seconds = value.samples.shape[-1] / value.sample_rate_hz
        return f"a sound of {seconds:.1f} s at {value.sample_rate_hz} Hz; write it with --output NAME=FILE.wav"
    if isinstance(value, dict):
        return ", ".join(f"{key}: {described(part)}" for key, part in value.items())
    if isinstance(value, list | tuple):
        return "[" + ", ".join(described(part) for part in value) + "]"
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value)


def _tensor_text(tensor: Any) -> str:
    if tensor.numel() <= 16:
        return described(tensor.tolist())
    dtype, shape = str(tensor.dtype).removeprefix("torch."), " ".join(map(str, tensor.shape))
    return f"{dtype}[{shape}]; write it with --output NAME=FILE.npy or .safetensors"


def _is_numbers(value: list[Any]) -> bool:
    return bool(value) and all(isinstance(part, int | float) for part in value)


def plain(value: Any) -> Any:
    """A value as JSON has it: tensors as lists, pictures and sounds as what they measure, NaN and infinity as null."""
    if hasattr(value, "detach"):
        return plain(value.tolist())
    if hasattr(value, "getbands"):
        return {"type": "image", "width": value.width, "height": value.height, "mode": value.mode}
    if hasattr(value, "sample_rate_hz"):
        channels, frames = value.samples.shape
        return {"type": "audio", "sample_rate_hz": value.sample_rate_hz, "channels": channels, "frames": frames}
    if isinstance(value, Mapping):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int | bool) else str(value)
