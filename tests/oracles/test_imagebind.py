"""ImageBind against the published modules, tower by tower, and its spectrograms against torchaudio's Kaldi filter bank."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

import modelgraft as mg
from modelgraft import Audio
from modelgraft.installed.discovery import assemble
from modelgraft.testing import open_node
from modelgraft_plugins import embedding, families
from modelgraft_plugins.embedding.preparing import Filterbank
from support.open_part import open_part
from support.oracles import Case, Oracle, cases, fed, must_differ, oracle

REGISTRY = assemble({"embedding": embedding, "families": families})
NAME, SOUNDS = "imagebind", "imagebind_audio_frontend"
AXES = {"vision": 4, "text": 2, "audio": 4, "depth": 4, "thermal": 4, "imu": 3}  # of what is no clips


def folder_of(given: Oracle, home: Path) -> Path:
    """The weights under their official keys, and the sizes in the words of the published code."""
    return given.as_folder(home, {"model_type": "imagebind", **given.config}) if not (home / "config.json").exists() else home


def is_clips(modality: str, x: torch.Tensor) -> bool:
    return x.ndim > AXES[modality]


def run(given: Oracle, case: Case, home: Path) -> dict[str, torch.Tensor]:
    """One tower, through the component that finds itself in the whole."""
    ((modality, x),) = case.inputs.items()
    part = open_part(REGISTRY, f"embedding/{modality}", str(folder_of(given, home)), clips=is_clips(modality, x))
    found = part(x)
    return {"head": found["head"].flatten(0, -2), "embedding": found["embedding"]}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp(NAME)


@pytest.mark.parametrize("case", cases(NAME))
def test_every_tower_equals_the_published_one(case: Case, home: Path):
    """Of one medium and of clips: what the head gives, and the vector at the length of training."""
    case.compare_all(run(oracle(NAME), case, home))


def test_a_weight_that_is_off_shows(tmp_path: Path):
    must_differ(NAME, lambda given, case: run(given, case, tmp_path / "off"))


@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
@pytest.mark.parametrize("case", cases(NAME))
def test_the_published_file_says_the_sizes_by_its_shapes(case: Case, ending: str, tmp_path: Path):
    """But for the heads of attention, and of sounds the sides; the answers are those of the folder."""
    given = oracle(NAME)
    ((modality, x),) = case.inputs.items()
    told = {"num_attention_heads": given.config[f"{modality}_num_heads"], "clips": is_clips(modality, x)}
    if modality == "audio":
        told |= {"height": x.shape[-2], "width": x.shape[-1], "stride": given.config["audio_stride"]}
    found = open_part(REGISTRY, f"embedding/{modality}", str(given.as_file(tmp_path / f"imagebind{ending}")), **told)(x)
    case.compare(embedding=found["embedding"], head=found["head"].flatten(0, -2))


PLACES = {
    "vision": ("see", "pixels"),
    "text": ("read", "ids"),
    "audio": ("hear", "bands"),
    "depth": ("reach", "distance"),
    "thermal": ("warm", "grey"),
    "imu": ("move", "signal"),
}


def through(graph: Path | str, checkpoint: Path, node: str, x: torch.Tensor, *, output: str, given: str) -> dict[str, torch.Tensor]:
    """What a graph gives of one tensor, by the names of the case."""
    with mg.open(mg.load(graph, params={"checkpoint": str(checkpoint)}, allow=["unused"])) as pipeline:
        found = pipeline.run(outputs=[output, f"{node}.head", f"{node}.unit"], **{given: x})
    unit = torch.nn.functional.normalize(found[output], dim=-1)
    torch.testing.assert_close(found[f"{node}.unit"], unit, rtol=0, atol=1e-5)
    return {"embedding": found[output], "head": found[f"{node}.head"].flatten(0, -2)}


@pytest.mark.parametrize("case", cases(NAME))
def test_the_graph_of_tensors_equals_the_published_model(case: Case, home: Path):
    """imagebind/prepared: of pictures and of films, and of one spectrogram where a record is no clips."""
    ((modality, x),) = case.inputs.items()
    moves = modality == "vision" and is_clips(modality, x)
    name, node, graph = ("video", "watch", "imagebind/prepared") if moves else (modality, PLACES[modality][0], "imagebind/prepared")
    if modality == "audio" and not is_clips(modality, x):
        text = {"modelgraft": 1, "extends": graph, "nodes.hear.with.clips": False, "inputs.audio": "optional[float[batch 1 bands time]]"}
        graph = home / "one.yaml"
        graph.write_text(json.dumps(text))
    case.compare_all(through(graph, folder_of(oracle(NAME), home), node, x, output=name, given=name))


@pytest.mark.parametrize("case", cases(NAME))
def test_the_graph_of_media_equals_the_published_model(case: Case, home: Path):
    """imagebind, with a tensor in place of what a node prepares."""
    ((modality, x),) = case.inputs.items()
    moves = modality == "vision" and is_clips(modality, x)
    node, before = ("watch", "frames") if moves else PLACES[modality]
    type_ = f"{'int64' if modality == 'text' else 'float'}[batch {' '.join(f'side_{axis}' for axis in range(1, x.ndim))}]"
    name = "video" if moves else modality
    graph = fed(home, "imagebind", {f"{node}.x": type_}, {name: f"{node}.embedding"}, without=(before, f"inputs.{name}"))
    if modality == "audio" and not is_clips(modality, x):
        graph.write_text(graph.read_text() + "nodes.hear.with.clips: false\n")
    case.compare_all(through(graph, folder_of(oracle(NAME), home), node, x, output=name, given=f"{node}_x"))


def heard(config: Mapping[str, float], wave: torch.Tensor, **over: float) -> torch.Tensor:
    """The spectrogram of one sound as a whole: float32[1 mels frames]."""
    words = {"sample_rate_hz": "sample_rate", "mels": "num_mel_bins", "frames": "target_len", "mean": "mean", "std": "scale"}
    fields = {"windows": None, **{ours: config[theirs] for ours, theirs in words.items()}, **over}
    return open_node(Filterbank, fields)([Audio(wave.numpy(), int(config["sample_rate"]))])["features"][0]


@pytest.mark.parametrize("case", cases(SOUNDS))
def test_spectrograms_equal_those_of_torchaudio(case: Case):
    """The logarithms of the filter bank, and the spectrogram: filled up with zeros among the logarithms, or cut, then normalised."""
    config = oracle(SOUNDS).config
    count = case.outputs["fbank"].shape[0]
    bank = heard(config, case.inputs["wave"], mean=0.0, std=1.0, frames=count)[0].mT
    case.compare_all({"fbank": bank, "spectrogram": heard(config, case.inputs["wave"])})


@pytest.mark.parametrize("case", cases(SOUNDS))
def test_the_graph_prepares_spectrograms_equal_to_those_of_torchaudio(case: Case, home: Path):
    """imagebind, of a sound as a whole, with the words of the fixture; what hears it has another size and is left out."""
    config = oracle(SOUNDS).config
    words = {"sample_rate_hz": "sample_rate", "mels": "num_mel_bins", "frames": "target_len", "mean": "mean", "std": "scale"}
    asked = {"windows": None, **{ours: config[theirs] for ours, theirs in words.items()}}
    graph = {"modelgraft": 1, "extends": "imagebind", "nodes.bands.with": asked, "nodes.hear": None, "outputs.audio": "bands"}
    (home / "sound.yaml").write_text(json.dumps(graph))
    params = {"checkpoint": str(folder_of(oracle(NAME), home))}
    with mg.open(mg.load(home / "sound.yaml", params=params, allow=["unused"])) as pipeline:
        found = pipeline.run(audio=Audio(case.inputs["wave"].numpy(), int(config["sample_rate"])), outputs=["audio"])
    case.compare(spectrogram=found["audio"][0])


def test_a_frame_that_is_off_shows():
    """Another hop, preemphasis or mean is beyond the tolerance: what is compared is not only silence."""
    for case in oracle(SOUNDS).cases.values():
        off = heard(oracle(SOUNDS).config, case.inputs["wave"] * 1.02)
        with pytest.raises(AssertionError, match="spectrogram"):
            case.compare(spectrogram=off)
