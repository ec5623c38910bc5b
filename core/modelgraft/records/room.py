"""What a machine has left, so that what cannot fit is refused before it is begun, and nobody is killed for it."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from modelgraft.kernel.words.errors import InputError
from modelgraft.kernel.words.sizes import named
from modelgraft.records.amounts import in_bytes

MEMORY, GROUP = Path("/proc/meminfo"), Path("/sys/fs/cgroup")  # of Linux; elsewhere nothing is known, and nothing refused
ASKED_BYTES = 1 << 28  # below it nobody asks the system: a process that imports torch alone takes more


def refuse_without_room(told: str, size: int, device: str, *, way: str) -> None:
    """Raise InputError for what takes more than a device has left, as far as that is known.

    told  what takes it, for people;  size  in bytes, at least;  way  what helps
    """
    if size < ASKED_BYTES:
        return
    free = free_bytes(device)
    if free is not None and size > free:
        raise InputError(f"{told} take at least {in_bytes(size)}, and {device} has {in_bytes(free)} left: {way}")


def free_bytes(device: str) -> int | None:
    """The bytes that programs could have on a device now, those of swap included; None: not known, or torch is not there to ask."""
    if named(device) == "cpu":
        return _free_of_host()
    torch = sys.modules.get("torch")
    if torch is None or not device.startswith("cuda") or not torch.cuda.is_available():
        return None
    kept: int = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(torch.cuda.mem_get_info(device)[0]) + kept


def _free_of_host() -> int | None:
    lines = dict(line.partition(":")[::2] for line in _lines(MEMORY))
    found = [int(lines[key].split()[0]) * 1024 for key in ("MemAvailable", "SwapFree") if key in lines]
    return min(sum(found), *_left_of_group()) if found else None


def _left_of_group() -> Iterable[int]:
    """What a container may still take: its limit, without what it has taken, of which files that are read may go."""
    most, taken = (_lines(GROUP / name) for name in ("memory.max", "memory.current"))
    if most and taken and most[0].isdecimal():
        kept = dict(line.split() for line in _lines(GROUP / "memory.stat"))
        return (int(most[0]) - int(taken[0]) + int(kept.get("inactive_file", 0)) + int(kept.get("active_file", 0)),)
    return (sys.maxsize,)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        return []
