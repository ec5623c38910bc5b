"""A tiny NExT-GPT with random weights: a Vicuna, the towers of ImageBind, and what was trained in the layout of the published file.

The language model with its updates is made by transformers and peft themselves, so that answers can be compared with theirs.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import peft
import torch
from torch import Tensor, nn

from support import checkpoints, imagebind

MEDIA = {"image": ("[IMG{}]", 4, "gen_text_hidden_fcs"), "video": ("[VID{}]", 24, "gen_text_hidden_fcs_video")}
MEDIA["audio"] = ("[AUD{}]", 8, "gen_text_hidden_fcs_audio")
SIGNALS = [name.format(number) for name, count, _ in MEDIA.values() for number in range(count)]
TOKENS = ["<Img>", "</Img>", *SIGNALS]  # in the order in which the published code adds them
WIDTH, SHOWN = 28, 10  # of the tiny LLaMA, and of the tiny ImageBind
RANK, ALPHA = 3, 5
SIZES = {"image": (77, 20), "video": (77, 20), "audio": (1, 24)}  # queries and width: those of support/painting.py and sounding.py


class TextFcLayer(nn.Module):
    """The published layer with other sizes, as a list holds it."""

    def __init__(self, queries: int, width: int) -> None:
        super().__init__()
        self.fc, self.model = nn.Linear(WIDTH, 16), nn.Linear(16, width)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of torch, for a way around padding that it does not take
            self.tfm = nn.Transformer(16, 4, 1, 2, 64, dropout=0.0, batch_first=True, norm_first=True)
        self.query_embs = nn.Parameter(torch.zeros(1, queries, 16))

    def forward(self, x: Tensor, input_embs: Tensor) -> Tensor:
        """Hidden states and embeddings of signal tokens to what a diffusion model reads."""
        found: Tensor = self.model(self.tfm(self.fc(x + input_embs), self.query_embs.repeat(x.shape[0], 1, 1)))
        return found


@dataclass(frozen=True, slots=True)
class Whole:
    """What lies in a folder, and the same as modules of its makers: `model` is peft's, with the updates in it."""

    folder: Path
    model: Any  # Any: a model of peft
    tokenizer: Any
    project: nn.Linear
    outputs: dict[str, nn.Module]

    @property
    def params(self) -> dict[str, Any]:
        """The params of the graphs."""
        found = {name: str(self.folder / file) for name, file in (("language", "vicuna"), ("imagebind", "imagebind"))}
        return {**found, "checkpoint": str(self.folder / "pytorch_model.pt"), "lora_rank": RANK, "lora_alpha": ALPHA}

    def ids(self, text: str) -> list[int]:
        """A text as the language model reads it, without what the tokenizer puts around it."""
        found: list[int] = self.tokenizer(text, add_special_tokens=False).input_ids
        return found


def whole(folder: Path, *, seed: int = 5) -> Whole:
    """Save all of it."""
    base = checkpoints.llama(folder / "vicuna")
    imagebind.checkpoint(folder / "imagebind")
    tokenizer = base.processor
    tokenizer.add_tokens(TOKENS, special_tokens=True)
    base.model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    targets = ["q_proj", "k_proj", "v_proj", "o_proj"]
    settings = peft.LoraConfig(task_type="CAUSAL_LM", r=RANK, lora_alpha=ALPHA, target_modules=targets)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of transformers, for what peft asks it
        model = peft.get_peft_model(base.model, settings)
    project = nn.Linear(SHOWN, WIDTH)
    outputs: dict[str, nn.Module] = {name: TextFcLayer(*SIZES[name]) for name in MEDIA}
    for number, part in enumerate((model, project, *outputs.values())):
        checkpoints.randomise(_trained(part) if part is model else part, seed=seed + number)
    torch.save(_delta(model, project, outputs), folder / "pytorch_model.pt")
    return Whole(folder, model.eval(), tokenizer, project, outputs)


def _trained(model: Any) -> nn.Module:
    """What of a language model was trained: the updates, and the embeddings and the head, which were resized."""
    held = nn.Module()
    names = {name: parameter for name, parameter in model.named_parameters() if _is_trained(name)}
    for number, (_, parameter) in enumerate(sorted(names.items())):
        held.register_parameter(f"part_{number:03}", parameter)
    return held


def _is_trained(name: str) -> bool:
    return ".lora_" in name or name.endswith(("embed_tokens.weight", "lm_head.weight"))


def _delta(model: Any, project: nn.Linear, outputs: dict[str, nn.Module]) -> dict[str, Tensor]:
    """Flat keys, as the published code saves whatever was trained."""
    found = {f"llama_model.{name}": tensor for name, tensor in model.state_dict().items() if _is_trained(name)}
    found |= {f"llama_proj.{name}": tensor for name, tensor in project.state_dict().items()}
    for medium, (*_, part) in MEDIA.items():
        found |= {f"{part}.0.{name}": tensor for name, tensor in outputs[medium].state_dict().items()}
    return {name: tensor.detach().clone() for name, tensor in found.items()}
