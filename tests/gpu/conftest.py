"""Tests marked `gpu` are left out where onnxruntime has no GPU to use, and the report says why."""

from __future__ import annotations

import pytest

from support.ordering import gpu_reason


def pytest_collection_modifyitems(items):
    """Ask for the device once, and only when some test needs one."""
    needing = [item for item in items if item.get_closest_marker("gpu")]
    reason = gpu_reason() if needing else ""
    for item in needing if reason else ():
        item.add_marker(pytest.mark.skip(reason=f"no GPU: {reason}"))
