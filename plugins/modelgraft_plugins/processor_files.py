"""Where a checkpoint says how its media are prepared, as transformers 5 looks for it. Light: any plugin may import it.

A folder that was saved by transformers 5 over an older one has both files; the newer one counts:
    processor_config.json      with one entry per medium: `image_processor`, `feature_extractor`, `video_processor`
    preprocessor_config.json   of one medium alone
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from modelgraft.plugin import Problem, SourceError, choices

if TYPE_CHECKING:
    from modelgraft.plugin import Source

NESTED, ALONE = "processor_config.json", "preprocessor_config.json"

# keys that say what wrote a file, or how the library hands results over: they change no number of the answer
BOOKKEEPING = frozenset({
    "_valid_processor_keys", "auto_map", "data_format", "device", "disable_grouping", "feature_extractor_type", "image_processor_type",
    "input_data_format", "processor_class", "return_tensors", "transformers_version",
})  # fmt: skip

LARGEST = sys.float_info.max  # what lies beyond is infinite, or no number
MOST = 1 << 31

# entries and settings of a processor: its parts, what it writes into prompts for each picture, and where its chat template lies.
# Here the graph's template and the vectors themselves say how many places a picture takes.
OF_PROCESSORS = frozenset({
    "image_processor", "feature_extractor", "audio_processor", "video_processor", "tokenizer", "qformer_tokenizer", "chat_template",
    "audio_token", "audio_bos_token", "audio_eos_token",
    "image_token", "patch_size", "vision_feature_select_strategy", "num_additional_image_tokens", "num_query_tokens", "image_seq_length",
    "image_seq_len", "image_size", "add_end_of_utterance_token", "num_patch_index_tokens",
})  # fmt: skip

Wanted = tuple[str, Callable[[Any], bool]]  # in words, and whether a value is one


@dataclass(frozen=True, slots=True)
class Written:
    """What a file says of one medium.

    place   the file, and the entry in it, for messages;  values  the entry; a key with null is not a key that is silent
    """

    place: str
    values: Mapping[str, Any]

    def refuse(self, key: str, wanted: str) -> SourceError:
        """The error of a value that cannot be what its key wants."""
        found = f"{self.place} has {key}: {self.values[key]!r}, wanted {wanted}"
        return SourceError(Problem("source-damaged", found, hint="repair the file, or fetch it again"))

    def check(self, rules: Mapping[str, Wanted], *, null: bool = True) -> None:
        """Raise SourceError `source-damaged` for the first value that is not of the kind that its key wants; `null`: nor null."""
        for key, (wanted, fits) in rules.items():
            if key in self.values and not (null and self.values[key] is None) and not fits(self.values[key]):
                raise self.refuse(key, wanted)

    def others(self, heeded: Collection[str]) -> tuple[str, ...]:
        """The keys that are neither heeded nor bookkeeping."""
        return tuple(sorted(key for key in self.values if key not in heeded and key not in BOOKKEEPING and self.values[key] is not None))


def find(source: Source, *entries: str) -> Written | None:
    """What a source says under the first of these entries that is there, or in its file of one medium; None when it says nothing.

    Raises SourceError `source-damaged` for an entry that is no mapping.
    """
    nested = source.json(NESTED) or {}
    for entry in entries:
        if (values := nested.get(entry)) is not None:
            place = f"{source.whole}/{NESTED} ({entry})"
            if not isinstance(values, dict):
                raise SourceError(Problem("source-damaged", f"{place} is {values!r}, wanted a mapping", hint="repair the file"))
            return Written(place, values)
    alone = source.json(ALONE)
    return Written(f"{source.whole}/{ALONE}", alone) if alone is not None else None


def unheeded(written: Written | None, heeded: Collection[str], component: str) -> Iterator[tuple[str, str]]:
    """(sentence, way out) for the keys that a component does not know: transformers' class may ignore them too, or not."""
    others = written.others(heeded) if written is not None else ()
    if written is not None and others:
        yield (
            f"{written.place} states {choices(others)}, which {component} {'reads' if component == 'nothing' else 'does not read'}",
            "see what they mean for the model; what is done is printed by `modelgraft explain`",
        )


def unheeded_of_processor(source: Source) -> Iterator[tuple[str, str]]:
    """(sentence, way out) for what processor_config.json states beside its parts and nothing here knows."""
    nested = source.json(NESTED)
    if nested is not None:
        yield from unheeded(Written(f"{source.whole}/{NESTED}", nested), OF_PROCESSORS, "nothing")


# -- kinds of values -------------------------------------------------------------------------------------------------------


def is_number(value: Any) -> bool:
    """A finite number, and no truth value."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -LARGEST <= value <= LARGEST


def is_natural(value: Any) -> bool:
    """A whole number above 0, of a size that something can have."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < MOST


SWITCH: Wanted = ("true or false", lambda value: isinstance(value, bool))
NUMBER: Wanted = ("a number", is_number)
NATURAL: Wanted = ("a whole number above 0 and below 2^31", is_natural)
WORD: Wanted = ("a text", lambda value: isinstance(value, str))
