"""Where the shipped graphs lie."""

from __future__ import annotations

from pathlib import Path


def shipped_graphs() -> Path:
    """Folder of the graph files that ship with modelgraft: in the package (wheel) or at the root of the checkout."""
    inside = Path(__file__).parents[2] / "graphs"
    return inside if inside.is_dir() else Path(__file__).parents[4] / "graphs"


def find_shipped(name: str) -> Path | None:
    """The file of a shipped graph such as `blip2` or `zoo/llava`, or None."""
    root = shipped_graphs()
    path = root / f"{name}.yaml"
    try:
        return path if path.is_file() and path.resolve().is_relative_to(root.resolve()) else None
    except (OSError, ValueError):  # a name that no file system takes: too long, or with a NUL byte
        return None


def shipped_names() -> tuple[str, ...]:
    """The names of all shipped graphs, sorted."""
    root = shipped_graphs()
    return tuple(sorted(path.relative_to(root).with_suffix("").as_posix() for path in root.rglob("*.yaml")))
