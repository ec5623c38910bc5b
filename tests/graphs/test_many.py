"""Ensembles of eyes: what each sees stands side by side, or one behind the other, as each sees it alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional

import modelgraft as mg
from support import checkpoints
from support.pictures import picture

CLOSE = {"rtol": 0.0, "atol": 1e-5}  # float32, elementwise
RECORDS = {"image": [picture(31, 17), picture(9, 20, "L"), picture(25, 25)], "prompt": ["what is it?", "a cat", ""]}


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Two eyes of unlike detail, 4 x 4 patches and 3 x 3, and a tongue."""
    folder = tmp_path_factory.mktemp("parts")
    for name in ("siglip", "clip", "opt"):
        getattr(checkpoints, name)(folder / name)
    return {"first": str(folder / "siglip"), "second": str(folder / "clip"), "language": str(folder / "opt")}


def seen(parts: dict[str, str], eye: str) -> torch.Tensor:
    """What an eye gives by itself: the patches of its last layer but one, by transformers."""
    graph = mg.Graph("eye")
    pixels = graph.node("vision/preprocess", source=parts[eye], image=graph.input("image", "image"))
    tokens = graph.node("vision/encoder", source=f"{parts[eye]}#vision_model", layer=-2, select="patches", pixels=pixels, frozen=True)
    graph.output("tokens", tokens.tokens)
    with mg.open(graph) as pipeline:
        return pipeline.run(image=RECORDS["image"])["tokens"]


def test_by_channel_each_patch_holds_what_both_say(parts: dict[str, str]):
    """The coarser grid stays, the finer one is brought to it; the projector is as wide as both."""
    with mg.open("many", params={**parts, "tokens": 9, "max_new_tokens": 4}, seed=1) as pipeline:
        result = pipeline.run(**RECORDS, outputs=["text", "both.y", "project.y"])
    one, other = seen(parts, "first"), seen(parts, "second")
    grid = functional.interpolate(one.view(3, 4, 4, 20).permute(0, 3, 1, 2), size=(3, 3), mode="bilinear")
    expected = torch.cat([grid.permute(0, 2, 3, 1).flatten(1, 2), other], dim=-1)
    torch.testing.assert_close(result["both.y"], expected, **CLOSE)
    assert result["project.y"].shape == (3, 9, 24)


def test_by_token_those_of_one_stand_behind_those_of_the_other(parts: dict[str, str]):
    """Each mapped by its own projector, which is told."""
    with mg.open("many/tokens", params={**parts, "tokens": 4, "max_new_tokens": 4}, seed=1) as pipeline:
        result = pipeline.run(**RECORDS, outputs=["text", "both.y", "project_1.y", "project_2.y"])
    assert torch.equal(result["both.y"], torch.cat([result["project_1.y"], result["project_2.y"]], dim=1))
    assert result["both.y"].shape == (3, 8, 24)
    assert {"project_1", "project_2"} <= {word.strip(":") for warning in result.warnings for word in warning.replace("/", " ").split()}


@pytest.mark.parametrize("name", ["many", "many/tokens"])
def test_a_batch_answers_as_its_records_do_alone(name: str, parts: dict[str, str]):
    """And the same once more under the same seed."""
    answers = []
    for _ in range(2):
        with mg.open(name, params={**parts, "tokens": 9 if name == "many" else 4, "max_new_tokens": 4}, seed=2) as pipeline:
            batch = pipeline.run(**RECORDS)["text"]
            alone = [pipeline.run(image=image, prompt=prompt)["text"] for image, prompt in zip(*RECORDS.values(), strict=True)]
        assert batch == alone
        answers.append(batch)
    assert answers[0] == answers[1]


@pytest.mark.whole(
    "tests/plugins/test_onnx_parts.py::test_a_part_gives_torchs_numbers",
    "tests/plugins/test_llm_onnx.py::test_one_graph_with_its_cache_in_place_gives_torchs_logits",
)
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("name", ["many", "many/tokens"])
def test_it_answers_on_onnx_as_on_torch(name: str, parts: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MODELGRAFT_CACHE", str(tmp_path))
    answers = []
    for backend in ("torch", "onnx"):
        with mg.open(
            name, params={**parts, "tokens": 9 if name == "many" else 4, "max_new_tokens": 4}, backend=backend, seed=1
        ) as pipeline:
            answers.append(pipeline.run(**RECORDS, outputs=["text", "llm.logits"]))
    assert answers[0]["text"] == answers[1]["text"]
    one, other = (answer["llm.logits"] for answer in answers)
    assert (one - other).abs().max() <= 1e-4 * one.abs().max()


def test_equally_wide_is_not_asked_of_eyes_that_stand_side_by_side():
    """The published sizes, without weights: 1152 numbers and 1024 are 2176."""
    plan = mg.plan("many")
    assert plan.nodes["both"].shapes == {"y": "float[batch 576 2176]"}
    assert plan.nodes["project"].parameters.trainable == 2176 * 4096 + 4096 + 4096 * 4096 + 4096
    assert mg.plan("many/tokens").nodes["both"].shapes == {"y": "float[batch 288 4096]"}
