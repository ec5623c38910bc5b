"""Outputs whose numbers lie in arrays are tensors to who reads them, and to nobody else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy
import pytest
import torch

from modelgraft.engine.outputs import Lying, Yielded, as_they_lie, to_be_read

HERE = Path(__file__).parent


def test_an_array_becomes_a_tensor_where_it_is_read():
    """Once, and on its own memory; what else there is stays as it is."""
    array = numpy.arange(3, dtype=numpy.float32)
    outputs = to_be_read({"numbers": Lying(array), "text": "a"})
    assert isinstance(outputs, Yielded)
    assert as_they_lie(outputs)["numbers"] is array
    found = outputs["numbers"]
    assert torch.equal(found, torch.tensor([0.0, 1.0, 2.0]))
    assert outputs["numbers"] is found
    assert found.data_ptr() == array.ctypes.data
    assert as_they_lie(outputs)["numbers"] is found


def test_outputs_without_arrays_are_the_mapping_itself():
    values = {"text": "a"}
    assert to_be_read(values) is values
    assert as_they_lie(values) is values


# A process that may not import torch, a pipeline of code that gives arrays beside texts, and what is done with its outputs.
PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
from support.running import TEXT, function, opened
from pathlib import Path
import numpy
import modelgraft as mg

def measured(x):
    return {"size": numpy.array([len(text) for text in x], numpy.float32), "said": x}

parts = [function("toy/measured", TEXT, {"size": "float[batch]", "said": "text"}, measured, arrays=True)]
nodes = {"a": {"use": "toy/measured", "in": {"x": "inputs.x"}}}
folder = Path(sys.argv[2])
with opened(folder, parts, nodes, outputs={"size": "a.size", "said": "a.said"}) as pipeline:
    DO
print("torch" in sys.modules)
"""
DONE = {
    "a text is read": ("print(pipeline.run(x='abc')['said'])", "abc"),
    "all is told": ("print(pipeline.run(x='abc'))", "<Result said='abc', size=float32[1]"),
    "a notebook shows it": ("print('float32[1] [3.0]' in pipeline.run(x='abc')._repr_html_())", "True"),
    "events are heard": ("print(sorted(event.name for event in pipeline.stream(x='abc') if event.kind == 'output'))", "['said', 'size']"),
    "events are written": (
        "print([event.as_dict()['value'] for event in pipeline.stream(x='abc') if event.facts.get('name') == 'size'])",
        "['float32[1]']",
    ),
    "records are mapped": ("print([one['said'] for one in pipeline.map([{'x': 'abc'}, {'x': 'd'}], batch_size=2)])", "['abc', 'd']"),
}


@pytest.mark.parametrize("name", DONE)
def test_who_asks_for_no_tensor_imports_no_torch(name: str, tmp_path: Path):
    """Whatever else is done with a result."""
    code, said = DONE[name]
    words = [sys.executable, "-c", PROGRAM.replace("DO", code), str(HERE.parent), str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=120)
    first, last = done.stdout.splitlines()
    assert first.startswith(said)
    assert last == "False"
