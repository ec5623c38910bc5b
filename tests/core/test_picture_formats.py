"""Pictures of every format, mode and turn: what is read are the pixels that Pillow itself decodes, upright, with 8 bits a channel."""

from __future__ import annotations

import contextlib
import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageOps

import modelgraft as mg
from modelgraft.records.image import PICTURE_ENDINGS, ImageType
from modelgraft.records.pictures import OTHER_FORMATS, PICTURE_FORMATS, on_white
from modelgraft.records.record_type import Reading
from support.pictures import picture

LOSSY = ("JPEG", "AVIF", "WEBP")
WRITTEN = (
    "PNG",
    "JPEG",
    "WEBP",
    "GIF",
    "BMP",
    "TIFF",
    "PPM",
    "AVIF",
    "JPEG2000",
    "ICO",
    "ICNS",
    "QOI",
    "DDS",
    "SGI",
    "PCX",
    "DIB",
    "TGA",
    "MPO",
)
ONE_BIT = ("XBM", "MSP")
MODES = {
    "1": ("PNG", "BMP", "TIFF", "GIF", "PPM"),
    "L": ("PNG", "JPEG", "TIFF", "SGI", "TGA", "JPEG2000", "AVIF"),
    "LA": ("PNG", "TIFF", "TGA", "JPEG2000"),
    "P": ("PNG", "GIF", "BMP", "TIFF", "PCX", "TGA"),
    "RGBA": ("PNG", "WEBP", "TIFF", "DDS", "QOI", "ICO", "SGI", "TGA", "JPEG2000", "AVIF"),
    "CMYK": ("JPEG", "TIFF"),
    "YCbCr": ("JPEG", "TIFF"),
}


def saved(image, kind, **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def read(content, said=None):
    return ImageType().read(content, Reading("input 'image'", (said if said is not None else []).append))


def same(one, other):
    assert one.mode == other.mode
    assert np.array_equal(np.asarray(one), np.asarray(other))


@pytest.mark.parametrize("kind", WRITTEN)
def test_a_picture_of_every_format_is_read(kind):
    """Those that Pillow writes, as it decodes them."""
    side = 32 if kind in ("ICO", "ICNS") else None
    image = picture(side or 37, side or 23, "RGBA" if kind in ("ICO", "ICNS") else "RGB", seed=3)
    content = saved(image, kind, **({"sizes": [(32, 32)]} if kind == "ICO" else {}))
    with Image.open(io.BytesIO(content)) as wanted:
        wanted.load()
        same(read(content), wanted)


@pytest.mark.parametrize("kind", ONE_BIT)
def test_a_picture_of_one_bit_is_read(kind):
    content = saved(picture(32, 9, "1", seed=3), kind)
    same(read(content), Image.open(io.BytesIO(content)))


def by_hand():
    """Formats that Pillow reads and does not write: a picture of 2 x 2, red, green, blue and white."""
    channels = b"\xff\0\0\xff" + b"\0\xff\0\xff" + b"\0\0\xff\xff"
    psd = b"8BPS" + struct.pack(">H6xHIIHH", 1, 3, 2, 2, 8, 3) + bytes(12) + b"\0\0" + channels
    sun = struct.pack(">8I", 0x59A66A95, 2, 2, 24, 12, 1, 0, 0) + b"\0\0\xff\0\xff\0" + b"\xff\0\0\xff\xff\xff"
    xpm = b'/* XPM */\nstatic char *p[] = {\n"2 2 4 1",\n"a c #ff0000",\n"b c #00ff00",\n"c c #0000ff",\n"d c #ffffff",\n"ab",\n"cd"\n};\n'
    ico = bytearray(saved(Image.new("RGBA", (16, 16), (255, 0, 0, 255)), "ICO", sizes=[(16, 16)], bitmap_format="bmp"))
    ico[2:4] = struct.pack("<H", 2)  # a cursor: the same but for this, and its hot spot
    return {"PSD": psd, "SUN": sun, "XPM": xpm, "CUR": bytes(ico)}


@pytest.mark.parametrize("kind", ["PSD", "SUN", "XPM"])
def test_a_picture_that_pillow_only_reads_is_read(kind):
    found = np.asarray(read(by_hand()[kind]).convert("RGB")).tolist()
    assert found == [[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 255]]]


def test_a_cursor_is_read():
    assert np.asarray(on_white(read(by_hand()["CUR"]))).reshape(-1, 3).tolist() == [[255, 0, 0]] * 256


def test_every_format_that_is_opened_is_read_here():
    """None is opened that no test reads; and endings of each are known, so that folders take them."""
    assert {*PICTURE_FORMATS, *OTHER_FORMATS} == {*WRITTEN, *ONE_BIT, *by_hand()} - {"MPO"}
    Image.init()
    known = {Image.EXTENSION[ending] for ending in PICTURE_ENDINGS}
    assert {*PICTURE_FORMATS, *OTHER_FORMATS, "MPO"} == known


@pytest.mark.parametrize(("mode", "kind"), [(mode, kind) for mode, kinds in MODES.items() for kind in kinds])
def test_every_mode_becomes_rgb_as_pillow_makes_it(mode, kind):
    """Behind what is transparent stands white."""
    side = {"sizes": [(32, 32)]} if kind == "ICO" else {}
    content = saved(picture(32, 32, mode, seed=5), kind, **side)
    with Image.open(io.BytesIO(content)) as wanted:
        wanted.load()
        found = on_white(read(content))
        if {"A", "a"} & {*wanted.getbands()} or "transparency" in wanted.info:
            wide = np.asarray(wanted.convert("RGBA")).astype(float)
            blended = wide[..., :3] * wide[..., 3:] / 255 + 255 - wide[..., 3:]
            assert np.abs(np.asarray(found) - blended).max() <= 1, "rounded to whole levels"
        else:
            same(found, wanted.convert("RGB"))


def test_a_transparent_colour_of_a_palette_shows_white():
    image = Image.new("P", (3, 2), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    image.putpixel((1, 1), 0)
    found = on_white(read(saved(image, "PNG", transparency=1)))
    assert found.getpixel((0, 0)) == (255, 255, 255)
    assert found.getpixel((1, 1)) == (0, 0, 0)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_are_brought_to_eight_and_that_is_said(kind):
    """65535 is white, and half of it is grey."""
    levels = np.array([[0, 1, 128, 257], [32768, 65278, 65406, 65535]], np.uint16)
    image = Image.fromarray(levels) if kind != "PPM" else Image.fromarray(levels.astype(np.int32))
    said = []
    found = np.asarray(read(saved(image, kind), said))
    assert found.tolist() == np.floor(levels / 257 + 0.5).astype(int).tolist()
    assert said == ["input 'image': 16 bits a channel are brought to 8"]


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_a_picture_is_turned_as_its_exif_data_say(kind, turn):
    image = picture(19, 31, seed=8)
    exif = Image.Exif()
    exif[0x0112] = turn
    content = saved(image, kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {}))
    with Image.open(io.BytesIO(content)) as stored:
        wanted = ImageOps.exif_transpose(stored)
    found = read(content)
    assert found.size == ((31, 19) if turn > 4 else (19, 31))
    same(found, wanted)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF", "AVIF"])
def test_of_an_animation_the_first_frame_is_seen_and_that_is_said(kind):
    frames = [Image.new("RGB", (12, 9), colour) for colour in ((250, 0, 0), (0, 250, 0), (0, 0, 250))]
    said = []
    found = on_white(read(saved(frames[0], kind, save_all=True, append_images=frames[1:]), said))
    red, green, blue = found.getpixel((5, 5))
    assert (red > 240, green < 12, blue < 12) == (True, True, True)
    assert len(said) == 1
    assert said[0].endswith("has more than one frame; the first is seen")


@pytest.mark.parametrize("size", [(1, 1), (1, 3), (20_000, 3), (3, 20_000)])
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP", "PPM"])
def test_pictures_of_a_pixel_and_of_a_strip_are_read_whole(size, kind):
    image = Image.new("RGB", size, (10, 200, 30))
    image.putpixel((size[0] - 1, size[1] - 1), (1, 2, 3))
    same(read(saved(image, kind)), image)


@pytest.mark.parametrize("kind", [*WRITTEN, "PSD", "SUN"])
def test_a_cut_picture_of_any_format_is_one_error(kind):
    """Or, where a format has no end that could be missed, the rows that are there."""
    whole = by_hand().get(kind) or saved(picture(64, 64, "RGBA" if kind in ("ICO", "ICNS") else "RGB", seed=3), kind)
    for part in (0, 1, 7, 30, len(whole) // 3):
        with contextlib.suppress(mg.InputError):
            read(whole[:part])


def test_what_is_no_picture_is_told_with_the_usual_formats():
    for junk in (b"", b"\0" * 64, b"no picture at all, and longer than a header", b"%!PS-Adobe-3.0 EPSF-3.0\n", b"\x0a\x05\x01"):
        with pytest.raises(mg.InputError, match=r"is no picture that can be read|is damaged|pixels") as told:
            read(junk)
        assert "tga" not in str(told.value)
