"""The conformance kit finds what it is there to find."""

from __future__ import annotations

import sys
import time
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
import torch

from modelgraft import Config, component
from modelgraft.installed.discovery import GROUP
from modelgraft.testing import ConformanceError, conform, imports_of, run_node


def declare(forward, *, count=12, build=lambda config: torch.nn.Linear(3, 3), shared=None):
    """A component around `forward(linear, x)`, declared as float[batch tokens 3] on both sides."""

    class Module(torch.nn.Module):
        def __init__(self, config):
            super().__init__()
            self.inner = build(config)

        def forward(self, x):
            return forward(self.inner, x)

    home = ModuleType("toy_conformance")
    home.Module = Module
    sys.modules["toy_conformance"] = home

    @component(
        "toy/map",
        kind="projector",
        module="toy_conformance:Module",
        inputs={"x": "float[batch tokens 3]"},
        outputs={"y": "float[batch tokens 3]"},
        shared=shared,
    )
    class Map(Config):
        """Map."""

        def parameters(self):
            return count

    return Map


def keep_a_moment(linear, x):
    """What a call keeps on the module, another one may find there."""
    linear.kept = x
    time.sleep(0.005)
    return linear(linear.kept) if linear.kept.shape == x.shape else linear(x) + 1


def test_what_a_module_keeps_during_a_call_is_found():
    """Unless it says that runs must take turns."""
    with pytest.raises(ConformanceError, match=r"together: 'y' differs in \d of 8 calls made two at a time: declare shared=False"):
        conform(declare(keep_a_moment))
    conform(declare(keep_a_moment, shared=False))


def test_a_sound_component_conforms():
    """No rule is broken by a linear layer."""
    conform(declare(lambda linear, x: linear(x)))


@pytest.mark.parametrize(
    ("forward", "message"),
    [
        (lambda linear, x: linear(x).transpose(1, 2), r"ports: 'y' is declared .* an axis is \d+ long, not 3"),
        (lambda linear, x: linear(x)[:, 1:], r"ports: axis 'tokens' is 5 in 'x' but 4 in 'y'"),
        (lambda linear, x: linear(x).long(), r"ports: 'y' is declared .* the dtype is int64, not bfloat16 or float16"),
        (lambda linear, x: linear(x).tolist(), r"is declared float\[batch tokens 3\] but is a list of 2"),
        (lambda linear, x: linear(x) + torch.rand(1), "repeatable: 'y' differs between two runs"),
        (lambda linear, x: linear(x) - x.mean(0), "batch: 'y' of record 0 in a batch differs from the record alone"),
    ],
)
def test_a_broken_rule_is_named(forward, message):
    """Each kind of mistake is found and said."""
    with pytest.raises(ConformanceError, match=message):
        conform(declare(forward))


def test_a_wrong_formula_is_found():
    """What the formula says and what the module holds are both in the message."""
    with pytest.raises(ConformanceError, match="parameters: the formula says 11, the module holds 12"):
        conform(declare(lambda linear, x: linear(x), count=11))


def test_state_that_is_not_saved_is_found():
    """A tensor outside parameters and buffers is lost when the state is saved."""

    class Leaky(torch.nn.Linear):
        def __init__(self, config):
            super().__init__(3, 3)
            self.secret = torch.randn(3)

        def forward(self, x):
            return super().forward(x) + self.secret

    with pytest.raises(ConformanceError, match="state: 'y' changes when the state dict is loaded"):
        conform(declare(lambda linear, x: linear(x), build=Leaky))


class Base(torch.nn.Linear):
    """A layer with something beside its call."""

    def __init__(self, config=None):
        super().__init__(3, 3)


class Sound(Base):
    optional_keys = ("bias",)

    def from_checkpoint(self, weights):
        return weights.state()

    def after_load(self, *, quietly=False):
        """Options of its own may have defaults."""

    def prepare(self, context):
        self.prepared = True

    def bind(self, runtime):
        self.runtime = runtime


class Misspelt(Base):
    def after_loaded(self):
        """Nobody calls this."""


class Static(Base):
    @staticmethod
    def from_checkpoint(config, weights):
        """The form of old."""


class Method(Base):
    def optional_keys(self):
        return ()


class Greedy(Base):
    def after_load(self, context):
        """It is called with nothing."""


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Misspelt, r"protocol: nobody asks for 'after_loaded': is 'after_load' meant\? Tie weights"),
        (Static, r"protocol: 'from_checkpoint' takes \(config, weights\); it is called as from_checkpoint\(weights\)\. Give the tensors"),
        (Method, "protocol: 'optional_keys' is a method; wanted: an attribute or a property"),
        (Greedy, r"protocol: 'after_load' takes \(context\); it is called as after_load\(\)"),
    ],
)
def test_what_a_module_has_beside_its_call_is_what_is_asked_for(kind, message):
    """A misspelt method does nothing, and another signature fails where nobody looks."""
    home = ModuleType("toy_protocol")
    home.Module, home.Sound = kind, Sound
    sys.modules["toy_protocol"] = home

    def declared(name):
        @component(
            "toy/beside", kind="projector", module=f"toy_protocol:{name}",
            inputs={"x": "float[batch tokens 3]"}, outputs={"y": "float[batch tokens 3]"},
        )  # fmt: skip
        class Beside(Config):
            """Map."""

            def parameters(self):
                return 12

        return Beside

    conform(declared("Sound"))
    with pytest.raises(ConformanceError, match=message):
        conform(declared("Module"))


def test_what_a_load_function_gives_is_looked_at_too():
    """`bind`, `close` and `warnings` are what such code is asked for."""

    class Opened:
        def __call__(self, texts):
            return texts

        def warning(self):
            return ()

        def close(self, force):
            """It is called with nothing."""

    home = ModuleType("toy_protocol")
    home.load = lambda config, context: Opened()
    sys.modules["toy_protocol"] = home

    @component("toy/opened", kind="preprocess", load="toy_protocol:load", inputs={"x": "text"}, outputs={"y": "text"})
    class Echo(Config):
        """Say it again."""

    with pytest.raises(ConformanceError) as broken:
        conform(Echo)
    assert "'close' takes (force); it is called as close()" in str(broken.value)
    assert "nobody asks for 'warning': is 'warnings' meant?" in str(broken.value)


def test_a_component_runs_alone():
    """Inputs go in by name; a name that is no port is refused."""

    @component("toy/shout", kind="preprocess", inputs={"text": "text"}, outputs={"loud": "text"})
    def shout(text: list[str], *, mark: str = "!") -> list[str]:
        """Shout."""
        return [record.upper() + mark for record in text]

    assert run_node(shout, {"mark": "?"}, text=["hi"]) == {"loud": ["HI?"]}
    with pytest.raises(Exception, match="'toy/shout' has no input words; it has text"):
        run_node(shout, words=["hi"])


SHIPPED = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]["entry-points"][GROUP]


@pytest.mark.slow  # an interpreter each
@pytest.mark.parametrize("module", SHIPPED.values())
def test_every_shipped_plugin_is_light_to_import(module):
    """Declarations must not bring in torch."""
    assert imports_of(module) == frozenset()


@pytest.mark.slow
def test_what_a_module_imports_is_seen():
    assert "torch" in imports_of("modelgraft_plugins.vision.modules")
