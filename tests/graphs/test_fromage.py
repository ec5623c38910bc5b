"""The graphs of FROMAGe: counted to the unit, from the released layout, on tiny random weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import modelgraft as mg
from support.oracles import Case, Oracle, cases, fed, oracle

NAME = "fromage"
FILLED = 5  # rows that fill the table of the OPT up, [RET]'s among them


def released(given: Oracle, home: Path, *, prunes: bool = True) -> dict[str, str]:
    """Three folders as a user has them: what was trained, in the released layout; the OPT and the CLIP that it was trained with.

    The OPT has rows that fill its table up, and nothing of [RET].
    """
    state, config = given.weights, given.config
    table = state["model.input_embeddings.weight"]
    trained = {key: tensor for key, tensor in state.items() if ".lm." not in key and ".visual_model." not in key}
    if prunes:
        del trained["model.input_embeddings.weight"]
    trained["ret_input_embeddings.weight"] = table[config["ret_token_id"]][None].clone()
    for name in ("checkpoint", "language", "vision"):
        (home / name).mkdir(parents=True, exist_ok=True)
    torch.save({"state_dict": trained}, home / "checkpoint" / "pretrained_ckpt.pth.tar")
    stated = {"opt_version": "facebook/opt-tiny", "visual_encoder": "openai/clip-tiny", "freeze_lm": True, "task": "multitask"}
    stated |= {"n_visual_tokens": config["n_visual_tokens"], "shared_emb_dim": config["shared_emb_dim"]}
    (home / "checkpoint" / "model_args.json").write_text(json.dumps({**stated, "retrieval_token_idx": config["ret_token_id"]}))
    names = ("hidden_size", "ffn_dim", "num_hidden_layers", "num_attention_heads", "max_position_embeddings", "word_embed_proj_dim",
             "do_layer_norm_before", "pad_token_id", "eos_token_id")  # fmt: skip
    opt = {"model_type": "opt", "vocab_size": len(table) + FILLED - 1, **{key: config[key] for key in names if key in config}}
    lm = {key.removeprefix("model.lm."): tensor for key, tensor in state.items() if key.startswith("model.lm.")}
    filled = torch.cat([table[: config["ret_token_id"]], torch.full((FILLED, table.shape[1]), 3.0)])
    _save(home / "language", opt, {**lm, "model.decoder.embed_tokens.weight": filled})
    eye = {key.removeprefix("model.visual_"): tensor for key, tensor in state.items() if key.startswith("model.visual_model.")}
    clip = {"model_type": "clip_vision_model", "hidden_act": "quick_gelu", **config["vision"]}
    _save(
        home / "vision",
        {"model_type": "clip", "vision_config": clip, "text_config": {}, "projection_dim": 7},
        {f"vision_{key}": value for key, value in eye.items()},
    )
    return {"checkpoint": str(home / "checkpoint"), "language": str(home / "language"), "vision": str(home / "vision")}


def _save(folder: Path, config: dict[str, object], state: dict[str, torch.Tensor]) -> None:
    (folder / "config.json").write_text(json.dumps(config))
    save_file({key: tensor.contiguous() for key, tensor in state.items()}, folder / "model.safetensors")


@pytest.mark.parametrize("prunes", [True, False])
@pytest.mark.parametrize("case", cases(NAME))
def test_the_graph_of_training_equals_the_published_code_from_the_released_layout(case: Case, prunes: bool, tmp_path: Path):
    """Both models come from folders of their own; [RET] from the checkpoint, also where the captions are folded."""
    given = oracle(NAME)
    feeds = {
        "vision.pixels": "float[batch 3 height width]",
        "read.ids": "int64[batch caption_tokens]",
        "read.mask": "bool[batch caption_tokens]",
    }
    wanted = {"image_tokens": "prefix", "logits": "write.logits", "matched": "read.logits", "text": "query", "image": "key"}
    graph = fed(tmp_path, "fromage/train", feeds, wanted, without=("pixels", "words", "inputs.image", "inputs.text"))
    graph.write_text(graph.read_text() + "nodes.write.in.ids: inputs.read_ids\nnodes.write.in.mask: inputs.read_mask\n")
    params = {**released(given, tmp_path, prunes=prunes), "tokens": given.config["vocab_size_before_resize"]}
    ids = case.inputs["labels"]
    mask = torch.arange(ids.shape[1]) < case.inputs["caption_len"][:, None]
    for concat, name in ((0.0, "caption_loss"), (1.0, "concat_loss")):
        with mg.open(mg.load(graph, params={**params, "concat": concat})) as pipeline:
            found = pipeline.run(vision_pixels=case.inputs["pixels"], read_ids=ids, read_mask=mask)
        case.compare(**{name: found["caption"].mean()}, image_tokens=found["image_tokens"], text_embeddings=found["text"])
        case.compare(retrieval_logits=found["matched"], retrieval_lm_loss=found["retrieval"].mean(), infonce=found["contrastive"].mean())
        if not concat:
            case.compare(caption_logits=found["logits"])


@pytest.mark.parametrize("preset", ["preset:fromage", "preset:fromage-vis4"])
def test_what_is_trained_is_counted_to_the_unit(preset: str):
    """As published: 5.5 million numbers with one word for a picture; further words are further rows of one map."""
    words = int(mg.plan(mg.load("fromage/train", params={"checkpoint": preset})).totals.trainable or 0)
    further = {"preset:fromage": 0, "preset:fromage-vis4": 3 * (1024 * 4096 + 4096)}[preset]
    assert words == 5_513_729 + further
    assert mg.plan(mg.load("fromage/train", params={"checkpoint": preset}), exact=True).totals.trainable == words
