"""What a prompt becomes: states and a vector, by the one, two or three text encoders that lie beside a model. Light."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from modelgraft import Config, Ports, component, port
from modelgraft_plugins.diffusion.spaces import prompt_space

if TYPE_CHECKING:
    from modelgraft.plugin import SolvedNode, Source

Style = Literal["sd", "sdxl", "sd3"]
NAMES = ("text_encoder", "text_encoder_2", "text_encoder_3")
CLASSES = ("CLIPTextModel", "CLIPTextModelWithProjection", "T5EncoderModel")
HINT = "name a whole folder in the layout of diffusers with `from`, such as FOLDER with model_index.json"


@dataclass(frozen=True, slots=True)
class Reading:
    """What an encoder of a folder gives.

    name    of its folder;  kind  its class;  config  its own
    layer   whose states are taken, from the end: 1 the last behind its norm, 2 the one before, without
    """

    name: str
    kind: str
    config: Mapping[str, Any]
    layer: int

    @property
    def width(self) -> int:
        """Width of its states."""
        return int(self.config["d_model"] if self.is_t5 else self.config["hidden_size"])

    @property
    def pooled(self) -> int:
        """Width of its vector; 0: it gives none."""
        if self.is_t5:
            return 0
        return int(self.config.get("projection_dim", 512)) if self.kind == CLASSES[1] else self.width

    @property
    def is_t5(self) -> bool:
        """It is the encoder of a T5."""
        return self.kind == CLASSES[2]

    def ports(self) -> Ports:
        """Ids in; states and where there is one a vector out."""
        outputs: dict[str, Any] = {"states": f"float[batch tokens {self.width}]"}
        if self.pooled:
            outputs["pooled"] = f"float[batch {self.pooled}]"
        return Ports.of({"ids": "int64[batch tokens]"}, outputs)

    def parameters(self) -> int:
        """Count it."""
        return t5(self.config) if self.is_t5 else clip(self.config, projected=self.kind == CLASSES[1])


@component(
    "diffusion/prompt",
    kind="encoder",
    module="modelgraft_plugins.diffusion.text_encoders:Encoders",
    loop="modelgraft_plugins.diffusion.prompting:Prompting",
    exportable=True,
)
class Prompt(Config):
    """Turn a prompt into what a denoising loop is asked with, by all the text encoders of a folder in the layout of diffusers.

    style     how they go together. sd: the states of one;  sdxl: the states of two beside each other, and the vector of the second;
              sd3: the same of two, their vectors beside each other, and behind their states those of a T5
    encoders  their configs by the names of their folders, with their class under _class_name
    length    tokens of a text for CLIP;  long  for T5. Longer texts are cut, which is told
    width     of states, where there is no T5 to say it: what the model reads
    """

    style: Style = "sd"
    encoders: dict[str, dict[str, Any]] = Field({}, description="the configs of the encoders, by the names of their folders")
    length: int = Field(77, gt=0)
    long: int = Field(256, gt=0)
    width: int = Field(768, gt=0, description="of states; worked out from the model beside the encoders")

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Read which encoders a folder holds, and of what they are for."""
        root = source.root
        encoders = {}
        for name in NAMES:
            config, kind = root.get(f"{name}_config"), (root.get(name) or [None, None])[1]
            if config is None:
                continue
            if kind not in CLASSES:
                raise ValueError(f"{name} is of class {kind!r}, and {', '.join(CLASSES)} are what is served")
            encoders[name] = {**config, "_class_name": kind}
        if not encoders:
            raise ValueError(f"there is no text_encoder beside a model_index.json: {HINT}")
        style = style_of(root)
        found = {"style": style, "encoders": encoders, "length": next(iter(encoders.values())).get("max_position_embeddings", 77)}
        return {**found, "width": _width(style, encoders, root)}

    @property
    def readings(self) -> tuple[Reading, ...]:
        """The encoders in their order."""
        layer = 1 if self.style == "sd" else 2
        found = {name: {key: value for key, value in config.items() if key != "_class_name"} for name, config in self.encoders.items()}
        kinds = {name: str(config.get("_class_name", CLASSES[0])) for name, config in self.encoders.items()}
        return tuple(Reading(name, kinds[name], found[name], 1 if kinds[name] == CLASSES[2] else layer) for name in NAMES if name in found)

    @property
    def pooled_size(self) -> int:
        """Width of the vector; 0: there is none."""
        widths = [one.pooled for one in self.readings]
        return {"sd": 0, "sdxl": widths[-1] if widths else 0, "sd3": sum(widths)}[self.style]

    def space(self) -> Any:
        """The space of the states."""
        first = self.readings[0].config if self.style == "sd" and self.readings else None
        return prompt_space(first)

    def ports(self) -> Ports:
        """A text in; states, and a vector where the model reads one, out."""
        outputs: dict[str, Any] = {"prompt_embeds": port("float[batch tokens width]", space=self.space())}
        if self.pooled_size:
            outputs["pooled"] = "float[batch pooled_size]"
        return Ports.of({"text": "text"}, outputs)

    def parts(self) -> Mapping[str, Ports]:
        """Each encoder, as one call."""
        return {one.name: one.ports() for one in self.readings}

    def parameters(self) -> int:
        """Count all of them."""
        return sum(one.parameters() for one in self.readings)

    def export_facts(self) -> Mapping[str, Any]:
        """The encoders; lengths change no graph."""
        return {"encoders": self.encoders, "style": self.style}

    def review(self, node: SolvedNode) -> Iterable[tuple[str, str, str]]:
        """Encoders that came from nowhere."""
        if not self.encoders:
            yield "config-mismatch", f"{node.name} has no text encoder", HINT


def style_of(root: Mapping[str, Any]) -> Style:
    """How the encoders of a folder go together, by the model beside them."""
    if (root.get("transformer") or [None, None])[1] == "SD3Transformer2DModel":
        return "sd3"
    is_added = (root.get("unet_config") or {}).get("addition_embed_type") == "text_time"
    return "sdxl" if is_added else "sd"


def _width(style: Style, encoders: Mapping[str, Mapping[str, Any]], root: Mapping[str, Any]) -> int:
    """Width of the states: of one, of two beside each other, or what the model reads and shorter ones are filled up to."""
    if style == "sd3":
        return int((root.get("transformer_config") or {}).get("joint_attention_dim", 4096))
    return sum(int(config.get("hidden_size", 0)) for config in encoders.values())


def clip(config: Mapping[str, Any], *, projected: bool) -> int:
    """Parameters of a text tower of CLIP, with the projection of its vector or without."""
    width, inner, layers = (int(config[key]) for key in ("hidden_size", "intermediate_size", "num_hidden_layers"))
    each = 4 * (width * width + width) + 2 * width * inner + inner + width + 4 * width
    places = int(config.get("max_position_embeddings", 77))
    beside = width * int(config.get("projection_dim", 512)) * projected
    return (int(config["vocab_size"]) + places) * width + layers * each + 2 * width + beside


def t5(config: Mapping[str, Any]) -> int:
    """Parameters of the encoder of a T5."""
    width, inner = int(config["d_model"]), int(config["num_heads"]) * int(config["d_kv"])
    gates = 3 if str(config.get("feed_forward_proj", "relu")).startswith("gated") else 2
    each = 4 * width * inner + gates * width * int(config["d_ff"]) + 2 * width
    near = int(config.get("relative_attention_num_buckets", 32)) * int(config["num_heads"])
    return int(config["vocab_size"]) * width + int(config["num_layers"]) * each + near + width
