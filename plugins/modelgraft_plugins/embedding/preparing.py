"""How sounds, depth, heat and movement are made ready for towers: what can be set, and the space of what comes out.

ImageBind publishes how it listens; how it reads depth, heat and movement it does not. What is done here for those three, and where
it comes from, stands at each component.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, PositiveFloat, model_validator

from modelgraft import Config, Dim, Ports, Space, component, port

ROWS = ("acc_x", "acc_y", "acc_z", "gyro_x", "gyro_y", "gyro_z")  # of a signal of movement: m/s^2, then rad/s
MOST_VALUES = 100_000_000  # of one record that is prepared: as many as a picture may have


def sound_space(*, sample_rate_hz: int, mean: float, std: float) -> Space:
    """The space of Kaldi's filter bank, normalised."""
    return Space.of("kaldi-mel", sample_rate_hz=sample_rate_hz, mean=mean, std=std)


def depth_space(*, most_px: float, mean: float, std: float) -> Space:
    """The space of disparities, as a share of the most that count, normalised."""
    return Space.of("disparity", most_px=most_px, mean=mean, std=std)


def thermal_space(*, mean: float | None, std: float | None) -> Space:
    """The space of brightness in 0..1, normalised where there are a mean and a std."""
    return Space.of("brightness", mean=0.0 if mean is None else mean, std=1.0 if std is None else std)


def movement_space(*, window_s: float) -> Space:
    """The space of movement in the rows above."""
    return Space.of("movement", rows=ROWS, window_s=window_s)


@component("audio/filterbank", kind="preprocess", load="modelgraft_plugins.embedding.sounds:load", cache=False)
class Filterbank(Config):
    """Turn sounds into the logarithms of Kaldi's filter bank, of clips that are spread evenly over the sound.

    windows  clips of `window_s` seconds: the first begins with the sound, the last ends with it; None: all of the sound as one
    frames   of each clip: behind its last one stand zeros, among the logarithms, before mean and std; what is longer is cut
    Frames of 25 ms every 10 ms, each without its own offset, a Hann window, preemphasis 0.97, no dither, from 20 Hz on.
    Of several channels the first is heard, and other rates are resampled: both are said. Source: data.py of ImageBind, as of AST.
    """

    sample_rate_hz: int = Field(16_000, gt=0, le=1_000_000, description="rate that the encoder was trained at; other sounds are resampled")
    mels: Dim = Field(None, gt=0, le=4096, description="frequency bands; None: as what reads them wants it, 128 for ImageBind")
    frames: Dim = Field(None, gt=0, le=1_000_000, description="places in time of each clip; None: the same, 204 for ImageBind")
    frame_ms: float = Field(25.0, gt=0, description="length of what one frame looks at")
    hop_ms: float = Field(10.0, gt=0, description="from one frame to the next")
    windows: int | None = Field(3, gt=0, description="clips, an axis `clips`; None: one, and no such axis")
    window_s: float = Field(2.0, gt=0, description="seconds of a clip")
    mean: float = Field(-4.268, description="taken from the logarithms")
    std: PositiveFloat = Field(9.138, description="what they are divided by then")

    @model_validator(mode="after")
    def _can_be(self) -> Self:
        if (self.windows or 1) * (self.mels or 1) * (self.frames or 1) > MOST_VALUES:
            raise ValueError(f"{self.windows or 1} clips of {self.mels} x {self.frames} are more than {MOST_VALUES:,} numbers")
        if self.hop < 1 or self.window < 2:
            raise ValueError(f"frame_ms {self.frame_ms:g} and hop_ms {self.hop_ms:g} are less than a sample at {self.sample_rate_hz:,} Hz")
        return self

    @property
    def window(self) -> int:
        """Samples that one frame looks at."""
        return int(self.frame_ms * self.sample_rate_hz / 1000)

    @property
    def hop(self) -> int:
        """Samples from one frame to the next."""
        return int(self.hop_ms * self.sample_rate_hz / 1000)

    @property
    def clips(self) -> int | None:
        """Clips of each sound; None: one, without an axis of its own."""
        return self.windows

    def ports(self) -> Ports:
        """A sound in; a spectrogram, or one of each clip, seen as a picture of one channel, out."""
        axes = "batch" if self.windows is None else "batch clips"
        space = sound_space(sample_rate_hz=self.sample_rate_hz, mean=self.mean, std=self.std)
        return Ports.of({"audio": "audio"}, {"features": port(f"float[{axes} 1 mels frames]", space=space)})


class Square(Config):
    """A map of measures, brought to a square: its shorter side is resized, and the middle is taken."""

    side: Dim = Field(None, gt=0, le=10_000, description="of the square, in pixels; None: as what reads it wants it")


@component("depth/preprocess", kind="preprocess", load="modelgraft_plugins.embedding.maps:load_depth", cache=False)
class Disparity(Square):
    """Turn distances in metres into disparities, what a pair of cameras would see, resized and normalised.

    disparity  focal length x baseline / distance, in pixels; what is nearer than `nearest_m` counts as that, and so does `farthest_m`;
               cut at `most_px` and divided by it; then (x - mean) / std. Where nothing was measured it is 0: infinitely far
    focal_px   for depth maps that state none, which is said then: 518.86 is that of a first Kinect at 640 x 480
    ImageBind leaves its preparation unpublished. This is that of Omnivore, by the same authors with the same data, mean and std
    (issue 12 of its repository, `DepthNorm(max_depth=75)` of its configs). Others differ: 0.095 m is the baseline of RealSense and Xtion,
    and some cut distances at 8 m.
    """

    focal_px: float = Field(518.86, gt=0, description="focal length in pixels, of maps that state none")
    baseline_m: float = Field(0.075, gt=0, description="distance between the two cameras: Kinect")
    nearest_m: float = Field(0.01, gt=0)
    farthest_m: float = Field(50.0, gt=0)
    most_px: float = Field(75.0, gt=0, description="the largest disparity that counts, which becomes 1")
    mean: float = 0.0418
    std: PositiveFloat = 0.0295

    @model_validator(mode="after")
    def _can_be(self) -> Self:
        if self.nearest_m >= self.farthest_m:
            raise ValueError(f"nearest_m is {self.nearest_m:g} and farthest_m {self.farthest_m:g}, wanted the first below the second")
        return self

    def ports(self) -> Ports:
        """A depth map in, a disparity map out."""
        space = depth_space(most_px=self.most_px, mean=self.mean, std=self.std)
        return Ports.of({"depth": "depth"}, {"map": port("float[batch 1 side side]", space=space)})


@component("thermal/preprocess", kind="preprocess", load="modelgraft_plugins.embedding.maps:load_thermal", cache=False)
class Brightness(Square):
    """Turn heat into grey, dark for cold and bright for warm, in 256 steps, resized as a picture is.

    coldest_c, warmest_c  the degrees that are black and white; None: the coldest and the warmest of the picture itself, as cameras show it
    mean, std             of the grey in 0..1; None: it stays as it is
    What is brightness already is taken as it is. What was not measured is black. ImageBind leaves its preparation unpublished; with grey
    in 0..1 and no mean and std its published accuracy comes out (pull request 73 of its repository).
    """

    coldest_c: float | None = Field(None, ge=-273.15, description="degrees Celsius that are black")
    warmest_c: float | None = Field(None, gt=-273.15, description="degrees Celsius that are white")
    mean: float | None = None
    std: PositiveFloat | None = None

    @model_validator(mode="after")
    def _can_be(self) -> Self:
        if (self.coldest_c is None) != (self.warmest_c is None) or (self.mean is None) != (self.std is None):
            raise ValueError("coldest_c and warmest_c stand together, and so do mean and std")
        if self.coldest_c is not None and self.warmest_c is not None and self.coldest_c >= self.warmest_c:
            raise ValueError(f"coldest_c is {self.coldest_c:g} and warmest_c {self.warmest_c:g}, wanted the first below the second")
        return self

    def ports(self) -> Ports:
        """A thermal picture in, grey out."""
        space = thermal_space(mean=self.mean, std=self.std)
        return Ports.of({"thermal": "thermal"}, {"map": port("float[batch 1 side side]", space=space)})


@component("imu/preprocess", kind="preprocess", load="modelgraft_plugins.embedding.movement:load", cache=False)
class Movement(Config):
    """Turn readings of movement into a signal of six rows: acceleration along x, y, z in m/s^2, rotation about x, y, z in rad/s.

    The part from `start_s` on for `window_s` seconds becomes `steps` steps: in between readings it is a straight line, and of a sensor that
    is faster each step is the mean of its readings. Behind a recording that is shorter stand zeros, and that is said.
    acceleration, rotation  the units that the readings have
    Channels that are named are found by their names (acc_x, accel_x, gyro_x, gyr_x and the like); without names there must be six of them,
    in the order above. ImageBind says no more than six rows, 5 s and 2,000 steps: order and units are the choice made here.
    """

    steps: Dim = Field(None, gt=0, le=1_000_000, description="of the signal; None: as what reads it wants it, 2,000 for ImageBind")
    window_s: float = Field(5.0, gt=0)
    start_s: float = Field(0.0, ge=0)
    acceleration: Literal["m/s2", "g"] = "m/s2"
    rotation: Literal["rad/s", "deg/s"] = "rad/s"

    @property
    def rows(self) -> int:
        """Rows of the signal."""
        return len(ROWS)

    def ports(self) -> Ports:
        """Readings in, a signal out."""
        return Ports.of({"imu": "imu"}, {"signal": port("float[batch rows steps]", space=movement_space(window_s=self.window_s))})


# what the towers of ImageBind were trained on, or by the choices above
PUBLISHED = {
    "audio": sound_space(sample_rate_hz=16_000, mean=-4.268, std=9.138),
    "depth": depth_space(most_px=75.0, mean=0.0418, std=0.0295),
    "thermal": thermal_space(mean=None, std=None),
    "imu": movement_space(window_s=5.0),
}
