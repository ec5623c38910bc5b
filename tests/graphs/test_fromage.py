"""The graphs of FROMAGe: counted to the unit, from the released layout, on tiny random weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from skimage import data

import modelgraft as mg
from modelgraft.cli import main
from modelgraft_plugins.retrieval.filed import read_index
from support.fromage import Tiny, tiny
from support.oracles import Case, Oracle, cases, fed, oracle
from support.pictures import picture

NAME = "fromage"
FILLED = 5  # rows that fill the table of the OPT up, [RET]'s among them


def released(given: Oracle, home: Path, *, prunes: bool = True) -> dict[str, str]:
    """Three folders as a user has them: what was trained, in the released layout; the OPT and the CLIP that it was trained with.

    The OPT has rows that fill its table up, and nothing of [RET].
    """
    state, config = given.weights, given.config
    table = state["model.input_embeddings.weight"]
    trained = {key: tensor for key, tensor in state.items() if ".lm." not in key and ".visual_model." not in key}
    if prunes:
        del trained["model.input_embeddings.weight"]
    trained["ret_input_embeddings.weight"] = table[config["ret_token_id"]][None].clone()
    for name in ("checkpoint", "language", "vision"):
        (home / name).mkdir(parents=True, exist_ok=True)
    torch.save({"state_dict": trained}, home / "checkpoint" / "pretrained_ckpt.pth.tar")
    stated = {"opt_version": "facebook/opt-tiny", "visual_encoder": "openai/clip-tiny", "freeze_lm": True, "task": "multitask"}
    stated |= {"n_visual_tokens": config["n_visual_tokens"], "shared_emb_dim": config["shared_emb_dim"]}
    (home / "checkpoint" / "model_args.json").write_text(json.dumps({**stated, "retrieval_token_idx": config["ret_token_id"]}))
    names = ("hidden_size", "ffn_dim", "num_hidden_layers", "num_attention_heads", "max_position_embeddings", "word_embed_proj_dim",
             "do_layer_norm_before", "pad_token_id", "eos_token_id")  # fmt: skip
    opt = {"model_type": "opt", "vocab_size": len(table) + FILLED - 1, **{key: config[key] for key in names if key in config}}
    lm = {key.removeprefix("model.lm."): tensor for key, tensor in state.items() if key.startswith("model.lm.")}
    filled = torch.cat([table[: config["ret_token_id"]], torch.full((FILLED, table.shape[1]), 3.0)])
    _save(home / "language", opt, {**lm, "model.decoder.embed_tokens.weight": filled})
    eye = {key.removeprefix("model.visual_"): tensor for key, tensor in state.items() if key.startswith("model.visual_model.")}
    clip = {"model_type": "clip_vision_model", "hidden_act": "quick_gelu", **config["vision"]}
    _save(
        home / "vision",
        {"model_type": "clip", "vision_config": clip, "text_config": {}, "projection_dim": 7},
        {f"vision_{key}": value for key, value in eye.items()},
    )
    return {"checkpoint": str(home / "checkpoint"), "language": str(home / "language"), "vision": str(home / "vision")}


def _save(folder: Path, config: dict[str, object], state: dict[str, torch.Tensor]) -> None:
    (folder / "config.json").write_text(json.dumps(config))
    save_file({key: tensor.contiguous() for key, tensor in state.items()}, folder / "model.safetensors")


@pytest.mark.parametrize("prunes", [True, False])
@pytest.mark.parametrize("case", cases(NAME))
def test_the_graph_of_training_equals_the_published_code_from_the_released_layout(case: Case, prunes: bool, tmp_path: Path):
    """Both models come from folders of their own; [RET] from the checkpoint, also where the captions are folded."""
    given = oracle(NAME)
    feeds = {
        "vision.pixels": "float[batch 3 height width]",
        "read.ids": "int64[batch caption_tokens]",
        "read.mask": "bool[batch caption_tokens]",
    }
    wanted = {"image_tokens": "prefix", "logits": "write.logits", "matched": "read.logits", "text": "query", "image": "key"}
    graph = fed(tmp_path, "fromage/train", feeds, wanted, without=("pixels", "words", "inputs.image", "inputs.text"))
    graph.write_text(graph.read_text() + "nodes.write.in.ids: inputs.read_ids\nnodes.write.in.mask: inputs.read_mask\n")
    params = {**released(given, tmp_path, prunes=prunes), "tokens": given.config["vocab_size_before_resize"]}
    ids = case.inputs["labels"]
    mask = torch.arange(ids.shape[1]) < case.inputs["caption_len"][:, None]
    for concat, name in ((0.0, "caption_loss"), (1.0, "concat_loss")):
        if name not in case.outputs:
            continue  # of an odd number nothing is folded
        with mg.open(mg.load(graph, params={**params, "concat": concat})) as pipeline:
            found = pipeline.run(vision_pixels=case.inputs["pixels"], read_ids=ids, read_mask=mask)
        case.compare(**{name: found["caption"].mean()}, image_tokens=found["image_tokens"], text_embeddings=found["text"])
        case.compare(retrieval_logits=found["matched"], retrieval_lm_loss=found["retrieval"].mean(), infonce=found["contrastive"].mean())
        if not concat:
            case.compare(caption_logits=found["logits"])


@pytest.mark.parametrize("preset", ["preset:fromage", "preset:fromage-vis4"])
def test_what_is_trained_is_counted_to_the_unit(preset: str):
    """As published: 5.5 million numbers with one word for a picture; further words are further rows of one map."""
    words = int(mg.plan(mg.load("fromage/train", params={"checkpoint": preset})).totals.trainable or 0)
    further = {"preset:fromage": 0, "preset:fromage-vis4": 3 * (1024 * 4096 + 4096)}[preset]
    assert words == 5_513_729 + further
    assert mg.plan(mg.load("fromage/train", params={"checkpoint": preset}), exact=True).totals.trainable == words


def pictures(count: int) -> list[Image.Image]:
    return [picture(40 + 3 * number, 31 + 5 * number, seed=number) for number in range(count)]


@pytest.mark.parametrize("words", [1, 3])
def test_captions_are_those_of_the_published_loop(tmp_path: Path, words: int):
    """Behind the words of the picture, with and without a prompt; the rows that fill the table up are never written."""
    small = tiny(tmp_path, words=words)
    with mg.open("fromage/caption", params={**small.params, "max_new_tokens": 7, "nodes.llm.with.stop": []}) as pipeline:
        for shown in (pictures(1)[0], Image.fromarray(data.chelsea())):
            for prompt in ("A picture of", ""):
                found = pipeline.run(image=shown, prompt=prompt, outputs=["llm.ids", "text"])
                ids, _ = small.generate(small.embed(shown, prompt), 7)
                ends = ids.index(1) + 1 if 1 in ids else len(ids)
                assert found["llm.ids"][0].tolist() == ids[:ends]
                assert found["text"] == small.tokenizer.decode(ids[:ends], skip_special_tokens=True)


def said(*parts: str | Image.Image) -> list[dict[str, object]]:
    """One message of the user."""
    content = [{"type": "text", "text": part} if isinstance(part, str) else {"type": "image", "image": part} for part in parts]
    return [{"role": "user", "content": content}]


def photos(folder: Path, small: Tiny) -> tuple[Path, list[Path], torch.Tensor]:
    """A folder of pictures, its index, its files in the order of the index, and their vectors as transformers makes them."""
    folder.mkdir()
    for number, shown in enumerate(pictures(6)):
        shown.save(folder / f"{number}.png")
    out = folder.parent / "photos.safetensors"
    given = [word for name in ("checkpoint", "language", "vision", "tokens") for word in ("--set", f"{name}={small.params[name]}")]
    assert main(["index", "fromage/embed", str(folder), "--out", str(out), *given]) == 0
    files = [folder / entry.path for entry in read_index(out).entries]
    return out, files, torch.stack([small.key(Image.open(file)) for file in files])


def test_an_index_holds_the_vectors_that_pictures_are_found_by(tmp_path: Path):
    """Those of transformers and the published maps; it loads no language model, and indexed again it has nothing to do."""
    small = tiny(tmp_path)
    out, files, keys = photos(tmp_path / "photos", small)
    torch.testing.assert_close(torch.from_numpy(read_index(out).vectors), keys, rtol=0, atol=2e-6)
    assert len(files) == 6


def test_conversations_find_what_the_published_code_finds(tmp_path: Path):
    """With no, one and two pictures, between words and before them; together as one by one."""
    small = tiny(tmp_path)
    out, files, keys = photos(tmp_path / "photos", small)
    first, second, third = pictures(9)[6:]
    asked = [said("a red car"), said(first, "watercolor drawing"), said("between ", second, " and ", third, " lies")]
    wanted = []
    for record in asked:
        parts = [part["text"] if part["type"] == "text" else part["image"] for part in record[0]["content"]]  # type: ignore[index]
        read = torch.cat([small.embed(*parts), small.opt.get_input_embeddings().weight[small.ret][None]])
        with torch.inference_mode():
            state = small.opt(inputs_embeds=read[None], output_hidden_states=True).hidden_states[-1][0, -1]
        wanted.append(keys @ small.query(state))
    params = {**small.params, "index": str(out), "count": 4, "ret": small.ret}
    with mg.open("fromage/retrieve", params=params) as pipeline:
        together = pipeline.run(conversation=asked)
        alone = [pipeline.run(conversation=record) for record in asked]
    for row, scores in enumerate(wanted):
        order = scores.argsort(descending=True)[:4]
        assert together["paths"][row] == [str(files[place].resolve()) for place in order]
        torch.testing.assert_close(together["scores"][row], scores[order], rtol=0, atol=5e-6)
        assert alone[row]["paths"] == together["paths"][row]
        torch.testing.assert_close(alone[row]["scores"][0], together["scores"][row], rtol=0, atol=5e-6)


def test_an_index_of_another_encoder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Both are named, and how to make it again, also where only the map of pictures was trained on; kept up it is refused too."""
    small = tiny(tmp_path)
    out, _, _ = photos(tmp_path / "photos", small)
    params = {**small.params, "index": str(out), "ret": small.ret}
    other = tiny(tmp_path / "other", seed=7)
    with (
        mg.open("fromage/retrieve", params={**params, "checkpoint": other.params["checkpoint"]}) as pipeline,
        pytest.raises(mg.InputError, match=r"holds vectors of .*/checkpoint .*what is asked with is made by .*make an index with this one"),
    ):
        pipeline.run(conversation=said("a red car"))
    file = tmp_path / "checkpoint" / "pretrained_ckpt.pth.tar"
    trained = torch.load(file)["state_dict"]
    torch.save({"state_dict": {**trained, "model.visual_fc.bias": trained["model.visual_fc.bias"] + 0.1}}, file)
    with (
        mg.open("fromage/retrieve", params=params) as pipeline,
        pytest.raises(mg.InputError, match=r"its weights were sha256 .* when it was made, and are sha256 .* make an index with this one"),
    ):
        pipeline.run(conversation=said("a red car"))
    given = [word for name in ("checkpoint", "language", "vision", "tokens") for word in ("--set", f"{name}={small.params[name]}")]
    capsys.readouterr()
    assert main(["index", "fromage/embed", str(tmp_path / "photos"), "--out", str(out), *given]) != 0
    told = capsys.readouterr().err
    assert "was made with" in told
    assert "Name another file, or delete it to embed all files anew" in told


def test_an_empty_folder_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    small = tiny(tmp_path)
    (tmp_path / "none").mkdir()
    given = [word for name in ("checkpoint", "language", "vision", "tokens") for word in ("--set", f"{name}={small.params[name]}")]
    assert main(["index", "fromage/embed", str(tmp_path / "none"), "--out", str(tmp_path / "none.safetensors"), *given]) != 0
    assert "has no file of type image that could be read" in capsys.readouterr().err
    assert not (tmp_path / "none.safetensors").exists()


def test_more_pictures_than_the_context_holds_are_told(tmp_path: Path):
    """In tokens and positions, with a way out."""
    small = tiny(tmp_path, words=20)
    out, _, _ = photos(tmp_path / "photos", small)
    params = {**small.params, "index": str(out), "ret": small.ret}
    told = r"the prompt has 1\d\d tokens.* has 96 positions: shorten the prompt"
    with mg.open("fromage/retrieve", params=params) as pipeline, pytest.raises(mg.InputError, match=told):
        pipeline.run(conversation=said(*pictures(5), "a red car"))
    few, told = {**params, "nodes.talk.with.most_pictures": 4}, r"5 pictures, and 4 find room .*\(20 tokens each\): leave older ones out"
    with mg.open("fromage/retrieve", params=few) as pipeline, pytest.raises(mg.InputError, match=told):
        pipeline.run(conversation=said(*pictures(5), "a red car"))


def reply(small: Tiny, keys: torch.Tensor, prompt: torch.Tensor, *, count: int, most: int, scale: float) -> tuple[list[int], list[int]]:
    """The published loop: (tokens, rows that are shown), each row once."""
    ids, states = small.generate(prompt, count, scale=scale)
    end = ids.index(1) + 1 if 1 in ids else len(ids)
    shown: list[int] = []
    for place in [place for place, token in enumerate(ids[:end]) if token == small.ret][:most]:
        scores = keys @ small.query(states[place])
        scores[shown] -= 1000
        shown.append(int(scores.argmax()))
    return ids[:end], shown


def test_talks_are_answered_as_the_published_loop_answers_them(tmp_path: Path):
    """Pictures in, pictures out: the same tokens, the same pictures in the same places, each once; together as one by one."""
    small = tiny(tmp_path)
    out, files, keys = photos(tmp_path / "photos", small)
    first, second = pictures(8)[6:]
    talks = [
        said("Show me one"),
        said(first, "More of these"),
        [*said(second, "What?"), {"role": "assistant", "content": "Ok."}, *said("And?")],
    ]
    read = [
        small.embed("Q: Show me one\nA:"),
        small.embed(first, "Q: More of these\nA:"),
        small.embed(second, "Q: What?\nA: Ok.\nQ: And?\nA:"),
    ]
    scale = next(
        scale for scale in (1.5, 3.0, 6.0, 12.0, -6.0) if any(reply(small, keys, one, count=9, most=3, scale=scale)[1] for one in read)
    )
    params = {**small.params, "index": str(out), "ret_scale": scale, "most": 3, "max_new_tokens": 9, "nodes.llm.with.stop": []}
    with mg.open("fromage", params=params) as pipeline:
        together = pipeline.run(conversation=talks, outputs=["conversation", "paths", "llm.ids"])
        alone = [pipeline.run(conversation=talk) for talk in talks]
    asked = 0
    for row, prompt in enumerate(read):
        ids, shown = reply(small, keys, prompt, count=9, most=3, scale=scale)
        assert [token for token in together["llm.ids"][row].tolist() if token >= 0] == ids
        assert [names[0] for names in together["paths"][row]] == [str(files[place].resolve()) for place in shown]
        assert len(set(shown)) == len(shown)
        kinds = [part["type"] for part in together["conversation"][row][0]["content"]]
        assert kinds.count("image") == len(shown)
        assert [part["type"] for part in alone[row]["conversation"][0]["content"]] == kinds
        asked += len(shown)
    assert asked


def test_an_answer_without_pictures_is_words_alone(tmp_path: Path):
    """[RET] is held back: nothing is made of it, and with `lazy` not loaded either."""
    small = tiny(tmp_path)
    out, _, _ = photos(tmp_path / "photos", small)
    params = {**small.params, "index": str(out), "max_new_tokens": 4, "nodes.llm.with.token_delay": {"[RET]": 4}}
    with mg.open(mg.load("fromage", params={**params, "nodes.query.lazy": True})) as pipeline:
        found = pipeline.run(conversation="Hello")
        assert [part["type"] for part in found["conversation"][0]["content"]] == ["text"]
        assert "query" not in pipeline._loader.loaded()


@pytest.mark.whole(
    "tests/graphs/test_onnx_graphs.py::test_a_graph_answers_on_onnx_as_on_torch",
    "tests/graphs/test_onnx_adapters.py::test_an_export_holds_the_updates",
)
@pytest.mark.slow
@pytest.mark.parametrize("graph", ["fromage/caption", "fromage/retrieve", "fromage"])
def test_exported_parts_answer_as_those_in_torch(tmp_path: Path, graph: str):
    """Eye, maps and language model on ONNX Runtime, the row of [RET] in its table: the same tokens, pictures and scores."""
    small = tiny(tmp_path)
    out, _, _ = photos(tmp_path / "photos", small)
    own: dict[str, dict[str, object]] = {
        "fromage/caption": {},
        "fromage/retrieve": {"index": str(out), "ret": small.ret},
        "fromage": {"index": str(out), "ret_scale": -6.0, "most": 3, "max_new_tokens": 5, "nodes.llm.with.stop": []},
    }
    first, second = pictures(8)[6:]
    given = {"image": first} if graph == "fromage/caption" else {"conversation": [said(first, "More"), said("A", second, first, "or not")]}
    found = []
    for backend in ("torch", "onnx"):
        with mg.open(graph, params={**small.params, **own[graph]}, backend=backend) as pipeline:
            outputs = ["llm.ids", *({"fromage/caption": ["text"], "fromage": ["paths", "text"]}.get(graph, ["paths", "scores"]))]
            found.append(pipeline.run(outputs=outputs, **given))
            assert graph == "fromage/retrieve" or found[-1]["llm.ids"].numel()
    torched, exported = found
    for name in torched:
        one, other = torched[name], exported[name]
        if name == "scores":
            torch.testing.assert_close(torch.as_tensor(other), one, rtol=0, atol=1e-4)
        else:
            assert torch.equal(torch.as_tensor(other), one) if isinstance(one, torch.Tensor) else other == one


@pytest.mark.parametrize("node", ["read", "write"])
def test_the_row_of_ret_learns_what_its_row_of_the_table_would(tmp_path: Path, node: str):
    """The published code trains the whole table and takes the gradients of all other rows out; the frozen models learn nothing."""
    given = oracle(NAME)
    case = next(iter(cases(NAME))).values[0]
    ids = case.inputs["labels"]
    feeds = {"vision.pixels": "float[batch 3 height width]", "read.ids": "int64[batch caption_tokens]"}
    graph = fed(tmp_path, "fromage/train", feeds, {}, without=("pixels", "words", "inputs.image", "inputs.text", "nodes.read.in.mask"))
    graph.write_text(graph.read_text() + "nodes.write.in: {ids: inputs.read_ids, image: prefix, mask: null}\n")
    own = {
        "nodes.write.share": None,
        "nodes.write.from": "${language}",
        "nodes.write.adapters": [{"use": "fromage/ret", "from": "${checkpoint}"}],
    }
    params = {**released(given, tmp_path), "tokens": given.config["vocab_size_before_resize"], "concat": 0, **own}
    with mg.open(mg.load(graph, params=params)) as pipeline:
        pipeline.load()
        module = pipeline._loader.loaded()[node].state
    module.ret.requires_grad_(True)
    image = case.outputs["image_tokens"] if node == "write" else None
    found = module(ids, None, image)
    torch.nn.functional.cross_entropy(found["logits"].flatten(0, 1), found["targets"].flatten()).backward()
    assert [name for name, parameter in module.named_parameters() if parameter.grad is not None] == ["ret"]
    table = module.model.get_input_embeddings().weight.detach().clone().requires_grad_(True)
    rows = torch.nn.functional.embedding(ids, table)
    read = rows if image is None else torch.cat([image, rows], 1)
    logits = module.model.model(inputs_embeds=read, use_cache=False).last_hidden_state @ table.T
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), found["targets"].flatten()).backward()
    torch.testing.assert_close(module.ret.grad[0], table.grad[given.config["ret_token_id"]], rtol=1e-4, atol=1e-5)
