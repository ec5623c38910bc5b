"""The graphs of HuBERT: against transformers, on random weights, tones and real speech; units from fitting to refusal."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from safetensors import safe_open

import modelgraft as mg
from modelgraft import Audio, InputError
from modelgraft.cli import main
from modelgraft.records.sounds import write_wave
from modelgraft_plugins.audio import letters
from support.checkpoints import randomise
from support.sounds import tone
from support.speech import talk

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
# as in all that were published, but narrow: 400 samples make a vector, 320 the next
SIZES = {
    "hidden_size": 24, "intermediate_size": 37, "num_hidden_layers": 3, "num_attention_heads": 3, "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4, "conv_dim": [8] * 7,
}  # fmt: skip
NORMS = {"group": {}, "layer": {"feat_extract_norm": "layer", "do_stable_layer_norm": True}}
CLOSE = {"rtol": 0.0, "atol": 1e-4}  # float32; our steps lie in another order


def saved(folder: Path, norm: str = "group", *, seed: int = 7, **more: Any) -> tuple[Any, Any]:
    """A folder as transformers saves one: model and feature extractor."""
    model = hf.HubertModel(hf.HubertConfig(**SIZES, **NORMS[norm], **more))
    randomise(model, seed=seed)
    model.eval().save_pretrained(folder)
    extractor = hf.Wav2Vec2FeatureExtractor(return_attention_mask=norm == "layer", do_normalize=norm == "layer")
    extractor.save_pretrained(folder)
    return model, extractor


def hidden_states(model: Any, extractor: Any, sound: Audio) -> tuple[torch.Tensor, ...]:
    """What transformers gives for one sound: each layer, and the last one normed behind them."""
    inputs = extractor(sound.samples[0], sampling_rate=16_000, return_tensors="pt")
    with torch.no_grad():
        found = model(**inputs, output_hidden_states=True)
    return (*found.hidden_states, found.last_hidden_state)


def check_against(model: Any, extractor: Any, folder: Path, sounds: list[Audio]) -> None:
    """Each layer of each sound alone, and in one batch."""
    alone = [hidden_states(model, extractor, sound) for sound in sounds]
    for layer in (None, 0, 1, 3):
        wanted = [states[-1 if layer is None else layer] for states in alone]
        with mg.open("hubert", params={"checkpoint": str(folder), "layer": layer}) as pipeline:
            for sound, states in zip(sounds, wanted, strict=True):
                torch.testing.assert_close(pipeline.run(audio=sound)["features"], states, **CLOSE)
            together = pipeline.run(audio=sounds)
            for index, states in enumerate(wanted):
                torch.testing.assert_close(together["features"][index][together["mask"][index]], states[0], **CLOSE)


@pytest.mark.parametrize("norm", NORMS)
def test_every_layer_equals_that_of_transformers(tmp_path: Path, norm: str):
    check_against(*saved(tmp_path, norm), tmp_path, [tone(0.6), tone(1.1, hertz=97.0), tone(0.03)])


@pytest.mark.parametrize("more", [{"feat_proj_layer_norm": False}, {"conv_pos_batch_norm": True}])
def test_derivatives_of_the_architecture_equal_those_of_transformers(tmp_path: Path, more: dict[str, bool]):
    """ContentVec and distilled models leave out a norm, or have another one."""
    model, extractor = saved(tmp_path, "group", **more)
    sound = tone(0.6)
    with mg.open("hubert", params={"checkpoint": str(tmp_path), "layer": 2}) as pipeline:
        torch.testing.assert_close(pipeline.run(audio=sound)["features"], hidden_states(model, extractor, sound)[2], **CLOSE)


def test_what_is_said_is_written_down_as_transformers_does(tmp_path: Path):
    """A HuBERT with a head of CTC."""
    model = hf.HubertForCTC(hf.HubertConfig(**SIZES, vocab_size=32))
    randomise(model, seed=7)
    model.eval().save_pretrained(tmp_path)
    (tmp_path / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(letters.ENGLISH)}))
    processor = hf.Wav2Vec2Processor(hf.Wav2Vec2FeatureExtractor(), hf.Wav2Vec2CTCTokenizer(str(tmp_path / "vocab.json")))
    processor.save_pretrained(tmp_path)
    sound = tone(0.6)
    with torch.no_grad():
        logits = model(**processor(sound.samples[0], sampling_rate=16_000, return_tensors="pt")).logits
    with mg.open("hubert/transcribe", params={"checkpoint": str(tmp_path)}) as pipeline:
        found = pipeline.run(audio=sound)
    torch.testing.assert_close(found["logits"], logits, **CLOSE)
    assert found["text"] == processor.batch_decode(logits.argmax(-1))[0]


def test_half_a_minute_is_a_vector_for_every_fiftieth_of_a_second(tmp_path: Path):
    """One less than that: 99 of two seconds, as the convolutions are not filled up."""
    saved(tmp_path)
    with mg.open("hubert", params={"checkpoint": str(tmp_path)}) as pipeline:
        assert [pipeline.run(audio=tone(seconds))["features"].shape[1] for seconds in (2.0, 30.0)] == [99, 1499]


@pytest.mark.network
@pytest.mark.parametrize("norm", NORMS)
def test_real_speech_gives_what_transformers_gives(tmp_path: Path, norm: str):
    """Pieces of a conversation, through random weights."""
    check_against(*saved(tmp_path, norm), tmp_path, [talk(7.0, 2.0), talk(10.0, 3.1)])


# -- presets ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "millions", "head"),
    # The paper, table 1: 95, 317 and 964 million with their heads; encoders alone are the first numbers.
    [("base", 94.4, (256, 504)), ("large", 315.4, (768, 504)), ("xlarge", 962.5, (1024, 504))],
)
def test_published_sizes_are_those_that_transformers_builds(name: str, millions: float, head: tuple[int, int]):
    """To the unit, without torch in a plan."""
    plan = mg.plan(mg.load("hubert", params={"checkpoint": f"preset:hubert-{name}"}))
    count = plan.nodes["encoder"].parameters.total
    facts = json.loads((Path(mg.load("hubert").spec.registry.recorded_configs[f"preset:hubert-{name}"]) / "config.json").read_text())
    stable = bool(facts["layer_norm_first"])
    config = hf.HubertConfig(
        hidden_size=facts["encoder_embed_dim"], intermediate_size=facts["encoder_ffn_embed_dim"], num_hidden_layers=facts["encoder_layers"],
        num_attention_heads=facts["encoder_attention_heads"], do_stable_layer_norm=stable, feat_extract_norm="layer" if stable else "group",
    )  # fmt: skip
    with torch.device("meta"):
        wanted = sum(parameter.numel() for parameter in hf.HubertModel(config).parameters())
    assert count == wanted
    assert round(count / 1e6, 1) == millions
    assert (facts["final_dim"], *facts["codes"]) == head


def test_a_plan_of_a_published_model_counts_its_centres_too():
    """500 of 768 numbers."""
    plan = mg.plan(mg.load("hubert/units"))
    assert plan.nodes["units"].parameters.total == 384_000
    assert plan.nodes["units"].parameters.trainable == 0


# -- units --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A folder with a model, another one, and sounds."""
    monkeypatch.chdir(tmp_path)
    saved(tmp_path / "model")
    saved(tmp_path / "other", seed=8)
    (tmp_path / "sounds").mkdir()
    for index in range(4):
        write_wave(tone(0.5 + 0.2 * index, hertz=110.0 * (index + 1)), tmp_path / "sounds" / f"{index}.wav")
    return tmp_path


FIT = ("units", "fit", "hubert", "sounds", "--set", "checkpoint=./model", "--set", "layer=2", "--clusters", "5", "--out", "km.safetensors")


def units_of(audio: Any, **params: Any) -> Any:
    """Run the graph of units."""
    given = {"checkpoint": "./model", "layer": 2, "units": "./km.safetensors", **params}
    with mg.open(mg.load("hubert/units", params=given)) as pipeline:
        return pipeline.run(audio=audio)


def test_units_are_the_nearest_centres_of_the_layer_they_were_fitted_on(home: Path, capsys):
    """From a folder of sounds to the units of one, by scikit-learn's own words."""
    assert main(FIT) == 0, capsys.readouterr().err
    with safe_open("km.safetensors", "np") as file:
        centres, said = file.get_tensor("cluster_centers_"), file.metadata()
    assert said["layer"] == "2"
    assert said["model"].startswith("hubert, weights ")
    sound = tone(0.7, hertz=220.0)
    model, extractor = hf.HubertModel.from_pretrained("model").eval(), hf.Wav2Vec2FeatureExtractor.from_pretrained("model")
    states = hidden_states(model, extractor, sound)[2][0].numpy().astype(np.float64)
    nearest = ((states[:, None] - centres[None].astype(np.float64)) ** 2).sum(-1).argmin(-1)
    result = units_of(sound)
    assert result["frames"][0].tolist() == nearest.tolist()
    runs, counts = torch.unique_consecutive(torch.from_numpy(nearest), return_counts=True)
    assert torch.equal(result["units"][0], runs)
    assert torch.equal(result["durations"][0], counts)
    assert int(result["durations"].sum()) == len(states)


def test_units_of_a_batch_are_those_of_each_sound_alone(home: Path):
    """What fills shorter sounds up has no unit."""
    assert main(FIT) == 0
    sounds = [tone(0.9), tone(0.4, hertz=330.0)]
    together = units_of(sounds)
    for index, sound in enumerate(sounds):
        alone, lasting = units_of(sound), together["durations"][index] > 0
        assert together["units"][index][lasting].tolist() == alone["units"][0].tolist()
        assert together["durations"][index][lasting].tolist() == alone["durations"][0].tolist()


def test_centres_are_refused_for_another_layer_and_another_model(home: Path):
    """By check, before anything is loaded, naming both; the model may move, and is still the same."""
    assert main(FIT) == 0
    mine = mg.load("hubert/units", params={"checkpoint": "./model", "layer": 2, "units": "./km.safetensors"})
    with pytest.raises(mg.GraphError, match=r"layer is 1.*, wanted 2"):
        mg.check(mg.load("hubert/units", params={"checkpoint": "./model", "layer": 1, "units": "./km.safetensors"}))
    with pytest.raises(mg.GraphError, match=r"model is hubert, weights \w{12}.*, wanted hubert, weights \w{12}"):
        mg.check(mg.load("hubert/units", params={"checkpoint": "./other", "layer": 2, "units": "./km.safetensors"}))
    mg.check(mine)
    shutil.move("model", "moved")
    shutil.copytree("moved", "copied")
    mg.check(mg.load("hubert/units", params={"checkpoint": "./copied", "layer": 2, "units": "./km.safetensors"}))


def test_the_layer_behind_the_last_norm_is_none_of_the_layers(home: Path):
    """In models that norm before their blocks: the last layer and what is normed of it are told apart."""
    saved(home / "large", "layer")
    words = [word.replace("layer=2", "layer=null").replace("./model", "./large") for word in FIT]
    assert main(words) == 0
    given = {"checkpoint": "./large", "units": "./km.safetensors"}
    mg.check(mg.load("hubert/units", params={**given, "nodes.encoder.with.layer": "null"}))
    with pytest.raises(mg.GraphError, match=r"layer is 3.*, wanted last"):
        mg.check(mg.load("hubert/units", params={**given, "layer": 3}))


def test_what_is_no_speech_is_told(home: Path):
    """Silence has units and a warning; a sound that is too short, and one that is not there, have none."""
    assert main(FIT) == 0
    result = units_of(Audio(np.zeros((1, 8000), np.float32), 16_000))
    assert int(result["durations"].sum()) == 24
    assert "the sound is silent" in " ".join(result.warnings)
    with pytest.raises(InputError, match=r"holds no samples|at least one frame"):
        units_of(Audio(np.zeros((1, 0), np.float32), 16_000))
    with pytest.raises(InputError, match="first vector of 400"):
        units_of(Audio(np.ones((1, 399), np.float32), 16_000))
    with pytest.raises(InputError, match=r"no such file|there is no"):
        units_of("nowhere.wav")


def test_weights_of_another_variant_are_refused_by_their_keys_and_shapes(home: Path):
    """Tensors of a model that norms elsewhere, and of one that is wider."""
    saved(home / "large", "layer")
    config = Path("large/config.json").read_bytes()
    shutil.copy("model/config.json", "large/config.json")
    with (
        pytest.raises(mg.ModelgraftError, match=r"do not fit .*feature_extractor\.conv_layers\.\d\.layer_norm"),
        mg.open("hubert", params={"checkpoint": "./large"}) as pipeline,
    ):
        pipeline.run(audio=tone(0.1))
    stated = json.loads(config)
    Path("large/config.json").write_text(json.dumps({**stated, "intermediate_size": 41}))
    with (
        pytest.raises(mg.ModelgraftError, match=r"do not fit .*intermediate_dense.*37.*41|do not fit .*41.*37"),
        mg.open("hubert", params={"checkpoint": "./large"}) as pipeline,
    ):
        pipeline.run(audio=tone(0.1))


# -- first iteration ----------------------------------------------------------------------------------------------------


def test_the_first_centres_need_no_model(home: Path, capsys):
    """39 numbers for each hundredth of a second, and centres of them."""
    assert main(("units", "fit", "hubert/mfcc", "sounds", "--clusters", "5", "--books", "3", "--out", "first.safetensors", "--json")) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["clusters"], said["width"], said["books"], said["layer"]) == (5, 39, 3, 0)
    assert said["frames"] == sum(round(100 * seconds) - 2 for seconds in (0.5, 0.7, 0.9, 1.1))  # 25 ms each, every 10 ms
    with pytest.raises(mg.GraphError, match=r"model is hubert, weights .*, wanted Kaldi's MFCC"):
        mg.check(mg.load("hubert/units", params={"checkpoint": "./model", "layer": 2, "units": "./first.safetensors"}))


@pytest.mark.network
def test_a_step_of_training_on_real_speech_loses_what_the_formula_says(tmp_path: Path, monkeypatch):
    """From a folder of speech to centres of MFCC, to spans that are masked, to the loss: checked from what the graph gives besides."""
    monkeypatch.chdir(tmp_path)
    sounds = [talk(7.0, 1.5), talk(10.0, 2.3)]
    Path("speech").mkdir()
    for index, sound in enumerate(sounds):
        write_wave(sound, Path(f"speech/{index}.wav"))
    assert main(("units", "fit", "hubert/mfcc", "speech", "--clusters", "20", "--out", "km.safetensors")) == 0
    Path("model").mkdir()
    Path("model/config.json").write_text(
        json.dumps({
            "model_type": "hubert", "conv_feature_layers": "[(8,10,5)] + [(8,3,2)] * 4 + [(8,2,2)] * 2", "encoder_layers": 2,
            "encoder_embed_dim": 24, "encoder_ffn_embed_dim": 37, "encoder_attention_heads": 3, "conv_pos": 16, "conv_pos_groups": 4,
            "final_dim": 6, "codes": [24],
        })
    )  # fmt: skip
    given = {"checkpoint": "./model", "units": "./km.safetensors", "codes": [24]}
    with mg.open(mg.load("hubert/pretrain_mfcc", params=given), init="random", seed=3) as pipeline:
        found = pipeline.run(
            audio=["speech/0.wav", "speech/1.wav"], outputs=["loss", "logits", "spans", "frames", "penalty", "encoder.frame_mask"]
        )
    total, count = 0.0, 0
    for record in range(2):
        for token in found["spans"][record].nonzero()[:, 0].tolist():
            unit = int(found["frames"][record, 2 * token])
            assert unit >= 0
            assert found["encoder.frame_mask"][record, token]
            total += float(torch.nn.functional.cross_entropy(found["logits"][record, token], torch.tensor(unit + 4)))
            count += 1
    assert count > 0.3 * int(found["encoder.frame_mask"].sum())
    assert found["loss"].mean().item() == pytest.approx(total / count + 10 * found["penalty"].mean().item(), rel=1e-5)


# -- ONNX ---------------------------------------------------------------------------------------------------------------


@pytest.mark.whole(
    "tests/graphs/test_wav2vec2.py::test_exports_give_what_torch_gives",
    "tests/plugins/test_onnx_parts.py::test_a_part_gives_torchs_numbers",
)
@pytest.mark.slow
@pytest.mark.parametrize("norm", NORMS)
def test_features_and_units_on_onnx_are_those_of_torch(home: Path, monkeypatch, norm: str):
    """Encoder and centres are one call there; sounds of unlike lengths, and of others than it was traced with."""
    monkeypatch.setenv("MODELGRAFT_CACHE", str(home / "cache"))
    saved(home / "model", norm)
    assert main(FIT) == 0
    graph = mg.load("hubert/units", params={"checkpoint": "./model", "layer": 2, "units": "./km.safetensors"})
    asked = ["features", "frames", "units", "durations", "mask"]
    with mg.open(graph, backend="torch") as pipeline, mg.open(graph, backend="onnx") as other:
        for sounds in (tone(0.6), [tone(0.9), tone(0.4, hertz=330.0)]):
            wanted, found = pipeline.run(audio=sounds, outputs=asked), other.run(audio=sounds, outputs=asked)
            torch.testing.assert_close(found["features"], wanted["features"], rtol=0.0, atol=1e-4)
            for name in ("frames", "units", "durations", "mask"):
                assert torch.equal(found[name], wanted[name]), name
