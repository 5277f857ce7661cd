"""Models of the Hugging Face hub on this machine, at the commit that is meant."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from model_code.errors import DataError


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
            fix="look at the name and the commit; without a network, fetch it beforehand (`hf download "
            f"{name} --revision {revision}`) into HF_HOME, or give an absolute folder",
        ) from error
