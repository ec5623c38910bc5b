"""Composed of parts, the families give what transformers' own monoliths give: tokens identical, ports within 1e-5."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

import modelgraft as mg
from support import checkpoints
from support.checkpoints import Checkpoint
from support.pictures import gallery

CLOSE = {"rtol": 0.0, "atol": 1e-5}  # float32, elementwise
NEW_TOKENS = 11
PICTURES = [gallery()[name] for name in ("landscape", "portrait", "grey", "rgba")]
PROMPTS = ["Question: how many cats are there? Answer:", "a photo of", "the", "what do you see in the picture"]
FAMILIES = {
    "blip2 with OPT": ("blip2", {"language": "opt"}),
    "blip2 with T5": ("blip2", {"language": "t5"}),
    "instructblip with LLaMA": ("instructblip", {"language": "llama"}),
    "instructblip with T5": ("instructblip", {"language": "t5"}),
    "llava with grouped queries": ("llava", {}),
}


@dataclass(frozen=True)
class Pair:
    """The same checkpoint twice: opened as a graph, and as transformers' own model with its processor."""

    graph: str
    pipeline: Any
    theirs: Checkpoint

    def written(self, prompt: str) -> str:
        """The prompt as the model's own processor wants it."""
        return f"USER: <image>\n{prompt} ASSISTANT:" if self.graph == "llava" else prompt

    def inputs(self, pictures: list[Any], prompts: list[str]) -> dict[str, torch.Tensor]:
        """What transformers' own processor makes of pictures and prompts."""
        texts = [self.written(prompt) for prompt in prompts]
        return self.theirs.processor(images=list(pictures), text=texts, padding=True, return_tensors="pt")

    def answers(self, pictures: list[Any], prompts: list[str]) -> tuple[list[str], torch.Tensor]:
        """The new texts, and the logits of the first new token, of transformers' own `generate`."""
        inputs, tokenizer = self.inputs(pictures, prompts), self.theirs.processor.tokenizer
        found = self.theirs.model.generate(
            **inputs, max_new_tokens=NEW_TOKENS, do_sample=False, num_beams=1, output_logits=True, return_dict_in_generate=True
        )
        crosses = self.theirs.model.config.get_text_config().is_encoder_decoder
        new = found.sequences if crosses else found.sequences[:, inputs["input_ids"].shape[1] :]
        return [tokenizer.decode(row, skip_special_tokens=True) for row in new], found.logits[0]


@pytest.fixture(scope="module", params=FAMILIES)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Each family in turn."""
    name, options = FAMILIES[request.param]
    folder = tmp_path_factory.mktemp(name)
    made = getattr(checkpoints, name)(folder, **options)
    with mg.open(name, params={"checkpoint": str(folder), "max_new_tokens": NEW_TOKENS}) as pipeline:
        yield Pair(name, pipeline, made)


@pytest.mark.parametrize("index", range(4), ids=["landscape", "portrait", "grey", "rgba"])
def test_a_picture_and_a_prompt_give_the_same_tokens_and_logits(pair: Pair, index: int):
    """Greedy tokens are identical, first logits within 1e-5."""
    texts, logits = pair.answers([PICTURES[index]], [PROMPTS[index]])
    result = pair.pipeline.run(outputs=["text", "llm.logits"], image=PICTURES[index], prompt=PROMPTS[index])
    assert result["text"] == texts[0]
    torch.testing.assert_close(result["llm.logits"], logits, **CLOSE)


def test_a_batch_of_unlike_prompts_gives_the_same_tokens_and_logits(pair: Pair):
    """Padding in our batch and in that of transformers changes nothing."""
    texts, logits = pair.answers(PICTURES, PROMPTS)
    result = pair.pipeline.run(outputs=["text", "llm.logits"], image=PICTURES, prompt=PROMPTS)
    assert result["text"] == texts
    torch.testing.assert_close(result["llm.logits"], logits, **CLOSE)


def test_a_batch_gives_what_its_records_give_one_by_one(pair: Pair):
    """Whatever stands beside a record."""
    batch = pair.pipeline.run(image=PICTURES, prompt=PROMPTS)["text"]
    assert batch == [pair.pipeline.run(image=image, prompt=prompt)["text"] for image, prompt in zip(PICTURES, PROMPTS, strict=True)]


def test_every_port_on_the_way_is_that_of_transformers(pair: Pair):
    """Pixels, patches, and the embeddings that stand for the picture."""
    result = pair.pipeline.run(outputs=["pixels.pixels", "vision.tokens", "project.y"], image=PICTURES, prompt=PROMPTS)
    inputs = pair.inputs(PICTURES, PROMPTS)
    wanted = {name: value for name, value in inputs.items() if name.startswith(("pixel", "qformer"))}
    with torch.no_grad():
        found = pair.theirs.model.get_image_features(**wanted)
    patches = found.hidden_states[-2][:, 1:] if pair.graph == "llava" else found.vision_outputs.last_hidden_state
    embeddings = torch.stack(found.pooler_output) if pair.graph == "llava" else found.pooler_output
    assert torch.equal(result["pixels.pixels"], inputs["pixel_values"])
    torch.testing.assert_close(result["vision.tokens"], patches, **CLOSE)
    torch.testing.assert_close(result["project.y"], embeddings, **CLOSE)


def test_all_parameters_of_the_checkpoint_are_planned(pair: Pair):
    """The graph has neither more nor fewer than the monolith, by formula and as built."""
    graph = mg.load(pair.graph, params={"checkpoint": str(pair.theirs.folder)})
    theirs = sum(parameter.numel() for parameter in pair.theirs.model.parameters())
    assert mg.plan(graph).totals.parameters == theirs
    assert mg.plan(graph, exact=True).totals.parameters == theirs


def test_a_prompt_that_holds_the_placeholder_is_used_as_it_is(tmp_path: Path):
    """The template is left aside: the placeholder alone says where the picture stands."""
    theirs = checkpoints.llava(tmp_path)
    prompt = "Look: <image> and describe it."
    inputs = theirs.processor(images=PICTURES[0], text=prompt, return_tensors="pt")
    new = theirs.model.generate(**inputs, max_new_tokens=NEW_TOKENS, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    with mg.open("llava", params={"checkpoint": str(tmp_path), "max_new_tokens": NEW_TOKENS}) as pipeline:
        text = pipeline.run(image=PICTURES[0], prompt=prompt)["text"]
    assert text == theirs.processor.tokenizer.decode(new, skip_special_tokens=True)


def test_a_placeholder_is_no_word_for_a_q_former_that_reads_the_prompt(tmp_path: Path):
    """InstructBLIP's prompt with the picture's placeholder is answered as the one without: transformers puts it in for the tongue alone."""
    theirs = checkpoints.instructblip(tmp_path)
    inputs = theirs.processor(images=PICTURES[0], text="describe it", return_tensors="pt")
    new = theirs.model.generate(**inputs, max_new_tokens=NEW_TOKENS, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    with mg.open("instructblip", params={"checkpoint": str(tmp_path), "max_new_tokens": NEW_TOKENS}) as pipeline:
        text = pipeline.run(image=PICTURES[0], prompt="<image>describe it")["text"]
    assert text == theirs.processor.tokenizer.decode(new, skip_special_tokens=True)
