"""A pipeline under `max_memory`: who is let go of, that this frees memory and changes no result, and what is told before a load."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import threading
import weakref
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import modelgraft as mg
from modelgraft.cli.entry import run_command
from modelgraft.engine import freeing
from modelgraft.engine.backend import Loaded
from modelgraft.engine.measuring import blocks_of
from support.installed import registry
from support.noted_code import SIZE
from support.running import graph_of, opened

WIDTH = 256
ONE = (WIDTH * WIDTH + WIDTH) * 4  # bytes of a linear layer, with its bias
X = torch.arange(2.0 * WIDTH).reshape(1, 2, WIDTH) / WIDTH
REGISTRY = registry()


def linear(source: str, **more):
    return {"use": "projector/linear", "with": {"out_features": WIDTH}, "in": {"x": source}, **more}


def graph(tmp_path, nodes, outputs, **more):
    inputs = {"x": f"float[batch tokens {WIDTH}]"}
    return graph_of(REGISTRY, tmp_path, {"modelgraft": 1, "name": "toy", "inputs": inputs, "nodes": nodes, "outputs": outputs, **more})


def chain(tmp_path, **more):
    """A node that stays, two lazy ones, and one that is let go of after each use."""
    nodes = {
        "a": linear("inputs.x"),
        "b": linear("a", lazy=True),
        "c": linear("b", lazy=True),
        "d": linear("c", runtime={"keep": False}),
    }
    return graph(tmp_path, nodes, {"y": "d"}, **more)


def heard(pipeline, **inputs):
    """What a run told of loads and releases, and its result."""
    with pipeline.stream(**inputs) as events:
        told = [(event.kind.removeprefix("node-"), event.node) for event in events if event.kind in ("node-loaded", "node-released")]
    return told, events.result


def test_lazy_nodes_that_were_used_least_recently_go_when_another_needs_room(tmp_path):
    """Those that stay are there together with one of the others; results are the same."""
    solved = chain(tmp_path)
    with mg.open(solved, cache_bytes=0) as pipeline:
        free, wanted = heard(pipeline, x=X)
        again, _ = heard(pipeline, x=X)
    assert free == [("loaded", "a"), ("loaded", "b"), ("loaded", "c"), ("loaded", "d"), ("released", "d")]
    assert again == [("loaded", "d"), ("released", "d")]
    with mg.open(solved, cache_bytes=0, max_memory=3 * ONE) as pipeline:
        tight, result = heard(pipeline, x=X)
        again, second = heard(pipeline, x=X)
    assert tight == [("loaded", "a"), ("loaded", "b"), ("loaded", "c"), ("released", "b"), ("loaded", "d"), ("released", "d")]
    assert again == [("loaded", "b"), ("released", "b"), ("loaded", "d"), ("released", "d")]
    assert torch.equal(result["y"], wanted["y"])
    assert torch.equal(second["y"], wanted["y"])
    assert result.warnings == second.warnings == wanted.warnings


def test_a_release_says_why_and_how_much(tmp_path):
    """As an event of the run in which it happens."""
    with mg.open(chain(tmp_path), max_memory=2 * ONE) as pipeline, pipeline.stream(x=X) as events:
        told = [(event.node, event.reason, event.bytes) for event in events if event.kind == "node-released"]
    another = "another needs its room"
    assert told == [("b", another, ONE), ("c", another, ONE), ("d", "keep: false", ONE)]


def test_nothing_refers_to_what_was_let_go_of(tmp_path):
    """Neither an engine, nor the backend, nor what looks for NaN."""
    with mg.open(chain(tmp_path), cache_bytes=0, max_memory=2 * ONE) as pipeline:
        steps = pipeline.plan.nodes
        loaded = pipeline._loader.load(steps["b"])
        gone = [weakref.ref(loaded.state), weakref.ref(loaded.state.weight), weakref.ref(loaded.call)]
        del loaded
        for _ in range(4):  # the engine measures, and becomes straight code
            pipeline.run(x=X)
        assert "b" not in pipeline._loader.loaded()
        gc.collect()
        assert [one() for one in gone] == [None, None, None]


def test_nothing_is_searched_for_what_was_let_go_of(tmp_path, monkeypatch):
    """It stands in no circle of references, and its call in no name of the engine: a look through all objects takes up to seconds."""
    looks = SimpleNamespace(collect=lambda: pytest.fail("something still refers to what was let go of"))
    monkeypatch.setattr(freeing, "gc", looks)
    nodes = {"a": linear("inputs.x", runtime={"keep": False})}
    with mg.open(graph(tmp_path, nodes, {"y": "a"}), cache_bytes=0) as pipeline:
        pipeline.run(x=X)
        assert "a" not in pipeline._loader.loaded()


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the system does not tell what a process takes")
def test_what_is_let_go_of_goes_back_to_the_system(tmp_path):
    """A node of 144 MB that is not kept leaves nothing behind; one that is kept shows that this can be seen."""
    size = 140_000 * (WIDTH + 1) * 4

    def grown(width, **more):
        node = {"use": "projector/linear", "with": {"out_features": width}, "in": {"x": "inputs.x"}, **more}
        with mg.open(graph(tmp_path, {"a": node}, {"y": "a"}), cache_bytes=0) as pipeline:
            before = resident_bytes()
            pipeline.run(x=X)
            return resident_bytes() - before

    grown(2)  # what the first run of a process brings
    assert grown(140_000, runtime={"keep": False}) < 0.3 * size
    assert grown(140_000) > 0.7 * size


def resident_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def test_nodes_that_share_weights_count_once_and_go_one_by_one(tmp_path):
    """The weights are there for as long as one of them is."""
    nodes = {"a": linear("inputs.x", lazy=True), "b": linear("a", share="a"), "c": linear("b", lazy=True)}
    solved = graph(tmp_path, nodes, {"y": "c"})
    with mg.open(solved, cache_bytes=0) as pipeline:
        wanted = pipeline.run(x=X)["y"]
    with mg.open(solved, cache_bytes=0, max_memory=2 * ONE) as pipeline:
        assert torch.equal(pipeline.run(x=X)["y"], wanted)
        assert pipeline.memory.taken == {"cpu": 2 * ONE}
        assert {row.what: row.measured for row in pipeline.memory.rows} == {"a": ONE, "b": ONE, "c": ONE}


def test_adapters_are_measured_with_their_host_and_shared_weights_once(tmp_path):
    """The adapter is the node's own, and what it is grafted into the other's too."""
    pytest.importorskip("peft")
    lora = {"use": "adapter/lora", "with": {"rank": 4, "targets": ["linear_1", "linear_2"]}}
    plain = {"use": "projector/mlp", "with": {"hidden_features": WIDTH, "out_features": WIDTH}, "in": {"x": "inputs.x"}}
    nodes = {"a": {**plain, "lazy": True}, "b": {"use": "projector/mlp", "share": "a", "in": {"x": "a"}, "adapters": [lora]}}
    added = 2 * (4 * WIDTH + WIDTH * 4) * 4  # two layers, two low-rank matrices each, in float32
    with mg.open(graph(tmp_path, nodes, {"y": "b"}), cache_bytes=0) as pipeline:
        pipeline.run(x=X)
        assert {row.what: row.measured for row in pipeline.memory.rows} == {"a": 2 * ONE, "b": 2 * ONE + added}
        assert pipeline.memory.taken == {"cpu": 2 * ONE + added}


def test_branches_side_by_side_wait_for_room(tmp_path):
    """A node in use is not let go of; who needs its room waits until it is done."""
    nodes = {f"n{index}": linear("inputs.x", lazy=True) for index in range(4)}
    solved = graph(tmp_path, nodes, {f"y{index}": f"n{index}" for index in range(4)})
    with mg.open(solved, cache_bytes=0) as pipeline:
        wanted = pipeline.run(x=X)
    with mg.open(solved, cache_bytes=0, max_memory=ONE) as pipeline:
        for _ in range(3):
            found = pipeline.run(x=X)
            assert all(torch.equal(found[name], wanted[name]) for name in wanted)
            assert pipeline.memory.taken == {"cpu": ONE}


def test_several_runs_at_once_never_lose_a_node_that_they_use(tmp_path):
    """Each waits for room, and none finds half a node."""
    solved = chain(tmp_path)
    with mg.open(solved, cache_bytes=0) as pipeline:
        wanted = [pipeline.run(x=X * scale)["y"] for scale in range(1, 5)]
    found: list[tuple[int, torch.Tensor]] = []
    with mg.open(solved, cache_bytes=0, max_memory=2 * ONE) as pipeline:

        def run(number):
            for _ in range(2):
                found.append((number, pipeline.run(x=X * (number + 1))["y"]))  # noqa: PERF401 beside other threads

        threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(found) == 8
    assert all(torch.equal(y, wanted[number]) for number, y in found)


def test_what_does_not_fit_is_told_before_anything_is_loaded(tmp_path):
    """Which node needs how much, what stays, and ways out."""
    with mg.open(chain(tmp_path), max_memory=f"cpu={ONE + 1000}") as pipeline:
        told = list[str]()
        with pytest.raises(mg.GraphError) as caught:
            told.extend(event.kind for event in pipeline.stream(x=X))
        assert told == ["run-started", "run-failed"]
        assert pipeline._loader.loaded() == {}
    (problem,) = caught.value.problems
    assert problem.code == "does-not-fit"
    assert problem.found == "the nodes of this plan need 514 KiB at once on cpu, and it may hold 258 KiB"
    assert problem.hint.splitlines() == [
        "a    257 KiB  stays",
        "b    257 KiB  let go of when another needs room",
        "c    257 KiB  let go of when another needs room",
        "d    257 KiB  let go of when another needs room",
        "let go of nodes that are not needed all the time (lazy: true, or runtime: {keep: false}), choose a smaller dtype or precision, "
        'place nodes on another device, or allow more: max_memory="cpu=1MiB"',
    ]


def test_only_what_a_run_needs_must_fit(tmp_path):
    """And what earlier runs have loaded for good."""
    nodes = {"a": linear("inputs.x"), "b": linear("inputs.x")}
    with mg.open(graph(tmp_path, nodes, {"y": "a", "z": "b"}), max_memory=ONE) as pipeline:
        pipeline.run(x=X, outputs=["y"])
        with pytest.raises(mg.GraphError, match="need 514 KiB at once on cpu, and it may hold 257 KiB"):
            pipeline.run(x=X, outputs=["z"])
        pipeline.run(x=X, outputs=["y"])


def test_what_measures_more_than_was_planned_makes_room_or_is_told(tmp_path):
    """Code cannot be measured beforehand; it notes what it takes."""

    @mg.component("toy/code", kind="head", load="support.noted_code:load", inputs={"x": "object"}, outputs={"out": "object"})
    class Code(mg.Config):
        """Take more than anybody knows."""

    nodes = {"a": {"use": "toy/code", "in": {"x": "inputs.x"}}}
    torch_alone = {"register_backends": mg.hookimpl(lambda register: register("torch", "modelgraft_plugins.torch.backend:TorchBackend"))}
    ends = {"inputs": {"x": "object"}, "outputs": {"out": "a"}}
    with opened(tmp_path, [Code], nodes, **ends, hooks=torch_alone, max_memory="1MiB", device="cpu") as pipeline:
        result = pipeline.run(x="hm")
        assert pipeline.memory.taken == {"cpu": SIZE}
    assert "a: it takes 5 MiB on cpu, 0 B were planned: 5 MiB are held there, and 1 MiB may be" in " ".join(result.warnings)


def test_memory_is_a_table(tmp_path):
    """Planned and measured, with what each device holds and may hold."""
    with mg.open(chain(tmp_path), max_memory=3 * ONE) as pipeline:
        assert [row.state for row in pipeline.memory.rows] == ["not loaded"] * 4
        pipeline.run(x=X)
        memory = pipeline.memory
    rows = {row.what: (row.device, row.planned, row.measured, row.state) for row in memory.rows}
    assert rows == {
        "a": ("cpu", ONE, ONE, "stays"),
        "b": ("cpu", ONE, None, "not loaded"),
        "c": ("cpu", ONE, ONE, "may go"),
        "d": ("cpu", ONE, None, "not loaded"),
    }
    assert (memory.taken, memory.limits) == ({"cpu": 2 * ONE}, {"cpu": 3 * ONE})
    assert "<Memory: 514 KiB on cpu of 771 KiB>" in repr(memory)
    assert "cpu, all of it" in memory._repr_html_()


def test_the_flag_goes_over_the_graph_and_that_over_the_environment(tmp_path, monkeypatch):
    """As for every other option."""
    solved, plain = chain(tmp_path, runtime={"max_memory": "3GB"}), chain(tmp_path)
    monkeypatch.setenv("MODELGRAFT_MAX_MEMORY", "cpu=1GB")
    assert mg.plan(solved, max_memory="2GB").limits == {"*": 2_000_000_000}
    assert mg.plan(solved).limits == {"*": 3_000_000_000}
    assert mg.plan(plain).limits == {"cpu": 1_000_000_000}
    monkeypatch.setenv("MODELGRAFT_MAX_MEMORY", "plenty")
    with pytest.raises(mg.InputError, match=r"MODELGRAFT_MAX_MEMORY is 'plenty'; wanted: a size such as 8GB.*,cuda:0=8GB$"):
        mg.plan(plain)
    monkeypatch.delenv("MODELGRAFT_MAX_MEMORY")
    assert mg.plan(plain, max_memory={"cuda": "1MiB"}).limits == {"cuda:0": 1 << 20}
    with pytest.raises(mg.InputError, match=r"max_memory names 'gpu', which is no device; wanted: a size such as 8GB.*,cuda:0=8GB$"):
        mg.plan(plain, max_memory="gpu=1GB")


@pytest.mark.parametrize(
    ("runtime", "found"),
    [
        ("{max_memory: 9 apples}", "runtime.max_memory: found '9 apples'; wanted: a size such as 8GB"),
        ("{max_memory: {cpu: 1GB}}", "runtime.max_memory is a mapping; wanted a text"),
        ("{keep: 1}", "runtime.keep is the number 1; wanted true or false"),
        ("{keep: {a: never}}", "runtime.keep.a is the text 'never'; wanted true or false"),
    ],
)
def test_a_graph_that_asks_for_nonsense_is_told_where(tmp_path, runtime, found):
    """With its line."""
    node = "{use: projector/linear, in: {x: inputs.x}, with: {out_features: 2}}"
    text = f'modelgraft: 1\ninputs: {{x: "float[batch tokens 2]"}}\nnodes: {{a: {node}}}\n'
    with pytest.raises(mg.GraphError) as caught:
        graph_of(REGISTRY, tmp_path, f"{text}outputs: {{y: a}}\nruntime: {runtime}\n")
    (problem,) = caught.value.problems
    assert (problem.place.line, problem.found.startswith(found)) == (5, True), problem


def test_a_node_has_no_max_memory_of_its_own(tmp_path):
    """It is of the whole graph."""
    with pytest.raises(mg.GraphError, match=r"a\.runtime has no key 'max_memory'|unknown-key"):
        graph(tmp_path, {"a": linear("inputs.x", runtime={"max_memory": "1GB"})}, {"y": "a"})


def test_the_graph_says_for_all_nodes_or_one_that_they_are_not_kept(tmp_path):
    """`keep` is a key of runtime like the others."""
    nodes = {"a": linear("inputs.x"), "b": linear("a")}
    for keep, kept in ((False, set()), ({"a": False}, {"b"}), ({"default": False, "b": True}, {"b"})):
        with mg.open(graph(tmp_path, nodes, {"y": "b"}, runtime={"keep": keep})) as pipeline:
            pipeline.run(x=X)
            assert set(pipeline._loader.loaded()) == kept


def test_the_plan_command_shows_what_a_device_holds_at_once(tmp_path, capsys):
    """Against what it may."""
    chain(tmp_path)
    file = str(tmp_path / "toy.yaml")
    assert run_command(["plan", file, "--max-memory", f"{ONE}"]) == 0
    assert "cpu holds 514 KiB at once; it may hold 257 KiB, which is not enough" in capsys.readouterr().out
    assert run_command(["plan", file, "--max-memory", "cpu=1MB", "--json"]) == 0
    memory = json.loads(capsys.readouterr().out)["memory"]
    assert memory == {"cpu": {"bytes": 2 * ONE, "limit": 1_000_000, "fits": True, "unknown": []}}
    assert run_command(["plan", file, "--max-memory", "much"]) == 2
    assert "found 'much'; wanted: a size such as 8GB" in " ".join(capsys.readouterr().err.split())


def test_the_run_command_says_what_does_not_fit(tmp_path, capsys):
    """In its own words for the way out."""
    chain(tmp_path)
    torch_file = tmp_path / "x.json"
    torch_file.write_text(json.dumps(X.tolist()))
    assert run_command(["run", str(tmp_path / "toy.yaml"), "--input", f"x={torch_file}", "--max-memory", f"{ONE}"]) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "the nodes of this plan need 514 KiB at once on cpu, and it may hold 257 KiB" in said
    assert "or allow more: --max-memory cpu=1MiB" in said


def test_memory_is_measured_by_where_it_lies():
    """Tied weights count once, a view of a mapped file only for what it covers, tensors without memory not at all."""
    module = torch.nn.Module()
    mapped = torch.zeros(1000)
    module.register_buffer("part", mapped[10:40])
    module.register_buffer("overlapping", mapped[30:50])
    module.one = torch.nn.Linear(3, 5, bias=False)
    module.two = torch.nn.Linear(3, 5, bias=False)
    module.two.weight = module.one.weight
    module.missing = torch.nn.Linear(7, 7, device="meta")
    blocks = blocks_of(Loaded(print, state=module))
    assert sorted(blocks.values()) == [3 * 5 * 4, 40 * 4]
    assert {device for device, _ in blocks} == {"cpu"}
    assert blocks_of(Loaded(print)) == {}


PEAK = """
import sys
import torch
import modelgraft as mg

def now(key):
    return int(next(line.split()[1] for line in open("/proc/self/status") if line.startswith(key))) * 1024

with mg.open("toy.yaml", cache_bytes=0, device="cpu", dtype=sys.argv[1]) as pipeline:
    import modelgraft_plugins.torch.backend, modelgraft.sources.weights
    before = now("VmRSS")
    pipeline.load()
    print(now("VmHWM") - before, pipeline.memory.taken["cpu"])
"""


@pytest.mark.slow  # two processes that import torch
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system does not tell what a process has taken at most")
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_load_never_needs_twice_the_memory(tmp_path, dtype):
    """Weights of 144 MB as they lie in the file: mapped and taken as they are, or cast tensor by tensor."""
    from safetensors.torch import save_file

    parts = {f"layers.{index}.weight": torch.full((3000, 3000), 0.5) for index in range(4)}
    save_file(parts, tmp_path / "model.safetensors")
    nodes = "".join(
        f'  n{index}: {{use: projector/linear, from: "./model.safetensors#layers.{index}", '
        f"with: {{in_features: 3000, out_features: 3000, bias: false}}, in: {{x: {'inputs.x' if index == 0 else f'n{index - 1}'}}}}}\n"
        for index in range(4)
    )
    text = f'modelgraft: 1\ninputs: {{x: "float[batch tokens 3000]"}}\nnodes:\n{nodes}outputs: {{y: n3}}\n'
    (tmp_path / "toy.yaml").write_text(text)
    done = subprocess.run([sys.executable, "-c", PEAK, dtype], cwd=tmp_path, capture_output=True, text=True, check=False)
    peak, taken = map(int, done.stdout.split() or pytest.fail(done.stderr))
    whole = 4 * 3000 * 3000 * 4
    assert taken == whole // (1 if dtype == "float32" else 2)
    assert peak < 1.7 * whole  # the mapped file, and what is cast beside it
