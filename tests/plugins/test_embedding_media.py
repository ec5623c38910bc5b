"""Sounds, depth, heat and movement become what the towers take: by formulas, one value at a time."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

import modelgraft as mg
from modelgraft import Audio
from modelgraft.plugin import Depth, Imu, Thermal
from modelgraft.testing import conform, node_of, open_node
from modelgraft_plugins.embedding.preparing import Brightness, Disparity, Filterbank, Movement
from support.imagebind import made_up_depth, made_up_heat, made_up_walk
from support.sounds import tone

SOUND = {"mels": 16, "frames": 204}
SQUARE = {"side": 12}


class Told:
    """Hears what a run is warned of."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def emit(self, kind: str, **facts: Any) -> None:
        assert kind == "warning"
        self.texts.append(facts["text"])


def told_of(component: Any, config: dict, record: Any) -> tuple[torch.Tensor, list[str]]:
    """What a component makes of one record, and what it says about it."""
    trial, told = open_node(component, config), Told()
    trial.loaded.bind(told)
    (port,) = trial.node.out_ports
    return trial([record])[port][0], told.texts


@pytest.mark.parametrize(
    ("component", "config"),
    [
        (Filterbank, SOUND),
        (Filterbank, {**SOUND, "windows": None, "frames": 7}),
        (Disparity, SQUARE),
        (Brightness, SQUARE),
        (Brightness, {**SQUARE, "coldest_c": -10.0, "warmest_c": 50.0, "mean": 0.5, "std": 0.2}),
        (Movement, {"steps": 40}),
        (Movement, {"steps": 40, "window_s": 0.5}),
    ],
)
def test_they_keep_their_declarations(component: Any, config: dict):
    conform(component, config)


def slow_filterbank(samples: np.ndarray, mels: int) -> np.ndarray:
    """Kaldi's filter bank by its formulas, frame by frame, in float64: float64[frames mels]."""

    def mel(hertz: float) -> float:
        return 1127.0 * math.log(1 + hertz / 700)

    edges = np.linspace(mel(20.0), mel(8000.0), mels + 2)
    places = np.array([mel(index * 16_000 / 512) for index in range(257)])
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 399)
    rows = []
    for begin in range(0, len(samples) - 399, 160):
        frame = samples[begin : begin + 400].astype(np.float64)
        frame = frame - frame.mean()
        frame = np.array([value - 0.97 * frame[max(index - 1, 0)] for index, value in enumerate(frame)]) * hann
        power = np.abs(np.fft.rfft(frame, 512)) ** 2
        row = []
        for low, middle, high in zip(edges, edges[1:], edges[2:], strict=False):
            weights = np.clip(np.minimum((places - low) / (middle - low), (high - places) / (high - middle)), 0, None)
            row.append(math.log(max(float(weights @ power), np.finfo(np.float32).eps)))
        rows.append(row)
    return np.array(rows)


def test_three_clips_of_a_sound_are_spread_evenly():
    """Of five seconds those that begin at 0, 1.5 and 3 s: each without its mean, filled up with zeros among the logarithms."""
    sound = tone(5.0)
    noisy = Audio(sound.samples + np.random.default_rng(1).normal(0, 0.01, sound.samples.shape).astype(np.float32) + 0.1, 16_000)
    got, told = told_of(Filterbank, SOUND, noisy)
    assert (got.shape, told) == ((3, 1, 16, 204), [])
    for clip, begin in zip(got, (0, 24_000, 48_000), strict=True):
        bank = slow_filterbank(noisy.samples[0, begin : begin + 32_000], 16)
        assert bank.shape == (198, 16)
        whole = np.zeros((204, 16))
        whole[:198] = bank
        np.testing.assert_allclose(clip[0].numpy(), ((whole + 4.268) / 9.138).T, rtol=0, atol=5e-4)


def test_a_sound_that_is_shorter_than_a_clip_is_heard_thrice():
    got, told = told_of(Filterbank, SOUND, tone(0.5))
    assert torch.equal(got[0], got[2])
    assert told == ["the sound lasts 0.5 s and a clip 2 s: each clip is all of it"]
    assert got[0, 0, :, 48:].flatten().tolist() == pytest.approx(
        [4.268 / 9.138] * 16 * (204 - 48)
    )  # 48 frames, then zeros among logarithms


def test_what_is_changed_of_a_sound_is_said():
    """The first of two channels, another rate, silence."""
    stereo = tone(2.0, channels=2)
    got, told = told_of(Filterbank, SOUND, stereo)
    assert torch.equal(got, told_of(Filterbank, SOUND, Audio(stereo.samples[:1], 16_000))[0])
    assert told == ["of 2 channels the first is heard"]
    assert told_of(Filterbank, SOUND, tone(2.0, rate=44_100))[1] == ["the sound was resampled from 44100 Hz to 16000 Hz"]
    silent, told = told_of(Filterbank, SOUND, Audio(np.zeros((1, 32_000), np.float32), 16_000))
    assert told == ["the sound is silent: its vector says nothing"]
    assert torch.isfinite(silent).all()
    long, told = told_of(Filterbank, {**SOUND, "windows": None, "frames": 10}, tone(2.0))
    assert (long.shape, told) == ((1, 16, 10), ["the sound has 198 frames; the first 10 are heard, 0.115 s"])


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.zeros((1, 0), np.float32), "the sound is empty: it holds no samples"),
        (np.zeros((1, 399), np.float32), r"the sound lasts 24\.9 ms, and one frame looks at 25 ms: give a longer one"),
        (np.array([[0.0, np.nan] * 300], np.float32), "no finite numbers"),
    ],
)
def test_sounds_that_cannot_be_heard_are_told(samples: np.ndarray, message: str):
    with pytest.raises(mg.InputError, match=message):
        told_of(Filterbank, SOUND, Audio(samples, 16_000))


# -- depth and heat -----------------------------------------------------------------------------------------------------


def test_disparities_are_focal_length_times_baseline_by_distance():
    """Of a map at the very size: pixel by pixel; nearest and farthest count as such, and what was not measured is infinitely far."""
    metres = np.random.default_rng(2).uniform(0.005, 60.0, (12, 12)).astype(np.float32)
    metres[3, 4] = np.nan
    got, told = told_of(Disparity, {**SQUARE, "baseline_m": 0.095}, Depth(metres, 600.0))
    assert told == []
    for place in np.ndindex(12, 12):
        distance = min(max(float(metres[place]), 0.01), 50.0) if np.isfinite(metres[place]) else math.inf
        share = min(600.0 * 0.095 / distance, 75.0) / 75.0
        assert abs(float(got[0][place]) - (share - 0.0418) / 0.0295) < 2e-4, place


def test_a_depth_map_is_resized_by_its_shorter_side_and_its_middle_is_taken():
    """As Pillow resizes pictures of floats; a map without a focal length is told."""
    given = made_up_depth()
    got, told = told_of(Disparity, SQUARE, Depth(given.metres))
    assert told == ['the depth map states no focal length; 518.86 pixels are taken: {"focal_px": ...} beside its file says otherwise']
    share = (518.86 * 0.075 / np.where(np.isnan(given.metres), np.inf, given.metres).clip(0.01)).clip(0, 75) / 75
    small = np.asarray(Image.fromarray(share.astype(np.float32)).resize((16, 12), Image.Resampling.BILINEAR))
    np.testing.assert_allclose(got[0].numpy(), (small[:, 2:14] - 0.0418) / 0.0295, rtol=0, atol=1e-5)


def test_heat_is_grey_between_the_coldest_and_the_warmest():
    """Of the picture itself, or of limits that are given; brightness stays what it is, and black is what was not measured."""
    degrees = np.array([[10.0, 20.0], [np.nan, 35.0]], np.float32).repeat(6, 0).repeat(6, 1)
    own, told = told_of(Brightness, SQUARE, Thermal(degrees))
    given, _ = told_of(Brightness, {**SQUARE, "coldest_c": 0.0, "warmest_c": 40.0}, Thermal(degrees))
    bright, _ = told_of(Brightness, SQUARE, Thermal(degrees / 100, "relative"))
    assert told == []
    for got, wanted in ((own, (0.0, 0.4, 0.0, 1.0)), (given, (0.25, 0.5, 0.0, 0.875)), (bright, (0.1, 0.2, 0.0, 0.35))):
        corners = got[0, [0, 0, -1, -1], [0, -1, 0, -1]].tolist()
        assert corners == pytest.approx(wanted, abs=0.51 / 255)


def test_grey_of_eight_bits_is_prepared_as_a_picture_is():
    """The very numbers that torchvision's Resize, CenterCrop and ToTensor give of a grey picture."""
    grey = np.random.default_rng(3).integers(0, 256, (31, 47), dtype=np.uint8)
    got, _ = told_of(Brightness, SQUARE, Thermal((grey / 255).astype(np.float32), "relative"))
    small = np.asarray(Image.fromarray(grey).resize((int(12 * 47 / 31), 12), Image.Resampling.BICUBIC))
    left = round((small.shape[1] - 12) / 2)
    assert np.array_equal(got[0].numpy(), small[:, left : left + 12].astype(np.float32) / 255)


@pytest.mark.parametrize(
    ("component", "config", "record", "message"),
    [
        (Disparity, SQUARE, Depth(np.full((3, 4), np.nan, np.float32)), "nothing was measured anywhere in the depth map"),
        (Disparity, SQUARE, Depth(np.full((3, 4), 1500.0, np.float32), 500.0), r'1500 m, and 50 m is the farthest.*"unit": "mm"'),
        (Brightness, SQUARE, Thermal(np.full((3, 4), np.nan, np.float32)), "nothing was measured anywhere in the thermal picture"),
        (
            Brightness,
            {**SQUARE, "coldest_c": 0.0, "warmest_c": 50.0},
            Thermal(np.full((3, 4), 295.0, np.float32)),
            r'295 to 295 degrees, and 0 to 50 are told apart.*"unit": "kelvin"',
        ),
        (Disparity, {"side": 224}, Depth(np.ones((1, 20_000), np.float32), 500.0), "becomes 224 x 4480000 when its shorter side is 224"),
        (Brightness, {"side": 224}, Thermal(np.ones((20_000, 1), np.float32)), "becomes 224 x 4480000"),
    ],
)
def test_maps_that_cannot_be_prepared_are_told(component: Any, config: dict, record: Any, message: str):
    with pytest.raises(mg.InputError, match=message):
        told_of(component, config, record)


def test_maps_of_one_pixel_are_squares_of_one_value():
    heat, told = told_of(Brightness, SQUARE, Thermal(np.array([[30.0]], np.float32)))
    assert (heat.unique().tolist(), told) == ([0.0], ["the thermal picture has 30 degrees everywhere: it is black"])
    assert len(told_of(Disparity, SQUARE, Depth(np.array([[2.0]], np.float32), 500.0))[0].unique()) == 1
    assert told_of(Brightness, SQUARE, made_up_heat())[0].shape == (1, 12, 12)


# -- movement -----------------------------------------------------------------------------------------------------------


def test_a_signal_is_read_along_straight_lines_between_readings():
    """200 readings a second become 400 steps a second, in the order acceleration, rotation, found by their names."""
    walk = made_up_walk()
    got, told = told_of(Movement, {"steps": 2000}, walk)
    assert (got.shape, told) == ((6, 2000), [])
    order = [3, 4, 5, 0, 1, 2]
    for row, place in enumerate(order):
        readings = walk.samples[place]
        for step in (0, 1, 2, 777, 1994, 1999):
            at = min(step / 400 * 200, len(readings) - 1)
            low = min(int(at), len(readings) - 2)
            wanted = readings[low] + (at - low) * (readings[low + 1] - readings[low])
            assert abs(float(got[row, step]) - wanted) < 1e-5, (row, step)


def test_a_fast_sensor_is_averaged_over_each_step():
    """Of 1,000 readings a second in 10 steps a second: the mean below the straight lines, by a fine sum."""
    walk = made_up_walk(rate_hz=1000.0)
    got, _ = told_of(Movement, {"steps": 50}, walk)
    readings = walk.samples[[3, 4, 5, 0, 1, 2]].astype(np.float64)
    times = np.arange(readings.shape[1]) / 1000.0
    for step in (0, 7, 48):
        fine = np.linspace(step / 10, (step + 1) / 10, 20_001)
        for row in range(6):
            values = np.interp(fine, times, readings[row])
            wanted = float(((values[1:] + values[:-1]) / 2).mean())
            assert abs(float(got[row, step]) - wanted) < 1e-5, (row, step)


def test_units_parts_and_short_recordings():
    """g and degrees are brought to m/s^2 and rad/s; behind the end stand zeros; what is left out is said."""
    readings = np.ones((6, 300), np.float32)
    got, told = told_of(Movement, {"steps": 500, "acceleration": "g", "rotation": "deg/s"}, Imu(readings, 100.0))
    assert got[:, 0].tolist() == pytest.approx([9.80665] * 3 + [math.pi / 180] * 3)
    assert (got[:, 299:302] != 0).tolist() == [[True, False, False]] * 6
    assert told == ["the readings last 3 s of 5 s; behind them stand zeros"]
    part, told = told_of(
        Movement, {"steps": 10, "window_s": 1.0, "start_s": 0.5}, Imu(np.arange(1200, dtype=np.float32).reshape(6, 200) / 1000, 100.0)
    )
    assert part[0].tolist() == pytest.approx([0.055 + 0.01 * step for step in range(10)], abs=1e-6)
    assert told == ["of 2 s of readings 1 s are taken, from 0.5 s on"]


@pytest.mark.parametrize(
    ("config", "record", "message"),
    [
        ({}, Imu(np.ones((5, 9), np.float32), 100.0), "found 5 channels without names, wanted acc_x, acc_y, acc_z, gyro_x, gyro_y, gyro_z"),
        ({}, Imu(np.ones((3, 9), np.float32), 100.0, ("acc_x", "acc_y", "acc_z")), "there is no gyro_x, gyro_y, gyro_z"),
        (
            {},
            Imu(np.full((6, 9), 200.0, np.float32), 100.0),
            "rotations reach 200 rad/s, beyond 100: set rotation: deg/s where they are degrees",
        ),
        (
            {},
            Imu(np.full((6, 9), 16_384.0, np.float32), 100.0),
            r"accelerations reach 1\.638e\+04 m/s\^2, beyond 2,000: .*no counts of the sensor",
        ),
        ({"start_s": 2.0}, Imu(np.ones((6, 9), np.float32), 100.0), r"start_s is 2, and the readings last 0\.09 s"),
    ],
)
def test_readings_that_are_no_movement_are_told(config: dict, record: Imu, message: str):
    with pytest.raises(mg.InputError, match=message):
        told_of(Movement, {"steps": 8, **config}, record)


@pytest.mark.parametrize(
    "names",
    [
        ("acc_x", "acc_y", "acc_z", "gyro_x", "gyro_y", "gyro_z"),
        ("accel_x [m/s^2]", "accel_y [m/s^2]", "accel_z [m/s^2]", "gyr_x", "gyr_y", "gyr_z"),
        ("Acceleration X", "Acceleration Y", "Acceleration Z", "angular_velocity.x", "angular_velocity.y", "angular_velocity.z"),
        ("accelX", "accelY", "accelZ", "gyroX", "gyroY", "gyroZ"),
    ],
)
def test_channels_are_found_by_the_names_that_recordings_have(names: tuple[str, ...]):
    """In whatever order, with a compass among them."""
    order = [4, 0, 6, 2, 5, 1, 3]
    rows, named = np.arange(7, dtype=np.float32)[:, None].repeat(20, 1), (*names, "mag_x")
    got, _ = told_of(Movement, {"steps": 4, "window_s": 0.2}, Imu(rows[order], 100.0, tuple(named[index] for index in order)))
    assert got[:, 0].tolist() == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]


@pytest.mark.parametrize(
    ("component", "config", "message"),
    [
        (Filterbank, {"hop_ms": 0.01}, "less than a sample"),
        (Filterbank, {"mels": 4096, "frames": 1_000_000}, "more than 100,000,000 numbers"),
        (Disparity, {"nearest_m": 9.0, "farthest_m": 8.0}, "wanted the first below the second"),
        (Brightness, {"coldest_c": 1.0}, "stand together"),
        (Brightness, {"coldest_c": 9.0, "warmest_c": 8.0}, "wanted the first below the second"),
    ],
)
def test_settings_that_mean_nothing_are_refused(component: Any, config: dict, message: str):
    with pytest.raises(ValidationError, match=message):
        component(**config)


def test_what_is_prepared_in_another_way_is_told_apart():
    """The ports of another mean, limit or length state another space."""
    spaces = {
        Filterbank: ("features", {"mean": 0.0}, "mean"),
        Disparity: ("map", {"most_px": 50.0}, "most_px"),
        Brightness: ("map", {"mean": 0.5, "std": 0.5}, "mean"),
        Movement: ("signal", {"window_s": 2.0}, "window_s"),
    }
    for component, (name, config, fact) in spaces.items():
        one, other = (node_of(component, given).out_ports[name].space for given in ({}, config))
        assert one is not None and other is not None  # noqa: PT018 both are stated
        assert fact in [found for found, _, _ in one.differences(other)]
