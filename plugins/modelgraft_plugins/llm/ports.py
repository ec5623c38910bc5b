"""The ports of language models: their names, and what goes through them. Without torch, because declarations name them."""

from __future__ import annotations

from collections.abc import Mapping

from modelgraft.plugin import Port, port
from modelgraft_plugins.llm import template

GIVEN = "continuations"  # the input port of texts whose likelihood is asked for
CONTINUATIONS = port("optional[list[text]]", doc="texts that may stand behind the prompt, whose likelihood is asked for: see `likelihoods`")
SETTINGS = "settings"  # the input port of what single records want otherwise
OF_RECORDS = port(
    "optional[object]",
    doc="settings of a single record, which go over those of the node: an object such as {temperature: 0.7, max_new_tokens: 40, seed: 3}",
)
DRAFT = "draft"  # the input port of a model that guesses
WRITTEN = ("ids", "logprobs", "states", "pieces")  # taps of answers
ASKED = ("prompt_ids", "prompt_states", "prompt_pieces")  # taps of prompts
LIKELY = ("likelihoods", "greedy", "continuation_ids", "continuation_logprobs")  # taps of continuations
TAPS = (*WRITTEN, *LIKELY)  # of an encoder-decoder; one that reads its prompt itself has those of prompts as well
PROMPT_OUTPUTS: Mapping[str, Port] = {
    "prompt_ids": port("int64[batch asked]", doc="the tokens of the prompt; -1 where an embedding stands, and behind the end"),
    "prompt_states": port(
        "float[batch state_layers asked_positions hidden_size]",
        doc="hidden states where tokens of the prompt stand, or those that `states.at` names, in their order; 0 behind the last",
    ),
    "prompt_pieces": port("list[text]", doc="what each token of `prompt_ids` says; of tokens that `states.at` names their names"),
}
OUTPUTS: Mapping[str, Port] = {
    "text": port("text", doc="the new text, without special tokens"),
    "logits": port("float[batch vocabulary]", doc="the logits of the first new token"),
    "ids": port("int64[batch new]", doc="the tokens of the answer, end tokens too; -1 behind an answer that is shorter than others"),
    "logprobs": port("float[batch new]", doc="their log-probabilities by the model alone, before any rule; 0 behind the end"),
    "states": port(
        "float[batch state_layers positions hidden_size]",
        doc="hidden states where the tokens of the answer stand, or those that `states.at` names, in their order; 0 behind the last",
    ),
    "pieces": port(
        "list[text]",
        doc="what each token of `ids` adds to `text`; of tokens that `states.at` names, which then add nothing, their names",
    ),
    **PROMPT_OUTPUTS,
    "likelihoods": port(
        "float[batch continuations]",
        doc="of each of the continuations its log-probability by the model alone, before any rule; -inf where a record has fewer",
    ),
    "greedy": port("bool[batch continuations]", doc="whether each token of a continuation is the likeliest one in its place"),
    "continuation_ids": port("int64[batch continuations tokens]", doc="the tokens of the continuations; -1 behind one that is shorter"),
    "continuation_logprobs": port("float[batch continuations tokens]", doc="the log-probability of each of these; 0 behind the end"),
}
TARGET = "target"  # the input port of the answer that is given
GIVEN_ANSWER = port("optional[text]", doc="the answer that the model is to learn; none: of llm/causal all those of a conversation")
TAUGHT: Mapping[str, Port] = {
    "target_logits": port(
        "float[batch target_tokens vocabulary]",
        doc="the logits in front of each token of `target` behind the prompt, with gradients where something is trained; 0 behind the end",
    ),
    "target_ids": port("int64[batch target_tokens]", doc="the tokens of `target`, and the one that ends answers; -100 behind the end"),
    "target_pieces": port("list[text]", doc="what each token of `target_ids` says; of tokens that `states.at` names their names"),
    "target_states": port(
        "float[batch state_layers target_positions hidden_size]",
        doc="hidden states where tokens of `target` stand, or those that `states.at` names, in their order, in the pass that gives"
        " `target_logits`, with gradients; 0 behind the last",
    ),
}


def field_port(field: template.Field) -> Port:
    """The input of a field of the template."""
    if field.tokens is not None:
        return port(f"float[batch {field.tokens} hidden_size]", doc=f"{field.tokens} embeddings that take the place of {{{field.name}}}")
    if field.many:
        doc = f"for each record any number of media, whose embeddings stand where the text says, or at {{{field.name}}}"
        return port(f"float[batch {field.name}_tokens hidden_size]", several="*", doc=doc)
    if field.ragged:
        doc = f"the embeddings of all media of a record, one medium behind the other: see {field.name}_lengths"
        return port(f"float[batch {field.name}_tokens hidden_size]", doc=doc)
    doc = f"a text, a conversation or embeddings that take the place of {{{field.name}}}"
    return port(f"text | label | conversation | float[batch {field.name}_tokens hidden_size]", doc=doc)


def beside_ports(field: template.Field, deep: int) -> dict[str, Port]:
    """The inputs that tell of the media of a field."""
    media, texts = f"batch {field.name}_media", f"in the place of each medium of {{{field.name}}}"
    ports = {
        template.LENGTHS: port(f"int64[{media}]", doc="how many embeddings each medium of a record has; 0 where it has fewer media"),
        template.WORDS: port(
            "optional[list[text]]", doc=f"the text {texts}, with the placeholder for each of its embeddings, or runs of them"
        ),
        template.GRIDS: port(f"optional[int64[{media} 3]]", doc="frames, rows and columns of the embeddings of each, for M-RoPE"),
        template.PACES: port(f"optional[float[{media}]]", doc="M-RoPE: how far a frame stands behind the one before it; none: 1"),
    }
    if deep:
        vectors = f"optional[float[batch {deep} {field.name}_tokens hidden_size]]"
        ports[template.DEEP] = port(vectors, doc=f"what is added to each embedding of {{{field.name}}} behind the first layers, one each")
    return {f"{field.name}_{kind}": found for kind, found in ports.items()} if field.ragged else {}
