"""The least time that a case of `goals.py` can take on this processor: its bare products, and the weights that each token reads.

    python -m benchmarks.bounds CASE FOLDER

Products are counted as torch counts them (`torch.utils.flop_counter`) while transformers runs; a token's step has one row, and is
counted by the bytes of the matrices that it goes through. Nothing else is in it: no softmax, no norm, no sum, nothing that is brought
to 8 bits. So whatever multiplies at the speed that `limits.py` finds, in any library, takes longer.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path
from typing import Any

from benchmarks import composed, onnx, onnx_sides

BYTES = {"float32": 4, "int8": 1}  # of a weight
OF_MATRICES = ("mm", "addmm", "convolution")  # operators whose right side is a weight; the others multiply what was computed
WITHIN = re.compile(r"(?:^|\.)layers\.\d+\..*weight$")


def least_ms(counted: Mapping[str, Any], fastest: Mapping[str, float], precision: str) -> float:
    """Of what `count` gives, by what `limits.fastest` does: weights have the precision, all else is float32."""
    seconds: float = counted["by_weights"] / fastest[precision] + counted["others"] / fastest["float32"]
    seconds += counted["steps"] * counted["weights"] * BYTES[precision] / fastest["read"]
    return seconds / 1e6


def count(case: str, folder: Path) -> dict[str, Any]:
    """What a case multiplies before its second token, and how many weights each token behind that reads."""
    run, steps = _theirs(case, folder)
    products = multiplied(run)
    by_weights = sum(products.get(name, 0) for name in OF_MATRICES)
    return {
        "by_weights": by_weights,
        "others": sum(products.values()) - by_weights,
        "steps": steps,
        "weights": _weights(folder, "language_model." if case in composed.TEMPLATES else "") if steps else 0,
    }


def multiplied(run: Callable[[], Any]) -> Counter[str]:
    """How many products of two numbers are added up in a call, by the operator of torch."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils.flop_counter import flop_registry

    found = Counter[str]()

    class Counting(TorchDispatchMode):
        """FlopCounterMode counts by modules as well, by hooks that fail within `generate` of BLIP-2 (torch 2.13)."""

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            operator, named = func.overloadpacket, kwargs or {}
            if operator not in flop_registry:
                with self:
                    made = func.decompose(*args, **named)
                if made is not NotImplemented:
                    return made
            made = func(*args, **named)
            if operator in flop_registry:
                found[operator.__name__] += flop_registry[operator](*args, **named, out_val=made) // 2
            return made

    attending = sdpa_kernel(SDPBackend.MATH)  # as products, which are counted
    with torch.no_grad(), attending, Counting():
        run()
    return found


def _theirs(case: str, folder: Path) -> tuple[Any, int]:
    """What transformers does up to the first token, and how many come behind it."""
    if case in onnx_sides.ENCODERS:
        return onnx_sides.their_encoder(case, folder).run, 0
    if case in composed.TEMPLATES:
        return composed.theirs(case, folder, 1), onnx.ANSWER - 1
    return onnx_sides.their_tongue(folder, length=64, batch=1, tokens=1).run, onnx.NEW - 1


def _weights(folder: Path, within: str) -> int:
    """How many numbers the matrices of a decoder have: those of its layers, and its head, which is as large as its table of words."""
    from safetensors import safe_open

    with safe_open(folder / "model.safetensors", framework="pt") as file:
        shapes = {name: file.get_slice(name).get_shape() for name in file.keys() if name.startswith(within)}  # noqa: SIM118 it is no mapping
    layers: int = sum(prod(shape) for name, shape in shapes.items() if WITHIN.search(name) and len(shape) == 2)
    return layers + next(prod(shape) for name, shape in shapes.items() if name.endswith("embed_tokens.weight"))


if __name__ == "__main__":
    print(json.dumps(count(sys.argv[1], Path(sys.argv[2]))))
