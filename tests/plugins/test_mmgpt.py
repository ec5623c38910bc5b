"""MultiModal-GPT: LoRA in a language model and in the gated blocks that were grafted into it before, from files as they are published."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

import modelgraft as mg
from support import openflamingo
from support.oracles import cases

pytestmark = [
    pytest.mark.slow,  # it imports transformers and peft
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]
RANK, ALPHA = 3, 5
IN_LANGUAGE, IN_BLOCKS = ("q_proj", "k_proj", "v_proj", "o_proj"), ("attn.to_q", "attn.to_kv", "attn.to_out", "ff.1", "ff.3")
BLOCK = "lang_encoder.model.layers.{}.gated_cross_attn_layer.{}.weight"  # in the files of OpenFlamingo


def updated(folder: Path) -> dict[str, torch.Tensor]:
    """Draw updates, put them into the weights of a copy of the parts below `merged`, and give them in the names of the published file."""
    openflamingo.parts(folder)
    openflamingo.parts(folder / "merged")
    language, trained = folder / "merged/language/model.safetensors", folder / "merged/openflamingo.safetensors"
    tongue, blocks = load_file(language), load_file(trained)
    draw, found = torch.Generator().manual_seed(4), dict[str, torch.Tensor]()

    def update(table: dict[str, torch.Tensor], key: str, published: str) -> None:
        rows, columns = table[key].shape
        down, up = torch.randn(RANK, columns, generator=draw) * 0.2, torch.randn(rows, RANK, generator=draw) * 0.2
        table[key] = table[key] + ALPHA / RANK * up @ down
        found[f"{published}.lora_A.default.weight"], found[f"{published}.lora_B.default.weight"] = down, up

    before = "lang_encoder.base_model.model.model.layers"
    for key in sorted(tongue):
        if key.endswith(tuple(f"{name}.weight" for name in IN_LANGUAGE)):
            inside = key.removeprefix("model.layers.").removesuffix(".weight")
            update(tongue, key, f"{before}.{inside.partition('.')[0]}.decoder_layer.{inside.partition('.')[2]}")
    for key in sorted(blocks):
        if key.endswith(tuple(f"{name}.weight" for name in IN_BLOCKS)) and ".gated_cross_attn_layer." in key:
            number, _, inside = key.removeprefix("lang_encoder.model.layers.").removesuffix(".weight").partition(".gated_cross_attn_layer.")
            update(blocks, key, f"{before}.{number}.gated_cross_attn_layer.{inside}")
    save_file(tongue, language, {"format": "pt"})
    save_file(blocks, trained)
    return found


def opened(folder: Path, lora: dict[str, Any] | None = None) -> mg.Pipeline:
    """The language model with its gated blocks, and perhaps an adapter behind them."""
    openflamingo.graph(folder)
    if lora is not None:
        graph = yaml.safe_load((folder / "graph.yaml").read_text())
        graph["nodes"]["llm"]["adapters"].append({"use": "adapter/lora", **lora})
        (folder / "graph.yaml").write_text(yaml.safe_dump(graph))
    return mg.open(folder / "graph.yaml")


@pytest.mark.parametrize("case", cases("openflamingo"))
def test_it_answers_as_an_openflamingo_with_the_updates_in_its_weights(case: Any, tmp_path: Path):
    state = updated(tmp_path)
    torch.save({"model_state_dict": state}, tmp_path / "mmgpt-lora.pt")
    ids = openflamingo.rows_of(case.inputs["lang_x"], case.inputs["attention_mask"])[0]
    given = {"prompt": openflamingo.text_of(ids), "pictures": openflamingo.pictures_of(case.name, 0)[None][:, : openflamingo.shown_in(ids)]}
    with opened(tmp_path, {"from": "./mmgpt-lora.pt", "with": {"alpha": ALPHA}}) as ours, opened(tmp_path / "merged") as merged:
        torch.testing.assert_close(ours.run(**given)["logits"], merged.run(**given)["logits"], rtol=0, atol=2e-5)
    with opened(tmp_path) as plain:
        assert (plain.run(**given)["logits"] - merged_logits(tmp_path, given)).abs().max() > 0.01


def merged_logits(folder: Path, given: dict[str, Any]) -> torch.Tensor:
    with opened(folder / "merged") as merged:
        found: torch.Tensor = merged.run(**given)["logits"]
    return found


def test_new_updates_reach_the_blocks_and_change_nothing(tmp_path: Path):
    """As LoRA begins; a layer that there is nowhere is still a slip that is told."""
    openflamingo.parts(tmp_path)
    ids = [3, openflamingo.IMAGE, 5, 7]
    given = {"prompt": openflamingo.text_of(ids), "pictures": torch.randn(1, 1, 16, 36)}
    targets = [*IN_LANGUAGE, "to_q", "ff.1"]
    with opened(tmp_path, {"with": {"rank": RANK, "targets": targets}}) as new:
        found = new.run(**given)["logits"]
        names = {name for name, _ in new._loader.loaded()["llm"].state.named_parameters()}
    assert any("gated.blocks" in name and "to_q.lora_A" in name for name in names)
    with opened(tmp_path) as plain:
        torch.testing.assert_close(found, plain.run(**given)["logits"], rtol=0, atol=0)
    with (
        pytest.raises(mg.ModelgraftError, match="has no linear layer named to_z"),
        opened(tmp_path, {"with": {"targets": ["q_proj", "to_z"]}}) as odd,
    ):
        odd.run(**given)
