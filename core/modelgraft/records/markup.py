"""Pieces of HTML for notebooks: escaped, without anything from elsewhere, readable on light and on dark paper."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

CELL = "padding:2px 10px 2px 0;vertical-align:top;border:0;white-space:nowrap"
RULE = "border-bottom:1px solid rgba(128,128,128,.5)"
FAINT = "opacity:.65"
NUMBERS = "text-align:right;font-variant-numeric:tabular-nums"
LONGEST = 4_000  # letters of a text that a page shows


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, right: Collection[int] = (), last: bool = False) -> str:
    """A table of texts.

    right  the columns of numbers;  last  the last row is a sum, under a line
    """
    listed = list(rows)
    head = "".join(_cell("th", text, _style(index, right, RULE)) for index, text in enumerate(heads))
    body = []
    for number, row in enumerate(listed):
        rule = RULE if last and number == len(listed) - 2 else ""
        body.append("<tr>" + "".join(_cell("td", text, _style(index, right, rule)) for index, text in enumerate(row)) + "</tr>")
    shown = f'<table style="border-collapse:collapse;font-size:13px"><thead><tr>{head}</tr></thead><tbody>{"".join(body)}</tbody></table>'
    return f'<div style="overflow-x:auto">{shown}</div>'


def _style(index: int, right: Collection[int], rule: str) -> str:
    return ";".join(part for part in (CELL, NUMBERS if index in right else "text-align:left", rule) if part)


def _cell(tag: str, text: str, style: str) -> str:
    return f'<{tag} style="{style}">{escaped(text)}</{tag}>'


def words(text: str) -> str:
    """A text with its lines, cut when it is very long."""
    shown = text if len(text) <= LONGEST else f"{text[:LONGEST]} … ({len(text):,} letters in all)"
    return f'<div style="white-space:pre-wrap;overflow-wrap:anywhere">{escaped(shown)}</div>'


def title(text: str, note: str = "") -> str:
    """A heading, and something faint beside it."""
    beside = f' <span style="{FAINT};font-weight:400">{escaped(note)}</span>' if note else ""
    return f'<div style="font-weight:600;margin:6px 0 2px">{escaped(text)}{beside}</div>'


def escaped(text: str) -> str:
    """A text as HTML has it."""
    from html import escape  # which reads a table of 2,000 names: nobody else needs it

    return escape(text)


def faint(text: str) -> str:
    """A remark."""
    return f'<div style="{FAINT};font-size:12px">{escaped(text)}</div>'
