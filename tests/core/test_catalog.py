"""Ports can be found before there is a graph: under a typical config, with what changes them, and by their types."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from enum import Enum
from typing import Annotated, Literal

import pytest
from annotated_types import Gt
from pydantic import AfterValidator, Field

from modelgraft import Config, Dim, InputError, Ports, component
from modelgraft.cli import main
from modelgraft.cli.components import component_document
from modelgraft.installed.discovery import assemble, discover
from modelgraft.tools.looks import Look, giving, look, read_type, taking
from modelgraft.tools.recorded import recorded_presets
from support.checkable import plugin
from support.command import commands


class Shape(Enum):
    """A choice as an enumeration."""

    SQUARE = "square"
    ROUND = "round"


@component("toy/turn", kind="head", module="nowhere:Turn")
class Turn(Config):
    """Have ports that depend on every sort of key."""

    prompt: str = "{question}"
    many: bool = False
    over: Literal["tokens", "vector"] = "tokens"
    shape: Shape = Shape.SQUARE
    frames: int | None = Field(None, gt=0)
    factor: int = 2
    names: tuple[str, ...] = ()
    width: Dim = None
    quiet: bool = False  # changes nothing

    def ports(self):
        inputs = {field: "text" for field in ("question", "first", "second") if f"{{{field}}}" in self.prompt}
        axes = ("images " if self.many else "") + ("frames " if self.frames else "") + ("tokens " if self.over == "tokens" else "")
        outputs = {"y": f"float[batch {axes}{self.factor}*width]", "seen": "mask[batch]" if self.shape is Shape.SQUARE else "int64[batch]"}
        return Ports.of(inputs, outputs | dict.fromkeys(self.names, "label"))


@component("toy/told", kind="head", module="nowhere:Told", inputs={"x": "image"}, outputs={"y": "float[batch size]"})
class Told(Config):
    """Need to be told."""

    size: int
    mode: Literal["a", "b"]


@component("toy/broken", kind="head", module="nowhere:Broken")
class Broken(Config):
    """Tell nothing."""

    def ports(self):
        raise SystemExit(0)


def registry_of(*subjects):
    from modelgraft.installed.discovery import assemble

    return assemble({"toy": plugin(*subjects)})


def written(ports):
    return {name: None if port is None else str(port) for name, port in ports.items()}


def test_the_ports_are_those_of_the_default_config_and_each_key_says_what_it_changes():
    """Truths, choices, numbers that may be left out, factors, templates and lists; dimensions and what changes nothing are not listed."""
    seen = look(Turn.__component__, registry_of(Turn))
    assert (seen.basis, written(seen.inputs)) == ("the default config", {"question": "text"})
    assert written(seen.outputs) == {"y": "float[batch tokens 2*width]", "seen": "mask[batch]"}
    told = {str(change): (written(change.inputs), written(change.outputs)) for change in seen.changes}
    assert told == {
        "prompt: '{first} and {second}'": ({"question": None, "first": "text", "second": "text"}, {}),
        "many: true": ({}, {"y": "float[batch images tokens 2*width]"}),
        "over: vector": ({}, {"y": "float[batch 2*width]"}),
        "shape: round": ({}, {"seen": "int64[batch]"}),
        "frames: 2": ({}, {"y": "float[batch frames tokens 2*width]"}),
        "factor: 3": ({}, {"y": "float[batch tokens 3*width]"}),
        "names: ['one', 'two']": ({}, {"one": "label", "two": "label"}),
    }


def test_a_component_that_must_be_told_is_shown_by_an_example():
    """And one whose code fails says that."""
    registry = registry_of(Told, Broken)
    seen = look(Told.__component__, registry)
    assert (seen.basis, written(seen.inputs)) == ("an example: size: 8, mode: a", {"x": "image"})
    assert look(Broken.__component__, registry).error == "SystemExit: 0"


FED_BY_NOTHING = {"pali/task", "diffusion/scheduler", "llm/draft"}  # captions need nothing filled in; the others are what they come from


def test_every_shipped_component_shows_its_ports():
    """None says that they depend."""
    registry = discover()
    for one in registry.components.values():
        seen = look(one, registry)
        assert not seen.error, one.id
        assert seen.inputs or one.kind == "adapter" or one.id in FED_BY_NOTHING, one.id
        assert seen.outputs or one.kind == "adapter", one.id


def found(side, text, registry):
    finder = {"gives": giving, "takes": taking}[side]
    kind = read_type(text, registry)
    return {
        one.id: [str(match) for match in matches] for one in registry.components.values() if (matches := finder(look(one, registry), kind))
    }


def test_components_are_found_by_what_they_give_and_take():
    """A dtype alone is any shape; axes count; ports of other values come with the value."""
    registry = registry_of(Turn, Told)
    assert found("gives", "mask", registry) == {"toy/turn": ["seen: mask[batch]"]}
    assert found("gives", "int64", registry) == {"toy/turn": ["seen: int64[batch] (with shape: round)"]}
    assert found("gives", "float[batch size]", registry)["toy/told"] == ["y: float[batch size]"]
    assert found("gives", "float[batch size]", registry)["toy/turn"] == ["y: float[batch 2*width] (with over: vector)"]
    assert found("takes", "image", registry) == {"toy/told": ["x: image"]}
    assert found("gives", "audio", registry) == {}
    with pytest.raises(InputError, match=r"no port is of type 'imag'; there are: .* Did you mean 'image'\?"):
        read_type("imag", registry)
    with pytest.raises(InputError, match=r"one '\.\.\.' can be told apart"):
        read_type("float[... ...]", registry)


@pytest.mark.slow
def test_presets_say_what_they_are_and_who_reads_them():
    """Each component at the part that it reads, with the parameters that it has there; a part that says nothing to it is no use."""
    named = {one.source: one for one in recorded_presets(discover())}
    clip = named["preset:clip-vit-l-14"]
    assert (clip.about, clip.plugin) == ("clip: text 12 layers of 768, vision 24 layers of 1024", "formats")
    uses = {(use.component, use.source.removeprefix("preset:clip-vit-l-14")): use.parameters for use in clip.uses}
    assert uses[("vision/encoder", "#vision_model")] == 303_179_776  # as transformers counts CLIPVisionModel of this config
    assert ("vision/encoder", "") not in uses
    assert ("llm/causal", "#text_model") not in uses
    assert [use.component for use in named["preset:llama-7b"].uses] == ["llm/causal", "llm/draft", "llm/splice"]
    decided_by_neighbours = {"minigpt4"}  # one layer, whose file alone says how wide what it reads is
    counted_once_built = {"dac", "encodec", "mimi"}  # on this machine, which keeps the count: see plan --exact
    of_one_node = {
        "drawings-draw",
        "drawings-kinds",
        "drawings-look",
        "drawings-memory",
    }  # trained weights that ship: their file says its component, not their config
    known = decided_by_neighbours | counted_once_built | of_one_node
    assert [one.source for one in named.values() if not one.uses and one.family not in known] == []


@pytest.mark.slow
def test_the_commands_list_them(monkeypatch, capsys):
    """As tables and as JSON."""
    assert main(["components", "--gives", "mask", "--takes", "image", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [one["id"] for one in listed] == ["kosmos/grit", "ocr/rapidocr"]
    assert listed[1]["inputs"] == {"image": "image"}
    assert {"port": "has_text", "type": "mask[batch]", "with": None} in listed[1]["gives"]
    assert main(["components", "--gives", "msk"]) == 1
    assert "Did you mean 'mask'?" in capsys.readouterr().err
    assert main(["presets", "--json"]) == 0
    assert {"preset:vit-b-16", "preset:imagebind-huge"} <= {one["name"] for one in json.loads(capsys.readouterr().out)}
    assert main(["presets"]) == 0
    assert "preset:clip-vit-l-14#vision_model" in capsys.readouterr().out
    assert main(["plugins", "info", "vision/encoder"]) == 0
    assert "  layer: 2  ->  no output pooled" in capsys.readouterr().out.splitlines()


def test_info_takes_a_component_a_plugin_and_a_package(capsys):
    """With everything that a plugin brings."""
    assert main(["plugins", "info", "formats", "--json"]) == 0
    formats = json.loads(capsys.readouterr().out)
    assert (formats["package"], formats["weight_readers"]) == ("modelgraft", [".bin", ".gguf", ".txt.gz"])
    assert main(["plugins", "info", "modelgraft", "--json"]) == 0
    package = json.loads(capsys.readouterr().out)
    assert {"formats", "vision"} <= {one["name"] for one in package["plugins"]}
    assert main(["plugins", "info", "vision/encoder@1"]) == 0


def test_what_a_plugin_has_lost_is_shown(monkeypatch, tmp_path, capsys):
    """In the list, in its own page, beside the component that won, and in JSON."""
    run = commands(monkeypatch, tmp_path, capsys)
    monkeypatch.setattr(
        "modelgraft.installed.discovery.discover", lambda only=None: assemble({"one": plugin(Turn), "two": plugin(Turn, Told)})
    )
    assert "two" in run("plugins", "list")[1]
    assert "without the component toy/turn (it belongs to one)" in run("plugins", "list")[1]
    assert "it does not have the component toy/turn, which belongs to one" in run("plugins", "info", "two")[1]
    assert "the plugin two offers it too, and does not have it" in run("plugins", "info", "toy/turn")[1]
    assert json.loads(run("plugins", "list", "--json")[1])[1]["lost"] == [{"what": "component", "name": "toy/turn", "owner": "one"}]
    listed = json.loads(run("components", "--json")[1])
    assert [(one["id"], one["plugin"], one["also_offered_by"]) for one in listed] == [("toy/told", "two", []), ("toy/turn", "one", ["two"])]
    assert "plugin two does not have the component toy/turn (it belongs to one)" in run("components")[2]


def test_types_of_keys_are_told_in_words():
    """As they are written, numbers with their bounds, and without the functions that look at a value."""

    class Told(Config):
        count: int = Field(default=1, gt=0, le=9)
        counts: Mapping[str, Annotated[int, Field(ge=0)]] = Field(default={})
        pair: tuple[Annotated[float, Gt(gt=0)], ...] | None = None
        word: Annotated[str, AfterValidator(str.strip)] | Literal["a", "b"] = "a"

    found = component_document(replace(discover(only=("text",)).components["text/template"], config=Told), Look(), assemble({}))
    told = {name: field["type"] for name, field in found["config"].items()}
    assert told == {
        "count": "int",
        "counts": "Mapping[str, int >= 0]",
        "pair": "tuple[float > 0, ...] | None",
        "word": "str | Literal['a', 'b']",
    }
