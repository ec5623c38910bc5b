"""What reads prompts and writes answers around a decoder: tokenizer, embeddings and loop, without the model itself.

A module of llm/causal or llm/seq2seq has one of these around its own decoder in torch; the onnx backend puts one around an
exported decoder and then needs no module at all, so that nothing here may import transformers, nor torch where texts are answered.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from modelgraft.plugin import (
    Answers,
    Array,
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
    as_tensor,
    generate,
)
from modelgraft_plugins.llm import each_record, exported_script, ragged, styles, tapping
from modelgraft_plugins.llm.config import LanguageConfig
from modelgraft_plugins.llm.fitting import check_sizes, refuse_strangers
from modelgraft_plugins.llm.judging import chosen, judged
from modelgraft_plugins.llm.naming import Names
from modelgraft_plugins.llm.ports import DRAFT, GIVEN, LIKELY, SETTINGS, WRITTEN
from modelgraft_plugins.llm.prompts import Prompt, PromptWriter
from modelgraft_plugins.llm.tokens import Tokenizer, open_tokenizer

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from modelgraft.plugin import Drafting, DraftModel, Guesses
    from modelgraft_plugins.llm.grammars import Following, Grammars

Embed = Callable[[Any], Any]
Given = Sequence[Sequence[str]] | None  # of each record the texts that are judged behind its prompt; None: nobody asks
Judged = Sequence[Sequence[Sequence[int]]]  # their tokens


UNKNOWN_PRICE = 0.25  # of a guess, where the parameters of one of the two models are not known by formula
# Bits that a weight takes, with its part of a scale; others take 32.
BITS = {"float64": 64, "float16": 16, "bfloat16": 16, "int8": 8, "w8": 9, "w4": 5}
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
        self.device = "cpu"  # of the embeddings
        self.bits = 32  # that a weight takes
        self.ledger: Ledger | None = None
        self.reference: Decoder | None = None  # what others are compared with
        self.remembering: list[Remembering] = []  # the decoders that have been called, and keep conversations
        self.grammars: Grammars | None = None
        self.rows: Sequence[int] | None = None  # the records under way, where they are not all
        self.seed: int | None = None  # of the records under way, where they have one of their own
        self.drafts: Sequence[DraftModel] | None = None  # for each record the model that guesses its answer, which is the same one

    def run(self, values: Sequence[Any], parts: Mapping[str, Any], *, wanted: frozenset[str]) -> dict[str, Any]:
        """See Loop."""
        self._count(parts["decoder"])
        own, others = self.own_inputs, self.config.others()  # behind them comes what adapters add
        told = dict(
            zip(others, values[own : own + len(others)], strict=False)
        )  # code that is called by itself may leave out what is optional
        texts, settings, self.drafts = told.get(GIVEN), told.get(SETTINGS), told.get(DRAFT)
        asks = wanted if len(values) > own else wanted - set(LIKELY)
        rest = [*values[:own], *values[own + len(others) :]]
        if settings is None:
            return self.write(rest, self._given(texts, rest, asks), decoder=parts["decoder"], embed=parts["embed"], wanted=wanted)
        config, found = self.config, list[tuple[Sequence[int], dict[str, Any]]]()
        try:
            for said, rows in each_record.groups(settings):
                self.config = each_record.over(config, said, rows, node=self.runtime.node)
                self.rows, self.seed = rows, said.get(each_record.SEED)
                some = [each_record.picked(value, rows) for value in rest]
                given = self._given(each_record.picked(texts, rows), some, asks)
                found.append((rows, self.write(some, given, decoder=parts["decoder"], embed=parts["embed"], wanted=wanted)))
        finally:
            self.config, self.rows, self.seed = config, None, None
        return each_record.merged(found, len(settings))

    @property
    def own_inputs(self) -> int:
        """How many values come before the texts to be judged: the fields of the template, and what tells of their media."""
        return len(self.config.fields) + len(self.config.beside)

    def _given(self, given: Given, values: Sequence[Any], wanted: frozenset[str]) -> Given:
        """The texts to be judged, where somebody wants to hear of them, or the answer is one of them.

        Raises InputError where there are none, and for an empty one.
        """
        asked = sorted(wanted & set(LIKELY)) or (["text"] if self.config.chooses else [])
        if not asked:
            return None
        name = self.runtime.node
        if self.config.choices:
            given = [self.config.choices] * max((len(value) for value in values if value is not None), default=1)
        if given is None:
            raise InputError(
                f"{name}.{asked[0]} tells of the texts that {name}.{GIVEN} gets, and nothing is wired into it: wire list[text]"
            )
        for row, texts in enumerate(given):
            if self.config.chooses and not len(texts):
                raise InputError(f"{name}.{GIVEN}: record {row} has no text to choose from; wanted at least one")
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
        from modelgraft_plugins.llm import rehearsing

        self.reference = parts["decoder"]
        return rehearsing.prompts(self, parts["embed"])

    def rehearsed(self, length: int, embed: Embed, generator: torch.Generator) -> Tensor:
        """A prompt of the parity gate."""
        import torch

        embedded: Tensor = as_tensor(embed(torch.randint(0, self.few, (length,), generator=generator)))
        return embedded.detach()

    @classmethod
    def variant(cls, config: Any, wanted: frozenset[str]) -> str:
        """See Assembling: hidden states are another export, and other layers are one more."""
        return f"states {','.join(map(str, config.states.layers))} at places" if wanted & {"states", "prompt_states"} else ""

    def rehearse(self, parts: Mapping[str, Any], case: tuple[Tensor, ...], *, variant: str) -> tuple[Tensor, ...]:
        """See Assembling and rehearsing.read."""
        from modelgraft_plugins.llm import rehearsing

        return rehearsing.read(self, parts, case, variant=variant)

    @property
    def reads_prompts(self) -> bool:
        """Whether the decoder reads the prompts itself, so that they have hidden states."""
        return True

    def begun(self, case: tuple[Tensor, ...]) -> tuple[Sequence[Array], Any]:
        """Prompts and conditions of a rehearsal."""
        return case, None

    @property
    def few(self) -> int:
        """How many tokens of the vocabulary the gate draws from."""
        return min(MOST_IDS, int(self.facts["vocabulary"]))

    def prepare(self, context: LoadContext) -> None:
        """Open the tokenizer; a missing one is an error only when text is wanted."""
        self.ledger = context.ledger
        self.runtime.node, self.runtime.component = context.node.name, context.node.component.id
        self.device, self.bits = context.device, BITS.get(context.precision or context.dtype, 32)
        try:
            self.tokenizer = open_tokenizer(context, self.config, vocabulary=self.facts["vocabulary"])
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

    @property
    def names(self) -> Names:
        """The tokens that the config names. Raises as `tokens` does."""
        return Names(self.config, self.tokens(), self.facts, self.runtime.node)

    def start_ids(self) -> tuple[int, ...]:
        """What every answer begins with."""
        return ()

    def answer(
        self,
        decoder: Decoder,
        prompts: Sequence[Array],
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
        emit, hand_on, taps, names = self.runtime.emit, self._emitter(), wanted & set(WRITTEN), self.names
        if self.config.chooses and "states" in taps:
            raise InputError(f"{self.runtime.node}.states: an answer that is chosen among texts is not written, and has no states")
        guides = self._guides(len(prompts))
        places = Places([tapping.places_of(prompt, names) for prompt in asked]) if "prompt_states" in wanted else None
        settings, guesser = names.settings(), None
        if self.drafts:
            settings = replace(settings, lookup=self.most_drafted)
            guesser = self._guesser(said, settings, self.drafts[0])
        answers: Answers = generate(
            decoder,
            prompts,
            settings,
            decode=names.shown(),
            said=said,
            read=read,
            conditions=conditions,
            taps=taps,
            places=places,
            given=behind,
            guides=guides,
            guesser=guesser,
            seed=self.runtime.node_seed() if self.seed is None else self.seed,
            check=self.runtime.check,
            emit=hand_on,
        )
        for row, what in self._cut_short(guides):
            emit("warning", text=f"the answer of record {self._record(row)} {what}")
        self._tell(answers.guesses)
        if isinstance(decoder, Remembering) and len(prompts) == 1 and decoder.reused:
            emit("prompt-read", kept=decoder.reused, tokens=len(prompts[0]), record=self._record(0))
        if self.config.chooses:
            answers = chosen(answers, names.shown(), by_mean=self.config.choose == "mean")
            if hand_on is not None:
                for row, text in enumerate(answers.texts):
                    hand_on(row, text)
        texts = [text.lstrip() for text in answers.texts] if self.config.strip_start else answers.texts
        found = {"text": texts, "logits": answers.logits, **tapping.of_answers(answers, names, taps)}
        found |= tapping.of_prompts(asked, places, names, wanted)
        if wanted & set(LIKELY):
            found |= {name: told for name, told in judged(answers.likely).items() if name in wanted}
        return found

    def weights(self) -> float | None:
        """The bytes that a step reads of the weights; None where their number is not known by formula."""
        count = self.config.parameters()
        return None if count is None else count * self.bits / 8

    def _emitter(self) -> Callable[[int, str], None] | None:
        """What hands pieces of text on, by the number of their row; None where nobody hears them, so that none are made."""
        if not self.runtime.is_heard:
            return None
        begun = set[int]()

        def hand_on(row: int, piece: str) -> None:
            piece = piece.lstrip() if self.config.strip_start and row not in begun else piece
            if piece:
                begun.add(row)
                self.runtime.emit("token", text=piece, record=self._record(row))

        return hand_on

    def _guesser(self, said: Sequence[Sequence[int]], settings: Settings, draft: DraftModel) -> Drafting:
        """What asks the draft."""
        from modelgraft.plugin import Drafting

        own = self.weights()
        price = min(draft.weights / own, 1.0) if own and draft.weights else UNKNOWN_PRICE
        room = settings.longest(min(map(len, said)))
        return Drafting(draft, said, room=room, vocabulary=int(self.facts["vocabulary"]), price=price)

    @property
    def most_drafted(self) -> int:
        """How many tokens a draft guesses at once."""
        return 0

    def _tell(self, guesses: Guesses | None) -> None:
        """Say how answers were guessed ahead, or why they were not."""
        if guesses is None:
            return
        if guesses.why:
            asked = f"draft: {self.most_drafted}" if self.drafts else f"lookup: {self.config.lookup}"
            self.runtime.emit("warning", text=f"{asked} guesses nothing here: {guesses.why}; the answer is the same")
        else:
            self.runtime.emit("guesses", passes=guesses.passes, guessed=guesses.guessed, right=guesses.right)

    def _record(self, row: int) -> int:
        """The number in the batch of a record under way."""
        return row if self.rows is None else self.rows[row]

    def _guides(self, count: int) -> list[Following]:
        """What bounds the answers of so many records; none where anything may be answered."""
        if self.config.matching is None and self.config.json_schema is None:
            return []
        if self.grammars is None:
            from modelgraft_plugins.llm.grammars import Grammars

            ends = self.names.settings().end_ids
            self.grammars = Grammars(self.tokens(), vocabulary=self.facts["vocabulary"], end_ids=ends, node=self.runtime.node)
        return [self.grammars.guide(self.config) for _ in range(count)]

    def _cut_short(self, guides: Sequence[Following]) -> list[tuple[int, str]]:
        """See grammars.cut_short."""
        if not guides:
            return []
        from modelgraft_plugins.llm.grammars import cut_short

        return cut_short(guides, self.config)

    def prompts(
        self, values: Sequence[Any], given: Given = None, *, shown: int = 0, records: int = 1, learns: bool = False
    ) -> list[Prompt]:
        """Write the prompt of every record: see PromptWriter.write.

        given    of each record the texts that are judged behind it
        records  how many there are, for a template without fields, which does not say
        learns   they are whole conversations, whose answers are looked for

        Raises InputError for records that do not fit the template.
        """
        told = dict(zip((*(field.name for field in self.config.fields), *self.config.beside), values, strict=True))
        check_sizes(self.config, told, node=self.runtime.node)
        records_of = ragged.gathered(self.config.fields, told, node=self.runtime.node)
        writer = PromptWriter(self.config, self.tokens(), node=self.runtime.node)
        rows = range(max((len(value) for value in records_of.values()), default=records if given is None else len(given)))
        prompts = [
            writer.write(
                {name: value[row] for name, value in records_of.items()}, shown=shown, given=given[row] if given else (), learns=learns
            )
            for row in rows
        ]
        for prompt in prompts:
            refuse_strangers(prompt, self.tokens(), rows=self.facts["vocabulary"], kind=self.config.kind, node=self.runtime.node)
        return prompts
