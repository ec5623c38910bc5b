"""The machine that a bench ran on, as far as a figure depends on it, and how busy it was with other things."""

from __future__ import annotations

import os
import platform
import time
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from modelgraft_plugins.benching.results import Surroundings

PROCESSOR, MEMORY, PRESSURE = Path("/proc/cpuinfo"), Path("/proc/meminfo"), Path("/proc/pressure/cpu")
PACKAGES = ("modelgraft", "torch", "onnxruntime", "onnxruntime-gpu", "onnx", "transformers", "numpy", "tokenizers")
TELLING = ("avx", "amx", "fma", "sse4", "asimd", "sve", "bf16", "i8mm", "vnni")  # beginnings of the features that kernels are chosen by
VARIABLES = (
    "OMP_",
    "MKL_",
    "OPENBLAS_",
    "KMP_",
    "GOMP_",
    "TORCH",
    "ORT_",
    "CUDA_",
    "MALLOC_",
    "LD_PRELOAD",
    "PYTHONHASHSEED",
    "MODELGRAFT_",
)
BUSY_PART = 0.5  # of the cores: others that want more of them disturb what is measured
STALLED_PART = 0.2  # of the time in which something waited for a core


def surroundings() -> Surroundings:
    """What this machine is, and its load now."""
    return Surroundings(
        date=f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        versions={"python": platform.python_version(), **{name: found for name in PACKAGES if (found := _version(name))}},
        processor=_processor(),
        features=_features(),
        cores=_cores(),
        memory=_memory(),
        devices=_devices(),
        system=platform.platform(),
        variables={name: value for name, value in sorted(os.environ.items()) if name.startswith(VARIABLES)},
        load_before=load(),
    )


def _stalled_us() -> int | None:
    """Microseconds since the start of the system in which something waited for a core."""
    line = next((line for line in _lines(PRESSURE) if line.startswith("some")), "")
    return int(line.rpartition("total=")[2]) if "total=" in line else None


@dataclass(slots=True)
class Watch:
    """Watches how busy the machine is while rounds go on: `look` after each, `told` at the end."""

    before: Surroundings
    loads: list[float] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)
    stalled: int | None = field(default_factory=_stalled_us)

    def look(self) -> None:
        """Note the load now."""
        found = load()
        if found is not None:
            self.loads.append(found)

    def told(self) -> Surroundings:
        """The surroundings with the mean load of the rounds, and the part of their time in which something waited for a core."""
        now, seconds = _stalled_us(), time.monotonic() - self.began
        pressure = None if now is None or self.stalled is None or seconds <= 0 else min(1.0, (now - self.stalled) / 1e6 / seconds)
        return replace(self.before, load_during=sum(self.loads) / len(self.loads) if self.loads else None, pressure=pressure)


def busy(found: Surroundings) -> str:
    """Why figures of this bench are not to be trusted to a few per cent, in words; "" where the machine was at rest."""
    if found.load_before is not None and found.load_before > BUSY_PART * found.cores:
        return f"the machine was busy before: a load of {found.load_before:.1f} on {found.cores} cores"
    if found.pressure is not None and found.pressure > STALLED_PART:
        return f"the machine was busy: something waited for a core in {found.pressure:.0%} of the time"
    return ""


def load() -> float | None:
    """How many processes want a core, over the last minute; None where the system does not tell."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _processor() -> str:
    named = [line.partition(":")[2].strip() for line in _lines(PROCESSOR) if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


def _features() -> list[str]:
    line = next((line for line in _lines(PROCESSOR) if line.startswith(("flags", "Features"))), "")
    return sorted(flag for flag in set(line.partition(":")[2].split()) if flag.startswith(TELLING) or flag.endswith("vnni"))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _memory() -> int:
    return next((int(line.split()[1]) * 1024 for line in _lines(MEMORY) if line.startswith("MemTotal:")), 0)


def free_memory() -> int:
    """The bytes that programs could have now; half of 16 GiB where the system does not tell."""
    return next((int(line.split()[1]) * 1024 for line in _lines(MEMORY) if line.startswith("MemAvailable:")), 8 << 30)


def _devices() -> list[str]:
    """The NVIDIA devices, as their driver lists them: torch is not imported to find out."""
    folders = sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))
    return [line.partition(":")[2].strip() for path in folders for line in _lines(path) if line.startswith("Model:")]


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
