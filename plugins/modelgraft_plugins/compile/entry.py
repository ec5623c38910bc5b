"""One module that is compiled: at first for the sizes of the gate, later for those that need it, within a bound."""

from __future__ import annotations

import importlib.util
import os
import shutil
import warnings
from collections.abc import Sequence
from types import FunctionType
from typing import Any

import torch
from torch._dynamo.eval_frame import is_dynamo_supported
from torch._dynamo.exc import TorchDynamoException

from modelgraft.plugin import ExportError, NodeRuntime

COMPILERS = ("g++", "clang++")
MOST_FORMS = 8  # of one module: as many as torch itself makes of one function (torch._dynamo.config.recompile_limit)
OFF = "torch.compile is switched off here (TORCHDYNAMO_DISABLE, or torch.compiler.set_stance)"


def why_not(device: str) -> str:
    """What this machine lacks to compile for a device, with what to do about it; nothing when it can."""
    if importlib.util.find_spec("torch._inductor") is None:
        return f"this torch ({torch.__version__}) has no inductor, which writes its code: install a torch that has it"
    if not is_dynamo_supported():
        return f"torch {torch.__version__} cannot compile on this version of Python: use one that it can"
    if device != "cpu":
        return "" if importlib.util.find_spec("triton") is not None else "code for a GPU is written by triton: pip install triton"
    wanted = [os.environ["CXX"]] if os.environ.get("CXX") else list(COMPILERS)
    if not any(shutil.which(name) for name in wanted):
        return f"there is no C++ compiler ({' or '.join(wanted)}): install one (apt-get install g++), or name it by the variable CXX"
    return ""


def have_setuptools() -> None:
    """Import setuptools, which torch asks how code is compiled; where Python's own distutils were imported before, it must leave them."""
    name, before = "SETUPTOOLS_USE_DISTUTILS", os.environ.get("SETUPTOOLS_USE_DISTUTILS")
    try:
        importlib.import_module("setuptools")
    except AssertionError:  # it found other distutils than its own
        os.environ[name] = "stdlib"
        try:
            importlib.import_module("setuptools")
        finally:
            os.environ.pop(name) if before is None else os.environ.update({name: before})
    except ImportError:
        return  # torch says what it lacks


class Compiled:
    """A module as torch.compile makes it, called with its inputs in order.

    Sizes that need other code are compiled when they come, up to MOST_FORMS, and told as a warning of the run. What comes then,
    or cannot be compiled, is computed by the module as it is, and told too.
    """

    def __init__(self, name: str, module: torch.nn.Module, inputs: Sequence[str]) -> None:
        self.name, self.module, self.inputs = name, module, inputs
        self.runtime: NodeRuntime | None = None
        self.forms = 0  # how often it was compiled
        self._run: Any = torch.compile(_own(module), backend=self._write, fullgraph=True)
        self._refused: set[str] = set()

    def _write(self, graph: Any, examples: Any) -> Any:  # Any: torch's own
        from torch._inductor.compile_fx import compile_fx

        have_setuptools()
        self.forms += 1
        return compile_fx(graph, examples)

    def compile(self, values: Sequence[Any]) -> Any:
        """Compile for the sizes of some inputs, and give the outputs. Raises ExportError."""
        before = self.forms
        try:
            with warnings.catch_warnings(), torch.no_grad():
                warnings.simplefilter("ignore")  # what its compiler remarks is for those who work on it
                found = self._run(*values)
        except TorchDynamoException as error:
            raise ExportError(f"torch.compile cannot take it: {reason_of(error)}") from error
        except OSError as error:
            raise ExportError(f"torch.compile cannot write what it makes: {error}") from error
        if self.forms == before == 0:
            raise ExportError(OFF)
        return found

    def __call__(self, *values: Any) -> Any:
        """Run the code for these sizes, compile it, or run the module itself, in this order."""
        before = self.forms
        try:
            found = self._run(*values) if before < MOST_FORMS else self._bounded(*values)
        except RuntimeError as error:  # as what the compiler raises is
            found = self.module(*values)  # which may say better what is wrong with its inputs
            self._tell_refused(values, reason_of(error))
            return found
        if self.forms != before:
            self._tell(f"{self.name} was compiled anew for {self._sizes(values)}: form {self.forms}, of at most {MOST_FORMS}")
        return found

    def _bounded(self, *values: Any) -> Any:
        """Run the code that is there. Raises RuntimeError for sizes that need other code."""
        with torch.compiler.set_stance("fail_on_recompile"):
            return self._run(*values)

    def _tell_refused(self, values: Sequence[Any], reason: str) -> None:
        if reason not in self._refused:
            self._refused.add(reason)
            self._tell(f"{self.name} is not compiled for {self._sizes(values)}, and runs as on torch: {reason}")

    def _tell(self, text: str) -> None:
        if self.runtime is not None:
            self.runtime.emit("warning", text=text)

    def _sizes(self, values: Sequence[Any]) -> str:
        there = [(name, value) for name, value in zip(self.inputs, values, strict=True) if value is not None]
        return ", ".join(f"{name} [{' '.join(map(str, value.shape))}]" for name, value in there)


def _own(module: torch.nn.Module) -> Any:
    """A call of the module whose code is its own: torch counts forms by code, and modules of one class share theirs."""

    def run(*values: Any) -> Any:
        return module(*values)

    code = run.__code__.replace(co_name=f"{type(module).__name__}_{id(module):x}")
    return FunctionType(code, run.__globals__, code.co_name, run.__defaults__, run.__closure__)


def reason_of(error: BaseException) -> str:
    """What torch.compile says, in one line: the innermost reason."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"[:300]
