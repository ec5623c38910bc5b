"""LLaMA-Adapter V2 as a shipped graph, with tiny random weights under the keys of its files; the photographs are real."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from skimage import data

import modelgraft as mg
from support import zoo

pytestmark = [
    pytest.mark.slow,  # it imports transformers
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]
PHOTOS = [Image.fromarray(data.chelsea()), Image.fromarray(data.rocket())]
ASKED = ["what is it?", "who sits there, and for how long? <image> is no place here"]


@pytest.fixture(scope="module")
def params(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return zoo.llama_adapter(tmp_path_factory.mktemp("adapter"))


def opened(params: dict[str, str], **more: Any) -> mg.Pipeline:
    return mg.open("llama_adapter", params={**params, "max_new_tokens": 5}, **more)


@pytest.fixture(scope="module")
def adapter(params: dict[str, str]) -> mg.Pipeline:
    return opened(params)


def test_a_batch_answers_as_its_records_do_alone_and_each_time_the_same(adapter: mg.Pipeline):
    zoo.refuse_unlike(adapter, image=PHOTOS, prompt=ASKED)


def test_answers_depend_on_the_picture(adapter: mg.Pipeline):
    one, other = (adapter.run(image=image, prompt=ASKED[0], outputs=["llm.logits"])["llm.logits"] for image in PHOTOS)
    assert (one - other).abs().max() > 0.01


def test_onnx_answers_as_torch(params: dict[str, str], adapter: mg.Pipeline):
    """Keys and values of the vectors once per prompt, and the language model with its cache; the others are test_onnx_parts.py's."""
    with opened(params | {"nodes.llm.runtime.backend": "onnx"}) as exported:
        for image, said in zip(PHOTOS, ASKED, strict=True):
            ours, theirs = (one.run(image=image, prompt=said, outputs=["text", "llm.logits"]) for one in (exported, adapter))
            assert ours["text"] == theirs["text"]
            torch.testing.assert_close(torch.as_tensor(ours["llm.logits"]), theirs["llm.logits"], rtol=0, atol=1e-4)


def test_another_kind_of_attention_is_refused(params: dict[str, str], tmp_path: Path):
    """The prefix stands in the attention of LLaMA."""
    from support import checkpoints

    checkpoints.qwen2(tmp_path / "qwen")
    with (
        opened({"language": str(tmp_path / "qwen")} | {k: v for k, v in params.items() if k != "language"}) as wrong,
        pytest.raises(mg.ModelgraftError, match="other attention than LLaMA"),
    ):
        wrong.run(image=PHOTOS[0], prompt="?")
