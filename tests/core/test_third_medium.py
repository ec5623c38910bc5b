"""A medium from elsewhere: the file that records/README.md shows is all that it takes, from the command line to the notebook."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from types import ModuleType

import numpy
import pytest

import modelgraft as mg
from modelgraft import component, hookimpl
from modelgraft.engine.disk import DiskCache
from modelgraft.installed.discovery import assemble, discover
from modelgraft.kernel.language.document import parse
from modelgraft.kernel.language.expand import expand_document
from modelgraft.kernel.words.ports import port
from modelgraft.plugin import RecordType
from modelgraft.records.digests import digest, size_bytes
from modelgraft.records.owning import own
from modelgraft.records.record_type import types_of
from modelgraft.records.values import read_input
from modelgraft.testing import ConformanceError, conform, imports_of
from modelgraft.tools.schema import graph_schema
from support.command import commands

README = Path(mg.__file__).parent / "records" / "README.md"
CALLS: list[int] = []


def lift(cloud: list[object]) -> list[object]:
    """Lift each point by a metre."""
    CALLS.append(len(cloud))
    return [one.mapped(lambda xyz: xyz + numpy.float32([0, 0, 1])) for one in cloud]


def spoilt(cloud: list[object]) -> list[object]:
    """Give what is no cloud."""
    return [one.xyz for one in cloud]


PORTS = {"inputs": {"cloud": "points"}, "outputs": {"lifted": "points"}}
component("far/lift", kind="preprocess", cache=True, **PORTS)(lift)
component("far/spoilt", kind="preprocess", **PORTS)(spoilt)

LIFT = """# Lift clouds.
modelgraft: 1
inputs: {cloud: points}
nodes: {up: {use: far/lift, in: {cloud: inputs.cloud}}}
outputs: {lifted: up}
"""


@pytest.fixture
def far(monkeypatch):
    """The plugin of the README, and a registry with it and components that take its records."""
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    module = ModuleType("far_points")
    monkeypatch.setitem(sys.modules, "far_points", module)
    exec(compile(code, "far_points.py", "exec"), module.__dict__)

    class Parts:
        @hookimpl
        def register_components(self, register):
            register(lift)
            register(spoilt)

    registry = assemble({"far": module, "parts": Parts()})
    assert not registry.quarantined()
    module.registry = registry
    return module


@pytest.fixture
def run(far, monkeypatch, tmp_path, capsys):
    """The command line with it, and two clouds as files."""
    found = commands(monkeypatch, tmp_path, capsys)
    monkeypatch.setattr("modelgraft.installed.discovery.discover", lambda **_: far.registry)
    Path("lift.yaml").write_text(LIFT)
    Path("clouds").mkdir()
    Path("clouds/a.xyz").write_text("0 0 0\n1 2 3\n")
    Path("clouds/b.xyz").write_text("4 5 6\n")
    Path("clouds/notes.txt").write_text("not a cloud")
    return found


def test_it_is_read_from_the_command_line_and_written(run):
    """A file, a folder and a pattern; the output by its ending."""
    assert run("run", "lift.yaml", "--input", "cloud=clouds/a.xyz", "--output", "lifted=up.xyz")[0] == 0
    assert numpy.array_equal(numpy.loadtxt("up.xyz"), [[0, 0, 1], [1, 2, 4]])
    code, out, err = run("run", "lift.yaml", "--input", "cloud=clouds", "--json")
    assert code == 0
    assert json.loads(out)["outputs"]["lifted"] == [{"type": "points", "points": 2}, {"type": "points", "points": 1}]
    assert "1 of 3 files in 'clouds' are left out by their endings: notes.txt" in err
    assert run("run", "lift.yaml", "--input", "cloud=clouds/a.xyz")[1] == "cloud of 2 points; write it with --output NAME=FILE.xyz\n"


def test_it_is_mapped(run):
    """JSON lines with names of files and with numbers, and a table."""
    Path("data.jsonl").write_text('{"cloud": "clouds/a.xyz"}\n{"cloud": [[7, 8, 9]]}\n{"cloud": "clouds/none.xyz"}\n')
    assert run("map", "lift.yaml", "data.jsonl", "--out", "out.jsonl")[0] == 1
    rows = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    assert [row.get("lifted") for row in rows] == [{"type": "points", "points": 2}, {"type": "points", "points": 1}, None]
    assert "there is no file 'clouds/none.xyz'; wanted: points: a .xyz" in rows[2]["error"]
    Path("data.csv").write_text("cloud\nclouds/a.xyz\nclouds/b.xyz\n")
    assert run("map", "lift.yaml", "data.csv", "--out", "table.jsonl")[0] == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("cloud=clouds/notes.txt",), "input 'cloud': 'clouds/notes.txt' is no table of numbers"),
        (("cloud=clouds/c.xyz",), "input 'cloud': there is no file 'clouds/c.xyz'; wanted: points: a .xyz, float[points 3] or Points."),
        (("cloud=[[1, 2]]",), "input 'cloud'[0]: found int64[2], wanted points"),
        (("cloud=[[1, 2",), "input 'cloud': this is no JSON"),
    ],
)
def test_what_is_no_record_of_it_is_refused(run, words, message):
    """In one sentence, with the place."""
    code, _, err = run("run", "lift.yaml", *(word for pair in words for word in ("--input", pair)))
    assert code != 0
    assert message in err


def test_a_file_of_another_ending_is_refused_before_anything_runs(run):
    """As of every medium."""
    code, _, err = run("run", "lift.yaml", "--input", "cloud=clouds/a.xyz", "--output", "lifted=up.png")
    assert code != 0
    assert "output 'up.png': lifted is points and goes into a file that ends in .xyz" in err


def test_it_is_batched_and_checked(far):
    """A list is a batch; a node that gives something else is told."""
    clouds = [far.Points(numpy.ones((count, 3), numpy.float32)) for count in (1, 2)]
    with mg.open(_graph(far, LIFT)) as pipeline:
        assert [len(one.xyz) for one in pipeline.run(cloud=clouds)["lifted"]] == [1, 2]
        assert pipeline.run(cloud=clouds[1])["lifted"].xyz[0].tolist() == [1, 1, 2]
        found = [result["lifted"].xyz.shape for result in pipeline.map([{"cloud": one} for one in clouds])]
        assert found == [(1, 3), (2, 3)]
        assert clouds[0].xyz.tolist() == [[1, 1, 1]]
    with (
        mg.open(_graph(far, LIFT.replace("far/lift", "far/spoilt"))) as pipeline,
        pytest.raises(mg.NodeError, match=r"output 'lifted': record 0 is float32\[1 3\], wanted points"),
    ):
        pipeline.run(cloud=clouds)


def _graph(far, text):
    return expand_document(parse(text, path=Path("lift.yaml")), registry=far.registry)


def test_it_is_copied_digested_measured_and_kept(far, tmp_path):
    """By its fields: another number is another digest; from the disk it comes back as what it was."""
    one, other = (far.Points(numpy.full((2, 3), shade, numpy.float32)) for shade in (1, 2))
    copied = own(one)
    assert copied.xyz is not one.xyz
    assert digest(copied) == digest(one) != digest(other)
    assert digest(one) != digest(own(one.xyz))
    assert size_bytes(one) >= one.xyz.nbytes
    cache = DiskCache(tmp_path, limit_bytes=10_000)
    cache.write("abc", {"x": [one]})
    (found,) = cache.read("abc")["x"]
    assert type(found) is far.Points
    assert numpy.array_equal(found.xyz, one.xyz)


def test_a_second_run_is_spared_what_the_first_did(far):
    """Results that hold its records are kept, and so are those that depend on them."""
    cloud = far.Points(numpy.ones((2, 3), numpy.float32))
    CALLS.clear()
    with mg.open(_graph(far, LIFT)) as pipeline:
        assert pipeline.run(cloud=cloud).cached == frozenset()
        assert pipeline.run(cloud=own(cloud)).cached == {"up"}
        assert pipeline.run(cloud=far.Points(numpy.zeros((2, 3), numpy.float32))).cached == frozenset()
    assert CALLS == [1, 1]


def test_it_is_drawn_listed_and_shown(far, run):
    """In its colour, with its files, and in its words."""
    code, drawn, _ = run("show", "lift.yaml", "--format", "svg")
    assert code == 0
    assert "#0369a1" in drawn
    assert "#7dd3fc" in run("show", "lift.yaml", "--format", "html")[1]
    assert "points" in run("records")[1]
    listed = {one["name"]: one for one in json.loads(run("records", "--json")[1])}
    assert listed["points"] == {
        "name": "points", "about": "a cloud of points, in metres", "reads": [".xyz"], "writes": [".xyz"], "plugin": "far",
    }  # fmt: skip
    assert "a cloud of points, in metres; read from .xyz" in json.dumps(graph_schema(far.registry))
    result = mg.Result({"lifted": far.Points(numpy.ones((2, 3), numpy.float32))})
    assert repr(result) == "<Result lifted=cloud of 2 points>"
    assert "cloud of 2 points" in result._repr_html_()


def test_a_conversation_holds_it(far):
    """As any other medium."""
    talk = [{"role": "user", "content": [{"type": "points", "points": [[1, 2, 3]]}]}]
    (found,) = read_input("c", port("conversation"), talk, types=types_of(far.registry)).value
    assert type(found[0]["content"][0]["points"]) is far.Points


def test_conform_makes_it_up(far, monkeypatch):
    """Given to conform, or from the plugins that are installed."""
    conform(lift, {}, far.PointsType())
    with pytest.raises(ConformanceError, match=r"'lifted' is declared points, but record 0 is float32\[3 3\]"):
        conform(spoilt, {}, far.PointsType())
    with pytest.raises(mg.PluginError, match="no installed plugin offers the record type points; give it to conform, behind the config"):
        conform(lift)
    whole = discover()
    monkeypatch.setattr("modelgraft.testing.conformance.discover", lambda **only: whole if only else far.registry)
    conform(lift)


def test_its_words_are_checked_by_the_check(far):
    """It cannot stand in the graph, and a misspelt type is told."""
    with pytest.raises(mg.GraphError, match=r"the default of the input cloud .* none: a value of type points is given to the run"):
        _graph(far, LIFT.replace("cloud: points", "cloud: {type: points, default: a.xyz}"))
    with pytest.raises(mg.GraphError, match="Did you mean 'points'"):
        _graph(far, LIFT.replace("{cloud: points}", "{cloud: point}"))


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("read", "the record type 'points' has no reader: define read"),
        ("accepts", "the record type 'points' has no check: define accepts"),
        ("example", "the record type 'points' has no example: define example"),
    ],
)
def test_a_type_that_lacks_something_is_an_error_at_registration(far, missing, message):
    """Told with what is missing, and the rest of the plugins goes on."""
    whole = far.PointsType

    class Lacking:
        @hookimpl
        def register_record_types(self, register):
            register(type("Half", (RecordType,), {name: value for name, value in vars(whole).items() if name != missing})())

    assert message in assemble({"half": Lacking()}).quarantined()["half"].error


def test_a_name_alone_is_no_record_type():
    """The older hook says what is missing."""

    class Old:
        @hookimpl
        def register_port_types(self, register):
            register("mesh", "a surface")

    error = assemble({"old": Old()}).quarantined()["old"].error
    assert "register_port_types offers the record type 'mesh' without a reader: offer a modelgraft.plugin.RecordType" in error


def test_the_readme_plugin_is_light(tmp_path, monkeypatch):
    """Nothing heavy is imported with it."""
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "far_away.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    assert imports_of("far_away") == frozenset()
