"""The pre-training of wav2vec 2.0: against transformers' own class, its drawing of spans and negatives, published sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from transformers.models.wav2vec2.modeling_wav2vec2 import _compute_mask_indices, _sample_negative_indices

import modelgraft as mg
from modelgraft import InputError
from modelgraft.engine.run import NodeRuntime
from modelgraft.testing import conform, open_node
from modelgraft_plugins.audio.masking import drawn_negatives, drawn_spans
from modelgraft_plugins.audio.pretraining import Criterion, Negatives, Predictor, Quantizer, Spans
from support.checkpoints import randomise
from support.installed import registry
from support.open_part import configured, counts, open_part
from support.sounds import tone

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
REGISTRY = registry()
SIZES = {
    "hidden_size": 24, "intermediate_size": 37, "num_hidden_layers": 2, "num_attention_heads": 3, "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4, "conv_dim": [6, 7], "conv_stride": [5, 2], "conv_kernel": [10, 3], "codevector_dim": 12,
    "proj_codevector_dim": 9, "num_codevectors_per_group": 5, "num_codevector_groups": 3, "num_negatives": 4, "mask_time_prob": 0.5,
    "mask_time_length": 3,
}  # fmt: skip
NORMS = {"group": {}, "layer": {"feat_extract_norm": "layer", "conv_bias": True, "do_stable_layer_norm": True}}
SHORT = {"conv_kernel": (10, 3), "conv_stride": (5, 2)}


def saved(folder: Path, norm: str) -> Any:
    model = hf.Wav2Vec2ForPreTraining(
        hf.Wav2Vec2Config(**SIZES, **NORMS[norm], contrastive_logits_temperature=0.2, diversity_loss_weight=0.3)
    )
    randomise(model, seed=5)
    model.eval().save_pretrained(folder)
    return model


def masked(shape: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Spans and negatives as transformers draws them; the negatives as places in their own row."""
    np.random.seed(3)
    spans = _compute_mask_indices(shape, mask_prob=0.5, mask_length=3)
    drawn = _sample_negative_indices(shape, 4, spans) - np.arange(shape[0])[:, None, None] * shape[1]
    return torch.from_numpy(spans), torch.from_numpy(drawn * spans[..., None]).long()


@pytest.mark.parametrize("norm", NORMS)
def test_the_losses_equal_those_of_transformers(tmp_path: Path, norm: str):
    model, samples = saved(tmp_path, norm), torch.randn(3, 331, generator=torch.Generator().manual_seed(4))
    spans, negatives = masked((3, 32))
    rows = torch.arange(3)[:, None, None] * 32
    with torch.no_grad():
        wanted = model(samples, mask_time_indices=spans, sampled_negative_indices=negatives + rows)
    parts = {name: open_part(REGISTRY, name, str(tmp_path)) for name in ("audio/encoder", "wav2vec2/quantizer", "wav2vec2/predictor")}
    heard = parts["audio/encoder"](samples, None, spans)
    quantised, guess = parts["wav2vec2/quantizer"](heard["normed"]), parts["wav2vec2/predictor"](heard["tokens"])
    torch.testing.assert_close(guess, wanted.projected_states, rtol=0, atol=2e-6)
    torch.testing.assert_close(quantised["targets"], wanted.projected_quantized_states, rtol=0, atol=2e-6)
    compare = open_part(REGISTRY, "wav2vec2/criterion", str(tmp_path))
    given = (quantised["targets"], spans, negatives, quantised["code_ids"], quantised["probabilities"], heard["conv_features"], None)
    found = compare(guess, *given)
    for name, expected in (("loss", wanted.loss), ("contrastive", wanted.contrastive_loss), ("diversity", wanted.diversity_loss)):
        torch.testing.assert_close(found[name].mean(), expected, rtol=2e-6, atol=0)
    assert not found["penalty"].mul(compare.node.config.penalty).any()


@pytest.mark.parametrize("tokens", [7, 30, 499])
def test_spans_are_those_of_transformers_where_the_generator_is_the_same(tokens: int):
    config = Spans(share=0.65, length=5, least=2)
    for seed in range(20):
        np.random.seed(seed)
        wanted = _compute_mask_indices((1, tokens), mask_prob=0.65, mask_length=5, min_masks=2)[0]
        assert (drawn_spans(tokens, config, np.random.RandomState(seed)) == wanted).all()


def test_negatives_are_those_of_transformers_where_the_generator_is_the_same():
    for seed in range(20):
        spans = np.random.RandomState(seed).rand(40) < 0.4
        np.random.seed(seed)
        wanted = _sample_negative_indices((1, 40), 7, spans[None])[0][spans]
        assert (drawn_negatives(spans.nonzero()[0], 7, np.random.RandomState(seed)) == wanted).all()


def test_half_of_the_tokens_are_masked_as_it_was_published():
    """0.65 and 10: about 49 % of long sounds (arXiv 2006.11477, appendix A)."""
    shares = [drawn_spans(1499, Spans(), np.random.RandomState(seed)).mean() for seed in range(50)]
    assert 0.47 < np.mean(shares) < 0.50


def drawn(config: dict[str, Any], subject: Any, *values: Any, seed: int = 0) -> torch.Tensor:
    trial = open_node(subject, config)
    trial.loaded.bind(NodeRuntime("drawing", "audio/spans", seed))
    (found,) = trial(*values).values()
    return found


def test_a_sound_has_its_spans_in_every_batch_and_others_by_another_seed():
    mask = torch.arange(900) < torch.tensor([900, 400])[:, None]
    samples = torch.randn(2, 900, generator=torch.Generator().manual_seed(1))
    config = {**SHORT, "length": 4}
    spans = drawn(config, Spans, samples, mask)
    alone = drawn(config, Spans, samples[1:, :400], None)
    assert torch.equal(spans[1, : alone.shape[1]], alone[0])
    assert not spans[1, alone.shape[1] :].any()
    assert torch.equal(spans, drawn(config, Spans, samples, mask))
    assert not torch.equal(spans, drawn(config, Spans, samples, mask, seed=1))


def test_spans_and_negatives_keep_their_declarations():
    samples = torch.randn(2, 700, generator=torch.Generator().manual_seed(1))
    conform(Spans, SHORT, samples=samples)
    conform(Negatives, {"count": 3}, spans=torch.rand(2, 19, generator=torch.Generator().manual_seed(2)) < 0.5)
    with pytest.raises(InputError, match="one token of a sound is masked, and there is no other"):
        drawn({}, Negatives, torch.tensor([[False, True, False]]))


def test_quantiser_and_predictor_keep_their_declarations():
    conform(Quantizer, {"channels": 7, "groups": 3, "entries": 5, "code_size": 12, "shared_size": 9})
    conform(Predictor, {"hidden_size": 6, "shared_size": 9})
    with pytest.raises(ValueError, match="code_size is 13, which 3 groups do not share evenly"):
        Quantizer(groups=3, code_size=13)


def test_a_quantiser_that_is_trained_draws_its_codes_and_learns_from_them():
    quantizer = open_node(Quantizer, {"channels": 7, "groups": 2, "entries": 5, "code_size": 6, "shared_size": 9}).loaded.state
    normed = torch.randn(1, 40, 7)
    with torch.inference_mode(mode=False), torch.enable_grad():
        quantizer.requires_grad_().train()
        torch.manual_seed(1)
        found = quantizer(normed.clone())
        found["targets"].sum().backward()
        assert quantizer.choice.weight.grad is not None
        assert bool(quantizer.choice.weight.grad.any())
        quantizer.eval()
        assert not torch.equal(found["code_ids"], quantizer(normed.clone())["code_ids"])


def compared() -> dict[str, torch.Tensor]:
    """Inputs of the criterion, some negatives of the same codes as the right one."""
    generator = torch.Generator().manual_seed(6)
    spans, negatives = masked((2, 20))
    return {
        "predictions": torch.randn(2, 20, 9, generator=generator), "targets": torch.randn(2, 20, 9, generator=generator),
        "spans": spans,
        "negatives": negatives, "code_ids": torch.randint(0, 2, (2, 20, 1), generator=generator),
        "probabilities": torch.randn(2, 20, 1, 2, generator=generator).softmax(-1),
        "conv_features": torch.randn(2, 20, 7, generator=generator),
    }  # fmt: skip


def test_the_criterion_keeps_its_declaration_and_leaves_equal_codes_out():
    given = compared()
    conform(Criterion, {}, **given)
    found = open_node(Criterion, {})(*given.values(), None)
    same = (given["code_ids"][0][given["negatives"][0]] == given["code_ids"][0][:, None]).all(-1)
    assert torch.equal(found["logits"][0, :, 1:].isinf(), same & given["spans"][0, :, None])


def test_a_criterion_without_anything_to_compare_is_refused():
    given = compared()
    criterion = open_node(Criterion, {})
    nothing = {**given, "spans": torch.zeros_like(given["spans"])}
    with pytest.raises(InputError, match="no token of the batch is masked"):
        criterion(*nothing.values(), None)
    outside = {**given, "negatives": torch.full_like(given["negatives"], int((~given["spans"][0]).nonzero()[0]))}
    with pytest.raises(InputError, match="negatives are places of masked tokens of the same sound"):
        criterion(*outside.values(), None)


def test_a_file_that_was_fine_tuned_has_no_heads_of_pre_training(tmp_path: Path):
    torch.save({"encoder.layer_norm.weight": torch.zeros(3)}, tmp_path / "tuned.pt")
    for component, told in (("quantizer", "holds no quantiser"), ("predictor", "holds no head of pre-training")):
        with pytest.raises(ValueError, match=told):
            configured(REGISTRY, f"wav2vec2/{component}", str(tmp_path / "tuned.pt"))


def test_a_step_of_pre_training_runs_on_sounds(tmp_path: Path):
    """And gives the same in every run with one seed."""
    saved(tmp_path, "layer")
    sounds = [tone(0.3), tone(0.2, hertz=97.0)]
    with mg.open("wav2vec2/pretrain", params={"checkpoint": str(tmp_path)}) as pipeline:
        found = pipeline.run(audio=sounds)
        again = pipeline.run(audio=sounds, seed=0)
    assert found["loss"].isfinite().all()
    assert torch.equal(found["spans"], again["spans"])
    assert torch.equal(found["loss"], again["loss"])


def test_spans_for_an_encoder_that_has_no_vector_for_them_are_refused(tmp_path: Path):
    hf.Wav2Vec2Model(hf.Wav2Vec2Config(**{**SIZES, "mask_time_prob": 0.0})).save_pretrained(tmp_path)
    graph = mg.Graph("masked")
    ear = graph.node("audio/encoder", name="ear", source=tmp_path, samples=graph.input("samples", "float[batch samples]"),
                     spans=graph.input("spans", "bool[batch tokens]"))  # fmt: skip
    graph.output("tokens", ear.tokens)
    with pytest.raises(mg.GraphError, match="ear is given spans, and its source has no vector that stands for masked tokens"):
        mg.check(graph)


# -- published sizes -------------------------------------------------------------------------------------------------------

# encoder, and with the heads of pre-training; figures of the papers: 95 M and 317 M (2006.11477), 317 M, 965 M and 2162 M (2111.09296)
PUBLISHED = {
    "wav2vec2-base": (94_371_712, 95_044_608), "wav2vec2-large": (315_428_992, 317_380_864),
    "wav2vec2-large-lv60": (315_438_720, 317_390_592),
    "wav2vec2-large-xlsr-53": (315_438_720, 317_390_592), "wav2vec2-xls-r-300m": (315_438_720, 317_390_592),
    "wav2vec2-xls-r-1b": (962_497_408, 965_514_752), "wav2vec2-xls-r-2b": (2_159_259_648, 2_162_932_352),
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_models_are_counted_to_the_unit(name: str):
    """By formula, as transformers builds them without memory, and as a plan says it."""
    encoder, whole = PUBLISHED[name]
    graph = mg.load("wav2vec2/pretrain", params={"checkpoint": f"preset:{name}"})
    plan = mg.plan(graph)
    assert plan.nodes["ear"].parameters.total == encoder
    assert plan.totals.parameters == mg.plan(graph, exact=True).totals.parameters == whole
    node = configured(REGISTRY, "audio/encoder", f"preset:{name}")
    assert counts(node) == (encoder, encoder)
    heads = configured(REGISTRY, "wav2vec2/quantizer", f"preset:{name}").config
    facts = {**node.config.facts(), "codevector_dim": heads.code_size, "proj_codevector_dim": heads.shared_size}
    with torch.device("meta"):
        theirs = hf.Wav2Vec2ForPreTraining(hf.Wav2Vec2Config(**{key: value for key, value in facts.items() if key != "model_type"}))
    assert sum(parameter.numel() for parameter in theirs.parameters()) == whole
