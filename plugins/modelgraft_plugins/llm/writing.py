"""How answers are written: the settings of a language model, and what a generation_config.json says of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from modelgraft.plugin import Config, Settings
from modelgraft_plugins.llm.known import whole_of
from modelgraft_plugins.stated import FORMER_GENERATION, REMARKS, Table

if TYPE_CHECKING:
    from modelgraft.plugin import Source

FILE = "generation_config.json"
SILENT_LENGTH = ("max_length", 20)  # what every config held in former times, whoever wrote it
SAME = (
    "max_new_tokens", "max_length", "min_new_tokens", "min_length", "repetition_penalty", "encoder_repetition_penalty",
    "no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "sequence_bias", "bad_words_ids", "forced_bos_token_id",
    "exponential_decay_length_penalty", "renormalize_logits", "length_penalty", "early_stopping",
)  # fmt: skip
DRAWING = ("temperature", "top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff", "top_h")  # mean something with do_sample
TOKENS = {  # our field -> the key that holds one token, or a list of them
    "end_ids": "eos_token_id",
    "suppress_tokens": "suppress_tokens",
    "begin_suppress_tokens": "begin_suppress_tokens",
    "forced_eos_token_ids": "forced_eos_token_id",
}
SPEED = (
    "use_cache", "cache_config", "max_cache_len", "prefill_chunk_size", "compile_config", "disable_compile", "low_memory",
    "continuous_batching_config", "use_mtp", "is_assistant", "num_assistant_tokens", "num_assistant_tokens_schedule",
    "assistant_confidence_threshold", "prompt_lookup_num_tokens", "max_matching_ngram_size", "assistant_early_exit", "assistant_lookbehind",
    "target_lookbehind", "assistant_ensemble_weight", "speculation_type",
)  # fmt: skip
ASKED_OF_A_CALL = ("output_attentions", "output_hidden_states", "output_scores", "output_logits", "return_dict_in_generate")
TABLE = Table(
    FILE,
    obeyed=frozenset({
        *SAME, *DRAWING, "do_sample", "num_beams", "forced_eos_token_id", "suppress_tokens", "begin_suppress_tokens", "eos_token_id",
        "decoder_start_token_id", "stop_strings",
    }),
    idle=frozenset({
        *SPEED, *ASKED_OF_A_CALL, "_from_model_config", "transformers_version", "pad_token_id", "bos_token_id",
        "remove_invalid_values",  # logits that are no numbers are an error here
        "max_window_size",  # of Qwen: how much of a long talk is kept, which is refused here
    }),
    still={
        "cache_implementation": (
            "static", "dynamic", "hybrid", "offloaded", "offloaded_static", "sliding_window", "hybrid_chunked", "dynamic_full",
        ),
        "constraints": ([],), "dola_layers": (), "diversity_penalty": (0, 0.0), "force_words_ids": ([],), "guidance_scale": (1, 1.0),
        "max_time": (), "num_beam_groups": (1,), "num_return_sequences": (1,), "penalty_alpha": (0, 0.0), "token_healing": (False,),
        "watermarking_config": ({},),
        "chat_format": ("raw", "chatml"),  # of Qwen: what chat_template says
        # of sounds that are longer than a window
        "return_timestamps": (False,), "no_speech_threshold": (), "logprob_threshold": (), "compression_ratio_threshold": (),
    },
)  # fmt: skip
STOPS = "they end an answer here too, and are cut from it, where transformers leaves them in"


class WritingConfig(Config):
    """The settings of the loop that are fields of a language model; not a component itself.

    A setting comes from its default, from the source's generation_config.json, or from the graph, and the last of these wins.
    """

    max_new_tokens: int = Field(default=64, ge=0, description="longest answer; 0 gives the logits alone")
    max_length: int | None = Field(default=None, gt=0, description="longest prompt and answer together, where max_new_tokens is not set")
    min_new_tokens: int = Field(default=0, ge=0)
    min_length: int = Field(default=0, ge=0, description="shortest prompt and answer together, where min_new_tokens is not set")
    temperature: float = Field(default=0.0, ge=0, description="0: always the most likely token")
    top_k: int | None = Field(default=None, gt=0)
    top_p: float | None = Field(default=None, gt=0, le=1)
    min_p: float | None = Field(default=None, ge=0, le=1, description="draw only from tokens that have this part of the likeliest's share")
    typical_p: float | None = Field(default=None, gt=0, le=1, description="draw only from the tokens of the most expected surprise")
    epsilon_cutoff: float | None = Field(default=None, ge=0, lt=1, description="draw only from tokens that are at least so likely")
    eta_cutoff: float | None = Field(default=None, ge=0, lt=1, description="the same, less where many tokens are likely")
    top_h: float | None = Field(default=None, gt=0, le=1, description="draw only from the likeliest tokens, by their part of the entropy")
    repetition_penalty: float = Field(default=1.0, gt=0)
    encoder_repetition_penalty: float = Field(default=1.0, gt=0, description="above 1: tokens that were read become likelier")
    no_repeat_ngram_size: int = Field(default=0, ge=0, description="so many tokens in a row are never said twice; 0: they may be")
    encoder_no_repeat_ngram_size: int = Field(default=0, ge=0, description="so many tokens in a row of what was read are not said")
    sequence_bias: tuple[tuple[tuple[int, ...], float], ...] = Field(
        default=(), description="[[tokens, number], ...]: added to the logit of the token that completes the sequence"
    )
    bad_words_ids: tuple[tuple[int, ...], ...] = Field(default=(), description="sequences of tokens that are never said")
    forced_bos_token_id: int | None = Field(default=None, ge=0, description="the token after a single one, such as the start of a decoder")
    forced_eos_token_ids: tuple[int, ...] = Field(default=(), description="the last token of an answer of full length")
    exponential_decay_length_penalty: tuple[int, float] | None = Field(
        default=None, description="[tokens, factor]: after so many tokens an end becomes likelier with each"
    )
    renormalize_logits: bool = Field(default=False, description="beams: make what the rules left over a distribution again")
    beams: int = Field(default=1, ge=1)
    length_penalty: float = Field(default=1.0, ge=-50, le=50)  # beyond, its power of a long answer's length is no float64
    early_stopping: bool | Literal["never"] = False
    stop: tuple[str, ...] = Field(default=(), description="strings that end the answer and are cut from it")
    strip_start: bool = Field(default=False, description="white space that the answer begins with is left out of `text`, streamed or whole")
    end_ids: tuple[int, ...] = Field(default=(), description="tokens that end the answer; none: those of the model's config")
    end_tokens: tuple[str, ...] = Field(default=(), description="tokens that end the answer too, as strings of the tokenizer")
    matching: str | None = Field(default=None, min_length=1, description="a regular expression that the whole answer matches")
    json_schema: dict[str, Any] | None = Field(default=None, description="a JSON Schema: the answer is a document of it")
    choices: tuple[str, ...] = Field(default=(), description="the answer is whichever of these texts is likeliest; none is written")
    choose: Literal["sum", "mean"] | None = Field(
        default=None,
        description="the answer is the likeliest of `choices`, or of the `continuations` of each record: by the sum of the"
        " log-probabilities of its tokens (as with choices alone), or by their mean",
    )
    lookup: int = Field(
        default=0,
        ge=0,
        le=64,
        description="so many tokens are guessed at once, as the text went on where the last ones stood before, and read together: the"
        " answer is the same, sooner where it repeats what was said; 0: none",
    )
    suppress_tokens: tuple[int, ...] = Field(default=(), description="tokens that are never chosen")
    begin_suppress_tokens: tuple[int, ...] = Field(default=(), description="tokens that are not chosen first")

    @property
    def reserved(self) -> int:
        """New tokens that are written for certain unless the answer ends: none where max_length takes what the prompt leaves."""
        return self.max_new_tokens if self.settings().max_length is None else 0

    @field_validator("lookup", "draft", mode="before", check_fields=False)
    @classmethod
    def _is_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, bool):
            raise ValueError(  # noqa: TRY004 pydantic tells of no other
                f"{json.dumps(value)} is no number of tokens; write {info.field_name}: {8 if value else 0}"
            )
        return value

    @model_validator(mode="after")
    def _is_one_way(self) -> WritingConfig:
        if self.beams > 1 and self.temperature > 0:
            raise ValueError(f"beams: {self.beams} search for the likeliest answer, temperature: {self.temperature} draws one; choose one")
        if self.lookup and self.beams > 1:
            raise ValueError(f"lookup: {self.lookup} guesses how one answer goes on, and beams: {self.beams} follow several; choose one")
        bounds = [name for name in ("matching", "json_schema", "chooses") if getattr(self, name) not in (None, False)]
        if len(bounds) > 1:
            names = " and ".join("choices" if name == "chooses" else name for name in bounds[:2])
            raise ValueError(f"{names} both say what the answer may be; choose one")
        if bounds and bounds[0] != "chooses" and self.beams > 1:
            raise ValueError(f"{bounds[0]} bounds one answer, and beams: {self.beams} search among several; set beams: 1")
        if "" in self.choices:
            raise ValueError("choices: an empty text cannot be judged")
        if self.stop and "" in self.stop:
            raise ValueError("stop: an empty string would end every answer at once")
        if () in self.bad_words_ids or any(not tokens for tokens, _ in self.sequence_bias):
            raise ValueError("bad_words_ids and sequence_bias take sequences of at least one token")
        return self

    @property
    def chooses(self) -> bool:
        """The answer is one of given texts."""
        return bool(self.choices) or self.choose is not None

    def settings(self, *, end_ids: tuple[int, ...] = ()) -> Settings:
        """How to write; `end_ids` are those of the model, for when the config names none."""
        given = {name: getattr(self, name) for name in (*SAME, *DRAWING, "beams", "stop", "forced_eos_token_ids", "lookup")}
        if self.chooses:
            given |= {"max_new_tokens": 0, "max_length": None}
        if "max_new_tokens" in self.model_fields_set:
            given["max_length"] = None  # as in transformers, the answer's own length goes over the length of both
        if "min_new_tokens" in self.model_fields_set:
            given["min_length"] = 0
        return Settings(
            **given, end_ids=self.end_ids or end_ids, suppressed=self.suppress_tokens, suppressed_first=self.begin_suppress_tokens
        )

    def chosen_tokens(self) -> Mapping[str, tuple[int, ...]]:
        """The tokens that settings name to be chosen or not, by setting: each must be of the vocabulary."""
        return {
            "suppress_tokens": self.suppress_tokens,
            "begin_suppress_tokens": self.begin_suppress_tokens,
            "bad_words_ids": tuple(token for words in self.bad_words_ids for token in words),
            "sequence_bias": tuple(token for words, _ in self.sequence_bias for token in words),
            "forced_bos_token_id": () if self.forced_bos_token_id is None else (self.forced_bos_token_id,),
            "forced_eos_token_ids": self.forced_eos_token_ids,
        }


def stated_generation(source: Source, config: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the source says of generation: its generation_config.json; without one its config, which said it in former times."""
    written = None if whole_of(source).inner else source.json(FILE)
    if written is None:
        around = {} if whole_of(source).inner else source.root
        found = {key: value for each in (config, around) for key, value in each.items() if key in FORMER_GENERATION and value is not None}
        return {key: value for key, value in found.items() if (key, value) != SILENT_LENGTH}
    return {**{key: config[key] for key in ("eos_token_id", "suppress_tokens", "begin_suppress_tokens") if config.get(key)}, **written}


def generation_of(source: Source, config: Mapping[str, Any]) -> dict[str, Any]:
    """How the source wants answers to be written, in the words of WritingConfig."""
    given = stated_generation(source, config)
    found = {
        **{field: ids_of(given.get(key), key) for field, key in TOKENS.items()},
        "beams": given.get("num_beams"),
        "stop": _texts(given.get("stop_strings")),
        **{key: given.get(key) for key in SAME},
    }
    if given.get("do_sample") and (given.get("num_beams") or 1) == 1:
        found |= {key: given.get(key) for key in DRAWING}
        found |= {
            "temperature": 1.0 if given.get("temperature") is None else given["temperature"],
            "top_k": given.get("top_k", 50) or None,
        }  # 50: the default of transformers
    return {key: value for key, value in found.items() if value not in (None, (), [])}


def unheeded_generation(source: Source, config: Mapping[str, Any], *, also: frozenset[str] = frozenset()) -> list[tuple[str, ...]]:
    """What the source says of generation and the loop does not do; `also` are keys that the component obeys beside those of TABLE."""
    written = None if whole_of(source).inner else source.json(FILE)
    text = source.text.partition("#")[0]
    stated = written if written is not None else {key: value for key, value in config.items() if key in TABLE.still}
    found: list[tuple[str, ...]] = list(TABLE.unheeded({key: value for key, value in stated.items() if key not in also}, text))
    beams = stated.get("num_beams") or 1
    if stated.get("do_sample") and beams == 1 and stated.get("temperature") in (0, 0.0):
        sentence = f"the {FILE} of {text} draws tokens (do_sample) at temperature 0, which takes the likeliest instead"
        found.append((sentence, "set a temperature above 0 to draw, or 0 to take this as it is", "temperature"))
    if stated.get("do_sample") and beams > 1:
        sentence = f"the {FILE} of {text} draws within {beams} beams (do_sample), and beams here take the likeliest"
        found.append((sentence, "set beams: 1 and a temperature to draw, or beams alone to search", "beams"))
    found += [(f"{text}: {sentence}", way) for sentence, way in source.root.get(REMARKS, ())]
    if stated.get("stop_strings"):
        found.append((f"the {FILE} of {text} states stop_strings: {STOPS}", "set `stop` to choose others", "stop"))
    return found


def ids_of(value: Any, key: str) -> tuple[int, ...]:
    """Token ids that are written as one or as a list; a negative one stands for no token. Raises ValueError for what is no id."""
    items = value if isinstance(value, list) else [] if value is None else [value]
    wrong = [item for item in items if isinstance(item, bool) or not isinstance(item, int)]
    if wrong:
        raise ValueError(f"it states {key}: {json.dumps(value)}, where numbers of tokens are wanted: {json.dumps(wrong[0])} is none")
    return tuple(item for item in items if item >= 0)


def _texts(value: Any) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(map(str, value)) if isinstance(value, list) else ()
