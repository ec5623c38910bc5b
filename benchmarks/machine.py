"""The machine that figures are from: its processor, what that can do, versions, and how busy it was."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks.measuring import ROOT, load

PACKAGES = ("modelgraft", "torch", "transformers", "onnxruntime-gpu", "onnxruntime", "diffusers", "numpy")
TELLING = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "amx_bf16", "asimddp", "i8mm")  # of the flags
PRODUCTS = ("avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm")  # those that multiply 8-bit numbers: int8 stands or falls with them


@dataclass(frozen=True, slots=True)
class Machine:
    """What a figure may be compared with.

    features  of the processor, those that matter here;  commit  of this tree, with "+" where files were changed
    """

    date: str
    processor: str
    features: Sequence[str]
    cores: int
    memory_gb: float
    system: str
    versions: Mapping[str, str]
    commit: str
    load_before: float

    @property
    def multiplies_bytes(self) -> bool:
        """Whether the processor has instructions for products of 8-bit numbers."""
        return any(feature in PRODUCTS for feature in self.features)

    @property
    def slug(self) -> str:
        """The processor as a part of a file's name."""
        plain = re.sub(r"\((?:r|tm)\)|\bcpu\b|\bprocessor\b|@[^(]*", " ", self.processor.lower())
        return f"{re.sub(r'[^a-z0-9]+', '-', plain).strip('-')}-{'vnni' if self.multiplies_bytes else 'no-vnni'}"


def this_machine() -> Machine:
    """Look, where modelgraft does: `as_avx2.py` gives both other facts than the system does."""
    from modelgraft_plugins.processor import INFORMATION, design

    lines = _lines(INFORMATION)
    flags = set(next((line.partition(":")[2] for line in lines if line.startswith(("flags", "Features"))), "").split())
    named = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    pages = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0
    return Machine(
        date=f"{datetime.now(UTC):%Y-%m-%d}",
        processor=_name(named or platform.processor() or platform.machine(), design()),
        features=[name for name in TELLING if name in flags],
        cores=os.cpu_count() or 1,
        memory_gb=round(pages / 2**30, 1),
        system=f"{platform.system()} {platform.release()}",
        versions={"python": sys.version.split()[0], **_versions()},
        commit=_commit(),
        load_before=load(),
    )


def _name(named: str, designed: Mapping[str, str]) -> str:
    """The name of a processor with its family and model, where it has them: a virtual machine may name unlike ones the same."""
    family, model = designed.get("cpu family"), designed.get("model")
    return f"{named} (family {family}, model {model})" if family and model else named


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _commit() -> str:
    """Of the tree, or an empty string outside of a repository."""
    try:
        words = ["git", "describe", "--always", "--dirty=+", "--exclude=*"]
        return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
