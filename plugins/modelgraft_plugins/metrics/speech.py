"""Error rates of words and letters by jiwer, after a normalisation that is named."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from modelgraft_plugins.metrics.wording import needed

if TYPE_CHECKING:
    from modelgraft.plugin import LoadContext
    from modelgraft_plugins.metrics import Cer, Wer
    from modelgraft_plugins.metrics.answers import Score

_MARKS = re.compile(r"(?<!\w)'|'(?!\w)|[^\w\s']|_")  # an apostrophe inside a word stays


def plain(text: str) -> str:
    """Lower case, no punctuation, single spaces."""
    return " ".join(_MARKS.sub(" ", text.lower().replace("\u2019", "'")).split())


def normaliser(name: str) -> Callable[[str], str]:
    """What makes a text ready to be compared."""
    if name == "plain":
        return plain
    if name == "as_is":
        return lambda text: " ".join(text.split())
    of_whisper: Any = importlib.import_module("transformers.models.whisper.english_normalizer")  # Any: it has no types
    made = of_whisper.EnglishTextNormalizer({}) if name == "whisper_english" else of_whisper.BasicTextNormalizer()
    return lambda text: " ".join(made(text).split())


def wer(config: Wer, _context: LoadContext) -> Score:
    """Row: errors against the nearest reference, and its words."""
    return _errors(config, needed("jiwer", by="metric/wer").process_words, lambda text: text.split())


def cer(config: Cer, _context: LoadContext) -> Score:
    """Row: errors against the nearest reference, and its letters."""
    return _errors(config, needed("jiwer", by="metric/cer").process_characters, list)


def _errors(config: Wer | Cer, compare: Callable[..., Any], cut: Callable[[str], list[str]]) -> Score:
    normalised = normaliser(config.text)

    def against(found: str, wanted: str) -> list[float]:
        if not wanted:  # what jiwer does with an empty reference differs from version to version
            return [len(cut(found)), 0]
        made = compare(wanted, found)
        return [made.substitutions + made.deletions + made.insertions, len(cut(wanted))]

    def row(prediction: str, references: Sequence[str]) -> list[float]:
        found = normalised(prediction)
        pairs = [against(found, normalised(one)) for one in references or [""]]
        return min(pairs, key=lambda pair: (pair[0] / max(pair[1], 1), pair[0]))

    return lambda predictions, references: [row(*pair) for pair in zip(predictions, references, strict=True)]
