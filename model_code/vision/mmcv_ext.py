"""A stand-in for mmcv's compiled operators, where only mmcv-lite is installed.

`mmseg.apis` imports modules that look for operators in `mmcv._ext`, whether a model uses them or not.
Most segmenters use none.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any, NoReturn

_NAME = "mmcv._ext"


class _Operators(ModuleType):
    """Every name is an operator that says, once it is called, that it is not there."""

    def __getattr__(self, name: str) -> Callable[..., NoReturn]:
        if name.startswith("__"):  # what Python itself asks a module
            raise AttributeError(name)

        def absent(*args: Any, **kwargs: Any) -> NoReturn:
            raise NotImplementedError(
                f"this model needs mmcv's compiled operator {name!r}, which mmcv-lite does not have\n"
                "  fix: install full mmcv below 2.2 in place of mmcv-lite (`uv pip uninstall "
                "mmcv-lite`, then `uv pip install --no-build-isolation 'mmcv>=2.1,<2.2'`, which "
                "compiles it), or take a model without it"
            )

        return absent


def ensure() -> bool:
    """Register the stand-in where the real module is absent; whether it stands in."""
    if _NAME not in sys.modules and importlib.util.find_spec(_NAME) is None:
        package = importlib.import_module("mmcv")
        sys.modules[_NAME] = module = _Operators(_NAME)
        vars(package)["_ext"] = module
    return isinstance(sys.modules.get(_NAME), _Operators)
