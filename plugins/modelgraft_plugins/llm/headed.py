"""Language models that transformers has the layers of and not the class with a head: those inside wholes such as Qwen2-VL.

A card says so (`more={"head": "put on"}`). What is made here is such a class: the layers under `model`, the head under `lm_head`, as in
every other language model of transformers, so that whatever reads, exports or changes those serves these too.
"""

from __future__ import annotations

from typing import Any

import transformers
from torch import Tensor, nn
from transformers.modeling_outputs import CausalLMOutputWithPast

from modelgraft_plugins import huggingface
from modelgraft_plugins.llm.classes import BUILT_HERE
from modelgraft_plugins.llm.known import is_put_on

ARCHITECTURE = "AutoModelForCausalLM"
Model = Any  # a model of transformers, which is only partly annotated


def build(facts: dict[str, Any]) -> Model:
    """The language model of a config, with fresh parameters, or without memory inside `parameters_without_memory()`."""
    if facts["model_type"] in BUILT_HERE:
        from modelgraft_plugins.llm import kosmos

        return huggingface.build(facts, kosmos.CLASSES[facts["model_type"]])
    if not is_put_on(facts["model_type"]):
        return huggingface.build(facts, ARCHITECTURE)
    config = huggingface.config_of(facts, "AutoModel")
    return _class_of(huggingface.class_of(config, "AutoModel"))(config)


def _class_of(body: type[Any]) -> type[Any]:
    """The class with a head for a class of layers."""
    base = next(parent for parent in body.__mro__[1:] if issubclass(parent, transformers.PreTrainedModel))

    def __init__(self: Any, config: Any) -> None:  # noqa: N807 of the class that is made
        base.__init__(self, config)
        self.model = body(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    return type(
        f"{body.__name__}WithHead",
        (base,),
        {
            "__init__": __init__, "__module__": __name__, "forward": _forward, "base_model_prefix": "model", "config_class": None,
            "_tied_weights_keys": {"lm_head.weight": "model.embed_tokens.weight"}, "_keys_to_ignore_on_load_unexpected": None,
        },
    )  # fmt: skip


def _forward(self: Any, *, position_ids: Tensor | None = None, logits_to_keep: int = 0, **given: Any) -> CausalLMOutputWithPast:
    """As the classes of transformers do: the layers, then the head at the last positions alone."""
    found = self.model(position_ids=position_ids, **given)
    hidden: Tensor = found.last_hidden_state
    logits = self.lm_head(hidden[:, -logits_to_keep:] if logits_to_keep else hidden)
    return CausalLMOutputWithPast(logits=logits, past_key_values=found.past_key_values, hidden_states=found.hidden_states)
