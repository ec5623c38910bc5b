"""LLaVA beside its published code: the projector under its official keys, and pictures spliced between words, with labels."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from modelgraft.kernel.words.errors import InputError
from modelgraft.testing import conform, open_node
from modelgraft_plugins.llm.splice import IMAGE, SpliceConfig
from support.installed import registry
from support.open_part import counts, open_part
from support.oracles import Case, Oracle, cases, must_differ, oracle

REGISTRY = registry()
NAME = "llava_splice"


def folder_of(given: Oracle, home: Path) -> Path:
    """The weights under their official keys, and the sizes in the words of the fixture."""
    return given.as_folder(home, {"model_type": "llava", **given.config})


def by_row(ids: torch.Tensor, mask: torch.Tensor, pictures: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """The pictures of each row one behind the other, and how many embeddings each has.

    In the published code a row without a place takes a picture all the same, and nothing of it: here it has none.
    """
    rows: list[list[torch.Tensor]] = []
    for row, there in zip(ids, mask.bool(), strict=True):
        count = int((row[there] == IMAGE).sum())
        taken = [pictures.pop(0) for _ in range(max(count, 1))]
        rows.append(taken[:count])
    assert not pictures
    lengths = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.int64)
    image = torch.zeros(len(rows), max(sum(map(len, row)) for row in rows), rows[0][0].shape[-1] if rows[0] else rows[1][0].shape[-1])
    for row, taken in enumerate(rows):
        lengths[row, : len(taken)] = torch.tensor([len(picture) for picture in taken], dtype=torch.int64)
        if taken:
            image[row, : int(lengths[row].sum())] = torch.cat(taken)
    return image, lengths


def run(given: Oracle, case: Case, home: Path) -> dict[str, torch.Tensor]:
    """Through the components, each with the published keys; `left_` and `cut_` cases as their names say."""
    folder, inputs = str(folder_of(given, home)), case.inputs
    kind = "projector/linear" if given.config["projector_type"] == "linear" else "projector/mlp"
    projected = open_part(REGISTRY, kind, f"{folder}#multi_modal_projector")(inputs["features"])
    asked = {
        "fill": "left" if case.name.startswith("left") else "right",
        "max_length": given.config["max_length"] if case.name.startswith("cut") else None,
    }
    splice = open_part(REGISTRY, "llm/splice", f"{folder}#language_model", **asked)
    image, lengths = by_row(inputs["ids"], inputs["mask"], list(projected))
    found = splice(inputs["ids"], image, lengths, inputs["mask"].bool(), inputs["labels"])
    assert torch.equal(found.pop("targets")[:, :-1], found["labels"][:, 1:])
    return {"projected": projected, **found}


@pytest.mark.parametrize("case", cases(NAME))
def test_it_equals_the_published_code(case: Case, tmp_path: Path):
    """Every output, element by element."""
    case.compare_all(run(oracle(NAME), case, tmp_path))


@pytest.mark.parametrize("seed", range(3))
def test_a_weight_that_is_off_shows(tmp_path: Path, seed: int):
    must_differ(NAME, lambda given, case: run(given, case, tmp_path), seed=seed)


def test_the_parts_count_every_number_of_the_file(tmp_path: Path):
    given = oracle(NAME)
    folder = str(folder_of(given, tmp_path))
    kind = "projector/linear" if given.config["projector_type"] == "linear" else "projector/mlp"
    parts = [open_part(REGISTRY, kind, f"{folder}#multi_modal_projector"), open_part(REGISTRY, "llm/splice", f"{folder}#language_model")]
    found = [counts(part.node) for part in parts]
    assert all(formula == exact for formula, exact in found)
    assert sum(formula or 0 for formula, _ in found) == sum(tensor.numel() for tensor in given.weights.values())


SMALL = {"hidden_size": 3, "vocab_size": 7}


def test_it_keeps_its_declaration():
    conform(SpliceConfig, SMALL)


def test_media_without_lengths_share_their_embeddings_evenly():
    """As they do beside llm/causal; a row without a place takes none."""
    splice = open_node(SpliceConfig, SMALL)
    ids = torch.tensor([[1, IMAGE, 2, IMAGE], [3, 4, 5, 6]])
    image = torch.arange(2 * 4 * 3, dtype=torch.float32).reshape(2, 4, 3)
    found = splice(ids, image)
    assert found["mask"].tolist() == [[True] * 6, [True] * 4 + [False] * 2]
    assert torch.equal(found["embeddings"][0, [1, 2, 4, 5]], image[0])
    assert found["labels"].eq(-100).all()


@pytest.mark.parametrize(
    ("ids", "lengths", "said"),
    [
        ([[1, IMAGE]], [[2, 2]], r"row 1 has 1 place for media \(-200\), and media of \[2, 2\] embeddings in 4"),
        ([[1, 2]], [[4, 0]], r"row 1 has 0 places for media"),
        ([[IMAGE, IMAGE]], [[3, 3]], r"media of \[3, 3\] embeddings in 4"),
        ([[IMAGE, IMAGE, IMAGE]], None, "which share 4 embeddings unevenly"),
        ([[1, 9]], None, "got the id 9, wanted 0 to 6, or -200"),
        ([[1, -3]], None, "got the id -3"),
    ],
)
def test_what_does_not_match_is_one_error(ids: list[list[int]], lengths: list[list[int]] | None, said: str):
    splice = open_node(SpliceConfig, SMALL)
    with pytest.raises(InputError, match=said):
        splice(torch.tensor(ids), torch.zeros(1, 4, 3), None if lengths is None else torch.tensor(lengths))
