"""A tiny FROMAGe as a user has one: an OPT and a CLIP of transformers, and what was trained in its released layout; random numbers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from support.tokenizers import byte_level

FILLED = 5  # rows that fill the table of the OPT up
PICTURE, RET = "<|image|>", "[RET]"
SIDE = 32


@dataclass(frozen=True, slots=True)
class Tiny:
    """The three models, and what opens them in a graph."""

    opt: Any
    clip: Any
    tokenizer: Any  # with both tokens that are added
    trained: dict[str, torch.Tensor]
    params: dict[str, Any]
    words: int

    @property
    def ret(self) -> int:
        """The id of [RET]."""
        return len(self.tokenizer) - 1

    def pooled(self, picture: Image.Image) -> torch.Tensor:
        """The vector of a picture by transformers: float[1 width]."""
        pixels = _processor()(picture.convert("RGB"), return_tensors="pt")["pixel_values"]
        with torch.inference_mode():
            return self.clip.vision_model(pixels).pooler_output

    def prefix(self, picture: Image.Image) -> torch.Tensor:
        """Its words: float[words width]."""
        return self._map("model.visual_embeddings", self.pooled(picture)).view(self.words, -1)

    def key(self, picture: Image.Image) -> torch.Tensor:
        """What it is found by: float[shared], of length 1."""
        return torch.nn.functional.normalize(self._map("model.visual_fc", self.pooled(picture))[0], dim=-1)

    def query(self, state: torch.Tensor) -> torch.Tensor:
        """What a state asks for: float[shared], of length 1."""
        return torch.nn.functional.normalize(self._map("model.text_hidden_fcs.0.0", state), dim=-1)

    def embed(self, *parts: str | Image.Image) -> torch.Tensor:
        """A prompt of pictures and texts, float[tokens width]: the begin token once, before the first text."""
        rows, begins = [], True
        for part in parts:
            if isinstance(part, str):
                ids = self.tokenizer(part, add_special_tokens=begins).input_ids
                begins = False
                rows.append(self.opt.get_input_embeddings()(torch.tensor(ids, dtype=torch.int64)))
            else:
                rows.append(self.prefix(part))
        return torch.cat(rows).detach()

    @torch.inference_mode()
    def generate(self, prompt: torch.Tensor, count: int, *, scale: float = 1.0, least: int = 0) -> tuple[list[int], torch.Tensor]:
        """Greedy tokens, read again from the beginning for each, and the state at each: the published loop."""
        rows, ids = prompt[None], list[int]()
        for step in range(count):
            logits = self.opt(inputs_embeds=rows, use_cache=False).logits[0, -1].clone()
            logits[self.ret] = float("-inf") if step < least else logits[self.ret] * scale
            ids.append(int(logits.argmax()))
            rows = torch.cat([rows, self.opt.get_input_embeddings()(torch.tensor([[ids[-1]]]))], 1)
        states = self.opt(inputs_embeds=rows, use_cache=False, output_hidden_states=True).hidden_states[-1]
        return ids, states[0, len(prompt) :]

    def _map(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.linear(x, self.trained[f"{name}.weight"], self.trained[f"{name}.bias"])


def _processor() -> Any:
    return CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})


def tiny(home: Path, *, words: int = 2, shared: int = 11, seed: int = 1, ret_seed: int = 2) -> Tiny:
    """Save all three below a folder. What they answer with the same seeds is the same."""
    torch.manual_seed(seed)
    tokenizer = byte_level(begin="</s>", end="</s>", pad="<pad>", prefix=True, extra=())
    (home / "language").mkdir(parents=True, exist_ok=True)
    (home / "checkpoint").mkdir(exist_ok=True)
    known = len(tokenizer)
    config = hf.OPTConfig(
        vocab_size=known + FILLED, hidden_size=24, word_embed_proj_dim=24, ffn_dim=41, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=96, pad_token_id=0, bos_token_id=1, eos_token_id=1, dropout=0.0, init_std=0.3,
    )  # fmt: skip
    opt = hf.OPTForCausalLM(config).eval()
    opt.save_pretrained(home / "language")
    tokenizer.save_pretrained(home / "language")
    sizes = {"intermediate_size": 28, "num_hidden_layers": 2, "num_attention_heads": 4}
    eye, reader = {"hidden_size": 20, "image_size": SIDE, "patch_size": 8, **sizes}, {"hidden_size": 12, "vocab_size": 20, **sizes}
    clip = hf.CLIPModel(hf.CLIPConfig(vision_config=eye, text_config=reader, projection_dim=7)).eval()
    clip.save_pretrained(home / "vision")
    _processor().save_pretrained(home / "vision")
    trained = _trained(words=words, shared=shared, wide=20, width=24)
    torch.manual_seed(ret_seed)
    trained["ret_input_embeddings.weight"] = torch.randn(1, 24) * 0.5
    torch.save({"state_dict": trained}, home / "checkpoint" / "pretrained_ckpt.pth.tar")
    stated = {"n_visual_tokens": words, "shared_emb_dim": shared, "text_emb_layers": [-1], "retrieval_token_idx": known + 1}
    args = {"opt_version": "facebook/opt-tiny", "visual_encoder": "openai/clip-tiny", "freeze_lm": True, **stated}
    (home / "checkpoint" / "model_args.json").write_text(json.dumps(args))
    _as_read(opt, tokenizer, trained["ret_input_embeddings.weight"])
    params = {name: str(home / name) for name in ("checkpoint", "language", "vision")}
    return Tiny(opt, clip, tokenizer, trained, {**params, "tokens": known}, words)


def _trained(*, words: int, shared: int, wide: int, width: int) -> dict[str, torch.Tensor]:
    shapes = {"visual_embeddings": (words * width, wide), "visual_fc": (shared, wide), "text_hidden_fcs.0.0": (shared, width)}
    found = {f"model.{name}.weight": torch.randn(shape) / shape[1] ** 0.5 for name, shape in shapes.items()}
    found |= {f"model.{name}.bias": torch.randn(shape[0]) * 0.3 for name, shape in shapes.items()}
    return {**found, "model.logit_scale": torch.tensor(2.3)}


def _as_read(opt: Any, tokenizer: Any, row: torch.Tensor) -> None:
    """Do what the published code does when it opens a checkpoint: both tokens, a table cut to them, the row of [RET]."""
    tokenizer.add_tokens([PICTURE, RET], special_tokens=True)
    opt.resize_token_embeddings(len(tokenizer))
    with torch.no_grad():
        opt.get_input_embeddings().weight[len(tokenizer) - 1] = row[0]
