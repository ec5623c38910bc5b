"""Classes of pictures: those that a graph names, or the nearest of classes that are described in words (zero-shot)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field as Option

from modelgraft.plugin import Config, InputError, SolvedGraph, home_read
from modelgraft_plugins.evaluating.measuring import Wanted, by_group, score_of, scored_by
from modelgraft_plugins.evaluating.reading import as_data, file_in, folder_of, rows_of, texts_of
from modelgraft_plugins.evaluating.suites import Answer, Data, Field, Item, Note, Report, Suite

if TYPE_CHECKING:
    from modelgraft_plugins.evaluating.running import Runs

# Seven that together do as well as eighty on ImageNet: openai/CLIP, notebooks/Prompt_Engineering_for_ImageNet.ipynb.
SEVEN = (
    "itap of a {}.", "a bad photo of the {}.", "a origami {}.", "a photo of the large {}.", "a {} in a video game.", "art of the {}.",
    "a photo of the small {}.",
)  # fmt: skip
TEMPLATES = {"one": ("a photo of a {}.",), "seven": SEVEN}
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
TOP = 5
HIT = Wanted(metric="accuracy", called="top-1", unit="%")


class Classifying(Suite):
    """Classes of pictures: top-1, top-5 and by class; zero-shot by prompts where the graph gives vectors.

    Data: a folder with a folder of pictures per class, or a record per line: {"image": "a.jpg", "label": "cat"}. --by vectors: the
    class is the one whose texts are nearest, each class the mean of the vectors of its prompts (--templates); the graph gives vectors,
    such as clip with --output picture=vision_proj --output texts=text_proj. --by label: the graph names the class itself.
    """

    gives: ClassVar[Mapping[str, Field]] = {"image": Field(type="image", names=("picture", "photo"))}

    class Settings(Config):
        """Which classes there are, and how they are described."""

        by: Literal["vectors", "label"] = Option("vectors", description="How the class is found. Chosen by the graph where it is left out.")
        images: str | None = Option(None, description="The folder of the pictures; else they lie beside the data.")
        classes: str | None = Option(None, description="A file with a class per line: NAME, or FOLDER<tab>NAME; else those of the data.")
        templates: str = Option("seven", description="Prompts with {} for the class: one, seven, or a file with one per line.")

    settings: Settings

    @classmethod
    def suggest(cls, graph: SolvedGraph) -> Mapping[str, Any]:
        """By its label, where the graph takes no texts."""
        takes_texts = any(str(item.port).startswith("list[text]") for item in graph.inputs.values())
        return {"by": "vectors" if takes_texts else "label"}

    def ports(self) -> tuple[Mapping[str, Field], Mapping[str, Field]]:
        """A vector of the picture, or its class."""
        if self.settings.by == "label":
            return self.gives, {"label": Field(type="text | label", names=("class", "text"))}
        return self.gives, {"picture": Field(type="float[batch width]", names=("image_vector", "image_embedding"))}

    def more_ports(self) -> tuple[Mapping[str, Field], Mapping[str, Field]]:
        """The prompts of a class, and their vectors."""
        if self.settings.by == "label":
            return {}, {}
        texts = Field(type="float[batch texts width]", names=("text_vectors", "text_embeddings"))
        return {"prompts": Field(type="list[text]", names=("labels", "texts"))}, {"texts": texts}

    def open(self, data: str, *, note: Note) -> Data:
        """Read pictures and their classes."""
        path = home_read(data)
        names = _names(self.settings.classes)
        _templates(self.settings.templates)  # what is wrong with them is told before the graph has seen a picture
        if path.is_dir():
            items, files = list(_folders(path)), []
        else:
            folder, files = folder_of(data, self.settings.images), [path]
            items = [_line(row.place, row.columns, folder, row.error) for row in rows_of(data, note=note)]
        items = [
            replace(one, facts={**one.facts, "label": names.get(label, label)}) if (label := one.facts.get("label")) else one
            for one in items
        ]
        classes = list(dict.fromkeys(names.values())) or sorted({item.facts["label"] for item in items if not item.error})
        items = [_checked(item, set(classes)) for item in items]
        if items:  # a report needs neither the data nor the file of classes
            items[0] = replace(items[0], facts={**items[0].facts, "classes": classes})
        return as_data(data, items, files=files, media="image", option="--images DIR")

    def settle(self, answers: Sequence[Answer], runs: Runs) -> Sequence[Answer]:
        """Where there are vectors: ask the graph for those of the classes, and find the nearest."""
        if self.settings.by == "label" or not any(answer.outputs for answer in answers):
            return answers
        classes = answers[0].facts["classes"]
        prompts = _templates(self.settings.templates)
        items = [
            Item(id=name, place=f"the class {name}", inputs={"prompts": [one.replace("{}", name) for one in prompts]}) for name in classes
        ]
        described = runs.again("classes", items)
        if bad := [one for one in described if one.error]:
            raise InputError(f"the class '{bad[0].id}' has no vector: {bad[0].error}")
        return _nearest(answers, classes, [one.outputs["texts"][0] for one in described])

    def report(self, answers: Sequence[Answer]) -> Report:
        """Accuracy over all, by class, and of the five nearest."""
        scored = scored_by(HIT, answers, output="label", references=lambda answer: answer.facts.get("label"))
        if scored is None:
            return Report(scores=())
        labels = [str(answer.facts.get("label", "")) for answer in answers]
        by_class = list(by_group(HIT, scored, answers, lambda answer: f"class {answer.facts['label']}", None))
        scores, notes = [score_of(HIT, scored)], []
        if any("nearest" in answer.outputs for answer in answers):
            notes.append(
                f"zero-shot: each class is the mean of {len(_templates(self.settings.templates))} prompts ({self.settings.templates})"
            )
            if len(answers[0].facts["classes"]) > TOP:  # a right label among the five nearest: the same metric, with the sides changed
                given = [replace(one, outputs={"label": one.facts["label"]} if one.outputs else {}) for one in answers]
                nearest = {answer.id: answer.outputs.get("nearest", []) for answer in answers}
                top = scored_by(HIT, given, output="label", references=lambda answer: nearest[answer.id])
                scores += [replace(score_of(HIT, top), metric=f"top-{TOP}")] if top is not None else []
        rows = [
            {"id": answers[index].id, "label": labels[index], "answer": answers[index].outputs["label"], "is_right": bool(row[0])}
            for index, row in zip(scored.kept, scored.rows.tolist(), strict=True)
        ]
        return Report(scores=[*scores, *by_class], counts={"classes": len({*labels})}, notes=notes, rows=rows)


def _nearest(answers: Sequence[Answer], classes: Sequence[str], described: Sequence[Any]) -> list[Answer]:
    """The answers with the classes whose mean of unit vectors is nearest by cosine, the nearest first."""
    import numpy

    def unit(vectors: Any) -> Any:
        table = numpy.asarray(vectors, dtype=numpy.float64)
        return table / numpy.linalg.norm(table, axis=-1, keepdims=True)

    means = unit([unit(texts).mean(axis=0) for texts in described])
    found = []
    for answer in answers:
        if answer.outputs:
            order = numpy.argsort(-(means @ unit(answer.outputs["picture"][0])), kind="stable")
            names = [classes[place] for place in order[:TOP]]
            answer = replace(answer, outputs={"label": names[0], "nearest": names})  # noqa: PLW2901 the same answer, read
        found.append(answer)
    return found


def _names(file: str | None) -> dict[str, str]:
    """The classes by what they are called in the data."""
    if file is None:
        return {}
    lines = _lines(file, "the classes")
    return {folder: name or folder for folder, _, name in (line.partition("\t") for line in lines)}


def _templates(word: str) -> Sequence[str]:
    if word in TEMPLATES:
        return TEMPLATES[word]
    found = _lines(word, "the templates")
    if bare := [line for line in found if "{}" not in line]:
        raise InputError(f"the templates '{word}' hold {bare[0]!r}; wanted: {{}} where the class stands")
    return found


def _lines(file: str, what: str) -> list[str]:
    try:
        found = [line.rstrip("\n") for line in home_read(file).read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{what} '{file}' cannot be read: {error}") from error
    if not found:
        raise InputError(f"{what} '{file}' hold no line")
    return found


def _folders(path: Path) -> Iterator[Item]:
    """The pictures of a folder per class."""
    for folder in sorted(one for one in path.iterdir() if one.is_dir()):
        for file in sorted(one for one in folder.iterdir() if one.suffix.lower() in PICTURES):
            id = f"{folder.name}/{file.name}"
            yield Item(id=id, place=id, inputs={"image": str(file)}, facts={"label": folder.name, "image": id})


def _line(place: str, columns: Mapping[str, Any], folder: Path, error: str) -> Item:
    if error:
        return Item(id=place, place=place, error=error)
    try:
        labels = texts_of(columns, "label", "class")
        if labels is None or len(labels) != 1:
            raise ValueError("it has no `label`: the name of its class")
        image = file_in(folder, columns.get("image"), column="image")
    except ValueError as problem:
        return Item(id=place, place=place, error=str(problem))
    return Item(
        id=str(columns.get("id", place)), place=place, inputs={"image": image}, facts={"label": labels[0], "image": Path(image).name}
    )


def _checked(item: Item, known: set[str]) -> Item:
    """The item, unless its class is none of those that there are."""
    if item.error or item.facts["label"] in known:
        return item
    return replace(item, error=f"its class '{item.facts['label']}' is none of the {len(known)} classes", inputs={})
