"""Media of unlike sizes among the words, where they stand, and which of their tokens see each other, beside transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from transformers.models.gemma3.modeling_gemma3 import create_masks_for_vision_model

import modelgraft as mg
from modelgraft.kernel.words.errors import InputError
from modelgraft_plugins.llm import CausalConfig, ragged, standing
from modelgraft_plugins.llm.prompts import PromptWriter
from modelgraft_plugins.llm.tokens import Tokenizer
from support.tokenizers import byte_level

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")  # of exporters
WIDTH = 3
NEW = 9
SIZES = {
    "vocab_size": 320, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 256, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip


def writer(**config: Any) -> PromptWriter:
    """A prompt writer on a tokenizer of transformers that knows <image>."""
    made = CausalConfig(prompt="{image:ragged}{prompt}", placeholder="<object>", **config)
    return PromptWriter(
        made,
        Tokenizer(byte_level(begin="<s>", end="</s>", pad="<pad>", prefix=True, extra=("<object>",)), placeholder="<object>"),
        node="llm",
    )


def medium(tokens: int, first: float = 0.0) -> torch.Tensor:
    """Embeddings that tell their place: row i is first + i."""
    return (first + torch.arange(float(tokens)))[:, None].expand(tokens, WIDTH)


def gather(embedded: torch.Tensor, lengths: list[list[int]], **more: Any) -> list[ragged.Ragged]:
    fields = CausalConfig(prompt="{image:ragged}").fields
    values = {"image": embedded, "image_lengths": torch.tensor(lengths), "image_words": None, "image_grids": None, "image_paces": None}
    found: list[ragged.Ragged] = ragged.gathered(fields, {**values, **more}, node="llm")["image"]
    return found


def test_each_medium_takes_its_own_room():
    """As words say it, or alone; what fills up a record with fewer media is left out."""
    one, other = gather(torch.stack([medium(7), medium(7, 10.0)]), [[3, 4], [2, 0]])
    written = writer().write({"image": one, "prompt": "a cat"})
    alone = writer().write({"image": other, "prompt": "a cat"})
    assert [len(medium) for medium in one.media] == [3, 4]
    assert written.media is not None
    assert written.media[:, 0].tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert alone.media is not None
    assert alone.media[:, 0].tolist() == [10, 11]
    assert len(written.ids) - len(alone.ids) == 5


def test_words_stand_in_the_place_of_their_medium():
    """The ids are those of the whole text with the placeholder once for each embedding, as processors write it."""
    words = ["<<object><object>|<object><object>>", "[<object>]"]
    (given,) = gather(medium(7)[None], [[4, 3]], image_words=[words])
    write = writer()
    written = write.write({"image": given, "prompt": "see <object>, then <object>: what?"})
    whole = "see <<object><object>|<object><object>>, then [<object><object><object>]: what?"
    assert written.ids == write.tokenizer.full(whole)
    marked = [place for place, token in enumerate(written.ids) if token == write.tokenizer.placeholder_id]
    assert written.places == marked


@pytest.mark.parametrize(
    ("lengths", "more", "prompt", "told"),
    [
        ([[9]], {}, "what?", r"llm.image_lengths is \[9\], together 9, and there are 7 embeddings"),
        ([[-1, 3]], {}, "what?", r"wanted: how many each medium has"),
        ([[3]], {"image_words": [["a", "b"]]}, "what?", "image_words has 2 texts, and llm.image_lengths has 1 media"),
        ([[3]], {"image_words": [["<object><object>"]]}, "what?", "the words of medium 1 hold '<object>' 2 times, and it has 3 embeddings"),
        ([[3]], {"image_words": [["no place"]]}, "what?", "hold '<object>' 0 times, and it has 3 embeddings"),
        ([[3, 2]], {}, "only <object>", "the prompt has 1 place for media .* and 2 media are given"),
        ([[3]], {}, "<object> and <object>", "the prompt has 2 places for media .* and 1 medium is given"),
        ([[3]], {"image_grids": torch.tensor([[[1, 2, 2]]])}, "what?", "medium 1 has 3 embeddings, and its grid is 1 x 2 x 2, which are 4"),
        (
            [[2]],
            {"image_grids": torch.tensor([[[1, 1, 2]]]), "image_words": [["<object>|<object>"]]},
            "what?",
            "medium 1 has a grid, and stands in 2 pieces",
        ),
    ],
)
def test_what_does_not_fit_is_told(lengths: list[list[int]], more: dict[str, Any], prompt: str, told: str):
    def stand() -> None:
        written = writer().write({"image": gather(medium(7)[None], lengths, **more)[0], "prompt": prompt})
        standing.stand(len(written.ids), written.shown, node="llm")

    with pytest.raises(InputError, match=told):
        stand()


@pytest.mark.parametrize("kind", ["qwen2_vl", "qwen2_5_vl"])
def test_tokens_stand_where_transformers_counts_them(kind: str):
    """Random rows of words, pictures and films, with frames that are some steps apart."""
    model = whole(kind)
    draw = torch.Generator().manual_seed(3)
    for _ in range(20):
        ids, media = [5] * int(torch.randint(0, 4, (1,), generator=draw)), list[standing.Medium]()
        grids, steps = list[list[int]](), list[int]()
        for _ in range(int(torch.randint(1, 4, (1,), generator=draw))):
            frames, rows, columns = (int(side) for side in torch.randint(1, 5, (3,), generator=draw))
            steps.append(int(torch.randint(1, 3, (1,), generator=draw)) if kind == "qwen2_5_vl" else 1)
            media.append(
                standing.Medium(range(len(ids), len(ids) + frames * rows * columns), (frames, rows, columns), steps[-1] * PACE[kind])
            )
            ids += [7] * (frames * rows * columns) + [5] * int(torch.randint(1, 5, (1,), generator=draw))
            grids.append([frames, 2 * rows, 2 * columns])
        types = torch.tensor([[2 if token == 7 else 0 for token in ids]])
        seconds = {"second_per_grid_ts": torch.tensor(steps)} if kind == "qwen2_5_vl" else {}
        wanted, _ = model.model.get_rope_index(torch.tensor([ids]), types, video_grid_thw=torch.tensor(grids), **seconds)
        assert torch.equal(standing.stand(len(ids), media, node="llm").axes, wanted[:, 0].T)


PACE = {"qwen2_vl": 1, "qwen2_5_vl": 4}  # frames of Qwen2.5-VL are so many places a second apart: tokens_per_second


def whole(kind: str) -> Any:
    """A tiny whole, with random weights."""
    made = {
        "qwen2_vl": (hf.Qwen2VLConfig, hf.Qwen2VLForConditionalGeneration),
        "qwen2_5_vl": (hf.Qwen2_5_VLConfig, hf.Qwen2_5_VLForConditionalGeneration),
    }
    config, model = made[kind]
    text = {**SIZES, "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}}
    torch.manual_seed(1)
    return drawn(model(config(text_config=text, vision_config={"depth": 1, "embed_dim": 16, "hidden_size": 32, "tokens_per_second": 4})))


def drawn(model: Any) -> Any:
    """Weights so large that every position shows in every logit."""
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


def saved(model: Any, folder: Path) -> Path:
    """The language model in a whole as a checkpoint of its own, with a tokenizer that knows <image>."""
    text = model.config.text_config
    state = {f"model.{name}": tensor for name, tensor in model.model.language_model.state_dict().items()} | {
        "lm_head.weight": model.lm_head.weight
    }
    folder.mkdir()
    from safetensors.torch import save_file

    save_file({name: tensor.detach().contiguous().clone() for name, tensor in state.items()}, folder / "model.safetensors")
    text.save_pretrained(folder)
    byte_level(begin="<s>", end="</s>", pad="<pad>", prefix=True, extra=("<image>",)).save_pretrained(folder)
    return folder


GRAPH = """\
modelgraft: 1
name: ragged
inputs: {{image: "float[batch tokens 32]", lengths: "int64[batch media]", grids: "int64[batch media 3]", prompt: text}}
nodes:
  llm:
    use: llm/causal
    from: {folder}
    with: {{prompt: "{{image:ragged}}{{prompt}}", max_new_tokens: {new}, reads: {reads}}}
    in: {{image: inputs.image, image_lengths: inputs.lengths, image_grids: inputs.grids, prompt: inputs.prompt}}
outputs: {{text: llm.text}}
"""


def graph(folder: Path, *, reads: str = "onward") -> Path:
    path = folder.parent / "ragged.yaml"
    path.write_text(GRAPH.format(folder="./llm", new=NEW, reads=reads))
    return path


def records() -> dict[str, Any]:
    """Three records: two pictures, one, none."""
    draw = torch.Generator().manual_seed(5)
    grids = torch.tensor([[[1, 2, 3], [1, 3, 3]], [[1, 4, 1], [0, 0, 0]], [[0, 0, 0], [0, 0, 0]]])
    lengths = grids.prod(-1)
    image = torch.randn(3, 15, 32, generator=draw) * 0.5
    for row, count in enumerate(lengths.sum(-1)):
        image[row, count:] = 0
    return {"image": image, "lengths": lengths, "grids": grids, "prompt": ["a <image> cat <image> on", "see <image>", "the words alone"]}


def theirs(model: Any, folder: Path, given: dict[str, Any], row: int) -> tuple[list[int], torch.Tensor]:
    """What the layers of the whole write greedily after one record, whole each time; and the first logits."""
    tokenizer = hf.AutoTokenizer.from_pretrained(folder)
    lengths, spot = given["lengths"][row].tolist(), tokenizer.convert_tokens_to_ids("<image>")
    pieces = given["prompt"][row].split("<image>")
    text = pieces[0] + "".join("<image>" * length + piece for length, piece in zip(lengths, pieces[1:], strict=False))
    ids = tokenizer(text).input_ids
    table = model.get_input_embeddings()
    embedded = table(torch.tensor(ids))
    embedded[torch.tensor(ids) == spot] = given["image"][row, : sum(lengths)]
    types = torch.tensor([[1 if token == spot else 0 for token in ids]])
    grids = given["grids"][row][torch.tensor(lengths) > 0] * torch.tensor([1, 2, 2])
    positions, ahead = model.model.get_rope_index(torch.tensor([ids]), types, image_grid_thw=grids)
    found, first = list[int](), None
    for step in range(NEW):
        more = torch.tensor(found, dtype=torch.int64)
        places = torch.cat([positions, (len(ids) + ahead[0] + torch.arange(step)).expand(3, 1, step)], -1)
        hidden = model.model.language_model(inputs_embeds=torch.cat([embedded, table(more)])[None], position_ids=places).last_hidden_state
        logits = model.lm_head(hidden)[0, -1]
        first = logits if first is None else first
        found.append(int(logits.argmax()))
    assert first is not None
    return found, first


@pytest.mark.parametrize(
    ("kind", "backend"), [("qwen2_vl", "torch"), ("qwen2_5_vl", "torch"), pytest.param("qwen2_vl", "onnx", marks=pytest.mark.slow)]
)
def test_answers_are_those_of_the_layers_in_the_whole(kind: str, backend: str, tmp_path: Path):
    """Pictures of unlike sizes and numbers, one by one and in a batch; and again, when what was read is kept."""
    model, given = whole(kind), records()
    folder = saved(model, tmp_path / "llm")
    with torch.no_grad():
        wanted = [theirs(model, folder, given, row) for row in range(3)]
    with mg.open(graph(folder), backend=backend) as pipeline:
        batch = pipeline.run(**given, outputs=["llm.ids", "llm.logits"])
        for row, (ids, logits) in enumerate(wanted):
            one = {name: value[row : row + 1] for name, value in given.items()}
            for found in (pipeline.run(**one, outputs=["llm.ids", "llm.logits"]) for _ in range(2)):
                assert found["llm.ids"][0].tolist() == ids
                torch.testing.assert_close(found["llm.logits"][0], logits, rtol=0, atol=1e-4)
            assert batch["llm.ids"][row].tolist() == ids
            torch.testing.assert_close(batch["llm.logits"][row], logits, rtol=0, atol=1e-4)


def test_where_pictures_stand_changes_the_answer(tmp_path: Path):
    """So the test above would fail if grids were not heeded."""
    given = records()
    with mg.open(graph(saved(whole("qwen2_vl"), tmp_path / "llm"))) as pipeline:
        wanted = pipeline.run(**given, outputs=["llm.logits"])["llm.logits"]
        other = pipeline.run(**{**given, "grids": given["grids"][..., [0, 2, 1]]}, outputs=["llm.logits"])["llm.logits"]
    assert (wanted - other).abs().amax(-1)[:2].min() > 1e-3
    assert torch.equal(wanted[2], other[2])


def test_the_tokens_of_a_picture_see_each_other(tmp_path: Path):
    """`reads: media`, beside a Gemma 3, whose windows are shorter than the prompt: they go over what a picture sees of itself."""
    torch.manual_seed(2)
    sizes = {**SIZES, "head_dim": 8, "sliding_window": 6, "layer_types": ["sliding_attention", "full_attention"]}
    model = drawn(hf.Gemma3ForCausalLM(hf.Gemma3TextConfig(**sizes)))
    folder = tmp_path / "llm"
    model.save_pretrained(folder)
    byte_level(begin="<s>", end="</s>", pad="<pad>", prefix=True, extra=("<image>",)).save_pretrained(folder)
    given = records()
    with mg.open(graph(folder, reads="media")) as pipeline:
        batch = pipeline.run(**given, outputs=["llm.logits"])["llm.logits"]
    tokenizer = hf.AutoTokenizer.from_pretrained(folder)
    spot = tokenizer.convert_tokens_to_ids("<image>")
    for row in range(3):
        lengths, pieces = given["lengths"][row].tolist(), given["prompt"][row].split("<image>")
        ids = torch.tensor(
            tokenizer(pieces[0] + "".join("<image>" * length + piece for length, piece in zip(lengths, pieces[1:], strict=False))).input_ids
        )
        with torch.no_grad():
            embedded = model.get_input_embeddings()(ids)
            embedded[ids == spot] = given["image"][row, : sum(lengths)]
            is_medium = ids == spot
            starts = is_medium & ~torch.cat([torch.tensor([False]), is_medium[:-1]])
            blocks = torch.where(is_medium, starts.long().cumsum(0) - 1, -1)
            mask = create_masks_for_vision_model(
                config=model.config, inputs_embeds=embedded[None], attention_mask=None, past_key_values=None,
                position_ids=torch.arange(len(ids))[None], block_sequence_ids=blocks[None],
            )  # fmt: skip
            wanted = model(inputs_embeds=embedded[None], attention_mask=mask).logits[0, -1]
            plain = model(inputs_embeds=embedded[None]).logits[0, -1]
        torch.testing.assert_close(batch[row], wanted, rtol=0, atol=1e-4)
        assert not lengths[0] or (wanted - plain).abs().max() > 1e-3
