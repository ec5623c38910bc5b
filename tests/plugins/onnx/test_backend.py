"""The onnx backend on small modules: exported, proven, cached, refused."""

from __future__ import annotations

import json
import re
import shutil
import sys
from dataclasses import replace
from types import ModuleType

import onnx
import pytest
import torch

from modelgraft import Config, GraphError, PluginError, SourceError, component
from modelgraft.engine.backend import LoadContext
from modelgraft.engine.modules.examples import TRACED, make_inputs
from modelgraft.kernel.words.graph import Ref
from modelgraft.kernel.words.ports import port
from modelgraft.records.arrays import as_tensor
from modelgraft.sources import seals
from modelgraft.sources.progress import heard_by
from modelgraft.testing import node_of
from modelgraft_plugins.onnx import store
from modelgraft_plugins.onnx.backend import OnnxBackend
from modelgraft_plugins.torch.backend import TorchBackend
from support.installed import registry

pytestmark = [
    pytest.mark.slow,  # it exports
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]

REGISTRY = registry()


@pytest.fixture(scope="module")
def exported_once(tmp_path_factory):
    """A cache that holds the export of Mix with all its inputs."""
    folder = tmp_path_factory.mktemp("once") / "cache"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MODELGRAFT_CACHE", str(folder))
        OnnxBackend().load(context(node("Mix")), {})
    return folder


@pytest.fixture(autouse=True)
def own_cache(exported_once, tmp_path, monkeypatch):
    """Each test has a cache of its own, which holds that export already."""
    shutil.copytree(exported_once, tmp_path / "cache")
    monkeypatch.setenv("MODELGRAFT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    """A cache that holds nothing."""
    monkeypatch.setenv("MODELGRAFT_CACHE", str(tmp_path / "empty"))


class Mix(torch.nn.Module):
    """Attention of tokens over memory, with an optional mask; two outputs."""

    def __init__(self, config):
        super().__init__()
        self.query = torch.nn.Linear(6, 6)
        self.norm = torch.nn.LayerNorm(6)

    def forward(self, tokens, memory, mask=None):
        """Attend."""
        scores = self.query(tokens) @ memory.transpose(1, 2)
        if mask is not None:
            scores = scores.masked_fill(~mask[:, None], -1e4)
        mixed = self.norm(scores.softmax(-1) @ memory)
        return {"mixed": mixed, "pooled": mixed.mean(1)}


class Frozen(Mix):
    """Wrong when exported: Python decides by the traced size."""

    def forward(self, tokens, memory, mask=None):
        """Attend, and count."""
        result = super().forward(tokens, memory, mask)
        return {**result, "pooled": result["pooled"] * float(torch.onnx.is_in_onnx_export())}


class Spoilt(Mix):
    """As from a checkpoint with NaN."""

    def __init__(self, config):
        super().__init__(config)
        torch.nn.init.constant_(self.query.bias, float("nan"))


class Weird(Mix):
    """Cannot be traced: it looks at values."""

    def forward(self, tokens, memory, mask=None):
        """Branch on a number."""
        if tokens.sum().item() > 0:
            return super().forward(tokens, memory, mask)
        return super().forward(-tokens, memory, mask)


class Rare(Mix):
    """Cannot be written: it uses an operator that ONNX does not have."""

    def forward(self, tokens, memory, mask=None):
        """Attend, and add eigenvalues."""
        result = super().forward(tokens, memory, mask)
        return {**result, "pooled": result["pooled"] + torch.linalg.eigvalsh(tokens @ tokens.mT).sum()}


def node(module, *, wired=("tokens", "memory", "mask"), exportable=True, **runtime):
    home = ModuleType("toy_onnx")
    home.__dict__.update(Mix=Mix, Frozen=Frozen, Spoilt=Spoilt, Weird=Weird, Rare=Rare)
    sys.modules["toy_onnx"] = home

    @component(
        "toy/mix",
        kind="resampler",
        module=f"toy_onnx:{module}",
        exportable=exportable,
        inputs={"tokens": "float[batch tokens 6]", "memory": "float[batch frames 6]", "mask": "optional[mask[batch frames]]"},
        outputs={"mixed": "float[batch tokens 6]", "pooled": "float[batch 6]"},
    )
    class Toy(Config):
        """Mix."""

    return replace(node_of(Toy), wired={name: (Ref("inputs", name),) for name in wired}, runtime=runtime)


def context(of):
    return LoadContext(of, "cpu", "float32", None, 0, offline=True, registry=REGISTRY, init="random")


def inputs(batch=3, tokens=4, frames=9):
    mask = torch.arange(frames) < torch.arange(frames, frames - batch, -1)[:, None]
    return torch.randn(batch, tokens, 6), torch.randn(batch, frames, 6), mask


def assert_equal(got, expected, tolerance=1e-5):
    """What an export gives on the host are arrays."""
    assert list(got) == list(expected)
    for name in expected:
        assert got[name].shape == expected[name].shape
        assert (as_tensor(got[name]) - as_tensor(expected[name])).abs().max() <= tolerance


@pytest.mark.parametrize("wired", [("tokens", "memory", "mask"), ("tokens", "memory")])
def test_an_export_gives_torchs_numbers_on_any_size(wired):
    """Sizes that were neither traced nor checked, with and without the optional input."""
    exported, eager = OnnxBackend().load(context(node("Mix", wired=wired)), {}), TorchBackend().load(context(node("Mix")), {})
    for sizes in ((1, 2, 3), (4, 1, 8), (3, 10, 21)):
        values = inputs(*sizes)
        given = values if "mask" in wired else (*values[:2], None)
        assert_equal(exported.call(*given), eager.call(*given))


def test_the_second_start_exports_nothing(monkeypatch):
    """The same node is served from the cache, whatever feeds it; another seed of random weights is another export."""
    monkeypatch.setattr("modelgraft_plugins.onnx.plain.export", None)
    again = OnnxBackend().load(context(node("Mix")), {})
    values = inputs()
    eager = TorchBackend().load(context(node("Mix")), {})
    assert_equal(again.call(*values), eager.call(*values))
    assert again.warnings == eager.warnings  # that random numbers start is said at every start
    assert any("start from random numbers" in text for text in again.warnings)
    elsewhere = node("Mix")
    OnnxBackend().load(context(replace(elsewhere, wired={name: (Ref("eye/n", name),) for name in elsewhere.wired})), {})
    with pytest.raises(TypeError):
        OnnxBackend().load(replace(context(node("Mix")), seed=5), {})


def test_weights_of_what_says_that_it_has_none_are_refused():
    """All that have none share an export, whatever their names and the seed."""
    plain = node("Mix")

    class Said(type(plain.config)):
        def parameters(self):
            return 0

    told = r"has no parameters by its formula, but [\d,]+ when it is built: its parameters\(\) and its module disagree"
    with pytest.raises(PluginError, match=told):
        OnnxBackend().load(context(replace(plain, config=Said(**plain.config.model_dump()))), {})


def test_a_node_with_shared_weights_has_those_of_the_other():
    """Also when the other has let go of its module; and the export is the other's, because the numbers are."""
    owner = replace(node("Mix"), name="owner")
    twin = replace(node("Mix"), name="twin", share="owner")
    backend = OnnxBackend()
    loaded = {"owner": backend.load(context(owner), {})}
    assert loaded["owner"].state is None
    values = inputs()
    assert_equal(backend.load(context(twin), loaded).call(*values), loaded["owner"].call(*values), tolerance=0.0)
    assert backend.exports["twin"].folder == backend.exports["owner"].folder
    assert_equal(TorchBackend().load(context(twin), loaded).call(*values), loaded["owner"].call(*values))


def test_an_optional_input_may_be_absent_for_some_records():
    """After a route a node runs with and without it: each gets a graph of its own."""
    exported, eager = OnnxBackend().load(context(node("Mix")), {}), TorchBackend().load(context(node("Mix")), {})
    values = inputs()
    for given in (values, (*values[:2], None), values):
        assert_equal(exported.call(*given), eager.call(*given))


def test_a_mask_of_records_has_one_truth_value_for_each():
    """`mask[batch]` has no second axis along which it could end: it is true for some records and false for others."""
    (mask,) = make_inputs([port("mask[batch]")], TRACED, seed=0)
    assert mask.dtype is torch.bool
    assert sorted(mask.tolist()) == [False, True]


def test_floating_inputs_come_to_the_type_of_the_graph():
    """As for a module of torch, what another precision gives is taken."""
    exported = OnnxBackend().load(context(node("Mix")), {})
    tokens, memory, mask = inputs()
    assert_equal(exported.call(tokens.double(), memory.requires_grad_(), mask), exported.call(tokens, memory, mask))


def test_ports_that_are_no_tensors_are_named():
    """Rather than left out of the graph in silence."""
    mix = node("Mix")
    listed = replace(mix, lists=frozenset({"memory"}))
    with pytest.raises(GraphError, match="cannot run on the onnx backend: its input memory is a list of wires, not a tensor"):
        OnnxBackend().load(context(listed), {})
    told = replace(mix, in_ports={**mix.in_ports, "tokens": port("text")})
    with pytest.raises(GraphError, match="cannot run on the onnx backend: its input tokens is text, not a tensor"):
        OnnxBackend().load(context(told), {})


def test_a_manifest_says_what_an_export_is():
    """Ports, opset, precision, hashes and the parity figure, on sizes other than those traced."""
    (entry,) = store.entries()
    facts = json.loads((entry.folder / "manifest.json").read_text())
    assert facts["inputs"]["tokens"] == "float[batch tokens 6]"
    assert seals.names_in(entry.folder) == ("manifest.json", "model.onnx", "model.onnx.data")
    assert 0 <= facts["parity"]["relative"] <= facts["parity"]["tolerance"]
    assert len(facts["parity"]["sizes"]) == 2


def test_an_export_that_differs_is_refused(empty_cache):
    """The gate catches a module that computes something else while it is traced; nothing of it is kept."""
    with pytest.raises(GraphError, match=r"node \(toy/mix\) cannot run on the onnx backend: the export differs from torch: max difference"):
        OnnxBackend().load(context(node("Frozen")), {})
    assert store.entries() == []


def test_what_gives_nan_in_torch_is_not_exported(empty_cache):
    """There is nothing to compare with: the message says where to look, not how far the export is away."""
    with pytest.raises(GraphError, match="torch itself gives NaN, so there is nothing to compare with: look for NaN in the weights"):
        OnnxBackend().load(context(node("Spoilt")), {})


def test_a_cache_that_cannot_be_written_is_named(monkeypatch, tmp_path):
    """With the way out."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("MODELGRAFT_CACHE", str(tmp_path / "file"))
    with pytest.raises(
        SourceError, match=r"the cache .*file cannot be used: Not a directory\n    make room there, or set MODELGRAFT_CACHE"
    ):
        OnnxBackend().load(context(node("Mix")), {})


def test_a_module_that_cannot_be_traced_is_named():
    """One message with the reason and the way to keep it on torch."""
    wanted = r"cannot run on the onnx backend: .*\n    let it stay on torch: fallback=\"torch\", or, .*nodes\.node\.runtime"
    with pytest.raises(GraphError, match=wanted):
        OnnxBackend().load(context(node("Weird")), {})
    with pytest.raises(GraphError, match="the component is not declared exportable"):
        OnnxBackend().load(context(node("Mix", exportable=False)), {})


def test_an_operator_that_onnx_does_not_have_is_named_and_stays_on_torch_only_with_permission():
    """One message; with permission the same one as a warning, and torch's numbers."""
    reason = r"node \(toy/mix\) cannot run on the onnx backend: its operator aten\.\w*eigh has no ONNX form"
    with pytest.raises(GraphError, match=rf"{reason}\n    let it stay on torch: fallback=\"torch\", or, .*"):
        OnnxBackend().load(context(node("Rare")), {})
    backend = OnnxBackend()
    loaded = backend.load(replace(context(node("Rare")), fallback="torch"), {})
    assert [warning for warning in loaded.warnings if re.search(rf"^{reason}; it stays on torch$", warning)]
    assert backend.exports == {}
    values = inputs()
    assert_equal(loaded.call(*values), TorchBackend().load(context(node("Rare")), {}).call(*values), tolerance=0.0)


@pytest.mark.parametrize("harm", ["truncate", "change"])
def test_a_harmed_export_is_made_again_and_said(harm):
    """Truncated or changed on disk: found by hash."""
    (entry,) = store.entries()
    path = entry.folder / "model.onnx"
    data = path.read_bytes()
    path.write_bytes(data[:-8] if harm == "truncate" else bytes([data[0] ^ 1]) + data[1:])
    again = OnnxBackend().load(context(node("Mix")), {})
    assert any(re.search(r"is damaged \(model\.onnx (has|differs) .*\): it is made again", warning) for warning in again.warnings)
    values = inputs(2)
    assert_equal(again.call(*values), TorchBackend().load(context(node("Mix")), {}).call(*values))


@pytest.mark.parametrize("where", ["../elsewhere.data", "/elsewhere.data"])
def test_an_export_whose_weights_lead_out_of_its_folder_is_made_again_and_said(where):
    """Though its seal holds: onnxruntime refuses such a file, and that is no end of the run."""
    (entry,) = store.entries()
    path = entry.folder / "model.onnx"
    (entry.folder / "model.onnx.data").unlink(missing_ok=True)
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="model.onnx.data", size_threshold=0)
    graph = onnx.load(path, load_external_data=False)
    places = [fact for tensor in graph.graph.initializer for fact in tensor.external_data if fact.key == "location"]
    assert places
    for fact in places:
        fact.value = where
    path.write_bytes(graph.SerializeToString())
    for tuned in entry.folder.glob("tuned-*/"):
        shutil.rmtree(tuned)
    seals.seal(entry.folder)
    again = OnnxBackend().load(context(node("Mix")), {})
    told = [warning for warning in again.warnings if f"the cached export {entry.folder.name} cannot be used (" in warning]
    assert len(told) == 1
    assert told[0].endswith("): it is made again")
    values = inputs(2)
    assert_equal(again.call(*values), TorchBackend().load(context(node("Mix")), {}).call(*values))
    assert OnnxBackend().load(context(node("Mix")), {}).warnings == tuple(warning for warning in again.warnings if warning not in told)


@pytest.mark.parametrize("content", [b"junk", b'{"inputs": 3}'])
def test_an_export_whose_manifest_is_something_else_is_made_again(content):
    """Though its seal holds, as of an export that another version has written."""
    (entry,) = store.entries()
    (entry.folder / "manifest.json").write_bytes(content)
    seals.seal(entry.folder)
    again = OnnxBackend().load(context(node("Mix")), {})
    values = inputs(2)
    assert_equal(again.call(*values), TorchBackend().load(context(node("Mix")), {}).call(*values))


@pytest.mark.parametrize(("precision", "tolerance"), [("int8", 0.25), ("w8", 0.1)])
def test_fewer_bits_stay_within_their_tolerance(precision, tolerance, empty_cache):
    """Relative to the largest value of the output."""
    values = inputs()
    got = OnnxBackend().load(replace(context(node("Mix")), precision=precision), {}).call(*values)
    expected = TorchBackend().load(context(node("Mix")), {}).call(*values)
    assert_equal(got, expected, tolerance=tolerance * expected["mixed"].abs().max().item())
    (entry,) = store.entries()
    assert entry.manifest["precision"] == precision
    assert (as_tensor(got["mixed"]) - expected["mixed"]).abs().max() > 1e-4  # more than orders of summation give


def test_fewer_bits_are_made_of_a_kept_float32_export(monkeypatch, tmp_path):
    """No module is built, the weights are those that are made of the module, and the distance from torch is of both steps."""
    made = replace(context(node("Mix")), precision="w8")
    with monkeypatch.context() as patch:
        patch.setenv("MODELGRAFT_CACHE", str(tmp_path / "other"))
        OnnxBackend().load(made, {})
        (other,) = store.entries()
    (plain,) = store.entries()
    monkeypatch.setattr(TorchBackend, "load", lambda *_: pytest.fail("a module was built"))
    OnnxBackend().load(made, {})
    (mine,) = (entry for entry in store.entries() if entry.folder.name != plain.folder.name)
    assert mine.folder.name == other.folder.name
    assert (mine.folder / "model.onnx.data").read_bytes() == (other.folder / "model.onnx.data").read_bytes()
    assert (mine.manifest["precision"], mine.manifest["derived"]) == ("w8", plain.folder.name)
    assert mine.manifest["parity"]["relative"] == pytest.approx(other.manifest["parity"]["relative"], rel=0.01)
    assert store.broken(plain) == ""


@pytest.mark.parametrize("harm", ["graph", "manifest"])
def test_fewer_bits_are_made_of_the_module_where_the_kept_export_is_of_no_use(harm, empty_cache):
    """Though its seal holds: no graph, or a manifest that lacks something."""
    OnnxBackend().load(context(node("Mix")), {})
    (kept,) = store.entries()
    lacking = json.dumps({key: told for key, told in kept.manifest.items() if key != "warnings"})
    name, content = {"graph": ("model.onnx", "junk"), "manifest": ("manifest.json", lacking)}[harm]
    (kept.folder / name).write_text(content, encoding="utf-8")
    seals.seal(kept.folder)
    OnnxBackend().load(replace(context(node("Mix")), precision="w8"), {})
    (made,) = (entry for entry in store.entries() if entry.manifest["precision"] == "w8")
    assert "derived" not in made.manifest


def test_old_exports_make_room_for_new_ones(empty_cache):
    """Above the bound the oldest goes, never the one in use."""
    for key in ("first", "second", "third"):
        store.make(key, lambda folder: {"wrote": (folder / "model.onnx").write_bytes(bytes(1000))})
    keys = [entry.folder.name for entry in store.entries()]
    size = store.size_of(store.entries()[0])
    assert store.trim(keep=keys[0], most_bytes=2 * size + 100) == [keys[1]]
    assert [entry.folder.name for entry in store.entries()] == [keys[0], keys[2]]


def test_an_export_tells_how_far_it_is():
    """It takes from seconds to minutes; the second start has nothing to tell."""
    heard = []
    for _ in range(2):
        with heard_by(lambda done, total, label: heard.append((done, total, label))):
            OnnxBackend().load(replace(context(node("Mix")), seed=99), {})
    assert [(done, total) for done, total, _ in heard] == [(1, 3), (2, 3), (3, 3), (1, 1)]
    assert [label.partition(" ")[0] for _, _, label in heard] == ["tracing", "bringing", "comparing", "tuning"]
