"""Weights of a hub: the hub's own client, and a server of ours that speaks its protocol."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from model_code.errors import DataError
from model_code.text.captioner_config import TransformersChoice
from resources.captioners import hub
from tests.tiny import ROOT

COMMIT = "c" * 40
FILES = {"config.json": b"{}", "model.safetensors": b"weights", "pytorch_model.bin": b"a pickle"}
PLAIN = {"config.json": b"{}", "pytorch_model.bin": b"a pickle"}
REPOSITORIES = {"small/vlm": FILES, "small/pickled": PLAIN}


class Hub(ThreadingHTTPServer):
    """Two models at one commit, and which files were sent."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
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
        for name, files in REPOSITORIES.items():
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
def serving() -> Iterator[Hub]:
    server = Hub()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


# The client reads where the hub is when it is imported.
ASKING = """
import json, sys
from model_code.errors import DataError
from model_code.text.captioner_config import VllmChoice
from resources.captioners import hub
for given in json.loads(sys.argv[1]):
    try:
        print(sorted(p.name for p in hub.folder(VllmChoice(kind="vllm", **given)).iterdir()))
    except DataError as error:
        print(" ".join(str(error).split()))
"""


def asked(home: Path, url: str, *choices: dict[str, Any]) -> list[str]:
    env = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "TRANSFORMERS_"))}
    env |= {
        "HF_ENDPOINT": url,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "1",
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-W", "ignore", "-c", ASKING, json.dumps(choices)]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return [line for line in done.stdout.splitlines() if line.strip()]


def test_a_commit_of_the_hub_is_fetched_once_and_then_needs_no_network(tmp_path: Path) -> None:
    vlm = {"model": "small/vlm", "revision": COMMIT}
    with serving() as server:
        closed, found, pickled, dummy, other = asked(
            tmp_path,
            server.url,
            {**vlm, "offline": True},
            vlm,
            {**vlm, "model": "small/pickled"},
            {**vlm, "model": "small/pickled", "dummy_weights": True},
            {**vlm, "revision": "d" * 40},
        )
        sent, url = list(server.sent), server.url
    assert "small/vlm at ccc" in closed and "nothing may be fetched" in closed
    assert found == "['config.json', 'model.safetensors']"
    assert "holds no safetensors" in pickled and dummy == "['config.json']"
    assert "captions.captioner.model: small/vlm at ddd" in other and "cannot be fetched" in other
    assert sorted(sent) == ["config.json", "config.json", "model.safetensors"]  # no pickle

    # The server is gone.
    again, offline, never = asked(
        tmp_path, url, vlm, {**vlm, "offline": True}, {**vlm, "model": "small/other"}
    )
    assert again == offline == found
    assert "captions.captioner.model: small/other at ccc" in never
    assert "hf download small/other --revision ccc" in never and "HF_HOME" in never


def test_a_folder_is_taken_as_it_is(tmp_path: Path) -> None:
    choice = TransformersChoice(kind="transformers", model=str(tmp_path))
    with pytest.raises(DataError, match=r"captions\.captioner\.model: .* holds no config\.json"):
        hub.folder(choice)
    (tmp_path / "config.json").write_text("{}")
    assert hub.folder(choice) == tmp_path
