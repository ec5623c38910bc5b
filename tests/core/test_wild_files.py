"""No file of a checkpoint, whatever it holds, ends in anything but one error that names it."""

from __future__ import annotations

import json
import pickle
import re
import struct
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

import modelgraft as mg
from modelgraft.installed.discovery import assemble
from modelgraft.kernel.words.errors import SourceError
from modelgraft.sources import headers, pickles, views, weights
from modelgraft.sources.config_rules import MOST
from modelgraft_plugins import formats

FORMATS = assemble({"formats": formats})
BAD: list[Any] = [None, [], {}, "x", True, -1, 0.5, float("nan"), float("inf"), 10**30, 10**400, [[1]], ["x"], {"a": []}, "\ud800", [None]]
DEEP = "[" * 100_000


@pytest.fixture(autouse=True)
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the caches of the machine."""
    monkeypatch.setenv("MODELGRAFT_CACHE", str(tmp_path / "cache"))


def find(path: Path) -> views.SourceView:
    return views.find(str(path), registry=FORMATS, folder=None, trusted=True, offline=True)


def refused(path: Path) -> str:
    with pytest.raises(SourceError) as caught:
        weights.open(find(path), offline=True).state()
    assert str(path) in str(caught.value)
    return str(caught.value)


# -- safetensors -----------------------------------------------------------------------------------------------------------

ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def safetensors(path: Path, header: Any, data: bytes = bytes(8)) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


@pytest.mark.parametrize("value", BAD, ids=repr)
@pytest.mark.parametrize("key", sorted(ENTRY))
def test_a_safetensors_header_of_other_kinds_is_refused_by_tensor(tmp_path: Path, key: str, value: Any):
    path = safetensors(tmp_path / "w.safetensors", {"a": {**ENTRY, key: value}})
    assert "'a'" in refused(path)


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ({"a": []}, "without dtype, shape or data_offsets for 'a'"),
        ({"a": ENTRY, "__metadata__": [1]}, "has a __metadata__ that is no mapping of texts"),
        ({"a": ENTRY, "__metadata__": {"x": 3}}, "has a __metadata__ that is no mapping of texts"),
        (b'{"a": 1, "a": 2}', "'a' stands there twice"),
        ({"a": {**ENTRY, "shape": [1] * 65}}, "wanted a list of at most 64 sizes"),
        ({"a": {**ENTRY, "shape": [2**62, 2**62]}}, "takes more"),
        (DEEP.encode(), "its header is not JSON"),
        (b"\xff\xfe", "its header is not JSON"),
        ([1], "its header is not a JSON object"),
    ],
    ids=lambda part: str(part)[:40],
)
def test_a_safetensors_header_that_is_none_says_why(tmp_path: Path, header: Any, said: str):
    assert said in refused(safetensors(tmp_path / "w.safetensors", header))


def test_a_header_is_bounded_by_what_it_lists_and_not_only_by_its_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """It is counted before it is read."""
    monkeypatch.setattr(headers, "MOST_TENSORS", 3)
    empty = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    many = {f"t{index}": empty for index in range(4)}
    assert "lists more than 3 tensors" in refused(safetensors(tmp_path / "many.safetensors", many, b""))
    assert "lists more than 3 tensors" in refused(safetensors(tmp_path / "long.safetensors", {"a": {**ENTRY, "shape": [0] * 60}}))


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["dtype", "shape", "data_offsets", "a", "__metadata__"]), inner, max_size=3)
        ),
        max_leaves=8,
    )
)
@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
def test_any_header_is_read_or_refused(tmp_path: Path, header: Any):
    path = safetensors(tmp_path / "w.safetensors", header)
    try:
        headers.read_header(path)
    except SourceError as error:
        assert error.problems[0].code == "source-damaged"  # noqa: PT017 either way is right


# -- numbers of another kind -------------------------------------------------------------------------------------------------


def test_integers_where_floats_are_wanted_are_refused_by_name(tmp_path: Path):
    """A quantised weight read without its scales would answer with noise."""
    model = vit(tmp_path / "m")
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state["vit.embeddings.cls_token"] = torch.ones_like(state["vit.embeddings.cls_token"], dtype=torch.int8)
    save_file(state, tmp_path / "m" / "model.safetensors")
    with mg.open(mg.load("vit", params={"checkpoint": str(tmp_path / "m")})) as pipeline, pytest.raises(mg.ModelgraftError) as caught:
        pipeline.run(image=picture())
    assert "1 of another kind of numbers: tower.embeddings.cls_token is int8, wanted float32" in str(caught.value)


def picture() -> Any:
    from PIL import Image

    return Image.new("RGB", (9, 7), (200, 30, 90))


# -- configs -----------------------------------------------------------------------------------------------------------------


def vit(folder: Path) -> Any:
    sizes = {"hidden_size": 6, "intermediate_size": 5, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 4, "patch_size": 2}
    config = hf.ViTConfig(**sizes, id2label={0: "cat", 1: "dog"}, label2id={"cat": 0, "dog": 1})
    model = hf.ViTForImageClassification(config)
    model.save_pretrained(folder)
    hf.ViTImageProcessorPil(size={"height": 4, "width": 4}).save_pretrained(folder)
    return model


def llama(folder: Path) -> None:
    from support import checkpoints

    checkpoints.llama(folder)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 2, "num_beams": 1, "do_sample": True, "temperature": 0.5}))


LLAMA = """
modelgraft: 1
inputs: {prompt: text}
nodes:
  llm: {use: llm/causal, from: ./m, in: {prompt: inputs.prompt}}
outputs: {text: llm.text}
"""


def problems_of(folder: Path, kind: str) -> Iterable[str]:
    """The codes of what a check finds; anything but a GraphError fails the test."""
    try:
        if kind == "vit":
            mg.check(mg.load("vit", params={"checkpoint": str(folder / "m")}))
        else:
            (folder / "llama.yaml").write_text(LLAMA)
            mg.check(mg.load(folder / "llama.yaml"))
    except mg.GraphError as error:
        return [problem.code for problem in error.problems]
    return []


EXPECTED = {"source-damaged", "source-mismatch", "wrong-value", "missing-key", "dim-mismatch", "context-overflow", "config-mismatch",
            "missing-input", "unknown-part", "space-mismatch", "no-chat-template", "unheeded",
            "unknown-port"}  # fmt: skip  # of a family that no card knows, nobody can say that there is one
FILES = {
    "vit": ("config.json", "preprocessor_config.json"),
    "llama": ("config.json", "generation_config.json", "tokenizer_config.json", "tokenizer.json"),
}


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, names in FILES.items() for name in names])
def test_every_key_of_every_file_may_hold_anything(tmp_path: Path, kind: str, name: str):
    """A check tells what it finds by its code, and never fails in another way."""
    {"vit": vit, "llama": llama}[kind](tmp_path / "m")
    path = tmp_path / "m" / name
    whole = json.loads(path.read_text())
    assert not set(problems_of(tmp_path, kind)) - {"unheeded"}
    for key in sorted(whole):
        for value in ([], {}, "x", -1):
            path.write_text(json.dumps({**whole, key: value}))
            assert set(problems_of(tmp_path, kind)) <= EXPECTED, (key, value)


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "3", '"x"', "null", DEEP, "\ufeff{}", '{"a": ' * 5000 + "1" + "}" * 5000, '{"a": ' + "9" * 5000 + "}"],
    ids=lambda text: text[:12],
)
@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json", "processor_config.json", "model.safetensors.index.json"])
def test_a_file_that_is_no_json_object_is_one_error(tmp_path: Path, name: str, content: str):
    vit(tmp_path / "m")
    if name.endswith(".index.json"):
        (tmp_path / "m" / "model.safetensors").unlink()
    (tmp_path / "m" / name).write_text(content)
    found = list(problems_of(tmp_path, "vit"))
    assert set(found) == {"source-damaged"} or (content.startswith('{"a": {') and name != "model.safetensors.index.json")


@pytest.mark.parametrize("key", ["num_hidden_layers", "vocab_size", "hidden_size", "num_attention_heads", "intermediate_size"])
def test_a_config_that_asks_for_a_thousand_million_of_anything_is_refused_with_the_check(tmp_path: Path, key: str):
    """Before anything is counted or built, with the key and what there can be."""
    llama(tmp_path / "m")
    path = tmp_path / "m" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: 2 * 10**9}))
    (tmp_path / "llama.yaml").write_text(LLAMA)
    with pytest.raises(mg.GraphError, match=rf"config\.json: has {key}: 2000000000, wanted a whole number from 0 to {MOST[key]:,}"):
        mg.check(mg.load(tmp_path / "llama.yaml"))


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("num_hidden_layers: 1000000000", "llm.num_hidden_layers is 1000000000, wanted at most 10,000"),
        ("vocab_size: 99999999999", "llm.vocab_size is 99999999999, wanted at most 1,073,741,824"),
        ("model: {model_type: llama, num_hidden_layers: 1000000000}", "llm.model.num_hidden_layers is 1000000000, wanted a whole number"),
        ("model: {model_type: llama, text_config: {hidden_size: x}}", "llm.model.text_config.hidden_size is 'x', wanted a whole number"),
    ],
)
def test_a_graph_that_asks_for_a_thousand_million_of_anything_is_refused_with_the_check(tmp_path: Path, written: str, said: str):
    """As a config is, at its line."""
    (tmp_path / "graph.yaml").write_text(LLAMA.replace("from: ./m", f"with: {{model_type: llama, {written}}}"))
    with pytest.raises(mg.GraphError) as caught:
        mg.check(mg.load(tmp_path / "graph.yaml"))
    assert str(caught.value).startswith(f"graph.yaml:5  wrong-value  {said}")


@pytest.mark.parametrize(("key", "value"), [("rms_norm_eps", "x"), ("hidden_act", ["x"]), ("rope_parameters", -1), ("use_cache", {})])
def test_a_value_that_only_the_family_knows_is_refused_when_the_model_is_built(tmp_path: Path, key: str, value: Any):
    """With the source, the key, what was found and what was wanted: it is no defect of a plugin.

    A family that is built without transformers is told by its tokenizer, which reads the config too.
    """
    llama(tmp_path / "m")
    path = tmp_path / "m" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    (tmp_path / "llama.yaml").write_text(LLAMA)
    with mg.open(mg.load(tmp_path / "llama.yaml")) as pipeline, pytest.raises(mg.SourceError) as caught:
        pipeline.run(prompt="a")
    assert re.match(r"llama\.yaml:5  (source-damaged|no-tokenizer)  .*\./m: ", str(caught.value))
    assert f"'{key}'" in str(caught.value)


# -- GGUF --------------------------------------------------------------------------------------------------------------------


def gguf_value(value: Any) -> bytes:
    """A typed value: text 8, list 9, bool 7, whole number 4, number 6."""
    if isinstance(value, str):
        return struct.pack("<I", 8) + gguf_text(value)
    if isinstance(value, list):
        kind = {str: 8, int: 4, float: 6}[type(value[0])] if value else 4
        items = b"".join(gguf_value(item)[4:] for item in value)
        return struct.pack("<IIQ", 9, kind, len(value)) + items
    if isinstance(value, bool):
        return struct.pack("<I?", 7, value)
    return struct.pack("<If", 6, value) if isinstance(value, float) else struct.pack("<II", 4, value)


def gguf_text(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


GGUF = {
    "general.architecture": "llama", "general.alignment": 32, "llama.block_count": 1, "llama.embedding_length": 8,
    "llama.feed_forward_length": 8, "llama.context_length": 16, "llama.attention.head_count": 2, "llama.attention.head_count_kv": 2,
    "llama.attention.layer_norm_rms_epsilon": 1e-5, "llama.rope.freq_base": 10_000.0, "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.tokens": ["a", "b"], "tokenizer.ggml.token_type": [1, 1], "tokenizer.ggml.merges": ["a b"],
    "tokenizer.ggml.bos_token_id": 0, "tokenizer.ggml.add_bos_token": False, "tokenizer.chat_template": "x",
}  # fmt: skip


def gguf(path: Path, metadata: dict[str, Any], tensors: int = 0) -> Path:
    keys = b"".join(gguf_text(key) + gguf_value(value) for key, value in metadata.items())
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, tensors, len(metadata)) + keys)
    return path


@pytest.mark.parametrize("value", [["x"], [1], "x", True, 0.5, 0, 2**32 - 1, []], ids=repr)
@pytest.mark.parametrize("key", sorted(GGUF))
def test_a_gguf_value_of_another_kind_is_refused_or_has_a_meaning(tmp_path: Path, key: str, value: Any):
    """A list where a name is wanted, a text for a number: the key is named."""
    path = gguf(tmp_path / "w.gguf", {**GGUF, key: value})
    try:
        find(path)
    except SourceError as error:
        assert error.problems[0].code == "source-damaged"  # noqa: PT017 either way is right
        assert any(word in str(error) for word in (key, "architecture", "its heads", "vocab_size"))  # noqa: PT017
    assert find(gguf(tmp_path / "right.gguf", GGUF)).root["model_type"] == "llama"


@pytest.mark.parametrize(("tensors", "keys"), [(2**63, 1), (1, 2**63), (600_000, 1), (1, 200_000)])
def test_a_gguf_file_is_bounded_by_what_it_claims(tmp_path: Path, tensors: int, keys: int):
    path = tmp_path / "w.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, tensors, keys) + bytes(1_000_000))
    assert "it claims " in refused(path)


# -- pickles -----------------------------------------------------------------------------------------------------------------


def memo_bomb(deep: int) -> bytes:
    """A tuple that holds itself twice, so many times over, as the key of a mapping: its hash takes two to that power."""
    return b"\x80\x02}(K\x01" + b"".join(b"q" + bytes([n]) + b"h" + bytes([n]) + b"\x86" for n in range(deep)) + b"K\x01u."


PICKLES = {
    "marks": b"\x80\x02" + b"(" * 50_000_000,
    "orders without end": b"\x80\x02]" + b"N0" * 25_000_000,
    "a memo bomb": memo_bomb(200),
    "nothing": b"\x80\x02",
    "no order": b"\x80\x02\xff\xfe",
    "a stack that is empty": b"\x80\x02000.",
    "an unknown memo": b"\x80\x02h\x07.",
}


@pytest.mark.parametrize("zipped", [False, True], ids=["bare", "zipped"])
@pytest.mark.parametrize("name", PICKLES)
def test_a_pickle_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, zipped: bool):
    """By the number of its orders, the lists that it opens and how deep it nests: none of them is carried out."""
    monkeypatch.setattr(pickles, "MOST_ORDERS", 500_000)
    path = tmp_path / "pytorch_model.pt"
    if zipped:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("model/data.pkl", PICKLES[name])
    else:
        path.write_bytes(PICKLES[name])
    assert "cannot be read as tensors" in refused(path)


@pytest.mark.slow
@pytest.mark.parametrize("zipped", [False, True])
def test_what_torch_writes_is_within_bounds(tmp_path: Path, zipped: bool):
    """A model of many tensors in a training checkpoint, with an optimiser and lists beside it."""
    model = torch.nn.Sequential(*[torch.nn.Linear(2, 2) for _ in range(500)])
    optimiser = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimiser.step()
    path = tmp_path / "w.pt"
    whole = {"state_dict": model.state_dict(), "optimizer": optimiser.state_dict(), "step": 3, "names": [["a", ("b", 1.5)]] * 5}
    torch.save(whole, path, _use_new_zipfile_serialization=zipped)
    pickles.check(path)
    assert len(weights.open(find(path), offline=True).state()) == 1000


def test_an_archive_without_orders_is_refused(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "w.pt", "w") as archive:
        archive.writestr("x", "y")
    assert "holds no data.pkl" in refused(tmp_path / "w.pt")


def test_a_plain_pickle_is_still_told_as_one_that_could_run_code(tmp_path: Path):
    (tmp_path / "w.pt").write_bytes(pickle.dumps({"a": 1}, protocol=4))
    assert "unsafe-pickle" in refused(tmp_path / "w.pt")
