from __future__ import annotations

import importlib
import sys

import pytest

from model_code.vision import mmcv_ext


def test_an_operator_that_is_needed_names_itself_and_the_way_to_get_it() -> None:
    if not mmcv_ext.ensure():
        pytest.skip("full mmcv is installed")
    operators = importlib.import_module("mmcv._ext")
    with pytest.raises(NotImplementedError, match=r"'nms_rotated'.*mmcv-lite") as caught:
        operators.nms_rotated(1, threshold=0.5)
    assert "mmcv>=2.1,<2.2" in str(caught.value)
    assert not hasattr(operators, "__wrapped__")  # what Python asks is no operator


def test_a_real_module_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    real = type(sys)("mmcv._ext")
    monkeypatch.setitem(sys.modules, "mmcv._ext", real)
    assert not mmcv_ext.ensure()
    assert sys.modules["mmcv._ext"] is real
