"""Processors of other kinds: what the system would tell of them."""

from __future__ import annotations

from modelgraft_plugins import processor

PLAIN = "flags\t\t: fpu sse4_1 sse4_2 avx avx2 fma\n"  # x86 without VNNI, such as AMD EPYC 7003
VNNI = "flags\t\t: fpu sse4_1 sse4_2 avx avx2 fma avx512f avx512_vnni\n"


def tell(patch, folder, text):
    """Let the system tell of another processor. The kernels that run are those of the real one."""
    file = folder / "cpuinfo"
    file.write_text(f"processor\t: 0\n{text}", encoding="utf-8")
    patch.setattr(processor, "INFORMATION", file)
    patch.setattr("platform.machine", lambda: "x86_64")
