"""Conversations of pictures and clips, unlike many in each record of a batch, through a whole tiny Flamingo."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import modelgraft as mg
from modelgraft.testing import open_node, run_node
from modelgraft_plugins.flamingo import Dialogue, Media
from support import openflamingo
from support.flamingo import LEARNED, Tiny, deep_language, film, frames_of, said, tiny
from support.pictures import gallery

pytestmark = [
    pytest.mark.usefixtures("untuned_cache"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]

CLOSE = {"rtol": 0.0, "atol": 1e-5}  # float32, elementwise
PARTS = pytest.mark.whole(
    "tests/plugins/test_onnx_parts.py::test_a_part_gives_torchs_numbers",
    "tests/plugins/test_gated.py::test_on_onnx_the_answers_are_those_of_torch",
)
CAT, DOG, GREY = (gallery()[name] for name in ("landscape", "portrait", "grey"))
SHORT, LONG = film(9, seconds=2.0, seed=1), film(40, seconds=30.0, seed=2)  # two frames, and more than have learned times
TALKS: dict[str, list[dict[str, Any]]] = {
    "one picture": [said(CAT, "w5 w9")],
    "three media": [said("w3 ", CAT, " w4 ", SHORT), said(" w7 w8", role="assistant"), said(LONG, "w9 ", GREY, " w2")],
    "no picture": [said("w5 w6 w7")],
    "a clip": [said(LONG, "w11")],
}


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """The parts of a tiny Flamingo."""
    return tiny(tmp_path_factory.mktemp("flamingo"))


def talk(parts: Tiny, **more: Any) -> mg.Graph:
    """The shipped graph over them; clips give up to six frames, one a second."""
    return mg.load("flamingo/talk", params=parts.params(frames=6, opening="", question="w1 ", answer=" w2", **more))


@pytest.mark.parametrize("backend", ["torch", pytest.param("onnx", marks=[pytest.mark.slow, PARTS, pytest.mark.timeout(1200)])])
def test_records_of_unlike_many_media_answer_as_alone(parts: Tiny, backend: str):
    """Together, in another order, one by one, and by beams; one of them shows nothing at all."""
    talks, names = list(TALKS.values()), ["text", "llm.logits"]
    with mg.open(talk(parts), backend=backend) as pipeline:
        together = pipeline.run(outputs=names, conversation=talks)
        turned = pipeline.run(outputs=names, conversation=talks[::-1])
        for row, conversation in enumerate(talks):
            alone = pipeline.run(outputs=names, conversation=[conversation])
            torch.testing.assert_close(together["llm.logits"][row], alone["llm.logits"][0], **CLOSE)
            assert together["text"][row] == turned["text"][-1 - row] == alone["text"][0]
    torch.testing.assert_close(together["llm.logits"], turned["llm.logits"].flip(0), **CLOSE)
    with mg.open(talk(parts)) as pipeline:
        expected = pipeline.run(outputs=names, conversation=talks)
    torch.testing.assert_close(together["llm.logits"], expected["llm.logits"], rtol=0.0, atol=1e-4)
    assert together["text"] == expected["text"]
    with mg.open(talk(parts, **{"nodes.llm.with.beams": 2}), backend=backend) as pipeline:
        beams = pipeline.run(conversation=talks)["text"]
        assert beams == [pipeline.run(conversation=[one])["text"][0] for one in talks]


def test_each_medium_is_resampled_as_it_would_be_alone(parts: Tiny):
    """Frames of clips are those that a loop takes; each record has its media in their order, and zeros behind them."""
    outputs = ["talk.text", "talk.lengths", "resampler.latents", "media.counts"]
    with mg.open(talk(parts)) as pipeline:
        found = pipeline.run(outputs=outputs, conversation=[TALKS["three media"], TALKS["a clip"]])
    assert found["talk.lengths"].tolist() == [[1, 2, 6, 1], [6, 0, 0, 0]]
    assert found["media.counts"].tolist() == [4, 1]
    assert found["talk.text"][0] == "w1 w3 <image> w4 <image> w2 w7 w8<|endofchunk|>w1 <image>w9 <image> w2 w2"
    graph = mg.load("flamingo", params=parts.params())
    with mg.open(graph) as pipeline:
        for medium, frames in enumerate([[CAT], frames_of(SHORT, 2), frames_of(LONG, 6), [GREY]]):
            tokens = torch.cat([pipeline.run(outputs=["vision.tokens"], image=frame)["vision.tokens"] for frame in frames])
            torch.testing.assert_close(found["resampler.latents"][0, medium], resampled(parts, tokens), **CLOSE)
    torch.testing.assert_close(found["resampler.latents"][1, 0], found["resampler.latents"][0, 2], **CLOSE)
    assert found["resampler.latents"][1, 1:].abs().max() == 0


RESAMPLE = """
modelgraft: 1
inputs: {frames: "float[batch frames tokens width]"}
nodes: {resampler: {use: resampler/perceiver, in: {media: inputs.frames}}}
outputs: {latents: resampler}
"""


def resampled(parts: Tiny, tokens: torch.Tensor) -> torch.Tensor:
    """The latents of one clip, by the resampler alone."""
    path = parts.trained.with_name("resample.yaml")
    path.write_text(RESAMPLE)
    params = {name: value for name, value in parts.params().items() if name.startswith("nodes.resampler.")}
    with mg.open(mg.load(path, params=params)) as pipeline:
        return pipeline.run(frames=tokens[None])["latents"][0]


def test_a_word_sees_the_last_medium_before_it_alone(parts: Tiny):
    """Another first picture changes what words behind it make of it, not those before it; with one word each: nothing of the second."""
    with mg.open(talk(parts, new=0)) as pipeline:

        def logits(*shown: Any) -> torch.Tensor:
            return pipeline.run(outputs=["llm.logits"], conversation=[said(*shown)])["llm.logits"]

        assert (logits("w5 ", CAT, " w6") - logits("w5 ", DOG, " w6")).abs().max() > 1e-3
        assert (logits("w5 ", CAT, " w6") - logits("w5 ", SHORT, " w6")).abs().max() > 1e-3


@pytest.mark.parametrize("every", [1, 4, 7])
def test_closed_gates_leave_the_language_model_as_it_is_to_the_last_bit(parts: Tiny, tmp_path: Path, every: int):
    """A layer before every one, every fourth, every seventh of fourteen: the logits of the plain model, bit by bit."""
    deep_language(tmp_path / "deep", like=parts.language)
    closed = {"use": "adapter/gated_cross_attention", "with": {"every": every}, "in": {"media": "resampler"}}
    params = parts.params(new=0, trained=False, language=str(tmp_path / "deep"), **{"nodes.llm.adapters": [closed]})
    prompt = "<image> w5 w9 w2"
    with mg.open(mg.load("flamingo", params=params)) as pipeline:
        looking = pipeline.run(outputs=["llm.logits"], image=CAT, prompt=prompt)["llm.logits"]
        assert len(pipeline.plan.graph.nodes["llm"].adapters[0].config.layers) == 14 // every
    plain = tmp_path / "plain.yaml"
    plain.write_text(PLAIN)
    with mg.open(plain) as pipeline:
        assert torch.equal(pipeline.run(prompt=prompt)["logits"], looking)


PLAIN = """
modelgraft: 1
inputs: {prompt: text}
nodes: {llm: {use: llm/causal, from: ./deep, with: {max_new_tokens: 0}, in: {prompt: inputs.prompt}}}
outputs: {logits: llm.logits}
"""


def test_answers_depend_on_the_seed_alone(parts: Tiny):
    """Drawn twice alike by one seed, and otherwise by another."""
    drawn = talk(parts, new=12, **{"nodes.llm.with.temperature": 3.0})
    texts = []
    for seed in (1, 1, 2):
        with mg.open(drawn, seed=seed) as pipeline:
            texts.append(pipeline.run(conversation=TALKS["three media"])["text"])
    assert texts[0] == texts[1] != texts[2]


def test_a_published_one_talks_about_pictures(tmp_path: Path):
    """OpenFlamingo's file, a conversation: what `fewshot` answers with the same text and the same pictures."""
    found = openflamingo.parts(tmp_path)
    params = {
        "checkpoint": str(found.trained), "language": str(found.language), "vision": str(found.vision), "every": 2, "tokens": [],
        "max_new_tokens": 5, "nodes.vision.from": str(found.vision), **PREPARED,
        **{f"nodes.resampler.with.{name}": value for name, value in openflamingo.RESAMPLER_HEADS.items()},
        "nodes.llm.adapters": [{
            "use": "adapter/gated_cross_attention", "from": f"{found.trained}#lang_encoder", "in": {"media": "resampler"},
            "with": {"every": 2, **openflamingo.HEADS},
        }],
    }  # fmt: skip
    shown = [said(CAT, " w5"), said(" w6", role="assistant"), said(DOG, " w7")]
    with mg.open(mg.load("openflamingo/talk", params=params)) as pipeline:
        talked = pipeline.run(outputs=["text", "llm.logits", "talk.text"], conversation=shown)
        with pytest.raises(mg.InputError, match="the conversation holds a video, and this model was made for pictures"):
            pipeline.run(conversation=[said(SHORT, "w5")])
    assert talked["talk.text"] == "<image> w5 w6<|endofchunk|><image> w7"
    with mg.open(mg.load("fewshot", params=params)) as pipeline:
        prompted = pipeline.run(outputs=["text", "llm.logits"], image=[CAT, DOG], prompt=talked["talk.text"])
    torch.testing.assert_close(talked["llm.logits"], prompted["llm.logits"], **CLOSE)
    assert talked["text"] == prompted["text"]


PREPARED = {"nodes.pixels.from": None, "nodes.pixels.with.size": {"height": 32, "width": 32}}
REFUSED = {
    "a picture in words": ([said("<image> w5")], r"a text of the conversation holds '<image>', which is a token of the model"),
    "an end in words": ([said(CAT, "w5<|endofchunk|>")], r"holds '<\|endofchunk\|>', which is a token of the model"),
    "a picture in an answer": ([said("w5"), said("<image>", role="assistant"), said("w6")], r"holds '<image>'"),
    "nobody asks": ([said("w5", role="assistant")], r"the conversation has no message of the user"),
    "a sound": ([{"role": "user", "content": [{"type": "mask", "mask": None}]}], r"the conversation holds mask"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_a_prompt_is_one_error(case: str):
    """Nothing that a user writes becomes a picture or an end."""
    conversation, told = REFUSED[case]
    with pytest.raises(mg.InputError, match=told):
        open_node(Dialogue, {})([conversation])


def test_more_media_than_are_wanted_are_told():
    with pytest.raises(mg.InputError, match="the conversation has 2 pictures and clips, and 1 are wanted at most"):
        open_node(Dialogue, {"most_media": 1})([[said(CAT, SHORT, "w5")]])


def test_frames_that_do_not_fit_their_lengths_are_told():
    """Counted by record."""
    vectors = [[torch.ones(2, 3)], [torch.ones(2, 3)]]
    sizes = {"tokens": 2, "width": 3}
    with pytest.raises(mg.InputError, match="record 2 has 1 frames, and lengths says 2: wire both from one node"):
        run_node(Media, sizes, vectors=vectors, lengths=torch.tensor([[1], [2]]))
    with pytest.raises(mg.InputError, match="record 1 has a clip of 2 frames, and its media are pictures: set clips: true"):
        run_node(Media, {**sizes, "clips": False}, vectors=[vectors[0] * 2], lengths=torch.tensor([[2]]))


def test_a_clip_of_more_frames_than_were_learned_is_read_to_its_end(parts: Tiny):
    """Its last frame changes the latents: nothing is cut off."""
    assert LEARNED < 6
    with mg.open(talk(parts)) as pipeline:
        shown = pipeline.run(outputs=["resampler.latents"], conversation=TALKS["a clip"])["resampler.latents"]
        pixels = LONG.frames.copy()
        pixels[-1] = 0
        other = pipeline.run(outputs=["resampler.latents"], conversation=[said(mg.Video(frames=pixels, rate_hz=LONG.rate_hz), "w11")])
    assert (shown - other["resampler.latents"]).abs().max() > 1e-4
