"""What a plugin or a backend lacks when a node is loaded, told with the node that needed it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from modelgraft.kernel.words.errors import PluginError
from modelgraft.kernel.words.graph import Node


@contextmanager
def lacking_at(node: Node) -> Iterator[None]:
    """Tell a PluginError that is raised within with the node; it is its own cause nowhere."""
    try:
        yield
    except PluginError as error:
        if (told := _at_node(error, node)) is error:
            raise
        raise told from (error.__cause__ or error)


def _at_node(error: PluginError, node: Node) -> PluginError:
    """The error with the node and where that stands; as it is where it names the node itself."""
    text = error.unworded
    if re.search(rf"(?<![\w/]){re.escape(node.name)}(?![\w/])", text):
        return error
    return PluginError(f"{node.name} ({node.place.short}): {text}" if node.place else f"{node.name}: {text}")
