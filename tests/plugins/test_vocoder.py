"""Vocoders: sound out of mel bands, as transformers makes it, from its files and from those of the published code."""

from __future__ import annotations

import json

import numpy
import pytest
import torch
import transformers as hf
from safetensors.torch import save_file

import modelgraft as mg
from modelgraft.installed.discovery import assemble
from modelgraft.plugin import Audio, InputError
from modelgraft.testing import conform, run_node
from modelgraft_plugins import vocoder
from modelgraft_plugins.vocoder import HifiGan, Sound, table
from support.open_part import configured, counts, open_part

REGISTRY = assemble({"vocoder": vocoder})
TINY = {
    "model_in_dim": 7, "upsample_initial_channel": 24, "upsample_rates": [5, 3, 2], "upsample_kernel_sizes": [16, 7, 4],
    "resblock_kernel_sizes": [3, 5], "resblock_dilation_sizes": [[1, 3], [1, 2]], "sampling_rate": 12_000,
}  # fmt: skip
SIZES = {
    "mels": 7, "channels": 24, "rates": (5, 3, 2), "kernels": (16, 7, 4), "block_kernels": (3, 5), "block_dilations": ((1, 3), (1, 2)),
    "sample_rate_hz": 12_000,
}  # fmt: skip
CLOSE = {"rtol": 0.0, "atol": 1e-6}  # float32, elementwise


def mel(batch=2, frames=11, seed=1):
    return torch.randn(batch, frames, 7, generator=torch.Generator().manual_seed(seed))


def saved(folder, **more):
    """A tiny vocoder of transformers with random weights, a mean and a scale among them."""
    torch.manual_seed(3)
    model = hf.SpeechT5HifiGan(hf.SpeechT5HifiGanConfig(**TINY, **more)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape))
        model.mean.copy_(torch.randn(7))
        model.scale.copy_(torch.rand(7) + 0.5)
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize("normalize", [True, False])
def test_samples_are_those_of_the_library(tmp_path, normalize):
    """With the norm of what comes in and without; kernels that exceed their rates by an odd number give some samples more."""
    model = saved(tmp_path, normalize_before=normalize)
    found = open_part(REGISTRY, "vocoder/hifigan", str(tmp_path))
    with torch.no_grad():
        wanted = model(mel())
    torch.testing.assert_close(found(mel()), wanted, **CLOSE)
    assert found.outputs == {"samples": "float[batch 30*frames+6]"}
    assert wanted.shape[1] == 30 * 11 + 6
    formula, built = counts(found.node)
    assert formula == built == sum(one.numel() for one in model.parameters())


NORMED = {"g": "weight_g", "v": "weight_v"}, {"g": "parametrizations.weight.original0", "v": "parametrizations.weight.original1"}


@pytest.mark.parametrize("names", NORMED, ids=["before torch 2.1", "since"])
def test_files_of_the_published_code_are_read(tmp_path, names):
    """Their own names, weights as lengths and directions, and all of it under `generator`."""
    model = saved(tmp_path / "ours", normalize_before=False)
    state = {}
    held = {key.replace("upsampler.", "ups."): tensor for key, tensor in model.state_dict().items() if key not in {"mean", "scale"}}
    for key, tensor in held.items():
        if key.endswith(".weight"):
            norm = tensor.flatten(1).norm(dim=1).reshape(-1, 1, 1)
            state[key.replace("weight", names["g"])], state[key.replace("weight", names["v"])] = norm, 3.0 * tensor
        else:
            state[key] = tensor
    official = tmp_path / "official"
    official.mkdir()
    torch.save({"generator": state}, official / "pytorch_model.bin")
    config = {key: value for key, value in TINY.items() if key not in {"model_in_dim"}}
    (official / "config.json").write_text(json.dumps({**config, "num_mels": 7, "resblock": "1", "segment_size": 8192, "n_fft": 1024}))
    found = open_part(REGISTRY, "vocoder/hifigan", str(official))
    with torch.no_grad():
        torch.testing.assert_close(found(mel()), model(mel()), rtol=0, atol=1e-5)


def test_it_conforms():
    conform(HifiGan, SIZES)
    conform(HifiGan, {**SIZES, "kernels": (5, 3, 2), "normalize": False})


def test_a_sound_has_the_rate_of_what_made_it(tmp_path):
    """The graph takes it from the wire, and cuts where it is told to."""
    model = saved(tmp_path / "v")
    with mg.open(mg.load("vocoder/hifigan", params={"checkpoint": tmp_path / "v"})) as opened:
        found = opened.run(mel=mel())
    with torch.no_grad():
        wanted = model(mel()).numpy()
    assert [one.sample_rate_hz for one in found["audio"]] == [12_000] * 2
    for one, row in zip(found["audio"], wanted, strict=True):
        assert one.samples.shape == (1, 336)
        assert numpy.abs(one.samples[0] - row).max() <= 1e-6


def test_sounds_of_a_batch_have_their_own_lengths():
    """A mask says what belongs to each; `seconds` cuts."""
    samples = torch.arange(12.0).reshape(2, 6) / 12
    mask = torch.tensor([[True] * 6, [True] * 4 + [False] * 2])
    found = run_node(Sound, {"sample_rate_hz": 4}, samples=samples, mask=mask)["audio"]
    assert [one.samples.shape for one in found] == [(1, 6), (1, 4)]
    cut = run_node(Sound, {"sample_rate_hz": 4, "seconds": 0.75}, samples=samples)["audio"]
    assert [one.samples.tolist() for one in cut] == [[pytest.approx([0, 1 / 12, 2 / 12])], [pytest.approx([6 / 12, 7 / 12, 8 / 12])]]
    assert isinstance(cut[0], Audio)
    conform(Sound, {"sample_rate_hz": 4})


def test_what_makes_no_sound_is_told():
    with pytest.raises(InputError, match="record 1 has no samples"):
        run_node(Sound, {"sample_rate_hz": 4}, samples=torch.zeros(2, 3), mask=torch.tensor([[True] * 3, [False] * 3]))
    with pytest.raises(InputError, match="record 0 holds samples that are no finite numbers; run the vocoder with dtype: float32"):
        run_node(Sound, {"sample_rate_hz": 4}, samples=torch.tensor([[0.0, float("nan")]]))


UNRATED = """modelgraft: 1
inputs: {samples: "float[batch samples]"}
nodes: {sound: {use: vocoder/sound, in: {samples: inputs.samples}}}
outputs: {audio: sound}
"""


def test_a_rate_that_nobody_says_is_asked_for(tmp_path):
    (tmp_path / "graph.yaml").write_text(UNRATED)
    with pytest.raises(mg.GraphError, match=r"sound does not know at which rate its samples are heard\n.*write sample_rate_hz"):
        mg.check(mg.load(tmp_path / "graph.yaml"))


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({**SIZES, "rates": (5, 3)}, "there are 2 rates and 3 kernels"),
        ({**SIZES, "channels": 20}, "channels is 20, which cannot be halved 3 times"),
        ({**SIZES, "kernels": (16, 7, 1)}, "kernels must be at least as wide as their rates: found 1 at 2"),
        ({**SIZES, "block_kernels": (3,)}, "1 block_kernels and 2 block_dilations"),
    ],
)
def test_sizes_that_fit_nothing_are_refused(config, said):
    with pytest.raises(ValueError, match=said):
        HifiGan(**config)


def test_configs_of_others_are_refused(tmp_path):
    for name, config, said in (
        ("bert", {"model_type": "bert"}, "vocoder/hifigan serves speecht5_hifigan"),
        ("two", {"upsample_rates": [2], "upsample_kernel_sizes": [4], "resblock": "2"}, "resblock: '2'"),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(config))
        with pytest.raises(ValueError, match=said):
            configured(REGISTRY, "vocoder/hifigan", str(tmp_path / name))


def test_mel_of_another_rate_does_not_fit(tmp_path):
    """A vocoder of 12 kHz would speak what was made for another too low."""
    saved(tmp_path / "v")
    (tmp_path / "graph.yaml").write_text("modelgraft: 1\nextends: vocoder/hifigan\ninputs.mel: 'float[batch frames 8]'\n")
    with pytest.raises(mg.GraphError, match="8"):
        mg.check(mg.load(tmp_path / "graph.yaml", params={"checkpoint": tmp_path / "v"}))


def test_every_key_of_the_librarys_config_is_known():
    known = table().known
    assert not [key for key in hf.SpeechT5HifiGanConfig().to_dict() if key not in known]
    assert table().unheeded({"swirl": 3}, "org/model")


def test_the_published_vocoder_is_counted():
    """SpeechT5's; its sizes are those of the library's default config."""
    plan = mg.plan(mg.load("vocoder/hifigan"), exact=True)
    with torch.device("meta"):
        wanted = sum(one.numel() for one in hf.SpeechT5HifiGan(hf.SpeechT5HifiGanConfig()).parameters())
    assert plan.nodes["vocoder"].parameters.total == wanted == HifiGan().parameters()


def test_a_missing_tensor_is_named(tmp_path):
    model = saved(tmp_path)
    state = {key: tensor for key, tensor in model.state_dict().items() if key != "conv_post.bias"}
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(mg.ModelgraftError, match=r"conv_post\.bias"):
        open_part(REGISTRY, "vocoder/hifigan", str(tmp_path))
