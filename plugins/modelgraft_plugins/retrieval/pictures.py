"""The work of retrieval/pictures: one answer for each record, by what retrieval/unseen answers with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from modelgraft.plugin import InputError, LoadContext, NodeRuntime
from modelgraft_plugins.retrieval import unseen

if TYPE_CHECKING:
    from modelgraft_plugins.retrieval import Pictures
    from modelgraft_plugins.retrieval.unseen import Answering


def load(config: Pictures, context: LoadContext) -> Finding:
    """Open the index. Raises InputError as retrieval/nearest does."""
    return Finding(unseen.load(config, context))


class Finding:
    """Finds the pictures that are nearest to the vector of each record."""

    def __init__(self, answering: Answering) -> None:
        self.answering = answering

    def bind(self, runtime: NodeRuntime) -> None:
        """Take who hears of files that are gone."""
        self.answering.bind(runtime)

    def __call__(self, vector: Tensor) -> dict[str, Any]:
        """vector: float[batch width]. Raises InputError where of none of the hits there is a picture any more."""
        found = self.answering([[row] for row in vector])
        images = [answers[0] for answers in found["images"]]
        paths = [answers[0] for answers in found["paths"]]
        for shown, there in zip(images, paths, strict=True):
            if not shown:
                raise InputError(
                    f"{self.answering.node}: '{there[0]}' is gone, and the index has no small picture of it: index the folder again"
                )
        names = [[Path(path).name for path in record] for record in paths]
        scores = [record[0] for record in found["scores"]]
        return {"image": [shown[0] for shown in images], "images": images, "names": names, "paths": paths, "scores": torch.stack(scores)}
