"""Finding plugins and keeping broken ones apart."""

from __future__ import annotations

from types import ModuleType

import pytest

from modelgraft import PluginError, component, hookimpl
from modelgraft.registry import assemble, discover


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


def test_the_second_offer_of_an_id_is_refused():
    """The first by name keeps it; the other plugin is quarantined as a whole, with the owner named."""
    registry = assemble({"first": plugin(same("a/b")), "second": plugin(same("c/d"), same("a/b"))})
    assert registry.find("a/b").plugin == "first"
    assert "c/d" not in registry.components
    assert "'a/b' (components) is already offered by first" in registry.plugins["second"].error


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
