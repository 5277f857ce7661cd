"""A real server of vLLM, of a model in a folder."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.tiny import ROOT

_WAIT_S = 1200  # an engine on a busy CPU imports and starts for minutes


@contextmanager
def vllm_serving(folder: Path, log: Path) -> Iterator[str]:
    """Its `base_url`; what it says is in the file `log`. The module is what `vllm serve` runs: the program
    of that name asks for the version of a package called vllm, which the build for CPUs is not."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable, "-W", "ignore", "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder),
        "--served-model-name", "m", "--host", "127.0.0.1", "--port", str(port), "--dtype", "float32",
        "--max-model-len", "512", "--max-num-seqs", "4", "--gpu-memory-utilization", "0.3",
        "--limit-mm-per-prompt", '{"image": 1}',
    ]  # fmt: skip
    with log.open("wb") as said:
        server = subprocess.Popen(command, stdout=said, stderr=said, cwd=ROOT, env=os.environ)
    try:
        _await(server, f"http://127.0.0.1:{port}/health", log)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        try:
            server.wait(timeout=60)
        except subprocess.TimeoutExpired:
            server.kill()
            raise


def _await(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    until = time.monotonic() + _WAIT_S
    while time.monotonic() < until:
        assert server.poll() is None, log.read_text()[-2000:]
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(1)
    raise TimeoutError(log.read_text()[-2000:])
