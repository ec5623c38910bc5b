"""What is held on each device: loaded nodes as they measure, and what is kept beside them, against the most that a device may hold.

Whoever holds memory says what it is for and how it can be let go of:

    kept = ledger.hold("a conversation of llm", size, "cuda:0", let_go=session.close, is_spare=True)
    with kept.in_use():       # nobody lets go of it meanwhile; raises LookupError when somebody has
        ...
    kept.release()

When room is wanted, what was used least recently goes first, and what is spare before nodes. `let_go` is called without a lock of the
ledger, when it is out of it already; it must not wait for a lock that somebody holds while asking the ledger for room.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from modelgraft.engine.needs import limit_of
from modelgraft.kernel.words.errors import InputError
from modelgraft.kernel.words.sizes import named
from modelgraft.kernel.words.wording import option
from modelgraft.records.amounts import in_bytes

LOOK_S = 0.1  # how often who waits for room looks whether its run was stopped

Block = tuple[str, Hashable]  # a device, and what tells a piece of memory there from others: several may hold the same
LetGo = Callable[[], None]


class Holding:
    """What takes memory: of one node, or of one thing that is kept.

    what     for people: "llm", "the conversation of llm"
    device   that it was meant for
    blocks   bytes by the memory that it holds
    let_go   frees it; None: it stays until it is released
    is_spare only kept because there is room: it goes before what is not, and nothing but its like goes for it
    planned  the bytes that were expected, None where nobody knew;  is_measured  whether `blocks` are what was found
    """

    __slots__ = ("_ledger", "blocks", "device", "is_gone", "is_measured", "is_spare", "let_go", "planned", "uses", "what")

    def __init__(self, ledger: Ledger, what: str, blocks: Mapping[Block, int], let_go: LetGo | None, *, is_spare: bool) -> None:
        self._ledger, self.what, self.blocks, self.let_go, self.is_spare = ledger, what, blocks, let_go, is_spare
        self.device = next(iter(blocks))[0]
        self.planned: int | None = sum(blocks.values())
        self.is_measured, self.uses, self.is_gone = False, 0, False

    @property
    def may_go(self) -> bool:
        """Whether it can be let go of now."""
        return self.let_go is not None and not self.uses and not self.is_gone

    def yields_to(self, other: Holding) -> bool:
        """Whether it goes for another, once it may."""
        return self.let_go is not None and self is not other and (self.is_spare or not other.is_spare)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Keep it for as long as the block runs. Raises LookupError when it was let go of."""
        if not self.take():
            raise LookupError(f"{self.what} was let go of")
        try:
            yield
        finally:
            self.give_back()

    def take(self) -> bool:
        """Begin a use; gives False when it was let go of."""
        return self._ledger.take(self)

    def give_back(self) -> None:
        """End a use."""
        self._ledger.give_back(self)

    def measured(self, blocks: Mapping[Block, int]) -> None:
        """Note what it takes in truth."""
        self._ledger.measured(self, blocks)

    def leave(self) -> bool:
        """Take it out of the ledger if it may go, for its holder to free it; gives whether it may."""
        return self._ledger.leave(self)

    def release(self) -> None:
        """Take it out of the ledger; who holds it frees it. Doing so twice does nothing."""
        self._ledger.release(self)

    def on(self, device: str) -> int:
        """Its bytes on a device."""
        return sum(size for (place, _), size in self.blocks.items() if place == device)


class Ledger:
    """What is held, and the most that may be.

    limits  bytes by device; EVERY stands for each device that is not named; a device without a limit takes what comes
    """

    def __init__(self, limits: Mapping[str, int] | None = None) -> None:
        self.limits = {named(device): size for device, size in (limits or {}).items()}
        self._changed = threading.Condition(threading.RLock())
        self._holdings: dict[int, Holding] = {}  # the least recently used first
        self._holders = Counter[Block]()
        self._taken = Counter[str]()

    # -- holding --------------------------------------------------------------------------------------------------------

    def hold(
        self,
        what: str,
        size: int,
        device: str,
        let_go: LetGo | None = None,
        *,
        is_spare: bool = False,
        check: Callable[[], None] | None = None,
    ) -> Holding:
        """Make room for bytes on a device, and note who holds them: see `Holding`.

        check  waits for what is in use and may go afterwards, and is called meanwhile: it raises to stop that. None: no waiting

        Raises InputError when there is no room, with what is held there. Nothing was let go of then.
        """
        device = named(device)
        held = Holding(self, what, {(device, object()): size}, let_go, is_spare=is_spare)
        while (going := self._enter_or_choose(held, device, size, is_waiting=check is not None)) is not held:
            if going is not None and going.let_go is not None:
                going.let_go()
            elif check is not None:
                check()
        return held

    def measured(self, held: Holding, blocks: Mapping[Block, int]) -> None:
        """See `Holding.measured`."""
        with self._changed:
            is_there = not held.is_gone
            if is_there:
                self._count_out(held)
            held.blocks, held.is_measured = {(named(device), key): size for (device, key), size in blocks.items()}, True
            if is_there:
                self._count_in(held)
                self._changed.notify_all()

    def settle(self, held: Holding) -> str:
        """Make room afterwards for what measured more than was planned; gives what is over the limit even so, in words about it."""
        for device in {device for device, _ in held.blocks}:
            while (most := self.limit(device)) is not None and self.taken(device) > most:
                with self._changed:
                    going = self._next(held, device)
                    if going is None:
                        return (
                            f"it takes {in_bytes(held.on(device))} on {device}, {in_bytes(held.planned)} were planned: "
                            f"{in_bytes(self.taken(device))} are held there, and {in_bytes(most)} may be"
                        )
                    self.release(going)
                assert going.let_go is not None, "what may go can be let go of"
                going.let_go()
        return ""

    def release(self, held: Holding) -> None:
        """See `Holding.release`."""
        with self._changed:
            held.is_gone = True
            if self._holdings.pop(id(held), None) is not None:
                self._count_out(held)
                self._changed.notify_all()

    def leave(self, held: Holding) -> bool:
        """See `Holding.leave`."""
        with self._changed:
            may_go = held.may_go
            if may_go:
                self.release(held)
            return may_go

    def let_go_of_spare(self) -> None:
        """Let go of all that is only kept because there is room, and not in use."""
        for held in self.holdings():
            if held.is_spare and held.let_go is not None and self.leave(held):
                held.let_go()

    def take(self, held: Holding) -> bool:
        """See `Holding.take`."""
        with self._changed:
            if held.is_gone:
                return False
            held.uses += 1
            self._holdings[id(held)] = self._holdings.pop(id(held))  # the last now
            return True

    def give_back(self, held: Holding) -> None:
        """See `Holding.give_back`."""
        with self._changed:
            held.uses -= 1
            self._changed.notify_all()

    # -- room -----------------------------------------------------------------------------------------------------------

    def limit(self, device: str) -> int | None:
        """The most that a device may hold; None: as much as there is."""
        return limit_of(self.limits, device)

    def taken(self, device: str) -> int:
        """The bytes that are held on a device, each piece of memory once."""
        return self._taken[named(device)]

    def room(self, device: str) -> int | None:
        """The bytes that could be had on a device now, with all let go of that may go; None: as many as there are."""
        most = self.limit(device)
        if most is None:
            return None
        with self._changed:
            return most - self.taken(device) + self._could_go(named(device), of=lambda held: held.may_go)

    def _enter_or_choose(self, held: Holding, device: str, size: int, *, is_waiting: bool) -> Holding | None:
        """The holding itself once it has its room; before that what goes next, out of the ledger already.

        None after a while in which nothing could go that may soon.
        """
        with self._changed:
            most = self.limit(device)
            if most is None or (short := self.taken(device) + size - most) <= 0:
                self._holdings[id(held)] = held
                self._count_in(held)
                return held
            if self._could_go(device, of=lambda one: one.may_go and one.yields_to(held)) >= short:
                going = self._next(held, device)
                assert going is not None, "what could go is there"
                self.release(going)
                return going
            if is_waiting and self._could_go(device, of=lambda one: one.yields_to(held)) >= short:
                self._changed.wait(LOOK_S)
                return None
            raise InputError(self._told(device, size, most, held.what))

    def _next(self, held: Holding, device: str) -> Holding | None:
        """What goes next for a holding that needs room on a device; None when nothing may."""
        going = (one for one in self._holdings.values() if one.may_go and one.yields_to(held) and one.on(device))
        return min(going, key=lambda one: not one.is_spare, default=None)

    def _could_go(self, device: str, *, of: Callable[[Holding], bool]) -> int:
        """The bytes on a device that only such holdings hold."""
        going = [held for held in self._holdings.values() if of(held)]
        holders = Counter(block for held in going for block in held.blocks)
        sizes = {block: size for held in going for block, size in held.blocks.items() if block[0] == device}
        return sum(size for block, size in sizes.items() if holders[block] == self._holders[block])

    def _count_in(self, held: Holding) -> None:
        for block, size in held.blocks.items():
            self._holders[block] += 1
            if self._holders[block] == 1:
                self._taken[block[0]] += size

    def _count_out(self, held: Holding) -> None:
        for block, size in held.blocks.items():
            self._holders[block] -= 1
            if not self._holders[block]:
                del self._holders[block]
                self._taken[block[0]] -= size

    def _told(self, device: str, size: int, most: int, what: str) -> str:
        there = [(held.what, held.on(device)) for held in self._holdings.values() if held.on(device)]
        listed = ", ".join(f"{name} {in_bytes(taken)}" for name, taken in sorted(there, key=lambda one: -one[1]))
        held = f"{in_bytes(self.taken(device))} are held there by {listed}" if listed else "nothing is held there"
        return (
            f"{what} needs {in_bytes(size)} on {device}, which may hold {in_bytes(most)}, and {held}; give it more with "
            f"{option('max_memory', f'{device}=...')}, or let go of nodes: `lazy: true`, or `runtime: {{keep: false}}`"
        )

    # -- looking --------------------------------------------------------------------------------------------------------

    def holdings(self) -> Sequence[Holding]:
        """What is held now, the least recently used first."""
        with self._changed:
            return tuple(self._holdings.values())
