"""Cold and warm starts: from the start of a fresh process to its first answer, and the most memory that it took on the way.

Cold is a process that finds nothing of what modelgraft derives from weights (exports, converted files, compiled code, counts): its
cache is an empty place in which downloads alone are there, because fetching them says nothing about a graph. Warm is a second
process on the same place. The files of the system stay in its memory both times.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modelgraft.plugin import cache_root
from modelgraft_plugins.benching.cells import WantedCell
from modelgraft_plugins.benching.hosts import Host, Start, opening_of, variables_for

DOWNLOADS = ("archives", "named")  # of the cache: packages that were fetched, and folders that the user named
STATUS = Path("/proc/self/status")


@dataclass(slots=True)
class Started:
    """Seconds of the starts of a cell, and the most bytes that any of its fresh processes took.

    device  by device;  resident  None where the system does not tell
    """

    cold: list[float] = field(default_factory=list)
    warm: list[float] = field(default_factory=list)
    resident: int | None = None
    device: dict[str, int] = field(default_factory=dict)

    def note(self, found: Mapping[str, Any]) -> None:
        """Take the peaks of a process."""
        if found["resident"] is not None:
            self.resident = max(self.resident or 0, int(found["resident"]))
        for device, size in found["device"].items():
            self.device[device] = max(self.device.get(device, 0), int(size))


def start_both(cell: WantedCell, first: Sequence[int], started: Started, *, records: Path, timeout_s: float, start: Start = Host) -> None:
    """Start a cell cold and then warm, and add what was found.

    first    the numbers of the records of the first answer;  records  the file that they are in

    Raises CellFailed; what was measured before is kept.
    """
    with empty_place() as variables:
        for seconds in (started.cold, started.warm):
            begin = time.perf_counter()
            with start(records, variables=variables_for(cell.threads, variables), timeout_s=timeout_s) as host:
                host.ask("open", **opening_of(cell))
                host.ask("run", cell=cell.id, records=list(first))
                seconds.append(time.perf_counter() - begin)
                started.note(host.ask("peaks"))


@contextmanager
def empty_place() -> Iterator[dict[str, str]]:
    """Give the variables of a process that keeps what it derives in an empty folder, which is deleted when the block ends."""
    with tempfile.TemporaryDirectory(prefix="modelgraft-cold-", ignore_cleanup_errors=True) as folder:
        mine = Path(folder) / "modelgraft"
        mine.mkdir()
        for name in DOWNLOADS:
            if (cache_root() / name).is_dir():
                (mine / name).symlink_to((cache_root() / name).resolve(), target_is_directory=True)
        compiled = {"TORCHINDUCTOR_CACHE_DIR": str(Path(folder) / "inductor"), "TRITON_CACHE_DIR": str(Path(folder) / "triton")}
        yield {"MODELGRAFT_CACHE": str(mine), **compiled}


def peaks() -> dict[str, Any]:
    """The most bytes that this process had in memory so far, and by device as torch counts them."""
    return {"resident": _resident(), "device": _on_devices()}


def _resident() -> int | None:
    if STATUS.is_file():  # what getrusage tells begins with what the parent had when it forked
        line = next((one for one in STATUS.read_text(encoding="ascii", errors="replace").splitlines() if one.startswith("VmHWM:")), "")
        return int(line.split()[1]) * 1024 if line else None
    try:
        import resource
    except ImportError:  # Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _on_devices() -> dict[str, int]:
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return {}
    taken = {f"cuda:{index}": int(torch.cuda.max_memory_reserved(index)) for index in range(torch.cuda.device_count())}
    return {device: size for device, size in taken.items() if size}
