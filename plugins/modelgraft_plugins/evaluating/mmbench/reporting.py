"""Hits as scores: over all questions, by split, ability (l2-category) and category, each with an interval over pictures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from modelgraft_plugins.evaluating.mmbench.circular import Asked, by_chance, groups, hit, is_whole, means
from modelgraft_plugins.evaluating.mmbench.extraction import NONE_OF_THEM, UNREAD
from modelgraft_plugins.evaluating.suites import Answer, Plain, Report, Score
from modelgraft_plugins.intervals import bootstrap

CIRCULAR, PLAIN, EVERY = "CircularEval accuracy", "vanilla accuracy", "accuracy of all rows"
COLUMNS = {"l2-category": "ability", "category": "category"}


def report(answers: Sequence[Answer], asked: Sequence[Asked], *, mode: str, judge: str, prompt: str) -> Report:
    """The whole report. Questions without a right answer in the data are counted, and have no score."""
    facts = {answer.facts["index"]: answer.facts for answer in answers}
    known = [row for row in asked if row.right]
    whole = groups(known)
    failed = {answer.facts["index"] for answer in answers if answer.error}
    counts = {
        "questions": len(whole),
        "answers that no rule reads": sum(facts[row.index]["read_by"] in ("nobody", "judge") for row in asked) - len(failed),
        "answers that a judge has read": sum(facts[row.index]["read_by"] == "judge" for row in asked),
        "answers that are none of the options": sum(row.letter == NONE_OF_THEM for row in asked),
    }
    notes = [f"mode {mode}, prompt {prompt}, {_read_by(mode, judge)}"]
    notes += _left_out(asked, known, whole, failed)
    if not whole:
        return Report(scores=(), counts=counts, notes=[*notes, "the data say no right answers: there is nothing to score"])
    chance = by_chance(whole.values())
    plain_chance = by_chance([group[:1] for group in whole.values()])
    notes.append(f"letters drawn at random would get {100 * chance:.1f} % by CircularEval, {100 * plain_chance:.1f} % by vanilla accuracy")
    rows = [_row(question, group, facts) for question, group in whole.items()]
    return Report(scores=list(_scores(rows, whole)), counts=counts, notes=notes, rows=rows)


def _read_by(mode: str, judge: str) -> str:
    if mode == "rank":
        return "the likeliest letter is the answer: not comparable with scores of what a graph writes"
    return f"judge {judge}" if judge else "no judge: answers that no rule reads are wrong"


def _left_out(asked: Sequence[Asked], known: Sequence[Asked], whole: Mapping[int, Sequence[Asked]], failed: set[int]) -> Iterable[str]:
    scored = {row.index for group in whole.values() for row in group}
    if len(known) < len(asked):
        yield f"{len(asked) - len(known)} rows have no right answer in the data, and no score"
    if orphans := len(known) - len(scored):
        yield f"{orphans} rows are copies of questions whose first row is missing, and are left out, as MMBench's toolkit does"
    if partial := sum(not is_whole(group) for group in whole.values()):
        yield f"{partial} questions have fewer rows than options: they are right when those rows are"
    if broken := sum(any(row.index in failed for row in group) for group in whole.values()):
        yield f"{broken} questions hold records that failed, and count as wrong"


def _row(question: int, group: Sequence[Asked], facts: Mapping[int, Mapping[str, Plain]]) -> dict[str, Plain]:
    first = facts[group[0].index]
    return {
        "question": question,
        "hit": hit(group),
        "first": group[0].is_right,
        "letters": "".join(row.letter if row.letter != UNREAD else "?" for row in group),
        "right": "".join(row.right for row in group),
        **{name: first.get(name, "") for name in ("category", "l2-category", "split", "picture")},
    }


def _scores(rows: Sequence[Mapping[str, Plain]], whole: Mapping[int, Sequence[Asked]]) -> Iterable[Score]:
    """The headline first, then what it is made of. Where there are several splits, ability and category are those within each."""
    hits, first = [bool(row["hit"]) for row in rows], [bool(row["first"]) for row in rows]
    pictures = [str(row["picture"]) for row in rows]
    yield _score(CIRCULAR, "", hits, pictures)
    yield _score(PLAIN, "", first, pictures)
    every = [(row.is_right, picture) for group, picture in zip(whole.values(), pictures, strict=True) for row in group]
    yield _score(EVERY, "", [right for right, _ in every], [picture for _, picture in every])
    splits = means(rows, hits, "split")
    parts = {f" of {name}": places for name, (_, places) in splits.items()} if len(splits) > 1 else {"": list(range(len(rows)))}
    for name, (_, places) in splits.items() if len(splits) > 1 else ():
        yield _score(CIRCULAR, f"split {name}", [hits[one] for one in places], [pictures[one] for one in places])
    for of_split, places in parts.items():
        for column, word in COLUMNS.items():
            inner = [rows[one] for one in places]
            for value, (_, mine) in means(inner, [hits[one] for one in places], column).items():
                there = [places[one] for one in mine]
                yield _score(CIRCULAR, f"{word} {value}{of_split}", [hits[one] for one in there], [pictures[one] for one in there])


def _score(metric: str, group: str, hits: Sequence[bool], pictures: Sequence[str]) -> Score:
    found = bootstrap([float(one) for one in hits], clusters=pictures)
    return Score(metric=metric, group=group, value=found.value, low=found.low, high=found.high, n=len(hits), unit="%")
