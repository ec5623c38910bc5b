"""The Q-Former computes as transformers does and is counted to the unit."""

from __future__ import annotations

import pytest
import torch
import transformers as hf

from modelgraft import InputError
from modelgraft.installed.discovery import assemble
from modelgraft.sources.families import families
from modelgraft.testing import conform, node_of
from modelgraft_plugins import qformer, text
from modelgraft_plugins.qformer import QFormer, Queries
from support import checkpoints
from support.checkpoints import Checkpoint
from support.open_part import configured, counts, open_part

REGISTRY = assemble({"qformer": qformer, "text": text})
MODEL_TYPES = families().of_medium("queries")
CLOSE = {"rtol": 0.0, "atol": 1e-5}  # float32, elementwise
INSTRUCTIONS = ["describe the cat", "what", "a red car near the house, now"]


@pytest.fixture(scope="module")
def blip2(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """BLIP-2: a Q-Former that reads pictures alone."""
    return checkpoints.blip2(tmp_path_factory.mktemp("blip2"))


@pytest.fixture(scope="module")
def instructblip(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """InstructBLIP: a Q-Former that reads an instruction too."""
    return checkpoints.instructblip(tmp_path_factory.mktemp("instructblip"))


def memory(rows: int = 3) -> torch.Tensor:
    """What an eye might give: ten tokens of width 22."""
    return torch.randn(rows, 10, 22, generator=torch.Generator().manual_seed(1))


def test_queries_read_a_picture_as_in_transformers(blip2: Checkpoint):
    """BLIP-2's queries and Q-Former, element by element."""
    queries = open_part(REGISTRY, "qformer/queries", f"{blip2.folder}#query_tokens")
    reader = open_part(REGISTRY, "qformer/qformer", f"{blip2.folder}#qformer")
    with torch.no_grad():
        wanted = blip2.model.qformer(blip2.model.query_tokens.expand(3, -1, -1), encoder_hidden_states=memory()).last_hidden_state
    torch.testing.assert_close(reader(queries(memory()), memory()), wanted, **CLOSE)


def instructed(checkpoint: Checkpoint, instructions: list[str]) -> torch.Tensor:
    """The result of our parts for a batch of instructions."""
    queries = open_part(REGISTRY, "qformer/queries", f"{checkpoint.folder}#query_tokens")
    reader = open_part(REGISTRY, "qformer/qformer", f"{checkpoint.folder}#qformer")
    tokens = open_part(REGISTRY, "text/tokenizer", str(checkpoint.folder), folder="qformer_tokenizer")(instructions)
    there = memory()[: len(instructions)]
    return reader(queries(there), there, tokens["ids"], tokens["mask"])


def test_queries_read_an_instruction_as_in_transformers(instructblip: Checkpoint):
    """InstructBLIP with instructions of different length, whose processor makes the ids."""
    ids = instructblip.processor(text=INSTRUCTIONS, padding=True, return_tensors="pt")
    mask = torch.cat([torch.ones(3, 7, dtype=torch.long), ids["qformer_attention_mask"]], dim=1)
    model = instructblip.model
    with torch.no_grad():
        wanted = model.qformer(
            ids["qformer_input_ids"], mask, query_embeds=model.query_tokens.expand(3, -1, -1), encoder_hidden_states=memory()
        ).last_hidden_state[:, :7]
    torch.testing.assert_close(instructed(instructblip, INSTRUCTIONS), wanted, **CLOSE)


def test_a_batch_of_instructions_gives_what_each_gives_alone(instructblip: Checkpoint):
    """Padding changes nothing."""
    queries = open_part(REGISTRY, "qformer/queries", f"{instructblip.folder}#query_tokens")
    reader = open_part(REGISTRY, "qformer/qformer", f"{instructblip.folder}#qformer")
    tokenize = open_part(REGISTRY, "text/tokenizer", str(instructblip.folder), folder="qformer_tokenizer")
    for row, instruction in enumerate(INSTRUCTIONS):
        there, tokens = memory()[row : row + 1], tokenize([instruction])
        alone = reader(queries(there), there, tokens["ids"], tokens["mask"])
        torch.testing.assert_close(instructed(instructblip, INSTRUCTIONS)[row : row + 1], alone, **CLOSE)


def test_an_instruction_beyond_the_positions_is_refused(instructblip: Checkpoint):
    """With both numbers, where the tokenizer states no limit of its own."""
    with pytest.raises(InputError, match=r"an instruction has \d+ tokens, and the Q-Former has positions for 40: shorten it"):
        instructed(instructblip, ["cat dog " * 60])


def test_only_a_reader_of_text_has_ports_for_it():
    """Without text there is nothing to wire."""
    sizes = {"hidden_size": 12, "encoder_hidden_size": 5, "num_attention_heads": 3}
    assert list(node_of(QFormer, sizes).in_ports) == ["queries", "memory"]
    assert list(node_of(QFormer, {**sizes, "reads_text": True}).in_ports) == ["queries", "memory", "ids", "mask"]


PUBLISHED = {"hidden_size": 768, "encoder_hidden_size": 1408}


def test_counts_are_those_of_the_publication():
    """BLIP-2's Q-Former without text, its queries, and InstructBLIP's trainable parts."""
    assert QFormer(**PUBLISHED).parameters() == 105_137_664
    assert Queries(hidden_size=768).parameters() == 24_576
    with_text = QFormer(**PUBLISHED, reads_text=True).parameters()
    to_vicuna = 768 * 4096 + 4096
    assert with_text + 24_576 + to_vicuna == 188_833_792


def test_the_formula_counts_what_is_built(blip2: Checkpoint, instructblip: Checkpoint):
    """On odd sizes, with a last layer that reads the memory and one that does not."""
    for checkpoint in (blip2, instructblip):
        for layers in (1, 2, 3, 4):
            for every in (1, 2, 3):
                node = configured(
                    REGISTRY, "qformer/qformer", f"{checkpoint.folder}#qformer", num_hidden_layers=layers, cross_attention_frequency=every
                )
                formula, built = counts(node)
                assert formula == built
        formula, built = counts(configured(REGISTRY, "qformer/queries", f"{checkpoint.folder}#query_tokens"))
        assert formula == built == 7 * 18


@pytest.mark.parametrize("kind", sorted(MODEL_TYPES))
def test_silent_configs_mean_what_transformers_means(kind: str):
    """The defaults are those of transformers' own config classes."""
    config = {"blip_2_qformer": hf.Blip2QFormerConfig, "instructblip_qformer": hf.InstructBlipQFormerConfig}[kind]()
    known = MODEL_TYPES[kind].defaults
    assert {name: getattr(config, name) for name in known} == dict(known)


def test_heads_that_do_not_divide_the_width_are_reported():
    """With the numbers that would."""
    node = node_of(QFormer, {"hidden_size": 14, "encoder_hidden_size": 5, "num_attention_heads": 3})
    found = list(node.config.review(node))
    assert found == [
        (
            "config-mismatch",
            "node has 3 attention heads, which do not divide its hidden_size 14",
            "set num_attention_heads to one of 1, 2, 7, 14",
        )
    ]


def test_another_model_is_refused(blip2: Checkpoint):
    """The message says which part to write."""
    with pytest.raises(ValueError, match=r"not model_type 'blip-2': write #qformer behind the source"):
        configured(REGISTRY, "qformer/qformer", str(blip2.folder))


@pytest.mark.parametrize(("reads_text", "norms_memory"), [(False, False), (True, False), (False, True)])
def test_the_qformer_keeps_its_declaration(reads_text: bool, norms_memory: bool):
    """Ports, repeatability, batches, count and saved state, at odd sizes."""
    sizes = {"hidden_size": 12, "encoder_hidden_size": 10, "num_attention_heads": 3, "num_hidden_layers": 3, "intermediate_size": 21}
    inputs = {"ids": torch.tensor([[3, 1, 4, 1], [5, 9, 2, 6]])} if reads_text else {}
    config = {"reads_text": reads_text, "norms_memory": norms_memory, "vocab_size": 15, "max_position_embeddings": 8}
    conform(QFormer, {**sizes, **config}, **inputs)
    conform(Queries, {"num_query_tokens": 3, "hidden_size": 10})
