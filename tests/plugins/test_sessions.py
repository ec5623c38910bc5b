"""Sessions of decoders: several at once, forked, rewound, closed, and kept by their beginnings, in torch and exported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf

import modelgraft as mg
from modelgraft.loops import prefixes
from modelgraft.plugin import Array, InputError, Ledger, Remembering, as_tensor
from modelgraft_plugins.llm.decoders import CausalDecoder, CrossDecoder
from support import checkpoints
from support.small_decoders import CONFIGS, FACTS, exported, model_of, plain_decoder

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


KINDS = ["plain", *CONFIGS, *(pytest.param(style, marks=pytest.mark.slow) for style in ("grouped", "growing"))]


@pytest.fixture
def decoder(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    """A decoder and its embeddings."""
    if request.param == "plain":
        return plain_decoder()
    if request.param in CONFIGS:
        model = model_of(request.param)
        return CausalDecoder(model), model.get_input_embeddings()
    return exported(request.param)


every_kind = pytest.mark.parametrize("decoder", KINDS, indirect=True)


def words(embed: Any, *ids: int) -> torch.Tensor:
    return embed(torch.tensor(ids)).detach()


def fresh(decoder: Any, prompt: torch.Tensor, *tokens: int) -> torch.Tensor:
    """The logits after a prompt and tokens, read from the start."""
    session = decoder.start([prompt], room=9)
    for token in tokens:
        session.step(torch.tensor([token]))
    found = as_tensor(session.logits).clone()
    session.close()
    return found


def close(got: Array, expected: torch.Tensor) -> bool:
    return bool((as_tensor(got) - expected).abs().max() <= 1e-5 * max(expected.abs().max().item(), 1.0))


@every_kind
@torch.no_grad()
def test_several_sessions_go_on_beside_each_other(decoder):
    """Each with memory of its own, of other sizes, whatever is read in between."""
    decoder, embed = decoder
    first, second = words(embed, 5, 6, 7, 8), words(embed, *range(20, 31))
    one, other = decoder.start([first], room=9), decoder.start([second, first], room=9)
    for token in (3, 9, 4):
        one.step(torch.tensor([token]))
        other.step(torch.tensor([token + 1, token + 2]))
    assert close(one.logits, fresh(decoder, first, 3, 9, 4))
    assert close(other.logits[:1], fresh(decoder, second, 4, 10, 5))
    assert close(other.logits[1:], fresh(decoder, first, 5, 11, 6))
    one.close()
    one.close()
    assert close(other.step(torch.tensor([8, 8]))[:1], fresh(decoder, second, 4, 10, 5, 8))


@every_kind
@torch.no_grad()
def test_a_fork_goes_its_own_way_and_leaves_its_origin_as_it_was(decoder):
    """Rows may be picked, and taken several times."""
    decoder, embed = decoder
    first, second = words(embed, 5, 6, 7, 8), words(embed, *range(20, 31))
    origin = decoder.start([first, second], room=9)
    origin.step(torch.tensor([3, 4]))
    fork = origin.fork(torch.tensor([1, 1, 0]))
    fork.step(torch.tensor([11, 12, 13]))
    origin.step(torch.tensor([14, 15]))
    for row, expected in enumerate([(second, 4, 11), (second, 4, 12), (first, 3, 13)]):
        assert close(fork.logits[row : row + 1], fresh(decoder, *expected)), row
    for row, expected in enumerate([(first, 3, 14), (second, 4, 15)]):
        assert close(origin.logits[row : row + 1], fresh(decoder, *expected)), row


@every_kind
@torch.no_grad()
def test_tokens_can_be_taken_back(decoder):
    """Of the answer, of rows of unequal length, and never more than were read."""
    decoder, embed = decoder
    first, second = words(embed, 5, 6, 7, 8), words(embed, *range(20, 31))
    session = decoder.start([first, second], room=9)
    for tokens in ([3, 4], [9, 9], [7, 7]):
        session.step(torch.tensor(tokens))
    session.rewind(2)
    got = session.step(torch.tensor([8, 6]))
    assert close(got[:1], fresh(decoder, first, 3, 8))
    assert close(got[1:], fresh(decoder, second, 4, 6))
    with pytest.raises(InputError, match="tokens cannot be taken back of"):
        session.rewind(99)


@torch.no_grad()
def test_what_cannot_forget_says_so_and_is_not_kept():
    """Mistral's window has let go of what was before it."""
    torch.manual_seed(0)
    config = hf.MistralConfig(**{key: value for key, value in FACTS.items() if key != "model_type"}, sliding_window=6)
    decoder = CausalDecoder(hf.AutoModelForCausalLM.from_config(config).eval())
    session = decoder.start([torch.randn(9, 32)], room=4)
    session.step(torch.tensor([3]))
    with pytest.raises(InputError, match="a mistral cannot take tokens back: its windows or states have let go of what was before them"):
        session.rewind(1)
    assert not decoder.forgets


@every_kind
@torch.no_grad()
def test_a_prompt_is_read_from_where_it_parts_from_one_before(decoder):
    """Three conversations that begin alike, each going on by turns: the logits are those of reading everything."""
    decoder, embed = decoder
    remembering = Remembering(decoder, embed)
    instruction = list(range(10, 42))
    turns = {name: [*instruction, *tail] for name, tail in {"a": range(50, 70), "b": range(60, 81), "c": range(70, 92)}.items()}
    reused = []
    for turn in range(3):
        for name, ids in turns.items():
            prompt = words(embed, *ids)
            session = remembering.start([prompt], room=9)
            reused.append(remembering.reused)
            assert close(session.logits, fresh(decoder, prompt)), (turn, name)
            said = [(7 * turn + 3) % 90, 5, 9]
            for token in said[:2]:
                session.step(torch.tensor([token]))
            assert close(session.step(torch.tensor([said[2]])), fresh(decoder, prompt, *said))
            session.close()
            ids += [*said, 40 + turn, 4]
    shared = len(instruction)
    first = [len(turns[name]) - 3 * 5 for name in "abc"]
    assert reused == [0, shared, shared, *(size + 3 for size in first), *(size + 5 + 3 for size in first)]


@torch.no_grad()
def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch):
    """By bytes and by number: the oldest goes first, the newest stays whatever it takes."""
    decoder, embed = plain_decoder()
    prompts = [words(embed, *range(start, start + 20)) for start in (3, 30, 60)]
    size = decoder.start([prompts[0]], room=4).bytes
    remembering = Remembering(decoder, embed, most_bytes=2 * size)
    for prompt in prompts:
        remembering.start([prompt], room=4).close()
    assert remembering.bytes == 2 * size
    for prompt, expected in ((prompts[0], 0), (prompts[2], 19)):
        remembering.start([prompt], room=4).close()
        assert remembering.reused == expected
    tight = Remembering(decoder, embed, most_bytes=1)
    for _ in range(2):
        tight.start([prompts[0]], room=4).close()
    assert tight.reused == 19
    monkeypatch.setattr(prefixes, "MOST", 1)
    tight = Remembering(decoder, embed)
    for prompt in prompts:
        tight.start([prompt], room=4).close()
    assert len(tight.kept) == 1
    tight.forget()
    assert tight.bytes == 0


def size_of(decoder: Any, prompt: torch.Tensor) -> int:
    """The bytes of a session, where no memory of an earlier one serves it: that is the first one's now."""
    sessions = [decoder.start([prompt], room=9) for _ in range(2)]
    for session in sessions:
        session.step(torch.tensor([5]))
    return sessions[1].bytes


@every_kind
@torch.no_grad()
def test_a_ledger_bounds_what_is_kept(decoder):
    """Where there is room for one conversation, a second lets the first go; every answer is that of reading everything."""
    decoder, embed = decoder
    first, second = (words(embed, *range(start, start + 20)) for start in (3, 40))
    size = size_of(decoder, first)
    ledger = Ledger({"cpu": size + size // 2})
    remembering = Remembering(decoder, embed)
    remembering.count_in(ledger, "a conversation of llm")
    reused = []
    for prompt in (first, first, second, second, first):
        session = remembering.start([prompt], room=9)
        reused.append(remembering.reused)
        assert close(session.step(torch.tensor([5])), fresh(decoder, prompt, 5))
        assert ledger.taken("cpu") == remembering.bytes == 0, "what goes on is not kept, and there was no room for the other"
        session.close()
        assert ledger.taken("cpu") == remembering.bytes > 0
    assert reused == [0, 19, 0, 19, 0]
    remembering.close()
    assert ledger.taken("cpu") == 0
    session = remembering.start([first], room=9)
    session.close()
    assert (ledger.taken("cpu"), remembering.kept) == (0, [])


@every_kind
@torch.no_grad()
def test_who_needs_the_room_gets_it_from_what_is_kept(decoder):
    """The least recently used goes first; what is read meanwhile goes on, and what finds no room is not kept."""
    decoder, embed = decoder
    prompts = [words(embed, *range(start, start + 20)) for start in (3, 30, 60)]
    size_of(decoder, prompts[0])
    remembering, ledger = Remembering(decoder, embed), Ledger({"cpu": 1 << 20})
    remembering.count_in(ledger, "a conversation of llm")
    for prompt in prompts:
        remembering.start([prompt], room=9).close()
    taken = ledger.taken("cpu")
    again = remembering.start([prompts[0]], room=9)  # goes on
    assert remembering.reused == 19
    node = ledger.hold("eye", (1 << 20) - taken // 3, "cpu")
    assert [one.prompt[0].tolist() for one in remembering.kept] == [prompts[2][0].tolist()]
    assert close(again.step(torch.tensor([5])), fresh(decoder, prompts[0], 5))
    largest = ledger.hold("tongue", taken // 3, "cpu")
    assert remembering.kept == []
    again.close()
    assert remembering.kept == []
    assert [held.what for held in ledger.holdings()] == ["eye", "tongue"]
    node.release()
    largest.release()
    assert ledger.taken("cpu") == 0


GRAPH = """
modelgraft: 1
inputs: {prompt: text, x: "float[batch tokens 36]"}
nodes:
  llm: {use: llm/causal, from: ./model, with: {max_new_tokens: 4}, in: {prompt: inputs.prompt}}
  head: {use: projector/linear, with: {out_features: 36}, in: {x: inputs.x}, lazy: true}
outputs: {text: llm.text, y: head}
"""
HEAD = (36 * 36 + 36) * 4
PROMPTS = ("what is on the small table?", "a photo of the other one")


def test_conversations_give_way_to_nodes_under_max_memory(tmp_path: Path):
    """They show in the table of what is held; with the pipeline all of it is let go of."""
    checkpoints.llama(tmp_path / "model")
    (tmp_path / "toy.yaml").write_text(GRAPH)
    graph, options = mg.load(tmp_path / "toy.yaml"), {"cache_bytes": 0, "device": "cpu"}

    def kept(pipeline: mg.Pipeline) -> list[int | None]:
        return [row.measured for row in pipeline.memory.rows if row.what == "a conversation of llm"]

    def asked(pipeline: mg.Pipeline, prompt: str) -> list[str]:
        return pipeline.run(prompt=[prompt], outputs=["text"])["text"]

    with mg.open(graph, **options) as pipeline:
        wanted = [asked(pipeline, prompt) for prompt in PROMPTS]
        sizes = kept(pipeline)
        assert len(sizes) == 2
        model = pipeline.memory.taken["cpu"] - sum(sizes)
    room = max(*sizes, HEAD)
    assert room < sum(sizes)
    assert room < min(sizes) + HEAD
    with mg.open(graph, max_memory=model + room, **options) as pipeline:
        for _ in range(2):
            for prompt, text in zip(PROMPTS, wanted, strict=True):
                assert asked(pipeline, prompt) == text
                assert len(kept(pipeline)) == 1
        pipeline.run(x=torch.zeros(1, 2, 36), outputs=["y"])
        assert (kept(pipeline), pipeline.memory.taken) == ([], {"cpu": model + HEAD})
        assert asked(pipeline, PROMPTS[0]) == wanted[0]
        assert kept(pipeline) == [], "no node goes for a conversation"
    with mg.open(graph, **options) as pipeline:
        asked(pipeline, PROMPTS[0])
    assert pipeline.memory.taken == {"cpu": 0}
    assert all(row.state == "not loaded" for row in pipeline.memory.rows)
    (tmp_path / "toy.yaml").write_text(GRAPH.replace("./model,", "./model, runtime: {keep: false},"))
    with mg.open(mg.load(tmp_path / "toy.yaml"), **options) as pipeline:
        assert asked(pipeline, PROMPTS[0]) == wanted[0]
        assert pipeline.memory.taken == {"cpu": 0}, "with a node that is let go of its conversations go"


@torch.no_grad()
def test_rows_that_were_moved_and_batches_are_not_kept():
    """Nobody knows any more what a row holds."""
    decoder, embed = plain_decoder()
    remembering, prompt = Remembering(decoder, embed), words(embed, *range(3, 23))
    session = remembering.start([prompt], room=4)
    session.reorder(torch.tensor([0, 0]))
    session.close()
    remembering.start([prompt, prompt], room=4).close()
    assert remembering.kept == []


@torch.no_grad()
def test_an_encoder_decoder_forks_and_rewinds_beside_its_memory():
    """Whisper's: what it attends to stays; it is never kept, because its encoder reads a prompt as a whole."""
    torch.manual_seed(0)
    model = hf.AutoModelForSpeechSeq2Seq.from_config(checkpoints.whisper_config()).eval()
    decoder = CrossDecoder(model, encoder=None)
    memory = list(torch.randn(2, 13, 32))
    begun = [torch.tensor([1, 5])] * 2

    def logits(*tokens: list[int]) -> torch.Tensor:
        session = decoder.start(begun, conditions=memory, room=9)
        for token in tokens:
            session.step(torch.tensor(token))
        return session.logits

    session = decoder.start(begun, conditions=memory, room=9)
    session.step(torch.tensor([3, 4]))
    fork = session.fork(torch.tensor([1, 0]))
    session.rewind(1)
    assert close(session.step(torch.tensor([8, 9])), logits([8, 9]))
    assert close(fork.step(torch.tensor([6, 7])), logits([3, 4], [7, 6])[[1, 0]])
    assert not hasattr(decoder, "alike")


@pytest.mark.slow
def test_a_closed_session_is_refused_and_its_memory_serves_the_next():
    """With the step that is bound to it."""
    decoder, embed = exported("grouped")
    session = decoder.start([words(embed, 5, 6, 7)], room=9)
    session.step(torch.tensor([3]))
    memory = session.memory
    session.close()
    with pytest.raises(InputError, match="this session is closed, and its memory may be another's: start a new one"):
        session.step(torch.tensor([3]))
    assert decoder.start([words(embed, 8, 9)], room=9).memory is memory
