import numpy as np
import pytest

from model_code.geo.pixels import binary_column, slices


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_each_row_is_its_own_array_in_c_order(dtype):
    pictures = (np.arange(4 * 3 * 5 * 2).reshape(4, 3, 5, 2) % 251).astype(dtype)
    for given in (pictures, np.asfortranarray(pictures), pictures[::-1]):
        column = binary_column(given)
        assert [bytes(v.as_py()) for v in column] == [p.tobytes() for p in given]
    assert len(binary_column(pictures[:0])) == 0


def test_slices_hold_what_the_budget_allows_and_leave_out_nothing():
    assert list(slices(7, each=10, budget=30)) == [slice(0, 3), slice(3, 6), slice(6, 7)]
    assert list(slices(2, each=100, budget=30)) == [slice(0, 1), slice(1, 2)]  # one at least
    assert list(slices(5, each=0, budget=30)) == [slice(0, 5)]
    assert list(slices(0, each=1)) == []
