"""Gated cross-attention grafted into a language model: OpenFlamingo's numbers, what a word sees, what stays as it was."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import modelgraft as mg
from modelgraft.backends.torch import count_adapters
from modelgraft.explain import explain
from modelgraft_plugins.llm.gated import GatedCrossAttention
from modelgraft_plugins.llm.gated_blocks import GatedCrossAttentionBlock, sight
from modelgraft_plugins.llm.gated_writer import text_time
from support import openflamingo
from support.openflamingo import HEADS, IMAGE, REFERENCE, RESAMPLER_HEADS, rows_of, text_of
from support.oracles import oracle

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")

BLOCK = oracle("openflamingo_gated_block")
GRAPH = """
modelgraft: 1
inputs:
  pictures: "float[batch images 16 36]"
  prompt: text
nodes:
  resampler:
    use: resampler/perceiver
    from: "./openflamingo.safetensors#perceiver"
    with: {{many: true, {resampler}}}
    in: {{media: inputs.pictures}}
  llm:
    use: llm/causal
    from: ./language
    with: {{max_new_tokens: {new}, prompt: "{template}", suppress_tokens: [61], beams: {beams}}}
    in: {{prompt: inputs.prompt}}
    frozen: true
    adapters:
      - {{use: adapter/gated_cross_attention, {source}with: {{every: 2, {heads}}}, in: {{media: resampler}}}}
outputs: {{text: llm.text, logits: llm.logits}}
"""


def in_yaml(values: dict[str, int]) -> str:
    return ", ".join(f"{name}: {value}" for name, value in values.items())


def graph(folder: Path, *, new: int = 0, beams: int = 1, trained: bool = True, template: str = "{prompt}") -> mg.Graph:
    """OpenFlamingo from its resampler on, over a folder of its parts."""
    source = 'from: "./openflamingo.safetensors#lang_encoder", ' if trained else ""
    path = folder / "graph.yaml"
    sizes = {"heads": in_yaml(HEADS), "resampler": in_yaml(RESAMPLER_HEADS)}
    path.write_text(GRAPH.format(new=new, beams=beams, source=source, template=template, **sizes))
    return mg.load(path)


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Exports of these tests are their own, and run as they were written: tuning takes a process each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MODELGRAFT_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr("modelgraft.backends.onnx.store.tune", lambda source, target: "not in this test")
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The parts of the tiny OpenFlamingo."""
    found = tmp_path_factory.mktemp("openflamingo")
    openflamingo.parts(found)
    return found


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
    with mg.open(graph(folder)) as pipeline:
        result = pipeline.run(outputs=["logits", "resampler.latents"], pictures=pictures, prompt=list(texts))
    wanted = torch.cat([logits[mask.bool()] for logits, mask in zip(found.outputs["logits"], found.inputs["attention_mask"], strict=True)])
    assert result["logits"].shape == wanted.shape
    assert (result["logits"] - wanted).abs().max() <= found.tolerances["logits"]


def pictures_of(case: str, row: int) -> torch.Tensor:
    """The vectors of the pictures of a row of a case, float[images patches width]."""
    return REFERENCE.cases[case].outputs["vision_tokens"][row, :, 0]


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


@pytest.mark.parametrize("backend", ["torch", "onnx"])
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
    with mg.open(graph(folder)) as pipeline:

        def run(*pictures: torch.Tensor) -> torch.Tensor:
            rows = torch.stack(pictures).expand(3, -1, -1, -1)
            return pipeline.run(outputs=["logits"], pictures=rows, prompt=[text_of(ids) for ids in prompts])["logits"]

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


def test_the_template_places_the_picture_unless_the_prompt_does(folder: Path):
    """As for language models that embed pictures."""
    with mg.open(graph(folder, template="<image> {prompt}")) as pipeline:
        pictures = pictures_of("one_row", 0)[None]
        placed = pipeline.run(outputs=["logits"], pictures=pictures, prompt="w5 w9")["logits"]
        assert torch.equal(placed, pipeline.run(outputs=["logits"], pictures=pictures, prompt="<image> w5 w9")["logits"])
        behind = pipeline.run(outputs=["logits"], pictures=pictures, prompt="w5 w9 <image>")["logits"]
    assert (placed - behind).abs().max() > 1e-3


def test_a_template_without_fields_is_written_for_every_medium(folder: Path):
    """The media say how many records there are."""
    path = folder / "captions.yaml"
    path.write_text(CAPTIONS.format(heads=in_yaml(HEADS)))
    latents = torch.randn(3, 5, 36, generator=torch.Generator().manual_seed(2))
    with mg.open(path) as pipeline:
        together = pipeline.run(latents=latents)["logits"]
        alone = [pipeline.run(latents=latents[row : row + 1])["logits"] for row in range(3)]
    torch.testing.assert_close(together, torch.cat(alone), rtol=0.0, atol=1e-5)
    assert (together[0] - together[1]).abs().max() > 1e-3


CAPTIONS = """
modelgraft: 1
inputs: {{latents: "float[batch 5 36]"}}
nodes:
  llm:
    use: llm/causal
    from: ./language
    with: {{max_new_tokens: 0, prompt: "<image> w5"}}
    adapters:
      - use: adapter/gated_cross_attention
        from: "./openflamingo.safetensors#lang_encoder"
        with: {{every: 2, {heads}}}
        in: {{media: inputs.latents}}
outputs: {{logits: llm.logits}}
"""


@pytest.mark.parametrize(("prompt", "times"), [("w5", 0), ("<image> w5 <image> w6 <image>", 3)])
def test_a_prompt_shows_all_pictures_and_no_more(folder: Path, prompt: str, times: int):
    """One that is left out, or one too many, is told with both numbers."""
    with mg.open(graph(folder)) as pipeline, pytest.raises(mg.NodeError) as caught:
        pipeline.run(pictures=pictures_of("two_images", 0)[None], prompt=prompt)
    assert f"llm: the prompt holds '<image>' {times} times, and 2 media are given: write it once for each" in str(caught.value)


def test_a_tokenizer_without_the_placeholder_is_refused(folder: Path):
    """Nothing could say where the pictures stand."""
    params = {"nodes.llm.with.placeholder": "<picture>"}
    with mg.open(mg.load(graph(folder).path, params=params)) as pipeline, pytest.raises(mg.NodeError) as caught:
        pipeline.run(pictures=pictures_of("one_row", 0)[None], prompt="w5")
    assert "llm: the tokenizer has no token '<picture>', which marks where the media stand; set `placeholder`" in str(caught.value)


def test_the_blocks_are_planned_and_their_port_is_checked(folder: Path):
    """Parameters by formula and as built, with those of the host; widths come from the neighbours; `explain` shows them."""
    plan = mg.plan(graph(folder))
    trained = [tensor.numel() for name, tensor in REFERENCE.weights.items() if "gated_cross_attn" in name]
    llm = plan.nodes["llm"].parameters
    assert llm.trainable == sum(trained)
    language = openflamingo.language_model()
    assert llm.total == sum(trained) + sum(parameter.numel() for parameter in language.parameters())
    node = next(step.node for step in plan.steps if step.node.name == "llm")
    assert str(node.in_ports["media"]) == "float[batch images 5 36]"
    assert count_adapters(node, plan.graph.graph.registry) == sum(trained)
    rows = {row.key: (row.value, row.origin) for row in explain(plan.graph, "llm")}
    assert rows["adapters.0.use"][0] == "adapter/gated_cross_attention@1"
    assert rows["adapters.0.with.every"] == (2, "graph.yaml:19")
    assert rows["adapters.0.with.media_size"] == (36, "graph.yaml:19 (./openflamingo.safetensors#lang_encoder)")
    assert rows["adapters.0.with.num_hidden_layers"][0] == 4
    assert rows["in.media"] == ("float[batch images 5 36]", "fed by resampler.latents")


def test_media_of_another_width_are_a_problem_of_the_graph(folder: Path):
    """Found before anything is loaded, with both numbers."""
    with pytest.raises(mg.GraphError, match=r"dim-mismatch .*36.*") as caught:
        mg.check(mg.load(graph(folder).path, params={"nodes.llm.adapters": [{**ADAPTER, "with": {**ADAPTER["with"], "media_size": 35}}]}))
    assert "35" in str(caught.value)


ADAPTER = {"use": "adapter/gated_cross_attention", "with": {"every": 2}, "in": {"media": "resampler"}}


def test_it_is_grafted_into_language_models_alone(folder: Path):
    """The message names what it can be grafted into."""
    path = folder / "misplaced.yaml"
    path.write_text(
        "modelgraft: 1\ninputs: {x: 'float[batch tokens 3]'}\nnodes:\n"
        "  project: {use: projector/linear, with: {out_features: 4}, in: {x: inputs.x}, adapters: [\n"
        "    {use: adapter/gated_cross_attention, in: {media: inputs.x}}]}\noutputs: {y: project}\n"
    )
    with pytest.raises(mg.GraphError, match=r"adapter-misplaced  project: .* cannot be grafted into projector/linear"):
        mg.check(mg.load(path))


def test_a_file_of_other_sizes_is_one_error(folder: Path):
    """It names the tensors."""
    source = f"{folder / 'openflamingo.safetensors'}#lang_encoder"
    params = {"nodes.llm.adapters": [{**ADAPTER, "from": source, "with": {"every": 2, "num_heads": 3}}]}
    wanted = r"attn\.to_kv\.weight is \[80, 36\], wanted \[384, 36\]"
    with mg.open(mg.load(graph(folder).path, params=params)) as pipeline, pytest.raises(mg.SourceError, match=wanted):
        pipeline.run(pictures=pictures_of("one_row", 0)[None], prompt="<image>")


def test_counts_are_those_of_the_publications():
    """OpenFlamingo v1 and IDEFICS-9B: LLaMA-7B with CLIP ViT-L/14, and with ViT-H/14."""
    host = {"hidden_size": 4096, "num_hidden_layers": 32}
    assert GatedCrossAttention(media_size=1024, **host).parameters() == 1_115_815_952
    sizes = {"media_size": 1280, "num_heads": 32, "intermediate_size": 11008, "qk_norms": True}
    assert GatedCrossAttention(family="idefics", **host, **sizes).parameters() == 1_434_519_568


def test_blocks_stand_where_their_publications_put_them():
    """OpenFlamingo before the last of every four layers, IDEFICS before the first."""
    assert GatedCrossAttention(num_hidden_layers=12).layers == (3, 7, 11)
    assert GatedCrossAttention(family="idefics", num_hidden_layers=12).layers == (0, 4, 8)
    assert GatedCrossAttention(num_hidden_layers=7, every=2).layers == (1, 3, 5)
