"""Media inside a text: as a page of HTML shows them, and as JSON keeps them so that they can be read again."""

from __future__ import annotations

import base64
import binascii
import io
import re
from pathlib import Path
from typing import Any

from modelgraft.kernel.words.errors import InputError
from modelgraft.records.opening import silent
from modelgraft.records.owning import is_picture
from modelgraft.records.pictures import eight_bits
from modelgraft.records.record import Record, Sight

NAMELESS = "application/octet-stream"  # the kind of a file that has no name of its own
WIDEST_PX = 1600  # of a picture in a page: what a large screen shows
LOSSLESS_BYTES = 200_000  # a picture that is smaller than this as PNG, such as a drawing, is exact; a photograph is a WebP
WEBP_QUALITY = 90
_ADDRESS = re.compile(r"data:(?P<kind>[\w.+-]+/[\w.+-]+);base64,(?P<content>[A-Za-z0-9+/=\s]*)")


def address_of(kind: str, content: bytes) -> str:
    """A file as an address that holds it: `data:image/png;base64,...`."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def is_address(value: Any) -> bool:
    """Whether a value is the address of a file that lies in it."""
    return isinstance(value, str) and value.startswith("data:")


def content_of(address: str, label: str) -> bytes:
    """The file that lies in an address. Raises InputError, which begins with the label, for one that holds none."""
    found = _ADDRESS.fullmatch(address)
    try:
        if found is None:
            raise ValueError("it does not begin with data:KIND;base64,")
        return base64.b64decode("".join(found["content"].split()), validate=True)
    except (ValueError, binascii.Error) as error:
        raise InputError(f"{label}: the address '{address[:40]}...' holds no file: {error}") from error


def shown(value: Any) -> Sight | None:
    """What a page shows of a medium, the whole of it; None for what is told in words."""
    if isinstance(value, Record):
        return value.whole_sight()
    return _picture(value) if is_picture(value) else None


def kept(value: Any) -> Any:
    """A medium as an address that its record type reads again, exact where its files are; any other value as it is."""
    if is_picture(value):
        return address_of("image/png", _png(eight_bits(value, "the picture")))
    if not isinstance(value, Record):
        return value
    return address_of(kind_of_file(value.endings[0]), saved(value, value.endings[0]))


def saved(record: Record, ending: str) -> bytes:
    """The file that a record is written into. Raises InputError for what no such file can hold."""
    import tempfile

    with tempfile.TemporaryDirectory() as home:
        target = Path(home) / f"record{ending}"
        record.save(target, record.called, silent)
        return target.read_bytes()


def kind_of_file(ending: str) -> str:
    """The kind of a file of an ending, as browsers call it."""
    import mimetypes

    return mimetypes.guess_type(f"file{ending}", strict=False)[0] or NAMELESS


def _picture(value: Any) -> Sight:
    """A drawing exactly, a photograph nearly; no larger than a screen."""
    picture = eight_bits(value, "the picture").copy()
    said = f"picture of {picture.width} x {picture.height}"
    picture.thumbnail((WIDEST_PX, WIDEST_PX))
    exact = _png(picture)
    if len(exact) <= LOSSLESS_BYTES:
        return Sight(said, "image/png", exact)
    stream = io.BytesIO()
    picture.convert("RGBA" if "A" in picture.getbands() else "RGB").save(stream, "WEBP", quality=WEBP_QUALITY)
    return Sight(said, "image/webp", stream.getvalue())


def _png(picture: Any) -> bytes:  # Any: a picture of Pillow, which is not imported here
    stream = io.BytesIO()
    modes = ("RGB", "RGBA", "L", "LA", "P", "1")
    (picture if picture.mode in modes else picture.convert("RGB")).save(stream, "PNG")
    return stream.getvalue()
