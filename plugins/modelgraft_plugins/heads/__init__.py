"""Heads: from vectors to answers."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from modelgraft import Config, Ports, Space, component, hookimpl, port
from modelgraft.plugin import SpaceOf, choices

if TYPE_CHECKING:
    from modelgraft.plugin import Source

Over = Literal["tokens", "vector"]
LAST_BIASES = ("head.bias", "head.3.bias")  # of heads that are one layer, and several
ANSWERS = "answer2label.txt"  # how the published code of VQA models calls the file of their answers


@component("embedding/normalize", kind="projector", module="modelgraft_plugins.heads.modules:Normalize", exportable=True)
class Normalize(Config):
    """Give every vector the length 1, so that the product of two is the cosine of their angle.

    space  the space of the vectors, which they stay in; taken from what feeds them
    """

    over: Over = Field("vector", description="tokens: a sequence of vectors per record; vector: one per record")
    space: Annotated[Space | None, SpaceOf("x")] = Field(None, description="their value space; None: that of the wire")

    def parameters(self) -> int:
        """None."""
        return 0

    def ports(self) -> Ports:
        """Vectors in, vectors out."""
        vectors = port("float[batch tokens width]" if self.over == "tokens" else "float[batch width]", space=self.space)
        return Ports.of({"x": vectors}, {"y": vectors})

    def export_facts(self) -> Mapping[str, Any]:
        """What the vectors mean changes no graph."""
        return {"over": self.over}


@component("embedding/ensemble", kind="projector", module="modelgraft_plugins.heads.modules:Ensemble", exportable=True)
class Ensemble(Config):
    """Join the vectors of several texts about one thing, such as a class in many phrasings: their mean direction, with the length 1.

    Every vector is given the length 1 first, so that each text counts alike (arXiv 2103.00020, section 3.1.4).
    shares  how much of each group each text is, as text/prompts gives it; what has no text is 0
    """

    space: Annotated[Space | None, SpaceOf("x")] = Field(None, description="their value space; None: that of the wire")

    def parameters(self) -> int:
        """None."""
        return 0

    def ports(self) -> Ports:
        """A vector per text, and what belongs together, in; a vector per group out."""
        vectors, shares = port("float[batch texts width]", space=self.space), port("float[batch groups texts]")
        return Ports.of({"x": vectors, "shares": shares}, {"y": port("float[batch groups width]", space=self.space)})

    def export_facts(self) -> Mapping[str, Any]:
        """What the vectors mean changes no graph."""
        return {}


@component("embedding/mean", kind="projector", module="modelgraft_plugins.heads.modules:Mean", exportable=True)
class Mean(Config):
    """Join the vectors of a sequence into one, their mean, as sentence encoders such as MiniLM are trained.

    mask  what is not there does not count; of a sequence without anything the mean is 0
    many  each record is a list of sequences, such as the texts to choose from
    """

    many: bool = False

    def parameters(self) -> int:
        """None."""
        return 0

    def ports(self) -> Ports:
        """A vector per token, and where there is a token, in; one vector per sequence out."""
        before = "batch texts" if self.many else "batch"
        inputs = {"x": f"float[{before} tokens width]", "mask": f"optional[bool[{before} tokens]]"}
        return Ports.of(inputs, {"y": f"float[{before} width]"})


@component("embedding/noise", kind="preprocess", load="modelgraft_plugins.heads.noise:load", random=True, cache=False)
class Noise(Config):
    """Add noise to vectors, drawn anew in each step by its seed, so that what learns from one kind of vectors bears another.

    Vectors of pictures do not lie where those of their texts do; a writer that is trained on texts with noise of that size reads both.
    Source: arXiv 2211.00575 (CapDec).
    std    of the noise, in each of the numbers of a vector whose length is made 1 before
    """

    std: float = Field(0.1, ge=0)

    def ports(self) -> Ports:
        """Vectors in, vectors out."""
        return Ports.of({"x": "float[batch width]"}, {"y": "float[batch width]"})


@component("similarity/cosine", kind="head", module="modelgraft_plugins.heads.modules:Cosine", exportable=True)
class Cosine(Config):
    """Compare one vector with each of a list by the cosine of their angle, times exp(scale), plus a bias.

    Vectors of any length are taken. `scale` and `bias` are learned numbers of the checkpoint: CLIP has a scale, SigLIP both.
    """

    scale: bool = Field(True, description="there is a learned scale; without it the results are plain cosines")
    bias: bool = Field(False, description="there is a learned bias, as in SigLIP")
    space: str | None = Field(None, description="the model whose vectors are compared; None: any")

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """See which of the two numbers the checkpoint has."""
        kind = source.config.get("model_type", "")
        return {"scale": True, "bias": kind == "siglip", "space": source.whole if kind == "clip" else None}

    def ports(self) -> Ports:
        """A vector and a list of vectors of one space in, a number per member of the list out."""
        space = Space.of("embedding", model=self.space) if self.space else None
        inputs = {"x": port("float[batch width]", space=space), "candidates": port("float[batch candidates width]", space=space)}
        return Ports.of(inputs, {"logits": "float[batch candidates]"})

    def parameters(self) -> int:
        """One number for the scale, one for the bias."""
        return int(self.scale) + int(self.bias)


@component("similarity/pair", kind="head", module="modelgraft_plugins.heads.modules:Pair", exportable=True)
class Pair(Config):
    """Compare two vectors of each record by the cosine of their angle: how well a picture fits its text, in a space that both share."""

    space: Annotated[Space | None, SpaceOf("x")] = Field(None, description="their value space; None: that of the wire")

    def parameters(self) -> int:
        """None."""
        return 0

    def ports(self) -> Ports:
        """Two vectors in, a number from -1 to 1 out."""
        return Ports.of({name: port("float[batch width]", space=self.space) for name in "xy"}, {"score": "float[batch]"})

    def export_facts(self) -> Mapping[str, Any]:
        """What the vectors mean changes no graph."""
        return {}


@component("similarity/dot", kind="head", module="modelgraft_plugins.heads.modules:Dot", exportable=True)
class Dot(Config):
    """Compare one vector with each of a list by their product, as they are: their lengths are a part of it.

    Of vectors of the length 1 it is the cosine; where those of the list have a trained length, such as ImageBind's texts, it is the scaled
    cosine that a softmax makes probabilities of.
    """

    space: str | None = Field(None, description="the model whose vectors are compared; None: any")

    def parameters(self) -> int:
        """None."""
        return 0

    def ports(self) -> Ports:
        """A vector and a list of vectors of one space in, a number per member of the list out."""
        space = Space.of("embedding", model=self.space) if self.space else None
        inputs = {"x": port("float[batch width]", space=space), "candidates": port("float[batch candidates width]", space=space)}
        return Ports.of(inputs, {"logits": "float[batch candidates]"})


@component("head/classifier", kind="head", load="modelgraft_plugins.heads.answers:classifier", arrays=True, cache=False)
class Classifier(Config):
    """Turn a number per class into the name of the likeliest class and the probability of each.

    names     of the classes, in order; the input `labels` gives them for each record instead
    function  "softmax": exactly one class is right; "sigmoid": each class may be right, as SigLIP is trained
    """

    names: tuple[str, ...] = ()
    function: Literal["softmax", "sigmoid"] = "softmax"

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Read `id2label`."""
        return {"names": names_of(source)}

    @classmethod
    def unheeded(cls, source: Source) -> Iterable[tuple[str, str]]:
        """Names of a checkpoint that an answer does not tell apart: published tables of classes hold such."""
        counted = Counter(names_of(source))
        unclear = [f"{name!r} ({times} times)" if name.strip() else "one without a name" for name, times in counted.items()]
        unclear = [text for text, (name, times) in zip(unclear, counted.items(), strict=True) if times > 1 or not name.strip()]
        if unclear:
            yield (
                f"among the classes of {source.text} are {choices(unclear, most=4)}",
                "tell them apart by `probabilities`, or give `names`",
            )

    @property
    def classes(self) -> int | None:
        """Number of classes, when their names are known."""
        return len(self.names) or None

    def ports(self) -> Ports:
        """Logits, and for each record the names of its classes, in; the answer out."""
        inputs = {"logits": "float[batch classes]", "labels": "optional[list[text]]" if self.names else "list[text]"}
        return Ports.of(inputs, {"label": "label", "probabilities": "float[batch classes]"})


@component("label/top", kind="head", load="modelgraft_plugins.heads.answers:top", arrays=True, cache=False)
class Top(Config):
    """Write the likeliest classes with their probabilities as text: `tabby (62 %), tiger cat (21 %)`."""

    count: int = Field(3, gt=0, description="how many classes, if there are so many")
    names: tuple[str, ...] = Field((), description="of the classes, in order")

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Read `id2label`."""
        return {"names": names_of(source)}

    @property
    def classes(self) -> int | None:
        """Number of classes, when their names are known."""
        return len(self.names) or None

    def ports(self) -> Ports:
        """Probabilities, and for each record the names of its classes, in; text out."""
        inputs = {"probabilities": "float[batch classes]", "labels": "optional[list[text]]" if self.names else "list[text]"}
        return Ports.of(inputs, {"text": "text"})


def names_of(source: Source) -> tuple[str, ...]:
    """The names of the classes in the order of their numbers: LABEL_0 and so on where a checkpoint only has their number.

    That stands under num_labels or num_classes, or is the length of the last bias of a head in a file of weights. The answers of VQA
    stand in a file of their own beside the weights.
    """
    table = source.root.get("id2label")
    if isinstance(table, Mapping):
        return tuple(str(table[key]) for key in sorted(table, key=int))
    if (listed := _answers_beside(source)) is not None:
        return listed
    stated = source.root.get("num_labels", source.root.get("num_classes"))
    (count,) = (stated,) if stated is not None else next(filter(None, map(source.shape, LAST_BIASES)), (0,))
    return tuple(f"LABEL_{index}" for index in range(count))


def _answers_beside(source: Source) -> tuple[str, ...] | None:
    """What a file of answers says, one JSON object with `answer` and `label` a line; None where there is none.

    Raises ValueError for a file of something else, or whose labels are not 0, 1, 2 and so on.
    """
    home = source.path()
    path = (home if home.is_dir() else home.parent) / ANSWERS if home is not None else None
    if path is None or not path.is_file():
        return None
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        named = {int(row["label"]): str(row["answer"]) for row in rows}
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f'{path} cannot be read: {error}; wanted a line such as {{"answer": "yes", "label": 0}} for each answer'
        ) from error
    if sorted(named) != list(range(len(rows))):
        raise ValueError(f"{path} has {len(rows)} answers, and their labels are not the numbers from 0 to {len(rows) - 1}, each once")
    return tuple(named[index] for index in range(len(rows)))


@hookimpl
def register_components(register: Callable[[Any], None]) -> None:
    """Offer the components of this plugin."""
    for subject in (Normalize, Ensemble, Mean, Noise, Cosine, Dot, Pair, Classifier, Top):
        register(subject)
