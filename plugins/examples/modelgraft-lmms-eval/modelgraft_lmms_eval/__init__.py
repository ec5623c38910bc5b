"""Graphs of modelgraft as models of lmms-eval: `python -m lmms_eval --model modelgraft --model_args graph=llava,...`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lmms_eval.models.registry_v2 import ModelManifest


def manifests() -> list[ModelManifest]:
    """What lmms-eval learns of this package, by the entry point group `lmms_eval.models`."""
    from lmms_eval.models.registry_v2 import ModelManifest

    home = f"{__name__}.model"
    return [ModelManifest("modelgraft", chat_class_path=f"{home}.Modelgraft", simple_class_path=f"{home}.SimpleModelgraft")]
