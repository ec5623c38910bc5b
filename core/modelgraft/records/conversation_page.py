"""A conversation as one page of HTML that needs nothing else: its media lie in it, nothing is fetched, and no script runs.

Whatever was said is text: it is escaped, and the page tells browsers to load nothing but what lies in it. Light or dark as the
reader's system is; on paper the players are left out and all that is folded is shown.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from html import escape
from typing import Any

from modelgraft.records import enclosing
from modelgraft.records.amounts import in_seconds
from modelgraft.records.conversation import WORDS
from modelgraft.records.record import Sight
from modelgraft.records.showing import brief

PAGE_ENDING = ".html"
TITLE = 80  # letters of a title that was not given
SHOWN_S = 0.001  # a node that took less is counted, and not listed
ROLES = {"user": "You", "assistant": "Model", "system": "Instruction"}  # as they stand on the page; any other by its own name

PAPER_STYLE = """
:root { color-scheme: light dark; --page: #f6f7f9; --card: #ffffff; --ink: #1d232b; --soft: #56606c; --line: #d9dee5; --link: #1f5f99;
  --user: #e3eefa; --frame: #eef1f4; }
@media (prefers-color-scheme: dark) { :root { --page: #12151a; --card: #1b2027; --ink: #e6e9ee; --soft: #a7b0bc; --line: #323a46;
  --link: #8cc0ee; --user: #1d3148; --frame: #252c36; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.55 system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif; }
header, main, footer { max-width: 46rem; margin: 0 auto; padding: 0 1rem; }
header { padding-top: 2rem; } h1 { margin: 0; font-size: 1.45rem; line-height: 1.3; overflow-wrap: anywhere; }
header p, footer p { margin: .3rem 0 0; color: var(--soft); font-size: .875rem; }
main { padding-top: 1.25rem; } footer { padding-top: .75rem; padding-bottom: 2.5rem; }
ol { margin: 0; padding: 0; list-style: none; display: flex; flex-direction: column; gap: 1rem; }
article { max-width: 88%; width: fit-content; padding: .7rem 1rem; background: var(--card); border: 1px solid var(--line);
  border-radius: .25rem .9rem .9rem .9rem; }
.user { margin-left: auto; background: var(--user); border-radius: .9rem .25rem .9rem .9rem; }
.system { max-width: none; width: auto; background: none; border-style: dashed; border-radius: .5rem; color: var(--soft); }
h2 { display: flex; flex-wrap: wrap; gap: 0 .6rem; margin: 0 0 .2rem; color: var(--soft); font-size: .8125rem; font-weight: 600; }
time { font-weight: 400; }
.said { margin: .2rem 0; white-space: pre-wrap; overflow-wrap: anywhere; }
figure { margin: .5rem 0 .35rem; } figcaption { margin-top: .2rem; color: var(--soft); font-size: .8125rem; }
img, video { display: block; max-width: 100%; max-height: 32rem; height: auto; border-radius: .4rem; background: var(--frame); }
audio { display: block; width: 22rem; max-width: 100%; }
details { margin-top: .4rem; color: var(--soft); font-size: .8125rem; }
summary { width: fit-content; cursor: pointer; border-radius: .2rem; }
:focus-visible { outline: 2px solid var(--link); outline-offset: 2px; }
table { margin-top: .3rem; border-collapse: collapse; } th { font-weight: 400; text-align: left; overflow-wrap: anywhere; }
th, td { padding: .1rem 1rem .1rem 0; } td { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.skip { position: absolute; left: -99rem; } .skip:focus { left: 1rem; top: .5rem; color: var(--link); }
@media (max-width: 30rem) { article { max-width: 100%; } header { padding-top: 1.25rem; } }
@media print { :root { --page: #fff; --card: #fff; --user: #f2f2f2; --ink: #000; --soft: #444; --line: #bbb; }
  article { max-width: 100%; break-inside: avoid; } audio, details { display: none; } }
""".strip()

POLICY = "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def conversation_page(messages: Sequence[Mapping[str, Any]], *, title: str = "", about: str = "") -> str:
    """The page of a conversation.

    title  None given: the first thing that was said
    about  a line below the title, such as the graph that answered
    """
    title = title or _first_words(messages)
    rows = "\n".join(f"<li>{_article(message, number, is_last=number == len(messages))}</li>" for number, message in enumerate(messages, 1))
    under = f"<p>{escape(about)}</p>" if about else ""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(POLICY)}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n<meta name="generator" content="modelgraft">\n'
        f"<title>{escape(title)}</title>\n<style>\n{PAPER_STYLE}\n</style>\n</head>\n<body>\n"
        f'<a class="skip" href="#last">To the last message</a>\n<header><h1>{escape(title)}</h1>{under}</header>\n'
        f"<main><ol>\n{rows}\n</ol></main>\n<footer><p>{_counted(messages)}</p></footer>\n</body>\n</html>\n"
    )


def _article(message: Mapping[str, Any], number: int, *, is_last: bool) -> str:
    role = str(message["role"])
    kind, name = (role, ROLES[role]) if role in ROLES else ("other", role)
    body = "".join(_part(part, f"{name}, message {number}") for part in _parts(message["content"])) or '<p class="said"></p>'
    mark = ' id="last" tabindex="-1"' if is_last else ""
    head = f"<h2>{escape(name)}{_time(message)}</h2>"
    return f'<article class="{kind}" aria-label="{escape(name)}"{mark}>{head}{body}{_nodes(message)}</article>'


def _parts(content: Any) -> list[Mapping[str, Any]]:
    return [{"type": WORDS, WORDS: content}] if isinstance(content, str) else list(content)


def _part(part: Mapping[str, Any], where: str) -> str:
    medium = str(part["type"])
    value = part.get(medium)
    if isinstance(value, str):
        return f'<p class="said">{escape(value)}</p>'
    seen = enclosing.shown(value)
    return f'<p class="said">{escape(brief(value))}</p>' if seen is None or not seen.kind else _figure(seen, where)


def _figure(seen: Sight, where: str) -> str:
    """A picture or a player, with what it is below it."""
    address, said = enclosing.address_of(seen.kind, seen.content), escape(seen.said)
    if seen.kind.startswith("image/"):
        inner = f'<img src="{address}" alt="{said} ({escape(where)})" loading="lazy">'
    else:
        player = seen.kind.partition("/")[0]
        inner = f'<{player} controls preload="metadata" src="{address}" aria-label="{said} ({escape(where)})"></{player}>'
    return f"<figure>{inner}<figcaption>{said}</figcaption></figure>"


def _time(message: Mapping[str, Any]) -> str:
    """When it was said: as a person writes it, and as it stands there for programs."""
    time = message.get("time")
    if not isinstance(time, str) or not time:
        return ""
    try:
        text = datetime.fromisoformat(time).strftime("%d %b %Y, %H:%M")
    except ValueError:
        text = time
    return f'<time datetime="{escape(time)}">{escape(text)}</time>'


def _nodes(message: Mapping[str, Any]) -> str:
    """What ran to make it, the longest first, folded."""
    nodes: Mapping[str, float] = message.get("nodes") or {}
    long = sorted(((name, seconds) for name, seconds in nodes.items() if seconds >= SHOWN_S), key=lambda pair: -pair[1])
    if not long:
        return ""
    rows = "".join(f'<tr><th scope="row">{escape(name)}</th><td>{escape(in_seconds(seconds))}</td></tr>' for name, seconds in long)
    rest = len(nodes) - len(long)
    more = f'<tr><th scope="row">{rest} more, each below a millisecond</th><td></td></tr>' if rest else ""
    total = escape(in_seconds(sum(nodes.values())))
    told = f"{len(long)} node{'s' * (len(long) != 1)}, {total}"
    return f"<details><summary>{told}</summary><table>{rows}{more}</table></details>"


def _texts(messages: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for message in messages:
        for part in _parts(message["content"]):
            value = part.get(str(part["type"]))
            if message["role"] != "system" and isinstance(value, str) and value.strip():
                yield " ".join(value.split())


def _first_words(messages: Sequence[Mapping[str, Any]]) -> str:
    text = next(_texts(messages), "A conversation")
    return text if len(text) <= TITLE else f"{text[: TITLE - 1]}…"


def _counted(messages: Sequence[Mapping[str, Any]]) -> str:
    media = sum(not isinstance(part.get(str(part["type"])), str) for message in messages for part in _parts(message["content"]))
    held = f" with {media} picture{'s' * (media != 1)} or other media" if media else ""
    return f"{len(messages)} message{'s' * (len(messages) != 1)}{held}, made with modelgraft."
