"""From "package.module:attribute" of a declaration to what it names."""

from __future__ import annotations

import importlib
from typing import Any

from modelgraft.kernel.words.errors import InputError, PluginError
from modelgraft.kernel.words.guard import contained, place_of, said
from modelgraft.kernel.words.kinds import Component


def resolve(target: str, component: Component) -> Any:  # Any: whatever a plugin has there
    """Import "package.module:attribute" of a component's declaration.

    Raises PluginError that names the plugin and, for a package that is not installed, what to install.
    """
    module_name, _, attribute = target.partition(":")
    try:
        with contained():
            return getattr(importlib.import_module(module_name), attribute)
    except ModuleNotFoundError as error:
        if error.name and not module_name.startswith(error.name):
            text = f"component '{component.id}' needs the package '{error.name}', which is not installed"
            raise PluginError(f"{text}; see `modelgraft plugins info {component.plugin}`") from error
        raise PluginError(f"plugin '{component.plugin}': component '{component.id}' names {target}, which is not there") from error
    except InputError as error:  # the plugin says by itself which package it lacks, and where to get it
        raise PluginError(f"component '{component.id}' cannot be loaded: {error.unworded}") from (error.__cause__ or error)
    except (ImportError, AttributeError) as error:
        raise PluginError(f"plugin '{component.plugin}': {target} (component '{component.id}') cannot be imported: {error}") from error
    except Exception as error:  # code of a plugin may raise anything while it is imported
        found = f"plugin '{component.plugin}': {target} (component '{component.id}') cannot be imported: {said(error)}"
        place = place_of(error, target)
        raise PluginError(f"{found}\n    this is a defect of the plugin" + (f": {place}" if place else "")) from error
