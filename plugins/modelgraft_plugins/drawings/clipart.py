"""A folder of clip art in the public domain with its titles and keywords, in the splits and columns of `making.py`.

OUT/packages/                       the package, as apt-get fetched it
OUT/128/openclipart/animals/….png   a drawing of 128 x 128 pixels
OUT/128/train.jsonl, test.jsonl     lines of image, caption, keywords, vendor, concept, group, split
OUT/128/held_out.jsonl              drawings of what emoji that are held out show: nothing is trained on them
OUT/LICENCES.md                     whose the drawings are
"""

from __future__ import annotations

import hashlib
import html
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from modelgraft.commands import file_aside
from modelgraft_plugins.drawings.debian import download, files_of
from modelgraft_plugins.drawings.listing import Drawing, Tell, draw, held_out, list_splits
from modelgraft_plugins.drawings.naming import Concept
from modelgraft_plugins.drawings.packages import kept
from modelgraft_plugins.drawings.rendering import cropped_png_of, framed, is_blank, require_renderer
from modelgraft_plugins.drawings.vendors import CLIPART, CLIPART_HOME, CLIPART_LICENCE

VENDOR = "openclipart"
SPLITS = ("train", "test", "held_out")
ROOT = "usr/share/openclipart/svg/"  # of what the package installs
TEST_SHARE = 0.1  # of the titles
MOST_OF_A_TITLE = 3  # a title of more drawings names a collection, not what is drawn
LEAST_KEYWORDS = 2  # with fewer, nobody has looked at it
NO_WORD = re.compile(r"hash|(hash\()?0x[0-9a-f]+\)?|\W*")  # what a script of the collectors left among the keywords
COLLECTION = re.compile(r"clip ?art by [^-]* - ", re.IGNORECASE)  # "Clipart by Steve Hall - United States - Arkansas"
DC, RDF, SVG = "{http://purl.org/dc/elements/1.1/}", "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}", "{http://www.w3.org/2000/svg}"


@dataclass(slots=True)
class Sorted:
    """Files of the package: those that are used, and how many are not, by the reason."""

    pictures: dict[str, tuple[Concept, str]] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)


def make(out: Path, *, side: int, offline: bool, tell: Tell) -> dict[str, Any]:
    """Fetch, draw and list; what is there and whole stays. Gives the folder, counts by split, and what could not be
    drawn or was left out.

    Raises InputError: see `debian.download`, `packages.kept` and `require_renderer`; a folder that cannot be written.
    """
    require_renderer()
    package = kept(CLIPART, out / "packages", download, offline=offline)
    found = sort(files_of(package))
    held = held_out().values()
    drawings = [
        Drawing(f"{VENDOR}/{name}.png", concept, VENDOR, split_of(concept, held), name)
        for name, (concept, _) in sorted(found.pictures.items())
    ]
    folder = out / str(side)
    failed = dict(draw(drawings, folder, lambda one: cropped_png_of(found.pictures[one.icon][1], side), tell))
    done = [one for one in drawings if one.image not in failed]
    seen = [one for one in done if not is_blank(folder / one.image)]
    counts = list_splits(folder, SPLITS, seen)
    with file_aside(out / "LICENCES.md") as aside:
        aside.write_text(LICENCES, encoding="utf-8")
    left_out = {**found.left_out, "that show nothing": len(done) - len(seen)}
    return {"folder": str(folder), "drawings": counts, "failed": failed, "left_out": left_out}


LICENCES = f"""# Whose these drawings are

They were rendered from SVG on white, and cut to what they show.

| drawings | licence | by | home | package |
|---|---|---|---|---|
| {VENDOR} | {CLIPART_LICENCE} | contributors of the Open Clip Art Library | {CLIPART_HOME} | {CLIPART.name} {CLIPART.version} of Debian |
"""


def sort(files: Iterable[tuple[str, bytes]]) -> Sorted:
    """Read titles and keywords, and leave out what has none that say what is drawn, or does not say that it is in the public domain."""
    found, titles = Sorted(), Counter[str]()
    for name, content in files:
        if not (name.startswith(ROOT) and name.endswith(".svg")):
            continue
        title, keywords, licence = described(content)
        titles[title.lower()] += 1
        code = name.removeprefix(ROOT).removesuffix(".svg")
        if "publicdomain" not in licence.lower().replace(" ", ""):
            found.left_out["that do not say that they are in the public domain"] += 1
        elif not title or len(keywords) < LEAST_KEYWORDS:
            found.left_out[f"without a title or {LEAST_KEYWORDS} keywords"] += 1
        elif not (svg := framed(content)):
            found.left_out["of no size"] += 1
        else:
            found.pictures[code] = Concept(code, title, keywords, code.split("/")[0].replace("_", " ")), svg
    for code in [code for code, (concept, _) in found.pictures.items() if titles[concept.caption.lower()] > MOST_OF_A_TITLE]:
        found.left_out[f"with a title of more than {MOST_OF_A_TITLE}"] += 1
        del found.pictures[code]
    return Sorted({code: (cleaned(concept), svg) for code, (concept, svg) in found.pictures.items()}, found.left_out)


def described(svg: bytes) -> tuple[str, tuple[str, ...], str]:
    """What a drawing says of itself in its RDF: its title, keywords and licence, each empty where it says none."""
    title, keywords, licence = "", [""], ""
    for work in ElementTree.fromstring(svg).iter():  # noqa: S314 the hash of the package is pinned
        if not work.tag.endswith("}Work"):
            continue
        title = title or _text(work.find(f"{DC}title"))
        keywords += [_text(word) for subject in work.findall(f"{DC}subject") for word in subject.iter(f"{RDF}li")]
        licence = licence or next((one.get(f"{RDF}resource", "") for one in work if one.tag.endswith("}license")), "")
    return title, tuple(dict.fromkeys(word for word in keywords if not NO_WORD.fullmatch(word))), licence


def _text(element: ElementTree.Element | None) -> str:
    return " ".join((element.text or "").split()) if element is not None else ""


def cleaned(concept: Concept) -> Concept:
    """The same with a title and keywords in words: without underscores and names of characters, and without who collected it."""
    title, *keywords = (" ".join(html.unescape(words).replace("_", " ").split()) for words in (concept.caption, *concept.keywords))
    return Concept(concept.code, COLLECTION.sub("", title), tuple(keywords), concept.group)


def split_of(concept: Concept, held: Iterable[str]) -> str:
    """What a drawing is for. What shows a held-out concept trains nothing; drawings of one title are for one thing, by its hash."""
    if shows_any(concept, held):
        return "held_out"
    digest = hashlib.sha256(f"modelgraft clipart {concept.caption.lower()}".encode()).digest()
    return "test" if digest[0] < 256 * TEST_SHARE else "train"


def shows_any(concept: Concept, names: Iterable[str]) -> bool:
    """Whether title and keywords hold all words of one of the names, whatever their order; "flag: Chile" is told by "Chile"."""
    title, said = "".join(_words(concept.caption)), set(_words(" ".join((concept.caption, *concept.keywords))))
    wanted = (_words(name.removeprefix("flag: ")) for name in names)
    return any("".join(words) == title or said.issuperset(words) for words in wanted if words)


def _words(text: str) -> Sequence[str]:
    return re.findall("[a-z]+", text.lower())
