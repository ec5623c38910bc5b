"""Commands for those who write or add plugins."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from modelgraft.cli import proving
from modelgraft.cli.session import CliSession, session_of
from modelgraft.kernel.words.errors import InputError, PluginError

if TYPE_CHECKING:
    from modelgraft.kernel.shelf.registry import Plugin

NAME = re.compile(r"^[a-z][a-z0-9_]*$")

PROJECT = """[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "modelgraft-{dashed}"
version = "0.1.0"
description = "A plugin for modelgraft"
requires-python = ">=3.11"
dependencies = ["modelgraft"]

[project.entry-points.modelgraft]
{name} = "{module}"

[tool.hatch.build.targets.wheel]
include = ["{module}.py"]
"""

MODULE = '''"""What this plugin is for, in one sentence."""

from modelgraft import component, hookimpl


@component("{dashed}/echo", kind="preprocess", inputs={{"text": "text"}}, outputs={{"text": "text"}})
def echo(text: list[str], *, times: int = 2) -> list[str]:
    """Say every text several times."""
    return [" ".join([record] * times) for record in text]


@hookimpl
def register_components(register) -> None:
    register(echo)
'''

TEST = '''"""The components of this plugin keep their declarations."""

from modelgraft.testing import conform

from {module} import echo


def test_echo_conforms():
    conform(echo, {{"times": 3}})
'''

GRAPH = """# Try the component of this plugin: modelgraft run {name}.yaml --input text=hello
modelgraft: 1
inputs: {{text: text}}
nodes:
  echo: {{use: {dashed}/echo, with: {{times: 3}}, in: {{text: inputs.text}}}}
outputs: {{text: echo}}
"""


def register(group: typer.Typer) -> None:
    """Add the commands of this module to the group of plugins."""
    group.command("install")(install)
    group.command("new")(new)
    group.command("check")(proving.check)


def install(
    context: typer.Context,
    requirement: Annotated[str, typer.Argument(metavar="SPEC", help="What pip installs: a name, name==version, a wheel or a folder.")],
) -> None:
    """Install a plugin with pip into this environment, and say what it brings."""
    session = session_of(context)
    if not requirement.strip() or requirement.startswith("-"):
        raise typer.BadParameter(f"SPEC is a name, a wheel or a folder, found '{requirement}'")
    if session.offline and not Path(requirement).exists():
        raise InputError(f"'{requirement}' would be fetched, and this command is offline")
    before = dict(session.registry.plugins)
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--disable-pip-version-check",
        *(["--no-index"] if session.offline else []),
        requirement,
    ]
    code = _run_told(command)
    if code != 0:
        raise PluginError(f"pip could not install '{requirement}' (exit {code}); what it said stands above")
    importlib.invalidate_caches()
    after = CliSession(session.screen, session.plugins).registry
    fresh = [plugin for name, plugin in after.plugins.items() if before.get(name) != plugin]
    for plugin in fresh:
        session.screen.say(_state(plugin))
    if not fresh:
        session.screen.note(f"'{requirement}' is installed and brings no plugin that was not there")


def _run_told(command: list[str]) -> int:
    """Run pip and hand on what it says, but for what is there already; gives its exit code."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, errors="replace") as pip:  # noqa: S603 what the user asked for
        assert pip.stdout is not None, "it was asked for"
        for line in pip.stdout:
            if not line.startswith("Requirement already satisfied"):
                sys.stderr.write(line)
                sys.stderr.flush()
    return pip.returncode


def _state(plugin: Plugin) -> str:
    what = f"left out: {plugin.error}" if plugin.error else ", ".join(plugin.components) or "no components"
    return f"{plugin.name}  {plugin.distribution} {plugin.version}  {what}"


def new(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Lower case, such as my_plugin; also the name of the folder that is made.")],
) -> None:
    """Start a plugin: a folder with a project of two files, a test and a graph."""
    if not NAME.match(name):
        raise typer.BadParameter(f"NAME is lower case letters, digits and _, and starts with a letter; found '{name}'")
    folder = Path(name)
    try:
        folder.mkdir()
    except OSError as error:
        raise InputError(f"the folder '{name}' cannot be made: {error.strerror}") from error
    module = f"modelgraft_{name}"
    files = {"pyproject.toml": PROJECT, f"{module}.py": MODULE, f"test_{name}.py": TEST, f"{name}.yaml": GRAPH}
    for file, text in files.items():
        (folder / file).write_text(text.format(name=name, module=module, dashed=name.replace("_", "-")), encoding="utf-8")
    screen = session_of(context).screen
    screen.say(f"made {name}/ with {', '.join(files)}")
    screen.note(f"next: modelgraft plugins install ./{name} && modelgraft run {name}/{name}.yaml --input text=hello")
