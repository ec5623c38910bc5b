"""A decoder whose cache lies in place, against loops without a cache: on the host, and as on a device, captured and not."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import pytest
import torch

from modelgraft.engine.parity import parity_of
from modelgraft.kernel.words.errors import InputError, PluginError
from modelgraft.plugin import as_tensor, table_of
from modelgraft_plugins.llm import CausalConfig
from modelgraft_plugins.llm.causal_writer import CausalWriter
from modelgraft_plugins.llm.grouped import GroupedDecoder, GroupedSession
from modelgraft_plugins.onnx import traced
from modelgraft_plugins.onnx.capturing import is_worth_capturing
from modelgraft_plugins.onnx.graphs import SessionGraph
from modelgraft_plugins.onnx.sessions import open_session
from support.ordering import CapturingSession, HostOrder
from support.toy_decoder import LAYOUT, oracle, weights, write_graph

TABLE = weights()["table"]


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    path = tmp_path_factory.mktemp("toy") / "toy.onnx"
    write_graph(path)
    return open_session(path, device="cpu")


def test_a_loop_that_cannot_be_prepared_is_not_taken_for_a_broken_export():
    """Which would be made again, to no end: what its code raises is told as that of the plugin."""

    def prepare(context):
        raise ValueError(f"no files for {context}")

    component = SimpleNamespace(id="toy/loop@1", plugin="toy")
    context = SimpleNamespace(node=SimpleNamespace(component=component))
    with pytest.raises(PluginError, match=r"plugin 'toy': toy/loop@1 could not be prepared: .*no files for") as caught:
        traced._prepare(SimpleNamespace(prepare=prepare), context)
    assert isinstance(caught.value.__cause__, ValueError)


def embedding(kind):
    """The same embeddings in every form that there is a way for; bfloat16 rounds them, so all are rounded."""
    rounded = TABLE.bfloat16()
    if kind == "module":
        module = torch.nn.Embedding(11, 16)
        module.weight = torch.nn.Parameter(rounded.float())
        return module
    if kind == "scaled":

        class Scaled(torch.nn.Embedding):
            def forward(self, ids):
                return super().forward(ids) * 2

        module = Scaled(11, 16)
        module.weight = torch.nn.Parameter(rounded.float() / 2)
        return module
    if kind == "function":
        return lambda ids: rounded[ids].float()
    return table_of(rounded if kind == "bfloat16" else rounded.float())


def decoder_of(session, embed, *, order=None, device="cpu"):
    return GroupedDecoder(SessionGraph(session, device=device, order=order), LAYOUT, embed)


def prompts(*lengths):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(length, 16, generator=generator) for length in lengths]


def assert_follows(decoder, asked, *, steps=6, room=9):
    """Each row as the oracle has it, through prompts, tokens, and a reordering that makes the batch larger."""
    rows = [row.clone() for row in asked]
    with torch.no_grad():
        reading = decoder.start(asked, room=room)
        got = as_tensor(reading.logits)
        for step in range(steps):
            expected = torch.stack([oracle(row) for row in rows])
            assert (got - expected).abs().max() <= 1e-5 * expected.abs().max(), step
            tokens = torch.tensor([(3 * step + 2 * row) % 11 for row in range(len(rows))])
            got = as_tensor(reading.step(tokens))
            rows = [torch.cat([row, TABLE.bfloat16().float()[token][None]]) for row, token in zip(rows, tokens.tolist(), strict=True)]
            if step in (2, 4):
                picked = torch.tensor([len(rows) - 1, 0, 0] if step == 2 else [2, 0, 1])
                got = got[picked]
                reading.reorder(picked)
                rows = [rows[row] for row in picked.tolist()]
    reading.close()


WAYS = [(None, "module"), (None, "scaled"), (None, "rows"), (None, "bfloat16"), (None, "function")]
WAYS += [(HostOrder, "module"), (HostOrder, "bfloat16"), (HostOrder, "function")]


@pytest.mark.parametrize(("order", "kind"), WAYS, ids=[f"{kind}, {'device' if order else 'host'}" for order, kind in WAYS])
def test_every_token_is_read_as_from_the_start(session, order, kind):
    """Rows of equal and of other lengths, in a second run too, whatever the embeddings are and wherever it runs."""
    decoder = decoder_of(session, embedding(kind), order=order and order())
    for lengths in ((4, 7), (5, 5), (3,), (1, 2)):
        assert_follows(decoder, prompts(*lengths))


@pytest.mark.parametrize("order", [None, HostOrder], ids=["host", "device"])
def test_several_tokens_read_at_once_say_what_stands_behind_each(session, order):
    """As one by one, behind a prompt and behind steps, some of them taken back, in memory that served before."""
    decoder, table = decoder_of(session, table_of(TABLE), order=order and order()), TABLE
    for length in (3, 6):
        (row,) = prompts(length)
        reading = decoder.start([row], room=20)
        assert reading.looks
        for count, kept in ((3, 3), (1, 1), (4, 2), (3, 0), (5, 4)):
            tokens = torch.arange(count) * 3 % 11
            found = as_tensor(reading.look(tokens[None]))
            expected = torch.stack([oracle(torch.cat([row, table[tokens[: end + 1]]])) for end in range(count)])
            assert (found[0] - expected).abs().max() <= 1e-5 * expected.abs().max()
            reading.rewind(count - kept)
            row = torch.cat([row, table[tokens[:kept]]])
            step = as_tensor(reading.step(torch.tensor([5])))
            row = torch.cat([row, table[5][None]])
            assert (step[0] - oracle(row)).abs().max() <= 1e-5 * step.abs().max()
        with pytest.raises(InputError, match="more tokens than there is room for"):
            reading.look(torch.zeros(1, 60, dtype=torch.int64))
        reading.close()
    assert not decoder.start(prompts(2, 3), room=4).looks  # the operator reads several tokens behind a cache of one row alone


def test_a_graph_whose_head_reads_one_position_reads_on_step_by_step(tmp_path):
    """As older exports do; it says that it cannot read several."""
    write_graph(tmp_path / "one.onnx", several=False)
    decoder = decoder_of(open_session(tmp_path / "one.onnx", device="cpu"), table_of(TABLE.bfloat16().float()))
    assert_follows(decoder, prompts(4, 7))
    assert not decoder.start(prompts(3), room=4).looks


def test_on_a_device_each_call_is_put_in_order(session):
    """Prompts and tokens are announced, and the host waits for nothing."""
    order = HostOrder()
    decoder = decoder_of(session, table_of(TABLE), order=order)
    decoder.start(prompts(3, 2), room=2).step(torch.tensor([1, 2]))
    assert order.heard == [("begin", 2), ("end",), ("hand over", 1), ("begin", 1), ("end",)]


def captured(session, **options):
    capturing = CapturingSession(session, **options)
    return capturing, decoder_of(capturing, table_of(TABLE.bfloat16().float()), order=HostOrder())


def test_a_proven_step_is_replayed_from_then_on(session):
    """One capture for all runs on one cache: two runs and two replays prove it, then there are replays alone."""
    capturing, decoder = captured(session)
    for count, lengths in ((1, (4, 4)), (2, (6, 2))):
        with torch.no_grad():
            reading = decoder.start(prompts(*lengths), room=9)
        ran, replayed = capturing.ran, capturing.replayed
        rows = prompts(*lengths)
        for step in range(5):
            tokens = torch.tensor([step, step + 1])
            got = reading.step(tokens)
            rows = [torch.cat([row, TABLE.bfloat16().float()[token][None]]) for row, token in zip(rows, tokens.tolist(), strict=True)]
            expected = torch.stack([oracle(row) for row in rows])
            assert (got - expected).abs().max() <= 1e-5 * expected.abs().max()
        assert (capturing.ran - ran, capturing.replayed - replayed) == ((2, 6) if count == 1 else (0, 5))
        reading.close()
    assert list(capturing.graphs) == [1]


def test_a_new_cache_is_captured_anew_and_the_old_capture_forgotten(session):
    """Another batch, and a prompt that does not fit: the addresses are other ones."""
    capturing, decoder = captured(session)
    for lengths in ((4, 4), (3,), (150,)):
        reading = decoder.start(prompts(*lengths), room=9)
        reading.step(torch.tensor([1] * len(lengths)))
        reading.close()
    assert list(capturing.graphs) == [3]


@pytest.mark.parametrize("forgets", ["seqlens_k", "position_ids"])
def test_a_replay_that_forgets_something_is_not_used(session, forgets):
    """What the host decided when it was captured would be repeated: found by the step after, said once, and no logits are wrong."""
    capturing, decoder = captured(session, forgets=forgets)
    message = "the steps of a decoder are not replayed as a CUDA graph, and take longer: a replay gave other logits than a run"
    with pytest.warns(RuntimeWarning, match=message) as said:
        assert_follows(decoder, prompts(4, 7), steps=3)
    assert len(said) == 1
    assert capturing.replayed == 1


def test_a_step_that_cannot_be_captured_runs_as_it_is(session):
    """With the first line of what onnxruntime said, once."""
    capturing, decoder = captured(session, refuses=True)
    with pytest.warns(RuntimeWarning, match="take longer: This session cannot use the graph capture feature$") as said:
        assert_follows(decoder, prompts(4, 7), steps=3)
    assert len(said) == 1
    assert capturing.graphs == {}


def test_a_proof_never_writes_beyond_the_cache(session):
    """When the last token of the room is read first, there is no step after it to try: it runs plainly."""
    capturing, decoder = captured(session)
    decoder.start(prompts(63), room=1).step(torch.tensor([1]))
    assert (capturing.ran, capturing.graphs) == (2, {})


def test_total_may_be_the_capacity_when_a_single_token_is_read(session):
    """What a captured step relies on: bit by bit the same logits."""
    decoder = decoder_of(session, table_of(TABLE))
    reading = decoder.start(prompts(5, 3), room=9)
    first = as_tensor(reading.step(torch.tensor([1, 2]))).clone()
    reading.memory.one.total.fill(reading.memory.capacity)
    reading.memory.one.plain()
    assert torch.equal(as_tensor(reading.logits), first)


def test_graphs_are_captured_by_what_is_in_them(tmp_path):
    """A cache in place, and nothing whose sizes the host decides."""
    path = tmp_path / "toy.onnx"
    write_graph(path)
    assert is_worth_capturing(path)
    for spoilt in (b"GatherND", b"Range"):
        path.write_bytes(path.read_bytes() + spoilt)
        assert not is_worth_capturing(path)
        write_graph(path)
    path.write_bytes(b"MatMul")
    assert not is_worth_capturing(path)


def test_a_cache_that_does_not_fit_is_told_in_plain_words(session, monkeypatch):
    """How large, where, and what to do; afterwards the decoder works as before."""
    decoder = decoder_of(session, table_of(TABLE.bfloat16().float()))
    assert_follows(decoder, prompts(2, 3), steps=1)
    zeros = decoder.holding.zeros

    def full(shape, dtype):
        if len(shape) == 4:
            raise MemoryError("Unable to allocate 8.00 GiB for an array with shape (8589934592,) and data type uint8")
        return zeros(shape, dtype)

    monkeypatch.setattr(decoder.holding, "zeros", full)
    rows, longest = 3, 2**26  # 3 rows * 2**26 tokens * 2 tensors * 8 wide * 4 bytes
    expected = r"the caches of 3 rows of 67,108,864 tokens take (12\.0|at least 12) GiB, and cpu has .*: take fewer records at once"
    with pytest.raises(InputError, match=expected):
        decoder.start(prompts(*[1] * rows), room=longest - 1)
    monkeypatch.undo()
    assert_follows(decoder, prompts(2, 3), steps=1)


def test_float32_is_refused_on_cuda_with_the_way_out(session):
    """Before anything asks for a device: the operator takes half precision alone there."""
    expected = (
        "this decoder is float32, and .* GroupQueryAttention takes float16 on cuda:0: run the node with precision float16, or on device cpu"
    )
    with pytest.raises(InputError, match=expected):
        decoder_of(session, partial(torch.nn.functional.embedding, weight=TABLE), device="cuda:0", order=HostOrder())


class Misreading(GroupedDecoder):
    """A decoder whose runtime is wrong in one way of reading."""

    way = ""

    def session(self):
        found = GroupedSession(self)
        right = getattr(found, self.way)
        setattr(found, self.way, lambda *given: right(*given) * 1.1)
        return found


@pytest.mark.parametrize(("way", "holds"), [("", True), ("step", False), ("look", False)])
def test_the_gate_reads_tokens_one_by_one_and_several_behind_others(session, way, holds):
    """As answers are written, and as guesses and pieces of long prompts are read: whichever is wrong, the export is refused."""
    embed = embedding("rows")
    right = decoder_of(session, embed)
    other = type("Wrong", (Misreading,), {"way": way})(right.graph, LAYOUT, embed) if way else decoder_of(session, embed)
    writer = CausalWriter(CausalConfig(prompt="{text}", model={"model_type": "llama"}), {"vocabulary": 11, "end_ids": ()})
    parts = [{"decoder": decoder, "embed": embed} for decoder in (right, other)]
    one, two = ((lambda *case, given=given: writer.rehearse(given, case, variant="")) for given in parts)
    assert parity_of(one, two, writer.rehearsals(parts[0]), tolerance=1e-5).holds is holds
