"""Of the towers of transformers, a few of each kind of layer are traced; their graphs give the numbers of the whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf

from modelgraft_plugins.onnx.calling import Exported
from modelgraft_plugins.onnx.exporting import open_fresh, trace

pytestmark = [
    pytest.mark.slow,  # it exports
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]

LAYERS = 4
SIZES = {"hidden_size": 16, "num_hidden_layers": LAYERS, "num_attention_heads": 2, "intermediate_size": 24}
PICTURES = {**SIZES, "image_size": 8, "patch_size": 4}
CONVOLUTIONS = {"conv_dim": (8, 8), "conv_kernel": (4, 3), "conv_stride": (2, 2), "num_feat_extract_layers": 2}
SOUNDS = {**SIZES, **CONVOLUTIONS, "num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2}
WORDS = {**SIZES, "vocab_size": 40, "max_position_embeddings": 32}


class Called(torch.nn.Module):
    """A model of transformers that takes one tensor by name, and gives the states before two of its layers and its last."""

    def __init__(self, model, name):
        super().__init__()
        self.model, self.name = model, name

    def forward(self, given):
        """given: what the model takes."""
        found = self.model(**{self.name: given}, output_hidden_states=True)
        return found.hidden_states[1], found.hidden_states[LAYERS - 1], found.last_hidden_state


def pictures(batch):
    return torch.randn(batch, 3, 8, 8)


def sounds(batch):
    return torch.randn(batch, 90)


def tokens(batch):
    return torch.randint(2, 40, (batch, 7))


# By name: the model, what it takes, made how, and how many of its layers become copies.
TOWERS: dict[str, tuple[Callable[[], Any], str, Callable[[int], torch.Tensor], int]] = {
    "vit": (lambda: hf.ViTModel(hf.ViTConfig(**PICTURES), add_pooling_layer=False), "pixel_values", pictures, 3),
    "clip": (lambda: hf.CLIPVisionModel(hf.CLIPVisionConfig(**PICTURES)), "pixel_values", pictures, 3),
    "siglip": (lambda: hf.SiglipVisionModel(hf.SiglipVisionConfig(**PICTURES)), "pixel_values", pictures, 3),
    "dinov2": (lambda: hf.Dinov2Model(hf.Dinov2Config(**PICTURES, mlp_ratio=2)), "pixel_values", pictures, 3),
    "wav2vec2": (lambda: hf.Wav2Vec2Model(hf.Wav2Vec2Config(**SOUNDS)), "input_values", sounds, 3),
    "hubert": (lambda: hf.HubertModel(hf.HubertConfig(**SOUNDS, do_stable_layer_norm=True)), "input_values", sounds, 3),
    "bert": (lambda: hf.BertModel(hf.BertConfig(**WORDS), add_pooling_layer=False), "input_ids", tokens, 3),
    "t5": (
        lambda: hf.T5EncoderModel(hf.T5Config(vocab_size=40, d_model=16, d_kv=8, d_ff=24, num_layers=LAYERS, num_heads=2)),
        "input_ids",
        tokens,
        2,
    ),
}


@pytest.mark.parametrize("name", TOWERS)
def test_towers_are_traced_by_one_layer_of_a_kind(name, tmp_path):
    """Inner states and the last one, on a batch that was not traced; T5's first layer has places that the others are handed."""
    torch.manual_seed(0)
    make, takes, draw, copies = TOWERS[name]
    whole = Called(make().eval(), takes).eval()
    for value in whole.parameters():
        torch.nn.init.normal_(value, std=0.2)
    sizes, outputs = ({0: torch.export.Dim.DYNAMIC},), ["first", "later", "last"]
    assert trace(whole, (draw(2),), tmp_path / "m.onnx", sizes=sizes, inputs=["given"], outputs=outputs, repeats=True) == copies
    case = draw(3)
    with torch.no_grad():
        expected = whole(case)
    for mine, theirs in zip(Exported(open_fresh(tmp_path / "m.onnx"), device="cpu")(case), expected, strict=True):
        np.testing.assert_allclose(mine, theirs.numpy(), atol=1e-4, rtol=1e-4)
