"""A server that speaks the protocol of the Hugging Face hub, for the hub's own client."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.tiny import ROOT

COMMIT = "c" * 40
Repositories = Mapping[str, Mapping[str, bytes]]  # of a model, what its files hold


class Hub(ThreadingHTTPServer):
    """Models at one commit, and which files were sent."""

    def __init__(self, repositories: Repositories) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.repositories = repositories
        self.sent: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Answers(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *given: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        for name, files in self.server.repositories.items():
            about = f"/api/models/{name}"
            if path in (f"{about}/revision/{COMMIT}", f"{about}/tree/{COMMIT}"):
                listed: Any = [
                    {"type": "file", "path": file, "size": len(content), "oid": _oid(content)}
                    for file, content in files.items()
                ]
                if "/revision/" in path:
                    siblings = [{"rfilename": file} for file in files]
                    listed = {"id": name, "modelId": name, "sha": COMMIT, "siblings": siblings}
                return self._answer(200, json.dumps(listed).encode())
            for file, content in files.items():
                if path == f"/{name}/resolve/{COMMIT}/{file}":
                    if self.command == "GET":
                        self.server.sent.append(file)
                    tags = {"ETag": f'"{_oid(content)}"', "X-Repo-Commit": COMMIT}
                    return self._answer(200, content, tags)
        self._answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})

    def _answer(self, status: int, content: bytes, more: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(more or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)


def _oid(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


@contextlib.contextmanager
def serving(repositories: Repositories) -> Iterator[Hub]:
    server = Hub(repositories)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def run(home: Path, url: str, code: str, *given: Any) -> list[str]:
    """Lines that code prints, with the hub at `url` and its cache at `home`; the client reads both when it is
    imported. What is given is in `given`."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "TRANSFORMERS_"))}
    env |= {
        "HF_ENDPOINT": url,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "1",
        "PYTHONPATH": str(ROOT),
    }
    code = f"import json, sys\ngiven = json.loads(sys.argv[1])\n{code}"
    command = [sys.executable, "-W", "ignore", "-c", code, json.dumps(given)]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return [line for line in done.stdout.splitlines() if line.strip()]
