"""The work of llm/remote: requests to a server, some at a time, each tried again when the server is busy.

Nothing beyond the standard library. Only http and https are spoken, redirects are not followed: a key goes nowhere but to the server that
was named. Proxies are those of the environment.
"""

from __future__ import annotations

import http.client
import json
import os
import queue
import threading
import urllib.error
import urllib.request
import zlib
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from modelgraft.plugin import InputError, LoadContext, NodeRuntime, Problem, SourceError
from modelgraft_plugins.llm.remote import MODEL, ROLES, URL, complaint, origin
from modelgraft_plugins.llm.remote_answers import (
    PASSING,
    Answer,
    Refused,
    Unavailable,
    answer_of,
    of_status,
    pause_of,
    told,
)

if TYPE_CHECKING:
    from modelgraft_plugins.llm.remote import RemoteConfig

LONGEST_BYTES = 32 << 20  # of an answer: a text of a million tokens has some megabytes
PIECE_BYTES = 64 << 10
LONGEST_PAUSE_S = 60.0  # between two tries, whatever the server asks for
LOOK_S = 0.05  # how often it is asked whether the run goes on
HERE = ("localhost", "127.0.0.1", "::1")


def load(config: RemoteConfig, context: LoadContext) -> Remote:
    """Find out which server and model are meant. Raises SourceError where nothing says it, or while offline."""
    node = context.node.name
    url, model = config.url or os.environ.get(URL, ""), config.model or os.environ.get(MODEL, "")
    found, hint = "", "name a server that has the chat interface of OpenAI"
    if not url:
        found, hint = f"{node} asks a server, and nothing says which", f"set {node}.url, or {URL} in the environment"
    elif config.url is None and (wrong := complaint(url)):
        found = f"{node}: {URL}: {wrong}"
    elif not model:
        found, hint = f"{node} asks a server, and nothing says for which model", f"set {node}.model, or {MODEL} in the environment"
    elif context.offline and urlsplit(url).hostname not in HERE:
        found, hint = f"{node} asks {origin(url)}, and this run is offline", "take a model of this machine, such as llm/causal"
    if found:
        raise SourceError(Problem("source-not-found", found, context.node.place, hint, node=node))
    return Remote(config, node=node, url=url, model=model, key=os.environ.get(config.key_variable, ""))


class Stopped(Exception):
    """The run ended while a request waited."""


class Remote:
    """Asks the server; may be called by several runs at a time."""

    def __init__(self, config: RemoteConfig, *, node: str, url: str, model: str, key: str) -> None:
        self.config, self.node, self.model, self._key = config, node, model, key
        parts = urlsplit(url)
        self.host = origin(url)
        self._url = urlunsplit(parts._replace(path=parts.path.rstrip("/") + "/chat/completions", fragment=""))
        self._opener = opener()
        self._owed: dict[str, deque[Answer]] = defaultdict(deque)  # answers of a batch that failed: its records are asked once more alone
        self._lock = threading.Lock()
        self.runtime: NodeRuntime | None = None

    @property
    def warnings(self) -> list[str]:
        """That words leave this machine, and whether a key does so for everybody to read."""
        parts = urlsplit(self._url)
        found = [] if parts.hostname in HERE else [f"{self.node}: all that its prompts are made of is sent to {self.host}"]
        if self._key and parts.scheme == "http" and parts.hostname not in HERE:
            found.append(f"{self.node}: the key in {self.config.key_variable} goes to {self.host} unencrypted: take https://")
        return found

    def bind(self, runtime: NodeRuntime) -> None:
        """Take what tells whether a run goes on."""
        self.runtime = runtime

    def __call__(self, *values: Sequence[Any]) -> list[str]:
        """Give an answer for each record. Raises InputError for the first that has none, with the reason."""
        count = len(values[0]) if values else 1
        bodies = [self._body([value[row] for value in values]) for row in range(count)]
        answers = self._all(bodies)
        for row, answer in enumerate(answers):
            if answer.remark and self.runtime is not None:
                where = f", record {self.runtime.record(row) + 1}" if count > 1 else ""
                self.runtime.emit("warning", text=f"{self.node}{where}: {answer.remark}")
        return [answer.text for answer in answers]

    def _body(self, values: Sequence[Any]) -> str:
        """The request of one record, as JSON with a fixed order of keys."""
        config = self.config
        messages = self._messages(values)
        body: dict[str, Any] = {"model": self.model, "messages": messages, config.length_key: config.max_new_tokens}
        body["temperature"] = config.temperature
        if config.top_p is not None:
            body["top_p"] = config.top_p
        if config.stop:
            body["stop"] = [*config.stop]
        if config.sends_seed and config.temperature > 0:
            seed = 0 if self.runtime is None else self.runtime.node_seed()
            body["seed"] = zlib.crc32(f"{seed} {json.dumps(messages)}".encode()) & 0x7FFFFFFF
        return json.dumps({**body, **config.more})

    def _messages(self, values: Sequence[Any]) -> list[dict[str, str]]:
        """What is said, by role."""
        by_name = dict(zip((field.name for field in self.config.fields), values, strict=True))
        begin = [{"role": "system", "content": self.config.system}] if self.config.system is not None else []
        talks = [name for name, value in by_name.items() if not isinstance(value, str)]
        if not talks:
            said = "".join(piece if isinstance(piece, str) else by_name[piece.name] for piece in self.config.pieces)
            return [*begin, {"role": "user", "content": said}]
        if len(self.config.pieces) > 1:
            raise InputError(
                f"{self.node}: {{{talks[0]}}} is a conversation, which must be all of the prompt: it is {self.config.prompt!r}"
            )
        return [*begin, *(self._message(message) for message in by_name[talks[0]])]

    def _message(self, message: Mapping[str, Any]) -> dict[str, str]:
        role, content = message["role"], message["content"]
        if role not in ROLES:
            raise InputError(f"{self.node}: a message is by {role!r}; servers take {', '.join(ROLES)}")
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        if media := [part["type"] for part in parts if part["type"] != "text"]:
            raise InputError(f"{self.node}: a message shows {media[0]}, and words alone are sent: put chat/words before it")
        return {"role": role, "content": " ".join(part["text"] for part in parts)}

    def _all(self, bodies: Sequence[str]) -> list[Answer]:
        """Ask for all of them, some at a time; in their order."""
        stop, done = threading.Event(), queue.SimpleQueue[tuple[int, Answer | Exception]]()
        waiting = queue.SimpleQueue[tuple[int, str]]()
        for item in enumerate(bodies):
            waiting.put(item)

        def work() -> None:
            while not stop.is_set():
                try:
                    number, body = waiting.get_nowait()
                except queue.Empty:
                    return
                try:
                    done.put((number, self._owes(body) or self._ask(body, stop)))
                except Exception as error:  # noqa: BLE001 it is raised again by whoever waits
                    done.put((number, error))

        for _ in range(min(self.config.at_once, len(bodies))):  # daemons: an answer that nobody waits for keeps no process alive
            threading.Thread(target=work, name="modelgraft-remote", daemon=True).start()
        try:
            found = self._gathered(done, len(bodies))
        finally:
            stop.set()
        return self._whole(bodies, found)

    def _gathered(self, done: queue.SimpleQueue[tuple[int, Answer | Exception]], total: int) -> dict[int, Answer | Exception]:
        found: dict[int, Answer | Exception] = {}
        while len(found) < total:
            if self.runtime is not None:
                self.runtime.check()
            try:
                number, outcome = done.get(timeout=LOOK_S)
            except queue.Empty:
                continue
            found[number] = outcome
            if self.runtime is not None and total > 1:
                self.runtime.emit("progress", done=len(found), total=total)
        return found

    def _whole(self, bodies: Sequence[str], found: Mapping[int, Answer | Exception]) -> list[Answer]:
        """The answers; where one is none, the others are kept for when their records are asked alone."""
        answers, failed = list[Answer](), list[Exception]()
        for number in range(len(bodies)):
            outcome = found[number]
            (answers if isinstance(outcome, Answer) else failed).append(outcome)  # type: ignore[arg-type]  # one list of each
        if not failed:
            return answers
        if len(bodies) > 1:
            with self._lock:
                for number, body in enumerate(bodies):
                    if isinstance(outcome := found[number], Answer):
                        self._owed[body].append(outcome)
        first = failed[0]
        if isinstance(first, Refused):
            raise InputError(f"{self.node}: {self.host}: {first}") from first
        raise first

    def _owes(self, body: str) -> Answer | None:
        """An answer that was given already, to a batch that failed; each is given once."""
        with self._lock:
            owed = self._owed.get(body)
            answer = owed.popleft() if owed else None
            if owed is not None and not owed:
                del self._owed[body]
            return answer

    def _ask(self, body: str, stop: threading.Event) -> Answer:
        """One answer, after some tries. Raises Refused, or Unavailable after the last."""
        for tried in range(self.config.retries + 1):
            try:
                return answer_of(self._post(body))
            except Unavailable as error:
                if tried == self.config.retries:
                    times = "once" if tried == 0 else f"{tried + 1} times"
                    raise Refused(f"{self._hidden(str(error))} (asked {times})") from error
                pause = max(error.after_s, self.config.pause_s * 2**tried)
            except Refused as error:
                raise Refused(self._hidden(str(error))) from None
            if stop.wait(min(pause, LONGEST_PAUSE_S)):
                raise Stopped
        raise AssertionError("the last try gives or raises")

    def _hidden(self, text: str) -> str:
        """A text without the key, which some servers repeat."""
        return text.replace(self._key, "***") if self._key else text

    def _post(self, body: str) -> bytes:
        """Send a request, and read all of the answer within the time. Raises Unavailable, or Refused where another try is no use."""
        headers = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "modelgraft"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        request = urllib.request.Request(self._url, body.encode(), headers, method="POST")  # noqa: S310 http or https, by `complaint`
        try:
            with self._opener.open(request, timeout=self.config.timeout_s) as response:
                if response.status != http.client.OK:
                    raise of_status(response.status, response.reason, response.read(PIECE_BYTES), pause_of(response.headers), self.config)
                return self._read(response)
        except TimeoutError as error:
            raise Unavailable(f"no answer within {self.config.timeout_s:g} s (timeout_s)") from error
        except PASSING as error:
            raise told(error, self.config.timeout_s) from error

    def _read(self, response: http.client.HTTPResponse) -> bytes:
        """The whole of an answer. A server that gives it byte by byte has no more time than one that is silent."""
        import time

        ends, found = time.monotonic() + self.config.timeout_s, bytearray()
        while piece := response.read1(PIECE_BYTES):
            found += piece
            if len(found) > LONGEST_BYTES:
                raise Refused(f"an answer of more than {LONGEST_BYTES >> 20} MiB")
            if time.monotonic() > ends:
                raise TimeoutError
        if response.length:  # fewer bytes came than were told of
            raise Unavailable(f"the answer broke off {response.length:,} bytes before its end")
        return bytes(found)


def opener() -> urllib.request.OpenerDirector:
    """What speaks http and https, through the proxies of the environment, and nothing else: no files, no redirects."""
    found = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.UnknownHandler(),
    ):
        found.add_handler(handler)
    return found
