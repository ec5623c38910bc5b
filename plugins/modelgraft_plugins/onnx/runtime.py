"""ONNX Runtime as this package uses it: found, checked, and started with explicit threads; on the host without torch."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from modelgraft.plugin import FileCall, InputError, PluginError, mappings_change
from modelgraft_plugins.cores import cores, threads
from modelgraft_plugins.onnx.large_pages import packed

# The types of inputs and outputs as onnxruntime names them, and as torch and numpy do.
TYPES: Mapping[str, str] = {
    "tensor(float)": "float32", "tensor(float16)": "float16", "tensor(double)": "float64", "tensor(bool)": "bool",
    "tensor(int64)": "int64", "tensor(int32)": "int32", "tensor(int8)": "int8", "tensor(uint8)": "uint8",
}  # fmt: skip

GPU = "onnxruntime-gpu"  # the distribution that brings the CUDA provider, in the same folder as "onnxruntime"

# How long a thread looks for work before it sleeps, while a call runs: about as long as the operators of one thread take that stand
# between two products, which is when waking it costs more than the work. Much longer, and it takes the core of whoever could use it:
# at 20 all of the gain is there, and beside other programs on the same cores nothing is lost; without a bound a third is.
SPIN_US = 20

# By itself onnxruntime (1.29 and newer) tells its makers of every session: the name of the graph, sums over its weights, how long it ran.
# What it could not send it keeps in the home folder, in a file that is open for as long as the process lives. It asks when it is imported.
SILENT = ("ORT_DISABLE_TELEMETRY", "1")

VERSION = re.compile(r"^Version:[ \t]*(\S+)[ \t]*$", re.MULTILINE)  # in the head of the metadata of a distribution

SLOWER = (
    "SkipLayerNormFusion",
)  # its operator takes six times as long on a CPU as the Add and the LayerNormalization it stands for (1.31)


@cache
def runtime() -> Any:
    """Import onnxruntime (`Any`: it has no types), and refuse one that cannot be what was installed. It sends no reports: see SILENT.

    Raises PluginError when it is missing, or when two distributions have overwritten each other.
    """
    os.environ.setdefault(*SILENT)
    try:
        # numpy first, and whole: onnxruntime asks for an inner module of it before its package, and an import of torch in another thread
        # for the package first. Each would wait for what the other holds, and Python ends that by handing one of them out half made.
        import numpy  # noqa: F401
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


def installed() -> str:
    """The distribution that is installed, and its version, in words; onnxruntime is not imported for it."""
    return next((f"{name} {version_of(name)}" for name in (GPU, "onnxruntime") if _installed(name)), "onnxruntime is not installed")


def _installed(distribution: str) -> bool:
    return bool(version_of(distribution))


def version_of(distribution: str) -> str:
    """The version of a distribution, looked up once in a process; "" for one that is not installed, which may be later."""
    with suppress(PackageNotFoundError):
        return _version(distribution)
    return ""


@cache
def _version(name: str) -> str:
    """By the line that says it: to read all that is told of a distribution takes as long as finding it."""
    found = distribution(name)
    said = VERSION.search((found.read_text("METADATA") or "").partition("\n\n")[0])
    return said[1] if said is not None else found.version


def waiting(count: int) -> Mapping[str, str]:
    """How so many threads of a session wait for work, as entries of its configuration.

    Where each has a core they look for it for a moment, and only while a call runs: a step of a decoder has hundreds of small
    operators, and between calls the cores are torch's and other sessions'. Where they share cores they sleep at once.
    """
    if count > cores():
        return {"session.intra_op.allow_spinning": "0"}
    return {
        "session.intra_op.allow_spinning": "1",
        "session.intra_op.spin_duration_us": str(SPIN_US),
        "session.force_spinning_stop": "1",
    }


def options_of(
    *, count: int | None = None, settings: Mapping[str, str] | None = None, optimised: bool = False, as_needed: bool = False
) -> Any:
    """The options of a session (`Any`: onnxruntime has no types); what they mean is told by `sessions.open_session`."""
    ort = runtime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = count = count or threads()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors; warnings about fallbacks are found by the parity gate and the provider check
    if optimised:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    if as_needed:  # by itself onnxruntime makes all of it first, and takes room for all at once
        options.execution_order, options.enable_mem_pattern = ort.ExecutionOrder.PRIORITY_BASED, False
    for key, value in {**waiting(count), **(settings or {})}.items():
        options.add_session_config_entry(key, value)
    return options


def open_on_host(source: Path | bytes, options: Any) -> Any:
    """Start a session on the CPU, on a file or what one holds."""
    graph, ort = source if isinstance(source, bytes) else str(source), runtime()
    with mappings_change(), packed(source):  # weights are mapped, packed, and unmapped
        return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"], disabled_optimizers=SLOWER)


def least_seconds(sessions: Mapping[Any, Any], feed: Mapping[str, Any], *, rounds: int) -> dict[Any, float]:
    """The least seconds of each session on one input, by its name, in turn.

    Counted is what the thread computes, not what passes: another program beside it must not decide.
    """
    taken = dict.fromkeys(sessions, float("inf"))
    for _ in range(rounds):
        for name, session in sessions.items():
            start = time.thread_time()
            session.run(None, feed)
            taken[name] = min(taken[name], time.thread_time() - start)
    return taken


def open_file(path: Path, *, threads: int | None = None) -> FileCall:
    """A graph file on the CPU, as what takes arrays by the names of its inputs and gives those of its outputs by theirs.

    Raises PluginError where onnxruntime is missing, InputError for a file that it does not read.
    """
    options = options_of(count=threads)
    try:
        session = open_on_host(path, options)
    except Exception as error:  # what onnxruntime raises has no base of its own
        first = str(error).strip().partition("\n")[0]
        raise InputError(f"{path} is no graph that {installed()} reads: {first}") from error
    names = [output.name for output in session.get_outputs()]
    return lambda given: dict(zip(names, session.run(None, dict(given)), strict=True))
