"""What the parity gate compares decoders by: the logits behind prompts, and behind tokens that do not depend on them. In torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from modelgraft.plugin import Array, LooksAhead, Places, as_tensor
from modelgraft_plugins.llm.styles import BRIEFLY

if TYPE_CHECKING:
    from modelgraft_plugins.llm.writer import Embed, Writer

# Prompts of two batches of unequal lengths, none as long as the traced one, then tokens one by one; where a decoder can, of a single row
# half of them at once.
REHEARSED = ((3, 9, 4), (1,))
STEPS = 4


def prompts(writer: Writer, embed: Embed) -> list[tuple[Tensor, ...]]:
    """The prompts of each batch."""
    generator = torch.Generator().manual_seed(7)
    return [tuple(writer.rehearsed(length, embed, generator) for length in lengths) for lengths in REHEARSED]


def read(writer: Writer, parts: Mapping[str, Any], case: tuple[Tensor, ...], *, variant: str) -> tuple[Tensor, ...]:
    """The logits after the prompts, and after tokens; last the states of the last token, and of some of each prompt.

    Where it is to be brief, and nobody wants states, after the first token alone.
    """
    given, conditions = writer.begun(case)
    decoder, steps = parts["decoder"], 1 if BRIEFLY in parts and not variant else STEPS
    places = Places([sorted({0, len(prompt) // 2}) for prompt in given]) if variant and writer.reads_prompts else None
    asks: dict[str, Any] = {"places": places} if places is not None else {}
    session = decoder.start(given, conditions=conditions, room=STEPS, states=bool(variant), **asks)
    logits = [_noted(session.logits)]
    tokens = torch.tensor([[(7 * step + 3 * row + 1) % writer.few for step in range(steps)] for row in range(len(case))])
    looking = session if not variant and isinstance(session, LooksAhead) and session.looks and steps > 1 else None
    # What torch reads is read at once, which takes less; of others a part, as guesses are read, and what goes on behind a prompt.
    alone = steps if looking is None else 0 if decoder is writer.reference else steps // 2
    logits += [_noted(session.step(token)) for token in tokens[:, :alone].unbind(1)]
    if looking is not None:
        logits += _noted(looking.look(tokens[:, alone:])).unbind(1)
    if variant and session.states is not None:
        logits += _noted(session.states).unbind(1)
    if places is not None:
        logits += [states.flatten(0, 1) for states in places.found]
    session.close()
    return tuple(logits)


def _noted(numbers: Array) -> Tensor:
    """What a session gave, in memory of its own, which the next step does not write to."""
    tensor: Tensor = as_tensor(numbers)
    return tensor.float().clone()
