"""MMBench as a suite: rows of the table become questions, answers become letters, letters become hits."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field as Setting

from modelgraft.commands import judging
from modelgraft.plugin import Config, InputError, SolvedGraph
from modelgraft_plugins.evaluating.mmbench import reporting, submission
from modelgraft_plugins.evaluating.mmbench.circular import ROTATION, Asked, by_rules, groups
from modelgraft_plugins.evaluating.mmbench.extraction import UNREAD, letter_of
from modelgraft_plugins.evaluating.mmbench.judging import Unread, judged, prove
from modelgraft_plugins.evaluating.mmbench.prompts import Question, Template, prompt_of, suggested
from modelgraft_plugins.evaluating.mmbench.reading import Row, Table, open_table, picture_bytes
from modelgraft_plugins.evaluating.running import Runs
from modelgraft_plugins.evaluating.suites import Answer, Data, Field, Item, Note, Plain, Report, Suite

PICTURE = Field(type="image", doc="the picture of the question")
QUESTION = Field(type="text", names=("prompt", "text"), doc="the question with its options")
LETTERS_GIVEN = Field(type="list[text]", doc="the letters of the options, to be judged behind the question")


class MMBenchSettings(Config):
    """How the questions are put, and how answers are read."""

    prompt: Template = Setting("default", description="How a question is worded. Chosen by the graph where it is left out; it is recorded.")
    mode: Literal["generate", "rank"] = Setting(
        "generate", description="Read what the graph writes, or rank the letters by how likely they are behind the question."
    )
    judge: str = Setting(
        "", description="A graph from text to text that reads the answers which no rule reads, such as a file or a shipped name."
    )
    copies: Literal["file", "made"] = Setting(
        "file", description="Take the rotated copies of the file, or make those of a file that has each question once."
    )


class MMBench(Suite):
    """Single-choice questions about pictures (MMBench): right only if right under every rotation of the options.

    --data is an official table (TSV): pictures as base64 or as the index of another row; version 1.1 and Chinese files too. Answers are
    read by the exact rules of its toolkit, then by a judge, if one is named; what nobody reads is wrong. With --out, a submission for the
    server is written, also where the table keeps the right answers back. Scores by generating and by ranking are not comparable.
    """

    gives: ClassVar[Mapping[str, Field]] = {"image": PICTURE, "question": QUESTION}
    takes: ClassVar[Mapping[str, Field]] = {"answer": Field(type="text", names=("text",), doc="what the graph says")}
    Settings: ClassVar[type[Config]] = MMBenchSettings

    def __init__(self, settings: Config) -> None:
        super().__init__(settings)
        assert isinstance(settings, MMBenchSettings)
        self.asked = settings

    @classmethod
    def suggest(cls, graph: SolvedGraph) -> Mapping[str, Plain]:
        """The prompt of the family that the graph, or a source of it, is called after."""
        sources = [node.source.text for node in graph.nodes.values() if node.source is not None]
        return {"prompt": suggested([graph.name, *sources])}

    def ports(self) -> tuple[Mapping[str, Field], Mapping[str, Field]]:
        """To rank, the graph is given the letters as well, and says how likely each is."""
        if self.asked.mode == "generate":
            return self.gives, self.takes
        likely = Field(type="float[batch continuations]", doc="how likely each letter is")
        return {**self.gives, "continuations": LETTERS_GIVEN}, {"likelihoods": likely}

    def params(self, graph: SolvedGraph) -> Mapping[str, Plain]:
        """What makes the language model of a graph judge texts."""
        return judging(graph) if self.asked.mode == "rank" else {}

    def asking(self) -> Mapping[str, Plain]:
        """A judge changes no prediction."""
        return self.settings.model_dump(mode="json", exclude={"judge"})

    # -- from rows to questions -----------------------------------------------------------------------------------------

    def open(self, data: str, *, note: Note) -> Data:
        """Look at a table, and say how its rows become questions."""
        table = open_table(data)
        has_copies = any(index >= ROTATION for index in table.options)
        if not has_copies and self.asked.copies == "file":
            note(f"{table.path.name} has each question once: CircularEval is then plain accuracy; --copies made makes the rotated copies")
        if has_copies and self.asked.copies == "made":
            raise InputError(f"the data '{data}' have rotated copies of their own: leave out --copies made")
        copies = table.options if self.asked.copies == "made" else dict.fromkeys(table.options, 1)
        groups = [str(index % ROTATION) for index, count in copies.items() for _ in range(max(count, 1))]
        return Data(files=(table.path,), digest=table.digest, items=lambda: self._items(table), groups=groups)

    def _items(self, table: Table) -> Iterator[Item]:
        for row in table.read():
            yield from (self._item(one) for one in ([row] if self.asked.copies == "file" else rotations(row)))

    def _item(self, row: Row) -> Item:
        error, picture = "", b""
        try:
            picture = picture_bytes(row)
        except InputError as failure:
            error = str(failure)
        question = Question(text=row.question, options=row.options, hint=row.others.get("hint", ""))
        inputs = {"image": picture, "question": prompt_of(self.asked.prompt, question), "continuations": [f" {one}" for one in row.options]}
        facts = {"index": row.index, "question": row.question, "options": dict(row.options), **row.others}
        facts["picture"] = hashlib.sha256(picture).hexdigest()[:16]
        given = {name: value for name, value in inputs.items() if name in self.ports()[0]}
        return Item(id=str(row.index), place=row.place, inputs=given, facts=facts, group=str(row.index % ROTATION), error=error)

    # -- from answers to letters ----------------------------------------------------------------------------------------

    def prepare(self, runs: Runs) -> None:
        """A judge must be able to judge."""
        if self.asked.judge:
            prove(self.asked.judge, runs)

    def settle(self, answers: Sequence[Answer], runs: Runs) -> Sequence[Answer]:
        """Read every answer by the rules, and have the judge read those that decide something and no rule reads."""
        read = [self._read(answer) for answer in answers]
        if not self.asked.judge:
            return read
        open_ = [row for group in groups(_asked(read)).values() if by_rules(group) is None for row in group]
        undecided = {row.index for row in open_ if row.letter == UNREAD}
        unread = [_unread(answer) for answer in read if answer.facts["index"] in undecided and not answer.error]
        letters = judged(unread, self.asked.judge, runs) if unread else {}
        return [_with_letter(answer, letters[answer.id], "judge") if answer.id in letters else answer for answer in read]

    def _read(self, answer: Answer) -> Answer:
        if answer.error:
            return _with_letter(answer, UNREAD, "nobody")
        if self.asked.mode == "rank":
            return _with_letter(_in_words(answer), *_likeliest(answer))
        letter = letter_of(answer.outputs["answer"], answer.facts["options"])
        return _with_letter(answer, letter, "rules" if letter != UNREAD else "nobody")

    def report(self, answers: Sequence[Answer]) -> Report:
        """Hits by question, category, ability and split."""
        return reporting.report(answers, _asked(answers), mode=self.asked.mode, judge=self.asked.judge, prompt=self.asked.prompt)

    def submit(self, answers: Sequence[Answer], folder: Path, *, note: Note) -> Sequence[Path]:
        """The workbook, and the same as a table of text."""
        return submission.write([_in_words(answer) for answer in answers], folder, note=note)


def rotations(row: Row) -> Iterator[Row]:
    """A question under each rotation: in the k-th one the options stand k places further to the left, and the right letter with them."""
    letters, texts = tuple(row.options), tuple(row.options.values())
    for turn in range(max(len(letters), 1)):
        options = dict(zip(letters, texts[turn:] + texts[:turn], strict=True))
        others = dict(row.others)
        if row.answer:
            others["answer"] = letters[(letters.index(row.answer) - turn) % len(letters)]
        yield replace(row, index=row.index + turn * ROTATION, options=options, others=others)


def _likeliest(answer: Answer) -> tuple[str, str]:
    """The letter that is likeliest behind the question; of equal ones the first."""
    options = list(answer.facts["options"])
    figures = answer.outputs["likelihoods"]
    row = figures[0] if figures and isinstance(figures[0], list) else figures
    worth = [float("-inf") if one is None else one for one in row[: len(options)]]
    return options[max(range(len(options)), key=worth.__getitem__)], "rank"


def _in_words(answer: Answer) -> Answer:
    """The answer as a text: of ranked letters the likeliest."""
    if answer.error or "answer" in answer.outputs:
        return answer
    return replace(answer, outputs={**answer.outputs, "answer": answer.facts.get("letter") or _likeliest(answer)[0]})


def _with_letter(answer: Answer, letter: str, by: str) -> Answer:
    return replace(answer, facts={**answer.facts, "letter": letter, "read_by": by})


def _asked(answers: Sequence[Answer]) -> list[Asked]:
    return [
        Asked(
            index=answer.facts["index"],
            letter=answer.facts["letter"],
            right=answer.facts.get("answer", ""),
            options=len(answer.facts["options"]),
        )
        for answer in answers
    ]


def _unread(answer: Answer) -> Unread:
    facts = answer.facts
    return Unread(answer.id, answer.id, facts["question"], facts["options"], str(answer.outputs["answer"]))
