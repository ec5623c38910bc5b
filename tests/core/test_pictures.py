"""Pictures at the edge: the same numbers in any form that holds them, and the limits of whoever runs us."""

from __future__ import annotations

import io
import struct
import threading

import numpy
import pytest
from PIL import Image

from modelgraft import InputError
from modelgraft.kernel.words.ports import port
from modelgraft.records.pictures import read_picture
from modelgraft.records.values import read_input

RAMP = numpy.linspace(0, 65535, 7 * 11).reshape(7, 11)
SCALED = numpy.round(RAMP.astype(numpy.uint16) / 257)  # the same brightness, with 255 for white


def encoded(picture, kind, **options):
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def pgm(values, white=65535):
    return f"P5 {values.shape[1]} {values.shape[0]} {white}\n".encode() + values.astype(">u2").tobytes()


def given(value, kind="image"):
    return read_input("x", port(kind), value)


@pytest.mark.parametrize(
    "deep",
    [
        encoded(Image.fromarray(RAMP.astype(numpy.uint16)), "PNG"),
        encoded(Image.fromarray(RAMP.astype(numpy.uint16)), "TIFF"),
        pgm(RAMP),
        pgm(RAMP / 64, white=1023),
        Image.fromarray(RAMP.astype(numpy.uint16)),
        Image.open(io.BytesIO(pgm(RAMP))),
    ],
    ids=["png", "tiff", "pgm", "pgm of 10 bits", "pillow", "pillow, not read yet"],
)
def test_sixteen_bits_look_like_eight(deep):
    """Scanners, microscopes, X-rays: white stays white, grey stays grey, and that is said."""
    found = given(deep)
    assert found.value[0].mode == "L"
    assert numpy.abs(numpy.asarray(found.value[0]).astype(int) - SCALED).max() <= 1
    assert found.said == ("input 'x': 16 bits a channel are brought to 8",)


def test_depths_keep_their_numbers():
    """Millimetres are no brightness: each is the metres that it says, and 0 is where nothing was measured."""
    deep = RAMP.astype(numpy.uint16)
    found = given(encoded(Image.fromarray(deep), "PNG"), "depth").value[0].metres
    assert found.dtype == numpy.float32
    assert numpy.array_equal((found[deep > 0].astype(float) * 1000).round().astype(int), deep[deep > 0].astype(int))
    assert numpy.array_equal(numpy.isnan(found), deep == 0)


def test_a_tiff_of_floats_is_refused():
    """Nobody knows what its white is."""
    with pytest.raises(InputError, match="input 'x': found a picture of floating numbers, of which nobody knows what white is"):
        given(encoded(Image.fromarray(RAMP.astype(numpy.float32)), "TIFF"))


@pytest.mark.parametrize("kind", ["image", "depth", "thermal"])
@pytest.mark.parametrize("turn", range(1, 9))
def test_a_pillow_picture_is_turned_as_its_file_is(turn, kind):
    """All eight orientations of EXIF, for an opened file and for its name."""
    exif = Image.Exif()
    exif[0x0112] = turn
    random = numpy.random.default_rng(1)
    size, most, dtype = ((6, 9, 3), 255, numpy.uint8) if kind == "image" else ((6, 9), 65_535, numpy.uint16)
    dots = random.integers(1, most, size, dtype=dtype)
    data = encoded(Image.fromarray(dots), "PNG", exif=exif)
    field = {"image": numpy.asarray, "depth": lambda one: one.metres, "thermal": lambda one: one.values}[kind]
    named, opened = field(given(data, kind).value[0]), field(given(Image.open(io.BytesIO(data)), kind).value[0])
    assert numpy.array_equal(named, opened)
    assert named.shape[:2] == ((6, 9) if turn < 5 else (9, 6))


def test_the_frames_that_are_not_seen_are_said():
    """Of an animation a model gets the first frame."""
    frames = [Image.new("L", (3, 3), shade) for shade in (0, 90, 200)]
    found = given(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    assert numpy.asarray(found.value[0].convert("L")).max() == 0
    assert found.said[0].endswith("has more than one frame; the first is seen")


@pytest.mark.parametrize("limit", [None, 1_000, 178_956_970])
def test_the_limit_of_the_host_is_left_alone(limit, monkeypatch):
    """Whoever imports us may have set Pillow's limit: it stays what it is, also while other threads read, and is obeyed."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    seen, data, stop = set(), encoded(Image.new("L", (40, 40)), "PNG"), threading.Event()

    def watch():
        while not stop.is_set():
            seen.add(Image.MAX_IMAGE_PIXELS)

    thread = threading.Thread(target=watch)
    thread.start()
    for _ in range(20):
        read_picture(data, name="x")
    stop.set()
    thread.join()
    assert seen == {limit}
    if limit == 1_000:
        with pytest.raises(InputError, match="has 50 x 60 pixels, more than 2,000; make it smaller first"):
            read_picture(encoded(Image.new("L", (50, 60)), "PNG"), name="x")


def test_the_canvas_of_a_webp_is_bounded_before_it_is_made():
    """30 bytes that ask for 16,777,216 x 16,777,216 pixels, which a decoder would take memory for at once."""
    body = b"WEBPVP8X" + struct.pack("<I", 10) + bytes(4) + b"\xff\xff\xff" + b"\xff\xff\xff"
    with pytest.raises(InputError, match="has 16777216 x 16777216 pixels, more than 100,000,000"):
        read_picture(b"RIFF" + struct.pack("<I", len(body)) + body, name="x")


@pytest.mark.parametrize("lossless", [False, True])
@pytest.mark.parametrize("host", [None, 10**12])
def test_plain_webp_is_bounded_as_well(lossless, host, monkeypatch):
    """Whatever limit the host program has; one of the size that it states is read."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", host)
    data = bytearray(encoded(Image.new("RGB", (19, 23)), "WEBP", lossless=lossless))
    assert read_picture(bytes(data), name="x").size == (19, 23)
    place, size = (21, struct.pack("<I", 16_382 | 16_382 << 14)) if lossless else (26, struct.pack("<HH", 16_383, 16_383))
    data[place : place + 4] = size
    with pytest.raises(InputError, match="has 16383 x 16383 pixels, more than 100,000,000"):
        read_picture(bytes(data), name="x")


def test_a_jpeg_of_endless_passes_is_refused():
    """Each pass goes over all pixels, however few bytes it has."""
    plain = encoded(Image.new("L", (2000, 2000)), "JPEG", progressive=True)
    scan = plain.index(b"\xff\xda")
    with pytest.raises(InputError, match=r"is a jpeg of 3,\d+ passes, more than 500"):
        read_picture(plain[:scan] + plain[scan : scan + 40] * 3_000 + plain[scan:], name="x")


@pytest.mark.parametrize("place", range(16, 120, 3))
def test_a_broken_picture_is_one_error(place):
    """A byte flipped anywhere: a picture, or one sentence."""
    exif = Image.Exif()
    exif[0x0112] = 6
    data = bytearray(encoded(Image.new("RGB", (9, 6)), "TIFF", exif=exif))
    data[place] ^= 0xFF
    found = outcome(bytes(data))
    assert found == "a picture" or found.startswith("input 'x'")


def outcome(value):
    try:
        given(value)
    except InputError as error:
        return str(error)
    return "a picture"
