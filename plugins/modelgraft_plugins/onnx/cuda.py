"""The CUDA provider of onnxruntime: whether it can work here, and sessions that are proven to be on it.

`get_available_providers` lists what a build contains, also on a machine without a GPU. And a session whose provider cannot
be loaded opens on the CPU with nothing but a line in the log. So this looks for the device, and asks the session.
"""

from __future__ import annotations

import os
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import torch

from modelgraft.plugin import InputError, mappings_change, option
from modelgraft_plugins.onnx.capturing import is_worth_capturing, refuse
from modelgraft_plugins.onnx.quiet import muted
from modelgraft_plugins.onnx.runtime import runtime
from modelgraft_plugins.onnx.streams import stream_of

CUDA = "CUDAExecutionProvider"
ON_CPU_ALONE = b"DynamicQuantizeLinear"  # the CUDA provider of 1.31 has no kernel for it: every product would wait for two copies
OLDEST = (1, 31)  # of onnxruntime: memory places of inputs, DLPack of values, and the release of captured graphs are public there


def auto_device(device: str) -> str:
    """Where sessions run when nobody says it, on a machine on which torch takes `device`; warns when that is another."""
    if device == "cpu":
        return device
    reason = why_not()
    if reason:
        warnings.warn(f"the onnx backend stays on the CPU: {reason}", RuntimeWarning, stacklevel=2)
    return "cpu" if reason else device


def why_not() -> str:
    """Why sessions cannot run on CUDA, and a way out; an empty string when they can, as far as this tells without opening one."""
    ort = runtime()
    version, needed = str(ort.__version__), str(getattr(ort, "cuda_version", "")).partition(".")[0]
    if CUDA not in ort.get_available_providers():
        return f"onnxruntime {version} is built for the CPU alone: pip uninstall onnxruntime, then pip install onnxruntime-gpu"
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is built without CUDA, so no tensor can lie there: install a torch for CUDA {needed}"
    if torch.cuda.device_count() == 0:
        chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
        seen = "" if chosen is None else f" (CUDA_VISIBLE_DEVICES is '{chosen}')"
        return f"torch sees no GPU{seen}: nvidia-smi lists those that the driver knows"
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST:
        return f"onnxruntime-gpu {version} is too old: pip install 'onnxruntime-gpu>={OLDEST[0]}.{OLDEST[1]}'"
    return _why_not_loaded(version, needed)


def _why_not_loaded(version: str, needed: str) -> str:
    missing = missing_libraries()
    if not missing:
        return ""
    brought = torch.version.cuda.partition(".")[0] if torch.version.cuda else ""
    if brought != needed:
        found = (
            f"onnxruntime-gpu {version} needs the libraries of CUDA {needed}, and torch {torch.__version__} brings those of CUDA {brought}"
        )
        return f"{found}: install a torch for CUDA {needed}, or an onnxruntime-gpu for CUDA {brought}"
    return f"libraries of CUDA {needed} cannot be loaded ({'; '.join(missing)}): pip install 'onnxruntime-gpu[cuda,cudnn]'"


@cache
def missing_libraries() -> tuple[str, ...]:
    """Load the libraries of CUDA that the provider is linked with, those that torch has loaded too; gives what could not be.

    onnxruntime prints what it does not find; that is kept from stdout, where results go.
    """
    with muted() as said:
        runtime().preload_dlls()
    failed = (line.removeprefix("Failed to load ").strip() for line in "".join(said).splitlines() if line.startswith("Failed to load "))
    return tuple(line.partition(":")[0] for line in failed)


def open_on_cuda(path: Path, options: Any, device: str) -> Any:
    """Start a session on a CUDA device, able to capture if its graph is that of a decoder. `Any`: onnxruntime has no types.

    Raises InputError when it cannot be there: nothing falls back to the CPU.
    """
    reason = why_not()
    if reason:
        raise InputError(f"the onnx backend cannot run on {device}: {reason}; or choose {option('device', 'cpu')}")
    if ON_CPU_ALONE in path.read_bytes():
        raise InputError(
            f"{path.name} has 8-bit activations, whose operators onnxruntime has for the CPU alone: "
            f"run the node with precision float16, or choose {option('device', 'cpu')}"
        )
    if is_worth_capturing(path):
        try:
            return _open(path, options, device, captures=True)
        except InputError as error:
            refuse(str(error))
    return _open(path, options, device, captures=False)


def _open(path: Path, options: Any, device: str, *, captures: bool) -> Any:
    settings = provider_settings(device, captures=captures)
    try:
        ort, providers = runtime(), [(CUDA, settings), "CPUExecutionProvider"]
        with mappings_change():
            session = ort.InferenceSession(str(path), options, providers=providers, enable_fallback=0)
    except Exception as error:  # the classes that onnxruntime raises have no base of their own
        raise InputError(f"onnxruntime cannot open {path.name} on {device}: {str(error).partition(chr(10))[0]}") from error
    session.disable_fallback()  # a run that fails there would otherwise be repeated on the CPU
    if session.get_providers()[0] != CUDA:
        found = f"onnxruntime opened {path.name} on {session.get_providers()[0]} instead of {device}: its CUDA provider could not be loaded"
        raise InputError(f"{found}; its log above says why. Choose {option('device', 'cpu')}, or repair the installation of CUDA")
    return session


def provider_settings(device: str, *, captures: bool) -> dict[str, str]:
    """Options of the CUDA provider. Their meaning: onnxruntime's page on it, "Configuration options"."""
    return {
        "device_id": device.partition(":")[2] or "0",
        "user_compute_stream": str(stream_of(device).cuda_stream),  # see streams.py
        "enable_cuda_graph": "1" if captures else "0",
        "use_tf32": "0",  # its 10 bits of mantissa would fail the parity of float32
        "arena_extend_strategy": "kSameAsRequested",  # by powers of two it would take what torch, beside it, may need
        "cudnn_conv_algo_search": "HEURISTIC",  # the default tries every algorithm anew for every size, and sizes are dynamic
    }
