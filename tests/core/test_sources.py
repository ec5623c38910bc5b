"""Where a part comes from: the grammar, the folders and caches it is looked for in, and what a document may name."""

from __future__ import annotations

import contextlib
import json
import os
import struct
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from modelgraft.installed.discovery import assemble
from modelgraft.kernel.words.errors import SourceError
from modelgraft.sources import views
from modelgraft.sources.headers import read_header
from modelgraft.sources.storage import remember_named, sha256_of
from modelgraft.sources.views import SourceView, parse

NOTHING = assemble({})
CLIP = {"model_type": "clip", "text_config": {"model_type": "clip_text_model", "hidden_size": 3}, "vision_config": {"hidden_size": 5}}


@pytest.fixture(autouse=True)
def caches(tmp_path, monkeypatch):
    """No test sees the caches of the machine."""
    monkeypatch.setenv("MODELGRAFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))


def checkpoint(folder: Path, config: dict | None, *keys: str) -> Path:
    """A folder in Hugging Face layout whose tensors have the shape (2, 3)."""
    folder.mkdir(parents=True, exist_ok=True)
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    if keys:
        save_file({key: torch.zeros(2, 3) for key in keys}, folder / "model.safetensors")
    return folder


def look(text: str, *, folder: Path | None = None, trusted: bool = True, registry=NOTHING) -> SourceView:
    return views.view(parse(text), registry=registry, folder=folder, trusted=trusted, offline=True)


def refused(text: str, **how) -> str:
    with pytest.raises(SourceError) as caught:
        look(text, **how)
    assert len(caught.value.problems) == 1
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "kind", "name", "part", "revision", "sha256", "member"),
    [
        ("org/model", "hub", "org/model", "", "", "", ""),
        ("gpt2@main#model.decoder", "hub", "gpt2", "model.decoder", "main", "", ""),
        ("./eye#vision_model", "folder", "./eye", "vision_model", "", "", ""),
        ("/data/eye", "folder", "/data/eye", "", "", "", ""),
        ("heads/a.safetensors", "file", "heads/a.safetensors", "", "", "", ""),
        ("./a.gguf#sha256=" + "Ab" * 32, "file", "./a.gguf", "", "", "ab" * 32, ""),
        ("preset:clip-vit-l-14#vision_model", "preset", "clip-vit-l-14", "vision_model", "", "", ""),
        ("pypi:a-b==0.1.2/a_b/w.gguf#sha256=" + "0" * 64 + "#x", "archive", "a-b==0.1.2", "x", "", "0" * 64, "a_b/w.gguf"),
    ],
)
def test_every_form_of_the_grammar_is_taken_apart(text, kind, name, part, revision, sha256, member):
    """The forms of the table in sources/views.py."""
    assert parse(text) == views.SourceRef(kind, name, part, revision, sha256, member)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "it names nothing"),
        ("a/b/c", "a source is a hub id (org/name), a path that starts with ./ or /"),
        ("org/model#a#b", "after # stands one part"),
        ("org/model#1x", "after # stands one part"),
        ("./a.gguf#sha256=12", "a sha256 has 64 hex digits, this one has 2 characters"),
        ("pypi:name/file", "a package reference reads pypi:NAME==VERSION/path/in/archive"),
        ("pypi:name==1/../file", "a package reference reads pypi:NAME==VERSION/path/in/archive"),
        ("pypi:--index-url==1/file", "a package reference reads pypi:NAME==VERSION/path/in/archive"),
        ("org/model@../../x", "a source is a hub id"),
    ],
)
def test_what_is_no_source_is_refused_with_the_form_that_is_wanted(text, said):
    with pytest.raises(SourceError) as caught:
        parse(text)
    assert str(caught.value).startswith(f"source-syntax  '{text}' is no source: ")
    assert said in str(caught.value)


@given(st.text(max_size=60))
@settings(max_examples=300)
def test_any_text_is_parsed_or_refused(text):
    """No text makes the grammar fail in another way."""
    with contextlib.suppress(SourceError):
        assert parse(text).kind in ("hub", "folder", "file", "preset", "archive")


def test_a_part_has_its_own_config_and_its_own_keys(tmp_path):
    folder = checkpoint(tmp_path / "m", CLIP, "vision_model.a.weight", "text_model.b", "logit_scale")
    view = look(f"{folder}#vision_model")
    assert (view.config, view.root) == ({"hidden_size": 5}, CLIP)
    assert view.tensor_shapes() == {"a.weight": (2, 3)}
    assert (view.shape("a.weight"), view.shape("b")) == ((2, 3), None)
    assert (view.has_weights, view.is_recorded) == (True, False)


LANGUAGE = {"model_type": "llava", "text_config": {"model_type": "llama"}, "vision_config": {"model_type": "clip_vision_model"}}


@pytest.mark.parametrize(
    ("keys", "part", "wanted"),
    [
        (("vision_tower.vision_model.x",), "vision_tower", {"x"}),
        (("vision_tower.x",), "vision_tower", {"x"}),
        (("model.vision_tower.x", "lm_head.weight"), "vision_tower", {"x"}),
        (("language_model.model.x", "language_model.lm_head.weight"), "language_model", {"model.x", "lm_head.weight"}),
        (("model.language_model.x", "lm_head.weight"), "language_model", {"model.x", "lm_head.weight"}),
        (("language_model.model.x", "lm_head.weight"), "language_model", {"model.x", "lm_head.weight"}),
        (("language_model.model.x", "language_model.lm_head.weight"), "language_model.lm_head", {"weight"}),
        (("llava.encoder.x", "head.y"), "encoder", {"x"}),
        (("query_tokens", "other.x"), "query_tokens", {""}),
    ],
)
def test_layouts_of_several_versions_look_the_same(tmp_path, keys, part, wanted):
    """The table at the top of parts.py."""
    view = look(f"{checkpoint(tmp_path / 'm', LANGUAGE, *keys)}#{part}")
    assert set(view.keys) == wanted
    assert set(view.keys.values()) <= set(keys)


def test_the_base_of_a_model_with_a_head_has_the_whole_config(tmp_path):
    folder = checkpoint(tmp_path / "m", {"model_type": "vit", "hidden_size": 7}, "vit.x", "classifier.weight")
    assert look(f"{folder}#vit").config["hidden_size"] == 7
    assert look(f"{folder}#classifier").config["hidden_size"] == 7
    assert set(look(f"{folder}#vit").at("classifier").keys) == {"weight"}


def test_a_misspelt_part_names_those_there_are(tmp_path):
    folder = checkpoint(tmp_path / "m", CLIP, "vision_model.a", "text_model.b")
    assert refused(f"{folder}#vison_model") == (
        f"unknown-part  {folder} has no part 'vison_model'; it has: text_model, vision_model\n    Did you mean 'vision_model'?"
    )


def test_a_misspelt_part_is_found_without_weights_too(tmp_path):
    folder = checkpoint(tmp_path / "m", CLIP)
    assert "has no part 'vison_model'; it has: text_model, vision_model\n    Did you mean 'vision_model'?" in refused(
        f"{folder}#vison_model"
    )


def test_a_folder_without_config_is_one_error(tmp_path):
    folder = checkpoint(tmp_path / "m", None, "a")
    assert refused(str(folder)).startswith(f"no-config  {folder} has no config.json; it has: model.safetensors")
    (tmp_path / "empty").mkdir()
    assert refused(str(tmp_path / "empty")).startswith(f"no-config  {tmp_path / 'empty'} is an empty folder")


@pytest.mark.parametrize(
    ("content", "said"), [("[1]", "holds a list where a JSON object is wanted"), ("{", "is not JSON"), ("[" * 99999, "is not JSON")]
)
def test_a_config_that_is_no_object_is_an_error(tmp_path, content, said):
    folder = checkpoint(tmp_path / "m", None)
    (folder / "config.json").write_text(content)
    assert said in refused(str(folder))


def test_what_is_not_there_or_is_no_file_of_weights_is_said(tmp_path):
    (tmp_path / "cat.png").write_bytes(b"x")
    assert refused(f"{tmp_path}/nothing") == f"source-not-found  there is no file or folder {tmp_path}/nothing"
    assert f"{tmp_path}/cat.png is no file of weights; the endings read are: .bin, .ckpt" in refused(f"{tmp_path}/cat.png")


def test_a_name_that_the_system_does_not_take_is_one_error(tmp_path):
    long = "a" * 5000
    for text, trusted in ((f"./{long}", True), (f"./{long}", False), (long, True)):
        assert "cannot be read: File name too long" in refused(text, trusted=trusted, folder=tmp_path)


def test_links_in_a_circle_are_one_error(tmp_path):
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    assert refused("./a", trusted=False, folder=tmp_path).startswith(f"source-not-found  there is no file or folder {tmp_path}/a")


def test_the_hash_of_a_file_is_checked(tmp_path):
    save_file({"a": torch.zeros(2)}, tmp_path / "w.safetensors")
    wanted = "0" * 64
    assert refused(f"{tmp_path}/w.safetensors#sha256={wanted}").startswith(f"hash-mismatch  {tmp_path}/w.safetensors has sha256 ")


def test_shards_are_read_as_one_and_a_missing_one_is_named(tmp_path):
    folder = checkpoint(tmp_path / "m", {"model_type": "x"})
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    save_file({"a": torch.zeros(2)}, folder / "model-1.safetensors")
    assert f"{folder} lacks model-2.safetensors of the 2 files that model.safetensors.index.json lists" in refused(str(folder))
    save_file({"b": torch.zeros(5)}, folder / "model-2.safetensors")
    assert look(str(folder)).tensor_shapes() == {"a": (2,), "b": (5,)}


@pytest.mark.parametrize("name", ["../secret.safetensors", "/etc/passwd", 3])
def test_an_index_may_not_lead_out_of_its_folder(tmp_path, name):
    folder = checkpoint(tmp_path / "m", {})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    assert "has no weight_map of file names" in refused(str(folder))


def test_a_document_may_name_what_lies_below_its_folder(tmp_path):
    checkpoint(tmp_path / "graphs" / "eye", CLIP, "vision_model.a")
    assert look("./eye#vision_model", folder=tmp_path / "graphs", trusted=False).shape("a") == (2, 3)


def test_a_document_may_name_an_absolute_path_that_the_user_has_named_before(tmp_path, monkeypatch):
    """Links below it are followed, as in the cache of the hub. What the user never named stays closed."""
    monkeypatch.setenv("MODELGRAFT_CACHE", str(tmp_path / "cache"))
    checkpoint(tmp_path / "real", CLIP, "vision_model.a")
    (tmp_path / "eye").symlink_to(tmp_path / "real")
    assert "outside-folder" in refused(f"{tmp_path}/eye", folder=tmp_path / "graphs", trusted=False)
    remember_named(tmp_path / "real")
    assert look(f"{tmp_path}/eye#vision_model", folder=tmp_path / "graphs", trusted=False).shape("a") == (2, 3)
    (tmp_path / "graphs" / "below").mkdir(parents=True)
    told = refused(f"{tmp_path}/graphs/below", folder=tmp_path / "graphs", trusted=False)
    assert f"'{tmp_path}/graphs/below' is an absolute path" in told
    assert "write ./below" in told
    assert "outside-folder" in refused(f"{tmp_path}/real2", folder=tmp_path / "graphs", trusted=False)
    assert "a shipped graph may not name files" in refused(f"{tmp_path}/eye", trusted=False)


@pytest.mark.parametrize("text", ["../eye", "./a/../../eye", "/etc", "~/eye"])
def test_a_document_may_not_name_what_lies_outside(tmp_path, text):
    (tmp_path / "graphs" / "a").mkdir(parents=True)
    assert f"outside-folder  '{text}' leads outside {tmp_path}/graphs: a document may only name files below its own folder" in refused(
        text, folder=tmp_path / "graphs", trusted=False
    )


@pytest.mark.parametrize("linked", ["eye", "eye/config.json", "eye/model.safetensors"])
def test_a_link_out_of_the_folder_is_refused(tmp_path, linked):
    """The folder itself, its config and its weights."""
    real = checkpoint(tmp_path / "real", CLIP, "vision_model.a")
    graphs = tmp_path / "graphs"
    (graphs / linked).parent.mkdir(parents=True)
    if linked != "eye":
        checkpoint(graphs / "eye", CLIP if "model" in linked else None, *(() if "model" in linked else ("vision_model.a",)))
    (graphs / linked).symlink_to(real / linked.removeprefix("eye").removeprefix("/"))
    assert "leads outside" in refused("./eye", folder=graphs, trusted=False)


def test_a_shipped_graph_names_no_files():
    assert "a shipped graph may not name files" in refused("./eye", trusted=False)


def test_what_the_user_names_may_lie_anywhere_and_needs_no_dot(tmp_path, monkeypatch):
    checkpoint(tmp_path / "out" / "eye", CLIP)
    monkeypatch.chdir(tmp_path)
    assert look("out/eye").root == CLIP
    assert look("../" + tmp_path.name + "/out/eye").root == CLIP
    assert refused("out/eye", trusted=False, folder=tmp_path).startswith(
        "source-not-found  the checkpoint 'out/eye' is not on this machine"
    )


def test_a_hub_id_is_found_in_the_cache_of_the_hub(tmp_path):
    home = tmp_path / "hub" / "models--org--eye"
    checkpoint(home / "snapshots" / "abc", {"model_type": "one"})
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text("abc")
    checkpoint(home / "snapshots" / "def", {"model_type": "two"})
    assert look("org/eye").root == {"model_type": "one"}
    assert look("org/eye@def").root == {"model_type": "two"}
    assert "org/eye" in refused("org/eye@ghi")


def test_a_hub_checkpoint_whose_configs_alone_are_here_is_seen_without_weights(tmp_path):
    """The list of shards comes with the configs; the shards come when the weights are opened."""
    folder = checkpoint(tmp_path / "hub" / "models--org--eye" / "snapshots" / "abc", CLIP)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "model-1.safetensors"}}))
    view = look("org/eye#vision_model")
    assert (view.has_weights, view.config) == (False, {"hidden_size": 5})


def test_recorded_configs_stand_in_for_a_checkpoint_that_is_not_here(tmp_path):
    recorded = checkpoint(tmp_path / "recorded", CLIP)
    (recorded / "preprocessor_config.json").write_text('{"size": 4}')
    registry = SimpleNamespace(recorded_configs={"org/eye": recorded, "preset:eye": recorded}, weight_readers={})
    for text in ("org/eye#vision_model", "preset:eye#vision_model"):
        view = look(text, registry=registry, trusted=False)
        assert (view.config, view.is_recorded, view.has_weights) == ({"hidden_size": 5}, True, False)
        assert view.json("preprocessor_config.json") == {"size": 4}
    assert refused("preset:eyes", registry=registry) == (
        "source-not-found  there is no preset 'eyes'; there are: eye\n    Did you mean 'preset:eye'?"
    )


def test_an_unknown_hub_id_says_where_it_was_looked_for_and_what_to_do(tmp_path):
    assert refused("org/eye") == (
        f"source-not-found  the checkpoint 'org/eye' is not on this machine ({tmp_path}/hub), and no plugin has recorded its configs\n"
        "    check the name; fetch it where there is a network (`hf download org/eye`), or name a folder: ./eye"
    )


def test_identity_changes_with_the_weights_and_with_the_part(tmp_path):
    folder = checkpoint(tmp_path / "m", CLIP, "vision_model.a")
    first = look(f"{folder}#vision_model").identity()
    assert look(f"{folder}#vision_model").identity() == first
    assert look(str(folder)).identity() != first
    save_file({"vision_model.a": torch.zeros(4)}, folder / "model.safetensors")
    assert look(f"{folder}#vision_model").identity() != first
    assert look("pypi:a==1/w.pth").identity() != look("pypi:b==1/w.pth").identity()


@pytest.mark.parametrize("numbers", [4, 100_000])
def test_other_contents_of_the_same_size_and_time_are_told_apart(tmp_path, numbers):
    """As an archive that gives every file one time leaves them: neither the identity nor a remembered hash is that of the old file."""
    folder = checkpoint(tmp_path / "m", CLIP, "vision_model.a")
    path, stamps, hashes = folder / "model.safetensors", set[str](), set[str]()
    for value in (1.0, 2.0, 1.0):
        save_file({"vision_model.a": torch.full((numbers,), value)}, path)
        os.utime(path, (1000, 1000))
        stamps.add(look(str(folder)).identity())
        hashes.add(sha256_of(path))
    assert (len(stamps), len(hashes)) == (2, 2)


def header_file(path: Path, header: object, size: int = 0, claimed: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if claimed is None else claimed) + text + bytes(size))
    return path


def entry(*shape: int, dtype: str = "F32", start: int = 0, end: int | None = None) -> dict:
    size = 4 * torch.Size(shape).numel()
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, start + size if end is None else end]}


@pytest.mark.parametrize(
    ("header", "size", "claimed", "said"),
    [
        ({"a": entry(2, 3)}, 20, None, "is cut short: its header describes 24 bytes of tensors, the file has 20"),
        ({"a": entry(2, 3)}, 30, None, "has 6 bytes that its header does not describe"),
        ({"a": entry(2), "b": entry(2, start=4)}, 12, None, "places 'b' at byte 4 where 8 is expected: tensors overlap or leave a gap"),
        ({"a": entry(2, start=8)}, 16, None, "places 'a' at byte 8 where 0 is expected"),
        ({"a": entry(2, end=4)}, 4, None, "gives 'a' 4 bytes, but F32[2] takes 8"),
        ({"a": entry(2, dtype="F99")}, 8, None, "gives 'a' the dtype 'F99'"),
        ({"a": {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]}}, 8, None, "sizes or offsets that are not natural numbers"),
        ({"a": {"dtype": "F32"}}, 0, None, "has a header without dtype, shape or data_offsets for 'a'"),
        ({}, 0, 10**12, "is no safetensors file or is cut: its header claims 1000000000000 bytes, the file has 10 in all"),
        ([], 0, None, "its header is not a JSON object"),
        (b"PK\x03\x04", 0, None, "its header is not JSON"),
        (b"[" * 50_000, 0, None, "its header is not JSON"),
    ],
)
def test_a_header_that_cannot_be_true_is_refused(tmp_path, header, size, claimed, said):
    path = header_file(tmp_path / "w.safetensors", header, size, claimed)
    with pytest.raises(SourceError) as caught:
        read_header(path)
    assert str(caught.value).startswith(f"source-damaged  {path}: ")
    assert said in str(caught.value)


def test_headers_agree_with_the_library(tmp_path):
    tensors = {"a": torch.zeros(2, 3), "b": torch.zeros((), dtype=torch.bfloat16), "c": torch.zeros(0, 5, dtype=torch.int64)}
    save_file(tensors, tmp_path / "w.safetensors", metadata={"format": "pt"})
    assert {k: h.shape for k, h in read_header(tmp_path / "w.safetensors").items()} == {k: tuple(t.shape) for k, t in tensors.items()}


def find(text: str, *, folder: Path | None = None, trusted: bool = True) -> SourceView:
    return views.find(text, registry=NOTHING, folder=folder, trusted=trusted, offline=True)


def unfound(text: str, **how) -> str:
    with pytest.raises(SourceError) as caught:
        find(text, **how)
    return str(caught.value)


@pytest.mark.parametrize("name", ["run#best", "run#best/eye", "a#b#c", "#", "run##best", "c#.v1", "x#sha256=12"])
def test_a_folder_whose_name_has_a_number_sign_is_that_folder(tmp_path, monkeypatch, name):
    """Whole or by a part, absolute or relative, given by the user or by a document; as it is, or with the sign doubled."""
    folder = checkpoint(tmp_path / name, CLIP, "vision_model.a", "text_model.b")
    monkeypatch.chdir(tmp_path)
    for written in {name, name.replace("#", "##")}:
        for text, how in (
            (f"{tmp_path}/{written}", {}),
            (written, {}),
            (f"./{written}", {"trusted": False, "folder": tmp_path}),
        ):
            assert find(text, **how).root == CLIP
            view = find(f"{text}#vision_model", **how)
            assert (view.part, set(view.keys), view.folder.resolve()) == ("vision_model", {"a"}, folder)
            assert set(find(f"{view.whole}#text_model", **how).keys) == {"b"}


def test_a_file_whose_name_has_a_number_sign_is_that_file(tmp_path):
    save_file({"a.b": torch.zeros(2, 3)}, tmp_path / "w#1.safetensors")
    digest = sha256_of(tmp_path / "w#1.safetensors")
    for text in ("w#1.safetensors", "w##1.safetensors", f"w#1.safetensors#sha256={digest}"):
        assert find(f"{tmp_path}/{text}#a").shape("b") == (2, 3)


def test_a_path_that_is_there_goes_over_a_part_of_a_shorter_one(tmp_path):
    """The doubled sign always means the name, the single one the longest path that is there."""
    checkpoint(tmp_path / "m", CLIP, "vision_model.a")
    assert find(f"{tmp_path}/m#vision_model").part == "vision_model"
    checkpoint(tmp_path / "m#vision_model", {"model_type": "other"})
    assert find(f"{tmp_path}/m#vision_model").root == {"model_type": "other"}


@pytest.mark.parametrize("text", ["run#best/clip", "run/a#1/b", "run##best"])
def test_a_path_that_is_not_there_is_named_as_it_was_written(tmp_path, text):
    """The message speaks of no other folder than the one that was meant."""
    path = f"{tmp_path}/{text}"
    assert unfound(path) == f"source-not-found  there is no file or folder {path.replace('##', '#')}"
    assert "outside-folder" in unfound(f"../{text}", trusted=False, folder=tmp_path)


def test_a_path_whose_end_reads_as_a_part_is_named_in_both_ways(tmp_path):
    assert unfound(f"{tmp_path}/run#best") == (
        f"source-not-found  there is no file or folder {tmp_path}/run, and none whose own name goes on with '#best'"
    )


@pytest.mark.parametrize("name", ["my-checkpoint", "a/b/c", "two words", "my-checkpoint/", "v1.0@x", "eye.v2", "_x", "preset"])
def test_what_the_user_names_is_the_folder_that_is_there(tmp_path, monkeypatch, name):
    """It needs no `./` before it, whatever its name is; a document's names without one are ids of the hub."""
    checkpoint(tmp_path / name, CLIP, "vision_model.a")
    monkeypatch.chdir(tmp_path)
    assert find(f"{name}#vision_model").shape("a") == (2, 3)
    with pytest.raises(SourceError, match=r"source-syntax|source-not-found"):
        find(name, trusted=False, folder=tmp_path)


def test_a_revision_is_asked_of_the_hub_and_not_of_a_folder(tmp_path, monkeypatch):
    checkpoint(tmp_path / "org" / "eye", CLIP)
    monkeypatch.chdir(tmp_path)
    assert "the checkpoint 'org/eye' is not on this machine" in unfound("org/eye@v2")
