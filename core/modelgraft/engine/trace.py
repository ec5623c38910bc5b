"""A run as a Chrome trace: open it in chrome://tracing or ui.perfetto.dev."""

from __future__ import annotations

from typing import Any

from modelgraft.engine.result import Result

MICROSECONDS = 1e6  # the unit of the format


def chrome_trace(result: Result) -> dict[str, Any]:
    """The nodes of a run as spans, one row per thread, times in microseconds since the first; contents are not in it.

    Nodes that came from the cache stand at the start without a length. Empty for a pipeline opened with `timings=False`.
    """
    spans = result.timeline.read()
    start = min((span.start for span in spans), default=0.0)
    sizes = result.timeline.bytes or {}
    rows = {name: number for number, name in enumerate(dict.fromkeys(span.thread for span in spans))}
    events: list[dict[str, Any]] = [
        {"name": "thread_name", "ph": "M", "pid": 1, "tid": number, "args": {"name": name}} for name, number in rows.items()
    ]
    for span in spans:
        facts = {"component": span.component, "cached": False}
        when = {"ts": (span.start - start) * MICROSECONDS, "dur": (span.end - span.start) * MICROSECONDS}
        args = facts | ({"output_bytes": sizes[span.node]} if span.node in sizes else {})
        events.append({"name": span.node, "cat": "node", "ph": "X", "pid": 1, "tid": rows[span.thread], **when, "args": args})
    events += [
        {"name": name, "cat": "cache", "ph": "i", "s": "p", "pid": 1, "tid": 0, "ts": 0.0, "args": {"cached": True}}
        for name in sorted(result.cached)
    ]
    return {"traceEvents": events, "displayTimeUnit": "ms"}
