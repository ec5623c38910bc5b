"""What BLIP-2's first stage leaves, as the second begins with it: queries, the norm behind the eye, and all that reads pictures.

It is the file of its authors, seen in the layout of transformers, or what a training has written of qformer/pair. What reads words, which
are its embeddings and a feed-forward part of each layer, and the heads are what the second stage has no use for (arXiv 2301.12597, 3.3).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from modelgraft_plugins.qformer.pairs import AUTHORS, OWN, PairSizes

if TYPE_CHECKING:
    from torch import Tensor

    from modelgraft.plugin import Source, Weights

TRAINED = "qformer/pair"  # what the first stage trains
WITHIN = "reader."  # how the keys begin in what was trained
OF_WORDS = re.compile(r"qformer\.encoder\.layer\.\d+\.(intermediate|output)\.")
TAKEN = frozenset({*OWN, AUTHORS}) - {"vocab_size", "max_position_embeddings", "pad_token_id"}  # sizes of what reads pictures


def of_training(source: Source) -> Mapping[str, Any] | None:
    """The config of a trained qformer/pair; None for any other source."""
    return source.states(TRAINED)


def sizes(source: Source) -> dict[str, Any] | None:
    """The sizes of a whole of the first stage for qformer/qformer; None for any other source."""
    found = of_training(source)
    if found is None and (source.part or not source.root.get(AUTHORS)):
        return None
    whole = PairSizes.from_source(source) if found is None else {name: found[name] for name in PairSizes.model_fields if name in found}
    stated = PairSizes.model_validate(whole)
    return {name: getattr(stated, name) for name in sorted(TAKEN)}


def queries(weights: Weights) -> Tensor | None:
    """The queries, float[1 queries hidden_size]; None where the source is no whole of the first stage."""
    found = _tensors(weights)
    return None if found is None else found["query_tokens"]


def reader(weights: Weights) -> dict[str, Tensor] | None:
    """The norm behind the eye under `norm.`, and what reads pictures under `model.`; None where it is no whole of the first stage."""
    found = _tensors(weights)
    if found is None:
        return None
    names = {"ln_vision.": "norm.", "qformer.": "model."}
    taken = {key: tensor for key, tensor in found.items() if not OF_WORDS.match(key)}
    return {new + key.removeprefix(old): tensor for key, tensor in taken.items() for old, new in names.items() if key.startswith(old)}


def _tensors(weights: Weights) -> dict[str, Tensor] | None:
    """All of a whole under the names of transformers."""
    if weights.view.states(TRAINED) is not None:
        return {key.removeprefix(WITHIN): tensor for key, tensor in weights.state().items()}
    is_whole = not weights.view.part and weights.view.root.get(AUTHORS)
    return weights.state() if is_whole else None
