"""Room for the table that compares whole programs that run language models: named here, measured later.

python -m benchmarks.rivals [--json]
"""

from __future__ import annotations

import sys
from pathlib import Path

if __package__ in {None, ""}:
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks import tables
from benchmarks.tables import Asked, Row, Table

RIVALS = ("llama.cpp", "onnxruntime-genai", "mobius", "OpenVINO")


def rows(asked: Asked) -> list[Row]:  # noqa: ARG001 nothing is measured yet
    """A row for each, which says that it was not measured."""
    return [{"rival": name, "why": "there is no harness for it yet"} for name in RIVALS]


TABLE = Table(
    name="rivals",
    title="Rivals: whole programs that run language models",
    says="The same weights and prompts in programs of others. This table is not measured yet.",
    columns={"rival": "rival", "first_s": "first token, s", "token_ms": "per token, ms", "mb": "memory, MB", "ratio": "times modelgraft"},
    rows=rows,
    minutes=0.0,
)

if __name__ == "__main__":
    tables.alone(TABLE)
