"""Finding plugins and keeping broken ones apart."""

from __future__ import annotations

import importlib
from types import ModuleType

import pytest

from modelgraft import PluginError, component, hookimpl
from modelgraft.installed.discovery import assemble, discover
from support.media import record_type


def module_with(**attributes):
    module = ModuleType("toy")
    module.__dict__.update(attributes)
    return module


def plugin(*subjects, error=None):
    @hookimpl
    def register_components(register):
        for subject in subjects:
            register(subject)
        if error:
            raise error

    return module_with(register_components=register_components)


def everything(subjects=(), types=(), readers=(), backends=(), configs=()):
    """A plugin that offers things of every sort."""
    module = plugin(*subjects)

    def offers(name, implemented):
        setattr(module, name, hookimpl(implemented))

    offers("register_record_types", lambda register: [register(record_type(name)) for name in types])
    offers("register_weight_readers", lambda register: [register(name, "greedy:read") for name in readers])
    offers("register_backends", lambda register: [register(name, "greedy:Backend") for name in backends])
    offers("register_recorded_configs", lambda register: [register(name, "/nowhere") for name in configs])
    return module


class Point:
    """An entry point of a distribution that is not on disk."""

    def __init__(self, name, value, distribution, load):
        self.name, self.value, self.load = name, value, load
        self.dist = type("Found", (), {"name": distribution, "version": "1"})()


def entry(name, module, distribution, error=None):
    def load():
        if error is not None:
            raise error
        return module_with(**vars(module))  # each entry point has a module of its own

    return Point(name, "toy", distribution, load)


def loaded(name, text, folder):
    """An entry point whose module is a file."""
    (folder / f"{name}.py").write_text(text, encoding="utf-8")
    return Point(name, name, name, lambda: importlib.import_module(name))


def install(patch, *points, shipped=True):
    """Let these entry points be installed, beside those that ship."""
    from importlib.metadata import entry_points

    there = list(entry_points(group="modelgraft")) if shipped else []
    patch.setattr("modelgraft.installed.discovery.entry_points", lambda group: [*points, *there])


def same(id):
    @component(id, kind="preprocess", inputs={"x": "text"}, outputs={"y": "text"})
    def run(x: list[str]) -> list[str]:
        """Hand on."""
        return x

    return run


def test_components_are_found_by_id_and_version():
    """`name`, `name@1` find it; another version does not."""
    registry = assemble({"one": plugin(same("a/b"))})
    assert registry.find("a/b").plugin == "one"
    assert registry.find("a/b@1") is registry.find("a/b")
    assert registry.find("a/b@2") is None


def test_a_broken_plugin_is_quarantined_and_the_others_stay():
    """Whatever a plugin raises is kept with its name; none of its components take part."""
    registry = assemble({"bad": plugin(same("a/b"), error=RuntimeError("no luck")), "good": plugin(same("c/d"))})
    assert list(registry.components) == ["c/d"]
    assert registry.quarantined()["bad"].error == "RuntimeError: no luck"


def test_the_second_offer_of_an_id_loses_that_id_alone():
    """The first by name keeps it; the other plugin keeps the rest, and the loss is named with the owner."""
    registry = assemble({"first": plugin(same("a/b")), "second": plugin(same("c/d"), same("a/b"))})
    assert registry.find("a/b").plugin == "first"
    assert registry.find("c/d").plugin == "second"
    assert registry.plugins["second"].components == ("c/d",)
    assert list(map(str, registry.plugins["second"].lost)) == ["component a/b (it belongs to first)"]
    assert registry.contenders("component", "a/b") == ["second"]


def test_what_a_plugin_offers_twice_counts_once():
    """The first of its own offers stays."""
    one, two = same("a/b"), same("a/b")
    registry = assemble({"twice": plugin(one, two)})
    assert registry.find("a/b").function is one
    assert list(map(str, registry.plugins["twice"].lost)) == ["component a/b (it belongs to twice, which offers it twice)"]


def test_names_of_the_core_belong_to_nobody():
    """Types, dtypes, endings that torch reads and the word `auto` cannot be taken; the rest of the plugin lives."""
    registry = assemble(
        {"greedy": everything(types=["image", "float", "list", "mesh"], readers=[".pt", ".mesh"], backends=["auto", "own"])}
    )
    assert {(lost.what, lost.name) for lost in registry.plugins["greedy"].lost} == {
        ("record type", "image"), ("record type", "float"), ("record type", "list"), ("weight reader", ".pt"), ("backend", "auto"),
    }  # fmt: skip
    assert registry.record_types["image"].meaning == "a picture"
    assert registry.record_types["mesh"].meaning == "a mesh"
    assert (registry.weight_readers, list(registry.backends)) == ({".mesh": "greedy:read"}, ["own"])


def test_no_installed_distribution_takes_what_ships(monkeypatch):
    """Whatever its name: every kind of offer, and the name of the entry point; what ships keeps all that it has without it."""
    alone = discover()
    taken = sorted(alone.components)[:3]
    thief = everything(
        subjects=[same(id) for id in (*taken, "aaa/own")],
        types=["text", "own_type"],
        readers=[".gguf", ".Q4_1.gguf", ".bin", ".own"],
        backends=["torch", "onnx", "own"],
        configs=["preset:clip-vit-l-14", "preset:own"],
    )
    install(monkeypatch, entry("text", thief, "aaa-thief"), entry("zeta", thief, "Modelgraft_Zeta"))
    registry = discover()
    assert not registry.quarantined(), registry.quarantined()
    for table in ("components", "weight_readers", "backends", "recorded_configs", "record_types"):
        before, after = getattr(alone, table), getattr(registry, table)
        assert {name: after[name] for name in before} == dict(before), table
    assert registry.plugins["text"].distribution == "modelgraft"
    newcomer = registry.plugins["aaa-thief:text"]
    assert newcomer.components == ("aaa/own",)
    assert (registry.backends["own"].target, registry.weight_readers[".own"]) == ("greedy:Backend", "greedy:read")
    assert {lost.name for lost in newcomer.lost} == {*taken, "text", ".gguf", ".Q4_1.gguf", ".bin", "torch", "onnx", "preset:clip-vit-l-14"}
    assert {lost.owner for lost in registry.plugins["zeta"].lost if lost.name in ("aaa/own", ".own", "own")} == {"aaa-thief:text"}


def test_the_order_in_which_distributions_are_found_changes_nothing(monkeypatch):
    """Precedence goes by the names of distributions, whatever the names of their entry points are."""
    points = [entry("z", plugin(same("a/b")), "alpha"), entry("a", plugin(same("a/b")), "beta"), entry("a", plugin(same("a/b")), "gamma")]
    found = []
    for order in (points, points[::-1]):
        with monkeypatch.context() as patch:
            install(patch, *order, shipped=False)
            registry = discover()
            found.append((registry.find("a/b").plugin, list(registry.plugins), registry.contenders("component", "a/b")))
    assert found[0] == found[1] == ("z", ["z", "a", "gamma:a"], ["a", "gamma:a"])


@pytest.mark.parametrize(
    "error", [SystemExit(0), SystemExit(), GeneratorExit(), KeyboardInterrupt(), type("Own", (BaseException,), {})("x")]
)
@pytest.mark.parametrize("moment", ["import", "hook"])
def test_whatever_a_plugin_raises_while_it_loads_is_kept_with_it(monkeypatch, error, moment):
    """Also what is made to end a process; its neighbours are there, and nothing is said by an exit code."""
    broken = entry("bad", plugin(same("a/b"), error=error), "bad") if moment == "hook" else entry("bad", None, "bad", error=error)
    install(monkeypatch, broken, entry("good", plugin(same("c/d")), "good"), shipped=False)
    registry = discover()
    assert list(registry.components) == ["c/d"]
    assert registry.plugins["bad"].error.startswith(type(error).__name__)
    assert registry.plugins["bad"].place.file == __file__


def test_the_place_of_an_error_is_in_the_code_of_the_author(tmp_path, monkeypatch):
    """File and line of a wrong declaration, of a syntax error, and of what a library raised for the author's call."""
    monkeypatch.syspath_prepend(str(tmp_path))
    head = "from modelgraft import component, Config\nimport json\n"
    texts = {
        "bad_kind": head + "@component('a/b', kind='encodr', inputs={}, outputs={'y': 'text'})\ndef f():\n    'F.'\n",
        "bad_syntax": "x = 1\ndef f(:\n",
        "bad_call": head + "json.loads('{')\n",
    }
    install(monkeypatch, *(loaded(name, text, tmp_path) for name, text in texts.items()), shipped=False)
    found = discover().plugins
    assert found["bad_kind"].trouble.startswith(f"{tmp_path}/bad_kind.py:3: component 'a/b': kind 'encodr' is none of ")
    assert found["bad_kind"].error.endswith("Did you mean 'encoder'?")
    assert found["bad_syntax"].trouble.startswith(f"{tmp_path}/bad_syntax.py:2: SyntaxError: ")
    assert found["bad_call"].trouble.startswith(f"{tmp_path}/bad_call.py:3: JSONDecodeError: ")


def test_an_object_that_was_not_decorated_is_named():
    """The error says what was registered by mistake."""
    registry = assemble({"odd": plugin(len)})
    assert "built-in function len" in registry.plugins["odd"].error


def test_a_misspelt_hook_quarantines_the_plugin():
    """A hook that does not exist is no silent no-op."""

    @hookimpl
    def register_komponents(register):
        register(same("a/b"))

    registry = assemble({"odd": module_with(register_komponents=register_komponents)})
    assert "register_komponents" in registry.plugins["odd"].error


def test_plugins_can_be_chosen_by_name():
    """`only` loads those and no others; a name that is not installed is an error that lists what is."""
    assert list(discover(only=["heads"]).plugins) == ["heads"]
    assert not discover(only=[]).components
    with pytest.raises(PluginError, match=r"no plugin named eyes is installed; there are: adapters"):
        discover(only=["eyes"])
