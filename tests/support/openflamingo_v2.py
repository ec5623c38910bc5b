"""The tiny OpenFlamingo v2 of tests/oracles as folders: an MPT whose table has spare rows, and the file of what was trained."""

from __future__ import annotations

from pathlib import Path

import torch
import transformers as hf
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers

from support.openflamingo import Parts, write_vision
from support.oracles import Oracle

ADDED = ("<|endofchunk|>", "<image>", "<PAD>")  # in the order in which its code adds them
SPARE = 7  # rows of the published table behind its tokens


def parts(folder: Path, given: Oracle) -> Parts:
    """Write them below a folder; the language model is the one before training, whose embeddings are others."""
    found = Parts(folder / "language", folder / "vision", folder / "openflamingo.safetensors")
    write_vision(found.vision, given)
    _language(found.language, given)
    trained = ("perceiver.", "lang_encoder.transformer.wte.")
    kept = {name: tensor for name, tensor in given.weights.items() if name.startswith(trained) or "gated_cross_attn" in name}
    save_file(kept, found.trained)
    return found


def tokens(given: Oracle) -> int:
    """How many tokens the language model had before three were added."""
    return int(given.config["vocab_size"]) - len(ADDED)


def text_of(ids: list[int], given: Oracle) -> str:
    """The text that the tokenizer reads as these ids."""
    known = tokens(given)
    return " ".join(ADDED[index - known] if index >= known else f"w{index}" for index in ids)


def _language(folder: Path, given: Oracle) -> None:
    sizes, known = given.config, tokens(given)
    config = hf.MptConfig(
        vocab_size=known + SPARE, d_model=sizes["hidden_size"], n_heads=sizes["num_attention_heads"], n_layers=sizes["num_hidden_layers"],
        max_seq_len=64, expansion_ratio=sizes["expansion_ratio"],
    )  # fmt: skip
    model = hf.MptForCausalLM(config).eval()
    own = {
        name.removeprefix("lang_encoder.").replace(".decoder_layer.", "."): tensor
        for name, tensor in given.weights.items()
        if name.startswith("lang_encoder.") and "gated_cross_attn" not in name and "wte" not in name
    }
    missing, strange = model.load_state_dict(own, strict=False)
    assert not strange
    assert all("wte" in name or "lm_head" in name for name in missing)
    torch.nn.init.normal_(model.transformer.wte.weight)
    model.save_pretrained(folder)
    words = Tokenizer(models.WordLevel({f"w{index}": index for index in range(known)}, unk_token="w1"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    hf.PreTrainedTokenizerFast(tokenizer_object=words).save_pretrained(folder)
