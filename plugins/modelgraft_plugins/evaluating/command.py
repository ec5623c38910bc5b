"""The command `eval`: a subcommand for every suite that is offered, with the options of that suite beside those of all."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import typer
from pydantic import ValidationError
from typer.core import TyperGroup

from modelgraft.commands import (
    USUAL_OPENING,
    Allow,
    AsJson,
    GraphName,
    Opening,
    SetOptions,
    count,
    pairs,
    session_of,
    settings_of,
    with_opening,
)
from modelgraft.plugin import Config, InputError, ModelgraftError, PluginError, SolvedGraph, contained, home_read, said
from modelgraft_plugins.evaluating.offered import Offer, offered
from modelgraft_plugins.evaluating.suites import Suite

HELP = """Evaluate a graph by a suite: questions with answers that are known, and scores of what the graph says.

Records go through the graph as in `modelgraft map`: one that fails is counted and listed, and is in no average of the others."""


class SuiteGroup(TyperGroup):
    """The suites as commands, found when somebody asks for them."""

    def list_commands(self, ctx: Any) -> list[str]:  # Any: typer brings click along under a name of its own
        """The names of the suites."""
        self._find(ctx)
        return list(self.commands)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of a suite; None when there is none of that name."""
        self._find(ctx)
        return self.commands.get(cmd_name)

    def _find(self, ctx: Any) -> None:
        if self.commands:
            return
        session = session_of(ctx)
        found = offered(session)
        for text in found.left_out:
            session.screen.note(text)
        for offer in found.offers.values():
            try:
                self.commands[offer.name] = command_of(offer)
            except InputError as error:
                session.screen.note(str(error))


def group() -> typer.Typer:
    """The group of the suites."""
    return typer.Typer(cls=SuiteGroup, help=HELP, no_args_is_help=True, rich_markup_mode=None, subcommand_metavar="SUITE GRAPH --data FILE")


def command_of(offer: Offer) -> Any:  # Any: a command of typer's
    """The command of a suite. Raises InputError for a suite that cannot be loaded."""
    kind = offer.load()
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command(offer.name, help=inspect.cleandoc(kind.__doc__ or ""), short_help=(kind.__doc__ or "").strip().partition("\n")[0])(
        _with_settings(kind, with_opening("map")(functools.partial(_evaluate, offer.name, kind)))
    )
    return typer.main.get_command(app)


# -- options of a suite -------------------------------------------------------------------------------------------------


def _with_settings(kind: type[Suite], command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command an option for each field of the suite's settings, in place of its parameter `asked`."""
    fields = kind.Settings.model_fields

    @functools.wraps(command)
    def call(**given: Any) -> Any:
        asked = {name: given.pop(name) for name in fields}
        return command(**given, asked={name: value for name, value in asked.items() if value is not None})

    options = [_option(name, field) for name, field in fields.items()]
    own = list(inspect.signature(command).parameters.values())
    at = next(index for index, parameter in enumerate(own) if parameter.name == "asked")
    listed = [*own[:at], *options, *own[at + 1 :]]
    call.__signature__ = inspect.Signature(listed)  # type: ignore[attr-defined]
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in listed}
    call.__name__ = "evaluate"
    return call


def _option(name: str, field: Any) -> inspect.Parameter:  # Any: a field of a pydantic model
    flag = f"--{name.replace('_', '-')}"
    words = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
    usual = "" if field.default in (None, False, "") else f" Usually {field.default}."
    told = f"{field.description or ''}{' ' + ', '.join(map(str, words)) + '.' if words else ''}{usual}"
    if field.annotation is bool:
        found, kind = typer.Option(None, flag, help=told), bool | None
    else:
        metavar = name.upper().replace("_", "-")
        found, kind = typer.Option(None, flag, metavar=metavar, help=told), str | None  # type: ignore[assignment]  # of another type
    return inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=found, annotation=kind)


def settings_given(kind: type[Suite], asked: Mapping[str, Any], suggested: Mapping[str, Any]) -> Config:
    """The settings of a suite: what the user set goes over what suits the graph. Raises a usage error for a value that means nothing."""
    try:
        return kind.Settings(**{**suggested, **asked})
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else ""
        raise typer.BadParameter(f"--{name.replace('_', '-')}: found {first['input']!r}; {first['msg']}") from error


# -- the command --------------------------------------------------------------------------------------------------------


def folder_named(word: str) -> Path:
    """The folder that `--out` names."""
    if not word.strip() or word == "-":
        raise typer.BadParameter(f"--out takes a folder, found '{word}'")
    return home_read(word)


def _evaluate(  # noqa: PLR0913, PLR0917 typer makes options of the arguments of a command
    suite: str,
    kind: type[Suite],
    context: typer.Context,
    graph: GraphName,
    data: Annotated[str, typer.Option("--data", metavar="FILE", help="The records of the suite, in its own format.")],
    inputs: Annotated[
        list[str] | None,
        typer.Option("--input", metavar="NAME=INPUT", help="Which input of the graph takes what the suite gives: question=prompt."),
    ] = None,
    outputs: Annotated[
        list[str] | None,
        typer.Option("--output", metavar="NAME=OUTPUT", help="Where what the suite reads is: answer=text, or any port: answer=llm.text."),
    ] = None,
    asked: Mapping[str, Any] | None = None,
    limit: Annotated[int | None, typer.Option("--limit", metavar="N", parser=count, help="The first N records or questions alone.")] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", metavar="N", parser=count, help="How many records run together.")] = 8,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="DIR", parser=folder_named, help="Keep predictions, report and submission here; without it nothing is kept."
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on after the records that a stopped run of the same has done.")] = False,
    report_only: Annotated[
        bool, typer.Option("--report-only", help="Make the report anew from the predictions in --out; the graph does not run.")
    ] = False,
    settings: SetOptions = None,
    opening: Opening = USUAL_OPENING,
    allow: Allow = None,
    as_json: AsJson = False,
) -> None:
    """Run a suite over a graph."""
    from modelgraft_plugins.evaluating.evaluation import Evaluation, Wanted  # what a list of commands need not import

    session = session_of(context)
    if (resume or report_only) and out is None:
        raise typer.BadParameter("--resume and --report-only take the predictions of before from --out DIR")
    wanted = Wanted(
        suite=suite,
        graph=graph,
        data=data,
        inputs=_named(inputs, "--input"),
        outputs=_named(outputs, "--output"),
        limit=limit,
        batch_size=batch_size,
        params=settings_of(settings),
        allow=tuple(allow or ()),
        opening=opening,
        is_resumed=resume,
    )
    with session.screen.only_answers():
        evaluation = Evaluation(session, wanted, functools.partial(_make, kind, asked or {}))
        code = _guarded(suite, lambda: evaluation.run(out, is_report_only=report_only, as_json=as_json))
    raise typer.Exit(code)


def _guarded(suite: str, evaluate: Callable[[], int]) -> int:
    """Evaluate; whatever the code of a suite raises becomes one error that names the suite."""
    try:
        with contained():
            return evaluate()
    except (ModelgraftError, typer.BadParameter, BrokenPipeError):
        raise
    except Exception as error:
        raise PluginError(f"the suite '{suite}' failed: {said(error)}") from error


def _make(kind: type[Suite], asked: Mapping[str, Any], graph: SolvedGraph | None, recorded: Mapping[str, Any]) -> Suite:
    """The suite for a graph, or without one as it was recorded: there, options that decide the questions cannot change any more."""
    if graph is not None:
        return kind(settings_given(kind, asked, kind.suggest(graph)))
    try:
        before = kind(kind.Settings(**recorded))
    except (ValidationError, TypeError) as error:
        raise InputError("run.json records settings that are none of this suite; run the suite without --report-only") from error
    now = kind(settings_given(kind, asked, recorded))
    if before.asking() != now.asking():
        changed = ", ".join(f"--{name.replace('_', '-')}" for name in asked)
        raise InputError(f"the predictions were made under other settings than {changed}; run the suite without --report-only")
    return now


def _named(words: Sequence[str] | None, option: str) -> dict[str, str]:
    found = pairs(words, option)
    if len(dict(found)) < len(found):
        raise typer.BadParameter(f"{option} names one of the suite's twice: {', '.join(name for name, _ in found)}")
    return dict(found)
