"""The ports of an answer that a language model is to learn: see teaching.py. Without torch, because declarations name them."""

from __future__ import annotations

from collections.abc import Mapping

from modelgraft.plugin import Port, port

TARGET = "target"  # the input port of the answer that is given
GIVEN_ANSWER = port("optional[text]", doc="the answer that the model is to learn; none: all those of a conversation, see `target_logits`")
TAUGHT: Mapping[str, Port] = {
    "target_logits": port(
        "float[batch target_tokens vocabulary]",
        doc="the logits in front of each token of `target` behind the prompt, with gradients where something is trained; 0 behind the end",
    ),
    "target_ids": port("int64[batch target_tokens]", doc="the tokens of `target`, and the one that ends answers; -100 behind the end"),
}
