"""How a caption is written: the loop of language models over a decoder that reads `[MASK]` behind what is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from modelgraft.plugin import InputError, Loop, Settings, generate
from modelgraft_plugins.kept_tokenizers import open_tokenizer
from modelgraft_plugins.sentence_pieces import open_pieces, pieces_file

if TYPE_CHECKING:
    from modelgraft.plugin import LoadContext, NodeRuntime, Session

Memory = tuple[Tensor, Tensor]  # keys and values of a picture, float[batch layers places width] each


class Writing:
    """A text behind a picture for each row. What was written is all that there is to keep: it is read again at each step."""

    def __init__(self, tell: Any, memory: Memory, ids: Tensor, rows: Tensor, mask_id: int) -> None:
        """tell: the part, of whatever backend (`Any`);  ids int64[rows tokens];  rows int64[rows]: whose picture each row sees."""
        self.tell, self.memory, self.ids, self.rows, self.mask_id = tell, memory, ids, rows, mask_id
        self.states: Tensor | None = None
        self._seen = self._of(rows)
        self.logits = self._read()

    def step(self, tokens: Tensor) -> Tensor:
        """Read one more token per row, int64[rows]."""
        self.ids = torch.cat([self.ids, tokens.to(self.ids.device)[:, None]], dim=1)
        self.logits = self._read()
        return self.logits

    def reorder(self, rows: Tensor) -> None:
        """Let row i go on from what row `rows[i]` holds."""
        rows = rows.to(self.ids.device)
        pictures = self.rows[rows]
        if not torch.equal(pictures, self.rows):  # beams of one picture see the same
            self._seen = self._of(pictures)
        self.ids, self.rows, self.logits = self.ids[rows], pictures, self.logits[rows.to(self.logits.device)]

    def fork(self, rows: Tensor) -> Writing:
        """Another, whose row i goes on from what row `rows[i]` of this one holds."""
        rows = rows.to(self.ids.device)
        return Writing(self.tell, self.memory, self.ids[rows], self.rows[rows], self.mask_id)

    def rewind(self, tokens: int) -> None:
        """Take the last tokens of every row back."""
        if not 0 <= tokens < self.ids.shape[1]:
            raise InputError(f"{tokens} tokens cannot be taken back: {self.ids.shape[1]} were read, and one must stay")
        self.ids = self.ids[:, : self.ids.shape[1] - tokens]

    def close(self) -> None:
        """Give the pictures back."""
        self.memory = self._seen = (self.ids.new_zeros(0), self.ids.new_zeros(0))

    def _of(self, pictures: Tensor) -> Memory:
        if torch.equal(pictures, torch.arange(self.memory[0].shape[0], device=pictures.device)):
            return self.memory
        chosen = pictures.to(self.memory[0].device)
        return self.memory[0][chosen], self.memory[1][chosen]

    def _read(self) -> Tensor:
        """The logits of `[MASK]` behind what is written: float[rows vocabulary]."""
        mask = self.ids.new_full((self.ids.shape[0], 1), self.mask_id)
        logits: Tensor = self.tell(torch.cat([self.ids, mask], dim=1), *self._seen)
        return logits


class Pictures:
    """The decoder of captions: prompts are the ids that they begin with, conditions the keys and values of the pictures."""

    def __init__(self, tell: Any, mask_id: int) -> None:
        self.tell, self.mask_id = tell, mask_id

    def start(self, prompts: Sequence[Tensor], *, conditions: Any = None, room: int, states: bool = False, places: Any = None) -> Session:  # noqa: ARG002 as Decoder has it
        """Prompts int64[tokens] each, equally many."""
        ids = torch.stack(list(prompts))
        return Writing(self.tell, conditions, ids, torch.arange(len(prompts), device=ids.device), self.mask_id)


class Write(Loop):
    """Read the pictures, then write."""

    def prepare(self, context: LoadContext) -> None:
        """Find the tokenizer; it is opened when a text is asked for."""
        source = context.node.source
        self.place = context.node.name
        self.home = context.weights.home if context.weights is not None else source.path() if source is not None else None
        self.tokenizer: Any = None  # Any: its classes have no annotations

    def bind(self, runtime: NodeRuntime) -> None:
        """Listeners, and who may stop it."""
        self.runtime = runtime

    def run(self, values: Sequence[Any], parts: Mapping[str, Any], *, wanted: frozenset[str]) -> dict[str, Any]:
        """A caption for each picture. Raises InputError where a text is wanted and there is no tokenizer."""
        (pixels,) = values
        decode = self._decode if "text" in wanted else _nothing
        seen = parts["see"](pixels)
        begin = torch.tensor([self.config.begin_token_id], device=seen["keys"].device)
        found = generate(
            Pictures(parts["tell"], self.config.mask_id),
            [begin] * pixels.shape[0],
            self._settings(),
            decode=decode,
            said=[(self.config.begin_token_id,)] * pixels.shape[0],
            conditions=(seen["keys"], seen["values"]),
            check=self.runtime.check,
            emit=self._emit if "text" in wanted else None,
        )
        given = {"ids": self._padded(found.ids, pixels.device), "logits": found.logits}
        return {**given, "text": found.texts} if "text" in wanted else given

    def _settings(self) -> Settings:
        config = self.config
        return Settings(
            max_new_tokens=config.max_new_tokens, beams=config.beams, length_penalty=config.length_penalty, end_ids=config.end_token_ids
        )

    def _padded(self, answers: Sequence[Sequence[int]], device: torch.device) -> Tensor:
        longest = max(map(len, answers))
        return torch.tensor([[*ids, *[self.config.pad_token_id] * (longest - len(ids))] for ids in answers], device=device)

    def _emit(self, row: int, piece: str) -> None:
        self.runtime.emit("token", text=piece, record=row)

    def _decode(self, ids: list[int]) -> str:
        if self.tokenizer is None:
            self.tokenizer = _opened(self.home, self.place)
        text: str = self.tokenizer.decode(ids, skip_special_tokens=True)
        return text


def _nothing(_ids: list[int]) -> str:
    return ""


def _opened(home: Path | None, node: str) -> Any:
    """The tokenizer beside the weights. Raises InputError where there is none, or one that cannot be opened."""
    folder = home if home is None or home.is_dir() else home.parent
    wanted = "put sentencepiece.bpe.model or beit3.spm beside the weights, or ask for the ids alone"
    if folder is None:
        raise InputError(f"{node} has no tokenizer to write a text with: {wanted}")
    try:
        alone = pieces_file(folder)
        return open_pieces(alone) if alone is not None else open_tokenizer(folder)
    except Exception as error:  # the package tokenizers raises Exception itself for what it cannot take
        is_there = any(path.match(name) for path in folder.iterdir() for name in ("*token*", "vocab*"))
        why = f"no tokenizer that can be opened ({str(error).partition(chr(10))[0]})" if is_there else "no file of a tokenizer"
        raise InputError(f"{node}: {folder} has {why}: {wanted}") from error
