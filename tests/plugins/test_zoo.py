"""The table of MMBench: what was published, what our graphs count, and a verdict for each number."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest

import modelgraft as mg
from modelgraft.cli import main
from modelgraft.installed.discovery import assemble
from modelgraft.plugin import InputError, PluginError, hookimpl
from modelgraft.tools.graph_tables import Compared, compared, read_table, verdict
from support.installed import registry

TABLE = read_table(registry(), "mmbench")
# What the parts of a row have by their published sizes, added up by hand: whole models, and what of them is trained.
LLAMA_7B, LLAMA_13B, CLIP_EYE = 6_738_415_616, 13_015_864_320, 303_179_776
EVA, QFORMER, READING_QFORMER, QUERIES = 985_952_256, 105_137_664, 185_659_392, 32 * 768
RESAMPLER, GATED = 63_019_008, 8 * (2 * 4096 + 2 * 4096 * 512 + 2 * 1024 * 512 + 2 * 4096 + 8 * 4096 * 4096 + 2)
OWL_LAYER = 4 * 1024 * 1025 + 3 * 2 * 1024 + 2 * 1025 * 4096 + 4097 * 1024 + 2 * 4096  # attention, norms, feed-forward layers
OWL = 6 * OWL_LAYER + 1025 * 4096 + 4096 + 64 * 1024  # abstractor, way to the language model, learned vector, queries
VISUAL_BLOCK = 4 * 768 * 769 + 769 * 3072 + 3073 * 768 + 4 * 768
VISUAL = 769 * 768 + 2 * 768 + 10 * 768 + 8 * VISUAL_BLOCK + 769 * 4096 + 2 * 4096  # of LLaMA-Adapter, in front of the language model
PREFIX, BIASES, NORMS = 310 * 4096 + 32 * 32, 32 * (3 * 4096 + 2 * 11_008), 65 * 4096  # within it; the norms are its own
IMAGEBIND, PANDA = 1_200_781_057, 40 * 4 * 2 * 32 * 5120 + 1025 * 5120  # all of its towers; LoRA of rank 32 in attention, and a layer
MMGPT = 16 * (32 * 4 * 2 * 4096 + 8 * (2 * (4096 + 512) + 2 * 1024 + 2 * (4096 + 16_384)))  # LoRA of rank 16: four maps, five of each block
ADDED = 3  # tokens of OpenFlamingo: end of chunk, image, padding
MPT_7B = 6_649_286_656
COUNTS = {
    "OpenFlamingo": (
        LLAMA_7B + 2 * ADDED * 4096 + CLIP_EYE + RESAMPLER + GATED,
        RESAMPLER + GATED + (32_000 + ADDED) * 4096,
    ),
    "OpenFlamingo v2": (
        MPT_7B + (50_280 - 50_432) * 4096 + CLIP_EYE + RESAMPLER + GATED,
        RESAMPLER + GATED + 50_280 * 4096,
    ),
    "MMGPT": (LLAMA_7B + 2 * ADDED * 4096 + CLIP_EYE + RESAMPLER + GATED + MMGPT, MMGPT),
    "MiniGPT-4": (LLAMA_7B + EVA + QFORMER + QUERIES + 769 * 4096, 769 * 4096),
    "MiniGPT-4-13B": (LLAMA_13B + EVA + QFORMER + QUERIES + 769 * 5120, 769 * 5120),
    "PandaGPT": (LLAMA_13B + IMAGEBIND + PANDA, PANDA),
    "Otter-I": (LLAMA_7B + 2 * 4 * 4096 + CLIP_EYE + RESAMPLER + GATED, RESAMPLER + GATED + 32_004 * 4096),
    "LLaVA": (LLAMA_7B + CLIP_EYE + 1025 * 4096, LLAMA_7B + 1025 * 4096),
    "Shikra": (LLAMA_7B + CLIP_EYE + 1025 * 4096, LLAMA_7B + 1025 * 4096),
    "LLaMA-Adapter": (LLAMA_7B + CLIP_EYE + 1024 * 768 + VISUAL + PREFIX + BIASES, VISUAL + PREFIX + BIASES + NORMS),
    "mPLUG-Owl": (LLAMA_7B + CLIP_EYE + OWL, CLIP_EYE + OWL),
    "InstructBLIP": (
        LLAMA_7B + 2 * 4096 + EVA + READING_QFORMER + 768 + QUERIES + 769 * 4096,
        READING_QFORMER + 768 + QUERIES + 769 * 4096,
    ),
    "InstructBLIP-13B": (
        LLAMA_13B + 2 * 5120 + EVA + READING_QFORMER + 768 + QUERIES + 769 * 5120,
        READING_QFORMER + 768 + QUERIES + 769 * 5120,
    ),
}


@pytest.fixture(scope="module")
def rows() -> dict[str, Compared]:
    return {one.row.model: one for one in compared(TABLE, lambda graph, settings: mg.plan(mg.load(graph, params=settings)))}


@pytest.mark.parametrize("model", COUNTS)
def test_a_row_counts_what_its_parts_have(rows: dict[str, Compared], model: str):
    """To the unit: what the model has, and what is trained of it as its numbers were published."""
    assert (rows[model].parameters, rows[model].trained) == COUNTS[model]


def test_every_row_that_has_a_graph_is_counted_here(rows: dict[str, Compared]):
    assert {name for name, one in rows.items() if one.row.graph} == {*COUNTS, "KOSMOS-2"}


@pytest.mark.slow
def test_kosmos_2_counts_what_its_class_has(rows: dict[str, Compared]):
    """All of it was trained."""
    import torch
    from transformers import Kosmos2Config, Kosmos2ForConditionalGeneration

    with torch.device("meta"):
        model = Kosmos2ForConditionalGeneration(Kosmos2Config())
    count = sum(parameter.numel() for parameter in model.parameters())
    assert (rows["KOSMOS-2"].parameters, rows["KOSMOS-2"].trained) == (count, count)


def test_every_number_that_differs_says_why(rows: dict[str, Compared]):
    """And a row without a graph does, too; a row that is as it was published needs no reason."""
    for name, one in rows.items():
        cells = zip((one.row.parameters, one.row.trained), one.verdicts, strict=True)
        if not one.row.graph:
            assert one.row.why, name
            assert one.verdicts == ("not counted", "not counted")
        else:
            assert [name for cell, told in cells if told == "differs" and not cell.why] == []


def test_the_table_has_every_row_of_the_published_one():
    assert len(TABLE.rows) == 16
    assert len({row.model for row in TABLE.rows}) == 16


@pytest.mark.parametrize(
    ("published", "ours", "wanted"),
    [
        ("7.2B", 7_150_000_000, "same"),
        ("7.2B", 7_149_999_999, "differs"),
        ("1.3B", 1_384_781_840, "cut off"),
        ("1.3B", 1_400_000_000, "differs"),
        ("22.5M", 22_549_999, "same"),
        ("22.5M", 22_550_000, "cut off"),
        ("4k", 3_500, "same"),
        ("9B", None, "not counted"),
    ],
)
def test_a_verdict_looks_at_the_digits_that_were_printed(published: str, ours: int | None, wanted: str):
    assert verdict(published, ours) == wanted


def test_the_command_prints_ours_beside_the_published_numbers(capsys: pytest.CaptureFixture[str]):
    assert main(("graphs", "--table", "mmbench")) == 0
    told = capsys.readouterr().out.splitlines()
    cells = next(line for line in told if line.startswith("OpenFlamingo  ")).split()
    assert cells[-7:] == ["9B", "8,220,454,928", "differs", "1.3B", "1,309,919,248", "same", "openflamingo"]
    assert "OpenFlamingo: 9B is the name of the product" in told
    assert main(("graphs", "--table", "mmbench", "--json")) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert rows[0]["trained"] == {"published": "1.3B", "ours": 1_309_919_248, "verdict": "same"}


def test_a_table_that_there_is_not_is_told_with_those_that_there_are(capsys: pytest.CaptureFixture[str]):
    assert main(("graphs", "--table", "mmbnch")) == 1
    assert "there is no table 'mmbnch'; there are: mmbench. Did you mean 'mmbench'?" in capsys.readouterr().err


ROW = "model: A, language: B, vision: C, parameters: {published: 7B}, trained: {published: 1M}"


@pytest.mark.parametrize(
    ("row", "found"),
    [
        (f"{{{ROW}, grph: x}}", "rows.0.grph: Extra inputs are not permitted; a row has model, language"),
        (f"{{{ROW.replace('7B', 'seven')}}}", "rows.0.parameters.published: String should match pattern"),
    ],
)
def test_a_row_that_is_none_is_named_with_its_place(tmp_path: Path, row: str, found: str):
    file = tmp_path / "odd.yaml"
    file.write_text(f"about: Odd.\nrows: [{row}]\n")
    with pytest.raises(InputError, match=found):
        read_table(offering(lambda register: register("odd", file)), "odd")


def test_a_graph_that_cannot_be_counted_costs_one_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """The others are counted, and the command fails in the end."""
    file = tmp_path / "two.yaml"
    file.write_text(f"about: Two.\nrows: [{{{ROW}, graph: nowhere}}, {{{ROW}, graph: siglip}}]\n")
    registry = offering(lambda register: register("two", file))
    first, second = compared(read_table(registry, "two"), lambda graph, _: mg.plan(mg.load(graph)))
    assert first.verdicts == ("not counted", "not counted")
    assert "nowhere" in first.notes[0]
    assert second.parameters
    monkeypatch.setattr("modelgraft.installed.discovery.discover", lambda **_: registry)
    assert main(("graphs", "--table", "two")) == 1
    assert "nowhere" in capsys.readouterr().out


def test_a_plugin_that_fails_while_it_offers_a_table_is_named():
    def fail(_register):
        raise OSError("the shelf is empty")

    with pytest.raises(PluginError, match="plugin 'odd' offers no more tables: OSError: the shelf is empty"):
        read_table(offering(fail), "mmbench")


def offering(offer):
    """What is installed, and a plugin that offers tables in its own way."""

    @hookimpl(optionalhook=True)
    def register_graph_tables(register):
        offer(register)

    module = ModuleType("odd")
    module.register_graph_tables = register_graph_tables
    return assemble({"odd": module})


def test_what_a_frozen_model_trains_nevertheless_is_counted_as_trained():
    """Its embeddings, its head, or both; the total is what it was."""
    counts = {trains: mg.plan(mg.load("openflamingo", params={"nodes.llm.with.trains": list(trains)})).totals for trains in PARTS}
    table = (32_000 + ADDED) * 4096
    assert [counts[trains].trainable - counts[()].trainable for trains in PARTS] == [0, table, table, 2 * table]
    assert len({total.parameters for total in counts.values()}) == 1


PARTS = ((), ("embeddings",), ("head",), ("embeddings", "head"))


def test_an_adapter_that_is_frozen_is_not_counted_as_trained():
    frozen = {"use": "adapter/gated_cross_attention", "with": {"frozen": True}, "in": {"media": "resampler"}}
    graph = mg.load("openflamingo", params={"nodes.llm.adapters": [frozen], "nodes.llm.with.trains": []})
    assert mg.plan(graph).totals.trainable == RESAMPLER
    assert mg.plan(mg.load("openflamingo", params={"nodes.llm.with.trains": []})).totals.trainable == RESAMPLER + GATED
