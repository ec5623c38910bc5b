"""Recipes with the weights and the tensors of a fixture of published code, in place of what their graphs prepare: its losses are known."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from support import checkpoints
from support.oracles import oracle
from support.recipes import Recipe, Wanted, drawn

Records = Sequence[Mapping[str, Any]]
Seen = Mapping[str, Any]


def weights_of(name: str, kind: str, **more: str) -> Callable[[Path], tuple[dict[str, Any], Any]]:
    """What makes the weights of a fixture a folder: `checkpoint`, and params that name a part of it."""

    def make(folder: Path) -> tuple[dict[str, Any], Any]:
        given = oracle(name)
        path = given.as_folder(folder / "weights", {"model_type": kind, **{k: v for k, v in given.config.items() if k != "samples"}})
        return {"checkpoint": str(path), **{param: f"{path}{part}" for param, part in more.items()}}, given

    return make


def rows(**columns: torch.Tensor) -> list[dict[str, torch.Tensor]]:
    """Tensors of a batch as records."""
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def stated(**losses: torch.Tensor | float) -> Callable[[Any, Records, Seen], Wanted]:
    """A reference that is known beforehand."""
    return lambda _made, _records, _seen: Wanted({name: float(value) for name, value in losses.items()})


def drawn_together(one: torch.Tensor, other: torch.Tensor, scale: float) -> torch.Tensor:
    """InfoNCE in both directions over vectors of any length."""
    cosines = scale * functional.normalize(one, dim=-1) @ functional.normalize(other, dim=-1).T
    right = torch.arange(len(one))
    return (functional.cross_entropy(cosines, right) + functional.cross_entropy(cosines.T, right)) / 2


def blip2_stage1_made(folder: Path) -> tuple[dict[str, Any], Any]:
    """The Q-Former of the fixture, and an eye of the width that it reads."""
    params, given = weights_of("blip2_stage1", "blip2_qformer")(folder)
    return {**params, "eye": str(checkpoints.blip2(folder / "eye", **_sizes(given)).folder)}, given


def blip2_stage2_made(folder: Path) -> tuple[dict[str, Any], Any]:
    """A BLIP-2 of transformers with all that the second stage takes of the fixture: its queries, its norm, and what reads pictures."""
    params, given = blip2_stage1_made(folder)
    made = checkpoints.blip2(folder / "blip2", **_sizes(given))
    model, theirs = made.model, given.weights
    model.query_tokens = torch.nn.Parameter(theirs["query_tokens"].clone())
    model.config.num_query_tokens = theirs["query_tokens"].shape[1]
    norm = model.vision_model.post_layernorm
    norm.load_state_dict({name: theirs[f"ln_vision.{name}"] for name in ("weight", "bias")})
    norm.eps = 1e-5  # as torch has it, and the authors: that of transformers' eye is 1e-6
    reads = {name: name.replace("attention.attention.", "attention.self.") for name in model.qformer.state_dict()}
    begun = {
        name: f"Qformer.bert.{'embeddings.LayerNorm' + name[9:] if name.startswith('layernorm') else key}" for name, key in reads.items()
    }
    model.qformer.load_state_dict({name: theirs[key] for name, key in begun.items()})
    return {"checkpoint": str(made.folder), "stage1": params["checkpoint"]}, made


def _sizes(given: Any) -> dict[str, Any]:
    """Of a checkpoint around the Q-Former of the fixture."""
    names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    return {"hidden_size": given.config["encoder_width"], "num_attention_heads": 4, "qformer": {name: given.config[name] for name in names}}


def hubert_loss() -> Callable[[Any, Records, Seen], Wanted]:
    """What fairseq loses in all books for each masked token, and ten times the mean square of the features."""
    (case,) = (one for one in oracle("hubert").cases.values() if "mask" in one.inputs)
    books = sum(loss for name, loss in case.outputs.items() if name.startswith("loss_"))
    return stated(loss=books / case.inputs["mask"].sum() + 10 * case.outputs["features_pen"])


COCA, OMNIMAE = oracle("coca_openclip").cases["two_pairs"], oracle("omnimae_pretrain").cases["image"]
OMNIMAE_FILM = oracle("omnimae_pretrain").cases["video"]
FILM_HIDDEN = float(OMNIMAE_FILM.inputs["mask"][0].float().mean())  # the share of its mask
FROMAGE, BLIP2 = oracle("fromage").cases["four"], oracle("blip2_stage1").cases["three_pairs"]
BIND, HUBERT = oracle("imagebind").cases, oracle("hubert").cases["pretrain"]
STAGE1 = frozenset({"see", "read", "both", "write", "image_out", "text_out", "itc", "match", "words"})
FIXED = [  # with the weights and the tensors of a fixture
    Recipe(
        "coca/train", "train", weights_of("coca_openclip", "coca"),
        stated(contrast=COCA.outputs["contrastive"], caption=COCA.outputs["caption_times_2"] / 2),
        rows(vision_pixels=COCA.inputs["image"], words_ids=COCA.inputs["ids"], targets_ids=COCA.inputs["ids"]),
        frozenset({"vision", "pool", "words", "decode", "contrast"}),
        feeds={"vision.pixels": "float[batch 3 height width]", "words.ids": "int64[batch text_tokens]",
               "targets.ids": "int64[batch text_tokens]"},
        without=("pixels", "tokens", "inputs.image", "inputs.text", "nodes.words.in.mask", "nodes.targets.in.mask"),
        runs=False,
    ),
    Recipe(
        "omnimae/rebuild", "train", weights_of("omnimae_pretrain", "omnimae"), stated(loss=OMNIMAE.outputs["loss"]),
        rows(
            **{f"{node}_pixels": OMNIMAE.inputs["pixels"] for node in ("hide", "see", "wanted", "beside")},
            hide_mask=OMNIMAE.inputs["mask"],
        ),
        frozenset({"see", "guess", "head"}),
        params={"ratio": 13.5 / 16, "size": 32},
        feeds={
            **{f"{node}.pixels": "float[batch 3 height width]" for node in ("hide", "see", "wanted", "beside")},
            "hide.mask": "bool[batch rows columns]",
        },
        without=("pixels", "inputs.image"),
    ),
    Recipe(
        "omnimae/pretrain", "train", weights_of("omnimae_pretrain", "omnimae"),
        stated(picture=OMNIMAE.outputs["loss"], film_loss=OMNIMAE_FILM.outputs["loss"]),
        rows(
            **{f"{node}_pixels": OMNIMAE.inputs["pixels"] for node in ("hide", "see", "wanted")}, hide_mask=OMNIMAE.inputs["mask"],
            **{f"film_{node}_pixels": OMNIMAE_FILM.inputs["pixels"] for node in ("hide", "see", "wanted")},
            film_hide_mask=OMNIMAE_FILM.inputs["mask"],
        ),
        frozenset({"see", "guess", "head", "film_see", "film_guess", "film_head"}),
        params={"ratio": 13.5 / 16, "size": 32, "film_ratio": FILM_HIDDEN, "frames": 8},
        feeds={
            **{f"{node}.pixels": "float[batch 3 height width]" for node in ("hide", "see", "wanted")},
            "hide.mask": "bool[batch rows columns]",
            **{f"film_{node}.pixels": "float[batch 3 frames height width]" for node in ("hide", "see", "wanted")},
            "film_hide.mask": "bool[batch times rows columns]",
        },
        without=("pixels", "film", "inputs.image", "inputs.video"),
    ),
    *(
        Recipe(
            "fromage/train", "train",
            weights_of("fromage", "fromage", language="#language_model", vision=""),
            stated(
                caption=FROMAGE.outputs["concat_loss" if concat else "caption_loss"],
                retrieval=FROMAGE.outputs["retrieval_lm_loss"], contrast=FROMAGE.outputs["infonce"],
            ),
            rows(
                vision_pixels=FROMAGE.inputs["pixels"],
                **{f"{node}_ids": FROMAGE.inputs["labels"] for node in ("read", "write")},
                **{f"{node}_mask": torch.arange(6) < FROMAGE.inputs["caption_len"][:, None] for node in ("read", "write")},
            ),
            frozenset({"prefix", "key", "query", "read", "contrast"}),
            params={"concat": concat, "tokens": 60},
            feeds={
                "vision.pixels": "float[batch 3 height width]",
                **{f"{node}.ids": "int64[batch text_tokens]" for node in ("read", "write")},
                **{f"{node}.mask": "bool[batch text_tokens]" for node in ("read", "write")},
            },
            without=("pixels", "words", "inputs.image", "inputs.text"),
        )
        for concat in (0.0, 1.0)
    ),
    *(
        Recipe(
            "imagebind/align", stage, weights_of("imagebind", "imagebind"),
            stated(**{f"draw_{stage}": drawn_together(BIND["vision_image"].outputs["head"], other, scale)}),
            rows(see_x=BIND["vision_image"].inputs["vision"], **{f"{node}_x": BIND[case].inputs[stage]}),
            frozenset({node}),
            feeds={"see.x": "float[batch 3 42 42]", f"{node}.x": type_},
            without=("pixels", "inputs.vision", before, f"inputs.{stage}"),
        )
        for stage, case, node, before, scale, type_, other in (
            ("audio", "audio_clips", "hear", "bands", 20.0, "float[batch clips 1 mels frames]", BIND["audio_clips"].outputs["embedding"]),
            ("depth", "depth", "reach", "distance", 5.0, "float[batch 1 rows columns]", BIND["depth"].outputs["head"]),
            ("thermal", "thermal", "warm", "grey", 10.0, "float[batch 1 rows columns]", BIND["thermal"].outputs["head"]),
            ("imu", "imu", "move", "signal", 5.0, "float[batch 6 steps]", BIND["imu"].outputs["head"]),
        )
    ),
    Recipe(
        "blip2/stage1", "train", weights_of("blip2_stage1", "blip2_qformer"),
        stated(**{name: BLIP2.outputs[f"loss_{name}"] for name in ("itc", "itm", "itg")}),
        rows(
            **{f"{node}_memory": BLIP2.inputs["image_embeds"] for node in ("see", "negatives", "write")},
            **{f"{node}_ids": BLIP2.inputs["ids"] for node in ("read", "negatives", "write")},
            **{f"{node}_mask": BLIP2.inputs["mask"].bool() for node in ("read", "negatives", "write")},
            **{f"negatives_{name}": BLIP2.inputs[name] for name in ("neg_image", "neg_text")},
        ),
        STAGE1,
        feeds={
            **{f"{node}.memory": "float[batch memory_tokens 20]" for node in ("see", "negatives", "write")},
            **{f"{node}.ids": "int64[batch text_tokens]" for node in ("read", "negatives", "write")},
            **{f"{node}.mask": "bool[batch text_tokens]" for node in ("read", "negatives", "write")},
            **{f"negatives.{name}": "int64[batch]" for name in ("neg_image", "neg_text")},
        },
        without=("pixels", "vision", "tokens", "inputs.image", "inputs.text"),
        runs=False,
    ),
    Recipe(
        "blip2/stage1", "train", blip2_stage1_made, None,
        [
            {"image": drawn(seed), **record}
            for seed, record in enumerate(rows(
                **{f"{node}_ids": BLIP2.inputs["ids"] for node in ("read", "negatives", "write")},
                **{f"{node}_mask": BLIP2.inputs["mask"].bool() for node in ("read", "negatives", "write")},
            ))
        ],
        STAGE1,
        feeds={
            **{f"{node}.ids": "int64[batch text_tokens]" for node in ("read", "negatives", "write")},
            **{f"{node}.mask": "bool[batch text_tokens]" for node in ("read", "negatives", "write")},
        },
        without=("tokens", "inputs.text"),
    ),
    Recipe(
        "hubert/pretrain", "train", weights_of("hubert", "hubert"), hubert_loss(),
        rows(
            encoder_samples=HUBERT.inputs["wave"], encoder_spans=HUBERT.inputs["mask"], loss_spans=HUBERT.inputs["mask"],
            loss_units=torch.stack([HUBERT.inputs["codes_0"], HUBERT.inputs["codes_1"]], -1),
        ),
        frozenset({"encoder", "codes"}),
        params={"offset": 0},
        feeds={"encoder.samples": "float[batch samples]", "encoder.spans": "bool[batch tokens]", "loss.spans": "bool[batch tokens]",
               "loss.units": "int64[batch frames books]"},
        without=("samples", "masked", "inputs.audio", "inputs.units", "nodes.encoder.in.mask", "outputs.spans"),
    ),
]  # fmt: skip
