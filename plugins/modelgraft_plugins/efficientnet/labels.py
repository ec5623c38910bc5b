"""The work of label/imagenet: the names of ImageNet's classes, from a package that lists them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from modelgraft.plugin import LoadContext, archives
from modelgraft_plugins.shares import softmax

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from modelgraft_plugins.efficientnet import ImageNetLabels

_FOLDER = "pypi:timm==1.0.31/timm/data/_info"
CLASSES = f"{_FOLDER}/imagenet_synsets.txt#sha256=70002b0ff5de60a3a17a82dbfcff291931f96225ddf941ad2e182fc39e183d15"
WORDS = f"{_FOLDER}/imagenet_synset_to_lemma.txt#sha256=1b8babda187421a4bde0c9c5a197c36f6bdda962f7ca11ffb2813806cbb2178f"


def load(config: ImageNetLabels, context: LoadContext) -> Callable[[NDArray[Any]], dict[str, Any]]:
    """Fetch the names, and make the function from float[batch 1000] to names and probabilities."""
    names = read_names(archives.member(CLASSES, offline=context.offline), archives.member(WORDS, offline=context.offline))

    def name(logits: NDArray[Any]) -> dict[str, Any]:
        probabilities = softmax(logits)
        classes = np.argsort(-probabilities, axis=-1, kind="stable")[:, : config.count]  # of equal ones the first in the list
        values = np.take_along_axis(probabilities, classes, -1)
        kept = [max(1, sum(share >= config.least for share in row)) for row in values.tolist()]
        top = [[names[index] for index in row[:count]] for row, count in zip(classes.tolist(), kept, strict=True)]
        counts = np.arange(max(kept)) < np.array(kept)[:, None]  # of a record with fewer names than others the rest counts nothing
        roots = np.sqrt(values[:, : max(kept)]) * counts
        shares = (roots / roots.sum(-1, keepdims=True))[:, None]
        texts = [line(found, row[: len(found)]) for found, row in zip(top, values.tolist(), strict=True)]
        return {"labels": texts, "top": top, "names": top, "shares": shares, "probabilities": probabilities}

    return name


def line(names: list[str], probabilities: list[float]) -> str:
    """Write "Egyptian cat (62 %), tabby (20 %)"."""
    return ", ".join(f"{name} ({100 * share:.0f} %)" for name, share in zip(names, probabilities, strict=True))


def read_names(classes: Path, words: Path) -> tuple[str, ...]:
    """The name of each class in the order of the logits: the first of its synonyms.

    classes  one WordNet id per line, in the order of the logits;  words  lines of an id, a tab, and synonyms with commas
    """
    synonyms = dict(entry.split("\t") for entry in words.read_text(encoding="utf-8").splitlines())
    return tuple(synonyms[wordnet_id].partition(",")[0] for wordnet_id in classes.read_text(encoding="utf-8").split())
