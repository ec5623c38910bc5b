"""Codecs: sounds as codes and back, as transformers codes them, each of a batch as it is alone."""

from __future__ import annotations

import json

import numpy
import pytest
import torch
import transformers as hf

import modelgraft as mg
from modelgraft.installed.discovery import assemble
from modelgraft.plugin import Audio, InputError
from modelgraft.testing import conform
from modelgraft_plugins import vocoder
from modelgraft_plugins.vocoder.codecs import SILENT, Decode, Encode
from support.open_part import configured, counts, open_part

REGISTRY = assemble({"vocoder": vocoder})
TINY = {
    "encodec": {
        "num_filters": 4, "hidden_size": 12, "upsampling_ratios": [5, 3, 2], "codebook_size": 16, "target_bandwidths": [1.7, 3.3, 5.0],
        "sampling_rate": 6000, "num_lstm_layers": 1,
    },
    "dac": {
        "encoder_hidden_size": 6, "decoder_hidden_size": 32, "downsampling_ratios": [2, 4, 6], "n_codebooks": 4, "codebook_size": 16,
        "codebook_dim": 4, "sampling_rate": 6000,
    },
    "mimi": {
        "num_filters": 4, "hidden_size": 16, "upsampling_ratios": [5, 3, 2], "codebook_size": 16, "codebook_dim": 8, "num_quantizers": 4,
        "vector_quantization_hidden_dimension": 8, "num_hidden_layers": 1, "intermediate_size": 20, "num_attention_heads": 2,
        "num_key_value_heads": 2, "head_dim": 8, "upsample_groups": 16, "sampling_rate": 6000, "sliding_window": 7,
    },
}  # fmt: skip
MODELS = {
    "encodec": (hf.EncodecModel, hf.EncodecConfig), "dac": (hf.DacModel, hf.DacConfig), "mimi": (hf.MimiModel, hf.MimiConfig),
}  # fmt: skip
DEFAULTS = {"encodec": 2, "dac": 4, "mimi": 4}  # books of each, where nobody says how many


def saved(folder, kind):
    """A tiny codec with random weights, and random code books: new ones are zeros."""
    model_class, config_class = MODELS[kind]
    torch.manual_seed(3)
    model = model_class(config_class(**TINY[kind])).eval()
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith((".embed", ".embed_sum")):
                tensor.copy_(torch.randn(tensor.shape))
    model.save_pretrained(folder)
    return model


def sounds(*lengths, rate=6000, seed=1):
    draw = numpy.random.default_rng(seed)
    return [Audio(draw.normal(0, 0.3, (1, length)).astype(numpy.float32), rate) for length in lengths]


def reference(model, kind, sound, books):
    """The codes of one sound, and the samples of them, by the library's own methods."""
    samples = torch.from_numpy(sound.samples)[None]
    with torch.no_grad():
        if kind == "encodec":
            bandwidth = TINY[kind]["target_bandwidths"][{2: 0, 4: 1, 6: 2}[books]]
            found = model.encode(samples, bandwidth=bandwidth)
            return found.audio_codes[0], model.decode(found.audio_codes, found.audio_scales).audio_values
        if kind == "dac":
            codes = model.encode(samples, n_quantizers=books).audio_codes
            return codes, model.decode(audio_codes=codes).audio_values[:, None]
        codes = model.encode(samples, num_quantizers=books).audio_codes
        return codes, model.decode(codes).audio_values


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("books", [None, 2])
def test_codes_and_samples_are_those_of_the_library(tmp_path, kind, books):
    """Of sounds of three lengths in one batch, two of them alike, each as the library codes it alone."""
    model = saved(tmp_path / "codec", kind)
    params = {"checkpoint": tmp_path / "codec", **({} if books is None else {"codebooks": books})}
    heard = sounds(601, 333, 601, 1234)
    with mg.open(mg.load("vocoder/codec", params=params)) as opened:
        found = opened.run(audio=heard)
    for sound, coded, mask, back in zip(heard, found["codes"], found["mask"], found["audio"], strict=True):
        wanted, samples = reference(model, kind, sound, books or DEFAULTS[kind])
        frames = int(mask.sum())
        codes = coded.reshape(coded.shape[-2:])
        assert torch.equal(codes[:, :frames], wanted[0])
        assert not codes[:, frames:].any()
        assert back.sample_rate_hz == 6000
        assert numpy.abs(back.samples - samples[0].numpy()).max() <= 1e-5 * max(1.0, samples.abs().max().item())


@pytest.mark.parametrize("kind", MODELS)
def test_each_half_holds_its_own_alone(tmp_path, kind):
    """Counted when it was built; what its config does not say is what the library takes."""
    model = saved(tmp_path, kind)
    for component, other in (("codec/encode", "decoder"), ("codec/decode", "encoder")):
        part = open_part(REGISTRY, component, str(tmp_path))
        formula, built = counts(part.node)
        left = sum(one.numel() for name, one in model.named_parameters() if not name.startswith(f"{other}."))
        assert formula == built == left
    assert configured(REGISTRY, "codec/encode", str(tmp_path)).config.used == DEFAULTS[kind]


@pytest.mark.parametrize("kind", MODELS)
def test_what_a_silent_config_means_is_what_the_library_takes(kind):
    config = MODELS[kind][1]()
    for key, value in SILENT[kind].items():
        found = getattr(config, key)
        assert (tuple(found) if isinstance(found, list) else found) == value, key
    ours = Encode(kind=kind)
    assert ours.books == (config.n_codebooks if kind == "dac" else config.num_quantizers)
    assert ours.hop == (config.frame_size if kind == "mimi" else config.hop_length)


@pytest.mark.parametrize("kind", MODELS)
def test_halves_conform(kind):
    config = {"kind": kind, "model": {"model_type": kind, **TINY[kind]}}
    conform(Encode, config, audio=sounds(601, 601))
    conform(Decode, config, codes=torch.randint(0, 16, (2, 3, 11)), mask=None)


def test_a_sound_of_another_rate_is_resampled_and_that_is_told(tmp_path):
    saved(tmp_path / "codec", "dac")
    with mg.open(mg.load("vocoder/codec", params={"checkpoint": tmp_path / "codec"})) as opened:
        events = list(opened.stream(audio=Audio(numpy.zeros((2, 4000), numpy.float32), 12_000)))
    told = [event.text for event in events if event.kind == "warning"]
    assert told == ["2 channels were mixed into one", "the sound was resampled from 12000 Hz to 6000 Hz"]


WRITTEN = """modelgraft: 1
params: {checkpoint: null}
inputs: {codes: "int64[batch codebooks frames]", mask: "optional[bool[batch frames]]"}
nodes: {sound: {use: codec/decode, from: "${checkpoint}", in: {codes: inputs.codes, mask: inputs.mask}}}
outputs: {audio: sound}
"""


@pytest.mark.parametrize(
    ("codes", "mask", "said"),
    [
        (torch.full((1, 2, 3), 16), None, "record 0 has the code 16, and a book of the codec has 0 to 15"),
        (torch.full((1, 2, 3), -1), None, "record 0 has the code -1"),
        (torch.zeros(1, 5, 3, dtype=torch.int64), None, "there are codes of 5 books, and the codec takes 1 to 4"),
        (torch.zeros(1, 2, 3, dtype=torch.int64), torch.tensor([[True, False, True]]), "the mask leaves frames out between others"),
        (torch.zeros(1, 2, 3, dtype=torch.int64), torch.tensor([[False] * 3]), "record 0 has no frames"),
    ],
)
def test_codes_that_the_codec_has_not_are_told(tmp_path, codes, mask, said):
    saved(tmp_path / "codec", "dac")
    (tmp_path / "graph.yaml").write_text(WRITTEN)
    graph = mg.load(tmp_path / "graph.yaml", params={"checkpoint": tmp_path / "codec"})
    with mg.open(graph) as opened, pytest.raises(InputError, match=said):
        opened.run(codes=codes, **({} if mask is None else {"mask": mask}))


def test_what_fills_a_shorter_sound_up_is_not_looked_at(tmp_path):
    """Codes beyond the book may stand there."""
    saved(tmp_path / "codec", "dac")
    (tmp_path / "graph.yaml").write_text(WRITTEN)
    codes = torch.randint(0, 16, (2, 2, 5))
    codes[1, :, 3:] = 99
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    with mg.open(mg.load(tmp_path / "graph.yaml", params={"checkpoint": tmp_path / "codec"})) as opened:
        both, alone = opened.run(codes=codes, mask=mask)["audio"], opened.run(codes=codes[1:, :, :3])["audio"]  # one record
    assert both[0].samples.shape[1] > both[1].samples.shape[1]
    assert numpy.abs(both[1].samples - alone.samples).max() <= 1e-6


def test_a_sound_that_makes_no_frame_is_told(tmp_path):
    saved(tmp_path / "codec", "dac")
    graph, said = (
        mg.load("vocoder/codec", params={"checkpoint": tmp_path / "codec"}),
        "has 20 samples at 6000 Hz, and a frame is made of 48",
    )
    with mg.open(graph) as opened, pytest.raises(InputError, match=said):
        opened.run(audio=sounds(20))


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"model_type": "bert"}, "codecs are encodec, dac, mimi, and .* is of model_type 'bert'"),
        ({"model_type": "encodec", "normalize": True, "chunk_length_s": 1.0}, "normalize: True, chunk_length_s: 1.0"),
    ],
)
def test_what_is_no_codec_that_is_served_is_refused(tmp_path, config, said):
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=said):
        configured(REGISTRY, "codec/encode", str(tmp_path))


def test_more_books_than_there_are_is_refused():
    with pytest.raises(ValueError, match="codebooks is 40, and the codec has 32: take 1 to 32"):
        Encode(kind="mimi", codebooks=40)


def test_codes_of_another_codec_do_not_fit(tmp_path):
    """They have the same shape, and would make a noise."""
    saved(tmp_path / "one", "dac")
    saved(tmp_path / "other", "encodec")
    (tmp_path / "graph.yaml").write_text("modelgraft: 1\nextends: vocoder/codec\nparams.voice: null\nnodes.decode.from: '${voice}'\n")
    with pytest.raises(mg.GraphError, match="codec"):
        mg.check(mg.load(tmp_path / "graph.yaml", params={"checkpoint": tmp_path / "one", "voice": tmp_path / "other"}))


@pytest.mark.parametrize("name", ["encodec-24khz", "dac-16khz", "mimi"])
def test_published_codecs_are_counted(name):
    plan = mg.plan(mg.load("vocoder/codec", params={"checkpoint": f"preset:{name}"}), exact=True)
    model_class, config_class = MODELS[name.partition("-")[0]]
    with torch.device("meta"):
        model = model_class(config_class())
    for node, other in (("encode", "decoder"), ("decode", "encoder")):
        left = sum(one.numel() for key, one in model.named_parameters() if not key.startswith(f"{other}."))
        assert plan.nodes[node].parameters.total == left
