"""What the processor has that exports depend on, read without torch, numpy or onnxruntime."""

from __future__ import annotations

import hashlib
import platform
from pathlib import Path

INFORMATION = Path("/proc/cpuinfo")
TELLING = ("avx", "amx", "fma", "sse4", "asimd", "sve", "bf16", "i8mm")  # beginnings of the instruction sets that kernels are chosen by
X86 = frozenset({"x86_64", "amd64", "i686", "i386", "x86"})
WIDE_PRODUCTS = frozenset({"avx512_vnni", "avx_vnni"})  # add products of 8 bits in 32 bits


def instruction_sets() -> frozenset[str]:
    """The instruction sets that kernels are chosen by, under Linux's names; empty where the system does not list them."""
    if not INFORMATION.is_file():
        return frozenset()
    lines = INFORMATION.read_text(encoding="utf-8", errors="replace").splitlines()
    line = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return frozenset(flag for flag in line.split() if flag.startswith(TELLING))


def machine_key() -> str:
    """A hex digest of the kind of processor: exports are proven, and tuned, for one kind."""
    return hashlib.sha256(f"{platform.machine()} {' '.join(sorted(instruction_sets()))}".encode()).hexdigest()[:12]


def products_saturate() -> bool:
    """Whether products of unsigned and signed 8-bit numbers are added up in 16 bits, where two large ones overflow without a word.

    So do the kernels of x86 processors without VNNI (`vpmaddubsw`), and those of one that the system tells nothing of are taken to.
    With weights of 7 bits no pair overflows: 2 * 255 * 64 = 32,640 is below 2**15.
    """
    return platform.machine().lower() in X86 and not instruction_sets() & WIDE_PRODUCTS
