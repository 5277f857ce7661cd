from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from resources import rows
from resources.lake import Lake, bytes_writer
from resources.rows import RowStore


@pytest.fixture(params=["folder", "memory"])
def lake(request: pytest.FixtureRequest, tmp_path: Path) -> Lake:
    return Lake(str(tmp_path) if request.param == "folder" else f"memory://{tmp_path}")


def store(lake: Lake, said: list[str] | None = None, *, tidies: bool = True) -> RowStore:
    warn = (said if said is not None else []).append
    return RowStore(lake, "town", "captions", "texts", warn, tidies=tidies)


def frame(**texts: str) -> pd.DataFrame:
    return pd.DataFrame({"text": list(texts.values())}, index=pd.Index(list(texts)))


def test_kept_rows_are_found_by_key_in_another_process(lake: Lake) -> None:
    assert store(lake).known(["a"]).empty
    first = store(lake)
    first.add(frame(a="one", b="two"))
    first.add(frame(c="three"))
    found = store(lake).known(["c", "a", "x"])
    assert found["text"].to_dict() == {"a": "one", "c": "three"}
    assert first.known(["b"])["text"].tolist() == ["two"]


def test_rows_outlive_a_new_version_of_the_asset_and_go_with_the_city(lake: Lake) -> None:
    store(lake).add(frame(a="one"))
    for content in (b"1", b"2"):
        staged = lake.stage("town", "captions", {"x.bin": bytes_writer(content)})
        lake.commit(staged, fingerprint=content.decode())
    assert len(store(lake).known(["a"])) == 1
    lake.remove("town")
    assert store(lake).known(["a"]).empty


def test_a_damaged_shard_is_said_and_costs_its_rows_alone(tmp_path: Path) -> None:
    lake, said = Lake(str(tmp_path)), list[str]()
    store(lake).add(frame(a="one"))
    (shard,) = (tmp_path / "town" / "captions" / "rows" / "texts").iterdir()
    store(lake).add(frame(b="two"))
    shard.write_bytes(shard.read_bytes()[:-9])
    assert list(store(lake, said).known(["a", "b"]).index) == ["b"]
    assert len(said) == 1 and str(shard) in said[0]


def test_many_shards_become_one_in_the_process_that_tidies(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "_MANY", 3)
    folder = f"{lake.folder('town', 'captions')}/rows/texts"

    def shards() -> int:
        lake.fs.invalidate_cache()
        return len(lake.fs.ls(folder))

    keys = [f"k{i}" for i in range(5)]
    member, leader = store(lake, tidies=False), store(lake)
    for key in keys:
        member.add(frame(**{key: key}))
    assert len(member.known(keys)) == 5 and shards() == 5
    assert len(leader.known(keys)) == 5 and shards() == 1
    # The member reads on, whatever became of the shards that it knew.
    assert len(member.known(keys)) == 5
    assert len(store(lake, tidies=False).known(keys)) == 5


def test_what_another_process_adds_is_seen_and_each_shard_read_once(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = store(lake), store(lake)
    assert len(first.known(["a", "b"])) == 0
    read: list[str] = []
    whole = RowStore._read
    monkeypatch.setattr(
        RowStore, "_read", lambda self, path: read.append(path) or whole(self, path)
    )
    second.add(frame(a="one"))
    assert list(first.known(["a", "b"]).index) == ["a"]
    second.add(frame(b="two"))
    assert sorted(first.known(["a", "b"]).index) == ["a", "b"]
    assert len(read) == len(set(read)) == 2


def test_rows_that_are_added_one_by_one_are_seldom_moved(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved: list[int] = []
    whole = rows._joined

    def counting(parts: list[pd.DataFrame]) -> pd.DataFrame:
        moved.append(sum(map(len, parts)))
        return whole(parts)

    monkeypatch.setattr(rows, "_joined", counting)
    kept, keys = store(lake, tidies=False), [f"k{i:03d}" for i in range(128)]
    for key in keys:
        kept.add(frame(**{key: key}))
    assert sum(moved) <= 128 * 7  # log2(128); all rows at every add would be 8,256
    found = kept.known([*keys[::-1], "x"])
    assert found["text"].to_dict() == {key: key for key in keys}
    assert kept.rows().sort_index()["text"].tolist() == keys


def test_the_row_of_a_key_is_the_first_that_was_kept(lake: Lake) -> None:
    kept = store(lake)
    kept.add(frame(a="one", b="two"))
    for text in ("other", "again", "more"):
        kept.add(pd.DataFrame({"text": [text] * 3}, index=["a", "c", "c"]))
    assert kept.known(["a", "c"])["text"].to_dict() == {"a": "one", "c": "other"}
    assert kept.rows()["text"].to_dict() == {"a": "one", "b": "two", "c": "other"}
    assert kept.known([]).columns.tolist() == ["text"]
