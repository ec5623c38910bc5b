"""Parts of NExT-GPT: what comes out for each medium, published counts, and sources of something else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from modelgraft.installed.discovery import assemble
from modelgraft.testing import conform
from modelgraft_plugins import families, nextgpt, projectors
from modelgraft_plugins.nextgpt import Output
from support.open_part import configured, counts

REGISTRY = assemble({"families": families, "nextgpt": nextgpt, "projectors": projectors})
SMALL = {
    "hidden_size": 14,
    "inner_size": 12,
    "encoder_layers": 2,
    "decoder_layers": 1,
    "heads": 3,
    "feed_forward": 20,
    "width": 9,
    "signals": 4,
}
# of the published components, counted by building them
PUBLISHED = {"gen_text_hidden_fcs": 31_958_784, "gen_text_hidden_fcs_audio": 31_788_544, "gen_text_hidden_fcs_video": 32_090_112}


@pytest.mark.parametrize("queries", [1, 5])
def test_it_keeps_its_declaration(queries: int):
    """Of one query the vector comes out too."""
    conform(Output, {**SMALL, "queries": queries})


@pytest.mark.parametrize("part", PUBLISHED)
def test_published_projections_have_the_published_counts(part: str):
    """By the formula, and by building them."""
    assert counts(configured(REGISTRY, "nextgpt/output", f"preset:nextgpt-7b#{part}")) == (PUBLISHED[part], PUBLISHED[part])


def test_the_published_input_projection_has_the_published_count():
    """A map from the width of ImageBind to that of the language model."""
    node = configured(REGISTRY, "projector/linear", "preset:nextgpt-7b#llama_proj", in_features=1024)
    assert counts(node) == (4_198_400, 4_198_400)


@pytest.mark.parametrize(
    ("config", "part", "told"),
    [
        ({"model_type": "nextgpt"}, "gen_text_hidden_fcs", "its config.json lacks llm_width, inner_width, encoder_layers"),
        ({"model_type": "fromage"}, "gen_text_hidden_fcs", "the config states model_type: 'fromage'"),
        ({"model_type": "nextgpt"}, "llama_proj", "nextgpt/output is one of three: write"),
    ],
)
def test_a_source_of_something_else_is_told(config: dict[str, Any], part: str, told: str):
    """A config that lacks sizes, one of another family, and a part that is no output projection."""

    class Stated:
        root, whole, text = config, "model", f"model#{part}"

    Stated.part = part  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match=told):
        Output.from_source(Stated)  # type: ignore[arg-type]


@pytest.mark.parametrize(("keys", "told"), [(("0.model.weight",), "no projection by a transformer"), (None, r"several layers \(0, 1\)")])
def test_a_file_of_another_projection_is_told(keys: tuple[str, ...] | None, told: str, tmp_path: Path):
    """The linear one, and those of several layers of the language model."""
    layer = ("fc.weight", "query_embs", "model.weight", "tfm.encoder.layers.0.linear1.weight")
    names = keys or [f"{number}.{name}" for number in (0, 1) for name in layer]
    save_file({f"gen_text_hidden_fcs.{name}": torch.zeros(1, 2, 3) for name in names}, tmp_path / "delta.safetensors")
    with pytest.raises(ValueError, match=told):
        configured(REGISTRY, "nextgpt/output", f"{tmp_path / 'delta.safetensors'}#gen_text_hidden_fcs")
