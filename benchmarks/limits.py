"""What this machine can do at most, with one thread: the speed of products in float32 and in 8 bits, and of reading weights.

    python -m benchmarks.limits [--rounds N] [--json]

An encoder is bound by products of many rows, a step of a decoder by how fast the matrices of one row are read. Both are
measured in onnxruntime and torch on several shapes, 768 wide as the models of `onnx.py` and narrow enough for a cache, beside plain reads
of as many bytes: by one stream, and by two side by side, which is more on some processors. `goals.py` takes the fastest of each kind.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.measuring import Spread, interleave, surroundings

WIDE, INNER, KEYS, LAYERS, WORDS = 768, 2048, 256, 12, 32_000
LAYER = ((WIDE, WIDE + 2 * KEYS), (WIDE, WIDE), (WIDE, INNER), (WIDE, INNER), (INNER, WIDE))  # of LLaMA, queries, keys and values as one
STEP = (*LAYER * LAYERS, (WIDE, WORDS))
SHAPES = ((197, WIDE, 4 * WIDE), (197, 4 * WIDE, WIDE), (384, WIDE, 4 * WIDE), (96, 256, 1024))  # rows, in, out
AS_THEY_LIE = {"session.disable_prepacking": "1"}  # matrices are not packed
IR = 10  # version of the file format: newer ones of the onnx package are not read by every onnxruntime
Call = Callable[[], Any]


def products(shapes: Sequence[tuple[int, int]], rows: int, *, kind: str = "float32") -> Call:
    """A session that multiplies so many rows by each matrix once.

    kind  "float32"; "as they lie", of float32 that is not packed; "int8" or "uint8", of weights that whole numbers without sign meet
    """
    import numpy
    from onnx import TensorProto, helper, numpy_helper

    from modelgraft_plugins.onnx.runtime import open_on_host, options_of

    draw, is_whole = numpy.random.default_rng(0), kind in {"int8", "uint8"}
    given, made = (TensorProto.UINT8, TensorProto.INT32) if is_whole else (TensorProto.FLOAT, TensorProto.FLOAT)

    def drawn(shape: tuple[int, int], dtype: str) -> Any:
        return draw.integers(0, 60, shape).astype(dtype) if is_whole else draw.standard_normal(shape, numpy.float32)

    weights = [numpy_helper.from_array(drawn(shape, kind), f"w{index}") for index, shape in enumerate(shapes)]
    widths, operator = sorted({shape[0] for shape in shapes}), "MatMulInteger" if is_whole else "MatMul"
    nodes = [helper.make_node(operator, [f"x{shape[0]}", f"w{index}"], [f"y{index}"]) for index, shape in enumerate(shapes)]
    inputs = [helper.make_tensor_value_info(f"x{width}", given, [rows, width]) for width in widths]
    outputs = [helper.make_tensor_value_info(f"y{index}", made, [rows, shape[1]]) for index, shape in enumerate(shapes)]
    graph = helper.make_graph(nodes, "products", inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=IR)
    session = open_on_host(model.SerializeToString(), options_of(count=1, settings=AS_THEY_LIE if kind == "as they lie" else None))
    feed = {f"x{width}": drawn((rows, width), "uint8") for width in widths}
    return lambda: session.run(None, feed)


def in_torch(rows: int, wide: int, columns: int) -> Call:
    """The same in torch, float32."""
    import torch

    x, weight = torch.randn(rows, wide), torch.randn(wide, columns)
    return lambda: torch.mm(x, weight)


def measured(rounds: int) -> dict[str, dict[str, list[float]]]:
    """Samples by kind and by what was done: products (of two numbers, and their sum) or bytes, in thousands of millions a second."""
    import numpy
    import torch

    torch.set_num_threads(1)
    calls, amounts = dict[tuple[str, str], Call](), dict[tuple[str, str], float]()
    for shape in SHAPES:
        rows, wide, columns = shape
        name = f"{rows} x {wide} times {wide} x {columns}"
        several = {
            ("float32", name): products([(wide, columns)], rows),
            ("float32", f"{name}, torch"): in_torch(*shape),
            ("int8", name): products([(wide, columns)], rows, kind="int8"),
            ("int8", f"{name}, weights without sign"): products([(wide, columns)], rows, kind="uint8"),
        }
        calls |= several
        amounts |= dict.fromkeys(several, float(rows * wide * columns))
    size = 4 * sum(height * width for height, width in STEP)
    held = numpy.ones(size // 4, numpy.float32)
    half = len(held) // 2
    reading = {
        ("read", "one row"): products(STEP, 1),
        ("read", "one row, matrices as they lie"): products(STEP, 1, kind="as they lie"),
        ("read", "plain, one stream"): held.max,
        ("read", "plain, two streams"): lambda: numpy.dot(held[:half], held[half : 2 * half]),
    }
    calls |= reading
    amounts |= dict.fromkeys(reading, float(size))
    samples = interleave({"\n".join(key): _timed(call) for key, call in calls.items()}, rounds, warm=2)
    found: dict[str, dict[str, list[float]]] = {}
    for (kind, name), amount in amounts.items():
        found.setdefault(kind, {})[name] = [amount / one["cpu"] / 1e9 for one in samples[f"{kind}\n{name}"]]
    return found


def fastest(found: Mapping[str, Mapping[str, Sequence[float]]]) -> dict[str, float]:
    """The most of each kind that anything reached in any round. What has 8 bits may be multiplied as float32, too."""
    most = {kind: max(map(max, several.values())) for kind, several in found.items()}
    return {**most, "int8": max(most["int8"], most["float32"])}


def main() -> None:
    """Measure in turn, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--json", action="store_true", help="the fastest of each kind, for programs")
    options = parser.parse_args()
    found = measured(options.rounds)
    if options.json:
        print(json.dumps(fastest(found)))
        return
    print(surroundings())
    for kind, several in found.items():
        for name, samples in several.items():
            unit = "GB/s" if kind == "read" else "thousand million products/s"
            print(f"{kind}, {name}: {Spread.of(samples)} {unit}")


def _timed(call: Call) -> Callable[[], dict[str, float]]:
    def run() -> dict[str, float]:
        start = time.process_time()
        call()
        return {"cpu": time.process_time() - start}

    return run


if __name__ == "__main__":
    main()
