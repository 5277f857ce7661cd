from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from model_code.errors import LakeWriteError
from resources.disk import writing


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS])
def test_no_room_is_told_with_the_city_the_asset_and_the_place(code: int, tmp_path: Path) -> None:
    with pytest.raises(LakeWriteError) as caught, writing("town", "pois", tmp_path):
        raise OSError(code, os.strerror(code))
    said = str(caught.value)
    assert "'pois'" in said and "'town'" in said and str(tmp_path) in said
    assert os.strerror(code) in said and "free some space" in caught.value.fix


def test_a_full_device_is_told(tmp_path: Path) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full here")
    with pytest.raises(LakeWriteError, match="No space left"), writing("town", "pois", tmp_path):  # noqa: SIM117
        with full.open("wb", buffering=0) as file:
            file.write(b"x")


@pytest.mark.parametrize("error", [FileNotFoundError(errno.ENOENT, "gone"), ValueError("else")])
def test_whatever_else_goes_wrong_stays_what_it_is(error: Exception, tmp_path: Path) -> None:
    with pytest.raises(type(error)) as caught, writing("town", "pois", tmp_path):
        raise error
    assert caught.value is error
