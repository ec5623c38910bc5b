"""Templates, tokenizers and text towers."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch
import transformers as hf
from pydantic import ValidationError

from modelgraft.installed.discovery import assemble, discover
from modelgraft.kernel.words.errors import InputError
from modelgraft.sources.cards import AUTO
from modelgraft.sources.families import families
from modelgraft.testing import conform, node_of, run_node
from modelgraft_plugins import text
from modelgraft_plugins.text import Encoder, Prompts, Split, Template
from support import checkpoints
from support.checkpoints import Checkpoint
from support.open_part import configured, counts, open_part

REGISTRY = assemble({"text": text})
MODEL_TYPES = {kind: card for kind, card in families().of_medium("text").items() if card.style != AUTO}
CLOSE = {"rtol": 0.0, "atol": 1e-5}  # float32, elementwise
TEXTS = ["a photo of a cat", "dog", "the grass of the dog"]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """CLIP: causal, padded to the longest, pooled at the end token."""
    return checkpoints.clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def siglip(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """SigLIP: sees both ways, padded to the full length, pooled at the last place."""
    return checkpoints.siglip(tmp_path_factory.mktemp("siglip"))


def test_a_template_is_filled_record_by_record():
    """Its fields are input ports, in the order in which they first stand."""
    config = {"template": "{where}: {what}, {{{where}}}"}
    assert list(node_of(Template, config).in_ports) == ["where", "what"]
    filled = run_node(Template, config, where=["here", "there"], what=["a cat", "{what}"])
    assert filled == {"text": ["here: a cat, {here}", "there: {what}, {there}"]}


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{a", r"cannot be read: expected '}' before end of string; write {{ and }} for braces"),
        ("{a.b}", r"has a field {a\.b}: a field is a plain name"),
        ("{a!r}", r"has a field {a}: a field is a plain name"),
        ("{}", r"has a field {}: a field is a plain name"),
    ],
)
def test_a_template_that_cannot_be_read_says_why(template: str, message: str):
    """Nothing but plain fields, so that a template reaches no attribute of a value."""
    with pytest.raises(ValidationError, match=message):
        Template(template=template)


def test_labels_go_into_every_template_and_shares_say_which_texts_are_theirs():
    """Label by label; a record with fewer is filled up with its first text, which nobody reads."""
    found = run_node(Prompts, {"templates": ("a {}", "{} or {}")}, labels=[["cat", "dog"], ["fox"]])
    assert found["prompts"] == [["a cat", "cat or cat", "a dog", "dog or dog"], ["a fox", "fox or fox"]]
    wanted = [[[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]], [[0.5, 0.5, 0, 0], [1, 0, 0, 0]]]
    torch.testing.assert_close(found["shares"], torch.tensor(wanted))


def test_prompts_keep_their_declaration():
    """Records of unlike numbers of labels are not the same alone, where nothing fills them up; so of equal ones."""
    conform(Prompts, {"templates": ("a {}", "the {}.")}, labels=[["cat", "dog"], ["fox", "hen"]])
    with pytest.raises(ValidationError, match=r"'a photo' has no \{\}"):
        Prompts(templates=("a photo",))
    with pytest.raises(InputError, match="record 1 has no labels: give at least one"):
        run_node(Prompts, labels=[["cat"], []])


def test_token_ids_equal_those_of_the_checkpoints_processor(clip: Checkpoint, siglip: Checkpoint):
    """CLIP pads to the longest of the batch, SigLIP to its full length."""
    ours = open_part(REGISTRY, "text/tokenizer", f"{clip.folder}#text_model")(TEXTS)
    theirs = clip.processor(text=TEXTS, padding=True, return_tensors="pt")
    assert torch.equal(ours["ids"], theirs["input_ids"])
    assert torch.equal(ours["mask"], theirs["attention_mask"].bool())
    full = open_part(REGISTRY, "text/tokenizer", str(siglip.folder))(TEXTS)
    assert torch.equal(full["ids"], siglip.processor(text=TEXTS, padding="max_length", max_length=17, return_tensors="pt")["input_ids"])
    assert full["ids"].shape == (3, 17)


def test_lists_of_texts_become_one_tensor(clip: Checkpoint):
    """A shorter list is filled up with empty texts, which are told; the others stay as they are alone."""
    many = open_part(REGISTRY, "text/tokenizer", str(clip.folder), many=True)([TEXTS, TEXTS[:1]])
    alone = open_part(REGISTRY, "text/tokenizer", str(clip.folder))([*TEXTS, TEXTS[0], "", ""])
    assert many["ids"].shape == (2, 3, alone["ids"].shape[1])
    assert torch.equal(many["ids"].flatten(0, 1), alone["ids"])
    assert many["there"].tolist() == [[True] * 3, [True, False, False]]


def test_a_text_that_is_too_long_is_an_error_unless_cutting_is_asked_for(clip: Checkpoint):
    """The message has both lengths; a cut text keeps its end token, where CLIP is pooled."""
    long = "the dog " * 12
    with pytest.raises(InputError, match=r"a text has 26 tokens and 19 is the most: 'the dog the"):
        open_part(REGISTRY, "text/tokenizer", str(clip.folder))([long])
    cut = open_part(REGISTRY, "text/tokenizer", str(clip.folder), truncate=True)([long])["ids"]
    assert cut.shape == (1, 19)
    assert cut[0, -1] == clip.processor.tokenizer.eos_token_id


def test_ids_are_in_the_space_of_their_vocabulary(clip: Checkpoint, siglip: Checkpoint):
    """Ids of one tokenizer do not fit the tower of another; those of the same vocabulary do, wherever it is saved."""
    given = configured(REGISTRY, "text/tokenizer", str(clip.folder)).out_ports["ids"].space
    wanted = configured(REGISTRY, "text/encoder", f"{clip.folder}#text_model").in_ports["ids"].space
    other = configured(REGISTRY, "text/encoder", f"{siglip.folder}#text_model").in_ports["ids"].space
    assert given is not None
    assert given.differences(wanted) == []
    assert [name for name, _, _ in given.differences(other)] == ["tokenizer"]


def test_kinds_of_tokenizers_are_told_apart_without_their_files(clip: Checkpoint):
    """Recorded configs name the class; a kind says nothing about a vocabulary that is on this machine."""
    published = discover()
    given = configured(published, "text/tokenizer", "openai/clip-vit-large-patch14#text_model").out_ports["ids"].space
    wanted = configured(published, "text/encoder", "openai/clip-vit-base-patch32#text_model").in_ports["ids"].space
    other = configured(published, "text/encoder", "google/siglip-so400m-patch14-384#text_model").in_ports["ids"].space
    here = configured(published, "text/encoder", f"{clip.folder}#text_model").in_ports["ids"].space
    assert given is not None
    assert given.differences(wanted) == given.differences(here) == []
    assert given.differences(other) == [("kind", "CLIPTokenizer", "SiglipTokenizer")]


def test_towers_compute_as_in_transformers(clip: Checkpoint, siglip: Checkpoint):
    """Tokens and pooled vector of a batch of texts of different length."""
    for checkpoint, padding in ((clip, {"padding": True}), (siglip, {"padding": "max_length", "max_length": 17})):
        tokens = checkpoint.processor(text=TEXTS, return_tensors="pt", **padding)
        mask = tokens["attention_mask"] if checkpoint is clip else None
        with torch.no_grad():
            wanted = checkpoint.model.text_model(tokens["input_ids"], attention_mask=mask)
        given = open_part(REGISTRY, "text/encoder", f"{checkpoint.folder}#text_model")(
            tokens["input_ids"], None if mask is None else mask.bool()
        )
        torch.testing.assert_close(given["tokens"], wanted.last_hidden_state, **CLOSE)
        torch.testing.assert_close(given["pooled"], wanted.pooler_output, **CLOSE)


def test_bert_computes_as_in_transformers(tmp_path: Path):
    """A BERT checkpoint, with its pooler."""
    config = hf.BertConfig(
        hidden_size=15, intermediate_size=22, num_hidden_layers=2, num_attention_heads=3, vocab_size=150, max_position_embeddings=20
    )
    model = hf.BertModel(config).eval()
    checkpoints.randomise(model, seed=7)
    model.save_pretrained(tmp_path)
    ids, mask = torch.tensor([[2, 9, 31, 3], [2, 8, 3, 0]]), torch.tensor([[True] * 4, [True, True, True, False]])
    encoder = open_part(REGISTRY, "text/encoder", str(tmp_path))
    with torch.no_grad():
        wanted = model(ids, attention_mask=mask)
    torch.testing.assert_close(encoder(ids, mask)["tokens"], wanted.last_hidden_state, **CLOSE)
    torch.testing.assert_close(encoder(ids, mask)["pooled"], wanted.pooler_output, **CLOSE)
    formula, built = counts(encoder.node)
    assert formula == built


def test_lists_of_texts_are_encoded_like_texts(clip: Checkpoint):
    """The axis `texts` changes nothing but the shape."""
    ids = torch.randint(1, 200, (2, 3, 7), generator=torch.Generator().manual_seed(1))
    one = open_part(REGISTRY, "text/encoder", f"{clip.folder}#text_model")(ids.flatten(0, 1), None)
    many = open_part(REGISTRY, "text/encoder", f"{clip.folder}#text_model", many=True)(ids, None)
    torch.testing.assert_close(many["pooled"].flatten(0, 1), one["pooled"], **CLOSE)
    torch.testing.assert_close(many["tokens"].flatten(0, 1), one["tokens"], **CLOSE)


def test_counts_are_those_of_the_publication(clip: Checkpoint, siglip: Checkpoint):
    """CLIP ViT-L/14's text tower; and the formula counts what is built."""
    large = Encoder(hidden_size=768, intermediate_size=3072, num_attention_heads=12)
    both_towers_projections_and_scale = 303_179_776 + large.parameters() + 1024 * 768 + 768 * 768 + 1
    assert both_towers_projections_and_scale == 427_616_513
    for checkpoint in (clip, siglip):
        formula, built = counts(configured(REGISTRY, "text/encoder", f"{checkpoint.folder}#text_model"))
        assert formula == built


@pytest.mark.parametrize("kind", sorted(MODEL_TYPES))
def test_silent_configs_mean_what_transformers_means(kind: str):
    """The defaults of every family are those of transformers' own config class."""
    config = hf.AutoConfig.for_model(kind)
    known = {name: value for name, value in MODEL_TYPES[kind].defaults.items() if value is not None}
    assert {name: getattr(config, name) for name in known} == known


@pytest.mark.parametrize("family", sorted({card.style for card in MODEL_TYPES.values()}))
@pytest.mark.parametrize("many", [False, True])
def test_the_encoder_keeps_its_declaration(family: str, many: bool):
    """Ports, repeatability, batches, count and saved state."""
    sizes = {"hidden_size": 12, "intermediate_size": 19, "num_hidden_layers": 2, "num_attention_heads": 3, "vocab_size": 23}
    shape = (2, 3, 7) if many else (2, 7)
    ids = torch.randint(1, 22, shape, generator=torch.Generator().manual_seed(1))
    ids[..., -1] = 22  # the end token, at which CLIP is pooled
    conform(Encoder, {"family": family, **sizes, "max_position_embeddings": 7, "eos_token_id": 22, "many": many}, ids=ids)


def test_a_text_is_cut_between_words():
    """Anywhere, one word or more behind the cut; by the text and the seed, whatever it stands beside."""
    texts = [f"{number} two  three\tfour five" for number in range(500)]
    found = run_node(Split, text=texts)
    counts = Counter(len(beginning.split()) for beginning in found["beginning"])
    assert {*counts} == {0, 1, 2, 3, 4}
    assert all(abs(count - 100) < 5 * (500 * 0.2 * 0.8) ** 0.5 for count in counts.values())  # each place about as often
    for whole, beginning, rest in zip(texts, found["beginning"], found["rest"], strict=True):
        assert (whole.startswith(beginning), whole.endswith(rest)) == (True, True)
        assert [*beginning.split(), *rest.split()] == whole.split()
    assert run_node(Split, text=texts[7:8])["rest"] == found["rest"][7:8]
    assert run_node(Split, seed=1, text=texts) != found
    assert run_node(Split, {"draw": 1}, text=texts) != found


def test_the_beginning_of_a_cut_text_has_as_many_words_as_are_asked_for():
    """Where there are more; a text without words cannot be cut."""
    assert run_node(Split, {"at": 2}, text=["a b c ", "a b"]) == {"beginning": ["a b", ""], "rest": ["c", "a b"]}
    found = run_node(Split, {"least": 1}, text=["a b"] * 3 + ["alone"])
    assert found == {"beginning": ["a", "a", "a", ""], "rest": ["b", "b", "b", "alone"]}
    with pytest.raises(InputError, match=r"node.text: record 1 is ' '; wanted a text of one word or more"):
        run_node(Split, text=["a", " "])


def test_texts_that_are_cut_keep_their_declarations():
    conform(Split, {})
