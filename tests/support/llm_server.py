"""A server on this machine with the chat interface of OpenAI, which answers as a test says."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Say = Callable[[dict[str, Any], int], Any]  # a request and how many came before -> a text, (status, headers, bytes), or what to do


class Told:
    """What came in: bodies, and headers beside them; and how many were under way together at most."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.now = self.most = 0
        self.lock = threading.Lock()
        self.url = ""


@contextmanager
def served(say: Say) -> Iterator[Told]:
    """A server as long as the block lasts."""
    told = Told()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with told.lock:
                number = len(told.bodies)
                told.bodies.append(body)
                told.headers.append(dict(self.headers))
                told.paths.append(self.path)
                told.now += 1
                told.most = max(told.most, told.now)
            try:
                found = say(body, number)
            finally:
                with told.lock:  # before it is sent: who has the answer asks again at once
                    told.now -= 1
            try:
                if callable(found):
                    found(self)
                    return
                status, headers, content = found if isinstance(found, tuple) else (200, {}, answer(found))
                self.send_response(status)
                for name, value in {"Content-Length": str(len(content)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)
            except OSError:
                pass  # who asked has left

        def log_message(self, *_args: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    told.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield told
    finally:
        server.shutdown()
        server.server_close()


def answer(text: str | None, *, reason: str = "stop") -> bytes:
    """The body of an answer."""
    return json.dumps({"choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": reason}]}).encode()


def drip(handler: Any) -> None:
    """Begin an answer, and give a byte of it every now and then."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    for _ in range(200):
        handler.wfile.write(b" ")
        handler.wfile.flush()
        time.sleep(0.05)


def break_off(handler: Any) -> None:
    """Give less than was promised."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b"{")
    handler.close_connection = True
