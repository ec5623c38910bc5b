"""Captions of pictures against those of people: CIDEr-D, BLEU and ROUGE-L, as COCO's evaluation has them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field as Option

from modelgraft.commands import write_value
from modelgraft.plugin import Config, InputError, home_read
from modelgraft_plugins.evaluating.measuring import Wanted, rehearse, score_of, scored_by
from modelgraft_plugins.evaluating.reading import as_data, document, file_in, folder_of, is_document, lists_in, rows_of, texts_of
from modelgraft_plugins.evaluating.suites import Answer, Data, Field, Item, Note, Report, Suite

FIGURES = (
    Wanted(metric="cider", called="CIDEr-D"),
    Wanted(metric="bleu", called="BLEU-4", fields={"words": "captions", "smooth": "none"}),
    Wanted(metric="bleu", called="BLEU-1", fields={"words": "captions", "smooth": "none", "order": 1}),
    Wanted(metric="rouge_l", called="ROUGE-L", fields={"rules": "coco"}),
)
FEW = 100  # pictures: with fewer, CIDEr's weights say little


class Captioning(Suite):
    """Captions of pictures against references of people: CIDEr-D, BLEU, ROUGE-L.

    Data: captions as COCO has them (images and annotations in one .json), the splits of Karpathy (.json with sentences, --split), or a
    record per line: {"image": "a.jpg", "references": ["A cat.", "A cat on a chair."]}. Pictures lie beside the data, or in --images.
    """

    gives: ClassVar[Mapping[str, Field]] = {
        "image": Field(type="image", names=("picture", "photo")),
        "prompt": Field(type="text", names=("question", "instruction"), is_needed=False, doc="what is asked"),
    }
    takes: ClassVar[Mapping[str, Field]] = {"caption": Field(type="text | label", names=("text", "answer"))}

    class Settings(Config):
        """Where the pictures are, and how captions are asked for."""

        images: str | None = Option(None, description="The folder of the pictures; else they lie beside the data.")
        split: str = Option("test", description="Of a file of Karpathy's: train, restval, val or test.")
        prompt: str = Option("Describe the picture in one short sentence.", description="What is asked where the graph takes a prompt.")

    settings: Settings

    def open(self, data: str, *, note: Note) -> Data:
        """Read pictures and references."""
        rehearse(*FIGURES)
        return self.read(data, note=note)

    def read(self, data: str, *, note: Note) -> Data:
        """The same for whoever scores them otherwise."""
        path, folder = home_read(data), folder_of(data, self.settings.images)
        if is_document(path):
            found = document(path, what="the data")
            of_karpathy = any("sentences" in one for one in found.get("images", ()) if isinstance(one, dict))
            items = list((self._karpathy if of_karpathy else self._coco)(found, path, folder))
            if of_karpathy and not items:
                there = sorted({str(one.get("split")) for one in found["images"]})
                raise InputError(f"the data '{data}' have no split '{self.settings.split}'; they have: {', '.join(there)} (--split)")
        else:
            items = [self._line(row.place, row.columns, folder, row.error) for row in rows_of(data, note=note)]
        return as_data(data, items, files=[path], media="image", option="--images DIR")

    def _item(self, id: Any, place: str, image: str, references: Sequence[str]) -> Item:
        facts = {"references": list(references), "image": Path(image).name, "image_id": id}
        return Item(id=str(id), place=place, inputs={"image": image, "prompt": self.settings.prompt}, facts=facts)

    def _coco(self, found: Mapping[str, Any], path: Path, folder: Path) -> Iterator[Item]:
        images, annotations = lists_in(found, path, "images", "annotations")
        captions: dict[Any, list[str]] = {}
        for one in annotations:
            captions.setdefault(str(one.get("image_id")), []).append(str(one.get("caption", "")))
        for number, one in enumerate(images):
            place = f"{path.name}: images[{number}]"
            if "id" in one and str(one["id"]) in captions and isinstance(one.get("file_name"), str):
                yield self._item(one["id"], place, str(folder / one["file_name"]), captions[str(one["id"])])
            else:
                yield Item(id=str(one.get("id", number)), place=place, error="it has no file_name, or no annotation has its id")

    def _karpathy(self, found: Mapping[str, Any], path: Path, folder: Path) -> Iterator[Item]:
        (images,) = lists_in(found, path, "images")
        for number, one in enumerate(images):
            if one.get("split") != self.settings.split:
                continue
            id, place = one.get("cocoid", one.get("imgid", number)), f"{path.name}: images[{number}]"
            try:
                references = [str(sentence["raw"]) for sentence in one["sentences"]]
                image = folder / str(one.get("filepath") or "") / str(one["filename"])
            except (KeyError, TypeError):
                yield Item(id=str(id), place=place, error="it has no filename, or no sentences with a `raw` text each")
            else:
                yield self._item(id, place, str(image), references)

    def _line(self, place: str, columns: Mapping[str, Any], folder: Path, error: str) -> Item:
        try:
            references = texts_of(columns, "references", "captions", "caption", "reference")
            if not error and references is None:
                raise ValueError("it has no `references`: a list of captions by people")
            image = "" if error else file_in(folder, columns.get("image"), column="image")
        except ValueError as problem:
            return Item(id=place, place=place, error=str(problem))
        if error:
            return Item(id=place, place=place, error=error)
        return self._item(columns.get("id", place), place, image, references or ())

    def report(self, answers: Sequence[Answer]) -> Report:
        """The figures of all captions."""
        scored = [scored_by(one, answers, output="caption", references=_references) for one in FIGURES]
        scores = [score_of(wanted, found) for wanted, found in zip(FIGURES, scored, strict=True) if found is not None]
        notes = ["words are cut nearly as COCO's tokenizer in Java cuts them: see wording.py of the metrics"]
        if len(answers) < FEW:
            notes.append(f"CIDEr-D weighs words by how few of the pictures have them: of {len(answers)} it cannot be compared with others")
        first = scored[0]
        by_record = {} if first is None else {index: first.rows[place, 0] for place, index in enumerate(first.kept)}
        rows = [
            {"id": answer.id, "image": answer.facts.get("image"), "caption": answer.outputs["caption"], "cider": by_record[index]}
            for index, answer in enumerate(answers)
            if index in by_record
        ]
        return Report(scores=scores, notes=notes, rows=rows)

    def submit(self, answers: Sequence[Answer], folder: Path, *, note: Note) -> Sequence[Path]:  # noqa: ARG002 nothing to say
        """Write results as COCO's server takes them."""
        found = [{"image_id": answer.facts["image_id"], "caption": answer.outputs["caption"]} for answer in answers if answer.outputs]
        target = folder / "captions_results.json"
        write_value(found, target)
        return (target,)


def _references(answer: Answer) -> Any:
    return answer.facts.get("references")
