"""What published files say of pictures that are cut at their own size, and of the towers that read them.

The card of a model says under `patches/prepare` which image processor it has (`processor`), what that means where its file is silent
(`defaults`), the tokens that mark pictures in prompts (`marks`: our field -> (key of processor_config.json, what it is where that is
silent)), and under `processor_patches` whether the numbers of its processor go over those of the image processor, as Pixtral's do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from modelgraft.plugin import TowerCard, families
from modelgraft_plugins import processor_files
from modelgraft_plugins.pictures import processor_name
from modelgraft_plugins.processor_files import NATURAL, NUMBER, SWITCH, WORD, Wanted, Written, is_natural, is_number
from modelgraft_plugins.stated import REMARKS, Table, told, tower_table
from modelgraft_plugins.tokens import added_tokens

if TYPE_CHECKING:
    from modelgraft.plugin import Source

MEDIUM = "patches"
PREPARE, FRAMES = "patches/prepare", "patches/frames"
FILMS = "video_preprocessor_config.json"
_EDGES = ("shortest_edge", "longest_edge", "height", "width", "min_pixels", "max_pixels")


def _is_size(value: Any) -> bool:
    return isinstance(value, dict) and all(key in _EDGES and (side is None or is_natural(side)) for key, side in value.items())


def _is_side(value: Any) -> bool:
    sides = [value.get("height"), value.get("width")] if isinstance(value, dict) else [value]
    return all(map(is_natural, sides)) and len(set(sides)) == 1


def _is_colours(value: Any) -> bool:
    return is_number(value) or (isinstance(value, list | tuple) and len(value) == 3 and all(map(is_number, value)))


_SIDE: Wanted = ("a number of pixels, or {height, width} of a square", _is_side)
KEYS: Mapping[str, Wanted] = {
    **dict.fromkeys(("do_resize", "do_convert_rgb", "do_rescale", "do_normalize", "do_pad"), SWITCH),
    **dict.fromkeys(("min_pixels", "max_pixels", "merge_size", "temporal_patch_size"), NATURAL),
    **dict.fromkeys(("image_mean", "image_std"), ("a number, or one for red, green and blue", _is_colours)),
    "size": ("{shortest_edge, longest_edge} or {height, width}", _is_size),
    "patch_size": _SIDE,
    "resample": ("a filter of PIL, 0 to 5", lambda value: isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 5),
    "rescale_factor": NUMBER,
    "image_processor_type": WORD,
}
OF_FILMS: Mapping[str, Wanted] = {
    **dict.fromkeys(("min_frames", "max_frames"), NATURAL), "fps": NUMBER, "do_sample_frames": SWITCH, "video_processor_type": WORD,
}  # fmt: skip
IDLE_OF_FILMS = ("return_metadata", "default_to_square", "max_video_tokens", "pad_size", "crop_size", "do_center_crop", "num_frames")
OF_PROCESSORS = processor_files.OF_PROCESSORS | {"spatial_merge_size", "image_break_token", "image_end_token", "video_token"}


def prepare_values(source: Source) -> dict[str, Any]:
    """The fields of patches/prepare. Raises ValueError where a source does not say how its pictures are cut, or says another way."""
    card = families().whole(source.root.get("model_type")).components.get(PREPARE)
    if card is None:
        served = ", ".join(sorted(kind for kind, whole in families().wholes.items() if PREPARE in whole.components))
        raise ValueError(f"{source.text} is of no model whose pictures are cut at their own size; {PREPARE} serves {served}")
    written = processor_files.find(source, "image_processor")
    if written is None:
        raise ValueError("the source has no preprocessor_config.json and no image processor in a processor_config.json")
    written.check(KEYS)
    name = processor_name(written, {"image_processor_type": source.root.get("image_processor_type") or card["processors"][0]})
    if name not in card["processors"]:
        raise ValueError(f"{PREPARE} has no '{name}ImageProcessor' for a {source.root['model_type']}; it has {_names(card)}")
    stated = source.json(processor_files.NESTED) or {}
    marks = {field: stated.get(key) or silent for field, (key, silent) in card["marks"].items()}
    _refuse_strangers(source, marks)
    return {**_values(written, card), **_of_processor(stated, card), **marks}


def _refuse_strangers(source: Source, marks: Mapping[str, str]) -> None:
    """Raise ValueError for a token that marks pictures and that the tokenizer of the source does not know: its letters would be read."""
    known = added_tokens(source)
    if strange := [mark for mark in marks.values() if known is not None and mark not in known]:
        raise ValueError(f"the tokenizer of {source.whole} has no token {strange[0]!r}, which marks pictures in its prompts")


def frame_values(source: Source) -> dict[str, Any]:
    """The fields of patches/frames. Raises ValueError for a source of no model that reads films so."""
    card = families().whole(source.root.get("model_type")).components.get(FRAMES)
    if card is None:
        served = ", ".join(sorted(kind for kind, whole in families().wholes.items() if FRAMES in whole.components))
        raise ValueError(f"{source.text} is of no model that reads films in patches; {FRAMES} serves {served}")
    written = _films(source) or Written(source.whole, {})
    written.check({**KEYS, **OF_FILMS})
    stated = source.json(processor_files.NESTED) or {}
    marks = {field: stated.get(key) or silent for field, (key, silent) in card["marks"].items()}
    _refuse_strangers(source, marks)
    found = _values(written, card)
    if not written.values.get("do_sample_frames"):
        found.pop("fps", None)
    return {**found, **told(source.root, card["fields"]), **marks}


def _films(source: Source) -> Written | None:
    """What a source says of films: an entry of its processor, or a file of their own."""
    nested = (source.json(processor_files.NESTED) or {}).get("video_processor")
    if isinstance(nested, dict):
        return Written(f"{source.whole}/{processor_files.NESTED} (video_processor)", nested)
    alone = source.json(FILMS)
    return Written(f"{source.whole}/{FILMS}", alone) if alone is not None else None


def unheeded_frames(source: Source) -> Iterator[tuple[str, str]]:
    """What a source states about its films and patches/frames does not know."""
    yield from processor_files.unheeded(_films(source), {*KEYS, *OF_FILMS, *IDLE_OF_FILMS}, FRAMES)


def _names(card: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}ImageProcessor" for name in card["processors"])


def _values(written: Written, card: Mapping[str, Any]) -> dict[str, Any]:
    defaults, given = card["defaults"], written.values
    found = {key: given[key] if given.get(key) is not None else value for key, value in defaults.items()}
    found |= {key: False for key in defaults if key.startswith("do_") and key in given and given[key] is None}
    for key in ("image_mean", "image_std"):
        found[key] = (found[key],) * 3 if is_number(found[key]) else tuple(found[key])
    found["patch_size"] = _side(found["patch_size"])
    return {**found, **_bounds(written, defaults)}


def _bounds(written: Written, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """How large a picture becomes: by its number of pixels, or by its longest side."""
    size = written.values.get("size") or {}
    if "longest_edge" in defaults:
        edges = {size.get(key) for key in ("longest_edge", "height", "width") if size.get(key) is not None}
        if len(edges) > 1:
            raise ValueError(f"{written.place} has the size {size}, and {PREPARE} takes one longest side")
        return {"longest_edge": edges.pop()} if edges else {}
    if sides := [key for key in ("height", "width") if size.get(key) is not None]:
        raise ValueError(
            f"{written.place} has a size with {sides[0]}, and {PREPARE} takes the numbers of pixels: min_pixels and max_pixels"
        )
    found = {"min_pixels": size.get("shortest_edge"), "max_pixels": size.get("longest_edge")}  # which are numbers of pixels
    found |= {key: size[key] for key in found if size.get(key) is not None}  # as files of some versions have them
    found |= {key: written.values[key] for key in found if written.values.get(key) is not None}
    return {key: value for key, value in found.items() if value is not None}


def _of_processor(stated: Mapping[str, Any], card: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers of a processor that go over those of its image processor."""
    over = card.get("processor_patches", {})
    found = {field: stated.get(key) if stated.get(key) is not None else silent for field, (key, silent) in over.items()}
    return {field: _side(value) for field, value in found.items()}


def _side(value: Any) -> int:
    return int(value["height"] if isinstance(value, Mapping) else value)


def unheeded_pictures(source: Source) -> Iterator[tuple[str, str]]:
    """What a source states about its pictures and patches/prepare does not know."""
    written = processor_files.find(source, "image_processor")
    yield from processor_files.unheeded(written, KEYS, PREPARE)
    nested = source.json(processor_files.NESTED)
    if nested is not None:
        yield from processor_files.unheeded(Written(f"{source.whole}/{processor_files.NESTED}", nested), OF_PROCESSORS, PREPARE)
    yield from ((f"{source.text}: {sentence}", way) for sentence, way in source.root.get(REMARKS, ()))


# -- towers ----------------------------------------------------------------------------------------------------------------


def _card(source: Source) -> TowerCard | None:
    """The card of a tower by its config, or by the model around it where that is silent or gives its own name."""
    known = families().of_medium(MEDIUM)
    part, kind = families().inside(source.root.get("model_type"), MEDIUM)
    return known.get(str(source.config.get("model_type"))) or (known.get(kind) if part and source.part == part else None)


def eye_values(source: Source) -> dict[str, Any]:
    """The fields of patches/encoder. Raises ValueError for a config of no such tower."""
    card = _card(source)
    if card is None:
        known = ", ".join(sorted(families().of_medium(MEDIUM)))
        raise ValueError(f"patches/encoder has no tower for model_type '{source.config.get('model_type')}'; it serves {known}")
    config = source.config
    found = {
        word: config[key] if config.get(key := card.names.get(word, word)) is not None else value for word, value in card.defaults.items()
    }
    found["patch_size"] = _square(found["patch_size"], "patch_size")
    turns = config.get("rope_parameters") or {}
    found["rope_theta"] = turns.get("rope_theta") or config.get("rope_theta") or card.defaults["rope_theta"]
    if "mlp_ratio" in found:
        found["intermediate_size"] = int(found["hidden_size"] * found.pop("mlp_ratio"))
    found |= {word: tuple(found[word]) for word in ("full_layers", "deep_layers") if word in found}
    return {"family": card.style, **found, **_around(source), **_normalisation(source)}


def _square(value: Any, key: str) -> int:
    sides = {*value} if isinstance(value, list | tuple) else {value}
    if len(sides) != 1:
        raise ValueError(f"patches/encoder takes square patches, and {key} is {value}")
    return int(sides.pop())


def _around(source: Source) -> dict[str, Any]:
    """What the model around the tower says of it: the layer it takes, the side of the groups that it joins."""
    card = families().whole(source.root.get("model_type")).components.get("patches/encoder", {})
    for key, (silent, needed) in card.get("needs", {}).items():
        if (stated := source.root.get(key, silent)) != needed:
            raise ValueError(f"patches/encoder gives all patches of a picture, and {source.whole} has {key}: {stated}, wanted {needed}")
    fields = card.get("fields", {})
    found = {field: source.root.get(key, silent) for field, (key, silent) in fields.items()}
    if isinstance(found.get("layer"), list) and len(found["layer"]) == 1:
        found["layer"] = found["layer"][0]
    if isinstance(found.get("layer"), list):
        raise ValueError(f"patches/encoder gives one layer; this checkpoint joins several: {fields['layer'][0]} is {found['layer']}")  # noqa: TRY004 as `from_source` does
    return found


def _normalisation(source: Source) -> dict[str, Any]:
    try:
        prepared = prepare_values(source)
    except ValueError:
        return {}
    return {name: prepared[name] for name in ("image_mean", "image_std") if prepared.get("do_normalize")}


def unheeded_eye(source: Source) -> list[tuple[str, str]]:
    """What the config of a tower states and patches/encoder does not know."""
    return table().unheeded(source.config, source.text)


def table() -> Table:
    """What a published config states -> what becomes of it."""
    cards = families().of_medium(MEDIUM).values()
    obeyed = {card.names.get(word, word) for card in cards for word in card.defaults} | {key for card in cards for key in card.obeyed}
    return tower_table({*obeyed, "rope_parameters"}, {REMARKS, *(key for card in cards for key in card.idle)})
