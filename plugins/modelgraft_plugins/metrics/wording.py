"""How captions are cut into words, and the import of a package that a metric needs."""

from __future__ import annotations

import importlib
import re
from typing import Any

from modelgraft.plugin import InputError

_NOT = re.compile(r"n't\b")
_CANNOT = re.compile(r"\bcannot\b")
_CLITIC = re.compile(r"'(s|re|ve|ll|d|m)\b")
_WORD = re.compile(r"n't|'(?:s|re|ve|ll|d|m)\b|\w+(?:[-'.,/&]\w+)*|[^\w\s]")
_DROPPED = frozenset("'`.?!,:;-\"")  # brackets stay: there they are words such as -lrb-


def caption_words(text: str) -> list[str]:
    """Lower case words without punctuation, with `'s` and `n't` apart: what COCO's evaluation leaves of a plain caption.

    There it is the tokenizer of the Penn Treebank in Java, whose rarer rules (currencies, abbreviations, emoticons) are not followed.
    """
    cut = _CLITIC.sub(r" '\1", _CANNOT.sub("can not", _NOT.sub(" n't", text.lower())))
    return [word for word in _WORD.findall(cut) if word not in _DROPPED]


def needed(module: str, *, by: str) -> Any:  # Any: a module
    """Import what a metric needs. Raises InputError that says what to install.

    by  the id of the metric
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise InputError(f"{by} needs the package {package}: pip install 'modelgraft[metrics]'") from error
