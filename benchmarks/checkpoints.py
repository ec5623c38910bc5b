"""Random checkpoints in Hugging Face layout, of the sizes that benchmarks are about, saved by transformers itself.

The numbers are random and the sizes are real: 768 wide, twelve layers, vocabularies of 32,000 and 50,272. Every id of a
vocabulary has a text of its own, so that equal texts mean equal tokens. No model has an end token: every answer has as many
tokens as were asked for.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.measuring import ROOT

LAYERS = 12
WIDE = 768
TOWER: dict[str, int] = {"hidden_size": WIDE, "intermediate_size": 4 * WIDE, "num_attention_heads": 12, "image_size": 224}
CONTEXT = 2048
WORDS = 50_272  # vocabulary of OPT
PIECES = 32_000  # vocabulary of LLaMA


def make(name: str, folder: Path, *, layers: int = LAYERS) -> Path:
    """Write a checkpoint once; gives its folder. `layers` is the depth of every tower in it."""
    place = folder / f"{name}-{layers}"
    if not place.is_dir():
        import torch
        import transformers

        transformers.utils.logging.disable_progress_bar()
        torch.manual_seed(sum(map(ord, name)))
        model, processor = BUILDERS[name](layers)
        aside = place.with_suffix(".part")
        model.eval().save_pretrained(aside)
        if processor is not None:
            processor.save_pretrained(aside)
        aside.rename(place)
    return place


def made_aside(name: str, folder: Path, *, layers: int = LAYERS) -> Path:
    """The same, made by a process of its own: this one stays as small as it is."""
    code = (
        f"from pathlib import Path; from benchmarks import checkpoints; checkpoints.make({name!r}, Path({str(folder)!r}), layers={layers})"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return folder / f"{name}-{layers}"


def tokenizer(size: int, *, begin: bool = True, end: bool = False, marks: tuple[str, ...] = ("<image>",)) -> Any:
    """One token per byte of a text, and a word for every id beyond, so that whatever a random model writes can be read.

    begin, end  whether a text gets a token before it, and one behind it
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ["<pad>", "<s>", "</s>", *marks]
    known = [*special, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    vocabulary = {token: index for index, token in enumerate([*known, *(f"\u0120w{index}" for index in range(len(known), size))])}
    inner = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    if begin or end:
        single = " ".join([*(["<s>"] if begin else []), "$A", *(["</s>"] if end else [])])
        inner.post_processor = processors.TemplateProcessing(single=single, special_tokens=[("<s>", 1), ("</s>", 2)])
    made = PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", eos_token="</s>", pad_token="<pad>", additional_special_tokens=list(marks)
    )
    made.padding_side = "left"
    return made


def llama_config(layers: int) -> Any:
    """The widths of a 125M model, three queries to a key."""
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=PIECES, hidden_size=WIDE, intermediate_size=2048, num_hidden_layers=layers, num_attention_heads=12,
        num_key_value_heads=4, max_position_embeddings=CONTEXT, bos_token_id=1, eos_token_id=None, pad_token_id=0,
    )  # fmt: skip


def _opt(layers: int) -> Any:
    from transformers import OPTConfig

    return OPTConfig(
        vocab_size=WORDS, hidden_size=WIDE, word_embed_proj_dim=WIDE, ffn_dim=4 * WIDE, num_hidden_layers=layers,
        num_attention_heads=12, max_position_embeddings=CONTEXT, bos_token_id=1, eos_token_id=None, pad_token_id=0,
    )  # fmt: skip


def _build_llama(layers: int) -> tuple[Any, Any]:
    """LLaMA with the widths of a 125M model, three queries to a key."""
    from transformers import LlamaForCausalLM

    return LlamaForCausalLM(llama_config(layers)), tokenizer(PIECES)


def _build_tiny(layers: int) -> tuple[Any, Any]:
    """A LLaMA so small that a step of it shows what is around the step."""
    from transformers import LlamaForCausalLM

    config = llama_config(layers)
    small = {"vocab_size": 320, "hidden_size": 64, "intermediate_size": 128}
    config.update({**small, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16})
    return LlamaForCausalLM(config), tokenizer(320)


def _build_vit(layers: int) -> tuple[Any, Any]:
    """ViT-B/16."""
    from transformers import ViTConfig, ViTModel

    return ViTModel(ViTConfig(**TOWER, num_hidden_layers=layers, patch_size=16), add_pooling_layer=False), None


def _build_whisper(layers: int) -> tuple[Any, Any]:
    """Whisper of the width of `small`, whose windows are 5 s: 250 vectors."""
    from transformers import WhisperConfig, WhisperModel

    config = WhisperConfig(
        d_model=WIDE, encoder_layers=layers, encoder_attention_heads=12, encoder_ffn_dim=4 * WIDE, max_source_positions=250,
        decoder_layers=1, decoder_attention_heads=12, decoder_ffn_dim=WIDE, vocab_size=1000, pad_token_id=0, bos_token_id=1,
        eos_token_id=2, decoder_start_token_id=1,
    )  # fmt: skip
    return WhisperModel(config), None


def _build_blip2(layers: int) -> tuple[Any, Any]:
    """BLIP-2 with an EVA tower of the size of ViT-B (224 pixels, patches of 14), a Q-Former of 32 queries, and OPT-125M."""
    from transformers import Blip2Config, Blip2ForConditionalGeneration, Blip2Processor
    from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

    words = tokenizer(WORDS)
    config = Blip2Config(
        vision_config={**TOWER, "num_hidden_layers": layers, "patch_size": 14},
        qformer_config={
            "hidden_size": WIDE, "num_hidden_layers": layers, "num_attention_heads": 12, "intermediate_size": 4 * WIDE,
            "encoder_hidden_size": WIDE, "cross_attention_frequency": 2,
        },
        text_config=_opt(layers).to_dict(), num_query_tokens=32, image_token_index=words.convert_tokens_to_ids("<image>"),
    )  # fmt: skip
    pictures = BlipImageProcessorPil(size={"height": 224, "width": 224})
    return Blip2ForConditionalGeneration(config), Blip2Processor(pictures, words, num_query_tokens=32)


def _build_llava(layers: int) -> tuple[Any, Any]:
    """LLaVA with CLIP ViT-B/16, a projector of two layers, and LLaMA with the widths of a 125M model."""
    from transformers import LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    words = tokenizer(PIECES)
    config = LlavaConfig(
        vision_config={**TOWER, "num_hidden_layers": layers, "patch_size": 16, "model_type": "clip_vision_model"},
        text_config=llama_config(layers).to_dict(), image_token_index=words.convert_tokens_to_ids("<image>"),
    )  # fmt: skip
    pictures = CLIPImageProcessorPil(size={"shortest_edge": 224}, crop_size={"height": 224, "width": 224})
    processor = LlavaProcessor(
        pictures, words, patch_size=16, vision_feature_select_strategy="default", num_additional_image_tokens=1
    )  # fmt: skip
    return LlavaForConditionalGeneration(config), processor


def _build_idefics(layers: int) -> tuple[Any, Any]:
    """IDEFICS with CLIP ViT-B/16, a resampler of 64 latents, and LLaMA of 12 heads that looks at them before every third layer."""
    import torch
    from transformers import IdeficsConfig, IdeficsForVisionText2Text, IdeficsProcessor
    from transformers.models.idefics.image_processing_pil_idefics import IdeficsImageProcessorPil

    words = tokenizer(PIECES, marks=("<fake_token_around_image>", "<image>"))
    vision = {name: value for name, value in TOWER.items() if name != "hidden_size"}
    config = IdeficsConfig(
        vocab_size=PIECES, hidden_size=WIDE, intermediate_size=2048, num_hidden_layers=layers, num_attention_heads=12,
        max_position_embeddings=CONTEXT, bos_token_id=1, eos_token_id=None, pad_token_id=0, cross_layer_interval=3, qk_layer_norms=True,
        use_resampler=True, vision_config={**vision, "embed_dim": WIDE, "num_hidden_layers": layers, "patch_size": 16},
        perceiver_config={"resampler_depth": 6, "resampler_n_heads": 12, "resampler_head_dim": 64, "qk_layer_norms_perceiver": True},
    )  # fmt: skip
    model = IdeficsForVisionText2Text(config)
    with torch.no_grad():  # closed gates would look at nothing
        for name, parameter in model.named_parameters():
            if "alpha" in name:
                parameter.fill_(0.5)
    return model, IdeficsProcessor(IdeficsImageProcessorPil(image_size=224), words, image_size=224)


BUILDERS: dict[str, Callable[[int], tuple[Any, Any]]] = {
    "blip2": _build_blip2,
    "idefics": _build_idefics,
    "llama": _build_llama,
    "llava": _build_llava,
    "tiny": _build_tiny,
    "vit": _build_vit,
    "whisper": _build_whisper,
}


def picture(number: int) -> Any:
    """A landscape of 640 x 480 in soft colours, another one for every number."""
    import numpy
    from PIL import Image

    grain = numpy.random.default_rng(number).integers(0, 256, (30, 40, 3), dtype=numpy.uint8)
    return Image.fromarray(grain).resize((640, 480), Image.Resampling.BICUBIC)


def text_of(tokens: int, number: int) -> str:
    """A text that is so many tokens long, the begin token included; each number (below 26) begins with a letter of its own."""
    sentence = " what do you see in the picture, and what is it that you do not see?"
    return (chr(ord("a") + number) + sentence * (tokens // len(sentence) + 1))[: tokens - 1]
