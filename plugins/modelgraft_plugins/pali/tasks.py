"""The tasks that PaLI is trained on, each as a line that it reads and an answer that it gives.

Every task looks like a gap to be filled, as mT5 was trained: the line ends with the first sentinel, and the answer stands for it.
Source: arXiv 2209.06794, section 3 (the mixture of tasks), whose wording this is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

GAP = "<extra_id_0>"


@dataclass(frozen=True, slots=True)
class Task:
    """A task.

    reads    input -> its type: what the line is made of
    answers  input -> its type: what the answer is made of, which training needs
    line     (values of `reads`, language) -> what the model reads
    answer   (values of both, language) -> what it should write
    """

    reads: Mapping[str, str]
    answers: Mapping[str, str]
    line: Callable[[Mapping[str, Any], str], str]
    answer: Callable[[Mapping[str, Any], str], str]


def joined(names: list[str]) -> str:
    """Names in a row."""
    return ", ".join(names)


def _given(name: str) -> Callable[[Mapping[str, Any], str], str]:
    return lambda values, _language: str(values[name])


def _yes_or_no(values: Mapping[str, Any], _language: str) -> str:
    return "Yes" if set(values["objects"]) <= set(values["present"]) else "No"


def _those_there(values: Mapping[str, Any], _language: str) -> str:
    return joined([name for name in values["objects"] if name in values["present"]])


TASKS: Mapping[str, Task] = {
    "caption": Task(
        {}, {"caption": "text"}, lambda _values, language: f"Generate the alt_text in {language} at 0: {GAP}", _given("caption"),
    ),
    "split_caption": Task(  # `begun` are the first words of a caption, and `rest` the others: pali/split cuts one
        {"begun": "text"}, {"rest": "text"},
        lambda values, language: f"Generate the alt_text in {language} at {len(values['begun'].split())}: {values['begun']} {GAP}",
        _given("rest"),
    ),
    "ocr": Task({}, {"words": "text"}, lambda _values, language: f"Generate the ocr_text in {language}: {GAP}", _given("words")),
    "vqa": Task(
        {"question": "text"}, {"answer": "text"}, lambda values, language: f"Answer in {language}: {values['question']} {GAP}",
        _given("answer"),
    ),
    "vqg": Task(
        {"answer": "text"}, {"question": "text"},
        lambda values, language: f"Generate a question in {language} for {values['answer']}: {GAP}", _given("question"),
    ),
    "list_objects": Task(
        {}, {"present": "list[text]"}, lambda _values, language: f"Answer in {language}: List the objects present: {GAP}",
        lambda values, _language: joined(values["present"]),
    ),
    "are_there": Task(
        {"objects": "list[text]"}, {"present": "list[text]"},
        lambda values, language: f"Answer in {language}: Is {joined(values['objects'])} in the image? {GAP}", _yes_or_no,
    ),
    "which_are_there": Task(
        {"objects": "list[text]"}, {"present": "list[text]"},
        lambda values, language: f"Answer in {language}: Which of {joined(values['objects'])} are in the image? {GAP}", _those_there,
    ),
    "detect": Task(
        {"objects": "list[text]"}, {"image": "image", "boxes": "boxes"},
        lambda values, _language: f"detect {' and '.join(values['objects'])} {GAP}",
        lambda values, _language: written(values["boxes"], *values["image"].size),
    ),
}  # fmt: skip

BINS = 1000  # coordinates are whole numbers from 0 to 999, of the picture from edge to edge
SIDES = ("y0", "x0", "y1", "x1")  # in the order in which they are written


def written(boxes: list[Mapping[str, Any]], width: int, height: int) -> str:
    """Boxes in pixels of a picture as a line: `y0 x0 y1 x1 name`, one behind another."""
    return " ".join(
        f"{' '.join(str(_bin(box[side], height if side[0] == 'y' else width)) for side in SIDES)} {box['text']}" for box in boxes
    )


def read(line: str, width: int, height: int) -> list[dict[str, Any]]:
    """The boxes that a line names, in pixels of a picture; words that are no box are left out."""
    found: list[dict[str, Any]] = []
    numbers: list[int] = []
    for word in line.split():
        if word.isdecimal() and int(word) < BINS:
            numbers = [*numbers, int(word)] if len(numbers) < len(SIDES) else [int(word)]
        elif len(numbers) == len(SIDES):
            found.append({**_corners(numbers, width, height), "text": word})
            numbers = []
        elif found and not numbers:  # a name of several words
            found[-1]["text"] += f" {word}"
        else:
            numbers = []
    return found


def _bin(place: float, side: int) -> int:
    return min(max(int(place / side * BINS), 0), BINS - 1)


def _corners(numbers: list[int], width: int, height: int) -> dict[str, float]:
    sides = {name: (height if name[0] == "y" else width) for name in SIDES}
    return {name: number / BINS * sides[name] for name, number in zip(SIDES, numbers, strict=True)}
