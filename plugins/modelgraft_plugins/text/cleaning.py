"""Texts from the web as CLIP's own code mends them before it cuts them into tokens.

Source: `basic_clean` and `whitespace_clean` of `clip/simple_tokenizer.py`: mojibake mended (ftfy), HTML read twice, white space joined,
small letters.
"""

from __future__ import annotations

import html
import re

from modelgraft.plugin import InputError

_PLAIN = re.compile(r"[ -%'-~]*")  # ASCII that can be seen, without &: ftfy and HTML leave it as it is


def mended(text: str, *, name: str) -> str:
    """A text as CLIP's code reads it. Raises InputError where it needs ftfy, and that is not installed.

    name  of the component, in messages
    """
    if _PLAIN.fullmatch(text) is None:
        text = html.unescape(html.unescape(_fixed(text, name)))
    return " ".join(text.split()).lower()


def _fixed(text: str, name: str) -> str:
    try:
        import ftfy
    except ImportError as error:
        found = f"{name}: {text[:60]!r} has letters or signs that CLIP's own tokenizer mends with the package ftfy, which is not installed"
        raise InputError(f"{found}; pip install ftfy, or set clean: none") from error
    fixed: str = ftfy.fix_text(text)
    return fixed
