"""Conversations as models were taught to write them: rows of data, each read as its authors' code writes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from modelgraft.installed.discovery import assemble
from modelgraft.kernel.words.errors import InputError, SourceError
from modelgraft_plugins import conversations, llm
from modelgraft_plugins.chat_rendering import Renderer
from modelgraft_plugins.chat_templates import choose
from support import checkpoints
from support.open_part import open_part

NAMES = {"bos_token": "<s>", "eos_token": "</s>", "placeholder": "<image>"}
TALK = [
    {"role": "system", "content": "S"},
    {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "q {text}"}]},
    {"role": "assistant", "content": "a {media}"},
    {"role": "user", "content": [{"type": "text", "text": "r"}, {"type": "image"}]},
]
# What `get_prompt` of the authors' code gives for these turns; their tokenizer puts its begin token before it.
ONE = "S###Human: {}q {{text}}###Assistant: a {{media}}###Human: r{}###Assistant:"
TWO = "S USER: {}q {{text}} ASSISTANT: a {{media}}</s>USER: r{} ASSISTANT:"
CHATML = (
    "<|im_start|>system\nS<|im_end|>{line}<|im_start|>user\n{first}q {{text}}<|im_end|>{line}<|im_start|>assistant\na {{media}}<|im_end|>"
)
CHATML += "{line}<|im_start|>user\nr{second}<|im_end|>{line}<|im_start|>assistant\n"
WRITTEN: dict[str, str] = {
    "vicuna_v1": TWO.format("<image>\n", "\n<image>"),
    "llava_v0": ONE.format("<image>\n", "\n<image>"),
    "llava_v0_tags": ONE.format("<im_start><image><im_end>\n", "\n<im_start><image><im_end>"),
    "llava_v0_mmtag": ONE.format("<Image><image></Image>\n", "\n<Image><image></Image>"),
    "llava_v1": TWO.format("<image>\n", "\n<image>"),
    "llava_v1_mmtag": TWO.format("<Image><image></Image>\n", "\n<Image><image></Image>"),
    "llava_plain": "<image>q {text}a {media}\nr<image>",
    "llama_2": (
        "[INST] <<SYS>>\nS\n<</SYS>>\n\n<image>\nq {text} [/INST] a {media} </s><s>[INST] r\n<image> [/INST]"
    ),
    "llava_llama_2": (
        "[INST] <<SYS>>\nS\n<</SYS>>\n\n<image>\nq {text} [/INST] a {media} </s><s>[INST] r\n<image> [/INST]"
    ),
    "mistral_instruct": "[INST] <<SYS>>\nS\n<</SYS>>\n\n<image>\nq {text} [/INST] a {media} </s>[INST] r\n<image> [/INST]",
    "voxtral": (
        "[SYSTEM_PROMPT]S[/SYSTEM_PROMPT][INST][BEGIN_AUDIO]<image>q {text}[/INST]a {media}</s>[INST]r[BEGIN_AUDIO]<image>[/INST]"
    ),
    "mpt": CHATML.format(line="", first="<image>\n", second="\n<image>"),
    "chatml_direct": CHATML.format(line="", first="<image>\n", second="\n<image>"),
    "chatml": CHATML.format(line="\n", first="<image>", second="<image>"),
    "qwen_vl": CHATML.format(line="\n", first="Picture 1: <img><image></img>\n", second="Picture 1: <img><image></img>\n"),
    "qwen2_vl": CHATML.format(line="\n", first="<|vision_start|><image><|vision_end|>", second="<|vision_start|><image><|vision_end|>"),
    "qwen3_vl": CHATML.format(line="\n", first="<|vision_start|><image><|vision_end|>", second="<|vision_start|><image><|vision_end|>"),
    "pixtral": "[INST]S\n\n<image>q {text}[/INST]a {media}</s>[INST]r<image>[/INST]",
    "minigpt4": ONE.format("<Img><image></Img> ", " <Img><image></Img>"),
    "minigpt4_llama_2": "S<s>[INST] <Img><image></Img> q {text} [/INST] a {media}<s>[INST] r <Img><image></Img> [/INST] ",
    "pandagpt": "### Human: <Img><image></Img> q {text}\n### Assistant: a {media}\n### Human: r <Img><image></Img>\n### Assistant:",
    "mplug_owl": "S\nHuman: <image>\nHuman: q {text}\nAI: a {media}\nHuman: r\nHuman: <image>\nAI: ",
    "shikra": TWO.format("<im_start><image><im_end> ", " <im_start><image><im_end>"),
    "alpaca": "S\n\n### Instruction:\n<image>q {text}\n\n### Response:a {media}\n\n### Instruction:\nr<image>\n\n### Response:",
    "kosmos": "<image><image></image>q {text}a {media}r<image><image></image>",
}  # fmt: skip


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return Renderer()


def written(renderer: Renderer, name: str, talk: list[dict[str, Any]]) -> str:
    return renderer.render(conversations.rows()[name].template(), talk, names=NAMES, place="m")


def test_every_row_is_in_the_table():
    """But for Vicuna 0, whose row has a long example."""
    assert set(conversations.rows()) == {*WRITTEN, "vicuna_v0"}


@pytest.mark.parametrize("name", WRITTEN)
def test_turns_are_written_as_they_were_taught(renderer: Renderer, name: str):
    """What users and models say stands as it is, words of the template among it."""
    assert written(renderer, name, TALK) == WRITTEN[name]


def test_an_example_stands_before_every_conversation(renderer: Renderer):
    text = written(renderer, "vicuna_v0", [{"role": "user", "content": "hello"}])
    row = conversations.rows()["vicuna_v0"]
    ((question, answer),) = row.examples
    assert text == f"{row.system}###Human: {question}###Assistant: {answer}###Human: hello###Assistant:"


@pytest.mark.parametrize("name", [*WRITTEN, "vicuna_v0"])
def test_a_user_cannot_begin_a_turn_of_another(renderer: Renderer, name: str):
    """What begins a turn is refused in the user's words, and pictures stand where they are shown, not where their words stand."""
    row = conversations.rows()[name]
    for mark in row.marks:
        with pytest.raises(InputError, match=r"the chat template of m refuses .* holds '.*', which begins or ends a turn"):
            written(renderer, name, [{"role": "user", "content": [{"type": "text", "text": f"hi{mark} I agree"}]}])
    assert row.marks or name == "llava_plain"


@pytest.mark.parametrize(
    ("talk", "said"),
    [
        ([{"role": "assistant", "content": "hi"}], "no message of it is the user's"),
        ([], "no message of it is the user's"),
        ([{"role": "user", "content": "a"}, {"role": "tool", "content": "b"}], "a message of the role 'tool' stands in it"),
        ([{"role": "user", "content": "a"}, {"role": "system", "content": "b"}], "a message of the role 'system' stands in it"),
    ],
)
def test_what_is_no_conversation_is_refused(renderer: Renderer, talk: list[dict[str, Any]], said: str):
    with pytest.raises(InputError, match="refuses the conversation") as caught:
        written(renderer, "llava_v1", talk)
    assert said in str(caught.value)


def test_a_template_of_the_source_goes_before_a_row_of_its_name():
    assert choose({"chatml": "own"}, "chatml", place="m") == "own"
    assert choose({}, "chatml", place="m") == conversations.rows()["chatml"].template()
    with pytest.raises(SourceError, match=r"m has no chat template 'chatml2'; it has: none") as caught:
        choose({}, "chatml2", place="m")
    assert "Did you mean 'chatml'?" in str(caught.value)


def test_a_language_model_takes_a_row_by_its_name(tmp_path: Path):
    """Its texts that end an answer count with those of the graph; the source needs no template of its own."""
    model = checkpoints.llama(tmp_path)
    registry = assemble({"llm": llm})
    part = open_part(registry, "llm/causal", str(model.folder), chat=True, chat_template="llava_v0", system="be kind", stop=("!",))
    text = "be kind###Human: hello###Assistant:"
    assert part.loop.prompts([["hello"]])[0].ids == model.processor(text).input_ids
    assert part.loop.names.settings().stop == ("!", "###")
    with pytest.raises(InputError, match=r"chat_template.*<\|im_end\|>"):
        open_part(registry, "llm/causal", str(model.folder), chat=True, chat_template="chatml").loop.names.settings()
