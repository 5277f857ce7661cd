"""Optional packages: which extra brings each, and one clear error when it is absent."""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType

from model_code.errors import MissingExtraError

# The package by which each extra of pyproject.toml is recognised.
PACKAGE_OF = {
    "vllm": "vllm",
    "sdxl": "diffusers",
    "mmseg": "mmseg",
    "text": "sentence_transformers",
    "ray": "ray",
    "postgres": "dagster_postgres",
    "dev": "pytest",
}


def installed(extra: str) -> bool:
    """Whether an extra's package can be imported; imports nothing."""
    return importlib.util.find_spec(PACKAGE_OF[extra]) is not None


def load(extra: str) -> ModuleType:
    """Import the package of an extra.

    Raises:
        MissingExtraError: it is not installed; names the extra and how to get it.
    """
    if not installed(extra):
        raise MissingExtraError(PACKAGE_OF[extra], extra)
    return importlib.import_module(PACKAGE_OF[extra])
