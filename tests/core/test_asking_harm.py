"""Branches that records ask several times, where they meet routes, absence, failures and plugins that break what they declare."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from types import ModuleType

import pytest
import torch
import yaml

import modelgraft as mg
from modelgraft import ABSENT, port
from modelgraft.installed.discovery import assemble
from modelgraft_plugins import torch as torch_backend
from support.running import Counter, document, function, graph_of, registry_of

WORDS = port("text", several="words")
SIZES = port("float[batch 1]", several="words")
MARK = {"runtime": {"failure": "mark"}}
X = "inputs.x"


def cut(x):
    return [text.split() for text in x]


def pair(word, x=None):
    return [f"{one}|{'' if x is None else x[index]}" for index, one in enumerate(word)]


def longer(x, y=None):
    """Words of a text, and of a second one where there is one: records with and without it run in groups."""
    return cut([f"{text} {'' if y is None else y[index]}" for index, text in enumerate(x)])


def uneven(x):
    return {"word": cut(x), "size": [torch.zeros(1, 1) for _ in x]}


def refuse_bad(x):
    if "bad" in x:
        raise RuntimeError("no luck")
    return x


TABLE = [
    ("cut", {"x": "text"}, {"word": WORDS}, cut),
    ("longer", {"x": "text", "y": port("optional[text]")}, {"word": WORDS}, longer),
    ("cut_or_fail", {"x": "text"}, {"word": WORDS}, lambda x: cut(refuse_bad(x))),
    ("pair", {"word": "text", "x": port("optional[text]")}, {"out": "text"}, pair),
    ("joined", {"xs": "list[text]"}, {"out": "text"}, lambda xs: ["+".join(x) for x in xs]),
    ("has_b", {"x": "text"}, {"out": "mask[batch]"}, lambda x: ["b" in one for one in x]),
    ("same", {"x": "text"}, {"out": "text"}, lambda x: x),
    ("never", {"x": "text"}, {"out": port("optional[text]")}, lambda x: [ABSENT] * len(x)),
    ("length", {"x": "text"}, {"out": "float[batch 1]"}, lambda x: torch.tensor([[float(len(one))] for one in x])),
    ("sum", {"x": "float[batch n]"}, {"out": "float[]"}, lambda x: x.sum()),
    ("twice", {"x": "float[]"}, {"out": "float[]"}, lambda x: x * 2),
    ("masks", {"x": "text"}, {"out": port("mask[batch]", several="words")}, lambda x: [[len(a) > 2 for a in words] for words in cut(x)]),
    ("not", {"x": "mask[batch]"}, {"out": "mask[batch]"}, lambda x: ~x),
    ("flags", {"x": port("mask[batch]", several="*")}, {"out": "object"}, lambda x: [[bool(one) for one in each] for each in x]),
    ("sizes", {"x": "text"}, {"out": SIZES}, lambda x: [torch.ones(len(words), 1) if words else [] for words in cut(x)]),
    ("numbers", {"x": port("float[batch n]", several="*")}, {"out": "object"}, lambda x: [[one.tolist() for one in each] for each in x]),
    ("all", {"x": port("text", several="*")}, {"out": "object"}, lambda x: x),
    ("uneven", {"x": "text"}, {"word": WORDS, "size": SIZES}, uneven),
    ("unlike", {"x": "text"}, {"size": port("float[batch n]", several="words")}, lambda x: [torch.ones(1, len(one)) for one in x]),
]  # fmt: skip


def node(use, when=None, **wired):
    return {"use": f"toy/{use}", "in": wired, **({} if when is None else {"when": when})}


def checked(tmp_path, nodes, outputs, *parts):
    registry = registry_of(*(function(f"toy/{name}", *facts, cache=True) for name, *facts in TABLE), *parts)
    return graph_of(registry, tmp_path, document(nodes, inputs={"x": "text"}, outputs=outputs))


def opened(tmp_path, nodes, outputs, *parts):
    return mg.open(checked(tmp_path, nodes, outputs, *parts))


CUT, ALL = node("cut", x=X), node("all", x="same")
HAS_B, JOINED = node("has_b", x=X), node("joined", xs=["s", "cut", X])
RULES = {
    "a route within the branch alone decides": (
        {"cut": CUT, "b": node("has_b", x="cut"), "same": node("same", x=X, when="b"), "all": ALL}, "all",
        ["a b", "", "bb"], [[ABSENT, "a b"], [], ["bb"]]),
    "an optional input alone stands in the branch": (
        {"cut": CUT, "same": node("pair", word=X, x="cut"), "all": ALL}, "all",
        ["a b", "", "c"], [["a b|a", "a b|b"], [], ["c|c"]]),
    "a route before what asks": (
        {"b": HAS_B, "cut": node("cut", x=X, when="b"), "same": node("same", x="cut"), "all": ALL}, "all",
        ["a b", "c", "b"], [["a", "b"], [], ["b"]]),
    "a route of records on a node in the branch": (
        {"b": HAS_B, "cut": CUT, "same": node("same", x="cut", when="b"), "all": ALL}, "all",
        ["a b", "c d", "b"], [["a", "b"], [ABSENT, ABSENT], ["b"]]),
    "what asks runs in groups": (
        {"b": HAS_B, "y": node("same", x=X, when="b"), "cut": node("longer", x=X, y="y"), "same": node("same", x="cut"), "all": ALL}, "all",
        ["a b", "c d", "b"], [["a", "b", "a", "b"], ["c", "d"], ["b", "b"]]),
    "a list of wires takes asks and records": (
        {"cut": CUT, "b": node("has_b", x="cut"), "s": node("same", x="cut", when="b"), "same": JOINED, "all": ALL}, "all",
        ["a b", "", "bb"], [["a+a b", "b+b+a b"], [], ["bb+bb+bb"]]),
    "nothing comes of any ask": (
        {"cut": CUT, "same": node("never", x="cut"), "all": ALL}, "all", ["a b", "", "c"], [[ABSENT, ABSENT], [], [ABSENT]]),
    "truth values, also of no ask": (
        {"m": node("masks", x=X), "not": node("not", x="m"), "all": node("flags", x="not")}, "all",
        ["abc d", "", "e"], [[False, True], [], [True]]),
    "a list of no asks beside tensors": (
        {"s": node("sizes", x=X), "all": node("numbers", x="s")}, "all", ["abc d", "", "e"], [[[1.0], [1.0]], [], [[1.0]]]),
    "an output within the branch": ({"cut": CUT, "same": node("same", x="cut")}, "same", ["a b", "", "c"], [["a", "b"], [], ["c"]]),
    "an output of which nothing comes": ({"cut": CUT, "same": node("never", x="cut")}, "same", ["a b", ""], [[ABSENT, ABSENT], []]),
}  # fmt: skip


@pytest.mark.parametrize("rule", RULES)
def test_a_batch_and_its_records_alone(tmp_path, rule):
    """Each record has what was worked out by hand, in a batch, alone, in a map, and as the event of an output."""
    nodes, output, texts, wanted = RULES[rule]
    with opened(tmp_path, nodes, {"out": output}) as pipeline, pipeline.without_cache():
        assert pipeline.run(x=texts)["out"] == wanted
        assert [pipeline.run(x=text)["out"] for text in texts] == wanted
        assert [found["out"] for found in pipeline.map([{"x": text} for text in texts], batch_size=2)] == wanted
        with pipeline.stream(x=texts) as events:
            assert [event.value for event in events if event.kind == "output"] == [wanted]


def test_what_is_not_made_of_rows_is_not_of_the_branch(tmp_path):
    """The sum over all asks is one number for all, which goes on as any other."""
    nodes = {"cut": CUT, "length": node("length", x="cut"), "sum": node("sum", x="length"), "twice": node("twice", x="sum")}
    with opened(tmp_path, nodes, {"out": "twice"}) as pipeline:
        assert pipeline.run(x=["an ox", "", "cow"])["out"] == 14.0
        assert pipeline.run(x="")["out"] is ABSENT


def test_a_second_process_finds_asks_in_the_folder(tmp_path):
    nodes = {"cut": CUT, "same": node("count", x="cut"), "length": node("length", x="cut"), "all": ALL, "n": node("numbers", x="length")}
    ran = Counter()
    counted = function("toy/count", {"x": "text"}, {"out": "text"}, lambda x: ran.note(1) or x, cache=True)
    graph = checked(tmp_path, nodes, {"all": "all", "n": "n", "same": "same"}, counted)
    for _ in range(2):
        with mg.open(graph, cache_dir=tmp_path / "kept") as pipeline:
            found = pipeline.run(x=["a bb", "", "ccc"])
        assert found["all"] == found["same"] == [["a", "bb"], [], ["ccc"]]
        assert found["n"] == [[[1.0], [2.0]], [], [[3.0]]]
    assert len(ran.calls) == 1


# -- failures that are marked ---------------------------------------------------------------------------------------------


def test_a_router_that_fails_for_a_record_asks_for_the_others(tmp_path):
    nodes = {"cut": {**node("cut_or_fail", x=X), **MARK}, "same": node("same", x="cut"), "all": ALL}
    with opened(tmp_path, nodes, {"all": "all"}) as pipeline:
        result = pipeline.run(x=["a b", "bad", "c d"])
        assert result["all"] == [["a", "b"], [], ["c", "d"]]
        assert len(result.warnings) == 1


def failing(*errors):
    """A part that raises these, one for each call, and then gives what it gets."""
    left = list(errors)

    def run(x):
        if left:
            raise left.pop(0)
        return x

    return function("toy/flaky", {"x": "text"}, {"out": "text"}, run, cache=True)


def test_a_failure_is_not_kept_and_told_once(tmp_path):
    """The second run computes what the first could not; `after` follows from the failure, and is not kept either."""
    nodes = {"flaky": {**node("flaky", x=X), **MARK}, "after": node("pair", word=X, x="flaky")}
    with opened(tmp_path, nodes, {"out": "after"}, failing(*[MemoryError("no room")] * 3)) as pipeline:
        first, second = pipeline.run(x=["a", "b"]), pipeline.run(x=["a", "b"])
        assert (second.cached, pipeline.run(x=["a", "b"]).cached) == (set(), {"flaky", "after"})
        assert (first["out"], second["out"], second.warnings) == (["a|", "b|"], ["a|a", "b|b"], ())
        told = "flaky: failed 2 times, and the run goes on without what it would have given: MemoryError: no room"
        assert first.warnings == (told,)


def test_a_node_that_failed_is_told_as_failed(tmp_path):
    nodes = {"flaky": {**node("flaky", x=X), **MARK}, "same": node("same", x="flaky")}
    with opened(tmp_path, nodes, {"out": "same"}, failing(RuntimeError("no"))) as pipeline, pipeline.stream(x="a") as events:
        found = {event.node: event.reason for event in events if event.kind == "node-skipped"}
    assert found == {"flaky": "it failed", "same": "no record came to it"}


def test_a_failure_keeps_nothing_of_what_the_call_has_taken(tmp_path):
    """While the rows are tried one by one, the batch that failed is gone, also where its error stands in a cycle."""
    seen, alive = [], []

    def hungry(x):
        alive.append([one() is not None for one in seen])
        if len(x) > 1:
            taken = torch.zeros(len(x))
            seen.append(weakref.ref(taken))
            try:
                raise torch.OutOfMemoryError("out of memory") from ValueError(taken)
            except torch.OutOfMemoryError as error:
                error.held = error
                raise
        return x

    part = function("toy/hungry", {"x": "text"}, {"out": "text"}, hungry)
    gc.disable()
    try:
        with opened(tmp_path, {"h": {**node("hungry", x=X), **MARK}}, {"out": "h"}, part) as pipeline:
            assert pipeline.run(x=["a", "b"])["out"] == ["a", "b"]
    finally:
        gc.enable()
    assert alive == [[], [False], [False]]


def test_what_has_no_batch_axis_fails_as_a_whole(tmp_path):
    def fragile(x):
        ran.note(len(x))
        if len(x) > 1:
            raise RuntimeError("no")
        return torch.tensor(1.0)

    ran = Counter()
    part = function("toy/fragile", {"x": "text"}, {"out": "float[]"}, fragile)
    with opened(tmp_path, {"f": {**node("fragile", x=X), **MARK}}, {"out": "f"}, part) as pipeline:
        assert pipeline.run(x=["a", "b"])["out"] == [ABSENT, ABSENT]
    assert ran.calls == [2]


def test_a_run_that_is_stopped_marks_nothing(tmp_path):
    """Code that is told to stop may fail in its own words: that is no failure to go on without, and no row is tried alone."""
    ran = Counter()

    def stopped(x):
        ran.note(len(x))
        pipeline.cancel()
        raise RuntimeError("the loop was left")

    part = function("toy/stopped", {"x": "text"}, {"out": "text"}, stopped)
    with opened(tmp_path, {"s": {**node("stopped", x=X), **MARK}}, {"out": "s"}, part) as pipeline:
        with pytest.raises(mg.ModelgraftError):
            pipeline.run(x=["a", "b"])
        assert ran.calls == [2]


def test_ctrl_c_stops_a_marked_node(tmp_path):
    import _thread

    def interrupted(x):
        ran.note(len(x))
        _thread.interrupt_main()
        for _ in range(1000):
            torch.zeros(1)
        return x

    ran = Counter()
    part = function("toy/interrupted", {"x": "text"}, {"out": "text"}, interrupted)
    with opened(tmp_path, {"i": {**node("interrupted", x=X), **MARK}}, {"out": "i"}, part) as pipeline:
        with pytest.raises(mg.Cancelled, match="stopped by the user"):
            pipeline.run(x=["a", "b"])
        assert ran.calls == [2]


def test_what_cannot_be_loaded_is_tried_once_and_marked(tmp_path):
    """Not once for each ask: it would fail for each alike. A later run loads it again, and goes through."""

    @mg.component("toy/heavy", kind="head", load=f"{__name__}:load_heavy", inputs={"x": "text"}, outputs={"out": "text"})
    class Heavy(mg.Config):
        """Needs room."""

        room: str

    room = tmp_path / "room"
    heavy = {**node("heavy", x="cut"), **MARK, "lazy": True, "with": {"room": str(room)}}
    parts = [Heavy, *(function(f"toy/{name}", *facts) for name, *facts in TABLE)]
    toy = ModuleType("toy")
    toy.register_components = mg.hookimpl(lambda register: [register(part) for part in parts] and None)
    written = document({"cut": CUT, "same": heavy, "all": ALL}, inputs={"x": "text"}, outputs={"all": "all"})
    with mg.open(graph_of(assemble({"toy": toy, "torch": torch_backend}), tmp_path, written)) as pipeline:
        first = pipeline.run(x=["a b", "c"])
        assert room.read_text() == "asked "
        room.write_text("there is room ")
        assert pipeline.run(x=["a b", "c"])["all"] == [["a", "b"], ["c"]]
    assert first["all"] == [[ABSENT, ABSENT], [ABSENT]]
    (told,) = first.warnings
    assert told.startswith("same: failed, and the run goes on without what it would have given: ")
    assert "MemoryError: no room" in told
    assert "\n" not in told


def load_heavy(config, context):
    room = Path(config.room)
    if room.exists() and "there is room" in room.read_text():
        return lambda x: x
    with room.open("a") as asked:
        asked.write("asked ")
    raise MemoryError("no room")


def test_a_branch_crosses_the_border_of_graphs(tmp_path):
    """One inner graph asks, another one stands in the branch, and knows nothing of it."""
    asks = {"cut": CUT, "same": node("same", x="cut")}
    inner = {"pair": node("pair", word="inputs.word", x="inputs.whole")}
    for name, nodes, inputs, outputs in (
        ("asks", asks, {"x": "text"}, {"word": "same", "raw": "cut"}),
        ("inner", inner, {"word": "text", "whole": "text"}, {"out": "pair"}),
    ):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(document(nodes, inputs=inputs, outputs=outputs)), encoding="utf-8")
    nodes = {
        "asks": {"use": "graph:./asks.yaml", "in": {"x": X}},
        "inner": {"use": "graph:./inner.yaml", "in": {"word": "asks.word", "whole": X}},
        "all": node("all", x="inner.out"),
        "raw": node("all", x="asks.raw"),
    }
    with opened(tmp_path, nodes, {"all": "all", "raw": "raw", "inner": "inner.out"}) as pipeline:
        found = pipeline.run(x=["a b", "", "c"])
    assert found["all"] == found["inner"] == [["a|a b", "b|a b"], [], ["c|c"]]
    assert found["raw"] == [["a", "b"], [], ["c"]]


def test_a_plugin_that_exits_is_a_failure(tmp_path):
    def leaving(x):
        raise SystemExit("bye")

    part = function("toy/leaving", {"x": "text"}, {"out": "text"}, leaving)
    with opened(tmp_path, {"f": {**node("leaving", x=X), **MARK}}, {"out": "f"}, part) as pipeline:
        assert pipeline.run(x="a")["out"] is ABSENT


# -- plugins that break what they declare -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("given", "said"), [
    (["ab", "cd"], "found 'ab' for record 0, wanted a list of its asks"),
    ([["a"], {"b": 1}], "found a dict for record 1, wanted a list of its asks"),
    ([None, None], "found None for record 0, wanted a list of its asks"),
    ([["a"], iter("b")], "for record 1, wanted a list of its asks"),
    (None, "found None, wanted a list of 2"),
    ([["a"], ["b"], ["c"]], "found a list of 3, wanted a list of 2"),
])  # fmt: skip
def test_what_is_no_list_of_asks_is_told_with_its_record(tmp_path, given, said):
    part = function("toy/odd", {"x": "text"}, {"word": WORDS}, lambda x: given)
    with opened(tmp_path, {"odd": node("odd", x=X)}, {"out": "odd"}, part) as pipeline, pytest.raises(mg.NodeError) as error:
        pipeline.run(x=["a", "b"])
    assert said in str(error.value)


def test_outputs_that_ask_together_ask_as_often(tmp_path):
    nodes = {"u": node("uneven", x=X), "n": node("numbers", x="u.size"), "a": node("all", x="u.word")}
    with opened(tmp_path, nodes, {"n": "n", "a": "a"}) as pipeline:
        assert pipeline.run(x=["a", "b"])["a"] == [["a"], ["b"]]
        with pytest.raises(mg.NodeError, match="for record 1 the output 'word' asks 2 times, 'size' 1; wanted the same number"):
            pipeline.run(x=["a", "b c"])


def test_tensors_of_unlike_asks_are_no_batch(tmp_path):
    nodes = {"u": node("unlike", x=X), "n": node("numbers", x="u")}
    said = r"output 'size': its records ask with \[1, 1\] and \[1, 2\], which is no single batch"
    with opened(tmp_path, nodes, {"n": "n"}) as pipeline, pytest.raises(mg.NodeError, match=said):
        pipeline.run(x=["a", "bc"])
