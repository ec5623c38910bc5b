"""`modelgraft import` writes a graph of parts for a checkpoint, with nothing of another checkpoint left in it."""

from __future__ import annotations

from pathlib import Path

import pytest

import modelgraft as mg
from modelgraft.tools.importer import import_graph
from support import checkpoints
from support.pictures import picture

FAMILIES = {
    "clip": ("clip", {}, {"labels": ["a photo of a cat", "dog"]}, "label"),
    "siglip": ("siglip", {}, {"labels": ["a photo of a cat", "dog"]}, "label"),
    "vit": ("vit", {}, {}, "label"),
    "blip2 with OPT": ("blip2", {"language": "opt"}, {"prompt": "a photo of"}, "text"),
    "blip2 with T5": ("blip2", {"language": "t5"}, {"prompt": "a photo of"}, "text"),
    "instructblip": ("instructblip", {}, {"prompt": "describe it"}, "text"),
    "llava": ("llava", {}, {"prompt": "what is it?"}, "text"),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_written_graph_runs_as_it_stands(tmp_path: Path, family: str):
    """It names the checkpoint beside it, needs no setting, and answers like the shipped graph."""
    name, options, inputs, output = FAMILIES[family]
    getattr(checkpoints, name)(tmp_path / "model", **options)
    path = tmp_path / "mine.yaml"
    path.write_text(import_graph(str(tmp_path / "model"), folder=tmp_path))
    with mg.open(path) as mine, mg.open(name, params={"checkpoint": str(tmp_path / "model")}) as shipped:
        image = picture(31, 17)
        assert mine.run(image=image, **inputs)[output] == shipped.run(image=image, **inputs)[output]


def test_shapes_and_choices_are_those_of_the_checkpoint(tmp_path: Path):
    """Comments with the sizes of the published model are brought up to date, and the component that was left open is named."""
    checkpoints.blip2(tmp_path / "model", language="t5")
    lines = import_graph(str(tmp_path / "model"), folder=tmp_path).splitlines()
    assert '  checkpoint: {default: "./model", doc: "hub id or folder of a BLIP-2, with OPT or with T5"}' in lines
    assert "    use: llm/seq2seq" in lines
    assert [line.partition("# ")[2] for line in lines if "[batch" in line] == ["[batch 10 22]", "[batch 7 18], learned"]
    assert lines[0].startswith("# Ask a question about a picture")


def test_a_checkpoint_elsewhere_is_named_by_its_absolute_path(tmp_path: Path):
    """So the graph is sound wherever it is written to."""
    theirs = checkpoints.vit(tmp_path / "model")
    path = tmp_path / "graphs" / "mine.yaml"
    path.parent.mkdir()
    path.write_text(import_graph(str(tmp_path / "model"), folder=path.parent))
    assert f'checkpoint: {{default: "{tmp_path}/model",' in path.read_text()
    assert mg.check(path).nodes["vision"].config.hidden_size == theirs.model.config.hidden_size


def test_a_published_checkpoint_needs_no_files():
    """Its recorded config is enough."""
    text = import_graph("Salesforce/blip2-flan-t5-xl")
    assert 'checkpoint: {default: "Salesforce/blip2-flan-t5-xl"' in text
    assert "use: llm/seq2seq" in text


def test_a_checkpoint_of_another_kind_is_refused_with_those_there_are(tmp_path: Path):
    """The message lists the kinds that shipped graphs are for."""
    checkpoints.opt(tmp_path)
    with pytest.raises(mg.SourceError, match=r"no-graph  .* of the kind 'opt'; there are graphs for: .*blip-2, clip, "):
        import_graph(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(mg.SourceError, match=r"no-graph  the config of .* has no model_type"):
        import_graph(str(tmp_path))


@pytest.mark.parametrize("name", ["my-checkpoint", "run#best", "a/b/c", "two words"])
def test_a_folder_that_is_there_needs_no_dot_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str):
    """`modelgraft import NAME` takes the folder of that name, and the written graph is sound wherever it lies."""
    checkpoints.vit(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    for folder in (tmp_path, tmp_path / "elsewhere"):
        (folder / "mine.yaml").write_text(import_graph(name, folder=folder))
        assert mg.check(folder / "mine.yaml").nodes["vision"].source.folder == tmp_path / name
