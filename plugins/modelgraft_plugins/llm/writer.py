"""What reads prompts and writes answers around a decoder: tokenizer, embeddings and loop, without the model itself.

A module of llm/causal or llm/seq2seq has one of these around its own decoder in torch; the onnx backend puts one around an
exported decoder and then needs no module at all, so that nothing here may import transformers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from modelgraft.plugin import (
    Answers,
    Assembling,
    Decoder,
    InputError,
    Ledger,
    LoadContext,
    NodeRuntime,
    Opened,
    Places,
    Remembering,
    Settings,
    SourceError,
    generate,
)
from modelgraft_plugins.llm import CausalConfig, Seq2SeqConfig, exported_script, memories, styles
from modelgraft_plugins.llm import starts as beginnings
from modelgraft_plugins.llm.config import GIVEN, LIKELY, WRITTEN, LanguageConfig
from modelgraft_plugins.llm.judging import judged
from modelgraft_plugins.llm.pieces import pieces_of
from modelgraft_plugins.llm.prompts import SLOT, Prompt, PromptWriter
from modelgraft_plugins.llm.tokens import Tokenizer, open_tokenizer

Embed = Callable[[Tensor], Tensor]
Given = Sequence[Sequence[str]] | None  # of each record the texts that are judged behind its prompt; None: nobody asks
Judged = Sequence[Sequence[Sequence[int]]]  # their tokens


# The parity gate: prompts of two batches of unequal lengths, none as long as the traced one, then tokens one by one.
REHEARSED = ((3, 9, 4), (1,))
STEPS = 4
MOST_IDS = 50  # tokens of the gate are drawn from the first so many of a vocabulary


class Writer(Assembling):
    """Reads the records of one node and writes their answers. Subclasses say what the decoder reads.

    facts  what a model says of itself beside its config: `vocabulary`, `end_ids`, `start_id`
    parts  decoder: a Decoder;  embed: int64[n] -> float[n width], the input embeddings
    """

    script = exported_script.SCRIPT
    config: LanguageConfig

    def __init__(self, config: Any, facts: Mapping[str, Any]) -> None:
        super().__init__(config, facts)
        self.runtime = NodeRuntime(node="llm")
        self.tokenizer: Tokenizer | SourceError | None = None
        self.device = torch.device("cpu")  # of the embeddings
        self.ledger: Ledger | None = None
        self.remembering: list[Remembering] = []  # the decoders that have been called, and keep conversations

    def run(self, values: Sequence[Any], parts: Mapping[str, Any], *, wanted: frozenset[str]) -> dict[str, Any]:
        """See Loop."""
        self._count(parts["decoder"])
        own = self.own_inputs  # behind them come the texts to be judged, and then what adapters add
        given = self._given(values[own], wanted) if len(values) > own else None
        return self.write([*values[:own], *values[own + 1 :]], given, decoder=parts["decoder"], embed=parts["embed"], wanted=wanted)

    @property
    def own_inputs(self) -> int:
        """How many values come before the texts to be judged: the fields of the template."""
        return len(self.config.fields)

    def _given(self, given: Given, wanted: frozenset[str]) -> Given:
        """The texts to be judged, where somebody wants to hear of them. Raises InputError where there are none, and for an empty one."""
        asked = sorted(wanted & set(LIKELY))
        if not asked:
            return None
        name = self.runtime.node
        if given is None:
            raise InputError(
                f"{name}.{asked[0]} tells of the texts that {name}.{GIVEN} gets, and nothing is wired into it: wire list[text]"
            )
        for row, texts in enumerate(given):
            if "" in texts:
                place = list(texts).index("") + 1
                raise InputError(f"{name}.{GIVEN}: text {place} of {len(texts)} of record {row} is empty; wanted at least one letter")
        return given

    def _count(self, decoder: Decoder) -> None:
        """Have what a decoder keeps counted by the ledger of the pipeline."""
        if self.ledger is not None and isinstance(decoder, Remembering) and decoder not in self.remembering:
            decoder.count_in(self.ledger, f"a conversation of {self.runtime.node}")
            self.remembering.append(decoder)

    def close(self) -> None:
        """Let go of the conversations that are kept."""
        for decoder in self.remembering:
            decoder.close()

    def write(self, values: Sequence[Any], given: Given, *, decoder: Decoder, embed: Embed, wanted: frozenset[str]) -> dict[str, Any]:
        """Answer each record.

        values   the fields of the template in order: a list of texts or conversations, or float[batch tokens width]
        given    texts to be judged behind the prompts
        embed    int64[n] -> float[n width], the input embeddings
        wanted   the outputs that somebody reads
        returns  text: one string per record; logits: float[batch vocab]
        """
        raise NotImplementedError

    def assemble(self, opened: Opened) -> dict[str, Any]:
        """See Assembling."""
        return styles.parts_of(opened)

    def rehearsals(self, parts: Mapping[str, Any]) -> list[tuple[Tensor, ...]]:
        """See Assembling: prompts."""
        generator = torch.Generator().manual_seed(7)
        return [tuple(self.rehearsed(length, parts["embed"], generator) for length in lengths) for lengths in REHEARSED]

    def rehearsed(self, length: int, embed: Embed, generator: torch.Generator) -> Tensor:
        """A prompt of the parity gate."""
        return embed(torch.randint(0, self._few, (length,), generator=generator)).detach()

    @classmethod
    def variant(cls, config: Any, wanted: frozenset[str]) -> str:
        """See Assembling: hidden states are another export, and other layers are one more."""
        return f"states {','.join(map(str, config.states.layers))} at places" if wanted & {"states", "prompt_states"} else ""

    def rehearse(self, parts: Mapping[str, Any], case: tuple[Tensor, ...], *, variant: str) -> tuple[Tensor, ...]:
        """See Assembling: the logits after the prompts, and after tokens that do not depend on them; last the states of the last token,
        and of some of each prompt."""
        prompts, conditions = self.begun(case)
        places = Places([sorted({0, len(prompt) // 2}) for prompt in prompts]) if variant and self.reads_prompts else None
        asks = {"places": places} if places is not None else {}
        session = parts["decoder"].start(prompts, conditions=conditions, room=STEPS, states=bool(variant), **asks)
        logits = [session.logits.float().clone()]
        for step in range(STEPS):
            tokens = torch.tensor([(7 * step + 3 * row + 1) % self._few for row in range(len(case))])
            logits.append(session.step(tokens).float().clone())
        if variant and session.states is not None:
            logits += [layer.float().clone() for layer in session.states.unbind(1)]
        if places is not None:
            logits += [states.flatten(0, 1) for states in places.found]
        session.close()
        return tuple(logits)

    @property
    def reads_prompts(self) -> bool:
        """Whether the decoder reads the prompts itself, so that they have hidden states."""
        return True

    def begun(self, case: tuple[Tensor, ...]) -> tuple[Sequence[Tensor], Any]:
        """Prompts and conditions of a rehearsal."""
        return case, None

    @property
    def _few(self) -> int:
        return min(MOST_IDS, int(self.facts["vocabulary"]))

    def prepare(self, context: LoadContext) -> None:
        """Open the tokenizer; a missing one is an error only when text is wanted."""
        self.ledger = context.ledger
        self.runtime.node, self.runtime.component = context.node.name, context.node.component.id
        self.device = torch.device(context.device)
        try:
            self.tokenizer = open_tokenizer(
                context,
                placeholder=self.config.placeholder,
                vocabulary=self.facts["vocabulary"],
                extra=self.config.extra_tokens,
                words=self.config.shown_words,
            )
        except SourceError as error:
            self.tokenizer = error

    def bind(self, runtime: NodeRuntime) -> None:
        """Take seed, events and cancellation from the run."""
        self.runtime = runtime

    def tokens(self) -> Tokenizer:
        """The tokenizer. Raises SourceError `no-tokenizer` when the source has none."""
        if isinstance(self.tokenizer, SourceError):
            raise self.tokenizer
        if self.tokenizer is None:
            raise InputError(f"{self.runtime.node}: there is no tokenizer, because nothing called prepare() after loading")
        return self.tokenizer

    def start_ids(self) -> tuple[int, ...]:
        """What every answer begins with."""
        return ()

    def answer(
        self,
        decoder: Decoder,
        prompts: Sequence[Tensor],
        said: Sequence[Sequence[int]],
        behind: Judged,
        *,
        wanted: frozenset[str],
        read: Sequence[Sequence[int]] | None = None,
        conditions: Any = None,
        asked: Sequence[Prompt] = (),
    ) -> dict[str, Any]:
        """Generate, and hand each piece of text on as an event. said, read, conditions: see `generate`.

        asked   the prompts, where the decoder reads them itself
        behind  the tokens of the texts that are judged behind each prompt;  wanted  see `write`
        """
        if any(not text for texts in behind for text in texts):
            raise InputError(
                f"{self.runtime.node}.{GIVEN}: the tokenizer makes no token of one of the texts, so that nothing can be judged"
            )
        emit, taps = self.runtime.emit, wanted & set(WRITTEN)
        places = Places([self._wanted_of(prompt) for prompt in asked]) if "prompt_states" in wanted else None
        answers: Answers = generate(
            decoder,
            prompts,
            self._settings(),
            decode=self._shown(),
            said=said,
            read=read,
            conditions=conditions,
            taps=taps,
            places=places,
            given=behind,
            seed=self.runtime.node_seed(),
            check=self.runtime.check,
            emit=lambda row, piece: emit("token", text=piece, record=row),
        )
        found = {"text": answers.texts, "logits": answers.logits, **self._tapped(answers, taps), **self._prompted(asked, places, wanted)}
        return found | {name: told for name, told in judged(answers.likely).items() if name in wanted}

    def _tapped(self, answers: Answers, taps: frozenset[str]) -> dict[str, Any]:
        """The taps that are read, padded to the longest row of each."""
        found: dict[str, Any] = {}
        if "ids" in taps:
            found["ids"] = _level([torch.tensor(ids, dtype=torch.int64) for ids in answers.ids], -1)
        if "pieces" in taps:
            names = dict(zip(self._named(self._at, "states.at"), self._at, strict=True))
            decode = self._shown()
            found["pieces"] = [pieces_of(ids, decode, names, text=text) for ids, text in zip(answers.ids, answers.texts, strict=True)]
        if "logprobs" in taps:
            found["logprobs"] = _level([torch.tensor(row, dtype=torch.float32) for row in answers.taps.logprobs], 0.0)
        if "states" in taps:
            chosen = self._chosen()
            empty = torch.zeros(0, len(self.config.states.layers), int(self.facts["state_width"]))
            rows = [
                [state.cpu() for token, state in zip(ids, states, strict=True) if chosen is None or token in chosen]
                for ids, states in zip(answers.ids, answers.taps.states, strict=True)
            ]
            found["states"] = _level([torch.stack(row) if row else empty for row in rows], 0.0).transpose(1, 2)
        return found

    def _wanted_of(self, prompt: Prompt) -> list[int]:
        """The places of a prompt whose states are wanted."""
        chosen = self._chosen()
        return [place for place in prompt.tokens if chosen is None or prompt.ids[place] in chosen]

    def _prompted(self, asked: Sequence[Prompt], places: Places | None, wanted: frozenset[str]) -> dict[str, Any]:
        """The taps of prompts that are read."""
        found: dict[str, Any] = {}
        if "prompt_ids" in wanted:
            told = [dict.fromkeys(prompt.tokens) for prompt in asked]
            rows = [
                [token if place in there else SLOT for place, token in enumerate(prompt.ids)]
                for prompt, there in zip(asked, told, strict=True)
            ]
            found["prompt_ids"] = _level([torch.tensor(row, dtype=torch.int64) for row in rows], SLOT)
        if places is not None:
            found["prompt_states"] = _level([states.transpose(0, 1) for states in places.found], 0.0).transpose(1, 2)
        if "prompt_pieces" in wanted:
            found["prompt_pieces"] = [self._pieces_of(prompt) for prompt in asked]
        return found

    def _pieces_of(self, prompt: Prompt) -> list[str]:
        """What each place of a prompt says: an embedding nothing."""
        names = dict(zip(self._named(self._at, "states.at"), self._at, strict=True))
        there = prompt.tokens
        told = dict(zip(there, pieces_of([prompt.ids[place] for place in there], self.tokens().decode, names), strict=True))
        return [told.get(place, "") for place in range(len(prompt.ids))]

    @property
    def _at(self) -> tuple[str, ...]:
        """The tokens that `states.at` names."""
        return () if isinstance(self.config.states.at, str) else self.config.states.at

    def _chosen(self) -> frozenset[int] | None:
        """The tokens whose states are wanted; None: all. Raises InputError for one that the tokenizer does not know."""
        return None if isinstance(self.config.states.at, str) else frozenset(self._named(self._at, "states.at"))

    def _shown(self) -> Callable[[list[int]], str]:
        """Tokens to the text that is shown of them."""
        decode, hidden = self.tokens().decode, frozenset(self._named(self.config.hidden_tokens, "hidden_tokens"))
        return (lambda ids: decode([token for token in ids if token not in hidden])) if hidden else decode

    def _settings(self) -> Settings:
        """How to write. Raises InputError for a token that the tokenizer does not know."""
        config = self.config
        settings = config.settings(end_ids=tuple(self.facts["end_ids"]))
        ends = self._named(config.end_tokens, "end_tokens")
        scales = self._named(tuple(config.token_scale), "token_scale", is_chosen=True)
        delays = self._named(tuple(config.token_delay), "token_delay", is_chosen=True)
        return replace(
            settings,
            end_ids=(*settings.end_ids, *ends),
            token_scale=tuple(zip(scales, config.token_scale.values(), strict=True)),
            token_delay=tuple(zip(delays, config.token_delay.values(), strict=True)),
        )

    def _named(self, names: Sequence[str], field: str, *, is_chosen: bool = False) -> list[int]:
        """The ids of tokens that a field names. Raises InputError for those that the tokenizer, or a model that chooses, does not know."""
        found = {name: self.tokens().id_of(name) for name in names}
        unknown = [name for name, number in found.items() if number is None]
        if unknown:
            raise InputError(f"{self.runtime.node}.{field}: the tokenizer has no token {', '.join(map(repr, unknown))}")
        rows = self.facts["vocabulary"]
        beyond = [f"{name!r} ({number:,})" for name, number in found.items() if is_chosen and (number or 0) >= rows]
        if beyond:
            known = f"the model knows {rows:,} tokens, 0 to {rows - 1:,}"
            raise InputError(f"{self.runtime.node}.{field} names {', '.join(beyond)}, and {known}: add them with extra_tokens")
        return [number for number in found.values() if number is not None]

    def prompts(self, values: Sequence[Any], given: Given = None, *, shown: int = 0, records: int = 1) -> list[Prompt]:
        """Write the prompt of every record: see PromptWriter.write.

        given    of each record the texts that are judged behind it
        records  how many there are, for a template without fields, which does not say

        Raises InputError for records that do not fit the template.
        """
        names = [field.name for field in self.config.fields]
        self._check_sizes(dict(zip(names, values, strict=True)))
        writer = PromptWriter(self.config, self.tokens(), node=self.runtime.node)
        rows = range(max((len(value) for value in values), default=records if given is None else len(given)))
        prompts = [
            writer.write(
                {name: value[row] for name, value in zip(names, values, strict=True)}, shown=shown, given=given[row] if given else ()
            )
            for row in rows
        ]
        for prompt in prompts:
            self._refuse_strangers(prompt)
        return prompts

    def _refuse_strangers(self, prompt: Prompt) -> None:
        """Raise InputError for a token that the tokenizer knows and the embeddings do not."""
        rows, places = self.facts["vocabulary"], frozenset(prompt.places)
        strange = next((token for place, token in enumerate(prompt.ids) if token >= rows and place not in places), None)
        if strange is not None:
            found = f"the tokenizer writes {self.tokens().inner.decode([strange])!r} as the id {strange:,}"
            there = f"the embeddings of {self.config.kind or 'the model'} have {rows:,} rows (0 to {rows - 1:,})"
            way_out = "leave it out of the text, or take the tokenizer and the weights of one checkpoint"
            raise InputError(f"{self.runtime.node}: {found}, and {there}: {way_out}")

    def _check_sizes(self, values: Mapping[str, Any]) -> None:
        width = self.config.hidden_size
        for field in self.config.fields:
            value = values[field.name]
            if field.many:
                self._check_many(field.name, value)
            elif isinstance(value, Tensor) and (value.ndim != 3 or width not in (None, value.shape[2])):
                shape = " ".join(map(str, value.shape))
                raise InputError(f"{self.runtime.node}.{field.name} got float[{shape}], wanted float[batch tokens {width}]")
            if field.tokens is not None and not (isinstance(value, Tensor) and value.shape[1] == field.tokens):
                got = f"{value.shape[1]} embeddings" if isinstance(value, Tensor) else "a text"
                raise InputError(f"{self.runtime.node}.{field.name} takes {field.tokens} embeddings, but got {got}")

    def _check_many(self, name: str, value: Sequence[Sequence[Any]]) -> None:
        """Of several media each is float[tokens width]."""
        width = self.config.hidden_size
        shapes = (tuple(medium.shape) for media in value for medium in media if isinstance(medium, Tensor))
        if (wrong := next((shape for shape in shapes if len(shape) != 2 or width not in (None, shape[1])), None)) is not None:
            shape = " ".join(map(str, wrong))
            raise InputError(f"{self.runtime.node}.{name} got a medium of float[{shape}], wanted float[tokens {width}]")


def _level(rows: Sequence[Tensor], filler: float) -> Tensor:
    """Stack rows of unequal lengths along their first axis."""
    return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True, padding_value=filler)


class CausalWriter(Writer):
    """Around a decoder that reads the prompt itself."""

    config: CausalConfig

    def write(self, values: Sequence[Any], given: Given, *, decoder: Decoder, embed: Embed, wanted: frozenset[str]) -> dict[str, Any]:
        """See Writer. Raises InputError for a prompt that does not fit."""
        prompts = self.prompts(values, given)
        self._fits(prompts)
        embedded = [prompt.embed(embed, self.device) for prompt in prompts]
        said, behind = [prompt.said for prompt in prompts], [prompt.given for prompt in prompts]
        return self.answer(decoder, embedded, said, behind, wanted=wanted, asked=prompts)

    def _fits(self, prompts: Sequence[Prompt]) -> None:
        limit, new = self.config.max_position_embeddings, self.config.reserved
        longest = max(len(prompt.ids) for prompt in prompts)
        behind = max((len(prompt.ids) + len(text) for prompt in prompts for text in prompt.given), default=0)
        if limit is not None and behind > limit:
            has = f"a prompt and a text that is judged behind it have {behind:,} tokens together"
            raise InputError(f"{self.runtime.node}: {has}; {self.config.kind or 'the model'} has {limit:,} positions: shorten one of them")
        if limit is not None and longest + new > limit:
            has = f"the prompt has {longest:,} tokens and max_new_tokens is {new:,}, together {longest + new:,}"
            way_out = f"shorten the prompt{f', or set max_new_tokens to at most {limit - longest:,}' if longest <= limit else ''}"
            raise InputError(f"{self.runtime.node}: {has}; {self.config.kind or 'the model'} has {limit:,} positions: {way_out}")


class Seq2SeqWriter(Writer):
    """Around a decoder whose encoder reads the prompt, or that takes a memory."""

    config: Seq2SeqConfig

    @property
    def reads_prompts(self) -> bool:
        """See Writer: the encoder does."""
        return False

    def rehearsed(self, length: int, embed: Embed, generator: torch.Generator) -> Tensor:  # noqa: ARG002 any vectors will do
        """See Writer: what the encoder reads, or a memory."""
        return torch.randn(length, self.facts["width"], generator=generator)

    def begun(self, case: tuple[Tensor, ...]) -> tuple[Sequence[Tensor], Any]:
        """See Writer."""
        return [torch.zeros(1, dtype=torch.int64)] * len(case), case

    @property
    def own_inputs(self) -> int:
        """See Writer: the fields, or the memory."""
        return 1 if self.config.encoder == "none" else super().own_inputs

    def write(self, values: Sequence[Any], given: Given, *, decoder: Decoder, embed: Embed, wanted: frozenset[str]) -> dict[str, Any]:
        """See Writer; the values of a decoder alone are its memory, float[batch frames width], and where it is there. Texts are judged as
        answers."""
        read: list[list[int]] | None = None
        if self.config.encoder == "none":
            memory = memories.rows(values[0], values[1] if len(values) > 1 else None, kind=self.config.kind, node=self.runtime.node)
        else:
            prompts = self.prompts(values, None, records=1 if given is None else len(given))
            memory, read = [prompt.embed(embed, self.device) for prompt in prompts], [prompt.said for prompt in prompts]
        behind = [[self.tokens().plain(text) for text in texts] for texts in given or ()]
        starts: Sequence[tuple[int, ...]] = [self.start_ids()] * len(memory)
        if self._hears:
            starts = beginnings.starts(self.config, self._heard(decoder, starts, memory))
        begun = [torch.tensor(start) for start in starts]
        return self.answer(decoder, begun, starts, behind, read=read or [()] * len(memory), conditions=memory, wanted=wanted)

    @property
    def _hears(self) -> bool:
        """The language is not known before something is heard."""
        return self.config.language == beginnings.AUTO and not self.config.decoder_prompt

    def _heard(self, decoder: Decoder, starts: Sequence[Sequence[int]], memory: Sequence[Tensor]) -> list[int]:
        """The likeliest language of each record, by the logits behind the start token."""
        session = decoder.start([torch.tensor(start) for start in starts], conditions=memory, room=0)
        logits = session.logits
        ids = torch.tensor(sorted(self.config.languages.values()), device=logits.device)
        found: list[int] = ids[logits[:, ids].argmax(-1)].tolist()
        session.close()
        return found

    def start_ids(self) -> tuple[int, ...]:
        """The tokens that every answer begins with; where the language is heard, those before it.

        Raises InputError for one that the tokenizer does not know.
        """
        if self._hears:
            return self.config.decoder_start_ids[:1]
        found = [(token, self.tokens().id_of(token)) for token in self.config.decoder_prompt]
        unknown = [token for token, number in found if number is None]
        if unknown:
            raise InputError(f"{self.runtime.node}.decoder_prompt: the tokenizer has no token {', '.join(map(repr, unknown))}")
        if given := tuple(number for _, number in found if number is not None):
            return given
        if self.config.decoder_start_ids:
            return beginnings.starts(self.config)[0]
        first = self.facts["start_id"]
        if first is None:
            raise InputError(f"{self.runtime.node}: {self.config.kind} names no decoder_start_token_id; set decoder_start_ids")
        return (int(first),)
