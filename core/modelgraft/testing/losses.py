"""What a loss promises beside its ports: a share of each record, whatever order the records come in, that something can learn from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from modelgraft.testing.likeness import same

if TYPE_CHECKING:
    from modelgraft.testing.conformance import Trial


def loss_law(trial: Trial, values: Sequence[Any], outputs: dict[str, Any]) -> Iterator[str]:
    """What is wrong with a loss that was called with a batch of two records.

    A share may depend on the other records of its batch, so the records one by one are not asked.
    """
    if not trial.node.component.random:
        turned = trial(*(None if value is None else _turned(value) for value in values))
        for name, shares in outputs.items():
            if not same(_turned(turned[name]), shares, tolerance=1e-5):
                yield f"'{name}' of the records in another order is {turned[name]}, wanted the shares of the first order: {shares}"
    yield from _gradient_law(trial, values)


def _turned(value: Any) -> Any:
    """The records of a batch from the last to the first."""
    return value[::-1] if isinstance(value, list) else value.flip(0)


def _gradient_law(trial: Trial, values: Sequence[Any]) -> Iterator[str]:
    """The mean of a loss must lead back to something that is learned, or nothing can be trained by it."""
    import torch

    module = trial.loaded.state
    if not isinstance(module, torch.nn.Module):
        return
    with torch.enable_grad():
        given = [_learnable(value) for value in values]
        found = module(*given)
        shares = found.get("loss") if isinstance(found, dict) else found
        learned = [value for value in given if isinstance(value, torch.Tensor) and value.requires_grad]
        if shares is None or not learned:
            return
        slopes = torch.autograd.grad(shares.mean(), learned, allow_unused=True) if shares.requires_grad else ()
    if not any(slope is not None and bool(slope.any()) for slope in slopes):
        yield "no gradient flows from 'loss' to any input: nothing can be trained by it"


def _learnable(value: Any) -> Any:
    """A floating tensor as one that a gradient is wanted of; everything else as it is."""
    is_floating = hasattr(value, "is_floating_point") and value.is_floating_point()
    return value.detach().clone().requires_grad_() if is_floating else value
