"""Run tests as on a processor with AVX2 and neither AVX-512 nor VNNI, where there is none: emulated by qemu-user.

    apt-get install qemu-user
    python tests/support/other_processor.py tests/plugins/onnx/test_blocks.py tests/plugins/onnx/test_reducing.py

Kernels are chosen by what the emulated processor says it has, so that products of 8 bits saturate as they do there. It takes some 20 times
as long, and tells nothing of speed. The file of facts that the system keeps of its processor is that of this machine, so what modelgraft
reads of it is written anew, and processes that are started by `sys.executable` are emulated too.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

PROCESSOR = "Haswell"
LACKING = re.compile(r" (avx512\w*|avx_vnni\w*|amx\w*|vaes|vpclmulqdq|gfni)\b")
START = """
import sys
from pathlib import Path
from modelgraft_plugins import processor
interpreter, facts, *words = sys.argv[1:]
sys.executable, processor.INFORMATION = interpreter, Path(facts)
assert processor.products_saturate(), processor.instruction_sets()
import pytest
sys.exit(pytest.main(["-n", "0", "-p", "no:cacheprovider", *words]))
"""


def main(words: list[str]) -> int:
    """Run pytest with these words on the emulated processor; gives its exit status."""
    with tempfile.TemporaryDirectory() as folder:
        interpreter, facts = Path(folder, "python"), Path(folder, "cpuinfo")
        emulated = f"exec qemu-x86_64 -cpu {PROCESSOR} {shlex.quote(sys.executable)}"
        quietly = """2> >(grep -v "TCG doesn't support requested feature" >&2)"""
        interpreter.write_text(f'#!/bin/bash\n{emulated} "$@" {quietly}\n', encoding="utf-8")
        interpreter.chmod(0o755)
        facts.write_text(LACKING.sub("", Path("/proc/cpuinfo").read_text(encoding="utf-8")), encoding="utf-8")
        command = [str(interpreter), "-c", START, str(interpreter), str(facts), *words]
        return subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
