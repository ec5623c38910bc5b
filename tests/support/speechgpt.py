"""A SpeechGPT of tiny parts: an ear and a voice of random weights, centres, and a language model that says what it is told to."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from safetensors.torch import save_file

from modelgraft.testing import open_node
from modelgraft_plugins.vocoder.units import UnitHifiGan
from support.checkpoints import randomise
from support.tokenizers import byte_level

UNITS, LAYER, WIDTH = 60, 2, 24
WORDS = [*(f"<{unit}>" for unit in range(UNITS)), "<sosp>", "<eosp>", "[Human]", "[SpeechGPT]", "<eoh>", "<eos>"]
EAR = {
    "hidden_size": WIDTH, "intermediate_size": 37, "num_hidden_layers": 3, "num_attention_heads": 3, "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4, "conv_dim": [8] * 7,
}  # fmt: skip
VOICE: dict[str, Any] = {
    "upsample_rates": [5, 4, 4, 4], "upsample_kernel_sizes": [11, 8, 8, 4], "upsample_initial_channel": 16,
    "resblock_kernel_sizes": [3, 5], "resblock_dilation_sizes": [[1, 3, 5], [1, 2, 3]], "num_embeddings": UNITS, "embedding_dim": 8,
    "model_in_dim": 8, "layer": LAYER,
    "dur_predictor_params": {"encoder_embed_dim": 8, "var_pred_hidden_dim": 6, "var_pred_kernel_size": 3, "var_pred_dropout": 0.5},
}  # fmt: skip
SPOKEN = tuple((7 * number + 3) % UNITS for number in range(40))  # each once
SAID = f"dry;[ua]<sosp>{''.join(f'<{unit}>' for unit in SPOKEN)}<eosp>"  # no token of it stands there twice


def ear(folder: Path) -> Path:
    """A HuBERT of three layers, as transformers saves one."""
    model = hf.HubertModel(hf.HubertConfig(**EAR))
    randomise(model, seed=7)
    model.eval().save_pretrained(folder)
    hf.Wav2Vec2FeatureExtractor(return_attention_mask=False, do_normalize=False).save_pretrained(folder)
    return folder


def centres(path: Path, *, layer: int = LAYER, units: int = UNITS) -> Path:
    """Random centres that say of which layer they are."""
    drawn = torch.randn(units, WIDTH, generator=torch.Generator().manual_seed(3))
    save_file({"cluster_centers_": drawn}, path, metadata={"layer": str(layer)})
    return path


def voice(folder: Path, **stated: Any) -> Path:
    """A vocoder in the words of the published code, with random weights under its keys."""
    folder.mkdir()
    config = {**VOICE, **stated}
    (folder / "config.json").write_text(json.dumps(config))
    sizes = {
        "units": config["num_embeddings"], "width": 8, "hidden": 6, "channels": 16, "rates": (5, 4, 4, 4), "kernels": (11, 8, 8, 4),
        "block_kernels": (3, 5), "block_dilations": ((1, 3, 5), (1, 2, 3)),
    }  # fmt: skip
    module = open_node(UnitHifiGan, sizes).loaded.state
    randomise(module, seed=5)
    save_file(official(module.state_dict()), folder / "model.safetensors")
    return folder


def official(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors of our module under the keys of the published code, each weight of a convolution as a direction and a length."""
    found: dict[str, torch.Tensor] = {}
    for name, tensor in state.items():
        key = name.removeprefix("generator.").replace("upsampler.", "ups.").replace("embed.", "dict.")
        if key.startswith("predictor."):
            key = f"dur_{key}".replace(".conv1.", ".conv1.0.").replace(".conv2.", ".conv2.0.")
        if key in {"mean", "scale"}:
            continue
        if name.startswith("generator.") and tensor.dim() == 3:
            found[f"{key}_v"] = tensor.clone()
            found[f"{key}_g"] = tensor.flatten(1).norm(dim=1)[:, None, None]
        else:
            found[key] = tensor.clone()
    return found


def tokenizer(*, words: bool = True) -> Any:
    """That of a LLaMA, with the units among its words, or without."""
    made = byte_level(begin="<s>", end="</s>", pad="<pad>", prefix=True, extra=())
    if words:
        made.add_tokens(WORDS)
    return made


def llama(made: Any) -> Any:
    """A LLaMA of one layer for a tokenizer."""
    sizes = {"hidden_size": 96, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 4, "max_position_embeddings": 2048}
    ids = {"bos_token_id": made.bos_token_id, "eos_token_id": made.eos_token_id, "pad_token_id": made.pad_token_id}
    return hf.LlamaForCausalLM(hf.LlamaConfig(vocab_size=len(made), **sizes, **ids))


def language(folder: Path, said: str = SAID) -> Path:
    """A LLaMA that answers every prompt of SpeechGPT with the same words: each token makes the next the likeliest."""
    made = tokenizer()
    model = llama(made)
    ids = [
        *made("[SpeechGPT]: ", add_special_tokens=False).input_ids[-1:],
        *made(said, add_special_tokens=False).input_ids,
        made.eos_token_id,
    ]
    assert len(set(ids)) == len(ids), "each token has one that follows"
    with torch.no_grad():
        randomise(model, seed=9)
        table = torch.nn.functional.normalize(model.model.embed_tokens.weight, dim=1)
        model.model.embed_tokens.weight.copy_(table)
        model.model.norm.weight.fill_(1.0)
        model.model.layers[0].self_attn.o_proj.weight.zero_()
        model.model.layers[0].mlp.down_proj.weight.zero_()
        model.lm_head.weight.zero_()
        model.lm_head.weight[ids[1:]] = table[ids[:-1]]
    model.eval().save_pretrained(folder)
    made.save_pretrained(folder)
    return folder


def adapter(folder: Path, model: Any, *, seed: int = 2) -> Any:
    """Random updates of its queries and values, saved by peft; gives what peft makes of both."""
    import peft

    found = peft.get_peft_model(model, peft.LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in found.named_parameters():
            if "lora_" in name:
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    found.eval().save_pretrained(folder)
    return found


def parts(folder: Path, said: str = SAID) -> dict[str, Any]:
    """The params of the graph `speechgpt` for all of them; the answers are those of the language model alone."""
    home = language(folder / "language", said)
    adapter(folder / "adapter", hf.LlamaForCausalLM.from_pretrained(home))
    return {
        "checkpoint": str(home), "adapter": str(folder / "adapter"), "ear": str(ear(folder / "ear")),
        "centres": str(centres(folder / "centres.safetensors")), "voice": str(voice(folder / "voice")), "layer": LAYER, "units": UNITS,
        "temperature": 0, "max_new_tokens": 80, "chunk_s": 0.1,
    }  # fmt: skip
