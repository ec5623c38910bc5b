"""Run a Python command with the kernels of AVX2 alone, at full speed, on a processor that has AVX-512: for figures where no other one is.

    python -m benchmarks.as_avx2 -m benchmarks.bench --tables goals
    python -m benchmarks.as_avx2 --proof

Programs choose their kernels by two questions: what the processor has (CPUID), and which registers the system keeps for them (XGETBV).
A system that keeps no registers of 512 bits answers 7 to the second, and then nobody uses AVX-512, nor VNNI on them. That is what a
copy of onnxruntime is told here: each `xgetbv` of it becomes `mov $7, %al; nop`, as long. torch, oneDNN and MKL have variables for it.
Modelgraft reads a list of facts without AVX-512, so exports are others. Compared with `tests/support/other_processor.py`, which emulates
all of such a processor, the time that passes is real; the caches, the memory and the units that compute stay those of this processor.

A processor with AVX-VNNI, which needs no such registers, is refused: its kernels would stay.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

ASKS = b"\x0f\x01\xd0"  # xgetbv
ANSWERS = b"\xb0\x07\x90"  # mov $7, %al; nop: x87, SSE and AVX, in as many bytes; no flag and no other register changes
INSIDE = frozenset({0xC1, 0x83})  # two bytes before it: `ror $15` or `and $15` and then an addition, which has the same bytes
LACKING = re.compile(r" (avx512\w*|avx_vnni\w*|amx\w*|vaes|vpclmulqdq|gfni)\b")
NAMED = re.compile(r"^(model name\s*:.*)$", re.MULTILINE)
NAME = r"\1, kernels of AVX2 alone"
LIBRARIES = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}
START = """
import contextlib, pathlib
with contextlib.suppress(ModuleNotFoundError):
    from modelgraft_plugins import processor
    processor.INFORMATION = pathlib.Path(__file__).with_name("cpuinfo")
"""
PROOF = """
import time
import numpy, onnxruntime
from onnx import TensorProto, helper, numpy_helper
from modelgraft_plugins import processor
print("modelgraft takes products of 8 bits to saturate:", processor.products_saturate())
rows, wide, steps = 197, 768, 20
x, w = numpy.full((rows, wide), 255, numpy.uint8), numpy.full((wide, wide), 127, numpy.int8)
ports = [helper.make_tensor_value_info("x", TensorProto.UINT8, [rows, wide]), helper.make_tensor_value_info("y", TensorProto.INT32, None)]
nodes, constants = [helper.make_node("MatMulInteger", ["x", "w"], ["y"])], [numpy_helper.from_array(w, "w")]
graph = helper.make_graph(nodes, "g", ports[:1], ports[1:], constants)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
seconds = []
for _ in range(steps):
    start = time.thread_time()
    (y,) = session.run(None, {"x": x})
    seconds.append(time.thread_time() - start)
print("products of onnxruntime saturate:", bool((y != wide * 255 * 127).all()))
print(f"{2 * rows * wide * wide / min(seconds) / 1e9:.0f} GOP/s in 8 bits")
"""


def places(code: bytes) -> Iterator[int]:
    """Where a program asks for the registers that the system keeps."""
    at = -1
    while (at := code.find(ASKS, at + 1)) >= 0:
        if code[at - 2] not in INSIDE:
            yield at


def told(code: bytes) -> bytes:
    """A program that takes the system to keep no registers of 512 bits. Raises SystemExit where it does not ask."""
    found = bytearray(code)
    for at in (where := list(places(code))):
        found[at : at + len(ASKS)] = ANSWERS
    if not where:
        raise SystemExit("onnxruntime does not ask which registers the system keeps: it cannot be told")
    return bytes(found)


def lay_out(folder: Path) -> None:
    """A folder to stand first where Python looks for modules: a copy of onnxruntime, the facts, and what reads them at every start."""
    spec = find_spec("onnxruntime")
    if spec is None or spec.origin is None:
        raise SystemExit("onnxruntime is not installed: pip install modelgraft[onnx]")
    package, copy = Path(spec.origin).parent, folder / "onnxruntime"
    (copy / "capi").mkdir(parents=True)
    for path in [*package.iterdir(), *(package / "capi").iterdir()]:
        target = copy / path.relative_to(package)
        if path.name.startswith("onnxruntime_pybind11_state"):
            target.write_bytes(told(path.read_bytes()))
        elif path.name not in {"capi", "__pycache__"}:
            target.symlink_to(path)
    (folder / "cpuinfo").write_text(facts_of(Path("/proc/cpuinfo").read_text(encoding="utf-8")), encoding="utf-8")
    (folder / "sitecustomize.py").write_text(START, encoding="utf-8")


def facts_of(told_by_system: str) -> str:
    """The facts of a processor without what is hidden, under a name that says so."""
    return NAMED.sub(NAME, LACKING.sub("", told_by_system))


def surroundings(folder: Path) -> dict[str, str]:
    """The variables of a process that computes with AVX2 alone, and of those that it starts."""
    paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, **LIBRARIES, "PYTHONPATH": os.pathsep.join(paths)}


def refusal() -> str:
    """Why it cannot be done here; an empty string where it can."""
    facts = Path("/proc/cpuinfo")
    flags = set(re.findall(r"\S+", facts.read_text(encoding="utf-8"))) if facts.is_file() else set()
    if "avx2" not in flags:
        return "it needs Linux and a processor with AVX2"
    return "this processor has AVX-VNNI, whose kernels need no registers of 512 bits" if "avx_vnni" in flags else ""


def main(words: list[str]) -> int:
    """Run Python with these words; gives its exit status."""
    if not words or words[0] in {"-h", "--help"}:
        argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).print_help()
        return 0
    if why := refusal():
        raise SystemExit(why)
    with tempfile.TemporaryDirectory(prefix="modelgraft-avx2-") as folder:
        lay_out(Path(folder))
        asked = ["-c", PROOF] if words == ["--proof"] else words
        return subprocess.run([sys.executable, *asked], env=surroundings(Path(folder)), check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
