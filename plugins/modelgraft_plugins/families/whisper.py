"""Whisper: speech to text, in the language that is spoken or in English (arXiv 2212.04356)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelgraft.plugin import FamilyCard, LanguageCard, TowerCard, WholeCard
from modelgraft_plugins.families._formulas import forward, norm
from modelgraft_plugins.families._shared import PLAIN


def count_ear(f: Mapping[str, Any]) -> int:
    """Two convolutions, positions, layers (keys have no bias), and the last norm."""
    width, inner = f["hidden_size"], f["intermediate_size"]
    stem = (f["mels"] + width) * width * 3 + 2 * width + f["positions"] * width
    layer = 4 * width**2 + 3 * width + forward(width, inner) + 2 * norm(width)
    return int(stem + f["num_hidden_layers"] * layer + norm(width))


def _count_decoder(f: Mapping[str, Any]) -> int:
    width, inner = f["d_model"], f["decoder_ffn_dim"]
    attention = 4 * width * width + 3 * width  # keys have no bias
    layer = 2 * attention + forward(width, inner) + 3 * norm(width)
    return int((f["vocab_size"] + f["max_target_positions"]) * width + f["decoder_layers"] * layer + norm(width))


AUTO = "auto"  # the language is heard: the likeliest of those that the model knows
FIRST, LONGEST = 50257, 448  # of the family, where its files are silent
# Keys of a generation_config.json: the first line is obeyed, the others are about times, and about sounds that are longer than a window.
KEYS = frozenset({
    "forced_decoder_ids", "is_multilingual", "lang_to_id", "language", "task", "task_to_id", "no_timestamps_token_id",
    "alignment_heads", "median_filter_width", "prev_sot_token_id", "max_initial_timestamp_index", "return_token_timestamps",
    "condition_on_prev_tokens", "prompt_condition_type", "num_segment_frames", "hop_length", "time_precision",
})  # fmt: skip
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


def start_of(given: Mapping[str, Any], config: Mapping[str, Any], text: str) -> dict[str, Any]:
    """How answers begin, in the fields of llm/seq2seq: a start token, the language that is spoken, a task, and whether times are written.

    given  what config.json and generation_config.json state;  config  the former alone;  text  names the source

    Source of the rules: transformers 5.23, WhisperGenerationMixin._retrieve_init_tokens; tests compare the answers.
    Raises ValueError for forced tokens that leave gaps.
    """
    languages, tasks = given.get("lang_to_id") or {}, given.get("task_to_id") or {}
    language, task = given.get("language"), given.get("task")
    forced = [] if language or task else _forced(given.get("forced_decoder_ids"), text)
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


_KEYS: Mapping[str, str] = {  # our word -> the key of a config
    "hidden_size": "d_model", "intermediate_size": "encoder_ffn_dim", "num_hidden_layers": "encoder_layers",
    "num_attention_heads": "encoder_attention_heads", "mels": "num_mel_bins", "positions": "max_source_positions",
    "hidden_act": "activation_function",
}  # fmt: skip
EAR = TowerCard(
    "audio",
    style="whisper",
    architecture="WhisperModel",
    names=_KEYS,
    settings=_KEYS,
    fixed={"dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0, "encoder_layerdrop": 0.0},
    pooled=False,
    count=count_ear,
    idle=frozenset({
        "vocab_size", "decoder_attention_heads", "decoder_ffn_dim", "decoder_layers", "max_target_positions", "num_hidden_layers",
        "forced_decoder_ids", "apply_spec_augment", "mask_feature_length", "mask_feature_min_masks", "mask_feature_prob",
        "mask_time_length", "mask_time_min_masks", "mask_time_prob", "median_filter_width", "classifier_proj_size",
        "use_weighted_layer_sum", "scale_embedding",  # of embeddings: the encoder has none
    }),
    more={"features": "WhisperFeatureExtractor", "encoder": "transformers.models.whisper.modeling_whisper:WhisperEncoder"},
)  # fmt: skip
DECODER = LanguageCard(
    {
        "vocab_size": 51865, "d_model": 384, "decoder_layers": 4, "decoder_attention_heads": 6, "decoder_ffn_dim": 1536,
        "max_target_positions": 448, "tie_word_embeddings": True,
    },
    decoder_count=_count_decoder,
    names={
        "hidden_size": "d_model", "num_hidden_layers": "decoder_layers", "num_attention_heads": "decoder_attention_heads",
        "intermediate_size": "decoder_ffn_dim", "max_position_embeddings": "max_target_positions",
    },
    crosses=True,
    more={"architecture": "AutoModelForSpeechSeq2Seq", "start": start_of, "keys": KEYS, "codes": CODES},
)  # fmt: skip
CARD = FamilyCard(
    "whisper",
    "speech to text",
    wholes={"whisper": WholeCard(parts={"encoder": PLAIN, "decoder": PLAIN})},
    towers={"whisper": EAR},
    languages={"whisper": DECODER},
)
