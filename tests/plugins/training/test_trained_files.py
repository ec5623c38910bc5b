"""What was trained is a `from` for any graph: of whole nodes, of adapters, and of nodes that share weights."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

import modelgraft as mg
from modelgraft_plugins.adapters import Lora
from modelgraft_plugins.llm.gated import GatedCrossAttention
from modelgraft_plugins.llm.prefix import PrefixAttention
from support import fromage
from support.checkpoints import llama, llava
from support.grafted_stages import SEEN, gaze_made
from support.learners import write_graph
from support.recipes import drawn

HEAD = 'modelgraft: 1\ninputs: {x: "float[batch tokens 5]", y: "float[batch tokens 3]"}\n'
TAIL = "losses: {apart: {use: loss/alignment, in: {x: hand, wanted: inputs.y}}}\ntraining: {data: d.jsonl, steps: 2, batch: 2}\n"


def tokens(folder, node):
    """A graph of one node with two layers, and its data."""
    path = folder / "a.yaml"
    path.write_text(f"{HEAD}nodes: {{hand: {node}}}\noutputs: {{hand: hand}}\n{TAIL}")
    rows = [{"x": [[[1.0, 2, 3, 4, number]]], "y": [[[1.0, 2, 3]]]} for number in range(4)]
    (folder / "d.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def test_a_trained_file_says_its_config(tmp_path):
    """A graph that names it needs no `with`."""
    graph = tokens(tmp_path, "{use: projector/mlp, with: {hidden_act: silu, out_features: 3}, in: {x: inputs.x}}")
    folder = mg.train(graph, out=tmp_path / "out", device="cpu").last
    again = tmp_path / "b.yaml"
    node = "{use: projector/mlp, from: ./out/train/hand.safetensors, in: {x: inputs.x}}"
    again.write_text(f'modelgraft: 1\ninputs: {{x: "float[batch tokens 5]"}}\nnodes: {{hand: {node}}}\noutputs: {{hand: hand}}\n')
    x = torch.randn(2, 4, 5)
    with mg.open(again) as pipeline:
        found = pipeline.run(x=x, outputs=["hand"])["hand"]
    trained = load_file(folder / "hand.safetensors")
    inner = torch.nn.functional.silu(x @ trained["linear_1.weight"].T + trained["linear_1.bias"])
    torch.testing.assert_close(found, inner @ trained["linear_2.weight"].T + trained["linear_2.bias"])


PLAIN = ("batch: 4", "batch: 13\n  shuffle: false\n  schedule: constant\n  warmup: 0\n  clip: 0\n  optimizer: sgd")


def test_nodes_that_share_weights_are_trained_as_one(tmp_path):
    """Two uses of one layer, each with its loss, are one use whose loss counts twice."""
    once = write_graph(tmp_path, PLAIN, ("steps: 12", "steps: 1\n  losses: {apart: 2}"), name="once.yaml")
    again = "  again: {use: projector/linear, share: hand, with: {over: vector}, in: {x: eye}}\noutputs:\n"
    more = "  more: {use: loss/alignment, with: {over: vector}, in: {x: again, wanted: inputs.y}}\ntraining:"
    twice = write_graph(tmp_path, PLAIN, ("steps: 12", "steps: 1"), ("outputs:\n", again), ("training:", more), name="twice.yaml")
    found = [mg.train(graph, out=tmp_path / graph.stem, device="cpu").last for graph in (once, twice)]
    torch.testing.assert_close(*(load_file(folder / "hand.safetensors") for folder in found))
    assert not list(found[1].glob("again*"))


def test_an_adapter_is_trained_alone_and_loads_as_one(tmp_path):
    """LoRA in a frozen host: its file holds the updates and says their config, and an adapter reads it."""
    pytest.importorskip("peft")
    lora = "adapters: [{use: adapter/lora, with: {rank: 2, alpha: 3, targets: all-linear}}]"
    graph = tokens(tmp_path, f"{{use: projector/mlp, frozen: true, {lora}, with: {{out_features: 3}}, in: {{x: inputs.x}}}}")
    text, x = graph.read_text(), torch.randn(2, 4, 5)
    with mg.open(graph) as pipeline:
        before = pipeline.run(x=x)["hand"]
    folder = mg.train(graph, out=tmp_path / "out", device="cpu").last
    names = {*load_file(folder / "hand.safetensors")}
    assert names
    assert all("lora_" in name for name in names)
    answers = []
    for given in (", with: {rank: 2, alpha: 3, targets: all-linear}", ""):
        graph.write_text(text.replace(", with: {rank: 2, alpha: 3, targets: all-linear}", f", from: ./out/train/hand.safetensors{given}"))
        with mg.open(graph) as pipeline:
            answers.append(pipeline.run(x=x)["hand"])
    assert not torch.allclose(before, answers[0])
    assert torch.equal(*answers)


RUN_GAZE = """
modelgraft: 1
name: looks
extends: grafted/gaze
nodes:
  llm:
    adapters:
      - use: adapter/gated_cross_attention
        from: ./out/train/llm.safetensors
        in: {media: soft}
"""


def test_gated_blocks_load_from_the_file_that_training_wrote(tmp_path):
    """All of its tensors are those of the blocks, whose gates have opened; it says their sizes."""
    params, _ = gaze_made(tmp_path)
    rows = [{"seen": record["seen"][None].tolist(), "caption": record["caption"]} for record in SEEN]
    (tmp_path / "d.jsonl").write_text("\n".join(map(json.dumps, rows)))
    given = {"data": tmp_path / "d.jsonl", "steps": 2, "batch": 4, "learning_rate": 0.1}
    file = load_file(mg.train("grafted/gaze", params=params, out=tmp_path / "out", device="cpu", **given).last / "llm.safetensors")
    (tmp_path / "run.yaml").write_text(RUN_GAZE)
    with mg.open(mg.load(tmp_path / "run.yaml", params={**params, "every": 1}, allow=["unused"])) as pipeline:
        pipeline.run(seen=SEEN[0]["seen"][None], caption=["a cat"])
        held = pipeline._loader.loaded()["llm"].state.state_dict()
    assert any(name.endswith("attn_gate") and float(gate) for name, gate in file.items())
    assert {name: held[name].tolist() for name in file} == {name: tensor.tolist() for name, tensor in file.items()}


LOOKING = """
modelgraft: 1
inputs: {text: text, answer: text, media: "float[batch 5 28]"}
nodes:
  llm:
    use: llm/causal
    from: ./llama
    with: {max_new_tokens: 2}
    adapters: [{use: adapter/%s, in: {media: inputs.media}}]
    in: {prompt: inputs.text, target: inputs.answer}
    frozen: true
outputs: {text: llm.text}
losses: {say: {use: loss/cross_entropy, with: {over: tokens}, in: {logits: llm.target_logits, labels: llm.target_ids}}}
training: {data: d.jsonl, steps: 2, batch: 2, learning_rate: 0.1}
"""


@pytest.mark.parametrize(
    ("adapter", "sizes"),
    [
        ("prefix_attention", "with: {vectors: 5, layers: 1, biases: false}"),
        ("gated_cross_attention", "with: {family: idefics, media_size: 28, every: 1, intermediate_size: 12, num_heads: 4}"),
    ],
)
def test_other_adapters_load_from_the_file_that_training_wrote(adapter, sizes, tmp_path):
    """With nothing said beside it, and to the bit."""
    llama(tmp_path / "llama")
    text = "<image> a cat" if adapter.startswith("gated") else "a cat"
    record = {"text": text, "answer": "the sea", "media": torch.randn(1, 5, 28)}
    (tmp_path / "d.jsonl").write_text(f"{json.dumps({**record, 'media': record['media'].tolist()})}\n" * 2)
    (tmp_path / "a.yaml").write_text(LOOKING % f"{adapter}, {sizes}")
    file = load_file(mg.train(tmp_path / "a.yaml", out=tmp_path / "out", device="cpu").last / "llm.safetensors")
    (tmp_path / "b.yaml").write_text(LOOKING % f"{adapter}, from: ./out/train/llm.safetensors")
    with mg.open(mg.load(tmp_path / "b.yaml")) as pipeline:
        pipeline.run(**record)
        held = pipeline._loader.loaded()["llm"].state.state_dict()
    assert {name: held[name].tolist() for name in file} == {name: tensor.tolist() for name, tensor in file.items()}


def test_what_two_adapters_of_a_node_have_learnt_each_finds_in_its_file(tmp_path):
    """Gated blocks and LoRA, in one file; frozen blocks learn nothing beside LoRA."""
    pytest.importorskip("peft")
    llama(tmp_path / "llama")
    record = {"text": "<image> a cat", "answer": "the sea", "media": torch.randn(1, 5, 28)}
    (tmp_path / "d.jsonl").write_text(f"{json.dumps({**record, 'media': record['media'].tolist()})}\n" * 2)

    def graph(gated, lora):
        more = f"}}}}, {{use: adapter/lora, {lora}}}]"
        (tmp_path / "a.yaml").write_text((LOOKING % f"gated_cross_attention, {gated}").replace("}}]", more))
        return tmp_path / "a.yaml"

    blocks, updates = "with: {media_size: 28, every: 1, ff_mult: 2%s}", "with: {rank: 2, alpha: 3, targets: [q_proj]}"
    file = load_file(mg.train(graph(blocks % "", updates), out=tmp_path / "out", device="cpu").last / "llm.safetensors")
    with mg.open(graph(*["from: ./out/train/llm.safetensors"] * 2)) as pipeline:
        pipeline.run(**record)
        held = pipeline._loader.loaded()["llm"].state.state_dict()
    assert {name: held[name].tolist() for name in file} == {name: tensor.tolist() for name, tensor in file.items()}
    assert any("lora_" in name for name in file)
    frozen = load_file(mg.train(graph(blocks % ", frozen: true", updates), out=tmp_path / "frozen", device="cpu").last / "llm.safetensors")
    assert {*frozen} == {name for name in file if "lora_" in name}


def test_of_fromage_the_row_of_ret_is_trained_alone_and_kept(tmp_path):
    """The table of the language model stays; the row, as long as others, is in the file, in the checkpoint, and where its file is named."""
    params = fromage.tiny(tmp_path / "models").params
    rows = [{"image": str(tmp_path / f"{number}.png"), "text": text} for number, text in enumerate(("a cat", "the sea"))]
    for number, row in enumerate(rows):
        drawn(number).save(row["image"])
    (tmp_path / "d.jsonl").write_text("\n".join(map(json.dumps, rows)))
    given = {"data": tmp_path / "d.jsonl", "batch": 2, "device": "cpu", "learning_rate": 0.01}
    folder = mg.train("fromage/train", params=params, out=tmp_path / "out", steps=4, **given).last
    row = load_file(folder / "read.safetensors")
    assert {*row} == {"ret"}
    (kept,) = folder.glob("checkpoints/*/read.safetensors")
    assert torch.equal(load_file(kept)["ret"], row["ret"])
    assert json.loads((folder / "card.json").read_text())["trained"]["read"]["parameters"] == row["ret"].numel()
    adapters = "adapters: [{use: fromage/ret, from: ./out/train/read.safetensors}]"
    (tmp_path / "again.yaml").write_text(f"modelgraft: 1\nextends: fromage/embed\nnodes: {{read: {{{adapters}}}}}\n")
    states = []
    for graph in ("fromage/embed", tmp_path / "again.yaml"):
        with mg.open(mg.load(graph, params=params)) as pipeline:
            pipeline.run(image=drawn(0), text="a cat")
            host = pipeline._loader.loaded()["read"].state
            states.append(host.ret.detach())
    lengths, token = host.model.get_input_embeddings().weight.norm(dim=1), host.config.ret
    torch.testing.assert_close(row["ret"].norm(), torch.cat([lengths[:token], lengths[token + 1 :]]).mean())  # as published
    assert torch.equal(states[1], row["ret"])
    assert not torch.equal(*states)


def test_a_language_model_is_run_from_its_trained_file(tmp_path):
    """Its tokenizer lies beside it; the answer is that of the checkpoint, whose weights a rate of 0 leaves as they are."""
    made, picture = llava(tmp_path / "llava"), drawn(1)
    picture.save(tmp_path / "a.png")
    (tmp_path / "d.jsonl").write_text(json.dumps({"image": str(tmp_path / "a.png"), "prompt": "what?", "answer": "a cat"}))
    given = {"checkpoint": str(made.folder)}
    folder = mg.train(
        "llava/train",
        params=given,
        out=tmp_path / "out",
        stage="instruct",
        device="cpu",
        steps=1,
        data=tmp_path / "d.jsonl",
        learning_rate=0,
    ).last
    assert (folder / "llm.safetensors").stat().st_mode == (tmp_path / "d.jsonl").stat().st_mode
    answers = []
    for sources in ({}, {f"nodes.{node}.from": str(folder / f"{node}.safetensors") for node in ("project", "llm")}):
        with mg.open("llava", params={**given, **sources}) as pipeline:
            answers.append(pipeline.run(image=picture, prompt="what?")["text"])
    assert answers[0] == answers[1]
    assert not mg.check(mg.load("llava", params={**given, **sources})).warnings


SHARED = """
modelgraft: 1
inputs: {text: text, media: "float[batch 5 28]"}
nodes:
  llm: {use: llm/causal, %s with: {max_new_tokens: 2}, adapters: [%s], in: {prompt: inputs.text%s}}
  say: {use: llm/causal, %s with: {max_new_tokens: 2}, in: {prompt: inputs.text}}
outputs: {text: llm.text, said: say.text}
"""
LORA, RET = "{use: adapter/lora, with: {rank: 2}}", "{use: fromage/ret}"
GATED = "{use: adapter/gated_cross_attention, with: {media_size: 28, every: 1}}"
PREFIX = "{use: adapter/prefix_attention, with: {vectors: 5, layers: 1, biases: false}}"
MEDIA = ", media: inputs.media"


def shared(folder, adapter, media="", *, owner):
    """A graph whose node `say` has no adapter; `llm` has one, and `owner` the weights."""
    own, others = "from: ./llama,", f"share: {owner},"
    text = SHARED % (own if owner == "llm" else others, adapter, media, others if owner == "llm" else own)
    (folder / "shared.yaml").write_text(text if media else text.replace(', media: "float[batch 5 28]"', ""))
    return folder / "shared.yaml"


@pytest.mark.parametrize(("adapter", "media"), [(LORA, ""), (GATED, MEDIA), (PREFIX, MEDIA)], ids=["lora", "gated", "prefix"])
def test_weights_whose_tensors_are_others_with_an_adapter_are_not_shared(adapter, media, tmp_path, monkeypatch):
    """The checker says what would fail when they are opened."""
    llama(tmp_path / "llama")
    graph = shared(tmp_path, adapter, media, owner="llm")
    with pytest.raises(mg.GraphError, match=r"(?s)say shares the weights of llm, whose tensors are others.*let say have the weights"):
        mg.check(graph)
    for config in (Lora, GatedCrossAttention, PrefixAttention):
        monkeypatch.setattr(config, "grafts_tensors", False)
    with mg.open(graph, init="random") as pipeline, pytest.raises(mg.SourceError, match=r"the tensors of .* do not fit say"):
        pipeline.run(text="a", outputs=["said"])


@pytest.mark.parametrize(("adapter", "owner"), [(LORA, "say"), (RET, "llm")], ids=["lora-beside", "ret"])
def test_a_new_adapter_beside_shared_weights_or_among_them_changes_nothing(adapter, owner, tmp_path):
    """What shares may have updates of its own; a row that is put into a table is shared with it."""
    llama(tmp_path / "llama")
    graph = shared(tmp_path, adapter, owner=owner)
    with pytest.warns(mg.ModelgraftWarning, match="start from random numbers"), mg.open(graph, init="random") as pipeline:
        found = pipeline.run(text="a cat")
    assert found["text"] == found["said"]
