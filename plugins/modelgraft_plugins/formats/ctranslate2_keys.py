"""What a Whisper in CTranslate2 form states beside its matrices: single numbers in `model.bin`, and the `config.json` beside it.

A number that would make another model of it is refused; one that is not known is told.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelgraft_plugins.formats.ctranslate2_file import CTranslate2File
from modelgraft_plugins.stated import Table

WHOLE_NUMBERS = ("<i1", "<i2", "<i4")
ACTIVATIONS: Mapping[int, str] = {0: "relu", 1: "gelu_pytorch_tanh", 2: "silu", 3: "gelu"}  # Source: CTranslate2, ActivationType
USUAL = 3
NUMBERS = Table(
    "model.bin",
    obeyed=frozenset({"num_heads", "activation"}),
    idle=frozenset({"alignment_heads", "alignment_layer"}),  # which heads tell when a word was said
    still={
        "alibi": (0,), "pre_norm": (1,), "scale_embeddings": (0,), "start_from_zero_embedding": (0,), "multi_query_attention": (0,),
        "sliding_window": (0,), "rotary_dim": (), "num_heads_kv": (),
    },
)  # fmt: skip
CONFIG = Table(
    "config.json",
    obeyed=frozenset({"lang_ids", "suppress_ids", "suppress_ids_begin"}),
    idle=frozenset({
        "alignment_heads", "bos_token", "eos_token", "unk_token", "decoder_start_token", "quantization_type", "add_source_bos",
        "add_source_eos",
    }),
    still={"layer_norm_epsilon": (1e-5, 1e-05), "multi_query_attention": (False,)},
)  # fmt: skip


def check(source: CTranslate2File, settings: Mapping[str, Any]) -> list[list[str]]:
    """(sentence, way out) for what is not known. Raises ValueError for what would make another model of it."""
    remarks = []
    for name, stored in source.variables.items():
        key = name.rpartition("/")[2]
        if stored.shape or key.endswith("_scale"):
            continue
        value = source.scalar(name) if stored.dtype in WHOLE_NUMBERS else float(source.array(name))
        if key in NUMBERS.still and NUMBERS.over({key: value}):
            raise ValueError(f"it states {name} = {value}, which a Whisper of transformers does not have")
        remarks += [[sentence, way] for sentence, way in NUMBERS.unheeded({key: value}, str(source.path.name))]
    remarks += [[sentence, way] for sentence, way in CONFIG.unheeded(settings, str(source.path.name))]
    return remarks


def activation_of(source: CTranslate2File) -> str:
    """The activation of the feed-forward layers, one for both sides. Raises ValueError for one that is not known."""
    stated = {source.scalar(name) for name in source.variables if name.endswith("/activation")} or {USUAL}
    if len(stated) > 1 or not stated <= ACTIVATIONS.keys():
        raise ValueError(f"it states the activations {sorted(stated)}; one is read, of {', '.join(map(str, ACTIVATIONS))}")
    return ACTIVATIONS[stated.pop()]
