"""Read a GGUF language model (llama and qwen2 architectures) into a folder in Hugging Face layout.

Tensors are de-quantised to float32 by the `gguf` package, one at a time; names, and the order of the rows of the query
and key projections, become those of transformers. Checked against transformers' own reader in tests/plugins.
"""

from __future__ import annotations

import gc
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelgraft.plugin import PublishedBlocks, give_back_freed
from modelgraft_plugins.formats import bpe, gguf_blocks, gguf_file, gguf_keys, gguf_rope, tensor_file
from modelgraft_plugins.formats.gguf_file import GgufFile, Stored
from modelgraft_plugins.formats.wild import tells_damage
from modelgraft_plugins.stated import REMARKS

if TYPE_CHECKING:
    import numpy as np

VERSION = 2
PIECE = 1 << 20  # numbers that are de-quantised at once
ARCHITECTURES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM"}
CONTROL, USER_DEFINED = 3, 4  # kinds of tokens in GGUF

NAMES: Mapping[str, str] = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


@tells_damage
def peek(path: Path) -> dict[str, Any]:
    """The config.json of the model, from the metadata alone. Raises ValueError for what cannot be read."""
    return _config(gguf_file.read(path))


@tells_damage
def read(path: Path, folder: Path) -> None:
    """Write config.json, generation_config.json, model.safetensors and the tokenizer's files. Raises ValueError."""
    source = gguf_file.read(path)
    config = _config(source)
    ids: dict[str, Any] = {name: config[name] for name in ("bos_token_id", "eos_token_id", "pad_token_id") if name in config}
    _write_json(folder / "config.json", config)
    _write_json(folder / "generation_config.json", {**ids, **_ends(source.metadata)})
    _write_tokenizer(source, folder, config)
    entries = [entry for stored in source.tensors if (entry := _entry(source, stored, config)) is not None]
    tensor_file.write(folder / "model.safetensors", entries, dtype="F32")
    del source, entries  # the words of a vocabulary are a hundred megabytes of small objects
    gc.collect()
    give_back_freed()


@tells_damage
def blocks(path: Path) -> dict[str, Callable[[], PublishedBlocks]]:
    """What reads the matrices that the file holds in blocks of 4 or 8 bits, as they are stored, by their names in transformers."""
    source = gguf_file.read(path)
    config, found = _config(source), dict[str, Callable[[], PublishedBlocks]]()
    for stored in source.tensors:
        if gguf_blocks.holds(stored) and (named := _named(stored, config)) is not None:
            name, heads = named
            found[name] = partial(gguf_blocks.read, source, stored, partial(_rows_of_halves, heads=heads) if heads else _as_stored)
    return found


def _ends(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """All tokens that end an answer: of the text, of a turn, of a message to a tool."""
    found = (metadata.get(f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot", "eom"))
    ids = list(dict.fromkeys(id for id in found if id is not None))
    return {"eos_token_id": ids if len(ids) > 1 else ids[0]} if ids else {}


def _config(source: GgufFile) -> dict[str, Any]:
    metadata = source.metadata
    kind = metadata.get("general.architecture")
    if kind not in ARCHITECTURES:
        raise ValueError(f"it holds a model of the architecture '{kind}'; those read are {', '.join(ARCHITECTURES)}")
    get = _by_kind(metadata, kind)
    heads, width = get("attention.head_count"), get("embedding_length")
    head_size = get("attention.key_length", get("rope.dimension_count", width // heads))
    for name in ("attention.value_length", "rope.dimension_count"):
        if get(name, head_size) != head_size:
            raise ValueError(
                f"its metadata state {kind}.{name} = {get(name)}, where its heads are {head_size} wide: such models are not read"
            )
    remarks = gguf_keys.check(metadata, kind, head_size=head_size)
    config = {
        "architectures": [ARCHITECTURES[kind]],
        "model_type": kind,
        "vocab_size": len(metadata.get("tokenizer.ggml.tokens", ())) or get("vocab_size"),
        "hidden_size": width,
        "intermediate_size": get("feed_forward_length"),
        "num_hidden_layers": get("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": get("attention.head_count_kv", heads),
        "max_position_embeddings": get("context_length"),
        "rms_norm_eps": get("attention.layer_norm_rms_epsilon"),
        "rope_parameters": gguf_rope.rope_parameters(source, get, head_size=head_size),
        "hidden_act": "silu",
        "tie_word_embeddings": all(stored.name != "output.weight" for stored in source.tensors),
        "dtype": "float32",
    }
    if kind == "llama":
        config |= {"head_dim": head_size, **_windowed(get)}
    elif get("attention.sliding_window", 0) or head_size != width // heads:
        raise ValueError(f"its metadata state a sliding window, or heads {head_size} wide, which a {kind} is not read with")
    for name, key in (("bos", "bos"), ("eos", "eos"), ("pad", "padding")):
        if (id := metadata.get(f"tokenizer.ggml.{key}_token_id")) is not None:
            config[f"{name}_token_id"] = id
    return {**config, REMARKS: remarks} if remarks else config


def _windowed(get: Callable[..., Any]) -> dict[str, Any]:
    """Mistral is stored as a llama that looks back a stretch; transformers has it under its own name."""
    window = get("attention.sliding_window", 0)
    if not window or window >= get("context_length"):
        return {}
    return {"architectures": ["MistralForCausalLM"], "model_type": "mistral", "sliding_window": window}


def _by_kind(metadata: Mapping[str, Any], kind: str) -> Callable[..., Any]:
    def get(name: str, default: Any = None) -> Any:  # Any: metadata are numbers of several types
        value = metadata.get(f"{kind}.{name}", default)
        if value is None:
            raise ValueError(f"its metadata lack {kind}.{name}")
        return value

    return get


def _entry(source: GgufFile, stored: Stored, config: Mapping[str, Any]) -> tensor_file.Entry | None:
    """Name, shape and maker of one tensor; None for tables that transformers computes itself."""
    if (named := _named(stored, config)) is None:
        return None
    name, heads = named

    def make() -> np.ndarray | Iterator[np.ndarray]:
        import numpy as np

        pieces = _dequantised(source.path, stored)
        return _rows_of_halves(np.concatenate(list(pieces)), heads) if heads else pieces

    return name, stored.shape, make


def _named(stored: Stored, config: Mapping[str, Any]) -> tuple[str, int | None] | None:
    """The name of a tensor in transformers, and of how many heads its rows are in the order of GGUF; None for a table of angles."""
    if stored.name == gguf_rope.FREQUENCIES:
        return None
    found = re.fullmatch(r"(?:blk\.(?P<layer>\d+)\.)?(?P<name>\w+)\.(?P<kind>weight|bias)", stored.name)
    if found is None or found["name"] not in NAMES:
        raise ValueError(f"it has a tensor '{stored.name}' that this architecture does not have")
    layer = f"model.layers.{found['layer']}." if found["layer"] else ""
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}.get(found["name"])
    heads = heads if config["model_type"] != "qwen2" else None  # only llama's rows are reordered when GGUF is written
    return f"{layer}{NAMES[found['name']]}.{found['kind']}", heads


def _rows_of_halves(tensor: np.ndarray, heads: int) -> np.ndarray:
    """Undo the row order of GGUF: there the two halves that a rotation mixes alternate, in transformers they follow each other."""
    pairs = tensor.reshape(heads, tensor.shape[0] // heads // 2, 2, *tensor.shape[1:])  # [heads half 2 ...]
    return pairs.swapaxes(1, 2).reshape(tensor.shape)


def _as_stored(tensor: np.ndarray) -> np.ndarray:
    return tensor


def _dequantised(path: Path, stored: Stored) -> Iterator[np.ndarray]:
    """A tensor, some rows after the others."""
    import gguf
    import numpy as np
    from gguf.quants import dequantize

    try:
        kind = gguf.GGMLQuantizationType(stored.kind)
    except ValueError as error:
        raise ValueError(f"tensor '{stored.name}' has the unknown quantisation {stored.kind}") from error
    block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    wanted = math.prod(stored.shape) // block * block_bytes
    if stored.start + wanted > path.stat().st_size:
        raise ValueError(f"it is cut: tensor '{stored.name}' ends at byte {stored.start + wanted}, the file has {path.stat().st_size}")
    width = stored.shape[-1]
    row_bytes, together = width // block * block_bytes, math.prod(stored.shape[1:-1])  # rows that are one of the first axis
    rows, step = math.prod(stored.shape[:-1]), max(1, PIECE // max(width * together, 1)) * together
    for start in range(0, rows, max(step, 1)):  # what the package makes on the way takes several times as much as what it gives
        piece = np.empty((min(step, rows - start), width), np.float32)
        raw = np.fromfile(path, dtype=np.uint8, count=len(piece) * row_bytes, offset=stored.start + start * row_bytes)
        if gguf_blocks.holds(stored):
            gguf_blocks.widen(raw.reshape(len(piece), width // gguf_blocks.SIZE, -1), kind, piece)  # in half the time of the package
        else:
            piece[:] = dequantize(raw.reshape(len(piece), row_bytes), kind)
        yield piece.reshape(-1, *stored.shape[1:])


def _write_tokenizer(source: GgufFile, folder: Path, config: Mapping[str, Any]) -> None:
    metadata = source.metadata
    if metadata.get("tokenizer.ggml.model") != "gpt2":
        _write_tokenizer_by_transformers(source, folder)
        return
    tokens, kinds = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.token_type"]
    first = config.get("bos_token_id") if metadata.get("tokenizer.ggml.add_bos_token", False) else None
    last = config.get("eos_token_id") if metadata.get("tokenizer.ggml.add_eos_token", False) else None
    content = bpe.tokenizer_json(
        tokens,
        metadata["tokenizer.ggml.merges"],
        split=metadata.get("tokenizer.ggml.pre", "default"),
        special=[id for id, kind in enumerate(kinds) if kind == CONTROL],
        added=[id for id, kind in enumerate(kinds) if kind == USER_DEFINED],
        first=first,
        last=last,
    )
    named = {f"{name}_token": tokens[config[f"{name}_token_id"]] for name in ("bos", "eos", "pad") if f"{name}_token_id" in config}
    if (unknown := metadata.get("tokenizer.ggml.unknown_token_id")) is not None:
        named["unk_token"] = tokens[unknown]
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_max_length": config["max_position_embeddings"],
        **named,
    }
    if template := _chat_template(metadata):
        settings["chat_template"] = template
    _write_json(folder / "tokenizer.json", content)
    _write_json(folder / "tokenizer_config.json", settings)


def _chat_template(metadata: Mapping[str, Any]) -> str | list[dict[str, str]] | None:
    """The chat template, or all of them by name where there are several."""
    head = "tokenizer.chat_template"
    usual, named = metadata.get(head), {key.removeprefix(f"{head}."): text for key, text in metadata.items() if key.startswith(f"{head}.")}
    if not named:
        return usual
    every = {**({"default": usual} if usual else {}), **named}
    return [{"name": name, "template": text} for name, text in every.items()]


def _write_tokenizer_by_transformers(source: GgufFile, folder: Path) -> None:
    """Vocabularies with scores. Begin and end tokens are put around a text as the file states it, not as the class would."""
    from transformers import AutoTokenizer

    metadata = source.metadata
    AutoTokenizer.from_pretrained(str(source.path.parent), gguf_file=source.path.name).save_pretrained(str(folder))
    tokens = metadata["tokenizer.ggml.tokens"]
    adds = {"bos": metadata.get("tokenizer.ggml.add_bos_token", True), "eos": metadata.get("tokenizer.ggml.add_eos_token", False)}
    ids = {name: metadata.get(f"tokenizer.ggml.{name}_token_id") if wanted else None for name, wanted in adds.items()}
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["post_processor"] = bpe.around(tokens, first=ids["bos"], last=ids["eos"])
    _write_json(path, content)
    settings_path = folder / "tokenizer_config.json"
    settings = json.loads(settings_path.read_text(encoding="utf-8"))
    for key in ("add_bos_token", "add_eos_token"):
        settings[key] = adds[key.split("_")[1]]
    _write_json(settings_path, settings)


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")  # without an indent, which is written ten times as slowly
