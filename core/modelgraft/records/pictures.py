"""Pictures: from files, bytes, arrays and Pillow objects into upright pictures of 8 bits a channel.

Only what the user named is opened, by name, and every limit is checked in the header before anything is decoded. The
limits that the host program has set in Pillow are obeyed, and left as they are.
"""

from __future__ import annotations

import os
from typing import IO, TYPE_CHECKING, Any

from modelgraft.kernel.words.errors import InputError
from modelgraft.records.opening import FileOrBytes, FindFile, Say, open_named, plain_path, reason, silent, unreadable

if TYPE_CHECKING:
    from PIL.Image import Image

    from modelgraft.records.record_type import Reading

# Raster formats that Pillow decodes itself. Left out are those that start other programs (EPS), read other files, or hold numbers of
# which nobody knows what white is (FITS, SPIDER). TGA comes last, because nothing marks it but a header that makes sense.
PICTURE_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")
OTHER_FORMATS = ("JPEG2000", "ICO", "CUR", "ICNS", "PSD", "QOI", "DDS", "SGI", "PCX", "SUN", "DIB", "XBM", "XPM", "MSP", "TGA")
PICTURE_PIXELS = 100_000_000  # 10,000 x 10,000: above this a small file may fill the memory (a decompression bomb)
ORIENTATION = 0x0112  # the tag of EXIF data that says how a picture is turned; 1: not at all
JPEG_SCANS = 500  # progressive pictures have about 10; each costs a pass over all pixels, however few bytes it has
EIGHT_BITS = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr", "HSV"})
SIXTEEN_BITS = frozenset({"I;16", "I;16B", "I;16L", "I;16N"})
WHOLE_SCALE = ("PNG", "PPM")  # formats whose mode "I" holds 16 bits


def raster_of(value: Any, reading: Reading, wanted: str) -> Image:
    """A picture upright, its numbers as they are, of what a user gives: a picture, a file, bytes or an array.

    wanted  what to say that was wanted, for what is none of these
    """
    if hasattr(value, "getbands"):  # a Pillow picture
        check_size(value, reading.label)
        return upright(value, reading.label)
    if isinstance(value, str | bytes | os.PathLike):
        return read_picture(value, name=reading.label, say=reading.tell, find=reading.find)
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return picture_of_array(value, reading.label)
    raise reading.refused(value, wanted)


def read_picture(source: FileOrBytes, *, name: str, say: Say = silent, find: FindFile = plain_path) -> Image:
    """Decode a picture from a file or from its bytes, upright as its EXIF data say; the mode is kept.

    name  what to call it in messages, such as "input 'image'"
    say   takes what is left out, such as the other frames of an animation
    Raises InputError for no such file, no picture, a cut file, too many pixels.
    """
    label, stream = open_named(source, name=name, wanted="a picture", find=find)
    with stream:
        return picture_in(stream, name=name, label=label, say=say)


def picture_in(stream: IO[bytes], *, name: str, label: str, say: Say) -> Image:
    """The picture in a stream, decoded, upright. Raises InputError for no picture, a cut file, too many pixels."""
    picture = opened(stream, f"{name}: {label}")
    is_one = not _is_animated(picture)
    found = upright(picture, f"{name}: {label}", is_ours=is_one)
    if not is_one and picture.format != "MPO":  # MPO: a photograph of a phone, with its preview
        say(f"{label} has more than one frame; the first is seen")
    return found


def opened(stream: IO[bytes], label: str) -> Image:
    """The picture in a stream, not yet decoded. Raises InputError for what is none, and for too many pixels."""
    try:
        picture = _open(stream, label)
    except InputError:
        raise
    except Exception as error:
        usual = ", ".join(name.lower() for name in _known_formats() if name in PICTURE_FORMATS)
        found = unreadable(stream, reason(error))
        raise InputError(f"{label} is no picture that can be read ({found}); wanted: {usual}") from error
    check_size(picture, label)
    return picture


def check_size(picture: Image, label: str) -> None:
    """Raise InputError for a picture without pixels or with too many, before they are decoded."""
    check_pixels(*picture.size, label)


def upright(picture: Image, label: str, *, is_ours: bool = False) -> Image:
    """A copy of a picture that is turned as its EXIF data say. Raises InputError when its file is damaged.

    is_ours  nobody else holds it: one that needs no turn is given back as it is, which spares a copy of all its pixels
    """
    from PIL import ImageOps

    try:
        picture.load()
        if is_ours and picture.getexif().get(ORIENTATION, 1) == 1:
            return picture
        turned = ImageOps.exif_transpose(picture)
    except MemoryError as error:
        raise InputError(f"{label} does not fit into the memory of this machine: make it smaller first") from error
    except Exception as error:
        raise InputError(f"{label} is damaged: {reason(error)}; save it again from its original") from error
    turned.format = picture.format
    return turned


def _is_animated(picture: Image) -> bool:
    try:
        return bool(getattr(picture, "is_animated", False))
    except Exception:  # noqa: BLE001 the second frame is damaged, the first is not
        return True


def eight_bits(picture: Image, label: str, say: Say = silent) -> Image:
    """The picture with 8 bits a channel: itself when it has them, scaled when it has 16.

    Raises InputError for floating numbers and other modes of which nobody knows what white is.
    """
    if picture.mode in EIGHT_BITS:
        return picture
    if picture.mode in SIXTEEN_BITS or (picture.mode == "I" and picture.format in WHOLE_SCALE):
        say("16 bits a channel are brought to 8")
        return _scaled(picture)
    if picture.mode == "La":
        raise InputError(f"{label}: found a picture of mode La, wanted 8 bits a channel: convert it to LA first")
    numbers = {"I": "32-bit integers", "F": "floating numbers"}.get(picture.mode, f"mode {picture.mode}")
    raise InputError(f"{label}: found a picture of {numbers}, of which nobody knows what white is; scale it to 8 bits first, 255 for white")


def on_white(picture: Image) -> Image:
    """A picture of 8 bits a channel in RGB, itself where it is that; what is transparent shows white, as on paper."""
    from PIL import Image

    if picture.mode == "RGB" and picture.info.get("transparency") is None:
        return picture
    if not {"A", "a"} & {*picture.getbands()} and picture.info.get("transparency") is None:
        return picture.convert("RGB")
    picture = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", picture.size, (255, 255, 255, 255)), picture).convert("RGB")


def picture_of_array(value: Any, label: str) -> Image:
    """A picture of uint8[height width], uint8[height width 3] or uint8[height width 4], as a copy."""
    import numpy
    from PIL import Image

    array = numpy.asarray(value.detach().cpu() if hasattr(value, "detach") else value)
    fits = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))
    if array.dtype != numpy.uint8 or not fits or 0 in array.shape:
        found = f"{array.dtype}[{' '.join(map(str, array.shape))}]"
        text = f"{label}: found {found}, wanted uint8[height width], uint8[height width 3] or uint8[height width 4]"
        raise InputError(text + _way_out(array))
    check_pixels(array.shape[1], array.shape[0], label)
    return Image.fromarray(numpy.array(array))


def _way_out(array: Any) -> str:
    if array.ndim == 4:
        return "; a batch is a list of pictures: list(array)"
    if array.ndim == 3 and array.shape[0] in (1, 3, 4) and array.shape[2] not in (3, 4):
        return "; channels come last: array.transpose(1, 2, 0)"
    if array.ndim == 3 and array.shape[2] == 1:
        return "; grey has two axes: array[..., 0]"
    if array.dtype.kind == "f":
        return "; floats in 0..1 are (array * 255).round().astype('uint8')"
    return "; 16 bits are (array // 257).astype('uint8')" if array.dtype == "uint16" else ""


def _scaled(picture: Image) -> Image:
    """Of 16 bits the 8 that stand for the same brightness: 65535 becomes 255."""
    import numpy
    from PIL import Image

    values = numpy.asarray(picture).astype(numpy.uint32)
    return Image.fromarray(((values + 128) // 257).astype(numpy.uint8))


def check_pixels(width: int, height: int, label: str) -> None:
    """Raise InputError for a size without pixels or with too many."""
    if not width * height:
        raise InputError(f"{label} has {width} x {height} pixels; wanted: at least one")
    if width * height > (most := _most_pixels()):
        raise InputError(f"{label} has {width} x {height} pixels, more than {most:,}; make it smaller first")


def _most_pixels() -> int:
    """Our limit, or that of the host program where it is lower: Pillow refuses what is twice its own."""
    from PIL import Image

    host = Image.MAX_IMAGE_PIXELS
    return PICTURE_PIXELS if host is None else min(PICTURE_PIXELS, 2 * host)


def _open(stream: IO[bytes], label: str) -> Image:
    """Open as Image.open does, with our limit in place of its warnings. Raises what the decoder of its format does."""
    from PIL import Image

    head = stream.read(64)
    _refuse_bombs(stream, head, label)
    failed = SyntaxError("cannot identify image file")
    for name in _known_formats():
        factory, accept = Image.OPEN[name]
        if accept is None or accept(head[:16]) is True:
            stream.seek(0)
            try:
                return factory(stream, "")
            except SyntaxError as error:  # two formats may begin alike, as CUR and TGA do
                failed = error if accept is not None else failed
    raise failed


def _refuse_bombs(stream: IO[bytes], head: bytes, label: str) -> None:
    """What costs memory or time as soon as it is opened: the canvas of a WebP, and the passes of a JPEG."""
    if head[:4] == b"RIFF" and head[8:15] == b"WEBPVP8":
        check_pixels(*_canvas(head), label)
    if head[:2] == b"\xff\xd8":
        stream.seek(0)
        scans = stream.read().count(b"\xff\xda")  # within the coded pixels 255 is followed by 0
        if scans > JPEG_SCANS:
            raise InputError(f"{label} is a jpeg of {scans:,} passes, more than {JPEG_SCANS}; save it again as a plain one")


def _canvas(head: bytes) -> tuple[int, int]:
    """The width and height that a WebP of each of its three kinds states; a pixel where it is cut."""
    if head[12:16] == b"VP8X" and len(head) >= 30:
        return int.from_bytes(head[24:27], "little") + 1, int.from_bytes(head[27:30], "little") + 1
    if head[12:16] == b"VP8L" and len(head) >= 25:
        bits = int.from_bytes(head[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if head[12:16] == b"VP8 " and len(head) >= 30:
        return int.from_bytes(head[26:28], "little") & 0x3FFF or 1, int.from_bytes(head[28:30], "little") & 0x3FFF or 1
    return 1, 1


def _known_formats() -> list[str]:
    from PIL import Image

    Image.init()
    return [name for name in (*PICTURE_FORMATS, *OTHER_FORMATS) if name in Image.OPEN]
