"""The loop of a vocoder of units: from units to a sound, in pieces that joined are the whole.

Units may come one after the other (`Voice`): as soon as it is known how long they last, and far enough is seen beyond a piece, the piece
is made. What is known of a row at once goes the same way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from modelgraft.plugin import Audio, InputError, LoadContext, Loop, NodeRuntime
from modelgraft_plugins.vocoder.following import Follower

if TYPE_CHECKING:
    from modelgraft_plugins.vocoder.reach import Reach

NO_UNIT = -1  # stands where there is none
SEEN = 2  # units to each side that a duration depends on: two convolutions over three


@dataclass
class Voice:
    """One sound that grows by its units.

    parts   the table, the HiFi-GAN, and the predictor unless durations are given with the units
    reach   what a piece depends on;  piece  frames of one; 0: all at once, when it ends
    """

    parts: Mapping[str, Any]
    reach: Reach
    piece: int
    device: str = "cpu"  # of units that are spoken as they come
    vectors: Tensor | None = None  # float[1 runs width]
    logs: list[Tensor] = field(default_factory=list)  # float[1 runs] each
    durations: list[Tensor] = field(default_factory=list)  # int64[runs] each
    settled: int = 0  # units whose duration is known
    frames: Tensor | None = None  # float[1 frames width]
    spoken: int = 0  # frames that samples were made of

    def add(self, units: Tensor, durations: Tensor | None = None) -> Iterator[Tensor]:
        """Take further units, int64[runs], and how long they last; give the pieces float[samples] that can be made now."""
        more = self.parts["embed"](units[None])
        self.vectors = more if self.vectors is None else torch.cat([self.vectors, more], 1)
        if durations is not None:
            self._settle(durations)
        elif self.piece:
            self._predict(self.vectors.shape[1] - SEEN)
        yield from self._speak(self.reach.behind)

    def finish(self) -> Iterator[Tensor]:
        """Give the pieces that are left: no unit follows."""
        if self.vectors is not None:
            self._predict(self.vectors.shape[1])
            yield from self._speak(0)

    def speak(self, units: Tensor) -> Iterator[Tensor]:
        """As `add`, of units whose duration is predicted, or one frame each."""
        return self.add(units.to(self.device), None if "predictor" in self.parts else torch.ones(len(units), dtype=torch.int64))

    def _predict(self, end: int) -> None:
        """Settle the durations of the units before `end`, by those around them."""
        if self.vectors is None or end <= self.settled:
            return
        first = max(self.settled - SEEN, 0)
        logs = self.parts["predictor"](self.vectors[:, first : end + SEEN])[:, self.settled - first : end - first].float()
        self.logs.append(logs)
        self._settle((logs[0].exp() - 1).round().long().clamp(min=1))

    def _settle(self, durations: Tensor) -> None:
        assert self.vectors is not None, "durations are those of units"
        known = self.vectors[:, self.settled : self.settled + len(durations)]
        more = known.repeat_interleave(durations.to(known.device), dim=1)
        self.frames = more if self.frames is None else torch.cat([self.frames, more], 1)
        self.settled += len(durations)
        self.durations.append(durations)

    def _speak(self, behind: int) -> Iterator[Tensor]:
        """The pieces for which so many frames are there behind them; with 0, all to the end."""
        there = 0 if self.frames is None else self.frames.shape[1]
        while self.spoken < there:
            end = self.spoken + (self.piece or there)
            is_last = behind == 0 and end >= there
            if not is_last and end + behind > there:
                return
            yield self._made(min(end, there), is_last=is_last)

    def _made(self, end: int, *, is_last: bool) -> Tensor:
        """The samples of the frames from those that were spoken to `end`; the last ones with what lies beyond them."""
        assert self.frames is not None, "a piece is made of frames"
        first, hop = max(self.spoken - self.reach.before, 0), self.reach.hop
        wave: Tensor = self.parts["generator"](self.frames[:, first : end + self.reach.behind])[0]
        start, self.spoken = (self.spoken - first) * hop, end
        return wave[start:] if is_last else wave[start : (end - first) * hop]


class Voicing(Loop):
    """Speaks each record by itself: those of a batch differ in length, and what fills one up would sound."""

    runtime: NodeRuntime
    follower: Follower | None = None
    held: Mapping[str, Any] | None = None  # the parts
    device = "cpu"

    def prepare(self, context: LoadContext) -> None:
        """Keep the name of the node for messages, and where its parts are."""
        self.runtime, self.device = NodeRuntime(context.node.name, context.node.component.id), context.device

    def hold(self, parts: Mapping[str, Any]) -> None:
        """Keep the parts for what is spoken while it is written."""
        self.held = parts

    def bind(self, runtime: NodeRuntime) -> None:
        """Take cancellation and events of a run, and hear the node that is followed."""
        self.runtime = runtime
        if self.config.follows:
            self.follower = Follower(self.config.follows, self.config.units, voice=self._voice, tell=self._tell)
            runtime.listen(self.follower.hear)

    def _voice(self) -> Voice | None:
        return None if self.held is None else Voice(self.held, self.config.reach, self.piece, device=self.device)

    def _tell(self, piece: Tensor, record: int) -> None:
        made = Audio(piece.float().cpu().numpy()[None].copy(), self.config.sample_rate_hz)
        self.runtime.emit("piece", port="audio", value=made, record=record)

    @property
    def piece(self) -> int:
        """Frames of a piece; 0: all."""
        frames = self.config.chunk_s * self.config.sample_rate_hz / self.config.reach.hop
        return max(1, round(frames)) if frames else 0

    def run(self, values: Sequence[Any], parts: Mapping[str, Any], *, wanted: frozenset[str]) -> dict[str, Any]:
        """Units, and durations where they are given -> a sound of each record, its samples, and how long its units last."""
        units, given = values[0], values[1] if self.config.durations == "given" else None
        if given is not None and given.shape != units.shape:
            sizes = f"`units` are int64{list(units.shape)} and `durations` int64{list(given.shape)}"
            raise InputError(f"{self.runtime.node}: {sizes}; wanted: a number of frames for each unit")
        voices = [self._voiced(row, units[row], None if given is None else given[row], parts, wanted) for row in range(len(units))]
        waves = [wave for _, wave in voices]
        found: dict[str, Any] = {
            "audio": [Audio(wave.numpy()[None], self.config.sample_rate_hz) for wave in waves],
            "wave": pad_sequence(waves, batch_first=True),
            "durations": self._spread(units, [torch.cat(voice.durations).cpu() for voice, _ in voices]),
        }
        if self.config.durations == "predicted":
            found["log_durations"] = self._spread(units, [torch.cat(voice.logs, 1)[0].cpu() for voice, _ in voices])
        return found

    def _voiced(self, row: int, units: Tensor, durations: Tensor | None, parts: Mapping[str, Any], wanted: frozenset[str]) -> Any:
        """The voice of a record and its samples, told piece by piece."""
        there = units >= 0
        kept = self._checked(row, units[there | (units < NO_UNIT)])
        lasting = self._lasting(row, kept, None if durations is None else durations[there])
        voice, pieces = Voice(parts, self.config.reach, self.piece), list[Tensor]()
        key = (self.runtime.run, self.runtime.record(row))
        if self.follower is not None and (heard := self.follower.spoken(key, kept.tolist())) is not None:
            voice, pieces, kept = heard.voice, [piece.float().cpu() for piece in heard.pieces], kept[len(heard.units) :]
            lasting = None if lasting is None else lasting[len(heard.units) :]
        for made in chain(voice.add(kept, lasting) if len(kept) else (), voice.finish()):
            self.runtime.check()
            pieces.append(made.float().cpu())
            if self.piece and "audio" in wanted:
                self._tell(made, row)
        return voice, torch.cat(pieces)

    def _checked(self, row: int, units: Tensor) -> Tensor:
        """The units of a record. Raises InputError where there are none, and for one that the table does not have."""
        name, most = self.runtime.node, self.config.units
        if len(units) == 0:
            raise InputError(f"{name}: record {row} has no units, so that there is nothing to say; leave it out with a route (`when:`)")
        if int(units.max()) >= most or int(units.min()) < 0:
            place = int(((units >= most) | (units < 0)).nonzero()[0])
            found = f"unit {int(units[place]):,} (number {place + 1} of record {row})"
            if units[place] < 0:
                raise InputError(f"{name}: {found} is none: units are 0 to {most - 1:,}, and {NO_UNIT} stands where there is none")
            way_out = "take units of the same centres as the vocoder was trained with"
            raise InputError(f"{name}: {found} is beyond the {most:,} that the vocoder has, 0 to {most - 1:,}: {way_out}")
        return units

    def _lasting(self, row: int, units: Tensor, given: Tensor | None) -> Tensor | None:
        """How long they last, unless that is predicted. Raises InputError for less than a frame."""
        if self.config.durations == "one":
            return torch.ones(len(units), dtype=torch.int64)
        if given is not None and int(given.min()) < 1:
            place = int((given < 1).nonzero()[0])
            found = f"unit {place + 1} of record {row} is to last {int(given[place])} frames"
            raise InputError(f"{self.runtime.node}: {found}, wanted at least 1; a unit that is not spoken is -1")
        return given.cpu() if given is not None else None

    @staticmethod
    def _spread(units: Tensor, rows: Sequence[Tensor]) -> Tensor:
        """A number for each unit of a batch, in the places of the units that are there, and 0 elsewhere."""
        found = torch.zeros(units.shape, dtype=rows[0].dtype)
        found[(units >= 0).cpu()] = torch.cat(list(rows))
        return found
