"""Bytes as people write them: 8GB, 500MiB, or one for each device."""

from __future__ import annotations

import re
from collections.abc import Mapping

EVERY_DEVICE = "*"  # among sizes by device: each device that is not named
SIZES = "a size such as 8GB or 500MiB, or one for each device: cpu=2GB,cuda:0=8GB"

_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?(?:([kmgt])(i?)b|b)?", re.IGNORECASE)


def bytes_of(found: object) -> int:
    """Read a number of bytes, or a size such as 8GB (powers of 1000) or 500MiB (of 1024).

    Raises ValueError that says what was found and wanted.
    """
    match = _SIZE.fullmatch(str(found).strip()) if isinstance(found, int | float | str) and not isinstance(found, bool) else None
    if match is None or (size := _number(match[1]) * _unit(match[2] or "", is_binary=bool(match[3]))) < 1:
        raise ValueError(f"found {found!r}; wanted: {SIZES}")
    return int(size)


def _number(text: str) -> float:
    return float(text) if "." in text else int(text)


def _unit(letter: str, *, is_binary: bool) -> int:
    power = " kmgt".index(letter.lower() or " ")
    return int((1024 if is_binary else 1000) ** power)


def sizes_of(found: object) -> dict[str, int]:
    """Read bytes by device, from a mapping or as `cpu=2GB,cuda:0=8GB`; one size alone is that of EVERY device.

    Raises ValueError that says what was found and wanted.
    """
    if isinstance(found, str) and "=" in found:
        pairs = [part.partition("=") for part in found.split(",")]
        found = {device.strip(): size for device, _, size in pairs}
        if len(found) < len(pairs):
            raise ValueError(f"found a device twice; wanted: {SIZES}")
    if not isinstance(found, Mapping):
        return {EVERY_DEVICE: bytes_of(found)}
    if unnamed := [device for device in found if not isinstance(device, str) or not device]:
        raise ValueError(f"found the device {unnamed[0]!r}; wanted: {SIZES}")
    return {device: bytes_of(size) for device, size in found.items()}


def named(device: str) -> str:
    """A device by the one name that amounts have for it."""
    return "cuda:0" if device == "cuda" else device
