"""The graphs of wav2vec 2.0: against transformers, from its folders and from files of fairseq, on random weights, tones and real speech."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf

import modelgraft as mg
from modelgraft import Audio
from modelgraft.tools.importer import import_graph
from modelgraft_plugins.audio import letters
from support.checkpoints import randomise
from support.sampling import WHOLE
from support.sounds import tone
from support.speech import talk

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
# as in all that were published, but narrow: 400 samples make a vector, 320 the next
SIZES = {
    "hidden_size": 24, "intermediate_size": 37, "num_hidden_layers": 3, "num_attention_heads": 3, "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4, "conv_dim": [8] * 7, "vocab_size": 32,
}  # fmt: skip
NORMS = {"group": {}, "layer": {"feat_extract_norm": "layer", "conv_bias": True, "do_stable_layer_norm": True}}


def saved(folder: Path, norm: str, *, head: str = "ForCTC") -> tuple[Any, Any]:
    """A folder as transformers saves one: model, feature extractor and letters."""
    model = getattr(hf, f"Wav2Vec2{head}")(hf.Wav2Vec2Config(**SIZES, **NORMS[norm]))
    randomise(model, seed=7)
    model.eval().save_pretrained(folder)
    (folder / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(letters.ENGLISH)}))
    extractor = hf.Wav2Vec2FeatureExtractor(return_attention_mask=norm == "layer")
    processor = hf.Wav2Vec2Processor(extractor, hf.Wav2Vec2CTCTokenizer(str(folder / "vocab.json")))
    processor.save_pretrained(folder)
    return model, processor


def check_against(model: Any, processor: Any, folder: Path, sounds: list[Audio]) -> None:
    """Each sound alone, as transformers hears it, and all in one batch."""
    with mg.open("wav2vec2", params={"checkpoint": str(folder)}) as pipeline:
        together = pipeline.run(audio=sounds)
        for index, sound in enumerate(sounds):
            inputs = processor(sound.samples[0], sampling_rate=16_000, return_tensors="pt")
            with torch.no_grad():
                logits = model(**inputs).logits
            alone = pipeline.run(audio=sound)
            torch.testing.assert_close(alone["logits"], logits, rtol=0, atol=1e-4)
            torch.testing.assert_close(together["logits"][index][: logits.shape[1]], logits[0], rtol=0, atol=1e-4)
            assert alone["text"] == together["text"][index] == processor.batch_decode(logits.argmax(-1))[0]


@pytest.mark.parametrize("norm", NORMS)
def test_text_and_logits_equal_those_of_transformers(tmp_path: Path, norm: str):
    check_against(*saved(tmp_path, norm), tmp_path, [tone(0.6), tone(1.1, hertz=97.0), tone(0.03)])


@pytest.mark.network
@pytest.mark.parametrize("norm", NORMS)
def test_real_speech_gives_what_transformers_gives(tmp_path: Path, norm: str):
    """Pieces of a conversation, through random weights."""
    check_against(*saved(tmp_path, norm), tmp_path, [talk(7.0, 2.0), talk(10.0, 3.1)])


@pytest.mark.network
def test_every_graph_runs_on_real_speech(tmp_path: Path):
    """Of any rate and number of channels."""
    saved(tmp_path, "group")
    sound = talk(7.0, 1.0)
    stereo = Audio(sound.samples.repeat(2, axis=0).repeat(3, axis=1), 48_000)
    for name, outputs in (("wav2vec2", {"text", "logits"}), ("wav2vec2/beam", {"text", "logits"}),
                          ("wav2vec2/features", {"tokens", "mask", "conv_features"})):  # fmt: skip
        with mg.open(name, params={"checkpoint": str(tmp_path)}) as pipeline:
            found = pipeline.run(audio=stereo)
        assert set(found) == outputs
        assert "channels were mixed into one" in " ".join(found.warnings)


@pytest.mark.parametrize("norm", NORMS)
def test_features_of_a_layer_equal_those_of_transformers(tmp_path: Path, norm: str):
    model, processor = saved(tmp_path, norm, head="Model")
    sound = tone(0.4)
    with torch.no_grad():
        wanted = model(**processor(sound.samples[0], sampling_rate=16_000, return_tensors="pt"), output_hidden_states=True)
    for layer, tokens in ((None, wanted.last_hidden_state), (2, wanted.hidden_states[2]), (0, wanted.hidden_states[0])):
        with mg.open("wav2vec2/features", params={"checkpoint": str(tmp_path), "layer": layer}) as pipeline:
            found = pipeline.run(audio=sound)
        torch.testing.assert_close(found["tokens"], tokens, rtol=0, atol=2e-5)
        assert found["mask"].all()


# -- files of fairseq ------------------------------------------------------------------------------------------------------

NAMES = (  # of transformers -> of fairseq, written from its own conversion table
    (r"wav2vec2\.masked_spec_embed", "mask_emb"),
    (r"wav2vec2\.feature_extractor\.conv_layers\.(\d+)\.conv\.(\w+)", r"feature_extractor.conv_layers.\1.0.\2"),
    (r"wav2vec2\.feature_projection\.projection\.(\w+)", r"post_extract_proj.\1"),
    (r"wav2vec2\.feature_projection\.layer_norm\.(\w+)", r"layer_norm.\1"),
    (r"wav2vec2\.encoder\.pos_conv_embed\.conv\.parametrizations\.weight\.original0", "encoder.pos_conv.0.weight_g"),
    (r"wav2vec2\.encoder\.pos_conv_embed\.conv\.parametrizations\.weight\.original1", "encoder.pos_conv.0.weight_v"),
    (r"wav2vec2\.encoder\.pos_conv_embed\.conv\.bias", "encoder.pos_conv.0.bias"),
    (r"wav2vec2\.(encoder\.layers\.\d+)\.attention\.(.+)", r"\1.self_attn.\2"),
    (r"wav2vec2\.(encoder\.layers\.\d+)\.layer_norm\.(\w+)", r"\1.self_attn_layer_norm.\2"),
    (r"wav2vec2\.(encoder\.layers\.\d+)\.feed_forward\.intermediate_dense\.(\w+)", r"\1.fc1.\2"),
    (r"wav2vec2\.(encoder\.layers\.\d+)\.feed_forward\.output_dense\.(\w+)", r"\1.fc2.\2"),
    (r"wav2vec2\.(encoder\..+)", r"\1"),
)


def as_fairseq(model: Any, norm: str) -> dict[str, torch.Tensor]:
    """The tensors of a fine-tuned model under fairseq's names."""
    found = {}
    for key, tensor in model.state_dict().items():
        if key.startswith("lm_head."):
            found[f"w2v_encoder.proj.{key.removeprefix('lm_head.')}"] = tensor
            continue
        normed = re.fullmatch(r"wav2vec2\.feature_extractor\.conv_layers\.(\d+)\.layer_norm\.(\w+)", key)
        if normed:
            name = f"feature_extractor.conv_layers.{normed[1]}.2.{'1.' if norm == 'layer' else ''}{normed[2]}"
        else:
            name = next(re.sub(pattern, new, key) for pattern, new in NAMES if re.fullmatch(pattern, key))
        found[f"w2v_encoder.w2v_model.{name}"] = tensor
    return found


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("where", ["cfg", "args"])
def test_a_fine_tuned_file_of_fairseq_is_read_with_what_it_was_trained_with(tmp_path: Path, norm: str, where: str):
    """Its settings say heads, strides and whether sounds are scaled; its dictionary is inside it."""
    import argparse

    model, processor = saved(tmp_path / "hf", norm)
    words = {
        "encoder_layers": 3, "encoder_embed_dim": 24, "encoder_ffn_embed_dim": 37, "encoder_attention_heads": 3, "conv_pos": 16,
        "conv_pos_groups": 4, "conv_feature_layers": "[(8, 10, 5)] + [(8, 3, 2)] * 4 + [(8,2,2)] * 2", "conv_bias": norm == "layer",
        "extractor_mode": "layer_norm" if norm == "layer" else "default", "layer_norm_first": norm == "layer", "mask_prob": 0.65,
    }  # fmt: skip
    if where == "cfg":
        held: Any = {
            "task": {"_name": "audio_pretraining", "normalize": True},
            "model": {"_name": "wav2vec_ctc", "w2v_args": {"model": words}},
        }
    else:
        held = argparse.Namespace(arch="wav2vec_ctc", normalize=True, w2v_args=argparse.Namespace(**words))
    symbols = [*letters.FAIRSEQ_SPECIAL, *letters.ENGLISH[4:]]
    beside = {"task_state": {"target_dictionary": {"symbols": symbols}}, "optimizer_history": [], "extra_state": {"epoch": 1}}
    torch.save({"args": None, "cfg": None, where: held, "model": as_fairseq(model, norm), **beside}, tmp_path / "tuned.pt")
    sound = tone(0.5)
    with torch.no_grad():
        wanted = model(**processor(sound.samples[0], sampling_rate=16_000, return_tensors="pt")).logits
    with mg.open("wav2vec2", params={"checkpoint": str(tmp_path / "tuned.pt")}) as pipeline:
        found = pipeline.run(audio=sound)
    torch.testing.assert_close(found["logits"], wanted, rtol=0, atol=2e-5)
    assert not any("says no letters" in text for text in found.warnings)


def test_weights_of_another_variant_are_named(tmp_path: Path):
    """A group-normed file under a config that says layer norms: the keys that are missing, and the shapes that differ."""
    saved(tmp_path, "group")
    stated = json.loads((tmp_path / "config.json").read_text())
    for changed, told in ((NORMS["layer"], r"conv_layers\.\d\.(conv\.bias|layer_norm)"), ({"hidden_size": 36}, r"24.*36|36.*24")):
        (tmp_path / "config.json").write_text(json.dumps({**stated, **changed}))
        with pytest.raises(mg.ModelgraftError, match=told), mg.open("wav2vec2", params={"checkpoint": str(tmp_path)}) as pipeline:
            pipeline.run(audio=tone(0.2))


@pytest.mark.parametrize(
    ("sound", "told"),
    [
        (tone(0.01), r"the sound has 160 samples at 16000 Hz, and the encoder makes its first vector of 400"),
        (tone(601.0, rate=1000), r"the sound lasts 601\.0 s and 600 s are heard at once"),
    ],
)
def test_a_sound_that_cannot_be_heard_is_refused(tmp_path: Path, sound: Audio, told: str):
    saved(tmp_path, "group")
    with mg.open("wav2vec2", params={"checkpoint": str(tmp_path)}) as pipeline, pytest.raises(mg.ModelgraftError, match=told):
        pipeline.run(audio=sound)


def test_a_silent_sound_gives_numbers_and_is_told(tmp_path: Path):
    import numpy as np

    saved(tmp_path, "layer")
    with mg.open("wav2vec2", params={"checkpoint": str(tmp_path)}) as pipeline:
        found = pipeline.run(audio=Audio(np.zeros((1, 8_000), np.float32), 16_000))
    assert found["logits"].isfinite().all()
    assert any("the sound is silent" in text for text in found.warnings)


@pytest.mark.parametrize(
    ("head", "graph", "outputs"),
    [("ForCTC", "wav2vec2", "text"), ("ForPreTraining", "wav2vec2/pretrain", "loss"), ("Model", "wav2vec2/features", "tokens")],
)
def test_a_folder_becomes_the_graph_of_its_head(tmp_path: Path, head: str, graph: str, outputs: str):
    """`modelgraft import` writes it, and it runs as it is written."""
    saved(tmp_path / "model", "layer", head=head)
    written = tmp_path / "mine.yaml"
    written.write_text(import_graph(str(tmp_path / "model"), folder=tmp_path))
    assert f"name: {graph}" in written.read_text()
    with mg.open(written) as pipeline:
        assert outputs in pipeline.run(audio=tone(0.5))


@pytest.mark.slow
@pytest.mark.parametrize("norm", NORMS)
def test_exports_give_what_torch_gives(tmp_path: Path, norm: str):
    """Encoder and head as one export, on sounds of other lengths than it was traced with; in whole runs what its filters give, too."""
    saved(tmp_path, norm)
    sounds = [tone(0.6), tone(0.31, hertz=97.0)]
    for name, output in (("wav2vec2", "logits"), ("wav2vec2/features", "conv_features"))[: 2 if WHOLE else 1]:
        with (
            mg.open(name, params={"checkpoint": str(tmp_path)}) as plain,
            mg.open(name, params={"checkpoint": str(tmp_path)}, backend="onnx") as exported,
        ):
            for heard in (sounds, [tone(1.3)]):
                found, wanted = exported.run(audio=heard), plain.run(audio=heard)
                torch.testing.assert_close(found[output], wanted[output], rtol=0, atol=2e-5)
            assert not any("onnx" in text for text in found.warnings), found.warnings


@pytest.mark.whole("tests/graphs/test_wav2vec2.py::test_exports_give_what_torch_gives")
@pytest.mark.slow
def test_a_step_of_pre_training_runs_on_exports_but_for_its_criterion(tmp_path: Path):
    saved(tmp_path, "layer", head="ForPreTraining")
    found = {}
    for backend in ("torch", "onnx"):
        with mg.open("wav2vec2/pretrain", params={"checkpoint": str(tmp_path)}, backend=backend, fallback="torch") as pipeline:
            found[backend] = pipeline.run(audio=[tone(0.6), tone(0.5, hertz=97.0)])
    assert torch.equal(found["onnx"]["code_ids"], found["torch"]["code_ids"])
    torch.testing.assert_close(found["onnx"]["loss"], found["torch"]["loss"], rtol=1e-5, atol=0)
