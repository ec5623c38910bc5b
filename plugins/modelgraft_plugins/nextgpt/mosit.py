"""Dialogues whose answers hold media, as NExT-GPT is trained on them (MosIT, arXiv 2309.05519, 5.2): what a language model wrote is read.

    Human: What does a red fox look like?
    GPT: It has red fur and a white tip on its tail. <Image>a red fox in the snow</Image>

Source of the form, and of what is no dialogue to train on: the construction files of its authors, whose rows the output has.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from modelgraft.plugin import LoadContext
from modelgraft_plugins.nextgpt import MEDIA

if TYPE_CHECKING:
    from modelgraft_plugins.nextgpt import Dialogue, Requests

TURN = re.compile(r"^\s*(?:\*\*)?(human|user|gpt|assistant)(?:\*\*)?\s*:(?:\*\*)?\s*", re.IGNORECASE)
ASK = re.compile(rf"<({'|'.join(MEDIA)})>(.*?)</\1>", re.IGNORECASE | re.DOTALL)
STRAY = re.compile(rf"</?(?:{'|'.join(MEDIA)})>", re.IGNORECASE)
Part = dict[str, str]  # {"text": ...}, or {"medium": image, "caption": ...}
Said = dict[str, Any]  # {"role": user or assistant, "parts": [...]}


def requests(config: Requests, _context: LoadContext) -> Callable[[list[str]], dict[str, Any]]:
    """Make the function from what was written to dialogues and what they ask for."""
    import torch

    def read(written: list[str]) -> dict[str, Any]:
        found = [dialogue_of(text, config) for text in written]
        fits = torch.tensor([not isinstance(one, str) for one in found], dtype=torch.bool)
        talks = [[] if isinstance(one, str) else one for one in found]
        asks = {f"{name}_text": [[ask["caption"] for ask in asked(talk, name)] for talk in talks] for name in MEDIA}
        return {"dialogue": talks, **asks, "trouble": [one if isinstance(one, str) else "" for one in found], "fits": fits, "else": ~fits}

    return read


def asked(talk: Sequence[Said], medium: str) -> list[Part]:
    """What a dialogue asks for of a medium, in its order."""
    return [part for said in talk for part in said["parts"] if part.get("medium") == medium]


def dialogue_of(written: str, config: Requests) -> list[Said] | str:
    """A dialogue, or a sentence that says why it is none to train on. A last turn of the human, which nobody answers, is left out."""
    turns = _turns(written)
    if isinstance(turns, str):
        return turns
    talk = list[Said]()
    for number, (role, text) in enumerate(turns):
        who = "human" if role == "user" else "model"
        if role != ("user", "assistant")[number % 2]:
            return f"two turns of the {who} follow each other: {_short(text)}"
        parts = parts_of(text)
        if isinstance(parts, str):
            return parts
        if not parts:
            return f"a turn of the {who} is empty"
        if role == "user" and any("medium" in part for part in parts):
            return "the human shows something, and there is nothing to show"
        talk.append({"role": role, "parts": parts})
    return _complaint(talk, config) or talk


def _turns(written: str) -> list[tuple[str, str]] | str:
    """Who says what, as far as it is answered; or why nobody does."""
    found = list[tuple[str, list[str]]]()
    for line in written.strip().splitlines():
        head = TURN.match(line)
        if head is not None:
            found.append(("user" if head[1].lower() in ("human", "user") else "assistant", [line[head.end() :]]))
        elif found:
            found[-1][1].append(line)
        elif line.strip():
            return f"it does not begin with a turn of the human: {_short(line)}"
    if found and found[-1][0] == "user":
        found.pop()
    return [(role, "\n".join(lines).strip()) for role, lines in found] or "there is no turn that is answered"


def _complaint(talk: Sequence[Said], config: Requests) -> str:
    """What is wrong with a dialogue as a whole; "" for one to train on."""
    wanted = [part for name in MEDIA for part in asked(talk, name)]
    if not wanted:
        return "nothing but words is asked for"
    if other := next((part["medium"] for part in wanted if part["medium"] not in config.media), None):
        return f"it asks for {other}, and {', '.join(config.media)} alone is wanted"
    words = sum(len(text.split()) for said in talk for part in said["parts"] for text in (part.get("text", ""), part.get("caption", "")))
    return f"it has {words} words, wanted at most {config.most_words}" if words > config.most_words else ""


def parts_of(text: str) -> list[Part] | str:
    """The words of a turn and what it asks for, in their order; a sentence for a mark that has no other end."""
    found, at = list[Part](), 0
    for ask in ASK.finditer(text):
        found += [{"text": text[at : ask.start()].strip()}, {"medium": ask[1].lower(), "caption": " ".join(ask[2].split())}]
        at = ask.end()
    found.append({"text": text[at:].strip()})
    if stray := next((mark for part in found for mark in STRAY.findall(part.get("text", "") + part.get("caption", ""))), None):
        return f"the mark {stray} stands alone"
    if any(part.get("caption") == "" for part in found):
        return "something is asked for without a word"
    return [part for part in found if part.get("text") != ""]


def dialogues(config: Dialogue, _context: LoadContext) -> Callable[..., dict[str, Any]]:
    """Make the function from dialogues, and the files that were found for what they ask, to rows."""

    def write(dialogue: list[Any], *looked: Any) -> dict[str, Any]:
        names, scores = looked[: len(MEDIA)], looked[len(MEDIA) :]
        rows = list[dict[str, Any]]()
        for row, talk in enumerate(dialogue):
            files = {name: _files(names[at], scores[at], row, config.least_score) for at, name in enumerate(MEDIA)}
            rows.append(_row(talk, files) | _learnt(talk, {str(name): said for name, said in config.signals.items()}))
        return {name: [row[name] for row in rows] for name in rows[0]}

    return write


def _files(names: Any, scores: Any, row: int, least: float) -> list[str | None]:
    """The file of each ask of a record; None where what was found is too far from what was asked for, or nothing was looked for."""
    found = [] if names is None else list(names[row])
    near = [None] * len(found) if scores is None else [float(score.max()) for score in scores[row]]
    return [name if score is None or score >= least else None for name, score in zip(found, near, strict=True)]


def _row(talk: Sequence[Said], files: Mapping[str, Sequence[str | None]]) -> dict[str, Any]:
    """A dialogue as messages, and as the published data hold it."""
    waiting = {name: iter(found) for name, found in files.items()}
    messages, published = list[dict[str, Any]](), list[dict[str, Any]]()
    shown: dict[str, list[str | None]] = {name: [] for name in MEDIA}
    for said in talk:
        content, asks = list[dict[str, Any]](), list[Part]()
        for part in said["parts"]:
            if "text" in part:
                content.append({"type": "text", "text": part["text"]})
                continue
            medium, file = part["medium"], next(waiting[part["medium"]], None)
            asks.append(part)
            shown[medium].append(file)
            content.append({"type": "text", "text": f"<{medium}>"} if file is None else {"type": medium, medium: file})
        messages.append({"role": said["role"], "content": content})
        published.append(_published(said, asks))
    captions = {f"{name}_captions": [part["caption"] for part in asked(talk, name)] for name in MEDIA}
    return {"conversation": messages, "conversations": published, **captions, **{f"{name}_files": found for name, found in shown.items()}}


def _learnt(talk: Sequence[Said], signals: Mapping[str, str]) -> dict[str, Any]:
    """All before the last answer as messages, and that answer; signals stand where something is asked for."""
    texts = [" ".join(part.get("text") or signals[part["medium"]] for part in said["parts"]) for said in talk]
    before = [{"role": said["role"], "content": [{"type": "text", "text": text}]} for said, text in zip(talk[:-1], texts[:-1], strict=True)]
    captions = {f"answer_{name}_captions": [part["caption"] for part in asked(talk[-1:], name)] for name in MEDIA}
    return {"prompt": before, "answer": texts[-1] if texts else "", **captions}


def _published(said: Said, asks: Sequence[Part]) -> dict[str, Any]:
    """A turn as in the published files: what it asks for is a mark in its words, and told beside them."""
    words = " ".join(part.get("text") or f"<{part['medium']}>" for part in said["parts"])
    if said["role"] == "user":
        return {"from": "human", "value": words, "input_modality": "text"}
    captions, media = [part["caption"] for part in asks], [part["medium"] for part in asks]
    one = len(asks) == 1
    told: dict[str, Any] = {"caption": captions[0] if one else captions, "output_modality": media[0] if one else media}
    return {"from": "gpt", "value": words, **(told if asks else {"output_modality": "text"})}


def _short(text: str) -> str:
    line = " ".join(text.split())
    return repr(line if len(line) <= 60 else f"{line[:60]}...")
