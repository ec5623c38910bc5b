"""Counts, bytes and seconds as people read them: three digits that matter, and a unit."""

from __future__ import annotations

UNKNOWN = "?"


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
