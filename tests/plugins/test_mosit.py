"""MosIT of NExT-GPT: dialogues whose answers ask for media, as a language model writes them and as they are trained on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import modelgraft as mg
from modelgraft.cli import main
from modelgraft.testing import conform, open_node
from modelgraft_plugins.nextgpt import Dialogue, Requests
from support.llm_server import served

FOX = """Human: What does a red fox look like?
GPT: It has red fur. <Image>a red  fox
in the snow</Image> And this is its den: <image>the den of a fox</image>
Human: And its voice?
GPT: <Audio>a fox barking</Audio>"""
BOTH = [
    {"role": "user", "parts": [{"text": "Show me."}]},
    {"role": "assistant", "parts": [{"text": "Here."}, {"medium": "image", "caption": "a fox"}]},
]


def test_requests_keep_their_declaration():
    conform(Requests)


def test_dialogues_keep_their_declaration():
    nothing = {f"{name}{end}": None for name in ("image", "audio", "video") for end in ("", "_scores")}
    conform(Dialogue, dialogue=[BOTH, []], **nothing)


def test_turns_and_what_they_ask_for_are_read():
    found = open_node(Requests)([FOX, FOX.replace("GPT:", "**Assistant:**") + "\nHuman: And"])
    assert found["trouble"] == ["", ""]
    assert found["fits"].tolist() == [True, True]
    assert found["image_text"] == [["a red fox in the snow", "the den of a fox"]] * 2
    assert (found["audio_text"], found["video_text"]) == ([["a fox barking"]] * 2, [[], []])
    roles = [said["role"] for said in found["dialogue"][0]]
    assert roles == ["user", "assistant"] * 2
    assert found["dialogue"][0][1]["parts"][2] == {"text": "And this is its den:"}


@pytest.mark.parametrize(
    ("written", "config", "wanted"),
    [
        ("", {}, "there is no turn that is answered"),
        ("Human: Hello?", {}, "there is no turn that is answered"),
        ("Hello!\n" + FOX, {}, "does not begin with a turn of the human: 'Hello!'"),
        ("GPT: Hello!", {}, "two turns of the model follow each other: 'Hello!'"),
        ("Human: Hello!\nHuman: Hello?\nGPT: <Image>a</Image>", {}, "two turns of the human follow each other: 'Hello?'"),
        ("Human: Hello!\nGPT: Hello!", {}, "nothing but words is asked for"),
        ("Human: <Image>a cat</Image>\nGPT: <Image>a</Image>", {}, "the human shows something"),
        ("Human: Hello!\nGPT: <Image>a cat", {}, "the mark <Image> stands alone"),
        ("Human: Hello!\nGPT: <Image> </Image>", {}, "something is asked for without a word"),
        ("Human:\nGPT: <Image>a</Image>", {}, "a turn of the human is empty"),
        (FOX, {"media": ["image"]}, "it asks for audio, and image alone is wanted"),
        (FOX, {"most_words": 5}, "words, wanted at most 5"),
    ],
)
def test_what_cannot_be_trained_on_says_why(written, config, wanted):
    found = open_node(Requests, config)([written])
    assert wanted in found["trouble"][0]
    assert (found["fits"].tolist(), found["else"].tolist(), found["image_text"]) == ([False], [True], [[]])


def test_files_that_were_found_stand_where_they_were_asked_for():
    """Those that are near enough; a mark elsewhere. In the layout of the published files marks and captions are told."""
    talk = open_node(Requests)([FOX])["dialogue"]
    scores = [[torch.tensor([0.9]), torch.tensor([0.1])]]
    found = open_node(Dialogue, {"least_score": 0.3})(talk, [["fox.png", "den.png"]], None, None, scores, None, None)
    (messages,), (published,) = found["conversation"], found["conversations"]
    assert messages[1]["content"] == [
        {"type": "text", "text": "It has red fur."},
        {"type": "image", "image": "fox.png"},
        {"type": "text", "text": "And this is its den:"},
        {"type": "text", "text": "<image>"},
    ]
    assert messages[3]["content"] == [{"type": "text", "text": "<audio>"}]
    assert published[0] == {"from": "human", "value": "What does a red fox look like?", "input_modality": "text"}
    assert published[1] == {
        "from": "gpt", "value": "It has red fur. <image> And this is its den: <image>",
        "caption": ["a red fox in the snow", "the den of a fox"], "output_modality": ["image", "image"],
    }  # fmt: skip
    assert published[3] == {"from": "gpt", "value": "<audio>", "caption": "a fox barking", "output_modality": "audio"}
    assert found["image_files"] == [["fox.png", None]]
    assert found["audio_captions"] == [["a fox barking"]]


def test_the_last_answer_of_a_dialogue_is_to_be_learnt():
    """Behind all that was said before; where something is asked for stand the signals that were added to Vicuna."""
    found = open_node(Dialogue)(open_node(Requests)([FOX])["dialogue"], *[None] * 6)
    image, audio = ("".join(f"[{name}{number}]" for number in range(count)) for name, count in (("IMG", 4), ("AUD", 8)))
    (prompt,) = found["prompt"]
    assert [message["role"] for message in prompt] == ["user", "assistant", "user"]
    assert prompt[1]["content"] == [{"type": "text", "text": f"It has red fur. {image} And this is its den: {image}"}]
    assert found["answer"] == [audio]
    assert [found[f"answer_{name}_captions"] for name in ("image", "audio", "video")] == [[[]], [["a fox barking"]], [[]]]
    with pytest.raises(ValueError, match="signals does not say what asks for audio and video"):
        Dialogue(signals={"image": "[RET]"})


def test_topics_become_dialogues_in_a_file_that_is_read_again(tmp_path):
    """End to end, with a server of this machine in place of the language model: one node of the graph is another."""
    node = "nodes.llm: {use: llm/remote, from: null, with: {url: '${url}', model: '${language}'}}"
    (tmp_path / "remote.yaml").write_text(
        f"# Ask a server.\nmodelgraft: 1\nextends: nextgpt/mosit\nparams.url: {{type: text}}\n{node}\n", encoding="utf-8"
    )
    (tmp_path / "in.jsonl").write_text('{"id": 1, "topic": "foxes"}\n{"id": 2, "topic": "cats"}\n', encoding="utf-8")

    def say(body, _):
        return FOX if body["messages"][-1]["content"] == "foxes" else "I do not know any."

    with served(say) as told:
        words = ["map", str(tmp_path / "remote.yaml"), str(tmp_path / "in.jsonl"), "--out", str(tmp_path / "out.jsonl")]
        assert main([*words, "--set", f"url={told.url}", "--set", "language=tiny"]) == 0
    first, second = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert (first["id"], first["topic"], first["trouble"]) == (1, "foxes", "")
    assert first["audio_captions"] == first["answer_audio_captions"] == ["a fox barking"]
    assert second["conversation"] is None
    assert "does not begin with a turn of the human" in second["trouble"]
    graph = "inputs: {conversation: conversation}\nnodes:\n  words: {use: chat/words, in: {conversation: inputs.conversation}}\n"
    (tmp_path / "read.yaml").write_text(f"# Read it.\nmodelgraft: 1\n{graph}outputs: {{words: words}}\n", encoding="utf-8")
    with mg.open(tmp_path / "read.yaml") as pipeline:
        assert [message["role"] for message in pipeline.run(conversation=first["conversation"])["words"]] == ["user", "assistant"] * 2
    assert [message["role"] for message in told.bodies[0]["messages"]] == ["system", *["user", "assistant"] * 2, "user"]


@pytest.mark.whole("tests/plugins/training/test_made_and_learnt.py::test_mosit")
@pytest.mark.slow  # a real language model, eye and sentence encoder
@pytest.mark.network
@pytest.mark.timeout(900)
def test_real_parts_write_a_dialogue_and_find_its_picture(tmp_path):
    """SmolLM2 writes about coffee, and the photograph of a cup is found among others for its caption."""
    skimage = pytest.importorskip("skimage", reason="the photographs ship with scikit-image")
    (tmp_path / "photos").mkdir()
    for name in ("coffee.png", "chelsea.png", "astronaut.png"):
        (tmp_path / "photos" / name).write_bytes((Path(skimage.__file__).parent / "data" / name).read_bytes())
    album = str(tmp_path / "album.safetensors")
    assert main(["index", "companion/see", str(tmp_path / "photos"), "--out", album]) == 0
    with mg.open("nextgpt/mosit_album", params={"index": album}) as pipeline:
        found = pipeline.run(topic="coffee in the morning")
    assert found["trouble"] == ""
    assert Path(found["image_files"][0]).name == "coffee.png"
