"""FROMAGe beside its published code: words of a picture, captions alone and folded, what [RET] means, and all losses."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from modelgraft.testing import open_node
from modelgraft_plugins import losses
from support.installed import registry
from support.open_part import Part, open_part
from support.oracles import Case, Oracle, cases, must_differ, oracle

REGISTRY = registry()
NAME = "fromage"


def folder_of(given: Oracle, home: Path) -> Path:
    """The weights under their official keys, and the sizes in the words of the fixture."""
    return given.as_folder(home, {"model_type": "fromage", **given.config})


def parts_of(folder: Path) -> dict[str, Part]:
    """Every part that finds itself in the whole."""
    whole = str(folder)
    tongue = f"{whole}#language_model"
    return {
        "vision": open_part(REGISTRY, "vision/encoder", f"{whole}#vision_model"),
        "prefix": open_part(REGISTRY, "fromage/prefix", whole),
        "key": open_part(REGISTRY, "fromage/key", whole),
        "query": open_part(REGISTRY, "fromage/query", whole),
        "caption": open_part(REGISTRY, "fromage/language", tongue),
        "folded": open_part(REGISTRY, "fromage/language", tongue, concat=1.0),
        "match": open_part(REGISTRY, "fromage/language", tongue, task="match"),
        "contrast": open_part(REGISTRY, "loss/contrastive", whole),
    }


def lost(found: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """The mean over the batch of the shares that loss/cross_entropy gives."""
    loss = open_node(losses.CrossEntropy, {"over": "tokens"})(found["logits"], found["targets"])
    return (loss["loss"] if isinstance(loss, dict) else loss).mean()


def refold(tensor: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Places of records as their pairs were read: what is there of both, then what fills up of both, by loops."""
    rows = []
    for first in range(0, len(tensor), 2):
        there, over = [], []
        for record in (first, first + 1):
            written = [place for place, label in enumerate(labels[record].tolist()) if label != -100]
            end = max(written) + 1
            there.append(tensor[record, :end])
            over.append(tensor[record, end:])
        rows.append(torch.cat([*there, *over]))
    return torch.stack(rows)


def run(given: Oracle, case: Case, folder: Path) -> dict[str, torch.Tensor]:
    """Through the components, each with the published keys."""
    parts = parts_of(folder_of(given, folder))
    ids, pixels = case.inputs["labels"], case.inputs["pixels"]
    mask = torch.arange(ids.shape[1]) < case.inputs["caption_len"][:, None]
    pooled = parts["vision"](pixels)["pooled"]
    tokens = parts["prefix"](pooled)
    caption = parts["caption"](ids, mask, tokens)
    match = parts["match"](ids, mask)
    key, query = parts["key"](pooled), parts["query"](match["states"])
    images = key * parts["contrast"].module.logit_scale.exp()
    found = {
        "image_tokens": tokens,
        "caption_logits": caption["logits"],
        "caption_labels": caption["labels"],
        "caption_loss": lost(caption),
        "retrieval_logits": match["logits"],
        "retrieval_labels": match["labels"],
        "retrieval_lm_loss": lost(match),
        "text_embeddings": query,
        "image_embeddings": images,
        "scores": images @ query.T,
        "infonce": parts["contrast"](key, query).mean(),
    }
    if "concat_loss" not in case.outputs:
        return found  # of an odd number nothing is folded
    together = parts["folded"](ids, mask, tokens)
    logits, labels = (refold(together[name], together["labels"]) for name in ("logits", "labels"))
    return {**found, "concat_logits": logits, "concat_labels": labels, "concat_loss": lost(together)}


@pytest.mark.parametrize("case", cases(NAME))
def test_it_equals_the_published_code(case: Case, tmp_path: Path):
    """Every output, element by element."""
    case.compare_all(run(oracle(NAME), case, tmp_path))


def test_a_weight_that_is_off_shows(tmp_path: Path):
    must_differ(NAME, lambda given, case: run(given, case, tmp_path))
