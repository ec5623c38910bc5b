"""mPLUG-Owl as a shipped graph, from a folder in the layout of its files, with tiny random weights; the photographs are real."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from skimage import data

import modelgraft as mg
from modelgraft.plugin import InputError
from support import zoo

pytestmark = [
    pytest.mark.slow,  # it imports transformers
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]
PHOTOS = [Image.fromarray(data.chelsea()), Image.fromarray(data.rocket())]  # both wider than high
ASKED = ["what is it?", "who sits there, and for how long?"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return zoo.mplug_owl(tmp_path_factory.mktemp("owl"))


def opened(folder: Path, **more: Any) -> mg.Pipeline:
    return mg.open("mplug_owl", params={"checkpoint": str(folder), "side": 15, "max_new_tokens": 5}, **more)


@pytest.fixture(scope="module")
def owl(folder: Path) -> mg.Pipeline:
    return opened(folder)


WANTED = ["text", "llm.logits", "llm.ids", "abstractor"]


def test_an_answer_is_that_of_transformers_with_the_vectors_among_its_words(folder: Path, owl: mg.Pipeline):
    """The prompt as published: pieces of text by themselves, 7 vectors between them; logits and greedy tokens of LlamaForCausalLM."""
    from transformers import AutoTokenizer, LlamaForCausalLM

    model, tokenizer = LlamaForCausalLM.from_pretrained(folder / "language").eval(), AutoTokenizer.from_pretrained(folder / "language")
    found = owl.run(image=PHOTOS[0], prompt=ASKED[0], outputs=WANTED)
    assert found["abstractor"].shape == (1, zoo.OWL_QUERIES + 1, 28)
    system = "The following is a conversation between a curious human and AI assistant. The assistant gives helpful, detailed, and polite"
    text = f"{system} answers to the user's questions.\nHuman: <image>\nHuman: {ASKED[0]}\nAI: "
    ids = tokenizer(text.replace("<image>", "<image>" * (zoo.OWL_QUERIES + 1)), return_tensors="pt").input_ids
    embeds = model.get_input_embeddings()(ids)
    embeds[ids == tokenizer.convert_tokens_to_ids("<image>")] = found["abstractor"][0]
    with torch.no_grad():
        wanted = model.generate(inputs_embeds=embeds, max_new_tokens=5, do_sample=False, output_logits=True, return_dict_in_generate=True)
    torch.testing.assert_close(found["llm.logits"], wanted.logits[0], rtol=0, atol=2e-5)
    assert found["llm.ids"].tolist() == wanted.sequences.tolist()


def test_a_batch_answers_as_its_records_do_alone_and_each_time_the_same(owl: mg.Pipeline):
    zoo.refuse_unlike(owl, image=PHOTOS, prompt=ASKED)


def test_the_whole_picture_is_seen_whatever_its_shape(owl: mg.Pipeline):
    """Squeezed into a square, not cut: what stands at its edge changes what is seen."""
    cut = PHOTOS[0].crop((75, 0, 375, 300))
    seen = [owl.run(image=image, prompt="?", outputs=["pixels"])["pixels"] for image in (PHOTOS[0], cut)]
    assert not torch.allclose(seen[0], seen[1], atol=0.05)


@pytest.mark.whole(
    "tests/plugins/test_onnx_parts.py::test_a_part_gives_torchs_numbers",
    "tests/plugins/test_llm_onnx.py::test_one_graph_with_its_cache_in_place_gives_torchs_logits",
)
def test_onnx_answers_as_torch(folder: Path, owl: mg.Pipeline):
    """Eye, queries and abstractor in one segment, and the language model with its cache."""
    with opened(folder, backend="onnx") as exported:
        for image, said in zip(PHOTOS, ASKED, strict=True):
            ours, theirs = exported.run(image=image, prompt=said, outputs=WANTED), owl.run(image=image, prompt=said, outputs=WANTED)
            assert ours["text"] == theirs["text"]
            torch.testing.assert_close(torch.as_tensor(ours["llm.logits"]), theirs["llm.logits"], rtol=0, atol=1e-4)


@pytest.mark.parametrize("said", ["look: <image> and <image>", "<image><image>"])
def test_more_places_than_pictures_are_told(owl: mg.Pipeline, said: str):
    with pytest.raises((InputError, mg.NodeError), match="<image>"):
        owl.run(image=PHOTOS[0], prompt=said)
