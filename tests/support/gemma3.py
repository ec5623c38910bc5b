"""A tiny Gemma 3 that sees, saved as its published ones are."""

from __future__ import annotations

from pathlib import Path

import transformers as hf
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil

from support.checkpoints import Checkpoint, randomise
from support.tokenizers import byte_level

# The chat template of its published checkpoints, in its own words: turns, trimmed texts, a mark for each picture.
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ '<start_of_turn>' + message['role'] + '\n' }}"
    "{% if message['content'] is string %}{{ message['content'] | trim }}{% else %}{% for item in message['content'] %}"
    "{% if item['type'] == 'image' %}{{ '<start_of_image>' }}{% elif item['type'] == 'text' %}{{ item['text'] | trim }}{% endif %}"
    "{% endfor %}{% endif %}{{ '<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)


def gemma3(folder: Path, *, side: int = 20, tokens: int = 4, seed: int = 43) -> Checkpoint:
    """Pictures of so many pixels are patches of five, of which so many vectors are made; windows of 7 tokens in two of three layers."""
    marks = ("<start_of_image>", "<end_of_image>", "<image_soft_token>", "<start_of_turn>", "<end_of_turn>")
    tokenizer = byte_level(begin="<bos>", end="<eos>", pad="<pad>", prefix=True, extra=marks)
    named = {"boi_token": marks[0], "eoi_token": marks[1], "image_token": marks[2]}
    tokenizer.add_special_tokens({"extra_special_tokens": list(marks)})
    tokenizer._set_model_specific_special_tokens(named)
    tokenizer.chat_template = TEMPLATE
    ids = {name.replace("token", "token_id"): tokenizer.convert_tokens_to_ids(token) for name, token in named.items()}
    text = {
        "model_type": "gemma3_text", "vocab_size": len(tokenizer), "hidden_size": 24, "intermediate_size": 41, "num_hidden_layers": 3,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 6, "max_position_embeddings": 256, "sliding_window": 7,
        "query_pre_attn_scalar": 6, "sliding_window_pattern": 2,
        "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id,
    }  # fmt: skip
    eye = {
        "model_type": "siglip_vision_model", "hidden_size": 12, "intermediate_size": 19, "num_hidden_layers": 2, "num_attention_heads": 3,
        "image_size": side, "patch_size": 5, "vision_use_head": False,
    }  # fmt: skip
    config = hf.Gemma3Config(
        text_config=text, vision_config=eye, mm_tokens_per_image=tokens, image_token_index=ids["image_token_id"],
        boi_token_index=ids["boi_token_id"], eoi_token_index=ids["eoi_token_id"],
    )  # fmt: skip
    model = hf.Gemma3ForConditionalGeneration(config)
    randomise(model, seed=seed)
    model.tie_weights()
    model.eval().save_pretrained(folder)
    pictures = Gemma3ImageProcessorPil(size={"height": side, "width": side}, do_convert_rgb=True)
    processor = hf.Gemma3Processor(pictures, tokenizer, image_seq_length=tokens, chat_template=TEMPLATE)
    processor.save_pretrained(folder)
    return Checkpoint(folder, model, processor)
