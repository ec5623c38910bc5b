"""What is installed on this machine, by what the cache folder holds of it."""

from __future__ import annotations

import os

from modelgraft.installed import indexed
from modelgraft.kernel.shelf.registry import Registry
from modelgraft.sources.storage import root_of_what_is_kept

PLUGINS = "plugins"  # the folder in the cache


def installed_plugins() -> Registry:
    """The installed plugins: each is imported when something of it is used, where it is known from before what they offer.

    What is found out is kept where there is a cache already: to look at a graph makes no folder.
    """
    root = root_of_what_is_kept()
    return indexed.registry_in(root / PLUGINS, keep=os.path.isdir(root))  # noqa: PTH112 that of pathlib raises where nobody may look
