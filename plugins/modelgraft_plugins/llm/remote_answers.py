"""What a server answered to llm/remote: a text, a refusal, or that it should be asked again."""

from __future__ import annotations

import email.utils
import http.client
import json
import ssl
import time
import urllib.error
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modelgraft_plugins.llm.remote import RemoteConfig

BUSY = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})  # of the server, or of what stands before it; 529 of some: overloaded
SHOWN = 200  # letters of an answer that are quoted
PASSING = (urllib.error.URLError, http.client.HTTPException, OSError)  # what a connection fails with
CUT = {
    "length": "the answer reached max_new_tokens and is cut",
    "content_filter": "a filter of the server cut the answer",
}  # finish_reason -> what is told


class Refused(Exception):
    """The server will not answer this, however often it is asked."""


class Unavailable(Exception):
    """The server may answer later: after_s seconds, as it says itself; 0 where it does not."""

    def __init__(self, text: str, after_s: float = 0.0) -> None:
        super().__init__(text)
        self.after_s = after_s


@dataclass(frozen=True, slots=True)
class Answer:
    """What was written, and what is odd about it; "" for nothing."""

    text: str
    remark: str = ""


def answer_of(content: bytes) -> Answer:
    """Read the body of an answer. Raises Refused for one that holds no text."""
    try:
        found = json.loads(content)
    except ValueError as error:  # bytes that are no UTF-8 too
        raise Refused(f"wanted an answer as JSON, found {quoted(content)}") from error
    choices = found.get("choices") if isinstance(found, Mapping) else None
    first = choices[0] if isinstance(choices, list) and choices else None
    message = first.get("message") if isinstance(first, Mapping) else None
    if not isinstance(message, Mapping):
        raise Refused(f"wanted an answer with choices[0].message, found {quoted(content)}")
    reason = first.get("finish_reason") if isinstance(first, Mapping) else None
    text = message.get("content")
    if not isinstance(text, str):
        why = message.get("refusal") or f"finish_reason is {reason!r}"
        raise Refused(f"the answer holds no text: {why}")
    return Answer(text.strip(), CUT.get(str(reason), ""))


def of_status(status: int, reason: str, content: bytes, after_s: float, config: RemoteConfig) -> Refused | Unavailable:
    """What an answer that is none means."""
    said = f"it answered {status} {reason}".rstrip() + (f": {text}" if (text := message_of(content)) else "")
    if status in BUSY:
        return Unavailable(said, after_s)
    if 300 <= status < 400:
        return Refused(f"{said}; redirects are not followed: name the address itself (url)")
    if status in (401, 403):
        return Refused(f"{said}; the key comes from {config.key_variable} in the environment")
    if status == http.client.NOT_FOUND:
        return Refused(f"{said}; url is where the interface begins, such as https://host/v1, and model a name that the server knows")
    return Refused(said)


def message_of(content: bytes) -> str:
    """The sentence of an error, as servers word it in JSON; or what else there is."""
    try:
        found: Any = json.loads(content)
    except ValueError:
        return quoted(content) if content.strip() else ""
    for key in ("error", "message", "detail"):
        if isinstance(found, Mapping) and key in found:
            found = found[key]
    return shortened(found if isinstance(found, str) else json.dumps(found))


def quoted(content: bytes) -> str:
    """The beginning of an answer in one line."""
    return repr(shortened(content.decode("utf-8", "replace")))


def shortened(text: str) -> str:
    """A text in one line, and not a long one."""
    line = " ".join(text.split())
    return line if len(line) <= SHOWN else f"{line[:SHOWN]}..."


def pause_of(headers: Mapping[str, str]) -> float:
    """How many seconds a server asks to wait, by a number or a date; 0 where it does not."""
    said = (headers.get("Retry-After") or "").strip()
    if said.isdecimal():
        return float(said)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(said).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return 0.0


def told(error: Exception, timeout_s: float) -> Refused | Unavailable:
    """What a failed connection means: another try is no use where a certificate is wrong."""
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(reason, ssl.SSLCertVerificationError):
        return Refused(f"its certificate cannot be trusted: {reason.verify_message}")
    if isinstance(reason, TimeoutError):
        return Unavailable(f"no answer within {timeout_s:g} s (timeout_s)")
    words = getattr(reason, "strerror", None) or str(reason)  # OSError has one, or none
    return Unavailable(
        f"it cannot be reached: {type(reason).__name__}: {words}" if words else f"it cannot be reached: {type(reason).__name__}"
    )
