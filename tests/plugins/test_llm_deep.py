"""Inner layers of an eye that first layers of a decoder hear (DeepStack), beside transformers' Qwen3-VL."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from safetensors.torch import save_file

import modelgraft as mg
from modelgraft_plugins.llm import CausalConfig, ragged, standing
from modelgraft_plugins.llm.template import parse
from support.checkpoints import randomise
from support.tokenizers import byte_level
from support.untuned import leave_untuned

NEW, DEEP, WIDTH = 9, 2, 32
SIZES = {
    "vocab_size": 320, "hidden_size": WIDTH, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 256, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
GRAPH = """\
modelgraft: 1
name: deep
inputs: {{image: "float[batch tokens 32]", deep: "float[batch 2 tokens 32]", lengths: "int64[batch media]", prompt: text}}
nodes:
  llm:
    use: llm/causal
    from: ./llm
    with: {{prompt: "{{image:ragged}}{{prompt}}", max_new_tokens: {new}, deep: 2}}
    in: {{image: inputs.image, {wired}image_lengths: inputs.lengths, prompt: inputs.prompt}}
outputs: {{text: llm.text}}
"""


@pytest.fixture(scope="module")
def model() -> Any:
    """The layers of a Qwen3-VL and its head."""
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}
    made = hf.Qwen3VLForConditionalGeneration(
        hf.Qwen3VLConfig(
            text_config={**SIZES, "rope_parameters": rope}, vision_config={"depth": 1, "hidden_size": 16, "deepstack_visual_indexes": [0]}
        )
    )
    randomise(made, seed=3)
    return made.eval()


@pytest.fixture(scope="module")
def folder(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a graph, and the language model as a checkpoint of its own."""
    found = tmp_path_factory.mktemp("deep")
    (found / "llm").mkdir()
    state = {f"model.{name}": tensor for name, tensor in model.model.language_model.state_dict().items()}
    state["lm_head.weight"] = model.lm_head.weight
    save_file({name: tensor.detach().contiguous().clone() for name, tensor in state.items()}, found / "llm" / "model.safetensors")
    model.config.text_config.save_pretrained(found / "llm")
    byte_level(begin="<s>", end="</s>", pad="<pad>", prefix=True, extra=("<image>",)).save_pretrained(found / "llm")
    for name, wired in (("deep", "image_deep: inputs.deep, "), ("plain", "")):
        text = GRAPH.format(new=NEW, wired=wired)
        (found / f"{name}.yaml").write_text(text if wired else re.sub(r'deep: "[^"]*", ', "", text))
    return found


def records() -> dict[str, Any]:
    """Three records: two pictures, one, none; what stands behind them is never read."""
    draw = torch.Generator().manual_seed(5)
    lengths = torch.tensor([[6, 9], [4, 0], [0, 0]])
    image, deep = torch.randn(3, 15, WIDTH, generator=draw), torch.randn(3, DEEP, 15, WIDTH, generator=draw)
    return {"image": image, "deep": deep, "lengths": lengths, "prompt": ["a <image> cat <image> on", "so see <image>", "the words alone"]}


def theirs(model: Any, folder: Path, given: dict[str, Any], row: int) -> tuple[list[int], torch.Tensor]:
    """What the layers write greedily after one record, which they read anew each time; and the first logits."""
    tokenizer = hf.AutoTokenizer.from_pretrained(folder / "llm")
    lengths, spot = given["lengths"][row].tolist(), tokenizer.convert_tokens_to_ids("<image>")
    pieces = given["prompt"][row].split("<image>")
    text = pieces[0] + "".join("<image>" * length + piece for length, piece in zip(lengths, pieces[1:], strict=False))
    ids, table = torch.tensor(tokenizer(text).input_ids), model.get_input_embeddings()
    embedded = table(ids)
    embedded[ids == spot] = given["image"][row, : sum(lengths)]
    found, first = list[int](), None
    for _ in range(NEW):
        more = torch.tensor(found, dtype=torch.int64)
        there = torch.cat([ids == spot, torch.zeros(len(more), dtype=torch.bool)])[None]
        heard = list(given["deep"][row, :, : sum(lengths)])
        read = torch.cat([embedded, table(more)])[None]
        hidden = model.model.language_model(inputs_embeds=read, visual_pos_masks=there, deepstack_visual_embeds=heard).last_hidden_state
        logits = model.lm_head(hidden)[0, -1]
        first = logits if first is None else first
        found.append(int(logits.argmax()))
    assert first is not None
    return found, first


SMALLER = pytest.mark.whole("tests/plugins/test_llm_onnx.py::test_one_graph_with_its_cache_in_place_gives_torchs_logits")


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")  # of the exporter
@pytest.mark.parametrize("backend", ["torch", pytest.param("onnx", marks=[pytest.mark.slow, SMALLER])])
@torch.no_grad()
def test_answers_are_those_of_the_layers_of_transformers(
    model: Any, folder: Path, backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """One by one, again from what was kept, and in a batch that is padded."""
    monkeypatch.setenv("MODELGRAFT_CACHE", str(tmp_path))
    leave_untuned(monkeypatch)
    given, close = records(), 1e-5 if backend == "torch" else 2e-5
    wanted = [theirs(model, folder, given, row) for row in range(3)]
    with mg.open(folder / "deep.yaml", backend=backend) as pipeline:
        batch = pipeline.run(**given, outputs=["llm.ids", "llm.logits"])
        for row, (ids, logits) in enumerate(wanted):
            one = {name: value[row : row + 1] for name, value in given.items()}
            for found in (pipeline.run(**one, outputs=["llm.ids", "llm.logits"]) for _ in range(2)):
                assert found["llm.ids"][0].tolist() == ids
                torch.testing.assert_close(found["llm.logits"][0], logits, rtol=0, atol=close * logits.abs().max().item())
            assert batch["llm.ids"][row].tolist() == ids
            torch.testing.assert_close(batch["llm.logits"][row], logits, rtol=0, atol=close * logits.abs().max().item())


@pytest.mark.parametrize("changed", [("deep",), ("deep", "image")])
@torch.no_grad()
def test_a_beginning_that_was_kept_serves_as_far_as_it_heard_the_same(model: Any, folder: Path, changed: tuple[str, ...]):
    """The same words, and another second half: of what stands behind the embeddings alone, or of these too, within a picture."""
    one = {name: value[:1] for name, value in records().items()}
    other = {**one, **{name: one[name].clone() for name in changed}}
    for name in changed:
        other[name][..., 8:, :] += 1
    with mg.open(folder / "deep.yaml") as pipeline:
        first = pipeline.run(**one, outputs=["llm.logits"])["llm.logits"][0]
        found = pipeline.run(**other, outputs=["llm.logits"])["llm.logits"][0]
    wanted = theirs(model, folder, other, 0)[1]
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5 * wanted.abs().max().item())
    assert (first - wanted).abs().max() > 0.1


def test_without_them_the_answer_is_another(folder: Path):
    """So the tests above would fail if nothing were added; a record without pictures answers the same."""
    given = records()
    plain = {name: value for name, value in given.items() if name != "deep"}
    with mg.open(folder / "deep.yaml") as hears, mg.open(folder / "plain.yaml") as deaf:
        found = (hears.run(**given, outputs=["llm.logits"])["llm.logits"] - deaf.run(**plain, outputs=["llm.logits"])["llm.logits"]).abs()
    assert found[:2].amax(-1).min() > 0.1
    assert found[2].max() < 1e-4


def test_beginnings_that_hear_the_same_are_alike():
    """As far as is asked: what is added behind that, or to nothing, does not count."""

    def hears(places: list[int], number: float = 1.0) -> list[standing.Standing]:
        found = standing.stand(8, [], node="llm")
        return [standing.Standing(found.axes, found.blocks, standing.Deep(torch.tensor(places), torch.full((2, len(places), 3), number)))]

    plain = [standing.stand(8, [], node="llm")]
    assert standing.alike(hears([1, 2]), hears([1, 2]), 8)
    assert standing.alike(hears([1, 2, 7]), hears([1, 2, 6]), 5)
    assert standing.alike(hears([6]), plain, 5)
    assert standing.alike(None, hears([6]), 5)
    assert not standing.alike(hears([1, 2]), hears([1, 3]), 8)
    assert not standing.alike(hears([1, 2]), hears([1, 2], 2.0), 8)
    assert not standing.alike(hears([1]), plain, 5)
    assert not standing.alike(None, hears([1]), 5)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"model_type": "llama", "deep": 2}, "deep is 2, and the layers of a llama take no vectors of an eye: leave it out"),
        ({"model_type": "qwen3_vl_text", "num_hidden_layers": 3, "deep": 4}, "deep is 4, and the model has 3 layers"),
        ({"model_type": "qwen3_vl_text", "deep": 2, "prompt": "{a:ragged}{a_deep}"}, r"the prompt has a field \{a_deep\}, and a port"),
    ],
)
def test_a_model_that_cannot_hear_them_is_told(given: dict[str, Any], told: str):
    with pytest.raises(ValueError, match=told):
        CausalConfig(**given)


def test_vectors_that_are_not_of_the_embeddings_are_refused():
    field = next(piece for piece in parse("{image:ragged}") if not isinstance(piece, str))
    image, lengths = torch.zeros(1, 5, 4), torch.tensor([[3, 2]])
    values = {"image": image, "image_lengths": lengths, "image_words": None, "image_grids": None, "image_paces": None}
    with pytest.raises(mg.InputError, match=r"llm.image_deep is \[2, 4, 4\], and there are \[5, 4\] embeddings; wanted: one for each"):
        ragged.gathered([field], {**values, "image_deep": torch.zeros(1, 2, 4, 4)}, node="llm")


def test_an_eye_with_other_layers_is_found_by_a_check(folder: Path):
    path = folder / "other.yaml"
    path.write_text((folder / "deep.yaml").read_text().replace("batch 2 tokens", "batch 3 tokens"))
    with pytest.raises(mg.GraphError, match=r"image_deep"):
        mg.check(path)
