"""Voxtral: what the ear of Whisper makes of sounds, four vectors at a time, among the words of a Ministral (arXiv 2507.13264).

A sound is filled up to whole windows of 30 seconds, each of which takes 375 places in the prompt, silence included.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelgraft.plugin import FamilyCard, PartCard, WholeCard
from modelgraft_plugins.families import _ears
from modelgraft_plugins.families._shared import PLAIN

GRAPH = """\
# Ask about sounds of any length: what an ear makes of each half minute, four vectors joined into one, stands before the words.
modelgraft: 1
name: voxtral
params:
  checkpoint: {default: mistralai/Voxtral-Mini-3B-2507, doc: hub id or folder of a Voxtral}
  max_new_tokens: {default: 64, doc: longest answer in tokens}
inputs:
  audio:  {type: "list[audio]", doc: "any number of sounds of any length; they stand before the prompt"}
  prompt: {type: text, doc: a question}
nodes:
  windows: {use: audio/windows, from: "${checkpoint}", in: {audio: inputs.audio}}                                     # [128 3000] each
  ear:     {use: audio/encoder, from: "${checkpoint}#audio_tower", in: {features: windows.features}, frozen: true}    # [1500 1280] each
  runs:    {use: projector/stack, from: "${checkpoint}", in: {x: ear.tokens}}                                         # [375 5120] each
  project: {use: projector/mlp, from: "${checkpoint}#multi_modal_projector", in: {x: runs}}                           # [375 3072] each
  sounds:  {use: router/join, from: "${checkpoint}", in: {tokens: project, counts: windows.counts}}
  llm:
    use: llm/causal
    from: "${checkpoint}#language_model"
    with:
      prompt: "{audio:ragged}{prompt}"
      chat: true
      chat_template: voxtral
      known_tokens: ["[INST]", "[/INST]", "[BEGIN_AUDIO]", "[AUDIO]"]   # else they would be cut into letters
      max_new_tokens: "${max_new_tokens}"
    in: {audio: sounds.tokens, audio_lengths: sounds.lengths, audio_words: sounds.words, prompt: inputs.prompt}
outputs:
  text: llm.text
"""
_NAMES = {
    **{word: word for word in ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")},
    "mels": "num_mel_bins", "positions": "max_source_positions", "hidden_act": "activation_function",
}  # fmt: skip
# What the config of its language model means where it is silent: transformers 5.23, VoxtralConfig; a test compares them.
SILENT: Mapping[str, Any] = {
    "vocab_size": 131072, "hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 30, "num_key_value_heads": 8,
    "max_position_embeddings": 131072, "rms_norm_eps": 1e-05, "rope_theta": 100000000.0, "head_dim": 128,
}  # fmt: skip


def _language(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config of the language model, with what it leaves out."""
    return {**SILENT, **config} if "rope_parameters" not in config else {**SILENT, "rope_theta": None, **config}


CARD = FamilyCard(
    "voxtral",
    "sounds of any length among the words of a language model",
    wholes={
        "voxtral": WholeCard(
            parts={
                "audio_tower": PartCard("audio_config", "voxtral_encoder"),
                "language_model": PartCard("text_config", "llama", also="text_model", language="always"),
                "multi_modal_projector": PLAIN,
            },
            tied=False,
            language_config=_language,
            components={
                "audio/windows": {"longer": "split"},
                "projector/mlp": {"bias": False},
                "llm/causal": {"placeholder": "[AUDIO]"},
            },
        ),
    },
    towers={"voxtral_encoder": _ears.ear("VoxtralEncoder", style="voxtral", names=_NAMES, layerdrop="layerdrop")},
    graphs={"voxtral": GRAPH},
)
