"""`modelgraft drawings`: which emoji an icon is, what it looks like, which split it is in, and what is kept between two runs."""

from __future__ import annotations

import hashlib
import io
import json
import os
import sys
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy
import pytest
from PIL import Image

from modelgraft.cli import main
from modelgraft.plugin import InputError
from modelgraft_plugins.drawings import listing, making, packages, vendors
from modelgraft_plugins.drawings.naming import Names, code_of, concepts, drawn
from modelgraft_plugins.drawings.rendering import is_whole, png_of, svg_of

ENTRIES = [
    {"label": "red apple", "hexcode": "1F34E", "tags": ["fruit", "red"], "group": 4},
    {"label": "rose", "hexcode": "1F339", "tags": ["flower"], "group": 3},  # held out
    {"label": "keycap: #", "hexcode": "0023-FE0F-20E3", "group": 8},
    {"label": "waving hand", "hexcode": "1F44B", "group": 1, "skins": [{"label": "waving hand: dark skin tone", "hexcode": "1F44B-1F3FF"}]},
    {"label": "ghost", "hexcode": "1F47B", "tags": ["creature"], "group": 0},
]
RED, BLUE = '<path fill="#f00" d="M0 0h16v16H0z"/>', '<path fill="#00f" d="M0 0h32v16H0z"/>'


def test_names_of_any_style_mean_one_emoji_and_the_first_giver_keeps_a_name():
    names = Names(ENTRIES)
    names.take([("1F339", "apple"), ("1F34E", "apple"), ("1F9FF", "amulet"), ("23-20e3", "number_sign")])
    assert (names["Red Apple"], names["red-apple"], names["redapple"]) == ("1F34E",) * 3
    assert names["apple"] == "1F339"
    assert names["numbersign"] == code_of("0023-FE0F-20E3") == "23-20E3"
    assert names["amulet"] == names["unheard of"] == ""  # of no emoji that there is


def test_an_icon_is_known_by_its_own_code_then_by_its_name_and_skin_tones_are_left_out():
    icons = {
        "icons": {"odd": {}, "rose": {}, "waving-hand-dark-skin-tone": {}, "unheard-of": {}},
        "aliases": {"ghost": {"parent": "odd"}, "waving-hand": {"parent": "rose", "hFlip": True}},  # a mirrored one is another drawing
    }
    found = drawn(icons, {"1f34e": "odd"}, Names(ENTRIES), concepts(ENTRIES, {}))
    assert found == {"1F339": "rose", "1F34E": "odd", "1F47B": "ghost"}
    assert list(found) == sorted(found)


def test_a_drawing_is_square_on_white_with_the_icon_in_the_middle():
    """A blue icon twice as wide as high: a quarter of white above it and below."""
    icons = {"icons": {"wide": {"body": BLUE, "width": 32}}, "aliases": {"broad": {"parent": "wide"}}, "height": 16}
    assert svg_of(icons, "broad") == svg_of(icons, "wide")
    png = png_of(svg_of(icons, "wide"), 8)
    pixels = numpy.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
    white, blue = [255, 255, 255], [0, 0, 255]
    assert pixels.tolist() == [[white] * 8] * 2 + [[blue] * 8] * 4 + [[white] * 8] * 2
    assert is_whole(png)
    assert not is_whole(png[:-1])
    with pytest.raises(InputError, match="resvg cannot draw it"):
        png_of("<svg", 8)


def test_the_held_out_concepts_are_those_that_the_rule_chooses():
    """The list holds 200 different codes in order, and the rule gives it back when it is offered no more than these."""
    listed = list(listing.held_out())
    assert len(set(listed)) == 200
    assert listed == sorted(listed)
    digests = {code: hashlib.sha256(b"modelgraft held-out " + code.encode()).digest() for code in listed}
    assert making.chosen(listed, 7) == tuple(sorted(sorted(listed, key=digests.__getitem__)[:7]))
    assert max(digests.values())[0] < 256 * 200 / 1949 * 1.3  # the 200 smallest of 1,949 even numbers lie about below a tenth


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of archives of two vendors, who draw four emoji, and of the names; the table of vendors says their hashes."""
    folder = tmp_path / "out" / "packages"
    icons = {name: {"body": RED} for name in ("red-apple", "rose")}
    own = {"hand": {"icons": icons}, "other": {"icons": {**icons, "ghost": {"body": RED}}}}
    table = {
        "hand": replace(vendors.VENDORS["twemoji"], package=_packed(folder, "hand", {"icons.json": own["hand"], "chars.json": {}})),
        "other": replace(vendors.VENDORS["fxemoji"], package=_packed(folder, "other", {"icons.json": own["other"], "chars.json": {}})),
    }
    lists = {f"en/shortcodes/{name}.json": {} for name in making.SHORTCODES}
    told = {
        "en/data.json": ENTRIES,
        "en/messages.json": {"groups": [{"order": 4, "message": "food & drink"}]},
        "meta/unicode-names.json": {},
    }
    monkeypatch.setattr(making, "VENDORS", table)
    monkeypatch.setattr(vendors, "VENDORS", table)
    monkeypatch.setattr(making, "NAMES", _packed(folder, "names", {**told, **lists}))
    return tmp_path / "out"


def _packed(folder: Path, name: str, members: dict[str, Any]) -> vendors.Package:
    folder.mkdir(parents=True, exist_ok=True)
    made = vendors.Package(name, "1.0.0", "")
    with tarfile.open(folder / made.file, "w:gz") as archive:
        for member, value in members.items():
            text = json.dumps(value).encode()
            info = tarfile.TarInfo(f"package/{member}")
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text))
    return replace(made, sha256=hashlib.sha256((folder / made.file).read_bytes()).hexdigest())


def picture_size(png: bytes) -> tuple[int, int]:
    with Image.open(io.BytesIO(png)) as picture:
        return picture.size


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_what_is_made_is_listed_in_splits_and_made_once(shop: Path, capsys: pytest.CaptureFixture[str]):
    """Held-out concepts train nothing whoever drew them, and the second run draws only what is not there or not whole."""
    assert main(["drawings", "emoji", str(shop), "--size", "16", "--offline", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["drawings"] == {"train": 1, "test": 1, "held_out": 2, "untrained": 1}
    assert not made["failed"]
    folder = shop / "16"
    about = {"caption": "red apple", "keywords": ["fruit", "red"], "concept": "1F34E", "group": "food & drink"}
    assert _lines(folder / "train.jsonl") == [{"image": "hand/1F34E.png", **about, "vendor": "hand", "split": "train"}]
    assert [line["vendor"] for line in _lines(folder / "held_out.jsonl")] == ["hand", "other"]
    assert [line["image"] for line in _lines(folder / "untrained.jsonl")] == ["other/1F47B.png"]
    assert [line["image"] for line in _lines(folder / "held_out.other.jsonl")] == ["other/1F339.png"]
    states = {line["caption"]: line["state"] for line in _lines(folder / "captions.jsonl")}
    assert states == {"red apple": "trained", "rose": "held_out", "ghost": "untrained"}
    assert "CC-BY-4.0 | Twitter" in (shop / "LICENCES.md").read_text(encoding="utf-8")
    before = {path: path.read_bytes() for path in folder.rglob("*.png")}
    assert {picture_size(png) for png in before.values()} == {(16, 16)}
    (folder / "hand/1F34E.png").write_bytes(b"cut")
    (folder / "other/1F339.png").unlink()
    os.utime(folder / "other/1F34E.png", (1, 1))
    assert main(["drawings", "emoji", str(shop), "--size", "16", "--offline"]) == 0
    assert {path: path.read_bytes() for path in folder.rglob("*.png")} == before
    assert (folder / "other/1F34E.png").stat().st_mtime == 1  # was not drawn again


def test_the_split_of_a_drawing_does_not_depend_on_whose_are_drawn(shop: Path):
    assert main(["drawings", "emoji", str(shop), "--size", "16", "--vendor", "other", "--offline"]) == 0
    assert [line["image"] for line in _lines(shop / "16" / "test.jsonl")] == ["other/1F34E.png"]
    assert not _lines(shop / "16" / "train.jsonl")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--size", "0"], "at least 1"),
        (["--size", "9999"], "at most 2048"),
        (["--vendor", "apple"], "found 'apple'; there are: hand, other"),
    ],
)
def test_words_that_mean_nothing_are_usage_errors(shop: Path, capsys: pytest.CaptureFixture[str], words: list[str], told: str):
    assert main(["drawings", "emoji", str(shop), "--offline", *words]) == 2
    assert told in " ".join(capsys.readouterr().err.replace("│", " ").split())


def test_archives_that_are_not_the_pinned_ones_are_refused(shop: Path, monkeypatch: pytest.MonkeyPatch):
    """Another hash, none at all without a network, and no npm to fetch with: each says what to do."""
    package = making.VENDORS["hand"].package
    path = shop / "packages" / package.file
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(InputError, match=rf"has sha256 .* wanted {package.sha256}"):
        packages.fetch(package, shop / "packages")
    path.unlink()
    with pytest.raises(InputError, match="this run is offline"):
        packages.fetch(package, shop / "packages", offline=True)
    monkeypatch.setattr(packages.shutil, "which", lambda _: None)
    with pytest.raises(InputError, match="there is no npm; install it"):
        packages.fetch(package, shop / "packages")


def test_what_cannot_be_drawn_is_told_and_left_out(shop: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    def refuse(svg: str, side: int) -> bytes:
        raise InputError("resvg cannot draw it: a reason")

    monkeypatch.setattr(making, "png_of", refuse)
    assert main(["drawings", "emoji", str(shop), "--size", "16", "--offline", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["failed"]["hand/1F34E.png"] == "resvg cannot draw it: a reason"
    assert sum(told["drawings"].values()) == 0
    assert not _lines(shop / "16" / "train.jsonl")


@pytest.mark.parametrize("collection", ["emoji", "clipart"])
def test_nothing_is_fetched_where_nothing_can_be_drawn(
    collection: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    assert main(["drawings", collection, str(tmp_path / "out"), "--offline"]) == 1
    assert "pip install 'modelgraft[png]'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
