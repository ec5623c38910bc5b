"""The text encoders of a folder of diffusers, each as a part: those of transformers."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from modelgraft.plugin import Driven, Weights
from modelgraft_plugins.huggingface import build, convert, tie


class Encoders(Driven):
    """One to three encoders, under the names of their folders."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.read = tuple(one.name for one in config.readings)
        for one in config.readings:
            self.add_module(one.name, Encoder(one))

    def from_checkpoint(self, weights: Weights) -> dict[str, Tensor]:
        """The tensors of the encoders; what else lies in the folder is another's."""
        found: dict[str, Tensor] = {}
        keys = list(weights.keys())
        for name, part in self.named_children():
            state = {key.removeprefix(f"{name}."): weights.tensor(key) for key in keys if key.startswith(f"{name}.")}
            found |= convert(state, part.model, prefix=f"{name}.model.")
        return found

    def after_load(self) -> None:
        """Tie what files hold once."""
        for part in self.children():
            tie(part.model)


class Encoder(nn.Module):
    """An encoder that gives the states of one of its layers, and its vector."""

    def __init__(self, reading: Any) -> None:
        super().__init__()
        self.layer, self.has_pooled = reading.layer, bool(reading.pooled)
        self.model: Any = build(dict(reading.config), reading.kind)

    def forward(self, ids: Tensor) -> dict[str, Tensor] | Tensor:
        """int64[batch tokens] -> float[batch tokens width], and float[batch pooled] where there is one."""
        found = self.model(input_ids=ids, output_hidden_states=self.layer > 1)
        states: Tensor = found.last_hidden_state if self.layer == 1 else found.hidden_states[-self.layer]
        if not self.has_pooled:
            return states
        pooled = found.text_embeds if hasattr(found, "text_embeds") else found.pooler_output
        return {"states": states, "pooled": pooled}
