"""What guessing ahead gives (`lookup` and `draft` of a language model): the same answers with fewer calls of the model.

    python -m benchmarks.speculation [--minutes 5] [--quick] [--json]

The real SmolLM2-135M writes what `read` and `talk` ask it for, with the prompts of those graphs, a summary of a letter, and the letter
with one date changed; one token at a time, and with up to eight tokens guessed from what was said. Both must give the same text. The
prompt is kept from one round to the next, so that what is compared is the writing.

What a draft gives at best is measured on a model that writes as SmolLM2 does and is larger: SmolLM2 with further layers that add nothing.
SmolLM2 guesses for it, and is always right; no real pair is. The only real pair here is SmolLM2 with itself: its weights in 4 bits guess
for those in float32, which costs a third of the reading and is mostly right.
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

ROUGH = "w4"  # the precision in which SmolLM2 drafts for itself in float32
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
DRAFTED = """modelgraft: 1
name: writing
inputs: {{page: text, question: text}}
nodes:
  small: {{use: llm/draft, from: "{language}"}}
  answer:
    use: llm/causal
    from: "./deep"
    with: {{chat: true, system: "{system}", prompt: "{prompt}", max_new_tokens: {new}, draft: {draft}}}
    in: {{page: inputs.page, question: inputs.question, draft: small}}
outputs: {{text: answer.text}}
"""
ALONE = (
    DRAFTED.replace('  small: {{use: llm/draft, from: "{language}"}}\n', "").replace(", draft: {draft}", "").replace(", draft: small", "")
)
ITSELF = DRAFTED.replace("./deep", "{language}").replace(
    'llm/draft, from: "{language}"', f'llm/draft, from: "{{language}}", runtime: {{{{precision: {ROUGH}}}}}'
)
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
DEEPER = 4  # times as many layers as SmolLM2 has
DRAFT_WAYS = (("torch", "float32"), ("onnx", "w8"))
DRAFT_CASES = ("read", "talk")
ROUNDS = 12


def rows(asked: Asked) -> list[Row]:
    """Each case on each backend."""
    ways, drafted = (WAYS[:1], DRAFT_WAYS[:1]) if asked.is_quick else (WAYS, DRAFT_WAYS)
    share = asked.share(1 / (len(ways) * len(CASES) + (len(drafted) + 1) * len(DRAFT_CASES)))
    found = [_case(asked, name, backend, precision, share) for backend, precision in ways for name in CASES]
    _deepen(asked.folder / "deep")
    found += [_case(asked, name, backend, precision, share, draft=LOOKUP) for backend, precision in drafted for name in DRAFT_CASES]
    return found + [_case(asked, name, "onnx", "float32", share, draft=LOOKUP, itself=True) for name in DRAFT_CASES]


def _deepen(folder: Path) -> None:
    """SmolLM2 with further layers, which are copies of its own that add nothing to what goes through them."""
    import json
    import shutil

    from safetensors.torch import load_file, save_file

    import modelgraft as mg

    path = folder.parent / "one.yaml"
    path.write_text(GRAPH.format(language=_language(), system="", prompt="{page}{question}", new=1), encoding="utf-8")
    source = mg.check(mg.load(path)).nodes["answer"].source
    assert source is not None
    assert source.folder is not None, "the language model of the shipped graphs is on this machine"
    folder.mkdir()
    for file in source.folder.iterdir():
        if file.is_file() and file.suffix in (".json", ".txt", ".jinja", ".model"):
            shutil.copy(file, folder)
    config = json.loads((source.folder / "config.json").read_text(encoding="utf-8"))
    count, tensors = config["num_hidden_layers"], {key: each for file in source.weight_files for key, each in load_file(file).items()}
    for key, tensor in list(tensors.items()):
        before, _, rest = key.partition("layers.")
        number, _, name = rest.partition(".")
        for times in range(1, DEEPER) if number.isdigit() else ():
            adds = name in ("self_attn.o_proj.weight", "mlp.down_proj.weight")
            tensors[f"{before}layers.{int(number) + times * count}.{name}"] = tensor.new_zeros(tensor.shape) if adds else tensor.clone()
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": DEEPER * count}), encoding="utf-8")


def _case(asked: Asked, name: str, backend: str, precision: str, seconds: float, *, draft: int = 0, itself: bool = False) -> Row:
    import modelgraft as mg

    system, prompt, question, new = CASES[name]
    path, page = asked.folder / "writing.yaml", "" if name == "talk" else LETTER
    words = {"language": _language(), "system": system, "prompt": prompt, "new": new}
    path.write_text(ALONE.format(**words) if draft and not itself else GRAPH.format(**words), encoding="utf-8")
    guessing = asked.folder / "guessing.yaml"
    drafted = ITSELF if itself else DRAFTED
    guessing.write_text(drafted.format(**words, draft=draft) if draft else GRAPH.format(**words), encoding="utf-8")
    pair = f"by itself in {ROUGH}" if itself else f"by a draft that is always right, {DEEPER} times as many layers"
    how = f"{name}, {pair}" if draft else name
    row: Row = {"case": how, "backend": backend, "precision": precision}
    is_said = backend == "onnx" and not itself  # what is said for all goes over what a node says of itself
    given = {"backend": backend, **({"precision": precision} if is_said else {})}
    told: dict[str, Any] = {}
    with (
        mg.open(mg.load(path), cache_bytes=0, **given) as plain,
        mg.open(mg.load(guessing, params={} if draft else {"lookup": LOOKUP}), cache_bytes=0, **given) as ahead,
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
    f"same text; the last rows with `draft: {LOOKUP}` on SmolLM2 with further layers that add nothing, for which SmolLM2 guesses: what a "
    f"draft gives at best; at the end with the only real pair there is here, SmolLM2 in {ROUGH} for itself in float32. The gain "
    "is within rounds. `calls` of the model, tokens that were guessed and read, and those that were right.",
    columns={
        "case": "answer", "backend": "backend", "precision": "precision", "passes": "calls", "guessed": "guessed", "right": "right",
        "plain": "ms", "ahead": "ms with guesses", "gain": "gain",
    },
    rows=rows,
    minutes=5.0,
)  # fmt: skip

if __name__ == "__main__":
    tables.alone(TABLE)
