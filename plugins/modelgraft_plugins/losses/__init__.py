"""Losses that several systems are trained by: what compares an answer with the wanted one.

A loss gives one number for each record, `loss: float[batch]`: the record's share, such that the mean over the batch is the published
loss. The share of a record may depend on the others of its batch, as that of contrastive learning does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from modelgraft import Config, Ports, Space, component, hookimpl, port
from modelgraft.plugin import SpaceOf


@component("loss/contrastive", kind="loss", module="modelgraft_plugins.losses.modules:Contrastive", exportable=True)
class Contrastive(Config):
    """Tell the pairs of a batch from all other combinations: cross-entropy over the cosines, in both directions (InfoNCE).

    Record i of one side belongs to record i of the other, and to no other of the batch. Vectors of any length are taken; what is
    compared is the cosine of their angle, times a factor. The share of a record is half of what its row of cosines loses plus half of
    what its column loses.
    Source: arXiv 2103.00020, figure 3; with it CoCa, BEiT-3's retrieval and ImageBind are trained.
    """

    scale: float | None = Field(None, gt=0, description="fixed factor of the cosines, such as 1 / 0.07; None: learned, exp(logit_scale)")
    start: float = Field(1 / 0.07, gt=0, description="what a learned factor starts from where no checkpoint gives it")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="share of the wanted answer that is spread over all")
    space: Annotated[Space | None, SpaceOf("x")] = Field(None, description="the space of both sides; None: that of the wire of x")

    def ports(self) -> Ports:
        """Two vectors of one space for each record in, the share of each record out."""
        vector = port("float[batch width]", space=self.space)
        return Ports.of({"x": vector, "y": vector}, {"loss": "float[batch]"})

    def export_facts(self) -> Mapping[str, Any]:
        """What the vectors mean changes no graph."""
        return self.model_dump(mode="json", exclude={"space"})

    def parameters(self) -> int:
        """The factor, if it is learned."""
        return int(self.scale is None)


@component("loss/cross_entropy", kind="loss", module="modelgraft_plugins.losses.modules:CrossEntropy")
class CrossEntropy(Config):
    """Lose by how unlikely the wanted class is: of each record, or of each of its tokens.

    over        "vector": one class for each record; "tokens": one for each token, such as the next one of a text
    mask        true where a label counts; what has the label `ignored` does not count either
    The mean over the batch is the mean over all labels that count, so a record with more of them has a larger share; where none counts,
    it is 0. With smoothing each class is wanted a little, as torch's `label_smoothing` has it.
    """

    over: Literal["vector", "tokens"] = "vector"
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="share of the wanted answer that is spread over all classes")
    ignored: int = Field(-100, description="the label of what does not count")

    def ports(self) -> Ports:
        """Logits and labels in, and where they count; the share of each record out."""
        axes = "batch tokens" if self.over == "tokens" else "batch"
        inputs = {"logits": f"float[{axes} classes]", "labels": f"int64[{axes}]", "mask": f"optional[bool[{axes}]]"}
        return Ports.of(inputs, {"loss": "float[batch]"})


@component("loss/alignment", kind="loss", module="modelgraft_plugins.losses.modules:Alignment", exportable=True)
class Alignment(Config):
    """Lose by how far one vector is from another: the length of the way between them, of each token or of the record.

    over  "tokens": a vector for each of several places, whose ways are averaged; "vector": one for each record
    It is the length itself, not its square, and no mean over what the vectors are made of.
    Source: `l2_loss` of NExT-GPT's published code, which draws its output projections to the text encoders of diffusion models.
    """

    over: Literal["vector", "tokens"] = "tokens"

    def ports(self) -> Ports:
        """What is there and what is wanted in, the share of each record out."""
        vectors = "float[batch tokens width]" if self.over == "tokens" else "float[batch width]"
        return Ports.of({"x": vectors, "wanted": vectors}, {"loss": "float[batch]"})


@component("loss/squared_error", kind="loss", module="modelgraft_plugins.losses.modules:SquaredError", exportable=True)
class SquaredError(Config):
    """Lose by the mean squared difference of what is there and what is wanted, whatever the numbers of a record are.

    With it autoencoders learn to give pixels again, and models of flow matching to say velocities (arXiv 2209.03003, equation 1).
    """

    def ports(self) -> Ports:
        """Two tensors of the same shape in, the share of each record out."""
        return Ports.of({"x": "float[batch ...]", "wanted": "float[batch ...]"}, {"loss": "float[batch]"})


@hookimpl
def register_components(register: Callable[[Any], None]) -> None:
    """Offer the components of this plugin."""
    for subject in (Contrastive, CrossEntropy, Alignment, SquaredError):
        register(subject)
