"""A wrong value is told once, by the keys that the document has, however many types it might have had."""

from __future__ import annotations

from typing import Literal

import pytest
from pydantic import Field, ValidationError

from modelgraft import Config
from modelgraft.kernel.checking.members import details_of


class Inner(Config):
    size: int | tuple[int, int] = 1


class Choosy(Config):
    text: str | tuple[str, ...] = ()
    cases: dict[str, str | tuple[str, ...]] = Field(default_factory=dict)
    stop: bool | Literal["never"] = False
    count: int | None = None
    pair: tuple[int, float] | None = None
    inner: Inner = Inner()
    either: Inner | str = ""


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"text": 3}, {"text": 2}),
        ({"text": ["a", 3]}, {"text.1": 1}),
        ({"cases": {"a": 3, "b": "x", "str": 4}}, {"cases.a": 2, "cases.str": 2}),
        ({"cases": 3}, {"cases": 1}),
        ({"stop": "perhaps"}, {"stop": 2}),
        ({"count": "x"}, {"count": 1}),
        ({"pair": [1, "x"]}, {"pair.1": 1}),
        ({"inner": {"size": "x"}}, {"inner.size": 2}),
        ({"inner": {"size": [1, "x"]}}, {"inner.size.1": 1}),
        ({"either": {"size": "x"}}, {"either.size": 2}),
        ({"text": 3, "count": "x", "more": 1}, {"text": 2, "count": 1, "more": 1}),
    ],
    ids=str,
)
def test_each_place_is_told_once_with_all_that_it_might_have_been(given, told):
    with pytest.raises(ValidationError) as caught:
        Choosy(**given)
    assert {".".join(path): len(messages) for path, _, messages in details_of(caught.value, given)} == told
