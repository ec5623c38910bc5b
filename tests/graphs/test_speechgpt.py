"""The graphs of SpeechGPT on tiny parts: heard, written, spoken; routes, streams, counts, and parts that do not belong together."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
import transformers as hf

import modelgraft as mg
from modelgraft import Audio, InputError
from modelgraft_plugins.speechgpt.replies import parsed
from modelgraft_plugins.vocoder.voicing import Voicing
from support import speechgpt
from support.sounds import tone
from support.speech import talk
from support.speechgpt import SAID, SPOKEN

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning")
OUTPUTS = ("text", "transcript", "units", "audio", "reply")
REPLIES = ["a; [ta] b; [ua] <sosp><1><2><5><eosp>", "[ta] a word", "c; [ta] d; [ua] <sosp><9><eosp>"]


@pytest.fixture(scope="module")
def params(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """All parts, without the adapter of the graph: its updates would say other words."""
    return speechgpt.parts(tmp_path_factory.mktemp("speechgpt"))


def plain(params: dict[str, Any], name: str = "speechgpt", **more: Any) -> mg.Graph:
    """The graph without its adapter."""
    return mg.load(name, params={**params, **more, "nodes.llm.adapters": None}, allow=["unused"])


def fed(params: dict[str, Any]) -> mg.Graph:
    """The graph with answers in place of who writes them."""
    gone = dict.fromkeys(
        ("nodes.samples", "nodes.pieces", "nodes.ear", "nodes.frames", "nodes.joined", "nodes.heard", "nodes.prompt", "nodes.llm")
    )
    gone |= dict.fromkeys(("inputs.text", "inputs.audio", "outputs.reply"))
    return mg.load("speechgpt", params={**params, **gone, "inputs.said": "text", "nodes.reply.in.text": "inputs.said"}, allow=["unused"])


def test_what_is_said_is_heard_written_and_spoken(params: dict[str, Any]):
    """From a sound to a sound: the units of the answer are those that the language model wrote, and the voice says them."""
    with mg.open(plain(params)) as pipeline:
        found = pipeline.run(audio=tone(1.3))
        typed = pipeline.run(text="Name a colour.")
    assert found["reply"] == SAID
    assert found["units"].tolist() == [list(SPOKEN)]
    assert (found["text"], found["transcript"]) == ("dry", "")
    with mg.open("speechgpt/vocoder", params={"vocoder": params["voice"], "chunk_s": 0}) as pipeline:
        alone = pipeline.run(units=found["units"])["audio"]
    assert found["audio"].sample_rate_hz == 16_000
    assert numpy.abs(found["audio"].samples - alone.samples).max() <= 1e-6
    assert numpy.array_equal(typed["audio"].samples, found["audio"].samples)


def test_units_reach_the_language_model_as_they_were_heard(params: dict[str, Any]):
    """The prompt holds the units of `speechgpt/units`, which the tokenizer reads as one token each."""
    with mg.open("speechgpt/units", params={name: params[name] for name in ("ear", "centres", "layer")}) as pipeline:
        units = pipeline.run(audio=tone(0.8))["units"][0].tolist()
    shown = {**params, "nodes.llm.adapters": None, "outputs.prompt": "prompt"}
    with mg.open(mg.load("speechgpt/freely", params=shown, allow=["unused"])) as pipeline:
        prompt = pipeline.run(text="Write it down.", audio=tone(0.8), outputs=["prompt"])["prompt"]
    span = "".join(f"<{unit}>" for unit in units)
    assert f"Write it down. This is input:<sosp>{span}<eosp> <eoh>." in prompt
    made = speechgpt.tokenizer()
    assert [made.convert_tokens_to_ids(f"<{unit}>") for unit in units] == made(span, add_special_tokens=False).input_ids


@pytest.mark.parametrize("seconds", [2.0, 2.01, 2.03])
def test_a_long_sound_is_heard_in_pieces(params: dict[str, Any], seconds: float):
    """Each by itself, their units behind each other; an end of less than a fortieth of a second gives none. Also in a batch."""
    whole = tone(seconds)
    names = {name: params[name] for name in ("ear", "centres", "layer")}
    with mg.open("speechgpt/units", params={**names, "piece_s": 0.5}) as pipeline, mg.open("speechgpt/units", params=names) as at_once:
        found = pipeline.run(audio=whole)
        both = pipeline.run(audio=[tone(0.3), whole])
        cut = [Audio(whole.samples[:, start : start + 8000], 16_000) for start in range(0, whole.samples.shape[1], 8000)]
        heard = [at_once.run(audio=piece)["frames"][0] for piece in cut if piece.samples.shape[1] >= 400]
        assert torch.equal(at_once.run(audio=tone(0.3))["frames"][0], both["frames"][0][both["frames"][0] >= 0])
    assert torch.equal(found["frames"][0], torch.cat(heard))
    assert torch.equal(both["frames"][1], torch.cat(heard))
    assert len(heard) == (5 if seconds == 2.03 else 4)
    assert torch.equal(found["units"][0].repeat_interleave(found["durations"][0]), found["frames"][0])


def test_a_batch_is_what_its_records_are_alone(params: dict[str, Any]):
    """Spoken and typed instructions beside each other, twice the same."""
    asked = {"audio": [tone(1.3), tone(0.6, hertz=97.0)]}
    with mg.open(plain(params)) as pipeline:
        both, again = (pipeline.run(**asked) for _ in range(2))
        for row, sound in enumerate(asked["audio"]):
            one = pipeline.run(audio=sound)
            assert one["reply"] == both["reply"][row]
            assert numpy.abs(one["audio"].samples - both["audio"][row].samples).max() <= 1e-6
    assert all(numpy.array_equal(one.samples, other.samples) for one, other in zip(both["audio"], again["audio"], strict=True))


def test_an_answer_without_units_runs_no_vocoder(params: dict[str, Any], monkeypatch: pytest.MonkeyPatch):
    """Nor loads it: it is loaded once, when the first answer speaks, and called for those alone that do."""
    calls, run = list[int](), Voicing.run
    monkeypatch.setattr(
        Voicing, "run", lambda self, values, *more, **wanted: calls.append(len(values[0])) or run(self, values, *more, **wanted)
    )
    with mg.open(fed(params)) as pipeline:
        silent = list(pipeline.stream(said=[REPLIES[1], "[ta] more"]))
        assert [event for event in silent if event.kind == "node-loading" and event.node == "voice"] == calls == []
        assert [bool(sound) for sound in silent[-1].result["audio"]] == [False, False]
        spoken = list(pipeline.stream(said=REPLIES))
        assert sum(event.kind == "node-loading" and event.node == "voice" for event in spoken) == 1
        assert calls == [2]
        assert {event.record for event in spoken if event.kind == "piece"} == {0, 2}
        whole = spoken[-1].result
        assert whole["text"] == ["b", "a word", "d"]
        assert [isinstance(sound, Audio) for sound in whole["audio"]] == [True, False, True]
        for row in (0, 2):
            assert numpy.array_equal(pipeline.run(said=REPLIES[row])["audio"].samples, whole["audio"][row].samples)


def test_text_streams_and_sound_comes_in_pieces(params: dict[str, Any]):
    """Tokens as they are written, units among them; then pieces of the sound, which joined are the output."""
    with mg.open(plain(params)) as pipeline:
        events = list(pipeline.stream(text="Name a colour."))
    result = events[-1].result
    assert "".join(event.text for event in events if event.kind == "token") == result["reply"]
    pieces = [event.value.samples for event in events if event.kind == "piece"]
    assert len(pieces) > 1
    assert numpy.array_equal(numpy.concatenate(pieces, 1), result["audio"].samples)


def test_it_speaks_while_it_writes(params: dict[str, Any]):
    """Once the voice is loaded, the first piece comes before the last word; pieces and sound are those of a voice that waits for the end.

    Two runs at once do not hear each other, and records of a batch are told apart.
    """
    short = {**params, "chunk_s": 0.02, "nodes.voice.lazy": False}
    with mg.open(plain(short)) as pipeline, mg.open(plain({**short, "nodes.voice.with.follows": None})) as waits:
        pipeline.load()
        events = list(pipeline.stream(text="Name a colour."))
        kinds = [event.kind for event in events if event.kind in {"token", "piece"}]
        assert kinds.index("piece") < len(kinds) - 1 - kinds[::-1].index("token")
        last = list(waits.stream(text="Name a colour."))
        one, other = ([event.value.samples for event in found if event.kind == "piece"] for found in (events, last))
        assert len(one) == len(other)
        assert all(numpy.array_equal(mine, theirs) for mine, theirs in zip(one, other, strict=True))
        assert numpy.array_equal(numpy.concatenate(one, 1), events[-1].result["audio"].samples)
        assert numpy.array_equal(last[-1].result["audio"].samples, events[-1].result["audio"].samples)
        both = list(pipeline.stream(text=["Name two.", "Name three."]))
        with pipeline.stream(text="Name four.") as first, pipeline.stream(text="Name five.") as second:
            beside = [next(first), next(second), *first, *second]
        for found, records in ((both, (0, 1)), (beside, (0,))):
            for record in records:
                said = [event.value.samples for event in found if event.kind == "piece" and event.record == record]
                assert len(said) == len(one) * (1 + (found is beside))
        assert not pipeline._loader.loaded()["voice"].loop.follower._heard


def test_the_published_adapter_is_grafted_as_peft_does(params: dict[str, Any], tmp_path: Path):
    """LoRA of rank 8 on queries and values, in the layout that peft saves: the first logits behind a prompt."""
    made, folder = speechgpt.tokenizer(), tmp_path / "language"
    model = speechgpt.llama(made)
    speechgpt.randomise(model, seed=4)
    model.eval().save_pretrained(folder)
    made.save_pretrained(folder)
    theirs = speechgpt.adapter(tmp_path / "adapter", hf.LlamaForCausalLM.from_pretrained(folder))
    shown = {"outputs.prompt": "prompt", "outputs.logits": "llm.logits", "nodes.llm.with.max_new_tokens": 0}
    names = {**params, "checkpoint": str(folder), "adapter": str(tmp_path / "adapter")}
    with mg.open(mg.load("speechgpt", params={**names, **shown}, allow=["unused"])) as pipeline:
        found = pipeline.run(text="Name a colour.", outputs=["prompt", "logits"])
    with torch.no_grad():
        wanted = theirs(**made(found["prompt"], return_tensors="pt")).logits[0, -1]
        bare = hf.LlamaForCausalLM.from_pretrained(folder)(**made(found["prompt"], return_tensors="pt")).logits[0, -1]
    torch.testing.assert_close(found["logits"][0], wanted, rtol=0, atol=1e-4)
    assert (wanted - bare).abs().max() > 1e-2


def test_a_language_model_without_units_is_given_them(params: dict[str, Any], tmp_path: Path):
    """LLaMA as it is, and words: its tokenizer reads each unit as one token, its texts show them, its tables grow by as many rows."""
    made, folder = speechgpt.tokenizer(words=False), tmp_path / "llama"
    model = speechgpt.llama(made)
    speechgpt.randomise(model, seed=4)
    model.eval().save_pretrained(folder)
    made.save_pretrained(folder)
    words = [f"<0>..<{speechgpt.UNITS - 1}>", *speechgpt.WORDS[speechgpt.UNITS :]]
    graph = plain(params, checkpoint=str(folder), **{"nodes.llm.with.extra_words": words})
    own = {name: tensor.numel() for name, tensor in model.state_dict().items()}
    node = next(step for step in mg.plan(graph, exact=True).steps if step.node.name == "llm")
    assert node.parameters.total == sum(own.values()) + 2 * len(speechgpt.WORDS) * model.config.hidden_size
    with mg.open(graph) as pipeline:
        pipeline.run(text="Name a colour.", outputs=["reply"])
        tokens = pipeline._loader.loaded()["llm"].loop.tokens()
        ids = tokens.plain("a<3><sosp>")
    assert ids[-2:] == [len(made) + 3, len(made) + speechgpt.UNITS]
    assert tokens.decode(ids) == "a<3><sosp>"


# -- counts -------------------------------------------------------------------------------------------------------------


def test_a_plan_counts_the_published_parts_to_the_unit():
    """Without weights: the language model with 33,006 words, its LoRA, table, predictor and generator of the voice."""
    steps = {step.node.name: step.parameters for step in mg.plan(mg.load("speechgpt")).steps}
    assert steps["llm"].total == 6_746_656_768 + 4_194_304
    assert steps["llm"].trainable == 4_194_304
    assert steps["voice"].total == 13_247_809 + 128_000 + 99_201
    assert steps["frames"].total == 1000 * 768


@pytest.mark.slow
def test_built_it_has_as_many():
    """On the meta device."""
    for mine, built in zip(mg.plan(mg.load("speechgpt")).steps, mg.plan(mg.load("speechgpt"), exact=True).steps, strict=True):
        assert mine.parameters.total == built.parameters.total


# -- what does not belong together --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"centres": {"layer": 1}}, r"space-mismatch.*layer is 2.*wanted 1"),
        ({"centres": {"units": 15}}, r"space-mismatch.*clusters is 15.*wanted 60"),
        ({"voice": {"layer": 3}}, r"space-mismatch.*layer is 2.*wanted 3"),
        ({"voice": {"num_embeddings": 30}}, r"space-mismatch.*clusters is 60.*wanted 30"),
    ],
    ids=["layer of the centres", "number of the centres", "layer of the voice", "number of the voice"],
)
def test_units_of_others_are_refused_before_anything_is_loaded(params: dict[str, Any], tmp_path: Path, change: dict[str, Any], told: str):
    """Layer and number of the ear's units, the language model's and the voice's are compared while the graph is checked."""
    ((which, more),) = change.items()
    other = speechgpt.centres(tmp_path / "other.safetensors", **more) if which == "centres" else speechgpt.voice(tmp_path / "other", **more)
    with pytest.raises(mg.GraphError) as caught:
        mg.check(plain(params, **{which: str(other)}))
    assert re.search(told, " ".join(str(caught.value).split())), str(caught.value)


def test_a_unit_that_the_voice_does_not_have_is_refused(params: dict[str, Any]):
    """A language model may write any number; what was written before is kept with the error."""
    with (
        mg.open(fed(params)) as pipeline,
        pytest.raises(InputError, match=r"voice .*: unit 60 \(number 2 of record 0\) is beyond the 60") as caught,
    ):
        pipeline.run(said="[ta] b; [ua] <sosp><1><60><eosp>")
    assert caught.value.outputs["reply.text"] == ["b"]


def test_a_record_without_anything_to_ask_is_refused(params: dict[str, Any]):
    with mg.open(plain(params)) as pipeline, pytest.raises(InputError, match="neither a text nor speech"):
        pipeline.run()


# -- real speech, and ONNX Runtime --------------------------------------------------------------------------------------


@pytest.mark.network
def test_real_speech_goes_through(params: dict[str, Any]):
    """A piece of a conversation, through random weights: other units than those of another piece, and an answer that is spoken."""
    shown = {**params, "nodes.llm.adapters": None, "outputs.heard": "heard.units"}
    with mg.open(mg.load("speechgpt", params=shown, allow=["unused"])) as pipeline:
        found = pipeline.run(audio=[talk(7.0, 2.0), talk(10.0, 3.1)])
    assert parsed(found["reply"][0]).ua == SPOKEN
    assert found["heard"][0].tolist() != found["heard"][1].tolist()
    assert all(sound.seconds > 0.1 for sound in found["audio"])


@pytest.mark.whole(
    "tests/plugins/test_onnx_parts.py::test_a_part_gives_torchs_numbers",
    "tests/plugins/test_llm_onnx.py::test_one_graph_with_its_cache_in_place_gives_torchs_logits",
)
@pytest.mark.slow
def test_on_onnx_it_says_the_same(params: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Ear, centres, language model and voice as sessions."""
    monkeypatch.setenv("MODELGRAFT_CACHE", str(tmp_path / "cache"))
    found = []
    for backend in ("torch", "onnx"):
        with mg.open(plain(params), backend=backend) as pipeline:
            found.append(pipeline.run(audio=tone(1.3)))
    assert found[0]["reply"] == found[1]["reply"]
    assert numpy.abs(found[0]["audio"].samples - found[1]["audio"].samples).max() <= 1e-4
