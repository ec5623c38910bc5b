"""Components without code, in which every rule of the checker can be broken, and graphs of them from YAML."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from types import ModuleType
from typing import Literal

import pytest
from pydantic import Field

from modelgraft import Config, Dim, GraphError, Ports, Space, component, hookimpl, port
from modelgraft.installed.discovery import assemble
from modelgraft.kernel.language.document import parse
from modelgraft.kernel.language.expand import expand_document
from modelgraft.tools.checked import checked

NOWHERE = "nowhere:Nothing"  # the checker and the planner never import it


@component("toy/pixels", kind="preprocess", load=NOWHERE)
class Pixels(Config):
    """Prepare a picture."""

    size: int = 224
    image_mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    image_std: tuple[float, ...] = (0.25, 0.25, 0.25)

    @classmethod
    def from_source(cls, source):
        return {"image_mean": source.root["image_mean"]} if "image_mean" in source.root else {}

    def ports(self):
        space = Space.of("pixels", mean=self.image_mean, std=self.image_std)
        return Ports.of({"image": "image"}, {"pixels": port("float[batch 3 size size]", space=space)})


@component("toy/eye", kind="encoder", module=NOWHERE)
class Eye(Config):
    """See."""

    hidden_size: int = Field(768, gt=0)
    image_size: int = 224
    patch_size: int = 14
    has_class: bool = True
    drop_first: bool = False
    image_mean: tuple[float, ...] | None = None
    image_std: tuple[float, ...] | None = None

    @classmethod
    def from_source(cls, source):
        if source.config.get("model_type") == "fish":
            raise ValueError("it is a fish; this serves eyes")
        known = ("hidden_size", "image_size", "patch_size", "has_class", "image_mean", "image_std")
        return {name: source.config[name] for name in known if name in source.config}

    @property
    def tokens(self):
        return (self.image_size // self.patch_size) ** 2 + self.has_class - self.drop_first

    def ports(self):
        space = Space.of("pixels", mean=self.image_mean, std=self.image_std)
        inputs = {"pixels": port("float[batch 3 image_size image_size]", space=space)}
        return Ports.of(inputs, {"tokens": "float[batch tokens hidden_size]", "pooled": "float[batch hidden_size]"})

    def parameters(self):
        return self.hidden_size * (3 * self.patch_size**2 + self.tokens)


@component(
    "toy/linear", kind="projector", module=NOWHERE,
    inputs={"x": "float[batch tokens in_features]"}, outputs={"y": "float[batch tokens out_features]"},
)  # fmt: skip
class Linear(Config):
    """Map to another width."""

    in_features: Dim = None
    out_features: Dim = None

    def parameters(self):
        return self.in_features * self.out_features + self.out_features


@component("toy/bridge", kind="resampler", module=NOWHERE)
class Bridge(Config):
    """Give a few tokens and a mask for any number of tokens; its memory may stay away."""

    queries: int = 32
    width: int = 768
    memory_width: Dim = None

    def ports(self):
        outputs = {"tokens": "float[batch queries width]", "mask": "bool[batch queries]"}
        return Ports.of({"media": "float[batch patches memory_width]"}, outputs)


@component(
    "toy/shuffle", kind="preprocess", module=NOWHERE, inputs={"x": "float[batch 4*groups w]"}, outputs={"y": "float[batch groups 4*w]"}
)
class Shuffle(Config):
    """Join four tokens to one."""


@component("toy/longer", kind="preprocess", module=NOWHERE, inputs={"x": "float[batch n w]"}, outputs={"y": "float[batch n+1 w]"})
class Longer(Config):
    """Add a token."""


@component("toy/tongue", kind="llm", module=NOWHERE)
class Tongue(Config):
    """Speak."""

    prompt: str = "{image}{prompt}"
    hidden_size: int = 2560
    max_new_tokens: int = Field(10, gt=0)
    context: int = 2048

    @classmethod
    def from_source(cls, source):
        return {"hidden_size": source.config["hidden_size"]} if "hidden_size" in source.config else {}

    def ports(self):
        fields = [part.partition("}")[0] for part in self.prompt.split("{")[1:]]
        split = [field.partition(":")[::2] for field in fields]
        return Ports.of({name: f"text | float[batch {size or f'{name}_tokens'} hidden_size]" for name, size in split}, {"text": "text"})

    def review(self, node):
        sizes = [port.tensor.axes[1].size for port in node.in_ports.values() if port.tensor is not None and node.wired]
        need = sum(size or 0 for size in sizes) + self.max_new_tokens
        if need > self.context:
            told = (
                f"{sum(sizes)} picture tokens and max_new_tokens {self.max_new_tokens} make {need}, more than the context of {self.context}"
            )
            yield "context-overflow", f"{node.name}: {told}", f"set max_new_tokens: {self.context - sum(sizes)} or less"


@component("toy/tokenizer", kind="tokenizer", load=NOWHERE)
class Tokenizer(Config):
    """Cut a text."""

    identity: str = "opt"

    def ports(self):
        return Ports.of({"text": "text"}, {"ids": port("int64[batch tokens]", space=Space.of("tokens", tokenizer=self.identity))})


@component("toy/embed", kind="encoder", module=NOWHERE)
class Embed(Config):
    """Look tokens up."""

    identity: str = "llama"
    width: int = 5

    def ports(self):
        ids = port("int64[batch tokens]", space=Space.of("tokens", tokenizer=self.identity))
        return Ports.of({"ids": ids}, {"y": "float[batch tokens width]"})


@component("toy/rank", kind="head", inputs={"image": "image", "labels": "list[text]"}, outputs={"label": "label"})
def rank(image, labels, *, style: Literal["short", "long"] = "short"):
    """Choose a label."""


@component("toy/norm", kind="preprocess", inputs={"x": "float[... w]"}, outputs={"y": "float[... w]"})
def norm(x):
    """Scale the last axis."""


@component("toy/mean", kind="head", inputs={"x": "float[batch n w]"}, outputs={"y": "float[batch w]"})
def mean(x):
    """Average over tokens."""


@component("toy/asks", kind="router", inputs={"text": "text"}, outputs={"yes": "mask[batch]", "topic": "label"})
def asks(text):
    """Tell which texts are questions."""


@component("toy/join", kind="preprocess", inputs={"left": "text", "right": "optional[text]"}, outputs={"text": "text"})
def join(left, right, *, separator: str = " "):
    """Join texts."""


@component("toy/gate", kind="adapter", load=NOWHERE, inputs={"media": "float[batch n media_width]"})
class Gate(Config):
    """Let the host look at media."""

    hidden_size: Dim = None
    media_width: Dim = None

    def parameters(self):
        return 4 * self.hidden_size * self.media_width


EVERY = (Pixels, Eye, Linear, Bridge, Shuffle, Longer, Tongue, Tokenizer, Embed, rank, norm, mean, asks, join, Gate)


def plugin(*subjects, error=None, recorded=None):
    """A plugin module that offers components and recorded configs, or raises."""

    @hookimpl
    def register_components(register):
        for subject in subjects:
            register(subject)
        if error is not None:
            raise error

    @hookimpl
    def register_recorded_configs(register):
        for name, folder in (recorded or {}).items():
            register(name, folder)

    module = ModuleType("toys")
    module.__dict__.update(register_components=register_components, register_recorded_configs=register_recorded_configs)
    return module


REGISTRY = assemble({"toys": plugin(*EVERY)})


def with_presets(folder: Path, **presets):
    """The toys, and sources `preset:NAME` with these configs."""
    for name, config in presets.items():
        (folder / name).mkdir()
        (folder / name / "config.json").write_text(json.dumps(config))
    return assemble({"toys": plugin(*EVERY, recorded={f"preset:{name}": folder / name for name in presets})})


def graph_of(text: str, *, registry=REGISTRY, allow=(), params=None):
    """Read a graph; line 1 is the line after the opening quotes."""
    return expand_document(
        parse(textwrap.dedent(text).lstrip("\n"), path=Path("graph.yaml")), registry=registry, allow=allow, params=params
    )


OPT = {"hidden_size": 2560}
CAPTION = """
modelgraft: 1
inputs: {image: image}
nodes:
  pixels: {use: toy/pixels, in: {image: inputs.image}}
  vision:
    use: toy/eye
    from: preset:eva-clip-g
    in: {pixels: pixels}
  project:
    use: toy/linear
    in: {x: vision.tokens}
  llm: {use: toy/tongue, from: preset:opt, with: {prompt: "{image}"}, in: {image: project}}
outputs: {text: llm.text}
"""


def told(text, **options):
    """What the checker says about a graph, line by line."""
    with pytest.raises(GraphError) as caught:
        checked(graph_of(text, **options))
    return str(caught.value).splitlines()


def one(use, port, given, *, rest=""):
    """A graph of one node fed by an input of the graph."""
    return (
        f'modelgraft: 1\ninputs: {{x: "{given}"}}\nnodes:\n  node: {{use: {use}{rest}, in: {{{port}: inputs.x}}}}\noutputs: {{y: node}}\n'
    )
