"""CoCa: counted to the unit, both poolers of the paper, official files, captions in every way of writing, and on ONNX."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from skimage import data
from torch import nn
from torch.nn import functional

import modelgraft as mg
from modelgraft.installed.discovery import assemble
from modelgraft.loops.sampling import chooser
from modelgraft.loops.settings import Settings
from modelgraft.testing import conform, open_node
from modelgraft_plugins import coca
from support.open_part import configured
from support.oracles import oracle
from support.tokenizers import words_tokenizer

REGISTRY = assemble({"coca": coca})
EYE = {"image_size": 12, "patch_size": 4, "vision_width": 16, "vision_layers": 2, "vision_heads": 2}
POOL = {"vision_width": 16, "queries": 5, "pooler_heads": 3, "embedding_size": 12}
TEXT = {"context_length": 7, "vocab_size": 23, "text_width": 12, "text_layers": 2, "text_heads": 3}
DECODER = {"vocab_size": 23, "text_width": 12, "decoder_layers": 2, "decoder_heads": 2}
PUBLISHED = {  # millions as open_clip 3.3 counts them: eye and pooler, text, decoder, all
    "coca-vit-b-32": (89.2, 63.4, 101.0, 253.6),
    "coca-vit-l-14": (306.7, 123.7, 208.1, 638.5),
}
PAPER = {"coca-base": (86, 297), "coca-large": (303, 484), "coca-2b": (1000, 1100)}  # millions, as the publication rounds them: eye, text


def parts_of(preset: str) -> dict[str, int]:
    return {
        name: configured(REGISTRY, f"coca/{name}", f"preset:{preset}").config.parameters()
        for name in ("vision", "pooler", "text", "decoder")
    }


@pytest.mark.parametrize("preset", PUBLISHED)
def test_published_weights_are_counted_to_the_unit(preset: str):
    """Without torch; building them without memory agrees to the unit, the learned factor being one."""
    counted = parts_of(preset)
    parts = (counted["vision"] + counted["pooler"], counted["text"], counted["decoder"])
    assert tuple(round(number / 1e6, 1) for number in (*parts, sum(parts))) == PUBLISHED[preset]
    plans = [mg.plan(mg.load("coca/train", params={"checkpoint": f"preset:{preset}"}), exact=exact) for exact in (False, True)]
    assert {plan.totals.parameters for plan in plans} == {sum(parts) + 1}


@pytest.mark.parametrize("preset", PAPER)
def test_models_of_the_paper_have_its_sizes(preset: str):
    """It gives millions, of the largest tenths of a billion, rounded up or cut."""
    counted, step = parts_of(preset), 100 if preset == "coca-2b" else 1
    for number, stated in zip((counted["vision"], counted["text"] + counted["decoder"]), PAPER[preset], strict=True):
        assert abs(number / 1e6 - stated) < step


@pytest.mark.parametrize("class_token", [True, False])
def test_the_eye_keeps_its_declaration(class_token: bool):
    conform(coca.Eye, {**EYE, "class_token": class_token})


@pytest.mark.parametrize("pooling", ["openclip", "parallel", "cascade"])
def test_poolers_keep_their_declaration(pooling: str):
    conform(coca.Pooler, {**POOL, "pooling": pooling})


@pytest.mark.parametrize("class_sees", ["legacy", "correct"])
def test_the_half_that_reads_keeps_its_declaration(class_sees: str):
    ids = torch.tensor([[21, 3, 22, 0, 0], [21, 5, 9, 4, 22]])
    conform(coca.Text, {**TEXT, "embedding_size": 10, "class_sees": class_sees}, ids=ids, mask=ids != 0)


def test_the_half_that_reads_takes_many_texts():
    ids = torch.tensor([[[21, 3, 22, 0, 0], [21, 5, 9, 4, 22]]])
    conform(coca.Text, {**TEXT, "embedding_size": 10, "many": True}, ids=ids, mask=ids != 0)


@pytest.mark.parametrize("layer", ["openclip", "paper"])
def test_the_half_that_looks_keeps_its_declaration(layer: str):
    conform(coca.Decoder, {**DECODER, "decoder_layer": layer})


@pytest.mark.parametrize("layer", ["openclip", "paper"])
def test_the_writer_keeps_its_declaration(layer: str):
    conform(coca.Writer, {**TEXT, **DECODER, "decoder_layer": layer, "max_new_tokens": 4})


def test_a_pooler_of_one_width_keeps_its_maps_in_one_tensor():
    """As torch's own attention does, and so the files of open_clip."""
    conform(coca.Pooler, {**POOL, "vision_width": POOL["embedding_size"]})
    names = open_node(coca.Pooler, {**POOL, "vision_width": POOL["embedding_size"]}).loaded.state.state_dict()
    assert "attn_pool.attn.in_proj_weight" in names


@pytest.mark.parametrize("pooling", ["parallel", "cascade"])
def test_the_poolers_of_the_paper_are_attention_of_torch(pooling: str):
    """Norm, 5 queries look at the picture; one more looks at it too, or at what they made of it."""
    trial = open_node(coca.Pooler, {**POOL, "pooling": pooling})
    module, tokens = trial.loaded.state, torch.randn(2, 9, 16, generator=torch.Generator().manual_seed(3))

    def look(pool: nn.Module, x: torch.Tensor) -> torch.Tensor:
        attention = nn.MultiheadAttention(12, 3, kdim=x.shape[-1], vdim=x.shape[-1], batch_first=True)
        attention.load_state_dict(pool.attn.state_dict())
        keys = functional.layer_norm(x, x.shape[-1:], pool.ln_k.weight, pool.ln_k.bias)
        queries = functional.layer_norm(pool.query, (12,), pool.ln_q.weight, pool.ln_q.bias).expand(2, -1, -1)
        return attention(queries, keys, keys)[0]

    with torch.no_grad():
        normed = functional.layer_norm(tokens, (16,), module.ln_post.weight, module.ln_post.bias)
        seen = look(module.attn_pool, normed)
        single = look(module.attn_pool_contrastive, normed if pooling == "parallel" else seen)[:, 0] @ module.proj
        expected = {"tokens": seen, "vector": single / single.norm(dim=-1, keepdim=True)}
    found = trial(tokens)
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=1e-5)


def test_shorter_texts_are_filled_up_and_what_is_masked_does_not_count():
    trial = open_node(coca.Text, {**TEXT, "embedding_size": 10})
    ids = torch.tensor([[21, 3, 22, 7, 7]])
    bare = trial(torch.tensor([[21, 3, 22]]), None)
    masked = trial(ids, torch.tensor([[True, True, True, False, False]]))
    assert bare["tokens"].shape == (1, 7, 12)
    for name in ("vector", "tokens"):
        assert torch.equal(bare[name], masked[name])
    assert not torch.allclose(trial(ids, None)["vector"], bare["vector"])


def tiny(folder: Path, *, tokenizer: bool = True, **more) -> Path:
    """A CoCa in the layout of a hub: the config of open_clip, weights under its keys, a tokenizer of words."""
    given = oracle("coca_openclip")
    given.as_folder(folder, {}, name="open_clip_model.safetensors")
    (folder / "config.json").unlink()
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": {**given.config, **more}, "preprocess_cfg": {}}))
    side = given.config["vision_cfg"]["image_size"]
    prepared = {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": side}, "crop_size": {"height": side, "width": side}}
    (folder / "preprocessor_config.json").write_text(json.dumps(prepared))
    if tokenizer:
        words_tokenizer(given.config["text_cfg"]["vocab_size"]).save_pretrained(folder)
    return folder


WRITTEN = {"nodes.tokens.with.max_length": 9, "max_new_tokens": 6}


def test_a_folder_as_it_is_published_captions_a_photograph(tmp_path: Path):
    """Weights are random; the picture is real. Its caption does not depend on the other pictures of a batch."""
    graph = mg.load("coca", params={"checkpoint": str(tiny(tmp_path / "coca")), **WRITTEN})
    cat, coffee = data.chelsea(), data.coffee()
    with mg.open(graph) as pipeline:
        alone = pipeline.run(image=cat, text="w3 w4")
        both = pipeline.run(image=[coffee, cat], text=["w5", "w3 w4"])
    assert both["text"][1] == alone["text"]
    for name in ("image_vector", "text_vector"):
        torch.testing.assert_close(both[name][1:], alone[name], rtol=0, atol=1e-5)
        torch.testing.assert_close(alone[name].norm(dim=-1), torch.ones(1), rtol=0, atol=1e-5)


def test_the_best_label_is_the_one_of_the_largest_cosine(tmp_path: Path):
    checkpoint, labels = str(tiny(tmp_path / "coca")), ["w3 w4", "w5", "w6 w7 w8"]
    settings = {"checkpoint": checkpoint, "nodes.tokens.with.max_length": 9}
    with mg.open(mg.load("coca/zero_shot", params=settings)) as pipeline:
        found = pipeline.run(image=data.chelsea(), labels=labels)
    with mg.open(mg.load("coca/embed", params=settings)) as pipeline:
        vectors = [pipeline.run(image=data.chelsea(), text=text) for text in labels]
    cosines = torch.cat([(each["image"] * each["text"]).sum(-1) for each in vectors])[None]
    scale = oracle("coca_openclip").weights["logit_scale"].exp()
    torch.testing.assert_close(found["logits"], cosines * scale, rtol=0, atol=1e-4)
    assert found["label"] == labels[int(cosines.argmax())]


def test_a_caption_goes_on_from_a_prompt(tmp_path: Path):
    """Of two prompts of unlike length in one batch each is continued as alone."""
    graph = mg.load("coca", params={"checkpoint": str(tiny(tmp_path / "coca")), **WRITTEN, "max_new_tokens": 3})
    with mg.open(graph) as pipeline:
        alone = [pipeline.run(image=data.chelsea(), prompt=prompt, outputs=["write.ids"])["write.ids"] for prompt in ("w3", "w4 w5 w6")]
        both = pipeline.run(image=[data.chelsea()] * 2, prompt=["w3", "w4 w5 w6"], outputs=["write.ids"])["write.ids"]
    for one, other in zip(alone, both, strict=True):
        assert one[0].tolist() == [index for index in other.tolist() if index >= 0]


@pytest.mark.parametrize("name", ["coca.safetensors", "coca.bin"])
def test_a_file_alone_says_its_sizes(name: str, tmp_path: Path):
    """All but the heads, which are 64 wide: a CoCa of such heads is counted and read from its file."""
    torch.manual_seed(0)
    sizes = {
        "embed_dim": 64, "vision_cfg": {"image_size": 12, "patch_size": 4, "width": 128, "layers": 1, "attn_pooler_queries": 6},
        "text_cfg": {"context_length": 7, "vocab_size": 23, "width": 64, "heads": 1, "layers": 2},
        "multimodal_cfg": {"context_length": 7, "vocab_size": 23, "width": 64, "heads": 1, "layers": 1},
    }  # fmt: skip
    (tmp_path / "sizes").mkdir()
    (tmp_path / "sizes" / "config.json").write_text(json.dumps({"model_type": "coca", **sizes}))
    state = {"logit_scale": torch.tensor(1.0)}
    for part, prefix in (("vision", "visual."), ("pooler", "visual."), ("text", "text."), ("decoder", "text_decoder.")):
        config = configured(REGISTRY, f"coca/{part}", str(tmp_path / "sizes")).config
        module = open_node(type(config), config.model_dump()).loaded.state
        state |= {prefix + key: torch.randn_like(tensor) for key, tensor in module.state_dict().items()}
    if name.endswith(".bin"):
        torch.save(state, tmp_path / name)
    else:
        from safetensors.torch import save_file

        save_file(state, tmp_path / name)
    for part in ("vision", "pooler", "text", "decoder", "writer"):
        theirs, ours = (
            configured(REGISTRY, f"coca/{part}", str(source)).config.model_dump(exclude={"space", "identity"})
            for source in (tmp_path / "sizes", tmp_path / name)
        )
        assert theirs == ours, part
    small = {"size": {"height": 12, "width": 12}, "do_center_crop": False}
    graph = mg.load("coca", params={
        "checkpoint": str(tmp_path / name), "pictures": "preset:coca-vit-b-32", "tokenizer": str(tiny(tmp_path / "words")),
        "nodes.pixels.with": small, "max_new_tokens": 3,
    })  # fmt: skip
    with mg.open(graph) as pipeline:
        assert pipeline.run(image=data.coffee(), outputs=["write.ids"])["write.ids"].shape[-1] <= 3


def test_a_file_of_another_model_is_told(tmp_path: Path):
    torch.save({"visual.conv1.weight": torch.zeros(4, 3, 2, 2)}, tmp_path / "clip.bin")
    with pytest.raises(mg.GraphError, match=r"clip\.bin is no CoCa of open_clip: it has no tensor visual\.positional_embedding"):
        mg.check(mg.load("coca", params={"checkpoint": str(tmp_path / "clip.bin"), "pictures": "preset:coca-vit-b-32"}))


def test_weights_of_another_variant_are_told_by_name_and_shape(tmp_path: Path):
    """The config says another width than the file."""
    given = oracle("coca_openclip").config
    folder = tiny(tmp_path / "coca", embed_dim=given["embed_dim"] + given["vision_cfg"]["attn_pooler_heads"])
    with (
        pytest.raises(mg.ModelgraftError, match=r"do not fit pool .*proj"),
        mg.open(mg.load("coca/embed", params={"checkpoint": str(folder)})) as pipeline,
    ):
        pipeline.run(image=data.coffee(), text="w3", outputs=["pool.vector"])


def test_keys_of_a_config_that_nobody_knows_are_told(tmp_path: Path):
    folder = tiny(tmp_path / "coca", quick_gelu=True)
    told = " ".join(str(warning) for warning in mg.check(mg.load("coca/embed", params={"checkpoint": str(folder)})).warnings)
    assert "states quick_gelu: true, which is not done here" in told


def test_without_a_tokenizer_ids_are_written_and_text_is_an_error(tmp_path: Path):
    folder = tiny(tmp_path / "coca", tokenizer=False)
    graph = mg.load("coca", params={"checkpoint": str(folder), "tokenizer": str(tiny(tmp_path / "words")), "max_new_tokens": 2})
    with mg.open(graph) as pipeline:
        assert pipeline.run(image=data.coffee(), outputs=["write.ids"])["write.ids"].numel() <= 2
    with (
        mg.open(graph) as pipeline,
        pytest.raises(mg.ModelgraftError, match="write has no tokenizer: no file of one lies beside the weights"),
    ):
        pipeline.run(image=data.coffee())


def test_open_clip_draws_with_the_temperature_last():
    """Its top_p looks at the probabilities as they are; what it leaves over is flattened."""
    logits = torch.tensor([[3.0, 2.0, 1.0, 0.0, -1.0]])
    draws = {}
    for last in (True, False):
        settings = Settings(temperature=4.0, top_p=0.8, temperature_last=last)
        drawn = [chooser(settings, [()], seed=seed)(logits).ids[0] for seed in range(400)]
        draws[last] = [drawn.count(index) / len(drawn) for index in range(5)]
    kept = torch.tensor([3.0, 2.0]).div(4).softmax(0)  # 0.64 and 0.23 of the probability: the first two hold 0.8
    assert draws[True][2:] == [0, 0, 0]
    assert abs(draws[True][0] - float(kept[0])) < 0.08
    assert draws[False][2] > 0.1  # flattened first, three and more are needed


@pytest.mark.parametrize("settings", [{"beams": 3, "length_penalty": 0.6}, {"temperature": 1.0, "top_k": 5}, {"forced_end": True}])
def test_captions_are_written_in_other_ways(settings, tmp_path: Path):
    """Beams find a caption at least as likely as the greedy one; draws repeat under a seed; a full caption ends with the end."""
    graph = mg.load("coca", params={"checkpoint": str(tiny(tmp_path / "coca")), "max_new_tokens": 4} | {
        f"nodes.write.with.{name}": value for name, value in settings.items()
    })  # fmt: skip
    with mg.open(graph, seed=3) as pipeline:
        first, again = (pipeline.run(image=data.coffee(), outputs=["write.ids"])["write.ids"].tolist() for _ in range(2))
    assert first == again
    (first,) = first
    last = oracle("coca_openclip").config["text_cfg"]["vocab_size"] - 1
    assert 1 <= len(first) <= 4
    if "forced_end" in settings:
        assert first[-1] == last


@pytest.mark.whole("tests/plugins/test_onnx_parts.py::test_a_part_gives_torchs_numbers")
@pytest.mark.slow
def test_on_onnx_it_answers_as_torch(tmp_path: Path):
    """Vectors within the gate, captions word for word."""
    graph = mg.load("coca", params={"checkpoint": str(tiny(tmp_path / "coca")), **WRITTEN})
    answers = {}
    for backend in ("torch", "onnx"):
        with mg.open(graph, backend=backend) as pipeline:
            answers[backend] = pipeline.run(image=[data.coffee(), data.chelsea()], text=["w3", "w4 w5"], prompt=["", "w9"])
    assert answers["torch"]["text"] == answers["onnx"]["text"]
    for name in ("image_vector", "text_vector"):
        torch.testing.assert_close(torch.stack(list(answers["onnx"][name])), torch.stack(list(answers["torch"][name])), rtol=0, atol=1e-4)
