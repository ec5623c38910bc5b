"""Counts, bytes and seconds as people read them, three digits that matter and a unit; and bytes as people write them."""

from __future__ import annotations

import re
from collections.abc import Mapping

UNKNOWN = "?"
EVERY = "*"  # among sizes by device: each device that is not named
SIZES = "a size such as 8GB or 500MiB, or one for each device: cpu=2GB,cuda:0=8GB"

_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?(?:([kmgt])(i?)b|b)?", re.IGNORECASE)


def short_count(number: int) -> str:
    """985, 12.4 k, 986 M, 2.70 B."""
    for size, letter in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if number >= size * 0.9995:
            value = number / size
            return f"{value:.{max(0, 3 - len(str(int(value))))}f} {letter}"
    return str(number)


def in_bytes(number: int | None) -> str:
    """985 B, 12.4 KiB, 986 MiB; `?` when it is not known."""
    if number is None:
        return UNKNOWN
    for size, unit in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if number >= size:
            return f"{number / size:.3g} {unit}" if number < 1000 * size else f"{number / size:.0f} {unit}"
    return f"{number} B"


def in_seconds(seconds: float) -> str:
    """12 µs, 3.4 ms, 1.25 s, 95 s."""
    for size, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if seconds >= size * 0.9995 or unit == "µs":
            value = seconds / size
            return f"{value:.{max(0, 3 - len(str(int(value))))}f} {unit}" if value < 99.95 else f"{value:.0f} {unit}"
    raise AssertionError("the last unit takes everything")


def exact_count(number: int | None) -> str:
    """12,345,678; `?` when it is not known."""
    return UNKNOWN if number is None else f"{number:,}"


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
        return {EVERY: bytes_of(found)}
    if unnamed := [device for device in found if not isinstance(device, str) or not device]:
        raise ValueError(f"found the device {unnamed[0]!r}; wanted: {SIZES}")
    return {device: bytes_of(size) for device, size in found.items()}
