"""What the processor has that exports depend on, read without torch, numpy or onnxruntime."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path

INFORMATION = Path("/proc/cpuinfo")
TELLING = ("avx", "amx", "fma", "sse4", "asimd", "sve", "bf16", "i8mm")  # beginnings of the instruction sets that kernels are chosen by
X86 = frozenset({"x86_64", "amd64", "i686", "i386", "x86"})
DESIGN = ("vendor_id", "cpu family", "model", "CPU implementer", "CPU part")  # the facts that name one, those of x86 and those of ARM
WIDE_PRODUCTS = frozenset({"avx512_vnni", "avx_vnni"})  # add products of 8 bits in 32 bits


def instruction_sets() -> frozenset[str]:
    """The instruction sets that kernels are chosen by, under Linux's names; empty where the system does not list them."""
    found = _facts()
    return frozenset(flag for flag in (found.get("flags") or found.get("Features", "")).split() if flag.startswith(TELLING))


def design() -> Mapping[str, str]:
    """What names the design of the processor, such as the family and the model of an x86 processor; empty where the system does not say."""
    found = _facts()
    return {name: found[name] for name in DESIGN if name in found}


def machine_key() -> str:
    """A hex digest of the kind of processor: exports are proven, and tuned, for one kind."""
    return _digest([platform.machine(), *sorted(instruction_sets())])


def speed_key() -> str:
    """A hex digest of the design of the processor, under which is kept how fast something is.

    Designs with the same instruction sets differ in that (for one row, Zen 2 reads several streams faster than one, Zen 3 hardly does).
    """
    return _digest([machine_key(), *design().values()])


def products_saturate() -> bool:
    """Whether products of unsigned and signed 8-bit numbers are added up in 16 bits, where two large ones overflow without a word.

    So do the kernels of x86 processors without VNNI (`vpmaddubsw`), and those of one that the system tells nothing of are taken to.
    With weights of 7 bits no pair overflows: 2 * 255 * 64 = 32,640 is below 2**15.
    """
    return platform.machine().lower() in X86 and not instruction_sets() & WIDE_PRODUCTS


def _facts() -> Mapping[str, str]:
    """What the system says of the first processor, by Linux's names."""
    try:
        facts = INFORMATION.stat()
    except OSError:
        return {}
    return _facts_in(INFORMATION, facts.st_size, facts.st_mtime_ns)


@lru_cache(maxsize=8)  # a start asks ten times
def _facts_in(file: Path, _size: int, _changed: int) -> Mapping[str, str]:
    first = file.read_text(encoding="utf-8", errors="replace").partition("\n\n")[0]
    return {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in first.splitlines())}


def _digest(words: Iterable[str]) -> str:
    return hashlib.sha256(" ".join(words).encode()).hexdigest()[:12]
