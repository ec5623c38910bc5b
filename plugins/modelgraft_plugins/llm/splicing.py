"""The work of llm/splice."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from modelgraft.plugin import InputError
from modelgraft_plugins.llm import known
from modelgraft_plugins.llm.splice import IGNORED

if TYPE_CHECKING:
    from modelgraft.plugin import Weights
    from modelgraft_plugins.llm.splice import SpliceConfig

TABLES = (  # where families keep the table of embeddings
    "model.embed_tokens.weight", "embed_tokens.weight", "model.decoder.embed_tokens.weight", "transformer.wte.weight",
    "transformer.word_embeddings.weight", "gpt_neox.embed_in.weight", "model.language_model.embed_tokens.weight",
)  # fmt: skip


class Splice(nn.Module):
    """See SpliceConfig."""

    def __init__(self, config: SpliceConfig) -> None:
        super().__init__()
        assert config.hidden_size is not None
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)

    def from_checkpoint(self, weights: Weights) -> Mapping[str, Tensor]:
        """Take the table out of a language model; without one under a known key nothing is given, which is told as any lack is."""
        made = known.whole_of(weights.view).language_state
        state = made(weights.state()) if made is not None else None
        keys = set(state if state is not None else weights.keys())
        key = next((key for key in TABLES if key in keys), None)
        if key is None:
            return {}
        return {"embed_tokens.weight": state[key] if state is not None else weights.tensor(key)}

    def forward(
        self, ids: Tensor, image: Tensor, image_lengths: Tensor | None = None, mask: Tensor | None = None, labels: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Row by row, then filled up. Raises InputError where media and their places do not match, or an id is of no token."""
        self._refuse_strangers(ids if mask is None else ids[mask.bool()])
        rows = [
            self._row(
                row,
                ids[row] if mask is None else ids[row][mask[row].bool()],
                None if labels is None else labels[row] if mask is None else labels[row][mask[row].bool()],
                image[row],
                None if image_lengths is None else image_lengths[row],
            )
            for row in range(len(ids))
        ]
        longest = max(len(embedded) for embedded, _ in rows)
        embedded, wanted, there = image.new_zeros(len(rows), longest, image.shape[-1]), ids.new_full((len(rows), longest), IGNORED), []
        for row, (given, said) in enumerate(rows):
            place = slice(longest - len(given), longest) if self.config.fill == "left" else slice(0, len(given))
            embedded[row, place], wanted[row, place] = given, said
            there.append(functional.pad(ids.new_ones(len(given)), (place.start, longest - place.stop)))
        filled = torch.stack(there)
        return {
            "embeddings": embedded,
            "mask": filled.bool(),
            "labels": wanted,
            "positions": (filled.cumsum(1) - 1) * filled,
            "targets": functional.pad(wanted[:, 1:], (0, 1), value=IGNORED),
        }

    def _row(self, row: int, ids: Tensor, labels: Tensor | None, image: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
        """Embeddings and labels of one row, media among them."""
        places = (ids == self.config.image_id).nonzero()[:, 0].tolist()
        media = self._media(row, image, lengths, len(places))
        said = torch.full_like(ids, IGNORED) if labels is None else labels
        embedded: list[Tensor] = []
        wanted: list[Tensor] = []
        for start, end, medium in zip([-1, *places], [*places, len(ids)], [*media, image[:0]], strict=True):
            embedded += [self.embed_tokens(ids[start + 1 : end]).to(image.dtype), medium]
            wanted += [said[start + 1 : end], ids.new_full((len(medium),), IGNORED)]
        most = self.config.max_length
        return torch.cat(embedded)[:most], torch.cat(wanted)[:most]

    def _media(self, row: int, image: Tensor, lengths: Tensor | None, places: int) -> list[Tensor]:
        found = f"llm/splice: row {row + 1} has {places} place{'s' if places != 1 else ''} for media ({self.config.image_id})"
        if lengths is not None:
            sizes = [size for size in lengths.tolist() if size]
            if len(sizes) != places or sum(sizes) > len(image):
                raise InputError(f"{found}, and media of {sizes} embeddings in {len(image)}: give as many as it has places")
            return list(torch.split(image[: sum(sizes)], sizes)) if sizes else []
        if not places:
            return []
        if len(image) % places:
            raise InputError(f"{found}, which share {len(image)} embeddings unevenly: say image_lengths")
        return list(torch.split(image, len(image) // places))

    def _refuse_strangers(self, ids: Tensor) -> None:
        other = ids[(ids != self.config.image_id) & ((ids < 0) | (ids >= self.config.vocab_size))]
        if len(other):
            raise InputError(f"llm/splice got the id {int(other[0])}, wanted 0 to {self.config.vocab_size - 1}, or {self.config.image_id}")
