"""Encoders that listen to samples (wav2vec 2.0, HuBERT): their sizes, from transformers' config, fairseq's, or shapes of tensors alone.

Light: imports no torch. All of them are told in the words of transformers' configs, which a card fills in where they are silent.
fairseq's own words are those of its `wav2vec2.py` and `hubert.py`: `conv_feature_layers`, `extractor_mode`, `layer_norm_first`, ...
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from modelgraft.plugin import TowerCard

if TYPE_CHECKING:
    from modelgraft.plugin import Source

SAMPLES = "samples"  # what the card of such an encoder says that it hears
FIRST = "feature_extractor.conv_layers.0.0.weight"  # the tensor by which fairseq's layout is known
SAME = "feature_extractor.conv_layers.0.conv.weight"  # and transformers' name for it
STEPS: Mapping[tuple[int, ...], list[int]] = {
    (10, 3, 3, 3, 3, 2, 2): [5, 2, 2, 2, 2, 2, 2]
}  # kernels of all that were published -> their strides
HEADS = {768: 12, 1024: 16, 1280: 16, 1920: 16}  # width -> heads of what was published: base, large, XLS-R 1B, XLS-R 2B

# fairseq's word -> ours
WORDS: Mapping[str, str] = {
    "encoder_embed_dim": "hidden_size", "encoder_ffn_embed_dim": "intermediate_size", "encoder_layers": "num_hidden_layers",
    "encoder_attention_heads": "num_attention_heads", "activation_fn": "hidden_act", "conv_bias": "conv_bias",
    "conv_pos": "num_conv_pos_embeddings", "conv_pos_groups": "num_conv_pos_embedding_groups", "layer_norm_first": "do_stable_layer_norm",
}  # fmt: skip
CONVOLUTIONS = ("conv_feature_layers", "conv_layers")  # [(channels, kernel, stride), ...], or a text of such
MODES = {"default": "group", "layer_norm": "layer"}  # fairseq's extractor_mode -> feat_extract_norm
NESTED = ("cfg", "args", "model", "w2v_args")  # where fairseq's checkpoints keep the words of the encoder
# fairseq's words of training and of the heads of pre-training, which are other parts: none of them changes a token.
IDLE = frozenset({
    "dropout", "attention_dropout", "activation_dropout", "encoder_layerdrop", "dropout_input", "dropout_features", "final_dim",
    "logit_temp",
    "quantize_targets", "same_quantizer", "target_glu", "feature_grad_mult", "quantizer_depth", "quantizer_factor", "latent_vars",
    "latent_groups", "latent_dim", "latent_temp", "mask_length", "mask_prob", "mask_selection", "mask_other", "no_mask_overlap",
    "mask_min_space", "require_same_masks", "mask_dropout", "mask_channel_length", "mask_channel_prob", "mask_channel_before",
    "mask_channel_selection", "mask_channel_other", "no_mask_channel_overlap", "mask_channel_min_space", "num_negatives",
    "negatives_from_everywhere", "cross_sample_negatives", "codebook_negatives", "max_positions", "checkpoint_activations", "fp16",
    "label_rate", "skip_masked", "skip_nomask", "untie_final_proj", "_name", "depthwise_conv_kernel_size", "sample_rate",
})  # fmt: skip
# fairseq's words at the values at which they mean nothing here
STILL: Mapping[str, tuple[Any, ...]] = {
    "pos_conv_depth": (1,), "layer_type": ("transformer",), "attn_type": ("", None), "pos_enc_type": ("abs",),
    "conv_pos_batch_norm": (False,), "required_seq_len_multiple": (1, 2), "quantize_input": (False,), "crop_seq_to_multiple": (1,),
}  # fmt: skip


def is_heard(card: TowerCard) -> bool:
    """An encoder that hears samples, and of which a card speaks."""
    return bool(card.more.get("hears") == SAMPLES)


def facts_of(source: Source, card: TowerCard) -> dict[str, Any]:
    """The sizes of an encoder in transformers' words. Raises ValueError where the source cannot be such an encoder."""
    shapes = source.tensor_shapes()
    kind, said, prefix = str(source.config.get("model_type", "wav2vec2")), words_of(settings_of(source)), prefix_of(shapes)
    if said is None and prefix is None:
        if shapes and not source.root and not any(key.endswith(SAME) for key in shapes):
            raise ValueError(f"{source.text} holds no encoder of wav2vec 2.0 or HuBERT: its tensors lack {FIRST}")
        return {"model_type": kind, **_of_transformers(source, card, shapes)}
    found = {"model_type": kind, **card.defaults}
    if prefix is not None:
        found |= of_shapes({key.removeprefix(prefix): shape for key, shape in shapes.items() if key.startswith(prefix)})
    found |= of_fairseq(said or {})
    if prefix is None and not said:
        raise ValueError(f"{source.text} holds no encoder of wav2vec 2.0 or HuBERT: its tensors lack {FIRST}")
    return {key: value for key, value in found.items() if value is not None}


def _of_transformers(source: Source, card: TowerCard, shapes: Mapping[str, Any]) -> dict[str, Any]:
    config = source.config
    if config.get("add_adapter"):
        raise ValueError(f"{source.text} states add_adapter: true, convolutions behind the encoder that audio/encoder does not have")
    found = {key: default if config.get(key) is None else config[key] for key, default in card.defaults.items()}
    if shapes:  # some files that were trained further have lost the vector of masked frames
        found["mask_time_prob"] = max(found["mask_time_prob"], 0.05) if any(key.endswith("masked_spec_embed") for key in shapes) else 0.0
        found["mask_feature_prob"] = 0.0
    return {key: value for key, value in found.items() if value is not None}


def settings_of(source: Source) -> Mapping[str, Any]:
    """The config of a source; of one file of fairseq, what it was trained with, which it holds beside its tensors."""
    return source.config or {key: held for key in ("cfg", "args") if (held := source.json(key)) is not None}


def words_of(config: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The words of fairseq that describe the encoder, wherever in a config they stand; None where there are none."""
    if "encoder_embed_dim" in config or any(key in config for key in CONVOLUTIONS):
        return config
    for key in NESTED:
        inside = config.get(key)
        found = words_of(inside) if isinstance(inside, Mapping) else None
        if found is not None:
            return found
    return None


def of_fairseq(words: Mapping[str, Any]) -> dict[str, Any]:
    """Our words, from those of fairseq; what these leave out is left out.

    Raises ValueError for convolutions that are none.
    """
    found = {ours: words[theirs] for theirs, ours in WORDS.items() if words.get(theirs) is not None}
    written = next((words[key] for key in CONVOLUTIONS if words.get(key) is not None), None)
    if written is not None:
        rows = convolutions(written)
        found |= {"conv_dim": [row[0] for row in rows], "conv_kernel": [row[1] for row in rows], "conv_stride": [row[2] for row in rows]}
    mode = words.get("extractor_mode")
    if mode is not None:
        if mode not in MODES:
            raise ValueError(f"the config states extractor_mode: {mode!r}, wanted {' or '.join(MODES)}")
        found["feat_extract_norm"] = MODES[mode]
    return found


def convolutions(written: Any) -> list[tuple[int, int, int]]:
    """(channels, kernel, stride) of each convolution.

    written  a list, or a text as fairseq has it: `[(512, 10, 5)] + [(512, 3, 2)] * 4`

    Raises ValueError for anything else.
    """
    try:
        rows = _value(ast.parse(written, mode="eval").body) if isinstance(written, str) else written
        found = [(int(channels), int(kernel), int(stride)) for channels, kernel, stride in rows]
    except (SyntaxError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"the convolutions are {written!r}, wanted a list of (channels, kernel, stride)") from error
    if not found or any(size < 1 for row in found for size in row):
        raise ValueError(f"the convolutions are {written!r}, wanted a list of (channels, kernel, stride), each above 0")
    return found


def _value(node: ast.expr) -> Any:
    """Lists, tuples, numbers, sums of lists, and lists so many times: nothing is run."""
    match node:
        case ast.List(elts=parts) | ast.Tuple(elts=parts):
            return [_value(part) for part in parts]
        case ast.Constant(value=int() as value):
            return value
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _value(left) + _value(right)
        case ast.BinOp(left=left, op=ast.Mult(), right=ast.Constant(value=int() as times)) if times <= MOST_TIMES:
            return _value(left) * times
    raise ValueError(f"found {ast.unparse(node)}")


MOST_TIMES = 100  # of a convolution: seven are all that there are


def prefix_of(keys: Mapping[str, Any]) -> str | None:
    """What stands before fairseq's names: "" in files of pre-training, `w2v_encoder.w2v_model.` in others; None: another layout."""
    return next((key.removesuffix(FIRST) for key in keys if key.endswith(FIRST)), None)


def of_shapes(shapes: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    """Our words, from the shapes of tensors under fairseq's names; heads and strides are those of what was published with such sizes."""
    layers = _count(shapes, r"encoder\.layers\.(\d+)\.fc1\.weight")
    convolved = _count(shapes, r"feature_extractor\.conv_layers\.(\d+)\.0\.weight")
    rows = [shapes[f"feature_extractor.conv_layers.{index}.0.weight"] for index in range(convolved)]
    kernels = [row[2] for row in rows]
    width, taps = shapes["encoder.layer_norm.weight"][0], shapes["encoder.pos_conv.0.weight_v"]
    is_layered = "feature_extractor.conv_layers.0.2.1.weight" in shapes
    return {
        "conv_dim": [row[0] for row in rows], "conv_kernel": kernels, "conv_stride": STEPS.get(tuple(kernels)),
        "conv_bias": "feature_extractor.conv_layers.0.0.bias" in shapes, "feat_extract_norm": "layer" if is_layered else "group",
        "do_stable_layer_norm": is_layered,  # as in all that were published
        "hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": HEADS.get(width),
        "intermediate_size": shapes["encoder.layers.0.fc1.weight"][0] if layers else None,
        "num_conv_pos_embeddings": taps[2], "num_conv_pos_embedding_groups": width // taps[1],
    }  # fmt: skip


def _count(shapes: Mapping[str, Any], pattern: str) -> int:
    return len({found[1] for key in shapes if (found := re.fullmatch(pattern, key))})


def has_vector(facts: Mapping[str, Any]) -> bool:
    """There is one learned vector that stands for masked tokens, by the rule of transformers."""
    return bool(facts["mask_time_prob"] > 0 or facts["mask_feature_prob"] > 0)


def frames(samples: int, facts: Mapping[str, Any]) -> int:
    """How many vectors so many samples give: every convolution takes a kernel and goes on by a stride, without padding."""
    for kernel, stride in zip(facts["conv_kernel"], facts["conv_stride"], strict=True):
        samples = (samples - kernel) // stride + 1
    return max(samples, 0)


def least_samples(facts: Mapping[str, Any]) -> int:
    """The fewest samples that give a vector: 400, a fortieth of a second, in all that were published."""
    least = 1
    for kernel, stride in zip(reversed(facts["conv_kernel"]), reversed(facts["conv_stride"]), strict=True):
        least = (least - 1) * stride + kernel
    return int(least)
