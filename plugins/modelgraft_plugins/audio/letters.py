"""The vocabulary of a head that was trained by CTC: which class is which letter, which is the blank, which parts words. Light.

    vocab.json          of transformers: letter -> number, nested by language where there are several; tokenizer_config.json says the rest
    dict.ltr.txt        of fairseq: a letter a line, behind its four special ones
    task_state          inside a file of fairseq: the same
Where there is none of them, the letters are those of the published English models.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelgraft.plugin import TowerCard, families
from modelgraft_plugins.audio import waves

if TYPE_CHECKING:
    from modelgraft.plugin import Source

SPECIAL = ("<pad>", "<s>", "</s>", "<unk>")  # as transformers has them in front of the letters
FAIRSEQ_SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")  # fairseq's own; its blank is the first
ENGLISH = (*SPECIAL, *"|ETAONIHSRDLUMWCFGYPBVK'XJQZ")  # of wav2vec2-base-960h and all other English models that were published
LETTERS = "dict.ltr.txt"
MOST_BYTES = 32 << 20  # of a list of letters: the longest that are known have a few thousand


def vocabulary_of(source: Source) -> dict[str, Any]:
    """The fields of a head that names letters: tokens by number, blank, delimiter, and whether it writes small letters.

    Raises ValueError for a vocabulary of several languages of which none is chosen, and for one that cannot be read.
    """
    table = source.json("vocab.json")
    if table is not None:
        return _of_transformers(source, table)
    listed = _of_fairseq(source)
    return {} if listed is None else {"vocabulary": (*FAIRSEQ_SPECIAL, *listed), "blank": 0, "delimiter": "|"}


def is_guessed(source: Source) -> bool:
    """It is a model that hears samples, or says nothing of itself, and no file says the letters."""
    card = families().of_medium("audio").get(str(source.root.get("model_type", "wav2vec2")), TowerCard("audio"))
    says_none = source.json("vocab.json") is None and _of_fairseq(source) is None
    return waves.is_heard(card) and source.has_weights and says_none


def _of_transformers(source: Source, table: Mapping[str, Any]) -> dict[str, Any]:
    settings = {**(source.json("special_tokens_map.json") or {}), **(source.json("tokenizer_config.json") or {})}
    chosen = str(settings.get("target_lang") or "")
    if any(isinstance(value, Mapping) for value in table.values()):
        if chosen not in table:
            told = f"'{chosen}' is none of them" if chosen else "none is chosen"
            found = f"vocab.json of {source.text} has the letters of {len(table)} languages, and {told}"
            raise ValueError(f"{found}: name one as target_lang in its tokenizer_config.json")
        table = table[chosen]
    if not table or not all(isinstance(number, int) and 0 <= number < MOST_BYTES for number in table.values()):
        raise ValueError(f"vocab.json of {source.text} is no table from letters to numbers")
    unknown, pad = _content(settings.get("unk_token"), "<unk>"), _content(settings.get("pad_token"), "<pad>")
    by_number = {number: token for token, number in table.items()}
    tokens = tuple(by_number.get(number, unknown) for number in range(max(by_number) + 1))
    blank = table[pad] if pad in table else source.root.get("pad_token_id") or 0
    return {
        "vocabulary": tokens, "blank": int(blank), "delimiter": _content(settings.get("word_delimiter_token"), "|"),
        "space": str(settings.get("replace_word_delimiter_char", " ")), "lower": bool(settings.get("do_lower_case", False)),
    }  # fmt: skip


def _content(token: Any, default: str) -> str:
    """A special token, which files write as a text or as a mapping."""
    found = token.get("content") if isinstance(token, Mapping) else token
    return default if found is None else str(found)


def _of_fairseq(source: Source) -> Sequence[str] | None:
    """The letters behind the special ones: of the file beside the weights, or of the dictionary inside them."""
    home = source.path()
    beside = None if home is None else (home if home.is_dir() else home.parent) / LETTERS
    if beside is not None and beside.is_file():
        return list(_lines(beside))
    state = source.json("task_state") or {}
    symbols = (state.get("target_dictionary") or {}).get("symbols") if isinstance(state.get("target_dictionary"), Mapping) else None
    return [str(symbol) for symbol in symbols[len(FAIRSEQ_SPECIAL) :]] if isinstance(symbols, Sequence) and symbols else None


def _lines(path: Path) -> Iterator[str]:
    """A letter and how often it was met stand on each line; fairseq fills its lists up with made-up words, which are none."""
    if path.stat().st_size > MOST_BYTES:
        raise ValueError(f"{path} has {path.stat().st_size:,} bytes; a list of letters has at most {MOST_BYTES:,}")
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.strip():
            yield line.rsplit(" ", 1)[0]
