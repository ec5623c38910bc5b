"""Once its exports are kept, a graph starts without the packages that only building and exporting need."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support import checkpoints
from support.pictures import picture

pytestmark = pytest.mark.slow  # it exports, in processes of their own

HEAVY = ("transformers", "onnx", "onnxscript", "torch._dynamo", "scipy")
# A process that runs a shipped graph and says what it answered and what it imported.
CHILD = """
import json, sys, threading
import modelgraft as mg
from modelgraft_plugins.onnx import begun
opened, opening = [], begun._open
begun._open = lambda what: opened.append(threading.current_thread().name.partition("_")[0]) or opening(what)
name, folder, image, allowed = sys.argv[1:]
with mg.open(mg.load(name, params={"checkpoint": folder, "max_new_tokens": 5}), backend="onnx", cache_bytes=0) as pipeline:
    result = pipeline.run(image=image, prompt="a cat", outputs=["text", "llm.logits"])
    print(json.dumps({
        "text": result["text"], "logits": result["llm.logits"].tolist(), "warnings": list(result.warnings),
        "opened": sorted(opened), "heavy": [name for name in json.loads(allowed) if name in sys.modules],
    }))
"""


def start(name: str, folder: Path, image: Path, cache: Path) -> dict[str, Any]:
    words = [sys.executable, "-c", CHILD, name, str(folder), str(image), json.dumps(HEAVY)]
    environment = {**os.environ, "MODELGRAFT_CACHE": str(cache)}
    done = subprocess.run(words, capture_output=True, text=True, check=True, env=environment)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.whole(
    "tests/graphs/test_without_torch.py::test_kept_exports_answer_in_a_fresh_process_without_torch",
    "tests/graphs/test_onnx_graphs.py::test_a_graph_answers_on_onnx_as_on_torch",
)
@pytest.mark.parametrize("name", ["blip2", "llava"])
def test_a_second_start_gives_the_same_and_imports_nothing_that_exports(name: str, tmp_path: Path):
    """Vision tower, connector, embeddings, tokenizer and decoder of a whole vision-language model."""
    made = getattr(checkpoints, name)(tmp_path / "checkpoint")
    image = tmp_path / "picture.png"
    picture(40, 30).save(image)
    first, second = (start(name, made.folder, image, tmp_path / "cache") for _ in range(2))
    assert "transformers" in first["heavy"]  # so that the list below can fail
    assert second.pop("heavy") == []
    assert second.pop("opened").count("session") >= 2  # vision tower and decoder, beside the import of torch
    assert "session" not in first["opened"]
    assert second == {key: value for key, value in first.items() if key not in ("heavy", "opened")}
