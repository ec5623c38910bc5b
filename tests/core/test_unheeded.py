"""What a source states and a component does not do is a warning of the check, with its line."""

from __future__ import annotations

import json
from types import ModuleType

import numpy
from safetensors.numpy import save_file

from modelgraft import Config, component, hookimpl
from modelgraft.installed.discovery import assemble
from modelgraft.kernel.language.expand import load_graph
from modelgraft.tools.checked import checked


@component("t/reader", kind="encoder", module="nowhere:Reader", inputs={"x": "text"}, outputs={"y": "float[batch 3]"})
class Reader(Config):
    """Read."""

    mood: str = ""

    @classmethod
    def unheeded(cls, source):
        if source.config.get("model_type") == "broken":
            raise KeyError("temper")
        return [("it states a temper, and this has none", "take the temper out", "mood")] if "temper" in source.config else []


def solved(folder, more="", **config):
    (folder / "model").mkdir()
    (folder / "model" / "config.json").write_text(json.dumps({"model_type": "eye", **config}))
    save_file({"weight": numpy.zeros(3, "float32")}, folder / "model" / "model.safetensors")
    (folder / "a.yaml").write_text(
        "modelgraft: 1\ninputs: {x: text}\nnodes:\n  eye:\n    use: t/reader\n    from: ./model\n"
        + more
        + "    in: {x: inputs.x}\noutputs: {y: eye}\n"
    )
    module = ModuleType("toy")
    module.register_components = hookimpl(lambda register: register(Reader), specname="register_components")
    return checked(load_graph(folder / "a.yaml", registry=assemble({"toy": module})))


def test_a_source_that_states_nothing_over_has_no_warnings(tmp_path):
    assert solved(tmp_path).warnings == ()


def test_what_is_not_heeded_is_told_with_its_line_and_a_way_out(tmp_path):
    (warning,) = solved(tmp_path, temper="hot").warnings
    assert str(warning) == "a.yaml:6  unheeded  eye: it states a temper, and this has none\n    take the temper out"


def test_a_component_that_cannot_tell_is_told_as_a_defect(tmp_path):
    (warning,) = solved(tmp_path, model_type="broken").warnings
    assert "t/reader could not tell what it does not heed of ./model: KeyError: 'temper'" in warning.found


def test_what_the_graph_decides_is_not_told(tmp_path):
    assert solved(tmp_path, more="    with: {mood: calm}\n", temper="hot").warnings == ()
