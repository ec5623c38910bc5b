"""Kosmos-2 and Kosmos-1 as graphs: the first against transformers on tiny random weights, both in batches, and by their counts."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import modelgraft as mg
from modelgraft.testing import conform
from modelgraft_plugins.kosmos import Connector
from support import kosmos
from support.checkpoints import Checkpoint
from support.installed import registry
from support.open_part import configured, counts, open_part
from support.pictures import gallery

NEW = 9
PICTURES = [gallery()[name] for name in ("landscape", "portrait", "grey", "rgba")]
PROMPTS = ["An image of", "What is this?", "Describe this image in detail: two red", "a photo of a cat"]
REGISTRY = registry()
BINS = {f"nodes.{node}.with.bins": kosmos.BINS for node in ("asked", "found")}  # the tiny one has few places


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return kosmos.kosmos2(tmp_path_factory.mktemp("kosmos2") / "model")


@pytest.fixture(scope="module")
def first(theirs: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Kosmos-1 of the same tensors."""
    return kosmos.as_kosmos1(theirs, tmp_path_factory.mktemp("kosmos1") / "model")


def ask(graph: str, folder: Path, *, params: dict[str, Any] | None = None, outputs: list[str] | None = None, **inputs: Any) -> Any:
    given = {"checkpoint": str(folder), "max_new_tokens": NEW, **(BINS if graph.startswith("kosmos2") else {}), **(params or {})}
    with mg.open(graph, params=given) as pipeline:
        return pipeline.run(**inputs, **({"outputs": outputs} if outputs else {}))


@pytest.mark.parametrize("count", [1, 4])
def test_answers_are_those_of_transformers(theirs: Checkpoint, count: int):
    """Texts with their marks, the first logits, the vectors of the picture; alone, and with prompts of unequal length.

    Theirs are written one by one: where a prompt is padded, its `generate` counts the padding among the places of new tokens.
    """
    texts, logits = kosmos.one_by_one(theirs, PICTURES[:count], [f"<grounding>{prompt}" for prompt in PROMPTS[:count]], new=NEW)
    outputs = ["llm.text", "llm.logits", "latents.latents", "text", "llm.prompt_ids"]
    result = ask("kosmos2", theirs.folder, image=PICTURES[:count], prompt=PROMPTS[:count], outputs=outputs)
    assert result["llm.text"] == texts
    torch.testing.assert_close(result["llm.logits"], logits, rtol=0, atol=1e-4)
    inputs = kosmos.asked(theirs, PICTURES[:count], [f"<grounding>{prompt}" for prompt in PROMPTS[:count]])
    with torch.no_grad():
        wanted = theirs.model(**inputs).image_embeds
    torch.testing.assert_close(result["latents.latents"], wanted, rtol=0, atol=1e-5)
    for row, (text, prompt) in enumerate(zip(texts, PROMPTS, strict=False)):
        said = theirs.processor.post_process_generation(f"<grounding>{prompt} {text}")[0]
        assert result["text"][row].replace(" ", "") == said.replace(" ", "")


def test_the_answers_differ_from_picture_to_picture(theirs: Checkpoint):
    """So that the test above compares something: neither a constant nor the prompt again."""
    texts, logits = kosmos.one_by_one(theirs, PICTURES, ["An image of"] * 4, new=NEW)
    assert (logits[0] - logits[1]).abs().max() > 0.05
    assert len(set(texts)) > 1


def test_beams_are_those_of_transformers(theirs: Checkpoint):
    """As many as it was published with."""
    prompts = [f"<grounding>{prompt}" for prompt in PROMPTS]
    texts, _ = kosmos.one_by_one(theirs, PICTURES, prompts, new=NEW, num_beams=3)
    result = ask("kosmos2", theirs.folder, params={"nodes.llm.with.beams": 3}, image=PICTURES, prompt=PROMPTS, outputs=["llm.text"])
    assert result["llm.text"] == texts


def test_places_are_read_as_the_processor_writes_them(theirs: Checkpoint):
    """The ids of a prompt with boxes and phrases are those of transformers' processor."""
    boxes = [
        {"x0": 0.0, "y0": 2.0, "x1": 30.0, "y1": 20.0, "text": "a cat"},
        {"x0": 31.0, "y0": 0.0, "x1": 60.0, "y1": 9.0, "text": "a cat"},
    ]
    picture = PICTURES[0]
    parts = [tuple(box[name] / side for name, side in zip(("x0", "y0", "x1", "y1"), picture.size * 2, strict=True)) for box in boxes]
    marked = "<grounding>a photo of <phrase> a cat</phrase> and <phrase> a dog</phrase>"
    wanted = kosmos.asked(theirs, [picture], [marked], bboxes=[[parts, None]])["input_ids"][0].tolist()
    result = ask(
        "kosmos2", theirs.folder, image=picture, prompt="a photo of a cat and a dog", boxes=boxes, phrases=["a dog"],
        outputs=["llm.prompt_ids"], params={"max_new_tokens": 0},
    )  # fmt: skip
    got = result["llm.prompt_ids"].flatten().tolist()
    slots = range(wanted[2], wanted[2] + kosmos.QUERIES)
    assert [-1 if token in slots and 2 <= place < 2 + kosmos.QUERIES else token for place, token in enumerate(wanted)] == got


def test_what_is_found_is_drawn(theirs: Checkpoint):
    """Tokens of places that are made likely, one behind the other: boxes, the words that they belong to, and another picture."""
    tokenizer = theirs.processor.tokenizer
    said = ["<object>", "<patch_index_0000>", "<patch_index_0004>", "</object>"]
    ids = [tokenizer.convert_tokens_to_ids(token) for token in said]
    chain = [[[*ids[:at], token], 500.0 * (at + 1)] for at, token in enumerate(ids)]  # each where those before it are written
    result = ask(
        "kosmos2/find", theirs.folder, image=PICTURES[0], phrase="a cat",
        params={"nodes.llm.with.sequence_bias": chain, "max_new_tokens": 4}, outputs=["llm.text", "boxes", "text", "image"],
    )  # fmt: skip
    assert result["llm.text"] == "".join(said)
    width, height = PICTURES[0].size
    assert result["boxes"] == [{"x0": pytest.approx(width / 6), "y0": pytest.approx(height / 6), "x1": pytest.approx(width / 2),
                                "y1": pytest.approx(height / 2), "text": "a cat"}]  # fmt: skip
    assert result["text"] == "a cat"
    assert (np.asarray(result["image"]) != np.asarray(PICTURES[0])).any()


@pytest.mark.slow
def test_a_batch_is_its_records_one_by_one(theirs: Checkpoint, first: Path):
    """Unequal prompts, pictures of all shapes."""
    for graph, folder in (("kosmos2", theirs.folder), ("kosmos1", first)):
        outputs = ["llm.text", "llm.logits"]
        together = ask(graph, folder, image=PICTURES, prompt=PROMPTS, outputs=outputs)
        for row, (picture, prompt) in enumerate(zip(PICTURES, PROMPTS, strict=True)):
            alone = ask(graph, folder, image=picture, prompt=prompt, outputs=outputs)
            assert alone["llm.text"] == together["llm.text"][row]
            torch.testing.assert_close(alone["llm.logits"][0], together["llm.logits"][row], rtol=0, atol=1e-5)


def test_xpos_gives_other_answers(theirs: Checkpoint, first: Path):
    """The same tensors as a Kosmos-1."""
    one = ask("kosmos1", first, image=PICTURES, prompt=PROMPTS, outputs=["llm.logits"])
    other = ask("kosmos1", theirs.folder, image=PICTURES, prompt=PROMPTS, outputs=["llm.logits"])
    assert (one["llm.logits"] - other["llm.logits"]).abs().max() > 0.1


@pytest.mark.parametrize("graph", ["kosmos1", "kosmos2"])
def test_the_published_sizes_are_counted_to_the_unit(graph: str):
    """Kosmos-2 as transformers builds it: 1.6 billion, of which the decoder has 1.3; Kosmos-1 lacks the tokens of places."""
    plan = mg.plan(mg.load(graph))
    language = plan.nodes["llm"].parameters.total
    assert plan.nodes["vision"].parameters.total == 303_179_776
    assert plan.nodes["latents"].parameters.total == 19_015_680
    assert language == 1_342_289_920 - (1_030 * 2048 if graph == "kosmos1" else 0)
    assert plan.totals.parameters == 303_179_776 + 19_015_680 + language


def test_of_the_eye_of_kosmos_1_the_last_layer_is_trained():
    """One block of ViT-L: attention of four maps, a feed-forward layer, two norms; and all of the rest but the eye."""
    plan = mg.plan(mg.load("kosmos1"))
    block = 4 * (1024 * 1024 + 1024) + (1024 * 4096 + 4096) + (4096 * 1024 + 1024) + 2 * 2 * 1024
    assert plan.nodes["vision"].parameters.trainable == block
    assert plan.totals.trainable == plan.totals.parameters - 303_179_776 + block
    assert mg.plan(mg.load("kosmos2")).totals.trainable == 1_664_485_376


def test_counts_are_those_of_what_is_built(theirs: Checkpoint, first: Path):
    """Of each part, and of the whole."""
    parts = {"vision/encoder": "vision_model", "kosmos/connector": "image_to_text_projection", "llm/causal": "text_model"}
    for folder in (theirs.folder, first):
        found = [counts(configured(REGISTRY, component, f"{folder}#{part}")) for component, part in parts.items()]
        assert all(formula == built for formula, built in found)
        assert sum(formula for formula, _ in found if formula) == sum(tensor.numel() for tensor in theirs.model.parameters())


def official(theirs: Checkpoint, path: Path) -> Path:
    """The same tensors as its authors keep them, heads of another width left aside: a file that torch saved, under `model`."""
    names = {
        "text_model.lm_head": "gpt_model.decoder.output_projection", "text_model.model": "gpt_model.decoder",
        "image_to_text_projection": "img_connector", "vision_model.model.embeddings.class_embedding": "img_model.visual.class_embedding",
        "vision_model.model.embeddings.position_embedding.weight": "img_model.visual.positional_embedding",
        "vision_model.model.embeddings.patch_embedding": "img_model.visual.conv1", "vision_model.model": "img_model.visual",
        "pre_layrnorm": "ln_pre", "post_layernorm": "ln_post", "encoder.layers": "transformer.resblocks",
        "layer_norm1": "ln_1", "layer_norm2": "ln_2",
    }  # fmt: skip
    state = {}
    for key, tensor in theirs.model.state_dict().items():
        name = key
        for theirs_name, own in names.items():
            name = name.replace(theirs_name, own)
        if name.startswith("img_model."):
            name = name.replace("self_attn", "ts_attn").replace("fc1", "c_fc").replace("fc2", "c_proj")
        state[name] = tensor.clone()
    state["gpt_model.decoder.embed_positions._float_tensor"] = torch.zeros(1)
    state["gpt_model.decoder.self_attn_sope.scale"] = torch.ones(4)
    path.parent.mkdir(parents=True)
    torch.save({"model": state}, path)
    theirs.processor.tokenizer.save_pretrained(path.parent)
    return path


def test_the_official_file_gives_the_same(tmp_path: Path):
    """Read by its own keys and shapes, heads 64 wide as published; what it holds beside the model is left out."""
    wide = kosmos.kosmos2(
        tmp_path / "model", words={"embed_dim": 128, "attention_heads": 2}, eye={"hidden_size": 64, "num_attention_heads": 1}
    )
    path = official(wide, tmp_path / "official" / "kosmos-2.pt")
    prompts = {"image": PICTURES, "prompt": PROMPTS, "outputs": ["llm.text", "llm.logits"]}
    wanted = ask("kosmos2", wide.folder, **prompts)
    got = ask("kosmos2", path, **prompts)
    assert got["llm.text"] == wanted["llm.text"]
    torch.testing.assert_close(got["llm.logits"], wanted["llm.logits"], rtol=0, atol=0)


def test_import_writes_the_shipped_graphs(theirs: Checkpoint, first: Path):
    """By the model type in the files."""
    from modelgraft.tools.importer import import_graph

    for folder, name in ((theirs.folder, "kosmos2"), (first, "kosmos1")):
        text = import_graph(str(folder), folder=folder.parent)
        assert {f"name: {name}", "modelgraft: 1"} <= set(text.splitlines())
        assert 'checkpoint: {default: "./model"' in text


def test_a_key_that_nobody_knows_is_told(theirs: Checkpoint, tmp_path: Path):
    """Of the whole, of the eye and of the decoder."""
    folder = tmp_path / "model"
    folder.mkdir()
    for path in theirs.folder.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    config = json.loads((folder / "config.json").read_text())
    config["latent_norm"], config["vision_config"]["registers"] = "rms", 4
    (folder / "config.json").write_text(json.dumps(config))
    told = [str(warning) for warning in mg.check(mg.load("kosmos2", params={"checkpoint": str(folder)})).warnings]
    assert any("latent_norm" in line for line in told)
    assert any("registers" in line for line in told)


def test_the_connector_conforms(theirs: Checkpoint):
    """And equals that of transformers, with the norm that stands around it there."""
    conform(Connector, {"in_features": 7, "hidden_size": 10, "queries": 3, "num_heads": 2})
    part = open_part(REGISTRY, "kosmos/connector", f"{theirs.folder}#image_to_text_projection")
    x = torch.randn(3, 11, kosmos.EYE["hidden_size"], generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        wanted = theirs.model.image_to_text_projection(torch.nn.functional.normalize(x, dim=-1))[0]
    torch.testing.assert_close(part(x), wanted, rtol=0, atol=1e-6)
    assert np.isfinite(wanted.numpy()).all()


# -- Kosmos-1: documents, two steps, choices ------------------------------------------------------------------------------


def of_transformers(theirs: Checkpoint, pieces: list[Any]) -> torch.Tensor:
    """The logits at every place of a document of texts and pictures, by the classes of transformers: float[tokens vocabulary]."""
    words = theirs.processor.tokenizer
    ids, shown, seen = [words.bos_token_id], [0], []
    for piece in pieces:
        if isinstance(piece, str):
            own = words(piece, add_special_tokens=False).input_ids
            ids, shown = [*ids, *own], [*shown, *[0] * len(own)]
            continue
        marks = [words.convert_tokens_to_ids(mark) for mark in ("<image>", "</image>")]
        ids, shown = [*ids, marks[0], *[4] * kosmos.QUERIES, marks[1]], [*shown, 0, *[1] * kosmos.QUERIES, 0]
        seen.append(theirs.processor.image_processor(piece, return_tensors="pt")["pixel_values"])
    with torch.no_grad():
        latents = torch.cat([_latents(theirs, pixels) for pixels in seen], 1)
        logits: torch.Tensor = theirs.model(
            input_ids=torch.tensor([ids]), image_embeds=latents, image_embeds_position_mask=torch.tensor([shown])
        ).logits
    return logits[0]


def _latents(theirs: Checkpoint, pixels: torch.Tensor) -> torch.Tensor:
    """What the connector makes of one picture, float[1 queries width]."""
    eye = theirs.model.vision_model
    tokens = eye.model.post_layernorm(eye(pixels)[0])
    found: torch.Tensor = theirs.model.image_to_text_projection(torch.nn.functional.normalize(tokens, dim=-1))[0]
    return found


def said(*pieces: Any) -> list[dict[str, Any]]:
    """A message of texts and pictures."""
    parts = [{"type": "text", "text": piece} if isinstance(piece, str) else {"type": "image", "image": piece} for piece in pieces]
    return [{"role": "user", "content": parts}]


DOCUMENTS = [
    ["a photo of a cat", PICTURES[0], "a photo of a dog", PICTURES[1], "the grass"],
    [PICTURES[2], "An image of"],
    [PICTURES[3], PICTURES[1], PICTURES[0], "What is this?"],
]


def test_documents_hold_any_number_of_pictures_anywhere(theirs: Checkpoint):
    """Unlike many in the records of a batch, each as transformers reads it alone."""
    result = ask("kosmos1/interleaved", theirs.folder, document=[said(*pieces) for pieces in DOCUMENTS], outputs=["llm.logits"])
    for row, pieces in enumerate(DOCUMENTS):
        torch.testing.assert_close(result["llm.logits"][row], of_transformers(theirs, pieces)[-1], rtol=0, atol=1e-4)


def test_the_likeliest_text_is_chosen(theirs: Checkpoint):
    """By the sum of what transformers says of its tokens; of unlike many."""
    options = [[" a cat", " a dog on the grass", " the house"], [" two cats", " one"]]
    result = ask("kosmos1/choose", theirs.folder, image=PICTURES[:2], prompt=PROMPTS[:2], options=options,
                 params={"max_new_tokens": 0}, outputs=["llm.likelihoods", "label"])  # fmt: skip
    words = theirs.processor.tokenizer
    for row, texts in enumerate(options):
        wanted = []
        for text in texts:
            own = words(text, add_special_tokens=False).input_ids
            logits = of_transformers(theirs, [PICTURES[row], f"{PROMPTS[row]}{text}"])[-len(own) - 1 : -1].log_softmax(-1)
            wanted.append(float(logits.gather(1, torch.tensor(own)[:, None]).sum()))
        np.testing.assert_allclose(result["llm.likelihoods"][row, : len(texts)], wanted, atol=1e-4)
        assert result["label"][row] == texts[int(np.argmax(wanted))]


def test_a_chain_is_its_two_steps(theirs: Checkpoint):
    """The words of the first stand before the question of the second."""
    question = "how many cats are there?"
    result = ask("kosmos1/chain", theirs.folder, image=PICTURES, question=[question] * 4, params={"most_told": 5})
    told = ask("kosmos1", theirs.folder, image=PICTURES, prompt=["Introduce this picture in detail:"] * 4, params={"max_new_tokens": 5})
    assert result["told"] == told["text"]
    prompts = [f"Introduce this picture in detail: {one} Question: {question} Answer:" for one in told["text"]]
    assert result["text"] == ask("kosmos1", theirs.folder, image=PICTURES, prompt=prompts)["text"]
    asked = ask("kosmos1/vqa", theirs.folder, image=PICTURES, question=[question] * 4)["text"]
    assert asked == ask("kosmos1", theirs.folder, image=PICTURES, prompt=[f"Question: {question} Answer:"] * 4)["text"]


# -- what is refused ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mark", ["<image>", "</image>", "<grounding>", "<object>", "<patch_index_0003>"])
def test_a_user_cannot_write_a_picture_or_a_place(theirs: Checkpoint, mark: str):
    """Into a prompt it is refused, and in a document it is letters, or refused where the tokenizer has no token for it."""
    with pytest.raises(mg.InputError, match=f"the text holds {mark}, which the model reads as a mark and not as words"):
        ask("kosmos2", theirs.folder, image=PICTURES[0], prompt=f"a photo {mark} of")
    document = [said(PICTURES[0], f"a photo {mark} of")]
    if mark.startswith("<patch_index_"):
        with pytest.raises(mg.InputError, match="a message of the user holds '"):
            ask("kosmos1/interleaved", theirs.folder, document=document)
        return
    number = theirs.processor.tokenizer.convert_tokens_to_ids(mark)
    ids = [
        ask("kosmos1/interleaved", theirs.folder, document=each, outputs=["llm.prompt_ids"])["llm.prompt_ids"][0].tolist()
        for each in (document, [said(PICTURES[0], "a photo of")])
    ]
    assert ids[0].count(number) == ids[1].count(number) == ("image" in mark)
    assert ids[0].count(-1) == ids[1].count(-1) == kosmos.QUERIES


def test_a_prompt_beyond_the_context_is_refused(theirs: Checkpoint, tmp_path: Path):
    """Nothing of it is cut in silence."""
    small = kosmos.kosmos2(tmp_path / "model", words={"max_position_embeddings": 40})
    with pytest.raises(mg.InputError, match=r"40 positions"):
        ask("kosmos1", small.folder, image=PICTURES[0], prompt="a cat " * 40)
    assert theirs.folder != small.folder


def test_a_vocabulary_without_its_marks_is_refused(theirs: Checkpoint, tmp_path: Path):
    """They would be cut into letters, and the picture stand among them."""
    folder = kosmos.as_kosmos1(theirs, tmp_path / "model")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    kosmos.tokenizer().save_pretrained(folder)
    with pytest.raises(
        mg.ModelgraftError, match=r"the tokenizer of llm has no token '<image>', '</image>', which its prompts are written with"
    ):
        ask("kosmos1", folder, image=PICTURES[0], prompt="a cat")


def test_a_placeholder_in_the_words_of_a_document_is_no_picture(theirs: Checkpoint):
    """It is letters: the prompt has the places of the one picture that is shown."""
    document = [said(PICTURES[0], "a <|picture|> of")]
    ids = ask("kosmos1/interleaved", theirs.folder, document=document, outputs=["llm.prompt_ids"])["llm.prompt_ids"]
    assert (ids == -1).sum() == kosmos.QUERIES


# -- onnx -----------------------------------------------------------------------------------------------------------------


@pytest.mark.whole(
    "tests/plugins/test_llm_onnx.py::test_one_graph_with_its_cache_in_place_gives_torchs_logits",
    "tests/plugins/test_llm_onnx.py::test_what_the_operator_cannot_serve_gets_a_growing_cache",
)
@pytest.mark.slow
@pytest.mark.parametrize(("graph", "width"), [*product(["kosmos1", "kosmos2"], [8, 6])])
def test_onnx_says_the_same(graph: str, width: int, tmp_path: Path):
    """Heads of eight, whose cache is updated in place, and of six, whose cache grows."""
    made = kosmos.kosmos2(tmp_path / "kosmos2", words={"embed_dim": 4 * width, "attention_heads": 4})
    folder = made.folder if graph == "kosmos2" else kosmos.as_kosmos1(made, tmp_path / "kosmos1")
    sides = []
    for backend in ("torch", "onnx"):
        params = {"checkpoint": str(folder), "max_new_tokens": NEW, **(BINS if graph == "kosmos2" else {})}
        with mg.open(graph, params=params, backend=backend) as pipeline:
            sides.append(pipeline.run(image=PICTURES, prompt=PROMPTS, outputs=["llm.text", "llm.logits", "latents.latents"]))
    assert sides[0]["llm.text"] == sides[1]["llm.text"]
    for name, atol in (("llm.logits", 1e-4), ("latents.latents", 1e-5)):
        torch.testing.assert_close(sides[0][name], sides[1][name], rtol=0, atol=atol)
