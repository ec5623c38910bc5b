"""Tokens that are added to a language model: in its tokenizer, its embeddings, its head, its plan; and tokens that end answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import modelgraft as mg
from support import checkpoints

GRAPH = """
modelgraft: 1
params: {extra: [], ends: [], source: ./model}
inputs: {prompt: text}
nodes:
  llm:
    use: llm/causal
    from: "${source}"
    with: {max_new_tokens: 8, extra_tokens: "${extra}", end_tokens: "${ends}"}
    in: {prompt: inputs.prompt}
outputs: {text: llm.text, logits: llm.logits}
"""
ADDED = ["<one>", "<two>"]


def graph(folder: Path, **params: Any) -> mg.Graph:
    """A language model over the checkpoint in a folder."""
    path = folder / "graph.yaml"
    path.write_text(GRAPH)
    return mg.load(path, params=params)


@pytest.mark.parametrize("family", ["llama", "smollm", "opt"])
def test_added_tokens_have_rows_of_their_own(tmp_path: Path, family: str):
    """Untied and tied heads: known tokens score as before, new ones like the mean of them; the plan counts the new rows."""
    theirs = getattr(checkpoints, family)(tmp_path / "model")
    with mg.open(graph(tmp_path)) as plain, mg.open(graph(tmp_path, extra=ADDED)) as longer:
        before, after = (pipeline.run(outputs=["logits"], prompt="a cat")["logits"] for pipeline in (plain, longer))
    known = before.shape[1]
    assert after.shape[1] == known + 2
    torch.testing.assert_close(after[:, :known], before, rtol=0.0, atol=1e-5)
    torch.testing.assert_close(after[:, known:], before.mean(1, keepdim=True).expand(-1, 2), rtol=0.0, atol=1e-5)
    tables = 1 if theirs.model.config.tie_word_embeddings else 2
    width = theirs.model.get_input_embeddings().weight.shape[1]
    count = sum(parameter.numel() for parameter in theirs.model.parameters()) + tables * 2 * width
    for exact in (False, True):
        assert mg.plan(graph(tmp_path, extra=ADDED), exact=exact).totals.parameters == count


def test_an_added_token_is_one_token_whether_its_tokenizer_is_kept_or_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Written in a prompt, it is read as its own embedding and not letter by letter."""
    monkeypatch.setenv("MODELGRAFT_CACHE", str(tmp_path / "cache"))
    checkpoints.llama(tmp_path / "model")
    found = []
    for _ in range(2):  # the second time from the cache
        with mg.open(graph(tmp_path, extra=ADDED)) as pipeline:
            pipeline.run(outputs=["logits"], prompt="a")
            tokens = pipeline._loader.loaded()["llm"].loop.tokens()
        ids, text = tokens.full("a <two> cat<one>"), tokens.decode([5, tokens.id_of("<one>")])
        found.append((type(tokens.inner).__name__, ids, tokens.plain("a "), text))
    (first, ids, start, text), (second, *rest) = found
    assert (first, second) == ("TokenizersBackend", "Kept")
    assert [ids, start, text] == rest
    vocabulary = len(checkpoints.llama_tokenizer())
    assert ids.count(vocabulary + 1) == 1
    assert ids[-1] == vocabulary
    assert "<one>" not in text


def test_a_token_that_is_there_already_is_not_added_again(tmp_path: Path):
    """It would be another one of the same name."""
    checkpoints.llama(tmp_path / "model")
    wanted = r"config-mismatch  the tokenizer of llm has '<image>' already\n *leave it out of llm\.extra_tokens"
    with mg.open(graph(tmp_path, extra=["<one>", "<image>"])) as pipeline, pytest.raises(mg.SourceError, match=wanted):
        pipeline.run(prompt="a")


def test_the_same_token_twice_is_refused(tmp_path: Path):
    """Before anything is loaded."""
    checkpoints.llama(tmp_path / "model")
    with pytest.raises(mg.GraphError, match=r"extra_tokens: \['<one>', '<one>'\] names an empty token, or one twice"):
        mg.check(graph(tmp_path, extra=["<one>", "<one>"]))


def test_an_end_token_ends_an_answer(tmp_path: Path):
    """The third token that the model writes, by its name: nothing comes after it."""
    theirs = checkpoints.llama(tmp_path / "model")
    ids = theirs.processor("a cat", return_tensors="pt")
    new = theirs.model.generate(**ids, max_new_tokens=8, do_sample=False)[0, ids["input_ids"].shape[1] :].tolist()
    assert new.index(new[2]) == 2
    end = theirs.processor.convert_ids_to_tokens(new[2])
    with mg.open(graph(tmp_path, ends=[end])) as pipeline:
        text = pipeline.run(prompt="a cat")["text"]
    assert text == theirs.processor.decode(new[:3], skip_special_tokens=True)


def test_an_end_token_that_is_not_there_is_named(tmp_path: Path):
    """A slip would let every answer run on."""
    checkpoints.llama(tmp_path / "model")
    with mg.open(graph(tmp_path, ends=["<|end|>"])) as pipeline, pytest.raises(mg.InputError) as caught:
        pipeline.run(prompt="a")
    assert "llm.end_tokens: the tokenizer has no token '<|end|>'" in str(caught.value)


def test_a_model_of_random_numbers_knows_its_added_tokens(tmp_path: Path):
    """Its tokenizer reads bytes, and the added tokens as the last of the vocabulary."""
    from modelgraft_plugins.llm.tokens import Bytes

    tokens = Bytes(262)
    tokens.add_tokens(ADDED)
    assert tokens("a<two>b").input_ids == [97, 261, 98]
    assert tokens.convert_tokens_to_ids("<one>") == 260
    assert tokens.decode([97, 261, 98]) == "ab"


def test_a_token_is_made_likelier_held_back_and_hidden_by_its_name(tmp_path: Path):
    """The factor decides what is chosen, the delay from when on, and the text does not show it; another name is an error."""
    made = checkpoints.llama(tmp_path / "model")
    asked = made.processor("a", return_tensors="pt").input_ids
    with torch.no_grad():
        logits = made.model(asked).logits[0, -1]
    token = int(logits.topk(4).indices[-1])
    name = made.processor.convert_ids_to_tokens(token)
    config = {"prompt": "{prompt}", "max_new_tokens": 4, "end_ids": [0], "min_new_tokens": 4}

    def written(**more: Any) -> tuple[list[int], str]:
        graph = mg.Graph("scaled")
        llm = graph.node("llm/causal", name="llm", source=made.folder, config={**config, **more}, prompt=graph.input("prompt", "text"))
        graph.output("text", llm.text)
        with mg.open(graph) as pipeline:
            found = pipeline.run(prompt="a", outputs=["text", "llm.ids"])
        return found["llm.ids"][0].tolist(), found["text"]

    assert logits[token] > 0
    assert written()[0][0] != token
    ids, text = written(token_scale={name: 1000.0})
    assert ids[0] == token
    assert text == made.processor.decode(ids, skip_special_tokens=True)
    assert written(token_scale={name: 1000.0}, token_delay={name: 4})[0].count(token) == 0
    hidden = written(token_scale={name: 1000.0}, hidden_tokens=[name])
    assert hidden == (ids, made.processor.decode([one for one in ids if one != token], skip_special_tokens=True))
    for field in ({"token_scale": {"[RET]": 2.0}}, {"token_delay": {"[RET]": 2}}, {"hidden_tokens": ["[RET]"]}):
        with pytest.raises(mg.InputError, match=r"llm\.\w+: the tokenizer has no token '\[RET\]'"):
            written(**field)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"words": ["<2>..<1>"]}, r"extra_words: '<2>\.\.<1>' is no row of words: its numbers go up"),
        ({"words": ["<0>..<3>", "<2>"]}, r"extra_words: \['<0>\.\.<3>', '<2>'\] names an empty token, or one twice"),
        ({"words": ["<one>"], "extra": ["<one>"]}, "extra_tokens and extra_words both name '<one>': texts show it, or they do not"),
    ],
)
def test_words_that_cannot_be_added_are_refused(tmp_path: Path, change: dict[str, Any], told: str):
    """Before anything is loaded."""
    checkpoints.llama(tmp_path / "model")
    path = tmp_path / "graph.yaml"
    path.write_text(GRAPH.replace("extra: [],", "extra: [], words: [],").replace("end_tokens:", 'extra_words: "${words}", end_tokens:'))
    with pytest.raises(mg.GraphError, match=told):
        mg.check(mg.load(path, params=change))


def test_words_that_a_text_shows_are_written_out(tmp_path: Path):
    """Of a model from nothing, which reads bytes, and of one with a tokenizer: special tokens are left out, words are not."""
    checkpoints.llama(tmp_path / "model")
    path = tmp_path / "graph.yaml"
    path.write_text(GRAPH.replace('end_tokens: "${ends}"', 'extra_words: ["<0>..<2>"], end_tokens: "${ends}"'))
    sizes = {"hidden_size": 16, "intermediate_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1, "vocab_size": 300}
    nothing = {"nodes.llm.from": None, "nodes.llm.with.model": {"model_type": "llama", **sizes}, "nodes.llm.with.hidden_size": 16}
    for params, options in (({}, {}), (nothing, {"init": "random"})):
        with mg.open(mg.load(path, params={"extra": ["<one>"], **params}, allow=["unused"]), **options) as pipeline:
            pipeline.run(outputs=["logits"], prompt="a")
            tokens = pipeline._loader.loaded()["llm"].loop.tokens()
        ids = tokens.plain("a<1><one><2>b")
        assert len(ids) == 5
        assert tokens.decode(ids) == "a<1><2>b"


def test_rows_that_fill_a_table_up_serve_added_tokens(tmp_path: Path):
    """As those of OPT, 50,272 for 50,265 tokens: what is said of fewer tokens keeps the rows behind them for the added ones."""
    theirs = checkpoints.opt(tmp_path / "model")
    rows = theirs.model.config.vocab_size
    with mg.open(graph(tmp_path)) as plain:
        before = plain.run(outputs=["logits"], prompt="a cat")["logits"]
    with mg.open(mg.load(tmp_path / "graph.yaml", params={"extra": ADDED, "nodes.llm.with.vocab_size": rows - 5})) as cut:
        after = cut.run(outputs=["logits"], prompt="a cat")["logits"]
    assert after.shape[1] == rows - 3
    torch.testing.assert_close(after, before[:, : rows - 3], rtol=0.0, atol=1e-5)
