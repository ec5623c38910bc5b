"""What to say about a component that is not there: a misspelling, another version, a broken plugin or a missing one."""

from __future__ import annotations

import re
from typing import Any

from modelgraft.kernel.shelf.registry import Plugin, Registry
from modelgraft.kernel.words.errors import choices, nearest

_MISSING_PACKAGE = re.compile(r"No module named '([\w.]+)'")


def explain_missing(id: Any, registry: Registry) -> tuple[str, str]:  # Any: what stands after `use:` may be anything
    """A sentence, and a way out.

    A quarantined plugin offers nothing, so it is held responsible for the ids under its own name (`ocr` for `ocr/lines`,
    `heads` for `head/x`) and, when nobody else offers the namespace, any quarantined plugin may be the one.
    """
    if not isinstance(id, str) or "/" not in id:
        return f"`use` names a component as namespace/name, not {id!r}", "`modelgraft components` lists them"
    name, _, version = id.partition("@")
    if name in registry.components:
        there = registry.components[name].version
        return f"'{name}' is installed in version {there}, not {version or there}", f"write use: {name}@{there}, or {name} for any version"
    namespace = name.partition("/")[0]
    siblings = [other for other in registry.components if other.startswith(f"{namespace}/")]
    broken = [plugin for plugin in registry.quarantined().values() if _is_named_after(plugin, namespace)]
    if not broken and not siblings:
        broken = list(registry.quarantined().values())
        if broken:
            listed = "; ".join(_broken(plugin) for plugin in broken)
            return f"no working plugin offers '{name}'; it may belong to one that could not be loaded: {listed}", _repair(broken[0])
    if broken:
        return f"'{name}' belongs to {_broken(broken[0])}", _repair(broken[0])
    close = nearest(name, registry.components)
    if siblings:
        return f"no installed plugin offers '{name}'; there are: {choices(siblings)}. {close}".rstrip(), ""
    hint = "`modelgraft components` lists them; `modelgraft plugins install NAME` adds a plugin"
    return f"no installed plugin offers '{name}', nor anything else under {namespace}/. {close}".rstrip(), hint


def _is_named_after(plugin: Plugin, namespace: str) -> bool:
    return namespace in (plugin.name, plugin.name.removesuffix("s"), plugin.module.rpartition(".")[2])


def _broken(plugin: Plugin) -> str:
    return f"the plugin '{plugin.name}', which could not be loaded: {plugin.error}"


def _repair(plugin: Plugin) -> str:
    """What to do: install a package that is missing, else mend the line that raised, else (no line of it ran) install it again."""
    package = _MISSING_PACKAGE.search(plugin.error)
    top = package.group(1).partition(".")[0] if package else ""
    if top and top != plugin.module.partition(".")[0].partition(":")[0]:
        return f"install what it needs: pip install {top}"
    details = f"details: modelgraft plugins info {plugin.name}"
    if plugin.place is not None and not plugin.is_shipped:
        return f"mend it at {plugin.place}; {details}"
    return f"install it again: pip install --force-reinstall {plugin.distribution or plugin.name}; {details}"
