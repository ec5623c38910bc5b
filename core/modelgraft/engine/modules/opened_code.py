"""Code that a component loads, opened. Light: a graph of texts imports no torch."""

from __future__ import annotations

from modelgraft.engine.backend import LoadContext, Loaded
from modelgraft.engine.modules.protocol import Bind, Close, Gives, Warns
from modelgraft.engine.modules.targets import resolve
from modelgraft.kernel.words.errors import PluginError
from modelgraft.kernel.words.guard import contained, shown


def load_code(context: LoadContext) -> Loaded:
    """Open what the `load` function of a component gives. Raises PluginError for what cannot be called."""
    component = context.node.component
    with contained():
        opened = resolve(component.load or "", component)(context.node.config, context)
    if not callable(opened):
        raise PluginError(f"{component.load} (component '{component.id}') gave {shown(opened)}, wanted something that can be called")
    giving = opened.giving if component.taps and isinstance(opened, Gives) else None
    return Loaded(
        opened if giving is None else giving(frozenset(context.node.out_ports)),
        bind=opened.bind if isinstance(opened, Bind) else None,
        close=opened.close if isinstance(opened, Close) else lambda: None,
        warnings=tuple(opened.warnings) if isinstance(opened, Warns) else (),
        giving=giving,
    )
