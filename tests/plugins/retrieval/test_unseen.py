"""retrieval/unseen: each ask of a record is answered with what it has not seen; records do not know each other."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from modelgraft import ABSENT
from modelgraft.installed.discovery import discover
from modelgraft.plugin import InputError
from modelgraft_plugins.retrieval import Unseen
from modelgraft_plugins.retrieval.filed import Entry, Index
from modelgraft_plugins.retrieval.header import NOWHERE, About
from modelgraft_plugins.retrieval.pictures import Finding
from modelgraft_plugins.retrieval.searching import graph_of, unit
from modelgraft_plugins.retrieval.unseen import Answering
from support.pictures import picture

COUNT, WIDTH = 9, 5
MODEL = {"name": "m", "space": "", "sources": {}, "digest": "d", "output": "g: v"}
VECTORS = unit(np.random.default_rng(3).standard_normal((COUNT, WIDTH)))


def answering(folder: Path, *, is_approximate: bool = False, root: str | None = None, **more: object) -> Answering:
    """Over an index of nine vectors, with small pictures."""
    entries = [Entry(f"p{number}.png", "", "") for number in range(COUNT)]
    about = About(WIDTH, COUNT, MODEL, str(folder) if root is None else root, "image")
    index = Index(about, VECTORS, entries, [small(number) for number in range(COUNT)], [], graph_of(VECTORS) if is_approximate else None)
    config = Unseen(width=WIDTH, entries=COUNT, **more)
    return Answering(config, index, node="found", read=discover().record_types["image"].read)


def small(number: int) -> bytes:
    import io

    stream = io.BytesIO()
    Image.new("RGB", (4, 4), (20 * number, 0, 0)).save(stream, "JPEG")
    return stream.getvalue()


def by_loops(asks: np.ndarray, count: int, seen: list[int]) -> list[list[int]]:
    """As the published code has it: what was seen loses a thousand."""
    shown, found = list(seen), []
    for ask in asks:
        scores = VECTORS @ ask
        scores[shown] -= 1000
        found.append(np.argsort(-scores, kind="stable")[:count].tolist())
        shown += found[-1]
    return found


@pytest.mark.parametrize("is_approximate", [False, True])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_what_was_shown_is_pushed_down(tmp_path: Path, count: int, is_approximate: bool):
    """In a record, over all of its asks and what it has seen before; more than there is begins again."""
    asks = [unit(np.random.default_rng(seed).standard_normal((4, WIDTH))) for seed in (1, 2)]
    part = answering(tmp_path, count=count, is_approximate=is_approximate)
    found = part([[torch.from_numpy(row) for row in record] for record in asks], [[str(tmp_path / "p4.png"), "unknown.png"], []])
    for record, asked, seen in zip(found["paths"], asks, ([4], []), strict=True):
        assert [[int(Path(path).stem[1:]) for path in paths] for paths in record] == by_loops(asked, count, seen)
    for record, asked, paths in zip(found["scores"], asks, found["paths"], strict=True):
        wanted = [[VECTORS[int(Path(path).stem[1:])] @ ask for path in names] for names, ask in zip(paths, asked, strict=True)]
        np.testing.assert_allclose(record.numpy(), wanted, atol=1e-6)


def test_asks_that_gave_nothing_and_records_that_asked_nothing(tmp_path: Path):
    """They have no pictures, and change nothing for the others."""
    ask = torch.from_numpy(VECTORS[6].copy())
    found = answering(tmp_path)([[ABSENT, ask], []])
    assert found["paths"] == [[[], [str(tmp_path / "p6.png")]], []]
    assert [[len(images) for images in record] for record in found["images"]] == [[0, 1], []]
    assert [len(scores) for scores in found["scores"]] == [2, 0]


def test_pictures_are_small_unless_their_files_are_asked_for(tmp_path: Path):
    """A file that is gone, or leads out of the folder, is shown small, and that is told."""
    picture(31, 17, seed=2).save(tmp_path / "p6.png")
    (tmp_path / "p5.png").symlink_to("/etc/hostname")
    told: list[str] = []
    part = answering(tmp_path, whole=True)
    part.runtime.emit = lambda kind, **given: told.append(given["text"])  # type: ignore[method-assign]
    asks = [[torch.from_numpy(VECTORS[number].copy())] for number in (6, 7, 5)]
    sizes = [record[0][0].size for record in part(asks)["images"]]
    assert sizes == [(31, 17), (4, 4), (4, 4)]
    assert len(told) == 2
    assert "p7.png is shown small" in told[0]
    assert "leads out of the folder" in told[1]
    assert answering(tmp_path)(asks)["images"][0][0][0].size == (4, 4)


def test_vectors_of_no_folder_keep_the_names_that_they_had(tmp_path: Path):
    found = answering(tmp_path, root=NOWHERE, whole=True)([[torch.from_numpy(VECTORS[2].copy())]])
    assert found["paths"] == [[["p2.png"]]]
    assert len(found["images"][0][0]) == 1


def test_the_nearest_pictures_of_each_record_are_given_themselves(tmp_path: Path):
    """Small ones of the index, or those in their files; with their names."""
    for number in range(COUNT):
        picture(40 + number, 30).save(tmp_path / f"p{number}.png")
    for whole, side in ((False, (4, 4)), (True, (47, 30))):
        found = Finding(answering(tmp_path, count=3, whole=whole))(torch.from_numpy(VECTORS[[7, 2]]))
        assert [record[0] for record in found["names"]] == ["p7.png", "p2.png"]
        assert [len(record) for record in found["images"]] == [3, 3]
        assert found["image"][0].size == side
        assert found["scores"].shape == (2, 3)
        assert torch.allclose(found["scores"][:, 0], torch.ones(2), atol=1e-6)


def test_a_picture_that_is_gone_from_the_disk_and_not_in_the_index_is_told(tmp_path: Path):
    part = answering(tmp_path, whole=True)
    part.index = dataclasses.replace(part.index, thumbnails=[b""] * COUNT)
    with pytest.raises(InputError, match=r"p4\.png' is gone, and the index has no small picture of it: index the folder again"):
        Finding(part)(torch.from_numpy(VECTORS[[4]]))
