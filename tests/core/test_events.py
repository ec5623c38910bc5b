"""Events: one class for each kind, described by a schema that those of real runs pass."""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from pathlib import Path
from types import ModuleType

import pytest

import modelgraft as mg
from modelgraft.engine import events
from modelgraft.tools.event_schema import event_schema
from support.command import commands
from support.running import TEXT, function, handing_on, opened, shout

jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is a development tool; the schema itself needs none")
VALIDATOR = jsonschema.Draft202012Validator(event_schema())
TORCH = {"register_backends": mg.hookimpl(lambda register: register("torch", "modelgraft_plugins.torch.backend:TorchBackend"))}


def part(id, load, monkeypatch, **facts):
    """A component whose code is loaded: what `load` gives."""
    name = f"support.{id.replace('/', '_')}"
    module = ModuleType(name)
    module.load = load
    monkeypatch.setitem(sys.modules, name, module)

    @mg.component(id, kind="head", load=f"{name}:load", inputs=TEXT, outputs={"out": "text"}, **facts)
    class Loaded(mg.Config):
        """Do what the test says."""

    return Loaded


class Teller:
    """Code that tells what it is told to."""

    warnings = ("its weights are random",)

    def __init__(self, *told):
        self.told = told

    def bind(self, runtime):
        """Take what a run offers."""
        self.runtime = runtime

    def __call__(self, x):
        """Tell, and hand on."""
        for kind, facts in self.told:
            self.runtime.emit(kind, **facts)
        return x


PREVIEW = ("preview", {"image": "a", "done": 1, "total": 2})


def told_by(pipeline, **inputs):
    """The events of a run, up to its error when it fails."""
    found = []
    with suppress(mg.ModelgraftError):
        for event in pipeline.stream(**inputs):
            found.append(event)  # noqa: PERF402 those before an error are wanted as well
    return found


def test_every_event_of_real_runs_passes_the_schema(tmp_path, monkeypatch):
    """A run that loads, tells, and gives outputs; one from the cache; one whose route leaves a node out; one that fails."""
    told = (
        ("token", {"text": "a"}),
        ("prompt-read", {"kept": 3, "tokens": 5}),
        ("guesses", {"passes": 4, "guessed": 6, "right": 3}),
        ("piece", {"port": "out", "value": "a"}),
        PREVIEW,
        ("progress", {"done": 1}),
        ("warning", {"text": "odd"}),
    )
    teller = part("toy/tell", lambda *_: Teller(*told), monkeypatch)

    def deny(x):
        return [False for _ in x]

    def fail(x):
        if x == ["bad"]:
            raise ValueError("no")
        return x

    parts = [
        teller,
        function("toy/keep", TEXT, {"out": "text"}, shout, cache=True),
        function("toy/deny", TEXT, {"out": "mask[batch]"}, deny),
        function("toy/fail", TEXT, {"out": "text"}, fail),
        handing_on(),
    ]
    nodes = {
        "tell": {"use": "toy/tell", "in": {"x": "inputs.x"}, "runtime": {"keep": False}},
        "keep": {"use": "toy/keep", "in": {"x": "tell"}},
        "deny": {"use": "toy/deny", "in": {"x": "inputs.x"}},
        "left": {"use": "toy/same", "in": {"x": "keep"}, "when": "deny"},
        "fail": {"use": "toy/fail", "in": {"x": "inputs.x"}},
    }
    with opened(tmp_path, parts, nodes, outputs={"a": "keep", "b": "left", "c": "fail"}, hooks=TORCH, device="cpu") as pipeline:
        runs = [told_by(pipeline, x=text) for text in ("good", "good", "bad")]
    for event in (event for run in runs for event in run):
        VALIDATOR.validate(json.loads(json.dumps(event.as_dict())))
    assert {event.kind for run in runs for event in run} == set(events.CLASSES), "every kind is among them"
    assert [run[0].kind for run in runs] == ["run-started"] * 3
    assert [run[-1].kind for run in runs] == ["result", "result", "run-failed"]


def test_the_schema_refuses_what_is_no_event():
    """Another kind, a fact that is missing, one too many, one of another type."""
    good = events.Token(node="llm", run="1", text="a").as_dict()
    VALIDATOR.validate(good)
    lacking = {name: value for name, value in good.items() if name != "text"}
    for bad in ({**good, "kind": "tokens"}, lacking, {**good, "extra": 1}, {**good, "record": "first"}):
        assert not VALIDATOR.is_valid(bad), bad


@pytest.mark.parametrize(
    ("told", "message"),
    [
        (
            ("tokens", {"text": "a"}),
            r"node 'tell' tells of 'tokens'; wanted: guesses, piece, preview, progress, prompt-read, token, warning",
        ),
        (("token", {"txt": "a"}), r"node 'tell' tells of 'token' with txt; wanted: record, text"),
    ],
)
def test_code_of_a_node_tells_what_an_event_has(tmp_path, monkeypatch, told, message):
    """Another kind, or other facts, are an error of the plugin that names them, also when nobody listens."""
    nodes = {"tell": {"use": "toy/tell", "in": {"x": "inputs.x"}}}
    with (
        opened(
            tmp_path, [part("toy/tell", lambda *_: Teller(told), monkeypatch)], nodes, outputs={"out": "tell"}, hooks=TORCH, device="cpu"
        ) as pipeline,
        pytest.raises(mg.PluginError, match=message),
    ):
        pipeline.run(x="a")


def test_a_record_has_its_number_in_the_batch_of_the_run(tmp_path, monkeypatch):
    """Also where a route lets others pass by: code counts the records that it was given."""
    told = ("token", {"text": "a", "record": 0}), ("piece", {"port": "out", "value": "b", "record": 1}), ("progress", {"done": 1})
    parts = [part("toy/tell", lambda *_: Teller(*told), monkeypatch), function("toy/some", TEXT, {"out": "mask[batch]"}, long)]
    nodes = {"some": {"use": "toy/some", "in": {"x": "inputs.x"}}, "tell": {"use": "toy/tell", "in": {"x": "inputs.x"}, "when": "some"}}
    with opened(tmp_path, parts, nodes, outputs={"out": "tell"}, hooks=TORCH, device="cpu") as pipeline:
        found = told_by(pipeline, x=["", "long", "", "longer"])
        assert [event.record for event in found if event.kind in {"token", "piece"}] == [1, 3]
        found = told_by(pipeline, x=["long", "longer"])
        assert [event.record for event in found if event.kind in {"token", "piece"}] == [0, 1]


def test_a_node_hears_what_another_tells_while_it_works(tmp_path, monkeypatch):
    """From when it is loaded, on the thread of who tells, and of each run by itself; what it then tells itself is of that run too."""
    heard = []

    class Hearer(Teller):
        """Notes the tokens of others, and says them itself."""

        def bind(self, runtime):
            super().bind(runtime)
            runtime.listen(self.hear)

        def hear(self, event):
            if event.kind == "token" and event.node == "tell":
                heard.append((event.run, event.text, self.runtime.run))
                self.runtime.emit("piece", port="out", value=event.text, record=event.record)

    parts = [
        part("toy/tell", lambda *_: Teller(("token", {"text": "a", "record": 0})), monkeypatch),
        part("toy/hear", lambda *_: Hearer(), monkeypatch),
    ]
    nodes = {"tell": {"use": "toy/tell", "in": {"x": "inputs.x"}}, "hear": {"use": "toy/hear", "in": {"x": "tell"}}}
    with opened(tmp_path, parts, nodes, outputs={"out": "hear"}, hooks=TORCH, device="cpu") as pipeline:
        pipeline.load()
        pipeline.run(x="b")
        found = told_by(pipeline, x="c")
    assert [kind for kind in (event.kind for event in found) if kind in {"token", "piece"}] == ["token", "piece"]
    assert [text for _, text, _ in heard] == ["a", "a"]
    assert all(told == serving for told, _, serving in heard)
    assert heard[0][0] != heard[1][0] == found[0].run


def long(x):
    """Which texts have letters."""
    return [bool(text) for text in x]


def test_facts_are_read_by_name_and_as_attributes():
    """What an event tells, without what all of them have; what it does not tell is a KeyError."""
    event = events.Progress(node="a", done=2, total=3)
    assert (event["done"], event.total, dict(event.facts)) == (2, 3, {"done": 2, "total": 3, "label": "step"})
    with pytest.raises(KeyError, match="text"):
        event["text"]


def test_the_schema_of_events_is_printed(tmp_path, monkeypatch, capsys):
    """`modelgraft schema --events`."""
    code, out, _ = commands(monkeypatch, tmp_path, capsys)("schema", "--events")
    assert code == 0
    assert [each["properties"]["kind"]["const"] for each in json.loads(out)["oneOf"]] == list(events.EVENT_KINDS)


def test_the_readme_of_the_engine_lists_every_event():
    """Kind, class, what it means and what it tells, in the order of the code."""
    text = (Path(events.__file__).parent / "README.md").read_text(encoding="utf-8")
    rows = []
    for kind, event in events.CLASSES.items():
        facts = ", ".join(f"`{fact}`" for fact in events.facts_of(event))
        rows.append(f"| `{kind}` | `{event.__name__}` | {events.EVENT_KINDS[kind].rstrip('.')} | {facts} |")
    assert "\n".join(rows) in text


def test_a_plugin_hears_every_event_of_every_run(tmp_path):
    """Runs, streams and maps, through the hook `on_event`; one that fails is a warning, told once a run, and changes nothing else."""
    heard = []

    @mg.hookimpl
    def on_event(event):
        heard.append(event)
        if event.kind == "output":
            raise ValueError("I am deaf")

    part = function("toy/shout", TEXT, {"out": "text"}, shout)
    nodes = {"a": {"use": "toy/shout", "in": {"x": "inputs.x"}}}
    with opened(tmp_path, [part], nodes, outputs={"out": "a"}, hooks={"on_event": on_event}) as pipeline:
        result = pipeline.run(x="a")
        streamed = list(pipeline.stream(x="b"))
        mapped = list(pipeline.map([{"x": "c"}]))
    by_run: dict[str, list[str]] = {}
    for event in heard:
        by_run.setdefault(event.run, []).append(event.kind)
    assert len(by_run) == 3
    kinds = ["run-started", "node-started", "node-finished", "output", "result"]
    assert [[kind for kind in run if "load" not in kind] for run in by_run.values()] == [kinds] * 3
    assert [event.kind for event in streamed] == list(by_run.values())[1]
    assert (result["out"], mapped[0]["out"]) == ("A", "C")
    assert len(result.warnings) == 1
    assert result.warnings[0].startswith("plugin 'toy': its hook on_event failed: ValueError: I am deaf")
