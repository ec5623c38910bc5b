"""`modelgraft units`: centres fitted over a folder of sounds, and made of arrays that were fitted elsewhere."""

from __future__ import annotations

import json
import pickle
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from sklearn.cluster import MiniBatchKMeans

import modelgraft as mg
from modelgraft import Audio, InputError
from modelgraft.cli import main
from modelgraft.records.sounds import read_audio, write_wave
from modelgraft.testing import run_node
from modelgraft_plugins.units import Mfcc, fitting
from support.sounds import tone

# Cepstra of sounds, without a model.
CEPSTRA = """# Cepstra.
modelgraft: 1
inputs: {audio: audio}
nodes:
  samples: {use: audio/samples, with: {normalize: false}, in: {audio: inputs.audio}}
  cepstra: {use: units/mfcc, with: {coefficients: 4}, in: {samples: samples.samples, mask: samples.mask}}
outputs: {features: cepstra.features, mask: cepstra.mask}
"""
UNITS = """# Units of them.
modelgraft: 1
extends: ./cepstra.yaml
params.units: centres.safetensors
nodes.units: {use: units/kmeans, from: "${units}", in: {features: cepstra.features, mask: cepstra.mask}}
nodes.runs: {use: units/dedup, in: {units: units}}
outputs.units: runs.units
outputs.durations: runs.durations
"""


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    """Run a command in a folder with graphs and a folder of sounds; gives its exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    Path("cepstra.yaml").write_text(CEPSTRA)
    Path("units.yaml").write_text(UNITS)
    Path("sounds").mkdir()
    for index in range(5):
        write_wave(tone(0.4 + 0.1 * index, hertz=110.0 * (index + 1)), Path(f"sounds/{index}.wav"))

    def run_command(*words: str) -> tuple[int, str, str]:
        code = main(("--plugins", "only=audio,units,torch", *words))
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return code, captured.out, captured.err

    return run_command


def cepstra(index: int) -> np.ndarray:
    """The features of a sound."""
    sound = read_audio(Path(f"sounds/{index}.wav"), name="sound")
    return run_node(Mfcc, {"coefficients": 4}, samples=torch.from_numpy(sound.samples))["features"][0].numpy()


def features() -> np.ndarray:
    """Those of all sounds, one behind the other."""
    return np.concatenate([cepstra(index) for index in range(5)])


def read(path: str) -> tuple[np.ndarray, dict[str, str]]:
    """The centres in a file, and what it says of them."""
    with safe_open(path, "np") as file:
        return file.get_tensor("cluster_centers_"), file.metadata()


FIT = ("units", "fit", "cepstra.yaml", "sounds", "--out", "centres.safetensors", "--clusters", "6")


def test_centres_are_those_of_scikit_learn_on_the_same_features(run):
    """With HuBERT's recipe and the seed of the command; the file says what they belong to, and the graph takes it."""
    code, out, err = run(*FIT, "--seed", "7", "--json")
    assert code == 0, err
    said = json.loads(out)
    rows = features()
    theirs = MiniBatchKMeans(
        6, init="k-means++", batch_size=10_000, max_iter=100, tol=0.0, max_no_improvement=100, n_init=20, reassignment_ratio=0.0,
        random_state=7, compute_labels=False,
    ).fit(rows)  # fmt: skip
    centres, metadata = read("centres.safetensors")
    np.testing.assert_allclose(centres, theirs.cluster_centers_, rtol=0, atol=1e-6)
    assert metadata["model"] == said["model"] == Mfcc(coefficients=4).identity
    assert (metadata["layer"], metadata["seed"], metadata["frames"]) == ("0", "7", str(len(rows)))
    assert said["mean_squared_distance"] == pytest.approx(theirs.inertia_ / len(rows))
    with mg.open(mg.load("units.yaml", params={"units": "centres.safetensors"})) as pipeline:
        result = pipeline.run(audio="sounds/3.wav")
    wanted = torch.unique_consecutive(torch.from_numpy(theirs.predict(cepstra(3))).long(), return_counts=True)
    assert torch.equal(result["units"][0], wanted[0])
    assert torch.equal(result["durations"][0], wanted[1])


def test_a_batch_of_unlike_sounds_gives_the_frames_that_each_gives_alone(run):
    """What fills the shorter ones up is no frame of theirs."""
    assert run(*FIT, "--json")[0] == 0
    code, out, err = run(*FIT[:4], "--out", "batched.safetensors", "--clusters", "6", "--batch-size", "4", "--json")
    assert code == 0, err
    assert json.loads(out)["frames"] == len(features())
    assert read("batched.safetensors")[1] == read("centres.safetensors")[1]
    np.testing.assert_array_equal(read("batched.safetensors")[0], read("centres.safetensors")[0])


def test_books_have_centres_of_their_own_part(run):
    """Cepstra, slopes, and slopes of slopes: each is fitted alone, and a frame has a unit of each."""
    code, out, err = run(*FIT, "--books", "3", "--json")
    assert code == 0, err
    assert {name: json.loads(out)[name] for name in ("clusters", "width", "books")} == {"clusters": 6, "width": 12, "books": 3}
    centres, _ = read("centres.safetensors")
    for book in range(3):
        theirs = MiniBatchKMeans(6, random_state=book, compute_labels=False, **fitting.RECIPE).fit(
            np.ascontiguousarray(features()[:, 4 * book : 4 * book + 4])
        )
        np.testing.assert_allclose(centres[book], theirs.cluster_centers_, rtol=0, atol=1e-6)


def test_a_record_that_fails_is_told_and_left_out(run):
    """A sound that is too short, and one that is not there: the centres are those of the others, and the code is 1."""
    write_wave(Audio(np.zeros((1, 10), np.float32), 16_000), Path("sounds/5.wav"))
    Path("sounds/6.wav").write_bytes(b"RIFF no sound")
    code, _, err = run(*FIT)
    assert code == 1
    assert "sounds/5.wav" in err
    assert "one frame looks at 400" in err
    assert "sounds/6.wav" in err
    assert "of 5 records, 2 failed; wrote centres.safetensors" in err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--clusters", "100000"), "100000 centres are wanted of"),
        (("--clusters", "0"), "wanted: a whole number, at least 1"),
        (("--books", "5"), "frames of features have 12 numbers, which so many books do not divide"),
        (("--share", "2"), "wanted: a number above 0 and at most 1"),
        (("--output", "nothing"), "there is no output 'nothing'"),
        (("--output", "cepstra.mask"), "wanted features float[batch frames width]"),
    ],
)
def test_what_cannot_be_fitted_is_refused_and_nothing_is_left(run, words, told):
    """In one sentence, and no file is begun."""
    before = sorted(Path().iterdir())
    code, _, err = run(*FIT, *words)
    assert code in (1, 2)
    assert told in err
    assert sorted(Path().iterdir()) == before


def test_no_output_replaces_what_is_read(run):
    """The data, and names under which nobody looks for centres."""
    assert "centres go into a file that ends with .safetensors" in run(*FIT[:5], "centres.npy")[2]
    assert "there is no folder" in run(*FIT[:5], "nowhere/centres.safetensors")[2]


def test_a_share_of_the_records_is_drawn_by_the_seed(run):
    """The same seed draws the same ones."""
    frames = []
    for seed in ("1", "1", "2", "3"):
        code, out, _ = run(*FIT, "--share", "0.4", "--seed", seed, "--json")
        assert code == 0
        assert json.loads(out)["records"] == 2
        frames.append(json.loads(out)["frames"])
    assert frames[0] == frames[1]
    assert len(set(frames)) > 1


def test_plain_arrays_become_files_of_centres(run):
    """As arrays of numpy and as safetensors; the file says whose features the graph gives."""
    array = np.random.default_rng(0).standard_normal((5, 12))
    np.save("centres.npy", array.astype(np.float32))
    np.savez("centres.npz", cluster_centers_=array)
    for name in ("centres.npy", "centres.npz"):
        code, _, err = run("units", "convert", "cepstra.yaml", name, "--out", "made.safetensors")
        assert code == 0, err
        assert "5 centres of 12 numbers; wrote made.safetensors" in err
        centres, metadata = read("made.safetensors")
        assert metadata["model"] == Mfcc(coefficients=4).identity
        np.testing.assert_array_equal(centres, array.astype(np.float32))
    code, out, _ = run("units", "convert", "cepstra.yaml", "made.safetensors", "--out", "again.safetensors", "--json")
    assert code == 0
    assert json.loads(out)["width"] == 12


class Trap:
    """What a pickle would run."""

    def __reduce__(self):
        return Path("sprung").touch, ()


def test_pickles_are_never_opened(run):
    """Neither by their names nor inside arrays; the way out is told."""
    for name in ("km500.bin", "km500.pkl"):
        Path(name).write_bytes(pickle.dumps(Trap()))
        code, _, err = run("units", "convert", "cepstra.yaml", name, "--out", "made.safetensors")
        assert code == 1
        assert f"joblib.load('{name}').cluster_centers_" in err
    np.save("objects.npy", np.array([Trap()], dtype=object), allow_pickle=True)
    Path("renamed.npy").write_bytes(pickle.dumps(Trap()))
    for name in ("objects.npy", "renamed.npy", "nothing.npy"):
        code, _, err = run("units", "convert", "cepstra.yaml", name, "--out", "made.safetensors")
        assert code == 1, err
    assert not Path("sprung").exists()
    assert not Path("made.safetensors").exists()


def test_an_array_of_another_width_is_refused(run):
    """The graph's features have twelve numbers."""
    np.save("wide.npy", np.ones((5, 39), np.float32))
    code, _, err = run("units", "convert", "cepstra.yaml", "wide.npy", "--out", "made.safetensors")
    assert code == 1
    assert "holds centres of 39 numbers, and features of the graph has 12" in err


def test_memory_stays_flat_while_features_are_gathered(tmp_path):
    """Four times as many frames take no more of it: they lie on the disk."""

    def most(chunks: int) -> int:
        with (tmp_path / "rows").open("w+b") as file:
            gathered = fitting.Gathered([file])
            tracemalloc.start()
            for _ in range(chunks):
                gathered.take(np.ones((2000, 64), np.float32))
            gathered.part(0)
            found = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        return found

    assert most(40) < 1.5 * most(10)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no disk that is always full")
def test_a_full_disk_is_told_and_stops(tmp_path):
    """Once, with a way out; it is no fault of the record that was heard last."""
    with Path("/dev/full").open("wb") as file:
        gathered = fitting.Gathered([file])
        with pytest.raises(InputError, match=r"features cannot be kept: No space left on device; --share 0\.1 takes a tenth"):
            gathered.take(np.ones((5000, 64), np.float32))
