"""Instructions about pictures, written by a language model that sees nothing: what it is told, and what is made of its answer."""

from __future__ import annotations

import json

import pytest

import modelgraft as mg
from modelgraft.cli import main
from modelgraft.testing import conform, open_node
from modelgraft_plugins.instructing import Ask, Dialogue, Scene, shipped
from support.llm_server import served

BOX = {"text": "dog", "x0": 50, "y0": 20, "x1": 150, "y1": 100}
TALK = "Question: What runs?\nAnswer: A dog.\nQuestion: Where?\nAnswer: On the beach,\nby the sea."


@pytest.mark.parametrize("subject", [Scene, Ask, Dialogue])
def test_they_keep_their_declaration(subject):
    conform(subject)


def test_captions_and_boxes_become_lines_with_places_from_0_to_1():
    told = open_node(Scene)([[" A dog\n runs. ", ""], ["A cat."]], [[BOX], []], [200, None], [100, None])
    assert told == {"scene": ["A dog runs.\ndog: [0.250, 0.200, 0.750, 1.000]", "A cat."]}
    shares = [[{**BOX, "x0": 0.25, "y0": 0.2, "x1": 0.75, "y1": 1.0}]]
    assert open_node(Scene, {"digits": 1})([[]], shares, None, None) == {"scene": ["dog: [0.2, 0.2, 0.8, 1.0]"]}


@pytest.mark.parametrize(
    ("boxes", "size", "wanted"),
    [
        ([], (None, None), "nothing is known of this picture"),
        ([BOX], (None, None), r"'dog' is not on the picture: \[50.0, 20.0, 150.0, 100.0\].*need width and height"),
        ([BOX], ([100], [100]), "'dog' is not on the picture"),
        ([BOX], ([200], None), "only its width is given"),
        ([{**BOX, "text": ""}], ([200], [100]), "has no `text`"),
        ([{**BOX, "x0": 160}], ([200], [100]), "'dog' is not on the picture"),
        ([BOX], (["wide"], [100]), "width is 'wide', wanted a number of pixels"),
    ],
)
def test_what_says_nothing_or_stands_beside_the_picture_is_refused(boxes, size, wanted):
    with pytest.raises(mg.InputError, match=wanted):
        open_node(Scene)([[]], [boxes], *size)


@pytest.mark.parametrize("kind", ["conversation", "detail", "reasoning"])
def test_the_examples_that_ship_are_read_as_answers_are(kind):
    """What a language model is shown is what is read of it, and its scenes are as instruct/scene writes them."""
    told = open_node(Ask, {"kind": kind})(["A cat."])
    roles = [message["role"] for message in told["talk"][0]]
    assert roles == ["system", "user", "assistant", "user", "assistant", "user"]
    assert told["talk"][0][-1]["content"] == [{"type": "text", "text": "A cat."}]
    read = open_node(Dialogue, {"kind": kind})
    for _, written in shipped()[kind]["examples"]:
        found = read([written], told["request"], None)
        assert found["trouble"] == [""]
        assert found["fits"].tolist() == [True]


def test_a_request_is_drawn_by_the_seed_and_the_scene():
    requests = shipped()["detail"]["requests"]
    told = open_node(Ask, {"kind": "detail"})([f"A cat, {number}." for number in range(60)])["request"]
    assert set(told) == set(requests)
    assert open_node(Ask, {"kind": "conversation"})(["A cat."])["request"] == [""]


@pytest.mark.parametrize(
    "written",
    [
        TALK,
        "1. Question: What runs?\n   Answer: A dog.\n\n2. Q: Where?\nA: On the beach,\nby the sea.\n",
        "**Question:** What runs?\n**Answer:** A dog.\n**Question 2:** Where?\n**Answer 2:** On the beach,\nby the sea.",
        "Question:\nWhat runs?\n===\nAnswer:\nA dog.\n===\nQuestion:\nWhere?\n===\nAnswer:\nOn the beach,\nby the sea.",
        TALK + "\nQuestion: What runs?\nAnswer: A cat.\nQuestion: And",
        '{"question": "What runs?", "answer": "A dog."}\n{"question": "Where?", "answer": "On the beach,\\nby the sea."}\n{"question": "Wh',
    ],
)
def test_questions_and_answers_are_read_in_the_forms_that_models_write(written):
    found = open_node(Dialogue)([written], None, ["a.jpg"])
    (talk,) = found["conversation"]
    said = [[part["text"] for part in message["content"] if part["type"] == "text"] for message in talk]
    assert said == [["What runs?"], ["A dog."], ["Where?"], ["On the beach,\nby the sea."]]
    assert [message["role"] for message in talk] == ["user", "assistant"] * 2
    assert [part for message in talk for part in message["content"] if part["type"] == "image"] == [{"type": "image", "image": "a.jpg"}]
    (ours,) = found["conversations"]
    assert [turn["from"] for turn in ours] == ["human", "gpt"] * 2
    assert ours[0]["value"] in ("<image>\nWhat runs?", "What runs?\n<image>")
    assert (found["prompt"], found["answer"], found["trouble"]) == (["What runs?"], ["A dog."], [""])


def test_the_picture_stands_before_the_question_or_behind_it():
    found = open_node(Dialogue)([f"Question: {number}?\nAnswer: Yes." for number in range(40)], None, ["a.jpg"] * 40)
    places = {talk[0]["content"][0]["type"] for talk in found["conversation"]}
    assert places == {"image", "text"}


@pytest.mark.parametrize(
    ("written", "config", "wanted"),
    [
        ("", {}, "there is no question with an answer"),
        ("I cannot see.", {}, "begins with neither a question nor an answer: 'I cannot see.'"),
        ("Question: What?", {}, "there is no question with an answer"),
        ("Answer: Yes.\nAnswer: No.", {}, "an answer stands without its question: 'Yes.'"),
        ("Question: What?\nQuestion: Who?\nAnswer: Me.", {}, "a question has no answer: 'Who"),
        ("Question:\nAnswer: Me.", {}, "a question or an answer is empty"),
        (TALK, {"least": 3}, "there are 2 questions with answers, wanted at least 3"),
        (TALK, {"kind": "reasoning"}, "there are 2 questions, wanted one"),
        ("Question: What does the caption say?\nAnswer: A dog.", {}, "speaks of what it was told: 'caption'"),
        ("Question: Where?\nAnswer: At [0.1, 0.25, 0.5, 0.75].", {}, r"copies a box: [0.1, 0.25, 0.5, 0.75]"),
        ("", {"kind": "detail"}, "there is no description"),
    ],
)
def test_what_cannot_be_trained_on_says_why(written, config, wanted):
    found = open_node(Dialogue, config)([written], ["Describe."], None)
    assert wanted in found["trouble"][0]
    assert (found["fits"].tolist(), found["else"].tolist()) == ([False], [True])


def test_captions_become_dialogues_in_a_file_that_is_read_again(tmp_path, capsys):
    """End to end with a server on this machine: the file holds conversations as a port `conversation` takes them, and what failed."""
    from PIL import Image

    Image.new("RGB", (20, 10)).save(tmp_path / "a.png")
    rows = [
        {"id": 7, "image": str(tmp_path / "a.png"), "captions": ["A dog runs."], "boxes": [BOX], "width": 200, "height": 100},
        {"id": 8, "image": str(tmp_path / "a.png"), "captions": ["A cat sleeps."]},
        {"id": 9, "captions": []},
    ]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")

    def say(body, _):
        return TALK if "dog" in body["messages"][-1]["content"] else "I see the caption."

    with served(say) as told:
        words = ["map", "llava/instruct_remote", str(tmp_path / "in.jsonl"), "--out", str(tmp_path / "out.jsonl")]
        assert main([*words, "--set", f"url={told.url}", "--set", "language=tiny"]) == 1
    assert "nothing is known of this picture" in capsys.readouterr().err
    first, second, third = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert (first["id"], first["trouble"], first["written"]) == (7, "", TALK)
    assert (second["conversation"], second["absent"]) == (None, ["conversation"])
    assert "begins with neither" in second["trouble"]
    assert third["error"].startswith("in.jsonl:3: ")
    graph = (
        "modelgraft: 1\ninputs: {conversation: conversation}\nnodes:\n  words: {use: chat/words, in: {conversation: inputs.conversation}}\n"
    )
    (tmp_path / "read.yaml").write_text(f"# Read it.\n{graph}outputs: {{words: words}}\n", encoding="utf-8")
    with mg.open(tmp_path / "read.yaml") as pipeline:
        assert len(pipeline.run(conversation=first["conversation"])["words"]) == 4
    assert told.bodies[0]["messages"][-1] == {"role": "user", "content": "A dog runs.\ndog: [0.250, 0.200, 0.750, 1.000]"}


@pytest.mark.whole("tests/plugins/test_instructing.py::test_captions_become_dialogues_in_a_file_that_is_read_again")
@pytest.mark.slow  # a real language model
@pytest.mark.network
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", ["instruct", "instruct_detail"])
def test_a_small_real_model_writes_what_can_be_read(kind):
    """SmolLM2 follows the examples: what it writes fits. Whether it is true, nobody says."""
    captions = ["A rocket stands on a launch pad at dusk."]
    with mg.open(f"llava/{kind}") as pipeline:
        found = pipeline.run(captions=captions, image="rocket.png")
    assert found["trouble"] == ""
    assert found["conversation"][0]["role"] == "user"
    assert {"type": "image", "image": "rocket.png"} in found["conversation"][0]["content"]
