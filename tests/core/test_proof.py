"""`plugins check` says what is true of a plugin: ok, failed or not run, why, and where its author finds it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

from modelgraft.cli import main
from modelgraft.engine.calls import record_check
from modelgraft.kernel.words.ports import port
from modelgraft.records.shipped import SHIPPED
from modelgraft.testing import ConformanceError, conform, imports_of, same
from support.running import TEXT, function

HEAD = """import os, sys, time
from pydantic import model_validator
from modelgraft import Config, Dim, Ports, component, hookimpl
print("torch numpy", flush=True)     # no names of modules
os.write(1, b"onnxruntime")
"""
TAIL = """
@hookimpl
def register_components(register):
    for subject in SUBJECTS:
        register(subject)
"""
MIXED = (
    HEAD
    + '''
@component("mixed/good", kind="preprocess", inputs={"text": "text"}, outputs={"text": "text"})
def good(text, *, times: int = 2):
    """Repeat."""
    print("torch")
    return [one * times for one in text]


@component("mixed/typo", kind="preprocess", inputs={"picture": "imgae"}, outputs={"text": "list[txt]"})
def typo(picture):
    """Be wired by nobody."""
    return [[""] for _ in picture]


@component("mixed/mute", kind="preprocess", inputs={"text": "text"}, outputs={})
def mute(text):
    """Give nothing."""
    return {}


@component("mixed/records", kind="preprocess", inputs={"text": "text"}, outputs={"text": "text", "labels": "list[label]"})
def records(text):
    """Give numbers where texts are wanted."""
    return {"text": [1, 2], "labels": [["a", 1], ["b"]]}


@component("mixed/nan", kind="preprocess", inputs={"x": "float[batch 3]"}, outputs={"y": "float[batch 3]"})
def nan(x):
    """Give no numbers."""
    return x * float("nan")


@component("mixed/refuses", kind="preprocess", inputs={"text": "text"}, outputs={"text": "text"})
def refuses(text):
    """Want dates."""
    raise ValueError("no date: " + text[0])


@component("mixed/fails", kind="preprocess", inputs={"text": "text"}, outputs={"text": "text"})
def fails(text):
    """Have a bug."""
    return [int(one) for one in text]


@component("mixed/leaves", kind="preprocess", inputs={"text": "text"}, outputs={"text": "text"})
def leaves(text):
    """End the process, politely."""
    sys.exit(0)


@component("mixed/gone", kind="head", module="mixed_gone:Gone", inputs={"x": "float[batch 3]"}, outputs={"y": "float[batch 3]"})
class Gone(Config):
    """Have code that cannot be imported."""


@component("mixed/odd", kind="head", load="mixed_odd:load", inputs={"text": "text"}, outputs={"text": "text"})
class Odd(Config):
    """Have code with a mistake in it."""


@component("mixed/told", kind="head", load="mixed_light:load", inputs={"text": "text"}, outputs={"text": "text"})
class Told(Config):
    """Want more than its fields say."""

    name: str = ""

    @model_validator(mode="after")
    def _is_told(self):
        if self.name != "a name that nobody guesses":
            raise ValueError("it needs a name")
        return self


@component("mixed/light", kind="head", load="mixed_light:load", inputs={"text": "text"}, outputs={"text": "text"})
class Light(Config):
    """Be loaded without a source."""


@component("mixed/files", kind="head", load="mixed_light:files", inputs={"text": "text"}, outputs={"text": "text"})
class Files(Config):
    """Read files of its source."""


@component("mixed/quits", kind="head", load="mixed_light:quits", inputs={"text": "text"}, outputs={"text": "text"})
class Quits(Config):
    """End the process while it is loaded."""


SUBJECTS = [Told, Light, Files, Quits, good, typo, mute, records, nan, refuses, fails, leaves, Gone, Odd]


@hookimpl
def register_weight_readers(register):
    register(".mixed", "mixed_odd:read")
    register(".gguf", "mixed_odd:read")
'''
    + TAIL
)
LIGHT = """
def load(config, context):
    return lambda text: [one.upper() for one in text]

def files(config, context):
    return context.weights.view

def quits(config, context):
    raise SystemExit(0)
"""
SLOW = (
    HEAD
    + '''
@component("slow/waits", kind="head", module="nowhere:A")
class Waits(Config):
    """Never answer."""

    def ports(self):
        time.sleep(1000)


@component("slow/dies", kind="head", module="nowhere:A")
class Dies(Config):
    """End the process behind our back."""

    def ports(self):
        os._exit(0)


@component("slow/typo", kind="head", inputs={"x": "imgae"}, outputs={"y": "text"})
def typo(x):
    """Be looked at all the same."""


SUBJECTS = [Waits, Dies, typo]
'''
    + TAIL
)


def installed(monkeypatch, folder, name, text, **more):
    """Let a plugin be installed in a folder, for this process and those that it starts."""
    for module, source in {name: text, **more}.items():
        (folder / f"{module}.py").write_text(source, encoding="utf-8")
    facts = folder / f"{name}-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text(f"[modelgraft]\n{name} = {name}\n")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)


def line_of(text, word):
    return text.splitlines().index(next(line for line in text.splitlines() if word in line)) + 1


def checked(capsys, *words):
    code = main(["plugins", "check", *words, "--json"])
    out = json.loads(capsys.readouterr().out)
    assert code == (0 if out["ok"] else 1)
    return {one["what"]: one for one in out["checks"]}


@pytest.mark.slow
def test_each_component_is_said_to_be_what_it_is(monkeypatch, capsys, tmp_path):
    """Ports that nobody can wire, wrong records, NaN, code that is not there, refusals and bugs: each as that, at its line."""
    installed(monkeypatch, tmp_path, "mixed", MIXED, mixed_odd="x = 1\ndef load(:\n", mixed_light=LIGHT)
    found = checked(capsys, "mixed")
    told = {what: f"{one['status']}: {one['message']}" for what, one in found.items()}
    assert told["import"] == told["hooks"] == told["mixed/good"] == told["mixed/light"] == "ok: "
    assert told["mixed/told"].startswith("not run: it needs a config (Value error, it needs a name)")
    assert told["mixed/files"].startswith("not run: it is not loaded without a source (AttributeError: 'NoneType' object")
    assert told["mixed/quits"] == "failed: loading it ends in SystemExit: 0"
    assert "input 'picture' is of the type 'imgae', which nobody offers. Did you mean 'image'?" in told["mixed/typo"]
    assert "output 'text' is of the type 'txt', which nobody offers" in told["mixed/typo"]
    assert told["mixed/mute"] == "failed: it has no output, so that no graph can need it"
    assert "ports: 'text' is declared text, but record 0 is 1" in told["mixed/records"]
    assert "ports: 'labels' is declared list[label], but record 0 is a list of 2" in told["mixed/records"]
    assert "numbers: 6 of 6 numbers of 'y' are NaN, and the inputs hold none" in told["mixed/nan"]
    assert "differs" not in told["mixed/nan"]
    assert told["mixed/refuses"].startswith("not run: it does not run on made-up inputs (ValueError: no date: a red fox in the snow)")
    assert told["mixed/fails"].startswith("failed: ValueError: invalid literal for int()")
    assert told["mixed/leaves"] == "failed: SystemExit: 0"
    assert told["mixed/gone"].startswith("failed: plugin 'mixed': component 'mixed/gone' names mixed_gone:Gone, which is not there")
    assert told["mixed/odd"].startswith("failed: plugin 'mixed': mixed_odd:load (component 'mixed/odd') cannot be imported: SyntaxError: ")
    assert told["weight reader .mixed"].startswith("failed: mixed_odd:read cannot be imported: SyntaxError: ")
    assert told["weight reader .gguf"] == "failed: it belongs to formats"
    places = {what: (Path(one["file"] or "").name, one["line"]) for what, one in found.items()}
    assert places["mixed/fails"] == ("mixed.py", line_of(MIXED, "int(one)"))
    assert places["mixed/leaves"] == ("mixed.py", line_of(MIXED, "sys.exit(0)"))
    assert places["mixed/refuses"] == ("mixed.py", line_of(MIXED, "raise ValueError"))
    assert places["mixed/typo"] == ("mixed.py", line_of(MIXED, '"mixed/typo"'))
    assert places["mixed/odd"] == places["weight reader .mixed"] == ("mixed_odd.py", 2)


@pytest.mark.slow
def test_what_takes_too_long_or_dies_is_ended_and_the_rest_is_looked_at(monkeypatch, capsys, tmp_path):
    """In a process of its own, which is started again behind what ended it."""
    installed(monkeypatch, tmp_path, "slow", SLOW)
    found = checked(capsys, "slow", "--timeout", "10")
    assert found["slow/waits"]["message"] == "it took longer than 10 s, and was ended; --timeout gives it more"
    assert found["slow/dies"]["message"] == "it ended the process (exit code 0) without an error"
    assert "imgae" in found["slow/typo"]["message"]


@pytest.mark.parametrize(
    ("text", "what", "message"),
    [
        ("x = 1\n", "hooks", "it implements no hook, so that nothing of it is used"),
        ("def register_components(register):\n    pass\n", "hooks", "register_components is not marked with @hookimpl"),
        ("from modelgraft import hookimpl\n@hookimpl\ndef register_components(register):\n    pass\n", "hooks", "offers nothing"),
        ("import os\nos._exit(0)\n", "import", "it ended the process (exit code 0) without an error"),
    ],
)  # fmt: skip
def test_a_plugin_that_offers_nothing_or_cannot_be_had_has_failed(monkeypatch, capsys, tmp_path, text, what, message):
    """It is never ok by having nothing to look at."""
    installed(monkeypatch, tmp_path, "alone", text)
    found = checked(capsys, "alone")[what]
    assert found["status"] == "failed"
    assert message in found["message"]


def test_what_a_module_prints_is_no_name_of_a_module(monkeypatch, tmp_path):
    """Neither print nor bytes written to the file descriptor; and a module that ends the process is not light."""
    (tmp_path / "prints.py").write_text("import os\nprint('torch')\nos.write(1, b' numpy ')\n")
    (tmp_path / "ends.py").write_text("import sys\nsys.exit(0)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    assert imports_of("prints") == frozenset()
    with pytest.raises(Exception, match="'ends' cannot be imported"):
        imports_of("ends")


def test_nan_equals_nan_and_nothing_else():
    """Two runs that give the same NaN do not differ."""
    nan, inf = float("nan"), float("inf")
    assert same(torch.tensor([nan, inf, 1.0]), torch.tensor([nan, inf, 1.0]))
    assert not same(torch.tensor([nan, 1.0]), torch.tensor([1.0, nan]))
    assert same([{"score": nan}], [{"score": nan}])
    assert not same(nan, 1.0)
    assert not same(1.0, 1.5)


def test_objects_without_an_equality_of_their_own_are_compared_by_what_they_hold():
    """Two runs make two objects; that is no difference."""

    class Held:
        def __init__(self, value):
            self.value = value

    assert same([Held(float("nan"))], [Held(float("nan"))])
    assert not same(Held(1), Held(2))


@pytest.mark.parametrize(
    ("kind", "records", "wrong"),
    [
        ("text", ["a", 1], "record 1 is 1"),
        ("image", ["cat.png"], "record 0 is 'cat.png'"),
        ("audio", [[0.1]], "record 0 is a list of 1"),
        ("list[list[label]]", [[["a"]], ["b"]], "record 1 is a list of 1"),
        ("conversation", ["hello"], "record 0 is 'hello'"),
        ("object", [1, "a"], ""),
        ("boxes", [[], ({},)], ""),
    ],
)
def test_records_are_values_of_their_type(kind, records, wrong):
    """By the type of the port, also inside lists; a text is no list of letters."""
    assert record_check(port(kind).type, SHIPPED)(records) == wrong


def test_conform_names_wrong_records():
    """As a run does."""
    with pytest.raises(ConformanceError, match="ports: 'out' is declared text, but record 0 is 3"):
        conform(function("toy/three", TEXT, {"out": "text"}, lambda x: [3 for _ in x]))
