"""Qwen-VL beside its published code: what sees at every stage, and the language model with pictures between its words."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from support.installed import registry
from support.open_part import Part, counts, open_part
from support.oracles import Case, Oracle, cases, must_differ, oracle

REGISTRY = registry()
WHOLE, VISUAL = "qwen_vl", "qwen_vl_visual"


def visual_folder(given: Oracle, home: Path) -> Path:
    """What sees alone, under its official keys."""
    return given.as_folder(home, {"model_type": VISUAL, **given.config})


def whole_folder(given: Oracle, home: Path) -> Path:
    """The whole, under its official keys, with the config of its code."""
    return given.as_folder(home, {"model_type": "qwen", **given.config})


def seen(source: str, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
    """What each part makes of prepared pictures."""
    patches = open_part(REGISTRY, "qwenvl/eye", source, interpolate=True)(pixels)
    latents = open_part(REGISTRY, "qwenvl/adapter", source)(patches)
    return {"patches": patches, "latents": latents, "image_tokens": open_part(REGISTRY, "qwenvl/post", source)(latents)}


def run_visual(given: Oracle, case: Case, home: Path) -> dict[str, torch.Tensor]:
    return seen(str(visual_folder(given, home)), case.inputs["pixels"])


def spliced(part: Part, ids: torch.Tensor, pictures: list[torch.Tensor], start: int) -> torch.Tensor:
    """The embeddings of a row, with the next pictures strictly between their marks, which are `start` and the token behind it."""
    embedded = part.module.embed(ids)
    begins, ends = (ids == start).nonzero()[:, 0].tolist(), (ids == start + 1).nonzero()[:, 0].tolist()
    for begin, end in zip(begins, ends, strict=True):
        embedded[begin + 1 : end] = pictures.pop(0)
    return embedded


def run_whole(given: Oracle, case: Case, home: Path) -> dict[str, torch.Tensor]:
    """Each position of a row is the end of a prompt of its own, so that the decoder says its logits."""
    source = str(whole_folder(given, home))
    found, pictures = dict[str, torch.Tensor](), list[torch.Tensor]()
    if "pixels" in case.inputs:
        found["image_tokens"] = seen(f"{source}#visual", case.inputs["pixels"])["image_tokens"]
        pictures = list(found["image_tokens"])
    part = open_part(REGISTRY, "llm/causal", f"{source}#language_model")
    decoder, ids = part.module.torch_decoder(), case.inputs["ids"]
    logits = torch.zeros(*ids.shape, given.config["vocab_size"])
    for row, mask in enumerate(case.inputs["mask"].bool()):
        embedded = spliced(part, ids[row][mask], pictures, given.config["image_start_id"])
        session = decoder.start([embedded[: end + 1] for end in range(len(embedded))], room=1)
        logits[row, mask] = session.logits
    assert not pictures
    return {**found, "logits": logits}


@pytest.mark.parametrize("case", cases(VISUAL))
def test_what_sees_equals_the_published_code(case: Case, tmp_path: Path):
    """Patches, latents and what stands among the words, at three sizes of pictures."""
    case.compare_all(run_visual(oracle(VISUAL), case, tmp_path))


@pytest.mark.parametrize("case", cases(WHOLE))
def test_the_whole_equals_the_published_code(case: Case, tmp_path: Path):
    """Logits of every token of rows with and without pictures, whose parts find themselves under the official keys."""
    case.compare_all(run_whole(oracle(WHOLE), case, tmp_path))


@pytest.mark.parametrize("seed", range(3))
def test_a_weight_that_is_off_shows(tmp_path: Path, seed: int):
    must_differ(VISUAL, lambda given, case: run_visual(given, case, tmp_path / VISUAL), seed=seed)
    must_differ(WHOLE, lambda given, case: run_whole(given, case, tmp_path / WHOLE), seed=seed)


def test_the_formulas_count_every_tensor(tmp_path: Path):
    """Of each part, and all together as many numbers as the file has."""
    folder = str(whole_folder(oracle(WHOLE), tmp_path))
    parts = [open_part(REGISTRY, f"qwenvl/{name}", f"{folder}#visual") for name in ("eye", "adapter", "post")]
    parts.append(open_part(REGISTRY, "llm/causal", f"{folder}#language_model"))
    found = [counts(part.node) for part in parts]
    assert all(formula == exact for formula, exact in found)
    assert sum(formula or 0 for formula, _ in found) == sum(tensor.numel() for tensor in oracle(WHOLE).weights.values())


@pytest.mark.parametrize("ending", ["safetensors", "bin"])
def test_a_file_alone_says_its_sizes(tmp_path: Path, ending: str):
    """But for heads and sides, which are those of every published file unless the graph says them."""
    given = oracle(VISUAL)
    case = next(iter(given.cases.values()))
    file, sizes = given.as_file(tmp_path / f"eye.{ending}"), given.config
    eye = open_part(REGISTRY, "qwenvl/eye", str(file), heads=sizes["heads"], image_size=sizes["image_size"], interpolate=True)
    adapter = open_part(REGISTRY, "qwenvl/adapter", str(file), resampler_heads=sizes["resampler_heads"])
    patches = eye(case.inputs["pixels"])
    case.compare(patches=patches, latents=adapter(patches))
