"""Eight eyes, six connectors, eight tongues: each composition is the LLaVA graph with three names set, and a sample of them runs.

Each part stands in two compositions of the sample, and in one that runs on ONNX. `MODELGRAFT_MATRIX_SEED` draws another sample, and
`MODELGRAFT_WHOLE=1` a larger one.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import pytest

import modelgraft as mg
from support import matrix
from support.pictures import picture
from support.sampling import WHOLE, covering

SEED = int(os.environ.get("MODELGRAFT_MATRIX_SEED", "12"))
PARTS = (matrix.EYES, tuple(matrix.CONNECTORS), matrix.TONGUES)
COMPOSED = matrix.drawn(40, seed=SEED) if WHOLE else covering(*PARTS, rounds=2, seed=SEED)
ON_ONNX = COMPOSED[:10] if WHOLE else COMPOSED[: len(matrix.EYES)]
RECORDS = {"image": [picture(31, 17), picture(9, 20, "L")], "prompt": ["what is it?", "a cat"]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where parts are made as they are needed."""
    return tmp_path_factory.mktemp("parts")


def composed(folder: Path, eye: str, connector: str, tongue: str) -> mg.Graph:
    """LLaVA with other parts."""
    parts = {"checkpoint": matrix.make("llava", folder), "eye": matrix.make(eye, folder), "tongue": matrix.make(tongue, folder)}
    given = {**{name: str(path) for name, path in parts.items()}, "max_new_tokens": 4, **matrix.settings(eye, connector)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return mg.load("llava", params=given)


@pytest.mark.slow
@pytest.mark.parametrize(("eye", "connector", "tongue"), COMPOSED, ids=["-".join(one) for one in COMPOSED])
def test_a_composition_is_solved_counted_and_answers(folder: Path, eye: str, connector: str, tongue: str):
    """Widths and tokens follow from the parts, the counts are those of the modules, and a batch answers as its records do alone."""
    graph = composed(folder, eye, connector, tongue)
    plan = mg.plan(graph)
    [media] = [port.tensor for name, port in plan.nodes["llm"].node.in_ports.items() if name == "image"]
    tokens = matrix.TOKENS.get(connector, matrix.PATCHES[eye])
    assert [axis.size for axis in media.axes[1:]] == [tokens, matrix.WIDTHS[tongue]]
    assert plan.nodes["llm"].node.component.id == ("llm/seq2seq" if tongue in matrix.CROSSING else "llm/causal")
    if tongue != "bart":  # no formula is known for it, and its files hold a bias of the logits that is no parameter
        assert plan.totals == mg.plan(graph, exact=True).totals
    with mg.open(graph, seed=1) as pipeline:
        batch = pipeline.run(**RECORDS)["text"]
        alone = [pipeline.run(image=image, prompt=prompt)["text"] for image, prompt in zip(*RECORDS.values(), strict=True)]
    assert batch == alone


@pytest.mark.whole(
    "tests/graphs/test_onnx_graphs.py::test_a_graph_answers_on_onnx_as_on_torch",
    "tests/plugins/test_onnx_parts.py::test_a_part_gives_torchs_numbers",
)
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize(("eye", "connector", "tongue"), ON_ONNX, ids=["-".join(one) for one in ON_ONNX])
def test_a_composition_answers_on_onnx_as_on_torch(folder: Path, eye: str, connector: str, tongue: str, monkeypatch):
    monkeypatch.setenv("MODELGRAFT_CACHE", str(folder / "cache"))  # an eye that comes again is exported once
    graph = composed(folder, eye, connector, tongue)
    answers = []
    for backend in ("torch", "onnx"):
        with mg.open(graph, backend=backend, seed=1) as pipeline:
            answers.append(pipeline.run(**RECORDS, outputs=["text", "llm.logits"]))
    torch_logits, onnx_logits = (answer["llm.logits"] for answer in answers)
    assert answers[0]["text"] == answers[1]["text"]
    assert (torch_logits - onnx_logits).abs().max() <= 1e-4 * torch_logits.abs().max()


def test_what_does_not_fit_together_is_told(folder: Path):
    """An odd grid has no groups of four."""
    given = {"checkpoint": str(matrix.make("llava", folder)), "eye": str(matrix.make("clip", folder)), "projector": "graph:connectors/pool"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph = mg.load("llava", params=given)
    with pytest.raises(
        mg.GraphError, match=r"vision.tokens gives float\[batch 9 24\], but project/pooled.x takes float\[batch 4\*groups 24\]"
    ):
        mg.check(graph)


def test_the_sample_depends_on_the_seed_alone():
    assert matrix.drawn(40, seed=3) == matrix.drawn(40, seed=3) != matrix.drawn(40, seed=4)
    assert len(matrix.EYES) * len(matrix.CONNECTORS) * len(matrix.TONGUES) == 384


def test_every_part_is_in_the_sample():
    """Once in each round, whatever is drawn."""
    for seed in range(20):
        found = covering(*PARTS, rounds=1, seed=seed)
        assert len(found) == 8
        assert [set(side) for side in zip(*found, strict=True)] == [set(side) for side in PARTS]
