"""Cards of families: what they say is found by model type, the core knows none by name, and a new one is one file."""

from __future__ import annotations

import ast
import json
import re
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf

import modelgraft as mg
from modelgraft.cli.card_proof import card_troubles
from modelgraft.installed.discovery import assemble
from modelgraft.plugin import EVERY, FamilyCard, LayoutCard, PluginError, WholeCard, hookimpl
from modelgraft.sources.families import Families, families
from modelgraft.tools.importer import import_graph
from modelgraft_plugins import counted
from support.checkpoints import randomise
from support.installed import registry
from support.open_part import configured, open_part

REGISTRY = registry()
CORE = Path(mg.__file__).parent
FOLDER = Path(__file__).resolve().parents[2] / "plugins" / "modelgraft_plugins" / "families"

WORDS = {  # model types that are words of the language as well
    "beam": "beam search",
    "bit": "16-bit pictures",
    "clip": "samples are clipped",
}


def names() -> set[str]:
    """Every family and model type that a card speaks of."""
    cards = families().cards
    kinds = {kind for card in cards for table in (card.wholes, card.towers, card.languages) for kind in table}
    return ({card.name for card in cards if not card.table} | kinds) - {EVERY, *WORDS}


def spoken(tree: ast.Module) -> list[str]:
    """The strings and names of a module, without its docstrings, which may give examples."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    prose = {id(node.body[0].value) for node in ast.walk(tree) if isinstance(node, documented) and isinstance(node.body[0], ast.Expr)}
    constants = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    texts = [node.value for node in constants if id(node) not in prose]
    named = [node.id for node in ast.walk(tree) if isinstance(node, ast.Name)]
    return [*texts, *named, *(node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute))]


def test_the_core_knows_no_family_by_name():
    """No string and no name of its code, whatever the case and however it is joined.

    `aria-label=` is an attribute of HTML, `opt_func_info` a function of numpy.
    """
    known = re.compile(rf"(?<![a-z0-9])({'|'.join(sorted(map(re.escape, names()), key=len, reverse=True))})(?![a-z0-9])", re.IGNORECASE)
    assert known.search("has_llava_tower")
    found = {
        f"{path.relative_to(CORE)}: {text[:60]!r}"
        for path in CORE.rglob("*.py")
        for text in spoken(ast.parse(path.read_text(encoding="utf-8")))
        if known.search(re.sub(r"\baria-[a-z]+=|\bopt_func_info\b", "", text))
    }
    assert found == set()


def test_every_file_of_the_folder_is_a_card_of_its_name():
    files = {path.stem for path in FOLDER.glob("*.py") if not path.stem.startswith("_")}
    assert files <= set(REGISTRY.families)
    assert {card.name for card in REGISTRY.families.values() if card.name in files} == files


def test_a_card_goes_over_a_table_and_keeps_what_it_leaves_open():
    table = FamilyCard("table", "of many", wholes={"x": WholeCard(pictures="A", tied=True), EVERY: WholeCard(keeps=True)}, table=True)
    own = FamilyCard("own", "of one", wholes={"x": WholeCard(pictures="B")})
    found = Families(tuple(sorted((table, own), key=lambda card: card.table))).whole("x")
    assert (found.pictures, found.tied, found.keeps) == ("B", True, True)
    assert Families((table,)).whole("unheard of").keeps


def test_what_the_cards_name_is_there():
    """Image processors, components, and graphs in which a checkpoint can be named; `plugins check` tells what is not."""
    found = {name: list(card_troubles(card, families(), REGISTRY)) for name, card in REGISTRY.families.items()}
    assert len(found) > 50
    assert {name: troubles for name, troubles in found.items() if troubles} == {}


def test_what_is_wrong_with_a_card_is_told_without_a_checkpoint():
    """What nobody has, graphs that no checkpoint can be put into, layouts that take whatever comes, or fail on it."""

    def layout(knows: Any) -> LayoutCard:
        return LayoutCard("theirs", knows, lambda *_: {}, lambda *_: {})

    graphs = {"a": "vitt", "b": "nextgpt", "c": "modelgraft: 1\nnodes: {x: {}}\n", "d": "vit", "e": lambda facts: facts["none"]}
    whole = WholeCard(pictures="Siglipp", components={"llm/causl": {}})
    card = FamilyCard("odd", "", wholes={"odd": whole}, graphs=graphs, layouts=(layout(lambda *_: True), layout(lambda *_: {}["k"])))
    told = list(card_troubles(card, families(), REGISTRY))
    begins = (
        "the pictures of the whole 'odd' are 'Siglipp', which no card describes. Did you mean 'Siglip'?",
        "the whole 'odd' has facts for the component 'llm/causl', which nobody offers. Did you mean 'llm/causal'?",
        "the graph of 'a' is 'vitt', which nobody ships",
        "the graph of 'b' has no parameter 'checkpoint' of its own, where a checkpoint is to be named",
        "the graph of 'c' cannot be read: graph.yaml:1",
        "the layout 'theirs' takes a source without any files for its own",
        "the layout 'theirs' fails on a source that has no such files, and every source is asked: KeyError: 'k'",
    )
    assert len(told) == len(begins)
    assert all(text.startswith(begin) for text, begin in zip(told, begins, strict=True)), told


def test_what_is_no_card_is_refused():
    @hookimpl
    def register_families(register: Any) -> None:
        register({"name": "mine"})

    mine = types.ModuleType("mine")
    mine.__dict__["register_families"] = register_families
    registry = assemble({"mine": mine})
    assert "register_families got" in registry.plugins["mine"].error


def code(text: str) -> str:
    """The first block of Python of a page."""
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)[0]


def test_the_example_of_the_page_is_a_family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The card of README.md as it stands: a checkpoint of it is imported, checked and run, and is equal to transformers."""
    module = types.ModuleType("modelgraft_plugins.families.ijepa")
    exec(compile(code((FOLDER / "README.md").read_text(encoding="utf-8")), "ijepa.py", "exec", dont_inherit=True), module.__dict__)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    found = Families((*families().cards, module.CARD))
    monkeypatch.setattr("modelgraft.sources.families._seen", (len(families().cards), found))
    model = hf.IJepaModel(
        hf.IJepaConfig(hidden_size=24, intermediate_size=37, num_hidden_layers=2, num_attention_heads=3, patch_size=5, image_size=15)
    )
    randomise(model, seed=2)
    model.eval().save_pretrained(tmp_path)
    hf.ViTImageProcessorPil(size={"height": 15, "width": 15}).save_pretrained(tmp_path)

    (tmp_path / "mine.yaml").write_text(import_graph(str(tmp_path), folder=tmp_path))
    assert not mg.check(tmp_path / "mine.yaml").warnings
    pixels = torch.randn(2, 3, 15, 15, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = model(pixels).last_hidden_state
    assert str(configured(REGISTRY, "vision/encoder", str(tmp_path)).out_ports["tokens"]) == "float[batch 9 24]"
    torch.testing.assert_close(open_part(REGISTRY, "vision/encoder", str(tmp_path))(pixels), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("graph", "told"),
    [
        ("nowhere", "the card for 'mine' names the graph 'nowhere', which nobody ships"),
        (lambda facts: facts["missing"], "the card for 'mine' gives no graph for .*: KeyError"),
        (lambda _facts: 3, "the card for 'mine' gives no graph for .*: found 3; wanted: a text"),
    ],
)
def test_a_card_without_a_graph_behind_its_word_is_told(graph: Any, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """As the mistake of the card, not as a defect of ours."""
    found = Families((*families().cards, FamilyCard("mine", "of one", graphs={"mine": graph})))
    monkeypatch.setattr("modelgraft.sources.families._seen", (len(families().cards), found))
    (tmp_path / "config.json").write_text('{"model_type": "mine"}')

    with pytest.raises(PluginError, match=told):
        import_graph(str(tmp_path))


# -- without a card --------------------------------------------------------------------------------------------------------


def saved(model: Any, folder: Path) -> Any:
    randomise(model, seed=3)
    model.eval().save_pretrained(folder)
    return model


def test_an_eye_without_a_card_is_served_by_what_its_config_states(tmp_path: Path):
    """Tokens of the width that it states, however many; and a remark that no card vouches for them."""
    sizes = {"hidden_size": 24, "intermediate_size": 37, "num_hidden_layers": 2, "num_attention_heads": 3}
    model = saved(hf.IJepaModel(hf.IJepaConfig(**sizes, patch_size=5, image_size=15)), tmp_path)
    pixels = torch.randn(2, 3, 15, 15)
    eye = open_part(REGISTRY, "vision/encoder", str(tmp_path))
    with torch.no_grad():
        expected = model(pixels, output_hidden_states=True)
    assert eye.outputs == {"tokens": "float[batch tokens 24]"}
    torch.testing.assert_close(eye(pixels), expected.last_hidden_state, rtol=0, atol=1e-6)
    torch.testing.assert_close(
        open_part(REGISTRY, "vision/encoder", str(tmp_path), layer=1)(pixels), expected.hidden_states[1], rtol=0, atol=1e-6
    )
    (remark,) = type(eye.node.config).unheeded(eye.node.source)
    assert f"no card vouches for the ijepa in {tmp_path}" in remark[0]
    with pytest.raises(ValueError, match="select: patches is not known of ijepa"):
        configured(REGISTRY, "vision/encoder", str(tmp_path), select="patches")


def test_a_reader_of_texts_without_a_card_is_served(tmp_path: Path):
    sizes = {"hidden_size": 24, "intermediate_size": 37, "num_hidden_layers": 2, "num_attention_heads": 3, "vocab_size": 31}
    model = saved(hf.ElectraModel(hf.ElectraConfig(**sizes, embedding_size=18, max_position_embeddings=19)), tmp_path)
    ids, mask = torch.randint(1, 31, (2, 7)), torch.ones(2, 7, dtype=torch.bool)
    mask[1, 5:] = False
    reader = open_part(REGISTRY, "text/encoder", str(tmp_path))
    with torch.no_grad():
        expected = model(input_ids=ids, attention_mask=mask).last_hidden_state
    assert reader.outputs == {"tokens": "float[batch text_tokens 24]"}
    torch.testing.assert_close(reader(ids, mask), expected, rtol=0, atol=1e-6)
    assert "no card vouches for the electra" in type(reader.node.config).unheeded(reader.node.source)[0][0]


@pytest.mark.parametrize(("kind", "layer"), [("UniSpeech", None), ("UniSpeech", 1), ("UniSpeechSat", -2)])
def test_an_ear_that_listens_to_samples_is_served(tmp_path: Path, kind: str, layer: int | None):
    sizes = {"hidden_size": 24, "intermediate_size": 37, "num_hidden_layers": 2, "num_attention_heads": 3, "num_conv_pos_embeddings": 4,
             "num_conv_pos_embedding_groups": 2, "conv_dim": (6, 7), "conv_stride": (5, 2), "conv_kernel": (10, 3)}  # fmt: skip
    model = saved(getattr(hf, f"{kind}Model")(getattr(hf, f"{kind}Config")(**sizes)), tmp_path)
    samples = torch.randn(2, 331)
    ear = open_part(REGISTRY, "audio/encoder", str(tmp_path), layer=layer)
    with torch.no_grad():
        found = model(samples, output_hidden_states=True)
    expected = found.last_hidden_state if layer is None else found.hidden_states[layer]
    assert ear.outputs == {"tokens": "float[batch tokens 24]"}
    torch.testing.assert_close(ear(samples), expected, rtol=0, atol=1e-5)
    assert "no card vouches" in type(ear.node.config).unheeded(ear.node.source)[0][0]


@pytest.mark.parametrize("component", ["vision/encoder", "text/encoder", "audio/encoder"])
@pytest.mark.parametrize(
    "config", [{"model_type": "nowhere"}, {"model_type": "llama", "hidden_size": 24, "vocab_size": 31, "patch_size": 5}]
)
def test_what_would_be_a_guess_is_refused(tmp_path: Path, component: str, config: dict[str, Any]):
    """A config that does not say what its tower gives, and one of a model that a card knows as something else."""
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=f"{config['model_type']}"):
        configured(REGISTRY, component, str(tmp_path))


def test_a_count_without_a_formula_is_remembered_once_it_was_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(counted, "cache_root", lambda: tmp_path)
    facts = {"model_type": "mine", "hidden_size": 7}
    assert counted.counted(facts) is None
    counted.remember(facts, 91)
    assert counted.counted(facts) == 91
    assert counted.counted({**facts, "hidden_size": 8}) is None


def test_a_style_that_no_card_has_is_told_with_those_there_are():
    styles = "auto, clip, clip_normed, eva, idefics2, idefics3, kosmos, siglip, vit"
    with pytest.raises(ValueError, match=f"family is 'resnet', wanted one of {styles}"):
        REGISTRY.components["vision/encoder"].config(family="resnet")
    with pytest.raises(ValueError, match="family: auto wants `model`"):
        REGISTRY.components["text/encoder"].config(family="auto")


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ({"wholes": {"mine": {"pictures": "A"}}}, "wholes of the family 'mine': found 'mine'"),
        ({"towers": ["mine"]}, "towers of the family 'mine': found"),
        ({"languages": {"mine": WholeCard()}}, "languages of the family 'mine': found 'mine'"),
        ({"wholes": {"mine": WholeCard(parts={"eye": "vision"})}}, "parts of the whole 'mine' of the family 'mine': found 'eye'"),
    ],
)
def test_a_card_with_a_row_of_another_kind_is_refused_where_it_is_made(rows, told):
    with pytest.raises(PluginError) as caught:
        FamilyCard("mine", "of one", **rows)
    assert str(caught.value).startswith(told)
    assert "; wanted: a " in str(caught.value)
