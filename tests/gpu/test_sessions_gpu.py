"""Sessions on a GPU beside torch: `pytest -m gpu`. Every test runs twice, and its twin on memory of the host runs everywhere."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from modelgraft.plugin import table_of
from modelgraft_plugins.llm.grouped import GroupedDecoder
from modelgraft_plugins.onnx.calling import Exported
from modelgraft_plugins.onnx.graphs import SessionGraph
from modelgraft_plugins.onnx.sessions import open_session
from support.ordering import CapturingSession, HostOrder
from support.toy_decoder import LAYOUT, oracle, weights, write_graph

HALF = replace(LAYOUT, dtype="float16")
TABLE = weights()["table"].half().float()
# Nothing that was exported may run on the host: such a node is an error.
STRICT = {"session.disable_cpu_ep_fallback": "1"}


@pytest.fixture(params=["cpu", pytest.param("cuda:0", marks=pytest.mark.gpu)])
def device(request):
    return request.param


def opened(path, device):
    return open_session(path, device=device, settings=STRICT if device != "cpu" else None)


def order_for(device):
    return HostOrder() if device == "cpu" else None


def write_tower(path, width=256, depth=6):
    """tanh(x @ w) again and again, float32[batch tokens width]: enough work that a reader who does not wait comes too early."""
    draw = torch.Generator().manual_seed(2)
    matrices = [torch.randn(width, width, generator=draw) / width**0.5 for _ in range(depth)]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", "tokens", width]) for name in ("x", "y")]
    names = ["x", *(f"h{layer}" for layer in range(1, depth)), "y"]
    nodes = [
        node
        for layer in range(depth)
        for node in (
            helper.make_node("MatMul", [names[layer], f"w{layer}"], [f"p{layer}"]),
            helper.make_node("Tanh", [f"p{layer}"], [names[layer + 1]]),
        )
    ]
    constants = [numpy_helper.from_array(matrix.numpy(), f"w{layer}") for layer, matrix in enumerate(matrices)]
    model = helper.make_model(helper.make_graph(nodes, "tower", ends[:1], ends[1:], constants), opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 10
    onnx.save(model, path)
    return matrices


def tower(x, matrices):
    for matrix in matrices:
        x = torch.tanh(x @ matrix.to(x))
    return x


@pytest.mark.parametrize("stream", ["current", "own"])
def test_torch_and_a_session_work_in_turn_without_the_host(tmp_path, device, stream):
    """What torch has not finished is waited for, what the session has not finished too; on whatever stream the caller works.

    float32 products are exact to float32: TF32 would be off by a thousandth.
    """
    matrices = write_tower(tmp_path / "t.onnx")
    exported = Exported(opened(tmp_path / "t.onnx", device), device=device, order=order_for(device))
    draw = torch.Generator().manual_seed(3)
    given = [torch.randn(4, 64, 256, generator=draw) for _ in range(8)]
    side = torch.cuda.stream(torch.cuda.Stream()) if device != "cpu" and stream == "own" else contextlib.nullcontext()
    with torch.no_grad(), side:
        results = []
        for x in given:
            before = tower(x.to(device, non_blocking=True), matrices)  # still under way when the session starts
            (after,) = exported(before)
            del before  # its memory must not be handed out while the session reads it
            torch.zeros(4, 64, 256, device=device).add_(7)  # would land there
            results.append(tower(after, matrices))  # reads at once
        found = [result.cpu() for result in results]
    for x, y in zip(given, found, strict=True):
        expected = tower(tower(tower(x.double(), matrices), matrices), matrices)
        assert (y - expected).abs().max() <= 1e-4 * expected.abs().max()


def decoder_on(path, device):
    """A float16 decoder; on the host a session that captures as the GPU's does."""
    write_graph(path, half=True)
    session = opened(path, device)
    capturing = CapturingSession(session) if device == "cpu" else session
    return GroupedDecoder(SessionGraph(capturing, device=device, order=order_for(device)), HALF, table_of(TABLE))


def prompts(*lengths):
    draw = torch.Generator().manual_seed(1)
    return [torch.randn(length, 16, generator=draw) for length in lengths]


@pytest.mark.parametrize("lengths", [(5, 5), (3, 9), (4,)])
def test_a_decoder_reads_prompts_and_captured_steps(tmp_path, device, lengths):
    """Logits within what float16 resolves, through captured steps, a reordering and a second run on the same capture."""
    decoder = decoder_on(tmp_path / "d.onnx", device)
    for _ in range(2):
        rows = prompts(*lengths)
        with torch.no_grad():
            session = decoder.start(rows, room=20)
            got = session.logits
            for step in range(12):
                expected = torch.stack([oracle(row) for row in rows])
                assert (got.float().cpu() - expected).abs().max() <= 2e-2 * expected.abs().max(), step
                tokens = torch.tensor([(3 * step + row) % 11 for row in range(len(rows))])
                got = session.step(tokens.to(device))
                rows = [torch.cat([row, TABLE[token][None]]) for row, token in zip(rows, tokens.tolist(), strict=True)]
                if step == 5:
                    got = got.flip(0)
                    session.reorder(torch.arange(len(rows) - 1, -1, -1, device=device))
                    rows = rows[::-1]
        assert session.memory.one.captured.is_proven
        session.close()


def test_logits_of_a_prompt_stay_while_steps_go_on(tmp_path, device):
    """They are handed over to the stream of the caller: a copy that it makes is done before the next step writes over them."""
    session = decoder_on(tmp_path / "d.onnx", device).start(prompts(6), room=20)
    kept = session.logits.cpu().clone()
    first = session.logits.clone()
    for token in range(6):
        session.step(torch.tensor([token], device=device))
    assert torch.equal(first.cpu(), kept)


@pytest.mark.gpu
def test_a_session_is_opened_as_written(tmp_path):
    """On torch's stream, without TF32, captured only where that can be. Twin: test_onnx_cuda.py, with what onnxruntime is told."""
    write_tower(tmp_path / "t.onnx")
    write_graph(tmp_path / "d.onnx", half=True)
    for name, captures in (("t.onnx", "0"), ("d.onnx", "1")):
        session = open_session(tmp_path / name, device="cuda:0", settings=STRICT)
        options = session.get_provider_options()["CUDAExecutionProvider"]
        assert session.get_providers()[0] == "CUDAExecutionProvider"
        assert (options["use_tf32"], options["enable_cuda_graph"]) == ("0", captures)
        assert int(options["user_compute_stream"]) != 0
