"""Language models: decoders (llm/causal) and encoder-decoders (llm/seq2seq) of any family that transformers has.

Both take a prompt template. Each `{field}` of it becomes an input port, in the order in which the fields appear, and takes a
text (also a label), a conversation, or embeddings `float[batch <field>_tokens hidden_size]`; `{field:729}` takes exactly 729
embeddings, `{field:*}` for each record any number of media: those of a branch that it asks several times; `{field:ragged}` takes any
number of media of unlike sizes, see below. Outputs: `text` (the new
text, special tokens removed) and `logits` (of the first new token, float32); and taps, which exist when somebody reads them, and
cost nothing otherwise. Of the answer:
- `ids` int64[batch new]: the tokens of the answers, end tokens too; shorter ones are filled up with -1.
- `logprobs` float[batch new]: their log-probabilities by the model alone, before any rule or temperature; filled up with 0.
- `states` float[batch layers positions width]: hidden states at the tokens' own positions, what the model makes of each once it has read
  it, the last one too. `states: {layers: [-1], at: written}` in `with` says which: of layers, 0 are the embeddings and -1 is what the
  head reads; `at: ["[RET]"]` gives those of such tokens alone, in their order, as many as the answer holds (count them in `ids`); filled
  up with 0. In the same pass; of beams, whose states come and go, the answers are read once more. On onnx they are another export.
- `pieces` list[text]: what each token of `ids` adds to `text`, and of the tokens that `states.at` names, which then add nothing, their
  names. It is what router/signal-tokens reads.

Of the prompt, where the decoder reads it itself (llm/causal), in the pass that reads it, whether anything is written or not:
- `prompt_ids` int64[batch asked], `prompt_pieces` list[text]: its tokens; -1 and an empty piece where an embedding stands.
- `prompt_states` float[batch layers positions width]: hidden states of its tokens, or of those that `states.at` names: FROMAGe reads its
  query at the `[RET]` that a prompt ends with. What was kept of an earlier prompt is read again from the first of them on.

Of given texts, which the optional input `continuations` (list[text]) takes: how likely each is behind the prompt. The prompt is read once
for all of them and for the answer (`max_new_tokens: 0` writes none); a text is cut into tokens as it would be behind the prompt, so that a
space between them belongs to the text, and its end token does not count. An encoder-decoder judges them as answers.
- `likelihoods` float[batch continuations]: the log-probability of each by the model alone; -inf where a record has fewer than others.
- `greedy` bool[batch continuations]: whether each of its tokens is the likeliest one in its place.
- `continuation_ids`, `continuation_logprobs` [batch continuations tokens]: its tokens, and the log-probability of each, filled up with
  -1 and 0. A mean over tokens or letters is a matter of who compares.
Any graph around one language model takes and gives them with `params=judging(graph)` of modelgraft.commands:

    modelgraft run llava --input image=cat.png --input prompt="Is it a cat?" --input 'continuations=[" Yes", " No"]' --output likelihoods
        --set inputs.continuations='list[text]' --set nodes.llm.in.continuations=inputs.continuations
        --set outputs.likelihoods=llm.likelihoods --set nodes.llm.with.max_new_tokens=0

    llm:
      use: llm/causal
      from: "${checkpoint}#language_model"       # config, weights, tokenizer, generation defaults
      with: {prompt: "USER: {image}\\n{prompt} ASSISTANT:", max_new_tokens: 30}
      in: {image: project, prompt: inputs.prompt}

Of a given answer, which the optional input `target` (text) takes, on torch: what the model is trained by. It stands behind the prompt as
it would be written there, with the token that ends answers (the first of `end_tokens`, of the chat template, or of the model), is read
in one pass, and only its own places are given to the head, so that nothing is learnt of prompts and media. An encoder-decoder reads the
prompt by its encoder, and the answer behind the tokens that answers begin with. Where the prompt of a llm/causal is a conversation that
holds answers itself, and nothing is wired into `target`, each of its answers is learnt, with what ends it (dialogues.py).
- `target_logits` float[batch tokens vocabulary]: the logits in front of each of its tokens; filled up with 0.
- `target_ids` int64[batch tokens]: these tokens; filled up with -100, which loss/cross_entropy leaves out:
      losses: {say: {use: loss/cross_entropy, with: {over: tokens}, in: {logits: llm.target_logits, labels: llm.target_ids}}}
- `target_states` float[batch layers positions width]: hidden states where its tokens stand, or those that `states.at` names, in the same
  pass and with gradients, so that one step trains what an answer says and what its signals become: nextgpt/train_instruct.

What an answer may be:
- `choices: [cat, dog]`: the likeliest of these texts behind the prompt; `choose: mean` compares by the mean of their tokens. With `choose`
  and no choices it is the likeliest of the `continuations` of each record.
- `matching: "[0-9]{1,3} cats?"`: a regular expression that the whole answer matches; `json_schema: {...}`: a document of a JSON Schema.
  The package llguidance follows them token by token (extra: modelgraft[grammar]); an answer that ran out of tokens before is told.
- Settings of a single record, which go over those of the node, come through the input `settings`: {temperature: 0.7, seed: 3}.

How it is written sooner: `lookup: 8` guesses up to so many tokens at once, as the text went on where the last ones stood before, in the
prompt or in the answer, and reads them in one call. The answer is the same, with any setting; the event `guesses` tells how many calls were
saved, and a warning why nothing could be guessed. In precision int8 all tokens of a call share a scale, so that there nearly equal tokens
may be chosen otherwise. It is for answers that repeat what was said: summaries, quotations, code that is changed. `draft: 8` guesses by a
smaller model of the same tokens, a node of its own that has its own backend and precision; it is for answers that the smaller one mostly
agrees with, of models that are many times as large:

    small: {use: llm/draft, from: HuggingFaceTB/SmolLM2-135M-Instruct}
    llm:   {use: llm/causal, from: HuggingFaceTB/SmolLM2-1.7B-Instruct, with: {draft: 8}, in: {prompt: inputs.prompt, draft: small}}

How a prompt is put together:
- Text fields are written into the template; embeddings take the place of their field. Where the tokenizer knows the placeholder
  (`placeholder`, "<image>" or what the source says) the whole string is tokenised once with one placeholder per medium; where
  it does not, the pieces between the media are tokenised one by one.
- A text that already holds the placeholder is used as it is, in place of the template: one placeholder per medium, or one
  per embedding.
- `begin: text` (what sources of BLIP-2 and InstructBLIP say): media that lead stand before the begin token.
- Of several chat templates of a source `chat_template: NAME` takes one; they are found wherever tokenizers and processors keep
  them, and written in a process of their own, within bounds of time and memory (chat_rendering.py). Where a model was taught one
  that its files leave out, `chat_template: vicuna_v1` names a row of `conversations/rows.yaml`, whose end texts and tokens count too.
- `chat: true` makes the prompt the user's message in the tokenizer's chat template, after `system` if that is set. A
  conversation is always written by the chat template; its pictures are the embedding fields, in reading order, and when one
  field holds them all, equal shares of it.
- What a user wrote into a conversation, or into a field under `chat: true`, is letters: the placeholder and the tokens that mark roles
  and ends stand in it as they are spelt. A text for a template of the graph's own is a prompt, and may hold what it likes.
- Greedy unless `temperature` is set. A setting of the loop comes from its default, from the source's generation_config.json
  (without one from its config.json, as in former times), or from the graph, and the last of these wins: `modelgraft explain` says
  which it was. What the source states and the loop does not do is a warning of `check`, `plan` and every run.
- The language model inside a whole has the head of the whole, and its scale or soft cap of logits: `final_scale`.

Media of unlike sizes: of a field `{image:ragged}` the embeddings of all media of a record stand one medium behind the other, in
`image` float[batch image_tokens hidden_size], and further inputs tell of them:
- `image_lengths` int64[batch image_media]: how many each medium has; 0 where a record has fewer media than others.
- `image_words` list[text], optional: the text that stands in the place of each medium, in which the placeholder stands once for each of
  its embeddings, or for runs of them: rows of tiles and breaks between them. Without it the embeddings stand alone. What it begins and
  ends with is written once, where a chat template puts it around the placeholder too.
- `image_grids` int64[batch image_media 3], optional: frames, rows and columns of its embeddings. A model with M-RoPE counts its places by
  them (standing.py), on torch and onnx; others do not mind. `image_paces` float[batch image_media]: how far its frames stand apart.
- `image_deep` float[batch deep image_tokens hidden_size], optional: what is added to each embedding behind the first layers, one for each
  (DeepStack). The input is there where the model hears inner layers of an eye: a Qwen3-VL says how many (`deep`). It is on torch and
  onnx.
The prompt holds the placeholder once for each medium: where the template has the field, where the text says, or where a chat template
puts the pictures of a conversation. `reads: both` lets all tokens of the prompt see each other, `reads: media` those of one medium.

llm/seq2seq: the encoder reads the prompt, the decoder writes. With `encoder: none` it is a decoder alone: its one input is
`memory: float[batch frames hidden_size]` (say, of audio/encoder; the optional `memory_mask` says what of it is there), and every answer
begins with the forced tokens
`decoder_prompt` (token strings) or `decoder_start_ids`. Sources of Whisper say `encoder: none` and their start tokens; one that
knows several languages hears which is spoken (`language: auto`), unless it says one, or the graph does.

    words:
      use: llm/seq2seq
      from: "${checkpoint}"                      # a Whisper checkpoint; its encoder's tensors are left to audio/encoder
      in: {memory: encoder}
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from modelgraft.plugin import Ports, SolvedNode, Space, SpaceOf, component, hookimpl, port
from modelgraft_plugins.llm import drafts, starts
from modelgraft_plugins.llm.classes import CAUSAL, CROSSING, SPEECH, refuse_unknown
from modelgraft_plugins.llm.config import LanguageConfig, model_of, unheeded_model, values_of
from modelgraft_plugins.llm.context import review_chat, review_context
from modelgraft_plugins.llm.gated import GatedCrossAttention
from modelgraft_plugins.llm.known import family_of, head_is_tied
from modelgraft_plugins.llm.ports import ASKED, DRAFT, PROMPT_OUTPUTS, TAPS, TAUGHT
from modelgraft_plugins.llm.prefix import PrefixAttention
from modelgraft_plugins.llm.remote import RemoteConfig
from modelgraft_plugins.llm.splice import SpliceConfig
from modelgraft_plugins.llm.writing import FILE, WritingConfig, unheeded_generation

if TYPE_CHECKING:
    from modelgraft.plugin import Source


@component(
    "llm/causal",
    kind="llm",
    module="modelgraft_plugins.llm.causal:Causal",
    exportable=True,
    loop="modelgraft_plugins.llm.causal_writer:CausalWriter",
    taps=(*TAPS, *ASKED, *TAUGHT),
    random=True,
    shared=False,  # a decoder keeps what it has read, and conditions stand on its layers while it writes
    keywords=("decoder", "chat", "vlm", "tongue"),
)
class CausalConfig(LanguageConfig):
    """Read a prompt of text and embeddings, and write what follows, with a decoder-only language model."""

    draft: int = Field(
        default=0,
        ge=0,
        le=64,
        description="so many tokens are guessed at once, at most, by a smaller model, which is wired to the input `draft` (llm/draft), and"
        " read together: the answer is the same; 0: none, and there is no such input",
    )
    draft_space: Annotated[Space | None, SpaceOf(DRAFT)] = Field(None, description="the tokens of the draft; None: those of the wire")

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Raises ValueError for an encoder-decoder, a whole multimodal model, or a config without model_type."""
        config = model_of(source)
        if family_of(config["model_type"]).crosses or config.get("is_encoder_decoder"):
            raise ValueError(f"{source.text} is a {config['model_type']} model, an encoder-decoder: use llm/seq2seq")
        refuse_unknown(config["model_type"], CAUSAL, "llm/causal")
        if source.part and (tied := head_is_tied(source.root, config)) is not None:
            config["tie_word_embeddings"] = tied
        return values_of(source, config)

    @classmethod
    def unheeded(cls, source: Source) -> list[tuple[str, ...]]:
        """What the source says of writing, and the loop does not do; what a whole leaves out of its language model."""
        config = model_of(source)
        return [*unheeded_generation(source, config), *unheeded_model(source, config)]

    @model_validator(mode="after")
    def _has_a_class(self) -> CausalConfig:
        if self.kind is not None:
            refuse_unknown(self.kind, CAUSAL, "llm/causal")
        if self.draft and (
            others := [f"{name}: {value}" for name, value in (("lookup", self.lookup), ("beams", self.beams - 1 and self.beams)) if value]
        ):
            raise ValueError(f"draft: {self.draft} guesses how one answer goes on, and {others[0]} goes another way; choose one")
        return self

    def ports(self) -> Ports:
        """Those of every language model, and the draft where one is asked for."""
        found = super().ports()
        guesses = port("object", space=self.draft_space, doc="a smaller model of the same tokens, which guesses ahead: llm/draft")
        return Ports({**found.inputs, **({DRAFT: guesses} if self.draft else {})}, found.outputs)

    def others(self) -> tuple[str, ...]:
        """See LanguageConfig.others."""
        return (*super().others(), *([DRAFT] if self.draft else []))

    def parameters(self) -> int | None:
        """By the formula of the family, where there is one."""
        count = self.family.count
        return count(self.family.facts(self.facts())) if count is not None and not self.family.crosses else None

    def review(self, node: SolvedNode) -> Iterable[tuple[str, str, str]]:
        """Compare what is known of the prompt, and the longest answer, with the context; look for the chat template that is wanted."""
        yield from self.uneven(node)
        yield from self.without_layers(node)
        yield from review_context(self, node)
        yield from review_chat(self, node)
        if self.draft:
            yield from drafts.review(self, node)


@component(
    "llm/draft",
    kind="llm",
    module="modelgraft_plugins.llm.causal:Causal",
    exportable=True,
    loop="modelgraft_plugins.llm.draft_writer:DraftWriter",
    cache=False,
    shared=False,
    keywords=("speculation", "guess", "assistant", "sooner"),
)
class DraftConfig(CausalConfig):
    """Guess ahead for a larger language model of the same tokens, whose answers come sooner and stay the same."""

    tokenizer: str | None = Field(default=None, description="what tells its tokens from those of others; null: not known")

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Its model alone: how answers are written is for the model that it guesses for. Raises ValueError as llm/causal does."""
        found = {name: value for name, value in CausalConfig.from_source(source).items() if name not in WritingConfig.model_fields}
        return {**found, "tokenizer": drafts.tokens_of(source)}

    @classmethod
    def unheeded(cls, source: Source) -> list[tuple[str, ...]]:
        """What a whole leaves out of its language model."""
        return list(unheeded_model(source, model_of(source)))

    @model_validator(mode="after")
    def _only_guesses(self) -> DraftConfig:
        for name in sorted({*WritingConfig.model_fields, *drafts.OF_PROMPTS, "draft"} & self.model_fields_set):
            raise ValueError(f"a draft guesses and writes nothing: {name} stands in the node that it guesses for")
        return self

    def ports(self) -> Ports:
        """Nothing in, itself out."""
        return Ports({}, {DRAFT: port("object", space=drafts.space(self.tokenizer), doc="goes into the input `draft` of llm/causal")})

    def review(self, node: SolvedNode) -> Iterable[tuple[str, str, str]]:
        """Whether it is a model that can be built."""
        yield from self.uneven(node)


@component(
    "llm/seq2seq",
    kind="llm",
    module="modelgraft_plugins.llm.seq2seq:Seq2Seq",
    exportable=True,
    loop="modelgraft_plugins.llm.seq2seq_writer:Seq2SeqWriter",
    taps=(*TAPS, *TAUGHT),
    random=True,
    shared=False,
    keywords=("t5", "whisper", "tongue"),
)
class Seq2SeqConfig(LanguageConfig):
    """Read a prompt of text and embeddings with an encoder, or a memory from elsewhere, and write an answer with a decoder."""

    encoder: Literal["own", "none"] = Field(default="own", description="none: the memory comes from another node")
    decoder_prompt: tuple[str, ...] = Field(default=(), description="tokens that every answer begins with, as strings; not part of it")
    decoder_start_ids: tuple[int, ...] = Field(default=(), description="the same as ids; none: the model's decoder_start_token_id")
    language: str | None = Field(default=None, description="whisper: the language that is spoken, such as de or german; auto: it is heard")
    task: str | None = Field(default=None, description="whisper: transcribe, or translate into English; null: what the source says")
    languages: dict[str, int] = Field(default={}, description="the tokens of languages that the model knows, with their ids")
    tasks: dict[str, int] = Field(default={}, description="the tasks that the model knows, with the ids of their tokens")

    def chosen_tokens(self) -> Mapping[str, tuple[int, ...]]:
        """Those of the loop, and those that answers begin with."""
        return {**super().chosen_tokens(), "decoder_start_ids": self.decoder_start_ids}

    @model_validator(mode="after")
    def _can_begin(self) -> Seq2SeqConfig:
        if self.kind is not None:
            refuse_unknown(self.kind, CROSSING | SPEECH, "llm/seq2seq")
        if self.decoder_start_ids:
            starts.starts(self)
        elif self.language is not None or self.task is not None:
            raise ValueError("language and task are those of a Whisper source, and this one does not say how its answers begin")
        return self

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Raises ValueError for a decoder-only model, a whole multimodal model, or a config without model_type."""
        config = model_of(source)
        kind = config["model_type"]
        if not (family_of(kind).crosses or config.get("is_encoder_decoder")):
            raise ValueError(f"{source.text} is a {kind} model, a decoder without an encoder: use llm/causal")
        refuse_unknown(kind, CROSSING | SPEECH, "llm/seq2seq")
        found = values_of(source, config)
        if (first := (source.json(FILE) or config).get("decoder_start_token_id")) is not None:
            found["decoder_start_ids"] = (first,)
        more = family_of(kind).more
        if "start" in more:
            return {**found, **more["start"]({**config, **(source.json(FILE) or {})}, config, source.text)}
        if more.get("head") == "files":
            found["tie_word_embeddings"] = _is_tied_in_files(source, config)
        if more.get("positions", ...) is None:
            found.pop("max_position_embeddings", None)
        return found

    @classmethod
    def unheeded(cls, source: Source) -> list[tuple[str, ...]]:
        """What the source says of writing, and the loop does not do."""
        config = model_of(source)
        return unheeded_generation(source, config, also=family_of(config["model_type"]).more.get("keys", frozenset()))

    @property
    def codes(self) -> Mapping[str, str]:
        """Name of a language -> its code, in the tokens of the model."""
        found: Mapping[str, str] = self.family.more.get("codes", {})
        return found

    def export_facts(self) -> dict[str, Any]:
        """Whether the encoder is a part of it decides as well."""
        return {**super().export_facts(), "encoder": self.encoder, "tied": self.tie_word_embeddings}

    def ports(self) -> Ports:
        """The fields of the template, or the memory."""
        found = super().ports()
        outputs = {name: given for name, given in found.outputs.items() if name not in PROMPT_OUTPUTS}
        if self.encoder == "own":
            return Ports(found.inputs, outputs)
        memory = port("float[batch frames hidden_size]", doc="what the decoder attends to")
        there = port("optional[bool[batch frames]]", doc="where there is a memory: records of a batch may have unlike many vectors")
        others = {name: found.inputs[name] for name in self.others()}
        return Ports({"memory": memory, **others, "memory_mask": there}, outputs)

    def parameters(self) -> int | None:
        """By the formula of the family, where there is one; with `encoder: none`, of the decoder alone."""
        count: Callable[[Mapping[str, Any]], int] | None = self.family.count if self.family.crosses else None
        if self.encoder == "none":
            count = self.family.decoder_count
        return count(self.family.facts(self.facts())) if count is not None else None

    def review(self, node: SolvedNode) -> Iterable[tuple[str, str, str]]:
        """The context of the decoder holds its start tokens and the answer; the encoder has no fixed limit."""
        yield from self.uneven(node)
        yield from self.without_layers(node)
        limit, start = self.max_position_embeddings, len(self.decoder_prompt) or self._start_length()
        if limit is not None and start + self.reserved > limit:
            written = f"{node.name} begins with {start} tokens and writes {self.max_new_tokens:,} (max_new_tokens)"
            found = f"{written}, but {self.kind} has {limit:,} positions"
            yield ("context-overflow", found, f"set {node.name}.max_new_tokens to at most {limit - start:,}")
        yield from review_chat(self, node)

    def _start_length(self) -> int:
        if not self.decoder_start_ids:
            return 1
        return len(starts.starts(self)[0]) + (self.language == starts.AUTO)


def _is_tied_in_files(source: Source, config: Mapping[str, Any]) -> bool:
    """Files decide: newer ones hold a head of their own, whatever their config says. Without files, the config."""
    if source.tensor_shapes():
        return source.shape("lm_head.weight") is None
    return config.get("tie_word_embeddings") is not False and config.get("scale_decoder_outputs") is not False


@hookimpl
def register_components(register: Callable[[Any], None]) -> None:
    """Offer the language models, and what is grafted into them."""
    register(CausalConfig)
    register(DraftConfig)
    register(Seq2SeqConfig)
    register(GatedCrossAttention)
    register(PrefixAttention)
    register(SpliceConfig)
    register(RemoteConfig)


@hookimpl
def register_keepers(register: Callable[[str, str], None]) -> None:
    """Tell of the tokenizers that are kept."""
    register("tokenizers", "modelgraft_plugins.kept_tokenizers:Keeps")
