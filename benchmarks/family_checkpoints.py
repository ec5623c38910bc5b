"""A random checkpoint of every family, saved by the library that knows it whole: real widths, few layers.

The towers are 768 wide as in the base sizes, unless a family says otherwise; vocabularies are shorter where nothing depends on them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks import checkpoints
from benchmarks.checkpoints import CONTEXT, TOWER, WIDE, tokenizer

PIECES = 8_000  # vocabulary of a language model alone: its embedding would be most of it
LABELS = 1_000
LIVELY = 8.0  # times the usual deviation of 0.02
QUERIES = 32
SOUND = {"feature_size": 80, "chunk_length": 5}  # windows of 5 s: 250 vectors
NAMES = {"bos_token_id": 1, "eos_token_id": None, "pad_token_id": 0}
TEXT = {"hidden_size": WIDE, "intermediate_size": 4 * WIDE, "num_attention_heads": 12}
# By model_type what its config calls them, beside the words that most have.
LANGUAGES: Mapping[str, Mapping[str, Any]] = {
    "llama": {"num_key_value_heads": 4, "intermediate_size": 2048},
    "mistral": {"num_key_value_heads": 4, "intermediate_size": 2048, "sliding_window": 512},
    "qwen2": {"num_key_value_heads": 4, "intermediate_size": 2048},
    "qwen3": {"num_key_value_heads": 4, "head_dim": 64, "intermediate_size": 2048},
    "gemma": {"num_key_value_heads": 4, "head_dim": 64},
    "gemma2": {"num_key_value_heads": 4, "head_dim": 64, "sliding_window": 512},
    "phi": {},
    "opt": {"ffn_dim": 4 * WIDE, "word_embed_proj_dim": WIDE},
    "gpt2": {"n_embd": WIDE, "n_head": 12, "n_positions": CONTEXT},
    "gpt_neox": {},
    "gptj": {"n_embd": WIDE, "n_head": 12, "n_positions": CONTEXT, "rotary_dim": 64},
    "bloom": {"n_head": 12},
    "mpt": {"d_model": WIDE, "n_heads": 12, "max_seq_len": CONTEXT},
    "falcon": {},
}
DEPTHS = ("num_hidden_layers", "n_layer", "n_layers")  # what they call their layers
Built = tuple[Any, list[Any]]  # a model, and what is saved beside it


def make(name: str, folder: Path, *, layers: int) -> Path:
    """Write the checkpoint of a family once; gives its folder."""
    if name in checkpoints.BUILDERS and name not in BUILDERS:
        return checkpoints.make(name, folder, layers=layers)
    place = folder / f"{name}-{layers}"
    if not place.is_dir():
        import torch
        import transformers

        transformers.utils.logging.disable_progress_bar()
        torch.manual_seed(sum(map(ord, name)))
        model, beside = BUILDERS[name](layers) if name in BUILDERS else _language(name, layers)
        _liven(model)
        aside = place.with_suffix(".part")
        (model.eval() if hasattr(model, "eval") else model).save_pretrained(aside)
        for one in beside:
            one.save_pretrained(aside)
        aside.rename(place)
    return place


def _liven(model: Any) -> None:
    """Make the layers of a model whose output head is its embedding count: as they are drawn it would say its last token again."""
    import torch

    if not hasattr(model, "named_parameters") or not getattr(model.config.get_text_config(), "tie_word_embeddings", False):
        return
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim >= 2 and (".layers." in name or ".h." in name):
                parameter.mul_(LIVELY)


def _language(kind: str, layers: int) -> Built:
    """A decoder alone."""
    from transformers import AutoConfig, AutoModelForCausalLM

    depth = dict.fromkeys(DEPTHS[:1] if "n_layer" not in _words(kind) else DEPTHS, layers)
    sizes = {**TEXT, "max_position_embeddings": CONTEXT, "vocab_size": PIECES, **NAMES, **LANGUAGES[kind], **depth}
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **sizes)), [tokenizer(PIECES)]


def _words(kind: str) -> str:
    """What the config class of a kind calls its fields."""
    from transformers import AutoConfig

    return " ".join(AutoConfig.for_model(kind).to_dict())


def _clip_words() -> Any:
    """CLIP's tokenizer with letters alone."""
    from transformers import CLIPTokenizer

    letters = [chr(code) for code in range(33, 127)]
    known = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={token: index for index, token in enumerate(known)}, merges=[], model_max_length=77)


def _clip_pictures() -> Any:
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    return CLIPImageProcessorPil(size={"shortest_edge": 224}, crop_size={"height": 224, "width": 224})


def _clip(layers: int) -> Built:
    """CLIP ViT-B/16, its texts 512 wide."""
    import transformers as hf

    words = _clip_words()
    ids = {"bos_token_id": words.bos_token_id, "eos_token_id": words.eos_token_id, "pad_token_id": words.pad_token_id}
    text = {
        "hidden_size": 512,
        "intermediate_size": 2048,
        "num_attention_heads": 8,
        "num_hidden_layers": layers,
        "projection_dim": 512,
        **ids,
    }
    vision = {**TOWER, "num_hidden_layers": layers, "patch_size": 16, "projection_dim": 512}
    model = hf.CLIPModel(hf.CLIPConfig(text_config=text, vision_config=vision, projection_dim=512))
    return model, [hf.CLIPProcessor(_clip_pictures(), words)]


def _siglip(layers: int) -> Built:
    """SigLIP base, patches of 16; texts are padded to 64."""
    import transformers as hf
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    words = tokenizer(PIECES, begin=False, end=True)
    words.padding_side, words.model_max_length = "right", 64
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    text = {**TEXT, "num_hidden_layers": layers, "vocab_size": PIECES, "max_position_embeddings": 64, "projection_size": WIDE, **ids}
    config = hf.SiglipConfig(text_config=text, vision_config={**TOWER, "num_hidden_layers": layers, "patch_size": 16})
    pictures = SiglipImageProcessorPil(size={"height": 224, "width": 224})
    return hf.SiglipModel(config), [hf.SiglipProcessor(pictures, words)]


def _vit(layers: int) -> Built:
    """ViT-B/16 with a head of a thousand classes."""
    import transformers as hf
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    names = {index: f"class {index}" for index in range(LABELS)}
    config = hf.ViTConfig(
        **TOWER, num_hidden_layers=layers, patch_size=16, id2label=names, label2id={name: index for index, name in names.items()}
    )
    return hf.ViTForImageClassification(config), [ViTImageProcessorPil(size={"height": 224, "width": 224})]


def _dinov2(layers: int, *, registers: bool = False) -> Built:
    """DINOv2 base, patches of 14."""
    import transformers as hf
    from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil

    sizes = {"hidden_size": WIDE, "num_hidden_layers": layers, "num_attention_heads": 12, "patch_size": 14, "image_size": 518}
    pictures = BitImageProcessorPil(size={"shortest_edge": 256}, crop_size={"height": 224, "width": 224})
    if registers:
        return hf.Dinov2WithRegistersModel(hf.Dinov2WithRegistersConfig(**sizes, num_register_tokens=4)), [pictures]
    return hf.Dinov2Model(hf.Dinov2Config(**sizes)), [pictures]


def _dinov3(layers: int) -> Built:
    """DINOv3 base, patches of 16."""
    import transformers as hf
    from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil

    sizes = {"hidden_size": WIDE, "intermediate_size": 4 * WIDE, "num_hidden_layers": layers, "num_attention_heads": 12}
    pictures = BitImageProcessorPil(size={"shortest_edge": 256}, crop_size={"height": 224, "width": 224})  # its own wants torchvision
    return hf.DINOv3ViTModel(hf.DINOv3ViTConfig(**sizes, num_register_tokens=4)), [pictures]


def _aimv2(layers: int) -> Built:
    """AIMv2 of the width of its large size."""
    import transformers as hf

    sizes = {"hidden_size": 1024, "intermediate_size": 2816, "num_attention_heads": 8, "num_hidden_layers": layers, "patch_size": 14}
    return hf.Aimv2VisionModel(hf.Aimv2VisionConfig(**sizes, image_size=224)), [_clip_pictures()]


def _siglip2(layers: int) -> Built:
    """SigLIP 2 base with native proportions, at most 256 patches."""
    import transformers as hf
    from transformers.models.siglip2.image_processing_pil_siglip2 import Siglip2ImageProcessorPil

    sizes = {name: value for name, value in TOWER.items() if name != "image_size"}
    config = hf.Siglip2VisionConfig(**sizes, num_hidden_layers=layers, patch_size=16, num_patches=256)
    return hf.Siglip2VisionModel(config), [Siglip2ImageProcessorPil(max_num_patches=256, patch_size=16, do_convert_rgb=True)]


def _bert(layers: int) -> Built:
    """BERT base."""
    import transformers as hf

    config = hf.BertConfig(**TEXT, num_hidden_layers=layers, vocab_size=30_522, max_position_embeddings=512, pad_token_id=0)
    words = tokenizer(30_522, end=True)
    words.padding_side = "right"
    return hf.BertModel(config), [words]


def _t5(layers: int) -> Built:
    """Flan-T5 base."""
    import transformers as hf

    words = tokenizer(PIECES, begin=False, end=True)
    words.padding_side = "right"
    config = hf.T5Config(
        vocab_size=PIECES, d_model=WIDE, d_kv=64, d_ff=2048, num_layers=layers, num_decoder_layers=layers, num_heads=12,
        feed_forward_proj="gated-gelu", pad_token_id=0, eos_token_id=None, decoder_start_token_id=0, tie_word_embeddings=False,
    )  # fmt: skip
    return _untied(hf.T5ForConditionalGeneration(config)), [words]


def _untied(model: Any) -> Any:
    """Give a T5 a head of its own: it is tied when it is built from a config, and Flan-T5's files hold both."""
    import torch

    model.lm_head = torch.nn.Linear(WIDE, PIECES, bias=False)
    return model


def _whisper(layers: int) -> Built:
    """Whisper of the width of `small`, in windows of 5 s, that knows two languages."""
    import transformers as hf

    marks = ("<|startoftranscript|>", "<|en|>", "<|de|>", "<|translate|>", "<|transcribe|>", "<|startofprev|>")
    words = tokenizer(PIECES, begin=False, marks=marks)
    words.add_tokens(["<|notimestamps|>"], special_tokens=True)
    number = words.convert_tokens_to_ids
    config = hf.WhisperConfig(
        d_model=WIDE, encoder_layers=layers, decoder_layers=layers, encoder_attention_heads=12, decoder_attention_heads=12,
        encoder_ffn_dim=4 * WIDE, decoder_ffn_dim=4 * WIDE, max_source_positions=250, max_target_positions=448, num_mel_bins=80,
        vocab_size=len(words), pad_token_id=0, bos_token_id=0, eos_token_id=0, decoder_start_token_id=number(marks[0]),
    )  # fmt: skip
    model = hf.WhisperForConditionalGeneration(config)
    stated = {
        "no_timestamps_token_id": number("<|notimestamps|>"), "begin_suppress_tokens": [0], "suppress_tokens": [0], "is_multilingual": True,
        "return_timestamps": False, "max_length": 448, "_from_model_config": False, "prev_sot_token_id": number("<|startofprev|>"),
        "lang_to_id": {f"<|{code}|>": number(f"<|{code}|>") for code in ("en", "de")},
        "task_to_id": {task: number(f"<|{task}|>") for task in ("translate", "transcribe")},
    }  # fmt: skip
    for name, value in stated.items():
        setattr(model.generation_config, name, value)
    return model, [words, hf.WhisperFeatureExtractor(**SOUND)]


def _instructblip(layers: int) -> Built:
    """InstructBLIP with an EVA tower of the size of ViT-B, and LLaMA with the widths of a 125M model."""
    import transformers as hf
    from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

    words, reader = tokenizer(checkpoints.PIECES), tokenizer(30_522, end=True)
    qformer = {
        "hidden_size": WIDE, "num_hidden_layers": layers, "num_attention_heads": 12, "intermediate_size": 4 * WIDE,
        "encoder_hidden_size": WIDE, "cross_attention_frequency": 2, "vocab_size": 30_522, "pad_token_id": 0,
    }  # fmt: skip
    config = hf.InstructBlipConfig(
        vision_config={**TOWER, "num_hidden_layers": layers, "patch_size": 14}, qformer_config=qformer,
        text_config=checkpoints.llama_config(layers).to_dict(), num_query_tokens=QUERIES,
        image_token_index=words.convert_tokens_to_ids("<image>"),
    )  # fmt: skip
    pictures = BlipImageProcessorPil(size={"height": 224, "width": 224})
    model = hf.InstructBlipForConditionalGeneration(config)
    return model, [hf.InstructBlipProcessor(pictures, words, reader, num_query_tokens=QUERIES)]


def _blip2_t5(layers: int) -> Built:
    """BLIP-2 with a Flan-T5 of the base size."""
    import transformers as hf
    from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

    text, (words,) = _t5(layers)
    mark = words.convert_tokens_to_ids("<image>")
    qformer = {
        "hidden_size": WIDE, "num_hidden_layers": layers, "num_attention_heads": 12, "intermediate_size": 4 * WIDE,
        "encoder_hidden_size": WIDE, "cross_attention_frequency": 2,
    }  # fmt: skip
    config = hf.Blip2Config(
        vision_config={**TOWER, "num_hidden_layers": layers, "patch_size": 14}, qformer_config=qformer,
        text_config=text.config.to_dict(), num_query_tokens=QUERIES, image_token_index=mark,
    )  # fmt: skip
    model = hf.Blip2ForConditionalGeneration(config)
    _untied(model.language_model)
    return model, [hf.Blip2Processor(BlipImageProcessorPil(size={"height": 224, "width": 224}), words, num_query_tokens=QUERIES)]


def _paligemma(layers: int) -> Built:
    """PaliGemma around a SigLIP of the base size and a Gemma 768 wide."""
    import transformers as hf
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    words = tokenizer(PIECES)
    pictures = SiglipImageProcessorPil(size={"height": 224, "width": 224}, do_convert_rgb=True)
    pictures.image_seq_length = 196
    processor = hf.PaliGemmaProcessor(pictures, words)  # which adds tokens of places and outlines
    text = {**TEXT, "model_type": "gemma", "vocab_size": len(words), "num_hidden_layers": layers, **LANGUAGES["gemma"], **NAMES}
    eye = {**TOWER, "num_hidden_layers": layers, "patch_size": 16, "model_type": "siglip_vision_model", "vision_use_head": False}
    config = hf.PaliGemmaConfig(
        vision_config=eye, text_config={**text, "max_position_embeddings": CONTEXT}, projection_dim=WIDE, hidden_size=WIDE,
        vocab_size=len(words), image_token_index=words.convert_tokens_to_ids("<image>"), **NAMES,
    )  # fmt: skip
    model = hf.PaliGemmaForConditionalGeneration(config)
    model.tie_weights()
    return model, [processor]


def _kosmos2(layers: int) -> Built:
    """Kosmos-2 with an eye of the size of ViT-B and a decoder 768 wide; its class counts pictures from the token behind <unk>."""
    import transformers as hf
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    letters = [chr(code) for code in range(33, 127)]
    known = [
        "<s>",
        "<pad>",
        "</s>",
        "<unk>",
        "\u2581",
        *letters,
        *(f"\u2581w{index}" for index in range(PIECES - len(letters) - 6)),
        "<mask>",
    ]
    words = hf.XLMRobertaTokenizer(vocab=[(token, -float(index > 3)) for index, token in enumerate(known)])
    pictures = CLIPImageProcessorPil(size={"height": 224, "width": 224}, do_center_crop=False)
    processor = hf.Kosmos2Processor(pictures, words)  # which adds tokens of places
    text = {"embed_dim": WIDE, "ffn_dim": 4 * WIDE, "attention_heads": 12, "layers": layers, "vocab_size": len(words), "eos_token_id": None}
    config = hf.Kosmos2Config(text_config=text, vision_config={**TOWER, "num_hidden_layers": layers, "patch_size": 16})
    return hf.Kosmos2ForConditionalGeneration(config), [processor]


TURN = "\nassistant:"  # between a question and its answer
CHAT = (
    "{% for message in messages %}{{ message['role'] + ': ' }}{% for part in message['content'] %}{% if part['type'] == 'image' %}"
    "{{ '<image>' }}{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endfor %}{% if add_generation_prompt %}{{ '\nassistant:' }}"
    "{% endif %}"
)


def _idefics3(layers: int) -> Built:
    """Idefics 3 around a SigLIP of the base size and a LLaMA 768 wide; pictures of up to 448 pixels are four tiles and the whole."""
    import transformers as hf
    from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

    words = tokenizer(PIECES, begin=False)  # what a chat template writes is all there is
    words.add_special_tokens({"additional_special_tokens": ["<image>", "<fake_token_around_image>", "<end_of_utterance>"]})
    words.chat_template = CHAT
    pictures = Idefics3ImageProcessorPil(size={"longest_edge": 448}, max_image_size={"longest_edge": 224})
    text = {**TEXT, "model_type": "llama", "vocab_size": len(words), "num_hidden_layers": layers, **LANGUAGES["llama"], **NAMES}
    config = hf.Idefics3Config(
        vision_config={**TOWER, "num_hidden_layers": layers, "patch_size": 16}, scale_factor=2, pad_token_id=0,
        text_config={**text, "max_position_embeddings": CONTEXT}, image_token_id=words.convert_tokens_to_ids("<image>"),
    )  # fmt: skip
    return hf.Idefics3ForConditionalGeneration(config), [hf.Idefics3Processor(pictures, words, image_seq_len=49)]


def _llava_next(layers: int) -> Built:
    """LLaVA-NeXT around a CLIP of the base size and a LLaMA 768 wide: two or three tiles of 224 pixels, and the whole."""
    import transformers as hf
    from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil

    words = tokenizer(PIECES, begin=False)  # what a chat template writes is all there is
    words.add_special_tokens({"additional_special_tokens": ["<image>"]})
    words.chat_template = CHAT
    sizes = [[224, 448], [448, 224], [224, 672], [672, 224]]
    pictures = LlavaNextImageProcessorPil(image_grid_pinpoints=sizes)
    text = {**TEXT, "model_type": "llama", "vocab_size": len(words), "num_hidden_layers": layers, **LANGUAGES["llama"], **NAMES}
    config = hf.LlavaNextConfig(
        vision_config={**TOWER, "num_hidden_layers": layers, "patch_size": 16, "model_type": "clip_vision_model"},
        text_config={**text, "max_position_embeddings": CONTEXT}, image_token_index=words.convert_tokens_to_ids("<image>"),
        image_grid_pinpoints=sizes,
    )  # fmt: skip
    processor = hf.LlavaNextProcessor(
        pictures, words, patch_size=16, vision_feature_select_strategy="default", num_additional_image_tokens=1
    )
    return hf.LlavaNextForConditionalGeneration(config), [processor]


def _gemma3(layers: int) -> Built:
    """Gemma 3 around a SigLIP of the base size and a decoder 768 wide: 49 vectors for a picture of 224 pixels."""
    import transformers as hf
    from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil

    marks = ("<start_of_image>", "<end_of_image>", "<image_soft_token>")
    words = tokenizer(PIECES, begin=False, marks=marks)
    words._set_model_specific_special_tokens(dict(zip(("boi_token", "eoi_token", "image_token"), marks, strict=True)))
    words.chat_template = CHAT.replace("<image>", marks[0])
    first, last, soft = words.convert_tokens_to_ids(list(marks))
    text = {**TEXT, "model_type": "gemma3_text", "vocab_size": len(words), "num_hidden_layers": layers, **LANGUAGES["gemma2"], **NAMES}
    eye = {**TOWER, "num_hidden_layers": layers, "patch_size": 16, "model_type": "siglip_vision_model", "vision_use_head": False}
    config = hf.Gemma3Config(
        vision_config=eye, text_config={**text, "max_position_embeddings": CONTEXT}, mm_tokens_per_image=49, image_token_index=soft,
        boi_token_index=first, eoi_token_index=last,
    )  # fmt: skip
    pictures = Gemma3ImageProcessorPil(size={"height": 224, "width": 224}, do_convert_rgb=True)
    return hf.Gemma3ForConditionalGeneration(config), [hf.Gemma3Processor(pictures, words, words.chat_template, 49)]


def _qwen2_audio(layers: int) -> Built:
    """Qwen2-Audio around an ear and a Qwen2 768 wide, in windows of 5 s."""
    import transformers as hf

    words = tokenizer(PIECES, begin=False, marks=("<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>", "<|im_start|>", "<|im_end|>"))
    ear = {"d_model": WIDE, "encoder_layers": layers, "encoder_attention_heads": 12, "encoder_ffn_dim": 4 * WIDE, "num_mel_bins": 80}
    text = {**TEXT, "model_type": "qwen2", "vocab_size": len(words), "num_hidden_layers": layers, **LANGUAGES["qwen2"], **NAMES}
    config = hf.Qwen2AudioConfig(
        audio_config={**ear, "model_type": "qwen2_audio_encoder", "max_source_positions": 250},
        text_config={**text, "max_position_embeddings": CONTEXT},
        audio_token_index=words.convert_tokens_to_ids("<|AUDIO|>"),
    )
    return hf.Qwen2AudioForConditionalGeneration(config), [hf.Qwen2AudioProcessor(hf.WhisperFeatureExtractor(**SOUND), words)]


def _stable_diffusion(layers: int) -> Built:
    """Stable Diffusion with texts 768 wide, and a UNet and a decoder of half the widths and two floors."""
    import diffusers
    from transformers import CLIPTextConfig, CLIPTextModel

    words = _clip_words()
    text = CLIPTextConfig(**TEXT, num_hidden_layers=layers, eos_token_id=words.eos_token_id, bos_token_id=words.bos_token_id)
    unet = diffusers.UNet2DConditionModel(
        block_out_channels=(160, 320), layers_per_block=1, sample_size=16, down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), cross_attention_dim=WIDE, attention_head_dim=8,
    )  # fmt: skip
    vae = diffusers.AutoencoderKL(
        block_out_channels=(64, 128),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
    )
    noise = diffusers.DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1, clip_sample=False, set_alpha_to_one=False
    )
    whole = diffusers.StableDiffusionPipeline(
        vae=vae, text_encoder=CLIPTextModel(text), tokenizer=words, unet=unet, scheduler=noise, safety_checker=None,
        feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    return whole, []


MARKS = ("<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
NATIVE_TEXT = {**TEXT, "num_key_value_heads": 4, "intermediate_size": 2048, "max_position_embeddings": CONTEXT}
LARGEST = 448 * 448  # pixels of a picture that is read at its own size: about a thousand patches


def _qwen_vl(layers: int, kind: str) -> Built:
    """Qwen2-VL or Qwen2.5-VL with an eye 1280 wide, as published, and a Qwen2 768 wide; Qwen3-VL with one 1024 wide, and a Qwen3."""
    import transformers as hf
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    words = tokenizer(PIECES, begin=False, marks=MARKS)
    ids = {f"{name}_token_id": words.convert_tokens_to_ids(f"<|{name}_pad|>") for name in ("image", "video")}
    ids |= {f"{name}_token_id": words.convert_tokens_to_ids(f"<|{name}|>") for name in ("vision_start", "vision_end")}
    text = {**NATIVE_TEXT, "vocab_size": len(words), "num_hidden_layers": layers, "rope_parameters": {
        "rope_type": "default", "rope_theta": 1e6, "mrope_section": [8, 12, 12]}, **NAMES}  # fmt: skip
    if kind == "qwen2_vl":
        model: Any = hf.Qwen2VLForConditionalGeneration(
            hf.Qwen2VLConfig(text_config=text, vision_config={"depth": layers, "hidden_size": WIDE}, **ids)
        )
    elif kind == "qwen3_vl":
        eye = {"depth": layers, "hidden_size": 1024, "intermediate_size": 4096, "patch_size": 14, "out_hidden_size": WIDE}
        eye |= {"deepstack_visual_indexes": [*range(layers - 1)]}
        model = hf.Qwen3VLForConditionalGeneration(hf.Qwen3VLConfig(text_config={**text, "head_dim": 64}, vision_config=eye, **ids))
    else:
        eye = {"depth": layers, "hidden_size": 1280, "out_hidden_size": WIDE, "fullatt_block_indexes": [layers - 1]}
        model = hf.Qwen2_5_VLForConditionalGeneration(hf.Qwen2_5_VLConfig(text_config=text, vision_config=eye, **ids))
    return model, [words, Qwen2VLImageProcessorPil(size={"shortest_edge": 56 * 56, "longest_edge": LARGEST})]


def _mistral3(layers: int) -> Built:
    """Mistral 3 with the eye of Pixtral, 1024 wide, and a Mistral 768 wide."""
    import transformers as hf
    from transformers.models.pixtral.image_processing_pil_pixtral import PixtralImageProcessorPil

    words = tokenizer(PIECES, marks=("[INST]", "[/INST]", "[IMG]", "[IMG_BREAK]", "[IMG_END]"))
    text = {**NATIVE_TEXT, "model_type": "mistral", "vocab_size": len(words), "num_hidden_layers": layers, "sliding_window": None, **NAMES}
    eye = {"model_type": "pixtral", "num_hidden_layers": layers, "patch_size": 14, "image_size": 448}
    config = hf.Mistral3Config(
        vision_config=eye, text_config=text, image_token_index=words.convert_tokens_to_ids("[IMG]"), tie_word_embeddings=False
    )
    pictures = PixtralImageProcessorPil(size={"longest_edge": 448}, patch_size=14)
    return hf.Mistral3ForConditionalGeneration(config), [words, _Named(pictures, 14, 2)]


class _Named:
    """An image processor, and the file of a processor that wants torchvision to be made."""

    def __init__(self, pictures: Any, patch: int, merge: int) -> None:
        self.pictures, self.stated = pictures, {"processor_class": "PixtralProcessor", "patch_size": patch, "spatial_merge_size": merge}

    def save_pretrained(self, folder: Path) -> None:
        """Write both."""
        self.pictures.save_pretrained(folder)
        (Path(folder) / "processor_config.json").write_text(json.dumps(self.stated), encoding="utf-8")


BUILDERS: Mapping[str, Callable[[int], Built]] = {
    "aimv2": _aimv2,
    "bert": _bert,
    "blip2-t5": _blip2_t5,
    "clip": _clip,
    "dinov2": _dinov2,
    "dinov3": _dinov3,
    "dinov2-registers": lambda layers: _dinov2(layers, registers=True),
    "gemma3": _gemma3,
    "idefics3": _idefics3,
    "instructblip": _instructblip,
    "llava_next": _llava_next,
    "mistral3": _mistral3,
    "paligemma": _paligemma,
    "kosmos2": _kosmos2,
    "qwen2_audio": _qwen2_audio,
    "qwen2_vl": lambda layers: _qwen_vl(layers, "qwen2_vl"),
    "qwen2_5_vl": lambda layers: _qwen_vl(layers, "qwen2_5_vl"),
    "qwen3_vl": lambda layers: _qwen_vl(layers, "qwen3_vl"),
    "siglip": _siglip,
    "siglip2": _siglip2,
    "stable_diffusion": _stable_diffusion,
    "t5": _t5,
    "vit": _vit,
    "whisper": _whisper,
}
