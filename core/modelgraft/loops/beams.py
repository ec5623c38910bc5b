"""Beam search: several answers per prompt side by side, the best one in the end.

The rules (which candidates are kept, when an answer counts as finished, when to stop) are those of transformers'
`generate(num_beams=...)`, so that a composed model gives the answer of the original.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from modelgraft.loops.chosen import Tokens
from modelgraft.loops.decoder import Session, Weighed
from modelgraft.loops.finite_logits import check_allowed, check_finite
from modelgraft.loops.reading import Decode
from modelgraft.loops.scoring import ScoresAsked, Scoring
from modelgraft.loops.settings import Settings
from modelgraft.loops.tensor_sessions import InTensors
from modelgraft.records.room import refuse_without_room

if TYPE_CHECKING:
    from torch import Tensor

FEWER = "set fewer beams, or a smaller max_new_tokens"
HOPELESS = -1e9  # the score of what must lose against everything real


class Candidate(NamedTuple):
    """A beam with one more token: its summed log-probability, the beam that it continues, and all its tokens."""

    score: float
    beam: int
    ids: list[int]


@dataclass(slots=True)
class _Record:
    """The search for one prompt's answer.

    running   the beams' tokens, best first;  finished  ended answers with their length-normalised scores, best first
    is_open   a running beam may still beat the worst finished answer;  longest  its longest answer
    """

    beams: int
    longest: int
    running: list[list[int]]
    finished: list[tuple[float, list[int]]] = field(default_factory=list)
    is_open: bool = True

    @property
    def is_full(self) -> bool:
        return len(self.finished) == self.beams


def search(
    given: Session,
    settings: Settings,
    *,
    asked: Sequence[ScoresAsked],
    decode: Decode,
    check: Callable[[], None],
) -> list[list[int]]:
    """Find the best answer of each row.

    given    a session that has read the prompts, once per row
    asked    what each row begins from
    Raises what `check` raises, and InputError for logits that are not finite and for beams that the memory does not suffice for.
    Source of the rules: transformers 5.23, generation/utils.py, _beam_search.
    """
    import torch

    if isinstance(given, Weighed):  # the memory of each row is laid out for each of its beams
        refuse_without_room(f"{settings.beams:,} beams of a prompt", given.bytes * settings.beams, str(given.device), way=FEWER)
    session = InTensors(given)
    logits = session.logits
    count, width = logits.shape[0], settings.beams
    spread = torch.arange(count, device=logits.device).repeat_interleave(width)
    logits = logits[spread]
    session.reorder(spread)
    scoring = Scoring(settings, [asked[row] for row in spread.tolist()], logits)
    scores = torch.full((count, width), HOPELESS, device=logits.device)
    scores[:, 0] = 0  # only the first beam of each row counts at first: the others are its copies
    records = [_Record(width, settings.longest(one.length), [[] for _ in range(width)]) for one in asked]
    for length in range(max(record.longest for record in records)):
        check_finite(logits.view(count, -1), length=length)
        candidates = _candidates(logits, scores, records, scoring, settings, length=length)
        hits = [[_has_ended(each.ids, record, settings, decode) for each in row] for record, row in zip(records, candidates, strict=True)]
        kept = [_advance(*each, settings) for each in zip(records, candidates, hits, strict=True)]
        if not any(record.is_open for record in records) or all(all(row) for row in hits):
            break
        if settings.early_stopping is True and all(record.is_full for record in records):
            break
        check()
        rows = torch.tensor([row * width + one.beam for row, chosen in enumerate(kept) for one in chosen], device=logits.device)
        newest = [one.ids[-1] for chosen in kept for one in chosen]
        scores = torch.tensor([[one.score for one in chosen] for chosen in kept], device=logits.device)
        session.reorder(rows)
        scoring.reorder(rows)
        scoring.note(Tokens(newest))
        logits = session.step(torch.tensor(newest, device=logits.device))
    return [record.finished[0][1] if record.finished else record.running[0] for record in records]


def _candidates(
    logits: Tensor, scores: Tensor, records: list[_Record], scoring: Scoring, settings: Settings, *, length: int
) -> list[list[Candidate]]:
    """The best continuations of each row: so many that `beams` of them go on even if every end token is among them."""
    width, vocabulary = settings.beams, logits.shape[-1]
    likely = scoring.apply(scoring.scaled(logits.float()).log_softmax(-1), length=length)
    likely = (likely.log_softmax(-1) if settings.renormalize_logits else likely).view(len(records), width, vocabulary)
    summed = (likely + scores[:, :, None]).view(len(records), -1)
    check_allowed(summed, range(len(records)), length=length)
    most = min(max(2, 1 + len(settings.end_ids)) * width, summed.shape[1])
    best = summed.topk(most, dim=-1)
    found = []
    for record, values, places in zip(records, best.values.tolist(), best.indices.tolist(), strict=True):
        beams = [divmod(place, vocabulary) for place in places]
        found.append([Candidate(value, beam, [*record.running[beam], token]) for value, (beam, token) in zip(values, beams, strict=True)])
    return found


def _has_ended(ids: list[int], record: _Record, settings: Settings, decode: Decode) -> bool:
    if ids[-1] in settings.end_ids or len(ids) >= record.longest:
        return True
    return bool(settings.stop) and any(string in text for text in (decode(ids),) for string in settings.stop)


def _advance(record: _Record, candidates: list[Candidate], ended: list[bool], settings: Settings) -> list[Candidate]:
    """File the answers that have ended, and give the beams that go on."""
    length = len(candidates[0].ids)
    _file(record, [one for one, end in zip(candidates[: record.beams], ended, strict=False) if end], length, settings)
    going = [one._replace(score=one.score + HOPELESS) if end else one for one, end in zip(candidates, ended, strict=True)]
    kept = sorted(going, key=lambda one: -one.score)[: record.beams]
    record.running = [one.ids for one in kept]
    reach = record.longest if settings.early_stopping == "never" and settings.length_penalty > 0 else length
    best_to_come = kept[0].score / reach**settings.length_penalty
    if record.is_full and best_to_come <= record.finished[-1][0]:
        record.is_open = False
    return kept


def _file(record: _Record, ended: list[Candidate], length: int, settings: Settings) -> None:
    if not record.is_open or (record.is_full and settings.early_stopping is True):
        return
    record.finished += [(one.score / length**settings.length_penalty, one.ids) for one in ended]
    record.finished = sorted(record.finished, key=lambda pair: -pair[0])[: record.beams]
