"""The row of [RET] in a language model: see `fromage/ret`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from modelgraft.plugin import LoadContext, Problem, SourceError

if TYPE_CHECKING:
    from modelgraft_plugins.fromage import Ret

ROW = "ret_input_embeddings.weight"  # in published files
TRAINED = "ret"  # in what was trained here


def graft(config: Ret, context: LoadContext) -> Callable[[nn.Module], nn.Module]:
    """Give the function that puts the row into a host.

    The host gets a parameter `ret`, float[1 width], which fromage/language reads itself, so that it can be trained. In the tables it
    takes the place of its token, in a copy, because others may read the same ones; so a node that shares them has it too.
    """

    def add(host: nn.Module) -> nn.Module:
        model: Any = host.model  # Any: a model of transformers
        table: Tensor = model.get_input_embeddings().weight
        token = len(table) - 1 if config.token_id is None else config.token_id
        held = None if context.weights is None else context.weights
        name = TRAINED if held is not None and held.shape(TRAINED) is not None else ROW
        _refuse_unfit(context, table, token, None if held is None else held.shape(name))
        row = table[token : token + 1].detach().clone() if held is None else held.tensor(name)
        ret = nn.Parameter(row.to(dtype=table.dtype, device=table.device), requires_grad=True)
        host.register_parameter("ret", ret)
        host.register_state_dict_post_hook(_leave_out)  # type: ignore[no-untyped-call]
        _put(model, token, ret.detach())
        return host

    return add


def rescale(ret: Tensor, table: Tensor, token: int) -> None:
    """Bring the row of [RET] to the mean length of the others, as is done after every step of its training.

    ret  float[1 width], changed in place;  table  float[tokens width], in which the row of `token` counts for nothing
    """
    with torch.no_grad():
        lengths = table.norm(dim=-1)
        ret.mul_((lengths.sum() - lengths[token]) / (len(lengths) - 1) / ret.norm())


def _leave_out(_module: nn.Module, state: dict[str, Any], prefix: str, _about: Any) -> None:
    """What another node shares are the tables, with the row in its place."""
    state.pop(f"{prefix}ret", None)


def _put(model: Any, token: int, row: Tensor) -> None:
    """Take a row into the table, and into the head where it is the table."""
    inner, head = model.get_input_embeddings(), model.get_output_embeddings()
    is_tied = head is not None and head.weight is inner.weight
    table = inner.weight.detach()
    inner.weight = nn.Parameter(torch.cat([table[:token], row, table[token + 1 :]]), requires_grad=False)
    if is_tied:
        head.weight = inner.weight


def _refuse_unfit(context: LoadContext, table: Tensor, token: int, row: tuple[int, ...] | None) -> None:
    """Raise SourceError for a token that the host has no row for, or a row of another width."""
    node, (tokens, width) = context.node, tuple(table.shape)
    if token >= tokens:
        found = f"[RET] is the token {token:,} of its adapter fromage/ret, and {node.name} knows {tokens:,}"
        hint = f'add the tokens that FROMAGe adds: {node.name}.extra_tokens: ["<|image|>", "[RET]"]'
        raise SourceError(Problem("weights-do-not-fit", found, node.place, hint, node=node.name))
    if row is not None and row[1] != width:
        found = f"the row of [RET] is {row[1]:,} wide, and {node.name} embeds tokens in {width:,} numbers"
        hint = "name the language model that the checkpoint was trained with: opt_version of its model_args.json"
        raise SourceError(Problem("weights-do-not-fit", found, node.place, hint, node=node.name))
