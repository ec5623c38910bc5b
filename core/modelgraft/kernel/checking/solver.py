"""Dimensions as unknowns: symbols, numbers and sums of them, solved as soon as an equation has one unknown left.

    dims = Dims()
    dims.know("vision.hidden_size", 1408)                  # a config decides it
    dims.equate(axis_of_the_giver, axis_of_the_taker, why=wire)
    dims.value("project.in_features")                      # 1408

Symbols that must be equal share one root (union-find); an equation that has two unknowns or more waits at them and is
looked at again when one of them is solved, so the work grows with the number of equations.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

from modelgraft.kernel.words.ports import Axis


@dataclass(frozen=True, slots=True)
class Equation:
    """Two axes that must be equally long, and why (a wire, a shared node): what messages are made of."""

    left: Axis
    right: Axis
    why: Any  # Any: the solver only hands it back


@dataclass(frozen=True, slots=True)
class Fact:
    """A number that is known: which symbol it was first known for, and the equation it follows from (None: given)."""

    symbol: str
    value: int
    follows: Equation | None = None


class Dims:
    """Unknown and known dimensions. Never raises: what contradicts is kept in `conflicts`, and the first value stays."""

    def __init__(self) -> None:
        self.conflicts: list[Equation] = []
        self._parent: dict[str, str] = {}
        self._members: dict[str, list[str]] = {}
        self._facts: dict[str, Fact] = {}
        self._waiting: dict[str, list[Equation]] = {}
        self._queue: deque[Equation] = deque()
        self._news: list[str] = []

    def know(self, symbol: str, value: int) -> None:
        """State a number that a config decides; the same statement twice does no harm."""
        root = self._find(symbol)
        fact = self._facts.get(root)
        if fact is None:
            self._settle(root, Fact(symbol, value))
            self._run()
        elif fact.value != value:
            self.conflicts.append(Equation(_bare(symbol), Axis((), value), None))

    def equate(self, left: Axis, right: Axis, *, why: Any = None) -> None:
        """State that two axes are equally long."""
        if left != right:
            self._queue.append(Equation(left, right, why))
            self._run()

    def fact(self, symbol: str) -> Fact | None:
        """What is known of a symbol, and who decided it."""
        return self._facts.get(self._find(symbol))

    def value(self, symbol: str) -> int | None:
        """The number, or None while it is not known."""
        fact = self.fact(symbol)
        return None if fact is None else fact.value

    def news(self) -> list[str]:
        """The symbols that became known since the last call."""
        news, self._news = self._news, []
        return news

    # -- inside ---------------------------------------------------------------------------------------------------------

    def _find(self, symbol: str) -> str:
        parent = self._parent
        if symbol not in parent:
            parent[symbol] = symbol
            self._members[symbol] = [symbol]
            return symbol
        root = symbol
        while parent[root] != root:
            root = parent[root]
        while parent[symbol] != root:  # the next search takes one step
            parent[symbol], symbol = root, parent[symbol]
        return root

    def _run(self) -> None:
        while self._queue:
            self._reduce(self._queue.popleft())

    def _reduce(self, equation: Equation) -> None:
        """Put in what is known; then solve, merge, wait or find a contradiction."""
        one, other = equation.left.symbol, equation.right.symbol
        if one is not None and other is not None:
            self._merge(self._find(one), self._find(other), equation)
            return
        unknowns, constant = self._difference(equation)
        if not unknowns:
            if constant:
                self.conflicts.append(equation)
        elif len(unknowns) == 1:
            [(root, factor)] = unknowns.items()
            size, rest = divmod(-constant, factor)
            if rest or size < 1:
                self.conflicts.append(equation)
            else:
                self._settle(root, Fact(self._speaker(root, equation), size, equation))
        elif constant == 0 and len(unknowns) == 2 and sum(unknowns.values()) == 0:
            first, second = unknowns
            self._merge(first, second, equation)
        else:
            for root in unknowns:
                self._waiting.setdefault(root, []).append(equation)

    def _difference(self, equation: Equation) -> tuple[dict[str, int], int]:
        """Left minus right: the factors of the unknown roots, and the number that is left."""
        unknowns: dict[str, int] = {}
        constant = equation.left.constant - equation.right.constant
        for sign, axis in ((1, equation.left), (-1, equation.right)):
            for name, factor in axis.terms:
                root = self._find(name)
                fact = self._facts.get(root)
                if fact is not None:
                    constant += sign * factor * fact.value
                else:
                    unknowns[root] = unknowns.get(root, 0) + sign * factor
        return {root: factor for root, factor in unknowns.items() if factor}, constant

    def _speaker(self, root: str, equation: Equation) -> str:
        """The symbol of the equation that stands for a root: messages name it."""
        names = (*equation.left.names, *equation.right.names)
        return next((name for name in names if self._find(name) == root), root)

    def _settle(self, root: str, fact: Fact) -> None:
        self._facts[root] = fact
        self._news.extend(self._members[root])
        self._queue.extend(self._waiting.pop(root, ()))

    def _merge(self, one: str, other: str, equation: Equation) -> None:
        if one == other:
            return
        mine, theirs = self._facts.get(one), self._facts.get(other)
        if mine is not None and theirs is not None:
            if mine.value != theirs.value:
                self.conflicts.append(equation)
            return
        known = mine or theirs
        if known is not None:
            self._news.extend(self._members[other if mine is not None else one])
        weight = {root: len(self._members[root]) + len(self._waiting.get(root, ())) for root in (one, other)}
        small, large = (one, other) if weight[one] < weight[other] else (other, one)
        self._parent[small] = large
        self._members[large].extend(self._members.pop(small))
        waiting = self._waiting.pop(small, [])
        if known is not None:
            self._facts.pop(small, None)
            self._facts[large] = known
            waiting = [*waiting, *self._waiting.pop(large, ())]
        self._queue.extend(waiting)  # an equation that holds both stands in both lists, so it is looked at again


def _bare(symbol: str) -> Axis:
    return Axis(((symbol, 1),))
