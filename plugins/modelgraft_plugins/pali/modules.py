"""The work of pali/memory and pali/language."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from modelgraft_plugins import huggingface

if TYPE_CHECKING:
    from modelgraft.plugin import Weights
    from modelgraft_plugins.pali import LanguageConfig, MemoryConfig

ARCHITECTURES = {"mt5": "MT5ForConditionalGeneration", "t5": "T5ForConditionalGeneration"}


class Memory(nn.Module):
    """text float[batch m width], text_mask bool[batch m], image float[batch n width] to memory float[batch m+n width] and its mask."""

    def __init__(self, _config: MemoryConfig) -> None:
        super().__init__()

    def forward(self, text: Tensor, text_mask: Tensor | None, image: Tensor) -> dict[str, Tensor]:
        """Join them; of a picture everything is there."""
        return {"memory": torch.cat([text, image], 1), "mask": torch.cat([there(text_mask, text), there(None, image)], 1)}


class Language(nn.Module):
    """An mT5 that reads a line and a picture, and is given its answer.

    ids      int64[batch text_tokens];  mask  bool of the same shape, None: everywhere
    image    float[batch image_tokens hidden_size]
    answer   int64[batch answer_tokens]: what stands behind its end does not matter
    returns  logits float[batch answer_tokens vocab_size]
    """

    def __init__(self, config: LanguageConfig) -> None:
        super().__init__()
        self.fusion = config.fusion
        facts = {**config.model, "tie_word_embeddings": config.tied, "use_cache": False}
        self.model: Any = huggingface.build(facts, ARCHITECTURES[config.model["model_type"]])
        if not config.tied:  # this version of transformers ties it whatever its config says
            head = self.model.get_output_embeddings()
            self.model.set_output_embeddings(nn.Linear(head.in_features, head.out_features, bias=False))
        self.start = self.model.config.decoder_start_token_id or 0

    def from_checkpoint(self, weights: Weights) -> Mapping[str, Tensor]:
        """Give the tensors of mT5 in the names of transformers' memory."""
        return huggingface.convert(weights.state(), self.model, prefix="model.")

    def after_load(self) -> None:
        """Tie what the checkpoint holds once."""
        huggingface.tie(self.model)

    def forward(self, ids: Tensor, mask: Tensor | None, image: Tensor, answer: Tensor) -> Tensor:
        """The answer, moved on by one, is what the decoder reads."""
        words, read = self.model.get_input_embeddings()(ids), there(mask, ids)
        memory, seen = self._joined(words, read, image)
        before = torch.cat([torch.full_like(answer[:, :1], self.start), answer[:, :-1]], 1)
        return self.model(encoder_outputs=(memory,), attention_mask=seen, decoder_input_ids=before, use_cache=False).logits  # type: ignore[no-any-return]

    def _joined(self, words: Tensor, read: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        """(memory of the decoder, where there is something) in one of the two readings."""
        encoder, seen = self.model.get_encoder(), there(None, image)
        if self.fusion == "encoder_concat":
            mask = torch.cat([seen, read], 1)
            return encoder(inputs_embeds=torch.cat([image, words], 1), attention_mask=mask).last_hidden_state, mask
        text = encoder(inputs_embeds=words, attention_mask=read).last_hidden_state
        return torch.cat([text, image], 1), torch.cat([read, seen], 1)


def there(mask: Tensor | None, rows: Tensor) -> Tensor:
    """bool[batch tokens]: the mask, or everywhere."""
    return torch.ones(rows.shape[:2], dtype=torch.bool, device=rows.device) if mask is None else mask
