"""OpenFlamingo: its resampler, its gated blocks and the whole of it, equal to its own code, through the shipped graph and its own files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from torch import Tensor

import modelgraft as mg
from modelgraft.installed.discovery import assemble
from modelgraft.testing import run_node
from modelgraft_plugins import resampler
from modelgraft_plugins.llm.gated_blocks import GatedCrossAttentionBlock, sight
from modelgraft_plugins.llm.gated_writer import text_time
from modelgraft_plugins.losses import CrossEntropy
from support import openflamingo, openflamingo_v2
from support.open_part import open_part
from support.openflamingo import Parts, rows_of, text_of
from support.oracles import Case, Oracle, cases, fed, must_differ, oracle

pytestmark = [
    pytest.mark.usefixtures("untuned_cache"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]

REGISTRY = assemble({"resampler": resampler})
ATTENDS = {"all_previous": "all", "next": "next"}  # how a case is called -> what a word sees
SECOND = "expansion_ratio"  # a word of MPT, which the second OpenFlamingo is made of


def resampled(given: Oracle, case: Case) -> Mapping[str, Tensor]:
    """The resampler on its file; its heads are said, since the file does not say them."""
    heads = {"num_heads": given.config["heads"], "head_dim": given.config["dim_head"]}
    with TemporaryDirectory() as folder:
        file = given.as_file(Path(folder) / "perceiver.safetensors")
        return {"latents": open_part(REGISTRY, "resampler/perceiver", str(file), many=True, **heads)(case.inputs["x"])}


def looked(given: Oracle, case: Case) -> Mapping[str, Tensor]:
    """A block: the last medium, the next one, all of them (`all_previous`), or what new words see behind a prompt (`cached`)."""
    sizes, words, media = given.config, case.inputs["x"], case.inputs["media"]
    block = GatedCrossAttentionBlock(
        sizes["dim"], sizes["dim_visual"], heads=sizes["heads"], head_width=sizes["dim_head"], multiple=sizes["ff_mult"]
    )
    block.load_state_dict(given.weights)
    attends = next((word for begins, word in ATTENDS.items() if case.name.startswith(begins)), "last")
    rows = case.inputs["media_locations"].long().tolist()
    seen = torch.tensor([text_time(row, 1, frozenset(), attends=attends) for row in rows])
    if case.name.startswith("cached"):
        seen = seen[:, -1:].expand(-1, words.shape[1])
    medium = torch.arange(1, media.shape[1] + 1).repeat_interleave(media.shape[2]).expand(len(words), -1)
    with torch.no_grad():
        keys, values = block.keys_values(media.flatten(1, 2))
        what = sight([keys, values], seen, medium, attends=attends)
        return {"attention": block.attn(words, keys, values, what), "y": block(words, keys, values, what)}


def whole(given: Oracle, case: Case) -> Mapping[str, Tensor]:
    """`fewshot` from prepared pixels on, over LLaMA or MPT. Logits at each place are those behind the prompt that ends there."""
    rows = rows_of(case.inputs["lang_x"], case.inputs["attention_mask"])
    ends = [(row, end + 1) for row, ids in enumerate(rows) for end in range(len(ids))]
    with TemporaryDirectory() as home:
        folder = Path(home)
        side = given.config["image_size"]
        feeds = {"vision.pixels": f"float[batch images 3 {side} {side}]", "llm.counts": "int64[batch]"}
        without = ("pixels", "pictures", "inputs.image")
        outputs = {"tokens": "vision.tokens", "latents": "resampler.latents", "logits": "llm.logits"}
        path = fed(folder, "fewshot", feeds, outputs, without=without)
        graph = mg.load(path, params=params_of_v2(given, folder) if SECOND in given.config else params(given, folder))
        with mg.open(graph) as pipeline:
            pixels = case.inputs["vision_x"][:, :, 0]
            seen = pipeline.run(outputs=["tokens", "latents"], **asked(given, pixels, rows))
            each = [rows[row][:end] for row, end in ends]
            logits = pipeline.run(outputs=["logits"], **asked(given, pixels[[row for row, _ in ends]], each))["logits"]
            loss = lost(given, case, pipeline._loader.loaded()["llm"].state, seen["latents"])
    placed = torch.zeros(*case.inputs["lang_x"].shape, logits.shape[-1])
    placed[case.inputs["attention_mask"].bool()] = logits
    found = {"vision_tokens": seen["tokens"][:, :, None], "latents": seen["latents"], "logits": placed}
    return found | loss


def lost(given: Oracle, case: Case, loaded: Any, latents: Tensor) -> dict[str, Tensor]:
    """The loss of a case, by the language model and its blocks as they were loaded.

    It counts what padding says of the first word, which no prompt can ask for, so that rows are read with their padding here.
    """
    if "labels" not in case.inputs:
        return {}
    ids, gated = case.inputs["lang_x"], loaded.gated
    seen = torch.tensor([text_time(row, given.config["media_token_id"], frozenset()) for row in ids.tolist()])
    medium = torch.arange(1, latents.shape[1] + 1).repeat_interleave(latents.shape[2]).expand(len(ids), -1)
    with torch.no_grad(), gated.looking(gated.keys_values(latents.flatten(1, 2)), seen, medium):
        logits = loaded.model(input_ids=ids, attention_mask=case.inputs["attention_mask"]).logits
    shares = run_node(CrossEntropy, {"over": "tokens"}, logits=logits[:, :-1], labels=case.inputs["labels"][:, 1:])["loss"]
    return {"loss": shares.mean()}


def params_of_v2(given: Oracle, folder: Path) -> dict[str, object]:
    """The same over an MPT, with what the graph openflamingo/v2 says beside openflamingo: how many tokens its tokenizer has."""
    params_of_it = params(given, folder, openflamingo_v2.parts(folder, given))
    return {**params_of_it, "tokens": list(openflamingo_v2.ADDED), "nodes.llm.with.vocab_size": openflamingo_v2.tokens(given)}


def params(given: Oracle, folder: Path, found: Parts | None = None) -> dict[str, object]:
    """The files of an oracle as the graph takes them, and the heads, which they do not say."""
    found, sizes = found or openflamingo.parts(folder, given), given.config
    heads = {"num_heads": sizes["xattn_heads"], "head_dim": sizes["xattn_head_dim"]}
    return {
        "checkpoint": str(found.trained), "language": str(found.language), "nodes.vision.from": str(found.vision), "tokens": [],
        "max_new_tokens": 0, "nodes.llm.with.end_tokens": [], "nodes.llm.with.prompt": "{prompt}",
        "nodes.resampler.with.num_heads": sizes["resampler_heads"],
        "nodes.resampler.with.head_dim": sizes["resampler_head_dim"],
        "nodes.llm.adapters": [{
            "use": "adapter/gated_cross_attention", "from": f"{found.trained}#lang_encoder", "in": {"media": "resampler"},
            "with": {"every": sizes["cross_attn_every_n_layers"], **heads},
        }],
    }  # fmt: skip


def asked(given: Oracle, pixels: Tensor, rows: list[list[int]]) -> dict[str, object]:
    """Pictures, how many of them each row shows, and the rows as texts."""
    marker = given.config["media_token_id"]
    counts = torch.tensor([ids.count(marker) for ids in rows])
    return {"vision_pixels": pixels, "llm_counts": counts, "prompt": [said(ids, given) for ids in rows]}


def said(ids: list[int], given: Oracle) -> str:
    """The text that the tokenizer of an oracle reads as these ids."""
    return openflamingo_v2.text_of(ids, given) if SECOND in given.config else text_of(ids)


RUNS = {
    "openflamingo_resampler": resampled, "openflamingo_gated_block": looked, "openflamingo_v1_block": looked, "openflamingo": whole,
    "openflamingo_v2": whole,
}  # fmt: skip


@pytest.mark.parametrize("case", cases("openflamingo_resampler"))
def test_the_resampler_equals_its_own_code(case: Case):
    """Pictures, clips, and clips of fewer frames, several of a record."""
    case.compare_all(resampled(oracle("openflamingo_resampler"), case))


@pytest.mark.parametrize("case", cases("openflamingo_v1_block"))
def test_a_block_of_the_first_one_equals_its_own_code(case: Case):
    """With attend_previous and without: words belong to the last medium before them, or to the next one."""
    case.compare_all(looked(oracle("openflamingo_v1_block"), case))


@pytest.mark.parametrize("case", cases("openflamingo_gated_block"))
def test_a_block_equals_its_own_code(case: Case):
    """What attention reads, and the whole block."""
    case.compare_all(looked(oracle("openflamingo_gated_block"), case))


@pytest.mark.parametrize("case", cases("openflamingo_v2"))
def test_the_second_one_equals_its_own_code_at_every_place(case: Case):
    """An MPT, whose table is cut behind the tokens that were added, and is the head as well."""
    case.compare_all(whole(oracle("openflamingo_v2"), case))


@pytest.mark.parametrize("case", cases("openflamingo"))
def test_the_whole_equals_its_own_code_at_every_place(case: Case):
    """Tokens of pictures, latents, logits and loss: words before the first picture, pictures that nothing shows, rows without any."""
    case.compare_all(whole(oracle("openflamingo"), case))


@pytest.mark.parametrize("name", RUNS)
def test_a_weight_that_is_off_shows(name: str):
    """Any that matters."""
    must_differ(name, RUNS[name])
