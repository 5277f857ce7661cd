"""A real HTTP server that speaks /v1/chat/completions, and misbehaves as it is told."""

from __future__ import annotations

import json
import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

LEVELS = json.dumps({"land": "homes and shops", "activity": 40, "departures": [0.5] * 24})
FAULTS = (
    "busy", "broken", "slow", "truncated", "wrong_schema", "reset", "empty", "no_protocol", "chatty",
)  # fmt: skip


class FaultyServer(ThreadingHTTPServer):
    """Notes every request; `fault` says of each (by its number and body) how it goes wrong.

    Attributes:
        requests: bodies in the order of their arrival, with the time of each and the fault it met.
        keys: what came as Authorization.
        most: requests that were under way at one time.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, fault: Callable[[int, dict[str, Any]], str]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.fault = fault
        self.requests: list[tuple[float, dict[str, Any], str]] = []
        self.keys: set[str] = set()
        self.most = self._now = 0
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def met(self) -> Counter[str]:
        """How often each fault was met."""
        return Counter(fault for *_, fault in self.requests)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hung up is what a test wants to see."""

    @contextmanager
    def under_way(self) -> Iterator[None]:
        with self.lock:
            self._now += 1
            self.most = max(self.most, self._now)
        yield
        with self.lock:
            self._now -= 1


class _Handler(BaseHTTPRequestHandler):
    server: FaultyServer
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.under_way():
            with self.server.lock:
                number = len(self.server.requests)
                fault = self.server.fault(number, body)
                self.server.requests.append((time.monotonic(), body, fault))
                self.server.keys.add(self.headers.get("Authorization", ""))
            time.sleep(0.005)
            getattr(self, f"_{fault}" if fault else "_answer")(body)

    def _send(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def _said(self, text: str, reason: str = "stop") -> bytes:
        return json.dumps({
            "id": "x", "object": "chat.completion", "created": 0, "model": "m",
            "choices": [{
                "index": 0, "finish_reason": reason, "message": {"role": "assistant", "content": text},
            }],
            "usage": {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120},
        }).encode()  # fmt: skip

    def _answer(self, body: dict[str, Any]) -> None:
        text = f"A street with trees and houses, number {body['seed']}."
        self._send(200, self._said(LEVELS if "response_format" in body else text))

    def _busy(self, body: dict[str, Any]) -> None:
        self._send(429, b'{"error": {"message": "slow down"}}', {"Retry-After": "0.2"})

    def _broken(self, body: dict[str, Any]) -> None:
        self._send(500, b"<html>oops</html>")

    def _slow(self, body: dict[str, Any]) -> None:
        time.sleep(3.0)
        self._answer(body)

    def _truncated(self, body: dict[str, Any]) -> None:
        self._send(200, self._said("A street")[:60])

    def _abort(self, body: dict[str, Any]) -> None:
        self._send(200, self._said("A street with trees. And hou", "abort"))

    def _error(self, body: dict[str, Any]) -> None:
        self._send(200, self._said("A street with trees. And hou", "error"))

    def _repetition(self, body: dict[str, Any]) -> None:
        self._send(200, self._said("A street, a street, a street.", "repetition"))

    def _no_protocol(self, body: dict[str, Any]) -> None:
        self._send(200, b'{"hello": "world"}')

    def _wrong_schema(self, body: dict[str, Any]) -> None:
        self._send(200, self._said('{"land": "homes", "activity": "very"}' if "response_format" in body
                                   else "It stands at 40.71234, -74.00601."))  # fmt: skip

    def _empty(self, body: dict[str, Any]) -> None:
        self._send(200, self._said("  "))

    def _chatty(self, body: dict[str, Any]) -> None:
        """Cut before the first sentence ends."""
        self._send(200, self._said("Here is what I see in", "length"))

    def _reset(self, body: dict[str, Any]) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def _poisoned(self, body: dict[str, Any]) -> None:
        self._send(400, b'{"error": {"message": "cannot decode the image"}}')

    def _forbidden(self, body: dict[str, Any]) -> None:
        self._send(403, b'{"error": {"message": "not for you"}}')

    def _unpaid(self, body: dict[str, Any]) -> None:
        self._send(402, b'{"error": {"message": "no credit"}}')

    def _nested(self, body: dict[str, Any]) -> None:
        """Deeper than the reader of JSON goes."""
        self._send(200, b"[" * 200_000)

    def _uncounted(self, body: dict[str, Any]) -> None:
        said = json.loads(self._said("A street with trees and houses."))
        self._send(200, json.dumps(said | {"usage": None}).encode())

    def _refused(self, body: dict[str, Any]) -> None:
        key = self.headers.get("Authorization", "")
        self._send(401, json.dumps({"error": {"message": f"wrong key: {key}"}}).encode())

    def _unknown(self, body: dict[str, Any]) -> None:
        self._send(404, b'{"error": {"message": "no such model"}}')


@contextmanager
def serving(
    fault: Callable[[int, dict[str, Any]], str] = lambda n, body: "",
) -> Iterator[FaultyServer]:
    """A server on a port of this machine, until the block ends."""
    server = FaultyServer(fault)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def now_and_then(share: float, seed: int = 0) -> Callable[[int, dict[str, Any]], str]:
    """Each request fails with a chance of `share`, in one of all ways."""
    rng = random.Random(seed)
    return lambda number, body: rng.choice(FAULTS) if rng.random() < share else ""
