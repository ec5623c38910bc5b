"""Decoders on llama.cpp give what torch gives on the same file: logits, states, sessions that part and go back, and texts.

They need llama-cpp-python, and are skipped where it is not installed.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.plugins.test_formats import LLAMA, gguf_of, randomised
from transformers import LlamaConfig, LlamaForCausalLM

import modelgraft as mg
from modelgraft import GraphError, InputError
from modelgraft.loops.chosen import Tokens
from modelgraft.loops.decoder import ReadsIds, stepping
from modelgraft.plugin import Array, Places, as_tensor
from modelgraft_plugins.llamacpp import loading, native
from modelgraft_plugins.llamacpp.backend import LlamaCppBackend
from modelgraft_plugins.llamacpp.decoder import LlamaDecoder
from modelgraft_plugins.llamacpp.library import library
from modelgraft_plugins.llamacpp.native import Model
from modelgraft_plugins.llm.causal import Causal

pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed: pip install 'modelgraft[llamacpp]' compiles it")

SIZES = {**LLAMA, "hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4, "max_position_embeddings": 512}
TOLERANCES = {
    "F32": 1e-4,
    "F16": 2e-2,
    "Q8_0": 5e-2,
}  # of the largest value: orders of summation, 11 bits, and 8 bits of what is multiplied
EYE = torch.randn(2, 5, 64, generator=torch.Generator().manual_seed(5)) * 0.3  # embeddings of a medium, for two records


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One model with random weights, in several kinds of numbers."""
    home = tmp_path_factory.mktemp("gguf")
    model = randomised(LlamaForCausalLM(LlamaConfig(**SIZES)))
    return {kind: gguf_of(home / f"{kind}.gguf", model, "llama", kind) for kind in TOLERANCES}


class Stopped(Exception):
    """What a run that was stopped raises."""


def graph_of(path: Path, prompt: str = "{prompt}", **config: Any) -> mg.Graph:
    """A language model that answers in nine tokens."""
    graph = mg.Graph("say")
    fields = {"prompt": graph.input("prompt", "text")}
    if "{image}" in prompt:
        fields["image"] = graph.input("image", "float[batch tokens 64]")
    told = {"prompt": prompt, "max_new_tokens": 9, **config}
    if config.pop("asks", False):
        told.pop("asks")
        fields["continuations"] = graph.input("continuations", "list[text]")
    node = graph.node("llm/causal", name="llm", source=str(path), config=told, **fields)
    graph.output("text", node.text)
    return graph


def opened(path: Path, backend: str = "llamacpp", prompt: str = "{prompt}", **config: Any) -> mg.Pipeline:
    options = {key: config.pop(key) for key in ("precision", "fallback") if key in config}
    return mg.open(graph_of(path, prompt, **config), backend=backend, cache_bytes=0, **options)


@pytest.fixture(scope="module", params=["F32", "Q8_0"])
def both(request: pytest.FixtureRequest, files: dict[str, Path]) -> Iterator[tuple[Any, Any, Any, float]]:
    """A decoder on llama.cpp, the same in torch, their embeddings, and how far they may be from each other."""
    path = files[request.param]
    mine = LlamaDecoder(Model(library(), path), threads=2)
    with opened(path, "torch") as theirs:
        theirs.load()
        module = theirs._loader.loaded()["llm"].state
        yield mine, module.torch_decoder().inner, module.embed, TOLERANCES[request.param]
    mine.close()
    mine.model.close()


def near(got: Array, expected: torch.Tensor, tolerance: float) -> bool:
    got = as_tensor(got)
    assert got.shape == expected.shape
    return bool((got - expected).abs().max() <= tolerance * expected.abs().max())


def words(count: int, seed: int) -> torch.Tensor:
    return torch.randint(0, 260, (count,), generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def test_rows_of_unequal_lengths_are_read_as_in_torch(both):
    """Prompts, then tokens one by one, then several at once, of which each place is told."""
    mine, theirs, embed, tolerance = both
    prompts = [embed(words(count, seed)) for seed, count in enumerate((3, 11, 7))]
    one, other = (decoder.start(prompts, room=9) for decoder in (mine, theirs))
    assert isinstance(one, ReadsIds)
    assert near(one.logits, other.logits, tolerance)
    for seed in range(2):
        tokens = words(3, 10 + seed)
        assert near(one.step(tokens), other.step(tokens), tolerance)
    tokens = words(3, 15)
    assert near(stepping(one)(Tokens(ids=tokens.tolist())), other.step(tokens), tolerance)
    ahead = words(12, 20).view(3, 4)
    assert near(one.look(ahead), other.look(ahead), tolerance)
    assert near(one.step(words(3, 21)), other.step(words(3, 21)), tolerance)
    one.close()


@torch.no_grad()
def test_a_prompt_that_is_read_in_pieces_is_read_as_in_torch(both):
    """It is longer than what llama.cpp reads in one call is for states, and places that are wanted lie in several pieces."""
    mine, theirs, embed, tolerance = both
    prompts, wanted = [embed(words(300, 1)), embed(words(140, 2))], [[0, 129, 299], [5]]
    found = []
    for decoder in (mine, theirs):
        places = Places(wanted)
        session = decoder.start(prompts, room=2, states=True, places=places)
        found.append((session.logits, session.states, *places.found, as_tensor(session.step(words(2, 3))).clone(), session.states))
        session.close()
    for got, expected in zip(*found, strict=True):
        assert near(got, expected, tolerance)


@torch.no_grad()
def test_a_large_model_reads_in_small_pieces_and_a_stop_ends_it_between_them(files, monkeypatch):
    """Its logits are those of one piece; what was read until then is gone, and the memory serves the next."""
    prompt = torch.randn(1, 200, SIZES["hidden_size"], generator=torch.Generator().manual_seed(1)) * 0.3
    found = []
    for products in (native.PRODUCTS, 1):
        monkeypatch.setattr(native, "PRODUCTS", products)
        decoder = LlamaDecoder(Model(library(), files["F32"]), threads=1)
        asked: list[int] = []
        decoder.check = lambda asked=asked: asked.append(len(asked))
        session = decoder.start(list(prompt), room=2)
        found.append((decoder, len(asked), as_tensor(session.logits).clone()))
        session.close()
    (one, whole, expected), (other, pieces, got) = found
    assert (whole, pieces) == (0, 3)  # between four pieces of 64 and less
    assert near(got, expected, TOLERANCES["F32"])

    def stop() -> None:
        raise Stopped

    asking, other.check = other.check, stop
    with pytest.raises(Stopped):
        other.start(list(prompt), room=2)
    other.check = asking
    assert near(other.start(list(prompt), room=2).logits, expected, TOLERANCES["F32"])
    for decoder in (one, other):
        decoder.close()
        decoder.model.close()


@torch.no_grad()
def test_what_was_taken_back_is_forgotten(both):
    """Every row goes on as if it had not been read."""
    mine, theirs, embed, tolerance = both
    prompts, tokens = [embed(words(4, 1)), embed(words(6, 2))], words(2, 3)
    session, fresh = mine.start(prompts, room=9), theirs.start(prompts, room=9)
    session.look(words(6, 4).view(2, 3))
    session.rewind(3)
    assert near(session.step(tokens), fresh.step(tokens), tolerance)
    with pytest.raises(InputError, match="6 tokens cannot be taken back of 5 that were read"):
        session.rewind(6)
    session.close()


@torch.no_grad()
@pytest.mark.parametrize("rows", [[1, 0], [1], [0, 0, 1, 1, 1], [1, 1]], ids=str)
def test_rows_go_on_from_others(both, rows):
    """In another order, fewer, more, or several from one, and again from those; a copy leaves what it was made of as it is."""
    mine, theirs, embed, tolerance = both
    prompts = [embed(words(5, 1)), embed(words(8, 2))]
    one, other = mine.start(prompts, room=9), theirs.start(prompts, room=9)
    forks = [session.fork(torch.tensor(rows)) for session in (one, other)]
    for session, twin in ((forks[0], forks[1]), (one, other)):
        if session is one:
            session.reorder(torch.tensor(rows))
            twin.reorder(torch.tensor(rows))
        for seed in range(3):
            tokens = words(len(rows), 30 + seed)
            assert near(session.step(tokens), twin.step(tokens), tolerance)
            again = torch.arange(len(rows)).flip(0) // 2  # some rows twice, others never
            session.reorder(again)
            twin.reorder(again)
    forks[0].close()
    one.close()


@torch.no_grad()
def test_a_session_reads_on_behind_more_than_it_had_room_for(both):
    """As a kept beginning does, also where states are wanted from then on."""
    mine, theirs, embed, tolerance = both
    start, rest = embed(words(9, 1)), embed(words(400, 2))
    session, fresh = mine.start([start], room=1), theirs.start([torch.cat([start, rest])], room=4, states=True)
    session.extend(rest, conditions=None, room=4, states=True)
    assert near(session.logits, fresh.logits, tolerance)
    assert near(session.states, fresh.states, tolerance)
    assert near(session.step(words(1, 3)), fresh.step(words(1, 3)), tolerance)
    session.close()


@torch.no_grad()
def test_what_has_no_room_is_refused(both):
    """Tokens behind the last that was asked for, rows that are not there, and a session that is closed."""
    mine, _, embed, _ = both
    session = mine.start([embed(words(3, 1))], room=1)
    session.step(words(1, 2))
    with pytest.raises(InputError, match="room for 4 tokens of a row, and 5 are to be read"):
        session.step(words(1, 3))
    with pytest.raises(InputError, match="2 rows of tokens are no answer to 1 rows"):
        session.step(words(2, 3))
    session.close()
    session.close()
    with pytest.raises(InputError, match="session is closed"):
        session.step(words(1, 3))
    with pytest.raises(InputError, match=r"llama\.cpp reads at most 256 rows at once, and these are 257: run smaller batches"):
        mine.open(257, 4, states=False)


@torch.no_grad()
@pytest.mark.parametrize("width", [16, 24], ids=["usual", "stated"])
def test_a_memory_tells_what_its_tokens_take(tmp_path, width):
    """By the width of heads that the file states, beside what llama.cpp writes of each token: its place and its sequence, some bytes."""
    stated = {"head_width": width} if width != 16 else {}
    path = gguf_of(tmp_path / "m.gguf", randomised(LlamaForCausalLM(LlamaConfig(**SIZES, head_dim=width))), "llama", **stated)
    decoder = LlamaDecoder(Model(library(), path), threads=1)
    session = decoder.start([torch.randn(3, 64)], room=40)
    context, sizes = session.context, []
    for _ in range(2):
        sizes.append(len(context.taken_out(0)))
        session.look(words(20, 1)[None])
    assert 0 <= (sizes[1] - sizes[0]) / 20 - context.bytes / context.most < 32
    session.close()
    decoder.close()
    decoder.model.close()


ASKED = {
    "greedy": {},
    "beams": {"beams": 3},
    "chosen": {"choices": ("cat", "a dog")},
    "guessed": {"lookup": 4},
}


@pytest.mark.parametrize("asked", ASKED)
def test_a_graph_writes_what_it_writes_in_torch(files, asked):
    """With embeddings in the prompt, for several records and for one, whose beginning is kept for the next."""
    told: list[list[Any]] = []
    for backend in ("llamacpp", "torch"):
        with opened(files["F32"], backend, "{image} says {prompt}", **ASKED[asked]) as pipeline:
            runs = [
                pipeline.run(image=EYE, prompt=["a cat sat", "hat"]),
                pipeline.run(image=EYE[:1], prompt="a cat sat at that hat"),
                pipeline.run(image=EYE[:1], prompt="a cat sat at that mat"),
            ]
            told.append([result["text"] for result in runs])
    assert told[0] == told[1]


def test_texts_are_judged_as_in_torch(files):
    """Each behind the prompt that is read once; hidden states of the answer come with them."""
    names = ["llm.likelihoods", "llm.states", "llm.prompt_states", "llm.logits"]
    found = []
    for backend in ("llamacpp", "torch"):
        with opened(files["F32"], backend, asks=True) as pipeline:
            result = pipeline.run(prompt=["a cat", "that"], continuations=[["s", " at"], ["that cat", "x", "hat"]], outputs=names)
            found.append([result[name] for name in names])
    for name, got, expected in zip(names, *found, strict=True):
        there = torch.isfinite(expected)
        assert torch.equal(torch.isfinite(got), there), name
        assert near(got[there], expected[there], 1e-4), name


def test_the_file_is_compared_with_torch_once(files, monkeypatch: pytest.MonkeyPatch):
    """Afterwards torch is not asked any more, no module is built, and the plan tells what was found."""
    with opened(files["F16"]) as pipeline:
        text = pipeline.run(prompt="a cat")["text"]
        assert pipeline._loader.loaded()["llm"].state is None
    monkeypatch.setattr(loading, "_compared", lambda *_: pytest.fail("it was compared again"))
    monkeypatch.setattr(Causal, "__init__", lambda *_: pytest.fail("its module was built"))
    with opened(files["F16"]) as pipeline:
        assert pipeline.run(prompt="a cat")["text"] == text
    noted = LlamaCppBackend().recorded(mg.plan(graph_of(files["F16"]), backend="llamacpp").nodes["llm"].node, precision="float32")
    assert noted["weights"] == "F16, as the file holds them"
    assert 0 < noted["parity"]["relative"] <= noted["parity"]["tolerance"] == 2e-2


def test_a_second_start_needs_no_torch(tmp_path: Path, files):
    """In a process that may import neither torch nor transformers: greedy, drawn, and guessed ahead."""
    told = {"prompt": "{prompt}", "max_new_tokens": 9}
    node = {"use": "llm/causal", "from": "./Q8_0.gguf", "with": told, "in": {"prompt": "inputs.prompt"}}
    document = {"modelgraft": 1, "inputs": {"prompt": "text"}, "nodes": {"llm": node}, "outputs": {"text": "llm.text"}}
    (tmp_path / "say.yaml").write_text(json.dumps(document))
    shutil.copy(files["Q8_0"], tmp_path)
    asked: list[dict[str, Any]] = [{}, {"temperature": 0.8}, {"lookup": 3}]
    refused = "sys.modules['torch'] = sys.modules['transformers'] = None\n"
    first, second = (written(tmp_path / "say.yaml", asked, before) for before in ("", refused))
    assert second == first


def written(file: Path, asked: Sequence[Mapping[str, Any]], before: str) -> list[str]:
    """What a graph answers with these settings, in a process that runs some code before."""
    code = (
        f"import json, sys\n{before}import modelgraft as mg\nfor settings in json.loads(sys.argv[2]):\n"
        "    graph = mg.load(sys.argv[1], params={f'nodes.llm.with.{name}': value for name, value in settings.items()})\n"
        "    with mg.open(graph, backend='llamacpp') as pipeline:\n        print(json.dumps(pipeline.run(prompt='a cat')['text']))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(file), json.dumps(asked)], capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_what_differs_from_torch_is_refused(files):
    """A setting of the graph that changes the numbers, of which llama.cpp knows nothing."""
    found = r"llm \(llm/causal\) cannot run on the llamacpp backend: what it gives differs from torch: max difference"
    other = {"model": {**mg_config(files["F32"]), "rms_norm_eps": 0.5}}
    with opened(files["F32"], **other) as pipeline, pytest.raises(GraphError, match=found):
        pipeline.run(prompt="a cat")
    with opened(files["F32"], fallback="torch", **other) as pipeline, opened(files["F32"], "torch", **other) as theirs:
        result = pipeline.run(prompt="a cat")
        assert result["text"] == theirs.run(prompt="a cat")["text"]
        assert any("it stays on torch" in text for text in result.warnings)


def mg_config(path: Path) -> dict[str, Any]:
    """The config of a file, as it is read."""
    from modelgraft_plugins.formats import gguf

    return gguf.peek(path)


def test_a_precision_that_is_not_the_files_is_refused(files):
    """With what the file holds; that of a float32 file may be said."""
    found = "llm: precision is float32, and its file holds F16, which llama.cpp runs as it stands: leave precision out, or name a file in"
    with opened(files["F16"], precision="float32") as pipeline, pytest.raises(InputError, match=found):
        pipeline.run(prompt="a cat")
    with opened(files["F32"], precision="float32") as pipeline:
        assert isinstance(pipeline.run(prompt="a cat")["text"], str)


def test_states_of_inner_layers_are_refused(files):
    """llama.cpp gives those that the head reads."""
    with opened(files["F32"], states={"layers": [1]}) as pipeline, pytest.raises(GraphError, match=r"layer -1 alone.*\[1\]"):
        pipeline.run(prompt="a cat", outputs=["llm.states"])
