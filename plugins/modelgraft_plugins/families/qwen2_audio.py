"""Qwen2-Audio: what an ear makes of sounds, projected, among the words of a Qwen2 (arXiv 2407.10759).

The ear is the encoder of Whisper large, whose vectors are averaged in pairs: 25 to a second. A sound takes as many places in the prompt
as it has vectors that are made of it, not of the silence that fills its window of 30 seconds up.
"""

from __future__ import annotations

from modelgraft.plugin import FamilyCard, PartCard, WholeCard
from modelgraft_plugins.families import _ears
from modelgraft_plugins.families._shared import PLAIN

GRAPH = """\
# Ask about sounds: what an ear makes of each, projected, stands among the words of a Qwen2.
modelgraft: 1
name: qwen2_audio
params:
  checkpoint: {default: Qwen/Qwen2-Audio-7B-Instruct, doc: hub id or folder of a Qwen2-Audio}
  max_new_tokens: {default: 64, doc: longest answer in tokens}
inputs:
  audio:  {type: "list[audio]", doc: "any number of sounds of at most 30 seconds; they stand before the prompt"}
  prompt: {type: text, doc: a question}
nodes:
  windows: {use: audio/windows, from: "${checkpoint}", in: {audio: inputs.audio}}                                        # [128 3000] each
  ear:     {use: audio/encoder, from: "${checkpoint}#audio_tower", in: {features: windows.features, mask: windows.mask}, frozen: true}
  project: {use: projector/linear, from: "${checkpoint}#multi_modal_projector.linear", in: {x: ear.tokens}}              # [750 4096] each
  sounds:  {use: router/join, from: "${checkpoint}", in: {tokens: project, mask: ear.frame_mask, counts: windows.counts}}   # what is heard
  llm:
    use: llm/causal
    from: "${checkpoint}#language_model"
    with: {prompt: "{audio:ragged}{prompt}", chat: true, max_new_tokens: "${max_new_tokens}"}   # in the checkpoint's own chat template
    in: {audio: sounds.tokens, audio_lengths: sounds.lengths, audio_words: sounds.words, prompt: inputs.prompt}
outputs:
  text: llm.text
"""
_NAMES = {
    "hidden_size": "d_model", "intermediate_size": "encoder_ffn_dim", "num_hidden_layers": "encoder_layers",
    "num_attention_heads": "encoder_attention_heads", "mels": "num_mel_bins", "positions": "max_source_positions",
    "hidden_act": "activation_function",
}  # fmt: skip

CARD = FamilyCard(
    "qwen2_audio",
    "sounds among the words of a language model",
    wholes={
        "qwen2_audio": WholeCard(
            parts={
                "audio_tower": PartCard("audio_config", "qwen2_audio_encoder"),
                "language_model": PartCard("text_config", "qwen2", also="text_model", language="always"),
                "multi_modal_projector": PLAIN,
            },
            tied=False,
            components={
                "llm/causal": {"placeholder": "<|AUDIO|>"},
                "router/join": {"written": "Audio {number}: <|audio_bos|>{media}<|audio_eos|>\n", "masked": True},
            },
        ),
    },
    towers={
        "qwen2_audio_encoder": _ears.ear(
            "Qwen2AudioEncoder", style="qwen2-audio", names=_NAMES, layerdrop="encoder_layerdrop", joins=2, masked=True
        ),
    },
    graphs={"qwen2_audio": GRAPH},
)
