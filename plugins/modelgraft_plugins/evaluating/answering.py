"""Questions about pictures: the accuracy of VQA-v2, over all and by type of answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field as Option
from pydantic import field_validator

from modelgraft.commands import write_value
from modelgraft.plugin import Config, InputError, home_read
from modelgraft_plugins.evaluating.measuring import Wanted, by_group, rehearse, score_of, scored_by
from modelgraft_plugins.evaluating.reading import as_data, document, file_in, folder_of, is_document, lists_in, rows_of, texts_of
from modelgraft_plugins.evaluating.suites import Answer, Data, Field, Item, Note, Report, Suite

ENOUGH = 4  # answers of people, so that three others can agree
MATCH = Wanted(metric="exact_match", called="exact match", unit="%")


class Answering(Suite):
    """Short answers to questions about pictures: the accuracy of VQA-v2.

    Data: the questions of VQA-v2 (.json) with --annotations, or a record per line: {"image": "a.jpg", "question": "What animal is it?",
    "answers": ["cat", "cat", "kitten", "cat"]}. Pictures lie beside the data, or in --images. With fewer than four answers to a
    question the answers are matched instead; without annotations there is only a file to submit.
    """

    gives: ClassVar[Mapping[str, Field]] = {
        "image": Field(type="image", names=("picture", "photo")),
        "question": Field(type="text", names=("prompt", "text")),
    }
    takes: ClassVar[Mapping[str, Field]] = {"answer": Field(type="text | label", names=("text", "label"))}

    class Settings(Config):
        """Where pictures and answers are, and how questions are asked."""

        images: str | None = Option(None, description="The folder of the pictures; else they lie beside the data.")
        annotations: str | None = Option(None, description="The annotations of VQA-v2 that belong to the questions.")
        names: str = Option("COCO_{data_subtype}_{image_id:012}.jpg", description="What the pictures of VQA-v2 are called.")
        prompt: str = Option("{question}", description="How a question is asked, such as 'Question: {question} Short answer:'.")
        normalise: Literal["official", "always"] = Option("official", description="As of metric/vqa_accuracy.")

        @field_validator("prompt")
        @classmethod
        def _holds_the_question(cls, prompt: str) -> str:
            if "{question}" not in prompt:
                raise ValueError("it has no {question}")
            return prompt

        @field_validator("names")
        @classmethod
        def _name_a_picture(cls, names: str) -> str:
            try:
                names.format(data_subtype="val2014", image_id=1)
            except (KeyError, ValueError, IndexError, AttributeError) as error:
                raise ValueError("it may hold {data_subtype} and {image_id}, such as {image_id:012}") from error
            return names

    settings: Settings

    def asking(self) -> Mapping[str, Any]:
        """What is compared decides nothing of what is asked."""
        return self.settings.model_dump(mode="json", exclude={"normalise"})

    def open(self, data: str, *, note: Note) -> Data:
        """Read questions, and the answers that people gave."""
        rehearse(MATCH)
        path, folder = home_read(data), folder_of(data, self.settings.images)
        files = [path]
        if is_document(path):
            questions = document(path, what="the data")
            annotations = self.settings.annotations
            if annotations is None:
                note("without --annotations nothing is known to be right: there will be no score, and a file to submit")
            known = _annotated(document(annotations, what="the annotations"), Path(annotations)) if annotations else {}
            files += [Path(annotations)] if annotations else []
            items = list(self._official(questions, path, folder, known))
        else:
            items = [self._line(row.place, row.columns, folder, row.error) for row in rows_of(data, note=note)]
        return as_data(data, items, files=files, media="image", option="--images DIR")

    def _item(self, id: Any, place: str, image: str, question: str, facts: Mapping[str, Any]) -> Item:
        asked = self.settings.prompt.replace("{question}", question)
        kept = {"question": question, "image": Path(image).name, "question_id": id, **facts}
        return Item(id=str(id), place=place, inputs={"image": image, "question": asked}, facts=kept)

    def _official(self, found: Mapping[str, Any], path: Path, folder: Path, known: Mapping[Any, Mapping[str, Any]]) -> Iterator[Item]:
        (questions,) = lists_in(found, path, "questions")
        subtype = found.get("data_subtype", "")
        for number, one in enumerate(questions):
            place = f"{path.name}: questions[{number}]"
            try:
                id, text, image_id = one["question_id"], str(one["question"]), one["image_id"]
                name = self.settings.names.format(data_subtype=subtype, image_id=image_id)
                facts = known[id] if known else {}
            except (KeyError, ValueError, IndexError, TypeError) as error:
                yield Item(id=str(one.get("question_id", place)), place=place, error=f"it is no question with annotations: {error!r}")
            else:
                yield self._item(id, place, str(folder / name), text, facts)

    def _line(self, place: str, columns: Mapping[str, Any], folder: Path, error: str) -> Item:
        if error:
            return Item(id=place, place=place, error=error)
        try:
            answers = texts_of(columns, "answers", "answer", "references")
            question = texts_of(columns, "question")
            if answers is None or question is None:
                raise ValueError(f"it has no `{'question' if question is None else 'answers'}`")
            image = file_in(folder, columns.get("image"), column="image")
        except ValueError as problem:
            return Item(id=place, place=place, error=str(problem))
        return self._item(columns.get("id", place), place, image, question[0], {"answers": answers, "type": columns.get("answer_type", "")})

    def report(self, answers: Sequence[Answer]) -> Report:
        """The accuracy of all, and by type of answer; questions about one picture are drawn together."""
        known = [answer for answer in answers if answer.facts.get("answers")]
        if not known:
            return Report(scores=(), notes=["the data hold no answers of people: nothing is known to be right"])
        clusters = [answer.facts.get("image") for answer in known]
        scores, notes = [], []
        accuracy = Wanted(metric="vqa_accuracy", called="VQA accuracy", fields={"normalise": self.settings.normalise}, unit="%")
        few = sum(len(answer.facts["answers"]) < ENOUGH for answer in known)
        if few:
            notes.append(f"{few} questions have fewer than {ENOUGH} answers by people, which VQA accuracy needs: answers are matched")
        found: dict[str, Any] = {}
        for wanted in (MATCH,) if few else (accuracy, MATCH):
            scored = scored_by(wanted, known, output="answer", references=lambda answer: answer.facts["answers"])
            if scored is not None:
                found[wanted.metric] = scored
                scores.append(score_of(wanted, scored, clusters=clusters))
                if wanted is not MATCH or few:
                    scores += by_group(wanted, scored, known, lambda answer: str(answer.facts.get("type") or ""), clusters)
        return Report(scores=scores, counts={"pictures": len(set(clusters))}, notes=notes, rows=_rows(known, found))

    def submit(self, answers: Sequence[Answer], folder: Path, *, note: Note) -> Sequence[Path]:  # noqa: ARG002 nothing to say
        """Write results as the server of VQA takes them."""
        found = [{"question_id": answer.facts["question_id"], "answer": answer.outputs["answer"]} for answer in answers if answer.outputs]
        target = folder / "vqa_results.json"
        write_value(found, target)
        return (target,)


def _annotated(found: Mapping[str, Any], path: Path) -> dict[Any, dict[str, Any]]:
    """What people answered, by question."""
    (annotations,) = lists_in(found, path, "annotations")
    try:
        return {
            one["question_id"]: {"answers": [str(each["answer"]) for each in one["answers"]], "type": str(one.get("answer_type", ""))}
            for one in annotations
        }
    except (KeyError, TypeError) as error:
        raise InputError(f"the annotations '{path}' hold one without question_id or answers: {error!r}") from error


def _rows(answers: Sequence[Answer], found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row for each answered question, with what each metric gave it."""
    values = {name: {index: scored.rows[place, 0] for place, index in enumerate(scored.kept)} for name, scored in found.items()}
    return [
        {"id": answer.id, "question": answer.facts["question"], "answer": answer.outputs["answer"]}
        | {name: by_record[index] for name, by_record in values.items()}
        for index, answer in enumerate(answers)
        if answer.outputs
    ]
