"""What notebooks and prompts show of graphs, plans, pipelines, results and lists: short, whole in themselves, and escaped."""

from __future__ import annotations

import base64
import io
import re
import subprocess
import sys
import warnings
import wave

import numpy as np
import pytest
import torch
from PIL import Image

import modelgraft as mg
from modelgraft.cli import main
from modelgraft.engine.shown import PAGE_BYTES
from support import toys


def html_of(**outputs: object) -> str:
    return mg.Result(outputs)._repr_html_()


def test_reprs_are_short():
    """One line that says what a person wants to know."""
    solved = mg.check(toys.graph(toys.DIAMOND))
    assert repr(mg.plan(solved)) == "<Plan toy: 4 nodes, 0 parameters (0 trained), 0 B>"
    with mg.open(solved) as pipeline:
        assert repr(pipeline) == "<Pipeline toy: 4 nodes, 0 loaded>"
        result = pipeline.run(text="abcd")
        assert re.fullmatch(r"<Result text='AB-CD'; [0-9.]+ [µm]?s>", repr(result))
        events = list(pipeline.stream(text="x" * 200))
    assert repr(pipeline) == "<Pipeline toy: 4 nodes, closed>"
    assert repr(events[-1]).startswith("<Event result: result={text: 'XXXX")
    assert max(len(repr(event)) for event in events) < 200
    assert repr(mg.Result({}, error=mg.InputError("a\nb"))) == "<Result failed: a>"


def test_a_repr_of_a_large_result_is_short():
    """Tensors by their kind, long lists cut."""
    found = repr(mg.Result({"a": torch.zeros(2, 3), "b": ["x" * 99] * 1000, "c": Image.new("RGB", (3, 5))}))
    assert "a=float32[2 3]" in found
    assert "c=picture 3 x 5" in found
    assert len(found) < 300


def test_a_plan_shows_its_table():
    """A row for each node, and the totals."""
    shown = mg.plan(toys.graph(toys.SIGHT))._repr_html_()
    assert shown.count("<tr>") == 4
    assert "14,400,084" in shown
    assert "float[batch 5 12]" in shown


def test_pictures_are_in_the_page():
    """As data, made small; what is decoded from it is the picture."""
    shown = html_of(image=Image.new("RGB", (1024, 512), (200, 30, 40)))
    (content,) = re.findall(r'src="data:image/png;base64,([^"]+)"', shown)
    found = Image.open(io.BytesIO(base64.b64decode(content)))
    assert (found.size, found.getpixel((5, 5))) == ((512, 256), (200, 30, 40))
    assert "http" not in shown


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "F", "I;16", "YCbCr"])
def test_pictures_of_every_mode_are_shown(mode):
    """What PNG has no form for is converted for the look."""
    assert "data:image/png" in html_of(image=Image.new(mode, (4, 4)))


def test_sounds_have_a_player():
    """Sixteen bits; of a long one the first minute, which is said."""
    shown = html_of(audio=mg.Audio(np.full((1, 100 * 80), 0.5, dtype=np.float32), 100))
    (content,) = re.findall(r'<audio controls src="data:audio/wav;base64,([^"]+)"', shown)
    with wave.open(io.BytesIO(base64.b64decode(content))) as sound:
        assert (sound.getframerate(), sound.getnframes()) == (100, 6000)
        assert abs(int.from_bytes(sound.readframes(1), "little") - 0.5 * 32767) <= 1
    assert "the first 60 s of it" in shown


def test_texts_are_escaped_and_cut():
    """A model may write anything; nothing of it becomes markup."""
    shown = html_of(text="<script>alert(1)</script>" + "x" * 10_000, **{"<b>": "a"})
    assert "<script>" not in shown
    assert "<b>" not in shown
    assert "10,025 letters in all" in shown
    assert len(shown) < 6_000


def test_tensors_are_told_in_a_line():
    """Few numbers as they are, many by what they lie between."""
    assert "float32[3] [1.0, 2.0, 3.0]" in html_of(x=torch.tensor([1.0, 2.0, 3.0]))
    assert "int64[4 5] from 0 to 19" in html_of(x=torch.arange(20).reshape(4, 5))
    assert "bool[4 5], 20 true" in html_of(x=torch.ones(4, 5, dtype=torch.bool))
    assert "float32[0 7]" in html_of(x=torch.zeros(0, 7))
    assert "complex64[20]" in html_of(x=torch.zeros(20, dtype=torch.complex64))


@pytest.mark.slow
def test_a_page_is_bounded():
    """Notebooks are kept with what they show: a batch of a thousand pictures stays small."""
    noise = Image.effect_noise((700, 700), 90).convert("RGB")
    shown = html_of(image=[noise] * 1000, audio=[mg.Audio(np.zeros((2, 48_000 * 60), dtype=np.float32), 48_000)] * 5)
    assert len(shown) < PAGE_BYTES + 100_000
    assert "not shown: the page would be too large" in shown
    assert "and 984 more" in shown


def test_a_failed_record_shows_why():
    """With the message, escaped."""
    assert "&lt;b&gt; is bad" in mg.Result({}, error=mg.InputError("<b> is bad"))._repr_html_()


def test_components_are_listed_by_what_they_give_and_take():
    """By kind and by ports under the default config, as a table."""
    masks = [one.id for one in mg.components(gives="mask", takes="image")]
    assert masks == ["kosmos/grit", "ocr/rapidocr"]
    found = mg.components(kind="llm", takes="text")
    assert [one.id for one in found] == ["coca/writer", "llm/causal", "llm/remote", "llm/seq2seq", "qformer/writer"]
    assert repr(found).splitlines()[0].split() == ["component", "kind", "plugin", "what", "it", "does"]
    assert found._repr_html_().count("<tr>") == 6
    with pytest.raises(mg.InputError, match=r"takes: no port is of type 'imag'; .* Did you mean 'image'\?"):
        mg.components(takes="imag")
    with pytest.raises(mg.InputError, match="there is no kind 'lm'"):
        mg.components(kind="lm")


@pytest.mark.slow
def test_presets_are_listed_with_their_family():
    """And with the hub ids that have the same numbers."""
    listed = mg.presets()
    found = {one.source: one for one in listed}
    assert found["preset:clip-vit-l-14"].family == "clip"
    assert found["preset:clip-vit-l-14"].also == ("openai/clip-vit-large-patch14",)
    assert "preset:clip-vit-l-14" in repr(listed)


def new_part() -> mg.Graph:
    """A graph of one part without a source: it starts from random numbers, and says so."""
    graph = mg.Graph("new")
    part = graph.node("projector/linear", x=graph.input("x", "float[batch tokens 3]"), out_features=2)
    graph.output("y", part)
    return graph


def test_loads_are_told_once_for_each_pipeline():
    """To Python's warnings, at the user's line; whoever streams or loads has heard it already."""
    given = torch.zeros(1, 2, 3)
    with mg.open(new_part()) as pipeline:
        with pytest.warns(mg.ModelgraftWarning, match="8 parameters start from random numbers") as caught:
            results = [pipeline.run(x=given), pipeline.run(x=given + 1)]
        assert [one.filename for one in caught] == [__file__]
    assert all(len(result.warnings) == 1 for result in results)
    with mg.open(new_part()) as pipeline, warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(pipeline.load()) == 1
        pipeline.run(x=given)
    with mg.open(new_part()) as pipeline, warnings.catch_warnings():
        warnings.simplefilter("error")
        assert sum(event.kind == "warning" for event in pipeline.stream(x=given)) == 1


def test_the_command_line_tells_loads_once(tmp_path, capfd):
    """As a note, not as a warning of Python."""
    new_part().save(tmp_path / "new.yaml")
    (tmp_path / "data.jsonl").write_text('{"x": [[[1.5, 2.5, 3.5]]]}\n' * 3)
    assert (
        main(["map", str(tmp_path / "new.yaml"), str(tmp_path / "data.jsonl"), "--out", str(tmp_path / "out.jsonl"), "--batch-size", "1"])
        == 0
    )
    told = capfd.readouterr().err
    assert told.count("start from random numbers") == 1
    assert "ModelgraftWarning" not in told


@pytest.mark.parametrize("words", [(), ("--quiet",), ("--quiet", "--json")])
def test_a_run_tells_its_warnings_however_quiet_it_is(tmp_path, capfd, words):
    """How far it is may be left out; what a user must know may not."""
    new_part().save(tmp_path / "new.yaml")
    assert main(["run", str(tmp_path / "new.yaml"), "--input", "x=[[[1.5, 2.5, 3.5]]]", *words]) == 0
    told = capfd.readouterr().err
    assert told.count("start from random numbers") == 1
    assert ("done in" in told) == (not words)


def test_looking_imports_nothing_heavy(tmp_path):
    """Graphs, plans and lists are shown without torch, numpy and Pillow."""
    program = """
import sys
import modelgraft as mg
graph = mg.load("blip2")
for one in (graph, mg.plan(graph), mg.components(kind="llm"), mg.presets()):
    assert len(repr(one)) < max(4000, 120 * (len(one) + 1 if hasattr(one, "__len__") else 0)), repr(one)  # of a list a line each
    if hasattr(one, "_repr_html_"):
        one._repr_html_()
print(sorted({"torch", "numpy", "PIL", "transformers", "onnxruntime"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.strip() == "[]"
