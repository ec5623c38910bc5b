"""Sessions on graph files, on the host or on a GPU."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelgraft_plugins.onnx.runtime import open_on_host, options_of


def open_session(
    path: Path,
    *,
    device: str,
    settings: Mapping[str, str] | None = None,
    optimised: bool = False,
    count: int | None = None,
    as_needed: bool = False,
) -> Any:
    """Start a session on a graph file. `Any`: onnxruntime has no types.

    device      "cpu" or "cuda:N"
    settings    further session config entries, such as {"session.disable_cpu_ep_fallback": "1"}: an error for a node that would
                run on the host although the device is a GPU
    optimised   the file is already optimised for this machine: load it as it is
    count       threads to compute with; None: as `runtime.threads` says
    as_needed   what a graph makes of its weights is made just before it is used, and let go of

    Raises InputError for a GPU that cannot be used, see cuda.py.
    """
    options = options_of(count=count, settings=settings, optimised=optimised, as_needed=as_needed)
    if not device.startswith("cuda"):
        return open_on_host(path, options)
    from modelgraft_plugins.onnx.cuda import open_on_cuda  # which needs torch

    return open_on_cuda(path, options, device)
