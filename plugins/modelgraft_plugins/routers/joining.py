"""The end of a branch that media were cut up for: what was made of the pieces stands behind each other again, with its lengths."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, field_validator

from modelgraft import ABSENT, Config, Dim, Ports, Space, component, port
from modelgraft.plugin import InputError, SpaceOf, families
from modelgraft_plugins.tokens import image_token

if TYPE_CHECKING:
    from modelgraft.plugin import LoadContext, Source


@component("router/join", kind="router", load="modelgraft_plugins.routers.joining:join", cache=False)
class Join(Config):
    """Put the vectors that a branch gave for each record behind each other, and tell how many of them each medium has.

    masked   a mask says which vectors of an ask count, such as those of a sound and not of what fills it up; the others are left out
    tokens   of each ask, such as a picture, a crop of one or a window of a sound; [batch tokens width], zeros behind the last
    counts   asks of each medium of a record, in order; without it each ask is a medium of its own
    lengths  vectors of each medium, 0 behind the last: what `image_lengths` of a language model takes for a field {image:ragged}
    words    the text of each medium in a prompt, for `image_words`: `written`, in which {media} is a placeholder for each of its vectors
             and {number} counts the media of a record from 1
    """

    width: Dim = Field(None, description="numbers of a vector")
    masked: bool = Field(False, description="take a mask of the vectors of each ask, and leave out what it leaves out")
    placeholder: str = Field("<image>", min_length=1, description="what stands for a vector, as in the language model")
    written: str = Field("{media}", description="what stands in a prompt in place of a medium")
    space: Annotated[Space | None, SpaceOf("tokens")] = Field(None, description="their value space; None: that of the wire")

    @field_validator("written")
    @classmethod
    def _holds_media(cls, written: str) -> str:
        if written.count("{media}") != 1:
            raise ValueError(f"written is {written!r}, wanted a text that holds {{media}} once")
        return written

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Take what the family of the checkpoint writes around its media, and what stands for them."""
        stated = families().whole(source.root.get("model_type")).components.get("router/join", {})
        token = image_token(source)
        return {**stated, **({"placeholder": token} if token else {})}

    def ports(self) -> Ports:
        """Vectors of each ask in; those of the record out."""
        given = {"tokens": port("float[batch pieces width]", space=self.space, several="*"), "counts": port("optional[int64[batch media]]")}
        mask = {"mask": port("bool[batch pieces]", several="*")} if self.masked else {}
        out = {"tokens": port("float[batch tokens width]", space=self.space), "lengths": port("int64[batch listed]")}
        return Ports.of({**given, **mask}, {**out, "words": port("list[text]")})


def join(config: Join, context: LoadContext) -> Callable[..., dict[str, Any]]:
    """Make the function from the float[pieces width] of each ask of each record to tokens and lengths.

    Raises InputError where the branch gave nothing for an ask, or `counts` speaks of more or fewer asks than there are.
    """
    import torch
    from torch.nn.utils.rnn import pad_sequence

    name = context.node.name

    def run(tokens: Sequence[Sequence[Any]], counts: Any = None, mask: Sequence[Sequence[Any]] | None = None) -> dict[str, Any]:
        if any(one is ABSENT for row in tokens for one in row):
            raise InputError(f"{name}: the branch gave nothing for one of the asks, so that its medium would be told without it")
        rows = [list(row) for row in tokens]
        if mask is not None:
            rows = [
                [one[there.to(one.device)] for one, there in zip(row, heard, strict=True)] for row, heard in zip(rows, mask, strict=True)
            ]
        listed = [_counts(row, None if counts is None else counts[at].tolist(), name) for at, row in enumerate(rows)]
        lengths = torch.zeros(len(rows), max(map(len, listed), default=0), dtype=torch.int64)
        for at, found in enumerate(listed):
            lengths[at, : len(found)] = torch.tensor(found, dtype=torch.int64)
        first = next((one for row in rows for one in row), torch.zeros(0, config.width or 0))
        whole = [torch.cat([first[:0], *row]) for row in rows]
        words = [[_written(config, size, number) for number, size in enumerate(found, 1) if size] for found in listed]
        return {"tokens": pad_sequence(whole, batch_first=True), "lengths": lengths, "words": words}

    return run


def _written(config: Join, size: int, number: int) -> str:
    """The text of a medium of so many vectors."""
    return config.written.replace("{number}", str(number)).replace("{media}", config.placeholder * size)


def _counts(row: Sequence[Any], counts: list[int] | None, name: str) -> list[int]:
    """How many vectors each medium has: those of so many asks in a row."""
    sizes = [len(one) for one in row]
    if counts is None:
        return _heard(sizes, [1] * len(sizes), name)
    if sum(counts) != len(sizes):
        raise InputError(f"{name}: `counts` speaks of {sum(counts)} asks, and the branch was asked {len(sizes)} times")
    ends = [sum(counts[: at + 1]) for at in range(len(counts))]
    return _heard([sum(sizes[end - count : end]) for count, end in zip(counts, ends, strict=True)], counts, name)


def _heard(sizes: list[int], counts: list[int], name: str) -> list[int]:
    """The vectors of each medium. Raises InputError for one that is there and has none, which would be left out unsaid."""
    for number, (size, count) in enumerate(zip(sizes, counts, strict=True), 1):
        if count and not size:
            raise InputError(
                f"{name}: no vector is made of medium {number}, which is too short for one: give a longer one, or leave it out"
            )
    return sizes
