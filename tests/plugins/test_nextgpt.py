"""Parts of NExT-GPT: what comes out for each medium, published counts, and sources of something else."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from modelgraft.installed.discovery import assemble
from modelgraft.kernel.words.errors import InputError
from modelgraft.testing import conform, open_node
from modelgraft_plugins import families, nextgpt, projectors
from modelgraft_plugins.nextgpt import Objects, Output, Prompt
from support.open_part import configured, counts

REGISTRY = assemble({"families": families, "nextgpt": nextgpt, "projectors": projectors})
SMALL = {
    "hidden_size": 14,
    "inner_size": 12,
    "encoder_layers": 2,
    "decoder_layers": 1,
    "heads": 3,
    "feed_forward": 20,
    "width": 9,
    "signals": 4,
}
# of the published components, counted by building them
PUBLISHED = {"gen_text_hidden_fcs": 31_958_784, "gen_text_hidden_fcs_audio": 31_788_544, "gen_text_hidden_fcs_video": 32_090_112}


@pytest.mark.parametrize("queries", [1, 5])
def test_it_keeps_its_declaration(queries: int):
    """Of one query the vector comes out too."""
    conform(Output, {**SMALL, "queries": queries})


@pytest.mark.parametrize("part", PUBLISHED)
def test_published_projections_have_the_published_counts(part: str):
    """By the formula, and by building them."""
    assert counts(configured(REGISTRY, "nextgpt/output", f"preset:nextgpt-7b#{part}")) == (PUBLISHED[part], PUBLISHED[part])


def test_the_published_input_projection_has_the_published_count():
    """A map from the width of ImageBind to that of the language model."""
    node = configured(REGISTRY, "projector/linear", "preset:nextgpt-7b#llama_proj", in_features=1024)
    assert counts(node) == (4_198_400, 4_198_400)


@pytest.mark.parametrize(
    ("config", "part", "told"),
    [
        ({"model_type": "nextgpt"}, "gen_text_hidden_fcs", "its config.json lacks llm_width, inner_width, encoder_layers"),
        ({"model_type": "fromage"}, "gen_text_hidden_fcs", "the config states model_type: 'fromage'"),
        ({"model_type": "nextgpt"}, "llama_proj", "nextgpt/output is one of three: write"),
    ],
)
def test_a_source_of_something_else_is_told(config: dict[str, Any], part: str, told: str):
    """A config that lacks sizes, one of another family, and a part that is no output projection."""
    stated: Any = SimpleNamespace(root=config, whole="model", text=f"model#{part}", part=part)
    with pytest.raises(ValueError, match=told):
        Output.from_source(stated)


@pytest.mark.parametrize(("keys", "told"), [(("0.model.weight",), "no projection by a transformer"), (None, r"several layers \(0, 1\)")])
def test_a_file_of_another_projection_is_told(keys: tuple[str, ...] | None, told: str, tmp_path: Path):
    """The linear one, and those of several layers of the language model."""
    layer = ("fc.weight", "query_embs", "model.weight", "tfm.encoder.layers.0.linear1.weight")
    names = keys or [f"{number}.{name}" for number in (0, 1) for name in layer]
    save_file({f"gen_text_hidden_fcs.{name}": torch.zeros(1, 2, 3) for name in names}, tmp_path / "delta.safetensors")
    with pytest.raises(ValueError, match=told):
        configured(REGISTRY, "nextgpt/output", f"{tmp_path / 'delta.safetensors'}#gen_text_hidden_fcs")


def written(prompt: Any, **shown: list[Any]) -> dict[str, Any]:
    """What is made of one record."""
    found = open_node(Prompt)([prompt], *([shown[name]] if name in shown else None for name in ("image", "audio", "video")))
    return {name: values[0] for name, values in found.items()}


def pieces_of(prompt: str) -> list[str]:
    """The published way: a begin token before every text, tags around every object, cut at ` <` and `> `."""
    found = []
    for piece in re.split(r" <|> ", prompt + "\n### Assistant:"):
        is_object = re.match(r"(Image|Audio|Video)>", piece)
        found.append("<Img><object></Img>" if is_object else f"<s>{piece}")
    return found


@pytest.mark.parametrize(
    ("said", "published"),
    [
        ("what is it?", "### Human: what is it?"),
        ("<image> what is it?", "### Human: <Image>a</Image> what is it?"),
        ("look at <image> and hear <audio> now", "### Human: look at <Image>a</Image> and hear <Audio>b</Audio> now"),
        ("<image><image> are alike", "### Human: <Image>a</Image><Image>c</Image> are alike"),
    ],
)
def test_a_prompt_is_written_as_published(said: str, published: str):
    """The first begin token is the language model's own; a place has one embedding, of all objects that stand there."""
    shown = {medium: [f"{medium} {number}" for number in range(said.count(f"<{medium}>"))] for medium in ("image", "audio")}
    found = written(said, **shown)
    assert f"<s>{found['text']}" == "".join(pieces_of(published))
    assert found["image"] == shown["image"]
    assert found["audio"] == shown["audio"]
    assert len(found["places"]) == found["text"].count("<object>")


def test_objects_that_no_mark_places_stand_before_the_text():
    """Those of one medium at one place, media in their order."""
    found = written("what are they?", image=["a", "b"], video=["c"])
    assert found["text"] == "### Human:<Img><object></Img><Img><object></Img><s>what are they?\n### Assistant:"
    assert found["places"] == [[["image", 0], ["image", 1]], [["video", 0]]]
    assert (found["image"], found["audio"], found["video"]) == (["a", "b"], [], ["c"])


def test_a_conversation_is_written_turn_by_turn():
    """What the model has said before, and the pictures that it made, stand in the prompt as what it is shown."""
    talk = (
        {"role": "user", "content": [{"type": "text", "text": "draw a cat"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "Here it is:"}, {"type": "image", "image": "cat"}]},
        {"role": "user", "content": [{"type": "audio", "audio": "purr"}, {"type": "text", "text": "like this one"}]},
    )
    found = written(talk)
    assert found["text"] == (
        "### Human: draw a cat\n### Assistant: Here it is:<Img><object></Img><s>\n### Human:<Img><object></Img>"
        "<s>like this one\n### Assistant:"
    )
    assert found["places"] == [[["image", 0]], [["audio", 0]]]


@pytest.mark.parametrize(
    ("said", "shown", "told"),
    [
        ("<image> and <image>", {"image": ["a"]}, "the text marks 2 places with <image>, and there are 1: mark each, or none"),
        ("<audio>", {}, "the text marks 1 places with <audio>, and there are 0"),
        (({"role": "assistant", "content": []},), {}, "the conversation does not end with a message of the user"),
        (({"role": "system", "content": []}, {"role": "user", "content": []}), {}, "message 0 is one of system"),
        (
            ({"role": "user", "content": [{"type": "depth", "depth": 1}]},),
            {},
            "the conversation shows depth, and the model takes image, audio",
        ),
    ],
)
def test_what_cannot_be_written_is_told(said: Any, shown: dict[str, list[Any]], told: str):
    with pytest.raises(InputError, match=told):
        written(said, **shown)


def test_embeddings_come_to_their_places():
    """Those at one place are added up; a record without objects has none; one that is missing is told."""
    places = [[[["image", 1], ["image", 0]], [["audio", 0]]], []]
    vectors = [[torch.tensor([1.0, 2.0]), torch.tensor([10.0, 20.0])], []]
    first, second = open_node(Objects)(places, vectors, [[torch.tensor([5.0, 6.0])], []], None)["tokens"]
    assert [one.tolist() for one in first] == [[[11.0, 22.0]], [[5.0, 6.0]]]
    assert len(second) == 0
    with pytest.raises(InputError, match="there is no embedding of audio 1 of record 0, which stands in the prompt"):
        open_node(Objects)(places, vectors, [[], []], None)
