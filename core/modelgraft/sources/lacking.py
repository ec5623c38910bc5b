"""Sources without weights: why there are none, and whether they will come. Light, so that a check can tell it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from modelgraft.kernel.words.errors import choices
from modelgraft.sources import hub, weight_files

if TYPE_CHECKING:
    from modelgraft.sources.source_view import SourceView


def none_to_come(view: SourceView, *, offline: bool) -> str:
    """Why a source has no weights and will get none; "" where it has some, or where they are fetched when it is opened."""
    is_fetched = view.ref.kind == "archive" or (view.ref.kind == "hub" and not (offline or hub.is_offline()))
    return "" if view.has_weights or is_fetched else why_none(view)


def why_none(view: SourceView) -> str:
    """Say of a source without weights what there is of it."""
    if view.is_recorded or view.ref.kind == "hub":
        return f"the weights of '{view.text}' are not on this machine: only its published config is known"
    others = weight_files.others_in(view.folder) if view.folder is not None else []
    there = f"; it has {choices(path.name for path in others)}: give the one that is meant the name model.safetensors" if others else ""
    return (
        f"{view.folder or view.text} has no file of weights (model.safetensors, model.safetensors.index.json or pytorch_model.bin){there}"
    )
