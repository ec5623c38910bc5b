"""How likely given texts are behind a prompt: each token as transformers has it when it reads prompt and text at once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import modelgraft as mg
from modelgraft.commands import judging
from modelgraft.loops import likelihoods as judged
from modelgraft_plugins.llm import plain
from support import checkpoints
from support.pictures import gallery

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")

MADE = {"llama": checkpoints.llama, "qwen2": checkpoints.qwen2, "opt": checkpoints.opt}
BACKENDS = ["torch", pytest.param("onnx", marks=pytest.mark.slow)]
SMALLER = pytest.mark.whole("tests/plugins/test_likelihoods.py::test_every_token_is_as_likely_as_when_prompt_and_text_are_read_at_once")
OTHERS = ["torch", pytest.param("onnx", marks=[pytest.mark.slow, SMALLER])]
TOLERANCE = {"torch": 1e-5, "onnx": 1e-4}  # other orders of summation
PROMPTS = ["a photo of", "a cat and a dog on it", "one"]
TEXTS = [[" dog", " cat on it", "s"], [" one"], [" a photo of a cat", " it"]]  # as many for each record as it likes, of unequal lengths
OUTPUTS = ["likelihoods", "greedy", "llm.continuation_ids", "llm.continuation_logprobs"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, checkpoints.Checkpoint]:
    return {name: make(tmp_path_factory.mktemp(name) / name) for name, make in MADE.items()}


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MODELGRAFT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def words(folder: Path, use: str = "llm/causal", **config: Any) -> mg.Graph:
    """A graph of one language model."""
    graph = mg.Graph("words")
    llm = graph.node(use, name="llm", source=folder, config={"prompt": "{words}", **config}, words=graph.input("words", "text"))
    graph.output("text", llm.text)
    return graph


def asking(graph: mg.Graph, backend: str = "torch", **settings: Any) -> mg.Pipeline:
    """The graph, as it judges texts."""
    return mg.open(graph, params={**judging(mg.check(graph)), **settings}, backend=backend, cache_bytes=0)


def assert_read(found: mg.Result, read: Sequence[Sequence[tuple[list[int], torch.Tensor]]], backend: str) -> None:
    """Every figure of every text, and the padding behind it; read: of each text its tokens, and the logits before each of them."""
    totals, greedy, ids, each = (found[name] for name in OUTPUTS)
    for row, texts in enumerate(read):
        assert torch.isinf(totals[row, len(texts) :]).all()
        assert not greedy[row, len(texts) :].any()
        for place, (tokens, logits) in enumerate(texts):
            size, likely = len(tokens), logits.float().log_softmax(-1)
            wanted = likely.gather(1, torch.tensor(tokens)[:, None])[:, 0]
            assert ids[row, place].tolist() == [*tokens, *[-1] * (ids.shape[2] - size)]
            torch.testing.assert_close(each[row, place, :size], wanted, rtol=0.0, atol=TOLERANCE[backend] * max(1, wanted.abs().max()))
            torch.testing.assert_close(totals[row, place], wanted.sum(), rtol=0.0, atol=size * TOLERANCE[backend] * wanted.abs().max())
            assert not each[row, place, size:].any()
            assert bool(greedy[row, place]) == bool((likely.argmax(-1) == torch.tensor(tokens)).all())


@torch.no_grad()
def by_transformers(made: checkpoints.Checkpoint, prompt: str, text: str) -> tuple[list[int], torch.Tensor]:
    """Tokens and logits of a text that is read with its prompt at once."""
    begun = made.processor(prompt).input_ids
    whole = made.processor(prompt + text, return_tensors="pt").input_ids
    assert whole[0, : len(begun)].tolist() == begun, "or the case is another one: see below"
    return whole[0, len(begun) :].tolist(), made.model(input_ids=whole).logits[0, len(begun) - 1 : -1]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("family", MADE)
def test_every_token_is_as_likely_as_when_prompt_and_text_are_read_at_once(made, family, backend):
    """A batch of unequal prompts, each with texts of its own."""
    checkpoint = made[family]
    with asking(words(checkpoint.folder), backend) as pipeline:
        found = pipeline.run(words=PROMPTS, continuations=TEXTS, outputs=OUTPUTS)
    read = [[by_transformers(checkpoint, prompt, text) for text in texts] for prompt, texts in zip(PROMPTS, TEXTS, strict=True)]
    assert_read(found, read, backend)


@pytest.mark.parametrize("backend", OTHERS)
def test_an_encoder_decoder_judges_answers(tmp_path, backend):
    """T5: what its decoder would write."""
    checkpoint = checkpoints.t5(tmp_path / "t5")
    with asking(words(checkpoint.folder, "llm/seq2seq"), backend) as pipeline:
        found = pipeline.run(words=PROMPTS, continuations=TEXTS, outputs=OUTPUTS)

    def read(prompt: str, text: str) -> tuple[list[int], torch.Tensor]:
        tokens = checkpoint.processor(text, add_special_tokens=False).input_ids
        begun = torch.tensor([[checkpoint.model.config.decoder_start_token_id, *tokens]])
        with torch.no_grad():
            output = checkpoint.model(input_ids=checkpoint.processor(prompt, return_tensors="pt").input_ids, decoder_input_ids=begun)
        return tokens, output.logits[0, :-1]

    assert_read(found, [[read(prompt, text) for text in texts] for prompt, texts in zip(PROMPTS, TEXTS, strict=True)], backend)


@pytest.mark.parametrize("backend", OTHERS)
@pytest.mark.parametrize(("graph", "written"), [("llava", "USER: <image>\n{} ASSISTANT:"), ("idefics", None)])
def test_texts_are_judged_behind_pictures(tmp_path, graph, written, backend):
    """Embedded among the words (LLaVA), and looked at beside them (IDEFICS)."""
    checkpoint = getattr(checkpoints, graph)(tmp_path / graph)
    pictures, prompts = [gallery()[name] for name in ("landscape", "portrait")], PROMPTS[:2]
    with asking(mg.load(graph, params={"checkpoint": str(checkpoint.folder)}), backend) as pipeline:
        found = pipeline.run(image=pictures, prompt=prompts, continuations=TEXTS[:2], outputs=OUTPUTS)

    def inputs(picture: Any, prompt: str, text: str) -> Any:
        if written is None:
            return checkpoint.processor(text=[[picture, prompt + text]], return_tensors="pt", add_end_of_utterance_token=False)
        return checkpoint.processor(images=picture, text=written.format(prompt) + text, return_tensors="pt")

    def read(picture: Any, prompt: str, text: str) -> tuple[list[int], torch.Tensor]:
        begun, whole = inputs(picture, prompt, ""), inputs(picture, prompt, text)
        size = begun["input_ids"].shape[1]
        with torch.no_grad():
            logits = checkpoint.model(**whole).logits[0, size - 1 : -1]
        return whole["input_ids"][0, size:].tolist(), logits

    read_all = [[read(picture, prompt, text) for text in texts] for picture, prompt, texts in zip(pictures, prompts, TEXTS, strict=False)]
    assert_read(found, read_all, backend)


def test_the_answer_that_is_written_is_the_likeliest_at_every_token(made):
    """`greedy` is true of what greedy writing gives, and of no other text."""
    folder, tokenizer = made["llama"].folder, made["llama"].processor
    prompts = [f"{one} {other}" for one in ("a photo", "cats", "the dog", "what do") for other in ("of", "on", "it", "is", "two", "you")]
    with mg.open(words(folder, max_new_tokens=2, min_new_tokens=2)) as pipeline:
        found = pipeline.run(words=prompts, outputs=["text", "llm.ids"])
    answers = zip(prompts, found["text"], found["llm.ids"].tolist(), strict=True)
    again = {prompt: text for prompt, text, ids in answers if tokenizer(prompt + text).input_ids == [*tokenizer(prompt).input_ids, *ids]}
    assert again, "some answers are whole letters"
    with asking(words(folder)) as pipeline:
        judged = pipeline.run(words=list(again), continuations=[[text, " dog"] for text in again.values()])
    assert judged["greedy"].tolist() == [[True, False]] * len(again)
    assert (judged["likelihoods"][:, 0] > judged["likelihoods"][:, 1]).any()


def test_a_prompt_is_read_once_for_all_texts_and_the_answer(made, monkeypatch):
    """One start for a batch, and as many steps as the longest text has tokens behind the first, beside those of the answer."""
    calls = {"start": 0, "step": 0}

    def counted(name: str, owner: type) -> None:
        real = getattr(owner, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            calls[name] += 1
            return real(*args, **kwargs)

        monkeypatch.setattr(owner, name, call)

    counted("start", plain.Decoder)
    counted("step", type(plain.Decoder(plain.Model(PLAIN)).start([torch.zeros(1, 8)], room=1)))
    calls.update(start=0, step=0)
    with asking(words(made["llama"].folder)) as pipeline:
        found = pipeline.run(words=PROMPTS, continuations=TEXTS, outputs=OUTPUTS)
        longest = found["llm.continuation_ids"].shape[2]
        assert calls == {"start": 1, "step": longest - 1}
        pipeline.run(words=PROMPTS, continuations=[["s"]] * 3)
        assert calls == {"start": 2, "step": longest - 1}, "the first token needs no step"


PLAIN = {
    "model_type": "llama", "vocab_size": 7, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 2, "max_position_embeddings": 16, "rms_norm_eps": 1e-6, "rope_theta": 1e4, "tie_word_embeddings": False,
}  # fmt: skip


def test_many_texts_are_read_in_several_rounds(made, monkeypatch):
    """With the same figures."""
    with asking(words(made["llama"].folder)) as pipeline:
        together = pipeline.run(words=PROMPTS, continuations=TEXTS)["likelihoods"]
        monkeypatch.setattr(judged, "MOST_ROWS", 2)
        torch.testing.assert_close(pipeline.run(words=PROMPTS, continuations=TEXTS)["likelihoods"], together, rtol=0.0, atol=1e-4)


def test_a_text_that_would_melt_into_the_prompt_is_judged_by_itself(made):
    """An answer begins with a token of its own: behind "a ph" no answer could write the one token of "photo"."""
    checkpoint = made["llama"]
    prompt, text = next(
        (words[:cut], words[cut:])
        for words in ("photo", " photo", "dog", " dog", " cat")
        for cut in range(1, len(words))
        if checkpoint.processor(words).input_ids[: len(checkpoint.processor(words[:cut]).input_ids)]
        != checkpoint.processor(words[:cut]).input_ids
    )
    with asking(words(checkpoint.folder)) as pipeline:
        found = pipeline.run(words=prompt, continuations=[text], outputs=OUTPUTS)
    assert found["llm.continuation_ids"][0, 0].tolist() == checkpoint.processor(text, add_special_tokens=False).input_ids


def test_answers_and_likelihoods_come_of_one_run(made):
    """The same as each alone."""
    graph = words(made["llama"].folder)
    with mg.open(words(made["llama"].folder, max_new_tokens=5)) as pipeline:
        alone = pipeline.run(words=PROMPTS)["text"]
    with asking(graph) as pipeline:
        likely = pipeline.run(words=PROMPTS, continuations=TEXTS)["likelihoods"]
    with asking(graph, **{"nodes.llm.with.max_new_tokens": 5}) as pipeline:
        both = pipeline.run(words=PROMPTS, continuations=TEXTS)
    assert both["text"] == alone
    assert torch.equal(both["likelihoods"], likely)


@pytest.mark.parametrize(
    ("texts", "told"),
    [
        (["a", ""], r"llm\.continuations: text 2 of 2 of record 0 is empty; wanted at least one letter"),
        (["a" * 600], r"a prompt and a text that is judged behind it have \d+ tokens together; llama has 128 positions: shorten one"),
    ],
)
def test_texts_that_cannot_be_judged_are_refused(made, texts, told):
    """With their place."""
    with asking(words(made["llama"].folder)) as pipeline, pytest.raises(mg.InputError, match=told):
        pipeline.run(words="a photo of", continuations=texts)


def test_an_answer_cannot_be_chosen_from_nothing(made):
    """The record is named; where nothing is to be chosen, no texts are no error."""
    graph = words(made["llama"].folder)
    told = r"llm\.continuations: record 1 has no text to choose from; wanted at least one"
    with asking(graph, **{"nodes.llm.with.choose": "sum"}) as pipeline, pytest.raises(mg.InputError, match=told):
        pipeline.run(words=["a", "b"], continuations=[["c"], []])
    with asking(graph) as pipeline:
        assert pipeline.run(words="a", continuations=[])["likelihoods"].shape == (1, 0)


def test_figures_that_nothing_is_asked_for_are_refused(made):
    """With what to wire."""
    told = r"llm\.likelihoods tells of the texts that llm\.continuations gets, and nothing is wired into it: wire list\[text\]"
    with mg.open(words(made["llama"].folder)) as pipeline, pytest.raises(mg.InputError, match=told):
        pipeline.run(words="a", outputs=["llm.likelihoods"])


def test_a_field_of_the_template_cannot_have_the_name_of_the_port(made):
    """Which takes the texts."""
    with pytest.raises(mg.GraphError, match=r"the prompt has a field \{continuations\}, and a port of this name"):
        mg.check(words(made["llama"].folder, prompt="{continuations}"))


def test_a_graph_that_judges_nothing_is_told(made):
    """Without a language model, with one that no output names, and with an input of the same name."""
    graph = mg.Graph("other")
    graph.output("text", graph.node("text/first", texts=graph.input("texts", "list[text]")))
    with pytest.raises(mg.InputError, match="nothing in other can judge texts: wanted: a component with the input 'continuations'"):
        judging(mg.check(graph))
    taken = words(made["llama"].folder)
    taken.output("greedy", "llm.ids")
    with pytest.raises(mg.InputError, match="words has inputs or outputs of these names already: greedy"):
        judging(mg.check(taken))
