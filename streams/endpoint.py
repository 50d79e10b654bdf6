"""A worker's HTTP server: `GET /metrics` for Prometheus, and what its pipeline answers to `GET` and `POST`.

One request a connection, on a thread of its own, at most CONNECTIONS at once: who comes then waits to be accepted.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import socket
from typing import Any
from urllib.parse import parse_qs, unquote

import msgspec
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from engines.batcher import Closed, TooLate
from streams.records import Malformed
from streams.state.store import Unavailable

log = logging.getLogger("tapewatch.endpoint")

MAX_BODY = 256 * 1024  # bytes
CONNECTIONS = 64
PATIENCE = 10.0  # seconds that a client may take to send its request, and to read its answer

Answer = Callable[[bytes], Any]  # a body to a JSON value; raises Malformed, TooLate, Closed or Unavailable
Query = Mapping[str, Sequence[str]]
Lookup = Callable[[str, Query], Any]  # the path's end and the query to a JSON value; raises the same


class Endpoint:
    """The server; `posts` maps a path to its answer, `gets` the beginning of a path (`/things/`)."""

    def __init__(
        self,
        registry: CollectorRegistry,
        posts: Mapping[str, Answer],
        gets: Mapping[str, Lookup] | None = None,
    ) -> None:
        routes = {"registry": registry, "posts": dict(posts), "gets": dict(gets or {})}
        self._handler = type("Handler", (_Handler,), routes)
        self._server: _Server | None = None

    def serve(self, host: str, port: int) -> str:
        """Serve in a thread; port 0 takes a free one. Returns host:port, raises OSError when the port is taken."""
        self._server = _Server((host, port), self._handler)
        threading.Thread(target=self._server.serve_forever, name="http", daemon=True).start()
        return f"{host}:{self._server.server_address[1]}"

    def close(self) -> None:
        """Take no more requests."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128  # the backlog: Python's 5 resets callers who come at once

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self._places = threading.BoundedSemaphore(CONNECTIONS)
        super().__init__(address, handler)

    def process_request(self, request: socket | tuple[bytes, socket], client_address: Any) -> None:
        self._places.acquire()  # a full house accepts nobody: clients wait in the kernel's backlog
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._places.release()
            raise

    def process_request_thread(self, request: socket | tuple[bytes, socket], client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: socket | tuple[bytes, socket], client_address: Any) -> None:  # noqa: ARG002
        log.debug("a client went away: %s", client_address, exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    registry: CollectorRegistry
    posts: Mapping[str, Answer]
    gets: Mapping[str, Lookup]
    timeout = PATIENCE
    server_version = "tapewatch"
    sys_version = ""

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        for start, lookup in self.gets.items():
            if path.startswith(start):
                self._answer(partial(lookup, unquote(path.removeprefix(start)), parse_qs(query)))
                return
        if path != "/metrics":
            self._say(404, f"no {self.path[:200]} here; there is {', '.join(('/metrics', *self.gets))}")
            return
        encode, kind = choose_encoder(self.headers.get("Accept") or "")
        self._send(200, kind, encode(self.registry))

    def do_POST(self) -> None:
        answer = self.posts.get(self.path.partition("?")[0])
        if answer is None:
            self._say(404, f"no {self.path[:200]} here; there is {', '.join(self.posts) or '/metrics'}")
            return
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()):
            self._say(411, "Content-Length is missing")
        elif int(length) > MAX_BODY:
            self._say(413, f"the body has {length} bytes, at most {MAX_BODY} are taken")
        else:
            self._answer(partial(answer, self.rfile.read(int(length))))

    def _answer(self, answer: Callable[[], Any]) -> None:
        try:
            value = answer()
        except Malformed as error:
            self._say(400, str(error))
        except (TooLate, Closed, Unavailable) as error:
            self._say(503, str(error))
        except Exception as error:
            log.warning("%s %s failed: %s", self.command, self.path[:200], error)
            self._say(500, f"{type(error).__name__}: {error}")
        else:
            self._send(200, "application/json", msgspec.json.encode(value))

    def _say(self, status: int, error: str) -> None:
        self._send(status, "application/json", msgspec.json.encode({"error": " ".join(error.split())}))

    def _send(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """A worker's log is of what happens to its records."""
