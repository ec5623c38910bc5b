"""Every exportable component as an ONNX graph: the numbers of torch, on sizes that were neither traced nor checked before."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from modelgraft.engine.backend import LoadContext
from modelgraft.engine.modules.examples import make_inputs
from modelgraft.kernel.words.graph import Ref
from modelgraft.records.arrays import as_tensor
from modelgraft.testing import node_of
from modelgraft_plugins.onnx.backend import OnnxBackend
from modelgraft_plugins.torch.backend import TorchBackend
from support import painting, sounding
from support.installed import registry
from support.untuned import leave_untuned

pytestmark = [
    pytest.mark.slow,  # it exports
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]

REGISTRY = registry()
DRIVEN = {  # theirs are graphs of parts: test_llm_onnx.py, test_drafting.py, test_diffusion*.py, test_flow_mlp.py, test_unit_vocoder.py
    "llm/causal", "llm/draft", "llm/seq2seq", "diffusion/denoise", "diffusion/denoise-sound", "diffusion/denoise-film",
    "vocoder/unit_hifigan", "diffusion/flow", "diffusion/prompt", "diffusion/text-to-image", "diffusion/image-to-image",
    "diffusion/text-to-audio", "diffusion/text-to-video", "diffusion/flow-mlp",
}  # fmt: skip
GRAPHS = {  # what whole graphs export: the folder of the graphs, or the plugin -> the file of the tests that compare them with torch
    "beit3": "graphs/test_beit3.py", "coca": "plugins/test_coca.py", "ctc": "graphs/test_wav2vec2.py", "fromage": "graphs/test_fromage.py",
    "omnimae": "graphs/test_omnimae.py",
    "pali": "graphs/test_pali.py", "patches": "plugins/test_patches.py",
    "simvlm": "graphs/test_simvlm.py", "wav2vec2": "graphs/test_wav2vec2.py",
}  # fmt: skip
ALONE = {  # clip/resnet is compared with its reference on torch, its export was tried by hand; the writer in graphs/test_blip2_stage1.py
    "clip/resnet", "qformer/writer",
}  # fmt: skip
UNLIKE = {"batch": 4, "sizes": (10, 6, 8, 3, 12)}  # sizes of examples.py are others
GRID = {"groups": 4, "patches": 16, "patches1": 16, "patches2": 25, "places": 25}  # as a graph decides it: their number must make a square
OF_GRIDS = ("adapter-qwenvl", "pixel-shuffle", "pool", "pool-to-a-grid", "join-to-a-grid")
ABSTRACTOR = {"in_features": 6, "out_features": 5, "patches": 16, "tokens": 9, "hidden_size": 8, "depth": 2}
SMALL = {"hidden_size": 12, "intermediate_size": 19, "num_hidden_layers": 1, "num_attention_heads": 3}
EYE = {**SMALL, "image_size": 21, "patch_size": 7}
TEXT = {**SMALL, "vocab_size": 20, "max_position_embeddings": 17, "eos_token_id": 5}
TOWER = {"hidden_size": 12, "num_hidden_layers": 1, "num_attention_heads": 3, "embedding_size": 10}
OUTPUT = {"hidden_size": 18, "inner_size": 12, "encoder_layers": 2, "decoder_layers": 1, "heads": 3, "feed_forward": 20, "width": 9}
PICTURE = {"hidden": 7, "blocks": 2, "condition": 6, "channels": 3, "height": 4, "width": 2}
RESAMPLER = {"hidden_size": 12, "depth": 2, "num_heads": 3, "head_dim": 5, "num_latents": 4}
PAIR = {
    **SMALL, "encoder_hidden_size": 10, "num_query_tokens": 3, "vocab_size": 23, "max_position_embeddings": 17,
}  # fmt: skip
CASES = {
    "eye-clip": ("vision/encoder", {**EYE, "family": "clip"}),
    "eye-of-several": ("vision/encoder", {**EYE, "family": "clip", "many": True}),
    "eye-siglip": ("vision/encoder", {**EYE, "family": "siglip"}),
    "eye-eva": ("vision/encoder", {**EYE, "family": "eva"}),
    "efficientnet": ("vision/efficientnet", {"image_size": 38, "num_labels": 13}),
    "nfnet": (
        "vision/nfnet",
        {
            "depths": (1, 2, 1, 1),
            "channels": (8, 12, 16, 20),
            "inner_channels": (4, 6, 8, 10),
            "gate_channels": (3, 5, 7, 9),
            "stem_channels": 8,
            "group_size": 2,
            "features": 14,
            "image_size": 64,
        },
    ),
    "ear": ("audio/encoder", {**SMALL, "mels": 7, "positions": 11}),
    "ear-of-sound-alone": ("audio/encoder", {**SMALL, "family": "qwen2-audio", "mels": 7, "positions": 12}),
    "ear-voxtral": ("audio/encoder", {**SMALL, "family": "voxtral", "mels": 7, "positions": 12}),
    "text-clip": ("text/encoder", {**TEXT, "family": "clip"}),
    "text-bert": ("text/encoder", {**TEXT, "family": "bert", "many": True}),
    "abstractor-owl": (
        "zoo/abstractor",
        {**SMALL, "language_size": 10, "num_queries": 5},
    ),
    "visual-prompt": (
        "zoo/visual_prompt",
        {"in_features": 9, "language_size": 10, "width": 12, "depth": 2, "heads": 3, "inner_size": 7, "queries": 4},
    ),
    "queries": ("qformer/queries", {"num_query_tokens": 3, "hidden_size": 10}),
    "qformer": (
        "qformer/qformer",
        {**SMALL, "encoder_hidden_size": 10, "reads_text": True, "vocab_size": 15, "max_position_embeddings": 17},
    ),
    "pair-image": ("qformer/pair", PAIR),
    "pair-text": ("qformer/pair", {**PAIR, "reads": "text"}),
    "pair-texts": ("qformer/pair", {**PAIR, "reads": "text", "many": True}),
    "pair-both": ("qformer/pair", {**PAIR, "reads": "both"}),
    "pair-both-of-several": ("qformer/pair", {**PAIR, "reads": "both", "many": True}),
    "pair-caption": ("qformer/pair", {**PAIR, "reads": "caption"}),
    "match": ("qformer/match", {"hidden_size": 6, "many": True}),
    "pair-words": ("qformer/words", {"hidden_size": 6, "vocab_size": 9}),
    "best-query": ("similarity/best_query", {}),
    "best-query-of-pairs": ("similarity/best_query", {"over": "pair", "learned": True}),
    "contrast-of-queries": ("loss/contrastive_queries", {"learned": True}),
    "resampler-of-clips": (
        "resampler/perceiver",
        {**RESAMPLER, "many": True, "max_num_frames": 3, "more_frames": "interpolate", "activation": "squared_relu"},
    ),
    "resampler": ("resampler/perceiver", {**RESAMPLER, "many": True, "max_num_frames": 24, "max_num_media": 20}),
    "resampler-of-few": ("resampler/perceiver", {**RESAMPLER, "many": True, "max_num_frames": 2, "max_num_media": 3}),
    "resampler-of-one": ("resampler/perceiver", {**RESAMPLER, "many": True, "max_num_media": 1}),
    "resampler-of-pictures": ("resampler/perceiver", {**RESAMPLER, "max_num_media": 4}),
    "text-of-few": ("text/encoder", {**TEXT, "family": "clip", "max_position_embeddings": 4}),
    "resampler-idefics": ("resampler/perceiver", {**RESAMPLER, "family": "idefics", "qk_norms": True}),
    "units": ("units/kmeans", {"clusters": 7, "width": 6}),
    "units-of-books": ("units/kmeans", {"clusters": 7, "width": 6, "books": 3}),
    "codes": ("units/code_head", {"width": 6, "final_dim": 5, "codes": (7, 4)}),
    "durations": ("vocoder/durations", {"units": 12, "width": 6, "hidden": 5}),
    "kosmos-connector": ("kosmos/connector", {"in_features": 6, "hidden_size": 12, "queries": 4, "num_heads": 3}),
    "linear": ("projector/linear", {"in_features": 6, "out_features": 5}),
    "mlp": ("projector/mlp", {"in_features": 6, "out_features": 5, "hidden_features": 9, "over": "vector"}),
    "memory": ("projector/memory", {"in_features": 6, "out_features": 5, "sentences": 11, "slots": 3, "rows": 7}),
    "merger": ("patches/merger", {"in_features": 6, "out_features": 5}),
    "merger-narrow": ("patches/merger", {"family": "narrow", "in_features": 6, "out_features": 5, "merge_size": 3, "bias": False}),
    "deep-merger": ("patches/deep-merger", {"layers": 2, "in_features": 6, "out_features": 5}),
    "normed-pool": ("projector/normed_pool", {"in_features": 6, "out_features": 5, "side": 6, "factor": 3}),
    "stack": ("projector/stack", {"factor": 3}),
    "pixel-shuffle": ("projector/pixel_shuffle", {"factor": 2}),
    "newline": ("tiles/newline", {"width": 10}),
    "gated": ("projector/gated", {"in_features": 10, "out_features": 7, "hidden_features": 9}),
    "grouped": (
        "resampler/grouped",
        {"hidden_size": 10, "depth": 2, "num_heads": 4, "num_key_value_heads": 2, "head_dim": 3, "num_latents": 5},
    ),
    "norm-and-mlp": ("projector/mlp", {"in_features": 10, "out_features": 7, "norm": True}),
    "eye-idefics3": ("vision/encoder", {**EYE, "family": "idefics3"}),
    "pool": ("projector/pool", {"factor": 2}),
    "pool-to-a-grid": ("projector/pool", {"tokens": 9}),
    "merge": ("projector/merge", {"tokens": 5, "patches": 13}),
    "experts": ("projector/experts", {"in_features": 6, "out_features": 5}),
    "c-abstractor": ("projector/c_abstractor", {**ABSTRACTOR, "eos_tokens": 1, "prenorm": True}),
    "d-abstractor": ("projector/d_abstractor", {**ABSTRACTOR, "heads": 4, "points": 2, "inner_size": 20}),
    "join": ("projector/join", {}),
    "join-behind": ("projector/join", {"along": "tokens", "eyes": 3}),
    "join-to-a-grid": ("projector/join", {"tokens": 9}),
    "tower-clips": (
        "embedding/tower",
        {"modality": "audio", "height": 20, "width": 26, "kernel": 8, "stride": 6, "clips": True, **TOWER},
    ),
    "tower-text": ("embedding/tower", {"modality": "text", "context_length": 9, "vocab_size": 20, **TOWER}),
    "tower-vision": ("embedding/vision", {**TOWER, "height": 21, "width": 14, "kernel": 7, "stride": 7}),
    "tower-films": ("embedding/vision", {**TOWER, "height": 21, "width": 14, "kernel": 7, "stride": 7, "clips": True}),
    "tower-labels": ("embedding/text", {**TOWER, "context_length": 9, "vocab_size": 20, "many": True}),
    "tower-audio": ("embedding/audio", {**TOWER, "height": 20, "width": 26, "kernel": 8, "stride": 6}),
    "tower-depth": ("embedding/depth", {**TOWER, "height": 15, "width": 10, "kernel": 5, "stride": 5}),
    "tower-thermal": ("embedding/thermal", {**TOWER, "height": 15, "width": 10, "kernel": 5, "stride": 5}),
    "tower-imu": ("embedding/imu", {**TOWER, "steps": 32, "kernel": 8, "stride": 8}),
    "combine": ("embedding/combine", {"weights": {"picture": 0.5, "sound": 0.3, "text": 0.2}}),
    "dot": ("similarity/dot", {}),
    "pair": ("similarity/pair", {}),
    "normalize": ("embedding/normalize", {"over": "tokens"}),
    "mean": ("embedding/mean", {}),
    "mean-of-many": ("embedding/mean", {"many": True}),
    "cosine": ("similarity/cosine", {"bias": True}),
    "eye-coca": ("coca/vision", {"image_size": 12, "patch_size": 4, "vision_width": 16, "vision_layers": 2, "vision_heads": 2}),
    "pooler-coca": ("coca/pooler", {"vision_width": 16, "queries": 5, "pooler_heads": 3, "embedding_size": 12}),
    "decoder-coca": ("coca/decoder", {"vocab_size": 23, "text_width": 12, "decoder_layers": 2, "decoder_heads": 2}),
    "decoder-coca-paper": (
        "coca/decoder",
        {"vocab_size": 23, "text_width": 12, "decoder_layers": 2, "decoder_heads": 2, "decoder_layer": "paper"},
    ),
    "eye-qwenvl": (
        "qwenvl/eye",
        {"width": 12, "layers": 2, "heads": 3, "mlp_width": 19, "patch_size": 4, "image_size": 20},
    ),
    "adapter-qwenvl": ("qwenvl/adapter", {"width": 10, "output_dim": 12, "n_queries": 9, "resampler_heads": 3}),
    "post-qwenvl": ("qwenvl/post", {"output_dim": 14}),
    "contrast": ("loss/contrastive", {}),
    "picture-mlp": ("diffusion/picture-mlp", {**PICTURE, "d": 5, "style_size": 3}),
    "squared-error": ("loss/squared_error", {}),
    "alignment": ("loss/alignment", {}),
    "alignment-of-vectors": ("loss/alignment", {"over": "vector"}),
    "output-projection": ("nextgpt/output", {**OUTPUT, "queries": 7}),
    "output-projection-of-one": ("nextgpt/output", {**OUTPUT, "queries": 1}),
    "ensemble": ("embedding/ensemble", {}),
    "vocoder": (
        "vocoder/hifigan",
        {
            "mels": 6,
            "channels": 12,
            "rates": (5, 2),
            "kernels": (16, 4),
            "block_kernels": (3, 5),
            "block_dilations": ((1, 3), (1, 2)),
        },
    ),
    "clap": ("diffusion/clap", {**SMALL, "vocab_size": 20, "max_position_embeddings": 27, "projection_dim": 7}),
    "bands": ("diffusion/decode-mel", {"vae": sounding.VAE, "channels": 5, "shrink": 2, "mels": 6, "scale": 0.37}),
    "film": ("diffusion/decode-film", {"vae": sounding.FILM_VAE, "shrink": 2, "scale": 0.31}),
    "latents": ("diffusion/decode", {"vae": painting.VAE, "shrink": 2, "scale": 0.31}),
    "latents-of-pixels": ("diffusion/encode", {"vae": painting.VAE, "shrink": 2, "scale": 0.31}),
}


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory):
    """Exports of these tests are their own, and run as they were written: tuning is tested with whole graphs, and takes a process each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MODELGRAFT_CACHE", str(tmp_path_factory.mktemp("cache")))
        leave_untuned(patch)
        yield


def loading(case):
    """What a backend loads a part by."""
    component, config = CASES[case]
    node = node_of(REGISTRY.components[component], config)
    ports = {name: port.bind(GRID if case in OF_GRIDS else {}) for name, port in node.in_ports.items()}
    node = replace(node, in_ports=ports, wired={name: (Ref("inputs", name),) for name in ports})
    return LoadContext(node, "cpu", "float32", None, 0, offline=True, registry=REGISTRY, init="random")


@pytest.mark.parametrize("case", CASES)
def test_a_part_gives_torchs_numbers(case):
    """Element by element, within 1e-5 of the largest; every output."""
    context = loading(case)
    node = context.node
    values = make_inputs(list(node.in_ports.values()), UNLIKE, seed=5, most=node.config.most())
    expected, got = TorchBackend().load(context, {}).call(*values), OnnxBackend().load(context, {}).call(*values)
    for name in node.out_ports:
        one, other = (given if len(node.out_ports) == 1 else given[name] for given in (expected, got))
        assert one.shape == other.shape, name
        assert (one.double() - as_tensor(other).double()).abs().max() <= 1e-5 * max(one.double().abs().max().item(), 1.0), name


def test_a_part_for_any_number_of_records_is_traced_at_the_first_attempt(tmp_path, monkeypatch):
    """`len(x)` is a number to what traces first; torch then traced once more, in a way that knows it as a size and takes twice as long."""
    from torch.onnx._internal.exporter._capture_strategies import TorchExportStrictStrategy

    def refused(*_given, **_options):
        raise AssertionError("it is traced once more")

    monkeypatch.setenv("MODELGRAFT_CACHE", str(tmp_path))
    monkeypatch.setattr(TorchExportStrictStrategy, "_capture", refused)
    OnnxBackend().load(loading("visual-prompt"), {})


def test_no_exportable_component_is_left_out():
    """A new one needs a case here, or graphs of its own whose tests run them on ONNX."""
    exportable = {name for name, found in REGISTRY.components.items() if found.exportable}
    cases = {component for component, _ in CASES.values()}
    assert cases <= exportable
    left = {name for name in exportable - DRIVEN - ALONE - cases if name.partition("/")[0] not in GRAPHS}
    assert left == set()


@pytest.mark.parametrize("file", sorted(set(GRAPHS.values())))
def test_graphs_of_a_system_are_run_on_onnx(file):
    assert '"onnx"' in (Path(__file__).parents[1] / file).read_text()
