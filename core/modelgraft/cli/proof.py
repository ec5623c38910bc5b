"""What `modelgraft plugins check` finds out about a plugin, one finding at a time, in a process that can be ended.

The process is told NAME LIMIT_S [SKIP...]. It prints, as JSON lines on its stdout, what it is about to look at and what it found
there; whatever the plugin itself prints goes to stderr. Who reads the lines (`cli/proving.py`) ends the process when one takes
too long, and starts it again behind that.
"""

from __future__ import annotations

import inspect
import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

import pluggy

from modelgraft.cli.findings import FAILED, NOT_RUN, Finding, failed
from modelgraft.engine.modules.targets import resolve
from modelgraft.installed import discovery as installed
from modelgraft.kernel.shelf.registry import Plugin, Registry
from modelgraft.kernel.words.errors import InputError, Place, PluginError, choices, nearest
from modelgraft.kernel.words.guard import Escaped, contained, is_raised_by, place_of, said
from modelgraft.kernel.words.kinds import Component, dimension_fields
from modelgraft.kernel.words.ports import ListOf, Modality, Port
from modelgraft.records.record_type import types_of
from modelgraft.sources.cards import FamilyCard
from modelgraft.sources.keeping import Keeper
from modelgraft.tools.looks import Look, look

MOST_PARAMETERS = 20_000_000  # a component of more, with its default config, is not built just to be looked at
WIDTHS = (48, 96, 144, 192, 240, 288)  # for dimensions that a graph would decide: unlike, and the usual numbers of heads divide them
HOOKS = "register_"  # how the hooks begin that offer something
ELSEWHERE = "call modelgraft.testing.conform in the plugin's own tests"

Looking = Callable[[], Finding]


def looks_at(plugin: Plugin, registry: Registry, *, limit_s: float) -> Iterator[tuple[str, Looking]]:
    """What there is to look at, each with what does it."""
    yield "import", partial(_import, plugin, limit_s)
    if plugin.error:
        return
    yield "hooks", partial(_hooks, plugin, registry)
    for lost in plugin.lost:
        what = f"{lost.what} {lost.name}"
        yield what, partial(failed, what, f"it belongs to {lost.owner}")
    for id in plugin.components:
        yield id, partial(_component, registry.components[id], registry)
    if any(caller.name == "register_commands" for caller in _hookcallers(plugin, registry)):
        yield "commands", partial(_commands, plugin, registry)
    for (kind, name), owner in registry.owners.items():
        if owner == plugin.name and kind in _OTHERS:
            yield f"{kind} {name}", partial(_OTHERS[kind], f"{kind} {name}", name, registry)


# -- the plugin as a whole ----------------------------------------------------------------------------------------------


def _import(plugin: Plugin, limit_s: float) -> Finding:
    """Whether the module can be imported, and brings in nothing heavy."""
    if plugin.error:
        return failed("import", plugin.error, plugin.place)
    from modelgraft.testing import imports_of

    try:
        heavy = imports_of(plugin.module.partition(":")[0], limit_s=limit_s)
    except PluginError as error:
        return failed("import", said(error))
    return failed("import", f"brings in {', '.join(sorted(heavy))}: import it where it is used") if heavy else Finding("import")


def _hooks(plugin: Plugin, registry: Registry) -> Finding:
    """Whether anything of the plugin is ever called."""
    subject = registry.manager.get_plugin(plugin.name)
    implemented = [caller.name for caller in _hookcallers(plugin, registry)]
    known = [name for name in vars(registry.manager.hook) if not name.startswith("_")]
    unmarked = [name for name in known if name not in implemented and inspect.isfunction(vars(subject).get(name))]
    if unmarked:
        place = _line_of(vars(subject)[unmarked[0]])
        return failed("hooks", f"{', '.join(unmarked)} is not marked with @hookimpl, so that nobody calls it", place)
    file = Place(str(getattr(subject, "__file__", None) or plugin.module))
    if not implemented:
        return failed("hooks", f"it implements no hook, so that nothing of it is used; there are: {choices(known, most=40)}", file)
    offers = plugin.components or plugin.lost or any(owner == plugin.name for owner in registry.owners.values())
    others = [name for name in implemented if not name.startswith(HOOKS) or name == "register_commands"]
    return Finding("hooks") if offers or others else failed("hooks", f"its {', '.join(implemented)} offers nothing", file)


def _hookcallers(plugin: Plugin, registry: Registry) -> list[pluggy.HookCaller]:
    return registry.manager.get_hookcallers(registry.manager.get_plugin(plugin.name)) or []


def _commands(plugin: Plugin, registry: Registry) -> Finding:
    """Whether its commands can be added, and nobody else has their names."""
    from modelgraft.cli.app import build_app
    from modelgraft.cli.extensions import commands_of, names_of

    found = commands_of(registry, taken=names_of(build_app()))
    if plugin.name in found.errors:
        return failed("commands", found.errors[plugin.name])
    lost = found.lost.get(plugin.name, ())
    return failed("commands", f"it does not have the {', the '.join(map(str, lost))}") if lost else Finding("commands")


def _line_of(subject: Any) -> Place | None:
    """Where a function or class is written."""
    try:
        with contained():
            file = inspect.getsourcefile(subject)
            line = subject.__code__.co_firstlineno if inspect.isfunction(subject) else inspect.getsourcelines(subject)[1]
            return Place(file, line) if file else None
    except Exception:  # noqa: BLE001 made while it ran, or it has no source: then its place is not known
        return None


# -- components ---------------------------------------------------------------------------------------------------------


def _component(component: Component, registry: Registry) -> Finding:
    """Whether a graph can use a component, its code is there, and it does what it declares."""
    declared = _line_of(component.function or component.config)
    seen = look(component, registry)
    if seen.is_refused:
        return Finding(component.id, NOT_RUN, f"it needs a config ({seen.error}); {ELSEWHERE}")
    troubles = port_troubles(component, seen, registry)
    if troubles:
        return failed(component.id, "; ".join(troubles), declared)
    missing = _code(component, declared)
    return missing if missing is not None else _conform(component, seen, declared, registry)


def port_troubles(component: Component, seen: Look, registry: Registry) -> list[str]:
    """Why no graph can wire a component, under its typical config or another; empty when one can."""
    if seen.error:
        return [f"its ports cannot be told: {seen.error}"]
    sides: list[tuple[str, Mapping[str, Port | None]]] = [("input", seen.inputs), ("output", seen.outputs)]
    sides += [("input", change.inputs) for change in seen.changes] + [("output", change.outputs) for change in seen.changes]
    found = [
        text for side, ports in sides for name, port in ports.items() if port is not None for text in _port(side, name, port, registry)
    ]
    if not seen.outputs and component.kind != "adapter" and not any(change.outputs for change in seen.changes):
        found.append("it has no output, so that no graph can need it")
    return list(dict.fromkeys(found))


def _port(side: str, name: str, port: Port, registry: Registry) -> Iterator[str]:
    for kind in port.types:
        inner = kind
        while isinstance(inner, ListOf):
            inner = inner.item
        if isinstance(inner, Modality) and inner.name not in registry.record_types:
            near = nearest(inner.name, registry.record_types)
            yield f"{side} '{name}' is of the type '{inner.name}', which nobody offers. {near}".rstrip()
    if side == "output" and len(port.types) != 1:
        yield f"output '{name}' has {len(port.types)} types ({port}); an output gives one"


def _code(component: Component, declared: Place | None) -> Finding | None:
    """Whether the code of a component can be imported; None when it can."""
    target = component.module or component.load
    if target is None:
        return None
    try:
        resolve(target, component)
    except PluginError as error:
        cause = error.__cause__
        package = (cause.name or "") if isinstance(cause, ModuleNotFoundError) else ""
        if package and package.partition(".")[0] != target.partition(":")[0].partition(".")[0]:
            return Finding(component.id, NOT_RUN, f"it needs the package '{package}', which is not installed")
        place = place_of(cause, target) if cause is not None else None
        return failed(component.id, said(error).partition("\n")[0], place or declared)
    return None


def _conform(component: Component, seen: Look, declared: Place | None, registry: Registry) -> Finding:
    given = _config(component, seen)
    made_up = given
    reason = _not_runnable(component, given)
    if reason:
        return Finding(component.id, NOT_RUN, f"{reason}; {ELSEWHERE}")
    from modelgraft.testing import ConformanceError, conform, open_node

    subject: Any = type("Subject", (), {"__component__": component})
    if component.load is not None:
        try:
            with contained():
                open_node(subject, given)
        except Exception as error:  # noqa: BLE001 it may need files that only a source has
            place = place_of(error.__cause__ or error, component.home)
            at = (place.file, place.line) if place else (None, None)
            text = said(error).partition("\n")[0]
            if isinstance(error, Escaped) or isinstance(error.__cause__, Escaped):  # no lack of a source is told that way
                return Finding(component.id, FAILED, f"loading it ends in {text}", *at)
            return Finding(component.id, NOT_RUN, f"it is not loaded without a source ({text}); {ELSEWHERE}", *at)
    with_what = f" with {', '.join(f'{name}: {value}' for name, value in made_up.items())}" if made_up else ""
    try:
        with contained():
            conform(subject, given, *types_of(registry).values())
    except ConformanceError as error:
        return failed(component.id, f"{error}{with_what and f'{chr(10)}  (made up:{with_what})'}", declared)
    except Exception as error:  # noqa: BLE001 a component may raise anything while it runs
        cause = error.__cause__ if isinstance(error, PluginError) and error.__cause__ is not None else error
        place = place_of(cause, component.home)
        text = said(error).partition("\n")[0]
        if made_up or _refuses(error, component):
            at = (place.file, place.line) if place else (None, None)
            what = f"made-up sizes{with_what}" if made_up else "made-up inputs"
            return Finding(component.id, NOT_RUN, f"it does not run on {what} ({text}); {ELSEWHERE}", *at)
        return failed(component.id, text, place or declared)
    return Finding(component.id)


def _refuses(error: Exception, component: Component) -> bool:
    """Whether a component says by an error on purpose that it does not take what it got."""
    return isinstance(error, InputError) or (isinstance(error, ValueError) and is_raised_by(error, component.home))


def _config(component: Component, seen: Look) -> dict[str, Any]:
    """What is made up to try a component with, beside its defaults."""
    fields = component.config.model_fields
    open_dims = [name for name in dimension_fields(component.config) if name not in seen.given and fields[name].default is None]
    return {**seen.given, **dict(zip(open_dims, WIDTHS, strict=False))}


def _not_runnable(component: Component, given: Mapping[str, Any]) -> str:
    """Why a component cannot be run alone, or an empty string."""
    if component.kind == "adapter":
        return "it works inside another node"
    if component.load is not None and "from_source" in vars(component.config):
        return "it is loaded from a source"
    try:
        with contained():
            size = component.config.model_validate(dict(given)).parameters()
    except Exception as error:  # noqa: BLE001 light code of a plugin may raise anything
        return f"it needs a config ({said(error).partition(chr(10))[0]})" if given else ""
    return f"its default config has {size:,} parameters" if size is not None and size > MOST_PARAMETERS else ""


# -- other offers -------------------------------------------------------------------------------------------------------


def _target(what: str, target: str) -> tuple[Any, Finding | None]:
    """What "package.module:name" stands for, or why it cannot be had."""
    import importlib

    module, _, name = target.partition(":")
    try:
        with contained():
            return getattr(importlib.import_module(module), name), None
    except ModuleNotFoundError as error:
        if error.name and not module.startswith(error.name):
            return None, Finding(what, NOT_RUN, f"it needs the package '{error.name}', which is not installed")
        return None, failed(what, f"{target} is not there: {said(error)}")
    except Exception as error:  # noqa: BLE001 code of a plugin may raise anything while it is imported
        return None, failed(what, f"{target} cannot be imported: {said(error)}", place_of(error, module))


def _reader(what: str, name: str, registry: Registry) -> Finding:
    function, wrong = _target(what, registry.weight_readers[name])
    if wrong is None and not callable(function):
        wrong = failed(what, f"{registry.weight_readers[name]} is no function")
    return wrong or Finding(what)


def _backend(what: str, name: str, registry: Registry) -> Finding:
    made, wrong = _target(what, registry.backends[name].target)
    if wrong is None and not callable(getattr(made, "load", None)):
        wrong = failed(what, "it has no method load: let it inherit from modelgraft.plugin.Backend", _line_of(made))
    return wrong or Finding(what)


def _recorded(what: str, name: str, registry: Registry) -> Finding:
    folder = registry.recorded_configs[name]
    if not (folder / "config.json").is_file():
        return failed(what, f"there is no {folder / 'config.json'}")
    try:
        json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        return failed(what, f"cannot be read: {error}", Place(str(folder / "config.json")))
    return Finding(what)


def _type(what: str, name: str, registry: Registry) -> Finding:  # noqa: ARG001 as its like
    return Finding(what)


def _keeper(what: str, name: str, registry: Registry) -> Finding:
    made, wrong = _target(what, registry.keepers[name])
    if wrong is None and not (isinstance(made, type) and issubclass(made, Keeper) and getattr(made, "kind", None) == name):
        wrong = failed(what, f"{registry.keepers[name]} is no modelgraft.plugin.Keeper whose kind is '{name}'", _line_of(made))
    return wrong or Finding(what)


def _family(what: str, name: str, registry: Registry) -> Finding:
    """Whether what a card names is there, and its layouts say no to what they are not."""
    from modelgraft.cli.card_proof import card_troubles
    from modelgraft.sources.families import families

    card = registry.families[name]
    troubles = list(card_troubles(card, families(), registry)) if isinstance(card, FamilyCard) else []
    return failed(what, "; ".join(troubles)) if troubles else Finding(what)


_OTHERS: Mapping[str, Callable[[str, str, Registry], Finding]] = {
    "weight reader": _reader,
    "backend": _backend,
    "family": _family,
    "recorded config": _recorded,
    "record type": _type,
    "kept kind": _keeper,
}


# -- the process --------------------------------------------------------------------------------------------------------


def main(name: str, limit_s: float, skip: frozenset[str]) -> None:
    """Look at a plugin, and tell it line by line."""
    lines = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a plugin prints, in whatever way, is no line of ours

    def tell(**facts: Any) -> None:
        lines.write(json.dumps(facts) + "\n")
        lines.flush()

    tell(start="import")
    registry = installed.discover()
    plugin = registry.plugins.get(name)
    if plugin is None:
        near = nearest(name, registry.plugins)
        tell(unknown=f"there is no plugin '{name}'; there are: {choices(registry.plugins, most=40)}. {near}".rstrip())
        return
    tell(package=plugin.distribution, version=plugin.version)
    for what, run in looks_at(plugin, registry, limit_s=limit_s):
        if what not in skip:
            tell(start=what)
            tell(found=asdict(run()))
    tell(end=True)


def run_process() -> None:
    """Be the process: threads and exit handlers of a plugin have no say in how it ends."""
    from modelgraft.cli import stray

    stray.listen()
    try:
        main(sys.argv[1], float(sys.argv[2]), frozenset(sys.argv[3:]))
    except BaseException:  # noqa: BLE001 a defect of ours, told to whoever looks at stderr
        traceback.print_exc()
        os._exit(70)  # as the command line ends with one
    os._exit(0)
