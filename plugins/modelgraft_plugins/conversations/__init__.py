"""How models were taught to talk: conversation templates as data, one row of `rows.yaml` each, by name.

`chat_template: NAME` of a language model takes one where its source has no template of that name. A row becomes a chat template
like those of tokenizers, so that it is written by the same code, within the same bounds; but what is written is a text like others, around
which the tokenizer puts its own begin token. Light: any plugin may import it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict

ROWS, TEMPLATE = "rows.yaml", "template.jinja"
_LOADER: type[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # Any: the C parser has no type information


class Row(BaseModel):
    """One way of writing a conversation; the head of rows.yaml says what each key means."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    doc: str
    system: str = ""
    opening: str = ""
    first: str = ""
    user: str
    assistant: str
    answer: str
    medium: str = "{media}"
    between: str = ""
    marks: tuple[str, ...] = ()
    stop: tuple[str, ...] = ()
    ends: tuple[str, ...] = ()
    examples: tuple[tuple[str, str], ...] = ()

    def template(self) -> str:
        """The chat template of this row."""
        said = self.model_dump(mode="json", exclude={"doc", "stop", "ends"})
        return f"{{%- set row = {json.dumps(said)} -%}}\n{_read(TEMPLATE)}"


@cache
def rows() -> Mapping[str, Row]:
    """Every row by its name, in the order of the file."""
    found: Mapping[str, Any] = yaml.load(_read(ROWS), Loader=_LOADER)  # noqa: S506 it is a safe one
    return {name: Row(**row) for name, row in found.items()}


def named(name: str | None) -> Row | None:
    """The row of a name, if there is one."""
    return None if name is None else rows().get(name)


def _read(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")
