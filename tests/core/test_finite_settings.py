"""No setting of a node is NaN or infinite: what would come of it is told where it is written, not after the run."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, get_args, get_origin

import pytest
from pydantic import ValidationError

import modelgraft as mg
from modelgraft.installed.discovery import discover
from modelgraft.kernel.words.errors import GraphError

GRAPH = """modelgraft: 1
inputs: {{prompt: text}}
nodes:
  llm:
    use: llm/causal
    from: preset:llama-7b
    with:
      {name}: {value}
    in: {{prompt: inputs.prompt}}
outputs: {{text: llm.text}}
"""


def held(kind: Any, number: float) -> Iterator[Any]:
    """Values of a type that hold a number, such as [(number,)] for list[tuple[float]]."""
    inner, origin = get_args(kind), get_origin(kind)
    if kind is float:
        yield number
    elif origin is tuple:
        items = [list(held(item, number)) for item in inner if item is not ...]
        yield from ([*[0] * place, value, *[0] * (len(items) - place - 1)] for place, found in enumerate(items) for value in found)
    elif origin is dict or str(origin).endswith("Mapping'>"):
        yield from ({"a": value} for value in held(inner[1], number))
    elif origin is not None:  # a union, or an annotated type
        yield from (value for item in inner for value in held(item, number))


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_no_number_of_any_component_is_other_than_finite(number):
    """Of every component that is installed, whatever else bounds it, and wherever in a setting it stands."""
    tried = []
    for name, component in discover().components.items():
        for key, field in component.config.model_fields.items():
            for value in held(field.annotation, number):
                tried.append((name, key))
                with pytest.raises(ValidationError) as found:
                    component.config.model_validate({key: value})
                assert (key, "finite_number") in {(one["loc"][0], one["type"]) for one in found.value.errors()}, (name, value)
    assert {("llm/causal", "sequence_bias"), ("embedding/combine", "weights"), ("router/length", "above")} <= {*tried}


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("temperature", ".nan", "temperature is nan: input should be a finite number"),
        ("repetition_penalty", ".inf", "repetition_penalty is inf: input should be a finite number"),
        ("sequence_bias", "[[[5], .nan]]", "sequence_bias.0.1 is nan: input should be a finite number"),
        ("token_scale", "{a: -.inf}", "token_scale.a is -inf: input should be a finite number"),
    ],
)
def test_what_is_no_finite_number_is_told_with_its_line(tmp_path, name, value, told):
    """Where it is written, what was found, and what was wanted."""
    graph = tmp_path / "talk.yaml"
    graph.write_text(GRAPH.format(name=name, value=value), encoding="utf-8")
    with pytest.raises(GraphError, match=r"talk\.yaml:8  wrong-value  llm\.") as found:
        mg.check(graph)
    assert told in str(found.value)
