"""The vocoder of units as fairseq's CodeGenerator speaks: durations, samples, and what does not depend on how it is cut or loaded."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

import modelgraft as mg
from modelgraft.installed.discovery import assemble
from modelgraft_plugins import vocoder
from support.open_part import counts, open_part
from support.oracles import Case, Oracle, cases, must_differ, oracle

REGISTRY = assemble({"vocoder": vocoder})
NAME = "speechgpt_vocoder"


def asked(case: Case) -> str:
    """How long units last in a case."""
    return "predicted" if "durations" in case.outputs else "one"


def folder_of(given: Oracle, home: Path) -> Path:
    """The fixture as a folder with the official keys."""
    return given.as_folder(home, {**given.config, "model_type": "unit_hifigan"})


def spoken(source: Path, case: Case, **config: Any) -> dict[str, torch.Tensor]:
    """What a case asks for, by one node."""
    part = open_part(REGISTRY, "vocoder/unit_hifigan", str(source), durations=asked(case), **config)
    found = part(case.inputs["code"])
    return {"wave": found["wave"][:, None], **{name: found[name] for name in case.outputs if name != "wave"}}


def answers(given: Oracle, case: Case) -> Mapping[str, torch.Tensor]:
    """The same from a folder of its own."""
    with tempfile.TemporaryDirectory() as home:
        return spoken(folder_of(given, Path(home)), case)


@pytest.mark.parametrize("case", cases(NAME))
def test_it_speaks_as_fairseq_does(case: Case):
    """Samples, durations, and the logarithms that they come from."""
    case.compare_all(answers(oracle(NAME), case))


def test_a_weight_that_is_off_shows():
    """Whichever is drawn."""
    must_differ(NAME, answers)


@pytest.mark.parametrize("case", cases(NAME))
@pytest.mark.parametrize("frames", [1, 3])
def test_pieces_joined_are_the_whole(case: Case, frames: int, tmp_path: Path):
    """Whatever their length: each looks as far beyond its ends as the sound depends on what is there."""
    config = oracle(NAME).config
    hop = torch.tensor(config["upsample_rates"]).prod().item()
    case.compare_all(spoken(folder_of(oracle(NAME), tmp_path), case, chunk_s=frames * hop / 16_000))


@pytest.mark.parametrize("case", [case for case in oracle(NAME).cases.values() if "durations" in case.outputs], ids=lambda case: case.name)
def test_durations_may_come_from_a_part_of_their_own(case: Case, tmp_path: Path):
    """The predictor alone, and its durations given to the voice: the same sound. Rows of a batch that are shorter are as they are alone."""
    source, code = folder_of(oracle(NAME), tmp_path), case.inputs["code"]
    alone = open_part(REGISTRY, "vocoder/durations", str(source))
    lasting = alone(code)
    case.compare(**lasting)
    longer = torch.cat([code, torch.full_like(torch.cat([code, code], 1)[:, :2], -1)], 1)
    beside = alone(torch.cat([longer, torch.cat([code[:, :1], code, code[:, :1]], 1)]))
    case.compare(**{name: tensor[:1, : code.shape[1]] for name, tensor in beside.items()})
    given = open_part(REGISTRY, "vocoder/unit_hifigan", str(source), durations="given")
    case.compare(wave=given(code, lasting["durations"])["wave"][:, None])


@pytest.mark.parametrize("name", ["vocoder.pt", "g_00500000"])
def test_the_published_file_is_read_as_it_is(name: str, tmp_path: Path):
    """Tensors under `generator`, a config.json in the words of the published code beside them; also where the file has no ending."""
    given = oracle(NAME)
    folder_of(given, tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save({"generator": dict(given.weights)}, tmp_path / name)
    for case in given.cases.values():
        case.compare_all(spoken(tmp_path, case))


def test_a_plan_counts_what_a_module_holds(tmp_path: Path):
    """By formula, with the predictor and without; the fixture's own weights among them."""
    source = str(folder_of(oracle(NAME), tmp_path))
    node = open_part(REGISTRY, "vocoder/unit_hifigan", source).node
    found, built = counts(node)
    held = {key: tensor.numel() for key, tensor in oracle(NAME).weights.items() if not key.endswith("_g")}
    assert found == built == sum(held.values())
    for component, config in (("vocoder/durations", {}), ("vocoder/unit_hifigan", {"durations": "one"})):
        found, built = counts(open_part(REGISTRY, component, source, **config).node)
        assert found == built


@pytest.mark.parametrize("case", cases(NAME))
def test_the_graph_gives_the_same(case: Case, tmp_path: Path):
    """`speechgpt/vocoder`: units in, a sound out."""
    params = {"vocoder": str(folder_of(oracle(NAME), tmp_path)), "durations": asked(case)}
    with mg.open(mg.load("speechgpt/vocoder", params=params)) as pipeline:
        found = pipeline.run(units=case.inputs["code"])
    sounds = found["audio"] if isinstance(found["audio"], list) else [found["audio"]]
    assert [sound.samples.shape for sound in sounds] == [(1, case.outputs["wave"].shape[-1])] * len(case.inputs["code"])
    assert {sound.sample_rate_hz for sound in sounds} == {16_000}
    case.compare(wave=found["wave"][:, None])
