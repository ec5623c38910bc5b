"""Taps of language models: ids, log-probabilities and hidden states as outputs that exist when somebody reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import modelgraft as mg
from modelgraft.kernel.planning import planner
from modelgraft.loops.taps import Taps
from modelgraft_plugins.llm.pieces import pieces_of
from support import checkpoints

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")

NEW = 7
MADE = {"llama": checkpoints.llama, "qwen2": checkpoints.qwen2, "opt": checkpoints.opt}  # the first two are built without transformers
BACKENDS = ["torch", pytest.param("onnx", marks=pytest.mark.slow)]
SMALLER = pytest.mark.whole("tests/plugins/test_taps.py::test_greedy_answers_are_tapped_as_they_are_written")
ON_TORCH = ["torch", pytest.param("onnx", marks=[pytest.mark.slow, SMALLER])]
TOLERANCE = {"torch": 1e-5, "onnx": 1e-4}  # other orders of summation


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, checkpoints.Checkpoint]:
    return {name: make(tmp_path_factory.mktemp(name) / name) for name, make in MADE.items()}


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MODELGRAFT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


LAYERS = [0, 1, -1]
PROMPTS = ["a photo of", "a cat and a dog on it", "one"]


def opened(folder: Path, backend: str = "torch", use: str = "llm/causal", **config: Any) -> mg.Pipeline:
    """A graph of one language model; any port can be asked for."""
    graph = mg.Graph("taps")
    settings = {"prompt": "{words}", "max_new_tokens": NEW, "states": {"layers": LAYERS}, **config}
    llm = graph.node(use, name="llm", source=folder, config=settings, words=graph.input("words", "text"))
    graph.output("text", llm.text)
    return mg.open(graph, backend=backend, cache_bytes=0)


TAPS = ["text", "llm.ids", "llm.logprobs", "llm.states"]


def tapped(folder: Path, words: Any, backend: str = "torch", **config: Any) -> tuple[list[Any], list[Any], list[Any]]:
    """Ids, log-probabilities and states of each record, without what is padded behind them."""
    with opened(folder, backend, **config) as pipeline:
        found = pipeline.run(words=words, outputs=TAPS)
    ids, logprobs, states = (found[name] for name in TAPS[1:])
    sizes = [int((row >= 0).sum()) for row in ids]
    assert all((row[size:] == 0).all() for row, size in zip(logprobs, sizes, strict=True)), "padding is 0"
    assert all((row[:, size:] == 0).all() for row, size in zip(states, sizes, strict=True)), "padding is 0"
    return (
        [row[:size].tolist() for row, size in zip(ids, sizes, strict=True)],
        [row[:size] for row, size in zip(logprobs, sizes, strict=True)],
        [row[:, :size] for row, size in zip(states, sizes, strict=True)],
    )


@torch.no_grad()
def read_by_transformers(made: checkpoints.Checkpoint, prompt: str, answer: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """What the model makes of a prompt with its answer when it reads both at once: log-probabilities, and states of the layers."""
    asked = made.processor(prompt, return_tensors="pt").input_ids
    whole = torch.cat([asked, torch.tensor([answer], dtype=torch.int64)], 1)
    output = made.model(input_ids=whole, output_hidden_states=True)
    start = asked.shape[1]
    likely = output.logits[0, start - 1 : -1].log_softmax(-1).gather(1, torch.tensor(answer)[:, None])[:, 0]
    return likely, torch.stack([output.hidden_states[layer][0, start:] for layer in LAYERS])


def close(got: torch.Tensor, expected: torch.Tensor, backend: str) -> bool:
    if got.shape != expected.shape or not got.numel():
        return got.shape == expected.shape
    return bool((got - expected).abs().max() <= TOLERANCE[backend] * max(1.0, expected.abs().max().item()))


def assert_read(made: checkpoints.Checkpoint, found: tuple[list[Any], list[Any], list[Any]], backend: str) -> None:
    """Every token's log-probability, and every number of its states, as transformers has them."""
    for prompt, ids, logprobs, states in zip(PROMPTS, *found, strict=True):
        likely, hidden = read_by_transformers(made, prompt, ids)
        assert close(logprobs, likely, backend)
        assert close(states, hidden, backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("family", MADE)
def test_greedy_answers_are_tapped_as_they_are_written(made, family, backend):
    """A batch of unequal prompts; the same as generate() gives of each, and of the last token too, which it does not read."""
    checkpoint = made[family]
    found = tapped(checkpoint.folder, PROMPTS, backend, min_new_tokens=NEW)
    assert_read(checkpoint, found, backend)
    for row, prompt in enumerate(PROMPTS):
        asked = checkpoint.processor(prompt, return_tensors="pt").input_ids
        theirs = checkpoint.model.generate(
            asked, attention_mask=torch.ones_like(asked), max_new_tokens=NEW, min_new_tokens=NEW, do_sample=False,
            output_hidden_states=True, output_logits=True, return_dict_in_generate=True,
        )  # fmt: skip
        ids, logprobs, states = (part[row] for part in found)
        assert ids == theirs.sequences[0, asked.shape[1] :].tolist()
        likely = torch.stack([logits[0].log_softmax(-1)[token] for logits, token in zip(theirs.logits, ids, strict=True)])
        assert close(logprobs, likely, backend)
        for place, layers in enumerate(theirs.hidden_states[1:]):
            assert close(states[:, place], torch.stack([layers[layer][0, -1] for layer in LAYERS]), backend)


@pytest.mark.parametrize("settings", [{"temperature": 1.4, "top_k": 20}, {"beams": 3}, {"repetition_penalty": 1.5}], ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
def test_drawn_searched_and_ruled_answers_have_the_models_own_numbers(made, settings, backend):
    """Whatever rule chose a token: the log-probability is the model's, before any rule; the text is that of a run without taps."""
    checkpoint = made["llama"]
    found = tapped(checkpoint.folder, PROMPTS, backend, **settings)
    assert_read(checkpoint, found, backend)
    with opened(checkpoint.folder, backend, **settings) as pipeline:
        plain = pipeline.run(words=PROMPTS)["text"]
        assert plain == pipeline.run(words=PROMPTS, outputs=TAPS)["text"]
    assert [checkpoint.processor.decode(ids, skip_special_tokens=True) for ids in found[0]] == plain


@pytest.mark.parametrize("backend", BACKENDS)
def test_answers_that_end_early_are_tapped_to_their_ends(made, backend):
    """By an end token, which counts, and by a stop string; the others go on."""
    checkpoint = made["llama"]
    whole = tapped(checkpoint.folder, PROMPTS, min_new_tokens=NEW)[0]
    ended = tapped(checkpoint.folder, PROMPTS, backend, end_ids=[whole[0][2], 0])
    assert len(ended[0][0]) == whole[0].index(whole[0][2]) + 1
    assert max(map(len, ended[0])) > len(ended[0][0]) or len({*map(len, ended[0])}) == 1
    assert_read(checkpoint, ended, backend)
    letters = checkpoint.processor.decode(whole[1][1:3], skip_special_tokens=True).strip()
    stopped = tapped(checkpoint.folder, PROMPTS, backend, stop=[letters or "x"])
    assert_read(checkpoint, stopped, backend)


@pytest.mark.parametrize("backend", ON_TORCH)
def test_states_may_be_those_of_some_tokens_alone(made, backend):
    """As many as each answer holds of them, in their order; nothing of an answer without."""
    checkpoint = made["llama"]
    ids, _, states = tapped(checkpoint.folder, PROMPTS, backend, min_new_tokens=NEW)
    token = ids[0][1]
    name = checkpoint.processor.convert_ids_to_tokens(token)
    with opened(checkpoint.folder, backend, min_new_tokens=NEW, states={"layers": LAYERS, "at": [name]}) as pipeline:
        found = pipeline.run(words=PROMPTS, outputs=["llm.states"])["llm.states"]
    for row, answer in enumerate(ids):
        places = [place for place, one in enumerate(answer) if one == token]
        assert close(found[row][:, : len(places)], states[row][:, places], backend)
        assert (found[row][:, len(places) :] == 0).all()
    with (
        opened(checkpoint.folder, backend, states={"at": ["[RET]"]}) as pipeline,
        pytest.raises(mg.InputError, match=r"no token '\[RET\]'"),
    ):
        pipeline.run(words=PROMPTS, outputs=["llm.states"])


ASKED = ["llm.prompt_ids", "llm.prompt_states", "llm.prompt_pieces"]


@torch.no_grad()
def prompt_by_transformers(made: checkpoints.Checkpoint, prompt: str) -> tuple[list[int], torch.Tensor]:
    """The tokens of a prompt, and the states of the layers at each."""
    asked = made.processor(prompt, return_tensors="pt").input_ids
    output = made.model(input_ids=asked, output_hidden_states=True)
    return asked[0].tolist(), torch.stack([output.hidden_states[layer][0] for layer in LAYERS])


@pytest.mark.parametrize("family", MADE)
@pytest.mark.parametrize("backend", ON_TORCH)
@pytest.mark.parametrize("new", [0, NEW])
def test_prompts_are_tapped_as_they_are_read(made, family, backend, new):
    """Every token of each, in a batch of unequal ones and alone, whether anything is written or not; answers and their taps stay."""
    checkpoint = made[family]
    wanted = [*TAPS, *ASKED]
    with opened(checkpoint.folder, backend, max_new_tokens=new, min_new_tokens=new) as pipeline:
        found = pipeline.run(words=PROMPTS, outputs=wanted)
        alone = [pipeline.run(words=prompt, outputs=wanted) for prompt in PROMPTS]
    for row, prompt in enumerate(PROMPTS):
        ids, hidden = prompt_by_transformers(checkpoint, prompt)
        for told in ([found[name][row] for name in ASKED[:2]], [alone[row][name] for name in ASKED[:2]]):
            tokens, states = told[0].reshape(-1), told[1].reshape(len(LAYERS), -1, told[1].shape[-1])
            assert tokens[: len(ids)].tolist() == ids
            assert (tokens[len(ids) :] == -1).all()
            assert close(states[:, : len(ids)], hidden, backend)
            assert (states[:, len(ids) :] == 0).all()
        assert "".join(found["llm.prompt_pieces"][row]) == checkpoint.processor.decode(ids, skip_special_tokens=True)
    assert found["llm.states"].shape[2] == new
    if new:
        rows = zip(found["llm.ids"], found["llm.logprobs"], found["llm.states"], strict=True)
        assert_read(checkpoint, tuple(map(list, zip(*((ids.tolist(), *rest) for ids, *rest in rows), strict=True))), backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_states_of_a_prompt_may_be_those_of_some_tokens_alone(made, backend):
    """As FROMAGe reads its query at the [RET] that a prompt ends with: in the pass that reads it, with nothing written."""
    checkpoint = made["llama"]
    prompts = ["a cat", "a cat and a dog and a cat", "one"]
    token = checkpoint.processor("a cat").input_ids[-1]
    name = checkpoint.processor.convert_ids_to_tokens(token)
    with opened(checkpoint.folder, backend, max_new_tokens=0, states={"layers": LAYERS, "at": [name]}) as pipeline:
        pipeline.run(words=prompts, outputs=ASKED)
        found = pipeline.run(words=prompts, outputs=[*ASKED, "text", "llm.ids", "llm.states"])
    for row, prompt in enumerate(prompts):
        ids, hidden = prompt_by_transformers(checkpoint, prompt)
        places = [place for place, one in enumerate(ids) if one == token]
        states = found["llm.prompt_states"][row]
        assert close(states[:, : len(places)], hidden[:, places], backend)
        assert (states[:, len(places) :] == 0).all()
        assert [place for place, piece in enumerate(found["llm.prompt_pieces"][row]) if piece == name] == places
    assert (found["text"], found["llm.ids"].shape, found["llm.states"].shape[1:3]) == (["", "", ""], (3, 0), (3, 0))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_prompt_that_goes_on_from_a_kept_one_is_tapped_too(made, backend):
    """Places that were read before are read again, so that their states are there; those behind need no more than they do without."""
    checkpoint = made["llama"]
    first = "a photo of a cat and a dog on it a photo of a cat"
    token = checkpoint.processor(first).input_ids[-1]
    name = checkpoint.processor.convert_ids_to_tokens(token)
    for at in ("written", [name]):
        with opened(checkpoint.folder, backend, max_new_tokens=2, states={"layers": LAYERS, "at": at}) as pipeline:
            for prompt in (first, f"{first} and a cat", first):
                states = pipeline.run(words=prompt, outputs=ASKED)["llm.prompt_states"]
                ids, hidden = prompt_by_transformers(checkpoint, prompt)
                places = [place for place, one in enumerate(ids) if at == "written" or one == token]
                assert close(states.reshape(len(LAYERS), -1, states.shape[-1]), hidden[:, places], backend)


def test_prompts_with_embeddings_are_tapped_where_their_words_stand(made):
    """Places of embeddings have no token, and no piece; the states are those of the whole."""
    checkpoint = made["llama"]
    graph = mg.Graph("taps")
    config = {"prompt": "{words}{seen}{more}", "max_new_tokens": 0, "states": {"layers": LAYERS}}
    inputs = {"words": "text", "seen": "float[batch seen_tokens 28]", "more": "text"}
    wires = {name: graph.input(name, type_) for name, type_ in inputs.items()}
    llm = graph.node("llm/causal", name="llm", source=checkpoint.folder, config=config, **wires)
    graph.output("text", llm.text)
    seen = torch.randn(3, 28, generator=torch.Generator().manual_seed(3))
    with mg.open(graph) as pipeline:
        found = pipeline.run(words="a photo", seen=seen[None], more="of it", outputs=ASKED)
    ids = found["llm.prompt_ids"].reshape(-1).tolist()
    start = ids.index(-1)
    assert ids[start : start + 3] == [-1] * 3
    assert found["llm.prompt_pieces"][start : start + 3] == [""] * 3
    embed = checkpoint.model.get_input_embeddings()
    whole = torch.cat([embed(torch.tensor(ids[:start])), seen, embed(torch.tensor(ids[start + 3 :]))])
    with torch.no_grad():
        output = checkpoint.model(inputs_embeds=whole[None], output_hidden_states=True)
    words = [place for place, one in enumerate(ids) if one >= 0]
    wanted = torch.stack([output.hidden_states[layer][0, words] for layer in LAYERS])
    assert close(found["llm.prompt_states"].reshape(wanted.shape), wanted, "torch")


def test_beams_read_their_prompts_once(made):
    """States of a prompt do not depend on how the answer is found."""
    with opened(made["llama"].folder, beams=3) as pipeline:
        found = pipeline.run(words=PROMPTS, outputs=[*TAPS, *ASKED])
    for row, prompt in enumerate(PROMPTS):
        ids, hidden = prompt_by_transformers(made["llama"], prompt)
        assert close(found["llm.prompt_states"][row][:, : len(ids)], hidden, "torch")


def test_pieces_are_what_each_token_adds_to_the_text(made):
    """They join to it, also where a stop string cuts it; a token that `states.at` names has its name, and adds nothing."""
    checkpoint = made["llama"]
    whole = tapped(checkpoint.folder, PROMPTS, min_new_tokens=NEW)[0]
    token = whole[0][3]
    name = checkpoint.processor.convert_ids_to_tokens(token)
    for config in ({}, {"stop": [checkpoint.processor.decode(whole[1][2:4]).strip()[:2] or "x"]}, {"temperature": 2.0}):
        with opened(checkpoint.folder, **config) as pipeline:
            found = pipeline.run(words=PROMPTS, outputs=["text", "llm.ids", "llm.pieces"])
        assert ["".join(pieces) for pieces in found["llm.pieces"]] == found["text"]
        assert [len(pieces) for pieces in found["llm.pieces"]] == [int((row >= 0).sum()) for row in found["llm.ids"]]
    with opened(checkpoint.folder, states={"at": [name]}, hidden_tokens=[name]) as pipeline:
        found = pipeline.run(words=PROMPTS, outputs=["text", "llm.ids", "llm.pieces"])
    for ids, pieces, text in zip(found["llm.ids"].tolist(), found["llm.pieces"], found["text"], strict=True):
        written = [one for one in ids if one >= 0]
        assert [place for place, piece in enumerate(pieces) if piece == name] == [
            place for place, one in enumerate(written) if one == token
        ]
        assert "".join(piece for piece in pieces if piece != name) == text


def test_pieces_of_bytes_wait_for_a_whole_letter():
    """A letter of several tokens belongs to the last of them; what stays broken at the end is not lost."""
    letters = list("aé🙂".encode())
    decode = lambda ids: bytes(ids).decode(errors="replace")  # noqa: E731
    assert pieces_of(letters, decode, {}, text="aé🙂") == ["a", "", "é", "", "", "", "🙂"]
    assert pieces_of([*letters[:3], 7, *letters[3:5]], decode, {7: "[RET]"}, text=decode([*letters[:3], *letters[3:5]])) == [
        "a", "", "é", "[RET]", "", "\N{REPLACEMENT CHARACTER}",
    ]  # fmt: skip
    assert pieces_of([97, 98, 99], decode, {}, text="ab") == ["a", "b", ""]


@pytest.mark.parametrize("backend", ["torch", pytest.param("onnx", marks=[pytest.mark.slow, SMALLER])])
def test_an_encoder_decoder_is_tapped_where_it_writes(tmp_path, backend):
    """T5: the states of its decoder."""
    checkpoint = checkpoints.t5(tmp_path / "t5")
    layers = [0, -1]
    with opened(checkpoint.folder, backend, "llm/seq2seq", states={"layers": layers}, min_new_tokens=NEW) as pipeline:
        found = pipeline.run(words="a photo of", outputs=TAPS)
    ids = found["llm.ids"][0]
    asked = checkpoint.processor("a photo of", return_tensors="pt").input_ids
    begun = torch.cat([torch.tensor([[checkpoint.model.config.decoder_start_token_id]]), ids[None]], 1)
    with torch.no_grad():
        output = checkpoint.model(input_ids=asked, decoder_input_ids=begun, output_hidden_states=True)
    likely = output.logits[0, :-1].log_softmax(-1).gather(1, ids[:, None])[:, 0]
    assert close(found["llm.logprobs"][0], likely, backend)
    assert close(found["llm.states"][0], torch.stack([output.decoder_hidden_states[layer][0, 1:] for layer in layers]), backend)


def test_taps_that_nobody_reads_are_not_there(made, monkeypatch):
    """Neither in the plan nor in the work: no softmax, no hidden states, no token more; and a run with them is another result."""
    folder = made["llama"].folder
    with opened(folder) as pipeline:
        assert list(pipeline.plan.nodes["llm"].node.out_ports) == ["text", "logits"]
        keys = {planner.plan(pipeline.plan.graph, wanted=wanted).nodes["llm"].key for wanted in (["text"], ["llm.ids"], TAPS)}
        assert len(keys) == 3
        with monkeypatch.context() as patch:
            patch.setattr(Taps, "note_logits", None)
            patch.setattr(Taps, "note_states", None)
            text = pipeline.run(words="a")["text"]
        assert pipeline.run(words="a", outputs=TAPS)["text"] == text


def test_a_tap_feeds_other_nodes_with_its_width_solved(made):
    """A projection of the states, whose width nobody wrote."""
    graph = mg.Graph("taps")
    config = {"prompt": "{words}", "max_new_tokens": 3, "min_new_tokens": 3}
    llm = graph.node("llm/causal", name="llm", source=made["llama"].folder, config=config, words=graph.input("words", "text"))
    ids = graph.node("llm/causal", name="other", source=made["llama"].folder, config=config, words=llm.text)
    graph.output("ids", llm.ids)
    graph.output("text", ids.text)
    with mg.open(graph) as pipeline:
        found = pipeline.run(words="a")
        assert found["ids"].shape == (1, 3)
        assert list(pipeline.plan.nodes["other"].node.out_ports) == ["text", "logits"]
        assert list(pipeline.plan.nodes["llm"].node.out_ports) == ["text", "logits", "ids"]
    assert str(pipeline.plan.graph.nodes["llm"].out_ports["states"]) == "float[batch 1 positions 28]"


def test_a_layer_that_is_not_there_is_refused_by_the_check(made):
    """With the layers that there are."""
    with pytest.raises(
        mg.GraphError, match=r"llm\.states\.layers names layer 9, and the model has 2 layers, which are 0 to 2, or -3 to -1"
    ):
        opened(made["llama"].folder, states={"layers": [9]})
