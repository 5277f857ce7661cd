"""Models of the Hugging Face hub at the commit that is meant, and folders of this machine by what they
hold."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from model_code.errors import DataError

_SAMPLES, _SAMPLE_BYTES = 64, 1 << 16
_TOLD = 300  # characters of a library's error


class Named(Protocol):
    """A choice of a city's YAML: a model of the hub with its commit, or an absolute folder."""

    @property
    def model(self) -> str:
        """Its name, or the folder."""

    @property
    def revision(self) -> str | None:
        """The commit; None of a folder."""


def revision_of(choice: Named) -> str:
    """The commit of a model of the hub, or the stamp of a folder."""
    folder = Path(choice.model).expanduser()
    return stamp(folder) if folder.is_absolute() else str(choice.revision)


def name_of(choice: Named) -> str:
    """The name by which rows know a model: of a folder the last part, whichever machine it is on."""
    folder = Path(choice.model).expanduser()
    return folder.name if folder.is_absolute() else choice.model


def place_of(choice: Named) -> str:
    """What `from_pretrained` takes first: a name of the hub, or a folder in full."""
    folder = Path(choice.model).expanduser()
    return str(folder) if folder.is_absolute() else choice.model


def source_of(choice: Named) -> dict[str, Any]:
    """Arguments of `from_pretrained`, beside its first: a hub's model at its commit, a folder without
    the network. `trust_remote_code=False` is written at every call: without it transformers asks at
    the terminal."""
    local = Path(choice.model).expanduser().is_absolute()
    return {"local_files_only": True} if local else {"revision": choice.revision}


def stamp(folder: Path) -> str:
    """What tells a folder of weights from another: names and sizes of its files, small ones in full, of
    large ones parts from all over. New weights differ everywhere.

    Raises:
        DataError: there is no such folder.
    """
    if not folder.is_dir():
        raise DataError(
            f"there is no folder of a model at {folder}",
            fix="mend the key `model`; want what `save_pretrained` writes, or a name of the hub",
        )
    found = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        size = path.stat().st_size
        found.update(f"{path.relative_to(folder)}:{size}\n".encode())
        step = max(_SAMPLE_BYTES, size // _SAMPLES)
        with path.open("rb") as file:
            for start in range(0, size, step):
                file.seek(start)
                found.update(file.read(_SAMPLE_BYTES))
            file.seek(max(0, size - _SAMPLE_BYTES))
            found.update(file.read())
    return found.hexdigest()[:16]


def fetching(name: str, revision: str | None) -> str:
    """The command that fetches all of a commit."""
    return f"hf download {name} --revision {revision}"


def not_loaded(choice: Named, key: str, error: Exception, otherwise: str) -> DataError:
    """A model that a library did not load: of the hub it may not have been reached.

    Args:
        key: of the config, that the error names.
        otherwise: what to change where the files are there.
    """
    said = " ".join(str(error).split())[:_TOLD] or type(error).__name__
    fix = otherwise
    if not Path(choice.model).expanduser().is_absolute():
        fix = (
            f"where the hub is not reached, fetch it beforehand (`{fetching(choice.model, choice.revision)}`) "
            f"into HF_HOME, or give an absolute folder in {key}; else {otherwise}"
        )
    return DataError(f"{key}: {name_of(choice)} cannot be loaded ({said})", fix=fix)


def snapshot(
    name: str,
    revision: str,
    key: str,
    *,
    only: Sequence[str] | None = None,
    never: Sequence[str] | None = None,
    offline: bool = False,
) -> Path:
    """The folder in the hub's cache that holds a commit of a model; it is fetched unless it is there.

    Args:
        key: of the config, that an error names.
        only: patterns of the files that are wanted; `never` of those that are not.
        offline: nothing is fetched, as with HF_HUB_OFFLINE=1.
    Raises:
        DataError: it is not there, and cannot be fetched.
    """
    from httpx import HTTPError
    from huggingface_hub import constants, snapshot_download

    offline = offline or constants.HF_HUB_OFFLINE
    try:
        return Path(
            snapshot_download(
                name,
                revision=revision,
                allow_patterns=list(only) if only else None,
                ignore_patterns=list(never) if never else None,
                local_files_only=offline,
            )
        )
    except (OSError, ValueError, HTTPError) as error:
        why = "and nothing may be fetched" if offline else "and cannot be fetched"
        said = next(iter(str(error).strip().splitlines()), type(error).__name__)[:300]
        raise DataError(
            f"{key}: {name} at {revision} is not in the cache of the hub, {why} ({said})",
            fix="look at the name and the commit; without a network, fetch it beforehand "
            f"(`{fetching(name, revision)}`) into HF_HOME, or give an absolute folder",
        ) from error
