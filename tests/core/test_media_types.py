"""Videos, depth maps, thermal pictures, movement, masks and vectors: read, refused, written."""

from __future__ import annotations

import io
import struct
import sys
import wave
from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image

import modelgraft as mg
from modelgraft import InputError, port
from modelgraft.engine.disk import DiskCache
from modelgraft.records import arrays, frames
from modelgraft.records.digests import digest
from modelgraft.records.owning import own
from modelgraft.records.shipped import SHIPPED
from modelgraft.records.showing import brief, plain, sight
from modelgraft.records.values import read_input
from modelgraft.records.writing import write_value
from modelgraft.testing import same

RECORDS = ("video", "depth", "thermal", "imu", "mask", "embedding", "audio")


def given(kind, value):
    return read_input("x", port(kind), value)


def record(kind, value):
    return given(kind, value).value[0]


def written(value, path):
    said = []
    write_value(value, path, say=said.append)
    return said


# -- every medium -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", RECORDS)
@pytest.mark.parametrize("index", [0, 1])
def test_a_record_is_read_as_it_is_and_copied(kind, index):
    """What the user holds is not what the graph works on."""
    one = SHIPPED[kind].example(index)
    found = record(kind, one)
    assert same(found, one)
    held = [part for part in one.parts().values() if isinstance(part, numpy.ndarray)]
    mine = [part for part in found.parts().values() if isinstance(part, numpy.ndarray)]
    assert held
    assert not any(numpy.shares_memory(a, b) for a, b in zip(held, mine, strict=True))
    assert SHIPPED[kind].accepts(found)
    assert not SHIPPED[kind].accepts("missing.file")


@pytest.mark.parametrize("kind", [kind for kind in SHIPPED if kind != "object"])
def test_a_record_is_none_of_another_medium(kind):
    """Save that a label is a text, and that what is in a list is not looked at."""
    one = SHIPPED[kind].example(0)
    takers = {name for name, other in SHIPPED.items() if other.accepts(one)}
    alike = {
        "text": {"text", "label"},
        "label": {"text", "label"},
        "boxes": {"boxes", "conversation"},
        "conversation": {"boxes", "conversation"},
    }
    assert takers == {"object"} | alike.get(kind, {kind})


@pytest.mark.parametrize("kind", SHIPPED)
def test_examples_differ_and_stay_the_same(kind):
    """For conform: twice the same, and 0 unlike 1."""
    zero, one = (digest(SHIPPED[kind].example(index)) for index in (0, 1))
    assert zero is not None
    assert zero != one
    assert zero == digest(SHIPPED[kind].example(0))


@pytest.mark.parametrize("kind", RECORDS)
def test_a_record_is_digested_kept_and_told(kind, tmp_path):
    """By its fields; each field counts; from the disk it comes back whole."""
    one = SHIPPED[kind].example(0)
    assert digest(own(one)) == digest(one)
    cache = DiskCache(tmp_path, limit_bytes=2**20)
    cache.write("abc", {"x": [one]})
    (found,) = cache.read("abc")["x"]
    assert type(found) is type(one)
    assert same(found, one)
    assert plain(one)["type"] == kind
    assert brief(one)
    assert sight(one).said


@pytest.mark.parametrize(("kind", "suffix"), [(kind, suffix) for kind in RECORDS for suffix in SHIPPED[kind].writes])
@pytest.mark.parametrize("index", [0, 1])
def test_what_is_written_is_read_again(kind, suffix, index, tmp_path):
    """Whole, within what the file can hold; what it cannot is said."""
    one, path = SHIPPED[kind].example(index), tmp_path / f"a{suffix}"
    said = written(one, path)
    beside = {"rate_hz": one.rate_hz} if (kind, suffix) == ("imu", ".npy") else {}
    found = record(kind, {"file": str(path), **beside} if beside else str(path))
    close = {
        ("depth", ".png"): 5e-4,  # half a millimetre
        ("thermal", ".png"): 5.1e-3,  # half of a hundredth of a degree
        ("audio", ".wav"): 2 / 32767,
        ("video", ".mp4"): 255,  # noise is not what films are made for; test_a_part_of_a_video looks at shades
        ("video", ".gif"): 1,
    }
    for (name, part), other in zip(one.parts().items(), found.parts().values(), strict=True):
        if isinstance(part, numpy.ndarray) and name != "times_s":
            assert part.shape == other.shape
            assert part.dtype == other.dtype
            assert numpy.abs(part.astype(float) - other.astype(float)).max() <= close.get((kind, suffix), 0), name
    assert bool(said) == ((kind, suffix) in {("video", ".gif"), ("imu", ".npy")})


@pytest.mark.parametrize("kind", RECORDS)
def test_a_file_of_another_ending_is_refused(kind, tmp_path):
    """Before anything is written."""
    with pytest.raises(InputError, match=r"goes into a file that ends in \."):
        write_value(SHIPPED[kind].example(0), tmp_path / "a.pdf")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", [kind for kind in RECORDS if kind != "audio"])
@pytest.mark.parametrize(
    "value", ["missing.file", "mising.npy", "a\0b", "https://example.org/a.npy", 3, None, object(), b"", b"\x00" * 64, b"\x93NUMPY"]
)
def test_what_is_no_such_medium_is_one_sentence(kind, value, tmp_path, monkeypatch):
    """Whatever it is: the input, what was found and what was wanted; the name of a file is not handed on as a record."""
    monkeypatch.chdir(tmp_path)
    Path("missing.npy").touch()
    with pytest.raises(InputError, match=r"^input 'x'") as caught:
        given(kind, value)
    assert "\n" not in str(caught.value)
    if value == "mising.npy":
        assert "Did you mean 'missing.npy'?" in str(caught.value)


@pytest.mark.parametrize("kind", [kind for kind in RECORDS if kind != "audio"])
def test_no_cut_file_passes(kind, tmp_path):
    """Whatever its ending and wherever it is cut: it is refused, or so little is missing that nothing is lost."""
    for suffix in SHIPPED[kind].writes:
        path = tmp_path / f"a{suffix}"
        written(SHIPPED[kind].example(0), path)
        content = path.read_bytes()
        beside = {"rate_hz": 100} if (kind, suffix) == ("imu", ".npy") else {}
        if suffix == ".csv":
            continue  # a row that is cut is one that is not there, but for its last number
        whole = record(kind, {"file": str(path), **beside} if beside else str(path))
        for share in (0.1, 0.5, 0.9):
            path.write_bytes(content[: int(len(content) * share)])
            found = or_refused(kind, {"file": str(path), **beside} if beside else str(path))
            assert found.startswith("input 'x': ") if isinstance(found, str) else share == 0.9 and same(found, whole)


def or_refused(kind, value):
    try:
        return record(kind, value)
    except InputError as error:
        return str(error)


# -- video --------------------------------------------------------------------------------------------------------------


def film_of(count):
    return numpy.zeros((count, 4, 5, 3), numpy.uint8)


def film(**changes):
    """Seven frames, each of one shade."""
    shades = numpy.arange(7, dtype=numpy.uint8) * 30
    return mg.Video(numpy.broadcast_to(shades[:, None, None, None], (7, 18, 24, 3)).copy(), **{"rate_hz": 10.0, **changes})


def shades_of(video):
    return [round(float(frame.mean()) / 30) for frame in video.frames]


@pytest.mark.parametrize("suffix", [".mp4", ".gif", ".webp"])
def test_a_part_of_a_video(suffix, tmp_path):
    """By its times, and evenly thinned."""
    path = str(tmp_path / f"a{suffix}")
    written(film(), Path(path))
    assert shades_of(record("video", path)) == list(range(7))
    part = record("video", {"file": path, "start_s": 0.2, "end_s": 0.5})
    assert shades_of(part) == [2, 3, 4]
    assert part.times_s == pytest.approx([0.2, 0.3, 0.4])
    few = record("video", {"file": path, "most_frames": 3})
    assert shades_of(few) == [0, 3, 6]
    assert few.times_s == pytest.approx([0.0, 0.3, 0.6])
    assert few.seconds == pytest.approx(0.7)


def test_frames_keep_their_own_times(tmp_path):
    """Of an animation whose frames last unlike."""
    pictures = [Image.new("RGB", (4, 3), (shade, 0, 0)) for shade in (0, 100, 200)]
    pictures[0].save(tmp_path / "a.gif", save_all=True, append_images=pictures[1:], duration=[100, 300, 50])
    found = record("video", str(tmp_path / "a.gif"))
    assert found.times_s == pytest.approx([0.0, 0.1, 0.4])
    assert [int(frame[0, 0, 0]) for frame in found.frames] == [0, 100, 200]


def test_pictures_are_a_video(tmp_path, monkeypatch):
    """A list, a folder in the order of its numbers, an array; a rate that nobody gave is told."""
    monkeypatch.chdir(tmp_path)
    pictures = [Image.fromarray(frame) for frame in film().frames]
    Path("frames").mkdir()
    for index, picture in enumerate(pictures):
        picture.save(f"frames/{index + 5}.png")  # 5 6 ... 9 10 11
    for value in (pictures, tuple(pictures), "frames", Path("frames"), film().frames, [f"frames/{index}.png" for index in range(5, 12)]):
        found = given("video", value)
        assert shades_of(found.value[0]) == list(range(7))
        assert (found.count, found.value[0].rate_hz) == (1, 25.0)
        assert "its pictures state no times; they are taken as 25 a second" in found.said[0]
    timed = given("video", {"frames": pictures, "rate_hz": 5})
    assert (timed.value[0].rate_hz, timed.said) == (5.0, ())
    assert record("video", (film().frames, 4)).rate_hz == 4.0


def test_a_list_of_videos_is_a_batch(tmp_path):
    """Of files, of records, and of lists of pictures."""
    written(film(), tmp_path / "a.gif")
    assert given("video", [str(tmp_path / "a.gif")] * 2).count == 2
    assert given("video", [film(), film()]).count == 2
    assert given("video", [[Image.new("RGB", (3, 2))], [Image.new("RGB", (3, 2))] * 2]).count == 2


def test_a_long_video_is_thinned_and_that_is_said(tmp_path, monkeypatch):
    """Evenly, so that all of it is seen in what the memory holds."""
    shades = numpy.arange(40, dtype=numpy.uint8) * 6
    long = mg.Video(numpy.broadcast_to(shades[:, None, None, None], (40, 18, 24, 3)).copy(), 10.0)
    written(long, tmp_path / "a.webp")
    monkeypatch.setattr(frames, "VIDEO_BYTES", 12 * 18 * 24 * 3)
    found = given("video", str(tmp_path / "a.webp"))
    video = found.value[0]
    assert len(video.frames) <= 12
    assert numpy.diff(video.times_s) == pytest.approx([video.times_s[1]] * (len(video.frames) - 1))
    assert video.times_s[-1] > 3.5
    assert video.seconds == pytest.approx(4.0, abs=0.5)
    assert "of 40 frames 10 are seen, evenly spread" in found.said[0]


def test_bounds_of_videos(tmp_path, monkeypatch):
    """Too long, too large, of unlike sizes, of no frames."""
    written(film(), tmp_path / "a.gif")
    written(film(), tmp_path / "a.mp4")
    monkeypatch.setattr(frames, "VIDEO_SECONDS", 0.3)
    for name in ("a.gif", "a.mp4"):
        with pytest.raises(InputError, match="cut it into pieces"):
            given("video", str(tmp_path / name))
    monkeypatch.undo()
    monkeypatch.setattr("modelgraft.records.pictures.PICTURE_PIXELS", 100)
    for name in ("a.gif", "a.mp4"):
        with pytest.raises(InputError, match="has 24 x 18 pixels, more than 100; make it smaller first"):
            given("video", str(tmp_path / name))
    monkeypatch.undo()
    with pytest.raises(InputError, match="changes its size from 3 x 2 to 4 x 2"):
        given("video", [Image.new("RGB", (3, 2)), Image.new("RGB", (4, 2))])
    with pytest.raises(InputError, match="has no frames from 9 s on"):
        given("video", {"file": str(tmp_path / "a.gif"), "start_s": 9})


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (numpy.zeros((2, 3, 4, 5), numpy.uint8), r"found uint8\[2 3 4 5\], wanted uint8\[frames height width 3\]; channels come last"),
        (numpy.zeros((2, 4, 5, 3), numpy.float32), "floats in 0..1 are"),
        (numpy.zeros((0, 4, 5, 3), numpy.uint8), r"found uint8\[0 4 5 3\]"),
        ((numpy.zeros((2, 4, 5, 3), numpy.uint8), 0), "rate_hz is 0; wanted: frames per second, above 0"),
        (
            mg.Video(numpy.zeros((2, 4, 5, 3), numpy.uint8), 2.0, numpy.array([1.0, 0.5])),
            "found times for 2 of 2 frames, wanted one for each, rising",
        ),
        ({"file": "a.mp4", "fps": 3}, "found 'fps' beside file; wanted: end_s, most_frames, rate_hz, start_s"),
        ({"file": "a.mp4", "start_s": 3, "end_s": 2}, "start_s is 3 and end_s 2; wanted: an end after the start"),
        ({"file": "a.mp4", "most_frames": 0}, "most_frames is 0; wanted: a whole number above 0"),
        ({"rate_hz": 3}, "wanted a mapping with `file` or `frames`"),
    ],
)
def test_what_is_no_video_is_refused(value, message):
    """With what was wanted."""
    with pytest.raises(InputError, match=message):
        given("video", value)


def test_a_photo_and_a_sound_are_no_video(tmp_path):
    """Each is told what it is."""
    Image.new("RGB", (3, 2)).save(tmp_path / "a.png")
    with pytest.raises(InputError, match="is a picture that does not move"):
        given("video", str(tmp_path / "a.png"))
    with wave.open(str(tmp_path / "a.wav"), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(bytes(1600))
    with pytest.raises(InputError, match="holds no pictures, only sound"):
        given("video", str(tmp_path / "a.wav"))


def test_without_pyav_animations_are_read_and_films_say_what_they_need(tmp_path, monkeypatch):
    """The extra that is missing is named; a gif needs none."""
    written(film(), tmp_path / "a.gif")
    written(film(), tmp_path / "a.mp4")
    monkeypatch.setitem(sys.modules, "av", None)
    assert len(record("video", str(tmp_path / "a.gif")).frames) == 7
    with pytest.raises(InputError, match=r"films need PyAV: pip install 'modelgraft\[video\]'"):
        given("video", str(tmp_path / "a.mp4"))
    with pytest.raises(InputError, match=r"films need PyAV: pip install 'modelgraft\[video\]'; .gif and .webp do not"):
        write_value(film(), tmp_path / "b.mp4")


def test_an_mp4_whose_table_of_contents_comes_first_is_looked_at_too(tmp_path):
    """Players stop there without a word."""
    import av

    path = tmp_path / "a.mp4"
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 24, 18, "yuv420p"
        for frame in film().frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    assert len(record("video", str(path)).frames) == 7
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"is cut: it says that it has .* bytes, and has"):
        given("video", str(path))


@pytest.mark.parametrize(("container", "codec"), [("matroska", "libx264"), ("webm", "libvpx"), ("avi", "mpeg4"), ("mpeg", "mpeg2video")])
def test_films_of_other_kinds(tmp_path, container, codec):
    """By what is in them, whatever they are called."""
    import av

    path = tmp_path / "film"
    with av.open(str(path), "w", format=container) as out:
        stream = out.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 32, 16, "yuv420p"
        for frame in numpy.broadcast_to(numpy.uint8([0, 90, 180])[:, None, None, None], (3, 16, 32, 3)):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(numpy.ascontiguousarray(frame), format="rgb24")))
        out.mux(stream.encode())
    found = record("video", str(path))
    assert [round(float(frame.mean()) / 90) for frame in found.frames] == [0, 1, 2]
    assert found.times_s == pytest.approx([0, 0.04, 0.08], abs=2e-3)
    if container != "mpeg":  # which states no length anywhere
        path.write_bytes(path.read_bytes()[:-40])
        with pytest.raises(InputError, match="is cut: it says that it has"):
            given("video", str(path))


@pytest.mark.parametrize(("matrix", "turns"), [((0, 1, -1, 0), -1), ((0, -1, 1, 0), 1), ((-1, 0, 0, -1), 2)])
def test_a_film_of_a_phone_is_upright(tmp_path, matrix, turns):
    """As its track says how it is to be shown: by the matrix of ISO 14496-12, 8.3.2, a quarter to the right, to the left, and a half."""
    frame = numpy.zeros((16, 32, 3), numpy.uint8)
    frame[:8, :16] = 250  # the upper left
    written(mg.Video(numpy.stack([frame] * 3), 10.0), tmp_path / "a.mp4")
    content = bytearray((tmp_path / "a.mp4").read_bytes())
    at = content.index(b"tkhd") + 44  # behind its version, times, number, duration, layer, group and volume
    a, b, c, d = (number * 0x10000 for number in matrix)
    content[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 0x40000000)
    found = record("video", bytes(content)).frames[1]
    wanted = numpy.rot90(frame, k=turns)
    assert found.shape == wanted.shape
    assert numpy.abs(found.astype(int) - wanted).mean() < 10


def test_only_the_file_that_is_named_is_opened(tmp_path):
    """A playlist is no video: its decoder would open what it names."""
    written(film(), tmp_path / "secret.mp4")
    secret = tmp_path / "secret.mp4"
    for text in (f"ffconcat version 1.0\nfile {secret}\n", f"#EXTM3U\n#EXTINF:2,\nfile://{secret}\n#EXT-X-ENDLIST\n"):
        for value in (text.encode(), tmp_path / "a.mp4"):
            (tmp_path / "a.mp4").write_text(text)
            with pytest.raises(InputError, match="is no video that can be read"):
                given("video", value)
    with pytest.raises(InputError, match=r"is no video that can be read \(it is empty\); wanted"):
        given("video", b"")


# -- depth and heat -----------------------------------------------------------------------------------------------------


def png(array):
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "PNG")
    return stream.getvalue()


def npy(array):
    stream = io.BytesIO()
    numpy.save(stream, array)
    return stream.getvalue()


COUNTS = numpy.array([[0, 1, 500], [1000, 4321, 65535]], numpy.uint16)
METRES = numpy.array([[numpy.nan, 0.001, 0.5], [1.0, 4.321, 65.535]])


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (png(COUNTS), METRES),
        (npy(COUNTS), METRES),
        (COUNTS, METRES),
        (Image.fromarray(COUNTS), METRES),
        (torch.from_numpy(COUNTS.astype(numpy.int32)), METRES),
        (npy(METRES), METRES),
        (METRES.astype(">f4"), METRES),
        ({"metres": METRES.tolist()}, METRES),
        ({"metres": COUNTS, "unit": 0.0002}, METRES / 5),
        ({"metres": COUNTS, "unit": "cm"}, METRES * 10),
        ({"metres": METRES * 1000, "unit": "mm"}, METRES),
        (Image.fromarray(METRES.astype(numpy.float32)), METRES),
    ],
)
def test_depths_are_metres(value, wanted):
    """Whole numbers are millimetres unless it is said otherwise, 0 where nothing was measured; floats are metres."""
    found = record("depth", value).metres
    assert found.dtype == numpy.float32
    assert numpy.allclose(found, wanted, rtol=1e-6, equal_nan=True)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (Image.new("L", (3, 2)), "found a picture of 8 bits, which say no distances"),
        (Image.new("RGB", (3, 2)), "found a picture of mode RGB, which says no distances"),
        (numpy.zeros((2, 3), numpy.uint8), "numbers of 8 bits say no distances"),
        (numpy.full((2, 3), -1.0), "holds distances below 0 or infinite"),
        (numpy.full((2, 3), numpy.inf), "holds distances below 0 or infinite"),
        (numpy.zeros((2, 3, 1)), r"found float32\[2 3 1\], wanted float\[height width\] in metres"),
        ({"metres": [[1, 2], [3]]}, "found lists that are no array"),
        ({"metres": COUNTS, "unit": "ft"}, "unit is 'ft'; wanted: m, cm, mm, or the metres that 1 stands for"),
        ({"metres": COUNTS, "focal_px": -1}, "focal_px is -1; wanted: a number above 0"),
        (numpy.ma.masked_equal(numpy.ones((1, 2)), 1), r"array\.filled\(0\)"),
    ],
)
def test_what_is_no_depth_map_is_refused(value, message):
    """With what was wanted."""
    with pytest.raises(InputError, match=message):
        given("depth", value)


def test_distances_that_do_not_fit_are_said(tmp_path):
    """16 bits of millimetres end at 65.535 m."""
    (said,) = written(mg.Depth(numpy.array([[1.0, 80.0, numpy.nan]], numpy.float32)), tmp_path / "a.png")
    assert "distances up to 80 m are cut to 65.535 m; .npy holds all" in said
    assert numpy.allclose(record("depth", str(tmp_path / "a.png")).metres, [[1.0, 65.535, numpy.nan]], equal_nan=True)


@pytest.mark.parametrize(
    ("value", "unit", "wanted"),
    [
        (png(numpy.array([[27315, 29315, 0]], numpy.uint16)), "celsius", [[0.0, 20.0, numpy.nan]]),
        (numpy.array([[36.6, -10.0]]), "celsius", [[36.6, -10.0]]),
        (Image.fromarray(numpy.array([[0, 51, 255]], numpy.uint8)), "relative", [[0.0, 0.2, 1.0]]),
        (Image.new("RGB", (2, 1), (51, 51, 51)), "relative", [[0.2, 0.2]]),
        ({"values": [[300.15]], "unit": "kelvin"}, "celsius", [[27.0]]),
        ({"values": numpy.array([[65535]], numpy.uint16), "unit": "relative"}, "relative", [[1.0]]),
    ],
)
def test_heat_is_degrees_or_brightness(value, unit, wanted):
    """16 bits are hundredths of a kelvin, floats degrees, 8 bits brightness."""
    found = record("thermal", value)
    assert found.unit == unit
    assert numpy.allclose(found.values, wanted, atol=1e-4, equal_nan=True)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (Image.new("RGB", (3, 2), (9, 80, 200)), "found a picture in colours, which tell no temperatures"),
        (numpy.full((2, 3), -300.0), "holds temperatures below -273.15 degrees"),
        ({"values": [[2.0]], "unit": "relative"}, "holds brightness beyond 0..1"),
        ({"values": [[2.0]], "unit": "f"}, "unit is 'f'; wanted one of: celsius, kelvin, centikelvin, relative"),
    ],
)
def test_what_is_no_thermal_picture_is_refused(value, message):
    """With what was wanted."""
    with pytest.raises(InputError, match=message):
        given("thermal", value)


# -- movement -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "rate", "names", "samples"),
    [
        ("time_s,ax,ay\n0,1,2\n0.5,3,4\n1,5,6\n", 2.0, ("ax", "ay"), [[1, 3, 5], [2, 4, 6]]),
        ("ax;t [ms];ay\n1;0;2\n3;10;4\n5;20;6\n", 100.0, ("ax", "ay"), [[1, 3, 5], [2, 4, 6]]),
        ("# of a phone\ntimestamp_ns\tgx\n1000000000\t1\n1005000000\t2\n", 200.0, ("gx",), [[1, 2]]),
    ],
)
def test_a_table_of_movement_says_its_rate(text, rate, names, samples):
    """By a column of times in its own unit, wherever it stands."""
    found = record("imu", text.encode())
    assert (found.rate_hz, found.names) == (pytest.approx(rate), names)
    assert found.samples.tolist() == samples


def test_a_rate_may_be_told_beside_the_file(tmp_path):
    """Of tables without times, of arrays, and over what a file says."""
    assert record("imu", {"file": b"1,2\n3,4\n5,6\n", "rate_hz": 50}).samples.tolist() == [[1, 3, 5], [2, 4, 6]]
    assert record("imu", {"file": npy(numpy.ones((2, 5))), "rate_hz": 50, "names": ["a", "b"]}).names == ("a", "b")
    assert record("imu", {"file": b"t,x\n0,1\n1,2\n", "rate_hz": 50}).rate_hz == 50.0
    numpy.savez(tmp_path / "a.npz", samples=numpy.ones((2, 5)), rate_hz=20)
    assert record("imu", str(tmp_path / "a.npz")).rate_hz == 20.0
    assert record("imu", b'{"samples": [[1, 2, 3]], "rate_hz": 4}').seconds == 0.75


def test_gaps_in_movement_are_said():
    """The samples are used as even, and that is no secret."""
    found = given("imu", b"t,x\n0,1\n1,2\n2,3\n9,4\n")
    assert "its samples are not evenly spaced (a gap is 2.3 times the mean)" in found.said[0]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (b"a,b\n1,2\n", "has no column of times, such as time_s, and does not say its rate"),
        (b"t,a\n0,1\n1,zz\n", "row 3 is '1,zz'; wanted: 2 numbers"),
        (b"t,a\n0,1\n1\n", "row 3 is '1'; wanted: 2 numbers"),
        (b"t,a\n0,1\n0,2\n", "its times do not rise"),
        (b"t,a\n", "has no rows of numbers"),
        (npy(numpy.ones((2, 5))), 'does not say its rate; wanted: {"file": ..., "rate_hz": samples per second}'),
        (numpy.ones((2, 5)), r"found float64\[2 5\] without a rate"),
        ((numpy.ones((6, 2)), 5), "found 6 channels of 2 samples, wanted .*: transpose them"),
        ((numpy.array([[1.0, numpy.nan]]), 5), "holds readings that are no finite numbers"),
        ((numpy.ones((2, 5)), 0), "rate_hz is 0; wanted: samples per second"),
        ({"samples": numpy.ones((2, 5)), "rate_hz": 5, "names": ["a"]}, "found 1 names for 2 channels"),
        (b"PK\x03\x04 no archive", "cannot be read as arrays"),
        (b"{}", 'wanted: {"samples"'),
    ],
)
def test_what_is_no_movement_is_refused(value, message):
    """With what was wanted."""
    with pytest.raises(InputError, match=message.replace("{", r"\{").replace("}", r"\}") if "wanted: {" in message else message):
        given("imu", value)


# -- masks and vectors --------------------------------------------------------------------------------------------------


def test_masks_are_truth_values():
    """Of a picture of two shades, of truth values, of rows of them."""
    wanted = [[True, False, True], [False, False, True]]
    for value in (
        numpy.array(wanted),
        wanted,
        png(numpy.array(wanted).astype(numpy.uint8) * 255),
        torch.tensor(wanted),
        npy(numpy.array(wanted)),
    ):
        assert record("mask", value).pixels.tolist() == wanted
    assert given("mask", [wanted, wanted]).count == 2
    with pytest.raises(InputError, match=r"holds 3 shades, wanted black and white: \(array > 127\) makes a mask of grey"):
        given("mask", numpy.array([[0, 100, 255]], numpy.uint8))
    with pytest.raises(InputError, match=r"found uint16\[2 3\], wanted a mask"):
        given("mask", png(COUNTS))


def test_a_mask_is_a_type_alone_and_a_dtype_with_axes():
    """`mask` and `mask[batch]` are two things."""
    assert str(port("mask")) == "mask"
    assert port("mask").tensor is None
    assert port("mask[batch]").tensor is not None


def test_embeddings_know_their_family():
    """Numbers, with where they belong if that is told."""
    assert record("embedding", [1, 2, 3]).vector.tolist() == [1.0, 2.0, 3.0]
    assert given("embedding", [[1, 2], [3, 4]]).count == 2
    assert record("embedding", {"vector": [1.0], "family": "clip"}).family == "clip"
    assert record("embedding", b'{"vector": [1, 2], "family": "imagebind"}').family == "imagebind"
    for value, message in (
        ([[[1]]], r"wanted float\[width\]"),
        ([float("nan")], "not finite"),
        ({"vector": [1], "familie": "x"}, "Did you mean 'family'"),
    ):
        with pytest.raises(InputError, match=message):
            given("embedding", value)


# -- bounds of all that is read as numbers -------------------------------------------------------------------------------


def test_arrays_are_bounded(monkeypatch):
    """In number, in text, and in what a header promises."""
    monkeypatch.setattr(arrays, "ARRAY_VALUES", 4)
    for value in (npy(numpy.ones((2, 5))), numpy.ones((2, 5))):
        with pytest.raises(InputError, match=r"10.*numbers, more than 4 are not held at once"):
            given("depth", value)
    monkeypatch.undo()
    monkeypatch.setattr(arrays, "TEXT_BYTES", 4)
    with pytest.raises(InputError, match=r"has more than 4 bytes of text; save it as \.npy"):
        given("imu", b"t,a\n0,1\n1,2\n")
    liar = bytearray(npy(numpy.ones((2, 5))))
    head = bytes(liar[10 : 10 + struct.unpack("<H", liar[8:10])[0]])
    with pytest.raises(InputError, match=r"its header states .* it is cut or damaged"):
        given("depth", bytes(liar[:10]) + head.replace(b"(2, 5)", b"(9, 5)") + bytes(80))
    with pytest.raises(InputError, match="pickled objects, which can run code"):
        given("depth", npy_of_objects())


def npy_of_objects():
    stream = io.BytesIO()
    numpy.save(stream, numpy.array([{}], dtype=object), allow_pickle=True)
    return stream.getvalue()
