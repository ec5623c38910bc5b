"""What wav2vec 2.0 and HuBERT have in common: convolutions over samples, places by a further convolution, transformer blocks.

Source of the numbers: Wav2Vec2Config and HubertConfig of transformers 5.23, which are those of the published base models.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelgraft_plugins.families._formulas import Facts, forward, linear, norm

SAMPLES = "samples"  # what such an encoder hears, for the plugin that serves it

DEFAULTS: Mapping[str, Any] = {
    "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12, "hidden_act": "gelu",
    "layer_norm_eps": 1e-5, "feat_extract_norm": "group", "feat_extract_activation": "gelu", "conv_dim": [512] * 7,
    "conv_stride": [5, 2, 2, 2, 2, 2, 2], "conv_kernel": [10, 3, 3, 3, 3, 2, 2], "conv_bias": False, "num_conv_pos_embeddings": 128,
    "num_conv_pos_embedding_groups": 16, "do_stable_layer_norm": False, "mask_time_prob": 0.05, "mask_feature_prob": 0.0,
}  # fmt: skip
# Keys that change nothing where tokens are made: heads, losses, and what training masks or leaves out.
IDLE = frozenset({
    "vocab_size", "feat_proj_dropout", "feat_quantizer_dropout", "final_dropout", "apply_spec_augment", "mask_time_length",
    "mask_time_min_masks", "mask_feature_length", "mask_feature_min_masks", "ctc_loss_reduction", "ctc_zero_infinity",
    "use_weighted_layer_sum", "classifier_proj_size", "num_codevectors_per_group", "num_codevector_groups",
    "contrastive_logits_temperature", "num_negatives", "codevector_dim", "proj_codevector_dim", "diversity_loss_weight", "tdnn_dim",
    "tdnn_kernel", "tdnn_dilation", "xvector_output_dim", "num_feat_extract_layers",
    "adapter_kernel_size", "adapter_stride", "num_adapter_layers", "output_hidden_size",  # of add_adapter, which is refused
})  # fmt: skip


def count_waves(f: Facts) -> int:
    """The parameters of Wav2Vec2Model or HubertModel, by the keys of its config."""
    width, dims, kernels = f["hidden_size"], f["conv_dim"], f["conv_kernel"]
    normed = len(dims) if f["feat_extract_norm"] == "layer" else 1
    heard = sum(into * out * kernel for into, out, kernel in zip((1, *dims), dims, kernels, strict=False))
    heard += sum(dims) * bool(f["conv_bias"]) + sum(norm(out) for out in dims[:normed])
    entry = (norm(dims[-1]) if f.get("feat_proj_layer_norm", True) else 0) + linear(dims[-1], width, bias=True)
    vector = width if f["mask_time_prob"] > 0 or f["mask_feature_prob"] > 0 else 0  # in place of masked frames
    reach = f["num_conv_pos_embeddings"]
    places = width * (width // f["num_conv_pos_embedding_groups"]) * reach + reach + width  # as a direction and a length for each tap
    places += norm(width) if f.get("conv_pos_batch_norm") else 0
    small = f.get("adapter_attn_dim") if f["do_stable_layer_norm"] else None
    inside = norm(width) + forward(width, small) if small else 0
    block = 4 * linear(width, width, bias=True) + forward(width, f["intermediate_size"]) + 2 * norm(width) + inside
    return int(heard + entry + vector + places + norm(width) + f["num_hidden_layers"] * block)
