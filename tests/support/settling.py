"""A driven component: a state that a field pulls about until it has settled, in torch and in a loop of plain Python."""

from __future__ import annotations

import torch

from modelgraft import Config, component
from modelgraft.plugin import Driven, Loop, NodeRuntime, Ports

PARTS = {
    "field": Ports.of({"state": "float[batch width]", "push": "float[batch width]"}, {"force": "float[batch width]"}),
    "reading": Ports.of({"state": "float[batch width]"}, {"value": "float[batch 1]", "size": "float[batch]"}),
}


class Field(torch.nn.Module):
    """tanh(state @ w) + push."""

    def __init__(self, width):
        super().__init__()
        self.map = torch.nn.Linear(width, width, bias=False)

    def forward(self, state, push):
        return torch.tanh(self.map(state)) + push


class Reading(torch.nn.Module):
    """One number of a state, and how large it is: two outputs, by name."""

    def __init__(self, width):
        super().__init__()
        self.map = torch.nn.Linear(width, 1)

    def forward(self, state):
        return {"value": self.map(state), "size": state.abs().sum(-1)}


class Settling(Driven):
    """Holds both parts."""

    def __init__(self, config):
        super().__init__()
        self.field, self.reading, self.config = Field(config.width), Reading(config.width), config

    def facts(self):
        return {"share": 0.5}


class Settle(Loop):
    """Goes a part of the way, round by round."""

    runtime = NodeRuntime("node")
    prepared = ""

    def prepare(self, context):
        self.prepared = context.node.name

    def bind(self, runtime):
        self.runtime = runtime

    def run(self, values, parts, *, wanted):
        state, push = values
        push = torch.zeros_like(state) if push is None else push
        for done in range(self.config.rounds):
            self.runtime.check()
            state = state + self.facts["share"] * parts["field"](state, push)
            self.runtime.emit("progress", done=done + 1, total=self.config.rounds)
        read = parts["reading"](state)
        return {"state": state, "value": read["value"][:, 0] * read["size"]}


@component(
    "toy/settle",
    kind="generator",
    module="support.settling:Settling",
    loop="support.settling:Settle",
    parts=PARTS,
    exportable=True,
    inputs={"state": "float[batch width]", "push": "optional[float[batch width]]"},
    outputs={"state": "float[batch width]", "value": "float[batch]"},
)
class SettleConfig(Config):
    """Let a state settle."""

    width: int = 6
    rounds: int = 3

    def parameters(self):
        return self.width * self.width + self.width + 1


def settled(module, state, push, rounds):
    """What the component gives, by the formula: state += (tanh(w state) + push) / 2, again and again."""
    rows, values = [], []
    w, reading = module.field.map.weight.double(), module.reading.map
    for start, p in zip(state.double(), push.double(), strict=True):
        x = start
        for _ in range(rounds):
            x = x + 0.5 * (torch.tanh(w @ x) + p)
        rows.append(x)
        values.append((reading.weight[0].double() @ x + reading.bias[0].double()) * x.abs().sum())
    return torch.stack(rows), torch.stack(values)
