"""Hits as an HTML page that needs nothing else: pictures lie in it, and it is light or dark as its reader's system is."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape

from modelgraft.commands import page_colours
from modelgraft_plugins.retrieval.header import About
from modelgraft_plugins.retrieval.sheet import Hit

STYLE = """
body { margin: 0; padding: 24px; background: var(--page); color: var(--ink); font: 14px/1.4 system-ui, sans-serif; }
h1 { margin: 0 0 4px; font-size: 20px; } p { margin: 0 0 20px; color: var(--soft); }
ol { display: grid; grid-template-columns: repeat(auto-fill, minmax(176px, 1fr)); gap: 16px; margin: 0; padding: 0; list-style: none; }
figure { margin: 0; } .frame { display: flex; align-items: center; justify-content: center; }
.frame { aspect-ratio: 1; background: var(--chip); border-radius: 6px; }
.frame img { max-width: 96%; max-height: 96%; } .frame span { color: var(--faint); font-size: 20px; }
.bar { height: 4px; margin-top: 4px; } .bar i { display: block; height: 100%; background: var(--link); border-radius: 2px; }
figcaption { overflow-wrap: anywhere; } figcaption b { margin-right: 8px; } figcaption small { display: block; color: var(--soft); }
""".strip()


def page_of(hits: Sequence[Hit], *, title: str, about: About) -> str:
    """The page. Names of files and what was asked may hold anything: all of it is escaped."""
    head = escape(_written(title)) or "Nearest files"
    told = f"The nearest {len(hits)} of {about.entries:,} files, by the cosine of the angle of their vectors; {about.model['name']}"
    if about.recall is not None:
        told += f"; the approximate graph finds {about.recall:.1%} of the nearest ten"
    listed = "\n".join(_figure(number, hit) for number, hit in enumerate(hits, 1))
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f'<meta name="color-scheme" content="light dark"><title>{head}</title>\n<style>\n{page_colours()}\n{STYLE}\n</style></head>\n'
        f"<body><h1>{head}</h1><p>{escape(_written(told))}</p>\n<ol>\n{listed}\n</ol></body></html>\n"
    )


def _figure(number: int, hit: Hit) -> str:
    name = escape(_written(hit.name))
    source = f"data:image/jpeg;base64,{base64.b64encode(hit.small).decode()}" if hit.small else ""
    seen = f'<img src="{source}" alt="{name}">' if source else f"<span>{escape(_written(hit.name.rpartition('.')[2]))}</span>"
    width = 100 * min(max(hit.score, 0.0), 1.0)
    return (
        f'<li><figure><div class="frame">{seen}</div><div class="bar"><i style="width:{width:.1f}%"></i></div>'
        f"<figcaption><b>{number}</b>{hit.score:.3f}<small>{name}</small></figcaption></figure></li>"
    )


def _written(text: str) -> str:
    """A text that can be written as UTF-8: names of files may hold bytes that are no letters."""
    return text.encode("utf-8", "replace").decode()
