"""The pre-training of wav2vec 2.0 (arXiv 2006.11477): masked spans, quantised targets, negatives, and what they are compared by. Light.

The encoder hears a sound with spans of it masked; a quantiser names what it would have heard there, without a mask; the encoder has to
tell the right name from those of other masked frames. Every step is a component, so that what is drawn can be given instead.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from modelgraft import Config, Dim, Ports, component
from modelgraft.plugin import TowerCard, families
from modelgraft_plugins.audio import waves
from modelgraft_plugins.stated import Table

if TYPE_CHECKING:
    from modelgraft.plugin import Source

# fairseq's words at the values at which they mean nothing: what they ask for otherwise was never published
TABLE = Table(
    "config.json",
    frozenset(),
    still={"target_glu": (False,), "quantize_targets": (True,), "quantize_input": (False,), "same_quantizer": (False,),
           "quantizer_depth": (1,),
           "codebook_negatives": (0,), "cross_sample_negatives": (0,), "negatives_from_everywhere": (False,)},
)  # fmt: skip
HEADS = ("final_proj", "project_hid")  # of predictions: fairseq's name, transformers' name


def card_of(source: Source) -> TowerCard:
    """The card of the encoder that a source holds; of a file alone, wav2vec 2.0."""
    return families().of_medium("audio").get(str(source.config.get("model_type", "wav2vec2")), TowerCard("audio"))


def stated(source: Source, theirs: str, ours: str) -> Any:
    """What a config says under fairseq's word or transformers' key; None where it says nothing."""
    words = waves.words_of(waves.settings_of(source))
    return source.config.get(ours) if words is None else words.get(theirs)


@component("audio/spans", kind="preprocess", load="modelgraft_plugins.audio.masking:spans", cache=False, random=True)
class Spans(Config):
    """Draw the tokens of each sound that are masked: spans of one length, which may overlap.

    Their number is `share * tokens / length`, rounded up or down by chance. What is drawn follows from the seed and the sound itself, so
    that a sound has the same spans in every batch. Source: arXiv 2006.11477, section 3.1; 0.65 and 10 mask about 49 % of the tokens.
    """

    share: float = Field(0.65, ge=0, le=1, description="length times the share of tokens that begin a span")
    length: int = Field(10, gt=0, description="tokens of a span")
    least: int = Field(2, ge=0, description="spans of a sound, where it is long enough")
    conv_kernel: tuple[int, ...] = Field((10, 3, 3, 3, 3, 2, 2), description="of the convolutions that make tokens of samples")
    conv_stride: tuple[int, ...] = Field((5, 2, 2, 2, 2, 2, 2), description="their steps")

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Read the convolutions of the encoder, and how it was trained where its config says so."""
        card = card_of(source)
        facts = waves.facts_of(source, card) if waves.is_heard(card) else source.config
        found = {key: tuple(facts[key]) for key in ("conv_kernel", "conv_stride") if facts.get(key)}
        told = {"share": stated(source, "mask_prob", "mask_time_prob"), "length": stated(source, "mask_length", "mask_time_length")}
        return {**found, **{key: value for key, value in told.items() if value is not None}}

    def ports(self) -> Ports:
        """Samples, and where they are, in; the masked tokens out."""
        return Ports.of({"samples": "float[batch samples]", "mask": "optional[bool[batch samples]]"}, {"spans": "bool[batch tokens]"})


@component("wav2vec2/negatives", kind="preprocess", load="modelgraft_plugins.audio.masking:negatives", cache=False, random=True)
class Negatives(Config):
    """Draw for each masked token others of the same sound that it must be told from: places of masked tokens, never its own.

    Tokens that are not masked have the place 0, which nobody reads.
    """

    count: int = Field(100, gt=0, description="for each masked token; one may be drawn several times")

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Read how many it was trained with."""
        count = stated(source, "num_negatives", "num_negatives")
        return {} if count is None else {"count": count}

    @property
    def negatives(self) -> int:
        """The axis of the places."""
        return self.count

    def ports(self) -> Ports:
        """Masked tokens in, places out."""
        return Ports.of({"spans": "bool[batch tokens]"}, {"negatives": "int64[batch tokens negatives]"})


@component("wav2vec2/quantizer", kind="encoder", module="modelgraft_plugins.audio.quantizing:Quantizer", exportable=True)
class Quantizer(Config):
    """Name each token by one code of each of several books, and give the vectors of these codes: what wav2vec 2.0 learns to guess.

    It looks at the normed features of the convolutions, of a sound that is not masked.
    codes          the vectors of the codes, one book behind the other;  code_ids  their numbers: units of speech
    probabilities  of every code of each book;  targets  the codes as predictions are compared with them
    While it is trained, codes are drawn by their probability (Gumbel softmax, straight through); otherwise they are the likeliest.
    """

    channels: Dim = None
    groups: int = Field(2, gt=0, description="books: G")
    entries: int = Field(320, gt=0, description="codes of a book: V")
    code_size: int = Field(256, gt=0, description="width of the codes together: d")
    shared_size: Dim = Field(None, description="width that predictions and targets are compared in")
    temperature: float = Field(2.0, gt=0, description="of what is drawn while it is trained; falls to 0.5 in the published training")

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Read the shapes of its tensors, or the config where there are none."""
        shapes = _narrowed(source.tensor_shapes())
        book = shapes.get("quantizer.vars") or shapes.get("quantizer.codevectors")
        out = shapes.get("project_q.weight")
        if shapes and (book is None or out is None):
            raise ValueError(f"{source.text} holds no quantiser: only files of pre-training have one")
        if book is not None and out is not None:
            groups = out[1] // book[2]
            channels = shapes["quantizer.weight_proj.weight"][1]
            return {"channels": channels, "groups": groups, "entries": book[1] // groups, "code_size": out[1], "shared_size": out[0]}
        return _told(source)

    @classmethod
    def unheeded(cls, source: Source) -> Iterable[tuple[str, str]]:
        """Ways to quantise that were never published."""
        words = waves.words_of(waves.settings_of(source)) or {}
        return TABLE.unheeded({key: words[key] for key in TABLE.still if key in words}, source.text)

    @model_validator(mode="after")
    def _shares_evenly(self) -> Quantizer:
        if self.code_size % self.groups:
            raise ValueError(f"code_size is {self.code_size}, which {self.groups} groups do not share evenly")
        return self

    def ports(self) -> Ports:
        """Normed features in; codes, their numbers, probabilities and targets out."""
        given = {
            "codes": "float[batch tokens code_size]", "code_ids": "int64[batch tokens groups]",
            "probabilities": "float[batch tokens groups entries]", "targets": "float[batch tokens shared_size]",
        }  # fmt: skip
        return Ports.of({"normed": "float[batch tokens channels]"}, given)

    def parameters(self) -> int | None:
        """The books, a linear layer that chooses, and one that maps codes to targets."""
        if self.channels is None or self.shared_size is None:
            return None
        choices = self.groups * self.entries
        return choices * (self.code_size // self.groups) + (self.channels + 1) * choices + (self.code_size + 1) * self.shared_size


@component("wav2vec2/predictor", kind="projector", module="modelgraft_plugins.audio.quantizing:Predictor", exportable=True)
class Predictor(Config):
    """Map each token to where its code is guessed to be: one linear layer."""

    hidden_size: Dim = None
    shared_size: Dim = None

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Read the shape of the layer, or the config."""
        shapes = _narrowed(source.tensor_shapes())
        found = next((shapes[f"{name}.weight"] for name in HEADS if f"{name}.weight" in shapes), None)
        if shapes and found is None:
            raise ValueError(f"{source.text} holds no head of pre-training ({' or '.join(HEADS)})")
        return {"shared_size": found[0], "hidden_size": found[1]} if found is not None else {"shared_size": _told(source)["shared_size"]}

    def ports(self) -> Ports:
        """Tokens in, predictions out."""
        return Ports.of({"tokens": "float[batch tokens hidden_size]"}, {"predictions": "float[batch tokens shared_size]"})

    def parameters(self) -> int | None:
        """One linear layer."""
        return None if self.hidden_size is None or self.shared_size is None else (self.hidden_size + 1) * self.shared_size


@component("wav2vec2/criterion", kind="loss", module="modelgraft_plugins.audio.criterion:Criterion")
class Criterion(Config):
    """Lose by how little a masked token is told from others of its sound, by how few codes are used, and by how large features are.

    contrastive  cross-entropy over the cosines of a prediction with its own target and with negatives, divided by the temperature; a
                 negative of the same codes as the right one does not count
    diversity    (G V - perplexity) / (G V) for each masked token; the perplexity is that of the mean over all masked tokens of the batch
    penalty      the mean square of the features for each masked token; transformers leaves it out
    The mean of the shares over the batch is what the published code sums over it, `contrastive + diversity * ... + penalty * ...`; it
    then divides by the number of masked tokens. `logits` are those of masked tokens, 0 elsewhere, the right one first.
    perplexity   "soft": of the probabilities, as fairseq; "hard": of the codes that were chosen, as transformers outside of training
    """

    temperature: float = Field(0.1, gt=0, description="that cosines are divided by")
    diversity: float = Field(0.1, ge=0, description="weight of the diversity")
    penalty: float = Field(10.0, ge=0, description="weight of the penalty on features")
    perplexity: Literal["soft", "hard"] = "soft"

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Read temperature and weights; a folder of transformers is compared as its own class does it.

        Raises ValueError for the config of something that hears no samples.
        """
        if not waves.is_heard(card_of(source)):
            kind = source.config.get("model_type")
            way = "leave `from` out for the published weights of the loss"
            raise ValueError(f"{source.text} is no wav2vec 2.0: its model_type is '{kind}'; {way}")
        settings = waves.settings_of(source)
        if waves.words_of(settings) is None and source.root:
            told = {"contrastive_logits_temperature": "temperature", "diversity_loss_weight": "diversity"}
            found = {ours: source.config[theirs] for theirs, ours in told.items() if source.config.get(theirs) is not None}
            return {**found, "penalty": 0.0, "perplexity": "hard"}
        temperature = stated(source, "logit_temp", "")
        criterion = settings.get("criterion")
        weights = criterion.get("loss_weights") if isinstance(criterion, Mapping) else None
        weighed = dict(zip(("diversity", "penalty"), weights, strict=False)) if isinstance(weights, list) else {}
        return {**weighed, **({} if temperature is None else {"temperature": temperature})}

    def ports(self) -> Ports:
        """Predictions, targets and what was drawn in; the shares, the logits and the perplexities, which are those of the batch, out."""
        inputs = {
            "predictions": "float[batch tokens shared]", "targets": "float[batch tokens shared]", "spans": "bool[batch tokens]",
            "negatives": "int64[batch tokens negatives]", "code_ids": "int64[batch tokens groups]",
            "probabilities": "float[batch tokens groups entries]", "conv_features": "float[batch tokens channels]",
            "mask": "optional[bool[batch tokens]]",
        }  # fmt: skip
        shares = dict.fromkeys(("loss", "contrastive", "diversity", "penalty"), "float[batch]")
        figures = dict.fromkeys(("probability_perplexity", "code_perplexity", "mean_square"), "float[batch]")
        return Ports.of(inputs, {**shares, "logits": "float[batch tokens negatives+1]", **figures})


def _narrowed(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Shapes without what stands before fairseq's names."""
    prefix = waves.prefix_of(shapes) or ""
    return {key.removeprefix(prefix): shape for key, shape in shapes.items()}


def _told(source: Source) -> dict[str, Any]:
    """Sizes from the words of a config; fairseq's 0 means: as wide as the next."""
    card = card_of(source)
    facts = waves.facts_of(source, card) if waves.is_heard(card) else {}
    shared = stated(source, "final_dim", "proj_codevector_dim") or facts.get("hidden_size", 768)
    words = {
        "groups": stated(source, "latent_groups", "num_codevector_groups"),
        "entries": stated(source, "latent_vars", "num_codevectors_per_group"),
        "code_size": stated(source, "latent_dim", "codevector_dim") or shared, "shared_size": shared,
    }  # fmt: skip
    dims = facts.get("conv_dim")
    return {key: value for key, value in {**words, "channels": dims[-1] if dims else None}.items() if value is not None}


COMPONENTS = (Spans, Negatives, Quantizer, Predictor, Criterion)
