"""Whether what a module has beside its call is asked for by anybody, and takes what it is called with."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from modelgraft.engine.modules.protocol import OF_CODE, OF_MODULES

ALIKE = 0.85  # how near a name is to one that is asked for, so that it looks misspelt: `after_loaded`, `bindd`, `optional_key`


def protocol_law(subject: Any, *, is_module: bool) -> Iterator[str]:
    """What is wrong with the methods of a module, or of what a `load` function gave.

    Any: whatever a component is made of. Nothing is called.
    """
    known = OF_MODULES if is_module else OF_CODE
    yield from (text for name, protocol in known.items() if (text := _misfit(subject, name, protocol)))
    for name in _own_names(type(subject)):
        near = get_close_matches(name, known, n=1, cutoff=ALIKE)
        if near and name not in known:
            yield f"nobody asks for '{name}': is '{near[0]}' meant? {_told(known[near[0]], near[0])}"


def _misfit(subject: Any, name: str, protocol: Any) -> str:
    """What is wrong with the method or attribute of that name, if it is there."""
    found = inspect.getattr_static(subject, name, None)
    if found is None:
        return ""
    if isinstance(inspect.getattr_static(protocol, name), property):
        return f"'{name}' is a method; wanted: an attribute or a property. {_told(protocol, name)}" if inspect.isroutine(found) else ""
    wanted = list(inspect.signature(getattr(protocol, name)).parameters)[1:]
    given = getattr(subject, name)
    if not callable(given):
        return f"'{name}' cannot be called; wanted: {name}({', '.join(wanted)}). {_told(protocol, name)}"
    try:
        inspect.signature(given).bind(*wanted)
    except TypeError:
        return f"'{name}' takes {inspect.signature(given)}; it is called as {name}({', '.join(wanted)}). {_told(protocol, name)}"
    except ValueError:  # written in C, and without a signature
        return ""
    return ""


def _told(protocol: Any, name: str) -> str:
    """The first sentence on a method of the protocol."""
    return (inspect.getdoc(inspect.getattr_static(protocol, name)) or "").partition("\n")[0]


def _own_names(kind: type) -> Iterator[str]:
    """The public methods and properties that an author wrote, without those of torch."""
    for base in kind.__mro__:
        if base is object or base.__module__.partition(".")[0] in ("torch", "typing", "abc"):
            continue
        names: Mapping[str, Any] = vars(base)
        yield from (name for name, value in names.items() if name[0] != "_" and (inspect.isroutine(value) or isinstance(value, property)))
