"""The page of a bench: it holds what was found, needs nothing else, and stays small."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
from collections import Counter
from dataclasses import fields, is_dataclass, replace
from html.parser import HTMLParser

import pytest

from modelgraft import InputError
from modelgraft.commands import text_width
from modelgraft_plugins.benching.page import LARGEST, page_of, write_page
from modelgraft_plugins.benching.page.labels import PX, Spot, place
from modelgraft_plugins.benching.page.scales import front, scale_over, tick_text
from modelgraft_plugins.benching.page.tables import in_common
from modelgraft_plugins.benching.results import Quality, Reason
from support.benched import EYES, TONGUES, made_results

FEW = {"eye": EYES[:3], "tongue": TONGUES[:2]}


class Read(HTMLParser):
    """What a browser would see: elements with their attributes and texts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.texts.append(data)

    def of(self, tag, **wanted):
        return [attrs for name, attrs in self.elements if name == tag and wanted.items() <= attrs.items()]

    @property
    def text(self):
        return "".join(self.texts)


def test_a_page_of_144_cells_and_30_nodes_is_small_and_has_every_cell():
    results = made_results(nodes=30)
    page = page_of(results)
    assert len(results.cells) == 144
    assert len(page.encode()) <= LARGEST == 150_000
    assert "thinned out" in page
    read = Read(page)
    assert {attrs["id"] for attrs in read.of("tr") if "id" in attrs} == {f"c{number}" for number in range(1, 145)}
    points = Counter(attrs["href"] for attrs in read.of("a") if re.fullmatch(r"#c\d+", attrs["href"] or ""))
    assert all(points[f"#c{number}"] >= 3 for number in range(1, 145))  # in each of the three charts


def test_a_page_of_thousands_of_cells_is_small_and_says_what_it_leaves_out():
    axes = {"eye": [f"eye/{index}" for index in range(25)], "tongue": [f"tongue/{index}" for index in range(40)]}
    page = page_of(made_results(axes, nodes=3, pruned=100))
    assert len(page.encode()) <= LARGEST
    assert re.search(r"\d+ of 900 cells are on it: the baseline, those on a front, then the fastest", page)


def test_a_small_page_is_not_thinned_and_each_point_carries_its_command():
    results = made_results(FEW)
    read = Read(page_of(results))
    assert "thinned" not in read.text
    for cell in results.cells:
        assert read.text.count(cell.command) == 4  # three charts and the table
        assert sum(cell.command in (attrs.get("title") or "") for attrs in read.of("a")) == 2  # a bar and a ratio


def test_a_page_fetches_nothing():
    read = Read(page_of(made_results(FEW, pruned=1, failed=1)))
    assert not [attrs for tag, attrs in read.elements if "src" in attrs or tag in ("link", "img", "iframe", "object", "base")]
    assert all((attrs.get("href") or "#").startswith("#") for _, attrs in read.elements)
    assert set(re.findall(r"url\((.)", read.text)) == {"#"}
    assert "//" not in re.sub(r"^\s*// .*$", "", read.text, flags=re.MULTILINE).replace("http://www.w3.org/2000/svg", "")
    assert read.of("meta", content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'")


def test_every_link_leads_somewhere_and_ids_are_given_once():
    read = Read(page_of(made_results(FEW, pruned=1, failed=1)))
    ids = Counter(attrs["id"] for _, attrs in read.elements if "id" in attrs)
    assert max(ids.values()) == 1
    targets = {attrs["href"] for _, attrs in read.elements if attrs.get("href")} | {
        f"#{name}" for name in re.findall(r"url\(#(\w+)", read.text)
    }
    assert {target.removeprefix("#") for target in targets} <= set(ids)


NASTY = "</script></style><img src=x onerror=alert(1)>\"'&{{js}}"


def _spoiled(value):
    """The same results with something nasty in every text that is free."""
    if isinstance(value, str):
        return value if value in FREE else value + NASTY
    if is_dataclass(value):
        return replace(value, **{one.name: _spoiled(getattr(value, one.name)) for one in fields(value)})
    if isinstance(value, dict):
        return {key if key in FREE else key + NASTY: _spoiled(part) for key, part in value.items()}
    return [_spoiled(part) for part in value] if isinstance(value, list | tuple) else value


FREE = {"measured", "pruned", "failed", "unfinished", "faster", "slower", "baseline", "no difference seen", "higher", "lower", "50", "90"}


@pytest.mark.parametrize("axes", [FEW, {"eye": EYES, "bridge": ("a", "b", "c", "d"), "tongue": TONGUES}], ids=["whole", "thinned"])
def test_names_of_plugins_and_files_are_text_and_never_markup(axes):
    results = made_results(axes, pruned=2, failed=1)
    plain, spoiled = Read(page_of(results)), Read(page_of(_spoiled(results)))
    assert NASTY[:20] in spoiled.text
    for tag in ("script", "style", "img", "section", "tbody"):
        assert len(spoiled.of(tag)) == len(plain.of(tag))
    assert not [attrs for _, attrs in spoiled.elements if any(name.startswith("on") for name in attrs)]


def test_bars_add_up_to_the_whole_and_name_the_remainder():
    results = made_results(FEW, nodes=9)
    page = page_of(results)
    strips = re.findall(r"<a href=#c\d+ class=row.*?</a>", page, flags=re.DOTALL)
    longest = max(cell.shares.wall_s for cell in results.cells)
    drawn = sorted(sum(float(width) for width in re.findall(r"width=([\d.e-]+)% />", strip)) for strip in strips if "<rect" in strip)
    expected = sorted(100 * cell.shares.wall_s / longest for cell in results.cells)
    assert drawn == pytest.approx(expected, abs=2)  # parts under 0.3 % are not drawn
    for name in ("inputs", "scheduler", "copies", "waiting", "outputs", "3 other nodes"):
        assert f"<i>{name}</i>" in page


def test_a_ratio_whose_interval_spans_1_is_marked_as_no_difference():
    results = made_results(FEW)
    ratio = results.cells[1].ratio
    unseen = replace(ratio, verdict="no difference seen", wall=replace(ratio.wall, value=1.01, low=0.97, high=1.05))
    page = page_of(replace(results, cells=[results.cells[0], replace(results.cells[1], ratio=unseen), *results.cells[2:]]))
    assert '<a href=#c2 class="row no"' in page
    assert "1.01× [0.970, 1.05] no difference" in page
    assert "1 show no difference" in page


def test_a_ratio_of_too_few_rounds_has_no_verdict():
    results = made_results(FEW)
    ratio = results.cells[1].ratio
    bare = replace(ratio, verdict="no difference seen", wall=replace(ratio.wall, value=1.31, low=None, high=None, n=3))
    text = Read(page_of(replace(results, cells=[results.cells[0], replace(results.cells[1], ratio=bare), *results.cells[2:]]))).text
    assert "1.31× too few rounds" in text
    assert "1 have too few rounds for an interval, and so for a verdict" in text
    assert "show no difference" not in text


def test_the_front_is_that_of_the_direction_in_which_a_metric_is_better():
    chance = random.Random(7)
    points = [(chance.randint(1, 20), chance.randint(1, 20)) for _ in range(60)]
    for higher in (True, False):
        sign = 1 if higher else -1
        beaten = {one for one in points for other in points if other[0] <= one[0] and sign * other[1] >= sign * one[1] and other != one}
        assert [points[index] for index in front(points, higher=higher)] == sorted(set(points) - beaten)


def test_pages_say_which_way_a_metric_is_better():
    text = Read(page_of(made_results(FEW))).text
    assert re.search(r"word_f1 against time.*?More is better", text)
    assert "word_f1 less baseline" in text
    assert "+0.021 [-0.013, 0.052]" in text
    assert re.search(r"wer against time.*?Less is better, in errors a word", text)


@pytest.mark.parametrize(
    ("values", "is_log"),
    [([3.0, 5.0], False), ([0.0, 900.0], False), ([0.002, 1.7], True), ([-1.0, 50.0], False), ([4.0], False), ([1e-7, 1e7], True)],
)
def test_axes_hold_their_values_and_have_few_ticks(values, is_log):
    scale = scale_over(values, most=5)
    assert scale.is_log is is_log
    assert all(0 <= scale.at(value) <= 1 for value in values)
    assert 2 <= len(scale.ticks) <= 6
    assert all(scale.low <= tick <= scale.high for tick in scale.ticks)


def test_ticks_have_no_digits_that_say_nothing():
    from modelgraft.commands import in_seconds, short_count

    assert [tick_text(value, in_seconds) for value in (0.002, 0.0125, 1.0, 100.0)] == ["2 ms", "12.5 ms", "1 s", "100 s"]
    assert tick_text(10_000_000, lambda value: short_count(round(value))) == "10 M"


def test_names_of_points_lie_over_nothing_at_any_of_the_widths():
    chance = random.Random(3)
    spots = [Spot(chance.random(), chance.uniform(0, 300), f"cell {index}") for index in range(60)]
    widths = (280.0, 400.0, 700.0)
    labels = place(spots, widths=widths, height=300)
    assert len(labels) > 10
    for width in widths:
        frames = []
        for label in labels:
            size = text_width(label.spot.name, PX)
            left = label.spot.x * width + label.dx - {"start": 0, "middle": size / 2, "end": size}[label.anchor]
            frames.append((left, label.spot.y + label.dy - 9, left + size, label.spot.y + label.dy + 2))
        for index, (left, top, right, bottom) in enumerate(frames):
            assert left >= 0
            assert right <= width
            assert not any(left < spot.x * width < right and top < spot.y < bottom for spot in spots)
            others = frames[index + 1 :]
            assert not any(left < other[2] and other[0] < right and top < other[3] and other[1] < bottom for other in others)


def test_what_commands_have_in_common_is_told_once_and_nothing_is_lost():
    commands = ["run a --x 1 --end", "run a --x 2 --y 3 --end", "run a --x 1 --y 3 --end"]
    lead, tail = in_common(commands)
    assert (lead, tail) == ("run a --x ", " --end")
    assert in_common(["same words", "same words"]) == ("same words ", "")
    assert in_common(["run alone"]) == ("", "")


def test_reasons_are_grouped_with_what_their_cells_have_in_common():
    results = made_results({"eye": ("a", "b"), "tongue": ("x", "y", "z")}, pruned=3)
    reason = Reason(code="dim-mismatch", text="b is too wide", place="b.yaml:3")
    cells = [replace(cell, reasons=[reason]) if cell.state == "pruned" else cell for cell in results.cells]
    page = page_of(replace(results, cells=cells))
    assert page.count("b is too wide") == 1
    assert "3 cells: whatever is swept</summary>" in page  # nothing tells them from the other pruned cells
    assert "b · x, b · y, b · z" in page


def test_warnings_that_differ_in_numbers_alone_are_told_once():
    results = made_results(FEW)
    cells = [replace(cell, warnings=[f"eye: {index} parameters are random"], ratio=None) for index, cell in enumerate(results.cells)]
    text = Read(page_of(replace(results, cells=cells))).text
    assert "eye: 0 parameters are random (5 more alike, with other numbers, 6 cells)" in text
    assert "eye: 1 parameters" not in text


def test_what_failed_and_what_is_missing_is_told():
    results = made_results(FEW, failed=1)
    text = Read(page_of(replace(results, is_finished=False))).text
    assert "CUDA is out of memory" in text
    assert "record 5 of every cell at eye: no picture" in text
    assert "This bench is not finished" in text
    assert "no device with memory of its own" in text
    assert "the load was 3.1 on 2 cores" in text


def test_figures_that_are_no_numbers_are_not_drawn():
    results = made_results(FEW)
    quality = Quality(metric="word_f1", output="text", better="higher", value=float("nan"), n=0)
    page = page_of(replace(results, cells=[*results.cells[:-1], replace(results.cells[-1], quality=[quality], parameters=None)]))
    assert "1 have no word_f1" in page
    assert "1 without known parameters or time are not drawn" in page
    assert not re.search(r"[xy]\d?=nan", page)


@pytest.mark.parametrize(
    "results", [made_results({"eye": EYES}, pruned=6), made_results({"eye": EYES[:1]}), made_results({"eye": EYES[:2]}, failed=2)]
)
def test_a_page_of_nothing_or_one_cell_is_a_page(results):
    read = Read(page_of(results))
    assert read.of("section", id="method")
    assert bool(read.of("section", id="charts")) is any(cell.state == "measured" for cell in results.cells)


def test_a_page_is_written_whole_or_refused(tmp_path):
    file = tmp_path / "page.html"
    write_page(made_results(FEW), file)
    assert file.read_text(encoding="utf-8").startswith("<!doctype html>")
    with pytest.raises(InputError, match="there is no folder"):
        write_page(made_results(FEW), tmp_path / "none" / "page.html")
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


def test_drawing_a_page_needs_nothing_heavy():
    code = "import sys, json; import modelgraft_plugins.benching.page; print(json.dumps(sorted(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"numpy", "torch", "onnxruntime", "transformers"} & set(json.loads(found.stdout))
