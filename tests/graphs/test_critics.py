"""A generator and its critic in one graph: several takes of each record, and the one that the critic likes best."""

from __future__ import annotations

import re
from pathlib import Path

import numpy
import pytest
import torch

import modelgraft as mg
from support import checkpoints, painting
from support.running import Counter

pytestmark = [
    pytest.mark.slow,  # diffusers and transformers are imported, and real voices speak
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]
PROMPTS = ["the red bird", "a cat"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("critics")
    painting.save(folder / "painter")
    checkpoints.clip(folder / "critic")
    return folder


def opened(home: Path, **more):
    params = {"checkpoint": str(home / "painter"), "critic": str(home / "critic"), "takes": 3, "steps": 2}
    return mg.open("critics/draw", params=params, seed=7, **more)


def liked(home: Path, pictures: list, text: str) -> list[float]:
    """The cosines of pictures and a text by transformers."""
    from transformers import AutoModel, AutoProcessor

    model, processor = AutoModel.from_pretrained(home / "critic"), AutoProcessor.from_pretrained(home / "critic")
    with torch.no_grad():
        eyes = model.get_image_features(**processor(images=pictures, return_tensors="pt")).pooler_output
        words = model.get_text_features(**processor(text=[text], return_tensors="pt")).pooler_output
    return torch.nn.functional.cosine_similarity(eyes, words).tolist()


def test_the_picture_is_kept_that_fits_best(home):
    """Each take is what the graph without a critic draws from the same noise; cosines are those of transformers; one loop for all."""
    with opened(home) as pipeline:
        found = pipeline.run(prompt=PROMPTS, outputs=["image", "take", "scores", "takes", "noise"])
    assert [len(pictures) for pictures in found["takes"]] == [3, 3]
    assert all(not numpy.array_equal(*map(numpy.asarray, pictures[:2])) for pictures in found["takes"])
    noise = torch.stack(list(found["noise"][0]))
    assert torch.equal(noise, torch.stack(list(found["noise"][1])))  # the takes of one record begin as those of another
    begun = home / "begun.yaml"
    begun.write_text(
        "modelgraft: 1\nextends: stable_diffusion\ninputs.noise: 'float[batch 4 8 12]'\nnodes.denoise.in.latents: inputs.noise\n"
    )
    for record, prompt in enumerate(PROMPTS):
        with mg.open(begun, params={"checkpoint": str(home / "painter"), "steps": 2}) as alone:
            drawn = alone.run(prompt=[prompt] * 3, negative=[""] * 3, noise=noise)["image"]
        apart = [
            numpy.abs(numpy.asarray(a, float) - numpy.asarray(b, float)).max() for a, b in zip(drawn, found["takes"][record], strict=True)
        ]
        assert max(apart) <= 1  # a rounding of 8 bits: other batches add up in another order
        cosines = liked(home, found["takes"][record], prompt)
        assert found["scores"][record] == pytest.approx(cosines, abs=1e-5)
        assert found["take"][record] == max(range(3), key=cosines.__getitem__)
        assert numpy.array_equal(numpy.asarray(found["image"][record]), numpy.asarray(found["takes"][record][found["take"][record]]))


def test_a_batch_draws_what_its_records_draw_alone_and_again(home):
    with opened(home) as pipeline:
        whole = pipeline.run(prompt=PROMPTS)
        alone = [pipeline.run(prompt=prompt) for prompt in PROMPTS]
    for record, one in enumerate(alone):
        assert one["scores"] == pytest.approx(whole["scores"][record], abs=1e-4)
        assert one["take"] == whole["take"][record]


def test_one_loop_for_all_takes_of_all_records(home):
    ran = Counter()
    with opened(home) as pipeline, pipeline.stream(prompt=PROMPTS) as events:
        for event in events:
            if event.kind == "progress" and event.node == "denoise":
                ran.note((event.done, event.total))
    assert ran.calls == [(1, 2), (2, 2)]


def edits(words: list[str], wanted: list[str]) -> int:
    """How many words have to be put in, taken out or changed, by trying all of it."""
    if not words or not wanted:
        return len(words) + len(wanted)
    if words[0] == wanted[0]:
        return edits(words[1:], wanted[1:])
    return 1 + min(edits(words[1:], wanted[1:]), edits(words[1:], wanted), edits(words, wanted[1:]))


@pytest.mark.whole(
    "tests/graphs/test_critics.py::test_the_picture_is_kept_that_fits_best",
    "tests/graphs/test_real_graphs.py::test_what_the_voice_says_is_understood",
)
def test_the_take_is_kept_that_is_heard_right():
    """Real voices and a real recogniser: rates by hand of what was heard, the least of them kept."""
    text = "The quick brown fox jumps over the lazy dog."
    with mg.open("critics/speak", params={"voices": ["jf_gongitsune", "jf_alpha"]}) as pipeline:
        found = pipeline.run(text=text, outputs=["audio", "errors", "take", "heard", "voice.audio"])
    wanted = text.lower().strip(".").split()
    for heard, rate in zip(found["heard"], found["errors"], strict=True):
        words = re.sub(r"[^a-z' ]", "", heard.lower()).split()
        assert rate == pytest.approx(edits(words, wanted) / len(wanted))
    assert found["take"] == min(range(2), key=found["errors"].__getitem__)
    assert min(found["errors"]) < 0.5
    assert numpy.array_equal(found["audio"].samples, found["voice.audio"][found["take"]].samples)
