"""The checker counts prompt, media and answer against the context before anything loads."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from modelgraft.installed.discovery import assemble
from modelgraft.testing import node_of
from modelgraft_plugins import llm
from modelgraft_plugins.llm import CausalConfig, Seq2SeqConfig
from support import checkpoints
from support.open_part import configured

REGISTRY = assemble({"llm": llm})
SMALL = {"model_type": "opt", "max_position_embeddings": 96, "hidden_size": 24}


def review(node: Any) -> list[tuple[str, str, str]]:
    """What the component says about the node."""
    return list(node.config.review(node))


def test_sized_media_and_the_longest_answer_are_counted():
    """Each number is spelt out; the way out is the longest answer that fits."""
    node = node_of(CausalConfig, {**SMALL, "prompt": "{image:50}{more:30}", "max_new_tokens": 20})
    assert review(node) == [
        (
            "context-overflow",
            "node reads and writes at least 100 tokens, but opt has 96 positions: 50 of image + 30 of more + 20 new (max_new_tokens)",
            "set node.max_new_tokens to at most 16, or take fewer tokens per medium or a language model with a longer context",
        )
    ]
    assert review(node_of(CausalConfig, {**SMALL, "prompt": "{image:50}{more:30}", "max_new_tokens": 16})) == []


def test_media_whose_size_the_neighbours_decide_are_counted():
    """The solved number of tokens on the port."""
    node = node_of(CausalConfig, {**SMALL, "prompt": "{image}{prompt}", "max_new_tokens": 64})
    solved = replace(node, in_ports={**node.in_ports, "image": node.in_ports["image"].bind({"image_tokens": 40})})
    assert review(node) == []
    assert "40 of image + 64 new" in review(solved)[0][1]


def test_no_answer_fits_behind_media_that_fill_the_context():
    """Then shortening the answer is not proposed."""
    node = node_of(CausalConfig, {**SMALL, "prompt": "{image:120}", "max_new_tokens": 1})
    assert review(node)[0][2] == "take fewer tokens per medium or a language model with a longer context"


def test_the_words_of_the_template_are_counted_when_the_tokenizer_is_there(tmp_path):
    """By the tokenizer of the source; without it they are left out."""
    checkpoint = checkpoints.opt(tmp_path)
    words = "describe the picture in one short sentence"
    count = len(checkpoint.processor(words, add_special_tokens=False).input_ids)
    config = {"prompt": words + "{image:60}", "max_new_tokens": 97 - 60 - count}
    with_tokenizer = configured(REGISTRY, "llm/causal", str(checkpoint.folder), **config)
    assert f"60 of image + {count} of the template's own text + {97 - 60 - count} new" in review(with_tokenizer)[0][1]
    assert review(replace(with_tokenizer, source=None)) == []


@pytest.mark.parametrize(("new", "fits"), [(28, True), (29, False)])
def test_a_decoder_with_positions_counts_its_start_tokens(new, fits):
    """Whisper: 30 positions, two start tokens."""
    config = {"model_type": "whisper", "max_position_embeddings": 30, "encoder": "none", "decoder_start_ids": (1, 2), "max_new_tokens": new}
    found = review(node_of(Seq2SeqConfig, config))
    assert (found == []) is fits
    assert fits or found[0][1:] == (
        "node begins with 2 tokens and writes 29 (max_new_tokens), but whisper has 30 positions",
        "set node.max_new_tokens to at most 28",
    )


def test_an_encoder_without_positions_has_no_limit():
    """T5 counts distances, not positions."""
    assert review(node_of(Seq2SeqConfig, {"model_type": "t5", "prompt": "{image:900}", "max_new_tokens": 900})) == []
