"""Tiny random checkpoints of models that cut pictures into tiles, saved by transformers, with its model and processor to compare with."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import transformers as hf
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
from transformers.models.idefics2.image_processing_pil_idefics2 import Idefics2ImageProcessorPil
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import LlavaOnevisionImageProcessorPil
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

from support.checkpoints import CLIP_EYE, SIGLIP_EYE, Checkpoint, randomise
from support.tokenizers import byte_level

MARKS = ("<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>", "<row_1_col_1>", "<row_1_col_2>", "<row_2_col_1>")
# as published: a picture that stands first has no space before it
SMOLVLM_CHAT = (
    "{% for message in messages %}{{ message['role'] | capitalize }}{% if message['content'][0]['type'] == 'image' %}{{ ':' }}"
    "{% else %}{{ ': ' }}{% endif %}{% for line in message['content'] %}{% if line['type'] == 'text' %}{{ line['text'] }}"
    "{% elif line['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}<end_of_utterance>\n{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}{% for line in message['content'] %}"
    "{% if line['type'] == 'image' %}{{ 'IMAGE\n' }}{% else %}{{ line['text'] }}{% endif %}{% endfor %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def _ids(tokenizer: Any) -> dict[str, Any]:
    return {"pad_token_id": tokenizer.pad_token_id, "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}


def _llama(tokenizer: Any, *, tied: bool = False) -> dict[str, Any]:
    return {
        "model_type": "llama", "vocab_size": len(tokenizer), "hidden_size": 28, "intermediate_size": 43, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 512, "rms_norm_eps": 1e-5,
        "tie_word_embeddings": tied, **_ids(tokenizer),
    }  # fmt: skip


def _qwen2(tokenizer: Any, *, tied: bool) -> dict[str, Any]:
    return {
        "model_type": "qwen2", "vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 45, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512, "tie_word_embeddings": tied,
        **_ids(tokenizer),
    }  # fmt: skip


def _saved(folder: Path, model: Any, processor: Any, *, seed: int) -> Checkpoint:
    randomise(model, seed=seed)
    model.tie_weights()
    model.eval()
    model.save_pretrained(folder)
    for part in (
        (processor,) if getattr(processor, "video_processor", processor) is not None else (processor.image_processor, processor.tokenizer)
    ):
        part.save_pretrained(folder)
    return Checkpoint(folder, model, processor)


def _without_films(kind: Any, pictures: Any, tokenizer: Any, **more: Any) -> Any:
    """A processor without its part for films, which needs a library that is not installed."""
    made = kind.__new__(kind)
    made.image_processor, made.tokenizer, made.video_processor, made.audio_processor = pictures, tokenizer, None, None
    made.chat_template = tokenizer.chat_template
    for name, value in more.items():
        setattr(made, name, value)
    return made


def _idefics3_like(model: Any, config: Any, pictures: Any, folder: Path, *, tied: bool, seed: int) -> Checkpoint:
    tokenizer = byte_level(begin="<s>", end="<end>", pad="<pad>", extra=MARKS)
    tokenizer.chat_template = SMOLVLM_CHAT
    made = config(
        vision_config={**SIGLIP_EYE, "image_size": 24, "patch_size": 4}, text_config=_llama(tokenizer, tied=tied), scale_factor=3,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"), tie_word_embeddings=tied, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    processor = hf.Idefics3Processor(pictures(size={"longest_edge": 48}, max_image_size={"longest_edge": 24}), tokenizer, image_seq_len=4)
    return _saved(folder, model(made), processor, seed=seed)


def idefics3(folder: Path, *, seed: int = 41) -> Checkpoint:
    """Idefics 3: tiles of 24 pixels, groups of nine patches."""
    return _idefics3_like(hf.Idefics3ForConditionalGeneration, hf.Idefics3Config, Idefics3ImageProcessorPil, folder, tied=False, seed=seed)


def idefics2(folder: Path, *, seed: int = 46, splits: bool = True) -> Checkpoint:
    """Idefics 2: pictures of 12 to 40 pixels on a side, each with its quarters; five vectors of each, for a Mistral."""
    tokenizer = byte_level(begin="<s>", end="</s>", pad="<pad>", prefix=True, extra=MARKS[:2])
    tokenizer.chat_template = SMOLVLM_CHAT
    pictures = Idefics2ImageProcessorPil(size={"shortest_edge": 12, "longest_edge": 40}, do_image_splitting=splits)
    processor = hf.Idefics2Processor(pictures, tokenizer, image_seq_len=5)
    perceiver = {
        "resampler_n_latents": 5, "resampler_depth": 2, "resampler_n_heads": 4, "resampler_head_dim": 6, "num_key_value_heads": 2,
        "hidden_size": 28,
    }  # fmt: skip
    config = hf.Idefics2Config(
        vision_config={**SIGLIP_EYE, "image_size": 24, "patch_size": 5}, perceiver_config=perceiver,
        text_config={**_llama(tokenizer), "model_type": "mistral", "sliding_window": None},
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
    )  # fmt: skip
    return _saved(folder, hf.Idefics2ForConditionalGeneration(config), processor, seed=seed)


def idefics2_whole(folder: Path) -> Checkpoint:
    """The same without quarters."""
    return idefics2(folder, seed=47, splits=False)


def smolvlm(folder: Path, *, seed: int = 42) -> Checkpoint:
    """SmolVLM: the same with tied embeddings, and its own names."""
    return _idefics3_like(hf.SmolVLMForConditionalGeneration, hf.SmolVLMConfig, SmolVLMImageProcessorPil, folder, tied=True, seed=seed)


def llava_next(folder: Path, *, seed: int = 43) -> Checkpoint:
    """LLaVA-NeXT: CLIP's tower at 15 pixels, five resolutions."""
    tokenizer = byte_level(begin="<s>", end="</s>", pad="<pad>", prefix=True)
    tokenizer.chat_template = CHATML.replace("IMAGE", "<image>")
    sizes = [[15, 30], [30, 15], [30, 30], [45, 15], [15, 45]]
    eye = {name: value for name, value in CLIP_EYE.items() if name != "projection_dim"}
    config = hf.LlavaNextConfig(
        vision_config={**eye, "model_type": "clip_vision_model"}, text_config=_llama(tokenizer), image_grid_pinpoints=sizes,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )  # fmt: skip
    pictures = LlavaNextImageProcessorPil(size={"shortest_edge": 15}, crop_size={"height": 15, "width": 15}, image_grid_pinpoints=sizes)
    processor = hf.LlavaNextProcessor(
        pictures, tokenizer, patch_size=5, vision_feature_select_strategy="default", num_additional_image_tokens=1
    )
    return _saved(folder, hf.LlavaNextForConditionalGeneration(config), processor, seed=seed)


def llava_onevision(folder: Path, *, seed: int = 44) -> Checkpoint:
    """LLaVA-OneVision: SigLIP's tower, one picture in tiles, several as squares; large ones are scaled down to two tiles."""
    tokenizer = byte_level(begin=None, end="<|im_end|>", pad="<|endoftext|>", extra=("<image>", "<video>", "<|im_start|>"))
    tokenizer.chat_template = CHATML.replace("IMAGE", "<image>")
    sizes = [[16 * rows, 16 * columns] for rows in (1, 2, 3) for columns in (1, 2, 3)]
    config = hf.LlavaOnevisionConfig(
        vision_config={**SIGLIP_EYE, "model_type": "siglip_vision_model", "vision_use_head": False},
        text_config=_qwen2(tokenizer, tied=False),
        image_grid_pinpoints=sizes, vision_aspect_ratio="anyres_max_2", image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
    )  # fmt: skip
    pictures = LlavaOnevisionImageProcessorPil(size={"height": 16, "width": 16}, image_grid_pinpoints=sizes)
    processor = _without_films(
        hf.LlavaOnevisionProcessor, pictures, tokenizer, num_image_tokens=16, vision_feature_select_strategy="full", image_token="<image>",
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"), vision_aspect_ratio="anyres_max_2", video_token="<video>",
        video_token_id=tokenizer.convert_tokens_to_ids("<video>"),
    )  # fmt: skip
    return _saved(folder, hf.LlavaOnevisionForConditionalGeneration(config), processor, seed=seed)


def internvl(folder: Path, *, seed: int = 45) -> Checkpoint:
    """InternVL: a tower with layer scale, up to six tiles by the shape of a picture, groups of four patches."""
    marks = {"start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<IMG_CONTEXT>", "video_token": "<video>"}
    tokenizer = byte_level(begin=None, end="<|im_end|>", pad="<|endoftext|>", extra=("<|im_start|>", *marks.values()))
    tokenizer._set_model_specific_special_tokens(special_tokens=marks)  # as in its published tokenizer_config.json
    tokenizer.chat_template = CHATML.replace("IMAGE", "<IMG_CONTEXT>")
    eye = {
        "hidden_size": 24, "intermediate_size": 37, "num_hidden_layers": 3, "num_attention_heads": 3, "image_size": [24, 24],
        "patch_size": [6, 6], "attention_bias": True,
    }  # fmt: skip
    config = hf.InternVLConfig(
        vision_config=eye, text_config=_qwen2(tokenizer, tied=True), image_seq_length=4,
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
    )  # fmt: skip
    pictures = GotOcr2ImageProcessorPil(size={"height": 24, "width": 24}, max_patches=6)
    named = {**marks, "image_token": "<IMG_CONTEXT>"}
    ids = {f"{name}_id": tokenizer.convert_tokens_to_ids(token) for name, token in named.items()}
    pattern = re.compile("(?P<image><IMG_CONTEXT>)|(?P<video><video>)")
    processor = _without_films(hf.InternVLProcessor, pictures, tokenizer, image_seq_length=4, multimodal_pattern=pattern, **named, **ids)
    return _saved(folder, hf.InternVLForConditionalGeneration(config), processor, seed=seed)


MODELS: Mapping[str, Callable[[Path], Checkpoint]] = {
    "idefics2": idefics2,
    "idefics2-whole": idefics2_whole,
    "idefics3": idefics3,
    "smolvlm": smolvlm,
    "llava_next": llava_next,
    "llava_onevision": llava_onevision,
    "internvl": internvl,
}
