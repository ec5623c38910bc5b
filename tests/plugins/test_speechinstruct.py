"""SpeechInstruct: what SpeechGPT is trained on, made of sounds and words; what is written here, its own reader takes apart again."""

from __future__ import annotations

import json
import wave

import numpy as np
import pytest
import torch

import modelgraft as mg
from modelgraft.cli import main
from modelgraft.testing import conform, open_node
from modelgraft_plugins.speechgpt import SELF, SPEAK, TRANSCRIBE, Chain, Pair, Prompt
from modelgraft_plugins.speechgpt.replies import Said, parsed

UNITS = torch.tensor([[3, 7, 0], [5, -1, -1]])
SPEECH = ["<sosp><3><7><0><eosp>", "<sosp><5><eosp>"]
WORDS = ["Name a  colour.", "Hello."]
SEVERAL = [f"Sentence {number}." for number in range(80)]


@pytest.mark.parametrize(("subject", "more"), [(Pair, {"units": UNITS[:, :1].abs()}), (Chain, {"asked": UNITS[:1, :2].repeat(2, 1)})])
def test_they_keep_their_declaration(subject, more):
    """Rows of as many units, so that none is filled up; units that there are."""
    answered = {"answered": torch.tensor([[1, 2, 9], [4, 5, 6]])} if subject is Chain else {}
    conform(subject, **more, **answered)


def test_a_pair_is_a_request_and_what_it_asks_for():
    for task, given, answers in (("transcribe", SPEECH, ["Name a colour.", "Hello."]), ("speak", ["Name a colour.", "Hello."], SPEECH)):
        found = open_node(Pair, {"task": task, "transcribe": ["Write."], "speak": ["Speak."]})(WORDS, UNITS)
        request = "Write." if task == "transcribe" else "Speak."
        said = [f"[Human]: {request} This is input: {one} <eoh>. [SpeechGPT]: " for one in given]
        assert found["prompt"] == [SELF + one for one in said]
        assert found["answer"] == [f"{one}<eoa>" for one in answers]
        assert found["plain_text"] == [f"{one}{two}<eoa>" for one, two in zip(said, answers, strict=True)]
        assert found["speech"] == SPEECH
        assert found["task"] == [task] * 2


def test_what_is_drawn_uses_all_there_is_and_follows_from_the_words():
    units = torch.ones(len(SEVERAL), 1, dtype=torch.int64)
    found = open_node(Pair)(SEVERAL, units)
    assert set(found["task"]) == {"transcribe", "speak"}
    assert open_node(Pair)(SEVERAL[::-1], units)["prompt"] == found["prompt"][::-1]
    asked = {prompt.split("[Human]: ")[1].split(" This is input:")[0] for prompt in found["prompt"]}
    assert asked <= {*TRANSCRIBE, *SPEAK}
    assert len(asked) > 15
    forms = open_node(Chain)(SEVERAL, SEVERAL, units, units)["form"]
    assert set(forms) == {"speech-speech", "speech-text", "text-speech", "text-text"}


@pytest.mark.parametrize(
    ("form", "wants", "read"),
    [
        ("speech-speech", "speech", Said("Name a colour.", "Blue.", "Blue.", (5, 6))),
        ("speech-text", "text", Said("Name a colour.", "Blue.", "Blue.", ())),
        ("text-speech", "speech", Said("", "Blue.", "Blue.", (5, 6))),
        ("text-text", "text", Said("", "Blue.", "Blue.", ())),
    ],
)
def test_a_chain_asks_by_the_templates_and_its_answer_is_read_step_by_step(form, wants, read):
    found = open_node(Chain, {"form": form})(WORDS[:1], ["Blue."], UNITS[:1], torch.tensor([[5, 6, -1]]))
    heard = form.startswith("speech")
    given = (None, UNITS[:1]) if heard else (["Name a colour."], None)
    assert found["prompt"] == open_node(Prompt, {"wants": wants})(*given)["prompt"]
    assert parsed(found["answer"][0]) == read
    assert found["plain_text"] == [found["prompt"][0].removeprefix(SELF) + found["answer"][0]]
    assert found["form"] == [form]


@pytest.mark.parametrize(
    ("words", "units", "wanted"),
    [
        (" ", UNITS[:1], "the text has no words"),
        ("say <12>", UNITS[:1], "the text holds <12>, which the model reads as a mark"),
        ("say [ua]", UNITS[:1], r"the text holds \[ua\]"),
        ("say", UNITS[:1] * 0 - 1, "the speech has no units"),
        ("say", UNITS[:1] * 0 + 1000, "unit 1,000 is beyond the 1,000"),
    ],
)
def test_what_would_be_read_as_something_else_is_refused(words, units, wanted):
    with pytest.raises(mg.InputError, match=wanted):
        open_node(Pair)([words], units)


def test_recordings_become_instructions_in_a_file_that_is_read_again(tmp_path):
    """End to end with units of MFCC, which need no model: each answer or prompt holds the units that the graph of units gives."""
    draw = np.random.default_rng(3)
    rows = []
    for number in range(3):
        with wave.open(str(tmp_path / f"{number}.wav"), "wb") as sound:
            sound.setparams((1, 2, 16_000, 0, "NONE", ""))
            sound.writeframes((draw.normal(size=8_000 + 1_600 * number) * 3_000).astype("<i2").tobytes())
        rows.append({"audio": str(tmp_path / f"{number}.wav"), "text": f"Sentence {number}.", "id": number})
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    from safetensors.numpy import save_file

    plain = tmp_path / "plain.safetensors"
    save_file({"cluster_centers_": draw.normal(size=(7, 39)).astype(np.float32) * 20}, plain)
    assert main(["units", "convert", "hubert/mfcc", str(plain), "--out", str(tmp_path / "centres.safetensors")]) == 0
    chosen = ["--set", "hears=hubert/units_mfcc", "--set", f"centres={tmp_path / 'centres.safetensors'}", "--set", "units=7"]
    words = ["map", "speechgpt/pairs", str(tmp_path / "in.jsonl"), "--out", str(tmp_path / "out.jsonl")]
    assert main([*words, *chosen]) == 0
    found = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    with mg.open("hubert/units_mfcc", params={"centres": str(tmp_path / "centres.safetensors")}) as ear:
        for row, given in zip(found, rows, strict=True):
            units = ear.run(audio=given["audio"])["units"][0].tolist()
            assert (row["id"], row["text"]) == (given["id"], given["text"])
            assert row["speech"] == f"<sosp>{''.join(f'<{unit}>' for unit in units)}<eosp>"
            assert row["speech"] in (row["prompt"] if row["task"] == "transcribe" else row["answer"])
            assert parsed(row["answer"]).ua == (tuple(units) if row["task"] == "speak" else ())


@pytest.mark.whole("tests/plugins/training/test_made_and_learnt.py::test_speechinstruct")
@pytest.mark.slow  # a real voice and a real ear
@pytest.mark.network
@pytest.mark.timeout(900)
def test_typed_questions_become_spoken_ones_that_whisper_understands(tmp_path):
    """End to end with Kokoro, Whisper and units of MFCC that are fitted on what Kokoro says."""
    (tmp_path / "in.jsonl").write_text(json.dumps({"instruction": "What is a whale?", "response": "A large mammal."}), encoding="utf-8")
    graph = "nodes:\n  sounds: {use: speech/phonemes, in: {text: inputs.text}}\n  voice: {use: speech/kokoro, in: {phonemes: sounds}}\n"
    (tmp_path / "say.yaml").write_text(
        f"# Say it.\nmodelgraft: 1\ninputs: {{text: text}}\n{graph}outputs: {{audio: voice}}\n", encoding="utf-8"
    )
    (tmp_path / "sounds").mkdir()
    said = ["run", str(tmp_path / "say.yaml"), "--input", "text=A whale swims in the large sea.", "--output"]
    assert main([*said, f"audio={tmp_path / 'sounds' / 'a.wav'}"]) == 0
    centres = str(tmp_path / "centres.safetensors")
    assert main(["units", "fit", "hubert/mfcc", str(tmp_path / "sounds"), "--clusters", "20", "--out", centres]) == 0
    chosen = ["hears=hubert/units_mfcc", f"centres={centres}", "units=20", "form=speech-speech"]
    words = ["map", "speechgpt/instruct", str(tmp_path / "in.jsonl"), "--out", str(tmp_path / "out.jsonl")]
    assert main([*words, *[word for one in chosen for word in ("--set", one)]]) == 0
    row = json.loads((tmp_path / "out.jsonl").read_text(encoding="utf-8"))
    assert row["errors"] == [0.0]
    read = parsed(row["answer"])
    assert (read.tq, read.ta) == ("What is a whale?", "A large mammal.")
    assert len(read.ua) > 20
    assert len(parsed(row["prompt"]).ua) == 0
    assert "<sosp>" in row["prompt"]
