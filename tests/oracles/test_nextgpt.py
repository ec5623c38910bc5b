"""NExT-GPT's projections beside the published code: what goes in, what comes out for each medium, and the loss that draws it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from modelgraft.installed.discovery import assemble
from modelgraft.testing import run_node
from modelgraft_plugins import families, nextgpt, projectors
from modelgraft_plugins.losses import Alignment
from support.open_part import counts, open_part
from support.oracles import Case, Oracle, cases, must_differ, oracle

REGISTRY = assemble({"nextgpt": nextgpt, "projectors": projectors, "families": families})
NAME = "nextgpt_projections"
PARTS = {"image": "gen_text_hidden_fcs", "video": "gen_text_hidden_fcs_video", "audio": "gen_text_hidden_fcs_audio"}


def folder_of(given: Oracle, home: Path) -> Path:
    """The weights under their official keys, and the sizes in the words of the fixture."""
    return given.as_folder(home, {"model_type": "nextgpt", **given.config}) if not (home / "config.json").exists() else home


def medium_of(case: Case) -> str:
    """What a case is about: the medium that its name begins with."""
    return next(medium for medium in PARTS if case.name.startswith(medium))


def embeds_of(found: torch.Tensor | dict[str, torch.Tensor]) -> torch.Tensor:
    """What a diffusion model reads, of a projection with one output or two."""
    return found["prompt_embeds"] if isinstance(found, dict) else found


def run(case: Case, checkpoint: Path, **told: int) -> dict[str, torch.Tensor]:
    """One projection, found in the whole by the component's own reader; of what comes out, also the loss."""
    if "imagebind" in case.inputs:
        part = open_part(REGISTRY, "projector/linear", f"{checkpoint}#llama_proj", over="vector")
        return {"token": part(case.inputs["imagebind"])[:, None]}
    states = torch.stack([case.inputs["embeddings"], case.inputs["hidden"]], dim=1)  # [spans 2 tokens width]: layers 0 and -1
    found = open_part(REGISTRY, "nextgpt/output", f"{checkpoint}#{PARTS[medium_of(case)]}", **told)(states)
    condition = embeds_of(found)
    if isinstance(found, dict):  # of one query
        torch.testing.assert_close(found["vector"], condition[:, 0], rtol=0, atol=0)
    wanted = case.inputs["caption_embedding"]
    lost = run_node(Alignment, {}, x=condition, wanted=wanted)["loss"]
    assert lost.shape == wanted.shape[:1]
    return {"condition": condition, "alignment_loss": lost.mean()}


@pytest.mark.parametrize("case", cases(NAME))
def test_it_equals_the_published_code(case: Case, tmp_path: Path):
    """Every output of every medium, from a folder that says the sizes."""
    case.compare_all(run(case, folder_of(oracle(NAME), tmp_path / "whole")))


@pytest.mark.parametrize("ending", [".pt", ".safetensors"])
@pytest.mark.parametrize("case", cases(NAME))
def test_the_published_file_says_the_sizes_by_its_shapes(case: Case, ending: str, tmp_path: Path):
    """But for the heads of attention; the answers are those of the folder."""
    given = oracle(NAME)
    case.compare_all(run(case, given.as_file(tmp_path / f"pytorch_model{ending}"), heads=given.config["heads"]))


def test_a_weight_that_is_off_shows(tmp_path: Path):
    must_differ(NAME, lambda given, case: run(case, folder_of(given, tmp_path / "off")))


def test_the_order_of_signal_tokens_does_not_matter(tmp_path: Path):
    """They have no places; what each of them is does matter."""
    case = next(case for case in oracle(NAME).cases.values() if "hidden" in case.inputs and case.inputs["hidden"].shape[1] > 1)
    folder = folder_of(oracle(NAME), tmp_path / "whole")
    states = torch.stack([case.inputs["embeddings"], case.inputs["hidden"]], dim=1)
    part = open_part(REGISTRY, "nextgpt/output", f"{folder}#{PARTS[medium_of(case)]}")
    found, turned = embeds_of(part(states)), embeds_of(part(states.flip(2)))
    torch.testing.assert_close(turned, found, rtol=0, atol=1e-5)
    assert not torch.allclose(embeds_of(part(states[:, :, :1].expand_as(states).contiguous())), found, atol=1e-3)


@pytest.mark.parametrize("medium", PARTS)
def test_the_formula_counts_what_is_built(medium: str, tmp_path: Path):
    part = open_part(REGISTRY, "nextgpt/output", f"{folder_of(oracle(NAME), tmp_path / 'whole')}#{PARTS[medium]}")
    formula, built = counts(part.node)
    assert formula == built == sum(parameter.numel() for parameter in part.module.parameters())
