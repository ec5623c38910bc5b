"""Declaring components."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from modelgraft import Config, Dim, PluginError, component, port
from modelgraft.kernel.words.kinds import dimension_fields


def declare_join():
    @component("text/join", kind="preprocess", inputs={"left": "text", "right": "text"}, outputs={"text": "text"})
    def join(left: list[str], right: list[str], *, separator: str = " ") -> list[str]:
        """Join two texts.

        More about it.
        """
        return [a + separator + b for a, b in zip(left, right, strict=True)]

    return join


def test_keyword_arguments_of_a_function_are_its_config():
    """The config model has the defaults and refuses what the function does not take."""
    declared = declare_join().__component__
    assert declared.config().separator == " "
    assert declared.summary == "Join two texts."
    with pytest.raises(ValidationError, match="seperator"):
        declared.config(seperator="-")


def test_a_declared_function_can_be_called_as_before():
    """The decorator leaves the function as it is."""
    assert declare_join()(["a"], ["b"], separator="-") == ["a-b"]


def test_fields_of_the_config_bind_the_axes_of_the_ports():
    """A name in a port that is a field or a property of the config has its value; the others stay open."""

    @component(
        "eye/toy",
        kind="encoder",
        module="nowhere:Eye",
        inputs={"x": "float[batch 3 size size]"},
        outputs={"y": "float[batch tokens width]"},
    )
    class Eye(Config):
        """See."""

        size: int = 8
        width: Dim = None

        @property
        def tokens(self) -> int:
            """Patches."""
            return (self.size // 4) ** 2

    ports = Eye.__component__.ports(Eye())
    assert str(ports.inputs["x"]) == "float[batch 3 8 8]"
    assert str(ports.outputs["y"]) == "float[batch 4 width]"
    assert dimension_fields(Eye) == ("width",)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"id": "Join"}, "is not of the form namespace/name"),
        ({"kind": "widget"}, "kind 'widget' is none of encoder, projector"),
        ({"inputs": {"x": "float"}}, "'float' needs axes"),
        ({"inputs": {"y": "text"}}, r"the function takes \(x\) but its input ports are \(y\)"),
        ({"module": "a:B"}, "a function is its own code"),
    ],
)
def test_a_declaration_that_contradicts_itself_is_refused(arguments, message):
    """The author sees at once what is wrong with which component."""
    complete = {"id": "text/same", "kind": "preprocess", "inputs": {"x": "text"}, "outputs": {"x": "text"}} | arguments
    with pytest.raises(PluginError, match=message):

        @component(**complete)
        def same(x: list[str]) -> list[str]:
            """Hand on."""
            return x


def test_a_component_without_a_docstring_is_refused():
    """Users read its first line, so there must be one."""
    with pytest.raises(PluginError, match="has no docstring"):
        component("text/same", kind="preprocess", inputs={"x": "text"}, outputs={})(lambda x: x)


def test_a_config_class_names_one_place_for_its_code():
    """Neither or both of module= and load= are refused."""
    with pytest.raises(PluginError, match="exactly one of module="):

        @component("a/b", kind="head")
        class Head(Config):
            """Do."""


def test_ports_keep_their_space_and_their_sentence():
    """What `port` is told beside the type stays with it."""
    from modelgraft import Space

    pixels = port("float[batch 3 h w]", space=Space.of("pixels", size=8), doc="normalised")
    assert pixels.bind({"h": 8}).space == Space.of("pixels", size=8)
    assert pixels.doc == "normalised"


def test_types_of_inputs_may_be_imported_for_type_checkers_alone():
    """A light plugin names Tensor without importing torch; only the types of the config are looked at."""

    @component("test/first", kind="head", inputs={"x": "float[batch tokens width]"}, outputs={"y": "float[batch width]"})
    def first(x: Tensor, *, at: int = 0) -> Tensor:  # noqa: F821 not imported on purpose
        """Take one vector of a sequence."""
        return x[:, at]

    assert first.__component__.config(at=2).at == 2
    with pytest.raises(ValidationError):
        first.__component__.config(at="two")


@pytest.mark.parametrize("name", ["most", "multiples", "one_of", "ports", "from_source"])
def test_a_field_with_the_name_of_a_method_is_refused(name):
    """The method would be called and a number found; a class that overrides the method is what it is for."""
    with pytest.raises(PluginError, match=f"has a field '{name}', which is a method of modelgraft.Config"):
        type("Own", (Config,), {"__annotations__": {name: int}, name: 1, "__module__": __name__})


def test_the_words_of_authors_are_free_for_fields(recwarn):
    """Such as `times`, which the plugin of `plugins new` has."""

    @component("test/again", kind="preprocess", inputs={"text": "text"}, outputs={"text": "text"})
    def again(text: list[str], *, times: int = 2) -> list[str]:
        """Say it again."""
        return [record * times for record in text]

    assert again.__component__.config(times=3).times == 3
    assert not recwarn.list
