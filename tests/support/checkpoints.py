"""Tiny random checkpoints in Hugging Face layout, saved by transformers itself, with the model and processor to compare with.

Sizes are small, odd and all different, so that a swapped axis fails. Every norm, bias and scale is moved away from 0 and
1, so that a forgotten one shows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.idefics.image_processing_pil_idefics import IdeficsImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from support.tokenizers import byte_level, clip_bpe, word_piece


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A saved checkpoint, and the same as transformers' own objects: `processor` is a processor, tokenizer or image processor."""

    folder: Path
    model: Any  # Any: a transformers model of some class
    processor: Any


def randomise(model: torch.nn.Module, *, seed: int) -> None:
    """Fill every parameter with seeded noise: matrices that keep the scale, norms around 1, the rest 0.1 to 0.5 away from 0."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            if parameter.ndim < 2:
                away = (0.1 + 0.4 * torch.rand(parameter.shape, generator=generator)) * torch.where(
                    torch.rand(parameter.shape, generator=generator) < 0.5, -1.0, 1.0
                )
                around_one = name.endswith("weight") or name == "logit_scale"
                parameter.copy_(away + 1 if around_one else away)
            else:
                table = any(word in name for word in ("embed_tokens", "position", "shared", "query_tokens", "class_", "cls_", "token_emb"))
                scale = 0.6 if table else 1.3 / math.sqrt(math.prod(parameter.shape[1:]))
                parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))


def _save(folder: Path, model: Any, processor: Any, *, seed: int) -> Checkpoint:
    randomise(model, seed=seed)
    model.eval()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return Checkpoint(folder, model, processor)


CLIP_EYE = {
    "hidden_size": 24, "intermediate_size": 37, "num_hidden_layers": 3, "num_attention_heads": 3, "image_size": 15, "patch_size": 5,
    "projection_dim": 13,
}  # fmt: skip
SIGLIP_EYE = {
    "hidden_size": 20,
    "intermediate_size": 31,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 16,
    "patch_size": 4,
}
EVA_EYE = {"hidden_size": 22, "intermediate_size": 35, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 12, "patch_size": 4}


def clip_pictures(size: int) -> CLIPImageProcessorPil:
    """CLIP's picture preparation: shorter side to `size`, centre crop."""
    return CLIPImageProcessorPil(size={"shortest_edge": size}, crop_size={"height": size, "width": size})


def clip(folder: Path, *, seed: int = 1) -> Checkpoint:
    """CLIP: both towers, projections, scale."""
    tokenizer = clip_bpe()
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    text = {
        "hidden_size": 18, "intermediate_size": 29, "num_hidden_layers": 2, "num_attention_heads": 3, "vocab_size": len(tokenizer),
        "max_position_embeddings": 19, "projection_dim": 13, **ids,
    }  # fmt: skip
    model = hf.CLIPModel(hf.CLIPConfig(text_config=text, vision_config=CLIP_EYE, projection_dim=13))
    return _save(folder, model, hf.CLIPProcessor(clip_pictures(15), tokenizer), seed=seed)


def siglip(folder: Path, *, seed: int = 2) -> Checkpoint:
    """SigLIP: both towers, scale and bias; texts are padded to the full length."""
    tokenizer = byte_level(begin=None, end="</s>", pad="<pad>", suffix=True, extra=())
    tokenizer.padding_side, tokenizer.model_max_length = "right", 17
    text = {
        "hidden_size": 20, "intermediate_size": 33, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": len(tokenizer),
        "max_position_embeddings": 17, "pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id, "bos_token_id": 1,
        "projection_size": 20,
    }  # fmt: skip
    model = hf.SiglipModel(hf.SiglipConfig(text_config=text, vision_config=SIGLIP_EYE))
    pictures = SiglipImageProcessorPil(size={"height": 16, "width": 16})
    return _save(folder, model, hf.SiglipProcessor(pictures, tokenizer), seed=seed)


def vit(folder: Path, *, layers: int = 3, seed: int = 3) -> Checkpoint:
    """ViT with a classification head of five classes."""
    names = ["tench", "goldfish", "shark", "ray", "hen"]
    config = hf.ViTConfig(
        hidden_size=21, intermediate_size=34, num_hidden_layers=layers, num_attention_heads=3, image_size=18, patch_size=6,
        id2label=dict(enumerate(names)), label2id={name: index for index, name in enumerate(names)},
    )  # fmt: skip
    return _save(folder, hf.ViTForImageClassification(config), ViTImageProcessorPil(size={"height": 18, "width": 18}), seed=seed)


def opt_config(tokenizer: Any, *, wide: int = 24) -> hf.OPTConfig:
    """A two-layer OPT."""
    return hf.OPTConfig(
        vocab_size=len(tokenizer), hidden_size=wide, word_embed_proj_dim=wide, ffn_dim=41, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=96, pad_token_id=tokenizer.pad_token_id, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip


def llama_config(tokenizer: Any, *, wide: int = 28, tied: bool = False, kv_heads: int = 2) -> hf.LlamaConfig:
    """A two-layer LLaMA whose queries share keys and values; `tied` as in SmolLM2."""
    return hf.LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=wide, intermediate_size=43, num_hidden_layers=2,
        num_attention_heads=4 if wide % 4 == 0 else 3,
        num_key_value_heads=kv_heads, head_dim=16, max_position_embeddings=128, rms_norm_eps=1e-5, pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, tie_word_embeddings=tied,
    )  # fmt: skip


def qwen2_config(tokenizer: Any) -> hf.Qwen2Config:
    """A two-layer Qwen2: biases on queries, keys and values."""
    return hf.Qwen2Config(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=45, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
        max_position_embeddings=128, pad_token_id=tokenizer.pad_token_id, bos_token_id=None, eos_token_id=tokenizer.eos_token_id,
        tie_word_embeddings=True,
    )  # fmt: skip


def t5_config(tokenizer: Any) -> hf.T5Config:
    """A two-layer T5 with gated GELU, as Flan-T5."""
    return hf.T5Config(
        vocab_size=len(tokenizer), d_model=26, d_kv=6, d_ff=39, num_layers=2, num_decoder_layers=2, num_heads=3,
        feed_forward_proj="gated-gelu",
        pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id, decoder_start_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=False, relative_attention_num_buckets=8, relative_attention_max_distance=16,
    )  # fmt: skip


def whisper_config() -> hf.WhisperConfig:
    """A tiny Whisper."""
    return hf.WhisperConfig(
        vocab_size=97, d_model=32, encoder_layers=1, decoder_layers=2, encoder_attention_heads=4, decoder_attention_heads=4,
        decoder_ffn_dim=48, encoder_ffn_dim=48, max_target_positions=40, max_source_positions=50, num_mel_bins=8,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
    )  # fmt: skip


def opt_tokenizer() -> Any:
    """Every text begins with </s>, as in OPT."""
    return byte_level(begin="</s>", end="</s>", pad="<pad>", prefix=True)


def llama_tokenizer() -> Any:
    """Every text begins with <s>, as in LLaMA."""
    return byte_level(begin="<s>", end="</s>", pad="<pad>", prefix=True)


def qwen2_tokenizer() -> Any:
    """No text gets a special token, as in Qwen2 and SmolLM2."""
    return byte_level(begin=None, end="<|im_end|>", pad="<|endoftext|>")


def t5_tokenizer() -> Any:
    """Every text ends with </s>, as in T5, and is padded on the right: its positions are relative, so that padding counts."""
    made = byte_level(begin=None, end="</s>", pad="<pad>", suffix=True)
    made.padding_side = "right"
    return made


def opt(folder: Path, *, seed: int = 11) -> Checkpoint:
    """OPT alone."""
    tokenizer = opt_tokenizer()
    return _save(folder, hf.OPTForCausalLM(opt_config(tokenizer)), tokenizer, seed=seed)


def llama(folder: Path, *, seed: int = 12) -> Checkpoint:
    """LLaMA alone, with grouped queries."""
    tokenizer = llama_tokenizer()
    return _save(folder, hf.LlamaForCausalLM(llama_config(tokenizer)), tokenizer, seed=seed)


def smollm(folder: Path, *, seed: int = 13) -> Checkpoint:
    """A SmolLM2-shaped LLaMA: three heads, one for keys and values, tied embeddings, no begin token."""
    tokenizer = qwen2_tokenizer()
    return _save(folder, hf.LlamaForCausalLM(llama_config(tokenizer, wide=27, tied=True, kv_heads=1)), tokenizer, seed=seed)


def qwen2(folder: Path, *, seed: int = 14) -> Checkpoint:
    """Qwen2 alone."""
    tokenizer = qwen2_tokenizer()
    return _save(folder, hf.Qwen2ForCausalLM(qwen2_config(tokenizer)), tokenizer, seed=seed)


def t5(folder: Path, *, seed: int = 15) -> Checkpoint:
    """T5 alone."""
    tokenizer = t5_tokenizer()
    return _save(folder, hf.T5ForConditionalGeneration(t5_config(tokenizer)), tokenizer, seed=seed)


def whisper(folder: Path, *, seed: int = 21) -> Checkpoint:
    """Whisper, encoder and decoder, that hears a second at once."""
    tokenizer = byte_level(begin=None, end="<|endoftext|>", extra=("<|startoftranscript|>",))
    config = whisper_config()
    config.vocab_size, config.pad_token_id, config.eos_token_id = len(tokenizer), tokenizer.eos_token_id, tokenizer.eos_token_id
    config.decoder_start_token_id = tokenizer.convert_tokens_to_ids("<|startoftranscript|>")
    config.begin_suppress_tokens = [3]  # by itself those of the published vocabulary
    hf.WhisperFeatureExtractor(feature_size=8, chunk_length=1).save_pretrained(folder)
    return _save(folder, hf.WhisperForConditionalGeneration(config), tokenizer, seed=seed)


def wav2vec2(folder: Path, *, seed: int = 17) -> Checkpoint:
    """wav2vec 2.0 with a head of CTC over the letters of the published English models, whose convolutions are normed by groups."""
    config = hf.Wav2Vec2Config(
        hidden_size=24, intermediate_size=37, num_hidden_layers=2, num_attention_heads=3, num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4, conv_dim=[8] * 7, vocab_size=32,
    )  # fmt: skip
    return _save(folder, hf.Wav2Vec2ForCTC(config), hf.Wav2Vec2FeatureExtractor(return_attention_mask=False), seed=seed)


LANGUAGES = {"opt": (opt_tokenizer, opt_config), "t5": (t5_tokenizer, t5_config), "llama": (llama_tokenizer, llama_config)}
QFORMER = {
    "hidden_size": 18, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 27, "encoder_hidden_size": 22,
    "cross_attention_frequency": 2, "max_position_embeddings": 40,
}  # fmt: skip


def _blip_pictures() -> BlipImageProcessorPil:
    return BlipImageProcessorPil(size={"height": 12, "width": 12})


def blip2(folder: Path, *, language: str = "opt", seed: int = 4, qformer: Mapping[str, Any] | None = None, **eye: Any) -> Checkpoint:
    """BLIP-2 with an EVA-style eye and a Q-Former, of other sizes where they are given, seven queries, and OPT or T5."""
    make_tokenizer, make_config = LANGUAGES[language]
    tokenizer = make_tokenizer()
    sizes = {**EVA_EYE, **eye}
    config = hf.Blip2Config(
        vision_config=sizes, qformer_config={**QFORMER, "encoder_hidden_size": sizes["hidden_size"], **(qformer or {})},
        text_config=make_config(tokenizer).to_dict(), num_query_tokens=7,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )  # fmt: skip
    processor = hf.Blip2Processor(_blip_pictures(), tokenizer, num_query_tokens=7)
    return _save(folder, _untied(hf.Blip2ForConditionalGeneration(config)), processor, seed=seed)


def blip2_first_stage(folder: Path, *, seed: int = 14) -> Checkpoint:
    """BLIP-2 of the first stage: an EVA-style eye, seven queries, and a Q-Former that reads texts."""
    reader = word_piece()
    qformer = {**QFORMER, "vocab_size": len(reader), "pad_token_id": reader.pad_token_id, "use_qformer_text_input": True}
    config = hf.Blip2Config(vision_config=EVA_EYE, qformer_config=qformer, num_query_tokens=7, image_text_hidden_size=11)
    _blip_pictures().save_pretrained(folder)
    return _save(folder, hf.Blip2ForImageTextRetrieval(config), reader, seed=seed)


def instructblip(folder: Path, *, language: str = "llama", seed: int = 5) -> Checkpoint:
    """InstructBLIP: the Q-Former reads the instruction too, with a tokenizer of its own."""
    make_tokenizer, make_config = LANGUAGES[language]
    tokenizer, reader = make_tokenizer(), word_piece()
    config = hf.InstructBlipConfig(
        vision_config=EVA_EYE, qformer_config={**QFORMER, "vocab_size": len(reader), "pad_token_id": 0},
        text_config=make_config(tokenizer).to_dict(), num_query_tokens=7, image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )  # fmt: skip
    processor = hf.InstructBlipProcessor(_blip_pictures(), tokenizer, reader, num_query_tokens=7)
    return _save(folder, _untied(hf.InstructBlipForConditionalGeneration(config)), processor, seed=seed)


def _untied(model: Any) -> Any:
    """Give a T5 inside a head of its own: transformers ties it when it is built from a config, Flan-T5's files hold both."""
    language = model.language_model
    if language.config.model_type == "t5":
        language.lm_head = torch.nn.Linear(language.config.d_model, language.config.vocab_size, bias=False)
    return model


def llava(folder: Path, *, seed: int = 6) -> Checkpoint:
    """LLaVA 1.5: second-to-last layer of CLIP without its class token, two-layer projector, LLaMA with grouped queries."""
    tokenizer = llama_tokenizer()
    eye = {name: value for name, value in CLIP_EYE.items() if name != "projection_dim"}
    config = hf.LlavaConfig(
        vision_config={**eye, "model_type": "clip_vision_model"}, text_config=llama_config(tokenizer).to_dict(),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )  # fmt: skip
    processor = hf.LlavaProcessor(
        clip_pictures(15), tokenizer, patch_size=5, vision_feature_select_strategy="default", num_additional_image_tokens=1
    )
    return _save(folder, hf.LlavaForConditionalGeneration(config), processor, seed=seed)


def idefics(folder: Path, *, seed: int = 7) -> Checkpoint:
    """IDEFICS: CLIP's tower, a resampler, and a LLaMA that looks at pictures before every second layer; two tokens were added to it."""
    marks = ("<fake_token_around_image>", "<image>")
    tokenizer = byte_level(begin="<s>", end="</s>", pad="<pad>", prefix=True, extra=marks)
    config = hf.IdeficsConfig(
        vocab_size=len(tokenizer) - 2, additional_vocab_size=2, hidden_size=32, intermediate_size=43, num_hidden_layers=4,
        num_attention_heads=4, max_position_embeddings=96, cross_layer_interval=2, qk_layer_norms=True, use_resampler=True,
        pad_token_id=tokenizer.pad_token_id, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        vision_config={
            "embed_dim": 24, "image_size": 15, "intermediate_size": 37, "patch_size": 5, "num_hidden_layers": 2, "num_attention_heads": 3,
        },
        perceiver_config={
            "resampler_depth": 2, "resampler_n_heads": 3, "resampler_head_dim": 6, "resampler_n_latents": 7,
            "qk_layer_norms_perceiver": True, "use_resampler": True,
        },
    )  # fmt: skip
    processor = hf.IdeficsProcessor(IdeficsImageProcessorPil(image_size=15), tokenizer, image_size=15)
    return _save(folder, hf.IdeficsForVisionText2Text(config), processor, seed=seed)


def paligemma(folder: Path, *, language: str = "gemma", seed: int = 31) -> Checkpoint:
    """PaliGemma around a Gemma, or a Gemma 2 with windows; its vision tower has no head."""
    tokenizer = byte_level(begin="<bos>", end="<eos>", pad="<pad>", prefix=True, extra=("<image>",))
    pictures = SiglipImageProcessorPil(size={"height": 16, "width": 16}, do_convert_rgb=True)
    pictures.image_seq_length = 16
    processor = hf.PaliGemmaProcessor(pictures, tokenizer)  # which adds tokens of places and outlines
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    text = {
        "model_type": language, "vocab_size": len(tokenizer), "hidden_size": 24, "intermediate_size": 41, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 6, "max_position_embeddings": 128, **ids,
        **({"sliding_window": 9, "query_pre_attn_scalar": 6} if language == "gemma2" else {}),
    }  # fmt: skip
    config = hf.PaliGemmaConfig(
        vision_config={**SIGLIP_EYE, "model_type": "siglip_vision_model", "vision_use_head": False}, text_config=text, projection_dim=24,
        hidden_size=24, vocab_size=len(tokenizer), image_token_index=tokenizer.convert_tokens_to_ids("<image>"), **ids,
    )  # fmt: skip
    model = hf.PaliGemmaForConditionalGeneration(config)
    randomise(model, seed=seed)
    model.tie_weights()
    model.eval()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return Checkpoint(folder, model, processor)
