"""What this machine can do at most, with one thread: the speed of float32 products, and of reading weights.

    python benchmarks/limits.py [--rounds N]

An encoder is bound by products of many rows, a step of a decoder by how fast the matrices of one row are read. Both are
measured in onnxruntime on the shapes of `onnx.py`'s models (768 wide, twelve layers of LLaMA), beside a plain read of as many bytes.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

if __package__ in {None, ""}:  # run as a file: its folder, whose onnx.py would stand before the package onnx, goes
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks.measuring import Spread, interleave, surroundings

WIDE, INNER, KEYS, LAYERS, WORDS = 768, 2048, 256, 12, 32_000
LAYER = ((WIDE, WIDE + 2 * KEYS), (WIDE, WIDE), (WIDE, INNER), (WIDE, INNER), (INNER, WIDE))  # of LLaMA, queries, keys and values as one
STEP = (*LAYER * LAYERS, (WIDE, WORDS))
ROWS = 197  # tokens of a picture
IR = 10  # version of the file format: newer ones of the onnx package are not read by every onnxruntime


def products(shapes: Sequence[tuple[int, int]], rows: int, folder: Path) -> Callable[[], Any]:
    """A session that multiplies so many rows by each matrix once."""
    import numpy
    from onnx import TensorProto, helper, numpy_helper, save

    from modelgraft_plugins.onnx.sessions import open_session

    draw = numpy.random.default_rng(0)
    weights = [numpy_helper.from_array(draw.standard_normal(shape, numpy.float32), f"w{index}") for index, shape in enumerate(shapes)]
    widths = sorted({shape[0] for shape in shapes})
    nodes = [helper.make_node("MatMul", [f"x{shape[0]}", f"w{index}"], [f"y{index}"]) for index, shape in enumerate(shapes)]
    inputs = [helper.make_tensor_value_info(f"x{width}", TensorProto.FLOAT, [rows, width]) for width in widths]
    outputs = [helper.make_tensor_value_info(f"y{index}", TensorProto.FLOAT, [rows, shape[1]]) for index, shape in enumerate(shapes)]
    model = helper.make_model(helper.make_graph(nodes, "products", inputs, outputs, weights), opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = IR
    path = folder / f"{rows}-{len(shapes)}.onnx"
    save(model, path)
    session = open_session(path, device="cpu", count=1)
    feed = {f"x{width}": draw.standard_normal((rows, width), numpy.float32) for width in widths}
    return lambda: session.run(None, feed)


def main() -> None:
    """Measure in turn, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=25)
    rounds = parser.parse_args().rounds
    import numpy

    size = 4 * sum(height * width for height, width in STEP)
    held = numpy.ones(size // 4, numpy.int32)
    flops = 2 * ROWS * WIDE * 4 * WIDE
    with tempfile.TemporaryDirectory() as folder:
        calls = {
            "many rows": products([(WIDE, 4 * WIDE)], ROWS, Path(folder)),
            "one row": products(STEP, 1, Path(folder)),
            "plain read": held.max,
        }
        samples = interleave({name: _timed(call) for name, call in calls.items()}, rounds, warm=2)
    spread = {name: Spread.of(1000 * one["cpu"] for one in found) for name, found in samples.items()}
    print(surroundings())
    print(f"{ROWS} x {WIDE} times {WIDE} x {4 * WIDE}: {spread['many rows']} ms, {flops / spread['many rows'].median / 1e6:.0f} GFLOP/s")
    for name in ("one row", "plain read"):
        print(f"{name}, {size / 1e6:.0f} MB: {spread[name]} ms, {size / spread[name].median / 1e6:.1f} GB/s")


def _timed(call: Callable[[], Any]) -> Callable[[], dict[str, float]]:
    def run() -> dict[str, float]:
        start = time.process_time()
        call()
        return {"cpu": time.process_time() - start}

    return run


if __name__ == "__main__":
    main()
