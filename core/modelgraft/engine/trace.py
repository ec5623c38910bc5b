"""A run as a Chrome trace: open it in chrome://tracing or ui.perfetto.dev."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from modelgraft.engine.events import NodeFinished, NodeLoaded
from modelgraft.engine.result import Result, Span

MICROSECONDS = 1e6  # the unit of the format
LOADING = "load"


def chrome_trace(result: Result) -> dict[str, Any]:
    """The nodes of a run as spans, one row per thread, times in microseconds since the first; contents are not in it.

    Of a pipeline opened with `trace`, it is made of the events of the run: loads are spans as well, and nodes have the bytes of
    their outputs. Nodes that came from the cache stand at the start without a length. Empty for a pipeline opened with
    `timings=False` and without `trace`.
    """
    spans = _of_events(result) or result.timeline.read()
    start = min((span.start for span in spans), default=0.0)
    sizes = {event.node: event.bytes for event in result.timeline.events if isinstance(event, NodeFinished) and event.bytes is not None}
    rows = {name: number for number, name in enumerate(dict.fromkeys(span.thread for span in spans))}
    events: list[dict[str, Any]] = [
        {"name": "thread_name", "ph": "M", "pid": 1, "tid": number, "args": {"name": name}} for name, number in rows.items()
    ]
    for span in spans:
        facts = {"component": span.component, "cached": False}
        when = {"ts": (span.start - start) * MICROSECONDS, "dur": (span.end - span.start) * MICROSECONDS}
        kind = LOADING if span.thread == LOADING else "node"
        args = facts | ({"output_bytes": sizes[span.node]} if span.node in sizes and kind == "node" else {})
        events.append({"name": span.node, "cat": kind, "ph": "X", "pid": 1, "tid": rows[span.thread], **when, "args": args})
    events += [
        {"name": name, "cat": "cache", "ph": "i", "s": "p", "pid": 1, "tid": 0, "ts": 0.0, "args": {"cached": True}}
        for name in sorted(result.cached)
    ]
    return {"traceEvents": events, "displayTimeUnit": "ms"}


def _of_events(result: Result) -> Sequence[Span]:
    """The loads and nodes that events tell of, in the order in which they were over."""
    components = {span.node: span.component for span in result.timeline.read()}
    return [
        Span(
            event.node,
            components.get(event.node, ""),
            event.time - event.seconds,
            event.time,
            event.thread if isinstance(event, NodeFinished) else LOADING,
        )
        for event in result.timeline.events
        if isinstance(event, NodeFinished | NodeLoaded)
    ]
