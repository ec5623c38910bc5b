"""Tiny files of BEiT-3 and of VQ-KD as they are published, with random weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from modelgraft.testing import open_node
from modelgraft_plugins.beit3.encoder import Encoder
from modelgraft_plugins.beit3.heads import Answer, Classify, Reason
from modelgraft_plugins.beit3.vqkd import Decoder, Tokenizer
from support.tokenizers import sentence_pieces

WIDTH, PIECES = 64, 28  # one head, as wide as those that are published; the pieces of support.tokenizers and five special tokens
SIZES = {
    "hidden_size": WIDTH, "intermediate_size": 40, "num_hidden_layers": 2, "image_size": 24, "patch_size": 8, "vocab_size": PIECES,
    "max_position_embeddings": 70,
}  # fmt: skip


def drawn(component: Any, config: Mapping[str, Any], *, seed: int) -> dict[str, torch.Tensor]:
    """The tensors of a part, none of them near 0 or 1."""
    state = open_node(component, config).loaded.state.state_dict()
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(tensor.shape, generator=generator) * (0.3 if tensor.ndim > 1 else 0.2)
        + (0.8 if name.endswith("norm.weight") else 0.0)
        for name, tensor in state.items()
    }


def trunk(**more: Any) -> dict[str, torch.Tensor]:
    """The trunk under its official keys."""
    return {f"beit3.{name.removeprefix('trunk.')}": tensor for name, tensor in drawn(Encoder, {**SIZES, **more}, seed=1).items()}


def linear(name: str, out: int, *, bias: bool = True) -> dict[str, torch.Tensor]:
    """A head of one layer behind the trunk."""
    generator = torch.Generator().manual_seed(3)
    weight = {f"{name}.weight": 0.3 * torch.randn(out, WIDTH, generator=generator)}
    return {**weight, **({f"{name}.bias": 0.3 * torch.randn(out, generator=generator)} if bias else {})}


def heads_of(use: str) -> dict[str, torch.Tensor]:
    """What the published file of a use has beside the trunk."""
    match use:
        case "vqa":
            return drawn(Answer, {"hidden_size": WIDTH, "classes": 7}, seed=2)
        case "nlvr2":
            return drawn(Reason, {"hidden_size": WIDTH, "classes": 2}, seed=2)
        case "in1k":
            return drawn(Classify, {"hidden_size": WIDTH, "classes": 6}, seed=2)
        case "caption":
            return linear("mlm_head", PIECES)
        case "itc":
            heads = {**linear("vision_head", WIDTH, bias=False), **linear("language_head", WIDTH, bias=False)}
            return {**heads, "logit_scale": torch.tensor(2.0)}
    return {**linear("mim_head", 11), **linear("mlm_head", PIECES)}


def published(folder: Path, use: str) -> str:
    """A file of a use, as it is published, with the tokenizer beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"beit3_tiny_{use}.pth"
    torch.save({"model": {**trunk(normalize_output=use not in ("vqa", "in1k")), **heads_of(use)}}, path)
    sentence_pieces(folder / "beit3.spm")
    return str(path)


def tokenizer_of_pictures(path: Path, *, side: int = 24) -> str:
    """A file of VQ-KD as it is published."""
    sizes = {
        "hidden_size": WIDTH,
        "num_hidden_layers": 1,
        "image_size": side,
        "patch_size": 8,
        "codes": 11,
        "code_size": 5,
        "decoded_size": 9,
    }
    state = {**drawn(Tokenizer, sizes, seed=4), **drawn(Decoder, sizes, seed=5)}
    book = "quantize.embedding.weight"
    state[book] = torch.nn.functional.normalize(state[book], dim=-1)
    extra = {"quantize.embedding.cluster_size": torch.zeros(11), "quantize.embedding.embed_avg": torch.zeros(11, 5)}
    torch.save({"model": {**state, **extra, "quantize.embedding.initted": torch.ones(1), "teacher_model.proj": torch.zeros(2)}}, path)
    return str(path)
