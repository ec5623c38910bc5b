"""Texts through the text encoders of a folder. Source: diffusers 0.42, `encode_prompt` of its pipelines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import AutoTokenizer

from modelgraft.plugin import LoadContext, Loop, NodeRuntime, Problem, SourceError
from modelgraft_plugins.diffusion.prompts import Prompt, Reading

Tokenizer = Any  # the tokenizers of transformers are not annotated


class Prompting(Loop):
    """Cuts texts into tokens, asks each encoder once for all of them, and puts what they give together."""

    config: Prompt
    runtime: NodeRuntime

    def prepare(self, context: LoadContext) -> None:
        """Open the tokenizers that lie beside the encoders."""
        self.tokenizers = {one.name: _opened(one, context) for one in self.config.readings}

    def bind(self, runtime: NodeRuntime) -> None:
        """Take warnings to the run."""
        self.runtime = runtime

    def run(self, values: Sequence[Any], parts: Mapping[str, Any], *, wanted: frozenset[str]) -> Any:  # noqa: ARG002 they come together
        """Texts -> prompt_embeds float[batch tokens width], and pooled float[batch pooled_size] where there is one."""
        states, pooled = self.read(values[0], parts)
        return states if pooled is None else {"prompt_embeds": states, "pooled": pooled}

    def read(self, texts: Sequence[str], parts: Mapping[str, Any]) -> tuple[Tensor, Tensor | None]:
        """States and vector of each text; None where the style has no vector."""
        given = [self._asked(one, texts, parts[one.name]) for one in self.config.readings]
        if self.config.style == "sd":
            return given[0]["states"], None
        clips = [found for one, found in zip(self.config.readings, given, strict=True) if not one.is_t5]
        beside = torch.cat([found["states"] for found in clips], dim=-1)
        if self.config.style == "sdxl":
            return beside, clips[-1]["pooled"]
        long = next((found["states"] for one, found in zip(self.config.readings, given, strict=True) if one.is_t5), None)
        if long is None:  # Stable Diffusion 3 may go without its T5, for which zeros stand
            long = beside.new_zeros((len(beside), self.config.long, self.config.width))
        filled = pad(beside, (0, self.config.width - beside.shape[-1]))
        return torch.cat([filled, long], dim=1), torch.cat([found["pooled"] for found in clips], dim=-1)

    def _asked(self, reading: Reading, texts: Sequence[str], part: Any) -> Mapping[str, Tensor]:
        most = self.config.long if reading.is_t5 else self.config.length
        ids = self._ids(self.tokenizers[reading.name], texts, most)
        found = part(ids)
        return found if isinstance(found, Mapping) else {"states": found}

    def _ids(self, tokenizer: Tokenizer, texts: Sequence[str], most: int) -> Tensor:
        """int64[batch most]; texts that are longer are cut, which is told."""
        for text in texts:
            count = len(tokenizer(text, verbose=False).input_ids)
            if count > most:
                said = f"a prompt has {count} tokens, of which {most} are read: {text[:60]!r}..."
                self.runtime.emit("warning", text=f"{said}; shorten it")
        found = tokenizer(list(texts), padding="max_length", max_length=most, truncation=True, return_tensors="pt")
        ids: Tensor = found.input_ids.to(torch.int64)
        return ids


def _opened(reading: Reading, context: LoadContext) -> Tokenizer:
    """The tokenizer of an encoder. Raises SourceError `no-tokenizer`."""
    source = context.node.source
    home = context.weights.home if context.weights is not None else source.path() if source is not None else None
    name = reading.name.replace("text_encoder", "tokenizer")
    hint = f"name a whole folder in the layout of diffusers, which has {name}/"
    if home is None:
        called = "no source" if source is None else source.text
        raise SourceError(Problem("no-tokenizer", f"{context.node.name}: {called} has no {name} on this machine", context.node.place, hint))
    try:
        return AutoTokenizer.from_pretrained(home / name, local_files_only=True)
    except Exception as error:  # the package tokenizers raises Exception itself for a file that it cannot take
        found = f"{home / name} has no tokenizer that transformers can open: {str(error).partition(chr(10))[0]}"
        raise SourceError(Problem("no-tokenizer", found, context.node.place, hint, node=context.node.name)) from error
