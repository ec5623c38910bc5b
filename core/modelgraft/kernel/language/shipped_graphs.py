"""Where the shipped graphs lie."""

from __future__ import annotations

from pathlib import Path


def shipped_graphs() -> Path:
    """Folder of the graph files that ship with modelgraft: in the package (wheel) or at the root of the checkout."""
    inside = Path(__file__).parents[2] / "graphs"
    return inside if inside.is_dir() else Path(__file__).parents[4] / "graphs"


def find_shipped(name: str) -> Path | None:
    """The file of a shipped graph such as `talk`, `clip/retrieval` or, of a folder the one of its own name, `clip`; or None."""
    root = shipped_graphs()
    try:
        there = [path for path in (root / f"{name}.yaml", root / name / f"{name}.yaml") if path.is_file()]
        return next((path for path in there if path.resolve().is_relative_to(root.resolve())), None)
    except (OSError, ValueError):  # a name that no file system takes: too long, or with a NUL byte
        return None


def shipped_names() -> tuple[str, ...]:
    """The names of all shipped graphs, sorted."""
    found = (path.relative_to(shipped_graphs()).with_suffix("") for path in shipped_graphs().rglob("*.yaml"))
    return tuple(sorted(path.name if path.parent.name == path.name else path.as_posix() for path in found))
