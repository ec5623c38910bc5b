"""The loop: read the prompts, then choose and read one token at a time until every answer has ended."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy

from modelgraft.kernel.words.errors import InputError
from modelgraft.loops.chosen import Tokens
from modelgraft.loops.decoder import Decoder, LooksAhead, Session, stepping
from modelgraft.loops.finite_logits import check_allowed, check_finite, seen_by_numpy
from modelgraft.loops.reading import Decode, Reader
from modelgraft.loops.sampling import chooser
from modelgraft.loops.scoring import ScoresAsked, Scoring
from modelgraft.loops.settings import Settings
from modelgraft.loops.taps import Taps

if TYPE_CHECKING:
    from modelgraft.loops.guessing import Ahead, Guesser, Guesses
    from modelgraft.loops.guides import Guide
    from modelgraft.loops.likelihoods import Likelihood
    from modelgraft.loops.prompt_places import Places
    from modelgraft.records.arrays import Array


@dataclass(frozen=True, slots=True)
class Answers:
    """What was generated, by row.

    ids     the new tokens, an end token included
    texts   the new text: special tokens left out, cut before the first stop string
    logits  float32[batch vocab]: the decoder's own logits for the first token, before any rule; an array where its session gives these
    taps    what else was asked for
    likely  of each text that was asked about how likely it is behind the prompt
    guesses how they were guessed ahead; None where that was not asked for
    """

    ids: list[list[int]]
    texts: list[str]
    logits: Array
    taps: Taps
    likely: list[list[Likelihood]]
    guesses: Guesses | None = None


def _nothing() -> None:
    return None


def generate(  # noqa: PLR0913 what is asked, and who watches
    decoder: Decoder,
    prompts: Sequence[Array],
    settings: Settings,
    *,
    decode: Decode,
    said: Sequence[Sequence[int]] | None = None,
    read: Sequence[Sequence[int]] | None = None,
    seed: int = 0,
    conditions: Any = None,
    taps: Collection[str] = (),
    places: Places | None = None,
    given: Sequence[Sequence[Sequence[int]]] = (),
    guides: Sequence[Guide] = (),
    guesser: Guesser | None = None,
    check: Callable[[], None] = _nothing,
    emit: Callable[[int, str], None] | None = None,
) -> Answers:
    """Answer each prompt.

    prompts, conditions  as the decoder takes them: see Decoder.start
    decode   tokens -> text, special tokens left out
    said     the tokens of each prompt, for rules about what was said and for the random numbers; None: unknown
    read     the tokens that an encoder has read, for rules about what was read: `max_length` and `min_length` then count from `said`.
             None: the prompts are what was read, and what these count from
    taps     what to note of each token that is written, in the same pass: "logprobs", "states"
    places   places of the prompts whose hidden states are noted in it as the prompts are read
    given    the tokens of texts whose likelihood is asked for, by row; the prompts are read once for them and the answers
    guides   what bounds each answer, by row; none: nothing does. Beams are not bounded
    guesser  what guesses ahead, at most `settings.lookup` tokens at once, and is closed at the end; None: a Lookup, where there is such
             a number
    check    called before every step; raises to stop
    emit     takes (row, piece of text) as answers grow; pieces of one row join to its text

    Raises InputError for a prompt that leaves no room for an answer under `max_length`.
    """
    with closing(guesser) if guesser is not None else nullcontext():
        before = said if said is not None else [()] * len(prompts)
        sizes = [len(each) for each in (prompts if read is None else before)]
        asked = [ScoresAsked(*each) for each in zip(before, sizes, read if read is not None else before, strict=True)]
        room = _room(settings, sizes)
        behind = max((len(text) for texts in given for text in texts), default=0)
        readers = [Reader(decode, stop=settings.stop, emit=_emitter(emit, row)) for row in range(len(prompts))]
        check()
        has_beams, notes = settings.beams > 1, Taps(len(prompts), taps)
        more = notes.reads_on and not has_beams  # the last token is read as well
        asks: dict[str, Any] = {} if places is None else {"places": places}  # of a decoder that can tell them
        session = decoder.start(prompts, conditions=conditions, room=max(room + more, behind), states=more, **asks)
        ahead, why = _ahead(session, settings, before, guesser, room=room, notes=notes)
        try:
            first = _copied(session.logits)
            likely = _likely(session, given, check=check) if given else []
            if room == 0:
                ids: list[list[int]] = [[] for _ in prompts]
            elif has_beams:
                from modelgraft.loops import beams

                ids = beams.search(session, settings, asked=asked, decode=decode, check=check)
            else:
                ids = _write(session, settings, asked, readers, notes, guides=guides, ahead=ahead, seed=seed, check=check)
                if ahead is not None:
                    ahead.stop()
        finally:
            session.close()
        if has_beams and notes.wanted:
            session = decoder.start(prompts, conditions=conditions, room=room + 1, states=notes.reads_on)
            notes.read_again(session, ids, check=check)
        texts = [reader.finish(answer) for reader, answer in zip(readers, ids, strict=True)]
        if ahead is not None and not ahead.noted.guessed:
            ahead.noted.why = ahead.guesser.why
        return Answers(ids, texts, first, notes, likely, ahead.noted if ahead is not None else _unguessed(why))


def _likely(session: Session, given: Sequence[Sequence[Sequence[int]]], *, check: Callable[[], None]) -> list[list[Likelihood]]:
    from modelgraft.loops.likelihoods import likelihoods

    return likelihoods(session, given, check=check)


def _unguessed(why: str) -> Guesses | None:
    """What is told where nothing is guessed ahead though it was asked for."""
    if not why:
        return None
    from modelgraft.loops.guessing import Guesses

    return Guesses(why=why)


def _copied(logits: Array) -> Array:
    """In float32, in memory of its own."""
    return numpy.array(logits, numpy.float32) if isinstance(logits, numpy.ndarray) else logits.clone().float()


def _ahead(
    session: Session, settings: Settings, said: Sequence[Sequence[int]], guesser: Guesser | None, *, room: int, notes: Taps
) -> tuple[Ahead | None, str]:
    """What guesses ahead, where that is asked for and can be; else why it cannot."""
    if not settings.lookup or room == 0:
        return None, ""
    if settings.beams > 1:
        return None, "beams go several ways at once"
    if notes.reads_on:
        return None, "hidden states are wanted of each token as it is read"
    if not isinstance(session, LooksAhead) or not session.looks:
        return None, "what runs the model reads one token at a time, or cannot take tokens back"
    from modelgraft.loops.guessing import Ahead, Lookup

    return Ahead(session, Lookup(said) if guesser is None else guesser, room=room, most=settings.lookup), ""


def _room(settings: Settings, sizes: Sequence[int]) -> int:
    """The longest answer. Raises InputError for a prompt that leaves no room for one."""
    full = max(sizes)
    if settings.max_length is not None and settings.longest(full) <= 0:
        way_out = "shorten it, or set max_new_tokens, which counts the answer alone"
        raise InputError(f"a prompt has {full:,} tokens, and max_length allows {settings.max_length:,} with the answer: {way_out}")
    return settings.longest(min(sizes))


def _write(
    session: Session,
    settings: Settings,
    asked: Sequence[ScoresAsked],
    readers: Sequence[Reader],
    notes: Taps,
    *,
    guides: Sequence[Guide],
    ahead: Ahead | None,
    seed: int,
    check: Callable[[], None],
) -> list[list[int]]:
    """One token per row and step. Rows that have ended are read along until the last one ends."""
    logits, ends = session.logits, frozenset(settings.end_ids)
    choosing = _Choosing(settings, asked, logits, guides=guides, seed=seed)
    limits = [settings.longest(one.length) for one in asked]
    ids: list[list[int]] = [[] for _ in readers]
    running = list(range(len(readers)))
    read_on = stepping(session)
    for length in range(max(limits)):
        tokens = choosing.choose(logits, running, length=length)
        chosen, written, running = tokens.ids, running, []
        if notes.wanted:
            notes.note_logits(logits, tokens, written)
        for row in written:
            token = chosen[row]
            ids[row].append(token)
            if guides:
                guides[row].take(token)
            is_over = readers[row].add(token) or token in ends or length + 1 >= limits[row]
            if not is_over and not (guides and guides[row].is_over):
                running.append(row)
        if not running and not notes.reads_on:
            break
        check()
        choosing.scoring.note(tokens)
        logits = read_on(tokens) if ahead is None else ahead.step(tokens, running)
        if notes.reads_on:
            notes.note_states(session, written)
            if not running:
                break
    return ids


class _Choosing:
    """Chooses a token of each row by the rules, guides and random numbers of a run."""

    def __init__(self, settings: Settings, asked: Sequence[ScoresAsked], logits: Array, *, guides: Sequence[Guide], seed: int) -> None:
        """logits: the first ones."""
        self.given, self.seen = logits, seen_by_numpy(logits)
        self.scoring, self.guides = Scoring(settings, asked, self.seen), guides
        self.drawn = chooser(settings, [one.said for one in asked], seed=seed)
        self.is_greedy = not settings.draws and not guides

    def choose(self, logits: Array, running: Sequence[int], *, length: int) -> Tokens:
        """Of float[batch vocab], behind so many tokens; running: the rows that go on. Raises InputError for logits that are no numbers,
        and where nothing may be chosen."""
        if logits is not self.given:  # most sessions give the same memory step after step
            self.given, self.seen = logits, seen_by_numpy(logits)
        scores, largest = self.seen, check_finite(self.seen, length=length)
        if self.is_greedy and self.scoring.keeps(largest.tokens, running, length=length):
            return largest.tokens
        scores = self.scoring.apply(self.scoring.scaled(scores), length=length)
        if scores is not self.seen:
            largest = check_allowed(scores, running, length=length)
        if not self.guides:
            return self.drawn(scores, largest)
        from modelgraft.loops.guides import guided

        return self.drawn(guided(scores, self.guides, running))


def _emitter(emit: Callable[[int, str], None] | None, row: int) -> Callable[[str], None] | None:
    return None if emit is None else lambda piece: emit(row, piece)
