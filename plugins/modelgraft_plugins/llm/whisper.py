"""How the decoder of a Whisper begins: a start token, the language that is spoken, a task, and whether times are written.

Source of the rules: transformers 5.23, WhisperGenerationMixin._retrieve_init_tokens; tests compare the answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from modelgraft.plugin import choices

if TYPE_CHECKING:
    from modelgraft.plugin import Source

AUTO = "auto"  # the language is heard: the likeliest of those that the model knows
FIRST, LONGEST = 50257, 448  # of the family, where its files are silent
# Keys of a generation_config.json beside those of writing.TABLE; the first line is obeyed, the others are about times, and about
# sounds that are longer than a window.
KEYS = frozenset({
    "forced_decoder_ids", "is_multilingual", "lang_to_id", "language", "task", "task_to_id", "no_timestamps_token_id",
    "alignment_heads", "median_filter_width", "prev_sot_token_id", "max_initial_timestamp_index", "return_token_timestamps",
    "condition_on_prev_tokens", "prompt_condition_type", "num_segment_frames", "hop_length", "time_precision",
})  # fmt: skip
STILL: Mapping[str, tuple[Any, ...]] = {  # told at other values
    "return_timestamps": (False,), "no_speech_threshold": (), "logprob_threshold": (), "compression_ratio_threshold": (),
}  # fmt: skip
# Name of a language -> its code. Source: TO_LANGUAGE_CODE of transformers 5.23; a test compares them.
CODES: Mapping[str, str] = {
    "english": "en", "chinese": "zh", "german": "de", "spanish": "es", "russian": "ru", "korean": "ko", "french": "fr", "japanese":
    "ja", "portuguese": "pt", "turkish": "tr", "polish": "pl", "catalan": "ca", "dutch": "nl", "arabic": "ar", "swedish": "sv",
    "italian": "it", "indonesian": "id", "hindi": "hi", "finnish": "fi", "vietnamese": "vi", "hebrew": "he", "ukrainian": "uk",
    "greek": "el", "malay": "ms", "czech": "cs", "romanian": "ro", "danish": "da", "hungarian": "hu", "tamil": "ta", "norwegian":
    "no", "thai": "th", "urdu": "ur", "croatian": "hr", "bulgarian": "bg", "lithuanian": "lt", "latin": "la", "maori": "mi",
    "malayalam": "ml", "welsh": "cy", "slovak": "sk", "telugu": "te", "persian": "fa", "latvian": "lv", "bengali": "bn", "serbian":
    "sr", "azerbaijani": "az", "slovenian": "sl", "kannada": "kn", "estonian": "et", "macedonian": "mk", "breton": "br", "basque":
    "eu", "icelandic": "is", "armenian": "hy", "nepali": "ne", "mongolian": "mn", "bosnian": "bs", "kazakh": "kk", "albanian": "sq",
    "swahili": "sw", "galician": "gl", "marathi": "mr", "punjabi": "pa", "sinhala": "si", "khmer": "km", "shona": "sn", "yoruba":
    "yo", "somali": "so", "afrikaans": "af", "occitan": "oc", "georgian": "ka", "belarusian": "be", "tajik": "tg", "sindhi": "sd",
    "gujarati": "gu", "amharic": "am", "yiddish": "yi", "lao": "lo", "uzbek": "uz", "faroese": "fo", "haitian creole": "ht",
    "pashto": "ps", "turkmen": "tk", "nynorsk": "nn", "maltese": "mt", "sanskrit": "sa", "luxembourgish": "lb", "myanmar": "my",
    "tibetan": "bo", "tagalog": "tl", "malagasy": "mg", "assamese": "as", "tatar": "tt", "hawaiian": "haw", "lingala": "ln",
    "hausa": "ha", "bashkir": "ba", "javanese": "jw", "sundanese": "su", "cantonese": "yue", "burmese": "my", "valencian": "ca",
    "flemish": "nl", "haitian": "ht", "letzeburgesch": "lb", "pushto": "ps", "panjabi": "pa", "moldavian": "ro", "moldovan": "ro",
    "sinhalese": "si", "castilian": "es", "mandarin": "zh",
}  # fmt: skip


class Spoken(Protocol):
    """The fields of llm/seq2seq that say how an answer begins."""

    @property
    def decoder_start_ids(self) -> tuple[int, ...]:
        """The start token, and what follows it."""
        ...

    @property
    def language(self) -> str | None:
        """A name, a code, a token, or auto."""
        ...

    @property
    def task(self) -> str | None:
        """Transcribe or translate."""
        ...

    @property
    def languages(self) -> Mapping[str, int]:
        """The token of a language -> its id."""
        ...

    @property
    def tasks(self) -> Mapping[str, int]:
        """A task -> the id of its token."""
        ...


def start_of(source: Source, config: Mapping[str, Any]) -> dict[str, Any]:
    """What a source says of the start, in the fields of llm/seq2seq. Raises ValueError for forced tokens that leave gaps."""
    given = {**config, **(source.json("generation_config.json") or {})}
    languages, tasks = given.get("lang_to_id") or {}, given.get("task_to_id") or {}
    language, task = given.get("language"), given.get("task")
    forced = [] if language or task else _forced(given.get("forced_decoder_ids"), source.text)
    is_open = not forced or forced[0] is None  # nobody has said which language is spoken
    start = [given.get("decoder_start_token_id", FIRST), *(token for token in forced if token is not None)]
    plain = given.get("no_timestamps_token_id")
    if plain is not None and start[-1] != plain and not given.get("return_timestamps"):
        start.append(plain)
    found = {"decoder_start_ids": tuple(start), "language": language or (AUTO if is_open and languages else None), "task": task}
    known = {key: value for key, value in found.items() if value is not None}
    longest = min(given.get("max_length") or LONGEST, config.get("max_target_positions") or LONGEST)
    beside = (found["language"] is not None) + (task is not None or (language is not None and bool(tasks)))
    return {
        "encoder": "none", **known, "languages": dict(languages), "tasks": dict(tasks), "max_length": None,
        "max_new_tokens": given.get("max_new_tokens") or longest - len(start) - beside,
    }  # fmt: skip


def _forced(pairs: Any, text: str) -> list[int | None]:
    """The tokens that follow the start one by one, null where nothing is said."""
    ordered = sorted(pairs or [], key=lambda pair: pair[0])
    if [place for place, _ in ordered] != list(range(1, len(ordered) + 1)):
        raise ValueError(f"the forced_decoder_ids of {text} are {pairs}, wanted one token for each place from 1 on")
    return [token for _, token in ordered]


def token_of(language: str, languages: Mapping[str, int]) -> int:
    """The id of a language by its name, code or token. Raises ValueError with those that there are."""
    word = language.lower()
    for known in (word, f"<|{word}|>", f"<|{CODES.get(word, word)}|>"):
        if known in languages:
            return languages[known]
    there = choices(sorted(name.strip("<|>") for name in languages), most=30)
    raise ValueError(f"language: {language!r} is none of those that the source knows (its lang_to_id): {there}")


def starts(config: Spoken, heard: Sequence[int] | None = None) -> list[tuple[int, ...]]:
    """What answers begin with: one for all, or one for each of the languages that were heard.

    Raises ValueError for a language or a task that the source does not know.
    """
    first, *rest = config.decoder_start_ids
    named = None if config.language in (None, AUTO) else token_of(str(config.language), config.languages)
    if config.language is not None:
        rest = [token for token in rest if token not in config.languages.values()]
    task = _task_of(config, rest, is_named=named is not None)
    if task is not None:
        rest = [task, *(token for token in rest if token not in config.tasks.values())]
    if named is None and heard is None:
        return [(first, *rest)]
    return [(first, language, *rest) for language in (heard if heard is not None else [named or 0])]


def _task_of(config: Spoken, rest: Sequence[int], *, is_named: bool) -> int | None:
    """The token of the task, where one is to be said; None: what stands there already."""
    if config.task is not None:
        if config.task not in config.tasks:
            raise ValueError(f"task: {config.task!r} is none of those that the source knows: {choices(config.tasks)}")
        return config.tasks[config.task]
    is_said = any(token in config.tasks.values() for token in rest)
    return config.tasks.get("transcribe") if is_named and not is_said else None
