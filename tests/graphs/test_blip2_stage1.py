"""BLIP-2 of the first stage as shipped graphs, against transformers' own class and the code of its authors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import modelgraft as mg
from modelgraft.installed.discovery import discover
from modelgraft.testing import conform, open_node, run_node
from modelgraft.tools.importer import import_graph
from modelgraft_plugins.qformer import pairs
from modelgraft_plugins.training.trained import config_of
from support import checkpoints
from support.checkpoints import Checkpoint
from support.open_part import open_part
from support.oracles import oracle
from support.pictures import gallery

pytestmark = [
    pytest.mark.usefixtures("untuned_cache"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]

CLOSE = {"rtol": 0.0, "atol": 1e-5}  # float32, elementwise
PARTS = pytest.mark.whole("tests/plugins/test_onnx_parts.py::test_a_part_gives_torchs_numbers")
BACKENDS = ["torch", pytest.param("onnx", marks=[pytest.mark.slow, PARTS])]
PICTURES = [gallery()[name] for name in ("landscape", "portrait", "grey")]
TEXTS = ["a red car near the house", "a cat", "two dogs and a cat, now"]
SMALL: dict[str, Any] = {
    "hidden_size": 12, "encoder_hidden_size": 10, "num_query_tokens": 3, "num_hidden_layers": 3, "num_attention_heads": 3,
    "intermediate_size": 19, "vocab_size": 23, "max_position_embeddings": 17,
}  # fmt: skip


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """A tiny one in the layout of transformers."""
    return checkpoints.blip2_first_stage(tmp_path_factory.mktemp("blip2"))


def asked(theirs: Checkpoint, picture: Any, texts: list[str], *, matching: bool) -> torch.Tensor:
    """What transformers says of one picture and each of some texts: cosines float[texts], or two numbers each, float[texts 2]."""
    from transformers import AutoImageProcessor

    prepare = AutoImageProcessor.from_pretrained(theirs.folder, backend="pil")
    pixels = prepare(images=picture.convert("RGB"), return_tensors="pt")["pixel_values"]
    words = theirs.processor(texts, padding=True, return_tensors="pt")
    given = {"input_ids": words["input_ids"], "attention_mask": words["attention_mask"]}
    with torch.no_grad():
        if not matching:
            return theirs.model(pixels, **given).logits_per_image[0]
        return theirs.model(pixels.expand(len(texts), -1, -1, -1), **given, use_image_text_matching_head=True).logits_per_image


@pytest.mark.parametrize("backend", BACKENDS)
def test_texts_are_compared_and_matched_as_by_transformers(theirs: Checkpoint, backend: str):
    """Both ways, in a batch of unlike many texts, and the text that fits best."""
    texts = [TEXTS, TEXTS[:1], TEXTS[1:]]
    with mg.open(mg.load("blip2/match", params={"checkpoint": str(theirs.folder)}), backend=backend) as pipeline:
        found = pipeline.run(outputs=["scores", "match.logits", "label"], image=PICTURES, labels=texts)
    for row, (picture, some) in enumerate(zip(PICTURES, texts, strict=True)):
        logits = asked(theirs, picture, some, matching=True)
        torch.testing.assert_close(found["scores"][row, : len(some)], asked(theirs, picture, some, matching=False), **CLOSE)
        torch.testing.assert_close(found["match.logits"][row, : len(some)], logits, **CLOSE)
        assert str(found["label"][row]) == some[int((logits[:, 1] - logits[:, 0]).argmax())]


def test_the_picture_that_a_text_speaks_of_is_found(theirs: Checkpoint):
    """Records of unlike many pictures; each is matched as transformers matches it, and the best one is given."""
    images, texts = [PICTURES, PICTURES[1:]], [TEXTS[0], TEXTS[2]]
    with mg.open(mg.load("blip2/retrieve", params={"checkpoint": str(theirs.folder)})) as pipeline:
        found = pipeline.run(images=images, text=texts)
    for row, (some, text) in enumerate(zip(images, texts, strict=True)):
        logits = torch.cat([asked(theirs, picture, [text], matching=True) for picture in some])
        matches = logits[:, 1] - logits[:, 0]
        near = torch.cat([asked(theirs, picture, [text], matching=False) for picture in some])
        torch.testing.assert_close(torch.as_tensor(found["matches"][row]), matches, **CLOSE)
        torch.testing.assert_close(torch.stack(list(found["scores"][row])), near, **CLOSE)
        assert found["number"][row] == int(matches.argmax())


def test_it_is_planned_to_the_unit_and_imported(theirs: Checkpoint, tmp_path: Path):
    """The tiny one as transformers built it, the published one, and the graph that a folder becomes."""
    graph = mg.load("blip2/match", params={"checkpoint": str(theirs.folder)})
    count = sum(parameter.numel() for parameter in theirs.model.parameters())
    assert mg.plan(graph).totals.parameters == mg.plan(graph, exact=True).totals.parameters == count
    published = mg.plan(mg.load("blip2/match")).totals
    assert published.parameters - 985_952_256 == 186_080_002, "as transformers counts it, without its eye"
    text = import_graph(str(theirs.folder), folder=tmp_path)
    assert "blip2/match" in text
    second = mg.plan(mg.load("blip2/stage1")).totals.parameters
    head = 768 * 768 + 3 * 768 + 30523 * 768 + 30523
    assert second == published.parameters + head + 2 * 1408 + 1, "a head, a norm behind the eye, and a temperature"


def test_the_second_stage_takes_what_the_first_leaves_with_its_norm():
    """Beside a BLIP-2 the norm behind the eye is planned; a graph that would norm twice is refused."""
    assert mg.plan(mg.load("blip2/stage2")).totals.parameters == mg.plan(mg.load("blip2/train")).totals.parameters + 2 * 1408
    with pytest.raises(mg.GraphError, match=r"qformer has no input 'memory'; it has: queries, unnormed"):
        mg.check(mg.load("blip2/train", params={"nodes.qformer.from": "preset:blip2-stage1"}))


def test_queries_and_qformer_of_a_trained_pair_read_a_picture_as_it_does(theirs: Checkpoint, tmp_path: Path):
    """Of one without a norm of its own, whose file says sizes that are no defaults; the recipes have one with it."""
    pair, memory = open_part(discover(), "qformer/pair", str(theirs.folder)), torch.randn(3, 10, 22)
    about = {"component": "qformer/pair@1", "tuning": "full", "config": config_of(pair.node.config)}
    save_file(pair.module.state_dict(), tmp_path / "see.safetensors", metadata={"modelgraft": json.dumps(about)})
    queries, reader = (open_part(discover(), f"qformer/{name}", str(tmp_path / "see.safetensors")) for name in ("queries", "qformer"))
    assert torch.equal(reader(queries(memory), memory), pair(memory))


def test_a_folder_of_the_second_stage_is_refused_with_a_reason(tmp_path: Path):
    """Its Q-Former reads no text."""
    found = checkpoints.blip2(tmp_path / "second")
    with pytest.raises(mg.GraphError, match=r"reads no text .* one of the first stage is Salesforce/blip2-itm-vit-g"):
        mg.check(mg.load("blip2/match", params={"checkpoint": str(found.folder)}))


def test_a_layout_without_the_head_writes_nothing(theirs: Checkpoint):
    """Transformers left it out."""
    with pytest.raises(mg.GraphError, match="has no head that writes words: the file of its authors has one"):
        mg.check(mg.load("blip2/stage1_caption", params={"checkpoint": str(theirs.folder)}))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("beams", [1, 3])
def test_the_q_former_writes_what_its_logits_say(tmp_path: Path, beams: int, backend: str):
    """Greedy, the likeliest word each time, read anew by the parts that are trained; beams, one by one as together."""
    given = oracle("blip2_stage1")
    source = given.as_folder(tmp_path / "trained", {"model_type": "blip2_qformer", **given.config})
    memory = next(iter(given.cases.values())).inputs["image_embeds"]
    (tmp_path / "write.yaml").write_text(WRITE.format(width=memory.shape[-1], beams=beams))
    with mg.open(tmp_path / "write.yaml", backend=backend) as pipeline:
        ids = pipeline.run(memory=memory)["ids"]
        alone = [pipeline.run(memory=memory[row : row + 1])["ids"][0] for row in range(len(memory))]
    assert [row[row >= 0].tolist() for row in ids] == [row[row >= 0].tolist() for row in alone]
    if beams > 1:
        return
    (tmp_path / "read.yaml").write_text(READ.format(width=memory.shape[-1]))
    with mg.open(tmp_path / "read.yaml") as pipeline:
        for row in range(len(memory)):
            written = [0]  # its place is taken by [DEC]
            while len(written) < 6:
                logits = pipeline.run(memory=memory[row : row + 1], ids=torch.tensor([written]))["logits"][0, -1]
                if len(written) < 3:
                    logits[given.config["sep_token_id"]] = float("-inf")
                written.append(int(logits.argmax()))
                if written[-1] == given.config["sep_token_id"]:
                    break
            assert ids[row][ids[row] >= 0].tolist() == written[1:]
    assert source.is_dir()


WRITE = """
modelgraft: 1
inputs: {{memory: "float[batch memory_tokens {width}]"}}
nodes:
  writer:
    use: qformer/writer
    from: ./trained
    with: {{beams: {beams}, min_new_tokens: 2, max_new_tokens: 5}}
    in: {{memory: inputs.memory}}
outputs: {{ids: writer.ids}}
"""
READ = """
modelgraft: 1
inputs: {{memory: "float[batch memory_tokens {width}]", ids: "int64[batch text_tokens]"}}
nodes:
  write: {{use: qformer/pair, from: ./trained, with: {{reads: caption}}, in: {{memory: inputs.memory, ids: inputs.ids}}}}
  words: {{use: qformer/words, from: "./trained#cls", in: {{tokens: write.tokens}}}}
outputs: {{logits: words}}
"""


@pytest.mark.parametrize(
    "more",
    [{}, {"reads": "text"}, {"reads": "text", "many": True}, {"reads": "both"}, {"reads": "both", "many": True}, {"reads": "caption"}],
    ids=str,
)
def test_the_reader_keeps_its_declaration(more: dict[str, Any]):
    """Ports, repeatability, batches, count and saved state, in all of its uses."""
    conform(pairs.Pair, {**SMALL, **more})


@pytest.mark.parametrize(
    ("subject", "config"),
    [
        (pairs.Match, {"hidden_size": 6}), (pairs.Match, {"hidden_size": 6, "many": True}),
        (pairs.Words, {"hidden_size": 6, "vocab_size": 9}),
        (pairs.BestQuery, {}), (pairs.BestQuery, {"learned": True, "over": "pair"}), (pairs.Contrast, {"learned": True}),
    ],
)  # fmt: skip
def test_the_heads_keep_their_declarations(subject: Any, config: dict[str, Any]):
    """As above."""
    conform(subject, config)


def test_wrong_partners_are_drawn_by_the_seed_and_are_never_the_own_ones():
    """Likelier where they are alike; a batch of one has none."""
    generator = torch.Generator().manual_seed(2)
    batch = 5
    given = {
        "image": torch.randn(batch, 3, 4, generator=generator), "text": torch.randn(batch, 4, generator=generator),
        "memory": torch.arange(batch).float()[:, None, None].expand(-1, 2, 3), "ids": torch.arange(batch)[:, None].expand(-1, 6),
        "mask": torch.ones(batch, 6, dtype=torch.bool),
    }  # fmt: skip
    own = torch.arange(batch)
    found = [run_node(pairs.Negatives, {}, **given, seed=seed) for seed in (1, 1, 2, 3)]
    assert torch.equal(found[0]["memory"], found[1]["memory"])
    assert any(not torch.equal(found[0]["ids"], other["ids"]) for other in found[2:])
    for each in found:
        pictures, texts = each["memory"][:, :, 0, 0].long(), each["ids"][:, :, 0]
        assert torch.equal(pictures[:, 0], own)
        assert torch.equal(pictures[:, 2], own)
        assert torch.equal(texts[:, 0], own)
        assert torch.equal(texts[:, 1], own)
        assert (pictures[:, 1] != own).all()
        assert (texts[:, 2] != own).all()
        assert each["labels"].tolist() == [[1, 0, 0]] * batch
    with pytest.raises(mg.InputError, match="a batch of one record has no other pictures and texts: give at least two"):
        open_node(pairs.Negatives, {})(*(value[:1] for value in given.values()), None, None, None)


def test_wrong_partners_are_drawn_by_the_temperature_of_the_loss():
    """A picture shows what the next text says, and a cold softmax of the cosines takes that one; a warm one takes any."""
    batch = 5
    own, said = torch.arange(batch), torch.eye(batch)
    image, text = said[:, None].expand(-1, 3, -1), said.roll(1, 0)
    more = {"memory": own.float()[:, None, None].expand(-1, 2, 3), "ids": own[:, None].expand(-1, 6), "mask": torch.ones(batch, 6) > 0}
    cold = run_node(pairs.Contrast, {"temperature": 0.02}, image=image, text=text)["temperature"]
    torch.testing.assert_close(cold, torch.full((batch,), 0.02))
    for seed in range(3):
        found = run_node(pairs.Negatives, {"temperature": 9.0}, image=image, text=text, **more, temperature=cold, seed=seed)
        assert torch.equal(found["ids"][:, 2, 0], (own + 1) % batch)
        assert torch.equal(found["memory"][:, 1, 0, 0].long(), (own - 1) % batch)
    warm = [run_node(pairs.Negatives, {"temperature": 9.0}, image=image, text=text, **more, seed=seed)["ids"][:, 2, 0] for seed in range(3)]
    assert any(not torch.equal(each, (own + 1) % batch) for each in warm)
    assert str(mg.check(mg.load("blip2/stage1")).nodes["negatives"].wired["temperature"][0]) == "itc.temperature"


def test_captions_are_searched_as_published(tmp_path: Path):
    """Five beams: the text of transformers' own search."""
    found = checkpoints.blip2(tmp_path / "second")
    inputs = found.processor(images=PICTURES[0], text="a photo of", return_tensors="pt")
    with torch.no_grad():
        ids = found.model.generate(**inputs, num_beams=5, max_new_tokens=8, do_sample=False)
    new = ids[0, inputs["input_ids"].shape[1] :] if ids.shape[1] > inputs["input_ids"].shape[1] else ids[0]
    wanted = found.processor.tokenizer.decode(new, skip_special_tokens=True)
    with mg.open(mg.load("blip2/caption", params={"checkpoint": str(found.folder), "max_new_tokens": 8})) as pipeline:
        assert pipeline.run(image=PICTURES[0])["text"] == wanted.partition("\n")[0]
