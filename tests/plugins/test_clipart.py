"""`modelgraft drawings clipart`: how a package of Debian is fetched and opened, and which of its drawings are used."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy
import pytest
from PIL import Image

from modelgraft.cli import main
from modelgraft.plugin import InputError
from modelgraft_plugins.drawings import clipart, debian, vendors
from modelgraft_plugins.drawings.naming import Concept

ABOUT = """<metadata><r:RDF xmlns:r="http://www.w3.org/1999/02/22-rdf-syntax-ns#" xmlns:c="http://web.resource.org/cc/"
 xmlns:d="http://purl.org/dc/elements/1.1/"><c:Work><d:title>{title}</d:title><d:subject><r:Bag>{words}</r:Bag></d:subject>
 <d:creator><c:Agent><d:title>somebody</d:title></c:Agent></d:creator><c:license r:resource="{licence}"/></c:Work></r:RDF></metadata>"""
FREE = "http://web.resource.org/cc/PublicDomain"
RED = '<rect x="30" y="200" width="120" height="60" fill="#f00"/>'


def svg(title: str, *words: str, licence: str = FREE, size: str = 'width="2in" height="100mm"', shape: str = RED) -> bytes:
    said = ABOUT.format(title=title, words="".join(f"<r:li>{word}</r:li>" for word in words), licence=licence)
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>{said}{shape}</svg>'.encode()


FILES = {
    "animals/red_hen.svg": svg("red_hen &amp;amp; egg", "bird", "hash(0x8f3)", "farm_animal"),
    "animals/bat_1.svg": svg("Bat", "animal", "flying"),  # the name of a concept that is held out
    "signs/chile.svg": svg("Clipart by A. Body - Chile", "flag", "sign"),  # so is "flag: Chile"
    "shapes/nothing.svg": svg("nothing", "white", "empty", shape=""),
    "shapes/far.svg": svg("somewhere", "of", "no size", size='width="100%"'),
    "shapes/theirs.svg": svg("theirs", "not", "free", licence="http://creativecommons.org/licenses/GPL/2.0/"),
    "shapes/bare.svg": svg("bare", "hash(0x1)", "one"),
    **{f"shapes/many{number}.svg": svg("A theme", "icon", "computer") for number in range(4)},
}


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a package of Debian that holds FILES, whose hash is the one that is pinned."""
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w:xz") as archive:
        for name, content in {**{clipart.ROOT + name: content for name, content in FILES.items()}, "usr/share/doc/copyright": b"x"}.items():
            info = tarfile.TarInfo(f"./{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        link = tarfile.TarInfo(f"./{clipart.ROOT}animals/again.svg")
        link.type, link.linkname = tarfile.SYMTYPE, "red_hen.svg"
        archive.addfile(link)
    content = b"!<arch>\n"
    for name, member in {"debian-binary": b"2.0", "data.tar.xz": held.getvalue()}.items():
        content += f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(member):<10}`\n".encode() + member + b"\n" * (len(member) % 2)
    package = replace(vendors.CLIPART, sha256=hashlib.sha256(content).hexdigest())
    monkeypatch.setattr(clipart, "CLIPART", package)
    (tmp_path / "out/packages").mkdir(parents=True)
    (tmp_path / "out/packages" / package.file).write_bytes(content)
    return tmp_path / "out"


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_what_says_what_it_shows_is_drawn_and_listed_and_what_was_left_out_is_counted(shop: Path, capsys: pytest.CaptureFixture[str]):
    """Of eleven files three are used; two of them show what emoji that are held out show, so that nothing is trained on them."""
    assert main(["drawings", "clipart", str(shop), "--size", "32", "--offline", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (sum(told["drawings"].values()), told["drawings"]["held_out"], told["failed"]) == (3, 2, {})
    assert told["left_out"] == {
        "that do not say that they are in the public domain": 1,
        "without a title or 2 keywords": 1,
        "with a title of more than 3": 4,
        "of no size": 1,
        "that show nothing": 1,
    }
    folder = shop / "32"
    assert [line["caption"] for line in _lines(folder / "held_out.jsonl")] == ["Bat", "Chile"]
    hen = {"caption": "red hen & egg", "keywords": ["bird", "farm animal"], "vendor": "openclipart", "concept": "animals/red_hen"}
    (line,) = _lines(folder / "train.jsonl") + _lines(folder / "test.jsonl")
    assert line == {"image": "openclipart/animals/red_hen.png", **hen, "group": "animals", "split": line["split"]}
    pixels = numpy.asarray(Image.open(folder / line["image"]).convert("RGB"))
    red = pixels[..., 1] < 128
    columns, rows = red.any(0).nonzero()[0], red.any(1).nonzero()[0]
    assert columns[0] + columns[-1] == rows[0] + rows[-1] == 31  # in the middle
    assert 28 <= len(columns) <= 30  # with an edge of about a pixel
    assert abs(2 * len(rows) - len(columns)) <= 2  # twice as wide as high
    assert "public domain" in (shop / "LICENCES.md").read_text(encoding="utf-8")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.png")}
    assert main(["drawings", "clipart", str(shop), "--size", "32", "--offline"]) == 0
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.png")} == before
    assert "left out: 4 with a title of more than 3" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("title", "keywords", "shown"),
    [
        ("Viet_nam", (), True),  # "flag: Vietnam", squeezed
        ("a pink one", ("rose",), True),
        ("wheel of a bat mobile", (), True),
        ("combat", ("roses",), False),
        ("ice", ("water",), False),  # "ice cream" is not
    ],
)
def test_a_drawing_shows_a_concept_when_all_words_of_its_name_are_said(title: str, keywords: tuple[str, ...], shown: bool):
    concept = Concept("code", title, keywords, "")
    assert clipart.shows_any(concept, ["flag: Vietnam", "rose", "bat", "ice cream"]) is shown


APT = """#!/bin/sh
echo "$@" >> {told}
case "$*" in
  *update*) ;;
  *Dir::State*download*) echo deb > '{file}' ;;
  *) echo 'E: Version not found' >&2; exit 100 ;;
esac
"""


def test_apt_fetches_without_root_by_lists_of_its_own_where_the_machine_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """First by the lists of the machine; then by some in the folder, which are gone afterwards. What cannot be fetched says a way out."""
    apt, told = tmp_path / "bin/apt-get", tmp_path / "told"
    apt.parent.mkdir()
    apt.write_text(APT.format(told=told, file=vendors.CLIPART.file))
    apt.chmod(0o755)
    monkeypatch.setattr(debian.shutil, "which", lambda _: str(apt))
    debian.download(vendors.CLIPART, tmp_path / "packages")
    assert [path.name for path in (tmp_path / "packages").iterdir()] == ["openclipart-svg_1%3a0.18+dfsg-19_all.deb"]
    assert [line.split()[-1] for line in told.read_text().splitlines()] == [named := "openclipart-svg=1:0.18+dfsg-19", "update", named]
    apt.write_text("#!/bin/sh\necho 'E: No network' >&2\nexit 100\n")
    with pytest.raises(InputError, match=r"could not fetch openclipart-svg=\S+: E: No network; put openclipart-svg_\S+ into .* by hand"):
        debian.download(vendors.CLIPART, tmp_path / "other")
    monkeypatch.setattr(debian.shutil, "which", lambda _: None)
    with pytest.raises(InputError, match=r"there is no apt-get; put .* mirrors of Debian have it in pool/main/o/openclipart"):
        debian.download(vendors.CLIPART, tmp_path / "other")


def test_a_file_that_is_no_package_of_debian_is_refused(tmp_path: Path):
    path = tmp_path / "a.deb"
    for content in (b"PK", b"!<arch>\n", b"!<arch>\ncut"):
        path.write_bytes(content)
        with pytest.raises(InputError, match="cannot be read as a package of Debian"):
            list(debian.files_of(path))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["photos"], "found 'photos'; there are: emoji, clipart; a folder is named behind one of them: modelgraft drawings emoji photos"),
        (["clipart", "--vendor", "noto"], "only emoji are by several vendors"),
    ],
)
def test_words_that_mean_nothing_here_are_usage_errors(capsys: pytest.CaptureFixture[str], words: list[str], told: str):
    assert main(["drawings", *words, "--offline"]) == 2
    assert told in " ".join(capsys.readouterr().err.replace("│", " ").split())
