"""Prompts: text and embeddings in the order in which the originals read them."""

from __future__ import annotations

from typing import Any

import numpy
import pytest
import torch
from PIL import Image

from modelgraft import ABSENT
from modelgraft.installed.discovery import assemble
from modelgraft.kernel.words.errors import InputError
from modelgraft.testing import node_of
from modelgraft_plugins import llm
from modelgraft_plugins.llm import CausalConfig
from modelgraft_plugins.llm.prompts import SLOT, PromptWriter
from modelgraft_plugins.llm.tokens import Tokenizer
from support import checkpoints
from support.open_part import open_part

REGISTRY = assemble({"llm": llm})
TEXTS = ["a photo of", "Question: how many cats are there? Answer:", ""]
WIDTH = 3
CHAT = (
    "{% for m in messages %}<{{ m.role }}>{% if m.content is string %}{{ m.content }}{% else %}{% for p in m.content %}"
    "{{ '<image>' if p.type == 'image' else p.text }}{% endfor %}{% endif %}{% endfor %}{% if add_generation_prompt %}<answer>{% endif %}"
)
PLAIN_CHAT = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<answer>{% endif %}"


def writer(inner: Any, **config: Any) -> PromptWriter:
    """A prompt writer on a tokenizer of transformers."""
    made = CausalConfig(**config)
    return PromptWriter(
        made,
        Tokenizer(inner, placeholder=made.placeholder, templates={"default": inner.chat_template} if inner.chat_template else {}),
        node="llm",
    )


def medium(tokens: int, first: float = 0.0) -> torch.Tensor:
    """Embeddings that tell their place: row i is first + i."""
    return (first + torch.arange(float(tokens)))[:, None].expand(tokens, WIDTH)


def without_placeholder() -> Any:
    """A tokenizer that does not know `<image>`."""
    from support.tokenizers import byte_level

    return byte_level(begin="<s>", end="</s>", pad="<pad>", prefix=True, extra=())


PICTURES = [Image.fromarray(numpy.random.default_rng(seed).integers(0, 255, (20, 30, 3), dtype=numpy.uint8)) for seed in range(3)]


def embedded_pictures(checkpoint: checkpoints.Checkpoint, kind: str) -> torch.Tensor:
    """What transformers puts in place of the pictures."""
    model, pixels = checkpoint.model, checkpoint.processor.image_processor(PICTURES, return_tensors="pt").pixel_values
    with torch.no_grad():
        if kind == "llava":
            return torch.stack(list(model.get_image_features(pixels, return_dict=True).pooler_output))
        seen = model.vision_model(pixels).last_hidden_state
        queries = model.query_tokens.expand(len(PICTURES), -1, -1)
        return model.language_projection(model.qformer(query_embeds=queries, encoder_hidden_states=seen).last_hidden_state)


@pytest.fixture(scope="module", params=[("blip2", "opt"), ("blip2", "t5"), ("llava", "llama")], ids="-".join)
def seeing(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str, checkpoints.Checkpoint]:
    """A model that sees: its kind, its language model and its checkpoint."""
    kind, language = request.param
    folder = tmp_path_factory.mktemp(kind)
    return kind, language, checkpoints.llava(folder) if kind == "llava" else checkpoints.blip2(folder, language=language)


@pytest.mark.parametrize("settings", [{}, {"beams": 3}, {"repetition_penalty": 1.5}])
def test_pictures_stand_where_the_original_puts_them(seeing, settings):
    """BLIP-2 before the begin token, LLaVA among the words: the tokens of `generate`, in a batch of unequal prompts."""
    kind, language, checkpoint = seeing
    template = "USER: {image}\n{prompt} ASSISTANT:" if kind == "llava" else "{image}{prompt}"
    component = "llm/seq2seq" if language == "t5" else "llm/causal"
    part = open_part(REGISTRY, component, f"{checkpoint.folder}#language_model", prompt=template, max_new_tokens=10, **settings)
    wanted = []
    for picture, text in zip(PICTURES, TEXTS, strict=True):
        said = f"USER: <image>\n{text} ASSISTANT:" if kind == "llava" else text
        given = checkpoint.processor(images=picture, text=said, return_tensors="pt")
        named = {"num_beams": settings["beams"]} if "beams" in settings else settings
        written = checkpoint.model.generate(**given, max_new_tokens=10, do_sample=False, **named)[0]
        new = written if language == "t5" else written[given["input_ids"].shape[1] :]
        wanted.append(checkpoint.processor.tokenizer.decode(new, skip_special_tokens=True))
    assert part(embedded_pictures(checkpoint, kind), TEXTS)["text"] == wanted


def test_a_text_with_the_placeholder_goes_before_the_template():
    """The same ids as if the template had placed the picture; the template's own words are left out."""
    inner = checkpoints.llama_tokenizer()
    written = writer(inner, prompt="USER: {image}\n{prompt} ASSISTANT:")
    by_template = written.write({"image": medium(4), "prompt": "what?"})
    as_it_is = written.write({"image": medium(4), "prompt": "USER: <image>\nwhat? ASSISTANT:"})
    other = written.write({"image": medium(4), "prompt": "see <image>"})
    assert by_template.ids == as_it_is.ids
    picture = inner.convert_tokens_to_ids("<image>")
    assert other.ids == [*inner("see ").input_ids, *[picture] * 4]
    assert by_template.places == [place for place, token in enumerate(by_template.ids) if token == picture]


def test_placeholders_may_stand_for_each_embedding():
    """As the processors of transformers write them out."""
    inner = checkpoints.llama_tokenizer()
    written = writer(inner, prompt="{image}{prompt}")
    once = written.write({"image": medium(4), "prompt": "see <image> now"})
    expanded = written.write({"image": medium(4), "prompt": "see " + "<image>" * 4 + " now"})
    assert once.ids == expanded.ids
    assert torch.equal(once.media, expanded.media)


def test_a_tokenizer_without_the_placeholder_reads_piece_by_piece():
    """Begin token first, then the pieces with the picture between them."""
    inner = without_placeholder()
    prompt = writer(inner, prompt="USER: {image}\n{prompt}").write({"image": medium(2), "prompt": "what?"})
    pieces = [inner(text, add_special_tokens=False).input_ids for text in ("USER: ", "\nwhat?")]
    assert prompt.ids == [inner.bos_token_id, *pieces[0], SLOT, SLOT, *pieces[1]]
    assert prompt.said == [token for token in prompt.ids if token != SLOT]


@pytest.mark.parametrize("inner", [checkpoints.opt_tokenizer(), without_placeholder()], ids=["known", "unknown"])
def test_leading_pictures_may_stand_before_the_begin_token(inner):
    """`begin: text`, as BLIP-2 was trained; a picture between words stays between them."""
    written = writer(inner, prompt="{image}{prompt} {other}", begin="text")
    prompt = written.write({"image": medium(3), "prompt": "see", "other": medium(2, 50.0)})
    assert prompt.places[:3] == [0, 1, 2]
    assert prompt.ids[3] == inner.bos_token_id
    assert prompt.places[3:] == [len(prompt.ids) - 2, len(prompt.ids) - 1]


def test_embeddings_take_their_places_and_words_keep_theirs():
    """Row by row against the embedding table."""
    inner = checkpoints.llama_tokenizer()
    prompt = writer(inner, prompt="a {x} b {y}").write({"x": medium(2, 100.0), "y": medium(3, 200.0)})
    table = torch.nn.Embedding(len(inner), WIDTH)
    found = prompt.embed(table, torch.device("cpu"))
    media = iter([100.0, 101.0, 200.0, 201.0, 202.0])
    for place, token in enumerate(prompt.ids):
        wanted = torch.full((WIDTH,), next(media)) if place in prompt.places else table.weight[token]
        torch.testing.assert_close(found[place], wanted, rtol=0.0, atol=0.0)


def test_a_text_of_numpy_is_a_text():
    """Texts of an array or of a table have a shape and a dtype, and are no embeddings."""
    made = writer(without_placeholder(), prompt="{a} and {b}")
    assert made.write({"a": numpy.array(["cat"])[0], "b": "hat"}).ids == made.write({"a": "cat", "b": "hat"}).ids


def test_literal_braces_are_doubled():
    """As in Python's own templates."""
    inner = checkpoints.qwen2_tokenizer()
    assert writer(inner, prompt='{{"q": "{question}"}}').write({"question": "why"}).ids == inner('{"q": "why"}').input_ids


@pytest.mark.parametrize(
    ("prompt", "sizes", "message"),
    [
        ("see <image> and <image>", [4], r"2 places for media \('<image>'\), but there is 1, of 4 embeddings"),
        ("<image>", [3, 2], r"1 place for media \('<image>'\), but there are 2, of 3 \+ 2 embeddings"),
    ],
)
def test_media_and_places_must_match(prompt, sizes, message):
    """With both counts in the message."""
    written = writer(checkpoints.llama_tokenizer(), prompt="".join(f"{{m{i}}}" for i in range(len(sizes))) + "{prompt}")
    record = {f"m{index}": medium(size) for index, size in enumerate(sizes)}
    with pytest.raises(InputError, match=message):
        written.write({**record, "prompt": prompt})


def message(role: str, *parts: Any) -> dict[str, Any]:
    """A message of a conversation: strings are text, anything else a picture."""
    return {"role": role, "content": [{"type": "text", "text": p} if isinstance(p, str) else {"type": "image", "image": p} for p in parts]}


@pytest.mark.parametrize("chat_template", [CHAT, PLAIN_CHAT], ids=["parts", "strings"])
def test_a_conversation_is_written_by_the_chat_template(chat_template):
    """Roles, system message and the pictures at their places, whether the template takes parts or strings; no second begin token."""
    inner = checkpoints.llama_tokenizer()
    inner.chat_template = chat_template
    talk = (message("user", "what is ", PICTURES[0], "?"), message("assistant", "a cat"), message("user", "and ", PICTURES[1]))
    written = writer(inner, prompt="{image}{prompt}", system="be brief")
    text = "<system>be brief<user>what is <image>?<assistant>a cat<user>and <image><answer>"
    one_each = inner(text, add_special_tokens=False).input_ids
    picture = inner.convert_tokens_to_ids("<image>")
    prompt = written.write({"image": medium(6), "prompt": talk})
    expected = [token for found in one_each for token in ([found] * 3 if found == picture else [found])]
    assert prompt.ids == expected
    torch.testing.assert_close(prompt.media, medium(6))


def test_chat_puts_the_prompt_into_the_users_message():
    """With the picture where the template of the graph places it."""
    inner = checkpoints.llama_tokenizer()
    inner.chat_template = PLAIN_CHAT
    prompt = writer(inner, prompt="{image} {labels}: describe", chat=True).write({"image": medium(1), "labels": "cat"})
    assert prompt.ids == inner("<user><image> cat: describe<answer>", add_special_tokens=False).input_ids


def test_a_conversation_that_shows_no_picture_gets_it_before_the_first_message():
    """The embeddings are not lost."""
    inner = checkpoints.llama_tokenizer()
    inner.chat_template = PLAIN_CHAT
    prompt = writer(inner, prompt="{image}{prompt}").write({"image": medium(1), "prompt": (message("user", "what?"),)})
    assert prompt.ids == inner("<user><image>what?<answer>", add_special_tokens=False).input_ids


def test_a_picture_that_nothing_embeds_is_refused():
    """Left out of the prompt, it would be answered for all the same."""
    inner = checkpoints.llama_tokenizer()
    inner.chat_template = PLAIN_CHAT
    with pytest.raises(InputError, match="the conversation shows image, image, and no field brings embeddings: wire an encoder"):
        writer(inner).write({"prompt": (message("user", "what is ", PICTURES[0], PICTURES[1], "?"),)})


def test_a_conversation_needs_a_chat_template():
    """Said in one sentence."""
    with pytest.raises(InputError, match="the tokenizer has no chat template"):
        writer(checkpoints.llama_tokenizer()).write({"prompt": (message("user", "what?"),)})


def test_fields_become_ports():
    """In the order in which they first appear, before the texts that may be judged; a size makes the port exact."""
    node = node_of(CausalConfig, {"prompt": "{image:9} {text} {image:9}", "hidden_size": 28, "vocab_size": 50})
    assert {name: str(port) for name, port in node.in_ports.items()} == {
        "image": "float[batch 9 28]",
        "text": "text | label | conversation | float[batch text_tokens 28]",
        "continuations": "optional[list[text]]",
        "settings": "optional[object]",
        "target": "optional[text]",
    }
    assert {name: str(port) for name, port in node.out_ports.items()} == {
        "text": "text",
        "logits": "float[batch 50]",
        "ids": "int64[batch new]",
        "pieces": "list[text]",
        "logprobs": "float[batch new]",
        "states": "float[batch 1 positions 28]",
        "prompt_ids": "int64[batch asked]",
        "prompt_states": "float[batch 1 asked_positions 28]",
        "prompt_pieces": "list[text]",
        "likelihoods": "float[batch continuations]",
        "greedy": "bool[batch continuations]",
        "continuation_ids": "int64[batch continuations tokens]",
        "continuation_logprobs": "float[batch continuations tokens]",
        "target_logits": "float[batch target_tokens 50]",
        "target_ids": "int64[batch target_tokens]",
        "target_pieces": "list[text]",
        "target_states": "float[batch 1 target_positions 28]",
    }


def test_embeddings_of_another_size_are_refused(tmp_path):
    """Wrong width, and wrong number for a sized field."""
    checkpoint = checkpoints.llama(tmp_path)
    part = open_part(REGISTRY, "llm/causal", str(checkpoint.folder), prompt="{image:4}{more}")
    with pytest.raises(InputError, match=r"image takes 4 embeddings, but got 5 embeddings"):
        part(torch.zeros(1, 5, 28), ["x"])
    with pytest.raises(InputError, match=r"more got float\[1 2 3\], wanted float\[batch tokens 28\]"):
        part(torch.zeros(1, 4, 28), torch.zeros(1, 2, 3))


def several(*sizes: int) -> list[torch.Tensor]:
    """Media of so many embeddings each, all numbers of a medium its own."""
    return [torch.full((size, WIDTH), float(number)) for number, size in enumerate(sizes, 1)]


@pytest.mark.parametrize("sizes", [(), (1,), (2, 1, 3)])
def test_any_number_of_media_stand_where_the_text_has_its_places(sizes: tuple[int, ...]):
    """A field of several takes as many as a record has, also none, in their order; without places they stand at the field."""
    write = writer(checkpoints.llama_tokenizer(), prompt="{shown:*}{prompt}", placeholder="<object>")
    media = several(*sizes)
    marked = "".join(f"{number}: <object> " for number in range(len(sizes))) + "what is it?"
    for text in (marked, "what is it?"):
        found = write.write({"shown": media, "prompt": text})
        assert len(found.places) == sum(sizes)
        if sizes:
            assert found.media is not None
            torch.testing.assert_close(found.media, torch.cat(media))
        else:
            assert found.media is None
    last = write.write({"shown": media, "prompt": "what is it?"}).places
    assert last == list(range(1, 1 + sum(sizes)))  # behind the begin token


def test_a_place_without_its_medium_is_told():
    """Another number of media than of places, and a medium that its branch did not give."""
    write = writer(checkpoints.llama_tokenizer(), prompt="{shown:*}{prompt}", placeholder="<object>")
    with pytest.raises(InputError, match="the prompt has 2 places for media"):
        write.write({"shown": several(1), "prompt": "<object> or <object>?"})
    with pytest.raises(InputError, match=r"llm\.shown: there are 2 media, and no embeddings of number 2"):
        write.write({"shown": [*several(1), ABSENT], "prompt": "what is it?"})


def test_a_field_of_several_is_always_one():
    with pytest.raises(ValueError, match=r"writes the field \{shown\} in two ways"):
        assert CausalConfig(prompt="{shown:*} and {shown}").fields
