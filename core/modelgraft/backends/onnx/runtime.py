"""ONNX Runtime as this package uses it: found, checked, and started with explicit threads."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from modelgraft.errors import InputError, PluginError

THREADS_VARIABLE = "MODELGRAFT_THREADS"  # the one knob: threads that a session may use; default: the cores this process may use


def runtime() -> Any:
    """Import onnxruntime (`Any`: it has no types), and refuse one that cannot be what was installed.

    Raises PluginError when it is missing, or when two distributions have overwritten each other.
    """
    try:
        import onnxruntime  # type: ignore[import-untyped, unused-ignore]
    except ImportError as error:
        raise PluginError(
            "the onnx backend needs onnxruntime, which is not installed: pip install onnxruntime-gpu (or onnxruntime)"
        ) from error
    both = [name for name in ("onnxruntime", "onnxruntime-gpu") if _installed(name)]
    if len(both) == 2 and "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        raise PluginError(
            "onnxruntime and onnxruntime-gpu are both installed and the first has overwritten the second: "
            "pip uninstall onnxruntime onnxruntime-gpu, then pip install onnxruntime-gpu"
        )
    return onnxruntime


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


def open_session(path: Path, *, device: str, settings: Mapping[str, str] | None = None, optimised: bool = False) -> Any:
    """Start a session on a graph file. `Any`: onnxruntime has no types.

    device      "cpu" or "cuda:N"
    settings    further session config entries
    optimised   the file is already optimised for this machine: load it as it is
    """
    ort = runtime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors; warnings about fallbacks are found by the parity gate and the provider check
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # spinning starves torch's threads beside it
    if optimised:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    for key, value in (settings or {}).items():
        options.add_session_config_entry(key, value)
    return ort.InferenceSession(str(path), options, providers=_providers(device))


def _providers(device: str) -> list[Any]:
    if not device.startswith("cuda"):
        return ["CPUExecutionProvider"]
    index = device.partition(":")[2] or "0"
    return [("CUDAExecutionProvider", {"device_id": index}), "CPUExecutionProvider"]


def tune(source: Path, target: Path) -> None:
    """Write the graph as this machine runs it best, with its weights packed: a session on it starts in a fraction.

    The result depends on the version of onnxruntime and on the processor; load it with `optimised=True`.
    """
    ort = runtime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads()
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.optimized_model_filepath = str(target)
    for key, value in {
        "optimized_model_external_initializers_file_name": f"{target.name}.data",
        "optimized_model_external_initializers_min_size_in_bytes": "1024",
        "save_external_prepacked_constant_initializers": "1",
    }.items():
        options.add_session_config_entry(f"session.{key}", value)
    ort.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])
