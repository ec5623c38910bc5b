"""A connector through a memory: what is seen recalls sentences, and their words become soft tokens."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from modelgraft.installed.discovery import assemble
from modelgraft_plugins import projectors
from modelgraft_plugins.projectors import vector_file
from modelgraft_plugins.projectors.memory_file import OFTEN, places_apart, places_of
from modelgraft_plugins.projectors.vector_file import write
from support.open_part import counts, open_part

REGISTRY = assemble({"projectors": projectors})
PLACES = ((0, 1, 3), (2, 3, 3), (1, 0, 2), (4, 3, 3))


@pytest.fixture
def kept(tmp_path: Path) -> dict[str, Tensor]:
    """A memory of four sentences of three tokens out of five, as a file in float16."""
    made = torch.Generator().manual_seed(3)
    keys, rows = torch.randn(4, 6, generator=made).half(), torch.randn(5, 7, generator=made).half()
    save_file({"keys": keys, "rows": rows, "places": torch.tensor(PLACES)}, tmp_path / "memory.safetensors")
    return {"keys": keys.float(), "rows": rows.float()}


@pytest.mark.parametrize("scale", [1.0, 50.0])
def test_soft_tokens_are_means_of_embeddings_by_nearness(tmp_path: Path, kept: dict[str, Tensor], scale: float):
    """Against loops: the cosine to each sentence, times the scale, decides how much of each of its embeddings goes into each slot."""
    recall = open_part(REGISTRY, "projector/memory", str(tmp_path / "memory.safetensors"), scale=scale)
    x = torch.randn(2, 6, generator=torch.Generator().manual_seed(1))
    found = recall(x)
    assert found.shape == (2, 3, 7)
    for seen, tokens in zip(x, found, strict=True):
        cosines = [float(seen @ key / (seen.norm() * key.norm())) for key in kept["keys"]]
        exponents = [torch.tensor(scale * cosine, dtype=torch.float64).exp() for cosine in cosines]
        for slot in range(3):
            wanted = sum(one / sum(exponents) * kept["rows"][places[slot]].double() for one, places in zip(exponents, PLACES, strict=True))
            torch.testing.assert_close(tokens[slot].double(), wanted, rtol=0, atol=2e-5)
    formula, built = counts(recall.node)
    assert formula == built == 4 * 6 + 5 * 7


def test_what_is_seen_clearly_reads_as_one_sentence(tmp_path: Path, kept: dict[str, Tensor]):
    recall = open_part(REGISTRY, "projector/memory", str(tmp_path / "memory.safetensors"), scale=1e4)
    torch.testing.assert_close(recall(3 * kept["keys"][2:3])[0], kept["rows"][list(PLACES[2])], rtol=0, atol=1e-5)


def test_a_memory_may_lift_sentences_that_were_not_trained_on(tmp_path: Path, kept: dict[str, Tensor]):
    """The shares are those of the cosines with the numbers of the file added."""
    priors = torch.tensor([0.0, 0.0, 0.5, 0.25])
    save_file({**kept, "places": torch.tensor(PLACES), "priors": priors}, tmp_path / "lifted.safetensors")
    recall = open_part(REGISTRY, "projector/memory", str(tmp_path / "lifted.safetensors"), scale=3.0)
    x = torch.randn(2, 6, generator=torch.Generator().manual_seed(1))
    exponents = (3 * (torch.nn.functional.cosine_similarity(x[:, None], kept["keys"][None], dim=-1) + priors)).exp()
    wanted = torch.einsum("bs,skd->bkd", exponents / exponents.sum(1, keepdim=True), kept["rows"][torch.tensor(PLACES)])
    torch.testing.assert_close(recall(x), wanted, rtol=0, atol=1e-5)
    formula, built = counts(recall.node)
    assert formula == built == 4 * 6 + 5 * 7 + 4


def test_sentences_are_cut_or_filled_up_and_share_the_rows_of_their_tokens():
    places, ids = places_of([[40, 7], [7, 40, 99, 1], [12]], slots=3, filler=5)
    assert ids == [5, 7, 12, 40, 99]  # 1 stands where nothing is kept
    assert [[ids[place] for place in row] for row in places] == [[40, 7, 5], [7, 40, 99], [12, 5, 5]]


def test_a_memory_of_tokens_knows_of_each_place_what_stands_there(kept: dict[str, Tensor]):
    """Against loops over the sentences: the mean of their vectors, the embedding, and more for what stands there more often."""
    keys = torch.nn.functional.normalize(kept["keys"], dim=-1)
    found = places_apart(keys, torch.tensor(PLACES), kept["rows"])
    for place in range(3):
        tokens = sorted({row[place] for row in PLACES})
        assert found[f"place_{place}.places"].tolist() == [[number] for number in range(len(tokens))]
        for number, token in enumerate(tokens):
            having = [key for key, row in zip(keys, PLACES, strict=True) if row[place] == token]
            mean = torch.stack(having).mean(0)
            torch.testing.assert_close(found[f"place_{place}.keys"][number], mean / mean.norm())
            torch.testing.assert_close(found[f"place_{place}.rows"][number], kept["rows"][token])
            assert float(found[f"place_{place}.priors"][number]) == pytest.approx(OFTEN * math.log(len(having)))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (None, r"read.jsonl cannot be read"),
        ("", r"read.jsonl has no line"),
        ("{", r"read.jsonl:1 is no JSON"),
        ('{"read": [[1.0]], "kinds": [[1.0]]}', r"read.jsonl:1 has no caption"),
        ('{"caption": "apple", "read": [[1.0]]}', r"read.jsonl:1 has no `kinds`, as a list with one vector"),
    ],
)
def test_lines_that_are_no_memory_are_told_in_a_sentence(line: str | None, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    if line is not None:
        (tmp_path / "read.jsonl").write_text(line)
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    monkeypatch.setattr("sys.argv", ["vector_file", str(tmp_path / "read.jsonl"), "kinds", "--out", str(tmp_path / "out.safetensors")])
    with pytest.raises(SystemExit, match=rf"error: .*{message}"):
        vector_file.main()
    assert os.environ["TQDM_DISABLE"] == "1"  # libraries that a command imports show no bars
    assert not (tmp_path / "out.safetensors").exists()


def test_a_memory_of_vectors_recalls_what_another_column_says_of_the_name_that_is_near(tmp_path: Path):
    """Whatever its length; a name of which the column says nothing recalls itself, and one that was not trained on is lifted."""
    lines = [
        {"caption": "apple", "read": [[3.0, 0.0, 0.0]], "kinds": [[0.0, 0.0, 5.0]], "state": "trained"},
        {"caption": "ten", "read": [[0.0, 2.0, 0.0]], "kinds": [[0.0, 0.0, 0.0]], "state": "held_out"},
    ]
    (tmp_path / "read.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    assert write(tmp_path / "read.jsonl", "kinds", tmp_path / "kinds.safetensors", lift=0.25) == 2
    recall = open_part(REGISTRY, "projector/memory", str(tmp_path / "kinds.safetensors"), scale=1e4)
    found = recall(torch.tensor([[1.0, 0.1, 0.0], [0.1, 1.0, 0.0], [1.0, 0.9, 0.0]]))
    torch.testing.assert_close(found[:, 0], torch.tensor([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [0.0, 1.0, 0.0]]), rtol=0, atol=1e-6)
