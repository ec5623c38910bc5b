"""The Chrome trace of a run."""

from __future__ import annotations

import json

import modelgraft as mg
from modelgraft.engine.trace import chrome_trace
from support.running import document, function, graph_of, joiner, meeting, registry_of

NODES = {
    "left": {"use": "toy/meet", "in": {"x": "inputs.x"}},
    "right": {"use": "toy/meet", "in": {"x": "inputs.x"}},
    "end": {"use": "toy/join2", "in": {"x0": "left", "x1": "right"}},
}


def run(tmp_path, **options):
    graph = graph_of(registry_of(meeting(2), joiner(2)), tmp_path, document(NODES, inputs={"x": "object"}, outputs={"out": "end"}))
    with mg.open(graph, **options) as pipeline:
        return pipeline.run(x="abc")


def spans(trace):
    return {event["name"]: event for event in trace["traceEvents"] if event["ph"] == "X"}


def test_each_node_is_a_span_on_the_row_of_its_thread(tmp_path):
    """Two nodes that ran side by side overlap and stand in two rows; the join comes after both; rows are named."""
    trace = chrome_trace(run(tmp_path))
    found = spans(trace)
    left, right, end = found["left"], found["right"], found["end"]
    assert left["tid"] != right["tid"]
    assert max(left["ts"], right["ts"]) < min(left["ts"] + left["dur"], right["ts"] + right["dur"])
    assert end["ts"] >= max(left["ts"] + left["dur"], right["ts"] + right["dur"])
    assert left["dur"] >= 10_000, "microseconds"
    assert min(event["ts"] for event in found.values()) == 0
    assert left["args"] == {"component": "toy/meet", "cached": False}
    assert {event["tid"] for event in trace["traceEvents"] if event["ph"] == "M"} == {event["tid"] for event in found.values()}


def test_bytes_are_there_when_asked_for_and_contents_never(tmp_path):
    """`trace=True` measures what each node gave; the text itself is nowhere in the file."""
    trace = chrome_trace(run(tmp_path, trace=True))
    assert spans(trace)["left"]["args"]["output_bytes"] > 0
    assert "abc" not in json.dumps(trace)


def test_cached_nodes_are_marked(tmp_path):
    """A node that did not run stands in the trace as cached."""
    part = function("toy/keep", {"x": "text"}, {"out": "text"}, lambda x: x, cache=True)
    nodes = {"keep": {"use": "toy/keep", "in": {"x": "inputs.x"}}}
    graph = graph_of(registry_of(part), tmp_path, document(nodes, inputs={"x": "text"}, outputs={"out": "keep"}))
    with mg.open(graph) as pipeline:
        pipeline.run(x="a")
        trace = chrome_trace(pipeline.run(x="a"))
    assert spans(trace) == {}
    assert [event["name"] for event in trace["traceEvents"] if event.get("args", {}).get("cached")] == ["keep"]


def test_without_timings_there_are_no_spans(tmp_path):
    """`timings=False` keeps nothing."""
    assert chrome_trace(run(tmp_path, timings=False))["traceEvents"] == []


def test_a_trace_of_events_holds_the_loads_as_well(tmp_path):
    """In a row of their own, before the nodes that they are for; the second run has none."""
    graph = graph_of(registry_of(meeting(2), joiner(2)), tmp_path, document(NODES, inputs={"x": "object"}, outputs={"out": "end"}))
    with mg.open(graph, trace=True) as pipeline:
        first, second = (chrome_trace(pipeline.run(x="abc")) for _ in range(2))
    loads = [event for event in first["traceEvents"] if event.get("cat") == "load"]
    nodes = {event["name"]: event for event in first["traceEvents"] if event.get("cat") == "node"}
    assert {event["name"] for event in loads} == set(nodes) == {"left", "right", "end"}
    assert all(event["ts"] + event["dur"] <= nodes[event["name"]]["ts"] + 1 for event in loads)
    assert nodes["left"]["args"]["component"] == "toy/meet"
    assert not [event for event in second["traceEvents"] if event.get("cat") == "load"]
