"""BEiT-3 and VQ-KD: published sizes, files, positions of other sizes, the variants of the paper, and what is refused."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from torch.nn import functional

import modelgraft as mg
from modelgraft.kernel.words.errors import InputError, SourceError
from modelgraft.testing import conform, node_of, open_node, run_node
from modelgraft_plugins.beit3.encoder import Encoder
from modelgraft_plugins.beit3.heads import Answer, Classify, Reason
from modelgraft_plugins.beit3.multiway import LEAD, resized
from modelgraft_plugins.beit3.pictures import Preprocess
from modelgraft_plugins.beit3.vqkd import CodePicture, Decoder, Loss, Tokenizer
from support.installed import registry
from support.open_part import configured, open_part
from support.oracles import Oracle, oracle

REGISTRY = registry()
SMALL = {
    "hidden_size": 12, "intermediate_size": 20, "num_hidden_layers": 2, "num_attention_heads": 3, "image_size": 10, "patch_size": 5,
    "vocab_size": 30, "max_position_embeddings": 19,
}  # fmt: skip
SMALL_VQKD = {
    "hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 3, "image_size": 15, "patch_size": 5, "codes": 11, "code_size": 4,
    "decoded_size": 7,
}  # fmt: skip
CLOSE = {"rtol": 0.0, "atol": 1e-5}  # float32, elementwise


def drawn(*shape: int, seed: int = 1) -> torch.Tensor:
    """Numbers of a normal distribution."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    "more",
    [
        {"reads": "image"}, {"reads": "image", "select": "patches"}, {"reads": "text"}, {}, {"causal": True},
        {"attention": "shared", "vl_expert_layers": 1}, {"normalize_output": False},
    ],
)  # fmt: skip
def test_the_trunk_keeps_its_declaration(more: dict[str, Any]):
    """As an eye, as a reader of texts, of both, and with the paper's shared attention and experts for pairs."""
    conform(Encoder, {**SMALL, **more})


@pytest.mark.parametrize("reads", ["image", "both"])
def test_pictures_of_any_size_keep_the_declaration(reads: str):
    """With positions resized for each."""
    conform(Encoder, {**SMALL, "reads": reads, "interpolate": True}, pixels=drawn(2, 3, 15, 20))


def test_heads_and_the_tokenizer_keep_their_declarations():
    """Ports, repeatability, batches, counts, saved state."""
    for head in (Answer, Reason, Classify):
        conform(head, {"hidden_size": 12, "classes": 5})
    conform(Tokenizer, SMALL_VQKD)
    conform(Tokenizer, {**SMALL_VQKD, "interpolate": True}, pixels=drawn(2, 3, 10, 25))
    conform(Decoder, SMALL_VQKD, codes=drawn(2, 4, 3, 3))
    conform(Loss, {})
    conform(CodePicture, {"tile": 20})


@pytest.mark.parametrize(
    ("graph", "preset", "millions"),
    [
        ("beit3", "beit3-base", 221.0), ("beit3", "beit3-large", 672.7),  # counted in the published trunks
        ("beit3/retrieval", "beit3-base", 222.2), ("beit3/retrieval", "beit3-large", 674.8),  # those and two heads without bias
        ("beit3/caption", "beit3-base-caption", 270.8), ("beit3/vqa", "beit3-base-vqa", 228.1),
        ("beit3/nlvr2", "beit3-base-nlvr2", 225.7), ("beit3/classify", "beit3-base-in1k", 86.7),
        ("beit3", "beit3-giant", 1848.3),  # of the paper: 692 + 692 + 52 in experts, 317 in the shared attention, and the embeddings
    ],
)  # fmt: skip
def test_presets_have_the_published_sizes(graph: str, preset: str, millions: float):
    """From the config alone."""
    plan = mg.plan(mg.load(graph, params={"checkpoint": f"preset:{preset}"}))
    assert round(plan.totals.parameters / 1e6, 1) == millions


@pytest.mark.parametrize("graph", ["beit3", "beit3/retrieval", "beit3/tokenize"])
def test_formulas_agree_with_what_is_built(graph: str):
    """To the unit."""
    loaded = mg.load(graph)
    assert mg.plan(loaded).totals.parameters == mg.plan(loaded, exact=True).totals.parameters


@pytest.mark.parametrize(("preset", "millions"), [("vqkd-clip", 95.2), ("vqkd-clip-decoder3", 109.4), ("vqkd-dino", 95.4)])
def test_tokenizers_of_pictures_have_the_published_sizes(preset: str, millions: float):
    """Encoder and decoder, and what training keeps of the code book, which the published count holds and nothing here needs."""
    sides = [configured(REGISTRY, component, f"preset:{preset}").config for component in ("beit3/vqkd", "beit3/vqkd_decoder")]
    statistics = sides[0].codes * (1 + sides[0].code_size)
    assert round((sum(side.parameters() for side in sides) + statistics) / 1e6, 1) == millions


def official(given: Oracle, path: Path, **more: Any) -> str:
    """The file that is published: the tensors under the key `model`."""
    torch.save({"model": dict(given.weights), **more}, path)
    return str(path)


def test_an_official_file_says_its_own_sizes(tmp_path: Path):
    """All but how many heads share the width, which is 64 a head in all that are published."""
    given = oracle("beit3_retrieval")
    source = official(given, tmp_path / "beit3_tiny_itc.pth", epoch=3)
    with pytest.raises(
        ValidationError, match=r"hidden_size is \d+, no multiple of 64, so that the number of heads is not known: set num_att"
    ):
        configured(REGISTRY, "beit3/encoder", source)
    case = next(iter(given.cases.values()))
    eye = open_part(REGISTRY, "beit3/encoder", source, reads="image", num_attention_heads=given.config["encoder_attention_heads"])
    case.compare(vision_tokens=eye(case.inputs["image"], None)["tokens"])
    assert configured(REGISTRY, "beit3/preprocess", source).config.size == dict.fromkeys(("height", "width"), given.config["img_size"])


def test_an_official_tokenizer_of_pictures_says_its_own_sizes(tmp_path: Path):
    """What is left of its training, such as the teacher, is left in the file."""
    given = oracle("beit2_vqkd")
    state = {**given.weights, "teacher_model.proj": torch.zeros(3), "scaling_layer.shift": torch.zeros(1, 3, 1, 1)}
    torch.save({"model": state}, tmp_path / "vqkd.pth")
    heads = {"num_attention_heads": given.config["num_heads"]}
    part = open_part(REGISTRY, "beit3/vqkd", str(tmp_path / "vqkd.pth"), **heads)
    case = next(case for case in given.cases.values() if "image01" in case.inputs)
    found = part(case.inputs["image01"] * 2 - 1)
    case.compare(ids=found["ids"], features=found["features"])
    decoded = open_part(REGISTRY, "beit3/vqkd_decoder", str(tmp_path / "vqkd.pth"), **heads)(found["codes"])
    case.compare(decoded=decoded)


@pytest.mark.parametrize(("width", "height"), [(331, 517), (50, 33), (24, 24), (97, 24)])
def test_pictures_are_prepared_as_the_published_code_does(width: int, height: int):
    """Squeezed into a square, from -1 to 1; for ImageNet the middle of the shorter side, by PIL and the formulas of torchvision."""
    noise = torch.randint(0, 256, (height, width, 3), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    picture = Image.fromarray(noise.numpy())
    squeezed = picture.resize((24, 24), Image.Resampling.BICUBIC)
    found = run_node(Preprocess, {"image_size": 24}, image=[picture])["pixels"][0]
    torch.testing.assert_close(found, (pixels_of(squeezed) - 0.5) / 0.5, rtol=0.0, atol=1e-6)
    edge = 24 / min(width, height)
    whole = picture.resize((24, int(24 * height / width)) if width <= height else (int(24 * width / height), 24), Image.Resampling.BICUBIC)
    assert min(whole.size) == 24 <= max(whole.size) <= edge * max(width, height)
    left, top = round((whole.width - 24) / 2), round((whole.height - 24) / 2)
    middle = pixels_of(whole.crop((left, top, left + 24, top + 24)))
    mean, std = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    found = run_node(Preprocess, {"image_size": 24, "task": "classes"}, image=[picture])["pixels"][0]
    torch.testing.assert_close(found, (middle - mean) / std, rtol=0.0, atol=1e-6)


def pixels_of(picture: Image.Image) -> torch.Tensor:
    """float32[3 height width] from 0 to 1."""
    return torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8).view(picture.height, picture.width, 3).permute(2, 0, 1) / 255


def test_a_published_width_needs_no_number_of_heads():
    """64 a head."""
    assert node_of(Encoder, {"hidden_size": 128}).config.heads == 2


def test_positions_are_resized_when_a_file_is_loaded_for_other_pictures(tmp_path: Path):
    """Bicubic over the patches; the rows before them stay."""
    given = oracle("beit3_retrieval")
    folder = given.as_folder(tmp_path / "folder", {"model_type": "beit3", **given.config})
    patch, side = given.config["patch_size"], given.config["img_size"] // given.config["patch_size"]
    part = open_part(REGISTRY, "beit3/encoder", str(folder), reads="image", image_size=(side + 2) * patch)
    table = given.weights["beit3.encoder.embed_positions.A.weight"]
    grid = table[3:].T.reshape(1, -1, side, side)
    wanted = functional.interpolate(grid, size=(side + 2, side + 2), mode="bicubic", align_corners=False)[0].flatten(1).T
    found = part.module.trunk.encoder.embed_positions["A"].weight
    torch.testing.assert_close(found, torch.cat([table[:3], wanted]), **CLOSE)


def test_pictures_of_any_size_are_those_of_the_checkpoint_where_they_have_its_size(tmp_path: Path):
    """Resizing a table to its own grid changes no number; a wider picture gives what one gets who loads for it."""
    given = oracle("beit3_retrieval")
    folder = str(given.as_folder(tmp_path / "folder", {"model_type": "beit3", **given.config}))
    case = next(iter(given.cases.values()))
    free = open_part(REGISTRY, "beit3/encoder", folder, reads="image", interpolate=True)
    case.compare(vision_tokens=free(case.inputs["image"], None)["tokens"])
    larger = given.config["img_size"] + 2 * given.config["patch_size"]
    pixels = drawn(2, 3, larger, larger)
    fixed = open_part(REGISTRY, "beit3/encoder", folder, reads="image", image_size=larger)
    torch.testing.assert_close(free(pixels, None)["tokens"], fixed(pixels, None)["tokens"], **CLOSE)
    table = drawn(LEAD + 9, 5)
    assert torch.equal(resized(table, (3, 3)), table)


def test_calls_side_by_side_do_not_meet():
    """Where a text begins goes from call to call: a picture, a text and a pair of unlike sizes may be read at the same time."""
    trial = open_node(Encoder, {**SMALL, "interpolate": True})
    trunk = trial.loaded.call
    given = [(drawn(1, 3, 5 * rows, 10, seed=rows), None, torch.randint(3, 30, (1, rows + 2)), None) for rows in range(1, 5)]
    alone = [trunk(*values)["tokens"] for values in given]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda values: trunk(*values)["tokens"], given * 8))
    assert all(torch.equal(one, alone[index % 4]) for index, one in enumerate(together))


def test_a_hidden_text_does_not_change_what_is_seen():
    """A token that a mask hides might as well not be there."""
    trial = open_node(Encoder, SMALL)
    pixels, ids = drawn(1, 3, 10, 10), torch.tensor([[0, 7, 9, 2, 1, 1]])
    short = trial(pixels, None, ids[:, :4], None)
    long = trial(pixels, None, ids, ids != 1)
    torch.testing.assert_close(long["image_tokens"], short["image_tokens"], **CLOSE)
    torch.testing.assert_close(long["text_tokens"][:, :4], short["text_tokens"], **CLOSE)


def layer_in_loops(layer: Any, x: torch.Tensor, *, heads: int, experts: tuple[str, ...]) -> torch.Tensor:
    """A layer with one attention for all, token by token and head by head in float64; `experts`: the way of each token."""

    def norm(module: Any, row: torch.Tensor) -> torch.Tensor:
        return (row - row.mean()) / (row.var(unbiased=False) + 1e-5).sqrt() * module.weight + module.bias

    def linear(module: Any, row: torch.Tensor) -> torch.Tensor:
        return module.weight @ row + module.bias

    seeing, out = layer.self_attn, []
    normed = [norm(layer.self_attn_layer_norm.AB, row) for row in x]
    queries, keys, values = ([linear(getattr(seeing, f"{name}_proj").AB, row) for row in normed] for name in "qkv")
    size = x.shape[1] // heads
    for place, way in enumerate(experts):
        seen = []
        for head in range(heads):
            part = slice(head * size, (head + 1) * size)
            scores = torch.stack([queries[place][part] @ key[part] for key in keys]) / size**0.5
            seen.append(sum(share * value[part] for share, value in zip(scores.softmax(0), values, strict=True)))
        row = x[place] + linear(seeing.out_proj.AB, norm(seeing.inner_attn_ln.AB, torch.cat(seen)))
        expert = getattr(layer.ffn, way)
        wide = linear(expert.fc1, norm(getattr(layer.final_layer_norm, way), row))
        wide = wide * (1 + torch.erf(wide / 2**0.5)) / 2
        out.append(row + linear(expert.fc2, norm(expert.ffn_layernorm, wide)))
    return torch.stack(out)


@torch.no_grad()
def test_the_variant_of_the_paper_is_its_formula():
    """Attention for both, an expert for each medium, and in the top layer one for pairs; where there is no pair it is not asked."""
    trial = open_node(Encoder, {**SMALL, "attention": "shared", "vl_expert_layers": 1, "normalize_output": False})
    trunk = trial.loaded.state.trunk
    for index, parameter in enumerate(trunk.parameters()):
        parameter.copy_(0.3 * drawn(*parameter.shape, seed=index) + (parameter.ndim == 1))
    pixels, ids = drawn(1, 3, 10, 10), torch.tensor([[0, 7, 2]])
    found = trial(pixels, None, ids, None)["tokens"][0]
    x = torch.cat([trunk.picture(pixels), trunk.text(ids)], dim=1)[0].double()
    layers = trunk.double().encoder.layers
    x = layer_in_loops(layers[0], x, heads=3, experts=("A",) * 5 + ("B",) * 3)
    x = layer_in_loops(layers[1], x, heads=3, experts=("VL",) * 8)
    torch.testing.assert_close(found.double(), x, **CLOSE)
    assert not any(
        ".VL." in name for name in open_node(Encoder, {**SMALL, "reads": "image", "vl_expert_layers": 1}).loaded.state.state_dict()
    )


def test_the_loss_of_the_tokenizer_is_its_formula():
    """Loops in float64; the mean over the records is the published loss."""
    features, vectors, decoded, teacher = drawn(2, 6, 4), drawn(2, 6, 4, seed=2), drawn(2, 6, 5, seed=3), drawn(2, 6, 5, seed=4)
    found = run_node(Loss, {"beta": 0.5}, features=features, vectors=vectors, decoded=decoded, teacher=teacher)["loss"]
    for record in range(2):
        away, angles = [], []
        for place in range(6):
            unit = features[record, place].double() / features[record, place].double().norm()
            away.append(((vectors[record, place].double() - unit) ** 2).mean())
            one, other = decoded[record, place].double(), teacher[record, place].double()
            angles.append(1 - one @ other / one.norm() / other.norm())
        wanted = 0.5 * sum(away) / 6 + sum(angles) / 6
        torch.testing.assert_close(found[record].double(), wanted, **CLOSE)


def test_gradients_go_past_the_codes_and_leave_the_book_alone():
    """Straight-through: what is asked of the codes is asked of the features."""
    book = open_node(Tokenizer, SMALL_VQKD).loaded.state.quantize
    features = drawn(2, 4, 3, 3).requires_grad_()
    before = {name: tensor.clone() for name, tensor in book.state_dict().items()}
    with torch.enable_grad():
        codes, commitment, _ = book.train()(features)
        units = functional.normalize(features, dim=1)
        asked = drawn(2, 4, 3, 3, seed=5)
        (through,) = torch.autograd.grad((codes * asked).sum(), features, retain_graph=True)
        (past,) = torch.autograd.grad((units * asked).sum(), features)
    torch.testing.assert_close(through, past, **CLOSE)
    assert commitment.requires_grad
    assert not book.embedding.weight.requires_grad
    assert all(torch.equal(tensor, before[name]) for name, tensor in book.state_dict().items()), "reading moved the book"


@torch.no_grad()
def test_a_book_starts_where_features_are():
    """K-means on the sphere: of three clear heaps each gets a code, and a code that none takes stays."""
    book = open_node(Tokenizer, {**SMALL_VQKD, "codes": 3}).loaded.state.quantize
    heaps = torch.eye(4)[:3]
    features = (heaps.repeat(6, 1) * 5 + 0.01 * drawn(18, 4)).reshape(1, 18, 4).transpose(1, 2).reshape(1, 4, 3, 6)
    book.start(features, seed=3)
    assert sorted(book.embedding.weight.argmax(1).tolist()) == [0, 1, 2]
    torch.testing.assert_close(book.embedding.weight.norm(dim=1), torch.ones(3), **CLOSE)
    assert book.cluster_size.sum() == 18


def test_visual_words_can_be_looked_at():
    """The picture, and beside it a tile for each patch: equal codes have one colour, and unlike neighbours a line between them."""
    codes = functional.normalize(drawn(5, 4), dim=-1)
    ids = torch.tensor([[0, 0, 1, 2, 2, 3]])
    grid = codes[ids[0]].T.reshape(1, 4, 2, 3)
    (painted,) = run_node(
        CodePicture, {"tile": 10, "numbers": False}, image=[Image.new("RGB", (7, 5), "red")], map=ids.view(1, 2, 3), codes=grid
    )["image"]
    assert painted.size == (2 * 30 + 8, 20)
    assert painted.getpixel((15, 10)) == (255, 0, 0)
    tiles = painted.crop((38, 0, 68, 20))
    middle = [tiles.getpixel((10 * column + 5, 10 * row + 5)) for row in range(2) for column in range(3)]
    assert middle[0] == middle[1] != middle[2]
    assert middle[3] == middle[4] != middle[5]
    assert tiles.getpixel((10, 5)) == middle[0]
    assert tiles.getpixel((20, 5)) not in middle


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"image_size": 11}, "image_size is 11, which the patch_size 5 does not divide: set image_size to 10 or 15"),
        ({"vl_expert_layers": 3}, "vl_expert_layers is 3, and there are 2 layers"),
        ({"reads": "text", "causal": True}, "causal is of a text behind a picture, and reads is 'text'"),
        ({"select": "patches"}, "select: patches is of an eye, and reads is 'both': take the output image_tokens"),
    ],
)
def test_settings_that_cannot_be_are_told(config: dict[str, Any], message: str):
    """With a way out."""
    with pytest.raises(ValidationError, match=message):
        Encoder(**{**SMALL, **config})


def test_sizes_that_patches_do_not_divide_are_told_when_they_come():
    """Pictures of any size are of whole patches."""
    with pytest.raises(
        InputError, match="got pictures of 12 x 10 pixels, which its patches of 5 x 5 do not divide: resize them to multiples of 5"
    ):
        run_node(Encoder, {**SMALL, "reads": "image", "interpolate": True}, pixels=drawn(1, 3, 12, 10))
    with pytest.raises(InputError, match="beit3/vqkd got pictures of 15 x 16 pixels"):
        run_node(Tokenizer, {**SMALL_VQKD, "interpolate": True}, pixels=drawn(1, 3, 15, 16))


def test_a_text_that_is_too_long_or_strange_is_told():
    """With how long it may be, and how many tokens there are."""
    with pytest.raises(InputError, match="a text has 18 tokens, and BEiT-3 has positions for 17: shorten it"):
        run_node(Encoder, {**SMALL, "reads": "text"}, ids=torch.ones(1, 18, dtype=torch.int64))
    with pytest.raises(InputError, match="a text has the id 30, and the table of tokens has 30 rows"):
        run_node(Encoder, {**SMALL, "reads": "text"}, ids=torch.tensor([[0, 30, 2]]))


def test_weights_of_another_variant_name_what_differs(tmp_path: Path):
    """Keys and shapes, of the trunk and of a head; a file of something else is told before."""
    given = oracle("beit3_vqa")
    larger = {**given.config, "encoder_layers": given.config["encoder_layers"] + 1, "vocab_size": given.config["vocab_size"] + 3}
    folder = given.as_folder(tmp_path / "folder", {"model_type": "beit3", **larger})
    with pytest.raises(
        SourceError, match=r"missing: trunk\.encoder\.layers\.\d.*of another shape: trunk\.text_embed\.weight is \["
    ) as raised:
        open_part(REGISTRY, "beit3/encoder", str(folder))
    assert f"wanted [{larger['vocab_size']}" in str(raised.value)
    with pytest.raises(ValueError, match=r"has no head\.dense2\.weight: beside the trunk it has head, pooler"):
        configured(REGISTRY, "beit3/nlvr2", str(folder))
    with pytest.raises(ValueError, match="holds no VQ-KD"):
        configured(REGISTRY, "beit3/vqkd", str(given.as_file(tmp_path / "vqa.safetensors")))


def test_what_a_config_states_and_is_not_done_is_told(tmp_path: Path):
    """A setting of the published code at another value makes another model."""
    config = {"model_type": "beit3", **oracle("beit3_vqa").config}
    for more, told in (({}, 0), ({"multiway": True, "drop_path_rate": 0.1}, 0), ({"deepnorm": True}, 1), ({"made_up": 3}, 1)):
        (tmp_path / "config.json").write_text(json.dumps({**config, **more}))
        node = configured(REGISTRY, "beit3/encoder", str(tmp_path))
        assert len(Encoder.unheeded(node.source)) == told, more


@pytest.mark.parametrize(
    ("use", "source", "told"),
    [
        ("beit3/encoder", "preset:hubert-base", "is no BEiT-3: its model_type is 'hubert'"),
        ("beit3/captioner", "preset:vqkd-clip", "is no BEiT-3: its model_type is 'vqkd'"),
        ("beit3/vqa", "preset:wav2vec2-base", "is no BEiT-3: its model_type is 'wav2vec2'"),
        ("beit3/mask_text", "preset:opt-2.7b", "is no BEiT-3: its model_type is 'opt'"),
        ("beit3/vqkd", "preset:vit-b-16", "is no VQ-KD: its model_type is 'vit'"),
        ("wav2vec2/criterion", "preset:coca-base", "is no wav2vec 2.0: its model_type is 'coca'"),
    ],
)
def test_sizes_of_another_model_are_refused(use: str, source: str, told: str):
    """A config whose words mean nothing here would be read as the published base model."""
    with pytest.raises(ValueError, match=told):
        configured(REGISTRY, use, source)
