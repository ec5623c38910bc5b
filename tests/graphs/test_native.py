"""Models that read pictures at their own size: an imported graph answers as `generate` of transformers, whatever a record shows."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

import modelgraft as mg
from modelgraft.installed.discovery import discover
from modelgraft.tools.importer import import_graph
from support import native
from support.checkpoints import Checkpoint
from support.open_part import configured
from support.pictures import gallery, picture
from support.untuned import leave_untuned

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
NEW_TOKENS = 9
_SEEN = gallery()
PICTURES = [[_SEEN["landscape"], _SEEN["portrait"], _SEEN["tiny"]], [_SEEN["rgba"]], [], [_SEEN["square"], _SEEN["grey"]]]
PROMPTS = ["what do you see in the pictures?", "the colours", "how many cats are there?", "a dog"]  # of unequal length: batches are padded
KINDS = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "mistral3", "pixtral")


@pytest.fixture(scope="module", params=KINDS)
def theirs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Checkpoint]:
    kind = request.param
    folder = tmp_path_factory.mktemp(kind) / "model"
    return kind, native.qwen(folder, kind) if kind in native.QWEN else native.mistral(folder, kind)


@pytest.fixture(scope="module")
def graph(theirs: tuple[str, Checkpoint]) -> Path:
    """The graph that import writes beside it."""
    path = theirs[1].folder.parent / "mine.yaml"
    path.write_text(import_graph(str(theirs[1].folder), folder=path.parent))
    return path


def given(theirs: tuple[str, Checkpoint], pictures: list[list[Image.Image]], prompts: list[str]) -> Any:
    """What their processor makes of it."""
    kind, checkpoint = theirs
    if kind in native.QWEN:
        return native.given_qwen(pictures, prompts, checkpoint)
    return native.given_mistral(pictures, prompts, checkpoint, merge=2 if kind == "mistral3" else 1)


def answers(theirs: tuple[str, Checkpoint], pictures: list[list[Image.Image]], prompts: list[str]) -> tuple[list[str], torch.Tensor]:
    return native.generated(theirs[1], given(theirs, pictures, prompts), NEW_TOKENS)


def ask(graph: Path, pictures: list[list[Image.Image]], prompts: list[str], **more: Any) -> Any:
    with mg.open(graph, params={"max_new_tokens": NEW_TOKENS}, **more) as pipeline:
        return pipeline.run(image=pictures, prompt=prompts, outputs=["text", "llm.logits"])


def test_a_batch_of_unlike_records_answers_as_transformers(theirs: tuple[str, Checkpoint], graph: Path):
    """Three pictures, one, none and two, of any shape and mode."""
    texts, logits = answers(theirs, PICTURES, PROMPTS)
    result = ask(graph, PICTURES, PROMPTS)
    assert result["text"] == texts
    torch.testing.assert_close(result["llm.logits"], logits, rtol=0, atol=1e-5 * logits.abs().max().item())


@torch.no_grad()
def test_vectors_and_tokens_are_those_of_transformers(theirs: tuple[str, Checkpoint], graph: Path):
    """Port by port: what stands for each picture, and the ids of the prompt, of which those of pictures are not tokens."""
    kind, checkpoint = theirs
    inputs = given(theirs, PICTURES, PROMPTS)
    sides = {name: inputs[name] for name in ("pixel_values", "image_grid_thw", "image_sizes") if name in inputs}
    expected = torch.cat(list(checkpoint.model.model.get_image_features(**sides).pooler_output))
    joined = "merge" if kind in native.QWEN else "project"
    with mg.open(graph, params={"max_new_tokens": 1}) as pipeline:
        result = pipeline.run(image=PICTURES, prompt=PROMPTS, outputs=[joined, "pixels.lengths", "llm.prompt_ids"])
    own = torch.cat([row[:count] for row, count in zip(result[joined], result["pixels.lengths"].sum(-1).tolist(), strict=True)])
    torch.testing.assert_close(own, expected, rtol=0, atol=1e-5 * expected.abs().max().item())
    placeholder = checkpoint.model.config.image_token_id
    for ids, mask, found in zip(inputs["input_ids"], inputs["attention_mask"], result["llm.prompt_ids"], strict=True):
        said = ids[mask.bool()]
        assert found[: len(said)].tolist() == torch.where(said == placeholder, -1, said).tolist()
        assert (found[len(said) :] == -1).all()


def test_rows_and_columns_change_the_answer(theirs: tuple[str, Checkpoint], graph: Path):
    """So the tests above would fail without the grids: of Qwen-VLs for where tokens stand, of all for what the eye sees."""
    kind, _ = theirs
    logits = ask(graph, PICTURES, PROMPTS)["llm.logits"]
    if kind in native.QWEN:
        text = graph.read_text().replace("      image_grids: pixels.token_grids", "#")
        other = graph.with_name("counted.yaml")
        other.write_text(text)
        assert (ask(other, PICTURES, PROMPTS)["llm.logits"] - logits).abs().max() > 0.01
    turned = [[image.transpose(Image.Transpose.ROTATE_90) for image in record] for record in PICTURES]
    assert (ask(graph, turned, PROMPTS)["llm.logits"] - logits).abs().max() > 0.01


@torch.no_grad()
def test_inner_layers_of_a_qwen3_vl_are_those_of_transformers_and_change_the_answer(tmp_path: Path):
    """Layer by layer what is added; a graph that leaves it out answers otherwise, but where no picture is shown."""
    checkpoint = native.qwen(tmp_path / "model", "qwen3_vl")
    inputs = native.given_qwen(PICTURES, PROMPTS, checkpoint)
    found = checkpoint.model.model.get_image_features(**{name: inputs[name] for name in ("pixel_values", "image_grid_thw")})
    path = tmp_path / "mine.yaml"
    path.write_text(import_graph(str(checkpoint.folder), folder=tmp_path))
    with mg.open(path, params={"max_new_tokens": 1}) as pipeline:
        result = pipeline.run(image=PICTURES, prompt=PROMPTS, outputs=["deep", "pixels.lengths", "llm.logits"])
    counts = result["pixels.lengths"].sum(-1).tolist()
    for layer, pieces in enumerate(found.deepstack_features):
        own = torch.cat([row[layer, :count] for row, count in zip(result["deep"], counts, strict=True)])
        expected = torch.cat(list(pieces))
        torch.testing.assert_close(own, expected, rtol=0, atol=1e-5 * expected.abs().max().item())
    deaf = path.with_name("deaf.yaml")
    deaf.write_text(path.read_text().replace("      image_deep: deep", "#") + "  inner: deep\n")
    differs = (ask(deaf, PICTURES, PROMPTS)["llm.logits"] - result["llm.logits"]).abs().amax(-1)
    assert differs[[0, 1, 3]].min() > 0.01
    assert differs[2] < 1e-4


def test_one_record_answers_as_in_a_batch(theirs: tuple[str, Checkpoint], graph: Path):
    whole = ask(graph, PICTURES, PROMPTS)["text"]
    with mg.open(graph, params={"max_new_tokens": NEW_TOKENS}) as pipeline:
        assert [pipeline.run(image=one, prompt=prompt)["text"] for one, prompt in zip(PICTURES, PROMPTS, strict=True)] == whole


def test_the_graph_is_checked_and_planned_without_warnings(theirs: tuple[str, Checkpoint], graph: Path):
    assert not mg.check(graph).warnings
    plan = mg.plan(graph)
    assert plan.totals.parameters == sum(parameter.numel() for parameter in theirs[1].model.parameters())


def test_shapes_in_comments_are_those_of_the_node_that_they_stand_beside(graph: Path):
    """A node in several lines ends where the next one begins, whose comment is not its own."""
    text = graph.read_text()
    assert text.count("# [batch patches 24]") == 1
    assert text.count("# [batch tokens 32]") == 1


PUBLISHED = {  # parameters in the headers of the published files, as the hub counts them
    "qwen2-vl-2b": 2_208_985_600, "qwen2-vl-7b": 8_291_375_616, "qwen2-vl-72b": 73_405_560_320, "qwen2.5-vl-3b": 3_754_622_976,
    "qwen2.5-vl-7b": 8_292_166_656, "qwen2.5-vl-72b": 73_410_777_344, "mistral-small-3.1-24b": 24_011_361_280,
    "qwen3-vl-2b": 2_127_532_032, "qwen3-vl-4b": 4_437_815_808, "qwen3-vl-8b": 8_767_123_696, "qwen3-vl-32b": 33_357_390_064,
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes_are_counted(name: str, tmp_path: Path):
    """To the unit, by formulas alone."""
    path = tmp_path / "mine.yaml"
    path.write_text(import_graph(f"preset:{name}", folder=tmp_path))
    assert mg.plan(path).totals.parameters == PUBLISHED[name]


@pytest.mark.parametrize("name", ["qwen2-vl-2b", "qwen2.5-vl-3b", "qwen3-vl-2b", "pixtral-12b", "mistral-small-3.1-24b"])
def test_a_count_is_that_of_what_is_built(name: str, tmp_path: Path):
    path = tmp_path / "mine.yaml"
    path.write_text(import_graph(f"preset:{name}", folder=tmp_path))
    assert mg.plan(path).totals.parameters == mg.plan(path, exact=True).totals.parameters


@pytest.mark.whole(
    "tests/plugins/test_patches.py::test_an_exported_tower_gives_torchs_numbers",
    "tests/plugins/test_llm_onnx.py::test_one_graph_with_its_cache_in_place_gives_torchs_logits",
)
@pytest.mark.slow  # it exports
def test_answers_on_onnx_are_those_of_torch(theirs: tuple[str, Checkpoint], graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The eye and what joins its patches are one exported graph, which takes any pictures; the decoder counts their places."""
    monkeypatch.setenv("MODELGRAFT_CACHE", str(tmp_path))
    leave_untuned(monkeypatch)
    expected = ask(graph, PICTURES, PROMPTS)
    found = ask(graph, PICTURES, PROMPTS, backend="onnx")
    assert found["text"] == expected["text"]
    logits = expected["llm.logits"]
    torch.testing.assert_close(found["llm.logits"], logits, rtol=0, atol=2e-5 * logits.abs().max().item())


# -- what people have, and what they ask -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return native.qwen(tmp_path_factory.mktemp("qwen") / "model", "qwen2_vl")


@pytest.mark.parametrize("layout", [native.flattened, native.nested])
def test_files_of_other_ages_answer_alike(qwen: Checkpoint, tmp_path: Path, layout: Callable[[Path], None]):
    """Configs with the language model at their root, and tensors by the names that they have in memory."""
    folder = tmp_path / "model"
    shutil.copytree(qwen.folder, folder)
    layout(folder)
    path = tmp_path / "mine.yaml"
    path.write_text(import_graph(str(folder), folder=tmp_path))
    assert not mg.check(path).warnings
    assert mg.plan(path).totals.parameters == sum(parameter.numel() for parameter in qwen.model.parameters())
    assert ask(path, PICTURES, PROMPTS)["text"] == answers(("qwen2_vl", qwen), PICTURES, PROMPTS)[0]


@pytest.mark.parametrize(
    "stated",
    [
        {"size": {"min_pixels": 300, "max_pixels": 2000}},
        {"size": {"shortest_edge": 300, "longest_edge": 2000}},
        {"min_pixels": 300, "max_pixels": 2000, "size": {"min_pixels": 1, "max_pixels": 9}},
        {"min_pixels": 300, "max_pixels": 2000},
    ],
    ids=["within", "edges", "both", "beside"],
)
def test_the_bounds_of_pictures_are_read_wherever_files_have_them(qwen: Checkpoint, tmp_path: Path, stated: dict[str, Any]):
    folder = tmp_path / "model"
    shutil.copytree(qwen.folder, folder)
    path = folder / "preprocessor_config.json"
    told = {key: value for key, value in json.loads(path.read_text()).items() if key not in ("size", "min_pixels", "max_pixels")}
    path.write_text(json.dumps({**told, **stated}))
    config = configured(discover(), "patches/prepare", str(folder)).config
    assert (config.min_pixels, config.max_pixels) == (300, 2000)


def test_files_of_qwen3_vl_as_they_were_published_answer_alike(tmp_path: Path):
    checkpoint = native.qwen(tmp_path / "model", "qwen3_vl")
    expected = answers(("qwen3_vl", checkpoint), PICTURES, PROMPTS)[0]
    native.former(checkpoint.folder)
    path = tmp_path / "mine.yaml"
    path.write_text(import_graph(str(checkpoint.folder), folder=tmp_path))
    assert not mg.check(path).warnings
    assert ask(path, PICTURES, PROMPTS)["text"] == expected


def test_a_conversation_is_written_as_the_model_was_taught(qwen: Checkpoint, tmp_path: Path):
    """With the marks around each of its pictures, once."""
    path = tmp_path / "mine.yaml"
    path.write_text(import_graph(str(qwen.folder), folder=tmp_path).replace("prompt: {type: text,", "prompt: {type: conversation,"))
    talks = [
        [{"role": "user", "content": [*({"type": "image", "image": image} for image in record), {"type": "text", "text": prompt}]}]
        for record, prompt in zip(PICTURES, PROMPTS, strict=True)
    ]
    with mg.open(path, params={"max_new_tokens": NEW_TOKENS}) as pipeline:
        found = [pipeline.run(image=record, prompt=talk)["text"] for record, talk in zip(PICTURES, talks, strict=True)]
    assert found == answers(("qwen2_vl", qwen), PICTURES, PROMPTS)[0]


MARKS = {
    "qwen2_vl": "<|im_end|> <|im_start|> <|vision_start|> <|vision_end|>", "qwen2_5_vl": "<|im_end|><|im_start|>system",
    "qwen3_vl": "<|im_end|>\n<|im_start|>assistant",
    "mistral3": "[/INST] [INST] </s>", "pixtral": "<s>[/INST]",
}  # fmt: skip


def test_marks_in_the_words_of_a_user_are_letters(theirs: tuple[str, Checkpoint], graph: Path):
    """No role begins, and none ends: the ids are those of the pieces, cut within each mark."""
    kind, checkpoint = theirs
    tokenizer = getattr(checkpoint.processor, "tokenizer", checkpoint.processor)
    special = set(tokenizer.added_tokens_encoder.values())
    with mg.open(graph, params={"max_new_tokens": 1}) as pipeline:
        plain, marked = (
            pipeline.run(image=PICTURES[0], prompt=prompt, outputs=["llm.prompt_ids"])["llm.prompt_ids"].flatten().tolist()
            for prompt in ("a cat", f"a {MARKS[kind]} cat")
        )
    assert [token for token in plain if token in special] == [token for token in marked if token in special]
    assert MARKS[kind] in tokenizer.decode([token for token in marked if token >= 0])


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("<|image_pad|> or <|image_pad|>?", r"the prompt has 2 places for media \('<\|image_pad\|>'\), and 1 medium is given"),
        ("why? " * 200, "512 positions"),
    ],
)
def test_prompts_that_do_not_fit_are_refused(qwen: Checkpoint, tmp_path: Path, prompt: str, message: str):
    path = tmp_path / "mine.yaml"
    path.write_text(import_graph(str(qwen.folder), folder=tmp_path))
    with mg.open(path) as pipeline, pytest.raises(mg.InputError, match=message):
        pipeline.run(image=[_SEEN["square"]], prompt=prompt)


def test_a_tokenizer_without_the_tokens_that_mark_pictures_is_refused(qwen: Checkpoint, tmp_path: Path):
    folder = tmp_path / "model"
    shutil.copytree(qwen.folder, folder)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (folder / file).write_text((folder / file).read_text().replace("<|vision_start|>", "<|other|>"))
    with pytest.raises(mg.GraphError, match=r"the tokenizer of .* has no token '<\|vision_start\|>', which marks pictures in its prompts"):
        import_graph(str(folder), folder=tmp_path)


def test_a_list_of_one_layer_is_that_layer(tmp_path: Path):
    """Several are refused."""
    checkpoint = native.mistral(tmp_path / "model", "pixtral")
    path = checkpoint.folder / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "vision_feature_layer": [-2]}))
    assert configured(discover(), "patches/encoder", f"{checkpoint.folder}#vision_tower").config.layer == -2
    path.write_text(json.dumps({**config, "vision_feature_layer": [-2, -1]}))
    with pytest.raises(ValueError, match=r"this checkpoint joins several: vision_feature_layer is \[-2, -1\]"):
        configured(discover(), "patches/encoder", f"{checkpoint.folder}#vision_tower")


def test_a_pixtral_that_leaves_a_patch_out_is_refused(tmp_path: Path):
    checkpoint = native.mistral(tmp_path / "model", "pixtral")
    config = json.loads((checkpoint.folder / "config.json").read_text())
    (checkpoint.folder / "config.json").write_text(json.dumps({**config, "vision_feature_select_strategy": "default"}))
    with pytest.raises(mg.GraphError, match="has vision_feature_select_strategy: default, wanted full"):
        import_graph(str(checkpoint.folder), folder=tmp_path)


# -- films -----------------------------------------------------------------------------------------------------------------


def film(frames: int, width: int, height: int, *, seed: int, rate_hz: float = 8.0) -> mg.Video:
    """Pictures that fade into each other."""
    first, last = (np.asarray(picture(width, height, seed=seed + end)).astype(float) for end in (0, 100))
    steps = np.linspace(0, 1, frames)[:, None, None, None]
    return mg.Video((first + steps * (last - first)).astype(np.uint8), rate_hz)


FILMS = [[film(5, 30, 22, seed=21), film(8, 17, 31, seed=22, rate_hz=3.0)], [film(4, 26, 26, seed=23)], []]


def cut(one: mg.Video, places: list[int]) -> tuple[torch.Tensor, list[int]]:
    """Patches of two frames of those that are taken, by the processor of pictures, frame by frame, and their grid."""
    process = Qwen2VLImageProcessorPil(size={"shortest_edge": 256, "longest_edge": 3000}, patch_size=4, temporal_patch_size=1)
    seen = process([Image.fromarray(one.frames[place]) for place in places], return_tensors="pt")
    _, rows, columns = seen["image_grid_thw"][0].tolist()
    frames = seen["pixel_values"].reshape(len(places), rows * columns, 3, 1, 4, 4)
    frames = torch.cat([frames, *[frames[-1:]] * (len(places) % 2)])
    patches = torch.cat([frames[0::2], frames[1::2]], 3).reshape(-1, 96)
    return patches, [(len(places) + 1) // 2, rows, columns]


@pytest.mark.parametrize(("kind", "fps"), [("qwen2_vl", None), ("qwen2_5_vl", None), ("qwen2_5_vl", 4.0)])
def test_films_are_answered_about_as_transformers_does(kind: str, fps: float | None, tmp_path: Path):
    """Frames two by two, and how far apart in time; with some of the frames, and with all of them."""
    checkpoint = native.qwen(tmp_path / "model", kind)
    own = {"size": {"shortest_edge": 256, "longest_edge": 3000}, "patch_size": 4, "video_processor_type": "Qwen2VLVideoProcessor"}
    (checkpoint.folder / "video_preprocessor_config.json").write_text(json.dumps(own))
    taken = {(5, 4.0): [0, 2], (8, 4.0): [0, 1, 2, 3, 4, 5, 6, 7], (4, 4.0): [0, 1, 2, 3]}
    places = [[list(range(len(one.frames))) if fps is None else taken[len(one.frames), fps] for one in record] for record in FILMS]
    places = [[rows if len(rows) > 2 else [0, 1, 2, 3] for rows in record] for record in places]  # at least four, where there are
    found = [cut(one, rows) for record, chosen in zip(FILMS, places, strict=True) for one, rows in zip(record, chosen, strict=True)]
    marks = iter("<|video_pad|>" * (grid[0] * grid[1] * grid[2] // 4) for _, grid in found)
    texts = [
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
        f"{''.join(f'<|vision_start|>{next(marks)}<|vision_end|>' for _ in record)}{prompt}<|im_end|>\n<|im_start|>assistant\n"
        for record, prompt in zip(FILMS, PROMPTS, strict=False)
    ]
    given = checkpoint.processor.tokenizer(texts, padding=True, return_tensors="pt")
    given.pop("token_type_ids", None)
    films = torch.tensor([grid for _, grid in found])
    seconds = [
        2 * one.seconds / len(rows) for record, chosen in zip(FILMS, places, strict=True) for one, rows in zip(record, chosen, strict=True)
    ]
    more = {"second_per_grid_ts": torch.tensor(seconds)} if kind == "qwen2_5_vl" else {}
    types = 2 * (given["input_ids"] == checkpoint.model.config.video_token_id).int()
    asked = {
        **given,
        "pixel_values_videos": torch.cat([patches for patches, _ in found]),
        "video_grid_thw": films,
        "mm_token_type_ids": types,
    }
    texts, logits = native.generated(checkpoint, {**asked, **more}, NEW_TOKENS)
    params = {"checkpoint": str(checkpoint.folder), "max_new_tokens": NEW_TOKENS, "fps" if fps else "nodes.frames.with.fps": fps}
    with mg.open("qwen2_vl/film", params=params) as pipeline:
        result = pipeline.run(video=FILMS, prompt=PROMPTS[:3], outputs=["text", "llm.logits"])
    assert result["text"] == texts
    torch.testing.assert_close(result["llm.logits"], logits, rtol=0, atol=1e-5 * logits.abs().max().item())
