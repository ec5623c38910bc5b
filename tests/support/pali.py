"""A tiny PaLI in a folder, and the ViT and mT5 of transformers put together by hand as it puts them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from safetensors.torch import save_file
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from support.checkpoints import randomise
from support.tokenizers import byte_level

SENTINELS = tuple(f"<extra_id_{index}>" for index in range(3))
EYE = {"hidden_size": 24, "intermediate_size": 37, "num_hidden_layers": 2, "num_attention_heads": 3, "image_size": 15, "patch_size": 5}


@dataclass(frozen=True)
class Reference:
    """The parts of a PaLI as transformers has them, put together here."""

    eye: Any
    project: Any
    language: Any
    tokenizer: Any

    def memory(self, pixels: torch.Tensor, lines: list[str], fusion: str) -> tuple[torch.Tensor, torch.Tensor]:
        """(what the decoder attends to, where there is something)."""
        image = self.project(self.eye(pixels).last_hidden_state[:, 1:])
        words = self.tokenizer(lines, return_tensors="pt", padding=True)
        seen = torch.ones(image.shape[:2], dtype=torch.long)
        if fusion == "encoder_concat":
            mask = torch.cat([seen, words.attention_mask], 1)
            embedded = torch.cat([image, self.language.shared(words.input_ids)], 1)
            return self.language.encoder(inputs_embeds=embedded, attention_mask=mask).last_hidden_state, mask
        read = self.language.encoder(words.input_ids, attention_mask=words.attention_mask).last_hidden_state
        return torch.cat([read, image], 1), torch.cat([words.attention_mask, seen], 1)

    def taught(self, pixels: torch.Tensor, lines: list[str], answers: torch.Tensor, fusion: str) -> Any:
        """Logits and loss of given answers, int64[batch tokens] with -100 behind their ends, with what gradients take."""
        memory, mask = self.memory(pixels, lines, fusion)
        return self.language(encoder_outputs=(memory,), attention_mask=mask, labels=answers)

    @torch.no_grad()
    def forced(self, pixels: torch.Tensor, lines: list[str], answers: torch.Tensor, fusion: str) -> Any:
        """The same without."""
        return self.taught(pixels, lines, answers, fusion)

    @torch.no_grad()
    def written(self, pixels: torch.Tensor, lines: list[str], fusion: str, count: int) -> torch.Tensor:
        """The tokens of greedy answers, without the start token."""
        memory, mask = self.memory(pixels, lines, fusion)
        outputs = hf.modeling_outputs.BaseModelOutput(last_hidden_state=memory)
        how = {"max_new_tokens": count, "do_sample": False, "num_beams": 1, "use_cache": False}  # its cache wants two stacks of one depth
        made = self.language.generate(encoder_outputs=outputs, attention_mask=mask, **how)
        return made[:, 1:]


def saved(folder: Path, *, seed: int = 1) -> Reference:
    """A tiny PaLI in the layout of its card: a ViT of transformers, a linear layer, an mT5 with a head of its own."""
    tokenizer = byte_level(begin=None, end="</s>", pad="<pad>", suffix=True, extra=SENTINELS)
    tokenizer.padding_side = "right"
    config = hf.MT5Config(
        vocab_size=len(tokenizer), d_model=26, d_kv=6, d_ff=39, num_layers=2, num_decoder_layers=3, num_heads=3,
        relative_attention_num_buckets=8, relative_attention_max_distance=16, pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id, decoder_start_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    language = hf.MT5ForConditionalGeneration(config)
    language.lm_head = torch.nn.Linear(26, len(tokenizer), bias=False)
    made = Reference(hf.ViTModel(hf.ViTConfig(**EYE), add_pooling_layer=False), torch.nn.Linear(24, 26), language, tokenizer)
    parts = {"vision_model": made.eye, "projector": made.project, "language_model": language}
    state: dict[str, torch.Tensor] = {}
    for index, (name, part) in enumerate(parts.items()):
        randomise(part, seed=seed + index)
        part.eval()
        state |= {f"{name}.{key}": tensor.clone() for key, tensor in part.state_dict().items() if "embed_tokens" not in key}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(state, folder / "model.safetensors")
    text_config = {**config.to_dict(), "tie_word_embeddings": False}
    vision_config = {**EYE, "model_type": "vit", "layer_norm_eps": 1e-12}
    (folder / "config.json").write_text(json.dumps({"model_type": "pali", "vision_config": vision_config, "text_config": text_config}))
    tokenizer.save_pretrained(folder)
    ViTImageProcessorPil(size={"height": 15, "width": 15}).save_pretrained(folder)
    return made
