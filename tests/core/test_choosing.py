"""Which tests `make test` and `make quick` run: as many as fit into the seconds that they took, each function, the same for everybody."""

from __future__ import annotations

import random
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.choosing import QUICK, TEST, Case, for_quick, for_test, spread, takes
from support.pace import draw_less
from support.seconds import SHORT, function_of, means_of, read, written

WORDS = st.sampled_from(["clip", "llama", "qwen2_vl", "onnx", "torch", "w8", "7", "odd"])
FAMILIES = frozenset({"clip", "llama", "qwen2_vl", "onnx", "torch", "w8"})


@st.composite
def suites(draw: st.DrawFn) -> tuple[list[Case], dict[str, float]]:
    """Tests of a few files, and what they take."""
    cases, seconds = [], {}
    for file in range(draw(st.integers(1, 3))):
        for function in range(draw(st.integers(1, 3))):
            name = f"tests/test_{file}.py::test_{function}"
            slow, whole = draw(st.booleans()), draw(st.sampled_from([None, None, None, ()]))
            if draw(st.booleans()):
                seconds[function_of(name, slow=slow)] = draw(st.floats(0, 9))
            rows = draw(st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=8, unique=True))
            cases += [Case(f"{name}[{'-'.join(row)}]", slow=slow, whole=whole) for row in rows]
    return cases, seconds


@given(suites())
def test_each_function_keeps_a_case_and_no_more_than_fit(suite):
    cases, seconds = suite
    taken = for_test(cases, seconds, frozenset(), share=4)
    kept = Counter(case.function for case in cases if case.name in taken)
    for function, each in Counter(case.function for case in cases if case.whole is None).items():
        assert kept[function] == min(each, max(1, int(4 / max(0.02, seconds.get(function, 0)))))


@given(suites())
def test_each_family_backend_and_precision_keeps_a_case(suite):
    cases, seconds = suite
    taken = for_test(cases, seconds, FAMILIES, share=0)
    there, shown = ({word for case in some for word in case.words} & FAMILIES for some in (
        [case for case in cases if case.whole is None], [case for case in cases if case.name in taken],
    ))  # fmt: skip
    assert shown == there


@given(suites(), st.randoms())
def test_the_order_in_which_they_are_found_changes_nothing(suite, chance: random.Random):
    cases, seconds = suite
    other = chance.sample(cases, len(cases))
    assert for_test(cases, seconds, FAMILIES) == for_test(other, seconds, FAMILIES)
    assert for_quick(cases, seconds) == for_quick(other, seconds)


@given(suites())
def test_what_is_left_to_whole_runs_is_in_no_other(suite):
    cases, seconds = suite
    left = {case.name for case in cases if case.whole is not None}
    assert not left & for_test(cases, seconds, FAMILIES)
    assert not (left | {case.name for case in cases if case.slow}) & for_quick(cases, seconds)


@given(suites())
def test_quick_runs_what_fits_and_something_of_each_file(suite):
    cases, seconds = suite
    may = [case for case in cases if not case.slow and case.whole is None]
    taken = [case for case in may if case.name in for_quick(cases, seconds, share=0.25)]
    assert {case.file for case in taken} == {case.file for case in may}
    for function, kept in Counter(case.function for case in taken).items():
        one = next(case for case in taken if case.function == function)
        assert kept * takes(one, seconds) <= 0.25 + 1e-9 or kept == 1


def test_a_sample_shows_each_value_before_one_comes_again():
    """Four cases of a table of four by four have all eight values."""
    table = [Case(f"a.py::test[{row}-{column}]") for row in "abcd" for column in "wxyz"]
    assert frozenset().union(*(case.words for case in spread(table, 4))) == set("abcdwxyz")


def test_what_was_measured_is_read_as_it_was_written():
    """Slow cases of a function apart from its others; what takes hardly any time is not written."""
    noted = [
        "0.3\tb.py::test_x\t1]",
        "0.5\tb.py::test_x\ta\tb]",
        "7.0\tb.py::test_x slow\t2]",
        "2.0\ta.py::test_y\t",
        "0.01\ta.py::test_z\t",
    ]
    means = means_of(noted)
    assert means == pytest.approx({"b.py::test_x": 0.4, "b.py::test_x slow": 7.0, "a.py::test_y": 2.0, "a.py::test_z": 0.01})
    assert read(written(means).splitlines()) == {"b.py::test_x": 0.4, "b.py::test_x slow": 7.0, "a.py::test_y": 2.0}


def test_what_stands_for_tests_of_whole_runs_is_there():
    """The same is asked of what `make test` gathers; here before that."""
    root = Path(__file__).parents[2]
    texts = {path.relative_to(root).as_posix(): path.read_text(encoding="utf-8") for path in (root / "tests").rglob("test_*.py")}
    named = {
        name
        for text in texts.values()
        for mark in re.findall(r"mark\.whole\(([^)]*)\)", text)
        for name in re.findall(r"tests/\S+?::\w+", mark)
    }
    assert len(named) > 5
    assert {name for name in named if f"def {name.partition('::')[2]}(" not in texts.get(name.partition("::")[0], "")} == set()


SUITE = """import pytest
@pytest.mark.parametrize("number", range(300))
def test_numbers(number): pass
@pytest.mark.slow
def test_large(): pass
@pytest.mark.whole("test_table.py::test_large")
def test_whole(): pass
"""
FIT = round(TEST / SHORT)  # cases of `test_numbers` in `make test`
PROJECT = """[tool.pytest.ini_options]
testpaths = ["."]
markers = ["slow: ", "whole(tests): "]
"""


@pytest.mark.parametrize(("says", "draws"), [(400, 100), (60, 25), (10, 10)])
def test_what_draws_examples_draws_a_part_of_them_and_few_stay_as_they_are(says, draws):
    drawn = []

    @settings(max_examples=says, database=None)
    @given(st.integers())
    def drawing(number):
        drawn.append(number)

    draw_less([SimpleNamespace(obj=drawing)])
    drawing()
    assert len(drawn) == draws


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A suite of its own that runs by the hooks of this one, whatever kind of run this is."""
    monkeypatch.delenv("MODELGRAFT_WHOLE", raising=False)
    monkeypatch.delenv("MODELGRAFT_SECONDS", raising=False)  # what it would measure is not of this suite
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    hooks = (Path(__file__).parents[1] / "conftest.py").read_text(encoding="utf-8")
    imports = hooks[hooks.index("from support.pace import") :].partition(")")[0] + ")\n"
    (tmp_path / "conftest.py").write_text(f"import sys\nsys.path.insert(0, {str(Path(__file__).parents[1])!r})\n{imports}")
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    (tmp_path / "test_table.py").write_text(SUITE)
    return tmp_path


def ran(project: Path, monkeypatch: pytest.MonkeyPatch, *words: str, whole: str = "") -> tuple[int, str]:
    """How many tests a run has, and what it says."""
    monkeypatch.setenv("MODELGRAFT_WHOLE", whole)
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    told = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *words], cwd=project, capture_output=True, text=True, check=False
    )
    assert told.returncode == 0, told.stdout + told.stderr
    return int(next(word for line in told.stdout.splitlines() if " passed" in line for word in line.split() if word.isdigit())), told.stdout


@pytest.mark.slow  # it runs other tests
@pytest.mark.parametrize(("words", "count"), [
    ((), FIT + 1), (("-n", "2"), FIT + 1), (("--quick",), int(QUICK / SHORT)), (("test_table.py",), 302), (("-k", "numbers"), 300),
    (("-m", "slow"), 1),
])  # fmt: skip
def test_a_run_takes_its_sample_and_what_is_named_runs_whole(project, monkeypatch, words, count):
    found, told = ran(project, monkeypatch, *words)
    assert found == count
    assert (f"{302 - count} of 302 tests were left out" in told) == (words in ((), ("-n", "2"), ("--quick",)))
    assert ("make whole" in told) == (words in ((), ("-n", "2"), ("--quick",)))


@pytest.mark.slow
def test_a_whole_run_leaves_nothing_out(project, monkeypatch):
    assert ran(project, monkeypatch, whole="1")[0] == 302


@pytest.mark.slow
def test_what_is_left_to_whole_runs_names_what_proves_it(project):
    (project / "test_table.py").write_text(SUITE.replace("::test_large", "::test_nothing"))
    told = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"], cwd=project, capture_output=True, text=True, check=False
    )
    assert "name tests as file::test that `make test` runs" in told.stdout + told.stderr
