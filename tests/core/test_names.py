"""One name for one thing: what several modules of the core call the same is the same, or stands here with its reason."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path

import pytest

CORE = Path(__file__).parents[2] / "core"
PLUGINS = CORE.parent / "plugins"

# Names that stand for two things all the same, each with the reason.
NAMES = {
    "Given": "a type variable of engine/opening.py, which nobody else sees",
    "Graph": "what users build; and for authors of backends, a graph that a backend has opened",
    "Subject": "a type variable of engine/opening.py, which nobody else sees",
    "TYPE_CHECKING": "as in typing, where that is not imported so that starting takes no time",
}
MODULES = {
    "building": "Graph, which users build; and the building of modules for backends",
    "cache": "a command of the command line is called as what it is about",
    "engine": "the module that runs is the chief one of its package",
    "keeping": "who keeps things, and the command that lists and deletes them",
    "loading": "of nodes by the engine; and of modules, for backends",
    "opening": "of pipelines; and of files that a user names",
}


def files(root):
    """The text of each module."""
    return {".".join(path.relative_to(root).with_suffix("").parts): path.read_text() for path in sorted(root.rglob("*.py"))}


def defined(tree):
    """The classes, constants and aliases of a module that others may see; what a type variable or a loop calls T is no name."""
    for item in tree.body:
        targets = item.targets if isinstance(item, ast.Assign) else [item.target] if isinstance(item, ast.AnnAssign) else []
        names = [item.name] if isinstance(item, ast.ClassDef) else [target.id for target in targets if isinstance(target, ast.Name)]
        yield from (name for name in names if not name.startswith("_") and len(name) > 1)


@pytest.mark.slow
def test_no_two_modules_of_the_core_give_one_name_to_two_things():
    """Classes and aliases always; constants where another module imports one of them. Small constants of single modules are their own."""
    core = files(CORE)
    homes, imported = defaultdict(set), set()
    for module, text in core.items():
        for name in defined(ast.parse(text)):
            homes[name].add(module)
    several = {name: modules for name, modules in homes.items() if len(modules) > 1 and name not in NAMES}
    constants = re.compile(rf"\b({'|'.join(filter(str.isupper, several))})\b")
    for text in [*core.values(), *files(PLUGINS).values()]:
        if constants.search(text):  # else it imports none of them
            imports = (item for item in ast.walk(ast.parse(text)) if isinstance(item, ast.ImportFrom))
            imported |= {(item.module, name.name) for item in imports for name in item.names}
    twice = {
        name: sorted(modules)
        for name, modules in several.items()
        if not name.isupper() or any((module, name) in imported for module in modules)
    }
    assert twice == {}
    assert NAMES.keys() <= homes.keys(), "an exception that is none any more"


def test_no_two_modules_of_the_core_are_called_the_same():
    """A module may be called as its package is asked for: `modelgraft.api`, `modelgraft.cli.app`."""
    homes = defaultdict(set)
    for module in files(CORE):
        *_, name = module.removesuffix(".__init__").split(".")
        homes[name].add(module)
    twice = {name: sorted(modules) for name, modules in homes.items() if len(modules) > 1}
    assert {name: modules for name, modules in twice.items() if name not in MODULES} == {}
    assert MODULES.keys() <= twice.keys(), "an exception that is none any more"
