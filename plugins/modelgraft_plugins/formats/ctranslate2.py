"""Read a Whisper model in CTranslate2 form (`model.bin`) into a folder in Hugging Face layout.

Beside the file its `config.json` (tokens that must not be spoken) and `tokenizer.json` are read. Three facts of the format:
query, key and value rows are joined in one matrix, keys carry a bias of zeros that Whisper does not have, and the output
matrix is the embedding under another name. Eight-bit weights come with a scale per row.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelgraft_plugins.formats import ctranslate2_file, ctranslate2_keys, tensor_file
from modelgraft_plugins.formats.ctranslate2_file import CTranslate2File
from modelgraft_plugins.formats.wild import tells_damage
from modelgraft_plugins.stated import REMARKS

if TYPE_CHECKING:
    import numpy as np

VERSION = 2
ENGLISH_ONLY = 51_864  # vocabulary of the English models; the multilingual ones have more
LONGEST_CHUNK_S = 30  # Whisper always hears 30 seconds
FEATURES = {
    "feature_extractor_type": "WhisperFeatureExtractor",
    "processor_class": "WhisperProcessor",
    "chunk_length": LONGEST_CHUNK_S,
    "sampling_rate": 16_000,
    "hop_length": 160,
    "n_fft": 400,
    "n_samples": 480_000,
    "nb_max_frames": 3000,
    "padding_side": "right",
    "padding_value": 0.0,
    "return_attention_mask": False,
}


@tells_damage
def peek(path: Path) -> dict[str, Any]:
    """The config.json of the model, from the shapes alone. Raises ValueError for what cannot be read."""
    return _config(_open(path), _neighbour(path, "config.json"), _special_tokens(path))


@tells_damage
def read(path: Path, folder: Path) -> None:
    """Write configs, tokenizer and model.safetensors. Raises ValueError for what cannot be read."""
    source, settings, special = _open(path), _neighbour(path, "config.json"), _special_tokens(path)
    if not special:
        raise ValueError("there is no tokenizer.json beside it")
    config = _config(source, settings, special)
    _write_json(folder / "config.json", config)
    _write_json(folder / "generation_config.json", _generation(config, settings, special))
    _write_json(folder / "preprocessor_config.json", {**FEATURES, "feature_size": config["num_mel_bins"]})
    end = "<|endoftext|>"
    tokenizer = {"tokenizer_class": "WhisperTokenizer", "bos_token": end, "eos_token": end, "pad_token": end, "unk_token": end}
    _write_json(folder / "tokenizer_config.json", {**tokenizer, "model_max_length": 1024})
    shutil.copyfile(path.with_name("tokenizer.json"), folder / "tokenizer.json")
    halves = all(stored.dtype in ("<f2", "<i1", "<i2") or not stored.shape for stored in source.variables.values()) and not _is_packed(
        source
    )
    tensor_file.write(folder / "model.safetensors", list(_entries(source, config)), dtype="F16" if halves else "F32")


def _open(path: Path) -> CTranslate2File:
    source = ctranslate2_file.read(path)
    if source.kind != "WhisperSpec":
        raise ValueError(f"it holds a model of the kind '{source.kind}'; of CTranslate2 files only WhisperSpec is read")
    return source


def _is_packed(source: CTranslate2File) -> bool:
    return any(name.endswith("/weight_scale") for name in source.variables)


def _config(source: CTranslate2File, settings: Mapping[str, Any], special: Mapping[str, int]) -> dict[str, Any]:
    shapes = {name: stored.shape for name, stored in source.variables.items()}
    vocabulary, width = shapes["decoder/embeddings/weight"]
    layers = {
        side: sum(name.startswith(f"{side}/layer_") and name.endswith("/ffn/linear_0/bias") for name in shapes)
        for side in ("encoder", "decoder")
    }
    end = special.get("<|endoftext|>", 50_256 if vocabulary == ENGLISH_ONLY else 50_257)
    remarks = ctranslate2_keys.check(source, settings)
    return {
        **({REMARKS: remarks} if remarks else {}),
        "architectures": ["WhisperForConditionalGeneration"],
        "model_type": "whisper",
        "is_encoder_decoder": True,
        "vocab_size": vocabulary,
        "d_model": width,
        "num_mel_bins": shapes["encoder/conv1/weight"][1],
        "max_source_positions": shapes["encoder/position_encodings/encodings"][0],
        "max_target_positions": shapes["decoder/position_encodings/encodings"][0],
        **{f"{side}_layers": layers[side] for side in layers},
        "num_hidden_layers": layers["encoder"],
        **{f"{side}_attention_heads": source.scalar(f"{side}/num_heads") for side in layers},
        **{f"{side}_ffn_dim": shapes[f"{side}/layer_0/ffn/linear_0/bias"][0] for side in layers},
        "activation_function": ctranslate2_keys.activation_of(source),
        "scale_embedding": False,
        "tie_word_embeddings": True,
        "bos_token_id": end,
        "eos_token_id": end,
        "pad_token_id": end,
        "decoder_start_token_id": special.get("<|startoftranscript|>", end + 1),
        "begin_suppress_tokens": settings.get("suppress_ids_begin", [220, end]),
        "suppress_tokens": settings.get("suppress_ids", []),
        "dtype": "float32",
    }


def _generation(config: Mapping[str, Any], settings: Mapping[str, Any], special: Mapping[str, int]) -> dict[str, Any]:
    copied = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id", "begin_suppress_tokens", "suppress_tokens")
    found: dict[str, Any] = {
        **{name: config[name] for name in copied},
        "is_multilingual": config["vocab_size"] > ENGLISH_ONLY,
        "max_length": config["max_target_positions"],
        "max_initial_timestamp_index": 50,  # speech starts within the first second, as in the published settings
        "return_timestamps": False,
        "no_timestamps_token_id": special["<|notimestamps|>"],
        "prev_sot_token_id": special["<|startofprev|>"],
        "alignment_heads": settings.get("alignment_heads", []),
    }
    if found["is_multilingual"]:
        tasks = ("translate", "transcribe")
        found["task_to_id"] = {task: special[f"<|{task}|>"] for task in tasks}
        found["lang_to_id"] = {token: id for token, id in special.items() if id in set(settings.get("lang_ids", ()))}
    return found


def _entries(source: CTranslate2File, config: Mapping[str, Any]) -> Iterator[tensor_file.Entry]:
    """Name, shape and maker of each tensor, in the names of transformers."""
    width = config["d_model"]
    for name, stored in source.variables.items():
        if not stored.shape or name.endswith("/weight_scale") or name == "decoder/projection/weight":
            continue
        side, _, rest = name.partition("/")
        for target, rows in _targets(rest, width):
            start, stop = rows if rows is not None else (0, stored.shape[0])
            yield f"model.{side}.{target}", (stop - start, *stored.shape[1:]), _maker(source, name, start, stop)


Rows = tuple[int, int] | None  # the rows of the stored matrix that a tensor takes; None: all
_PLAIN = {"embeddings/weight": "embed_tokens.weight", "position_encodings/encodings": "embed_positions.weight"}
_NORMS = {"self_attention": "self_attn_layer_norm", "attention": "encoder_attn_layer_norm", "ffn": "final_layer_norm"}
_KINDS = {"gamma": "weight", "beta": "bias", "weight": "weight", "bias": "bias"}


def _targets(name: str, width: int) -> list[tuple[str, Rows]]:
    """The tensors of transformers that one variable becomes; the first part of its name (encoder, decoder) is cut off."""
    if name in _PLAIN:
        return [(_PLAIN[name], None)]
    *path, kind = name.split("/")
    kind = _KINDS[kind]
    if len(path) == 1:  # conv1, conv2, layer_norm
        return [(f"{path[0]}.{kind}", None)]
    layer, block, part = path
    head = f"layers.{layer.removeprefix('layer_')}."
    if part == "layer_norm":
        return [(f"{head}{_NORMS[block]}.{kind}", None)]
    if block == "ffn":
        return [(f"{head}fc{int(part.removeprefix('linear_')) + 1}.{kind}", None)]
    projections = _projections(block, part)
    head += "self_attn." if block == "self_attention" else "encoder_attn."
    rows: list[Rows] = [(i * width, (i + 1) * width) for i in range(len(projections))]
    return [
        (f"{head}{projection}.{kind}", row)
        for projection, row in zip(projections, rows, strict=True)
        if (projection, kind) != ("k_proj", "bias")
    ]


def _projections(block: str, part: str) -> tuple[str, ...]:
    if block == "self_attention":
        return {"linear_0": ("q_proj", "k_proj", "v_proj"), "linear_1": ("out_proj",)}[part]
    return {"linear_0": ("q_proj",), "linear_1": ("k_proj", "v_proj"), "linear_2": ("out_proj",)}[part]


def _maker(source: CTranslate2File, name: str, start: int, stop: int) -> Callable[[], np.ndarray]:
    def make() -> np.ndarray:
        tensor = source.array(name)[start:stop]
        if name + "_scale" not in source.variables:
            return tensor
        scale = source.array(name + "_scale")  # one number, or one for each row
        scaled: np.ndarray = tensor.astype("float32") / (scale[start:stop, None] if scale.size > 1 else scale)
        return scaled

    return make


def _special_tokens(path: Path) -> dict[str, int]:
    return {token["content"]: token["id"] for token in _neighbour(path, "tokenizer.json").get("added_tokens", ())}


def _neighbour(path: Path, name: str) -> dict[str, Any]:
    beside = path.with_name(name)
    if not beside.is_file():
        return {}
    try:
        found = json.loads(beside.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the {name} beside it is not JSON: {str(error).partition(chr(10))[0]}") from error
    if not isinstance(found, dict):
        raise ValueError(f"the {name} beside it is not a JSON object")  # noqa: TRY004 what a file holds is a value, not a type of ours
    return found


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8")
