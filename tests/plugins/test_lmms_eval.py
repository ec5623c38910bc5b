"""Graphs as models of lmms-eval: what fits, how a task's settings are obeyed, and (mark `peer`) the harness itself on the same records."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import modelgraft as mg
from support import checkpoints
from support.pictures import gallery

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")

EXAMPLE = Path(__file__).parents[2] / "plugins" / "examples" / "modelgraft-lmms-eval"
ENVIRONMENT = os.environ.get("MODELGRAFT_LMMS_EVAL")  # a folder that environment.sh has made
WRITES = {"max_new_tokens": 3, "temperature": 0, "do_sample": False}


@pytest.fixture(scope="module")
def package() -> Iterator[ModuleType]:
    """The parts of the example that do without lmms-eval."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXAMPLE)
        import modelgraft_lmms_eval.answering as answering

        yield answering


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> checkpoints.Checkpoint:
    return checkpoints.llava(tmp_path_factory.mktemp("llava"))


def asked(package: ModuleType, *parts: tuple[str, Any], place: str = "pets 1", role: str = "user") -> Any:
    return package.Question(place, lambda: [package.Message(role, parts)])


def shown(package: ModuleType, text: str, name: str = "landscape") -> Any:
    return asked(package, ("image", gallery()[name]), ("text", text))


def answering(package: ModuleType, llava: checkpoints.Checkpoint, **more: Any) -> Any:
    return package.Answering("llava", params={"checkpoint": str(llava.folder), **more.pop("params", {})}, **more)


def test_questions_are_answered_as_a_run_answers_them(package, llava):
    """A batch of a task, with its settings, and how many tokens were written."""
    names, texts = ("landscape", "portrait", "grey"), ("a photo of", "the cat", "one")
    found = answering(package, llava, batch_size=2).answer(
        [shown(package, text, name) for text, name in zip(texts, names, strict=True)], WRITES, task="pets"
    )
    params = {"checkpoint": str(llava.folder), "max_new_tokens": 3}
    with mg.open("llava", params=params) as pipeline:
        alone = [pipeline.run(image=gallery()[name], prompt=text)["text"] for text, name in zip(texts, names, strict=True)]
    assert [answer.text for answer in found] == alone
    assert all(1 <= answer.tokens <= 3 for answer in found)


def test_texts_are_judged_as_the_language_model_judges_them(package, llava):
    """Each question with texts of its own, in their order."""
    texts = [[" cat", " a dog on it"], [" one"]]
    found = answering(package, llava, batch_size=2).judge([shown(package, "a photo of"), shown(package, "the", "grey")], texts, task="pets")
    settings = {"inputs.continuations": "list[text]", "nodes.llm.in.continuations": "inputs.continuations"}
    with mg.open("llava", params={"checkpoint": str(llava.folder), **settings}) as pipeline:
        alone = [
            pipeline.run(image=gallery()[name], prompt=prompt, continuations=some, outputs=["llm.likelihoods"])["llm.likelihoods"][
                0
            ].tolist()
            for name, prompt, some in (("landscape", "a photo of", texts[0]), ("grey", "the", texts[1]))
        ]
    assert [[likely.total for likely in row] for row in found] == [pytest.approx(row, abs=1e-4) for row in alone]
    assert [[(likely.tokens > 0, likely.is_greedy) for likely in row] for row in found] == [[(True, False)] * 2, [(True, False)]]
    assert found[0][1].tokens > found[0][0].tokens


@pytest.mark.parametrize(
    ("asked_for", "wanted"),
    [
        ({"max_new_tokens": 16, "temperature": 0, "do_sample": False, "until": ["\n\n", ""]}, {"temperature": 0.0, "stop": ["\n\n"]}),
        ({"do_sample": True, "temperature": 0.7, "top_p": 0.9, "top_k": None}, {"temperature": 0.7, "top_p": 0.9}),
        ({"temperature": 0.2}, {"temperature": 0.2}),
        ({"do_sample": False, "temperature": 0.9, "top_p": 0.9, "num_beams": 3}, {"temperature": 0.0, "beams": 3}),
        ({"use_cache": True, "image_aspect_ratio": "pad", "until": "</s>"}, {"temperature": 0.0, "stop": ["</s>"]}),
    ],
    ids=str,
)
def test_settings_of_a_task_are_those_of_the_node_that_writes(package, llava, asked_for, wanted):
    """In its own words; what draws counts only where tokens are drawn."""
    made = answering(package, llava)
    found, left = package.settings(asked_for, made.solved, made.fit)
    also = {"max_new_tokens": 16} if "max_new_tokens" in asked_for else {}
    assert found == {f"nodes.llm.with.{name}": value for name, value in {**wanted, **also}.items()}
    assert left == []


def test_settings_that_nothing_obeys_are_told(package, llava):
    """Those that no language model of ours has, and all of a graph whose answer is put together by other nodes."""
    told: list[str] = []
    made = answering(package, llava, tell=told.append)
    made.answer([shown(package, "the")], {**WRITES, "dola_layers": "high"}, task="pets")
    assert told == ["pets: dola_layers: 'high' of the task is not obeyed, because the node 'llm' has no such setting"]
    read = package.Answering("read")
    found, left = package.settings({"max_new_tokens": 5, "num_beams": 2}, read.solved, read.fit)
    assert found == {"max_new_tokens": 5}, "a param of the graph"
    assert left == ["beams: None of the task is not obeyed, because no node behind the output 'text' can be set so"]


@pytest.mark.parametrize(
    ("graph", "options", "told"),
    [
        ("describe", {}, "none of its inputs takes the words of a question (text or conversation); its inputs are: image (image)"),
        ("clip", {}, "it needs its input 'labels' (list[text]), and a question has nothing for it: give it a default"),
        ("llava", {"prompt": "image"}, "prompt=image names no input that takes text; its inputs are: image (image), prompt (text)"),
        ("llava", {"output": "words"}, "output=words names no output that is a text; those are: text"),
        ("vit", {}, "none of its inputs takes the words of a question"),
    ],
)
def test_a_graph_that_does_not_fit_is_told_before_anything_is_loaded(package, graph, options, told):
    """With its inputs."""
    with pytest.raises(mg.InputError) as caught:
        package.Answering(graph, **options)
    assert f"the graph {graph} does not fit: " in str(caught.value)
    assert told in str(caught.value)


def test_a_question_that_does_not_fit_is_told_before_anything_is_loaded(package, llava, monkeypatch):
    """With where it stands: no picture, two of them, a sound, a conversation."""
    made = answering(package, llava)
    monkeypatch.setattr(mg, "open", None)
    picture = ("image", gallery()["grey"])
    for parts, told in [
        ([("text", "a")], "pets 1: the question holds no image, and the graph needs one for its input 'image'"),
        ([picture, picture], "pets 1: the question holds 2 images, and the input 'image' takes one"),
        ([picture, ("audio", "a.wav")], "pets 1: the question holds 1 audio, and no input of the graph takes audio"),
    ]:
        with pytest.raises(mg.InputError, match=told):
            made.answer([asked(package, *parts)], WRITES, task="pets")
    with pytest.raises(mg.InputError, match=r"pets 1: the question is a conversation \(system\), and the input 'prompt' takes one text"):
        made.answer([asked(package, picture, ("text", "a"), role="system")], WRITES, task="pets")


def test_a_question_that_fails_ends_all_or_counts_as_empty_and_is_told(package, llava, tmp_path):
    """As the user chose; the others keep their answers."""
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    questions = [shown(package, "the"), asked(package, ("image", str(broken)), ("text", "a"), place="pets 2"), shown(package, "one")]
    with pytest.raises(mg.InputError, match=r"pets 2: .*broken\.png.*; errors=empty takes an empty answer for such questions"):
        answering(package, llava).answer(questions, WRITES, task="pets")
    told: list[str] = []
    found = answering(package, llava, errors="empty", tell=told.append).answer(questions, WRITES, task="pets")
    assert [bool(answer.text) for answer in found] == [True, False, True]
    assert "1 of 3 questions failed, and count as empty answers: pets 2: " in told[0]


def test_a_question_that_takes_a_route_without_an_answer_fails(package, tmp_path):
    """Nothing was written, which is no empty answer."""
    checkpoints.llama(tmp_path / "llama")
    (tmp_path / "cats.yaml").write_text(ROUTED)
    made = package.Answering(str(tmp_path / "cats.yaml"))
    with pytest.raises(mg.InputError, match=r"pets 2: it took a route of the graph that leaves text, llm\.ids out; errors=empty"):
        made.answer([asked(package, ("text", "a cat")), asked(package, ("text", "a dog"), place="pets 2")], WRITES, task="pets")
    with pytest.raises(
        mg.InputError, match=r"pets 2: it took a route of the graph that leaves likelihoods, greedy, llm\.continuation_ids out"
    ):
        made.judge([asked(package, ("text", "a cat")), asked(package, ("text", "a dog"), place="pets 2")], [["s"], ["s"]], task="pets")


ROUTED = """
modelgraft: 1
inputs: {prompt: text}
nodes:
  asks: {use: router/match, with: {text: [cat], where: word}, in: {text: inputs.prompt}}
  llm: {use: llm/causal, from: ./llama, in: {prompt: inputs.prompt}, when: asks.matches}
outputs: {text: llm.text, named: asks.matches}
"""


def test_a_conversation_keeps_its_roles_and_media(package):
    """Of a graph whose input takes conversations."""
    graph = mg.Graph("talk")
    graph.output("text", graph.node("llm/causal", source="preset:none", talk=graph.input("talk", "conversation")).text)
    taker = package.Fit("talk", True, {}, "text", "llm")
    messages = [package.Message("system", [("text", "be brief")]), package.Message("user", [("image", "cat.png"), ("text", "what?")])]
    from modelgraft_lmms_eval.fitting import record

    assert record(messages, taker) == {
        "talk": [
            {"role": "system", "content": [{"type": "text", "text": "be brief"}]},
            {"role": "user", "content": [{"type": "image", "image": "cat.png"}, {"type": "text", "text": "what?"}]},
        ]
    }


# -- the harness itself -------------------------------------------------------------------------------------------------

RECORDS = 30
MODES = {"generate": ("mmbench_table", "accuracy,none", []), "rank": ("mmbench_table_rank", "acc,none", ["--force_simple"])}
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "WANDB_MODE": "disabled"}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of a table of MMBench, each question once."""
    path = tmp_path_factory.mktemp("peer") / "mmbench.tsv"
    csv.field_size_limit(2**30)
    with TABLE.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file, delimiter="\t")
        rows = [row for row in reader if int(row["index"]) < 1_000_000][:RECORDS]
    assert len(rows) == RECORDS
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0]], delimiter="\t")
        writer.writeheader()
        writer.writerows(rows)
    return path


TABLE = Path(__file__).parents[1] / "data" / "mmbench-mini.tsv"


@pytest.mark.peer
@pytest.mark.timeout(1200)  # two harnesses one after the other, each of which imports all that it has
@pytest.mark.slow
@pytest.mark.network
@pytest.mark.skipif(ENVIRONMENT is None, reason=f"MODELGRAFT_LMMS_EVAL names no environment; {EXAMPLE.name}/environment.sh makes one")
@pytest.mark.parametrize("mode", MODES)
def test_lmms_eval_and_our_own_eval_agree_on_the_same_records(table, mode, tmp_path):
    """Real parts, one graph, two harnesses, 30 records: the same answers and likelihoods of each record, and the same accuracy."""
    task, metric, flags = MODES[mode]
    graph = EXAMPLE / "graphs" / "ask.yaml"
    theirs = tmp_path / "theirs"
    said = run(
        [f"{ENVIRONMENT}/bin/python", "-m", "lmms_eval", "--model", "modelgraft", "--model_args", f"graph={graph}", "--tasks", task,
         "--include_path", str(EXAMPLE / "tasks"), "--batch_size", "4", "--output_path", str(theirs), "--log_samples", *flags],
        cwd=table.parent,
    )  # fmt: skip
    written = [*theirs.rglob("*_results.json")]
    assert written, said  # lmms-eval ends with 0 where it failed
    results = json.loads(written[0].read_text())
    ours = tmp_path / "ours"
    run(
        [f"{sys.prefix}/bin/modelgraft", "eval", "mmbench", str(graph), "--data", str(table), "--mode", mode, "--prompt", "default",
         "--batch-size", "4", "--out", str(ours)],
        cwd=tmp_path,
    )  # fmt: skip
    report = json.loads((ours / "report.json").read_text())
    records = sorted(map(json.loads, next(theirs.rglob("*_samples_*.jsonl")).read_text().splitlines()), key=lambda row: row["doc_id"])
    answers = [json.loads(line) for line in (ours / "predictions.jsonl").read_text().splitlines()]
    for record, answer in zip(records, answers, strict=True):
        if mode == "generate":
            assert record["filtered_resps"] == answer["text"].strip()
        else:
            losses = [float(loss) for loss, _ in record["filtered_resps"]]
            assert losses == pytest.approx([-likely for likely in answer["likelihoods"][0] if likely is not None], abs=1e-4)
    print(mode, "theirs", results["results"][task][metric], "ours", report["scores"][0])
    assert results["results"][task][metric] == pytest.approx(report["scores"][0]["value"])
    assert report["scores"][0]["n"] == RECORDS


def run(words: list[str], *, cwd: Path) -> str:
    """Run a command offline; gives the end of what it said."""
    found = subprocess.run(words, cwd=cwd, env={**os.environ, **OFFLINE}, capture_output=True, text=True, check=False, timeout=540)
    said = found.stdout[-3000:] + found.stderr[-6000:]
    assert found.returncode == 0, said
    return said
