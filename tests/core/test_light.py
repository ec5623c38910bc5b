"""What only looks at graphs loads nothing heavy: it starts fast and works where torch is broken."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "onnxruntime", "numpy", "PIL", "scipy")
PROGRAM = """
import sys
from modelgraft.cli import main
code = main(sys.argv[1:])
heavy = sorted(set({heavy}) & set(sys.modules))
print(f"exit {{code}}, heavy {{heavy}}", file=sys.stderr)
"""


@pytest.mark.parametrize(
    "words",
    [
        ("--help",),
        ("check", "vit", "clip", "blip2"),
        ("plan", "blip2"),
        ("plan", "clip", "--json"),
        ("show", "blip2", "--format", "html"),
        ("explain", "blip2", "qformer"),
        ("graphs",),
        ("components",),
        ("plugins", "list"),
        ("schema",),
        ("schema", "--events"),
        ("run", "--help"),
        ("bench", "vit", "clip", "--backend", "torch,onnx", "--init", "random", "--check-only"),
        ("bench", "--schema"),
    ],
    ids=" ".join,
)
def test_a_light_command_imports_nothing_heavy(words, tmp_path):
    """In a process of its own, with every installed plugin."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(heavy=HEAVY), *words], capture_output=True, text=True, check=True, cwd=tmp_path, timeout=60
    )
    assert done.stderr.splitlines()[-1] == "exit 0, heavy []"


@pytest.mark.parametrize(("drivers", "options"), [((), ()), (("/",), ("--device", "cpu"))], ids=["no GPU", "the CPU is asked for"])
def test_a_map_over_texts_alone_imports_no_torch(drivers, options, tmp_path):
    """Where there is no GPU to look for, or nobody wants it: what fills templates has no weights and no device."""
    nodes = "{say: {use: text/template, with: {template: 'hello {name}'}, in: {name: inputs.name}}}"
    (tmp_path / "greet.yaml").write_text(f"modelgraft: 1\ninputs: {{name: text}}\nnodes: {nodes}\noutputs: {{text: say}}\n")
    (tmp_path / "names.jsonl").write_text('{"name": "Ada"}\n')
    words = ["map", "greet.yaml", "names.jsonl", "--out", "told.jsonl", *options]
    found = f"import modelgraft.engine.devices as devices; devices.DRIVERS = {drivers}"
    program = f"{found}\n{PROGRAM.format(heavy=('torch', 'transformers', 'numpy'))}"
    done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, check=True, cwd=tmp_path, timeout=120)
    assert (tmp_path / "told.jsonl").read_text() == '{"text": "hello Ada"}\n'
    assert done.stderr.splitlines()[-1] == "exit 0, heavy []"


def test_import_modelgraft_loads_almost_nothing(tmp_path):
    """Not even pydantic: names are resolved on first use."""
    program = f"import sys, modelgraft; print(sorted(set({(*HEAVY, 'pydantic', 'networkx', 'yaml', 'typer')}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.strip() == "[]"
