"""What a plugin or a backend lacks when a node is loaded, told with the node that needed it."""

from __future__ import annotations

import re

from modelgraft.kernel.words.errors import PluginError
from modelgraft.kernel.words.graph import Node


def at_node(error: PluginError, node: Node) -> PluginError:
    """The error with the node and where that stands; as it is where it names the node itself."""
    text = error.unworded
    if re.search(rf"(?<![\w/]){re.escape(node.name)}(?![\w/])", text):
        return error
    return PluginError(f"{node.name} ({node.place.short}): {text}" if node.place else f"{node.name}: {text}")
