from __future__ import annotations

from pathlib import Path

from tests.model_code.hub_server import COMMIT, run, serving

ASKING = """
from model_code.errors import DataError
from model_code.hub import snapshot
for name, how in given:
    try:
        found = snapshot(name, "c" * 40, "some.key", **how)
        print(sorted(path.name for path in found.iterdir()))
    except DataError as error:
        print(" ".join(str(error).split()))
"""
FILES = {"config.json": b"{}", "vocab.txt": b"a", "model.safetensors": b"weights"}


def test_only_what_is_wanted_is_fetched(tmp_path: Path) -> None:
    with serving({"a/b": FILES, "c/d": FILES}) as server:
        some, other, missing = run(
            tmp_path, server.url, ASKING,
            ("a/b", {"only": ["*.json", "*.txt"]}), ("c/d", {"never": ["*.txt"]}), ("e/f", {}),
        )  # fmt: skip
    assert some == "['config.json', 'vocab.txt']"
    assert other == "['config.json', 'model.safetensors']"
    assert sorted(server.sent) == ["config.json", "config.json", "model.safetensors", "vocab.txt"]
    assert missing.startswith(f"some.key: e/f at {COMMIT} is not in the cache of the hub")
    (told,) = run(tmp_path, server.url, ASKING, ("g/h", {"offline": True}))
    assert "nothing may be fetched" in told and f"hf download g/h --revision {COMMIT}" in told
