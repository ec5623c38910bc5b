"""Exports are proven on the kind of processor that runs them, and 8-bit products are right on each."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy
import onnx
import pytest
from onnx import numpy_helper

import support
from modelgraft.plugin import Parity
from modelgraft_plugins import processor
from modelgraft_plugins.onnx import proofs, store
from modelgraft_plugins.onnx.precision import bring
from support.processors import PLAIN, VNNI, tell

KEY = "ab" * 16
NEAR, FAR = Parity(1e-6, 1e-6, 1e-4, ("2x7",)), Parity(1.0, 0.5, 1e-4, ("2x7",))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of its own for each test."""
    monkeypatch.setenv("MODELGRAFT_CACHE", str(tmp_path / "cache"))


class Work:
    """What building and proving do, counted."""

    def __init__(self, parity=NEAR):
        self.parity, self.built, self.proven = parity, 0, 0

    def build(self, folder):
        self.built += 1
        (folder / "model.onnx").write_bytes(bytes(100))
        return {"node": "eye", "parity": {"relative": 0.125, "made": self.built}}

    def prove(self, entry):
        self.proven += 1
        return self.parity

    def open(self):
        return proofs.proven(KEY, build=self.build, prove=self.prove)


def test_an_export_is_proven_once_on_each_kind_of_processor(tmp_path, monkeypatch):
    """Where it was made that is its making; elsewhere torch is asked again, once, and that is said."""
    work = Work()
    tell(monkeypatch, tmp_path, VNNI)
    assert work.open()[1] == work.open()[1] == ()
    assert (work.built, work.proven) == (1, 0)
    tell(monkeypatch, tmp_path, PLAIN)
    assert store.manifest_of(KEY) == {}, "a plan tells no figure that was not found here"
    entry, said = work.open()
    assert said == (
        f"the cached export {KEY} was made on another kind of processor: it was compared with torch again "
        "(max difference 1.0e-06, relative 1.0e-06 (tolerance 0.0001))",
    )
    assert entry.manifest["parity"]["relative"] == store.manifest_of(KEY)["parity"]["relative"] == 1e-6
    assert work.open()[1] == ()
    assert (work.built, work.proven) == (1, 1)
    tell(monkeypatch, tmp_path, VNNI)
    assert (work.open()[0].manifest["parity"]["relative"], work.proven) == (0.125, 1)


def test_an_export_that_differs_here_is_made_again(tmp_path, monkeypatch):
    """And is the one of this kind of processor from then on."""
    tell(monkeypatch, tmp_path, VNNI)
    Work().open()
    tell(monkeypatch, tmp_path, PLAIN)
    work = Work(FAR)
    entry, said = work.open()
    assert said[0].endswith(
        "and differs from torch on this one (max difference 1.0e+00, relative 5.0e-01 (tolerance 0.0001)): it is made again"
    )
    assert (work.built, work.proven, entry.manifest["processor"]) == (1, 1, processor.machine_key())
    assert work.open()[1] == ()


@pytest.mark.parametrize("text", ["", "[]", '{"parity": 3}', '{"par'])
def test_a_proof_that_cannot_be_read_is_no_proof(text, tmp_path, monkeypatch):
    """It is found again."""
    work = Work()
    tell(monkeypatch, tmp_path, VNNI)
    folder = work.open()[0].folder
    tell(monkeypatch, tmp_path, PLAIN)
    (folder / f"proof-{processor.machine_key()}.json").write_text(text, encoding="utf-8")
    work.open()
    assert work.proven == 1


def test_a_proof_that_cannot_be_kept_is_said(tmp_path, monkeypatch):
    """As in an image that can only be read: every start compares."""

    def refused(*args):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    work = Work()
    tell(monkeypatch, tmp_path, VNNI)
    work.open()
    tell(monkeypatch, tmp_path, PLAIN)
    monkeypatch.setattr(store, "write_proof", refused)
    assert work.open()[1][-1] == "that cannot be kept (Read-only file system): every start compares again"


@pytest.mark.parametrize(("text", "most"), [(PLAIN, 64), (VNNI, 127)])
def test_dynamic_weights_are_as_wide_as_products_bear(text, most, tmp_path, monkeypatch):
    """Two products of 255 and 64 fit into 16 bits, two of 255 and 127 do not."""
    tell(monkeypatch, tmp_path, text)
    graph = tmp_path / "model.onnx"
    values = numpy.random.default_rng(0).standard_normal((24, 10)).astype("float32")
    onnx.save(product_graph(values), graph)
    reduced = bring([graph], "int8", lambda: NEAR)
    assert reduced.weights == f"{7 if most == 64 else 8} bits dynamic"
    weights = [numpy_helper.to_array(entry) for entry in onnx.load(graph).graph.initializer if entry.data_type == onnx.TensorProto.INT8]
    assert max(int(numpy.abs(weight.astype(int)).max()) for weight in weights if weight.ndim == 2) == most


def product_graph(matrix):
    """y = x @ matrix."""
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    rows, columns = matrix.shape
    ports = [helper.make_tensor_value_info(name, kind, ["batch", size]) for name, size in (("x", rows), ("y", columns))]
    node = helper.make_node("MatMul", ["x", "matrix"], ["y"], "product")
    graph = helper.make_graph([node], "product", ports[:1], ports[1:], [numpy_helper.from_array(matrix, "matrix")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)


# On a processor whose VNNI is hidden: an int8 product of large numbers, beside float32's.
CHILD = """
import sys
from pathlib import Path
import numpy
from modelgraft_plugins import processor
from modelgraft.plugin import Parity
from modelgraft_plugins.onnx.precision import bring
from modelgraft_plugins.onnx.sessions import open_session
folder = Path(sys.argv[1])
processor.INFORMATION = folder / "cpuinfo"
x = numpy.load(folder / "x.npy")
plain = open_session(folder / "model.onnx", device="cpu").run(None, {"x": x})[0]
bring([folder / "model.onnx"], "int8", lambda: Parity(0.0, 0.0, 1.0, ()))
mine = open_session(folder / "model.onnx", device="cpu").run(None, {"x": x})[0]
print(float(numpy.abs(mine - plain).max() / numpy.abs(plain).max()))
"""


@pytest.mark.slow
@pytest.mark.parametrize(("text", "right"), [(PLAIN, True), (VNNI, False)], ids=["7 bits", "8 bits overflow"])
def test_products_are_right_where_the_processor_has_no_vnni(text, right, tmp_path):
    """With 7 bits within 2 % of the largest value; the 8 bits of another processor are wrong there, so that this can fail."""
    hidden = without_vnni(tmp_path)
    (tmp_path / "cpuinfo").write_text(text, encoding="utf-8")
    generator = numpy.random.default_rng(0)
    onnx.save(product_graph(generator.uniform(0.5, 1.0, (64, 8)).astype("float32")), tmp_path / "model.onnx")
    numpy.save(tmp_path / "x.npy", generator.uniform(0.5, 1.0, (3, 64)).astype("float32"))
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "LD_PRELOAD": str(hidden)},
    )
    assert (float(done.stdout) <= 0.02) == right, done.stdout


def without_vnni(folder):
    """A library that, loaded before a program, hides AVX-512 and VNNI from it. Skips where that cannot be done."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if not sys.platform.startswith("linux") or compiler is None:
        pytest.skip("needs Linux and a C compiler, to hide instruction sets from a process")
    library, source = folder / "without_vnni.so", Path(next(iter(support.__path__))) / "without_vnni.c"
    made = subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(source)], check=False, capture_output=True)
    if made.returncode:
        pytest.skip("the C compiler cannot build the library that hides instruction sets")
    tried = subprocess.run(
        [sys.executable, "-c", "print(1)"], check=False, capture_output=True, env={**os.environ, "LD_PRELOAD": str(library)}
    )
    if tried.returncode:
        pytest.skip("this processor or kernel cannot hide instruction sets from a process")
    return library
