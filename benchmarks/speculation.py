"""What guessing ahead gives (`lookup` of a language model): the same answers with fewer calls of the model.

    python -m benchmarks.speculation [--minutes 4] [--quick] [--json]

The real SmolLM2-135M writes what `read` and `talk` ask it for, with the prompts of those graphs, a summary of a letter, and the letter
with one date changed; one token at a time, and with up to eight tokens guessed from what was said. Both must give the same text. The
prompt is kept from one round to the next, so that what is compared is the writing.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

if __package__ in {None, ""}:
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks import measuring, tables
from benchmarks.measuring import Sample
from benchmarks.tables import Asked, Row, Table

GRAPH = """modelgraft: 1
name: writing
params: {{lookup: {{default: 0}}}}
inputs: {{page: text, question: text}}
nodes:
  answer:
    use: llm/causal
    from: "{language}"
    with: {{chat: true, system: "{system}", prompt: "{prompt}", max_new_tokens: {new}, lookup: "${{lookup}}"}}
    in: {{page: inputs.page, question: inputs.question}}
outputs: {{text: answer.text}}
"""
LETTER = """Dear Ms Larkin, thank you for your letter of 3 March. The repair of the north wall will begin on Monday 14 April and take \
about three weeks. During this time the garden gate on Mill Lane stays closed, and visitors are asked to use the entrance on Station Road. \
The total cost is 4,380 pounds, of which the council pays two thirds. If you have questions, please call Mr Osei on 0117 496 0352 \
between nine and noon. Yours sincerely, Helen Marsh, Parish Office."""
READER = "You answer questions about a text that was read from a picture. Answer from the text only, in one short sentence."
CASES = {  # system message, prompt, question, longest answer
    "read": (READER, "Text:\\n{page}\\n\\nQuestion: {question}", "Which entrance should visitors use, and for how long?", 48),
    "talk": ("You are a helpful assistant.", "{page}{question}", "How do I make a good cup of tea?", 64),
    "a summary": ("You summarise letters.", "{page}\\n\\n{question}", "Summarise this letter in three sentences.", 96),
    "a copy with a change": (
        "You correct letters.",
        "{page}\\n\\n{question}",
        "Write the letter again with 21 April in place of 14 April.",
        128,
    ),
}
WAYS = (("torch", "float32"), ("onnx", "float32"), ("onnx", "w8"), ("onnx", "w4"))
LOOKUP = 8
ROUNDS = 12


def rows(asked: Asked) -> list[Row]:
    """Each case on each backend."""
    ways = WAYS[:1] if asked.is_quick else WAYS
    share = asked.share(1 / (len(ways) * len(CASES)))
    return [_case(asked, name, backend, precision, share) for backend, precision in ways for name in CASES]


def _case(asked: Asked, name: str, backend: str, precision: str, seconds: float) -> Row:
    import modelgraft as mg

    system, prompt, question, new = CASES[name]
    path, page = asked.folder / "writing.yaml", "" if name == "talk" else LETTER
    text = GRAPH.format(language=_language(), system=system, prompt=prompt, new=new)
    path.write_text(text, encoding="utf-8")
    row: Row = {"case": name, "backend": backend, "precision": precision}
    given = {"backend": backend, **({"precision": precision} if backend == "onnx" else {})}
    told: dict[str, Any] = {}
    with (
        mg.open(mg.load(path), cache_bytes=0, **given) as plain,
        mg.open(mg.load(path, params={"lookup": LOOKUP}), cache_bytes=0, **given) as ahead,
    ):

        def once(pipeline: Any) -> Callable[[], Sample]:
            return lambda: measuring.timed(lambda: pipeline.run(page=page, question=question))

        expected = plain.run(page=page, question=question)["text"]
        for event in ahead.stream(page=page, question=question):
            if event.kind == "guesses":
                told = {"passes": event["passes"], "guessed": event["guessed"], "right": event["right"]}
            if event.kind == "result" and event["result"]["text"] != expected:
                return {**row, "why": "the texts differ, where rounding decides between two tokens"}
        found = measuring.interleave(
            {"plain": once(plain), "ahead": once(ahead)}, 2 if asked.is_quick else ROUNDS, seconds=seconds, least=2
        )
    walls = {way: measuring.spread_of(samples, "wall", times=1000) for way, samples in found.items()}
    return {**row, **told, **walls, "gain": measuring.compared(found["plain"], found["ahead"], "wall")}


def _language() -> str:
    """The language model that the shipped graphs name."""
    import modelgraft as mg

    return str(mg.load("read").params["language"].value)


TABLE = Table(
    name="speculation",
    title="Tokens that are guessed ahead",
    says=f"Milliseconds of an answer of SmolLM2-135M behind a prompt that is kept, as it is and with `lookup: {LOOKUP}`, which gives the "
    "same text; the gain is within rounds. `calls` of the model, tokens that were guessed and read, and those that were right.",
    columns={
        "case": "answer", "backend": "backend", "precision": "precision", "passes": "calls", "guessed": "guessed", "right": "right",
        "plain": "ms", "ahead": "ms with lookup", "gain": "gain",
    },
    rows=rows,
    minutes=4.0,
)  # fmt: skip

if __name__ == "__main__":
    tables.alone(TABLE)
