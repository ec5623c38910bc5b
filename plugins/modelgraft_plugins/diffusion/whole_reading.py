"""Whole generators that are told one thing of a text: their loop, the tokenizer that lies beside the text encoder, and their tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from transformers import AutoTokenizer

from modelgraft.plugin import LoadContext, Loop, NodeRuntime, Problem, SourceError, Weights
from modelgraft_plugins.diffusion.denoising import Denoise
from modelgraft_plugins.diffusion.whole_folder import OfText

Tokenizer = Any  # the tokenizers of transformers are not annotated


def tokenizer_beside(context: LoadContext) -> Tokenizer:
    """The tokenizer of a folder. Raises SourceError `no-tokenizer`."""
    source = context.node.source
    home = context.weights.home if context.weights is not None else source.path() if source is not None else None
    hint = "name a whole folder in the layout of diffusers, which has tokenizer/"
    if home is None:
        called = "no source" if source is None else source.text
        found = f"{context.node.name}: {called} has no tokenizer on this machine"
        raise SourceError(Problem("no-tokenizer", found, context.node.place, hint))
    try:
        return AutoTokenizer.from_pretrained(home / "tokenizer", local_files_only=True)
    except Exception as error:  # the package tokenizers raises Exception itself for a file that it cannot take
        found = f"{home / 'tokenizer'} has no tokenizer that transformers can open: {str(error).partition(chr(10))[0]}"
        raise SourceError(Problem("no-tokenizer", found, context.node.place, hint, node=context.node.name)) from error


def cut(tokenizer: Tokenizer, texts: Sequence[str], *, most: int, padding: str, say: Callable[[str], None]) -> tuple[Tensor, Tensor]:
    """Ids and mask int64[batch tokens]; texts that are longer than `most` tokens are cut, which is said.

    padding  "longest" of the batch, or always "max_length"
    """
    found = tokenizer(list(texts), padding=padding, max_length=most, truncation=True, return_tensors="pt")
    for text in texts:
        count = len(tokenizer(text, verbose=False).input_ids)
        if count > most:
            say(f"a prompt has {count} tokens, of which {most} are read: {text[:60]!r}...; shorten it")
    return found.input_ids, found.attention_mask


def tensors_of(whole: nn.Module, weights: Weights, folders: Mapping[str, str]) -> dict[str, Tensor]:
    """The tensors of a whole: of its `unet`, and of the parts that have folders, by their names."""
    unet: Any = whole.get_submodule("unet.model")
    found = {f"unet.model.{key}": tensor for key, tensor in unet._fix_state_dict_keys_on_load(weights.sub("unet").state()).items()}
    for name, folder in folders.items():
        part: Any = whole.get_submodule(name)
        found |= {f"{name}.{key}": tensor for key, tensor in part.from_checkpoint(weights.sub(folder)).items()}
    return found


class Reading(Loop):
    """Reads a text, takes the steps, and makes something of what comes of them. Subclasses say how it is read, and what is made."""

    config: OfText
    runtime: NodeRuntime

    def prepare(self, context: LoadContext) -> None:
        """Open the tokenizer where a text is read, and make a scheduler once."""
        self.names, self.denoiser = tuple(self.config.ports().inputs), self.config.denoiser
        self.denoising = Denoise(self.denoiser, self.facts)
        self.denoising.prepare(context)
        reads = "prompt" in context.node.wired or (self.denoiser.is_guided and "negative_prompt_embeds" not in context.node.wired)
        self.tokenizer = tokenizer_beside(context) if reads and context.node.wired else None

    def bind(self, runtime: NodeRuntime) -> None:
        """Take seed, events and cancellation from the run."""
        self.runtime = runtime
        self.denoising.bind(runtime)

    def run(self, values: Sequence[Any], parts: Mapping[str, Any], *, wanted: frozenset[str]) -> Mapping[str, Any]:
        """What the ports of the config give -> `latents`, and what is made of them where somebody wants it."""
        given = dict(zip(self.names, values, strict=False))
        towards = given["prompt_embeds"]
        towards = self.read(given["prompt"], parts) if towards is None else towards
        asked = [towards]
        if self.denoiser.is_guided:
            away = given["negative_prompt_embeds"]
            asked.append(self.read(given["negative"] or [""] * len(towards), parts) if away is None else away)
        latents = self.denoising.run([*asked, given["latents"], given["schedule"]], parts, wanted=wanted)
        return {"latents": latents, **self.made(latents, parts, wanted=wanted)}

    def read(self, texts: Sequence[str], parts: Mapping[str, Any]) -> Tensor:
        """What the loop is told of texts."""
        raise NotImplementedError

    def made(self, latents: Tensor, parts: Mapping[str, Any], *, wanted: frozenset[str]) -> Mapping[str, Any]:
        """The other outputs that are wanted."""
        raise NotImplementedError

    def cut(self, texts: Sequence[str], *, most: int, padding: str) -> tuple[Tensor, Tensor]:
        """See `cut`; what is left out is told."""
        assert self.tokenizer is not None  # opened where a text is read
        return cut(self.tokenizer, texts, most=most, padding=padding, say=lambda text: self.runtime.emit("warning", text=text))
