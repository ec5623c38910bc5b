"""BEiT-3 and VQ-KD equal the published code: parts through their own loaders, and the shipped graphs over the same weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import modelgraft as mg
from modelgraft.engine.run import NodeRuntime
from support.installed import registry
from support.open_part import counts, open_part
from support.oracles import Case, Oracle, cases, fed, must_differ, oracle

REGISTRY = registry()
USES = ("beit3_retrieval", "beit3_vqa", "beit3_nlvr2", "beit3_in1k", "beit3_caption", "beit2_vqkd")
PIXELS = "float[batch 3 height width]"
IDS, MASK, PATCHES = "int64[batch text_tokens]", "bool[batch text_tokens]", "bool[batch patches]"

Outputs = Mapping[str, torch.Tensor]


def folder_of(given: Oracle, home: Path) -> str:
    """The weights under their official keys, beside a config in the words of the published code."""
    kind = "vqkd" if "codes" in given.config else "beit3"
    return str(given.as_folder(home / f"{id(given)}", {"model_type": kind, **given.config}))


def there(case: Case) -> torch.Tensor:
    """True where the text has a token."""
    return ~case.inputs["padding"].bool()


def masked(tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Zeros where there is no token, as the fixtures have them."""
    return tokens * mask.unsqueeze(-1)


def answers_of(name: str, given: Oracle, case: Case, home: Path) -> Outputs:
    """Run the parts of a fixture, each with its own loader."""
    folder = folder_of(given, home)

    def part(component: str, part: str = "", **config: Any) -> Any:
        return open_part(REGISTRY, component, folder + part, **config)

    return RUNS[name](part, given, case)


def retrieval(part: Any, _given: Oracle, case: Case) -> Outputs:
    """The trunk in its three modes, a hidden patch, two heads, and what they are tuned by."""
    image, ids, mask, hidden = case.inputs["image"], case.inputs["ids"], there(case), case.inputs["patch_mask"]
    eye, reader = part("beit3/encoder", reads="image"), part("beit3/encoder", reads="text")
    seen, read, fused = eye(image, None), reader(ids, mask), part("beit3/encoder")(image, None, ids, mask)
    vectors = {
        name: torch.nn.functional.normalize(part("projector/linear", f"#{head}", over="vector")(pooled), dim=-1)
        for name, head, pooled in (("image_vec", "vision_head", seen["pooled"]), ("text_vec", "language_head", read["pooled"]))
    }
    return {
        **vectors,
        "loss": part("loss/contrastive")(vectors["image_vec"], vectors["text_vec"]).mean(),
        "vision_tokens": seen["tokens"],
        "text_tokens": masked(read["tokens"], mask),
        "fusion_tokens": masked(fused["tokens"], fused["token_mask"]),
        "masked_vision_tokens": eye(image, hidden)["tokens"],
    }


def vqa(part: Any, _given: Oracle, case: Case) -> Outputs:
    """The class token of both."""
    fused = part("beit3/encoder")(case.inputs["image"], None, case.inputs["ids"], there(case))
    return {"logits": part("beit3/vqa")(fused["pooled"])}


def nlvr2(part: Any, _given: Oracle, case: Case) -> Outputs:
    """Two readings."""
    trunk, found = part("beit3/encoder"), []
    for name in ("image", "image_b"):
        fused = trunk(case.inputs[name], None, case.inputs["ids"], there(case))
        found += [fused["pooled"], fused["text_pooled"]]
    return {"logits": part("beit3/nlvr2")(*found)}


def in1k(part: Any, _given: Oracle, case: Case) -> Outputs:
    """The mean of the patches."""
    return {"logits": part("beit3/classify")(part("beit3/encoder", reads="image", select="patches")(case.inputs["image"], None)["tokens"])}


def caption(part: Any, given: Oracle, case: Case) -> Outputs:
    """Logits of a text behind a picture, those of places that are masked, and what is written greedily."""
    image, ids, mask, hidden = case.inputs["image"], case.inputs["ids"], there(case), case.inputs["masked_positions"]
    trunk, head = part("beit3/encoder", causal=True), part("projector/linear", "#mlm_head")
    with_masks = torch.where(hidden, given.config["vocab_size"] - 1, ids)
    steps = case.outputs["greedy_ids"].shape[1] - 1
    writer = part("beit3/captioner", max_new_tokens=steps, end_token_ids=())
    begin = torch.full((len(ids), 1), writer.node.config.begin_token_id)
    return {
        "logits": masked(head(trunk(image, None, ids, mask)["text_tokens"]), mask),
        "masked_logits": head(trunk(image, None, with_masks, mask)["text_tokens"])[hidden],
        "greedy_ids": torch.cat([begin, written(writer, image)], dim=1),
    }


def written(writer: Any, image: torch.Tensor) -> torch.Tensor:
    """The ids that a captioner writes; a fixture has no tokenizer to make a text of them."""
    writer.loop.bind(NodeRuntime("write"))
    return writer.loop.run((image,), writer.module.parts(("see", "tell")), wanted=frozenset({"ids"}))["ids"]


def vqkd(part: Any, _given: Oracle, case: Case) -> Outputs:
    """A picture to codes and what they stand for; or a step of the code book on given features."""
    tokenizer = part("beit3/vqkd")
    if "image01" in case.inputs:
        found = tokenizer(case.inputs["image01"] * 2 - 1)
        decoded = part("beit3/vqkd_decoder")(found["codes"])
        return {"ids": found["ids"], "quantized": found["codes"], "features": found["features"], "decoded": decoded}
    book, features = tokenizer.module.quantize, case.inputs["features"]
    codes, commitment, ids = book(features)
    before = book.embedding.weight.clone()
    assert torch.equal(book(features)[0], codes)
    assert torch.equal(book.embedding.weight, before), "reading moved the code book"
    book.update(features)
    return {"ids": ids.flatten(), "quantized": codes, "commitment": commitment.mean(), "codebook_after": book.embedding.weight}


RUNS = {
    "beit3_retrieval": retrieval, "beit3_vqa": vqa, "beit3_nlvr2": nlvr2, "beit3_in1k": in1k, "beit3_caption": caption, "beit2_vqkd": vqkd,
}  # fmt: skip


@pytest.mark.parametrize(("name", "case"), [pytest.param(name, *row.values, id=row.id) for name in USES for row in cases(name)])
def test_the_parts_equal_the_published_code(name: str, case: Case, tmp_path: Path):
    """Every number of every output."""
    case.compare_all(answers_of(name, oracle(name), case, tmp_path))


@pytest.mark.parametrize("name", USES)
def test_a_weight_that_is_off_shows(name: str, tmp_path: Path):
    """Any that these outputs depend on."""
    must_differ(name, lambda given, case: answers_of(name, given, case, tmp_path))


@pytest.mark.parametrize("name", USES)
def test_formulas_count_what_files_hold(name: str, tmp_path: Path):
    """All parts of a file together are the file, but for what only the training of a code book keeps."""
    given = oracle(name)
    folder = folder_of(given, tmp_path)
    listed = {
        "beit3_retrieval": ("beit3/encoder", "projector/linear#vision_head", "projector/linear#language_head", "loss/contrastive"),
        "beit3_vqa": ("beit3/encoder", "beit3/vqa"),
        "beit3_nlvr2": ("beit3/encoder", "beit3/nlvr2"),
        "beit3_in1k": ("beit3/encoder", "beit3/classify"),
        "beit3_caption": ("beit3/captioner",),
        "beit2_vqkd": ("beit3/vqkd", "beit3/vqkd_decoder"),
    }[name]
    found = [
        counts(open_part(REGISTRY, component, f"{folder}#{part}" if part else folder).node) for component, _, part in map(split, listed)
    ]
    assert all(formula == built for formula, built in found)
    statistics = ("cluster_size", "embed_avg", "initted")
    assert sum(built for _, built in found) == sum(each.numel() for key, each in given.weights.items() if not key.endswith(statistics))


def split(text: str) -> tuple[str, str, str]:
    """`component#part` in its pieces."""
    return text.partition("#")


# graph -> (what it is fed with, the outputs that are compared, what is left out)
GRAPHS: Mapping[str, tuple[Mapping[str, str], Mapping[str, str], tuple[str, ...]]] = {
    "beit3_retrieval": (
        {"see.pixels": PIXELS, "read.ids": IDS, "read.mask": MASK},
        {"image_vec": "image_vec", "text_vec": "text_vec", "loss": "contrast", "vision_tokens": "see.tokens", "text_tokens": "read.tokens"},
        ("pixels", "words", "inputs.image", "inputs.text"),
    ),
    "beit3_vqa": (
        {"fuse.pixels": PIXELS, "fuse.ids": IDS, "fuse.mask": MASK}, {}, ("pixels", "words", "inputs.image", "inputs.question"),
    ),
    "beit3_nlvr2": (
        {f"{node}.{port}": kind for node in ("one", "other") for port, kind in (("pixels", PIXELS), ("ids", IDS), ("mask", MASK))},
        {}, ("left", "right", "words", "inputs.first", "inputs.second", "inputs.text"),
    ),
    "beit3_in1k": ({"see.pixels": PIXELS}, {}, ("pixels", "inputs.image")),
    "beit3_caption": ({"write.pixels": PIXELS}, {}, ("pixels", "inputs.image", "outputs.text")),
    "beit2_vqkd": (
        {"codes.pixels": PIXELS}, {"features": "codes.features"}, ("pixels", "paint", "outputs.picture", "inputs.image"),
    ),
}  # fmt: skip
SHIPPED = {
    "beit3_retrieval": "beit3/contrast", "beit3_vqa": "beit3/vqa", "beit3_nlvr2": "beit3/nlvr2", "beit3_in1k": "beit3/classify",
    "beit3_caption": "beit3/caption", "beit2_vqkd": "beit3/tokenize",
}  # fmt: skip


def run_graph(name: str, given: Oracle, case: Case, home: Path, **more: Any) -> mg.Result:
    """Run a shipped graph over the weights of a fixture, with tensors in place of what it prepares."""
    feeds, outputs, without = GRAPHS[name]
    path = fed(home, SHIPPED[name], feeds, outputs, without=without)
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **more}))
    values = {"pixels": "image", "ids": "ids"}
    inputs = {}
    for place in feeds:
        node, port = place.split(".")
        source = "image_b" if node == "other" and port == "pixels" else values.get(port, port)
        inputs[f"{node}_{port}"] = there(case) if port == "mask" else case.inputs.get(source)
    inputs |= {"codes_pixels": case.inputs["image01"] * 2 - 1} if name == "beit2_vqkd" else {}
    with mg.open(mg.load(path, params={"checkpoint": folder_of(given, home)})) as pipeline:
        return pipeline.run(**inputs)


def table_of(result: mg.Result, names: tuple[str, ...]) -> Outputs:
    """Outputs of a batch as they came."""
    return {name: result.outputs[name] for name in names}


@pytest.mark.parametrize("name", ["beit3_vqa", "beit3_nlvr2", "beit3_in1k"])
def test_graphs_with_a_head_equal_the_published_code(name: str, tmp_path: Path):
    """Each over a folder, with its own nodes."""
    for case in oracle(name).cases.values():
        case.compare_all(table_of(run_graph(name, oracle(name), case, tmp_path), ("logits",)))


def test_the_graph_of_a_dual_encoder_equals_the_published_code(tmp_path: Path):
    """Both vectors, the tokens they come from, and what it is tuned by."""
    for case in oracle("beit3_retrieval").cases.values():
        found = run_graph("beit3_retrieval", oracle("beit3_retrieval"), case, tmp_path).outputs
        case.compare(image_vec=found["image_vec"], text_vec=found["text_vec"], vision_tokens=found["vision_tokens"])
        case.compare(text_tokens=masked(found["text_tokens"], there(case)), loss=found["loss"].mean())


def test_the_graph_of_a_hidden_picture_and_of_both_equals_the_published_code(tmp_path: Path):
    """A mask of patches is one more wire; the graph `beit3` reads both."""
    given = oracle("beit3_retrieval")
    feeds = {"fuse.pixels": PIXELS, "fuse.ids": IDS, "fuse.mask": MASK}
    both = fed(tmp_path, "beit3", feeds, {}, without=("pixels", "words", "inputs.image", "inputs.text"))
    params = {"checkpoint": folder_of(given, tmp_path)}
    (tmp_path / "eye").mkdir()
    dropped = ("pixels", "words", "read", "text_out", "text_vec", "inputs.image", "inputs.text", "outputs.text_vec")
    eye = fed(
        tmp_path / "eye", "beit3/retrieval", {"see.pixels": PIXELS, "see.patch_mask": PATCHES}, {"tokens": "see.tokens"}, without=dropped
    )
    for case in given.cases.values():
        with mg.open(mg.load(both, params=params)) as pipeline:
            found = pipeline.run(fuse_pixels=case.inputs["image"], fuse_ids=case.inputs["ids"], fuse_mask=there(case)).outputs
        case.compare(fusion_tokens=masked(found["tokens"], found["token_mask"]))
        assert torch.equal(torch.cat([found["image_tokens"], found["text_tokens"]], 1), found["tokens"])
        with mg.open(mg.load(eye, params=params)) as pipeline:
            hidden = pipeline.run(see_pixels=case.inputs["image"], see_patch_mask=case.inputs["patch_mask"]).outputs
        case.compare(masked_vision_tokens=hidden["tokens"])


def test_the_graph_of_captions_writes_what_the_published_code_does(tmp_path: Path):
    """Greedily, and of a fixed length as there."""
    given = oracle("beit3_caption")
    for case in given.cases.values():
        steps = case.outputs["greedy_ids"].shape[1] - 1
        fixed = {"params.max_new_tokens.default": steps, "nodes.write.with.end_token_ids": []}
        ids = run_graph("beit3_caption", given, case, tmp_path, **fixed).outputs["ids"]
        case.compare(greedy_ids=torch.cat([torch.zeros(len(ids), 1, dtype=torch.int64), ids], dim=1))


def test_the_graph_of_visual_words_equals_the_published_code(tmp_path: Path):
    """Ids, codes and features of a picture."""
    given = oracle("beit2_vqkd")
    for case in given.cases.values():
        if "image01" in case.inputs:
            found = run_graph("beit2_vqkd", given, case, tmp_path).outputs
            case.compare(ids=found["ids"], quantized=found["codes"], features=found["features"])
