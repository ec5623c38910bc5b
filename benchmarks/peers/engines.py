"""The engines of others, each the way its own manual runs a graph of functions, with what costs and is not the graph turned off.

Imported by the Python of their environment, where there is neither modelgraft nor torch. Telemetry, tracing and a line of log
for each node are off; where an engine has several runners the quicker one is taken, and the row says which.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from benchmarks.orchestrators import Body, Run, Shape
from benchmarks.peers.packages import Package

QUIET = {
    "DO_NOT_TRACK": "1",
    "HAMILTON_TELEMETRY_ENABLED": "false",
    "HAYSTACK_TELEMETRY_ENABLED": "False",
    "LANGSMITH_TRACING": "false",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
RAY_BUFFER = 4 * 2**20  # bytes of a channel: the default would be made larger under a payload of 1 MB
RAY_STORE = 512 * 2**20


@dataclass(frozen=True, slots=True)
class Peer(Package):
    """An engine of others.

    copies      what it hands on is equal to what it got, but another object
    is_remote   nodes run in other processes: calls cannot be counted here, and their CPU time is added
    skips       graphs that would take minutes
    """

    build: Callable[[Shape, Mapping[int, Body]], Run]
    copies: bool = False
    is_remote: bool = False
    skips: tuple[str, ...] = ()


def _reads(shape: Shape, name: str) -> tuple[str, ...]:
    return shape.parents[name] or ("payload",)


def hamilton(shape: Shape, code: Mapping[int, Body]) -> Run:
    """A module of functions whose parameters name what they read, under the driver."""
    from hamilton import base, driver

    module = ModuleType("user_graph")
    sys.modules["user_graph"] = module  # the driver asks which module a function is from
    lines = []
    for name in shape.parents:
        reads = _reads(shape, name)
        heads = ", ".join(f"{read}: object" for read in reads)
        lines.append(f"def {name}({heads}) -> object:\n    return f{len(reads)}({', '.join(reads)})")
    module.__dict__.update({f"f{count}": function for count, function in code.items()})
    exec("\n".join(lines), module.__dict__)
    made = driver.Builder().with_modules(module).with_adapter(base.DefaultAdapter()).build()
    return lambda payload: made.execute([shape.last], inputs={"payload": payload})[shape.last]


def haystack(shape: Shape, code: Mapping[int, Body]) -> Run:
    """A component with typed sockets for each node, under `Pipeline.run`."""
    from haystack import Pipeline, component

    @component
    class Step:
        def __init__(self, function: Body, count: int) -> None:
            self.function, self.names = function, [f"x{index}" for index in range(count)]
            component.set_input_types(self, **dict.fromkeys(self.names, object))
            component.set_output_types(self, out=object)

        def run(self, **given: Any) -> dict[str, Any]:
            return {"out": self.function(*[given[name] for name in self.names])}

    pipeline = Pipeline(max_runs_per_component=10)
    for name in shape.parents:
        count = len(_reads(shape, name))
        pipeline.add_component(name, Step(code[count], count))
    for name, parents in shape.parents.items():
        for index, parent in enumerate(parents):
            pipeline.connect(f"{parent}.out", f"{name}.x{index}")
    first = next(iter(shape.parents))
    return lambda payload: pipeline.run({first: {"x0": payload}})[shape.last]["out"]


def kedro(shape: Shape, code: Mapping[int, Body]) -> Run:
    """Nodes joined by names of data sets that are handed on uncopied, under the sequential runner."""
    import logging

    from kedro.io import DataCatalog, MemoryDataset
    from kedro.pipeline import Pipeline, node
    from kedro.runner import SequentialRunner

    logging.disable(logging.WARNING)
    steps = [node(code[len(_reads(shape, name))], list(_reads(shape, name)), name, name=f"make_{name}") for name in shape.parents]
    pipeline, runner = Pipeline(steps), SequentialRunner()

    def run(payload: Any) -> Any:
        sets = {name: MemoryDataset(copy_mode="assign") for name in shape.parents}
        sets["payload"] = MemoryDataset(payload, copy_mode="assign")
        runner.run(pipeline, DataCatalog(sets))
        return sets[shape.last].load()

    return run


def dask(shape: Shape, code: Mapping[int, Body]) -> Run:
    """A dictionary of tasks, under the synchronous scheduler."""
    import dask

    tasks = {name: (code[len(_reads(shape, name))], *_reads(shape, name)) for name in shape.parents}
    return lambda payload: dask.get({**tasks, "payload": payload}, shape.last)


def langgraph(shape: Shape, code: Mapping[int, Body]) -> Run:
    """A state graph with a channel for each node, of which a node is shown only what it reads."""
    from typing import TypedDict

    from langgraph.graph import END, START, StateGraph

    channels = {"payload": "payload", **{name: f"c_{name}" for name in shape.parents}}  # no channel may have the name of a node
    graph = StateGraph(TypedDict("State", dict.fromkeys(channels.values(), Any)))

    def step(function: Body, keys: list[str], out: str) -> Callable[[Any], dict[str, Any]]:
        return lambda state: {out: function(*[state[key] for key in keys])}

    for name in shape.parents:
        keys = [channels[read] for read in _reads(shape, name)]
        view = TypedDict(f"In_{name}", dict.fromkeys(keys, Any))
        graph.add_node(name, step(code[len(keys)], keys, channels[name]), input_schema=view)
    graph.add_edge(START, next(iter(shape.parents)))
    for name, parents in shape.parents.items():
        if parents:
            graph.add_edge(parents[0] if len(parents) == 1 else list(parents), name)
    graph.add_edge(shape.last, END)
    made, config = graph.compile(), {"recursion_limit": len(shape.parents) + 10, "max_concurrency": 4}
    return lambda payload: made.invoke({"payload": payload}, config)[channels[shape.last]]


def _started_ray() -> Any:
    import logging

    import ray

    if not ray.is_initialized():
        quiet = {"include_dashboard": False, "logging_level": logging.ERROR, "log_to_driver": False}
        ray.init(num_cpus=8, object_store_memory=RAY_STORE, **quiet)  # 8: one for each graph that stays compiled
    return ray


def ray_tasks(shape: Shape, code: Mapping[int, Body]) -> Run:
    """A task for each node, which is given references to what others will give."""
    ray = _started_ray()
    remote = {count: ray.remote(function) for count, function in code.items()}

    def run(payload: Any) -> Any:
        values: dict[str, Any] = {"payload": payload}
        for name in shape.parents:
            reads = _reads(shape, name)
            values[name] = remote[len(reads)].remote(*[values[read] for read in reads])
        return ray.get(values[shape.last])

    return run


def ray_compiled(shape: Shape, code: Mapping[int, Body]) -> Run:
    """A compiled graph whose nodes are calls of one actor: the quickest that Ray has."""
    ray = _started_ray()
    from ray.dag import InputNode

    @ray.remote
    class Worker:
        def step(self, count: int, *given: Any) -> Any:
            return code[count](*given)

    worker, values = Worker.remote(), {}
    with InputNode() as payload:
        for name, parents in shape.parents.items():
            reads = [values[parent] for parent in parents] or [payload]
            values[name] = worker.step.bind(len(reads), *reads)
    made = values[shape.last].experimental_compile(_buffer_size_bytes=RAY_BUFFER)
    return lambda payload: ray.get(made.execute(payload))


def mediapipe(shape: Shape, code: Mapping[int, Body]) -> Run:  # noqa: ARG001 its nodes are native
    """Pass-through calculators under the C++ scheduler, one packet for a run."""
    from mediapipe.python import CalculatorGraph, packet_creator, packet_getter

    lines = ['input_stream: "payload"', f'output_stream: "{shape.last}"', "num_threads: 1"]
    for name in shape.parents:
        reads = _reads(shape, name)
        outs = [name, *(f"{name}_{index}" for index in range(1, len(reads)))]  # as many outputs as inputs; the first is read
        streams = [f'input_stream: "{read}"' for read in reads] + [f'output_stream: "{out}"' for out in outs]
        lines.append(f'node {{ calculator: "PassThroughCalculator" {" ".join(streams)} }}')
    graph = CalculatorGraph(graph_config="\n".join(lines))
    arrived: list[Any] = []
    graph.observe_output_stream(shape.last, lambda _, packet: arrived.append(packet))
    graph.start_run()
    packet, moment = packet_creator.create_string("payload"), [0]

    def run(payload: Any) -> Any:
        moment[0] += 1
        graph.add_packet_to_input_stream("payload", packet.at(moment[0]))
        graph.wait_until_idle()
        assert packet_getter.get_str(arrived.pop()) == "payload"
        return payload

    return run


PEERS: Mapping[str, Peer] = {
    "Hamilton": Peer("engines", "apache-hamilton", "hamilton", "driver, dictionary of results", hamilton),
    "Haystack": Peer("engines", "haystack-ai", "haystack", "Pipeline.run, which copies inputs", haystack, copies=True),
    "Kedro": Peer("engines", "kedro", "kedro", "SequentialRunner, data sets uncopied", kedro),
    "Dask": Peer("engines", "dask", "dask", "synchronous scheduler", dask),
    "LangGraph": Peer("engines", "langgraph", "langgraph.graph", "StateGraph.invoke, a channel for each node", langgraph),
    "Ray, compiled": Peer("engines", "ray", "ray.dag", "compiled graph on one actor", ray_compiled, copies=True, is_remote=True),
    "Ray, tasks": Peer("engines", "ray", "ray", "a task for each node", ray_tasks, copies=True, is_remote=True, skips=("thousand",)),
    "MediaPipe (C++)": Peer("mediapipe", "mediapipe", "mediapipe.python", "pass-through calculators, one thread", mediapipe),
}
NATIVE = ("MediaPipe (C++)",)  # nodes are no Python functions, so that calls cannot be counted


def quiet() -> None:
    """Turn off what the engines send and log; before they are imported."""
    os.environ.update(QUIET)
