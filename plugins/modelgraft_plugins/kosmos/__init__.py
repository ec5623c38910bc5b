"""Kosmos: a picture that stands among the words of a decoder, as 64 vectors that read what an eye sees.

What is its own here is that connector, `kosmos/connector`. Its decoders are llm/causal, its eye vision/encoder, and places of a picture are
read and written by `grounding`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from modelgraft import Config, Dim, Ports, component, hookimpl, port
from modelgraft.plugin import families
from modelgraft_plugins.stated import tower_table
from modelgraft_plugins.widths import uneven_heads

if TYPE_CHECKING:
    from modelgraft.plugin import SolvedNode, Source

HERE = Path(__file__).parent
PRESETS = ("kosmos-1", "kosmos-2")
PUBLISHED = "microsoft/kosmos-2-patch14-224"
TABLE = tower_table({"latent_query_num", "text_config", "vision_config"})
EYE, DECODER = "kosmos_2_vision_model", "kosmos_2_text_model"  # whose cards say what a silent config means


@component(
    "kosmos/connector",
    kind="resampler",
    module="modelgraft_plugins.kosmos.modules:Connector",
    exportable=True,
    inputs={"x": "float[batch tokens in_features]"},
    outputs={"latents": "float[batch queries hidden_size]"},
)
class Connector(Config):
    """Let learned queries read the tokens of a picture once, and themselves beside them: one vector for each query.

    The tokens are brought to length 1 and to the width of the words first. One attention, with nothing around it: no norm, no feed-forward.
    """

    in_features: Dim = Field(None, description="width of the tokens of the eye")
    hidden_size: Dim = Field(None, description="width of the words")
    queries: int = Field(64, gt=0, description="how many vectors a picture becomes")
    num_heads: int = Field(32, gt=0)

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Read the config of the whole. Raises ValueError for one that is no Kosmos."""
        root = source.config
        if not str(root.get("model_type")).startswith("kosmos-"):
            stated = f"its model_type is {root.get('model_type')!r}"
            raise ValueError(f"{source.text} has no connector of Kosmos: {stated}; write #image_to_text_projection behind a Kosmos")
        eye, words = root.get("vision_config") or {}, families().languages[DECODER].facts(root.get("text_config") or {})
        width = eye.get("hidden_size", families().towers[EYE].defaults["hidden_size"])
        return {
            "in_features": width, "hidden_size": words["embed_dim"], "num_heads": words["attention_heads"],
            "queries": root.get("latent_query_num", cls.model_fields["queries"].default),
        }  # fmt: skip

    @classmethod
    def unheeded(cls, source: Source) -> list[tuple[str, str]]:
        """What the config of the whole states and nothing here knows."""
        return TABLE.unheeded(source.config, source.text)

    def parameters(self) -> int:
        """The queries, the first layer, and four of the attention."""
        width, eye = self.hidden_size or 0, self.in_features or 0
        return self.queries * width + eye * width + width + 4 * (width * width + width)

    def review(self, node: SolvedNode) -> Iterable[tuple[str, str, str]]:
        """The heads must share the width evenly."""
        return uneven_heads(node.name, self.hidden_size, self.num_heads)


@component("kosmos/grit", kind="preprocess", load="modelgraft_plugins.kosmos.grit:load", cache=False, keywords=("grit", "boxes", "data"))
class Grit(Config):
    """Bring the phrases of a caption and the boxes of a detector together, as the data were made that Kosmos-2 is trained on (GrIT).

    parse, boxes  as text/phrases gives them, and a detector: each box with its phrase as `text`, and its `score`
    noun_chunks   a row for each phrase and box: [start, end, x0, y0, x1, y1, score], in letters of the caption and parts of the picture
    ref_exps      the same of expressions, `a dog in a field of flowers`; one that lies within another is left out
    boxes         those of the expressions in pixels, each named after its own, as grounding/write and grounding/draw take them
    width, height  of the picture in pixels
    fits          where anything was found: others are no pairs to train on (`else`)
    Unsure boxes, and those that overlap a surer one, of whatever phrase, are left out first.
    """

    least_score: float = Field(0.65, ge=0, le=1, description="less sure boxes are left out, as published")
    overlap: float = Field(0.5, ge=0, le=1, description="boxes that share more of what they cover with a surer one are left out")

    def one_of(self) -> tuple[str, ...]:
        """Something was found, or nothing."""
        return ("fits", "else")

    def ports(self) -> Ports:
        """A caption with its phrases, a picture with its boxes in; what belongs together out."""
        inputs = {"caption": "text", "image": "image", "parse": "object", "boxes": "boxes"}
        rows = {name: port("object") for name in ("noun_chunks", "ref_exps", "width", "height")}
        return Ports.of(inputs, {**rows, "boxes": "boxes", **{name: port("mask[batch]") for name in self.one_of()}})


@hookimpl
def register_components(register: Callable[[Any], None]) -> None:
    """Offer the components of this plugin."""
    register(Connector)
    register(Grit)


@hookimpl
def register_recorded_configs(register: Callable[[str, Any], None]) -> None:
    """Offer the published sizes."""
    for name in PRESETS:
        register(f"preset:{name}", HERE / "presets" / name)
    register(PUBLISHED, HERE / "presets" / "kosmos-2")
