"""The options of opening stand in one place, and everybody who takes them takes them from there."""

from __future__ import annotations

import inspect
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import modelgraft as mg
from modelgraft.cli.options import with_opening
from modelgraft.engine.opening import USUAL_OPENING, Opening, Placing, options_of

ROOT = Path(__file__).parents[2]
AFTER = "    debug: bool = option(\n"  # of the file: a new field goes before it
FIELD = '    haste: int = option(3, "How hasty the run is.", flag="--haste N", on=("run",), read=whole_number)\n'
LOOK = """
import inspect, sys
import modelgraft as mg
from modelgraft.cli.entry import run_command

run_command(["run", "--help"])
print(inspect.signature(mg.open).parameters["haste"], "|", "How hasty" in mg.open.__doc__)
graph = mg.Graph("said")
graph.output("text", graph.node("text/template", name="all", x=graph.input("x", "text"), template="{x}"))
print("the loader has", mg.open(graph, haste=7)._loader.opening.haste, "and usually", mg.open(graph)._loader.opening.haste)
graph.save("said.yaml")
print("exit code", run_command(["run", "said.yaml", "--input", "x=hm", "--haste", "5"]))
"""


def test_an_option_is_added_in_one_file(tmp_path):
    """A field of Opening alone, and the command, its help, `open` and the loader have it."""
    shutil.copytree(ROOT / "core" / "modelgraft", tmp_path / "modelgraft", ignore=shutil.ignore_patterns("__pycache__"))
    file = tmp_path / "modelgraft" / "engine" / "opening.py"
    text = file.read_text(encoding="utf-8")
    assert text.count(AFTER) == 1
    file.write_text(text.replace(AFTER, FIELD + AFTER), encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", LOOK], cwd=tmp_path, env=environment, capture_output=True, text=True, encoding="utf-8", check=False
    )
    said = " ".join(done.stdout.split())
    assert "--haste N How hasty the run is. [default: 3]" in said, done.stderr
    assert "haste: 'int' = 3 | True" in said
    assert "the loader has 7 and usually 3" in said
    assert said.endswith("hm exit code 0"), done.stderr


@pytest.mark.parametrize(("function", "form"), [(mg.open, Opening), (mg.plan, Placing)])
def test_help_and_editors_see_every_option_by_name(function, form):
    """With its default and its sentence."""
    parameters = inspect.signature(function).parameters
    for name, (known, default) in options_of(form).items():
        assert parameters[name].kind is inspect.Parameter.KEYWORD_ONLY
        assert parameters[name].default == default
        assert " ".join(known.help.replace("--", "").split()) in " ".join(function.__doc__.split())
    assert next(iter(parameters)) == "graph"


def test_an_option_that_is_not_there_is_told_with_the_nearest():
    """As of any function, it is a TypeError."""
    with pytest.raises(TypeError, match=r"open\(\) has no option 'bakend'\. Did you mean 'backend'\?"):
        mg.open("blip2", bakend="torch")


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("seed", 2.5, "a whole number, from -2**63 up to 2**63 - 1"),
        ("init", "zeros", "'random', or None"),
        ("fallback", "cpu", "'torch', or None"),
        ("export", "soon", "'now', 'later', 'never', or None"),
        ("timeout_s", 0, "seconds, more than 0, or None"),
        ("threads", 0, "a whole number, at least 1, or None"),
        ("max_memory", "lots", "a size such as 8GB or 500MiB, or one for each device: cpu=2GB,cuda:0=8GB; or None"),
    ],
)
def test_a_value_that_means_nothing_is_refused_wherever_an_opening_is_made(name, value, wanted):
    """With what is wanted instead."""
    with pytest.raises(mg.InputError) as caught:
        Opening(**{name: value})
    assert str(caught.value) == f"{name} is {value!r}; wanted: {wanted}"


def test_a_command_takes_the_options_that_stand_on_it_and_no_others():
    """`plan` draws nothing and loads nothing, so it has no seed."""

    def command(first, opening=USUAL_OPENING, last=None):
        return first, opening, last

    taken = with_opening("plan")(command)
    known = ["backend", "device", "dtype", "precision", "threads", "max_memory", "export"]
    assert list(inspect.signature(taken).parameters) == ["first", *known, "last"]
    given = dict.fromkeys(name for name in known if name != "dtype")
    assert taken(first=1, last=2, dtype="float16", **given) == (1, Opening(dtype="float16"), 2)


def test_the_threads_of_the_command_line_go_over_those_of_the_graph(tmp_path):
    """A flag wins over a node, and that over the graph."""
    file = tmp_path / "one.yaml"
    nodes = "nodes: {a: {use: projector/linear, with: {in_features: 2, out_features: 3}, in: {x: inputs.x}, runtime: {threads: 4}}}"
    file.write_text(
        f'modelgraft: 1\ninputs: {{x: "float[batch tokens 2]"}}\n{nodes}\noutputs: {{y: a}}\nruntime: {{threads: 2}}\n', "utf-8"
    )
    assert [mg.plan(file, threads=count).nodes["a"].threads for count in (None, 1)] == [4, 1]
