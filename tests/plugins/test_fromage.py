"""FROMAGe: declarations, the published file in all its states, captions cut into tokens, folding, the row of [RET], and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import modelgraft as mg
from modelgraft.plugin import InputError, SourceError
from modelgraft.testing import conform, open_node
from modelgraft_plugins import fromage
from modelgraft_plugins.fromage.grafting import rescale
from modelgraft_plugins.fromage.language import folded, resized
from support import checkpoints
from support.fromage import tiny
from support.installed import registry
from support.open_part import configured, counts, open_part
from support.oracles import oracle
from support.pictures import picture
from support.tokenizers import byte_level

REGISTRY = registry()
OPT = {
    "model_type": "opt", "vocab_size": 23, "hidden_size": 12, "word_embed_proj_dim": 12, "ffn_dim": 20, "num_hidden_layers": 2,
    "num_attention_heads": 3, "max_position_embeddings": 40, "pad_token_id": 1, "do_layer_norm_before": True,
}  # fmt: skip
SMALL = {**OPT, "word_embed_proj_dim": 7, "do_layer_norm_before": False}  # as OPT-350m is built
IDS = torch.tensor([[2, 5, 7, 24, 1, 1], [2, 9, 4, 4, 3, 24], [2, 24, 1, 1, 1, 1], [2, 8, 8, 24, 1, 1]])


def language(model: dict[str, object] = OPT, **more: object) -> dict[str, object]:
    return {"model": model, "text_width": model["word_embed_proj_dim"], "vocab_size": 23, "added": 2, **more}


def test_maps_keep_their_declaration():
    conform(fromage.Prefix, {"vision_width": 5, "text_width": 7, "tokens": 3})
    conform(fromage.Key, {"vision_width": 5, "embedding_size": 3})
    conform(fromage.Query, {"text_width": 7, "embedding_size": 3, "layers": 2})


@pytest.mark.parametrize("model", [OPT, SMALL], ids=["opt", "opt-350m"])
@pytest.mark.parametrize("task", ["caption", "match"])
def test_the_reader_keeps_its_declaration(model: dict[str, object], task: str):
    conform(fromage.LanguageConfig, language(model, task=task), ids=IDS[:2], mask=IDS[:2] != 1)


@pytest.mark.parametrize("name", ["prefix", "key", "query"])
@pytest.mark.parametrize("preset", ["preset:fromage", "preset:fromage-vis4"])
def test_a_formula_counts_what_is_built(name: str, preset: str):
    told, built = counts(configured(REGISTRY, f"fromage/{name}", preset))
    assert told == built


@pytest.mark.parametrize("model", [OPT, SMALL], ids=["opt", "opt-350m"])
def test_the_reader_counts_what_is_built(model: dict[str, object], tmp_path: Path):
    (tmp_path / "config.json").write_text(json.dumps(model))
    told, built = counts(configured(REGISTRY, "fromage/language", str(tmp_path), added=2))
    assert told == built


@pytest.mark.parametrize("places", [4, 7])
def test_folding_puts_what_is_there_of_both_before_what_fills_up(places: int):
    """By loops, for all lengths."""
    lengths = torch.tensor([[first, second] for first in range(1, places + 1) for second in range(1, places + 1)]).flatten()
    for row, (first, second) in zip(folded(lengths, places).tolist(), lengths.view(-1, 2).tolist(), strict=True):
        there = [*range(first), *range(places, places + second)]
        assert row == [*there, *(place for place in range(2 * places) if place not in there)]


def test_a_batch_without_partners_is_refused():
    node = open_node(fromage.LanguageConfig, language(concat=0.5))
    with pytest.raises(InputError, match=r"a batch of 3 cannot be folded.*give an even number of records, or set concat: 0"):
        node(IDS[:3], None, torch.zeros(3, 2, 12))


def test_tables_have_a_row_for_each_token():
    """Rows that fill a table up serve the tokens that are added; where there are none, they are the mean."""
    table = torch.arange(12.0).view(6, 2)
    assert torch.equal(resized(table, 3, 2), table[:5])
    torch.testing.assert_close(resized(table, 6, 1)[6], table.mean(0))
    assert torch.equal(resized(table, 6, 1)[:6], table)


def test_the_row_of_ret_keeps_the_length_of_the_others():
    """As after each step of the training: the direction stays."""
    table, ret = torch.randn(9, 5), torch.randn(1, 5)
    was = torch.nn.functional.normalize(ret)
    rescale(ret, table, 6)
    torch.testing.assert_close(ret.norm(), torch.cat([table[:6], table[7:]]).norm(dim=1).mean())
    torch.testing.assert_close(torch.nn.functional.normalize(ret), was)


def whole(folder: Path) -> Path:
    """The fixture as a folder in its own words."""
    return oracle("fromage").as_folder(folder, {"model_type": "fromage", **oracle("fromage").config})


@pytest.mark.parametrize("name", ["pretrained_ckpt.pth.tar", "weights.pt", "weights.safetensors"])
def test_a_file_alone_says_all_sizes(name: str, tmp_path: Path):
    """By its shapes; [RET] is then the last of the tokens."""
    given = oracle("fromage")
    file = given.as_file(tmp_path / name) if not name.endswith("tar") else tmp_path / name
    if name.endswith("tar"):
        torch.save({"state_dict": given.weights, "epoch": 3, "best_score": 1.5}, file)
    for part in ("prefix", "key", "query"):
        told = configured(REGISTRY, f"fromage/{part}", str(file)).config.model_dump(exclude={"space"})
        assert told == configured(REGISTRY, f"fromage/{part}", str(whole(tmp_path / "folder"))).config.model_dump(exclude={"space"})


def test_a_file_of_a_training_on_several_devices_holds_everything(tmp_path: Path):
    """As its code saves it while it trains: `module.` before each key, both frozen models, the table three times."""
    given = oracle("fromage")
    table = given.weights["model.input_embeddings.weight"]
    state = {**given.weights, "model.lm.lm_head.weight": table, "model.lm.model.decoder.embed_tokens.weight": table}
    state = {key.replace("visual_model.", "visual_model.vision_model."): tensor for key, tensor in state.items()}
    torch.save({"state_dict": {f"module.{key}": tensor for key, tensor in state.items()}, "epoch": 2}, tmp_path / "ckpt_best.pth.tar")
    words = {key: value for key, value in given.config.items() if key != "model_type"}
    (tmp_path / "model_args.json").write_text(json.dumps(words))
    for part, name in (("", "fromage/prefix"), ("#language_model", "fromage/language"), ("#vision_model", "vision/encoder")):
        found = open_part(REGISTRY, name, f"{tmp_path}{part}").module.state_dict()
        expected = open_part(REGISTRY, name, f"{whole(tmp_path / 'folder')}{part}").module.state_dict()
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[key], expected[key]) for key in expected)


BAD = {  # what stands in model_args.json -> what is told
    "another-model": ({"model_type": "blip"}, "is no FROMAGe: its model_type is 'blip'"),
    "normed": ({"use_image_embed_norm": True}, "there is no FROMAGe here with use_image_embed_norm: True"),
    "unknown": ({"gates": 3}, "there is no FROMAGe here with gates: 3"),
    "other-size": ({"n_visual_tokens": 9}, "states n_visual_tokens: 9, its tensors have"),
}


@pytest.mark.parametrize("case", BAD)
def test_words_that_mean_another_model_are_refused(case: str, tmp_path: Path):
    more, told = BAD[case]
    folder = oracle("fromage").as_folder(tmp_path, {"model_type": "fromage", **oracle("fromage").config, **more})
    with pytest.raises((SourceError, ValueError), match=told):
        configured(REGISTRY, "fromage/prefix", str(folder))


def tokenizer_folder(folder: Path) -> Path:
    """A tokenizer as OPT has one, which begins texts with </s>."""
    byte_level(begin="</s>", end="</s>", pad="<pad>", prefix=True, extra=()).save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(OPT))
    return folder


def test_captions_end_with_ret_also_where_they_are_cut(tmp_path: Path):
    """BOS, words, [RET]; of one that is too long the last token is [RET]."""
    folder = tokenizer_folder(tmp_path)
    part = open_part(REGISTRY, "fromage/words", str(folder), max_length=9)
    found = part(["a cat", "a photo of a cat and a dog on the grass, and of much more than that"])
    plain = byte_level(begin="</s>", end="</s>", pad="<pad>", prefix=True, extra=())
    ret = len(plain) + 1
    first = [*plain("a cat").input_ids, ret]
    assert found["ids"][0].tolist() == first + [1] * (9 - len(first))
    assert found["mask"].sum(1).tolist() == [len(first), 9]
    assert found["ids"][1].tolist()[-1] == ret
    assert found["ids"][1].tolist()[:8] == plain("a photo of a cat and a dog on the grass, and of much more than that").input_ids[:8]


def test_a_prefix_stands_between_picture_and_caption(tmp_path: Path):
    """It is not written: labels begin behind it."""
    folder = tokenizer_folder(tmp_path)
    from transformers import OPTConfig, OPTForCausalLM

    size = len(byte_level(begin="</s>", end="</s>", pad="<pad>", prefix=True, extra=()))
    torch.manual_seed(0)
    OPTForCausalLM(OPTConfig(**{**OPT, "vocab_size": size})).save_pretrained(folder)
    bare, with_prefix = (open_part(REGISTRY, "fromage/language", str(folder), added=2, prefix=prefix) for prefix in ("", "a photo of"))
    ids, image = torch.tensor([[2, 9, size + 1]]), torch.randn(1, 2, 12)
    words = byte_level(begin="</s>", end="</s>", pad="<pad>", prefix=True, extra=())("a photo of", add_special_tokens=False).input_ids
    found, plain = with_prefix(ids, None, image), bare(ids, None, torch.cat([image, bare.module.embed(torch.tensor([words]))], 1))
    assert torch.equal(found["labels"], plain["labels"])
    torch.testing.assert_close(found["logits"], plain["logits"])


def user(*parts: object) -> dict[str, object]:
    return {"role": "user", "content": [told(part) for part in parts]}


def told(part: object) -> dict[str, object]:
    return {"type": "text", "text": part} if isinstance(part, str) else {"type": "image", "image": part}


def written(*messages: dict[str, object], **config: object) -> tuple[str, list[object]]:
    found = open_node(fromage.Dialogue, config)([list(messages)])
    return found["text"][0], found["image"][0]


def test_a_conversation_is_written_as_the_published_demonstration_writes_it():
    """Pictures before the question that shows them; of what was retrieved the token alone; the next answer is asked for."""
    one, two, three = (picture(9, 7, seed=seed) for seed in range(3))
    answer = {"role": "assistant", "content": [told("It is a car."), told(two)]}
    text, images = written(user(one, "What is this?"), answer, user("Show me more"))
    assert text == "<|image|>Q: What is this?\nA: It is a car. [RET]\nQ: Show me more\nA:"
    assert images == [one]
    text, images = written(user(one, "What is this?"), answer, user(three), retrieved="shown")
    assert text == "<|image|>Q: What is this?\nA: It is a car. <|image|>\n<|image|>"
    assert images == [one, two, three]


def test_parts_may_stand_one_behind_the_other():
    one, two = (picture(9, 7, seed=seed) for seed in range(2))
    text, images = written(user("a ", one, " b", two), style="plain", ends_with="[RET]")
    assert text == "a <|image|> b<|image|>[RET]"
    assert images == [one, two]


def test_an_answer_at_the_end_is_gone_on_with():
    assert written(user("Hi"), {"role": "assistant", "content": [told("Well,")]})[0] == "Q: Hi\nA: Well,"


def test_what_the_model_does_not_know_is_refused():
    """Another medium, a text that looks like a picture, more pictures than were said to find room."""
    sound = {"type": "audio", "audio": object()}
    with pytest.raises(InputError, match="the conversation holds audio, and FROMAGe knows text and image"):
        written({"role": "user", "content": [sound]})
    with pytest.raises(InputError, match=r"holds '<\|image\|>', which stands for a picture"):
        written(user("<|image|> is what?"))
    with pytest.raises(InputError, match="the conversation has 3 pictures, and 2 find room"):
        written(user(*(picture(9, 7, seed=seed) for seed in range(3))), most_pictures=2)


def test_the_row_of_ret_goes_where_it_fits(tmp_path: Path):
    """An OPT of another width, or one whose vocabulary lacks the token, is told with the way out."""
    small = tiny(tmp_path)
    for told, changed in (
        (
            r"llm\.adapters\[0\]\.hidden_size and llm\.hidden_size must be the same",
            {"language": str(checkpoints.llama(tmp_path / "other").folder)},
        ),
        (r"\[RET\] is the token \d+ of its adapter fromage/ret, and llm knows \d+", {"nodes.llm.with.extra_tokens": ["<|image|>"]}),
    ):
        params = {**small.params, **changed}
        with pytest.raises(mg.GraphError, match=told), mg.open("fromage/caption", params=params) as pipeline:
            pipeline.load()


def test_which_batches_are_folded_is_drawn_by_the_seed():
    """The same seed draws the same; of many seeds about as many as was said fold."""
    from modelgraft.plugin import NodeRuntime
    from modelgraft_plugins.fromage.language import Language

    module = Language(fromage.LanguageConfig(**language(concat=0.5)))
    drawn = []
    for _ in range(2):
        drawn.append([])
        for seed in range(60):
            module.bind(NodeRuntime("write", seed=seed))
            drawn[-1].append(module._is_folded(4))
    assert drawn[0] == drawn[1]
    assert 15 < sum(drawn[0]) < 45
