"""The cache: what is found again, what is not, and what survives damage."""

from __future__ import annotations

import os
import threading
import time

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import modelgraft as mg
from modelgraft.engine.cache import Cache
from modelgraft.engine.disk import DiskCache
from modelgraft.records.digests import digest, size_bytes
from modelgraft.records.sounds import Audio
from modelgraft.sources import kept
from support.running import Counter, document, function, graph_of, registry_of

# -- in a pipeline ------------------------------------------------------------------------------------------------------


def eye_and_tongue(ran, *, random=False):
    """An eye and a tongue that count their runs, both kept."""

    def eye(x):
        ran.note("eye")
        return torch.tensor([[float(len(text))] for text in x])

    def tongue(seen, prompt):
        ran.note("tongue")
        return [f"{prompt[index]}: {row.item():g}" for index, row in enumerate(seen)]

    return registry_of(
        function("toy/eye", {"x": "text"}, {"seen": "float[batch 1]"}, eye, cache=True, random=random),
        function("toy/tongue", {"seen": "float[batch 1]", "prompt": "text"}, {"text": "text"}, tongue, cache=True),
    )


DOCUMENT = document(
    {"eye": {"use": "toy/eye", "in": {"x": "inputs.x"}}, "tongue": {"use": "toy/tongue", "in": {"seen": "eye", "prompt": "inputs.prompt"}}},
    inputs={"x": "text", "prompt": "text"},
    outputs={"text": "tongue"},
)


def test_a_changed_prompt_does_not_run_the_eye_again(tmp_path):
    """`cached` names the eye; the same inputs again run nothing; another picture runs both."""
    ran = Counter()
    with mg.open(graph_of(eye_and_tongue(ran), tmp_path, DOCUMENT)) as pipeline:
        assert pipeline.run(x="abc", prompt="how long").cached == frozenset()
        second = pipeline.run(x="abc", prompt="length")
        assert (second["text"], second.cached) == ("length: 3", {"eye"})
        third = pipeline.run(x="abc", prompt="length")
        assert (third["text"], third.cached) == ("length: 3", {"eye", "tongue"})
        fourth = pipeline.run(x="abcd", prompt="length")
        assert (fourth["text"], fourth.cached) == ("length: 4", frozenset())
    assert ran.calls == ["eye", "tongue", "tongue", "eye", "tongue"]


def test_the_seed_counts_only_where_something_is_random(tmp_path):
    """A random eye is seen anew under another seed, and the tongue after it; a plain one is not."""
    for random, wanted in ((True, ["eye", "tongue", "eye", "tongue"]), (False, ["eye", "tongue"])):
        ran = Counter()
        with mg.open(graph_of(eye_and_tongue(ran, random=random), tmp_path, DOCUMENT)) as pipeline:
            pipeline.run(x="a", prompt="b", seed=1)
            pipeline.run(x="a", prompt="b", seed=2)
            pipeline.run(x="a", prompt="b", seed=2)
        assert ran.calls == wanted


def test_a_cache_folder_serves_another_pipeline(tmp_path):
    """What one pipeline kept on disk, the next one finds; without the folder it does not."""
    ran = Counter()
    graph = graph_of(eye_and_tongue(ran), tmp_path, DOCUMENT)
    for _ in range(2):
        with mg.open(graph, cache_dir=tmp_path / "kept") as pipeline:
            result = pipeline.run(x="abc", prompt="p")
    assert result.cached == {"eye", "tongue"}
    assert result["text"] == "p: 3"
    with mg.open(graph) as pipeline:
        assert pipeline.run(x="abc", prompt="p").cached == frozenset()


def test_random_weights_are_part_of_what_a_result_depends_on(tmp_path):
    """Another seed of the pipeline, or weights of its own, do not find the results of random weights on disk."""
    ran = Counter()
    graph = graph_of(eye_and_tongue(ran), tmp_path, DOCUMENT)
    cached = []
    for options in ({"init": "random", "seed": 1}, {"init": "random", "seed": 2}, {}, {"init": "random", "seed": 1}):
        with mg.open(graph, cache_dir=tmp_path / "kept", **options) as pipeline:
            cached.append(pipeline.run(x="abc", prompt="p").cached)
    assert cached == [frozenset()] * 3 + [{"eye", "tongue"}]


def test_within_without_cache_all_is_computed_and_nothing_kept(tmp_path):
    """A run that is timed takes nothing from an earlier one, and gives nothing to a later one."""
    ran = Counter()
    with mg.open(graph_of(eye_and_tongue(ran), tmp_path, DOCUMENT)) as pipeline:
        pipeline.run(x="abc", prompt="how long")
        with pipeline.without_cache():
            assert pipeline.run(x="abc", prompt="how long").cached == frozenset()
        assert ran.calls == ["eye", "tongue"] * 2
        assert pipeline.run(x="abc", prompt="how long").cached == frozenset()
        assert pipeline.run(x="abc", prompt="how long").cached == {"eye", "tongue"}


def test_without_room_nothing_is_kept(tmp_path):
    """`cache_bytes=0` turns the cache off."""
    ran = Counter()
    with mg.open(graph_of(eye_and_tongue(ran), tmp_path, DOCUMENT), cache_bytes=0) as pipeline:
        pipeline.run(x="a", prompt="b")
        assert pipeline.run(x="a", prompt="b").cached == frozenset()
    assert ran.calls == ["eye", "tongue"] * 2


def test_an_input_of_an_unknown_type_is_a_miss(tmp_path):
    """What has no digest is never looked up and never kept."""
    keep = function("toy/keep", {"x": "object"}, {"out": "text"}, lambda x: ["kept"] * len(x), cache=True)
    nodes = {"keep": {"use": "toy/keep", "in": {"x": "inputs.x"}}}
    graph = graph_of(registry_of(keep), tmp_path, document(nodes, inputs={"x": "object"}, outputs={"out": "keep"}))
    with mg.open(graph) as pipeline:
        unknown = object()
        pipeline.run(x=unknown)
        assert pipeline.run(x=unknown).cached == frozenset()
        pipeline.run(x="text")
        assert pipeline.run(x="text").cached == {"keep"}


def test_a_node_that_was_left_behind_does_not_write_into_a_later_run(tmp_path):
    """It comes back when its run is long over: what it gives is not kept as the result of another input."""
    release = threading.Event()

    def stuck(x):
        if x == ["a"]:
            release.wait(10)
        return [text.upper() for text in x]

    part = function("toy/stuck", {"x": "text"}, {"out": "text"}, stuck, cache=True)
    nodes = {"n": {"use": "toy/stuck", "in": {"x": "inputs.x"}}}
    graph = graph_of(registry_of(part), tmp_path, document(nodes, inputs={"x": "text"}, outputs={"out": "n"}))
    with mg.open(graph, timeout_s=0.3) as pipeline:
        with pytest.raises(mg.NodeTimeout):
            pipeline.run(x="a")
        assert pipeline.run(x="b")["out"] == "B"
        release.set()
        time.sleep(0.1)
        result = pipeline.run(x="b")
        assert (result["out"], result.cached) == ("B", {"n"})


def test_changing_a_list_of_results_does_not_change_what_is_kept(tmp_path):
    """The list of a batch is the caller's own."""
    with mg.open(graph_of(eye_and_tongue(Counter()), tmp_path, DOCUMENT)) as pipeline:
        pipeline.run(x=["a", "b"], prompt="p")["text"].clear()
        again = pipeline.run(x=["a", "b"], prompt="p")
        assert (again["text"], again.cached) == (["p: 1", "p: 1"], {"eye", "tongue"})


# -- digests ------------------------------------------------------------------------------------------------------------

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


def exact(value):
    """A form in which 1, 1.0 and True, and -0.0 and 0.0, differ."""
    if isinstance(value, list | tuple):
        return (type(value).__name__, *map(exact, value))
    if isinstance(value, dict):
        return ("dict", *((exact(name), exact(item)) for name, item in value.items()))
    return type(value).__name__, repr(value)


@settings(max_examples=300)
@given(plain, plain)
def test_two_values_share_a_digest_only_when_they_are_the_same(left, right):
    """In type and content, at any depth."""
    assert (digest(left) == digest(right)) == (exact(left) == exact(right))


def test_tensors_arrays_pictures_and_sounds_have_digests_of_their_content():
    """Equal contents share one; another dtype, shape, mode or rate does not."""
    ones = torch.ones(2, 3)
    kinds = [
        ones,
        ones.double(),
        ones.reshape(3, 2),
        ones.bfloat16(),
        numpy.ones((2, 3), "f4"),
        numpy.ones((3, 2), "f4"),
        Image.new("RGB", (2, 3)),
        Image.new("RGB", (3, 2)),
        Image.new("L", (2, 3)),
        Audio(numpy.ones((1, 4), "f4"), 8000),
        Audio(numpy.ones((1, 4), "f4"), 16000),
    ]
    digests = [digest(kind) for kind in kinds]
    assert None not in digests
    assert len(set(digests)) == len(kinds)
    assert digest(torch.ones(3, 2).T) == digest(ones), "how it lies in memory does not matter"
    assert digest(object()) is None
    assert digest([1, object()]) is None
    assert size_bytes([ones, object()]) is None


# -- memory -------------------------------------------------------------------------------------------------------------


def test_the_least_recently_used_goes_first_and_the_limit_holds():
    """Three tensors of 400 bytes in room for two: the one that was not asked for goes."""
    cache = Cache(memory_bytes=1100)
    for key in "ab":
        cache.put(key, {"out": torch.zeros(100)})
    assert cache.get("a") is not None
    cache.put("c", {"out": torch.zeros(100)})
    assert [key for key in "abc" if cache.get(key) is not None] == ["a", "c"]
    cache.put("big", {"out": torch.zeros(1000)})
    assert cache.get("big") is None
    assert cache.bytes <= 1100


# -- disk ---------------------------------------------------------------------------------------------------------------

KEY = "ab" * 20


def everything():
    return {
        "tensor": torch.arange(6, dtype=torch.bfloat16).reshape(2, 3),
        "empty": torch.zeros(0, 3),
        "texts": ["a", "ü", ""],
        "boxes": [[{"x0": 1, "y0": 2.5, "x1": 3, "y1": 4, "text": "t", "score": None}]],
        "nested": [("a", [1, True, None])],
        "audio": [Audio(numpy.ones((2, 5), "f4"), 8000)],
        "image": [Image.effect_noise((5, 7), 9.0), Image.new("RGBA", (2, 3), (1, 2, 3, 4))],
        "array": [numpy.arange(4, dtype="i8").reshape(2, 2)],
    }


def test_what_is_written_is_read_back_the_same(tmp_path):
    """Every type that may be kept, to the last bit."""
    disk = DiskCache(tmp_path, limit_bytes=10**6)
    disk.write(KEY, everything())
    found = DiskCache(tmp_path, limit_bytes=10**6).read(KEY)
    assert list(found) == list(everything())
    assert found["texts"] == everything()["texts"]
    assert {name: digest(value) for name, value in found.items() if name != "image"} == {
        name: digest(value) for name, value in everything().items() if name != "image"
    }
    assert found["image"][1].tobytes() == everything()["image"][1].tobytes()
    assert (found["image"][0].mode, found["image"][0].size) == ("L", (5, 7))


def test_a_damaged_file_is_a_miss_and_is_removed(tmp_path):
    """One bit turned in any of its bytes, or a cut anywhere."""
    disk = DiskCache(tmp_path, limit_bytes=10**6)
    disk.write(KEY, {"out": torch.arange(5.0), "texts": ["a", None]})
    (path,) = tmp_path.rglob("*.safetensors")
    whole = path.read_bytes()
    assert disk.read(KEY)["texts"] == ["a", None]
    for place in range(len(whole)):
        for harmed in (whole[:place] + bytes([whole[place] ^ (1 << place % 8)]) + whole[place + 1 :], whole[:place]):
            path.write_bytes(harmed)
            with kept.loading() as said:
                assert disk.read(KEY) is None, place
            assert not path.exists()
            assert len(said) == 1
            assert said[0].startswith(f"a result was kept and is broken ({path}: ")


def test_a_result_that_is_broken_is_computed_again_and_that_is_said(tmp_path):
    """As a warning of its node, in the run that finds it."""
    ran = Counter()
    graph = graph_of(eye_and_tongue(ran), tmp_path, DOCUMENT)
    with mg.open(graph, cache_dir=tmp_path / "kept") as pipeline:
        pipeline.run(x="abc", prompt="p")
    for path in (tmp_path / "kept").rglob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:-1])
    with mg.open(graph, cache_dir=tmp_path / "kept") as pipeline:
        result = pipeline.run(x="abc", prompt="p")
    assert (result["text"], result.cached) == ("p: 3", frozenset())
    assert sorted(text.partition(" (")[0] for text in result.warnings) == [
        "eye: a result was kept and is broken",
        "tongue: a result was kept and is broken",
    ]
    with mg.open(graph, cache_dir=tmp_path / "kept") as pipeline:
        again = pipeline.run(x="abc", prompt="p")
    assert (again["text"], again.cached, again.warnings) == ("p: 3", {"eye", "tongue"}, ())


def test_the_folder_stays_within_its_limit_oldest_first(tmp_path):
    """Ten results of about 4 kB in 20 kB: the newest stay, and one that was read again."""
    disk = DiskCache(tmp_path, limit_bytes=20_000)
    keys = [f"{index:02d}" * 20 for index in range(10)]
    for age, key in enumerate(keys):
        disk.write(key, {"out": torch.zeros(1000)})
        for path in tmp_path.rglob(f"{key}*"):
            os.utime(path, (1000 + age, 1000 + age))
        if age >= 1:
            disk.read(keys[0])
    sizes = [path.stat().st_size for path in tmp_path.rglob("*.safetensors")]
    assert sum(sizes) <= 20_000
    assert disk.read(keys[-1]) is not None
    assert disk.read(keys[0]) is not None
    assert disk.read(keys[1]) is None


def test_writers_and_readers_at_once_see_whole_files(tmp_path):
    """Four threads write and read one key: a reader gets one of the written values or nothing."""
    wrong = Counter()

    def work(number):
        disk = DiskCache(tmp_path, limit_bytes=10**6)
        for _ in range(20):
            disk.write(KEY, {"out": torch.full((50,), float(number))})
            found = disk.read(KEY)
            if found is not None and len(set(found["out"].tolist())) != 1:
                wrong.note(found)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong.calls == []
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [f"{KEY}.safetensors"], "no drafts are left"


def test_a_folder_that_cannot_be_written_is_passed_over(tmp_path):
    """A cache is no result: the run goes on."""
    (tmp_path / "file").write_text("in the way")
    disk = DiskCache(tmp_path / "file", limit_bytes=10**6)
    disk.write(KEY, {"out": torch.zeros(1)})
    assert disk.read(KEY) is None
