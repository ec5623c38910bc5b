"""Connectionist temporal classification (CTC): a head that gives each frame a letter or a blank, and what makes text of them. Light."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from modelgraft import Config, Dim, Ports, component
from modelgraft_plugins.audio import letters

if TYPE_CHECKING:
    from modelgraft.plugin import Source

HEADS = ("lm_head", "w2v_encoder.proj", "proj")  # transformers; fairseq's fine-tuned files, whole and cut out


def head_in(keys: Iterable[str]) -> str | None:
    """Under which name a file has a head of CTC."""
    there = set(keys)
    return next((name for name in HEADS if f"{name}.weight" in there), None)


@component("ctc/head", kind="head", module="modelgraft_plugins.audio.ctc_modules:Head", exportable=True)
class Head(Config):
    """Give each frame a number per letter, and one for the blank, with one linear layer: the only new part of a fine-tuned encoder."""

    in_features: Dim = None
    classes: Dim = Field(None, description="letters, with the blank and other special ones")

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Read the shape of the layer, or the config where there are no weights."""
        shapes = source.tensor_shapes()
        if not shapes:
            return {"classes": source.config["vocab_size"]} if isinstance(source.config.get("vocab_size"), int) else {}
        name = head_in(shapes)
        if name is None:
            raise ValueError(f"{source.text} holds no head of CTC ({' or '.join(HEADS)}): it was not fine-tuned on letters")
        classes, width = shapes[f"{name}.weight"]
        return {"in_features": width, "classes": classes}

    def ports(self) -> Ports:
        """Vectors in, a number per class for each out."""
        return Ports.of({"tokens": "float[batch tokens in_features]"}, {"logits": "float[batch tokens classes]"})

    def parameters(self) -> int | None:
        """One linear layer."""
        return None if self.in_features is None or self.classes is None else (self.in_features + 1) * self.classes


class Writer(Config):
    """What greedy and beam search have in common: the letters."""

    vocabulary: tuple[str, ...] = Field(
        letters.ENGLISH, description="the letter of each class; those of the published English models by itself"
    )
    blank: int = Field(0, ge=0, description="the class that stands for no letter, and parts equal ones")
    delimiter: str = Field("|", description="what stands between words in the vocabulary")
    space: str = Field(" ", description="what is written for it")
    lower: bool = Field(False, description="write small letters")

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Read the vocabulary."""
        return letters.vocabulary_of(source)

    @classmethod
    def unheeded(cls, source: Source) -> Iterable[tuple[str, ...]]:
        """Say so where no file has the letters."""
        if letters.is_guessed(source):
            found = f"{source.text} says no letters: its classes are taken for those of the published English models"
            yield found, f"put vocab.json or {letters.LETTERS} beside the weights, or set `vocabulary`", "vocabulary"

    @model_validator(mode="after")
    def _has_blank(self) -> Writer:
        if self.blank >= len(self.vocabulary):
            raise ValueError(f"the blank is class {self.blank}, and the vocabulary has {len(self.vocabulary)}")
        return self

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.vocabulary)

    def ports(self) -> Ports:
        """Numbers per frame, and which frames are of sound, in; text out."""
        return Ports.of({"logits": "float[batch tokens classes]", "mask": "optional[bool[batch tokens]]"}, {"text": "text"})


@component("ctc/greedy", kind="head", load="modelgraft_plugins.audio.ctc_text:greedy", arrays=True, cache=False)
class Greedy(Writer):
    """Write the likeliest letter of each frame, equal neighbours once, blanks not at all."""


@component("ctc/beam", kind="head", load="modelgraft_plugins.audio.ctc_text:beam", arrays=True, cache=False)
class Beam(Writer):
    """Write the likeliest text over all ways to align it: a prefix beam search, with a word list and an n-gram where there are any.

    words   every word that may be written, as it is written; a checkpoint's language_model/unigrams.txt, as processors with a language
            model save it, is read by itself
    ngram   file in ARPA format (.arpa, .arpa.gz), such as KenLM writes; a checkpoint's own in language_model/ is read by itself
    The score of a text is ln P(text | sound) + weight * ln P(words) + bonus * number of words. Source: arXiv 1408.2873.
    """

    width: int = Field(50, gt=0, le=10_000, description="beginnings that are kept at each frame")
    least: float = Field(
        -10.0, le=0, description="letters below this log-probability are left out at a frame, unless they are its likeliest"
    )
    words: tuple[str, ...] = Field((), description="the word list; none: any letters make a word")
    words_file: str = Field("", description="a file with a word a line, beside `words`")
    ngram: str = Field("", description="a file in ARPA format; none: no language model")
    weight: float = Field(0.5, ge=0, description="of the language model: alpha")
    bonus: float = Field(1.5, description="for each word: beta, in natural logarithms; only with a language model")
    unknown: float = Field(-10.0, le=0, description="log10 that is added for a word that the n-gram does not know")

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Read the vocabulary, and the folder language_model beside it."""
        found = dict(letters.vocabulary_of(source))
        unigrams = source.path("language_model/unigrams.txt")
        if unigrams is not None:
            found["words_file"] = str(unigrams)
        attributes = source.json("language_model/attrs.json") or {}
        told = {"alpha": "weight", "beta": "bonus", "unk_score_offset": "unknown"}
        found |= {ours: attributes[theirs] for theirs, ours in told.items() if theirs in attributes}
        folder = unigrams.parent if unigrams is not None else None
        grams = sorted(folder.glob("*.arpa*")) if folder is not None else []
        return found | ({"ngram": str(grams[0])} if grams else {})


Reduction = Literal["sum", "mean"]


@component("loss/ctc", kind="loss", module="modelgraft_plugins.audio.ctc_modules:Ctc")
class Ctc(Config):
    """Lose by how unlikely the wanted letters are, over all ways to align them to the frames.

    labels   the wanted classes; numbers below 0 fill shorter rows up
    sum      the mean of the shares is the sum over the batch, as transformers' models are published;
    mean     is the mean over the batch of what each loses per letter, as torch has it
    A row with more letters than frames has no way, and loses without end: `zero_infinity` makes that 0.
    """

    blank: int = Field(0, ge=0)
    reduction: Reduction = "sum"
    zero_infinity: bool = False

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Read what the config of a model says of its loss."""
        told = {"ctc_loss_reduction": "reduction", "ctc_zero_infinity": "zero_infinity", "pad_token_id": "blank"}
        return {ours: source.root[theirs] for theirs, ours in told.items() if source.root.get(theirs) is not None}

    def ports(self) -> Ports:
        """Numbers per frame, the wanted letters, and which frames are of sound, in; the share of each record out."""
        inputs = {"logits": "float[batch tokens classes]", "labels": "int64[batch letters]", "mask": "optional[bool[batch tokens]]"}
        return Ports.of(inputs, {"loss": "float[batch]"})


COMPONENTS = (Head, Greedy, Beam, Ctc)
