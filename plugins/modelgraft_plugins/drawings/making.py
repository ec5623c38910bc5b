"""A folder of drawings with their captions, in splits: what may train, and what judges.

OUT/packages/                the archives, as npm fetched them
OUT/128/twemoji/1F34E.png    a drawing of 128 x 128 pixels
OUT/128/train.jsonl          lines of image, caption, keywords, vendor, concept, group, split
OUT/128/test.jsonl           other vendors, concepts that are trained on
OUT/128/held_out.jsonl       concepts that are never trained on, by every vendor
OUT/128/untrained.jsonl      concepts that no training vendor has drawn, and that are not among the held out
OUT/128/captions.jsonl       each concept once: concept, caption, keywords, group, and whether it is `trained`, `held_out` or `untrained`
OUT/LICENCES.md              whose the drawings are
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from modelgraft.commands import file_aside
from modelgraft_plugins.drawings.listing import Drawing, Tell, draw, held_out, list_splits, write_lines
from modelgraft_plugins.drawings.naming import SHORTCODES, Concept, Names, code_of, concepts, drawn, named_in
from modelgraft_plugins.drawings.packages import Archive, fetch
from modelgraft_plugins.drawings.rendering import png_of, require_renderer, svg_of
from modelgraft_plugins.drawings.vendors import NAMES, NAMES_LICENCE, VENDORS, Vendor

SPLITS = ("train", "test", "held_out", "untrained")


def chosen(codes: Sequence[str], count: int) -> tuple[str, ...]:
    """Choose concepts by a fixed hash: those with the smallest sha256 of `modelgraft held-out CODE`, in the order of codes."""
    import hashlib

    return tuple(sorted(sorted(codes, key=lambda code: hashlib.sha256(f"modelgraft held-out {code}".encode()).hexdigest())[:count]))


def make(out: Path, *, side: int, vendors: Sequence[str], offline: bool, tell: Tell) -> dict[str, Any]:
    """Fetch, draw and list; what is there and whole stays. Gives the folder, counts by split, and what could not be drawn.

    side     of a picture in pixels
    vendors  whose drawings are made and listed; which split a drawing is in does not depend on it

    Raises InputError: see `packages.fetch` and `require_renderer`; a folder that cannot be written.
    """
    require_renderer()
    names = fetch(NAMES, out / "packages", offline=offline)
    archives = {name: fetch(vendor.package, out / "packages", offline=offline) for name, vendor in VENDORS.items()}
    icon_sets = {name: archive.json("icons.json") for name, archive in archives.items()}
    known, meant = _read_names(names, archives)
    icons = {name: drawn(icon_sets[name], archive.json("chars.json"), meant, known) for name, archive in archives.items()}
    drawings = [drawing for drawing in split(icons, known) if drawing.vendor in vendors]
    folder = out / str(side)
    failed = dict(draw(drawings, folder, lambda one: png_of(svg_of(icon_sets[one.vendor], one.icon), side), tell))
    done = [drawing for drawing in drawings if drawing.image not in failed]
    counts = list_splits(folder, SPLITS, done)
    write_lines(folder / "captions.jsonl", _captions(known, done))
    with file_aside(out / "LICENCES.md") as aside:
        aside.write_text(licences(VENDORS), encoding="utf-8")
    return {"folder": str(folder), "drawings": counts, "failed": failed}


LICENCES = """# Whose these drawings are

They were rendered from SVG on white, and not changed otherwise.

| drawings | licence | by | home | package |
|---|---|---|---|---|
"""


def licences(vendors: Mapping[str, Vendor]) -> str:
    """Whose the drawings and the names are, as Markdown."""
    rows = [(name, one.licence, one.author, one.home, one.package) for name, one in vendors.items()]
    rows.append(("names and keywords", NAMES_LICENCE, "emojibase; Unicode, Inc.", "https://github.com/milesj/emojibase", NAMES))
    return LICENCES + "".join(f"| {' | '.join(words)} | {package.name}@{package.version} |\n" for *words, package in rows)


def _read_names(names: Archive, archives: Mapping[str, Archive]) -> tuple[dict[str, Concept], Names]:
    entries = names.json("en/data.json")
    groups = {group["order"]: group["message"] for group in names.json("en/messages.json")["groups"]}
    meant = Names(entries)
    for archive in archives.values():
        meant.take(archive.json("chars.json").items())
    for listed in SHORTCODES:
        meant.take(named_in(names.json(f"en/shortcodes/{listed}.json")))
    meant.take(names.json("meta/unicode-names.json").items())
    return concepts(entries, groups), meant


def split(icons: Mapping[str, Mapping[str, str]], known: Mapping[str, Concept]) -> list[Drawing]:
    """Say of every drawing what it is for. icons: by vendor, the icon of each code."""
    kept_back = {code_of(code) for code in held_out()}
    trained = {code for name, found in icons.items() if VENDORS[name].use == "train" for code in found} - kept_back

    def part(code: str, name: str) -> str:
        if code in kept_back:
            return "held_out"
        return VENDORS[name].use if code in trained else "untrained"

    return [
        Drawing(f"{name}/{code}.png", known[code], name, part(code, name), icon)
        for name, found in icons.items()
        for code, icon in found.items()
    ]


def _captions(known: Mapping[str, Concept], drawings: Sequence[Drawing]) -> Iterator[dict[str, Any]]:
    """Each concept that was drawn, in the order of codes."""
    state = {drawing.concept.code: {"train": "trained", "test": "trained"}.get(drawing.split, drawing.split) for drawing in drawings}
    for code in sorted(state):
        about = asdict(known[code])
        yield {"concept": about.pop("code"), **about, "state": state[code]}
