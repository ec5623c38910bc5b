"""Pictures, as models take them: upright, 8 bits a channel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from modelgraft.records.owning import is_picture
from modelgraft.records.record_type import Reading, RecordType

if TYPE_CHECKING:
    from PIL.Image import Image

PICTURE_ENDINGS = (
    ".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".avif",
    ".apng", ".jfif", ".jpe", ".mpo", ".jp2", ".j2k", ".ico", ".cur", ".icns", ".psd", ".qoi", ".dds", ".sgi", ".pcx", ".ras", ".dib",
    ".xbm", ".xpm", ".msp", ".tga",
)  # fmt: skip


class ImageType(RecordType):
    """A picture of Pillow."""

    name, meaning = "image", "a picture"
    reads = PICTURE_ENDINGS
    writes = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tiff")
    colour = ("#2563eb", "#7aa7ff")

    def read(self, value: Any, reading: Reading) -> Image:
        """Decode a file or take a picture or an array, turn it as its EXIF data say, and bring 16 bits to 8."""
        from modelgraft.records import pictures

        wanted = "an image: a file name, bytes, a Pillow picture or uint8[height width 3]"
        return pictures.eight_bits(pictures.raster_of(value, reading, wanted), reading.label, reading.tell)

    def accepts(self, value: Any) -> bool:
        """Pictures of Pillow."""
        return is_picture(value)

    def example(self, index: int) -> Image:
        """Two pictures of unlike sizes, neither square."""
        from PIL import Image

        return Image.radial_gradient("L").resize((37, 23) if index else (21, 31)).convert("RGB")

    def spoken(self, text: str, label: str) -> str:  # noqa: ARG002 a file may be named like anything
        """The name of a file."""
        return text
