"""A program can be told that the system keeps no registers of 512 bits."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import as_avx2

CLEARED, GETS, STORED = b"\x31\xc9", b"\x0f\x01\xd0", b"\x89\xc0"  # xor %ecx, %ecx; xgetbv; mov %eax, %eax


def test_every_question_is_answered_and_nothing_else_changes() -> None:
    rotated, masked = b"\xc1\xc8\x0f\x01\xd0", b"\x83\xe0\x0f\x01\xd0"  # ror $15, %eax; and $15, %eax; each before add %edx, %eax
    code = CLEARED + GETS + STORED + rotated + masked + CLEARED + GETS
    answer = b"\xb0\x07\x90"
    assert as_avx2.told(code) == CLEARED + answer + STORED + rotated + masked + CLEARED + answer


def test_a_library_that_does_not_ask_is_refused() -> None:
    with pytest.raises(SystemExit, match="it cannot be told"):
        as_avx2.told(b"\x83\xe0\x0f\x01\xd0")


def test_facts_name_what_was_hidden() -> None:
    facts = "model name\t: A Chip\nflags\t\t: avx2 fma avx512f avx512_vnni gfni f16c\n"
    assert as_avx2.facts_of(facts) == "model name\t: A Chip, kernels of AVX2 alone\nflags\t\t: avx2 fma f16c\n"


def test_a_process_finds_the_copy_first_and_those_it_starts_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "elsewhere")
    found = as_avx2.surroundings(tmp_path)
    assert found["PYTHONPATH"].split(":") == [str(tmp_path), "elsewhere"]
    assert found["ATEN_CPU_CAPABILITY"] == "avx2"
