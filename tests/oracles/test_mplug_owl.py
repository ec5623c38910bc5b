"""mPLUG-Owl's eye and abstractor beside the published code, under the keys of its files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from modelgraft.installed.discovery import assemble
from modelgraft.testing import conform
from modelgraft_plugins import families, qformer, vision, zoo
from modelgraft_plugins.zoo import Abstractor
from support.open_part import configured, counts, open_part
from support.oracles import Case, Oracle, cases, must_differ, oracle

REGISTRY = assemble({"zoo": zoo, "vision": vision, "qformer": qformer, "families": families})
EYE, BRIDGE = "mplug_owl_vision", "mplug_owl_abstractor"


def folder_of(given: Oracle, home: Path) -> Path:
    """The weights under their official keys, and the sizes in the words of the fixture."""
    kind = "mplug_owl_vision_model" if "patch_size" in given.config else "mplug_owl_visual_abstract"
    return home if (home / "config.json").exists() else given.as_folder(home, {"model_type": kind, **given.config})


def see(given: Oracle, case: Case, home: Path) -> dict[str, torch.Tensor]:
    """What the eye gives."""
    found: dict[str, torch.Tensor] = open_part(REGISTRY, "vision/encoder", str(folder_of(given, home)))(case.inputs["pixels"])
    return found


def read(given: Oracle, case: Case, home: Path) -> dict[str, torch.Tensor]:
    """What the queries make of what an eye gives."""
    folder, seen = folder_of(given, home), case.inputs["vision_tokens"]
    queries = open_part(REGISTRY, "qformer/queries", f"{folder}#query_tokens")(seen)
    return {"image_tokens": open_part(REGISTRY, "zoo/abstractor", f"{folder}#abstractor")(queries, seen)}


@pytest.mark.parametrize("case", cases(EYE))
def test_the_eye_is_that_of_the_published_code(case: Case, tmp_path: Path):
    case.compare_all(see(oracle(EYE), case, tmp_path / "eye"))


@pytest.mark.parametrize("case", cases(BRIDGE))
def test_the_abstractor_is_that_of_the_published_code(case: Case, tmp_path: Path):
    case.compare_all(read(oracle(BRIDGE), case, tmp_path / "bridge"))


@pytest.mark.parametrize("seed", range(3))
def test_a_weight_that_is_off_shows(seed: int, tmp_path: Path):
    must_differ(EYE, lambda given, case: see(given, case, tmp_path / "eye"), seed=seed)
    must_differ(BRIDGE, lambda given, case: read(given, case, tmp_path / "bridge"), seed=seed)


def test_they_count_what_they_have(tmp_path: Path):
    """By formula, as built, and as the files hold it."""
    for name, parts in ((EYE, {"": "vision/encoder"}), (BRIDGE, {"#abstractor": "zoo/abstractor", "#query_tokens": "qformer/queries"})):
        given = oracle(name)
        home = folder_of(given, tmp_path / name)
        nodes = [configured(REGISTRY, component, f"{home}{part}") for part, component in parts.items()]
        for node in nodes:
            told, built = counts(node)
            assert told == built
        assert sum(node.config.parameters() or 0 for node in nodes) == sum(tensor.numel() for tensor in given.weights.values())


def test_a_file_without_a_config_says_its_sizes_by_its_tensors(tmp_path: Path):
    """But for the number of heads, which is that of the published model for a width; a whole of both parts, in one file."""
    eye, bridge = oracle(EYE), oracle(BRIDGE)
    file = tmp_path / "pytorch_model.safetensors"
    save_file({**{f"vision_model.{key}": tensor for key, tensor in eye.weights.items()}, **bridge.weights}, file)
    seen = configured(REGISTRY, "vision/encoder", f"{file}#vision_model", num_attention_heads=eye.config["num_attention_heads"]).config
    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "image_size", "patch_size")
    assert {name: getattr(seen, name) for name in names} == {name: eye.config[name] for name in names}
    part = open_part(REGISTRY, "zoo/abstractor", f"{file}#abstractor", num_attention_heads=bridge.config["num_attention_heads"],
                     layer_norm_eps=bridge.config["layer_norm_eps"])  # fmt: skip
    for case in bridge.cases.values():
        memory = case.inputs["vision_tokens"]
        case.compare_all({"image_tokens": part(bridge.weights["query_tokens"].expand(len(memory), -1, -1), memory)})


def test_a_tensor_that_the_model_has_not_is_refused(tmp_path: Path):
    given = oracle(EYE)
    home = given.as_folder(tmp_path / "odd", {"model_type": "mplug_owl_vision_model", **given.config})
    save_file({**given.weights, "embeddings.temporal": torch.zeros(2)}, home / "model.safetensors")
    with pytest.raises(Exception, match=r"layout of mPLUG-Owl: it has 1 tensors that such a model has not: embeddings\.temporal"):
        configured(REGISTRY, "vision/encoder", str(home)).source.tensor_shapes()


def test_queries_of_another_width_than_what_they_read_are_refused(tmp_path: Path):
    """As the norm of the published code does, which is one width wide."""
    home = oracle(BRIDGE).as_folder(
        tmp_path / "odd", {"model_type": "mplug_owl_visual_abstract", "hidden_size": 8, "encoder_hidden_size": 9}
    )
    with pytest.raises(ValueError, match="its queries are 8 wide and what they read 9"):
        configured(REGISTRY, "zoo/abstractor", f"{home}#abstractor")


def test_the_abstractor_keeps_its_word():
    conform(
        Abstractor,
        {
            "hidden_size": 12,
            "language_size": 10,
            "num_hidden_layers": 2,
            "num_attention_heads": 3,
            "intermediate_size": 7,
            "num_queries": 5,
        },
    )
