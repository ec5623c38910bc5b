"""How much of a mapped file is in memory."""

from __future__ import annotations

from pathlib import Path


def bytes_in_memory(path: Path) -> int:
    """The bytes of a mapped file that this process has in memory; of Linux alone."""
    inside, found = False, 0
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if line.endswith("B") and inside and line.startswith("Rss:"):
            found += 1024 * int(line.split()[1])
        elif not line.endswith("B") and "-" in line.split()[0]:
            inside = line.endswith(str(path))
    return found
