"""How pictures are cut into tiles, as the files of published checkpoints say it. Light: any plugin may import it.

What an image processor of tiles does where its file is silent stands on the card of its family, under `tiles/preprocess`:
    processor  its name in files without the endings, such as `Idefics3`
    cut        the way: one of WAYS
    defaults   what its file means where it is silent
    always     what the processor around it sets, whatever the file says
    patch      of tiles of unlike sizes: what a side is a multiple of, where the config of the eye is silent
    alone      only a picture that is the only one of its record is cut
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from modelgraft.plugin import PictureCard, families
from modelgraft_plugins import processor_files
from modelgraft_plugins.pictures import IDLE, KEYS, picture_config, picture_values, processor_name
from modelgraft_plugins.processor_files import NATURAL, NUMBER, SWITCH, Wanted, Written, is_natural

if TYPE_CHECKING:
    from modelgraft.plugin import Source

PREPARES = "tiles/preprocess"
_PAIRS: Wanted = (
    "a list of [height, width] in pixels",
    lambda value: bool(value) and all(isinstance(pair, list | tuple) and len(pair) == 2 and all(map(is_natural, pair)) for pair in value),
)
_LONGEST: Wanted = ("{longest_edge}, in pixels", lambda value: isinstance(value, dict) and is_natural(value.get("longest_edge")))
# keys that processors of tiles read beside those of pictures
OWN: Mapping[str, Wanted] = {
    "do_image_splitting": SWITCH, "max_image_size": _LONGEST, "image_grid_pinpoints": _PAIRS, "crop_to_patches": SWITCH,
    "min_patches": NATURAL, "max_patches": NATURAL, "do_pan_and_scan": SWITCH, "pan_and_scan_min_crop_size": NATURAL,
    "pan_and_scan_max_num_crops": NATURAL, "pan_and_scan_min_ratio_to_activate": NUMBER,
}  # fmt: skip
STILL = frozenset({"do_pad"})  # tiles are of one size, and what fills up a batch is left out again


def cut_config(source: Source) -> dict[str, Any]:
    """Read how a checkpoint cuts its pictures, as fields of tiles/preprocess.

    Raises ValueError when it does not say, or does it in a way that is not known here, and SourceError `source-damaged` for values
    that are of another kind than their keys want.
    """
    written = processor_files.find(source, "image_processor")
    if written is None:
        raise ValueError("the source has no preprocessor_config.json and no image processor in a processor_config.json")
    written.check({**KEYS, **OWN})
    facts = _facts(source, written)
    always = facts.get("always", {})
    values = {
        **facts["defaults"],
        **{key: value for key, value in written.values.items() if value is not None or key == "crop_size"},
        **always,
    }
    if not values.get("do_resize", True) and (facts.get("alone") or facts["cut"] == "crops"):
        raise ValueError(f"{written.place} has do_resize: false, and {PREPARES} brings pictures of this kind to the size of a tile")
    found = WAYS[facts["cut"]](written, values)
    silent = {key: value for key, value in facts["defaults"].items() if key not in OWN}
    size = found.pop("size", None)
    given = {key: value for key, value in {**written.values, **always}.items() if size is None or key not in ("size", "crop_size")}
    steps = picture_values(
        Written(written.place, given), PictureCard({**silent, **({"size": size, "crop_size": None} if size else {})}, is_square=False)
    )
    eye = source.root.get("vision_config")
    patch = (eye if isinstance(eye, Mapping) else {}).get("patch_size", facts.get("patch"))
    whole = {"patch_size": patch} if facts["cut"] == "native" and is_natural(patch) else {}
    return {**steps, **found, **whole, "alone": bool(facts.get("alone"))}


def normalisation(source: Source) -> dict[str, Any]:
    """The mean and std that the checkpoint's own pictures are normalised with, whole ones or tiles."""
    for read in (picture_config, cut_config):
        try:
            prepared = read(source)
        except ValueError:
            continue
        return {name: prepared[name] for name in ("image_mean", "image_std") if prepared.get("do_normalize")}
    return {}


def unheeded(source: Source) -> list[tuple[str, str]]:
    """What a source states about its pictures and tiles/preprocess does not know."""
    written = processor_files.find(source, "image_processor")
    told = list(processor_files.unheeded(written, {*KEYS, *OWN, *STILL, *IDLE}, PREPARES))
    return [*told, *processor_files.unheeded_of_processor(source)]


def _facts(source: Source, written: Written) -> Mapping[str, Any]:
    """What the card says of this processor: that of its own family, or of another that has the same."""
    wholes = families().wholes
    own = families().whole(source.root.get("model_type"))
    known = [card.components[PREPARES] for card in (own, *wholes.values()) if PREPARES in card.components]
    name = processor_name(written, source.root)
    named = written.values.get("image_processor_type") or written.values.get("feature_extractor_type")
    if not named and PREPARES in own.components:
        return own.components[PREPARES]
    found = next((facts for facts in known if facts["processor"] == name), None)
    if found is None:
        served = ", ".join(sorted({f"{facts['processor']}ImageProcessor" for facts in known}))
        raise ValueError(f"{PREPARES} has no '{name}ImageProcessor'; it has {served}")
    return found


# -- the ways, each from the values of a file to fields of tiles/preprocess -----------------------------------------------------


def _grid(written: Written, values: Mapping[str, Any]) -> dict[str, Any]:
    """Idefics 3: the longer side becomes `longest`, then each side is made a whole number of tiles."""
    tile, longest = values["max_image_size"]["longest_edge"], (values["size"] or {}).get("longest_edge")
    if longest is None:
        raise ValueError(f"{written.place} has size {values['size']!r}, wanted {{longest_edge}}")
    cut = "grid" if values["do_image_splitting"] else "none"
    return {"cut": cut, "tile": tile, "longest": longest, "size": {"height": tile, "width": tile}}


def _resolutions(written: Written, values: Mapping[str, Any]) -> dict[str, Any]:
    """LLaVA-NeXT: the best of several resolutions, filled up with black."""
    size, crop = values["size"], values["crop_size"]
    size = {"shortest_edge": size} if is_natural(size) else size
    tile = crop if is_natural(crop) else (crop or {}).get("height") or size.get("height") or size.get("shortest_edge")
    if not is_natural(tile):
        raise ValueError(f"{written.place} has size {size!r} and crop_size {crop!r}, of which no side of a tile follows")
    if {side for side in size.values() if side is not None} != {tile} and not values["do_center_crop"]:
        raise ValueError(f"{written.place} has size {size!r}, and tiles of {tile} pixels: without do_center_crop they are not of one size")
    pairs = tuple(tuple(pair) for pair in values["image_grid_pinpoints"])
    return {"cut": "resolutions", "tile": tile, "resolutions": pairs}


def _shape(written: Written, values: Mapping[str, Any]) -> dict[str, Any]:
    """InternVL: as many rows and columns as come nearest to the shape of the picture."""
    size = values["size"]
    size = {"height": size, "width": size} if is_natural(size) else size
    if not is_natural(size.get("height")) or size["height"] != size.get("width"):
        raise ValueError(f"{written.place} has size {size!r}, wanted one height and width for square tiles")
    least, most = values["min_patches"], values["max_patches"]
    cut = "shape" if values["crop_to_patches"] and most > 1 else "none"
    return {"cut": cut, "tile": size["height"], "least_tiles": least, "most_tiles": most, "size": size}


def _crops(written: Written, values: Mapping[str, Any]) -> dict[str, Any]:
    """Gemma 3: a square of each picture, and where it is asked for squares of crops of it."""
    size = values["size"]
    size = {"height": size, "width": size} if is_natural(size) else size
    if not is_natural(size.get("height")) or size["height"] != size.get("width"):
        raise ValueError(f"{written.place} has size {size!r}, wanted one height and width for square tiles")
    least, most = values["pan_and_scan_min_crop_size"], values["pan_and_scan_max_num_crops"]
    cut = {"cut": "crops" if values["do_pan_and_scan"] else "none", "tile": size["height"], "size": size}
    return {**cut, "least_crop": least, "most_crops": most, "least_ratio": values["pan_and_scan_min_ratio_to_activate"]}


def _native(written: Written, values: Mapping[str, Any]) -> dict[str, Any]:
    """Idefics 2: a picture, or it and its quarters, keep their shapes within two bounds."""
    size = values["size"]
    if not isinstance(size, Mapping) or not all(map(is_natural, (size.get("shortest_edge"), size.get("longest_edge")))):
        raise ValueError(f"{written.place} has size {size!r}, wanted {{shortest_edge, longest_edge}}")
    least, most = size["shortest_edge"], size["longest_edge"]
    cut = "corners" if values["do_image_splitting"] else "native"
    return {"cut": cut, "shortest": least, "longest": most, "size": {"height": least, "width": least}}


WAYS = {"native": _native, "grid": _grid, "resolutions": _resolutions, "shape": _shape, "crops": _crops}
