"""The chat templates of a checkpoint, by name, wherever its tokenizer or its processor keeps them; read without transformers.

Places, the first that says something counts:
    of a processor   `chat_template` in processor_config.json, chat_template.json, then those of its tokenizer
    of a tokenizer   chat_template.jinja with additional_chat_templates/NAME.jinja, `chat_template` in tokenizer_config.json
A folder has a processor when processor_config.json or preprocessor_config.json lies in it. Without one, chat_template.json
is read last: transformers leaves it to processors. A template without a name is called "default".
Beside those of a checkpoint there are the rows of `conversations`, by name, for whoever has been taught one of them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelgraft.plugin import Problem, SourceError, choices, damaged, nearest
from modelgraft_plugins import conversations

DEFAULT = "default"
PROCESSOR, PREPROCESSOR = "processor_config.json", "preprocessor_config.json"
LEGACY, ALONE, MORE, TOKENIZER = "chat_template.json", "chat_template.jinja", "additional_chat_templates", "tokenizer_config.json"
TOKENIZERS = ("tokenizer.json", TOKENIZER, "tokenizer.model", "qwen.tiktoken")  # a folder with one of these has a tokenizer
MOST_BYTES = 64 << 20  # of a file: a tokenizer_config.json of many added tokens has some MB

Templates = Mapping[str, str]


def find(folder: Path) -> Templates:
    """The templates of a checkpoint by name; empty when it has none.

    Raises SourceError `source-damaged` for a file that cannot be read as templates, or for templates in two places that
    transformers refuses to choose between.
    """
    of_tokenizer = _files(folder) or _entry(folder / TOKENIZER)
    if not any((folder / name).is_file() for name in (PROCESSOR, PREPROCESSOR)):
        return of_tokenizer or _entry(folder / LEGACY)
    if own := _entry(folder / PROCESSOR):
        return own
    legacy = _entry(folder / LEGACY)
    if legacy and any((folder / MORE).glob("*.jinja")):
        found = f"has a template, and {MORE} beside it has others: which of them count cannot be told"
        raise damaged(folder / LEGACY, found, hint=f"rename {LEGACY} to {ALONE} with the template alone in it, or remove one of both")
    return legacy or of_tokenizer


def choose(templates: Templates, name: str | None, *, place: str) -> str | None:
    """The template of a name, a row of `conversations` among them, or without one the default; None when there is no default.

    Raises SourceError `no-chat-template` that names those there are.
    """
    wanted = name or DEFAULT
    if wanted not in templates and (row := conversations.named(name)) is not None:
        return row.template()
    if wanted in templates or (not templates and name is None):
        return templates.get(wanted)
    known = [*templates, *conversations.rows()]
    said = f"{place} has no chat template '{wanted}'; it has: {choices(templates)}"
    way = f"set chat_template to the name of one of them, or to one that any model may take: {choices(conversations.rows(), most=30)}"
    raise SourceError(Problem("no-chat-template", said, hint=nearest(wanted, known) or way))


def _files(folder: Path) -> dict[str, str]:
    found = {path.stem: _text(path) for path in sorted((folder / MORE).glob("*.jinja"))}
    if (folder / ALONE).is_file():
        found[DEFAULT] = _text(folder / ALONE)
    return found


def _entry(path: Path) -> dict[str, str]:
    """What a JSON file has under `chat_template`: a text, texts by name, or a list of {name, template}."""
    if not path.is_file():
        return {}
    try:
        written = json.loads(_text(path))
    except (ValueError, RecursionError) as error:
        raise damaged(path, f"is not JSON: {str(error).partition(chr(10))[0]}") from error
    value = written.get("chat_template") if isinstance(written, dict) else None
    return {} if value is None else _by_name(value, path)


def _by_name(value: Any, path: Path) -> dict[str, str]:  # Any: what a file holds
    if isinstance(value, str):
        return {DEFAULT: value}
    if isinstance(value, list) and all(isinstance(entry, dict) for entry in value):
        pairs = [(entry.get("name"), entry.get("template")) for entry in value]
    else:
        pairs = list(value.items()) if isinstance(value, dict) else [(None, None)]
    if not all(isinstance(word, str) for pair in pairs for word in pair):
        raise damaged(path, "has a chat_template that is neither a text, nor texts by name, nor a list of {name, template}")
    return dict(pairs)


def _text(path: Path) -> str:
    try:
        if (size := path.stat().st_size) > MOST_BYTES:
            raise damaged(path, f"has {size:,} bytes; at most {MOST_BYTES:,} are read")
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise damaged(path, f"is no UTF-8 text: byte {error.start} is {error.object[error.start]:#04x}") from error
    except OSError as error:
        raise damaged(path, f"cannot be read: {error.strerror or error}") from error
