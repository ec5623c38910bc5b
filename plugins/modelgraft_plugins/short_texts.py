"""Writing short texts about something by a decoder that reads what it wrote again for every token. Any plugin may import this module.

For captions and answers of some tens of tokens a cache of keys and values saves little: a step is bound by reading the weights, and
reading twenty places instead of one adds little to that. What is saved is the cache: a session is the ids that it has read.

    the component   class Writer(Config, ShortTexts): ...      its settings, and how they are turned into those of the token loop
    the part        read(ids int64[batch slots], places int64[batch], seen float[batch n width]) -> logits float[batch vocabulary]
    the loop        scribe = Scribe(config, context, vocabulary=..., most=...);  scribe.write(parts["read"], scribe.begun(...), seen, ...)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from modelgraft import Config
from modelgraft.plugin import InputError, Problem, SourceError

if TYPE_CHECKING:
    from torch import Tensor

    from modelgraft.plugin import LoadContext, NodeRuntime, Settings

    Read = Callable[[Tensor, Tensor, Tensor], Tensor]

FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "spiece.model", "sentencepiece.bpe.model", "vocab.txt")


class ShortTexts(Config):
    """How a short text is written; not a component itself. The fields mean what those of llm/causal mean."""

    max_new_tokens: int = Field(30, ge=0, description="longest answer; 0 gives the logits alone")
    min_new_tokens: int = Field(0, ge=0)
    temperature: float = Field(0.0, ge=0, description="0: always the most likely token")
    top_k: int | None = Field(None, gt=0)
    top_p: float | None = Field(None, gt=0, le=1)
    temperature_last: bool = Field(False, description="flatten what top_k and top_p left over, as open_clip draws, not what they look at")
    repetition_penalty: float = Field(1.0, gt=0)
    beams: int = Field(1, ge=1)
    length_penalty: float = Field(1.0, ge=-50, le=50)
    early_stopping: bool | Literal["never"] = False
    end_ids: tuple[int, ...] | None = Field(None, description="tokens that end the answer; null: those of the model; none: nothing does")
    forced_end: bool = Field(False, description="the last token of an answer of full length is an end token")

    @model_validator(mode="after")
    def _is_one_way(self) -> ShortTexts:
        if self.beams > 1 and self.temperature > 0:
            raise ValueError(f"beams: {self.beams} search for the likeliest answer, temperature: {self.temperature} draws one; choose one")
        return self

    def settings(self, *, ends: tuple[int, ...], room: int) -> Settings:
        """Those of the token loop; `room` is the most that a text can still take."""
        from modelgraft.plugin import Settings

        names = (
            "min_new_tokens", "temperature", "top_k", "top_p", "temperature_last", "repetition_penalty", "beams", "length_penalty",
            "early_stopping",
        )  # fmt: skip
        forced = ends[:1] if self.forced_end else ()
        values = {name: getattr(self, name) for name in names}
        return Settings(max_new_tokens=min(self.max_new_tokens, room), end_ids=ends, forced_eos_token_ids=forced, **values)


@dataclass(slots=True)
class Session:
    """Rows of ids that were read, and what they are about. See Session of modelgraft.plugin."""

    read: Read
    rows: list[list[int]]
    seen: Tensor
    most: int
    logits: Tensor = field(init=False)
    states: Tensor | None = None

    def __post_init__(self) -> None:
        self._look()

    def _look(self) -> None:
        import torch

        longest = max(map(len, self.rows))
        if longest > self.most:
            raise InputError(f"a text of {longest} tokens, and {self.most} are the most: shorten it, or set fewer max_new_tokens")
        ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in self.rows], device=self.seen.device)
        places = torch.tensor([len(row) - 1 for row in self.rows], device=self.seen.device)
        self.logits = self.read(ids, places, self.seen)

    def step(self, tokens: Tensor) -> Tensor:
        """Read one more token per row."""
        self.rows = [[*row, token] for row, token in zip(self.rows, tokens.tolist(), strict=True)]
        self._look()
        return self.logits

    def reorder(self, rows: Tensor) -> None:
        """Go on from other rows."""
        self.rows = [self.rows[row] for row in rows.tolist()]
        self.seen, self.logits = self.seen[rows], self.logits[rows]

    def fork(self, rows: Tensor) -> Session:
        """Another session that goes on from rows of this one."""
        return Session(self.read, [self.rows[row] for row in rows.tolist()], self.seen[rows], self.most)

    def rewind(self, tokens: int) -> None:
        """Take tokens back."""
        if tokens >= min(map(len, self.rows)):
            raise InputError(f"{tokens} tokens cannot be taken back: not so many were read")
        self.rows = [row[: len(row) - tokens] for row in self.rows]

    def close(self) -> None:
        """Nothing is kept."""


@dataclass(frozen=True, slots=True)
class Rereading:
    """A decoder that reads everything again. See Decoder of modelgraft.plugin."""

    read: Read
    most: int

    def start(self, prompts: Sequence[Tensor], *, conditions: Any = None, room: int, states: bool = False, places: Any = None) -> Session:  # noqa: ARG002 as Decoder
        """Read the beginnings, int64[tokens] each, about `conditions`, float[batch n width]."""
        return Session(self.read, [prompt.tolist() for prompt in prompts], conditions, self.most)


class Scribe:
    """Writes texts for a node, with the tokenizer that lies beside its weights; without one it can give ids alone."""

    def __init__(self, config: ShortTexts, context: LoadContext, *, vocabulary: int, most: int) -> None:
        self.config, self.vocabulary, self.most = config, vocabulary, most
        self.name, self.place = context.node.name, context.node.place
        self.is_random = context.init == "random" and context.weights is None
        self.inner = self._open(context)

    def _open(self, context: LoadContext) -> Any:  # Any: of transformers, or one that was kept
        from modelgraft_plugins import kept_tokenizers

        source = context.node.source
        there = context.weights.home if context.weights is not None else source.path() if source is not None else None
        folder = there.parent if there is not None and there.is_file() else there
        if folder is None or not any((folder / name).is_file() for name in FILES):
            return None
        try:
            return kept_tokenizers.open_tokenizer(folder)
        except Exception as error:  # the package tokenizers raises Exception itself for a file that it cannot take
            raise self._missing(f"its files in {folder} cannot be read: {error}") from error

    def _missing(self, why: str) -> SourceError:
        hint = "name a folder that holds tokenizer.json, or ask for the output ids in place of text"
        return SourceError(Problem("no-tokenizer", f"{self.name} has no tokenizer: {why}", self.place, hint, node=self.name))

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids. Of random weights without a tokenizer each id is a word."""
        if self.inner is not None:
            text: str = self.inner.decode(list(ids), skip_special_tokens=True)
            return text
        return " ".join(f"<{index}>" for index in ids) if self.is_random else ""

    def begun(self, prompts: Sequence[str] | None, records: int, *, first: int) -> list[list[int]]:
        """The ids that each text begins with: the first token, and those of a prompt."""
        if prompts is None or not any(prompts):
            return [[first]] * records
        if self.inner is None:
            raise self._missing("no file of one lies beside the weights, and the prompt has to be cut into tokens")
        return [[first, *(self.inner(text, add_special_tokens=False).input_ids if text else [])] for text in prompts]

    def write(
        self,
        read: Read,
        begun: Sequence[Sequence[int]],
        seen: Tensor,
        *,
        ends: tuple[int, ...],
        runtime: NodeRuntime,
        wanted: frozenset[str],
    ) -> dict[str, Any]:
        """text, logits float[batch vocabulary] of the first new token, and ids int64[batch written], filled up with -1.

        Raises InputError for a beginning that leaves no room, SourceError `no-tokenizer` where text is wanted and there is none.
        """
        import torch

        from modelgraft.plugin import generate

        if "text" in wanted and self.inner is None and not self.is_random:
            raise self._missing("no file of one lies beside the weights")
        longest = max(map(len, begun))
        if longest > self.most:
            raise InputError(
                f"{self.name}: the prompt has {longest} tokens with the first one, and a text has {self.most} places: shorten it"
            )
        answers = generate(
            Rereading(read, self.most),
            [torch.tensor(ids) for ids in begun],
            self.config.settings(ends=ends, room=self.most - longest),
            decode=self.decode,
            said=begun,
            read=[()] * len(begun),
            seed=runtime.node_seed(),
            conditions=seen,
            check=runtime.check,
            emit=lambda row, piece: runtime.emit("token", text=piece, record=row),
        )
        most = max((len(row) for row in answers.ids), default=0)
        ids = torch.tensor([[*row, *[-1] * (most - len(row))] for row in answers.ids], dtype=torch.int64).reshape(len(begun), most)
        found = {"text": answers.texts, "logits": answers.logits, "ids": ids}
        return {name: value for name, value in found.items() if name in wanted}
