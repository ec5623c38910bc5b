"""The heads of BEiT-3 that choose among classes: answers, true or false of two pictures, what is on a picture. Light: no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from modelgraft import Config, Dim, Ports, component
from modelgraft_plugins.beit3.sizes import must_be

if TYPE_CHECKING:
    from modelgraft.plugin import Source

WIDTH = "encoder_embed_dim"  # the published code's word for the width of the trunk


class Head(Config):
    """What the heads have in common: vectors of the trunk's width in, a number for each class out."""

    hidden_size: Dim = Field(None, description="width of the trunk")
    classes: int = Field(1000, gt=0)

    # its last layer, and how many vectors of the trunk's width its first one reads
    last: ClassVar[str] = ""
    first: ClassVar[tuple[str, int]] = ("", 1)

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Read the shapes of the tensors, or the config. Raises ValueError for a source of another head or model."""
        must_be(source, "beit3", "BEiT-3")
        shapes = source.tensor_shapes()
        key, vectors = cls.first
        if key in shapes and cls.last in shapes:
            return {"hidden_size": shapes[key][-1] // vectors, "classes": shapes[cls.last][0]}
        if shapes:
            others = sorted({name.partition(".")[0] for name in shapes} - {"beit3"}) or ["no head at all"]
            raise ValueError(
                f"{source.text} has no {cls.last}: beside the trunk it has {', '.join(others)}: take weights that are tuned for this use"
            )
        found = {"hidden_size": source.root.get(WIDTH), "classes": source.root.get("num_classes")}
        return {name: value for name, value in found.items() if value is not None}


@component("beit3/vqa", kind="head", module="modelgraft_plugins.beit3.head_modules:Answer", exportable=True)
class Answer(Head):
    """Choose an answer to a question about a picture: the class token of both, through a pooler and two layers, to a number per answer.

    Published with 3,129 answers of VQAv2.
    """

    classes: int = Field(3129, gt=0, description="answers to choose from")
    last: ClassVar[str] = "head.3.weight"
    first: ClassVar[tuple[str, int]] = ("pooler.dense.weight", 1)

    def ports(self) -> Ports:
        """The class token in, a number for each answer out."""
        return Ports.of({"pooled": "float[batch hidden_size]"}, {"logits": "float[batch classes]"})

    def parameters(self) -> int:
        """A norm and a layer, then a layer, a norm and a layer."""
        width = self.hidden_size or 0
        pooler = 2 * width + width * width + width
        return pooler + 2 * width * width + 2 * width + 2 * 2 * width + 2 * width * self.classes + self.classes


@component("beit3/nlvr2", kind="head", module="modelgraft_plugins.beit3.head_modules:Reason", exportable=True)
class Reason(Head):
    """Judge whether a sentence is true of two pictures, each of which was read with it: two class tokens and two first tokens of the text.

    Published with two classes, of which the second is `true`.
    """

    classes: int = Field(2, gt=0)
    last: ClassVar[str] = "head.dense2.weight"
    first: ClassVar[tuple[str, int]] = ("head.dense1.weight", 4)

    def ports(self) -> Ports:
        """What each reading gave in, a number for each class out."""
        vector = "float[batch hidden_size]"
        return Ports.of(dict.fromkeys(("first", "first_text", "second", "second_text"), vector), {"logits": "float[batch classes]"})

    def parameters(self) -> int:
        """A norm, a layer, a norm, a layer."""
        width = self.hidden_size or 0
        return 8 * width + 8 * width * width + 2 * width + 4 * width + 2 * width * self.classes + self.classes


@component("beit3/classify", kind="head", module="modelgraft_plugins.beit3.head_modules:Classify", exportable=True)
class Classify(Head):
    """Say which class a picture is of: the mean of its patches, without the class token, through a norm and a layer.

    Published with the thousand classes of ImageNet.
    """

    last: ClassVar[str] = "head.weight"
    first: ClassVar[tuple[str, int]] = ("fc_norm.weight", 1)

    def ports(self) -> Ports:
        """Patches in, a number for each class out."""
        return Ports.of({"patches": "float[batch patches hidden_size]"}, {"logits": "float[batch classes]"})

    def parameters(self) -> int:
        """A norm and a layer."""
        width = self.hidden_size or 0
        return 2 * width + width * self.classes + self.classes
