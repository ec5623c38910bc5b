"""A decoder whose matrices lie in panels gives the numbers that it gave, and what does not fit stays as it was."""

from __future__ import annotations

import errno
import subprocess
from pathlib import Path

import numpy
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from modelgraft_plugins.onnx import panels, tuning
from modelgraft_plugins.onnx.panels import fill, in_panels, pieces, reads_tokens
from modelgraft_plugins.onnx.runtime import open_on_host, options_of
from modelgraft_plugins.onnx.tuning import panel_width, tune, write_forms

WIDE, INNER, WORDS = 192, 320, 171  # multiples of a panel, which is at most 64 wide; the last one is none
BATCH, TOKENS = 2, 3


@pytest.fixture(scope="module")
def width():
    found = panel_width()
    if not found:
        pytest.skip("onnxruntime has no kernels here that go through several panels")
    return found


def fed(path, *, axes=("batch", "tokens"), rows=WIDE, read=(), gates=INNER):
    """Write a gated layer of feed-forward, added to what it reads, and a head; gives its matrices.

    read: what is between and an output as well;  gates: columns of the gate, one for each of those that it opens, or one for all
    """
    draw = numpy.random.default_rng(0)
    sizes = {"gate": (rows, gates), "up": (rows, INNER), "down": (INNER, rows), "head": (rows, WORDS)}
    held = {name: draw.standard_normal(size, numpy.float32) / numpy.float32(size[0] ** 0.5) for name, size in sizes.items()}
    nodes = [
        helper.make_node("MatMul", ["x", "gate"], ["gated"]),
        helper.make_node("MatMul", ["x", "up"], ["upped"]),
        helper.make_node("QuickGelu", ["gated"], ["opened"], domain="com.microsoft", alpha=1.0),
        helper.make_node("Mul", ["opened", "upped"], ["inner"]),
        helper.make_node("MatMul", ["inner", "down"], ["added"]),
        helper.make_node("Add", ["x", "added"], ["sum"]),
        helper.make_node("MatMul", ["sum", "head"], ["y"]),
    ]
    ports = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [*axes, rows])]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("y", *read)]
    graph = helper.make_graph(nodes, "fed", ports, outputs, [numpy_helper.from_array(array, name) for name, array in held.items()])
    opsets = [helper.make_opsetid("", 23), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    return held


def by_numpy(x, held):
    """The head's numbers and those between, in float64, by their names."""
    x = x.astype(float)
    gated = x @ held["gate"]
    gate = gated / (1 + numpy.exp(-gated))
    inner = gate * (x @ held["up"])
    return {"y": (x + inner @ held["down"]) @ held["head"], "inner": inner, "opened": gate}


def opened(source, width):
    """The session on a graph in panels, and how often each operator stands in it."""
    target = write_forms(source, source.parent, width)["panels"]
    found = [node.op_type for node in onnx.load(target, load_external_data=False).graph.node]
    return open_on_host(target, options_of(optimised=True)), {name: found.count(name) for name in found}


@pytest.mark.parametrize(
    ("read", "gates", "entered"),
    [
        pytest.param((), INNER, 2, id=""),
        pytest.param(["inner"], INNER, 3, id="what is between is read as well"),
        pytest.param(["opened"], INNER, 3, id="the first of what is between is read as well"),
        pytest.param((), 1, 3, id="a gate for all columns"),
    ],
)
def test_products_by_panels_are_those_of_the_matrices(read, gates, entered, tmp_path, width):
    """Of one row and of several, of a head whose columns fill no whole panel; between matrices nothing leaves the form for the next."""
    held = fed(tmp_path / "model.onnx", read=read, gates=gates)
    session, operators = opened(tmp_path / "model.onnx", width)
    assert operators["Conv"] == 4
    assert "MatMul" not in operators
    assert operators["ReorderInput"] == entered
    for batch, tokens in ((BATCH, TOKENS), (1, 1), (1, 7), (5, 1)):
        x = numpy.random.default_rng(1).standard_normal((batch, tokens, WIDE), numpy.float32)
        for name, found in zip(["y", *read], session.run(None, {"x": x}), strict=True):
            wanted = by_numpy(x, held)[name]
            assert found.shape == wanted.shape
            assert numpy.abs(found - wanted).max() <= 1e-5 * numpy.abs(wanted).max()


def test_what_fills_no_whole_panels_stays_a_product(tmp_path, width, monkeypatch):
    """A matrix whose rows are no multiple of a panel: the others are laid all the same, if they are most of all."""
    held = fed(tmp_path / "model.onnx", rows=WIDE + 1)
    assert in_panels(tmp_path / "model.onnx", width) is None
    monkeypatch.setattr(panels, "MOST_LEFT", 1)
    session, operators = opened(tmp_path / "model.onnx", width)
    assert (operators["Conv"], operators["MatMul"]) == (1, 3)
    x = numpy.random.default_rng(1).standard_normal((BATCH, TOKENS, WIDE + 1), numpy.float32)
    wanted = by_numpy(x, held)["y"]
    assert numpy.abs(session.run(None, {"x": x})[0] - wanted).max() <= 1e-5 * numpy.abs(wanted).max()


@pytest.mark.parametrize("turned", [0, 1])
@pytest.mark.parametrize("has_bias", [False, True])
def test_products_of_plain_rows_are_laid_as_well(turned, has_bias, tmp_path, width):
    """As a decoder has them that is traced: tokens as one axis, two matrices with biases, and what bends between."""
    draw = numpy.random.default_rng(0)
    held = {"up": draw.standard_normal((WIDE, INNER), numpy.float32), "down": draw.standard_normal((INNER, WIDE), numpy.float32)}
    biases = {f"{name}.bias": draw.standard_normal(matrix.shape[1], numpy.float32) for name, matrix in held.items()}
    nodes = [
        helper.make_node("Reshape", ["x", "flat"], ["rows"]),
        helper.make_node("Gemm", ["rows", "up", *(["up.bias"] if has_bias else [])], ["upped"], transB=turned),
        helper.make_node("Relu", ["upped"], ["bent"]),
        helper.make_node("Gemm", ["bent", "down", *(["down.bias"] if has_bias else [])], ["y"], transB=turned),
    ]
    constants = {name: numpy.ascontiguousarray(matrix.T) if turned else matrix for name, matrix in held.items()}
    constants |= {"flat": numpy.array([-1, WIDE])} | (biases if has_bias else {})
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", "tokens", WIDE])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", WIDE])]
    between = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", size]) for name, size in (("rows", WIDE), ("bent", INNER))]
    given = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "rows", inputs, outputs, given, value_info=between)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10), tmp_path / "model.onnx")
    session, operators = opened(tmp_path / "model.onnx", width)
    assert (operators["Conv"], operators["ReorderInput"], "Gemm" in operators) == (2, 1, False)
    x = numpy.random.default_rng(1).standard_normal((BATCH, TOKENS, WIDE), numpy.float32)
    inner = x.reshape(-1, WIDE).astype(float) @ held["up"] + has_bias * biases["up.bias"]
    wanted = numpy.maximum(inner, 0) @ held["down"] + has_bias * biases["down.bias"]
    assert numpy.abs(session.run(None, {"x": x})[0] - wanted).max() <= 1e-5 * numpy.abs(wanted).max()


@pytest.mark.parametrize("axes", [("batch", 17), ("rows", "tokens"), ("batch", "patches")], ids=str)
def test_what_reads_no_tokens_stays(axes, tmp_path):
    """An encoder has many rows, which packed matrices are made for."""
    fed(tmp_path / "model.onnx", axes=axes)
    assert in_panels(tmp_path / "model.onnx", 8) is None
    assert not reads_tokens(tmp_path / "model.onnx")
    fed(tmp_path / "decoder.onnx")
    assert reads_tokens(tmp_path / "decoder.onnx")


@pytest.mark.parametrize(("rows", "columns", "width"), [(3, 8, 4), (5, 7, 4), (2, 3, 8), (700, 3000, 16)])
def test_a_panel_holds_some_columns_row_by_row(rows, columns, width):
    """And zeros behind the last, whatever is brought to panels at once."""
    matrix = numpy.random.default_rng(0).standard_normal((rows, columns), numpy.float32)
    found = numpy.concatenate(list(pieces(matrix, width)))
    assert found.shape == (-(-columns // width), rows, width)
    wider = numpy.hstack([matrix, numpy.zeros((rows, width), numpy.float32)])
    for panel in range(len(found)):
        assert (found[panel] == wider[:, panel * width : (panel + 1) * width]).all()


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="there is no device that is full")
def test_a_full_disk_is_told_by_the_systems_word(tmp_path, width):
    """Numpy, which could write panels as well, says how many numbers it has written."""
    fed(tmp_path / "model.onnx")
    graph, matrices = in_panels(tmp_path / "model.onnx", width)
    (tmp_path / "full.onnx").write_bytes(graph)
    (tmp_path / "full.onnx.panels").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left") as told:
        fill(tmp_path / "full.onnx", matrices, width)
    assert told.value.errno == errno.ENOSPC


def test_the_width_of_a_panel_is_that_of_this_processor(width):
    """8 numbers with AVX, 16 with AVX-512 and on ARM: one row of a panel is one or two registers."""
    assert width in {8, 16, 32}


@pytest.mark.slow
def test_a_tuned_decoder_has_its_matrices_in_panels(tmp_path, monkeypatch, width):
    """It is compared with the plain one by new interpreters, for one token as well; where it were wrong, matrices are packed."""
    monkeypatch.setattr(tuning, "subprocess", subprocess)
    fed(tmp_path / "model.onnx")
    (tmp_path / "tuned").mkdir()
    target = tmp_path / "tuned" / "model.onnx"
    assert tune(tmp_path / "model.onnx", target, width=width) == ""
    assert {file.name for file in target.parent.iterdir()} >= {"model.onnx", "model.onnx.panels"}
    for file in target.parent.iterdir():
        file.unlink()
    monkeypatch.setattr(tuning, "fill", falsely)
    assert tune(tmp_path / "model.onnx", target, width=width) == ""
    assert not list(target.parent.glob("*.panels"))
    (found,) = open_on_host(target, options_of(optimised=True)).run(None, {"x": numpy.ones((1, 1, WIDE), numpy.float32)})
    (wanted,) = open_on_host(tmp_path / "model.onnx", options_of()).run(None, {"x": numpy.ones((1, 1, WIDE), numpy.float32)})
    assert numpy.abs(found - wanted).max() <= 1e-5


def falsely(path, matrices, width):
    """Panels of other numbers."""
    panels.fill(path, matrices, width)
    beside = path.with_name(f"{path.name}.panels")
    beside.write_bytes(bytes(beside.stat().st_size))
