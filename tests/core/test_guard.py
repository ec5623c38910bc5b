"""Code of a plugin may raise anything, also what ends processes: each becomes one error that names it. Ctrl-C alone goes through."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from types import ModuleType

import pytest
import typer

import modelgraft as mg
from modelgraft.cli import main
from modelgraft.commands import Answering, session_of
from modelgraft.installed.discovery import assemble
from modelgraft.kernel.planning.planner import plan
from modelgraft.kernel.words.guard import Escaped, contained, is_heard, said, shown
from support.running import TEXT, branches, document, function, graph_of, handing_on, opened, registry_of


class Unreadable(BaseException):
    """An error whose text is an error as well."""

    def __str__(self):
        raise SystemExit(0)


ENDS = [SystemExit(0), GeneratorExit(), KeyboardInterrupt(), Unreadable(), MemoryError()]
every_end = pytest.mark.parametrize("error", ENDS, ids=lambda error: f"{type(error).__name__}{error.args}")


def raiser(error):
    def run(*_args, **_options):
        raise error

    return run


# -- the mechanism ------------------------------------------------------------------------------------------------------


@every_end
def test_what_is_no_exception_comes_out_as_one(error):
    """With the words of what was raised; an Exception stays what it is."""
    with pytest.raises(Exception) as caught, contained():  # noqa: PT011 the point is that it is an Exception
        raise error
    assert caught.value is error if isinstance(error, Exception) else caught.value.__cause__ is error
    assert said(caught.value).startswith(type(error).__name__)


def test_ctrl_c_is_heard_and_a_raise_is_not():
    """Whether it comes by the default handler or by one of ours; a plugin that raises it itself is no user."""
    with pytest.raises(KeyboardInterrupt) as heard, contained():
        signal.raise_signal(signal.SIGINT)
    assert is_heard(heard.value)
    with pytest.raises(Escaped) as caught, contained():
        raise KeyboardInterrupt
    assert not is_heard(caught.value.__cause__)

    def again():
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise

    with pytest.raises(KeyboardInterrupt), contained():
        again()


@pytest.mark.parametrize("error", ENDS)
def test_a_value_that_cannot_be_spelled_is_named_by_its_type(error):
    """In messages, where its repr is code of a plugin."""
    odd = type("Odd", (), {"__repr__": raiser(error), "__str__": raiser(error)})()
    assert shown(odd) == "<Odd that cannot be spelled>"


# -- before a run -------------------------------------------------------------------------------------------------------


def bad_config(where, error):
    """A component whose light code fails in one place."""

    def validate(cls, values):
        raise error

    body = {
        "__module__": __name__,
        "__doc__": "Fail.",
        "from_source": classmethod(raiser(error)),
        "ports": raiser(error),
        "parameters": raiser(error),
        "review": raiser(error),
        "width": property(raiser(error)),
        "validate": mg_validator(validate),
    }
    kept = {name: value for name, value in body.items() if name in ("__module__", "__doc__", where)}
    config = type("Bad", (mg.Config,), kept)
    ports = {} if where == "ports" else {"inputs": {"x": "text"}, "outputs": {"y": "text" if where != "width" else "float[batch width]"}}
    return mg.component("toy/bad", kind="head", module="nowhere:Bad", **ports)(config)


def mg_validator(validate):
    from pydantic import model_validator

    return model_validator(mode="before")(classmethod(validate))


@every_end
@pytest.mark.parametrize("where", ["from_source", "ports", "parameters", "review", "width", "validate"])
def test_light_code_that_fails_is_told_with_its_plugin_and_its_line(tmp_path, where, error):
    """As a problem of the graph, or as an error of the plan; a process is not ended by it."""
    (tmp_path / "config.json").write_text("{}")
    node = {"use": "toy/bad", "in": {"x": "inputs.x"}, **({"from": "./"} if where == "from_source" else {})}
    text = document({"n": node}, inputs=TEXT, outputs={"out": "n"})
    with pytest.raises((mg.GraphError, mg.PluginError)) as caught:
        plan(graph_of(registry_of(bad_config(where, error)), tmp_path, text))
    if where == "from_source" and isinstance(error, Exception):
        assert "toy/bad cannot use" in str(caught.value)
    else:
        assert type(error).__name__ in str(caught.value)
    if where in ("ports", "review", "parameters"):
        assert f"this is a defect of the plugin 'toy': {__file__}:" in str(caught.value)


# -- in a run -----------------------------------------------------------------------------------------------------------


@every_end
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("way", ["run", "stream", "map"])
def test_a_node_that_fails_names_itself(tmp_path, error, count, way):
    """Straight and in lanes, and whoever asks."""
    graph = branches(tmp_path, raiser(error), *([lambda x: x] * (count - 1)))
    with mg.open(graph) as pipeline:
        if way == "map":
            found = [result.error for result in pipeline.map([{"x": 1}, {"x": 2}], outputs=["o0"])]
        else:
            with pytest.raises(mg.NodeError) as caught:
                list(pipeline.stream(x=1)) if way == "stream" else pipeline.run(x=1)
            found = [caught.value]
    for one in found:
        assert type(one) is mg.NodeError
        assert f"node 'n0' (toy/n0, plugin 'toy') failed: {said(error)}" in str(one)


@every_end
@pytest.mark.parametrize("where", ["load", "bind", "import"])
def test_code_that_fails_while_it_loads_is_an_error_of_its_plugin(tmp_path, monkeypatch, error, where):
    """With the node; and nodes that run in lanes load as well."""

    class Code:
        bind = raiser(error)

        def __call__(self, x):
            return x

    module = ModuleType("toy_loading")
    module.load = raiser(error) if where == "load" else lambda config, context: Code()
    if where == "import":
        (tmp_path / "toy_importing.py").write_text("from toy_loading import error\nraise error\n")
        module.error = error
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.delitem(sys.modules, "toy_importing", raising=False)
    monkeypatch.setitem(sys.modules, "toy_loading", module)
    target = "toy_importing:load" if where == "import" else "toy_loading:load"
    config = type("Loaded", (mg.Config,), {"__module__": __name__, "__doc__": "Load."})
    part = mg.component("toy/loaded", kind="head", load=target, inputs=TEXT, outputs={"out": "text"})(config)
    hooks = {"register_backends": mg.hookimpl(lambda register: register("torch", "modelgraft_plugins.torch.backend:TorchBackend"))}
    with (
        opened(tmp_path, [part], {"n": {"use": "toy/loaded", "in": {"x": "inputs.x"}}}, outputs={"out": "n"}, hooks=hooks) as pipeline,
        pytest.raises(mg.PluginError) as caught,
    ):
        pipeline.run(x="a")
    assert said(error) in str(caught.value)
    assert "'toy'" in str(caught.value)


@every_end
@pytest.mark.parametrize("where", ["made", "load", "close"])
def test_a_backend_that_fails_is_named_and_the_others_are_closed(tmp_path, monkeypatch, error, where):
    """Closing goes on to the end, and says what failed."""
    closed = []

    class Odd:
        name = "odd"

        def __init__(self):
            if where == "made":
                raise error

        def load(self, context, shared):
            from modelgraft.engine.backend import Loaded

            if where == "load":
                raise error
            return Loaded(lambda x: x, close=raiser(error) if context.node.name == "a" else lambda: closed.append(context.node.name))

        close = raiser(error)

    module = ModuleType("toy_odd")
    module.Odd = Odd
    monkeypatch.setitem(sys.modules, "toy_odd", module)
    config = type("Placed", (mg.Config,), {"__module__": __name__, "__doc__": "Load."})
    part = mg.component("toy/placed", kind="head", load="toy_odd:none", inputs=TEXT, outputs={"out": "text"})(config)
    hooks = {"register_backends": mg.hookimpl(lambda register: register("torch", "toy_odd:Odd"))}
    nodes = {"a": {"use": "toy/placed", "in": {"x": "inputs.x"}}, "b": {"use": "toy/placed", "in": {"x": "a"}}}
    pipeline = opened(tmp_path, [part], nodes, outputs={"out": "b"}, hooks=hooks, device="cpu")
    if where == "close":
        assert pipeline.run(x="p")["out"] == "p"
        with pytest.warns(RuntimeWarning) as warned:
            pipeline.close()
        assert sorted(str(one.message).partition(" could")[0] for one in warned) == ["node 'a'", "the backend 'torch'"]
        assert closed == ["b"]
        return
    with pytest.raises(mg.PluginError) as caught:
        pipeline.run(x="p")
    assert said(error) in str(caught.value)
    pipeline._loader._backends.clear()  # its close fails as well, and is told above
    pipeline.close()


@every_end
@pytest.mark.parametrize("hook", ["before_node", "after_node", "on_node_load", "on_node_error"])
def test_who_watches_changes_nothing(tmp_path, error, hook):
    """A hook that fails is a warning that names its plugin; the node's own answer, or error, stands."""
    failing = function("toy/same", {"x": "object"}, {"out": "object"}, lambda x: 1 / 0)
    part = failing if hook == "on_node_error" else handing_on()
    implemented = raiser(error)
    hooks = {hook: mg.hookimpl(lambda node: implemented())}
    nodes = {"n": {"use": "toy/same", "in": {"x": "inputs.x"}}}
    with opened(tmp_path, [part], nodes, inputs={"x": "object"}, outputs={"out": "n"}, hooks=hooks) as pipeline:
        if hook == "on_node_error":
            with pytest.raises(mg.NodeError, match="ZeroDivisionError"):
                pipeline.run(x=3)
            return
        result = pipeline.run(x=3)
    assert result["out"] == 3
    assert any(f"plugin 'toy': its hook {hook} failed: {said(error)}" in warning for warning in result.warnings)


def test_ctrl_c_while_a_hook_runs_stops_the_run(tmp_path):
    """A hook is no place where the user is not heard."""
    hooks = {"before_node": mg.hookimpl(lambda node: signal.raise_signal(signal.SIGINT))}
    nodes = {"n": {"use": "toy/same", "in": {"x": "inputs.x"}}}
    with opened(tmp_path, [handing_on()], nodes, inputs={"x": "object"}, outputs={"out": "n"}, hooks=hooks) as pipeline:
        with pytest.raises(mg.Cancelled) as caught:
            pipeline.run(x=3)
        assert is_heard(caught.value.__cause__)


@every_end
@pytest.mark.parametrize("moment", ["peek", "read", "import"])
def test_a_weight_reader_that_fails_is_named(tmp_path, monkeypatch, error, moment):
    """Before the file is read, and while it is; nothing is kept of it."""
    from modelgraft.sources import conversions

    monkeypatch.setenv("MODELGRAFT_CACHE", str(tmp_path / "cache"))
    module = ModuleType("toy_reader")
    module.peek = raiser(error) if moment == "peek" else lambda path: {}
    module.read = raiser(error)
    monkeypatch.setitem(sys.modules, "toy_reader", module)
    if moment == "import":
        (tmp_path / "toy_reader_import.py").write_text("from toy_reader import error\nraise error\n")
        module.error = error
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.delitem(sys.modules, "toy_reader_import", raising=False)
    reader = "toy_reader_import:read" if moment == "import" else "toy_reader:read"
    file = tmp_path / "a.toy"
    file.write_bytes(b"toy")
    with pytest.raises((mg.SourceError, mg.PluginError)) as caught:
        (conversions.convert if moment == "read" else conversions.peek)(file, reader)
    assert said(error) in str(caught.value)
    assert not list((tmp_path / "cache").rglob("config.json"))


# -- the command line ---------------------------------------------------------------------------------------------------


def with_command(monkeypatch, *bodies, names=("own",)):
    """Let plugins be installed that bring one command each."""
    modules = {}
    for index, (name, body) in enumerate(zip(names, bodies, strict=True)):
        module = ModuleType(f"toy{index}")

        module.register_commands = mg.hookimpl(lambda app, name=name, body=body: app.command(name)(body) and None)
        modules[f"p{index}"] = module
    monkeypatch.setattr("modelgraft.installed.discovery.discover", lambda only=None: assemble(modules))


@every_end
def test_a_command_of_a_plugin_that_fails_is_named(monkeypatch, capsys, error):
    """It says its exit code by typer.Exit; anything else is one message and exit 1."""

    def own() -> None:
        raise error

    with_command(monkeypatch, own)
    assert main(["own"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "plugin 'p0': the command 'own'" in err
    assert "Traceback" not in err


def test_a_command_of_a_plugin_takes_no_name_that_is_there(monkeypatch, capsys):
    """Neither one of modelgraft's own, nor one that is to come, nor one of a plugin before it; and each loss is said."""

    def first() -> None:
        raise typer.Exit(7)

    def later() -> None:
        raise typer.Exit(8)

    with_command(monkeypatch, first, later, later, later, names=("mine", "mine", "run", "chat"))
    assert main(["mine"]) == 7
    said_so = capsys.readouterr().err
    assert "plugin p1 does not have the command mine (it belongs to p0)" in said_so
    assert "plugin p2 does not have the command run (it belongs to modelgraft itself)" in said_so
    assert "plugin p3 does not have the command chat (it belongs to modelgraft itself)" in said_so


def test_a_group_of_commands_is_guarded_and_options_of_the_whole_are_not_taken(monkeypatch, capsys):
    """What a plugin puts on the whole command line is left out, and said; its group runs under the guard."""

    def fails() -> None:
        raise SystemExit(0)

    def bring(app):
        group = typer.Typer()
        group.callback()(lambda: None)
        group.command("fails")(fails)
        group.command("runs")(lambda: None)
        app.add_typer(group, name="mine")
        app.callback()(lambda: None)

    module = ModuleType("grouped")
    module.register_commands = mg.hookimpl(bring)
    monkeypatch.setattr("modelgraft.installed.discovery.discover", lambda only=None: assemble({"p": module}))
    assert main(["mine", "runs"]) == 0
    assert "plugin p does not have the options of the whole command line (it belongs to modelgraft itself)" in capsys.readouterr().err
    assert main(["mine", "fails"]) == 1
    assert "plugin 'p': the command 'fails' tried to end the process: SystemExit: 0" in capsys.readouterr().err


def test_a_command_of_a_plugin_may_keep_stdout_for_its_answers(monkeypatch, capsys):
    """As ours do: what libraries print meanwhile goes to stderr, and a list of commands has its whole first sentence."""

    def own(context: typer.Context) -> None:
        """Answer with a sentence that is longer than what a list of commands shows of others. And more."""
        print("printed by a library")
        session_of(context).screen.say("the answer")

    module = ModuleType("answering")
    module.register_commands = mg.hookimpl(lambda app: app.command("own", cls=Answering)(own) and None)
    monkeypatch.setattr("modelgraft.installed.discovery.discover", lambda only=None: assemble({"p": module}))
    assert main(["own"]) == 0
    assert capsys.readouterr() == ("the answer\n", "printed by a library\n")
    main(["--help"])
    assert "longer than what a list of commands shows of others." in " ".join(capsys.readouterr().out.split())


@every_end
def test_a_hook_for_commands_that_fails_leaves_the_others(monkeypatch, capsys, error):
    """It is named, and the command of its neighbour runs."""

    def good() -> None:
        print("good")

    bad = ModuleType("bad")
    bad.register_commands = mg.hookimpl(lambda app: raiser(error)())
    fine = ModuleType("fine")
    fine.register_commands = mg.hookimpl(lambda app: app.command("good")(good) and None)
    monkeypatch.setattr("modelgraft.installed.discovery.discover", lambda only=None: assemble({"bad": bad, "fine": fine}))
    assert main(["good"]) == 0
    out, err = capsys.readouterr()
    assert out == "good\n"
    assert f"plugin bad adds no commands: {said(error)}" in err


@every_end
@pytest.mark.parametrize(
    "words", [("check", "wrong.yaml"), ("check", "--json", "wrong.yaml"), ("plugins", "list"), ("schema",), ("--help",)]
)
def test_a_plugin_that_ends_processes_as_it_is_imported_ends_no_command(monkeypatch, capsys, tmp_path, error, words):
    """Each says what it has to say, with the exit code that it has without that plugin."""

    class Point:
        name, value, dist, load = "bad", "bad", None, staticmethod(raiser(error))

    monkeypatch.chdir(tmp_path)
    (tmp_path / "wrong.yaml").write_text("modelgraft: 1\n")
    monkeypatch.setattr("modelgraft.installed.discovery.entry_points", lambda group: [Point])
    assert main(words) == (1 if words[0] == "check" else 0)
    out, err = capsys.readouterr()
    assert out
    assert "Traceback" not in err


STRAY = """
import atexit, sys, threading
class Left:
    def __del__(self): raise ValueError("in a finalizer")
Left()
kept = Left()
def bye(): raise RuntimeError("as it ends")
atexit.register(bye)
atexit.register(sys.exit, 0)
def work(): raise LookupError("in a thread")
threading.Thread(target=work).start()
threading.Thread(target=sys.exit, args=(0,)).start()
"""


def test_what_fails_beside_the_command_is_a_line_of_its_own(tmp_path):
    """In finalizers, exit handlers and threads of a plugin: the exit code and the answer are those of the command."""
    (tmp_path / "stray.py").write_text(STRAY)
    facts = tmp_path / "stray-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: stray\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text("[modelgraft]\nstray = stray\n")
    (tmp_path / "wrong.yaml").write_text("modelgraft: 1\n")
    command = [sys.executable, "-m", "modelgraft", "check", "wrong.yaml", "--json"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert json.loads(done.stdout)["ok"] is False
    assert "Traceback" not in done.stderr
    for text in ("ValueError: in a finalizer", "LookupError: in a thread", "RuntimeError: as it ends"):
        assert f"beside the command, something failed: {text} ({tmp_path}/stray.py:" in done.stderr


@every_end
def test_an_output_that_cannot_be_spelled_is_an_output_all_the_same(tmp_path, error):
    """And one that fails as it is handed over names its node."""
    from modelgraft.cli.written import described
    from modelgraft.records.showing import plain

    odd = type("Odd", (), {"__repr__": raiser(error), "__str__": raiser(error)})()
    assert plain({"y": odd}) == {"y": "<Odd that cannot be spelled>"}
    assert described([odd]) == "[<Odd that cannot be spelled>]"
    part = function("toy/odd", {"x": "object"}, {"out": "object"}, lambda x: [odd])
    nodes = {"n": {"use": "toy/odd", "in": {"x": "inputs.x"}}}
    with opened(tmp_path, [part], nodes, inputs={"x": "object"}, outputs={"out": "n"}) as pipeline:
        assert pipeline.run(x=1)["out"] is odd


@every_end
def test_the_schema_is_there_whatever_one_config_does(error):
    """Its keys are listed, without what it would say of them."""
    from modelgraft.tools.schema import graph_schema

    config = type(
        "Bad", (mg.Config,), {"__module__": __name__, "__doc__": "Fail.", "__get_pydantic_json_schema__": classmethod(raiser(error))}
    )
    part = mg.component("toy/bad", kind="head", module="nowhere:Bad", inputs=TEXT, outputs={"y": "text"})(config)
    assert "component:toy:bad" in graph_schema(registry_of(part))["$defs"]
