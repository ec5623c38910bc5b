"""Gated cross-attention grafted into a language model: OpenFlamingo's numbers, what a word sees, what stays as it was."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf

import modelgraft as mg
from modelgraft.plugin import ExportError, Places, as_tensor
from modelgraft.sources import weights
from modelgraft_plugins.llm import gated_causal, gated_export, gated_exported
from modelgraft_plugins.llm.gated import GatedCrossAttention
from modelgraft_plugins.llm.gated_blocks import GatedCrossAttentionBlock, GatedLayers, sight
from modelgraft_plugins.llm.gated_exported import GatedGrowingDecoder
from modelgraft_plugins.llm.gated_writer import GatedWriter, text_time
from modelgraft_plugins.llm.shown import Shown
from modelgraft_plugins.onnx.exporting import open_fresh
from modelgraft_plugins.onnx.graphs import SessionGraph
from modelgraft_plugins.onnx.opened import FolderOpened
from modelgraft_plugins.onnx.rehearsing import asked, prove
from modelgraft_plugins.onnx.tracing import FolderTracer
from support import openflamingo
from support.openflamingo import HEADS, IMAGE, REFERENCE, counted_graph, graph, pictures_of, rows_of, shown_in, text_of
from support.oracles import oracle

pytestmark = [
    pytest.mark.usefixtures("untuned_cache"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]

BLOCK = oracle("openflamingo_gated_block")
SMALLER = pytest.mark.whole("tests/plugins/test_gated.py::test_on_onnx_the_answers_are_those_of_torch")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The parts of the tiny OpenFlamingo."""
    found = tmp_path_factory.mktemp("openflamingo")
    openflamingo.parts(found)
    return found


@pytest.fixture
def parts(folder: Path) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """The loop of the language model, its parts in torch, and those that were exported."""
    with mg.open(graph(folder, new=6), backend="onnx") as pipeline:
        pipeline.load()
        entry = pipeline.backend("onnx").exports["llm"]
        loop = pipeline._loader.loaded()["llm"].loop
        source = pipeline.plan.graph.nodes["llm"].source
    with mg.open(graph(folder)) as pipeline:
        pipeline.load()
        module = pipeline._loader.loaded()["llm"].state
    opened = FolderOpened(
        entry.folder, entry.manifest, lambda name: open_fresh(entry.folder / name), device="cpu", weights=weights.open(source, offline=True)
    )
    return loop, module.parts(()), loop.assemble(opened)


@pytest.mark.parametrize("case", BLOCK.cases)
def test_a_block_answers_as_openflamingo(case: str):
    """Words that see the last medium, all before them, and new words: the attention alone, and the whole block."""
    sizes, found = BLOCK.config, BLOCK.cases[case]
    block = GatedCrossAttentionBlock(
        sizes["dim"], sizes["dim_visual"], heads=sizes["heads"], head_width=sizes["dim_head"], multiple=sizes["ff_mult"]
    )
    block.load_state_dict(BLOCK.weights)
    words, media = found.inputs["x"], found.inputs["media"]
    seen = torch.tensor([text_time(row, 1, frozenset()) for row in found.inputs["media_locations"].long().tolist()])
    if case == "cached":
        seen = seen[:, -1:].expand(-1, words.shape[1])
    medium = torch.arange(1, media.shape[1] + 1).repeat_interleave(media.shape[2]).expand(len(words), -1)
    with torch.no_grad():
        keys, values = block.keys_values(media.flatten(1, 2))
        what = sight([keys, values], seen, medium, attends="all" if case == "all_previous" else "last")
        found.compare(attention=block.attn(words, keys, values, what), y=block(words, keys, values, what))


def prefixes(case: str) -> Iterator[tuple[int, list[int]]]:
    """Each row of a case cut off after each of its tokens, with its row."""
    inputs = REFERENCE.cases[case].inputs
    for row, ids in enumerate(rows_of(inputs["lang_x"], inputs["attention_mask"])):
        yield from ((row, ids[: end + 1]) for end in range(len(ids)))


@pytest.mark.parametrize("case", REFERENCE.cases)
def test_every_position_has_openflamingos_logits(folder: Path, case: str):
    """Rows of unequal length, several pictures, words before the first, pictures that nothing shows, rows without any."""
    found = REFERENCE.cases[case]
    rows, texts = zip(*((row, text_of(ids)) for row, ids in prefixes(case)), strict=True)
    pictures = found.outputs["vision_tokens"][:, :, 0][list(rows)]
    counts = torch.tensor([shown_in(ids) for _, ids in prefixes(case)])
    with mg.open(counted_graph(folder)) as pipeline:
        result = pipeline.run(outputs=["logits", "resampler.latents"], pictures=pictures, counts=counts, prompt=list(texts))
    wanted = torch.cat([logits[mask.bool()] for logits, mask in zip(found.outputs["logits"], found.inputs["attention_mask"], strict=True)])
    assert result["logits"].shape == wanted.shape
    assert (result["logits"] - wanted).abs().max() <= found.tolerances["logits"]


def by_hand(folder: Path, prompt: list[int], pictures: torch.Tensor, *, new: int) -> list[int]:
    """Greedy ids, with everything read anew for each token."""
    ids = list(prompt)
    for _ in range(new):
        with mg.open(graph(folder)) as pipeline:
            logits = pipeline.run(outputs=["logits"], pictures=pictures[None], prompt=text_of(ids))["logits"]
        logits[:, IMAGE] = float("-inf")  # a picture is no word
        ids.append(int(logits.argmax()))
    return ids[len(prompt) :]


PROMPT = [5, IMAGE, 9, 12, IMAGE, 7]


def test_new_words_see_the_last_picture(folder: Path):
    """Token by token with what was kept, the same words as when everything is read again."""
    pictures = pictures_of("two_images", 0)
    with mg.open(graph(folder, new=5)) as pipeline:
        text = pipeline.run(pictures=pictures[None], prompt=text_of(PROMPT))["text"]
    assert text.split() == [f"w{index}" for index in by_hand(folder, PROMPT, pictures, new=5)]


@pytest.mark.parametrize("backend", ["torch", pytest.param("onnx", marks=pytest.mark.slow)])
def test_a_batch_and_beams_give_what_each_record_gives_alone(folder: Path, backend: str):
    """Rows of unequal length with their own pictures; beams move them along with their words."""
    pictures = torch.stack([pictures_of("two_images", 0), pictures_of("two_images", 1)])
    prompts = [text_of(PROMPT), text_of([3, 4, 8, 10, IMAGE, IMAGE, 11, 2, 6])]
    with mg.open(graph(folder, new=4, beams=3), backend=backend) as pipeline:
        together = pipeline.run(pictures=pictures, prompt=prompts)["text"]
        alone = [pipeline.run(pictures=pictures[row : row + 1], prompt=prompts[row])["text"] for row in range(2)]
    with mg.open(graph(folder, new=4, beams=3)) as pipeline:
        expected = pipeline.run(pictures=pictures, prompt=prompts)["text"]
    assert together == alone == expected
    assert together[0] != together[1]


@pytest.mark.parametrize("backend", ["torch", pytest.param("onnx", marks=[pytest.mark.slow, SMALLER])])
def test_prompts_that_look_at_media_are_tapped(folder: Path, backend: str):
    """The head makes the first logits of the state at the last token, whatever else is looked at; another picture, other states."""
    pictures = torch.stack([pictures_of("two_images", 0), pictures_of("two_images", 1)])
    prompts = [text_of(PROMPT), text_of([IMAGE, IMAGE, 4])]
    wanted = ["logits", "llm.prompt_ids", "llm.prompt_states", "llm.states"]
    with mg.open(graph(folder, new=2), backend=backend) as pipeline:
        found = pipeline.run(pictures=pictures, prompt=prompts, outputs=wanted)
        others = pipeline.run(pictures=pictures.flip(0), prompt=prompts, outputs=wanted)
    with mg.open(graph(folder)) as pipeline:
        pipeline.load()
        head = pipeline._loader.loaded()["llm"].state.model.get_output_embeddings()
    ids, states = found["llm.prompt_ids"], found["llm.prompt_states"]
    for row, logits in enumerate(found["logits"]):
        last = int((ids[row] >= 0).nonzero().max())
        with torch.no_grad():
            torch.testing.assert_close(head(states[row, -1, last]), logits, rtol=0.0, atol=1e-4 * float(logits.abs().max()))
    assert (states[0] - others["llm.prompt_states"][0]).abs().max() > 1e-3
    assert found["llm.states"].shape[2] == 2


@pytest.mark.slow
def test_on_onnx_the_answers_are_those_of_torch(folder: Path):
    """First logits within 1e-4 of the largest, the same words; then other pictures with the same words, and the same pictures again."""
    pictures, others = pictures_of("two_images", 0)[None], pictures_of("two_images", 1)[None]
    given = [(pictures, PROMPT), (others, PROMPT), (others, [*PROMPT, 3, 8]), (pictures, [IMAGE, IMAGE, 4])]
    found = {}
    for backend in ("torch", "onnx"):
        with mg.open(graph(folder, new=6), backend=backend) as pipeline:
            results = [pipeline.run(pictures=one, prompt=text_of(ids)) for one, ids in given]
        found[backend] = [(result["text"], result["logits"]) for result in results]
    for (text, logits), (their_text, their_logits) in zip(found["onnx"], found["torch"], strict=True):
        assert text == their_text
        assert (logits - their_logits).abs().max() <= 1e-4 * their_logits.abs().max()
    assert len({text for text, _ in found["torch"]}) > 1


@pytest.mark.slow
@pytest.mark.parametrize("slip", ["", "words see the medium before theirs", "keys and values are exchanged"])
def test_the_parity_gate_looks_at_media(parts: tuple[Any, dict[str, Any], dict[str, Any]], slip: str, monkeypatch: pytest.MonkeyPatch):
    """It lets a sound export pass, and none that looks elsewhere."""
    loop, in_torch, exported = parts
    decoder = exported["decoder"].inner
    if slip.startswith("words"):
        start = decoder.start

        def earlier(prompts: Any, *, conditions: Shown, **given: Any) -> Any:
            return start(prompts, conditions=Shown(conditions.media, [(row - 1).clip(min=0) for row in conditions.seen]), **given)

        decoder.start = earlier
    elif slip:
        look = gated_exported.look

        def exchanged(media: Any, shown: torch.Tensor, pairs: dict[str, torch.Tensor], holding: Any) -> None:
            look(media, shown, pairs, holding)
            for layer in (1, 3):
                key, value = (pairs[f"media.{kind}.{layer}"] for kind in ("key", "value"))
                key[:], value[:] = value.copy(), key.copy()

        monkeypatch.setattr(gated_exported, "look", exchanged)
    assert isinstance(loop, GatedWriter)
    assert prove(loop, asked(loop, in_torch), lambda: exported, "float32").holds is (slip == "")


def test_media_are_projected_once_per_prompt(folder: Path, monkeypatch: pytest.MonkeyPatch):
    """However many words are written: keys and values of each block, for each prompt."""
    calls = []
    original = GatedCrossAttentionBlock.keys_values
    monkeypatch.setattr(GatedCrossAttentionBlock, "keys_values", lambda block, media: calls.append(media.shape) or original(block, media))
    with mg.open(graph(folder, new=7)) as pipeline:
        pipeline.run(pictures=pictures_of("two_images", 0)[None], prompt=text_of(PROMPT))
    assert calls == [(1, 2 * 5, 36)] * 2, "two blocks read two pictures of five latents"


def test_closed_gates_leave_the_language_model_bit_for_bit_as_it_was(folder: Path):
    """Blocks without a source are new: their gates are closed, and the logits are those of the host alone."""
    prompts = [text_of(PROMPT), text_of([4, IMAGE, 8, IMAGE, 15, 16, 23])]
    pictures = torch.stack([pictures_of("two_images", row) for row in range(2)])
    with mg.open(graph(folder, new=5, trained=False)) as pipeline:
        grafted = pipeline.run(pictures=pictures, prompt=prompts)
    path = folder / "alone.yaml"
    path.write_text(ALONE)
    with mg.open(mg.load(path)) as pipeline:
        alone = pipeline.run(prompt=prompts)
    assert torch.equal(grafted["logits"], alone["logits"])
    assert grafted["text"] == alone["text"]


ALONE = """
modelgraft: 1
inputs: {prompt: text}
nodes: {llm: {use: llm/causal, from: ./language, with: {max_new_tokens: 5, suppress_tokens: [61]}, in: {prompt: inputs.prompt}}}
outputs: {text: llm.text, logits: llm.logits}
"""


def logits_of(folder: Path, pictures: torch.Tensor, ids: list[int]) -> torch.Tensor:
    """The logits after a prompt."""
    with mg.open(graph(folder)) as pipeline:
        return pipeline.run(outputs=["logits"], pictures=pictures[None], prompt=text_of(ids))["logits"]


def test_what_is_seen_is_the_last_picture_before_a_word_and_through_earlier_words_the_others(folder: Path):
    """Another second picture changes only what comes after it; another first one reaches the end through the words between."""
    first, second = pictures_of("two_images", 0)
    other = pictures_of("two_images", 1)[0]
    prompts = [[5, IMAGE, 9], [5, IMAGE, 9, IMAGE], [5, IMAGE, 9, IMAGE, 7]]
    counts = torch.tensor([shown_in(ids) for ids in prompts])
    with mg.open(counted_graph(folder)) as pipeline:

        def run(*pictures: torch.Tensor) -> torch.Tensor:
            rows = torch.stack(pictures).expand(3, -1, -1, -1)
            return pipeline.run(outputs=["logits"], pictures=rows, counts=counts, prompt=[text_of(ids) for ids in prompts])["logits"]

        plain, changed_second, changed_first = run(first, second), run(first, other), run(other, second)
    assert torch.equal(plain[0], changed_second[0])
    assert ((plain - changed_second).abs().amax(-1) > 1e-3).tolist() == [False, True, True]
    assert ((plain - changed_first).abs().amax(-1) > 1e-3).tolist() == [True, True, True]


def test_words_before_the_first_picture_get_exactly_nothing_of_it():
    """Not nearly nothing: softmax over what may not be seen is even, so that it is left out afterwards."""
    block = GatedCrossAttentionBlock(12, 7, heads=3, head_width=5, multiple=2)
    with torch.no_grad():
        keys, values = block.keys_values(torch.randn(1, 6, 7))
        what = sight([keys, values], torch.tensor([[0, 0, 1]]), torch.tensor([[1, 1, 1, 2, 2, 2]]), attends="last")
        read = block.attn(torch.randn(1, 3, 12), keys, values, what)
    assert torch.equal(read[0, :2], torch.zeros(2, 12))
    assert read[0, 2].abs().max() > 0


def test_behind_an_end_nothing_is_seen_until_the_next_picture():
    """As in IDEFICS; without ends every word sees the last picture."""
    ids = [1, 9, 3, 2, 4, 9, 5]
    assert text_time(ids, 9, frozenset({2})) == [0, 1, 1, 1, 0, 2, 2]
    assert text_time(ids, 9, frozenset()) == [0, 1, 1, 1, 1, 2, 2]


def ahead_by_loops(ids: list[int], marker: int) -> list[int]:
    """For each token the number of the first marker at or behind it, counted from 1; 0 where there is none."""
    found = []
    for place in range(len(ids)):
        number = 0
        for index, token in enumerate(ids):
            if token == marker and index >= place and not number:
                number = ids[: index + 1].count(marker)
        found.append(number)
    return found


@pytest.mark.parametrize("ids", [[1, 9, 3, 2, 4, 9, 5], [9, 9], [1, 2], [3, 9], [9, 3]], ids=str)
def test_a_caption_before_its_picture_sees_the_next_one(ids: list[int]):
    """As attend_previous=False of the first OpenFlamingo: words behind the last picture see none."""
    assert text_time(ids, 9, frozenset(), attends="next") == ahead_by_loops(ids, 9)


@pytest.mark.parametrize("backend", ["torch", pytest.param("onnx", marks=[pytest.mark.slow, SMALLER])])
def test_words_before_a_picture_can_look_at_it(folder: Path, backend: str):
    """Another first picture changes what is behind none of the words before it, but the words before; new words see no picture."""
    adapter = {
        "use": "adapter/gated_cross_attention", "from": f"{folder}/openflamingo.safetensors#lang_encoder",
        "with": {"every": 2, "attends": "next", **HEADS}, "in": {"media": "resampler"},
    }  # fmt: skip
    pictures, prompt = pictures_of("two_images", 0), text_of([5, 9, IMAGE, 7, IMAGE])
    with mg.open(mg.load(graph(folder, new=4).path, params={"nodes.llm.adapters": [adapter]}), backend=backend) as pipeline:
        run = {"outputs": ["logits", "text"], "prompt": [prompt, text_of([5, 9, IMAGE, 7, IMAGE, 3])]}
        found = pipeline.run(pictures=torch.stack([pictures, pictures]), **run)
        other = pipeline.run(pictures=torch.stack([pictures, pictures.flip(0)]), **run)
        alone = [pipeline.run(pictures=pictures[None], prompt=[text])["text"][0] for text in run["prompt"]]
    assert found["text"] == alone
    assert torch.equal(found["logits"][0], other["logits"][0])
    assert (found["logits"][1] - other["logits"][1]).abs().max() > 1e-4, "earlier words have seen them"


def test_new_words_see_nothing_where_words_look_ahead(folder: Path):
    """Step by step the same words as when everything is read again, where no word stands behind the last picture."""
    adapter = {
        "use": "adapter/gated_cross_attention", "from": f"{folder}/openflamingo.safetensors#lang_encoder",
        "with": {"every": 2, "attends": "next", **HEADS}, "in": {"media": "resampler"},
    }  # fmt: skip
    pictures, ids = pictures_of("one_row", 0)[None], [5, 9, IMAGE]
    with mg.open(mg.load(graph(folder, new=4).path, params={"nodes.llm.adapters": [adapter]})) as pipeline:
        kept = pipeline.run(pictures=pictures, prompt=text_of(ids))["text"]
    with mg.open(mg.load(graph(folder, new=0).path, params={"nodes.llm.adapters": [adapter]})) as pipeline:
        for _ in range(4):
            logits = pipeline.run(outputs=["logits"], pictures=pictures, prompt=text_of(ids))["logits"]
            logits[:, IMAGE] = float("-inf")
            ids.append(int(logits.argmax()))
    assert kept.split() == [f"w{index}" for index in ids[3:]]


FAMILIES = {
    "mpt": lambda: hf.MptConfig(vocab_size=97, d_model=24, n_heads=3, n_layers=3, max_seq_len=64),
    "gpt_neox": lambda: hf.GPTNeoXConfig(
        vocab_size=97, hidden_size=24, intermediate_size=40, num_hidden_layers=3, num_attention_heads=3, max_position_embeddings=64
    ),
    "opt": lambda: hf.OPTConfig(
        vocab_size=97, hidden_size=24, ffn_dim=40, num_hidden_layers=3, num_attention_heads=3, max_position_embeddings=64,
        word_embed_proj_dim=16,
    ),
    "gpt2": lambda: hf.GPT2Config(vocab_size=97, n_embd=24, n_layer=3, n_head=3, n_positions=64, bos_token_id=1, eos_token_id=2),
}  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_blocks_stand_before_the_layers_of_every_family(family: str):
    """Closed gates change nothing, open ones what comes after a medium; the layers are found whatever they are called."""
    torch.manual_seed(0)
    model = hf.AutoModelForCausalLM.from_config(FAMILIES[family]()).eval()
    ids = torch.tensor([[5, 8, 13, 21]])
    with torch.no_grad():
        alone = model(input_ids=ids).logits
    gated = GatedLayers(GatedCrossAttention(every=2, hidden_size=24, num_hidden_layers=3, media_size=7, num_heads=2, head_dim=5))
    gated.attach(model)
    with torch.no_grad():
        pairs = gated.keys_values(torch.randn(1, 4, 7))
        with gated.looking(pairs, torch.tensor([[0, 0, 1, 1]]), torch.tensor([[1, 1, 2, 2]])):
            assert torch.equal(model(input_ids=ids).logits, alone)
            gated.blocks["1"].attn_gate.fill_(1.5)
            opened = model(input_ids=ids).logits
        assert torch.equal(model(input_ids=ids).logits, alone), "outside nothing is looked at"
    assert torch.equal(opened[:, :2], alone[:, :2]), "words before the medium"
    assert ((opened[:, 2:] - alone[:, 2:]).abs().amax(-1) > 1e-3).all()


@SMALLER
@pytest.mark.slow  # it exports
def test_a_common_beginning_is_read_again_only_when_other_media_are_shown(parts: tuple[Any, dict[str, Any], dict[str, Any]]):
    """Another question about the same pictures is read from where it parts; about others, from the start. In torch and exported."""
    _, in_torch, exported = parts
    media, others = (torch.randn(1, 2, 3, 36, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2))
    beginning = [5, IMAGE, *range(3, 16)]
    reused = []
    for shown, ids in ((media, [*beginning, 20]), (media, [*beginning, 21, IMAGE, 22]), (others, [*beginning, 23])):
        seen = Shown(shown, [np.array(text_time(ids, IMAGE, frozenset()))])
        plain = in_torch["decoder"].inner
        with torch.no_grad():
            embedded = [in_torch["embed"](torch.tensor(ids))]
            sessions = [decoder.start(embedded, conditions=seen, room=3) for decoder in (exported["decoder"], in_torch["decoder"], plain)]
            reused.append((exported["decoder"].reused, in_torch["decoder"].reused))
            for token in (7, 9):
                for session in sessions[:2]:
                    torch.testing.assert_close(as_tensor(session.logits), sessions[2].logits, rtol=0.0, atol=1e-5)
                for session in sessions:
                    session.step(torch.tensor([token]))
            for session in sessions:
                session.close()
    assert reused == [(0, 0), (len(beginning),) * 2, (0, 0)]


@pytest.mark.whole("tests/plugins/test_llm_onnx.py::test_what_the_operator_cannot_serve_gets_a_growing_cache")
@pytest.mark.slow
def test_what_the_operator_cannot_serve_looks_at_media_with_a_growing_cache(tmp_path: Path):
    """Heads of 12, which GroupQueryAttention refuses: unequal prompts, tokens one by one, rows that are moved and multiplied."""
    torch.manual_seed(0)
    config = hf.LlamaConfig(vocab_size=97, hidden_size=36, intermediate_size=48, num_hidden_layers=2, num_attention_heads=3)
    model = hf.AutoModelForCausalLM.from_config(config).eval()
    gated = GatedLayers(GatedCrossAttention(every=1, hidden_size=36, num_hidden_layers=2, media_size=12, num_heads=3, head_dim=5))
    with torch.no_grad():
        for parameter in gated.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    gated.attach(model)
    with pytest.raises(ExportError, match="heads are 12 wide"):
        gated_export.export(model, gated, FolderTracer(tmp_path, half=False, weights=None))
    layout = gated_export.export_growing(model, gated, FolderTracer(tmp_path, half=False, weights=None), layers=(0, -1))
    graphs = {name: SessionGraph(open_fresh(tmp_path / f"{name}.onnx"), device="cpu") for name in ("model", "media")}
    embed = model.get_input_embeddings()
    with torch.no_grad():
        prompts = [embed(torch.arange(3, 3 + length)) for length in (7, 3, 11)]
        media = torch.randn(3, 3, 4, 12, generator=torch.Generator().manual_seed(11))
        shown = Shown(media, [np.arange(len(prompt)).clip(max=3) for prompt in prompts])
        decoders = (
            GatedGrowingDecoder(graphs["model"], layout, embed, media=graphs["media"]),
            gated_causal.GatedDecoder(model, gated, layers=(0, -1)),
        )
        places = [Places([[0, 4], [], [2, 5, 10]]) for _ in decoders]
        exported, plain = (
            decoder.start(prompts, conditions=shown, room=9, states=True, places=wanted)
            for decoder, wanted in zip(decoders, places, strict=True)
        )
        for mine, theirs in zip(places[0].found, places[1].found, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=0.0, atol=1e-5)
        torch.testing.assert_close(as_tensor(exported.states), plain.states, rtol=0.0, atol=1e-5)
        got, expected = exported.logits, plain.logits
        for step in range(5):
            torch.testing.assert_close(as_tensor(got), expected, rtol=0.0, atol=1e-5)
            tokens = expected.argmax(-1)
            got, expected = exported.step(tokens), plain.step(tokens)
            if step == 2:
                rows = torch.tensor([2, 0, 2, 1])
                for session in (exported, plain):
                    session.reorder(rows)
                got, expected = got[rows], expected[rows]
