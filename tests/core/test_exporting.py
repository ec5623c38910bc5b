"""`modelgraft export` and `modelgraft cache`: what they write runs with onnxruntime alone."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy
import pytest
from PIL import Image
from skimage import data

import modelgraft as mg
from modelgraft.cli import main
from support import checkpoints

pytestmark = [
    pytest.mark.slow,  # it exports
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A tiny classifier, and a cache for these tests."""
    home = tmp_path_factory.mktemp("exporting")
    checkpoints.vit(home / "checkpoint")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MODELGRAFT_CACHE", str(home / "cache"))
        yield home / "checkpoint"


def call(capsys, *words):
    """Run the command line; gives exit code, stdout and stderr."""
    capsys.readouterr()
    code = main(list(words))
    found = capsys.readouterr()
    return code, found.out, found.err


def test_an_export_runs_without_modelgraft(checkpoint, tmp_path, capsys):
    """run.py gives the logits that the graph gives on torch; the manifest says how far the export is from it."""
    code, out, _ = call(capsys, "export", "vit", "--set", f"checkpoint={checkpoint}", "--out", str(tmp_path / "out"), "--json")
    assert code == 0
    (segment,) = json.loads(out)["segments"]
    assert segment["nodes"] == ["vision", "head"]
    assert 0 <= segment["parity"]["relative"] <= 1e-4

    picture = Image.fromarray(data.chelsea())
    with mg.open("vit", params={"checkpoint": str(checkpoint)}) as pipeline:
        expected = pipeline.run(image=picture, outputs=["pixels.pixels", "logits"])
    numpy.save(tmp_path / "pixels.npy", expected["pixels.pixels"].numpy())
    (source,) = segment["wires"].values()
    done = subprocess.run(
        [sys.executable, str(tmp_path / "out" / "run.py"), f"{source}=pixels.npy"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    got = numpy.load(tmp_path / f"{segment['gives'][0]}.npy")
    assert numpy.abs(got - expected["logits"].numpy()).max() <= 1e-5
    assert "modelgraft" not in (tmp_path / "out" / "run.py").read_text()


def test_a_folder_that_exists_is_left_alone(checkpoint, tmp_path, capsys):
    """Nothing is exported over other files."""
    code, _, said = call(capsys, "export", "vit", "--set", f"checkpoint={checkpoint}", "--out", str(tmp_path))
    assert code == 1
    assert "exists already; name a new folder" in said


def test_a_node_of_an_inner_graph_is_exported_under_its_whole_name(checkpoint, tmp_path, capsys):
    """`eye/vision` holds a slash, which file names do not: folders are numbered, and run.py writes `_` for it."""
    graph = tmp_path / "placed.yaml"
    graph.write_text(
        "modelgraft: 1\nparams: {checkpoint: x}\ninputs: {image: image}\n"
        "nodes:\n  eye: {use: 'graph:vit', with: {checkpoint: '${checkpoint}'}, in: {image: inputs.image}}\n"
        "outputs: {logits: eye.logits}\n"
    )
    code, out, said = call(capsys, "export", str(graph), "--set", f"checkpoint={checkpoint}", "--out", str(tmp_path / "out"), "--json")
    assert code == 0, said
    (segment,) = json.loads(out)["segments"]
    assert segment["nodes"] == ["eye/vision", "eye/head"]
    assert segment["folder"] == "01-eye_vision+eye_head"
    (source,) = segment["wires"].values()
    numpy.save(tmp_path / "pixels.npy", numpy.zeros(segment_shape(segment), "float32"))
    run = [sys.executable, str(tmp_path / "out" / "run.py"), f"{source}=pixels.npy"]
    done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "eye_head.y.npy").is_file()


def segment_shape(segment):
    """A shape that fits the one input of a segment: its free axes are 1 long."""
    (kind,) = segment["ports"]["inputs"].values()
    return [int(axis) if axis.isdigit() else 1 for axis in kind.removeprefix("float[").removesuffix("]").split()]


def test_the_cache_is_listed_and_cleared(checkpoint, tmp_path, capsys):
    """After an export there is one entry, after clear none."""
    call(capsys, "cache", "clear")
    call(capsys, "export", "vit", "--set", f"checkpoint={checkpoint}", "--out", str(tmp_path / "out"))
    code, out, _ = call(capsys, "cache", "list", "--json")
    assert code == 0
    assert [entry["component"] for entry in json.loads(out)] == ["vision/encoder+projector/linear"]
    assert "deleted 1 export" in call(capsys, "cache", "clear")[1]
    assert json.loads(call(capsys, "cache", "list", "--json")[1]) == []


def test_a_cache_that_is_a_file_is_named(tmp_path, monkeypatch, capsys):
    """Not an empty list of exports."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MODELGRAFT_CACHE", str(tmp_path / "file"))
    for command in ("list", "clear"):
        code, _, said = call(capsys, "cache", command)
        assert code == 1
        assert "file cannot be used: Not a directory" in said
    assert (tmp_path / "file").is_file()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            ("--backend", "onnx", "--dtype", "bfloat16"),
            "vision: the onnx backend has no dtype 'bfloat16'; it has float16, float32, int8, w4, w8",
        ),
        (("--backend", "onnx", "--precision", "int3"), "vision: the onnx backend has no precision 'int3'; it has float16, float32, int8"),
        (("--precision", "int8"), "vision: the torch backend has no precision 'int8'; it has bfloat16, float16, float32, float64"),
    ],
)
@pytest.mark.parametrize("command", ["plan", "run"])
def test_weights_that_a_backend_does_not_have_are_refused_with_the_plan(checkpoint, capsys, command, options, said):
    """The node, the backend and what it has, before anything is loaded."""
    code, _, found = call(capsys, command, "vit", "--set", f"checkpoint={checkpoint}", *options)
    assert code == 1
    assert said in found


def test_an_exported_language_model_writes_without_modelgraft(tmp_path, monkeypatch, capsys):
    """From token ids, and from the same tokens as embeddings: the tokens that transformers' generate writes."""
    monkeypatch.setenv("MODELGRAFT_CACHE", str(tmp_path / "cache"))
    made = checkpoints.llama(tmp_path / "checkpoint")
    graph = tmp_path / "tongue.yaml"
    graph.write_text(
        "modelgraft: 1\nparams: {checkpoint: x}\ninputs: {prompt: text}\n"
        "nodes: {llm: {use: llm/causal, from: '${checkpoint}', in: {prompt: inputs.prompt}}}\noutputs: {text: llm.text}\n"
    )
    code, _, said = call(capsys, "export", str(graph), "--set", f"checkpoint={made.folder}", "--out", str(tmp_path / "out"))
    assert code == 0, said
    ids = made.processor("a photo of a cat", return_tensors="pt").input_ids
    made.model.generation_config.eos_token_id = None
    expected = made.model.generate(ids, max_new_tokens=9, do_sample=False, pad_token_id=0)[0, ids.shape[1] :].numpy()
    given = {"ids": ids[0].numpy(), "embeds": made.model.get_input_embeddings()(ids).detach().numpy()}
    for name, value in given.items():
        numpy.save(tmp_path / f"{name}.npy", value)
        run = [sys.executable, str(tmp_path / "out" / "run.py"), f"llm={name}.npy", "--new", "9"]
        done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert numpy.array_equal(numpy.load(tmp_path / "llm.ids.npy"), expected)


def test_values_that_lead_nowhere_are_an_error_of_the_script(checkpoint, tmp_path, capsys):
    """A misspelt name, a file that is none, and numbers that do not fit: one line each, and nothing is written."""
    call(capsys, "export", "vit", "--set", f"checkpoint={checkpoint}", "--out", str(tmp_path / "out"))
    numpy.save(tmp_path / "x.npy", numpy.zeros(3))
    (tmp_path / "text.npy").write_text("no array")
    for word, said in {
        "pixel.pixels=x.npy": "'pixel.pixels=x.npy' is no NAME=FILE.npy, or has a NAME that is none of: head, head.y, pixels.pixels",
        "pixels.pixels": "'pixels.pixels' is no NAME=FILE.npy",
        "pixels.pixels=away.npy": "away.npy cannot be read: [Errno 2] No such file or directory",
        "pixels.pixels=text.npy": "text.npy cannot be read: ",
        "pixels.pixels=x.npy": "cannot be computed from pixels.pixels float64[3]: ",
        "head.y=x.npy": "nothing can be computed from these values: see `wires` and `nodes` in manifest.json",
    }.items():
        run = [sys.executable, str(tmp_path / "out" / "run.py"), word]
        done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert said in done.stderr
        assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("*.y.npy"))
