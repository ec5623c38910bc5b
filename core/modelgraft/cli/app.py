"""The commands, put together."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Annotated

import typer

from modelgraft.cli.answering import Answering
from modelgraft.cli.session import CliSession, read_only, session_of

ABOUT = """Compose multimodal models from typed parts: check a graph before anything loads, see what it costs, run it.

A GRAPH is a YAML file or the name of a shipped graph (see: modelgraft graphs).
These options hold for every command and may stand after its name.

Exit codes: 0 all is well; 1 the graph has problems or the run failed; 2 the command cannot be understood;
70 a defect of modelgraft (--debug shows where); 130 stopped by Ctrl-C, 143 by SIGTERM."""

# Commands of the design that are not in this release, and what they come with.
LATER: Mapping[str, str] = {
    "lock": "locked graphs",
    "serve": "the server",
}

# The modules that register commands, in the order of the list, and the names of those; a test compares them.
MODULES: Mapping[str, tuple[str, ...]] = {
    "graphs": ("check", "plan", "show", "explain", "graphs", "schema", "import"),
    "running": ("run", "map", "repl", "chat"),
    "exports": ("export",),
    "cache": ("cache",),
    "components": ("components", "presets", "records"),
    "plugins": ("plugins",),
}

# The commands that end soon and run no graph here: what they make may stay until then, so nothing looks for garbage; "" is a call for help.
LIGHT = frozenset({"", *MODULES["graphs"], *MODULES["components"], *MODULES["plugins"]})

DEBUG_HELP = "Show the traceback of an error, and look at every call of a node for inputs that it writes to."


def print_version(is_set: bool) -> None:
    """Print the version and leave."""
    if is_set:
        from importlib.metadata import version

        typer.echo(f"modelgraft {version('modelgraft')}")
        raise typer.Exit


VERSION = typer.Option("--version", is_eager=True, callback=print_version, help="Print the version.")


def build_app(command: str = "", *, is_bare: bool = False) -> typer.Typer:
    """Make the typer app with the commands of this release.

    command  one of them, that alone is needed, with those of its module; any other word: all
    is_bare  none is needed
    """
    app = typer.Typer(
        name="modelgraft", help=ABOUT, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None
    )
    app.callback()(general)
    needed = [module for module, commands in MODULES.items() if command in commands]
    for module in () if is_bare else needed or MODULES:
        import_module(f"modelgraft.cli.{module}").register(app)
    for group in (app, *(info.typer_instance for info in app.registered_groups)):
        for info in group.registered_commands if group is not None else ():
            info.cls = Answering
    return app


def is_ours(app: typer.Typer, command: str) -> bool:
    """Whether a command is one of those that come with modelgraft."""
    names = {info.name for info in app.registered_commands} | {info.name for info in app.registered_groups}
    return command in names


def general(
    context: typer.Context,
    plugins: Annotated[str | None, typer.Option(metavar="only=A,B", help="Load only these plugins.")] = None,
    debug: Annotated[bool, typer.Option("--debug", help=DEBUG_HELP)] = False,  # noqa: ARG001 read by entry.py
    offline: Annotated[bool, typer.Option("--offline", help="Fetch nothing: use files on disk and the cache alone.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", "--no-progress", help="Do not tell how far a run is; warnings are told.")] = False,
    is_version: Annotated[bool, VERSION] = False,  # noqa: ARG001 print_version has acted on it
) -> None:
    """Take the options that hold for every command."""
    session: CliSession = session_of(context)
    session.plugins = read_only(plugins) if plugins is not None else session.plugins
    session.offline, session.progress = offline, not quiet
