"""What is said when a disk is full."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from model_code.errors import LakeWriteError

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


@contextlib.contextmanager
def writing(city: str, asset: str, where: Path | str) -> Iterator[None]:
    """Guards whatever writes for an asset of a city: the lake's versions, and what is kept on the
    way to them.

    Raises:
        LakeWriteError: the disk is full, or may not be written.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        raise LakeWriteError(
            f"cannot write {asset!r} of city {city!r} to {where}: {error.strerror or error}",
            fix="free some space there, or set $CITYLOOM_LAKE to another folder; what stood before "
            "is kept",
        ) from error
