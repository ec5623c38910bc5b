"""The suites whose answers are texts: captions, questions, speech. Data in the layouts of their benchmarks, scores by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

import modelgraft_plugins.audio as hearing
import modelgraft_plugins.evaluating as evaluating
import modelgraft_plugins.metrics as metrics
import modelgraft_plugins.torch as backend
from modelgraft.installed.discovery import assemble
from support import sensing
from support.command import commands
from support.sounds import tone

GRAPHS = {
    "caption.yaml": "inputs: {image: image}\nnodes: {eye: {use: toy/caption, in: {image: inputs.image}}}\noutputs: {text: eye}\n",
    "ask.yaml": "inputs: {image: image, question: text}\n"
    "nodes: {eye: {use: toy/answer, in: {image: inputs.image, question: inputs.question}}}\noutputs: {text: eye}\n",
    "hear.yaml": "inputs: {audio: audio}\nnodes: {ear: {use: toy/hear, in: {audio: inputs.audio}}}\noutputs: {text: ear}\n",
}
PEOPLE = {"red": ["A red square.", "a square that is red"], "green": ["A green square", "something green"], "blue": ["A dog."]}


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    """Run a command in a folder with graphs, three pictures and what people say of them; gives code, stdout, stderr."""
    found = commands(monkeypatch, tmp_path, capsys)
    registry = assemble({"sensing": sensing, "evaluating": evaluating, "metrics": metrics, "torch": backend, "audio": hearing})
    monkeypatch.setattr("modelgraft.installed.discovery.discover", lambda only=None: registry)
    for name, text in GRAPHS.items():
        Path(name).write_text("modelgraft: 1\n" + text)
    Path("pictures").mkdir()
    for name in PEOPLE:
        Image.new("RGB", (8, 6), name).save(f"pictures/{name}.png")
    return found


def lines(name, records):
    Path(name).write_text("".join(json.dumps(one) + "\n" for one in records))


def evaluated(run, *words, code=0):
    """The document of an evaluation."""
    found, out, err = run("eval", *words, "--json")
    assert found == code, err
    return json.loads(out)


def values(document, group=""):
    return {one["metric"]: one["value"] for one in document["scores"] if one["group"] == group}


CAPTIONING = ("captioning", "caption.yaml", "--images", "pictures")


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        (
            "a.json",
            {"images": [{"split": "test", "sentences": 5, "filename": "red.png"}, {"sentences": []}]},
            "no sentences with a `raw` text",
        ),
        ("a.json", {"images": [{"split": "test", "sentences": ["a cat"], "filename": "red.png"}]}, "no sentences with a `raw` text each"),
        ("a.json", {"images": [{"id": [1], "file_name": 5}], "annotations": [{"image_id": [1]}]}, "it has no file_name"),
    ],
)
def test_a_record_of_a_document_that_is_none_fails_alone(run, name, content, told):
    """Whatever stands in it."""
    Path(name).write_text(json.dumps(content))
    document = evaluated(run, *CAPTIONING, "--data", name, code=1)
    assert told in document["failed"][0]["error"]


def test_two_records_of_one_id_are_told(run):
    """Their answers could not be told apart."""
    lines("a.jsonl", [{"id": 7, "image": f"{name}.png", "references": said} for name, said in PEOPLE.items()])
    code, _, err = run("eval", *CAPTIONING, "--data", "a.jsonl")
    assert (code, "the data 'a.jsonl' have the id '7' twice: at a.jsonl:1 and a.jsonl:2" in err) == (1, True)


@pytest.mark.parametrize("names", ["{nope}", "{", "{image_id:zz}", "{}"])
def test_names_of_pictures_that_mean_nothing_are_a_usage_error(run, names):
    """One, not an error of each record."""
    code, _, err = run("eval", *VQA, "--data", "a.jsonl", "--names", names)
    assert (code, "--names: found" in err, "it may hold {data_subtype} and {image_id}" in " ".join(err.split())) == (2, True, True)


def test_captions_in_every_layout_get_the_same_scores(run):
    """A record per line, COCO's captions, and Karpathy's splits, of which one is taken."""
    lines("a.jsonl", [{"image": f"{name}.png", "references": said} for name, said in PEOPLE.items()])
    images = [{"id": number, "file_name": f"{name}.png"} for number, name in enumerate(PEOPLE)]
    captions = [{"image_id": number, "caption": one} for number, said in enumerate(PEOPLE.values()) for one in said]
    Path("coco.json").write_text(json.dumps({"images": images, "annotations": captions}))
    split = [
        {"filename": f"{name}.png", "split": "test", "cocoid": number, "sentences": [{"raw": one} for one in said]}
        for number, (name, said) in enumerate(PEOPLE.items())
    ]
    other = [{"filename": "none.png", "split": "train", "sentences": [{"raw": "x"}]}]
    Path("karpathy.json").write_text(json.dumps({"images": [*other, *split], "dataset": "coco"}))
    found = [values(evaluated(run, *CAPTIONING, "--data", name)) for name in ("a.jsonl", "coco.json", "karpathy.json")]
    assert found[0] == found[1] == found[2]
    assert list(found[0]) == ["CIDEr-D", "BLEU-4", "BLEU-1", "ROUGE-L"]
    assert found[0]["BLEU-1"] == pytest.approx(100 * 7 / 9)  # "a red square", "a green square", and "a" of "a blue square"; 9 words said
    code, _, err = run("eval", *CAPTIONING, "--data", "karpathy.json", "--split", "vla")
    assert code == 1
    assert "have no split 'vla'; they have: test, train (--split)" in err


def test_captions_for_a_server_are_written_as_it_takes_them(run):
    Path("coco.json").write_text(
        json.dumps({"images": [{"id": 7, "file_name": "red.png"}], "annotations": [{"image_id": 7, "caption": "A red square."}]})
    )
    document = evaluated(run, *CAPTIONING, "--data", "coco.json", "--out", "found")
    assert json.loads(Path("found/captions_results.json").read_text()) == [{"image_id": 7, "caption": "A red square."}]
    assert any("of 1 it cannot be compared with others" in note for note in document["notes"])


def test_pictures_that_are_not_there_are_told_before_anything_runs(run):
    """All of them: the folder is wrong. One of them: its record fails, is listed, and counts nowhere."""
    lines("a.jsonl", [{"image": "red.png", "references": ["A red square."]}, {"image": "lost.png", "references": ["Nothing."]}])
    code, _, err = run("eval", "captioning", "caption.yaml", "--data", "a.jsonl")
    assert code == 1
    assert "none of the 2 files that 'a.jsonl' names is there, such as 'red.png'; --images DIR says where they are" in err
    document = evaluated(run, *CAPTIONING, "--data", "a.jsonl", code=1)
    assert [one["id"] for one in document["failed"]] == ["a.jsonl:2"]
    assert document["scores"][0]["n"] == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"images": []}', "have no list 'annotations' of records; it has: images"),
        ('{"images": [', "is no JSON document"),
        ("[]", "holds list at its top; wanted: a mapping"),
    ],
)
def test_a_document_that_is_none_is_told(run, text, said):
    Path("coco.json").write_text(text)
    code, _, err = run("eval", *CAPTIONING, "--data", "coco.json")
    assert code == 1
    assert said in err


def test_a_line_that_is_no_record_fails_alone(run):
    lines("a.jsonl", [{"image": "red.png"}, {"image": 3, "references": ["x"]}, {"image": "red.png", "references": [1]}])
    with Path("a.jsonl").open("a") as file:
        file.write('no json\n{"image": "red.png", "references": "A red square."}\n')
    document = evaluated(run, *CAPTIONING, "--data", "a.jsonl", code=1)
    told = [one["error"] for one in document["failed"]]
    assert [one.partition(": ")[0] for one in told] == [f"a.jsonl:{n}" for n in (1, 2, 3, 4)]
    assert "it has no `references`" in told[0]
    assert "'image' is 3; wanted: the name of a file" in told[1]
    assert "'references' is [1]; wanted: a text, or a list of texts" in told[2]
    assert "no JSON" in told[3]
    assert document["scores"][0]["n"] == 1


def test_a_graph_that_does_not_fit_is_told_by_the_checker(run):
    lines("a.jsonl", [{"image": "red.png", "references": ["A red square."]}])
    code, _, err = run("eval", "captioning", "hear.yaml", "--data", "a.jsonl", "--images", "pictures")
    assert code == 1
    assert "unknown-input  the suite gives image (image), and the graph has no input 'image'; it has: audio (audio)" in err
    code, _, err = run("eval", "captioning", "hear.yaml", "--data", "a.jsonl", "--input", "image=audio")
    assert "modality-mismatch  the suite gives image, but inputs.audio takes audio" in err


VQA = ("vqa", "ask.yaml", "--images", "pictures")


def test_vqa_is_scored_by_its_rule_and_by_type_of_answer(run):
    """Red: all ten agree (1). Green: two of ten (0.6). Blue: nobody (0)."""
    people = {"red": ["red"] * 9 + ["dark red"], "green": ["green"] * 2 + ["lime"] * 8, "blue": ["sky"] * 9 + ["navy"]}
    kinds = {"red": "other", "green": "other", "blue": "number"}
    lines(
        "a.jsonl",
        [
            {"image": f"{name}.png", "question": "What colour?", "answers": said, "answer_type": kinds[name]}
            for name, said in people.items()
        ],
    )
    document = evaluated(run, *VQA, "--data", "a.jsonl")
    assert values(document)["VQA accuracy"] == pytest.approx(1.6 / 3)
    assert values(document, "other")["VQA accuracy"] == pytest.approx(0.8)
    assert values(document, "number") == {"VQA accuracy": 0.0}
    names = ["red", "green", "blue"]
    questions = [{"question_id": 10 + n, "image_id": n, "question": "What colour?"} for n, _ in enumerate(names)]
    annotations = [
        {"question_id": 10 + n, "answer_type": kinds[name], "answers": [{"answer": one, "answer_id": 1} for one in people[name]]}
        for n, name in enumerate(names)
    ]
    for n, name in enumerate(names):
        Path(f"pictures/{name}.png").rename(f"pictures/COCO_val_{n:012}.jpg")
    Path("questions.json").write_text(json.dumps({"questions": questions, "data_subtype": "val"}))
    Path("annotations.json").write_text(json.dumps({"annotations": annotations}))
    official = evaluated(run, *VQA, "--data", "questions.json", "--annotations", "annotations.json", "--out", "found")
    assert values(official) == values(document)
    assert json.loads(Path("found/vqa_results.json").read_text())[1] == {"question_id": 11, "answer": "green"}
    code, out, err = run("eval", *VQA, "--data", "questions.json", "--json")
    assert (code, json.loads(out)["scores"]) == (0, [])
    assert "without --annotations nothing is known to be right" in err


def test_questions_with_too_few_answers_are_matched_and_a_prompt_goes_around_them(run):
    lines("a.jsonl", [{"image": "red.png", "question": "what colour?", "answer": "Red."}])
    document = evaluated(run, *VQA, "--data", "a.jsonl", "--prompt", "Q: {question} A:")
    assert values(document) == {"exact match": 1.0}
    assert "1 questions have fewer than 4 answers by people" in document["notes"][0]
    code, _, err = run("eval", *VQA, "--data", "a.jsonl", "--prompt", "Answer!")
    assert code == 2
    assert "--prompt: found 'Answer!'" in err


def test_a_question_that_fails_is_counted_and_in_no_score(run):
    people = ["red"] * 10
    lines("a.jsonl", [{"image": "red.png", "question": one, "answers": people} for one in ("What?", "WHAT?", "what?")])
    document = evaluated(run, *VQA, "--data", "a.jsonl", code=1)
    assert [one["id"] for one in document["failed"]] == ["a.jsonl:2"]
    assert (document["scores"][0]["value"], document["scores"][0]["n"]) == (1.0, 2)


def test_speech_is_scored_over_all_words_in_both_layouts(run):
    """A second is ten words to the toy: one of 3 left out, one of 2 too many."""
    Path("speech/84/12").mkdir(parents=True)
    for name, seconds in (("84-12-0000", 0.2), ("84-12-0001", 0.3)):
        tone(seconds).save(Path(f"speech/84/12/{name}.wav"), "sound", print)
    Path("speech/84/12/84-12.trans.txt").write_text("84-12-0000 LA LA LA\n84-12-0001 LA LA\n")
    document = evaluated(run, "asr", "hear.yaml", "--data", "speech", "--out", "found")
    assert values(document)["WER"] == pytest.approx(2 / 5)
    assert document["scores"][0]["better"] == "lower"
    assert document["counts"] == {"words": 5, "records without an error": 0}
    lines(
        "a.jsonl",
        [{"audio": "84/12/84-12-0000.wav", "text": "la, la - la!"}, {"audio": "84/12/84-12-0001.wav", "references": ["lo", "la la"]}],
    )
    assert values(evaluated(run, "asr", "hear.yaml", "--data", "a.jsonl", "--sounds", "speech"))["WER"] == pytest.approx(2 / 5)
    again = evaluated(run, "asr", "hear.yaml", "--data", "speech", "--out", "found", "--report-only", "--text", "as_is")
    assert values(again)["WER"] == 6 / 5  # capitals differ: normalised anew, without hearing anything again
    Path("empty").mkdir()
    code, _, err = run("eval", "asr", "hear.yaml", "--data", "empty")
    assert code == 1
    assert "holds no *.trans.txt of LibriSpeech" in err
