"""A folder that peft has saved gives the model that peft gives, whatever its adapter_config.json states; or it is refused by name."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers as hf

from modelgraft.engine.backend import LoadContext
from modelgraft.installed.discovery import assemble
from modelgraft.kernel.words.errors import SourceError
from modelgraft.sources import views, weights
from modelgraft.testing import node_of
from modelgraft_plugins import adapters
from modelgraft_plugins.adapters import OBEYED, REFUSED, TABLE, Lora
from modelgraft_plugins.adapters.lora import graft

REGISTRY = assemble({"adapters": adapters})
IDS = torch.tensor([[3, 9, 4, 20, 7]])
CLOSE = {"rtol": 1e-4, "atol": 1e-5}
SIZES = {"vocab_size": 31, "hidden_size": 16, "intermediate_size": 20, "num_hidden_layers": 3, "num_attention_heads": 4}
MODELS = {
    "llama": lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**SIZES, num_key_value_heads=2)),
    "tied": lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**SIZES, num_key_value_heads=2, tie_word_embeddings=True)),
    "qwen2": lambda: hf.Qwen2ForCausalLM(hf.Qwen2Config(**SIZES, num_key_value_heads=2)),
    "gpt2": lambda: hf.GPT2LMHeadModel(hf.GPT2Config(vocab_size=31, n_embd=16, n_layer=2, n_head=4, n_positions=32)),
    "mixtral": lambda: hf.MixtralForCausalLM(hf.MixtralConfig(**SIZES, num_key_value_heads=2, num_local_experts=3)),
}
pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]  # of peft about transformers, while it makes the oracle
BOTH = ["q_proj", "v_proj"]


class Host(torch.nn.Module):
    """What llm/causal looks like to an adapter."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def logits(self) -> torch.Tensor:
        """Of a fixed prompt."""
        with torch.no_grad():
            return self.model(IDS).logits


def model_of(kind: str) -> Any:
    """The same weights every time."""
    torch.manual_seed(4)
    model = MODELS[kind]().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def saved(kind: str, folder: Path, **settings: Any) -> torch.Tensor:
    """Train all of an adapter to random numbers, save it as peft does, and give the logits that peft has with it."""
    model = peft.get_peft_model(model_of(kind), peft.LoraConfig(task_type="CAUSAL_LM", **settings)).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
        model.save_pretrained(folder)
        return model(IDS).logits


def context_of(folder: Path, *, merge: bool) -> tuple[Lora, LoadContext]:
    """The adapter with what its source says, and its weights."""
    view = views.view(views.parse(str(folder)), registry=REGISTRY, folder=None, trusted=True, offline=True)
    opened = weights.open(view, offline=True)
    context = LoadContext(node_of(Lora), "cpu", "float32", opened, 0, offline=True, registry=REGISTRY, merge=merge)
    return Lora(**Lora.from_source(view)), context


def ours(kind: str, folder: Path, *, merge: bool) -> torch.Tensor:
    """The logits with the adapter of a folder grafted in."""
    host = Host(model_of(kind))
    grafted = graft(*context_of(folder, merge=merge))(host)
    left = {name for name, _ in host.named_parameters(remove_duplicate=False)}
    layers = {name for name, _ in Host(model_of(kind)).named_parameters(remove_duplicate=False)}
    assert not merge or {name for name in left - layers if not name.endswith("proj.bias")} == layers - left == set()
    return grafted.logits()


CASES = {
    "alpha": ("llama", {"lora_alpha": 32, "target_modules": BOTH}),
    "rslora": ("llama", {"lora_alpha": 16, "use_rslora": True, "target_modules": BOTH}),
    "alpha_pattern": ("llama", {"alpha_pattern": {"v_proj": 64, "layers.1.self_attn.q_proj": 5}, "target_modules": BOTH}),
    "rank_pattern": ("llama", {"r": 4, "rank_pattern": {"v_proj": 3, "^model.layers.2.self_attn.q_proj": 2}, "target_modules": BOTH}),
    "regex": ("llama", {"r": 2, "lora_alpha": 9, "target_modules": r".*layers\.[02]\..*(q|up)_proj"}),
    "all-linear": ("llama", {"r": 2, "lora_alpha": 9, "target_modules": "all-linear"}),
    "layers_to_transform": ("llama", {"r": 2, "target_modules": BOTH, "layers_to_transform": [0, 2], "layers_pattern": "layers"}),
    "exclude_modules": ("llama", {"r": 2, "target_modules": BOTH, "exclude_modules": r".*layers\.1\..*"}),
    "modules_to_save": ("llama", {"r": 2, "target_modules": BOTH, "modules_to_save": ["lm_head", "embed_tokens", "norm"]}),
    "modules_to_save, tied": ("tied", {"r": 2, "target_modules": BOTH, "modules_to_save": ["embed_tokens"], "ensure_weight_tying": True}),
    "bias all": ("qwen2", {"r": 2, "target_modules": BOTH, "bias": "all"}),
    "bias lora_only": ("qwen2", {"r": 2, "target_modules": BOTH, "bias": "lora_only"}),
    "dora": ("llama", {"r": 2, "lora_alpha": 5, "target_modules": BOTH, "use_dora": True}),
    "lora_bias": ("qwen2", {"r": 2, "lora_alpha": 5, "target_modules": BOTH, "lora_bias": True}),
    "lora_bias without a bias": ("llama", {"r": 2, "lora_alpha": 5, "target_modules": BOTH, "lora_bias": True}),
    "fan_in_fan_out": ("gpt2", {"r": 2, "lora_alpha": 7, "target_modules": ["c_attn"], "fan_in_fan_out": True}),
    "embeddings": ("llama", {"r": 2, "lora_alpha": 7, "target_modules": ["embed_tokens", "q_proj"]}),
    "head": ("llama", {"r": 2, "lora_alpha": 7, "target_modules": ["lm_head", "q_proj"]}),
    "head, tied": ("tied", {"r": 2, "lora_alpha": 7, "target_modules": ["lm_head", "q_proj"]}),
    "head and embeddings, tied": ("tied", {"r": 2, "target_modules": ["lm_head", "embed_tokens"]}),
    "head of GPT-2": ("gpt2", {"r": 2, "target_modules": ["lm_head", "c_attn"], "fan_in_fan_out": True}),
    "embeddings, tied": ("tied", {"r": 2, "target_modules": ["embed_tokens", "q_proj"]}),
    "tokens": ("llama", {"r": 2, "target_modules": BOTH, "trainable_token_indices": [3, 20]}),
    "parameters": ("mixtral", {"r": 2, "lora_alpha": 7, "target_modules": BOTH, "target_parameters": ["mlp.experts.gate_up_proj"]}),
}


@pytest.mark.filterwarnings("ignore::UserWarning")  # of peft, while it makes the oracle
@pytest.mark.parametrize("name", CASES)
def test_the_model_is_the_one_that_peft_gives(tmp_path, name):
    """Beside the weights of its host, and merged into them as for an export."""
    kind, settings = CASES[name]
    expected = saved(kind, tmp_path, **settings)
    assert (expected - Host(model_of(kind)).logits()).abs().max() > 0.05, "the adapter counts"
    torch.testing.assert_close(ours(kind, tmp_path, merge=False), expected, **CLOSE)
    torch.testing.assert_close(ours(kind, tmp_path, merge=True), expected, **CLOSE)


@pytest.mark.parametrize("targets", [BOTH, r".*language_model.*\.(q|v)_proj"])
def test_an_adapter_of_a_whole_fits_its_language_model(tmp_path, targets):
    """A file whose layers are named from further outside; patterns mean the names that it gives them."""
    settings = {"r": 4, "rank_pattern": {"v_proj": 3}, "alpha_pattern": {r"model\.language_model\.layers\.1\..*": 40}}
    expected = saved("llama", tmp_path, target_modules=BOTH, **{**settings, "alpha_pattern": {r"model\.layers\.1\..*": 40}})
    file = tmp_path / "adapter_model.safetensors"
    from safetensors.torch import load_file, save_file

    save_file({key.replace("model.layers", "model.language_model.layers"): tensor for key, tensor in load_file(file).items()}, file)
    config = tmp_path / "adapter_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), **settings, "target_modules": targets}))
    torch.testing.assert_close(ours("llama", tmp_path, merge=False), expected, **CLOSE)


def test_two_adapters_add_up(tmp_path):
    """The second does not go over the first."""
    model = model_of("llama")
    for name, seed in (("one", 1), ("two", 2)):
        made = peft.get_peft_model(model_of("llama"), peft.LoraConfig(r=2, lora_alpha=9, target_modules=BOTH, task_type="CAUSAL_LM"))
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for key, parameter in made.named_parameters():
                if "lora_" in key:
                    parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
            made.save_pretrained(tmp_path / name)
            for key, layer in made.base_model.model.named_modules():
                if hasattr(layer, "get_delta_weight"):
                    model.get_submodule(key).weight += layer.get_delta_weight("default")
    host = Host(model_of("llama"))
    for name in ("one", "two"):
        host = graft(*context_of(tmp_path / name, merge=False))(host)
    torch.testing.assert_close(host.logits(), Host(model).logits(), **CLOSE)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("peft_type", "IA3"), ("init_lora_weights", "pissa"), ("layer_replication", [[0, 2]]), ("alora_invocation_tokens", [3]),
        ("use_qalora", True), ("arrow_config", {"arrow_top_k": 3}),
    ],
)  # fmt: skip
def test_what_changes_the_base_model_is_refused_by_name(tmp_path, key, value):
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2, key: value}))
    view = views.view(views.parse(str(tmp_path)), registry=REGISTRY, folder=None, trusted=True, offline=True)
    with pytest.raises(ValueError, match=f"states {key}: .* which adapter/lora does not have"):
        Lora.from_source(view)


def test_a_key_that_is_new_is_told_and_a_file_alone_too(tmp_path):
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2, "temper": "hot"}))
    (tmp_path / "bare.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")

    def told(path: Path) -> str:
        view = views.view(views.parse(str(path)), registry=REGISTRY, folder=None, trusted=True, offline=True)
        return " ".join(sentence for sentence, *_ in Lora.unheeded(view))

    assert 'states temper: "hot", which is not known here' in told(tmp_path)
    assert "has no adapter_config.json beside it, so that alpha is the usual 16" in told(tmp_path / "bare.safetensors")


def test_every_key_of_peft_is_in_the_table():
    """A key that is new in LoraConfig fails here: obey it, refuse it, or say why it changes nothing."""
    assert {field.name for field in dataclasses.fields(peft.LoraConfig)} - TABLE.known == set()
    assert set(OBEYED) | set(REFUSED) <= TABLE.known


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"targets": "(q"}, r"targets has '\(q', which is no regular expression"),
        ({"exclude_modules": "[z"}, "exclude_modules has .* which is no regular expression"),
        ({"rank_pattern": {"(q": 3}}, "rank_pattern has .* which is no regular expression"),
        ({"alpha_pattern": {"*": 3}}, "alpha_pattern has .* which is no regular expression"),
        ({"rank_pattern": {"q_proj": 0}}, "greater than 0"),
        ({"targets": ".*q_proj", "layers_to_transform": [0]}, "layers_to_transform goes with a list of `targets`"),
    ],
    ids=str,
)
def test_what_peft_would_stumble_over_is_refused_by_the_check(config, message):
    with pytest.raises(ValueError, match=message):
        Lora(**config)


def test_a_token_that_the_host_lacks_is_an_error_of_the_adapter(tmp_path):
    """Not a defect of the plugin."""
    saved("llama", tmp_path, r=2, target_modules=BOTH)
    _, context = context_of(tmp_path, merge=False)
    with pytest.raises(SourceError, match=r"peft cannot graft the adapter .* out of bounds"):
        graft(Lora(trainable_token_indices=(99,)), dataclasses.replace(context, weights=None))(Host(model_of("llama")))
