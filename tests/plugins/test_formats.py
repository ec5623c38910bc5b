"""Readers of weight files give the tensors that were written; recorded configs hold the published numbers."""

from __future__ import annotations

import contextlib
import json
import random
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file

from modelgraft.installed.discovery import assemble
from modelgraft.kernel.words.errors import SourceError
from modelgraft.sources import views, weights
from modelgraft_plugins import formats
from modelgraft_plugins.formats import bpe, ctranslate2, ctranslate2_file, gguf, gguf_file

REGISTRY = assemble({"formats": formats})
TEXT = "The 2  cats' 31 hats \n\n weren't\there — été 你好"


def randomised(model: torch.nn.Module) -> torch.nn.Module:
    """All parameters random, norms and biases too."""
    generator = torch.Generator().manual_seed(3)
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3
    return model.eval()


# GGUF

LLAMA = {
    "vocab_size": 260,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 50,
    "rms_norm_eps": 1e-5,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
    "rope_theta": 5000.0,
}


def byte_vocabulary() -> list[str]:
    """Markers, then the 256 bytes in the alphabet of byte-level BPE, then one merge."""
    from tokenizers.pre_tokenizers import ByteLevel

    return ["<unk>", "<s>", "</s>", *sorted(ByteLevel.alphabet()), "at"]


def gguf_of(path: Path, model, kind: str, quantisation: str = "F32", **extra) -> Path:
    """Write a model as llama.cpp's converter does; the permutation of rows is written here as loops."""
    import gguf as library

    config = model.config
    writer = library.GGUFWriter(path, kind)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    if "head_width" in extra:
        writer.add_key_length(extra["head_width"])
        writer.add_value_length(extra["head_width"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(5000.0)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(extra.get("pre", "smollm"))
    writer.add_token_list(byte_vocabulary())
    writer.add_token_types([3, 3, 3, *[1] * 257])
    writer.add_token_merges(["a t"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)
    writer.add_add_bos_token(extra.get("starts", False))
    writer.add_chat_template("{{ messages[0].content }}!")
    back = {name: ours for ours, name in gguf.NAMES.items()}
    for key, tensor in model.state_dict().items():
        if key == "lm_head.weight" and config.tie_word_embeddings:
            continue
        stem, _, ending = key.rpartition(".")
        layer, stem = (f"blk.{stem.split('.')[2]}.", stem.split(".", 3)[3]) if stem.startswith("model.layers.") else ("", stem)
        name = back[stem]
        heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}.get(name) if kind == "llama" else None
        values = interleaved(tensor, heads).numpy() if heads else tensor.numpy()
        raw = library.GGMLQuantizationType[quantisation if values.ndim > 1 else "F32"]
        packed = library.quants.quantize(values, raw)
        writer.add_tensor(f"{layer}{name}.{ending}", packed, raw_dtype=raw)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def interleaved(tensor: torch.Tensor, heads: int) -> torch.Tensor:
    """Row 2i of a head is row i of its first half, row 2i+1 row i of its second half."""
    size = tensor.shape[0] // heads
    rows = [tensor[head * size + half * (size // 2) + i] for head in range(heads) for i in range(size // 2) for half in (0, 1)]
    return torch.stack(rows)


@pytest.mark.parametrize("tied", [True, False])
def test_a_gguf_llama_becomes_the_model_it_was_made_of(tmp_path, tied):
    """Every tensor bit for bit, grouped queries included; the config gives the same logits."""
    model = randomised(transformers.LlamaForCausalLM(transformers.LlamaConfig(**LLAMA, tie_word_embeddings=tied)))
    path = gguf_of(tmp_path / "m.gguf", model, "llama")
    (tmp_path / "out").mkdir()
    gguf.read(path, tmp_path / "out")
    found, report = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(report.values())
    for key, tensor in model.state_dict().items():
        assert torch.equal(found.state_dict()[key], tensor), key
    ids = torch.tensor([[1, 40, 7, 200, 3]])
    assert torch.equal(found.eval()(ids).logits, model(ids).logits)
    assert json.loads((tmp_path / "out" / "config.json").read_text()) == gguf.peek(path)


def test_a_gguf_qwen2_keeps_its_biases_and_the_order_of_its_rows(tmp_path):
    model = randomised(transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**LLAMA, tie_word_embeddings=True)))
    gguf.read(gguf_of(tmp_path / "m.gguf", model, "qwen2", pre="qwen2"), tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    assert set(state) == set(model.state_dict()) - {"lm_head.weight"}
    assert all(torch.equal(tensor, model.state_dict()[key]) for key, tensor in state.items())


@pytest.mark.parametrize("quantisation", ["Q8_0", "Q4_1", "Q5_0", "F16"])
def test_quantised_tensors_are_those_that_transformers_reads(tmp_path, quantisation):
    sizes = {**LLAMA, "hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4}  # blocks hold 32 numbers
    model = randomised(transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes, tie_word_embeddings=True)))
    path = gguf_of(tmp_path / "m.gguf", model, "llama", quantisation)
    gguf.read(path, tmp_path)
    theirs = transformers.LlamaForCausalLM.from_pretrained(tmp_path, gguf_file="m.gguf", dtype=torch.float32).state_dict()
    ours = load_file(tmp_path / "model.safetensors")
    assert all(torch.equal(tensor, theirs[key]) for key, tensor in ours.items())
    assert any(not torch.equal(tensor, model.state_dict()[key]) for key, tensor in ours.items()) or quantisation == "F32"


@pytest.mark.parametrize("shape", [(7, 256), (256,), (3, 5, 64)])
def test_a_tensor_is_dequantised_in_pieces_as_the_package_does_at_once(tmp_path, monkeypatch, shape):
    """Of rows that no piece has all of, and of one row; wherever the tensor begins."""
    from gguf import GGMLQuantizationType as Kind
    from gguf.quants import dequantize, quantize

    monkeypatch.setattr(gguf, "PIECE", 700)
    numbers = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    for kind in (Kind.F32, Kind.F16, Kind.BF16, Kind.Q4_0, Kind.Q4_1, Kind.Q5_1, Kind.Q8_0):
        whole, file = quantize(numbers, kind), tmp_path / "tensor"
        file.write_bytes(b"xyz" + whole.tobytes())
        found = np.concatenate(list(gguf._dequantised(file, gguf_file.Stored("a", shape, int(kind), 3))))
        np.testing.assert_array_equal(found, dequantize(whole, kind))


def test_the_tokenizer_of_a_gguf_file_splits_digits_joins_merges_and_gives_the_text_back(tmp_path):
    model = randomised(transformers.LlamaForCausalLM(transformers.LlamaConfig(**LLAMA, tie_word_embeddings=True)))
    gguf.read(gguf_of(tmp_path / "m.gguf", model, "llama", starts=True), tmp_path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    ids = tokenizer(TEXT)["input_ids"]
    assert ids[0] == 1
    assert tokenizer.decode(ids[1:]) == TEXT
    assert byte_vocabulary().index("at") in ids
    assert tokenizer("</s>", add_special_tokens=False)["input_ids"] == [2]
    assert tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False) == "Hi!"
    assert (tokenizer.eos_token_id, tokenizer.model_max_length) == (2, 50)


@pytest.mark.parametrize("split", sorted(bpe.SPLITS))
def test_every_way_of_splitting_gives_the_text_back(split):
    """Bytes go in and come out; digits stay alone where the models count them so."""
    from tokenizers import Tokenizer

    content = bpe.tokenizer_json(byte_vocabulary(), ["a t"], split=split, special=[0, 1, 2], added=[], first=None)
    tokenizer = Tokenizer.from_str(json.dumps(content))
    assert tokenizer.decode(tokenizer.encode(TEXT).ids) == TEXT
    pieces = [piece for piece, _ in tokenizer.pre_tokenizer.pre_tokenize_str("a 123456")]
    assert pieces == {"llama-bpe": ["a", "Ġ", "123", "456"], "smollm": ["a", "Ġ", *"123456"], "qwen2": ["a", "Ġ", *"123456"]}.get(
        split, ["a", "Ġ123456"]
    )


@pytest.mark.parametrize(
    ("merges", "written"), [(["a t"], ["a t"]), (["#version x"], [["#version", "x"]]), (["a t", "at  "], [["a", "t"], ["at", " "]])]
)
def test_merges_are_written_as_texts_unless_one_could_be_taken_for_another_thing(merges, written):
    """A text is read sooner than a pair; the package `tokenizers` takes one that begins with #version for a remark."""
    content = bpe.tokenizer_json(byte_vocabulary(), merges, split="gpt-2", special=[], added=[], first=None)
    assert content["model"]["merges"] == written


def test_an_unknown_way_of_splitting_is_named():
    with pytest.raises(ValueError, match="splits text in the way 'odd'; the ways known are gpt-2, default, smollm"):
        bpe.tokenizer_json(["a"], [], split="odd", special=[], added=[], first=None)


def test_a_gguf_file_that_was_cut_anywhere_is_one_error(tmp_path, monkeypatch):
    """The header is cut at 40 places, the tensors at one."""
    monkeypatch.setenv("MODELGRAFT_CACHE", str(tmp_path / "cache"))
    model = randomised(transformers.LlamaForCausalLM(transformers.LlamaConfig(**LLAMA, tie_word_embeddings=True)))
    whole = gguf_of(tmp_path / "m.gguf", model, "llama").read_bytes()
    cut = tmp_path / "cut.gguf"
    for length in (*range(0, 8000, 200), len(whole) - 100):
        cut.write_bytes(whole[:length])
        with pytest.raises(SourceError, match=rf"^source-damaged  {cut}: cannot be read: "):
            weights.open(_view(str(cut)), offline=True)
    assert not list((tmp_path / "cache").rglob("config.json"))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"GGML" + bytes(20), "it does not start with GGUF"),
        (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), r"it is of GGUF version 1; the versions read are \(2, 3\)"),
        (b"GGUF" + struct.pack("<IQQ", 3, 10**15, 0), "it claims 1000000000000000 entries in 24 bytes"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 2**63) + b"x", "it claims 9223372036854775808 entries"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1) + b"x" + struct.pack("<I", 77), "a value of the unknown type 77"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 0), None),
    ],
)
def test_a_hostile_gguf_header_is_refused(tmp_path, content, said):
    (tmp_path / "m.gguf").write_bytes(content)
    if said is None:
        with pytest.raises(ValueError, match="it holds a model of the architecture 'None'; those read are llama, qwen2"):
            gguf.peek(tmp_path / "m.gguf")
        return
    with pytest.raises(ValueError, match=said):
        gguf_file.read(tmp_path / "m.gguf")


# CTranslate2

WHISPER = {
    "vocab_size": 90,
    "num_mel_bins": 7,
    "d_model": 12,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_attention_heads": 3,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 20,
    "decoder_ffn_dim": 28,
    "max_source_positions": 11,
    "max_target_positions": 13,
    "pad_token_id": 80,
    "bos_token_id": 80,
    "eos_token_id": 80,
    "decoder_start_token_id": 81,
    "begin_suppress_tokens": [3],
    "suppress_tokens": [5, 6],
}
SPECIAL = ["<|endoftext|>", "<|startoftranscript|>", "<|startofprev|>", "<|notimestamps|>"]


def whisper() -> transformers.WhisperForConditionalGeneration:
    """Random, and exact in half precision."""
    model = randomised(transformers.WhisperForConditionalGeneration(transformers.WhisperConfig(**WHISPER)))
    for parameter in model.parameters():
        parameter.data = parameter.data.half().float()
    return model


def ctranslate2_of(folder: Path, model, *, packed: bool = False, **numbers: int) -> Path:
    """Write a model as CTranslate2's converter does: rows joined, keys with a bias of zeros, the output an alias."""
    folder.mkdir(exist_ok=True)
    state = {key.removeprefix("model."): tensor for key, tensor in model.state_dict().items()}
    variables: dict[str, np.ndarray] = {
        f"{side}/num_heads": np.int16(model.config.to_dict()[f"{side}_attention_heads"]) for side in ("encoder", "decoder")
    }

    variables |= {f"decoder/{name}": np.int8(value) for name, value in numbers.items()}

    def joined(name: str, keys: list[str], kind: str) -> None:
        zeros = torch.zeros(model.config.d_model)
        variables[name] = torch.cat([state.get(f"{key}.{kind}", zeros) for key in keys]).numpy()

    def linear(name: str, *keys: str) -> None:
        joined(f"{name}/weight", list(keys), "weight")
        joined(f"{name}/bias", list(keys), "bias")

    def norm(name: str, key: str) -> None:
        variables[f"{name}/gamma"], variables[f"{name}/beta"] = state[f"{key}.weight"].numpy(), state[f"{key}.bias"].numpy()

    for name in ("conv1", "conv2"):
        linear(f"encoder/{name}", f"encoder.{name}")
    variables["decoder/embeddings/weight"] = state["decoder.embed_tokens.weight"].numpy()
    for side in ("encoder", "decoder"):
        variables[f"{side}/position_encodings/encodings"] = state[f"{side}.embed_positions.weight"].numpy()
        norm(f"{side}/layer_norm", f"{side}.layer_norm")
        for i in range(model.config.to_dict()[f"{side}_layers"]):
            ours, theirs = f"{side}.layers.{i}", f"{side}/layer_{i}"
            own, other = f"{ours}.self_attn", f"{ours}.encoder_attn"
            norm(f"{theirs}/self_attention/layer_norm", f"{own}_layer_norm")
            linear(f"{theirs}/self_attention/linear_0", f"{own}.q_proj", f"{own}.k_proj", f"{own}.v_proj")
            linear(f"{theirs}/self_attention/linear_1", f"{own}.out_proj")
            if side == "decoder":
                norm(f"{theirs}/attention/layer_norm", f"{other}_layer_norm")
                linear(f"{theirs}/attention/linear_0", f"{other}.q_proj")
                linear(f"{theirs}/attention/linear_1", f"{other}.k_proj", f"{other}.v_proj")
                linear(f"{theirs}/attention/linear_2", f"{other}.out_proj")
            norm(f"{theirs}/ffn/layer_norm", f"{ours}.final_layer_norm")
            linear(f"{theirs}/ffn/linear_0", f"{ours}.fc1")
            linear(f"{theirs}/ffn/linear_1", f"{ours}.fc2")
    _write_ctranslate2(folder / "model.bin", variables, packed=packed)
    tokens = [{"content": token, "id": 80 + i} for i, token in enumerate(SPECIAL)]
    (folder / "tokenizer.json").write_text(json.dumps({"added_tokens": tokens}))
    (folder / "config.json").write_text(json.dumps({"suppress_ids": [5, 6], "suppress_ids_begin": [3], "alignment_heads": [[1, 0]]}))
    return folder / "model.bin"


def _write_ctranslate2(path: Path, variables: dict[str, np.ndarray], *, packed: bool) -> None:
    stored: dict[str, np.ndarray] = {}
    for name, value in variables.items():
        if packed and name.endswith("weight") and value.ndim == 2:
            scale = 127 / np.abs(value).max(axis=1)
            stored[name], stored[f"{name}_scale"] = np.rint(value * scale[:, None]).astype(np.int8), scale.astype(np.float32)
        else:
            stored[name] = value.astype(np.float16) if value.dtype == np.float32 else np.asarray(value)
    codes = {"float32": 0, "int8": 1, "int16": 2, "float16": 4}

    def text(value: str) -> bytes:
        return struct.pack("<H", len(value) + 1) + value.encode() + b"\0"

    out = struct.pack("<I", 6) + text("WhisperSpec") + struct.pack("<II", 3, len(stored))
    for name, value in stored.items():
        out += text(name) + struct.pack(f"<B{value.ndim}I", value.ndim, *value.shape)
        out += struct.pack("<BI", codes[value.dtype.name], value.nbytes) + value.tobytes()
    out += struct.pack("<I", 1) + text("decoder/projection/weight") + text("decoder/embeddings/weight")
    path.write_bytes(out)


def test_a_ctranslate2_whisper_becomes_the_model_it_was_made_of(tmp_path):
    model = whisper()
    path = ctranslate2_of(tmp_path / "in", model)
    (tmp_path / "out").mkdir()
    ctranslate2.read(path, tmp_path / "out")
    found, report = transformers.WhisperForConditionalGeneration.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(report.values())
    for key, tensor in model.state_dict().items():
        assert torch.equal(found.state_dict()[key], tensor), key
    written = found.config.to_dict()
    assert {name: written[name] for name in WHISPER} == WHISPER
    assert json.loads((tmp_path / "out" / "config.json").read_text()) == ctranslate2.peek(path)
    generation = found.generation_config
    assert (generation.no_timestamps_token_id, generation.prev_sot_token_id, generation.suppress_tokens) == (83, 82, [5, 6])
    assert generation.is_multilingual is False
    assert transformers.AutoFeatureExtractor.from_pretrained(tmp_path / "out").feature_size == 7


def test_eight_bit_weights_are_scaled_back_by_row(tmp_path):
    """Within half a step of each row, which is its largest number / 127."""
    model = whisper()
    ctranslate2.read(ctranslate2_of(tmp_path / "in", model, packed=True), tmp_path)
    for key, tensor in load_file(tmp_path / "model.safetensors").items():
        original = model.state_dict()[key]
        if original.ndim == 2 and "embed_positions" not in key:
            step = original.abs().amax(dim=1, keepdim=True) / 127
            assert ((tensor - original).abs() <= 0.501 * step).all(), key
        else:
            assert torch.equal(tensor.float(), original), key


def test_a_ctranslate2_file_that_was_cut_anywhere_is_one_error(tmp_path, monkeypatch):
    monkeypatch.setenv("MODELGRAFT_CACHE", str(tmp_path / "cache"))
    path = ctranslate2_of(tmp_path / "in", whisper())
    whole = path.read_bytes()
    for length in range(0, len(whole), len(whole) // 40):
        path.write_bytes(whole[:length])
        with pytest.raises(SourceError, match=rf"^source-damaged  {path}: cannot be read: "):
            weights.open(_view(str(path)), offline=True)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (struct.pack("<I", 99), "it starts with 99, which is no version of the CTranslate2 layout that is read"),
        (struct.pack("<IHcxII", 6, 2, b"x", 1, 10**9), "it claims 1000000000 variables"),
        (struct.pack("<IHcxIIHcxBIBI", 6, 2, b"x", 1, 1, 2, b"w", 1, 7, 0, 3), r"variable 'w' has 3 bytes, which is not <f4\[7\]"),
        (struct.pack("<IHcxIIHcxBBI", 6, 2, b"x", 1, 1, 2, b"w", 0, 50, 3), "variable 'w' is of the unknown dtype 50"),
        (struct.pack("<IHcxIIIHcxHcx", 6, 2, b"x", 1, 0, 1, 2, b"a", 2, b"b"), "'a' stands for 'b', which it does not have"),
    ],
)
def test_a_hostile_ctranslate2_header_is_refused(tmp_path, content, said):
    (tmp_path / "model.bin").write_bytes(content)
    with pytest.raises(ValueError, match=said):
        ctranslate2_file.read(tmp_path / "model.bin")


def _view(text: str) -> views.SourceView:
    return views.view(views.parse(text), registry=REGISTRY, folder=None, trusted=True, offline=True)


@pytest.mark.parametrize("name", ["m.gguf", "model.bin"])
def test_a_file_with_changed_bytes_is_read_or_refused(tmp_path, monkeypatch, name):
    """Sixty files, each with a few bytes of its header changed at random: no error but the documented one."""
    monkeypatch.setenv("MODELGRAFT_CACHE", str(tmp_path / "cache"))
    llama = randomised(transformers.LlamaForCausalLM(transformers.LlamaConfig(**LLAMA, tie_word_embeddings=True)))
    path = gguf_of(tmp_path / name, llama, "llama") if name == "m.gguf" else ctranslate2_of(tmp_path, whisper())
    whole, chance, refusals = path.read_bytes(), random.Random(name), 0
    for _ in range(60):
        changed = bytearray(whole)
        for _ in range(chance.choice([1, 2, 5])):
            changed[chance.randrange(3000)] = chance.choice([0, 1, 255, chance.randrange(256)])
        path.write_bytes(changed)
        try:
            weights.open(_view(str(path)), offline=True).state()
        except SourceError as error:
            refusals += 1
            assert [problem.code for problem in error.problems] == ["source-damaged"]  # noqa: PT017 whether one comes is by chance
    assert 0 < refusals < 60


@pytest.mark.parametrize("value", [3, "x", [], [3], ["x"], [{"content": 3}], [{"content": "a", "id": "b"}], {}, None], ids=repr)
@pytest.mark.parametrize(
    ("name", "key"), [("tokenizer.json", "added_tokens"), ("config.json", "lang_ids"), ("config.json", "suppress_ids")]
)
def test_what_lies_beside_a_ctranslate2_file_may_hold_anything(tmp_path, name, key, value):
    """It is read, or one error; a file of another kind is no defect of the reader."""
    path = ctranslate2_of(tmp_path / "in", whisper())
    beside = path.with_name(name)
    beside.write_text(json.dumps({**(json.loads(beside.read_text()) if beside.is_file() else {}), key: value}))
    (tmp_path / "out").mkdir()
    with contextlib.suppress(ValueError):
        ctranslate2.peek(path)
        ctranslate2.read(path, tmp_path / "out")


@pytest.mark.parametrize("form", ["gguf", "ctranslate2"])
def test_a_file_with_any_byte_changed_is_read_or_one_error(tmp_path, form):
    """Bytes of its layout, sizes and names above all; never an error of another kind, never a memory that is filled."""
    if form == "gguf":
        path, reader = (
            gguf_of(tmp_path / "m.gguf", randomised(transformers.LlamaForCausalLM(transformers.LlamaConfig(**LLAMA))), "llama"),
            gguf,
        )
    else:
        path, reader = ctranslate2_of(tmp_path / "in", whisper()), ctranslate2
    whole = path.read_bytes()
    draw = random.Random(7)
    for trial in range(150):
        changed = bytearray(whole)
        changed[draw.randrange(min(len(whole), 3000))] = draw.choice((0, 1, 8, 9, 127, 255))
        path.write_bytes(changed)
        with contextlib.suppress(ValueError):
            reader.peek(path)
            if trial % 5 == 0:
                (tmp_path / f"out{trial}").mkdir()
                reader.read(path, tmp_path / f"out{trial}")


@pytest.mark.parametrize(
    ("numbers", "message"),
    [({"alibi": 1}, r"decoder/alibi = 1"), ({"pre_norm": 0}, "decoder/pre_norm = 0"), ({"activation": 9}, r"activations \[9\]")],
)
def test_a_number_that_makes_another_model_of_a_ctranslate2_file_is_refused(tmp_path, numbers, message):
    with pytest.raises(ValueError, match=message):
        ctranslate2.peek(ctranslate2_of(tmp_path, whisper(), **numbers))


def test_what_a_ctranslate2_file_states_and_nothing_knows_is_told(tmp_path):
    """The activation is read, what changes nothing is not told."""
    path = ctranslate2_of(tmp_path, whisper(), temper=4, activation=1, alibi=0, pre_norm=1, alignment_layer=-1)
    found = ctranslate2.peek(path)
    assert found["activation_function"] == "gelu_pytorch_tanh"
    ((sentence, _),) = found["modelgraft_remarks"]
    assert "model.bin states temper: 4" in sentence
