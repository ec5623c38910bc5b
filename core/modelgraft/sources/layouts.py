"""Files in a layout of their own, seen as if they were in that of Hugging Face: nothing is copied, and no component knows of it.

A card of a family says by which configs and tensors such files are known, what config.json they would have, and which tensor
of the layout is which part of which tensor of the file. Files with a tensor that their card does not place are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import TYPE_CHECKING, Any

from modelgraft.kernel.words.errors import Problem, SourceError, choices
from modelgraft.sources.families import families
from modelgraft.sources.headers import TensorHeader

if TYPE_CHECKING:
    from torch import Tensor

    from modelgraft.sources.cards import LayoutCard, TensorOrigin


@dataclass(frozen=True, slots=True)
class Seen:
    """What files in another layout look like.

    root   the config.json that they would have;  files  further JSON files that they would have, by name
    taken  key in the layout of Hugging Face -> where it comes from
    """

    root: Mapping[str, Any]
    files: Mapping[str, Mapping[str, Any]]
    taken: Mapping[str, TensorOrigin]

    def headers(self, found: Mapping[str, TensorHeader]) -> dict[str, TensorHeader]:
        """The headers of the files under the keys of this layout; offsets are those of the tensor that is taken from."""
        return {
            key: TensorHeader(found[taken.key].dtype, shape_of(taken, found[taken.key].shape), found[taken.key].start, found[taken.key].end)
            for key, taken in self.taken.items()
        }

    def readers(self, found: Mapping[str, Callable[[str], Any]]) -> dict[str, Callable[[str], Any]]:
        """What reads the tensors under the keys of this layout; Any: a tensor, torch is not imported here."""
        return {key: partial(_read, taken, found[taken.key]) for key, taken in self.taken.items()}


def seen(root: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], text: str) -> Seen | None:
    """How the card that knows such files sees them; None where no card does, which is all that is in Hugging Face layout.

    root    their config.json, empty where there is none;  shapes  of their tensors, empty where they are not known

    Raises SourceError `source-damaged` where the card serves no such files, with its reason.
    """
    card = _card(root, shapes)
    if card is None:
        return None
    try:
        config = card.config(root, shapes)
        files = card.files(root, config) if card.files is not None else {}
        taken = card.tensors(config, shapes) if shapes else {}
        _refuse_others(card, shapes, taken)
        return Seen(config, files, taken)
    except ValueError as error:
        raise SourceError(Problem("source-damaged", f"{text} is in the layout of {card.name}: {error}")) from error


def _refuse_others(card: LayoutCard, shapes: Mapping[str, tuple[int, ...]], taken: Mapping[str, TensorOrigin]) -> None:
    used = {source.key for source in taken.values()}
    others = [key for key in shapes if key not in used and not key.startswith(card.idle)]
    if others:
        raise ValueError(f"it has {len(others)} tensors that such a model has not: {choices(others, most=4)}")


def _card(root: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> LayoutCard | None:
    return next((card for card in families().layouts if card.knows(root, shapes)), None) if root or shapes else None


def shape_of(taken: TensorOrigin, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of what is taken from a tensor of a shape."""
    if taken.rows is not None:
        shape = (max(min(taken.rows[1], shape[0]) - taken.rows[0], 0), *shape[1:])
    if taken.shape is not None:
        shape = _filled(taken.shape, shape)
    if taken.pick is not None:
        shape = (*shape[: taken.pick[0]], *shape[taken.pick[0] + 1 :])
    if taken.axes is not None:
        shape = tuple(shape[axis] for axis in taken.axes)
    if taken.into is not None:
        shape = _filled(taken.into, shape)
    return (shape[0], shape[1] + taken.lead, *shape[2:]) if taken.lead else shape


def _filled(shape: tuple[int, ...], given: tuple[int, ...]) -> tuple[int, ...]:
    """A shape with its -1 filled in, of as many numbers as another."""
    open_ = prod(given) // max(prod(side for side in shape if side != -1), 1)
    return tuple(open_ if side == -1 else side for side in shape)


def _read(taken: TensorOrigin, read: Callable[[str], Any], _key: str) -> Tensor:
    tensor: Tensor = read(taken.key)
    if taken.rows is not None:
        tensor = tensor[slice(*taken.rows)]
    if taken.shape is not None:
        tensor = tensor.reshape(taken.shape)
    if taken.pick is not None:
        tensor = tensor.select(*taken.pick)
    if taken.axes is not None:
        tensor = tensor.permute(taken.axes)
    if taken.into is not None:
        tensor = tensor.reshape(taken.into)
    if taken.lead:
        from torch import cat

        tensor = cat([tensor.new_zeros(tensor.shape[0], taken.lead, *tensor.shape[2:]), tensor], 1)
    return tensor
