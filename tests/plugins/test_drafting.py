"""A smaller model that guesses ahead: the answers are those that are written without it, whatever it guesses."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers as hf

import modelgraft as mg
from modelgraft.loops.drafting import STEPS_ALONE, Drafting, DraftModel
from modelgraft_plugins.llm import plain
from modelgraft_plugins.llm.decoders import CausalDecoder
from modelgraft_plugins.llm.draft_writer import DraftWriter
from plugins.test_guessing import PROMPTS, WAYS, write
from support import checkpoints
from support.checkpoints import randomise
from support.small_decoders import FACTS, exported, model_of, plain_decoder

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
NEW = 40


def other_decoder(*, seed: int = 1, **facts: Any) -> tuple[Any, Any]:
    """One with weights of its own."""
    torch.manual_seed(seed)
    model = plain.Model({**FACTS, **facts}).eval().requires_grad_(requires_grad=False)
    return plain.Decoder(model, layers=()), model.model.embed_tokens


def drafting(decoder: Any, embed: Any, rows: list[list[int]], *, price: float = 0.1, vocabulary: int = 97, **draft: Any) -> Drafting:
    made = DraftModel(decoder, embed, torch.device("cpu"), **{"vocabulary": 97, **draft})
    return Drafting(made, rows, room=NEW, vocabulary=vocabulary, price=price)


@pytest.fixture(scope="module", params=["plain", "llama", "gpt2", pytest.param("grouped", marks=pytest.mark.slow)])
def decoder(request: pytest.FixtureRequest) -> tuple[str, Any, Any]:
    """A decoder, and its embeddings."""
    if request.param == "plain":
        return ("plain", *plain_decoder())
    if request.param == "grouped":
        return ("grouped", *exported("grouped"))
    model = model_of(request.param)
    return request.param, CausalDecoder(model), model.get_input_embeddings()


@pytest.mark.parametrize("way", WAYS)
def test_an_answer_with_a_draft_is_the_one_without(decoder, way):
    """Token by token, by every rule, drawn ones by the same numbers; of single prompts and of batches of unlike ones, of a draft that is
    the model itself and of one that knows nothing."""
    kind, decoder, embed = decoder
    for rows in ([PROMPTS[0]], PROMPTS[1:2], PROMPTS):
        expected = write(decoder, embed, rows, new=NEW, **WAYS[way])
        for guesses in ((decoder, embed), other_decoder()):
            guesser = drafting(*guesses, rows)
            found = write(decoder, embed, rows, new=NEW, lookup=5, guesser=guesser, **WAYS[way])
            assert (found.ids, found.texts) == (expected.ids, expected.texts)
            assert not guesser.draft.lock.locked()
            assert guesser.session is None
            if kind != "grouped" or len(rows) == 1:
                assert found.guesses.guessed > 0


@pytest.mark.parametrize("style", ["plain", pytest.param("grouped", marks=pytest.mark.slow)])
def test_a_draft_with_the_same_weights_is_always_right_and_one_with_others_is_soon_hardly_asked(style):
    """Of the same weights every guess is chosen, so that the calls are a fraction of the tokens; a price is paid for no others for long."""
    decoder, embed = plain_decoder() if style == "plain" else exported("grouped")
    found = write(decoder, embed, PROMPTS[:1], new=NEW, lookup=6, guesser=drafting(decoder, embed, PROMPTS[:1]))
    noted = found.guesses
    assert noted.right == noted.guessed
    assert noted.passes + noted.right == NEW - 1, "the last token is not read"
    assert noted.passes < NEW / 4

    steps = list[int]()
    other, table = other_decoder()
    start = other.start

    def counted(*arguments: Any, **named: Any) -> Any:
        session = start(*arguments, **named)
        step, look = session.step, session.look
        session.step = lambda tokens: (steps.append(1), step(tokens))[1]
        session.look = lambda tokens: (steps.append(1), look(tokens))[1]
        return session

    other.start = counted
    found = write(decoder, embed, PROMPTS[:1], new=NEW, lookup=6, guesser=drafting(other, table, PROMPTS[:1], price=0.5))
    assert found.guesses.passes + found.guesses.right == NEW - 1
    assert len(steps) < NEW / 2


@pytest.mark.parametrize(("dtype", "precision", "bytes_"), [("float32", "", 400), ("bfloat16", "", 200), ("float32", "w4", 62.5)])
def test_what_a_guess_costs_is_what_a_step_reads_of_the_draft(dtype, precision, bytes_):
    """Not how many numbers it has: a model whose weights lie in fewer bits may guess for itself."""
    draft = DraftWriter(SimpleNamespace(parameters=lambda: 100), FACTS)
    node = SimpleNamespace(name="small", component=SimpleNamespace(id="llm/draft"))
    draft.prepare(SimpleNamespace(ledger=None, node=node, device="cpu", dtype=dtype, precision=precision))
    assert draft.weights() == bytes_


def test_what_a_draft_cannot_do_is_told_and_the_answer_is_the_same():
    """A context that is too short, one that ends on the way, tokens that it does not know, and sessions that take nothing back."""
    decoder, embed = plain_decoder()
    expected = write(decoder, embed, PROMPTS[:1], new=NEW).ids

    def found(guesser: Drafting) -> Any:
        answer = write(decoder, embed, PROMPTS[:1], new=NEW, lookup=5, guesser=guesser)
        assert answer.ids == expected
        return answer.guesses

    length = len(PROMPTS[0])
    told = found(drafting(decoder, embed, PROMPTS[:1], positions=length))
    assert (told.guessed, told.why) == (
        0,
        "the draft cannot go on: a prompt leaves no room in its context, or holds no token that it knows",
    )
    told = found(drafting(decoder, embed, PROMPTS[:1], positions=length + 10))
    assert 0 < told.right <= 10
    assert told.why == ""
    told = found(drafting(decoder, embed, PROMPTS[:1], vocabulary=1))
    assert told.right == 0 or expected[0].count(0) > 0, "it guesses the only token that both know"
    few = drafting(*other_decoder(vocab_size=10), PROMPTS[:1])
    few.draft = DraftModel(few.draft.decoder, few.draft.embed, torch.device("cpu"), vocabulary=10)
    assert found(few).right < 10

    class Alone:
        """Sessions without `look`."""

        def start(self, *arguments: Any, **named: Any) -> Any:
            session = decoder.start(*arguments, **named)

            class Bare:
                close = staticmethod(session.close)

            return Bare()

    assert found(drafting(Alone(), embed, PROMPTS[:1])).why == STEPS_ALONE


GRAPH = """modelgraft: 1
inputs: {{prompt: text}}
nodes:
  small: {{use: llm/draft, from: "{draft}"}}
  llm:
    use: llm/causal
    from: "{model}"
    with: {{max_new_tokens: 24, draft: 6, end_ids: [1], {more}}}
    in: {{prompt: inputs.prompt, draft: small}}
outputs: {{text: llm.text}}
"""
PLAIN = GRAPH.replace('  small: {{use: llm/draft, from: "{draft}"}}\n', "").replace(", draft: 6", "").replace(", draft: small", "")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, one with other weights, and a large one that writes as the first: its further layers add nothing."""
    found = tmp_path_factory.mktemp("drafts")
    facts = {**checkpoints.smollm(found / "large").model.config.to_dict(), "head_dim": 16}  # which is not traced
    models = [hf.LlamaForCausalLM(hf.LlamaConfig(**facts)) for _ in range(2)]
    for seed, model in enumerate(models):
        randomise(model, seed=seed)
        model.eval()
        shutil.copytree(found / "large", found / ("model", "other")[seed])
        model.save_pretrained(found / ("model", "other")[seed])
    count = facts["num_hidden_layers"]
    large = hf.LlamaForCausalLM(hf.LlamaConfig(**{**facts, "num_hidden_layers": 5 * count}))
    large.load_state_dict(models[0].state_dict(), strict=False)
    with torch.no_grad():
        for layer in large.model.layers[count:]:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
    large.save_pretrained(found / "large")
    return found


def written(folder: Path, text: str, **fields: str) -> str:
    path = folder / f"graph{len(list(folder.glob('*.yaml')))}.yaml"
    path.write_text(text.format(**{"more": "", "model": "./large", "draft": "./model", **fields}), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("backend", ["torch", pytest.param("onnx", marks=pytest.mark.slow)])
@pytest.mark.parametrize("more", ["temperature: 0", "temperature: 0.8, top_k: 6"])
def test_a_graph_with_a_draft_answers_as_the_one_without_and_tells_of_its_guesses(folder, backend, more):
    """Both nodes on the backend; the plan counts the draft as a node of its own, with its bytes."""
    prompts = ["one two one two one two", "a b c"]
    with mg.open(written(folder, PLAIN, more=more), backend=backend) as pipeline:
        expected = [pipeline.run(prompt=prompt)["text"] for prompt in prompts]
    for draft in ("./model", "./other"):
        path = written(folder, GRAPH, draft=draft, more=more)
        nodes = mg.plan(path).nodes
        counted = hf.AutoModelForCausalLM.from_pretrained(folder / draft).num_parameters()
        assert nodes["small"].parameters.total == counted < nodes["llm"].parameters.total / 2
        assert nodes["small"].bytes == 4 * counted
        counts = Counter[str]()
        with mg.open(path, backend=backend) as pipeline:
            for prompt, text in zip(prompts, expected, strict=True):
                events = list(pipeline.stream(prompt=prompt))
                assert next(event["result"]["text"] for event in events if event.kind == "result") == text
                (told,) = [event for event in events if event.kind == "guesses"]
                assert told["passes"] + told["right"] <= 23
                counts.update({name: told[name] for name in ("right", "guessed")})
            if draft == "./model" and "0.8" not in more:
                assert counts["right"] == counts["guessed"] > 10
            if backend == "torch":
                assert pipeline.run(prompt=prompts)["text"] == expected


def problems(path: str) -> list[tuple[str, str]]:
    with pytest.raises(mg.GraphError) as caught:
        mg.check(path)
    return [(problem.code, problem.found) for problem in caught.value.problems]


def test_a_draft_of_other_tokens_is_one_error_of_the_checker(folder, tmp_path):
    """Where both tokenizers are on this machine: it says which model, and what to do. Tokens that are added to the same are no others."""
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    path, file = written(tmp_path, GRAPH, draft="./other"), tmp_path / "other" / "tokenizer.json"
    tokenizer = json.loads(file.read_text(encoding="utf-8"))
    tokenizer["added_tokens"] = tokenizer["added_tokens"][:-1]
    file.write_text(json.dumps(tokenizer), encoding="utf-8")
    mg.check(path)
    vocabulary = tokenizer["model"]["vocab"]
    first, second = sorted(vocabulary)[:2]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    file.write_text(json.dumps(tokenizer), encoding="utf-8")
    ((code, found),) = problems(path)
    assert code == "space-mismatch"
    assert found == "the draft of llm has other tokens than ./large (the vocabularies of their tokenizer.json differ)"
    file.unlink()
    mg.check(path)


@pytest.mark.parametrize(
    ("old", "new", "code", "said"),
    [
        (", draft: small", "", "missing-input", "draft"),
        (
            ", draft: small",
            ", draft: inputs.prompt",
            "space-mismatch",
            "llm.draft takes a smaller model that guesses, and what is wired to it is none",
        ),
        ("draft: 6, ", "", "unknown-port", "draft"),
        (
            "draft: 6",
            "draft: 6, lookup: 4",
            "wrong-value",
            "draft: 6 guesses how one answer goes on, and lookup: 4 goes another way; choose one",
        ),
        (
            "draft: 6",
            "draft: 6, beams: 3",
            "wrong-value",
            "draft: 6 guesses how one answer goes on, and beams: 3 goes another way; choose one",
        ),
        ("draft: 6", "draft: true", "wrong-value", "true is no number of tokens; write draft: 8"),
        ("draft: 6", "lookup: true", "wrong-value", "true is no number of tokens; write lookup: 8"),
        ("draft: 6", "draft: 65", "wrong-value", "65"),
        (
            '{draft}"',
            '{draft}", with: {{beams: 2}}',
            "wrong-value",
            "a draft guesses and writes nothing: beams stands in the node that it guesses for",
        ),
        ('{draft}"', '{draft}", with: {{prompt: "{{x}}"}}', "wrong-value", "a draft guesses and writes nothing: prompt stands"),
        ("llm/causal", "llm/seq2seq", "source-mismatch", "use llm/causal"),
    ],
)
def test_what_is_wrong_with_a_draft_is_told(folder, old, new, code, said):
    """By the checker, in the words of the file."""
    assert old in GRAPH
    found = problems(written(folder, GRAPH.replace(old, new)))
    assert any(each == code and said in text for each, text in found), found
