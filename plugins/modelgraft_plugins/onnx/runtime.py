"""ONNX Runtime as this package uses it: found, checked, and started with explicit threads."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from modelgraft.plugin import InputError, PluginError

# The types of inputs and outputs as onnxruntime names them, and as torch and numpy do.
TYPES: Mapping[str, str] = {
    "tensor(float)": "float32", "tensor(float16)": "float16", "tensor(double)": "float64", "tensor(bool)": "bool",
    "tensor(int64)": "int64", "tensor(int32)": "int32", "tensor(int8)": "int8", "tensor(uint8)": "uint8",
}  # fmt: skip

GPU = "onnxruntime-gpu"  # the distribution that brings the CUDA provider, in the same folder as "onnxruntime"
THREADS_VARIABLE = "MODELGRAFT_THREADS"  # the one knob: threads that a session may use; default: the cores this process may use

# Weights smaller than this stay in the graph: saving packed ones of a few kilobytes makes a file that crashes (1.31).
TUNED_FROM_BYTES = 65_536
UNSAVED = b"MatMulNBits"  # an operator that packs its weights and does not hand them out: a file of "packed" ones gives NaN (1.31)
SLOWER = (
    "SkipLayerNormFusion",
)  # its operator takes six times as long on a CPU as the Add and the LayerNormalization it stands for (1.31)


@cache
def runtime() -> Any:
    """Import onnxruntime (`Any`: it has no types), and refuse one that cannot be what was installed.

    Raises PluginError when it is missing, or when two distributions have overwritten each other.
    """
    try:
        import onnxruntime  # type: ignore[import-untyped, unused-ignore]
    except ImportError as error:
        raise PluginError(_why_missing(str(error))) from error
    if not hasattr(onnxruntime, "InferenceSession"):  # what is left of a folder is imported too, as an empty package
        raise PluginError(_why_missing("its folder is empty"))
    if _installed("onnxruntime") and _installed(GPU) and "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        asked = ". onnxruntime-genai has asked for the first: install it with --no-deps" if _installed("onnxruntime-genai") else ""
        raise PluginError(
            f"onnxruntime and {GPU} are both installed and the first has overwritten the second: "
            f"pip uninstall onnxruntime {GPU}, then pip install {GPU}{asked}"
        )
    return onnxruntime


def _why_missing(said: str) -> str:
    """The two write the same folder, so that removing one takes the files of the other."""
    known = next((name for name in (GPU, "onnxruntime") if _installed(name)), "")
    if known:
        return f"{known} is installed, and cannot be imported ({said}): pip install --force-reinstall --no-deps {known}"
    return f"the onnx backend needs onnxruntime, which is not installed: pip install {GPU} (or onnxruntime)"


def _installed(distribution: str) -> bool:
    try:
        return bool(version(distribution))
    except PackageNotFoundError:
        return False


def threads() -> int:
    """How many threads a session computes with. Raises InputError for a setting that is no positive number."""
    chosen = os.environ.get(THREADS_VARIABLE, "")
    if not chosen:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if not chosen.isdigit() or int(chosen) == 0:
        raise InputError(f"{THREADS_VARIABLE} is '{chosen}', wanted a number of threads such as 2")
    return int(chosen)


def open_session(
    path: Path, *, device: str, settings: Mapping[str, str] | None = None, optimised: bool = False, count: int | None = None
) -> Any:
    """Start a session on a graph file. `Any`: onnxruntime has no types.

    device      "cpu" or "cuda:N"
    settings    further session config entries, such as {"session.disable_cpu_ep_fallback": "1"}: an error for a node that would
                run on the host although the device is a GPU
    optimised   the file is already optimised for this machine: load it as it is
    count       threads to compute with; None: as `threads` says

    Raises InputError for a GPU that cannot be used, see cuda.py.
    """
    ort = runtime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = count or threads()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors; warnings about fallbacks are found by the parity gate and the provider check
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # spinning starves torch's threads beside it
    if optimised:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    for key, value in (settings or {}).items():
        options.add_session_config_entry(key, value)
    if device.startswith("cuda"):
        from modelgraft_plugins.onnx.cuda import open_on_cuda  # brings torch

        return open_on_cuda(path, options, device)
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"], disabled_optimizers=SLOWER)


def tune(source: Path, target: Path) -> str:
    """Write the graph as this machine runs it best, with its weights packed: a session on it starts in a fraction.

    Of a graph with weights in blocks only the graph is kept as optimised; packing those anew takes little of a start.

    The result depends on the version of onnxruntime and on the processor; load it with `optimised=True`. It is tried in a
    process of its own, because a bad file ends the process. Gives an empty string, or why it must not be used.
    """
    ort = runtime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads()
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.optimized_model_filepath = str(target)
    for key, value in {
        "optimized_model_external_initializers_file_name": f"{target.name}.data",
        "optimized_model_external_initializers_min_size_in_bytes": str(TUNED_FROM_BYTES),
        "save_external_prepacked_constant_initializers": "0" if UNSAVED in source.read_bytes() else "1",
    }.items():
        options.add_session_config_entry(f"session.{key}", value)
    try:
        ort.InferenceSession(str(source), options, providers=["CPUExecutionProvider"], disabled_optimizers=SLOWER)
    except Exception as error:  # noqa: BLE001 onnxruntime has no class of its own for a file that it cannot write
        return f"it could not be written: {str(error).partition(chr(10))[0]}"
    code = (
        "import sys; from pathlib import Path; from modelgraft_plugins.onnx.runtime import differ; print(differ(*map(Path, sys.argv[1:])))"
    )
    child = [sys.executable, "-c", code, str(source), str(target)]
    tried = subprocess.run(child, capture_output=True, text=True, check=False)  # noqa: S603 our own interpreter and code
    if tried.returncode:
        return f"running it ended with {tried.returncode}"
    return tried.stdout.strip()


def differ(plain: Path, tuned: Path) -> str:
    """Run two files of one graph on the same made-up inputs; gives what is wrong with the second, or an empty string.

    Inputs that the graph itself refuses prove nothing: then the second must not be used either.
    """
    import numpy

    one, other = open_session(plain, device="cpu"), open_session(tuned, device="cpu", optimised=True)
    feed = _made_up(one)
    try:
        expected = one.run(None, feed)
    except Exception:  # noqa: BLE001 whatever onnxruntime says about inputs that are made up
        return "no inputs are known that it could be tried with"
    for mine, theirs in zip(other.run(None, feed), expected, strict=True):
        scale = float(numpy.abs(theirs.astype(numpy.float64)).max(initial=1.0))
        if mine.shape != theirs.shape or not numpy.allclose(mine, theirs, atol=1e-3 * scale, rtol=1e-3, equal_nan=True):
            return "it gives other numbers"
    return ""


def _made_up(session: Any) -> dict[str, Any]:
    """Two records of eight steps; the names of a decoder graph get values that make sense together."""
    import numpy

    batch, steps, room = 2, 8, 16
    grows = {"inputs_embeds", "past.key.0"} <= {entry.name for entry in session.get_inputs()}
    fixed = {
        "total": numpy.full(1, steps),
        "seqlens_k": numpy.full(batch, steps - 1),
        "last": numpy.full(batch, steps - 1),
        "position_ids": numpy.arange(steps)[None].repeat(batch, 0),
        **({"attention_mask": numpy.ones((batch, room + steps))} if grows else {}),
    }
    feed = {}
    for entry in session.get_inputs():
        kind = TYPES[entry.type]
        cache = entry.name.startswith("past.")
        shape = [
            size if isinstance(size, int) else batch if axis == 0 else room if cache else steps for axis, size in enumerate(entry.shape)
        ]
        value = fixed.get(entry.name)
        if value is None:
            value = numpy.random.default_rng(0).standard_normal(shape) if kind.startswith("float") else numpy.ones(shape)
        feed[entry.name] = numpy.zeros(shape, kind) if cache else value.astype(kind)
    return feed
