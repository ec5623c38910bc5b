"""Tiny checkpoints of language models that hear, saved as their published ones are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import transformers as hf

from support.checkpoints import Checkpoint, llama_config, qwen2_config, randomise
from support.tokenizers import byte_level

MELS, SECONDS = 9, 2  # of a window: 200 frames, 100 places
EXTRACTOR = {"feature_size": MELS, "chunk_length": SECONDS}


def _saved(folder: Path, model: Any, processor: Any, *, seed: int) -> Checkpoint:
    randomise(model, seed=seed)
    model.eval().save_pretrained(folder)
    processor.save_pretrained(folder)
    return Checkpoint(folder, model, processor)


def qwen2_audio(folder: Path, *, seed: int = 41) -> Checkpoint:
    """A Qwen2-Audio whose ear is 12 wide."""
    marks = ("<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>", "<|im_start|>")
    tokenizer = byte_level(begin=None, end="<|im_end|>", pad="<|endoftext|>", extra=marks)
    ear = {"d_model": 12, "encoder_ffn_dim": 22, "encoder_layers": 2, "encoder_attention_heads": 3, "num_mel_bins": MELS}
    text = qwen2_config(tokenizer).to_dict() | {"max_position_embeddings": 512}
    config = hf.Qwen2AudioConfig(
        audio_config={**ear, "model_type": "qwen2_audio_encoder", "max_source_positions": 50 * SECONDS},
        text_config=text,
        audio_token_index=tokenizer.convert_tokens_to_ids("<|AUDIO|>"),
    )
    processor = hf.Qwen2AudioProcessor(hf.WhisperFeatureExtractor(**EXTRACTOR), tokenizer)
    return _saved(folder, hf.Qwen2AudioForConditionalGeneration(config), processor, seed=seed)


def voxtral(folder: Path, *, seed: int = 42) -> Checkpoint:
    """A Voxtral whose ear is 12 wide; its processor wants a further library, so that its two parts are saved by themselves."""
    marks = ("[AUDIO]", "[BEGIN_AUDIO]", "[INST]", "[/INST]")
    tokenizer = byte_level(begin="<s>", end="</s>", pad="<pad>", prefix=True, extra=marks)
    ear = {"hidden_size": 12, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3, "num_mel_bins": MELS}
    text = llama_config(tokenizer).to_dict() | {"max_position_embeddings": 512}
    config = hf.VoxtralConfig(
        audio_config={**ear, "model_type": "voxtral_encoder", "max_source_positions": 50 * SECONDS},
        text_config=text,
        audio_token_id=tokenizer.convert_tokens_to_ids("[AUDIO]"),
    )
    model = hf.VoxtralForConditionalGeneration(config)
    extractor = hf.WhisperFeatureExtractor(**EXTRACTOR)
    extractor.save_pretrained(folder)
    return _saved(folder, model, tokenizer, seed=seed)
