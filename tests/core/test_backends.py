"""A backend is one plugin: what it says beforehand is checked, and the core asks it by methods, without knowing its name."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import ClassVar

import pytest

import modelgraft as mg
from modelgraft.cli import main
from modelgraft.engine.backend import Backend, StaleLoad, open_backend
from modelgraft.engine.measuring import metered
from modelgraft.installed.discovery import assemble
from modelgraft.kernel.words.backends import BackendCard
from modelgraft.plugin import InputError, Keeper, KeptItem, PluginError, open_file
from modelgraft.sources import seals
from modelgraft.sources.storage import cache_root
from modelgraft.tools.exporting import export_graph, exporting_backend
from modelgraft.tools.keeping import Keeping
from modelgraft_plugins import projectors
from modelgraft_plugins.torch import register_backends

GRAPH = """
modelgraft: 1
inputs: {x: "float[batch n 5]"}
nodes: {a: {use: projector/linear, with: {in_features: 5, out_features: 3}, in: {x: inputs.x}}}
outputs: {y: a}
"""


class Negating(Backend):
    """A third backend in one class: torch's numbers with the other sign."""

    name = "negating"
    harmed = 0

    def load(self, context, shared):
        loaded = open_backend(context.registry, "torch").load(context, shared)
        return replace(loaded, call=lambda *values: -loaded.call(*values))

    def recorded(self, node, *, precision):
        return {"parity": {"relative": 0.5, "overall": 0.25, "same": None}, "weights": f"{precision} of {node.name}"}

    def open_file(self, path, *, threads):
        return lambda given: {"y": (path.read_text(), threads, given["x"])}

    def export(self, plan, folder, *, warnings):
        if Negating.harmed:
            Negating.harmed -= 1
            raise StaleLoad("harmed")
        (folder / "negate.txt").write_text(plan.graph.name)
        return {"segments": [], "not_exported": {}, "warnings": list(warnings)}


class Plain:
    """As one that knows of `load` alone."""

    def load(self, context, shared):
        return open_backend(context.registry, "torch").load(context, shared)


class Loadless:
    """Loads nothing."""


class Notes(Keeper):
    """Keeps sealed notes."""

    kind = "notes"

    def items(self):
        for path in sorted((cache_root() / "notes").glob("*.json")):
            yield KeptItem("notes", path.stem, path, "a note", cache_root() / "notes" / ".lock")

    def complaints(self, item):
        try:
            seals.read_sealed(item.path)
        except seals.BrokenSeal as error:
            yield item.path, str(error)


def plugin_with(**registered):
    """A plugin that registers with hooks: hook=((name, target), facts)."""
    plugin = ModuleType("third")
    for name, (words, facts) in registered.items():
        hook = f"register_{name}"
        setattr(plugin, hook, mg.hookimpl(lambda register, words=words, facts=facts: register(*words, **facts), specname=hook))
    return plugin


def registry_of(name="negating", attribute="Negating", **facts):
    """A registry with torch, projectors, and a plugin with a backend of this file and a keeper."""
    third = plugin_with(backends=((name, f"{__name__}:{attribute}"), facts), keepers=(("notes", f"{__name__}:Notes"), {}))
    torch = ModuleType("torch_plugin")
    torch.register_backends = register_backends
    return assemble({"third": third, "torch": torch, "projectors": projectors})


class Early(Negating):
    """Begins with what it is to load, and notes in which order it was asked."""

    asked: ClassVar[list[tuple[str, ...]]] = []
    is_broken = False

    def begin(self, node, *, precision, threads):
        Early.asked.append(("begin", node.name, precision, str(threads)))
        if Early.is_broken:
            raise OSError("nothing to begin with")

    def load(self, context, shared):
        Early.asked.append(("load", context.node.name))
        return super().load(context, shared)


def graph_of(tmp_path, registry):
    (tmp_path / "g.yaml").write_text(GRAPH)
    return mg.load(tmp_path / "g.yaml", registry=registry)


def test_what_a_backend_says_beforehand_is_read_into_its_card():
    """With nothing imported: its target lies nowhere."""
    facts = {"fuses": True, "exports": True, "precisions": ["int3"], "devices": ("cpu", "npu"), "heeds": ["threads"], "opens": [".far"]}
    card = assemble({"third": plugin_with(backends=(("far", "nowhere:At"), facts))}).backends["far"]
    assert card == BackendCard("nowhere:At", True, True, ("int3",), ("cpu", "npu"), ("threads",), (".far",))
    assert [card.takes(device) for device in ("auto", "cpu", "npu", "npu:12")] == [True] * 4
    assert [card.takes(device) for device in ("cpu:0", "cuda", "npu:x", "npu:1234", "NPU", "")] == [False] * 6
    assert card.devices_in_words == "auto, cpu, npu or npu:1"


def test_a_part_has_a_file_opened_by_the_backend_of_its_ending(tmp_path):
    """With the threads of its node, and what it takes is noted as the node's; where none opens such files, that is told."""
    (tmp_path / "graph.far").write_text("a graph")
    context = SimpleNamespace(registry=registry_of(opens=(".far",)), threads=3, node=SimpleNamespace(name="voice"))
    with metered() as blocks:
        assert open_file(context, tmp_path / "graph.far")({"x": 1}) == {"y": ("a graph", 3, 1)}
    assert [(device, size) for (device, _), size in blocks.items()] == [("cpu", 7)]
    with pytest.raises(PluginError, match=r"^voice computes with graph\.near, and none of the backends that are loaded \(.+\) opens such"):
        open_file(context, tmp_path / "graph.near")
    with pytest.raises(InputError, match=r"^the shy backend opens no files$"):
        type("Shy", (Backend,), {"name": "shy", "load": None})().open_file(tmp_path, threads=None)


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"fuses": "yes"}, "the backend 'far' has fuses='yes'; wanted: True or False"),
        ({"devices": "cpu"}, "the backend 'far' has the devices 'cpu'; wanted: a list of names"),
        ({"heeds": [1]}, "the backend 'far' has the heeds [1]; wanted: a list of names"),
        (
            {"precision": ["int3"]},
            "the backend 'far' says 'precision' of itself; known is: fuses, exports, precisions, devices, heeds,",
        ),
    ],
)
def test_what_means_nothing_on_a_card_is_refused_with_what_is_known(facts, said):
    assert said in assemble({"third": plugin_with(backends=(("far", "nowhere:At"), facts))}).plugins["third"].error


def test_a_third_backend_runs_is_planned_and_tells_what_it_has_kept(tmp_path, capsys):
    """One class and one line of registration: no file of the core knows it."""
    import torch

    registry = registry_of(precisions=("float32",), devices=("cpu", "npu"))
    graph, x = graph_of(tmp_path, registry), torch.randn(2, 4, 5)
    with mg.open(graph, backend="negating") as mine, mg.open(graph, backend="torch") as theirs:
        assert torch.equal(mine.run(x=x)["y"], -theirs.run(x=x)["y"])
    with pytest.raises(InputError, match=r"device is 'cuda:1'; wanted: auto, cpu, npu or npu:1"):
        mg.plan(graph, backend="negating", device="cuda:1")
    with pytest.raises(InputError, match=r"the negating backend has no dtype 'float16'; it has float32"):
        mg.plan(graph, backend="negating", dtype="float16")
    from modelgraft.cli.tables import plan_document

    assert plan_document(mg.plan(graph, backend="negating"))["parity"]["a"]["weights"] == "float32 of a"
    assert plan_document(mg.plan(graph))["parity"] == {}


def test_threads_are_told_not_to_be_heeded_where_a_backend_does_not_say_so(tmp_path):
    """By the core, for every backend; one that heeds them is named."""
    for heeds, said in ((), 1), (("threads",), 0):
        registry = registry_of(heeds=heeds)
        with mg.open(graph_of(tmp_path, registry), backend="negating", threads=1) as pipeline:
            found = [text for text in pipeline.load() if "`threads` is not for the negating backend" in text]
        assert len(found) == said
    with mg.open(graph_of(tmp_path, registry), backend="torch", threads=1) as pipeline:
        assert any("`threads` is not for the torch backend, " in text and text.endswith("it is for: negating") for text in pipeline.load())


def test_threads_for_all_are_for_those_that_heed_them(tmp_path):
    """What another backend runs beside such a node is not told of; what is asked of that node alone is."""
    registry = registry_of(heeds=("threads",))
    node = "{use: projector/linear, with: {out_features: 3}, in: {x: inputs.x}, runtime: {backend: %s}}"
    for own, said in ("torch", 0), ("torch, threads: 1", 1):
        nodes = f"{{a: {node % 'negating'}, b: {node % own}}}"
        text = f"modelgraft: 1\ninputs: {{x: 'float[batch tokens 5]'}}\nnodes: {nodes}\noutputs: {{a: a.y, b: b.y}}\n"
        (tmp_path / "two.yaml").write_text(text)
        with mg.open(mg.load(tmp_path / "two.yaml", registry=registry), threads=None if said else 2, init="random") as pipeline:
            found = [text for text in pipeline.load() if "`threads` is not for the torch backend" in text]
        assert len(found) == said


@pytest.mark.parametrize("said", ["a has no kernel for it", "there is no kernel for it"])
def test_what_a_backend_lacks_is_told_with_the_node_once_and_is_not_its_own_cause(tmp_path, monkeypatch, said):
    """Whoever looks for the first cause comes to an end."""

    def load(*_):
        raise PluginError(said)

    monkeypatch.setattr(Negating, "load", load)
    (tmp_path / "g.yaml").write_text(GRAPH)
    graph = mg.load(tmp_path / "g.yaml", registry=registry_of())
    with mg.open(graph, backend="negating", init="random") as pipeline, pytest.raises(PluginError) as caught:
        pipeline.load()
    place = "" if said.startswith("a ") else f"a ({graph.nodes['a'].place.short}): "
    assert str(caught.value) == f"{place}{said}"
    assert caught.value.__cause__ is not caught.value


def test_a_backend_that_has_only_load_gets_the_other_answers(tmp_path):
    """As one that was written before there were others."""
    import torch

    backend = open_backend(registry_of("plain", "Plain"), "plain")
    assert (backend.name, backend.auto_device("cuda:0"), backend.recorded(None, precision="float32")) == ("plain", "cuda:0", {})
    assert (backend.describe(), backend.close()) == ("", None)
    with pytest.raises(InputError, match="the plain backend writes nothing for others"):
        backend.export(None, tmp_path, warnings=())
    with mg.open(graph_of(tmp_path, registry_of("plain", "Plain")), backend="plain") as pipeline:
        assert pipeline.run(x=torch.ones(1, 2, 5))["y"].shape == (1, 2, 3)


def test_a_backend_that_loads_nothing_is_refused_by_its_own_name():
    """Not by that of the plugin whose component was to be loaded."""
    with pytest.raises(PluginError, match=r"the backend 'loadless' \(.*:Loadless\) has no method load: let it inherit from"):
        open_backend(registry_of("loadless", "Loadless"), "loadless")


def test_a_graph_is_exported_by_the_backend_that_says_it_can(tmp_path, monkeypatch):
    """Loaded anew when what was loaded has been harmed; without such a backend that is one error."""
    registry = registry_of(exports=True)
    assert exporting_backend(registry) == "negating"
    monkeypatch.setattr(Negating, "harmed", 2)
    opened = []

    def open_pipeline(graph):
        opened.append(graph)
        return mg.open(graph, backend="negating")

    manifest = export_graph(mg.check(graph_of(tmp_path, registry)), tmp_path / "out", backend="negating", open_pipeline=open_pipeline)
    assert (len(opened), len(manifest["warnings"])) == (3, 1)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["negate.txt"]
    with pytest.raises(PluginError, match="no plugin offers a backend that writes what it runs"):
        exporting_backend(registry_of())


def test_what_a_plugin_keeps_is_listed_proven_and_deleted_by_its_keeper(tmp_path, monkeypatch):
    """A kind of its own; those of the core cannot be taken."""
    monkeypatch.setenv("MODELGRAFT_CACHE", str(tmp_path / "cache"))
    seals.write_sealed(cache_root() / "notes" / "a.json", {"x": 1})
    seals.write_sealed(cache_root() / "notes" / "b.json", {"x": 2})
    keeping = Keeping(registry_of())
    assert list(keeping.keepers) == ["notes", "conversions", "results", "downloads"]
    a, b = keeping.items()
    assert (a.name, keeping.bytes_of(a)) == ("a", a.path.stat().st_size)
    assert keeping.verify(a) == []
    b.path.write_bytes(b.path.read_bytes().replace(b"2", b"3"))
    (broken,) = keeping.verify(b)
    assert (broken.path, broken.is_deleted, keeping.items()) == (b.path, True, [a])
    assert keeping.delete(a)
    assert keeping.items() == []
    thief = assemble({"thief": plugin_with(keepers=(("results", "nowhere:At"), {}))}).plugins["thief"]
    assert list(map(str, thief.lost)) == ["kept kind results (it belongs to modelgraft itself)"]


def test_plugins_info_says_what_a_backend_is_and_runs_on(capsys):
    assert main(["plugins", "info", "onnx"]) == 0
    said = capsys.readouterr().out
    assert (
        "onnx runs weights in float32, float16, int8, w8, w4, on cpu, cuda, connected nodes as one call, can be exported, onnxruntime"
        in said
    )
    assert main(["plugins", "info", "torch", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["backends"] == ["torch"]


# What the core may say of ONNX, by file: the package onnxruntime as one of the heavy ones, and the help of a command that is fixed.
ALLOWED = {
    "kernel/words/guard.py": {"onnxruntime"},  # a traceback through it is not the plugin's own code
    "testing/conformance.py": {"onnxruntime"},  # what a light module must not import
    "cli/exports.py": {"Write the ONNX segments of a graph, proven equal to torch, with a manifest and a script that runs them."},
}


def test_no_code_of_the_core_names_the_onnx_backend():
    """Names, imports and texts; docstrings are prose, except those of commands, which are their help."""
    core = Path(mg.__file__).parent
    found = {}
    for path in sorted(core.rglob("*.py")):
        file = path.relative_to(core).as_posix()
        words = {word for word in _words_of(ast.parse(path.read_text("utf-8")), is_help=file.startswith("cli/")) if "onnx" in word.lower()}
        if words - ALLOWED.get(file, set()):
            found[file] = words
    assert found == {}


def _words_of(tree: ast.Module, *, is_help: bool):
    """All that is no comment: identifiers, modules, and texts that are no docstrings."""
    holders = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    prose = {id(node.body[0].value) for node in ast.walk(tree) if isinstance(node, holders) and ast.get_docstring(node) is not None}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and (is_help or id(node) not in prose):
            yield node.value
        for name in ("id", "attr", "arg", "module", "name", "asname"):
            if isinstance(found := getattr(node, name, None), str):
                yield found


@pytest.mark.parametrize("is_broken", [False, True])
def test_a_backend_begins_with_what_a_run_will_load_before_anything_is_loaded(tmp_path, monkeypatch, is_broken):
    """Once, with the modules of the outputs that are wanted; that it cannot begin changes nothing."""
    monkeypatch.setattr(Early, "asked", [])
    monkeypatch.setattr(Early, "is_broken", is_broken)
    chain = "a: {use: projector/linear, with: {in_features: 5, out_features: 3}, in: {x: inputs.x}}"
    rest = f"{chain}, b: {chain[3:].replace('5', '3').replace('inputs.x', 'a')}, c: {chain[3:]}"
    (tmp_path / "g.yaml").write_text(GRAPH.replace(chain, rest).replace("{y: a}", "{y: b, z: c}"))
    graph = mg.load(tmp_path / "g.yaml", registry=registry_of("early", "Early"))
    with mg.open(graph, backend="early", init="random", device="cpu") as pipeline:
        assert Early.asked == []
        found = [pipeline.run(x=[[[1.0] * 5]], outputs=["y"])["y"].tolist() for _ in range(2)]
    assert found[0] == found[1]
    assert Early.asked == [("begin", "a", "float32", "None"), ("begin", "b", "float32", "None"), ("load", "a"), ("load", "b")]


def test_a_graph_is_opened_without_torch_where_there_is_no_gpu(tmp_path):
    """It comes with the first run; a device that is not there is refused at once, as before."""
    (tmp_path / "g.yaml").write_text(GRAPH)
    program = """
import sys
import modelgraft as mg
import modelgraft.engine.devices as devices
devices.DRIVERS = ()
for device in (None, "auto", "cpu"):
    mg.open("g.yaml", init="random", device=device).close()
print("torch" in sys.modules)
with mg.open("g.yaml", init="random") as pipeline:
    print(tuple(pipeline.run(x=[[[1.0] * 5]])["y"].shape), pipeline.plan.steps[0].device)
try:
    mg.open("g.yaml", init="random", device="cuda")
except mg.InputError as error:
    print(str(error).partition(";")[0])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path, timeout=120)
    assert done.stdout.splitlines() == ["False", "(1, 1, 3) cpu", "device 'cuda' is not here"]
