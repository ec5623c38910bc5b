"""onnx_ir is there without what it seldom needs, and does with it what it always does."""

from __future__ import annotations

import subprocess
import sys

import pytest

CODE = """
import sys
from modelgraft_plugins.light_ir import ir
assert "sympy" not in sys.modules
shape = ir.Shape(["batch", 3])
assert "sympy" not in sys.modules
assert [str((shape[0] + 1).value), (shape[0] * 2 + 1).evaluate({"batch": 5})] == ["batch + 1", 11]
import sympy
import onnx_ir._symbolic_shapes
assert sympy.__spec__ is not None and sympy.Symbol("a") + sympy.Symbol("a") == 2 * sympy.Symbol("a")
assert ir.SymbolicDim(sympy.Symbol("a") + 1).value == "a + 1"
"""


@pytest.mark.slow
def test_what_is_seldom_used_is_imported_when_it_is_asked_for():
    """In a process of its own, by onnx_ir itself and by others alike."""
    subprocess.run([sys.executable, "-c", CODE], check=True)
