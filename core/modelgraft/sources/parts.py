"""Parts of a checkpoint: which sub-config and which tensors `#vision_model` means.

Sub-config of a part, the first that there is:
    <part>_config, then without `_model`, `_tower`, `_encoder`, `_backbone`: <stem>_config, then the one that the card names
    A part without a config of its own (lm_head, a base that has the name of the model type) has the config around it.

Tensors of a part: those under `<part>.`, or under `model.<part>.`, `module.<part>.` (saved while it was trained on several
devices) or `<model type>.<part>.` when there are none; all of them for a body that was saved alone. Where layouts differ
beyond that, the card of the family says how, so that they look the same to a component: see `PartCard`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from modelgraft.kernel.words.errors import Problem, SourceError, choices, nearest
from modelgraft.sources.cards import PartCard
from modelgraft.sources.families import families

KEY_ENDINGS = ("_model", "_tower", "_encoder", "_backbone")

Keys = Mapping[str, str]  # key of the part -> key in the files


def subconfig(root: Mapping[str, Any], part: str) -> Mapping[str, Any] | None:
    """The config of one step of a part's path, or None when the part has no config of its own."""
    stems = [part, *(part.removesuffix(ending) for ending in KEY_ENDINGS if part.endswith(ending))]
    card = _card(root, part)
    for name in (*(f"{stem}_config" for stem in stems), card.config if card is not None else ""):
        if isinstance(found := root.get(name), dict):
            return found
    return None


def _card(config: Mapping[str, Any], part: str) -> PartCard | None:
    """What the family says of a part, or what most families have in common."""
    return families().whole(config.get("model_type")).parts.get(part)


def select(root: Mapping[str, Any], files: Iterable[str], part: str, *, source: str) -> tuple[Mapping[str, Any], Keys]:
    """Give the config and the tensors of a part: `""` for everything, `a.b` for b within a.

    files  the keys in the weight files; empty when there are no weights or their keys are not known

    Raises SourceError `unknown-part` with the parts there are.
    """
    config, keys = root, {key: key for key in files}
    if not keys and not root:
        return {}, {}  # nothing is known before the file is read, and nothing can be refused
    bare = not keys
    for step in filter(None, part.split(".")):
        found = subconfig(config, step)
        narrowed = _narrow(keys, step, config)
        card = _card(config, step)
        known_without_keys = bare and (found is not None or (card is not None and not card.config) or step == _base(root))
        if not narrowed and not known_without_keys:
            raise _unknown(step, config, keys, source)
        config, keys = found if found is not None else config, narrowed
    return config, keys


def _narrow(keys: Keys, part: str, config: Mapping[str, Any]) -> dict[str, str]:
    card = _card(config, part) or PartCard()
    for base in ("", "model.", "module.", f"{_base(config)}."):
        prefix = f"{base}{part}."
        inside = {key.removeprefix(prefix): path for key, path in keys.items() if key.startswith(prefix)}
        if inside:
            return _uniform(inside, card, keys, subconfig(config, part) or {}, is_based=bool(base))
        if base + part in keys:
            return {"": keys[base + part]}
    if part == _base(config) and keys:
        return dict(keys)  # a body that was saved without a head
    return _narrow(keys, card.also, config) if card.also else {}


def _uniform(inside: dict[str, str], card: PartCard, keys: Keys, own: Mapping[str, Any], *, is_based: bool) -> dict[str, str]:
    """Undo the differences between layouts that the card tells."""
    if card.strip and all(key.startswith(card.strip) for key in inside):
        return {key.removeprefix(card.strip): path for key, path in inside.items()}
    if card.language == "always" or (card.language == "nested" and is_based):
        if is_based and not own.get("is_encoder_decoder") and not any(key.startswith("model.") for key in inside):
            inside = {f"model.{key}": path for key, path in inside.items()}
        if "lm_head.weight" in keys:
            inside.setdefault("lm_head.weight", keys["lm_head.weight"])
    return inside


def _base(config: Mapping[str, Any]) -> str:
    """The name under which transformers nests the body of a model with a head: the model type, with its dashes made plain."""
    return str(config.get("model_type", "")).replace("-", "_")


def part_names(config: Mapping[str, Any], keys: Collection[str]) -> tuple[str, ...]:
    """The parts that a checkpoint has, for messages: first steps of its keys (below a lone `model.`), or of its sub-configs."""
    steps = {key.partition(".")[0] for key in keys}
    if "model" in steps:
        steps |= {key.split(".")[1] for key in keys if key.startswith("model.")}
    if not keys:
        known, kind = families(), config.get("model_type")
        inside = {name: value for name, value in config.items() if name.endswith("_config") and isinstance(value, dict)}
        steps |= {known.part_of(kind, name, inside=value.get("model_type")) for name, value in inside.items()}
    return tuple(sorted(steps))


def _unknown(part: str, config: Mapping[str, Any], keys: Collection[str], source: str) -> SourceError:
    names = part_names(config, keys)
    return SourceError(Problem("unknown-part", f"{source} has no part '{part}'; it has: {choices(names)}", hint=nearest(part, names)))
