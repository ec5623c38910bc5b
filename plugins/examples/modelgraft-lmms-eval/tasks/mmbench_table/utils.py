"""A table of MMBench (TSV) as a task of lmms-eval: every row by itself, without CircularEval and without a judge.

The wording of a question is that of MMBench's own toolkit; answers are read by the rules that lmms-eval has for MMBench.
"""

from __future__ import annotations

import base64
import io
from typing import Any

from lmms_eval.tasks.mmbench.mmbench_evals import MMBench_Evaluator
from PIL import Image

Row = dict[str, Any]  # a row of the table, as the datasets library reads it
RULES = MMBench_Evaluator()
REFERENCE = 64  # letters: a picture that is written with no more of them is the index of the row that has it


def process_docs(table: Any) -> Any:  # Any: of the datasets library
    """The rows with their pictures, where some name another row's."""
    pictures = {str(index): image for index, image in zip(table["index"], table["image"], strict=True)}
    return table.map(lambda row: {"image": pictures[str(row["image"])] if len(str(row["image"])) <= REFERENCE else row["image"]})


def options(row: Row) -> dict[str, str]:
    """The options of a question by letter; those that are not there are left out."""
    return {letter: str(row[letter]) for letter in "ABCD" if row.get(letter) not in (None, "")}


def doc_to_choice(row: Row) -> list[str]:
    """The letters that may be answered."""
    return list(options(row))


def doc_to_target(row: Row) -> int:
    """The place of the right letter among them."""
    return doc_to_choice(row).index(row["answer"])


def doc_to_visual(row: Row) -> list[Image.Image]:
    """The picture."""
    return [Image.open(io.BytesIO(base64.b64decode(row["image"]))).convert("RGB")]


def doc_to_text(row: Row, lmms_eval_specific_kwargs: Any = None) -> str:  # noqa: ARG001 as lmms-eval calls it
    """The question with its options."""
    hint = [f"Hint: {row['hint']}"] if row.get("hint") else []
    named = [f"{letter}. {option}" for letter, option in options(row).items()]
    asked = "Please select the correct answer from the options above. "
    return "".join(f"{line}\n" for line in (*hint, f"Question: {row['question']}", "Options:", *named, asked))


def doc_to_messages(row: Row, lmms_eval_specific_kwargs: Any = None) -> list[dict[str, Any]]:  # noqa: ARG001 as above
    """The same as a message."""
    parts = [{"type": "image", "url": doc_to_visual(row)[0]}, {"type": "text", "text": doc_to_text(row)}]
    return [{"role": "user", "content": parts}]


def process_results(row: Row, results: list[str]) -> dict[str, float]:
    """Whether the rules find the right letter in the answer."""
    return {"accuracy": float(RULES.can_infer(results[0], options(row)) == row["answer"])}
