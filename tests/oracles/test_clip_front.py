"""What goes before CLIP equals the code of its authors: pictures to the last bit, and token ids."""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import modelgraft as mg
from modelgraft.tools.importer import import_graph
from modelgraft_plugins.families._shared import CLIP_MEAN as MEAN
from modelgraft_plugins.families._shared import CLIP_STD as STD
from modelgraft_plugins.text.cleaning import mended
from support.installed import registry
from support.open_part import open_part
from support.oracles import home_of, oracle
from support.pictures import picture
from support.tokenizers import clip_bpe

REGISTRY = registry()


VOCABULARY = "pypi:open_clip_torch==3.3.0/open_clip/bpe_simple_vocab_16e6.txt.gz"
SHA256 = "924691ac288e54409236115652ad4aa250f48203de50a9e4722a6ecd48d6804a"


def front() -> Any:
    """What OpenAI's own transform and tokenizer gave."""
    return np.load(home_of("clip_frontend.npz"))


def prepared(folder: Path, pictures: list[Any], side: int) -> torch.Tensor:
    """Pictures by the settings that a file of the authors has, which says nothing of them."""
    given = oracle("clip_openclip").config
    words = {**given, "vision_cfg": {**given["vision_cfg"], "image_size": side}}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": words}))
    return open_part(REGISTRY, "vision/preprocess", str(folder))(pictures)


def test_pictures_are_prepared_as_by_the_published_code(tmp_path: Path):
    """To the last bit."""
    found, wanted = front(), torch.from_numpy(front()["out/pixels_224"])
    got = prepared(tmp_path, [Image.fromarray(found["in/picture_uint8_hwc"])], wanted.shape[-1])
    assert torch.equal(got, wanted[None])


@pytest.mark.parametrize(("width", "height"), [(57, 40), (40, 59), (61, 40), (40, 63), (1, 1), (3, 700)])
def test_the_middle_of_a_picture_is_where_the_published_transform_has_it(tmp_path: Path, width: int, height: int):
    """`int(round((long - short) / 2))`, which goes to the even side of a half; and the shorter side is scaled first."""
    side, image = 40, picture(width, height)
    longest = int(side * max(width, height) / min(width, height))
    size = (longest, side) if width > height else (side, longest)
    left, top = (round((length - side) / 2) for length in size)
    cut = np.asarray(image.resize(size, Image.Resampling.BICUBIC).crop((left, top, left + side, top + side)))
    mean, std = (np.array(numbers, np.float32) for numbers in (MEAN, STD))
    wanted = (cut.astype(np.float32) / np.float32(255) - mean) / std
    assert np.array_equal(prepared(tmp_path, [image], side)[0].permute(1, 2, 0).numpy(), wanted)


@pytest.mark.network
def test_ids_are_those_of_the_published_tokenizer(tmp_path: Path):
    """Every id of every text: mended, cut into words, merged, filled up with 0, and shortened so that the end token is the last."""
    found, config = front(), json.loads(str(front()["cfg"]))
    wanted = torch.from_numpy(found["out/ids_77"]).long()
    path = tmp_path / "ids.yaml"
    path.write_text(
        "modelgraft: 1\ninputs: {text: text}\nnodes:\n"
        f'  tokens: {{use: text/tokenizer, from: "{VOCABULARY}#sha256={SHA256}", in: {{text: inputs.text}},'
        f" with: {{padding: max_length, truncate: true, max_length: {wanted.shape[1]}}}}}\n"
        "outputs: {ids: tokens.ids}\n"
    )
    with mg.open(path) as pipeline:
        ids = pipeline.run(text=config["texts"])["ids"]
    assert torch.equal(ids, wanted)


@pytest.mark.network
def test_the_official_file_and_the_vocabulary_of_its_authors_choose_a_text(tmp_path: Path):
    """From a picture and words to an answer with no hub: random weights of a file's layout, a real photograph, the real vocabulary."""
    from skimage import data

    config = oracle("clip_openclip").config
    words = {**config, "text_cfg": {**config["text_cfg"], "vocab_size": 49408, "context_length": 77}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": words}))
    params = {"checkpoint": str(tmp_path), "tokenizer": VOCABULARY}
    with mg.open("clip", params=params, init="random") as pipeline:
        found = pipeline.run(image=Image.fromarray(data.chelsea()), labels=["a cat", "a dog &amp; a caf\u00e9"])
    assert found["probabilities"].sum().item() == pytest.approx(1, abs=1e-6)


def test_text_is_mended_as_by_the_published_code():
    """By ftfy, HTML read twice, white space joined, small letters; plain text goes the short way, and is the same."""
    import html

    import ftfy

    texts = [
        "A  photo\tof a Cat ",
        "&amp;amp; &lt;br&gt;",
        "caf\u00c3\u00a9 \u201cquoted\u201d",
        "\u00dcber\u3000weit",
        "it's $5 & more",
        "\x07bell",
    ]
    for text in texts:
        wanted = " ".join(html.unescape(html.unescape(ftfy.fix_text(text))).strip().split()).lower()
        assert mended(text, name="tokens") == wanted, text


def test_what_cannot_be_mended_without_its_package_is_told(monkeypatch: pytest.MonkeyPatch):
    """Plain text needs nothing; other letters do, and are not taken as they stand."""
    monkeypatch.setitem(sys.modules, "ftfy", None)
    assert mended("A  Cat!", name="tokens") == "a cat!"
    with pytest.raises(
        mg.ModelgraftError, match="mends with the package ftfy, which is not installed; pip install ftfy, or set clean: none"
    ):
        mended("a caf\u00e9", name="tokens")


def test_a_strip_that_would_fill_the_memory_is_refused(tmp_path: Path):
    """With what it is, and what it would become at the size of published models."""
    with pytest.raises(mg.ModelgraftError, match="a picture of 20000 x 3 becomes 224 x 1493333 when its shorter side is 224"):
        prepared(tmp_path, [picture(20_000, 3)], 224)


def test_a_folder_of_open_clip_becomes_the_graph_of_clip(tmp_path: Path):
    """As `modelgraft import` writes it."""
    prepared(tmp_path, [picture(9, 9)], 224)
    clip_bpe().save_pretrained(tmp_path)
    assert import_graph(str(tmp_path), folder=tmp_path).startswith("# Choose the text that fits a picture best")


def test_a_file_that_is_no_vocabulary_is_refused(tmp_path: Path):
    """Whatever it holds in place of merges."""
    path, graph = tmp_path / "words.txt.gz", tmp_path / "ids.yaml"
    nodes = "nodes:\n  tokens: {use: text/tokenizer, from: ./words.txt.gz, in: {text: inputs.text}}\n"
    graph.write_text(f"modelgraft: 1\ninputs: {{text: text}}\n{nodes}outputs: {{ids: tokens.ids}}\n")
    for content in (b"no gzip", gzip.compress(b"one\ntwo three four\n"), gzip.compress(b"")):
        path.write_bytes(content)
        with pytest.raises(mg.GraphError, match="it is no vocabulary of CLIP"), mg.open(graph) as pipeline:
            pipeline.run(text="a cat")
