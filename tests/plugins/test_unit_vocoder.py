"""The vocoder of units: how far it looks, pieces as they come, what it refuses, and the same in ONNX Runtime."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch

import modelgraft as mg
from modelgraft import InputError
from modelgraft.engine.events import Token
from modelgraft.installed.discovery import discover
from modelgraft.testing import conform, open_node, run_node
from modelgraft_plugins.vocoder.following import Follower
from modelgraft_plugins.vocoder.reach import Reach
from modelgraft_plugins.vocoder.units import Durations, UnitHifiGan
from support.open_part import configured

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning")
REGISTRY = discover(only=("vocoder", "torch"))
SMALL: dict[str, Any] = {
    "units": 11, "width": 6, "hidden": 5, "channels": 8, "rates": (3, 2), "kernels": (8, 4), "block_kernels": (3, 5),
    "block_dilations": ((1, 3), (2, 1)),
}  # fmt: skip
UNITS = torch.tensor([[3, 7, 0, 10, 2], [1, 5, 9, -1, -1]])


def test_components_keep_their_declaration():
    """Ports, batch, state, counts."""
    sizes = {name: SMALL[name] for name in ("units", "width", "hidden")}
    conform(Durations, sizes, units=UNITS)
    conform(UnitHifiGan, {**SMALL, "durations": "one"}, units=UNITS.clamp(min=0))
    lasting = torch.tensor([[1, 2, 3, 1, 2], [2, 2, 2, 2, 1]])
    conform(UnitHifiGan, {**SMALL, "durations": "given"}, units=UNITS.clamp(min=0), durations=lasting)


def test_the_published_sizes_have_the_published_counts():
    """A generator of 13,247,809, a table of 128,000 and a predictor of 99,201 parameters."""
    config = configured(REGISTRY, "vocoder/unit_hifigan", "preset:unit-hifigan-mhubert-l11-km1000").config
    assert config == UnitHifiGan(layer=11)
    assert config.count == (128_000, 99_201)
    assert config.parameters() == 13_247_809 + 128_000 + 99_201
    assert config.model_copy(update={"durations": "given"}).parameters() == 13_247_809 + 128_000


@pytest.mark.parametrize(
    ("rates", "kernels"), [((3, 2), (8, 4)), ((5, 4), (11, 8)), ((2,), (2,)), ((3,), (10,))], ids=lambda sizes: "-".join(map(str, sizes))
)
def test_a_stretch_of_sound_depends_on_the_frames_within_its_reach_and_no_others(rates: tuple[int, ...], kernels: tuple[int, ...]):
    """By its gradient: no frame is computed in vain, and none is left out."""
    config = {**SMALL, "rates": rates, "kernels": kernels, "durations": "one"}
    reach = Reach(rates, kernels, SMALL["block_kernels"], SMALL["block_dilations"])
    generator, middle = open_node(UnitHifiGan, config).loaded.state.generator.double(), 60
    for parameter in generator.parameters():
        torch.nn.init.constant_(parameter, 0.1 / parameter[0].numel())  # nothing cancels out, and tanh bends little
    frames = torch.rand(1, 2 * middle + 1, SMALL["width"], dtype=torch.float64, requires_grad=True)
    wave = generator(frames)
    assert wave.shape == (1, frames.shape[1] * reach.hop + reach.beyond)
    wave[0, middle * reach.hop : (middle + 1) * reach.hop].sum().backward()
    told = frames.grad[0].abs().sum(-1).nonzero()[:, 0]
    assert (int(told.min()), int(told.max())) == (middle - reach.before, middle + reach.behind)


@pytest.mark.parametrize("chunk_s", [0.001, 0.004, 0.02, 10.0])
def test_pieces_are_told_as_they_come_and_joined_are_the_sound(tmp_path: Path, chunk_s: float):
    """Each as soon as it is made, before the node is done; what `run` gives is the same to the last bit, and the whole at once is near."""
    units = torch.cat([torch.randint(0, 11, (2, 40), generator=torch.Generator().manual_seed(1)), UNITS], 1)
    with mg.open(graph(tmp_path, chunk_s=chunk_s), init="random", seed=4) as pipeline:
        events = list(pipeline.stream(units=units))
        whole = events[-1].result["audio"]
    pieces: dict[int, list[Any]] = {0: [], 1: []}
    for event in events:
        if event.kind == "piece":
            assert (event.node, event.port) == ("voice", "audio")
            pieces[event.record].append(event.value)
    for record, sound in enumerate(whole):
        assert numpy.array_equal(numpy.concatenate([piece.samples for piece in pieces[record]], 1), sound.samples)
        assert {piece.sample_rate_hz for piece in pieces[record]} == {16_000}
    kinds = [event.kind for event in events]
    assert kinds.index("piece") < len(kinds) - 1 - kinds[::-1].index("node-finished")
    assert len(pieces[0]) > 1 or chunk_s > 1
    with mg.open(graph(tmp_path, chunk_s=0), init="random", seed=4) as pipeline:
        at_once = pipeline.run(units=units)["audio"]
    for one, other in zip(whole, at_once, strict=True):
        assert numpy.abs(one.samples - other.samples).max() <= 1e-6


def test_a_record_sounds_in_a_batch_as_alone():
    """Shorter ones are not filled up before they are spoken, and units below 0 are none wherever they stand."""
    trial = open_node(UnitHifiGan, SMALL, seed=2)
    both, alone = trial(UNITS), trial(UNITS[1:, :3])
    assert numpy.array_equal(both["audio"][1].samples, alone["audio"][0].samples)
    assert torch.equal(both["durations"][1], torch.cat([alone["durations"][0], torch.zeros(2, dtype=torch.int64)]))
    gaps = trial(torch.tensor([[1, -1, 5, -1, 9]]))
    assert numpy.array_equal(gaps["audio"][0].samples, alone["audio"][0].samples)
    assert gaps["durations"][0, [1, 3]].tolist() == [0, 0]


def graph(folder: Path, **config: Any) -> Path:
    """A voice of small sizes."""
    path = folder / "voice.yaml"
    node = {"use": "vocoder/unit_hifigan", "with": {**SMALL, **config}, "in": {"units": "inputs.units"}}
    text = {"modelgraft": 1, "inputs": {"units": "int64[batch runs]"}, "nodes": {"voice": node}, "outputs": {"audio": "voice.audio"}}
    path.write_text(json.dumps(text))
    return path


def test_words_are_heard_whatever_pieces_they_come_in():
    """Units between their marks alone; what is no whole word waits for the rest; what cannot be spoken is left to the node that says so."""
    told: list[tuple[int, int]] = []
    trial = open_node(UnitHifiGan, {**SMALL, "follows": "llm", "chunk_s": 0.001}, seed=2)
    loop = trial.loaded.loop
    follower = Follower("llm", SMALL["units"], voice=loop._voice, tell=lambda piece, record: told.append((record, len(piece))))
    units = torch.randint(0, 11, (1, 30), generator=torch.Generator().manual_seed(1))[0].tolist()
    text = "it is <5>; [ua] <sosp>" + " ".join(f"<{unit}>" for unit in units) + "<eosp> <7>"
    for record, step in enumerate((1, 3, 1000)):
        for start in range(0, len(text), step):
            follower.hear(Token(node="llm", run="a", text=text[start : start + step], record=record))
            follower.hear(Token(node="other", run="a", text="<sosp><1><2>", record=record))
        assert follower.spoken(("a", record), [*units[:4], 0, 0]) is None
        follower.hear(Token(node="llm", run="b", text=text, record=record))
        heard = follower.spoken(("b", record), units)
        assert heard is not None
        assert heard.units == units
    whole = trial(torch.tensor([units]))["audio"][0].samples
    with torch.inference_mode():
        assert numpy.array_equal(torch.cat([*heard.pieces, *heard.voice.finish()]).numpy()[None], whole)
    assert len({record for record, _ in told}) == 3
    follower.hear(Token(node="llm", run="c", text="<sosp><1><11><2>", record=0))
    assert follower.spoken(("c", 0), [1, 11, 2]) is None


# -- what is refused ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("units", "told"),
    [
        (
            [[3, 11]],
            r"node: unit 11 \(number 2 of record 0\) is beyond the 11 that the vocoder has, 0 to 10: take units of the same centres",
        ),
        ([[3, -7, 1]], r"node: unit -7 \(number 2 of record 0\) is none: units are 0 to 10, and -1 stands where there is none"),
        ([[3, 1], [-1, -1]], r"node: record 1 has no units, so that there is nothing to say; leave it out with a route \(`when:`\)"),
    ],
)
def test_units_that_it_does_not_have_are_refused(units: list[list[int]], told: str):
    with pytest.raises(InputError, match=told):
        run_node(UnitHifiGan, SMALL, units=torch.tensor(units))


@pytest.mark.parametrize(
    ("lasting", "told"),
    [
        ([[1, 2, 3]], r"`units` are int64\[1, 2\] and `durations` int64\[1, 3\]; wanted: a number of frames for each unit"),
        ([[1, 0]], r"unit 2 of record 0 is to last 0 frames, wanted at least 1; a unit that is not spoken is -1"),
    ],
)
def test_durations_that_do_not_fit_are_refused(lasting: list[list[int]], told: str):
    with pytest.raises(InputError, match=told):
        run_node(UnitHifiGan, {**SMALL, "durations": "given"}, units=torch.tensor([[3, 1]]), durations=torch.tensor(lasting))


STATED: dict[str, Any] = {
    "upsample_rates": [3, 2], "upsample_kernel_sizes": [8, 4], "upsample_initial_channel": 8, "resblock_kernel_sizes": [3, 5],
    "resblock_dilation_sizes": [[1, 3, 5], [1, 2, 4]], "num_embeddings": 11, "embedding_dim": 6, "model_in_dim": 6,
    "dur_predictor_params": {"encoder_embed_dim": 6, "var_pred_hidden_dim": 5, "var_pred_kernel_size": 3, "var_pred_dropout": 0.5},
}  # fmt: skip
ALIKE = dict(STATED["dur_predictor_params"])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"model_type": "bert"}, "is no vocoder of units: its config.json has model_type 'bert'"),
        ({"num_embeddings": None}, "its config.json has no upsample_rates and num_embeddings"),
        ({"multispkr": "from_input_file"}, "states multispkr: 'from_input_file', and voices, pitch and further inputs are not served"),
        ({"f0": True}, "states f0: True"),
        ({"model_in_dim": 80}, "has vectors of 6 numbers, a HiFi-GAN that takes 80, and a predictor that takes 6"),
        ({"dur_predictor_params": {**ALIKE, "var_pred_kernel_size": 5}}, "only 3 gives a number for each unit"),
        ({"dur_predictor_params": {**ALIKE, "colour": 5}}, "has colour, which is not known"),
        ({"resblock_kernel_sizes": [3, 4]}, "block_kernels has 4: a residual block with an even kernel"),
        ({"upsample_kernel_sizes": [8]}, "there are 2 rates and 1 kernels"),
        ({"upsample_kernel_sizes": [2, 4]}, "kernels must be at least as wide as their rates: found 2 at 3"),
        ({"upsample_initial_channel": 6}, "channels is 6, which cannot be halved 2 times"),
    ],
)
def test_a_config_of_something_else_is_refused(tmp_path: Path, change: dict[str, Any], told: str):
    """Each in its own words."""
    stated = {key: value for key, value in {**STATED, **change}.items() if value is not None}
    (tmp_path / "config.json").write_text(json.dumps(stated))
    with pytest.raises(ValueError, match=told):
        configured(REGISTRY, "vocoder/unit_hifigan", str(tmp_path))


def test_what_a_config_states_and_is_not_known_is_told(tmp_path: Path):
    """Keys of a training are not; nor is a layer, where it is said."""
    (tmp_path / "config.json").write_text(json.dumps({**STATED, "adam_b1": 0.8, "loudness": 2, "layer": 11}))
    node = configured(REGISTRY, "vocoder/unit_hifigan", str(tmp_path))
    told = UnitHifiGan.unheeded(node.source)
    assert [sentence for sentence, *_ in told] == [
        f"the config.json of {tmp_path} states loudness: 2, which is not known here, so that answers may differ"
    ]
    (tmp_path / "config.json").write_text(json.dumps(STATED))
    told = UnitHifiGan.unheeded(configured(REGISTRY, "vocoder/unit_hifigan", str(tmp_path)).source)
    assert [sentence.partition(" does not say ")[2] for sentence, *_ in told] == [
        "of which layer's features its units are clusters: those of any are taken"
    ]


def test_a_predictor_that_the_source_does_not_have_is_missed_while_the_graph_is_checked(tmp_path: Path):
    """A folder without one speaks one frame for each unit, unless the graph says otherwise."""
    (tmp_path / "config.json").write_text(json.dumps({key: value for key, value in STATED.items() if key != "dur_predictor_params"}))
    assert configured(REGISTRY, "vocoder/unit_hifigan", str(tmp_path)).config.durations == "one"
    with pytest.raises(mg.GraphError, match=r"is to predict durations, and .* has no predictor"):
        mg.check(mg.load("speechgpt/vocoder", params={"vocoder": str(tmp_path)}))


@pytest.mark.slow
def test_on_onnx_it_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Table, predictor and HiFi-GAN are sessions, the loop stays: predicted durations are equal, samples near, in pieces too."""
    monkeypatch.setenv("MODELGRAFT_CACHE", str(tmp_path / "cache"))
    found = []
    for backend in ("torch", "onnx"):
        with mg.open(graph(tmp_path, chunk_s=0.004), init="random", seed=4, backend=backend) as pipeline:
            found.append(pipeline.run(units=UNITS)["audio"])
    for one, other in zip(*found, strict=True):
        assert one.samples.shape == other.samples.shape
        assert numpy.abs(one.samples - other.samples).max() <= 1e-5
