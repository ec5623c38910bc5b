"""Exports that stay as they were made: tuning takes as long again, and most tests are not about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest


def leave_untuned(patch: pytest.MonkeyPatch) -> None:
    """Let nothing be tuned, whatever it is asked with."""
    patch.setattr("modelgraft_plugins.onnx.tuned.tune", lambda *_, **__: "not in this test")
